import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histcxr.exceptions import InputError
from histcxr.features.band_features import BandFeatures, mirror_counts
from histcxr.features.both_sides import BothSides
from histcxr.features.recipe import Recipe
from histcxr.features.transformers import HistogramFeatures


def counts_for(zones, bands, n=700, seed=0):
    rows = len(Recipe(zones, bands).names)
    return np.random.default_rng(seed).poisson(3, (n, rows, 256))


@pytest.mark.parametrize(("zones", "bands"), [(2, ()), (6, "travel"), ("1+6", ("dx2", "std4"))])
def test_the_second_half_is_the_first_half_of_the_mirrored_counts(zones, bands):
    counts = counts_for(zones, bands)  # more than one block
    features = make_pipeline(BandFeatures(zones=zones, bands=bands, n_quantiles=4), StandardScaler())
    both = BothSides(features, zones=zones, bands=bands)
    found = both.fit_transform(counts)
    own, other = np.hsplit(found, 2)
    np.testing.assert_array_equal(own, both.features_.transform(counts))
    mirrored = mirror_counts(counts, zones=zones, bands=bands)
    np.testing.assert_array_equal(other, both.features_.transform(mirrored))
    assert not np.array_equal(own, other)
    np.testing.assert_array_equal(both.transform(counts.reshape(len(counts), -1)), found)


def test_it_learns_from_the_images_alone():
    counts = counts_for(2, ())
    counts[:, 0] += 5 * (np.arange(256) > 200)
    features = make_pipeline(HistogramFeatures(zones=2), StandardScaler())
    both = BothSides(features, zones=2).fit(counts)
    alone = clone(features).fit(counts)
    np.testing.assert_array_equal(both.features_[-1].mean_, alone[-1].mean_)
    assert not hasattr(features[-1], "mean_")


@pytest.mark.parametrize("shape", [(4, 5, 256), (4, 6, 128), (4, 6 * 256 + 1)])
def test_counts_of_another_layout_are_refused(shape):
    both = BothSides(HistogramFeatures(zones=6), zones=6)
    with pytest.raises(InputError, match="X must have 6 rows of 256 bins"):
        both.fit(np.ones(shape))
