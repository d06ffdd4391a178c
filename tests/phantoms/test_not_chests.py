"""Pictures that must be refused: of the right kind, different each time, the same from the same seed."""

import functools

import numpy as np
import pytest

from histcxr.exceptions import InputError
from histcxr.phantoms.not_chests import KINDS, TRANSFORMS, draw_not_chest


@functools.cache
def drawn(kind, n=6):
    return [draw_not_chest(kind, np.random.default_rng([5, i])) for i in range(n)]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_differ_and_repeat(kind):
    pictures = drawn(kind)
    for picture in pictures:
        assert picture.dtype == np.uint8
        assert picture.ndim == (3 if kind == "photograph" else 2)
        assert min(picture.shape[:2]) >= 256
        assert max(picture.shape[:2]) <= 1024
        assert picture.flags.c_contiguous
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    assert len({picture.shape for picture in pictures}) > 1
    assert np.array_equal(pictures[1], draw_not_chest(kind, np.random.default_rng([5, 1])))


@pytest.mark.parametrize("kind", ["lateral", "hand", "foot", "skull", "pelvis", "knee", "abdomen"])
def test_bodies_are_bright_on_a_dark_ground(kind):
    for picture in drawn(kind):
        height, width = picture.shape
        middle = picture[height // 4 : -height // 4, width // 4 : -width // 4]
        edge = np.concatenate([picture[:, :3].ravel(), picture[:, -3:].ravel()])
        assert np.percentile(middle, 90) > np.percentile(edge, 25) + 25
        assert len(np.unique(picture)) > 60


def test_photographs_are_colourful_and_their_grey_ones_are_not():
    for picture in drawn("photograph"):
        spread = np.ptp(picture.astype(int), axis=2)
        assert np.percentile(spread, 75) > 16
    assert all(picture.ndim == 2 for picture in drawn("grey_photograph"))


def test_text_has_two_tones_and_both_polarities():
    pages = drawn("text", 16)
    shares = [np.mean(page > 128) for page in pages]
    assert min(shares) < 0.25
    assert max(shares) > 0.75


def test_blanks_hold_almost_nothing():
    for picture in drawn("blank", 16):
        values, counts = np.unique(picture, return_counts=True)
        near = np.abs(values.astype(int) - int(values[counts.argmax()])) <= 30
        assert counts[near].sum() > 0.9 * picture.size


def test_unknown_kinds_are_refused():
    with pytest.raises(InputError, match="kind must be one of photograph, .*; it is 'cat'"):
        draw_not_chest("cat", np.random.default_rng(0))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_change_the_image_and_leave_the_original(phantoms, name):
    pixels = phantoms(2, size=(160, 140)).image
    before = pixels.copy()
    changed = TRANSFORMS[name](pixels)
    assert np.array_equal(pixels, before)
    assert changed.dtype == np.uint8
    assert changed.ndim == 2
    assert changed.flags.c_contiguous
    assert changed.shape != pixels.shape or not np.array_equal(changed, pixels)
    assert np.array_equal(changed, TRANSFORMS[name](pixels))


def test_transforms_do_what_they_are_called(phantoms):
    pixels = phantoms(2, size=(160, 140)).image
    change = {name: function(pixels) for name, function in TRANSFORMS.items()}
    assert np.array_equal(change["inverted"].astype(int) + pixels, np.full(pixels.shape, 255))
    assert np.array_equal(change["turned180"], pixels[::-1, ::-1])
    assert np.array_equal(change["turned90"][:, -1], pixels[0])  # the top comes to the right
    assert np.array_equal(change["turned270"][:, 0], pixels[0][::-1])
    assert np.array_equal(change["upside_down"][0], pixels[-1])
    assert change["left_half"].shape == change["right_half"].shape == (160, 70)
    assert np.array_equal(np.hstack([change["left_half"], change["right_half"]]), pixels)
    assert np.array_equal(change["upper_half"], pixels[:80])
    assert np.mean(change["overexposed"] == 255) > 0.6
    assert np.mean(change["underexposed"] == 0) > 0.6
    assert np.array_equal(change["two_images"][:, :140], pixels)
    assert change["two_images"].shape[1] > 2 * 140
    steps = np.arange(256, dtype=np.uint8)[None]
    assert TRANSFORMS["solarised"](steps).max() == 254
    assert np.array_equal(TRANSFORMS["solarised"](steps)[:, :128], steps[:, :128] * 2)
    assert TRANSFORMS["solarised"](steps)[0, 255] == 0
