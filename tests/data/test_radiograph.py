import subprocess
import sys

import cv2
import numpy as np
import pytest

from histcxr.data.discovery import find_inputs
from histcxr.data.masks import read_mask
from histcxr.data.radiograph import (
    MIN_LUNG_CONTRAST,
    Radiograph,
    check_lungs,
    decode_radiograph,
    read_radiograph,
)
from histcxr.exceptions import RadiographError, Reason, UnjudgeableError
from histcxr.files.writing import encode_image
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.broken_files import write_broken_files, write_unusual_files
from histcxr.phantoms.dicom_files import encode_dicom

PHANTOM = make_phantom(7)


def judged(entry):
    """The reason that an input is given, None when it can be judged: what extraction does with each file."""
    if entry.problem is not None:
        return entry.problem
    try:
        pixels = read_radiograph(entry.path).pixels
        mask = read_mask(entry.mask, pixels.shape)
        check_lungs(pixels, mask, entry.path)
    except UnjudgeableError as error:
        return error.reason
    return None


def large(bits):
    """A phantom as a scanner would make it, with noise; uint8 or uint16 (1101, 1100)."""
    enlarged = cv2.resize(PHANTOM.image.astype(np.float32), (1100, 1101), interpolation=cv2.INTER_CUBIC)
    noisy = enlarged + np.random.default_rng(0).normal(0, 3, enlarged.shape)
    return np.clip(np.rint(noisy * 2 ** (bits - 8)), 0, 2**bits - 1).astype(
        np.uint8 if bits == 8 else np.uint16
    )


STORED = {
    "png": lambda: encode_image(large(8), ".png"),
    "png of 16 bits": lambda: encode_image(large(16), ".png"),
    "jpeg": lambda: encode_image(large(8), ".jpg"),
    "colour jpeg": lambda: encode_image(cv2.cvtColor(large(8), cv2.COLOR_GRAY2BGR), ".jpg"),
    "tiff": lambda: encode_image(large(8), ".tif"),
    "explicit": lambda: encode_dicom(large(12), bits=12),
    "signed": lambda: encode_dicom((large(12) ^ 2048).astype(np.int16), bits=12, signed=True),
    "jpeg 2000": lambda: encode_dicom(large(12), bits=12, syntax="jpeg 2000"),
}


@pytest.mark.parametrize("stored", STORED)
def test_a_large_radiograph_is_averaged_on_the_way(stored):
    if stored in ("explicit", "signed", "jpeg 2000"):
        pytest.importorskip("pydicom")
    if stored == "jpeg 2000":
        pytest.importorskip("imagecodecs")
    data = STORED[stored]()
    whole, small = decode_radiograph(data), decode_radiograph(data, side=224)
    assert whole.pixels.shape == (1101, 1100)
    assert {**small.metadata, "steps": ()} == {**whole.metadata, "steps": ()}
    expected = cv2.resize(whole.pixels, (224, 224), interpolation=cv2.INTER_AREA)
    assert small.pixels.shape == expected.shape
    assert np.abs(small.pixels.astype(int) - expected).mean() < 2
    one, other = (np.bincount(pixels.ravel(), minlength=256) / 224**2 for pixels in (small.pixels, expected))
    assert np.abs(one - other).sum() < 0.15
    assert abs(small.pixels.mean() - expected.mean()) < 0.3


@pytest.mark.parametrize("extension", [".png", ".tif", ".bmp"])
def test_pixels_are_those_that_were_stored(tmp_path, extension):
    path = tmp_path / f"image{extension}"
    path.write_bytes(encode_image(PHANTOM.image, extension))
    radiograph = read_radiograph(path)
    assert isinstance(radiograph, Radiograph)
    assert radiograph.pixels.dtype == np.uint8
    assert (radiograph.pixels == PHANTOM.image).all()
    assert radiograph.metadata["steps"] == (("palette applied",) if extension == ".bmp" else ())
    assert (radiograph.metadata["width"], radiograph.metadata["height"]) == (224, 224)


