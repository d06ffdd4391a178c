import numpy as np
import pytest
from scipy import ndimage
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from histcxr.exceptions import InputError
from histcxr.features.band_features import BandDensities, BandFeatures, BothSides, mirror_counts
from histcxr.features.filters import as_bands
from histcxr.features.histograms import ZONES, masked_histogram, zone_names
from histcxr.features.recipe import BINS_PER_SPREAD, ZERO_BIN, Recipe, band_histograms
from histcxr.features.transformers import HistogramFeatures

EXPECTED_FAILURES = {
    "check_estimators_dtypes": "cast to integers, its data has a row of zeros: an image without pixels, refused"
}
BANDS = ("dx2", "dog4", "std4", "dxy2")


@parametrize_with_checks(
    [BandFeatures(), BandFeatures(intensity="both", n_quantiles=5, dtype="float32")],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def radiograph(seed, sick=False):
    """Noisy lungs; the sick ones have a bright blot in one of them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:110, :120]
    mask = ((x - 34) / 18) ** 2 + ((y - 54) / 40) ** 2 < 1
    mask |= ((x - 86) / 17) ** 2 + ((y - 56) / 38) ** 2 < 1
    image = 90 + 0.1 * y + 60 * ndimage.gaussian_filter(rng.normal(size=x.shape), 2)
    if sick:
        centre = (rng.choice([34, 86]), rng.uniform(40, 70))
        image += 45 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 90)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), mask


def counts_of(pixels, mask, zones, bands=BANDS):
    bands = band_histograms(pixels, mask, zones, bands)
    return np.concatenate([masked_histogram(pixels, mask, zones), bands.reshape(-1, 256)])


def study(n=6, zones=6, bands=BANDS):
    return np.array([counts_of(*radiograph(seed, seed % 2 == 1), zones, bands) for seed in range(n)])


@pytest.mark.parametrize("zones", ZONES)
def test_channels_are_quantiles_of_their_own(zones):
    counts = study(zones=zones)
    rows = len(zone_names(zones))
    found = BandFeatures(zones=zones, bands=BANDS, intensity="both", n_quantiles=8).fit_transform(counts)
    assert found.shape == (6, (2 + len(BANDS)) * rows * 8)
    blocks = np.split(found, 2 + len(BANDS), axis=1)
    for block, scale in zip(blocks, ("raw", "own"), strict=False):
        expected = HistogramFeatures("quantile", zones=zones, scale=scale, n_quantiles=8)
        np.testing.assert_array_equal(block, expected.fit_transform(counts[:, :rows]))
    plain = HistogramFeatures("quantile", zones=zones, n_quantiles=8)
    for index, (block, band) in enumerate(zip(blocks[2:], as_bands(BANDS), strict=True), 1):
        bins = plain.fit_transform(counts[:, index * rows : (index + 1) * rows])
        zero = 0 if band.kind == "std" else ZERO_BIN
        np.testing.assert_allclose(block, (bins - zero) / BINS_PER_SPREAD, rtol=1e-12)


def test_medians_are_those_of_the_responses():
    counts = study(zones=1)
    found = BandFeatures(zones=1, bands=BANDS, n_quantiles=1).fit_transform(counts)
    # Bins of unit 1/32 around the median of the whole lungs: 0 for intensities, 1 for what is measured in medians.
    np.testing.assert_allclose(found[:, 0], 0, atol=1e-12)
    np.testing.assert_allclose(found[:, 1 + BANDS.index("std4")], 1, atol=0.5 / BINS_PER_SPREAD)


def test_brightness_and_contrast_drop_out():
    pixels, mask = radiograph(3, sick=True)
    pixels = np.clip(pixels, 60, 120)
    scaled = ((pixels - 50) * 2 + 30).astype(np.uint8)
    counts = np.array([counts_of(image, mask, 6) for image in (pixels, scaled)])
    first, second = BandFeatures(zones=6, bands=BANDS).fit_transform(counts)
    # A grey level less in the interquartile range, by interpolation within bins.
    np.testing.assert_allclose(first, second, atol=0.12)
    raw, other = BandFeatures(zones=6, bands=BANDS, intensity="raw").fit_transform(counts)
    assert np.abs(raw - other).max() > 20


def test_names_tell_channel_zone_and_level():
    features = BandFeatures(zones="1+2", bands="dog4", intensity="both", n_quantiles=2).fit(
        study(zones="1+2", bands="dog4")
    )
    names = features.get_feature_names_out()
    assert len(names) == 3 * 3 * 2 == len(set(names))
    assert names[0] == "raw_lungs_quantile_0.25"
    assert names[-1] == "dog4_left_quantile_0.75"
    with pytest.raises(ValueError, match="number of features"):
        features.get_feature_names_out(["a"])


def test_flat_counts_pandas_and_clones():
    counts = study()
    features = BandFeatures(zones=6, bands=BANDS, dtype="float32")
    cube = features.fit_transform(counts)
    assert cube.dtype == np.float32
    np.testing.assert_array_equal(cube, clone(features).fit_transform(counts.reshape(len(counts), -1)))
    table = clone(features).set_output(transform="pandas").fit_transform(counts)
    assert list(table.columns) == list(features.get_feature_names_out())


def test_batches_may_be_cut_anywhere():
    counts = study()
    features = BandFeatures(zones=6, bands=BANDS).fit(counts)
    halves = [features.transform(counts[:2]), features.transform(counts[2:])]
    np.testing.assert_array_equal(features.transform(counts), np.concatenate(halves))


def test_bands_find_what_whole_lungs_hide():
    counts = study(60, zones=6, bands=("dog4", "dog8"))
    sick = np.arange(60) % 2
    pipeline = make_pipeline(
        BandFeatures(zones=6, bands=("dog4", "dog8"), n_quantiles=8),
        StandardScaler(),
        LogisticRegression(C=0.01),
    )
    assert cross_val_score(pipeline, counts, sick, scoring="roc_auc").mean() > 0.9
    shuffled = np.random.default_rng(0).permutation(sick)
    assert cross_val_score(pipeline, counts, shuffled, scoring="roc_auc").mean() < 0.75


@pytest.mark.parametrize("zones", ZONES)
def test_mirrored_counts_are_those_of_mirrored_images(zones):
    bands = ("dx2", "dy2", "dog4", "dxx4", "dxy2", "mag2", "std4")
    pixels, mask = radiograph(5, sick=True)
    counts = counts_of(pixels, mask, zones, bands)
    mirrored = counts_of(pixels[:, ::-1], mask[:, ::-1], zones, bands)
    found = mirror_counts(counts[None], zones=zones, bands=bands)[0]
    rows = len(zone_names(zones))
    np.testing.assert_array_equal(found[:rows], mirrored[:rows])
    np.testing.assert_array_equal(found.sum(axis=1), mirrored.sum(axis=1))
    # Responses between two bins may go to the other one.
    assert np.abs(np.cumsum(found - mirrored, axis=1)).max() <= 3
    assert np.abs(found - counts).sum() > 0.1 * counts.sum() or zones == 1
    twice = mirror_counts(found[None], zones=zones, bands=bands)[0]
    assert np.abs(np.cumsum(twice - counts, axis=1)).max() <= 3


def test_mirrored_bins():
    counts = np.zeros((1, 4, 256), np.int64)
    counts[0, 2, [0, 1, 100, ZERO_BIN, 255]] = 1, 2, 3, 4, 5  # dx2, right
    found = mirror_counts(counts, zones=2, bands=["dx2"])[0]
    expected = np.zeros(256, int)
    expected[[255, 156, ZERO_BIN, 1]] = 3, 3, 4, 5
    np.testing.assert_array_equal(found[3], expected)
    assert not found[:3].any()


def test_wrong_parameters_and_layouts_are_refused():
    counts = study(2)
    with pytest.raises(InputError, match="intensity must be one of own, raw, both; got 'none'"):
        BandFeatures(zones=6, bands=BANDS, intensity="none").fit(counts)
    with pytest.raises(InputError, match="n_quantiles must be a whole number of at least 1, got 0"):
        BandFeatures(zones=6, bands=BANDS, n_quantiles=0).fit(counts)
    with pytest.raises(
        InputError, match=r"X must have 12 rows of 256 bins an image.*got shape \(2, 30, 256\)"
    ):
        BandFeatures(zones=6, bands="dog4").fit(counts)
    with pytest.raises(InputError, match=r"X must have 30 rows of 256 bins .*got shape \(2, 30, 128\)"):
        BandFeatures(zones=6, bands=BANDS).fit(counts[:, :, ::2])
    with pytest.raises(InputError, match="X must have 30 rows"):
        BandFeatures(zones=6, bands=BANDS).fit(counts.reshape(2, -1)[:, 1:])
    with pytest.raises(InputError, match="image 1 has none"):
        BandFeatures(zones=6, bands=BANDS).fit(counts).transform(counts * np.array([1, 0])[:, None, None])
    with pytest.raises(ValueError, match="Negative values"):
        BandFeatures(zones=6, bands=BANDS).fit_transform(-counts)
    with pytest.raises(NotFittedError):
        BandFeatures(zones=6, bands=BANDS).transform(counts)
    with pytest.raises(
        InputError, match=r"counts must have the shape \(n, 12, 256\) for .*; got \(2, 30, 256\)"
    ):
        mirror_counts(counts, zones=6, bands="dog4")


# ---- densities ----

RECIPE = Recipe("1+2", ("dx2", "std4"))


def counts_for(zones, bands, n=700, seed=0):
    """Counts of no image, as many as take more than one block."""
    rows = len(Recipe(zones, bands).names)
    return np.random.default_rng(seed).poisson(3, (n, rows, 256))


def densities(**settings):
    return BandDensities(zones=RECIPE.zones, bands=RECIPE.bands, **settings)


def test_distances_are_hellingers():
    counts = counts_for(*RECIPE)
    found = densities(n_bins=16, weight=3.0).fit_transform(counts)
    assert found.shape == (700, 9 * 16)
    assert found.dtype == np.float32
    wide = counts.reshape(700, 9, 16, 16).sum(axis=3)
    shares = wide / wide.sum(axis=2, keepdims=True)
    overlap = np.sqrt(shares[0] * shares[699]).sum(axis=1)
    hellinger_squared = 1 - overlap
    squared = ((found[0] - found[699]) ** 2).sum()
    assert squared == pytest.approx(2 * 9.0 * hellinger_squared.sum(), rel=1e-4)
    np.testing.assert_array_equal(densities(n_bins=16, weight=3.0).fit(counts).transform(
        counts.reshape(700, -1)), found)  # fmt: skip


def test_size_of_the_mask_does_not_matter_and_a_missing_zone_is_the_whole_lungs():
    counts = counts_for(*RECIPE, 4)
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
        ({"n_bins": 24}, "n_bins must divide 256; got 24"),
        ({"weight": 0}, "weight must be a number above 0, got 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        densities(**settings).fit(counts_for(*RECIPE, 3))


@pytest.mark.parametrize("shape", [(3, 8, 256), (3, 9, 128), (3, 100)])
@pytest.mark.parametrize(
    "transformer", [densities(), BothSides(densities(), zones=RECIPE.zones, bands=RECIPE.bands)]
)
def test_counts_of_another_layout_are_refused(transformer, shape):
    with pytest.raises(InputError, match=r"X must have 9 rows of 256 bins an image for .*; got shape \(3,"):
        transformer.fit(np.ones(shape))


def test_an_image_without_counts_is_refused():
    counts = counts_for(*RECIPE, 3)
    counts[1] = 0
    with pytest.raises(InputError, match="image 1 has none"):
        densities().fit_transform(counts)


# ---- both sides ----


@pytest.mark.parametrize(("zones", "bands"), [(2, ()), (6, "travel"), ("1+6", ("dx2", "std4"))])
def test_the_second_half_is_the_first_half_of_the_mirrored_counts(zones, bands):
    counts = counts_for(zones, bands)
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
