import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from histcxr.exceptions import InputError
from histcxr.features.histograms import ZONES, zone_names
from histcxr.features.transformers import KINDS, HistogramFeatures, LungIntensity

EXPECTED_FAILURES = {
    "check_estimators_dtypes": "its data, as integers, has a row of zeros: an image without pixels, refused"
}
COMBINED = tuple(kind for kind in KINDS if kind != "share")


@parametrize_with_checks(
    [
        HistogramFeatures(),
        HistogramFeatures("density"),
        HistogramFeatures(COMBINED, scale="own", areas=True, dtype="float32"),
        LungIntensity(),
    ],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def pixels(seed, n=400, low=30, high=200):
    """One zone's pixel values: a lump and a tail, as lungs have."""
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(90, 18, 3 * n // 4), rng.uniform(low, high, n - 3 * n // 4)])
    return np.clip(np.rint(values), 0, 255).astype(int)


def histogram(values):
    return np.bincount(values, minlength=256)


def counts_of(n=5, zones=1, seed=0):
    """Counts (n, zones, 256) that keep the promise of the zone settings: the first row is the whole's."""
    parts = len(zone_names(zones)) - isinstance(zones, str)
    rows = [
        [histogram(pixels(seed + 100 * image + part, 300 + 40 * part)) for part in range(parts)]
        for image in range(n)
    ]
    counts = np.array(rows, dtype=np.int64)
    whole = counts.sum(axis=1, keepdims=True)
    return np.concatenate([whole, counts], axis=1) if isinstance(zones, str) else counts


def features(counts, kind, **settings):
    return HistogramFeatures(kind, **settings).fit_transform(counts)


# ---- each kind against numpy ----


def test_density_cumulative_and_root():
    counts = counts_of(4, 2)
    density = counts / counts.sum(axis=2, keepdims=True)
    flat = density.reshape(4, -1)
    np.testing.assert_allclose(features(counts, "density", zones=2), flat, rtol=1e-12)
    np.testing.assert_allclose(features(counts, "sqrt", zones=2), np.sqrt(flat), rtol=1e-12)
    cumulative = np.cumsum(density, axis=2).reshape(4, -1)
    np.testing.assert_allclose(features(counts, "cumulative", zones=2), cumulative, rtol=1e-12)


def test_distance_of_roots_is_hellingers():
    p, q = counts_of(2)[:, 0] / counts_of(2)[:, 0].sum(axis=1, keepdims=True)
    a, b = features(counts_of(2), "sqrt")
    assert np.linalg.norm(a - b) ** 2 / 2 == pytest.approx(1 - np.sqrt(p * q).sum())


def test_smoothed_keeps_weight_and_mean_and_widens():
    counts = counts_of(3)
    smoothed = features(counts, "smoothed", sigma=3.0)
    density = features(counts, "density")
    axis = np.arange(256)
    np.testing.assert_allclose(smoothed.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(smoothed @ axis, density @ axis, rtol=1e-6)
    variance = [d @ axis**2 - (d @ axis) ** 2 for d in (*density, *smoothed)]
    np.testing.assert_allclose(np.subtract(variance[3:], variance[:3]), 9, rtol=1e-2)


def test_smoothed_keeps_weight_at_the_ends():
    counts = np.zeros((1, 1, 256))
    counts[0, 0, [0, 255]] = [3, 1]
    assert features(counts, "smoothed").sum() == pytest.approx(1)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=60), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_quantiles_lie_in_the_bin_of_the_sorted_pixel(values, n):
    values = np.sort(np.array(values))
    found = features(histogram(values)[None, None], "quantile", n_quantiles=n)[0]
    for index, quantile in enumerate(found):
        # The level is (2 * index + 1) / (2 * n); the pixel that reaches it, in whole numbers.
        rank = -(-(2 * index + 1) * len(values) // (2 * n))
        assert abs(quantile - values[rank - 1]) <= 0.5
    assert (np.diff(found) >= 0).all()


def test_quantiles_interpolate_within_bins():
    counts = np.zeros((1, 1, 256), int)
    counts[0, 0, [10, 11]] = [1, 3]
    found = features(counts, "quantile", n_quantiles=4)[0]  # levels 1/8, 3/8, 5/8, 7/8
    np.testing.assert_allclose(found, [10.0, 10.5 + 1 / 6, 10.5 + 3 / 6, 10.5 + 5 / 6], rtol=1e-12)


def test_quantiles_are_smooth():
    """One pixel that changes bins moves a quantile by less than a bin."""
    values = pixels(0, 4000)
    before = features(histogram(values)[None, None], "quantile")[0]
    values[np.argsort(values)[2000]] += 1
    after = features(histogram(values)[None, None], "quantile")[0]
    assert 0 < np.abs(after - before).max() < 0.1


def test_shift_moves_raw_quantiles_only():
    counts = counts_of(3)
    shifted = np.roll(counts, 20, axis=2)
    shifted[:, :, 255] += shifted[:, :, :20].sum(axis=2)
    shifted[:, :, :20] = 0
    for scale, by in (("raw", 20), ("own", 0)):
        there = features(counts, "quantile", scale=scale, n_quantiles=20)[:, :18]
        np.testing.assert_allclose(
            features(shifted, "quantile", scale=scale, n_quantiles=20)[:, :18], there + by
        )


@pytest.mark.parametrize("kind", [*COMBINED, "share"])
def test_own_scale_forgets_shift_and_gain(kind):
    """Twice the gain and an offset: the same lungs on another detector."""
    values = [pixels(seed, 6000, 40, 110) // 2 + 10 for seed in range(6)]
    here = np.array([[histogram(v) for v in values]])
    there = np.array([[histogram(2 * v + 20) + histogram(2 * v + 21) for v in values]])
    one, other = (features(c, kind, zones=6, scale="own") for c in (here, there))
    np.testing.assert_allclose(one, other, atol=1e-7)
    raw = [features(c, kind, zones=6) for c in (here, there)]
    assert np.allclose(*raw, atol=1e-9) == (kind == "share")


def test_own_scale_has_median_zero_and_range_one():
    found = features(counts_of(5, "1+2"), "quantile", zones="1+2", scale="own", n_quantiles=2)[:, :2]
    np.testing.assert_allclose(found[:, 1] - found[:, 0], 1, rtol=1e-9)  # levels 1/4 and 3/4
    middle = features(counts_of(5, "1+2"), "quantile", zones="1+2", scale="own", n_quantiles=1)[:, 0]
    np.testing.assert_allclose(middle, 0, atol=1e-12)


def test_own_axis_keeps_all_weight():
    counts = counts_of(4, 6)
    counts[:, :, 255] += 50  # far beyond three interquartile ranges
    density = features(counts, "density", zones=6, scale="own", own_bins=40, own_range=2.0).reshape(4, 6, 40)
    np.testing.assert_allclose(density.sum(axis=2), 1, rtol=1e-12)
    expected = counts[:, :, 255:].sum(axis=2) / counts.sum(axis=2)
    assert (density[:, :, -1] >= expected - 1e-12).all()


def test_own_axis_against_a_histogram_of_standardised_values():
    values = pixels(3, 5000)
    rng = np.random.default_rng(0)
    spread = values + rng.uniform(-0.5, 0.5, (2000, values.size))
    quarter, median, three = np.quantile(spread, [0.25, 0.5, 0.75])
    expected = np.histogram((spread - median) / (three - quarter), bins=30, range=(-3, 3))[0] / spread.size
    found = features(histogram(values)[None, None], "density", scale="own", own_bins=30)[0]
    np.testing.assert_allclose(found[1:-1], expected[1:-1], atol=2e-4)


def test_share_against_pixels():
    zones = [pixels(1, 3000), pixels(2, 5000) + 15]
    counts = np.array([[histogram(v) for v in zones]])
    found = features(counts, "share", zones=2, n_shares=5)[0].reshape(2, 5)
    rng = np.random.default_rng(0)
    spread = [v + rng.uniform(-0.5, 0.5, (500, v.size)) for v in zones]
    edges = np.quantile(np.concatenate([s.ravel() for s in spread]), np.arange(6) / 5)
    for row, values in zip(found, spread, strict=True):
        np.testing.assert_allclose(row, np.histogram(values, edges)[0] / values.size, atol=2e-3)
    weights = counts.sum(axis=2)[0] / counts.sum()
    np.testing.assert_allclose(weights @ found, 1 / 5, rtol=1e-9)  # together they are the whole


def test_share_ignores_any_monotone_change_of_intensity():
    values = [pixels(seed, 900) // 2 for seed in range(2)]
    here = np.array([[histogram(v) for v in values]])
    there = np.array([[histogram(v + v**2 // 100) for v in values]])  # rises with v and merges no two
    np.testing.assert_allclose(*(features(c, "share", zones=2) for c in (here, there)), atol=1e-9)


# ---- layout, names, batches ----


@pytest.mark.parametrize("zones", ZONES)
@pytest.mark.parametrize("scale", ["raw", "own"])
def test_names_match_columns(zones, scale):
    kinds = COMBINED if zones == 1 else KINDS
    made = HistogramFeatures(kinds, zones=zones, scale=scale, areas=True)
    found = made.fit_transform(counts_of(2, zones))
    names = made.get_feature_names_out()
    assert found.shape == (2, len(names))
    assert len(set(names)) == len(names)
    alone = [HistogramFeatures(kind, zones=zones, scale=scale).fit(counts_of(2, zones)) for kind in kinds]
    assert list(names)[: sum(len(one.get_feature_names_out()) for one in alone)] == [
        name for one in alone for name in one.get_feature_names_out()
    ]
    joined = np.concatenate([one.transform(counts_of(2, zones)) for one in alone], axis=1)
    np.testing.assert_array_equal(found[:, : joined.shape[1]], joined)


def test_names_say_zone_kind_and_level():
    names = HistogramFeatures(["quantile", "share"], zones="1+2", n_quantiles=2, n_shares=2, areas=True)
    assert list(names.fit(counts_of(2, "1+2")).get_feature_names_out()) == [
        *(f"{zone}_quantile_{level}" for zone in ("lungs", "right", "left") for level in (0.25, 0.75)),
        *(f"{zone}_share_{part}" for zone in ("right", "left") for part in (0, 1)),
        "right_area",
        "left_area",
    ]


def test_areas_are_shares_of_the_lungs():
    counts = counts_of(3, "1+6")
    expected = counts[:, 1:].sum(axis=2) / counts[:, 1:].sum(axis=(1, 2))[:, None]
    np.testing.assert_allclose(features(counts, "share", zones="1+6", areas=True)[:, -6:], expected)
    assert features(counts_of(3), "quantile", areas=True).shape == (3, 32)  # nothing to compare


def test_features_do_not_betray_areas_unless_asked():
    counts = counts_of(3, 2)
    larger = counts * np.array([1, 3])[:, None]
    for kind in COMBINED:
        np.testing.assert_allclose(
            features(larger, kind, zones=2), features(counts, kind, zones=2), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("zones", [1, 6, "1+6"])
def test_flat_and_cube_and_table_are_the_same(zones):
    counts = counts_of(4, zones)
    made = HistogramFeatures(COMBINED, zones=zones).fit(counts)
    expected = made.transform(counts)
    np.testing.assert_array_equal(made.transform(counts.reshape(4, -1)), expected)
    np.testing.assert_array_equal(made.transform(counts.tolist()), expected)
    np.testing.assert_array_equal(made.transform(counts.astype(np.float32)), expected)
    table = pd.DataFrame(counts.reshape(4, -1), columns=[f"bin{i}" for i in range(counts[0].size)])
    np.testing.assert_array_equal(HistogramFeatures(COMBINED, zones=zones).fit_transform(table), expected)


def test_pandas_output():
    made = HistogramFeatures("quantile", zones=2, n_quantiles=3).set_output(transform="pandas")
    table = made.fit_transform(counts_of(3, 2))
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == list(made.get_feature_names_out())
    assert table.columns[0] == "right_quantile_0.166667"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_as_asked(dtype):
    found = features(counts_of(3, 2), KINDS, zones=2, dtype=dtype)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, features(counts_of(3, 2), KINDS, zones=2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", ["raw", "own"])
def test_a_row_does_not_depend_on_its_batch(scale):
    """Bit for bit: a triage that resumes cuts its batches elsewhere."""
    counts = np.concatenate([counts_of(30, 6, seed) for seed in range(40)])
    assert len(counts) > 1024
    made = HistogramFeatures(KINDS, zones=6, scale=scale).fit(counts[:1])
    together = made.transform(counts)
    for rows in (slice(0, 1), slice(3, 50), slice(1000, 1100)):
        np.testing.assert_array_equal(made.transform(counts[rows]), together[rows])


def test_input_is_not_changed():
    counts = counts_of(3, "1+6").astype(np.float64)
    before = counts.copy()
    features(counts, KINDS, zones="1+6", ignore_bins=(90,))
    np.testing.assert_array_equal(counts, before)


# ---- odd lungs ----


def test_missing_lung_takes_the_distribution_of_the_whole():
    counts = counts_of(2, "1+2")
    counts[0, 1] = 0
    counts[0, 0] = counts[0, 2]
    made = HistogramFeatures(COMBINED, zones="1+2").fit(counts)
    table = pd.DataFrame(made.transform(counts), columns=made.get_feature_names_out())
    right = table.filter(regex="^right").to_numpy()[0]
    np.testing.assert_array_equal(right, table.filter(regex="^lungs").to_numpy()[0])
    share = features(counts, "share", zones="1+2", areas=True)[0]
    np.testing.assert_allclose(share, [1 / 16] * 32 + [0, 1], atol=1e-12)


@pytest.mark.parametrize("value", [0, 100, 255])
@pytest.mark.parametrize("scale", ["raw", "own"])
def test_one_grey_value_gives_finite_features(value, scale):
    counts = np.zeros((1, 7, 256), int)
    counts[0, :, value] = [60, 10, 10, 10, 10, 10, 10]
    found = features(counts, KINDS, zones="1+6", scale=scale)
    assert np.isfinite(found).all()


def test_ignored_bins_count_as_empty():
    counts = counts_of(3, 2)
    holes = counts.copy()
    holes[:, :, 0] += 500
    holes[:, :, 255] += 70
    clean = counts.copy()
    clean[:, :, [0, 255]] = 0
    for kind in KINDS:
        found = features(holes, kind, zones=2, ignore_bins=(0, 255))
        np.testing.assert_array_equal(found, features(clean, kind, zones=2))
        assert not np.allclose(features(holes, kind, zones=2), found)


def test_image_without_pixels_is_refused():
    counts = counts_of(4, 2)
    counts[2] = 0
    with pytest.raises(InputError, match="counted pixel in every image; image 2 has none"):
        features(counts, "density", zones=2)
    counts[2, :, 0] = 10
    features(counts, "density", zones=2)
    with pytest.raises(InputError, match=r"ignore_bins=\(0,\).*image 2 has none"):
        features(counts, "density", zones=2, ignore_bins=(0,))


# ---- errors ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "median"}, "kind must be one or several different of density, .*got 'median'"),
        ({"kind": ()}, "kind must be one or several"),
        ({"kind": ("sqrt", "sqrt")}, "kind must be one or several different"),
        ({"kind": "share"}, "kind 'share' compares zones and needs two or more"),
        ({"zones": 3}, "zones must be one of"),
        ({"scale": "z"}, "scale must be 'raw' or 'own'; got 'z'"),
        ({"n_quantiles": 0}, "n_quantiles must be a whole number of at least 1, got 0"),
        ({"n_quantiles": 2.5}, "n_quantiles must be a whole number"),
        ({"n_shares": 1}, "n_shares must be a whole number of at least 2, got 1"),
        ({"own_bins": True}, "own_bins must be a whole number of at least 2"),
        ({"sigma": 0}, "sigma must be a number above 0, got 0"),
        ({"own_range": float("nan")}, "own_range must be a number above 0, got nan"),
        ({"ignore_bins": (256,)}, "ignore_bins must lie between 0 and 255; got 256"),
        ({"ignore_bins": (-1,)}, "ignore_bins must lie between 0 and 255; got -1"),
        ({"dtype": "int8"}, "dtype must be 'float64' or 'float32'; got 'int8'"),
    ],
)
def test_wrong_parameters_are_refused_by_fit(settings, message):
    made = HistogramFeatures(**settings)  # constructors only store
    with pytest.raises(InputError, match=message):
        made.fit(counts_of(2))


def test_wrong_layouts_are_refused():
    with pytest.raises(InputError, match=r"X must have 2 rows an image for .*zones=2.* \(3, 6, 256\)"):
        HistogramFeatures(zones=2).fit(counts_of(3, 6))
    with pytest.raises(InputError, match=r"X must have 6 rows an image .*got shape \(3, 256\)"):
        HistogramFeatures(zones=6).fit(np.ones((3, 256)))
    made = HistogramFeatures(zones=2).fit(counts_of(3, 2))
    with pytest.raises(ValueError, match="X has 256 features, but HistogramFeatures is expecting 512"):
        made.transform(np.ones((3, 256)))
    with pytest.raises(ValueError, match="Negative values in data"):
        made.transform(-np.ones((3, 512)))
    with pytest.raises(ValueError, match="NaN"):
        made.transform(np.full((3, 2, 256), np.nan))
    with pytest.raises(NotFittedError):
        HistogramFeatures().transform(counts_of(2))


# ---- at work in scikit-learn ----


def test_works_in_pipelines_and_searches():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    counts = np.array(
        [[np.bincount(rng.normal(90 + 12 * sick, 15, 500).astype(int), minlength=256)] for sick in y]
    )
    pipeline = make_pipeline(HistogramFeatures(n_quantiles=8), KNeighborsClassifier())
    assert cross_val_score(pipeline, counts, y, cv=3).min() > 0.9
    grid = {
        "histogramfeatures__kind": ["sqrt", ("quantile", "density")],
        "histogramfeatures__scale": ["raw", "own"],
    }
    search = GridSearchCV(pipeline, grid, cv=3).fit(counts, y)
    assert search.best_params_["histogramfeatures__scale"] == "raw"  # brightness is all there is to see here
    assert clone(search.best_estimator_).get_params()["histogramfeatures__n_quantiles"] == 8
