import pytest

from histcxr.exceptions import InputError
from histcxr.study.certify import calibrate
from histcxr.study.cohort import select_rows


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
    with pytest.raises(InputError, match=r"the model has not seen, got none \(562 were left out"):
        calibrate(result.models["knn"], train_rows)
    everything = calibrate(result.models["knn"], manifest.assign(split=""))
    assert everything.training["val"]["trained_on_and_left_out"] == len(train_rows)


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
    before, now = (set(one.training["seen"]["val"]) for one in (model, again))
    assert before < now
    assert again.training["val"]["images"] == len(manifest[manifest["split"] == "test"])
