import numpy as np
import pandas as pd
import pytest

from histcxr.exceptions import InputError
from histcxr.phantoms.studies import write_study
from histcxr.study.explain import Explanation, explain_images, images_to_explain


def test_images_are_drawn_by_label_from_many_patients(tmp_path):
    write_study(tmp_path, n_patients=20, size=(64, 64), repeats=1, seed=2)
    drawn = images_to_explain([str(tmp_path)], split="all", where={}, per_label=8)
    assert drawn["label"].value_counts().to_dict() == {"Normal": 8, "Lung_Opacity": 8}
    assert drawn["patient_id"].nunique() == 16
    assert len(images_to_explain([str(tmp_path)], split="all", where={}, per_label=1000)) == 40


def test_shares_are_averaged_over_maps_that_have_one():
    table = pd.DataFrame({"label": ["a"] * 12, "patient_id": [str(i) for i in range(12)], "even": 0.25})
    table["inside"] = [np.nan, *np.linspace(0.3, 0.8, 11)]
    empty = np.empty((0, 1, 1))
    (whole, _) = Explanation(empty, empty, table, "conv").summary()
    assert (whole["images"], whole["maps"]) == (12, 11)
    assert whole["inside"] == pytest.approx(0.55)
    assert whole["difference"] == pytest.approx(0.30)
    assert whole["low"] < 0.30 < whole["high"]
    table["inside"] = np.nan
    assert Explanation(empty, empty, table, "conv").summary()[0]["inside"] is None


def test_files_stand_for_themselves_and_do_not_mix_with_folders(tmp_path):
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.dcm")]
    manifest = images_to_explain(files, split="test", where={}, per_label=1)
    assert list(manifest["image"]) == files
    assert set(manifest["label"]) == set(manifest["mask"]) == {""}
    with pytest.raises(InputError, match="one folder, one CSV, or any number of image files"):
        images_to_explain([str(tmp_path), files[0]], split="test", where={}, per_label=1)


def test_a_histogram_model_has_nothing_to_explain_yet(result, manifest):
    with pytest.raises(
        InputError, match="knn is a histogram model, of which there is nothing to explain yet"
    ):
        explain_images(result.models["knn"], manifest.head(1))
