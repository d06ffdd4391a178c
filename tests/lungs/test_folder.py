"""Segmenting a folder: one row a file, masks where triage finds them, a sheet to look at."""

import csv

import cv2
import numpy as np
import pytest

from histcxr.data.masks import read_mask
from histcxr.exceptions import InputError
from histcxr.files.writing import write_image
from histcxr.lungs.folder import COLUMNS, SHEET, TABLE, segment_folder


@pytest.fixture
def mixed(tmp_path, phantoms):
    folder = tmp_path / "in"
    for i in range(6):
        write_image(folder / "deep" / f"{i}.png", phantoms(500 + i).image)
    write_image(folder / "deep" / "0.bmp", phantoms(600).image)
    (folder / "broken.png").write_bytes(b"no image")
    write_image(folder / "noise.png", np.random.default_rng(0).integers(0, 256, (90, 90)).astype(np.uint8))
    return folder


def test_every_file_has_a_row_and_every_mask_its_place(mixed, tmp_path, segmenter):
    out = tmp_path / "out"
    summary = segment_folder(mixed, out, segmenter=segmenter)
    with open(out / TABLE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == summary.total == 9
    by_file = {row["file"]: row for row in rows}
    assert by_file["broken.png"]["reason"] == "not_an_image"
    assert by_file["noise.png"]["reason"] != ""
    taken = [by_file["deep/0.bmp"], by_file["deep/0.png"]]
    assert [row["reason"] for row in taken].count("mask_missing") == 1
    assert sum(summary.reasons.values()) + summary.segmented == 9
    assert summary.segmented >= 5
    for row in rows:
        if row["mask"]:
            shape = cv2.imread(str(mixed / row["file"]), cv2.IMREAD_GRAYSCALE).shape
            assert read_mask(out / row["mask"], shape).mean() == pytest.approx(
                float(row["lung_share"]), abs=1e-4
            )
        else:
            assert row["detail"]
    sheet = cv2.imread(str(out / SHEET))
    assert sheet.shape[1] >= 5 * 224


def test_a_bug_stays_with_its_image(mixed, tmp_path, segmenter, monkeypatch):
    real = segmenter.segment

    def bug_in_one(images, paths):
        if paths[0].endswith("3.png"):
            raise ZeroDivisionError("in the network")
        return real(images, paths)

    monkeypatch.setattr(segmenter, "segment", bug_in_one)
    summary = segment_folder(mixed, tmp_path / "out", segmenter=segmenter)
    assert summary.total == 9
    assert summary.reasons["unexpected"] == 1


def test_an_output_that_exists_is_kept(mixed, tmp_path, segmenter):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(InputError, match="holds no earlier run; choose another folder .-o., or start anew"):
        segment_folder(mixed, out, segmenter=segmenter)
    assert segment_folder(mixed, out, segmenter=segmenter, overwrite=True).total == 9
