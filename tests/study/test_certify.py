import numpy as np
import pandas as pd
import pytest

import histcxr
from histcxr.decision.thresholds import rule_in_threshold, rule_out_threshold
from histcxr.exceptions import InputError
from histcxr.files.writing import write_image
from histcxr.reports.card import model_card
from histcxr.reports.tables import certified_lines, thresholds_report
from histcxr.reports.text import evaluation_report
from histcxr.store import Model
from histcxr.study.certify import calibrate
from histcxr.study.cohort import read_cohort, select_rows
from histcxr.study.evaluate import Judged


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
    n = len(train_rows)
    with pytest.raises(InputError, match=rf"the model has not seen, got none \({n} were left out: {n} by"):
        calibrate(result.models["knn"], train_rows)
    everything = calibrate(result.models["knn"], manifest.assign(split=""))
    left_out = everything.training["val"]["left_out"]
    assert left_out == {"images": n, "equal_pixels": n, "near_duplicates": 0, "same_patient": 0}


def test_calibrate_refuses_too_few(result, manifest):
    few = manifest[manifest["split"] == "val"].groupby("label").head(20)
    with pytest.raises(InputError, match="takes at least 59 sick calibration patients, got"):
        calibrate(result.models["knn"], few)


def test_all_means_all(result, manifest):
    """Where the data name a val part, "all" is not that part."""
    model = result.models["knn"]
    parts = {split: calibrate(model, manifest, split=split).training["val"] for split in (None, "val", "all")}
    assert parts[None] == parts["val"]
    unseen = int((manifest["split"] != "train").sum())
    assert parts["all"]["images"] == unseen > parts["val"]["images"]
    with pytest.raises(InputError, match="data must hold radiographs of split 'holdout'"):
        calibrate(model, manifest, split="holdout")


def test_views_are_for_networks(result, manifest):
    with pytest.raises(InputError, match="views are for networks; knn counts each image once"):
        calibrate(result.models["knn"], manifest, views=2)


def test_what_certified_before_stays_known(result, manifest):
    model = result.models["knn"]
    again = calibrate(model, manifest, split="test", sensitivity=0.8, confidence=0.8)
    before, now = (len(one.training["seen"]["val"]) for one in (model, again))
    assert before < now
    with pytest.raises(InputError, match="got none"):
        histcxr.evaluate(again, manifest, split="val")
    assert again.training["val"]["images"] == len(manifest[manifest["split"] == "test"])


def with_views(manifest):
    """The same with a column that splits the patients of either class in two."""
    odd = manifest.groupby("label")["patient_id"].rank(method="dense") % 2 == 1
    return manifest.assign(view=np.where(odd, "AP", "PA"))


def test_refused_images_do_not_certify_and_are_counted(result, manifest, monkeypatch, tmp_path):
    model = result.models["knn"]
    monkeypatch.setattr(Model, "unfamiliar", lambda self, counts: np.arange(len(counts)) % 8 == 0)
    found = calibrate(model, manifest, sensitivity=0.8, confidence=0.8)
    about = found.training["certified"]
    n = found.training["val"]["images"]
    assert about["refused"] == len(range(0, n, 8)) == n - about["images"]
    assert found.rule_out.n < model.rule_out.n
    # A refused image goes to review: nobody is ruled out for it.
    assert about["among_all"]["sensitivity"] >= about["among_judged"]["sensitivity"] >= 0.8
    lost = tmp_path / "blank.png"
    write_image(lost, np.zeros((64, 64), np.uint8))
    row = {**manifest[manifest["split"] == "val"].iloc[0], "image": str(lost), "patient_id": "blank"}
    more = pd.concat([manifest, pd.DataFrame([row])], ignore_index=True)
    found = calibrate(model, more, sensitivity=0.8, confidence=0.8)
    about = found.training["certified"]
    assert sum(about["unusable"].values()) == 1
    text = "\n".join(certified_lines(about))
    assert f"so not counted at all: 1 {next(iter(about['unusable']))}." in text
    assert "by unusable" not in text
    assert f"{about['refused']} images ({about['refused_sick']} sick)" in text
    assert f"{about['among_judged']['sensitivity']:.3f} among the judged" in text


