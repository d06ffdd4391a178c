"""Disturbances: picture and mask move together, and what is not geometry leaves the mask alone."""

import numpy as np
import pytest

from histcxr.lungs.disturbances import DISTURBANCES, Pair, disturb, move


@pytest.fixture(scope="module")
def pair(phantoms):
    phantom = phantoms(3, size=(256, 256))
    return Pair(phantom.image, phantom.mask.astype(np.uint8) * np.uint8(255))


@pytest.mark.parametrize("name", DISTURBANCES)
def test_keeps_size_and_type_and_changes_something(name, pair):
    before = pair.pixels.copy(), pair.mask.copy()
    found = DISTURBANCES[name](pair, np.random.default_rng(1))
    for array in found:
        assert array.shape == (256, 256)
        assert array.dtype == np.uint8
    assert (found.pixels != pair.pixels).any()
    np.testing.assert_array_equal(pair.pixels, before[0])
    np.testing.assert_array_equal(pair.mask, before[1])


@pytest.mark.parametrize("name", ["inverted", "brightened", "faint", "marked", "noisy", "blurred"])
def test_grey_levels_alone_leave_the_mask(name, pair):
    np.testing.assert_array_equal(DISTURBANCES[name](pair, np.random.default_rng(2)).mask, pair.mask)


def test_inverted_twice_is_the_same(pair):
    rng = np.random.default_rng(0)
    twice = DISTURBANCES["inverted"](DISTURBANCES["inverted"](pair, rng), rng)
    np.testing.assert_array_equal(twice.pixels, pair.pixels)


def test_no_lung_behind_the_blades(pair):
    found = DISTURBANCES["collimated"](pair, np.random.default_rng(4))
    hidden = found.pixels != pair.pixels
    assert hidden.any()
    assert not found.mask[hidden].any()


def test_picture_and_mask_move_together(pair):
    both = Pair(pair.mask, pair.mask)
    for seed in range(5):
        found = DISTURBANCES["rotated"](both, np.random.default_rng(seed))
        np.testing.assert_array_equal(found.pixels, found.mask)


def test_flip_alone_is_a_mirror_image(pair):
    found = move(pair, 0, flip=True)
    np.testing.assert_array_equal(found.pixels, pair.pixels[:, ::-1])
    np.testing.assert_array_equal(found.mask, pair.mask[:, ::-1])


def test_quarter_turn_is_numpys(pair):
    np.testing.assert_array_equal(move(pair, 90).mask, np.rot90(pair.mask))


def test_disturb_is_a_function_of_its_generator(pair):
    first, again, other = (disturb(pair, np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert (first.pixels != other.pixels).any()
