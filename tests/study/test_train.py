import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

import histcxr
from histcxr.decision.thresholds import rule_out_threshold
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.features.recipe import Recipe
from histcxr.files.writing import write_image
from histcxr.lungs.segmenter import load_segmenter
from histcxr.models.registry import CLASSIFIERS
from histcxr.phantoms.studies import write_study
from histcxr.study.cohort import read_cohort, select_rows
from histcxr.study.evaluate import measure
from histcxr.study.train import (
    calibrate,
    classifier_names,
    fingerprint,
    members_of_stack,
    order_of_training,
    train,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return write_study(folder, n_patients=800, size=(64, 64), mask_size=(80, 80), repeats=0.1, seed=3)


@pytest.fixture(scope="module")
def manifest(study):
    return histcxr.read_manifest(study)


@pytest.fixture(scope="module")
def result(manifest):
    return train(manifest, classifiers=["knn", "svm"], zones=6, trials=0, n_jobs=2)


def test_report_holds_what_scripts_rely_on(result):
    json.dumps(result.report, allow_nan=False)
    for name in ("knn", "svm"):
        figures = result.report["classifiers"][name]
        test = figures["test"]
        assert {"accuracy", "auc", "auc_low", "auc_high", "sensitivity", "specificity"} <= set(test)
        assert test["auc_low"] < test["auc"] < test["auc_high"]
        assert test["auc"] > 0.75
        assert figures["threshold"]["certified"]
        assert figures["fit_seconds"] > 0


def test_best_is_chosen_by_cross_validation_alone(result):
    figures = result.report["classifiers"]
    assert result.best.name == max(figures, key=lambda name: figures[name]["cross_validated_auc"])


def test_threshold_is_the_certificate_of_the_validation_patients(result, manifest):
    val = read_cohort(select_rows(manifest, {"split": ["val"]}), recipe=Recipe(6))
    model = result.models["knn"]
    scores, highest = model.score(val.counts), {}
    for patient, score, sick in zip(val.patients, scores, val.sick, strict=True):
        if sick:
            highest[patient] = max(score, highest.get(patient, -1))
    assert model.rule_out == rule_out_threshold(list(highest.values()))


def test_test_figures_are_those_of_the_test_patients(result, manifest):
    test = read_cohort(select_rows(manifest, {"split": ["test"]}), recipe=Recipe(6))
    model = result.models["knn"]
    judged = test.part(~model.unfamiliar(test.counts))
    figures = result.report["classifiers"]["knn"]["test"]
    assert figures["accuracy"] == np.mean((model.score(judged.counts) >= 0.5) == judged.sick)
    assert figures["images"] == len(judged)
    assert result.report["refused"]["test"] == pytest.approx(1 - len(judged) / len(test), abs=1e-9)
    assert len(judged) > 0.95 * len(test)


def test_unlike_lungs_are_not_judged(result, manifest, tmp_path):
    """Lungs as no training patient had them go to review, whoever made their mask."""
    model = result.models["knn"]
    folder = tmp_path / "in"
    rows = manifest[manifest["split"] == "test"].head(12)
    for i, (image, mask) in enumerate(zip(rows["image"], rows["mask"], strict=True)):
        pixels = cv2.imread(image, cv2.IMREAD_GRAYSCALE)
        write_image(folder / f"{i}.png", pixels if i % 2 else 180 + pixels // 4)
        (folder / "masks").mkdir(exist_ok=True)
        shutil.copy(mask, folder / "masks" / f"{i}.png")
    histcxr.triage(folder, model, tmp_path / "w.csv")
    found = pd.read_csv(tmp_path / "w.csv", keep_default_na=False).set_index("file")["reason_code"]
    assert [found[f"{i}.png"] for i in range(0, 12, 2)].count("unlike_training") >= 4
    assert (found.loc[[f"{i}.png" for i in range(1, 12, 2)]] == "").all()


def test_lungs_found_by_the_network(manifest):
    """Where the data give no mask, the network's are used for every image, and the model says so."""
    bare = manifest.assign(mask="")
    trained = train(bare, classifiers="knn", zones=1, trials=0)
    assert trained.report["lungs"] == "found"
    assert trained.best.training["segmenter"] == load_segmenter().digest
    given = train(manifest, classifiers="knn", zones=1, trials=0)
    assert given.report["lungs"] == "given"
    figures = [one.report["classifiers"]["knn"]["test"]["auc"] for one in (trained, given)]
    assert abs(figures[0] - figures[1]) < 0.05
    mixed = manifest.assign(mask=np.where(manifest["label"] == "Normal", manifest["mask"], ""))
    with pytest.raises(InputError, match="both|sick and normal"):
        train(mixed, classifiers="knn", zones=1, trials=0)
    either = train(mixed, classifiers="knn", zones=1, trials=0, lungs="either")
    assert any("whose mask" in note for note in either.report["data"]["notes"])


def test_same_seed_same_scores(manifest, result):
    again = train(manifest, classifiers="svm", zones=6, trials=0)
    test = read_cohort(select_rows(manifest, {"split": ["test"]}), recipe=Recipe(6))
    np.testing.assert_array_equal(again.best.score(test.counts), result.models["svm"].score(test.counts))


def test_calibrate_moves_the_promise_and_drops_old_figures(result, manifest):
    model = result.models["knn"]
    moved = calibrate(model, manifest, sensitivity=0.8, specificity=0.9, confidence=0.9)
    assert moved.rule_out.target == 0.8
    assert moved.rule_in.target == 0.9
    assert moved.rule_out.threshold > model.rule_out.threshold
    assert moved.metrics == {}
    assert moved.training["val"]["images"] == model.training["val"]["images"]


def test_calibrate_never_uses_training_patients(result, manifest):
    train_rows = select_rows(manifest, {"split": ["train"]})
    with pytest.raises(InputError, match="must hold sick and normal radiographs, got 0 sick of 0"):
        calibrate(result.models["knn"], train_rows)
    everything = calibrate(result.models["knn"], manifest.assign(split=""))
    assert everything.training["val"]["trained_on_and_left_out"] == len(train_rows)


def test_calibrate_refuses_too_few(result, manifest):
    few = manifest[manifest["split"] == "val"].groupby("label").head(20)
    with pytest.raises(InputError, match="takes at least 59 sick calibration patients, got"):
        calibrate(result.models["knn"], few)


def test_uncertified_is_said_and_rules_nobody_out(manifest):
    small = manifest[manifest["split"] != "val"]
    val = manifest[manifest["split"] == "val"].groupby("label").head(25)
    result = train(pd.concat([small, val], ignore_index=True), classifiers="knn", trials=0)
    threshold = result.report["classifiers"]["knn"]["threshold"]
    assert threshold["threshold"] is None
    assert "takes at least 59" in threshold["message"]
    assert result.report["classifiers"]["knn"]["test"]["specificity"] == 0


def test_one_class_only_is_refused(manifest):
    with pytest.raises(InputError, match="the train part must hold sick and normal radiographs"):
        train(select_rows(manifest, {"label": ["Normal"]}), classifiers="knn", trials=0)
    with pytest.raises(InputError, match="is 'healthy' the label"):
        train(manifest, classifiers="knn", trials=0, normal="healthy")


def test_names(monkeypatch):
    monkeypatch.setattr("histcxr.study.train.neural_problem", lambda: None)
    assert classifier_names("all") == list(CLASSIFIERS)
    monkeypatch.setattr("histcxr.study.train.neural_problem", lambda: "keras not installed")
    with pytest.warns(HistcxrWarning, match="all but the lenet, .* keras not installed"):
        names = classifier_names("all")
    assert names == [name for name in CLASSIFIERS if name != "lenet"]
    assert names[-1] == "stack"
    assert classifier_names(["svm", "svm"]) == ["svm"]
    with pytest.raises(InputError, match=r"must be among .* or 'all', got \['cnn'\]"):
        classifier_names(["cnn"])
    with pytest.raises(InputError, match="got none"):
        classifier_names([])


def test_the_stack_comes_last_and_its_members_first():
    zones, travel = Recipe(6), Recipe(6, "travel")
    assert order_of_training(["stack", "svm"], zones) == ["svm", "knn", "random-forest", "xgboost", "stack"]
    assert order_of_training(["svm", "knn"], zones) == ["svm", "knn"]
    assert order_of_training(["stack"], travel) == ["random-forest", "xgboost", "stack"]
    assert members_of_stack(["lenet", "stack", "svm"], travel) == ["lenet", "svm"]


def test_settings_found_before_are_used_without_a_search(manifest):
    tuned = {"knn": {"classifier__estimator__n_neighbors": 40}}
    found = train(manifest, classifiers="knn", zones=6, trials=5, tuned=tuned)
    assert found.best.estimator["classifier"].estimator.n_neighbors == 40
    assert len(found.trials["knn"]) == 1
    assert found.report["classifiers"]["knn"]["parameters"] == {"classifier__estimator__n_neighbors": "40"}


def test_settings_for_a_classifier_that_is_not_trained_are_refused(manifest):
    with pytest.raises(InputError, match="tuned must be for classifiers that are trained, got lenet besides"):
        train(manifest, classifiers="svm", zones=6, tuned={"lenet": {}})


def test_a_stack_trained_alone_tunes_its_members_unseen(manifest):
    found = train(manifest, classifiers="stack", zones=6, bands="travel", trials=0, n_jobs=2)
    assert list(found.models) == list(found.report["classifiers"]) == ["stack"]
    assert [name for name, _ in found.best.estimator["classifier"].estimators] == ["random-forest", "xgboost"]
    assert found.report["classifiers"]["stack"]["test"]["auc"] > 0.75


def test_sources_of_one_class_are_pointed_out(manifest):
    mixed = manifest.assign(source=np.where(manifest.index % 2, "a", "b"))
    assert not any(
        "source" in note for note in train(mixed, classifiers="knn", trials=0).report["data"]["notes"]
    )
    sick = manifest["label"] != "Normal"
    entangled = mixed.assign(source=mixed["source"].where(~sick | (mixed["source"] == "a"), "c"))
    notes = train(entangled, classifiers="knn", trials=0).report["data"]["notes"]
    assert [note.partition(":")[0].split()[5:] for note in notes if "learn the source" in note] == [
        ["source", "b", "are", "normal"],
        ["source", "c", "are", "sick"],
    ]


def test_fingerprint_knows_labels_but_not_order(manifest):
    cohort = read_cohort(manifest.head(30), recipe=Recipe(1))
    order = np.random.default_rng(0).permutation(30)
    shuffled = read_cohort(manifest.head(30).iloc[order].reset_index(drop=True), recipe=Recipe(1))
    assert fingerprint(cohort) == fingerprint(shuffled)
    flipped = manifest.head(30).assign(label=["Normal"] * 30)
    assert fingerprint(read_cohort(flipped, recipe=Recipe(1))) != fingerprint(cohort)


def test_evaluate_agrees_with_training_and_groups_add_up(result, manifest):
    model = result.models["knn"]
    view = manifest.assign(view=np.where(np.arange(len(manifest)) % 3 == 0, "AP", "PA"))
    evaluated = histcxr.evaluate(model, view, by=["view"])
    assert evaluated["overall"] == result.report["classifiers"]["knn"]["test"]
    assert (
        sum(group["images"] for group in evaluated["groups"]["view"].values())
        == evaluated["overall"]["images"]
    )
    json.dumps(evaluated, allow_nan=False)


def test_evaluate_leaves_out_what_the_model_has_seen(result, manifest):
    evaluated = histcxr.evaluate(result.models["knn"], manifest, split=None)
    assert evaluated["seen"] == int((manifest["split"] != "test").sum())
    refused = evaluated["unusable"].get("unlike_training", 0)
    assert evaluated["overall"]["images"] + refused == int((manifest["split"] == "test").sum())


def test_evaluate_refuses_what_is_not_there(result, manifest):
    with pytest.raises(InputError, match="must name columns of the data"):
        histcxr.evaluate(result.models["knn"], manifest, by=["hospital"])
    with pytest.raises(InputError, match="got none"):
        histcxr.evaluate(result.models["knn"], manifest, split="train")


def test_bands_go_all_the_way(manifest, tmp_path):
    result = train(manifest, classifiers="svm", zones=6, bands="travel", trials=0, n_jobs=2)
    loaded = histcxr.load_model(histcxr.save_model(result.best, tmp_path / "bands"))
    assert loaded.recipe == Recipe(6, "travel")
    assert histcxr.evaluate(loaded, manifest)["overall"] == result.report["classifiers"]["svm"]["test"]
    summary = histcxr.triage(
        str(manifest["image"][0]), loaded, tmp_path / "w.csv", masks=str(manifest["mask"][0])
    )
    assert summary.unjudged == 0


def test_specificity_at_95_is_read_off_the_test_images(manifest, result):
    test = read_cohort(select_rows(manifest, {"split": ["test"]}), recipe=Recipe(6))
    scores = result.models["svm"].score(test.counts)
    point = result.report["classifiers"]["svm"]["test"]["specificity_at_95"]
    ordered = np.sort(scores[test.sick])[::-1]
    threshold = ordered[int(np.ceil(0.95 * len(ordered))) - 1]
    assert point["value"] == np.mean(scores[~test.sick] < threshold)
    assert point["low"] <= point["value"] <= point["high"]


def test_the_calls_at_the_certified_threshold_are_counted_by_image(manifest, result):
    test = read_cohort(select_rows(manifest, {"split": ["test"]}), recipe=Recipe(6))
    model = result.models["svm"]
    test = test.part(~model.unfamiliar(test.counts))  # refused ones are not measured
    counts = result.report["classifiers"]["svm"]["test"]["confusion_at_rule_out"]
    ruled_out = model.score(test.counts) < model.rule_out.threshold
    assert counts["tn"] == (ruled_out & ~test.sick).sum()
    assert counts["fn"] == (ruled_out & test.sick).sum()
    assert sum(counts.values()) == len(ruled_out)
    refused = rule_out_threshold([0.5] * 10)
    assert measure(model.score(test.counts), test, refused, model.rule_in)["confusion_at_rule_out"] is None
