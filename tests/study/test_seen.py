"""Whoever trained a model is known again, whatever became of the files."""

from dataclasses import replace
from itertools import product

import cv2
import pandas as pd
import pytest

import histcxr
from histcxr.exceptions import InputError
from histcxr.features.recipe import Recipe
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.phantoms.studies import write_study
from histcxr.study.certify import calibrate
from histcxr.study.cohort import Reading, read_cohort, select_rows, split_cohort
from histcxr.study.seen import leave_out_seen, remembers
from histcxr.study.train import train

SIDE = 192


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    write_study(folder, n_patients=160, size=(SIDE, SIDE), mask_size=(SIDE, SIDE), repeats=0, seed=8)
    return histcxr.read_manifest(folder)


@pytest.fixture(scope="module")
def model(study):
    return train(study, classifiers="knn", zones=1, trials=0, seed=1).best


@pytest.fixture(scope="module")
def disguised(study, tmp_path_factory):
    """Training patients' radiographs under other names, in every format and size; identities are gone."""
    folder = tmp_path_factory.mktemp("disguised")
    rows = select_rows(study, {"split": ["train"]}).groupby("label").head(4)

    def write(suffix, side, number, path):
        pixels = histcxr.read_radiograph(path).pixels
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
        place = folder / f"{side}-{number}-renamed{suffix}"
        if suffix == ".dcm":
            place.write_bytes(encode_dicom(pixels))
        else:
            assert cv2.imwrite(str(place), pixels)
        return str(place)

    return {
        (suffix, side): rows.assign(
            image=[write(suffix, side, number, path) for number, path in enumerate(rows["image"])],
            patient_id="",
            split="",
        )
        for suffix, side in product((".png", ".jpg", ".tif", ".dcm"), (SIDE, 144, 300))
    }


@pytest.mark.parametrize("lungs", ["given", "found", "either"])
@pytest.mark.parametrize("side", [SIDE, 144, 300])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".dcm"])
def test_training_patients_neither_certify_nor_are_measured(study, model, disguised, suffix, side, lungs):
    rows = disguised[suffix, side]
    for road in (calibrate, histcxr.evaluate):
        with pytest.raises(InputError, match="that the model has not seen, got none"):
            road(model, rows, lungs=lungs)
    same = suffix != ".jpg" and side == SIDE
    mixed = pd.concat([rows, select_rows(study, {"split": ["test"]}).head(6)], ignore_index=True)
    rest, counts = leave_out_seen(read_cohort(mixed, model, Reading(lungs)), model)
    assert counts["images"] == counts["equal_pixels" if same else "near_duplicates"] > 0
    assert set(rest.table["split"]) == {"test"}


def test_a_known_patient_is_left_out_by_identity(study, model):
    test = select_rows(study, {"split": ["test"]})
    known = study.loc[study["split"] == "train", "patient_id"].iloc[0]
    rest, counts = leave_out_seen(read_cohort(test, model), model)
    assert counts["images"] == 0
    assert len(rest) == len(test)
    claimed = test.assign(patient_id=[known, *test["patient_id"].iloc[1:]])
    rest, counts = leave_out_seen(read_cohort(claimed, model), model)
    assert counts == {"images": 1, "equal_pixels": 0, "near_duplicates": 0, "same_patient": 1}
    assert known not in str(model.training["seen_patients"])


@pytest.mark.parametrize("seen", [{}, {"train": ["0123456789abcdef"], "val": []}])
def test_who_remembers_nobody_certifies_nobody(study, model, seen):
    forgetful = replace(model, training={**model.training, "seen": seen})
    assert not remembers(forgetful)
    with pytest.raises(InputError, match="does not remember whom it was trained on"):
        calibrate(forgetful, study, split="test")
    assert not histcxr.evaluate(forgetful, study)["remembers"]


def test_damaged_memory_is_no_memory_of_nobody(study, model):
    damaged = replace(model, training={**model.training, "seen": {"train": "AAAA", "val": ""}})
    with pytest.raises(InputError, match="remembers of its training images is damaged"):
        histcxr.evaluate(damaged, study)


def test_twins_across_parts_are_said_and_left_out_of_the_earlier(study, tmp_path):
    test = select_rows(study, {"split": ["test"]}).head(2)
    twins = test.assign(split="train", patient_id=["twin0", "twin1"])
    cohort = read_cohort(pd.concat([study, twins], ignore_index=True), Recipe(1))
    parts, notes = split_cohort(cohort)
    assert "near-duplicates of images in a later part" in notes[-1]
    assert "images left out: 2, near-duplicates" in notes[-1]
    assert not {"twin0", "twin1"} & set(parts["train"].patients)
    assert len(parts["test"]) == (study["split"] == "test").sum()