def test_groups_are_certified_saved_and_used(result, manifest, tmp_path):
    data = with_views(manifest)
    promise = {"sensitivity": 0.8, "specificity": 0.8, "confidence": 0.8}
    alone = calibrate(result.models["knn"], data, split="all", **promise)
    grouped = calibrate(result.models["knn"], data, split="all", by=["label", "view"], **promise)
    assert alone.groups is None
    assert grouped.rule_out.confidence > alone.rule_out.confidence
    assert set(grouped.groups.rule_out.groups["view"]) == {"AP", "PA"}
    assert set(grouped.groups.rule_out.groups["label"]) == {"Lung_Opacity"}
    loaded = histcxr.load_model(histcxr.save_model(grouped, tmp_path / "grouped"))
    assert loaded.groups == grouped.groups
    assert calibrate(grouped, data, split="test", **promise).groups is None
    card = model_card(loaded.describe())
    assert "view=AP" in card
    assert "hold together with a confidence of at least 60 %" in card


def test_evaluation_decides_by_the_groups_own_thresholds(result, manifest):
    data = with_views(manifest)
    model = calibrate(
        result.models["knn"], data, by=["view"], sensitivity=0.8, specificity=0.8, confidence=0.8
    )
    evaluated = histcxr.evaluate(model, data)
    judged = Judged.of(model, read_cohort(select_rows(data, {"split": ["test"]}), model))
    limits = model.groups.rule_out.limits(
        {"view": judged.cohort.table["view"].to_numpy()}, len(judged.scores)
    )
    assert evaluated["overall"]["decisions"]["images"]["rule_out"] == (judged.scores < limits).sum()
    assert set(evaluated["groups"]["view"]) == {"AP", "PA"}
    assert evaluated["contradicted"] == []


def test_a_group_that_is_too_small_is_said_to_be(result, manifest):
    data = with_views(manifest)
    rare = data["patient_id"].isin(data.loc[data["split"] == "val", "patient_id"].iloc[:4])
    data.loc[rare, "view"] = "LL"
    model = calibrate(
        result.models["knn"], data, by=["view"], sensitivity=0.8, specificity=0.8, confidence=0.8
    )
    small = model.groups.to_dict()
    assert "no promise: takes" in thresholds_report(model.describe()["thresholds"], small)
    with pytest.raises(InputError, match="by must name columns of the data"):
        calibrate(result.models["knn"], data, by=["hospital"])


def test_a_broken_promise_is_shouted(result, manifest):
    model = calibrate(
        result.models["knn"], with_views(manifest), by=["view"], sensitivity=0.8, confidence=0.8
    )
    wrong = with_views(manifest).assign(label=np.where(manifest["label"] == "Normal", "Sick", "Normal"))
    found = histcxr.evaluate(model, wrong)
    overall = found["contradicted"][0]
    assert overall["promise"] == "rule_out"
    assert overall["high"] < overall["target"] == 0.8
    assert {one["value"] for one in found["contradicted"]} == {"", "AP", "PA"}
    text = evaluation_report(found)
    assert "CONTRADICTED: rule_out promises a sensitivity of 80 % within view=AP, and it is" in text
    assert "of the patients are sick" in text


def test_the_certified_population_is_described(result, manifest):
    learnt = result.models["knn"]
    again = calibrate(learnt, manifest, split="test", sensitivity=0.8, confidence=0.8)
    assert sum(learnt.site.sizes) > sum(again.site.sizes) == again.training["certified"]["images"]
    assert set(learnt.site.groups) == {f"{label} phantom" for label in set(manifest["label"])}


def test_crossed_thresholds_say_what_applies():
    low, high = rule_in_threshold(np.full(100, 0.2)), rule_out_threshold(np.full(100, 0.6))
    text = thresholds_report({"rule_out": high.to_dict(), "rule_in": low.to_dict()})
    assert "rule_in: score >= 0.6000" in text
    assert "The thresholds cross (rule_in alone would begin above 0.2000)" in text
    assert "with a confidence of at least 90 %" in text
