import json

import numpy as np
import pytest
from scipy import special
from scipy.stats import binomtest
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from histcxr.decision.curves import (
    expected_calibration_error,
    recalibration,
    reliability_table,
    specificity_at_sensitivity,
)
from histcxr.decision.intervals import proportion
from histcxr.exceptions import InputError


def study(seed, n=300, digits=2):
    rng = np.random.default_rng(seed)
    sick = rng.random(n) < 0.4
    return np.round(rng.normal(sick * 1.2), digits), sick


def exact_specificity(positive, sick):
    return proportion(int((~positive & ~sick).sum()), int((~sick).sum()))


def test_specificity_at_sensitivity_is_the_best_point_of_the_curve():
    scores, sick = study(4, digits=1)
    for wanted in (0.5, 0.9, 0.95, 0.999):
        point = specificity_at_sensitivity(scores, sick, sensitivity=wanted, draws=200)
        alarms, sensitivity, thresholds = oracle.roc_curve(sick, scores, drop_intermediate=False)
        best = int(np.flatnonzero(sensitivity >= wanted)[0])
        assert point.threshold == thresholds[best]
        assert point.sensitivity == pytest.approx(sensitivity[best])
        assert point.specificity.value == pytest.approx(1 - alarms[best])
        fixed = exact_specificity(scores >= point.threshold, sick)
        assert point.specificity.low <= fixed.low < fixed.high <= point.specificity.high
        assert json.loads(json.dumps(point.to_dict(), allow_nan=False))["threshold"] == point.threshold


def test_a_sensitivity_that_is_a_whole_count_needs_no_more_than_it():
    # 0.95 of 20 is 19, whatever floating point makes of the product
    scores = np.concatenate([np.arange(20), np.arange(20) - 100.0])
    point = specificity_at_sensitivity(scores, np.arange(40) < 20, sensitivity=0.95, draws=100)
    assert (point.threshold, point.sensitivity) == (1, 0.95)
    assert point.specificity.value == 1
    assert point.specificity.low == pytest.approx(0.025 ** (1 / 20))


def test_choosing_the_threshold_on_the_data_widens_the_interval():
    scores, sick = study(6, n=120, digits=6)
    point = specificity_at_sensitivity(scores, sick, sensitivity=0.95, draws=500)
    fixed = exact_specificity(scores >= point.threshold, sick)
    assert point.specificity.high - point.specificity.low > 1.2 * (fixed.high - fixed.low)


def test_both_classes_and_finite_scores_are_needed():
    with pytest.raises(InputError, match="sick must hold both classes, got 2 sick and 0 normal"):
        specificity_at_sensitivity([0.1, 0.2], [True, True])
    with pytest.raises(InputError, match="scores must be finite"):
        specificity_at_sensitivity([0.1, np.nan], [True, False])
    with pytest.raises(InputError, match="sick must have 2 entries"):
        specificity_at_sensitivity([0.1, 0.2], [True])


# ---- probabilities


def probabilities(seed=0, n=1500, slope=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n) * 1.5
    return special.expit(logit), rng.random(n) < special.expit(slope * logit + shift)


def test_reliability_table_is_scikit_learn_s_curve_with_exact_intervals():
    p, sick = probabilities(1)
    table = reliability_table(p, sick, bins=8)
    observed, predicted = calibration_curve(sick, p, n_bins=8)
    np.testing.assert_allclose(table["observed"], observed)
    np.testing.assert_allclose(table["predicted"], predicted)
    assert table["n"].sum() == p.size
    for row in table.itertuples():
        inside = (p >= row.low) & (p < row.high)
        assert row.n == inside.sum()
        expected = binomtest(int(sick[inside].sum()), int(row.n)).proportion_ci(0.95)
        assert (row.observed_low, row.observed_high) == pytest.approx((expected.low, expected.high))


def test_the_ends_belong_to_bins_and_empty_bins_are_left_out():
    table = reliability_table([0.0, 0.0, 1.0, 1.0], [False, False, True, False], bins=10)
    assert table["n"].tolist() == [2, 2]
    assert table["high"].tolist() == pytest.approx([0.1, 1.0])
    assert table["observed"].tolist() == [0, 0.5]


def test_expected_calibration_error_by_hand():
    p = np.repeat([0.05, 0.55], [60, 40])
    sick = np.concatenate([np.arange(60) < 6, np.arange(40) < 30])
    assert expected_calibration_error(p, sick) == pytest.approx(
        0.6 * abs(0.05 - 0.1) + 0.4 * abs(0.55 - 0.75)
    )
    good, truth = probabilities(3, n=20_000)
    assert expected_calibration_error(good, truth) < 0.02
    assert expected_calibration_error(good**3, truth) > 0.1


@pytest.mark.parametrize("function", [reliability_table, expected_calibration_error])
def test_probabilities_are_checked(function):
    for bad in ([1.2, 0.1], [-0.1, 0.5]):
        with pytest.raises(InputError, match=r"probabilities must be at least one number, all in \[0, 1\]"):
            function(bad, [True, False])
    with pytest.raises(InputError, match="probabilities must be at least one number"):
        function([], [])
    with pytest.raises(InputError, match="probabilities must be finite"):
        function([np.nan, 0.1], [True, False])
    with pytest.raises(InputError, match="sick must have 2 entries"):
        function([0.2, 0.1], [True])


def test_bins_are_checked():
    with pytest.raises(InputError, match="bins must be a whole number of at least 1, got 0"):
        reliability_table([0.5], [True], bins=0)


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (1.5, 1.0), (-0.7, 2.0)])
def test_recalibration_finds_what_was_done_to_true_probabilities(shift, stretch):
    rng = np.random.default_rng(1)
    odds = rng.normal(0, 2, 20_000)
    sick = rng.random(odds.size) < 1 / (1 + np.exp(-odds))
    found = recalibration(1 / (1 + np.exp(-(stretch * odds - shift))), sick)
    assert found["slope"] == pytest.approx(1 / stretch, rel=0.05)
    assert found["observed"] == pytest.approx(0.5, abs=0.02)
    if stretch == 1.0:
        assert found["in_the_large"] == pytest.approx(shift, abs=0.06)
    with pytest.raises(InputError, match="sick and normal"):
        recalibration([0.2, 0.7], [True, True])
