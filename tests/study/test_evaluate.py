import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, classification_report, log_loss, roc_auc_score

import histcxr
from histcxr.decision.thresholds import rule_out_threshold
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.features.recipe import Recipe
from histcxr.store.model import sick_score
from histcxr.study.cohort import Reading, read_cohort, select_rows
from histcxr.study.evaluate import class_figures, class_numbers, compare, measure


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


def test_specificity_at_95_is_read_off_the_test_images(manifest, result):
    test = read_cohort(select_rows(manifest, {"split": ["test"]}), Recipe(6))
    scores = result.models["svm"].score(test.values)
    point = result.report["classifiers"]["svm"]["test"]["specificity_at_95"]
    ordered = np.sort(scores[test.sick])[::-1]
    threshold = ordered[int(np.ceil(0.95 * len(ordered))) - 1]
    assert point["value"] == np.mean(scores[~test.sick] < threshold)
    assert point["low"] <= point["value"] <= point["high"]


def test_the_calls_at_the_certified_threshold_are_counted_by_image(manifest, result):
    test = read_cohort(select_rows(manifest, {"split": ["test"]}), Recipe(6))
    model = result.models["svm"]
    test = test.part(~model.unfamiliar(test.values))  # refused ones are not measured
    counts = result.report["classifiers"]["svm"]["test"]["confusion_at_rule_out"]
    ruled_out = model.score(test.values) < model.rule_out.threshold
    assert counts["tn"] == (ruled_out & ~test.sick).sum()
    assert counts["fn"] == (ruled_out & test.sick).sum()
    assert sum(counts.values()) == len(ruled_out)
    refused = rule_out_threshold([0.5] * 10)
    assert measure(model.score(test.values), test, refused, model.rule_in)["confusion_at_rule_out"] is None


def test_figures_agree_with_scikit_learn():
    rng = np.random.default_rng(1)
    targets, probabilities = rng.integers(0, 3, 200), rng.dirichlet([1, 1, 1], 200)
    found = class_figures(targets, probabilities, ("a", "b", "c"))
    calls = probabilities.argmax(axis=1)
    oracle = classification_report(targets, calls, target_names=["a", "b", "c"], output_dict=True)
    for row in found["classes"]:
        for ours, theirs in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score"), ("images", "support")):
            assert row[ours] == pytest.approx(oracle[row["class"]][theirs])
    assert found["accuracy"] == pytest.approx(oracle["accuracy"])
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(targets, calls))
    assert found["loss"] == pytest.approx(log_loss(targets, probabilities))
    assert set(found["roc"]) == {"a", "b", "c"}


def test_figures_of_one_class_alone_have_no_area():
    found = class_figures(np.zeros(4, int), np.array([[0.6, 0.4]] * 3 + [[0.2, 0.8]]), ("normal", "sick"))
    assert [row["auc"] for row in found["classes"]] == [None, None]
    assert found["balanced_accuracy"] == found["accuracy"] == 0.75
    json.dumps(found, allow_nan=False)


def test_labels_become_the_numbers_that_the_network_learnt():
    labels = pd.Series(["Normal", "B", "no finding", "A"])
    assert class_numbers(labels, ("normal", "sick"), "Normal").tolist() == [0, 1, 0, 1]
    assert class_numbers(labels, ("Normal", "A", "B"), "Normal").tolist() == [0, 2, 0, 1]
    with pytest.raises(InputError, match="got also B"):
        class_numbers(labels, ("Normal", "A", "C"), "Normal")


def test_two_models_are_compared_on_the_patients_that_neither_has_seen(result, manifest):
    view = manifest.assign(view=np.where(np.arange(len(manifest)) % 50 == 0, "AP", "PA"))
    models = [result.models["svm"], result.models["knn"]]
    found = compare(models, view, Reading("either"), by=["view"])
    json.dumps(found, allow_nan=False)
    test = read_cohort(select_rows(manifest, {"split": ["test"]}), Recipe(6))
    kept = ~(models[0].unfamiliar(test.values) | models[1].unfamiliar(test.values))
    scores = [model.score(test.values)[kept] for model in models]
    areas = [roc_auc_score(test.sick[kept], one) for one in scores]
    assert found["overall"]["auc"]["difference"]["value"] == pytest.approx(areas[0] - areas[1])
    assert found["overall"]["n_images"] == kept.sum()
    assert found["left_out"] == (~kept).sum()
    for one, model, area in zip(found["models"], models, areas, strict=True):
        assert one["name"] == model.name
        assert one["overall"]["auc"] == pytest.approx(area)
    point = found["overall"]["specificity"]
    assert point["first"] == found["models"][0]["overall"]["specificity_at_95"]["value"]
    assert point["difference"]["low"] <= point["first"] - point["second"] <= point["difference"]["high"]
    assert found["groups"]["view"]["AP"] is None  # too few
    assert found["groups"]["view"]["PA"]["n_images"] < kept.sum()


def test_a_model_is_as_good_as_itself(result, manifest):
    found = compare([result.best, result.best], manifest)["overall"]
    for name in ("auc", "specificity"):
        assert set(map(found[name]["difference"].get, ("value", "low", "high"))) == {0.0}


def test_what_one_of_two_has_seen_is_left_out_of_both(result, manifest):
    half = manifest.assign(split="")
    found = compare([result.models["knn"], result.models["svm"]], half, split="all")
    assert [one["seen"] for one in found["models"]] == [int((manifest["split"] != "test").sum())] * 2
    assert found["left_out"] + found["overall"]["n_images"] == len(manifest)


def test_a_comparison_takes_two_models_and_enough_patients(result, manifest):
    with pytest.raises(InputError, match="models must be two to compare, got 1"):
        compare([result.best], manifest)
    few = manifest[manifest["split"] == "test"].groupby("label").head(5)
    with pytest.raises(InputError, match="at least 10 sick and 10 normal images in common"):
        compare([result.best, result.best], few)


def test_the_label_of_normal_is_the_one_of_the_training(manifest):
    renamed = manifest.assign(label=manifest["label"].where(manifest["label"] != "Normal", "healthy"))
    model = histcxr.train(renamed, classifiers="knn", zones=1, trials=0, normal="healthy").best
    assert histcxr.evaluate(model, renamed)["overall"] == model.metrics["test"]


def test_masks_of_another_maker_are_warned_of(result, manifest):
    bare = manifest[manifest["split"] == "test"].assign(mask="")
    with pytest.warns(HistcxrWarning, match="trained with lungs=given; .* cannot be recognised"):
        histcxr.evaluate(result.models["knn"], bare)


def test_the_score_is_the_probability_of_any_disease():
    assert sick_score(np.array([[0.2, 0.5, 0.3]])) == pytest.approx([0.8])
    assert sick_score(np.array([[0.2, 0.8]])) == pytest.approx([0.8])