def test_jpeg_is_what_opencv_reads(tmp_path):
    data = encode_image(PHANTOM.image, ".jpg")
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (decode_radiograph(data).pixels == expected).all()


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_sixteen_bits_are_reduced_by_range_and_not_by_content(extension):
    deep = np.arange(0, 64 * 64 * 4, 4, dtype=np.uint16).reshape(64, 64)  # a quarter of the range only
    radiograph = decode_radiograph(encode_image(deep, extension))
    assert (radiograph.pixels == deep // 256).all()
    assert radiograph.pixels.max() == 63
    assert radiograph.metadata["bits"] == 16
    assert "16 to 8 bits" in radiograph.metadata["steps"]


def test_alpha_is_dropped():
    see_through = np.dstack([PHANTOM.image] * 3 + [255 - PHANTOM.image])
    radiograph = decode_radiograph(encode_image(see_through))
    assert (radiograph.pixels == PHANTOM.image).all()
    assert radiograph.metadata["steps"] == ("alpha dropped",)


def test_nearly_equal_channels_pass_and_colour_does_not():
    rng = np.random.default_rng(0)
    tinted = np.dstack([PHANTOM.image] * 3).astype(int) + rng.integers(-6, 7, (224, 224, 3))
    grey = decode_radiograph(encode_image(np.clip(tinted, 0, 255).astype(np.uint8))).pixels
    assert np.abs(grey.astype(int) - PHANTOM.image).max() <= 7
    marked = np.dstack([PHANTOM.image] * 3)
    marked[5:15, 5:20] = (0, 0, 255)  # a side marker in red
    steps = decode_radiograph(encode_image(marked)).metadata["steps"]
    assert steps == ("0.30% coloured pixels made grey",)
    marked[5:60, 5:60] = (0, 0, 255)
    with pytest.raises(RadiographError, match=r"6% of the pixels are coloured") as caught:
        decode_radiograph(encode_image(marked), "photo.png")
    assert caught.value.reason is Reason.COLOUR
    assert caught.value.path == "photo.png"


def test_small_images_are_refused():
    assert decode_radiograph(encode_image(PHANTOM.image[:32, :32])).pixels.shape == (32, 32)
    with pytest.raises(RadiographError, match="31 x 32 pixels; at least 32 x 32"):
        decode_radiograph(encode_image(PHANTOM.image[:32, :31]))


def test_lungs_without_contrast():
    mask = PHANTOM.mask
    check_lungs(PHANTOM.image, mask)
    flat = np.full_like(PHANTOM.image, 90)
    flat[~mask] = 255  # what is outside does not count
    flat[np.argwhere(mask)[3][0], np.argwhere(mask)[3][1]] = 90 + MIN_LUNG_CONTRAST - 1
    with pytest.raises(RadiographError, match="grey levels 90 to 105 of 0 to 255") as caught:
        check_lungs(flat, mask)
    assert caught.value.reason is Reason.BLANK
    row, column = np.argwhere(mask & (np.arange(224)[:, None] % 8 != 0))[0]
    flat[row, column] = 90 + MIN_LUNG_CONTRAST  # between the rows that are looked at first
    check_lungs(flat, mask)


def test_a_deep_image_of_the_wrong_range_is_blank():
    twelve_bits = PHANTOM.image.astype(np.uint16) * 16  # stored in 16 bits without saying so
    radiograph = decode_radiograph(encode_image(twelve_bits))
    with pytest.raises(RadiographError, match="almost no contrast"):
        check_lungs(radiograph.pixels, PHANTOM.mask)


def test_every_broken_file_gets_its_reason_and_nothing_is_printed(tmp_path, capfd):
    expected = write_broken_files(tmp_path)
    entries = [entry for entry in find_inputs(tmp_path) if entry.mask or entry.problem is not None]
    found = {entry.relative: judged(entry) for entry in entries}
    assert found == {name: expected[name] for name in found}
    # The others are sound pictures of something else, which the search for lungs finds out.
    assert {expected[name] for name in set(expected) - set(found)} == {Reason.POLARITY, Reason.NOT_A_CHEST}
    assert capfd.readouterr() == ("", "")


def test_every_unusual_file_can_be_judged_and_nothing_is_printed(tmp_path, capfd):
    names = write_unusual_files(tmp_path)
    found = {entry.relative: judged(entry) for entry in find_inputs(tmp_path)}
    assert found == dict.fromkeys(names)
    assert capfd.readouterr() == ("", "")


def test_unusual_files_all_show_the_same_lungs(tmp_path):
    """Format, depth and dress of a file must not move the histogram: that would tell sources apart."""
    write_unusual_files(tmp_path)
    for entry in find_inputs(tmp_path):
        pixels = read_radiograph(entry.path).pixels
        mask = read_mask(entry.mask, pixels.shape)
        phantom = make_phantom(1)
        assert (mask != phantom.mask).mean() < 0.01, entry.relative
        difference = np.abs(pixels.astype(int) - phantom.image)[mask]
        assert difference.mean() < 2.5, entry.relative  # JPEG is lossy
        if not entry.relative.endswith(".jpg") and not entry.relative.startswith("jpeg"):
            assert difference.max() == 0, entry.relative


def test_memory_stays_small_for_a_huge_declared_size(tmp_path):
    write_broken_files(tmp_path)
    code = (
        "import resource, sys\n"
        "from histcxr.data.radiograph import read_radiograph\n"
        "from histcxr.exceptions import RadiographError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    read_radiograph(sys.argv[1])\nexcept RadiographError as error:\n    print(error.reason)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "huge.png")], capture_output=True, text=True, check=True
    )
    reason, grown = done.stdout.split()
    assert reason == "too_large"
    assert int(grown) < 20_000  # kilobytes; decoding would take 400,000
    assert done.stderr == ""
