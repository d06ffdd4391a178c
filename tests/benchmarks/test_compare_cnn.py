"""Histograms against networks: pairs by their properties, costs with made-up contenders, the script as a whole."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from benchmarks.quality import compare_cnn, reference_costs, reference_pairs
from histcxr.data.manifest import read_manifest
from histcxr.exceptions import InputError
from histcxr.phantoms.studies import write_study
from histcxr.store import save_model
from histcxr.study.certify import Promise
from histcxr.study.cohort import Reading
from histcxr.study.network_train import ReferenceSettings, train_reference
from histcxr.study.train import train

pytest.importorskip("keras")

PROMISE = {"sensitivity": 0.8, "specificity": 0.8, "confidence": 0.8}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    data = write_study(folder / "study", n_patients=160, size=(64, 64), mask_size=(64, 64), seed=1)
    model = train(data, classifiers="knn", zones=1, trials=0, **PROMISE).best
    settings = ReferenceSettings("cnn3", size=32, epochs=1, held_out=0.0)
    network = train_reference(data, settings, Promise(**PROMISE)).model
    save_model(model, folder / "knn.histcxr")
    save_model(network, folder / "net.histcxr")
    models = {"h": model, "r": network}
    return SimpleNamespace(folder=folder, data=data, model=model, network=network, models=models)


def made_up(**scores):
    rng = np.random.default_rng(0)
    sick = np.arange(200) % 2 == 0
    patients = np.array([f"p{i}" for i in range(200)], dtype=object)
    values = {name: make(sick, rng) for name, make in scores.items()}
    return reference_pairs.Scores(values, sick, patients, pd.DataFrame(), [])


def test_the_better_model_leads_on_the_same_patients():
    scores = made_up(
        good=lambda sick, rng: rng.normal(3.0 * sick, 1), poor=lambda sick, rng: rng.normal(1.0 * sick, 1)
    )
    found = reference_pairs.paired_difference(scores, "good", "poor", sensitivity=0.9, draws=200)
    for kind in ("specificity", "auc"):
        gap = found[kind]["difference"]
        assert 0 < gap["low"] <= gap["value"] <= gap["high"]
    other = reference_pairs.paired_difference(scores, "poor", "good", sensitivity=0.9, draws=200)
    assert other["specificity"]["difference"]["value"] == -found["specificity"]["difference"]["value"]


def test_every_model_scores_the_same_images(home):
    manifest = read_manifest(home.data)
    test = manifest[manifest["split"] == "test"].reset_index(drop=True)
    scores = reference_pairs.score_all(test, home.models, Reading())
    assert len(scores.sick) == len(test) == len(scores.by_model["h"]) == len(scores.by_model["r"])
    assert scores.notes == []
    figures = reference_pairs.figures(scores, "r", sensitivity=0.95, draws=100)
    assert figures["auc"]["value"] == pytest.approx(home.network.metrics["test"]["auc"])


def test_patients_that_a_model_has_seen_are_left_out_for_all(home):
    manifest = read_manifest(home.data)
    scores = reference_pairs.score_all(manifest, home.models, Reading())
    assert set(scores.table["split"]) == {"test"}
    assert "whose patients a model was trained" in scores.notes[0]
    certified = reference_pairs.score_all(manifest, home.models, Reading(), certified=False)
    assert set(certified.table["split"]) == {"val", "test"}
    with pytest.raises(InputError, match="that the model has not seen"):
        reference_pairs.score_all(manifest[manifest["split"] == "train"], home.models, Reading())


def test_a_stack_weighs_what_each_knows():
    rng = np.random.default_rng(0)
    sick = np.arange(4000) % 2 == 1
    found = expit(rng.normal(np.where(sick, 1.0, -1.0)[:, None], [1.5, 3.0, 1e9], (4000, 3)))
    weights = reference_pairs.stack(found[:2000], sick[:2000])
    own = weights.coef_[0]
    assert own[0] > own[1] > 0
    assert abs(own[2]) < 0.05  # noise is worth nothing
    pair = reference_pairs.stack(found[:2000, :2], sick[:2000])
    names = {"a": found[2000:, 0], "b": found[2000:, 1]}
    scores = reference_pairs.Scores(names, sick[2000:], np.arange(2000).astype(object), pd.DataFrame(), [])
    both = scores.stacked("a + b", "a", "b", pair)
    areas = [
        reference_pairs.figures(both, name, sensitivity=0.9, draws=100)["auc"]["value"]
        for name in both.by_model
    ]
    assert areas[2] == max(areas)


def test_logits_are_finite_and_keep_the_order():
    ordered = reference_pairs.logits(np.array([0, 1e-12, 1e-7, 0.5, 1 - 1e-7, 1]))
    assert np.isfinite(ordered).all()
    assert (np.diff(ordered) > 0).all()


def test_the_picture_has_a_place_for_every_model(tmp_path):
    estimate = {"value": 0.8, "low": 0.7, "high": 0.9}
    rows = [
        {
            "model": name,
            "kind": name,
            "decoded_ms": 3.0,
            "specificity": None if name == "yardstick" else estimate,
        }
        for name in (*compare_cnn.KINDS, "yardstick")
    ]
    compare_cnn.draw(rows, 0.95, "about", str(tmp_path / "cost.svg"))
    drawn = (tmp_path / "cost.svg").read_text()
    assert "<!-- reference -->" in drawn
    assert "yardstick" not in drawn


def test_contenders_score_as_their_models_do(home):
    manifest = read_manifest(home.data).query("split == 'test'").iloc[:8].reset_index(drop=True)
    images = reference_costs.decode(list(zip(manifest["image"], manifest["mask"], strict=True)))
    scores = reference_pairs.score_all(manifest, home.models, Reading())
    contenders = (reference_costs.contender("h", home.model), reference_costs.contender("r", home.network))
    for contender in contenders:
        np.testing.assert_allclose(contender.score(images), scores.by_model[contender.name], atol=1e-6)


def test_a_dearer_model_shows_in_the_ratio(home):
    manifest = read_manifest(home.data).iloc[:4]
    files = list(zip(manifest["image"], manifest["mask"], strict=True))

    def sleeper(name, seconds):
        def score(images):
            time.sleep(seconds * len(images))
            return np.zeros(len(images))

        return reference_costs.Contender(name, score)

    rows = reference_costs.take_times(
        [sleeper("fast", 0.0005), sleeper("slow", 0.005)], files, rounds=3, seconds=0.05
    )
    assert rows[0]["images"] > rows[1]["images"]
    assert rows[0]["times_cheaper"] == pytest.approx(10, rel=0.5)
    assert rows[1]["times_cheaper"] == 1
    assert rows[0]["file_ms"] > rows[0]["decoded_ms"]


def test_training_seconds_belong_to_file_and_classifier(tmp_path):
    for name, seconds in (("zones", 3), ("bands", 70)):
        about = {"classifiers": {"svm": {"fit_seconds": seconds}, "knn": {"fit_seconds": 1}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(about))
    found = compare_cnn.training_seconds([tmp_path / "zones.json", tmp_path / "bands.json"])
    assert found["zones", "svm"] == 3
    assert found["bands", "svm"] == 70


@pytest.mark.all_networks  # half a minute; what it is made of is tested above
def test_the_script_as_a_whole(home, tmp_path):
    command = [sys.executable, "-m", "benchmarks.quality.compare_cnn", "--data", home.data]
    command += ["--histogram", home.folder / "knn.histcxr", "--reference", home.folder / "net.histcxr"]
    command += ["--yardstick", "cnn4@48", "--rounds", 1, "--seconds", 0.05, "--images", 8, "--draws", 100]
    command += ["--json", tmp_path / "compare.json", "--picture", tmp_path / "cost.png"]
    command += ["--elsewhere", home.data, "split=test"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "compare.json").read_text())
    knn, net, both, stick = said["models"]
    assert [one["kind"] for one in said["models"]] == ["histogram", "reference", "both", "yardstick"]
    assert both["model"] == "knn + net"
    assert both["bytes"] == knn["bytes"] + net["bytes"]
    (elsewhere,) = said["elsewhere"].values()
    assert [one["auc"] for one in elsewhere["models"]] == [one["auc"] for one in (knn, net, both)]
    assert (tmp_path / "cost.png").stat().st_size > 5000
    assert net["parameters"] == home.network.training["parameters"]
    assert net["training_seconds"] == home.network.training["seconds"]
    assert 50 << 20 < knn["peak_bytes"] < net["peak_bytes"]
    assert net["bytes"] > 3 * net["parameters"]  # single precision, packed
    assert stick["times_cheaper"] == 1
    assert knn["specificity"]["low"] <= knn["specificity"]["value"]
    gap = said["differences"][0]
    assert len(said["differences"]) == 3
    assert (gap["model"], gap["minus"]) == ("net", "knn")
    expected = net["specificity"]["value"] - knn["specificity"]["value"]
    assert gap["specificity"]["difference"]["value"] == pytest.approx(expected)
    assert "| knn " in done.stdout
