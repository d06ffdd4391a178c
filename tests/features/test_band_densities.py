import numpy as np
import pytest
from sklearn.base import clone

from histcxr.exceptions import InputError
from histcxr.features.band_densities import BandDensities
from histcxr.features.recipe import Recipe

RECIPE = Recipe("1+2", ("dx2", "std4"))


def counts_of(n=600, seed=0):
    return np.random.default_rng(seed).poisson(3, (n, len(RECIPE.names), 256))


def densities(**settings):
    return BandDensities(zones=RECIPE.zones, bands=RECIPE.bands, **settings)


def test_distances_are_hellingers():
    counts = counts_of()
    found = densities(n_bins=16, weight=3.0).fit_transform(counts)
    assert found.shape == (600, 9 * 16)
    assert found.dtype == np.float32
    wide = counts.reshape(600, 9, 16, 16).sum(axis=3)
    shares = wide / wide.sum(axis=2, keepdims=True)
    overlap = np.sqrt(shares[0] * shares[599]).sum(axis=1)
    hellinger_squared = 1 - overlap
    squared = ((found[0] - found[599]) ** 2).sum()
    assert squared == pytest.approx(2 * 9.0 * hellinger_squared.sum(), rel=1e-4)
    np.testing.assert_array_equal(densities(n_bins=16, weight=3.0).fit(counts).transform(
        counts.reshape(600, -1)), found)  # fmt: skip


def test_size_of_the_mask_does_not_matter_and_a_missing_zone_is_the_whole_lungs():
    counts = counts_of(4)
    found = densities().fit_transform(counts)
    np.testing.assert_allclose(densities().fit_transform(counts * 7), found, rtol=1e-6)
    lung_missing = counts.copy()
    lung_missing[:, 2::3] = 0
    lung_missing[:, 0::3] = lung_missing[:, 1::3]
    cube = densities().fit_transform(lung_missing).reshape(4, 3, 3, 32)
    np.testing.assert_allclose(cube[:, :, 2], cube[:, :, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_bins": 24}, "n_bins must be an integer that divides 256"),
        ({"weight": 0}, "weight must be a number above 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        densities(**settings).fit(counts_of(3))


@pytest.mark.parametrize("shape", [(3, 8, 256), (3, 9, 128), (3, 100)])
def test_counts_of_another_layout_are_refused(shape):
    with pytest.raises(InputError, match="X must have 9 rows of 256 bins"):
        clone(densities()).fit(np.ones(shape))


def test_an_image_without_counts_is_refused():
    counts = counts_of(3)
    counts[1] = 0
    with pytest.raises(InputError, match="image 1 has none"):
        densities().fit(counts)
