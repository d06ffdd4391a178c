"""One radiograph in every format: the same histogram, the same score, the same drawer."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from histcxr.data.radiograph import decode_radiograph
from histcxr.features.histograms import masked_histogram
from histcxr.files.writing import encode_image, write_mask
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.worklist.engine import triage

PHANTOM = make_phantom(11, size=(224, 200))
IMAGE, MASK = PHANTOM.image, PHANTOM.mask
JPEG_DISTANCE = 1.0
"""Grey levels that a JPEG of quality 95 may move the average lung pixel (Wasserstein distance)."""


def as_dicom(pixels, **options):
    pytest.importorskip("pydicom")
    return encode_dicom(pixels, **options)


def rescaled():
    """Stored as negative numbers that a rescale brings back to 0 to 4095."""
    stored = ((IMAGE.astype(np.int16) << 4) - 1024).view(np.uint16)
    return as_dicom(stored, signed=True, tags=window(RescaleSlope=1, RescaleIntercept=1024))


def window(**tags):
    return {"WindowCenter": 2048, "WindowWidth": 4096, **tags}


def deep(inverted=False, **options):
    """12 of 16 bits; MONOCHROME1 where inverted, as films are stored."""
    pixels = (255 - IMAGE if inverted else IMAGE).astype(np.uint16) << 4
    kind = "MONOCHROME1" if inverted else "MONOCHROME2"
    return as_dicom(pixels, bits=12, tags={"PhotometricInterpretation": kind}, **options)


LOSSLESS = {
    "8 bit.png": lambda: encode_image(IMAGE),
    "16 bit.png": lambda: encode_image(IMAGE.astype(np.uint16) * 257),
    "rgb.png": lambda: encode_image(np.dstack([IMAGE] * 3)),
    "8 bit.tif": lambda: encode_image(IMAGE, ".tif"),
    "16 bit.tif": lambda: encode_image(IMAGE.astype(np.uint16) * 257, ".tif"),
    "8 bit.bmp": lambda: encode_image(IMAGE, ".bmp"),
    "monochrome 2.dcm": lambda: as_dicom(IMAGE),
    "monochrome 1.dcm": lambda: as_dicom(255 - IMAGE, tags={"PhotometricInterpretation": "MONOCHROME1"}),
    "16 bit.dcm": lambda: as_dicom(IMAGE.astype(np.uint16) * 257),
    "12 bit.dcm": deep,
    "12 bit monochrome 1.dcm": lambda: deep(inverted=True),
    "windowed.dcm": lambda: as_dicom(IMAGE.astype(np.uint16) << 4, bits=12, tags=window()),
    "rescaled.dcm": rescaled,
    "implicit.dcm": lambda: deep(syntax="implicit"),
    "big endian.dcm": lambda: deep(syntax="big endian"),
    "deflated.dcm": lambda: deep(syntax="deflated"),
    "rle.dcm": lambda: deep(syntax="rle"),
    "rle monochrome 1.dcm": lambda: deep(inverted=True, syntax="rle"),
    "jpeg 2000.dcm": lambda: deep(syntax="jpeg 2000"),
    "jpeg 2000 8 bit.dcm": lambda: as_dicom(IMAGE, syntax="jpeg 2000"),
    "jpeg-ls.dcm": lambda: deep(syntax="jpeg-ls"),
    "jpeg lossless.dcm": lambda: deep(syntax="jpeg lossless"),
}
LOSSY = {
    "quality 95.jpg": lambda: cv2.imencode(".jpg", IMAGE, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes(),
    "jpeg.dcm": lambda: as_dicom(IMAGE, syntax="jpeg"),
    "jpeg extended.dcm": lambda: deep(syntax="jpeg extended"),
}
NEEDS = {"jpeg lossless.dcm": "imagecodecs", "jpeg extended.dcm": "imagecodecs"}


def counts_of(data, zones):
    return masked_histogram(decode_radiograph(data).pixels, MASK, zones)


def encoded(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    return (LOSSLESS | LOSSY)[name]()


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_give_the_very_same_histogram(name):
    expected = masked_histogram(IMAGE, MASK, 6)
    assert np.array_equal(counts_of(encoded(name), 6), expected)


@pytest.mark.parametrize("name", LOSSY)
def test_jpeg_stays_within_the_stated_distance(name):
    grey = np.arange(256)
    expected, found = masked_histogram(IMAGE, MASK, 6), counts_of(encoded(name), 6)
    assert np.array_equal(found.sum(axis=1), expected.sum(axis=1))
    distances = [wasserstein_distance(grey, grey, *pair) for pair in zip(expected, found, strict=True)]
    assert 0 < max(distances) <= JPEG_DISTANCE


def test_every_format_gets_the_same_drawer(saved_model, tmp_path):
    pytest.importorskip("pydicom")
    pytest.importorskip("imagecodecs")
    folder = tmp_path / "archive"
    folder.mkdir()
    names = {name: "implicit" if name == "implicit.dcm" else name for name in LOSSLESS | LOSSY}
    for name, stored in names.items():  # one without an extension, as archives often store them
        (folder / stored).write_bytes(encoded(name))
        write_mask(folder / "masks" / f"{Path(stored).stem}.png", MASK)
    summary = triage(folder, saved_model, tmp_path / "w.csv", segment=False)
    assert summary.total == len(LOSSLESS | LOSSY)
    assert summary.unjudged == 0
    with open(tmp_path / "w.csv", newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert len({row["decision"] for row in rows.values()}) == 1
    exact = {rows[names[name]]["score"] for name in LOSSLESS}
    assert len(exact) == 1
    score = float(exact.pop())
    assert 0.02 < score < 0.98  # where a difference would show
    for name in LOSSY:
        assert float(rows[name]["score"]) == pytest.approx(score, abs=0.02)
