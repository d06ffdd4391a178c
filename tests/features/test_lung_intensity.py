"""Median and range of both lungs, however their zones come."""

import numpy as np
import pytest

from histcxr.exceptions import InputError
from histcxr.features.transformers import LungIntensity


@pytest.fixture
def counts():
    rng = np.random.default_rng(3)
    pixels = rng.normal(rng.uniform(60, 150, (5, 6, 1)), rng.uniform(10, 25, (5, 6, 1)), (5, 6, 2000)).clip(
        0, 240
    )
    return np.stack([[np.bincount(zone, minlength=256) for zone in image] for image in pixels.astype(int)])


def test_it_is_median_and_range_of_all_pixels(counts):
    found = LungIntensity(zones=6).fit_transform(counts)
    for image, (median, spread) in zip(counts, found, strict=True):
        pixels = np.repeat(np.tile(np.arange(256), 6), image.ravel())
        low, middle, high = np.quantile(pixels, [0.25, 0.5, 0.75])
        assert median == pytest.approx(middle, abs=0.5)
        assert spread == pytest.approx(high - low, abs=1)


def test_it_does_not_matter_how_the_zones_come(counts):
    whole = counts.sum(axis=1, keepdims=True)
    expected = LungIntensity().fit_transform(whole)
    six = LungIntensity(zones=6)
    np.testing.assert_allclose(six.fit_transform(counts), expected)
    np.testing.assert_allclose(six.transform(counts.reshape(5, -1)), expected)
    both = LungIntensity(zones="1+6").fit_transform(np.concatenate([whole, counts], axis=1))
    np.testing.assert_allclose(both, expected)


def test_brighter_lungs_move_the_median_alone(counts):
    before = LungIntensity(zones=6).fit_transform(counts)
    after = LungIntensity(zones=6).fit_transform(np.roll(counts, 7, axis=2))
    np.testing.assert_allclose(after - before, [[7, 0]] * 5, atol=1e-9)


def test_names(counts):
    intensity = LungIntensity(zones=6).fit(counts)
    assert list(intensity.get_feature_names_out()) == ["lungs_median", "lungs_iqr"]
    with pytest.raises(ValueError, match="number of features"):
        intensity.get_feature_names_out(["one"])


@pytest.mark.parametrize(
    ("zones", "cut", "message"),
    [
        (2, lambda counts: counts, "must have 2 rows an image"),
        (6, lambda counts: counts.reshape(5, -1)[:, 1:], "must have 6 rows an image"),
        (6, lambda counts: counts * (np.arange(5) != 3)[:, None, None], "image 3 has none"),
        (5, lambda counts: counts, "zones"),
    ],
)
def test_refused(counts, zones, cut, message):
    with pytest.raises(InputError, match=message):
        LungIntensity(zones=zones).fit_transform(cut(counts))
