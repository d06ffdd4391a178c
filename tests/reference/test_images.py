import cv2
import numpy as np
import pandas as pd
import pytest

from histcxr.data.discovery import find_inputs
from histcxr.data.manifest import read_manifest
from histcxr.data.masks import read_mask
from histcxr.data.radiograph import read_radiograph
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.features.extraction import extract_features
from histcxr.files.writing import write_image, write_mask
from histcxr.phantoms.studies import make_phantom, write_broken_files, write_study
from histcxr.reference.images import (
    REGIONS,
    InputSettings,
    ReferenceImages,
    read_images,
)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(3, sick=True, size=(96, 96))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small study with a few broken files among the sound ones."""
    folder = tmp_path_factory.mktemp("study")
    sound = read_manifest(
        write_study(folder / "sound", n_patients=8, size=(96, 80), mask_size=(64, 64), seed=1)
    )
    write_broken_files(folder / "broken")
    broken = [{"image": item.path, "mask": item.mask, "label": ""} for item in find_inputs(folder / "broken")]
    table = pd.concat([sound, pd.DataFrame(broken)], ignore_index=True)
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


def test_regions_are_what_numpy_says(phantom):
    pixels, mask = phantom.image, phantom.mask
    expected = {"lungs": np.where(mask, pixels, 0), "hidden": np.where(mask, 0, pixels), "full": pixels}
    for region in REGIONS:
        prepared = InputSettings(size=96, region=region).prepare(pixels, mask)
        np.testing.assert_array_equal(prepared, expected[region])
        assert prepared.dtype == np.uint8
        assert not np.shares_memory(prepared, pixels)


@pytest.mark.parametrize("equalise", [False, True])
@pytest.mark.parametrize("blur", [False, True])
@pytest.mark.parametrize("region", ["lungs", "hidden"])
def test_what_is_not_seen_influences_nothing(phantom, region, equalise, blur):
    visible = phantom.mask if region == "lungs" else ~phantom.mask
    noise = np.random.default_rng(0).integers(0, 256, phantom.image.shape).astype(np.uint8)
    other = np.where(visible, phantom.image, noise)
    settings = InputSettings(48, region, equalise, blur)
    np.testing.assert_array_equal(
        settings.prepare(phantom.image, phantom.mask), settings.prepare(other, phantom.mask)
    )
    # And what is seen does.
    changed = np.where(visible, noise, phantom.image)
    assert (settings.prepare(changed, phantom.mask) != settings.prepare(phantom.image, phantom.mask)).any()


def test_a_full_image_needs_no_mask_and_ignores_one(phantom):
    np.testing.assert_array_equal(
        InputSettings(size=40, region="full").prepare(phantom.image, None),
        InputSettings(size=40, region="full").prepare(phantom.image, phantom.mask),
    )


def test_equalising_a_full_image_is_opencvs(phantom):
    dull = (phantom.image // 4 + 50).astype(np.uint8)
    prepared = InputSettings(size=96, region="full", equalise=True).prepare(dull, None)
    np.testing.assert_array_equal(prepared, cv2.equalizeHist(dull))


def test_equalising_spreads_the_visible_pixels_alone(phantom):
    dull = (phantom.image // 4 + 50).astype(np.uint8)
    prepared = InputSettings(size=96, equalise=True).prepare(dull, phantom.mask)
    assert not prepared[~phantom.mask].any()
    lungs = prepared[phantom.mask]
    assert (lungs.min(), lungs.max()) == (0, 255)
    # The visible pixels in one row are an image whose levels OpenCV spreads alike, but for rounding.
    alone = cv2.equalizeHist(dull[phantom.mask][None])[0]
    assert np.abs(lungs.astype(int) - alone).max() <= 1


def test_one_level_stays_as_it_is(phantom):
    flat = np.full_like(phantom.image, 77)
    prepared = InputSettings(size=96, equalise=True).prepare(flat, phantom.mask)
    np.testing.assert_array_equal(prepared, np.where(phantom.mask, 77, 0))


def test_shrinking_averages_areas():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32)).astype(np.uint8)
    means = pixels.reshape(16, 4, 16, 2).mean(axis=(1, 3))
    prepared = InputSettings(size=16, region="full").prepare(pixels, None)
    assert np.abs(prepared - means).max() <= 0.5 + 1e-6


def test_one_side_shrinks_by_area_while_the_other_grows():
    stripes = np.zeros((8, 64), np.uint8)
    stripes[:, ::2] = 200  # their mean is 100 wherever areas are averaged
    np.testing.assert_array_equal(InputSettings(size=16, region="full").prepare(stripes, None), 100)


def test_blur_is_of_the_square(phantom):
    square = InputSettings(size=48).prepare(phantom.image, phantom.mask)
    expected = cv2.GaussianBlur(square, (5, 5), 0)
    np.testing.assert_array_equal(
        InputSettings(size=48, blur=True).prepare(phantom.image, phantom.mask), expected
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 7}, "size must be a whole number from 8 to 2048, got 7"),
        ({"size": 32.0}, "size must be"),
        ({"size": True}, "size must be"),
        ({"region": "heart"}, "region must be one of lungs, hidden, full; got 'heart'"),
        ({"blur": 3}, "blur must be True or False; got 3"),
        ({"mask": None}, "mask must be given for the region 'lungs'"),
        ({"mask": np.ones((96, 96))}, "mask must be bool"),
        ({"mask": np.ones((9, 9), bool)}, r"mask must be bool of shape \(96, 96\)"),
        ({"pixels": np.zeros((96, 96))}, "pixels must be uint8"),
        ({"pixels": np.zeros((0, 9), np.uint8)}, "pixels must be uint8"),
    ],
)
def test_wrong_arguments_are_named(phantom, change, message):
    arguments = {"pixels": phantom.image, "mask": phantom.mask, "size": 32} | change
    pixels, mask = arguments.pop("pixels"), arguments.pop("mask")
    with pytest.raises(InputError, match=message):
        InputSettings(**arguments).prepare(pixels, mask)


@pytest.mark.parametrize("region", REGIONS)
def test_every_row_stays_and_is_its_image(study, region):
    images = read_images(study, InputSettings(size=32, region=region))
    assert len(images) == len(study)
    pd.testing.assert_frame_equal(images.table[list(study.columns)], study)
    assert 0 < images.usable.sum() < len(study)
    assert not images.pixels[~images.usable].any()
    for row in np.flatnonzero(images.usable):
        pixels = read_radiograph(study.image[row], side=224).pixels
        mask = None if region == "full" else read_mask(study["mask"][row], pixels.shape)
        np.testing.assert_array_equal(images.pixels[row], images.settings.prepare(pixels, mask))


@pytest.mark.parametrize("region", ["lungs", "hidden"])
def test_refuses_what_histograms_refuse(study, region):
    images, features = read_images(study, InputSettings(size=16, region=region)), extract_features(study)
    pd.testing.assert_series_equal(images.table.reason, features.table.reason)
    pd.testing.assert_series_equal(images.table.detail, features.table.detail)


def test_a_full_image_does_without_its_mask(study):
    images = read_images(study.drop(columns="mask"), InputSettings(size=16, region="full"))
    reasons = set(images.table.reason)
    assert {"truncated", "blank"} <= reasons
    assert not any(reason.startswith("mask") for reason in reasons)


def test_threads_change_nothing(study):
    one, three = (read_images(study, InputSettings(size=24), n_jobs=n) for n in (1, 3))
    np.testing.assert_array_equal(one.pixels, three.pixels)
    pd.testing.assert_frame_equal(one.table, three.table)


def test_an_empty_manifest_gives_no_images(study):
    assert len(read_images(study.iloc[:0], InputSettings(size=16))) == 0


def test_too_many_bytes_are_refused_before_reading(study, monkeypatch):
    monkeypatch.setattr("histcxr.reference.images.MAX_BYTES", 100_000)
    nowhere = pd.DataFrame({"image": ["/nowhere"] * 10, "mask": ""})
    with pytest.raises(InputError, match="10 images of 101 x 101 pixels take 102010 bytes, more than 100000"):
        read_images(nowhere, InputSettings(size=101))
    assert not read_images(nowhere, InputSettings(size=100)).usable.any()


def test_missing_columns_are_named(study):
    with pytest.raises(InputError, match="columns image, mask; missing: mask"):
        read_images(study[["image"]], InputSettings(size=16))


@pytest.mark.parametrize("said", [True, "True", 1])
def test_more_than_lungs_of_lungs_alone_is_a_trap(study, said):
    marked = study.assign(lungs_only=said)
    for region in ("full", "hidden"):
        with pytest.warns(HistcxrWarning, match=f"region='{region}': {len(study)} of {len(study)}"):
            read_images(marked, InputSettings(size=16, region=region))
    read_images(marked, InputSettings(size=16))  # a warning would be an error here
    read_images(study.assign(lungs_only=False), InputSettings(size=16, region="full"))


def test_nothing_beside_hidden_lungs_is_a_reason(tmp_path, phantom):
    write_image(tmp_path / "a.png", np.where(phantom.mask, phantom.image, 0).astype(np.uint8))
    write_mask(tmp_path / "m.png", phantom.mask)
    table = pd.DataFrame({"image": [str(tmp_path / "a.png")], "mask": [str(tmp_path / "m.png")]})
    assert read_images(table, InputSettings(size=16)).usable.all()
    hidden = read_images(table, InputSettings(size=16, region="hidden")).table.iloc[0]
    assert (hidden.reason, hidden.detail) == ("blank", "there is nothing outside of the lungs")


def test_select_keeps_pixels_and_rows_together(study):
    images = read_images(study, InputSettings(size=16))
    usable = images.select(images.usable)
    np.testing.assert_array_equal(usable.pixels, images.pixels[images.usable])
    assert list(usable.table.image) == list(study.image[images.usable])
    assert list(images.select([3, 1]).table.image) == [study.image[3], study.image[1]]
    with pytest.raises(InputError, match="rows must be"):
        images.select(np.ones(3, bool))
    with pytest.raises(InputError, match="pixels must have the shape"):
        ReferenceImages(images.pixels[1:], images.table, images.settings)
