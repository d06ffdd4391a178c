"""Histograms against networks: pairs by their properties, costs with made-up contenders, the script as a whole."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from histcxr.data.manifest import read_manifest
from histcxr.exceptions import InputError
from histcxr.phantoms.studies import write_study
from histcxr.store import save_model
from histcxr.study.certify import Promise
from histcxr.study.network_train import ReferenceSettings, train_reference
from histcxr.study.train import train

pytest.importorskip("keras")

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = ("reference_pairs", "reference_costs", "compare_cnn")
PROMISE = {"sensitivity": 0.8, "specificity": 0.8, "confidence": 0.8}


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
        for name in NAMES:
            patched.delitem(sys.modules, name)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    data = write_study(folder / "study", n_patients=160, size=(64, 64), mask_size=(64, 64), seed=1)
    model = train(data, classifiers="knn", zones=1, trials=0, **PROMISE).best
    settings = ReferenceSettings("cnn3", size=32, epochs=1, held_out=0.0)
    network = train_reference(data, settings, Promise(**PROMISE)).model
    save_model(model, folder / "knn.histcxr")
    save_model(network, folder / "net.histcxr")
    return SimpleNamespace(folder=folder, data=data, model=model, network=network)


def made_up(bench, **scores):
    rng = np.random.default_rng(0)
    sick = np.arange(200) % 2 == 0
    patients = np.array([f"p{i}" for i in range(200)], dtype=object)
    values = {name: make(sick, rng) for name, make in scores.items()}
    return bench.reference_pairs.Scores(values, sick, patients, pd.DataFrame(), [])


def test_the_better_model_leads_on_the_same_patients(bench):
    scores = made_up(
        bench,
        good=lambda sick, rng: rng.normal(3.0 * sick, 1),
        poor=lambda sick, rng: rng.normal(1.0 * sick, 1),
    )
    found = bench.reference_pairs.paired_difference(scores, "good", "poor", sensitivity=0.9, draws=200)
    for kind in ("specificity", "auc"):
        gap = found[kind]["difference"]
        assert 0 < gap["low"] <= gap["value"] <= gap["high"]
    other = bench.reference_pairs.paired_difference(scores, "poor", "good", sensitivity=0.9, draws=200)
    assert other["specificity"]["difference"]["value"] == -found["specificity"]["difference"]["value"]


def test_every_model_scores_the_same_images(bench, home):
    manifest = read_manifest(home.data)
    test = manifest[manifest["split"] == "test"].reset_index(drop=True)
    scores = bench.reference_pairs.score_all(test, {"h": home.model}, {"r": home.network})
    assert len(scores.sick) == len(test) == len(scores.by_model["h"]) == len(scores.by_model["r"])
    assert scores.notes == []
    figures = bench.reference_pairs.figures(scores, "r", sensitivity=0.95, draws=100)
    assert figures["auc"]["value"] == pytest.approx(home.network.metrics["test"]["auc"])


def test_patients_that_a_model_has_seen_are_left_out_for_all(bench, home):
    manifest = read_manifest(home.data)
    scores = bench.reference_pairs.score_all(manifest, {"h": home.model}, {"r": home.network})
    assert set(scores.table["split"]) == {"test"}
    assert "whose patients a model was trained" in scores.notes[0]
    with pytest.raises(InputError, match="no model has seen"):
        bench.reference_pairs.score_all(manifest[manifest["split"] == "train"], {"h": home.model}, {})


def test_contenders_score_as_their_models_do(bench, home):
    manifest = read_manifest(home.data).query("split == 'test'").iloc[:8].reset_index(drop=True)
    images = bench.reference_costs.decode(list(zip(manifest["image"], manifest["mask"], strict=True)))
    scores = bench.reference_pairs.score_all(manifest, {"h": home.model}, {"r": home.network})
    contenders = (
        bench.reference_costs.contender("h", home.model),
        bench.reference_costs.contender("r", home.network),
    )
    for contender in contenders:
        np.testing.assert_allclose(contender.score(images), scores.by_model[contender.name], atol=1e-6)


def test_a_dearer_model_shows_in_the_ratio(bench, home):
    manifest = read_manifest(home.data).iloc[:4]
    files = list(zip(manifest["image"], manifest["mask"], strict=True))

    def sleeper(name, seconds):
        def score(images):
            time.sleep(seconds * len(images))
            return np.zeros(len(images))

        return bench.reference_costs.Contender(name, score)

    rows = bench.reference_costs.take_times(
        [sleeper("fast", 0.0005), sleeper("slow", 0.005)], files, rounds=3, seconds=0.05
    )
    assert rows[0]["images"] > rows[1]["images"]
    assert rows[0]["times_cheaper"] == pytest.approx(10, rel=0.5)
    assert rows[1]["times_cheaper"] == 1
    assert rows[0]["file_ms"] > rows[0]["decoded_ms"]


def test_training_seconds_belong_to_file_and_classifier(bench, tmp_path):
    for name, seconds in (("zones", 3), ("bands", 70)):
        about = {"classifiers": {"svm": {"fit_seconds": seconds}, "knn": {"fit_seconds": 1}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(about))
    found = bench.compare_cnn.training_seconds([tmp_path / "zones.json", tmp_path / "bands.json"])
    assert found["zones", "svm"] == 3
    assert found["bands", "svm"] == 70


def test_energy_is_read_where_the_machine_tells(bench, tmp_path):
    assert bench.reference_costs.read_energy(tmp_path) is None
    for name, value in (("intel-rapl:0", 900), ("intel-rapl:0:0", 5), ("intel-rapl:1", 100)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000\n")
    before = bench.reference_costs.read_energy(tmp_path)
    assert set(before) == {"intel-rapl:0", "intel-rapl:1"}
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("50\n")  # it began anew
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("300\n")
    after = bench.reference_costs.read_energy(tmp_path)
    assert bench.reference_costs.energy_between(before, after) == pytest.approx(350e-6)
    assert bench.reference_costs.energy_between(None, after) is None


def test_the_script_as_a_whole(home, tmp_path):
    command = [sys.executable, FOLDER / "compare_cnn.py", "--data", home.data]
    command += ["--histogram", home.folder / "knn.histcxr", "--reference", home.folder / "net.histcxr"]
    command += [
        "--yardstick",
        "cnn4@48",
        "--rounds",
        1,
        "--seconds",
        0.05,
        "--images",
        8,
        "--draws",
        100,
    ]
    command += ["--plot", tmp_path / "plot.png", "--json", tmp_path / "compare.json"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "compare.json").read_text())
    knn, net, stick = said["models"]
    assert (knn["kind"], net["kind"], stick["kind"]) == ("histogram", "reference", "yardstick")
    assert net["parameters"] == home.network.training["parameters"]
    assert net["training_seconds"] == home.network.training["seconds"]
    assert 50 << 20 < knn["peak_bytes"] < net["peak_bytes"]
    assert net["bytes"] > 3 * net["parameters"]  # single precision, packed
    assert stick["times_cheaper"] == 1
    assert knn["specificity"]["low"] <= knn["specificity"]["value"]
    (gap,) = said["differences"]
    assert (gap["model"], gap["minus"]) == ("net", "knn")
    expected = net["specificity"]["value"] - knn["specificity"]["value"]
    assert gap["specificity"]["difference"]["value"] == pytest.approx(expected)
    assert "| knn " in done.stdout
    assert (tmp_path / "plot.png").stat().st_size > 10_000
