"""From probabilities to two lungs: specks go, holes close, and what cannot be two lungs has a reason."""

import cv2
import numpy as np
import pytest

from histcxr.exceptions import Reason
from histcxr.lungs.shape import enlarged, find_lungs, polarity

SIZE = 128


def two_lungs(left=(40, 64), right=(88, 64), axes=(16, 38), second=None):
    drawn = np.zeros((SIZE, SIZE), np.uint8)
    cv2.ellipse(drawn, left, axes, 0, 0, 360, 1, -1)
    cv2.ellipse(drawn, right, second or axes, 0, 0, 360, 1, -1)
    return drawn


def smooth(drawn):
    return cv2.GaussianBlur(drawn.astype(np.float32), (0, 0), 1.0)


def test_two_lungs_pass_unchanged():
    probabilities = smooth(two_lungs())
    found = find_lungs(probabilities)
    assert found.reason is None
    np.testing.assert_array_equal(found.mask, probabilities > 0.5)
    np.testing.assert_array_equal(found.probabilities, probabilities)


def test_specks_go_and_holes_close():
    drawn = two_lungs()
    damaged = drawn.copy()
    damaged[60:66, 38:42] = 0
    damaged[2:6, 2:6] = 1
    found = find_lungs(damaged.astype(np.float32))
    assert found.reason is None
    np.testing.assert_array_equal(found.mask, drawn)
    np.testing.assert_array_equal(enlarged(found, (SIZE, SIZE)), drawn > 0)


@pytest.mark.parametrize("shape", [(224, 224), (2000, 1600), (100, 140)])
def test_outline_is_interpolated(shape):
    drawn = two_lungs()
    mask = enlarged(find_lungs(smooth(drawn)), shape)
    assert mask.shape == shape
    assert mask.dtype == np.bool_
    assert abs(mask.mean() - drawn.mean()) < 0.005


@pytest.mark.parametrize(
    ("drawn", "reason"),
    [
        (np.zeros((SIZE, SIZE), np.uint8), Reason.LUNGS_NOT_FOUND),
        (two_lungs(axes=(4, 6)), Reason.LUNGS_NOT_FOUND),
        (two_lungs(axes=(18, 50), left=(6, 64), right=(121, 64)), Reason.LUNGS_CUT_OFF),
        (two_lungs(second=(5, 9), axes=(20, 45)), Reason.LUNGS_IMPLAUSIBLE),
        (two_lungs(left=(64, 30), right=(64, 98), axes=(38, 16)), Reason.LUNGS_IMPLAUSIBLE),
        (two_lungs(left=(40, 64), right=(40, 64), axes=(18, 50)), Reason.LUNGS_IMPLAUSIBLE),
        (np.pad(np.ones((110, 110), np.uint8), 9), Reason.LUNGS_IMPLAUSIBLE),
    ],
    ids=["nothing", "tiny", "cut off", "one small", "above each other", "one alone", "all over"],
)
def test_what_cannot_be_two_lungs_has_a_reason(drawn, reason):
    found = find_lungs(drawn.astype(np.float32))
    assert found.reason is reason
    assert found.detail


def test_lungs_that_touch_are_two():
    drawn = two_lungs(left=(48, 64), right=(78, 64))
    assert cv2.connectedComponents(drawn)[0] == 2
    assert find_lungs(drawn.astype(np.float32)).reason is None


def test_polarity_has_a_sign():
    mask = two_lungs()
    rng = np.random.default_rng(0)
    dark = (np.where(mask == 1, 60, 160) + rng.normal(0, 8, mask.shape)).astype(np.uint8)
    assert polarity(dark, mask) == pytest.approx(-100, abs=2)
    assert polarity(255 - dark, mask) == pytest.approx(100, abs=2)
    assert polarity(dark, np.zeros_like(mask)) == 0
    cut_out = dark * mask
    assert polarity(cut_out, mask) == 0
