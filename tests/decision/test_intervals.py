import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binom, binomtest

from histcxr.decision.intervals import (
    Estimate,
    bootstrap_p_value,
    clopper_pearson,
    drawn_patients,
    patient_bootstrap,
    patient_codes,
    patient_labels,
    patient_scores,
    patient_strata,
    proportion,
)
from histcxr.exceptions import HistcxrWarning, InputError


@given(n=st.integers(1, 2000), share=st.floats(0, 1), confidence=st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_clopper_pearson_is_scipy_s_exact_interval(n, share, confidence):
    count = round(share * n)
    expected = binomtest(count, n).proportion_ci(confidence, method="exact")
    low, high = clopper_pearson(count, n, confidence)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


def test_clopper_pearson_is_elementwise_and_knows_nothing_without_trials():
    low, high = clopper_pearson([0, 3, 5, 0], [5, 5, 5, 0])
    assert low.tolist()[0] == 0
    assert high.tolist()[2:] == [1, 1]
    assert low[2] == pytest.approx(0.025 ** (1 / 5))
    assert (low[3], high[3]) == (0, 1)


def test_clopper_pearson_ends_are_exact_tails_for_many_trials():
    low, high = clopper_pearson(990_000, 1_000_000)
    assert binom.sf(989_999, 1_000_000, low) == pytest.approx(0.025, rel=1e-6)
    assert binom.cdf(990_000, 1_000_000, high) == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.95])
def test_coverage_is_never_below_the_confidence(p):
    counts = np.arange(41)
    low, high = clopper_pearson(counts, 40)
    assert binom.pmf(counts, 40, p)[(low <= p) & (p <= high)].sum() >= 0.95


@pytest.mark.parametrize(("count", "n"), [(-1, 5), (6, 5), (np.nan, 5), (1, 0)])
def test_counts_outside_are_refused(count, n):
    with pytest.raises(InputError, match="count must lie between 0 and n"):
        clopper_pearson(count, n)


def test_proportion():
    estimate = proportion(19, 20, confidence=0.9)
    expected = binomtest(19, 20).proportion_ci(0.9)
    assert estimate.value == 0.95
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
    assert (estimate.confidence, estimate.method) == (0.9, "Clopper-Pearson")
    assert json.loads(json.dumps(estimate.to_dict(), allow_nan=False))["value"] == 0.95
    assert str(estimate) == "0.950 (0.784 to 0.997)"


def test_a_proportion_of_nobody_is_an_error_and_not_nan():
    with pytest.raises(InputError, match="the NPV is undefined: there is nobody to count"):
        proportion(0, 0, of="NPV")
    with pytest.raises(InputError, match="confidence must be"):
        proportion(1, 2, confidence=95)
    with pytest.raises(InputError, match="must not hold NaN"):
        Estimate(0.5, np.nan, 1.0)


# ---- bootstrap of patients


def test_each_stratum_keeps_its_size():
    ids = ["a", "a", "b", "c", "c", "d", "e", ""]
    sick = np.array([1, 1, 0, 1, 0, 0, 1, 1], bool)
    strata = patient_strata(sick, patient_codes(ids, 8))
    assert strata.tolist() == [1, 2, 3, 2, 1, 1]
    for chosen in drawn_patients(strata, 50, seed=0):
        assert np.bincount(strata[chosen]).tolist() == [0, 3, 2, 1]
    assert len({tuple(chosen) for chosen in drawn_patients(strata, 50, seed=0)}) > 10


def test_images_of_a_patient_are_drawn_together():
    ids = np.array(["a", "b", "a", "c", "c", "c", ""])
    sick = np.array([1, 0, 1, 0, 0, 0, 1], bool)
    seen = []

    def count(rows):
        patients, times = np.unique(rows, return_counts=True)
        seen.append(dict(zip(patients.tolist(), times.tolist(), strict=True)))
        return float(rows.size)

    patient_bootstrap(count, np.arange(7), sick=sick, patient_ids=ids, draws=100)
    for drawn in seen:
        assert drawn.get(0, 0) == drawn.get(2, 0)
        assert drawn.get(3, 0) == drawn.get(4, 0) == drawn.get(5, 0)
        assert drawn.get(0, 0) + drawn.get(6, 0) == 2
        assert drawn.get(1, 0) + drawn.get(3, 0) == 2
    assert len({tuple(sorted(drawn.items())) for drawn in seen}) > 4


def test_the_interval_of_a_mean_is_the_textbook_one():
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    got = patient_bootstrap(np.mean, values, sick=np.arange(400) < 200, draws=2000, confidence=0.9)
    groups = [values[:200], values[200:]]
    error = np.sqrt(sum(group.var() / 200 for group in groups)) / 2  # the strata keep their sizes
    margin = stats.norm.ppf(0.95) * error
    assert got.value == pytest.approx(values.mean())
    assert (got.low, got.high) == pytest.approx((got.value - margin, got.value + margin), abs=0.1 * margin)
    assert (got.confidence, got.method) == (0.9, "patient bootstrap")


