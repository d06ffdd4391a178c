import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import histcxr
from histcxr.decision.thresholds import rule_out_threshold
from histcxr.exceptions import InputError
from histcxr.features.recipe import Recipe
from histcxr.reports.text import evaluation_report
from histcxr.store import Model
from histcxr.store.model import sick_score
from histcxr.study.cohort import Reading, read_cohort, select_rows
from histcxr.study.evaluate import Judged, compare
from histcxr.study.figures import measure


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
    assert evaluated["seen"]["images"] == int((manifest["split"] != "test").sum())
    refused = evaluated["unusable"].get("unlike_training", 0)
    assert evaluated["overall"]["images"] + refused == int((manifest["split"] == "test").sum())


def test_images_that_cannot_be_judged_count_among_all_as_triage_has_them(
    result, manifest, tmp_path, monkeypatch
):
    """Unreadable ones and those that the model refuses are in review: not ruled out, not ruled in."""
    model = result.models["knn"]
    test = manifest[manifest["split"] == "test"].reset_index(drop=True)
    judged = histcxr.evaluate(model, test)["overall"]["among_judged"]
    refused = judged["images"] - len(test)  # at most 0: what is refused from the start
    (tmp_path / "broken.png").write_bytes(b"no image")
    sick = np.flatnonzero(test["label"] != "Normal")
    test.loc[sick[:30], "image"] = str(tmp_path / "broken.png")
    found = histcxr.evaluate(model, test, by=["label"])
    now, everybody = (found["overall"][whom] for whom in ("among_judged", "among_all"))
    assert everybody["images"] == len(test)
    assert now["images"] == len(test) - found["unusable"]["not_an_image"] - found["unusable"].get(
        "unlike_training", 0
    )
    assert found["refused"] == pytest.approx(1 - now["images"] / len(test))
    assert found["refused"] * len(test) > 29 + refused
    missed = found["overall"]["decisions"]["missed"]
    assert now["sensitivity"]["value"] == pytest.approx(1 - missed / now["sick"])
    assert everybody["sick"] == test.loc[sick, "patient_id"].nunique() > now["sick"]
    assert everybody["sensitivity"]["value"] >= now["sensitivity"]["value"]
    assert everybody["rule_in_specificity"] == now["rule_in_specificity"]
    group = found["groups"]["label"]["Lung_Opacity"]
    assert group["among_all"]["sensitivity"] == everybody["sensitivity"]
    assert found["groups"]["label"]["Normal"]["among_all"]["sensitivity"] is None
    text = evaluation_report(found)
    assert f"Not judged: {len(test) - now['images']} of {len(test)} images" in text
    assert "30 not_an_image" in text
    json.dumps(found, allow_nan=False)
    monkeypatch.setattr(Model, "unfamiliar", lambda self, counts: np.arange(len(counts)) % 4 == 0)
    fewer = histcxr.evaluate(model, manifest)["overall"]
    assert fewer["among_all"]["images"] == int((manifest["split"] == "test").sum()) > fewer["images"]


def test_images_of_seen_patients_do_not_count_among_all(result, manifest, tmp_path):
    """An unreadable image tells no pixels, but its patient may be known."""
    train = manifest[manifest["split"] == "train"].iloc[[0, 1]].assign(split="test")
    lost = train.assign(image=str(tmp_path / "broken.png"))
    (tmp_path / "broken.png").write_bytes(b"no image")
    data = pd.concat([manifest[manifest["split"] == "test"], lost])
    found = histcxr.evaluate(result.models["knn"], data)
    assert found["overall"]["among_all"]["images"] == len(data) - 2
    assert found["unusable"]["not_an_image"] == 2
    assert "counted with those that the model has seen" in evaluation_report(found) or found["refused"] == 0


def test_evaluate_says_unasked_that_nobody_can_tell_disease_from_source(result, manifest):
    source = np.where(manifest["label"] == "Normal", "hospital", "museum")
    found = histcxr.evaluate(result.models["knn"], manifest.assign(source=source))
    assert found["within"]["source"]["verdict"] == "unknown"
    assert "CANNOT TELL: no source has 10 sick and 10 normal patients" in evaluation_report(found)
    clean = histcxr.evaluate(result.models["knn"], manifest)
    assert clean["within"] == {}
    assert "CANNOT TELL" not in evaluation_report(clean)


def test_a_part_of_the_auc_that_is_the_view_is_said(result, manifest):
    """A view that follows the score, with some noise: most of what the score tells is then the view."""
    model = result.models["knn"]
    test = manifest[manifest["split"] == "test"].reset_index(drop=True)
    scores = model.score(read_cohort(test, Recipe(6)).values)
    seldom = np.random.default_rng(0).random(len(test)) < 0.25
    found = histcxr.evaluate(model, test.assign(view=np.where((scores > 0.5) ^ seldom, "AP", "PA")))
    view = found["within"]["view"]
    assert view["verdict"] == "part"
    assert f"part of the overall {view['overall']:.3f} is the view" in evaluation_report(found)


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
    assert [one["seen"]["images"] for one in found["models"]] == [
        int((manifest["split"] != "test").sum())
    ] * 2
    assert found["left_out"] + found["overall"]["n_images"] == len(manifest)


def test_a_comparison_takes_two_models_and_enough_patients(result, manifest):
    with pytest.raises(InputError, match="models must be two to compare, got 1"):
        compare([result.best], manifest)
    few = manifest[manifest["split"] == "test"].groupby("label").head(5)
    with pytest.raises(InputError, match="at least 10 sick and 10 normal patients in common"):
        compare([result.best, result.best], few)


def test_the_label_of_normal_is_the_one_of_the_training(manifest):
    renamed = manifest.assign(label=manifest["label"].where(manifest["label"] != "Normal", "healthy"))
    model = histcxr.train(renamed, classifiers="knn", zones=1, trials=0, normal="healthy").best
    assert histcxr.evaluate(model, renamed)["overall"] == model.metrics["test"]


def test_the_score_is_the_probability_of_any_disease():
    assert sick_score(np.array([[0.2, 0.5, 0.3]])) == pytest.approx([0.8])
    assert sick_score(np.array([[0.2, 0.8]])) == pytest.approx([0.8])


def test_evaluate_says_where_a_triage_would_withhold_its_drawers(result, manifest):
    model = result.models["knn"]
    at_home = histcxr.evaluate(model, manifest, split=None)
    assert at_home["site"]["tested"] == (at_home["overall"]["images"] >= 40)
    assert "UNCERTIFIED SITE" not in evaluation_report(at_home)
    table = manifest[manifest["split"] == "test"].reset_index(drop=True)
    cohort = read_cohort(pd.concat([table] * 3, ignore_index=True), model)
    brighter = replace(cohort, measured=np.roll(cohort.values, 45, axis=-1))
    site = Judged(model, brighter, np.empty((len(brighter), 2))).site()
    assert site["differs"]
    assert "UNCERTIFIED SITE" in evaluation_report({**at_home, "site": site})
