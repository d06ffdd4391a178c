import filecmp
import os

import cv2
import numpy as np
import pandas as pd
import pytest

from histcxr.data.manifest import read_manifest
from histcxr.data.masks import read_mask
from histcxr.data.radiograph import check_lungs, read_radiograph
from histcxr.exceptions import InputError
from histcxr.phantoms.studies import LAYOUTS, sample_study, write_study

SMALL = {"size": (96, 96), "mask_size": (112, 112)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_studies_can_be_read(tmp_path, layout):
    folder = write_study(tmp_path / "study", n_patients=10, layout=layout, repeats=0.5, **SMALL)
    table = read_manifest(folder)
    assert len(table) == 15
    assert os.path.exists(folder / "manifest.csv") == (layout != "flat")
    for image, mask in zip(table["image"], table["mask"], strict=True):
        pixels = read_radiograph(image).pixels
        assert pixels.shape == (96, 96)
        check_lungs(pixels, read_mask(mask, pixels.shape))
    if layout == "flat":
        assert set(table["label"]) == {""}
        assert not any("ormal" in image or "pacity" in image for image in table["image"])
    else:
        assert table.groupby("patient_id")["label"].nunique().max() == 1
        assert table.groupby("patient_id")["split"].nunique().max() == 1
        assert table["patient_id"].nunique() == 10
        assert table.drop_duplicates("patient_id")["label"].value_counts().to_dict() == {
            "Normal": 5,
            "Lung_Opacity": 5,
        }


def test_studies_are_repeatable(tmp_path):
    first, again, other = (
        write_study(tmp_path / name, n_patients=5, seed=seed, **SMALL)
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    names = sorted(str(p.relative_to(first)) for p in first.rglob("*") if p.is_file())
    assert filecmp.cmpfiles(first, again, names, shallow=False)[0] == names
    images = [name for name in names if "images" in name and (other / name).exists()]
    assert filecmp.cmpfiles(first, other, images, shallow=False)[1] == images


def test_small_studies_without_masks(tmp_path):
    folder = write_study(tmp_path, n_patients=4, layout="classes", masks=False, repeats=0, **SMALL)
    table = pd.read_csv(folder / "manifest.csv", keep_default_na=False)
    assert set(table["mask"]) == {""}
    assert set(table["split"]) == {""}  # too few patients to divide
    assert not (folder / "masks").exists()
    assert sorted(os.listdir(folder / "Normal")) == ["Normal-1.png", "Normal-2.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "heap"}, "layout must be one of classes-masks, .*; it is 'heap'"),
        ({"n_patients": 0}, "n_patients must be at least 1"),
        ({"repeats": -1}, "repeats must be between 0 and 1"),
        ({"n_patients": 2, "layout": "split-classes"}, "n_patients must be enough to fill"),
    ],
)
def test_impossible_studies(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_study(tmp_path, **{"n_patients": 3, **options})


def test_gamma_is_another_scanners_curve(tmp_path):
    plain, bright = (
        write_study(tmp_path / str(g), n_patients=2, gamma=g) / "Normal/images/Normal-1.png"
        for g in (1.0, 0.5)
    )
    before, after = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (plain, bright))
    assert np.array_equal(after, np.rint(255 * (before / 255) ** 0.5))
    with pytest.raises(InputError, match="gamma must be between"):
        write_study(tmp_path / "x", gamma=9)


@pytest.mark.parametrize("n_patients", [300, 400])
def test_a_sample_study_has_enough_sick_patients_to_certify(tmp_path, n_patients):
    study = sample_study(tmp_path / "s", n_patients=n_patients, size=(64, 64))
    table = pd.read_csv(study / "manifest.csv").drop_duplicates("patient_id")
    counts = table.groupby(["split", "label"]).size()
    assert counts["val"].min() >= 70
    assert counts["test"].min() >= n_patients // 10
    assert counts["train"].min() >= 40
    with pytest.raises(InputError, match="at least 300"):
        sample_study(tmp_path / "t", n_patients=299)
