"""Who is read: drawn by patient, counted, and certified only where chance alone drew them."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.stats import norm

import histcxr
from histcxr.commands import main
from histcxr.decision.thresholds import rule_out_threshold
from histcxr.exceptions import InputError
from histcxr.site.labelling import draw_labelling_list, draw_patients
from histcxr.site.plan import Aim
from histcxr.store import Model
from histcxr.study.certify import Promise, calibrate
from histcxr.study.train import train


@pytest.fixture(scope="module")
def study(phantoms):
    return phantoms.study(n_patients=90, size=(64, 64), mask_size=(80, 80))


@pytest.fixture(scope="module")
def data(study):
    return histcxr.read_manifest(study)


@pytest.fixture(scope="module")
def model(data):
    return train(data, classifiers=["knn"], zones=1, trials=0).best


def several(n):
    """A manifest of n patients with 1 to 3 images each, and a label that must not get into the list."""
    owner = np.repeat(np.arange(n), np.arange(n) % 3 + 1)
    return pd.DataFrame(
        {
            "image": [f"/images/{i}.png" for i in range(len(owner))],
            "mask": "",
            "label": "Normal",
            "patient_id": [f"p{i}" for i in owner],
            "source": "here",
            "split": "test",
            "view": "PA",
        },
        dtype=object,
    )


def test_every_patient_is_as_likely_with_and_without_scores():
    n, scores = 30, np.linspace(0, 0.999, 30) ** 3  # most of them low
    for given in (None, scores):
        certify, weights = np.zeros(n), np.zeros(n)
        rng = np.random.default_rng(0)
        for _ in range(2000):
            drawn, random, weight = draw_patients(n, 12, given, rng)
            assert len(set(drawn)) == 12
            certify[drawn[random]] += 1
            weights[drawn] += weight
        assert certify / 2000 == pytest.approx(random.sum() / n, abs=0.04)
        # 1 / chance: every patient stands for one, whatever his score
        assert weights / 2000 == pytest.approx(1, abs=0.15)


def test_drawing_by_score_takes_equally_of_each_fifth():
    scores = np.concatenate([np.full(900, 0.1), np.full(60, 0.5), np.full(6, 0.99)])
    drawn, random, weights = draw_patients(len(scores), 100, scores, np.random.default_rng(0))
    assert random.sum() == 50
    mine = scores[drawn[~random]]
    rare = int((scores[drawn] == 0.99).sum())
    assert rare == 6  # all of the few
    assert weights[scores[drawn] == 0.99] == pytest.approx(1)
    assert abs((mine == 0.1).sum() - (mine == 0.5).sum()) <= 1
    assert weights.sum() == pytest.approx(len(scores))


def broken_promises(certifies, draws=500):
    """Share of lists of a folder, half drawn by score, whose threshold misses more than a fifth of the sick."""
    rng, broken = np.random.default_rng(1), 0
    for _ in range(draws):
        sick = rng.random(300) < 0.4
        scores = 1 / (1 + np.exp(-2 * (rng.normal(size=300) + 1.5 * sick - 1.5)))
        drawn, random, _ = draw_patients(300, 80, scores, rng)
        rows = drawn[random] if certifies == "random" else drawn
        threshold = rule_out_threshold(scores[rows][sick[rows]], sensitivity=0.8, confidence=0.9).threshold
        true = 0.5 * np.log(threshold / (1 - threshold)) if np.isfinite(threshold) else -np.inf
        broken += norm.cdf(true) > 0.2
    return broken / draws


def test_the_random_half_certifies_and_the_whole_list_would_not():
    assert broken_promises("random") <= 0.1 + 0.03
    assert broken_promises("all") > 0.15


def test_a_list_holds_whole_patients_and_no_labels(tmp_path):
    table = several(40)
    found = draw_labelling_list(table, 12, aim=Aim(Promise(0.8, 0.5, 0.8), prevalence=0.75), seed=5)
    assert (found.patients, found.images, found.certify, found.by_score) == (40, len(table), 12, 0)
    listed = found.table
    assert set(listed["image"]) == set(table[table["patient_id"].isin(listed["patient_id"])]["image"])
    assert listed["patient_id"].nunique() == 12
    assert set(listed["label"]) == set(listed["split"]) == {""}
    assert set(listed["drawn"]) == {"random"}
    assert listed["weight"].to_numpy(float) == pytest.approx(40 / 12, abs=1e-4)
    assert found.needed == {"sick": 8, "normal": 3}
    assert found.chance == pytest.approx({"sick": 0.8424, "normal": 0.6093}, abs=1e-3)
    assert listed.equals(draw_labelling_list(table, 12, seed=5).table)
    assert not listed.equals(draw_labelling_list(table, 12, seed=6).table)
    assert list(draw_labelling_list(table, 40).table["image"]) != list(table["image"])
    found.write(tmp_path / "list.csv")
    again = histcxr.read_manifest(tmp_path / "list.csv")
    assert list(again["image"]) == list(listed["image"])
    assert set(again["view"]) == {"PA"}
    with pytest.raises(InputError, match=r"must be a new file: .*list\.csv is there and may hold labels"):
        found.write(tmp_path / "list.csv")
    with pytest.raises(InputError, match="patients must be at most 40, all that there are, got 41"):
        draw_labelling_list(table, 41)


def test_images_without_a_patient_are_their_own():
    table = several(10).assign(patient_id="")
    found = draw_labelling_list(table, 4)
    assert (found.patients, found.nameless, len(found.table)) == (len(table), len(table), 4)


def test_by_score_half_certifies_and_the_unjudged_are_counted(model, data, monkeypatch):
    broken = data.assign(image=[*data["image"][:-2], "/nowhere/1.png", "/nowhere/2.png"])
    monkeypatch.setattr(Model, "unfamiliar", lambda self, counts: np.arange(len(counts)) < 3)
    found = draw_labelling_list(broken, 21, by_score=model)
    assert found.unjudged == {"not_found": 2, "unlike_training": 3}
    assert (found.certify, found.by_score) == (11, 10)
    assert not set(found.table["image"]) & {*data["image"][:3], "/nowhere/1.png", "/nowhere/2.png"}
    assert set(zip(found.table["drawn"], found.table["split"], strict=True)) == {
        ("random", "val"),
        ("by_score", "train"),
    }
    with pytest.raises(InputError, match="all whom the model can judge that there are"):
        draw_labelling_list(broken, len(broken), by_score=model)


def test_calibrate_takes_the_random_half_alone(model, data, study, tmp_path):
    """The list's own labels come back from a reader; nobody drawn by score certifies."""
    unseen = data[data["split"] != "train"].reset_index(drop=True)
    listed = draw_labelling_list(unseen, 30, by_score=model).table
    truth = dict(zip(data["image"], data["label"], strict=True))
    labelled = listed.assign(label=[truth[image] for image in listed["image"]])
    promise = {"sensitivity": 0.5, "specificity": 0.5, "confidence": 0.5}
    found = calibrate(model, labelled, **promise)
    assert found.training["val"]["images"] == (listed["drawn"] == "random").sum()
    with pytest.raises(InputError, match=r"\d+ images were drawn by score \(column drawn\), so they cannot"):
        calibrate(model, labelled, split="all", **promise)


def test_the_command_writes_the_list(model, study, tmp_path):
    saved, path = histcxr.save_model(model, tmp_path / "model.histcxr"), tmp_path / "list.csv"
    done = CliRunner().invoke(
        main, ["plan", "--draw", "10", str(study), "--by-score", "-m", str(saved), "-o", str(path), "-j", "1"]
    )
    assert done.exit_code == 0, done.output
    assert "Drawn at random: 5 patients (split val). They alone certify." in done.output
    assert "take at least 59 sick and 59 normal patients" in done.output
    assert histcxr.read_manifest(path)["patient_id"].nunique() == 10