def test_several_arrays_are_drawn_alike():
    values = np.arange(50.0)
    got = patient_bootstrap(
        lambda a, b: float(np.abs(a - b).max() + a.mean()), values, values, sick=values < 20, draws=100
    )
    assert got.low < values.mean() < got.high
    assert patient_bootstrap(np.mean, values, sick=values < 20, draws=100).low == got.low


def test_a_statistic_without_spread_warns():
    with pytest.warns(HistcxrWarning, match="every bootstrap draw gave 1.0: no interval"):
        patient_bootstrap(np.mean, np.ones(10), sick=np.arange(10) < 5, draws=100)


def test_a_statistic_that_is_undefined_on_draws_is_an_error_and_not_nan():
    sick = np.arange(20) < 10
    rare = np.arange(20) == 0

    def share(rows, labels):
        return float(labels[rows].mean()) if rows.any() else np.nan

    with pytest.raises(InputError, match=r"statistic must be finite on every draw, got \d+ of 200"):
        patient_bootstrap(share, rare, sick, sick=sick, draws=200)
    with pytest.raises(InputError, match="statistic must be finite on the data, got nan"):
        patient_bootstrap(share, np.zeros(20, bool), sick, sick=sick)


def test_lengths_are_checked():
    with pytest.raises(InputError, match=r"arrays\[1\] must have 3 rows, got shape \(2,\)"):
        patient_bootstrap(np.mean, [1, 2, 3], [1, 2], sick=[True, False, True])
    with pytest.raises(InputError, match="draws must be a whole number of at least 100, got 5"):
        patient_bootstrap(np.mean, [1.0, 2.0], sick=[True, False], draws=5)
    with pytest.raises(InputError, match="confidence must be"):
        patient_bootstrap(np.mean, [1.0, 2.0], sick=[True, False], confidence=2)


def test_the_p_value_of_draws_is_two_sided_and_never_zero():
    assert bootstrap_p_value(np.full(199, 0.1)) == pytest.approx(2 / 200)
    assert bootstrap_p_value(np.array([-1.0] * 10 + [1.0] * 189)) == pytest.approx(2 * 11 / 200)
    assert bootstrap_p_value(np.zeros(100)) == 1


# ---- from images to patients


IDS = st.lists(st.sampled_from(["", "a", "b", "c", None]), max_size=30)


def test_codes_follow_first_appearance_and_unknown_ids_stand_alone():
    assert patient_codes(["b", "", "a", "b", "", None, np.nan], 7).tolist() == [0, 1, 2, 0, 3, 4, 5]
    assert patient_codes(None, 3).tolist() == [0, 1, 2]
    assert patient_codes([], 0).size == 0


def test_ids_may_be_numbers_and_pandas_columns():
    assert patient_codes(np.array([7, 5, 7]), 3).tolist() == [0, 1, 0]
    assert patient_codes(pd.Series(["x", "", "x"], index=[5, 6, 7]), 3).tolist() == [0, 1, 0]
    assert patient_codes(pd.Series(["x", None, "x"], dtype="string"), 3).tolist() == [0, 1, 0]


@given(ids=IDS, data=st.data())
def test_scores_and_labels_agree_with_a_plain_loop(ids, data):
    scores = data.draw(st.lists(st.floats(-5, 5), min_size=len(ids), max_size=len(ids)))
    sick = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    highest, labels = {}, {}
    for position, patient in enumerate(ids):
        key = patient or position
        highest[key] = max(highest.get(key, -np.inf), scores[position])
        labels[key] = labels.get(key, False) or sick[position]
    assert patient_scores(np.array(scores, float), ids).tolist() == list(highest.values())
    assert patient_labels(np.array(sick, bool), ids).tolist() == list(labels.values())


def test_a_patient_with_an_image_without_score_has_none():
    got = patient_scores([0.1, np.nan, 0.9, np.inf, 0.5], ["a", "a", "b", "b", "c"])
    np.testing.assert_array_equal(got, [np.nan, np.nan, 0.5])


def test_wrong_shapes_are_refused():
    with pytest.raises(
        InputError, match=r"patient_ids must have shape \(2,\), one for each image, got \(3,\)"
    ):
        patient_scores([0.1, 0.2], ["a", "b", "c"])
    with pytest.raises(InputError, match="patient_ids must have shape"):
        patient_labels([True, False], [["a", "b"]])
    with pytest.raises(InputError, match="scores must be one-dimensional"):
        patient_scores([[0.1]], ["a"])
    with pytest.raises(InputError, match="sick must be bool"):
        patient_labels([0, 2], ["a", "b"])
