import json

import numpy as np
import pytest
from scipy import special
from scipy.stats import binomtest
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from histcxr.decision.reliability import (
    brier_score,
    calibration_line,
    calibration_report,
    expected_calibration_error,
    log_loss,
    reliability_table,
)
from histcxr.exceptions import InputError


def study(seed=0, n=1500, slope=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n) * 1.5
    return special.expit(logit), rng.random(n) < special.expit(slope * logit + shift)


def test_scores_are_scikit_learn_s():
    p, sick = study()
    assert brier_score(p, sick) == pytest.approx(oracle.brier_score_loss(sick, p))
    assert log_loss(p, sick) == pytest.approx(oracle.log_loss(sick, p))
    assert brier_score([0.0, 1.0], [False, True]) == 0
    assert brier_score([1.0], [False]) == 1
    assert np.isfinite(log_loss([1.0, 0.0], [False, True]))
    assert log_loss([0.5], [True]) == pytest.approx(np.log(2))


def test_reliability_table_is_scikit_learn_s_curve_with_exact_intervals():
    p, sick = study(1)
    table = reliability_table(p, sick, bins=8, confidence=0.9)
    observed, predicted = calibration_curve(sick, p, n_bins=8)
    np.testing.assert_allclose(table["observed"], observed)
    np.testing.assert_allclose(table["predicted"], predicted)
    assert table["n"].sum() == p.size
    for row in table.itertuples():
        inside = (p >= row.low) & (p < row.high)
        assert row.n == inside.sum()
        expected = binomtest(int(sick[inside].sum()), int(row.n)).proportion_ci(0.9)
        assert (row.observed_low, row.observed_high) == pytest.approx((expected.low, expected.high))


def test_the_ends_belong_to_bins_and_empty_bins_are_left_out():
    table = reliability_table([0.0, 0.0, 1.0, 1.0], [False, False, True, False], bins=10)
    assert table["n"].tolist() == [2, 2]
    assert table["high"].tolist() == pytest.approx([0.1, 1.0])
    assert table["observed"].tolist() == [0, 0.5]


def test_quantile_bins_hold_equal_counts_and_never_part_equal_probabilities():
    p, sick = study(2, n=1000)
    table = reliability_table(p, sick, bins=10, strategy="quantile")
    assert table["n"].between(95, 105).all()
    tied = np.repeat([0.1, 0.2, 0.9], [500, 300, 200])
    table = reliability_table(tied, sick, bins=10, strategy="quantile")
    assert sorted(table["n"]) == [200, 300, 500]
    assert sorted(table["predicted"].round(12)) == [0.1, 0.2, 0.9]


def test_expected_calibration_error_by_hand():
    p = np.repeat([0.05, 0.55], [60, 40])
    sick = np.concatenate([np.arange(60) < 6, np.arange(40) < 30])
    assert expected_calibration_error(p, sick) == pytest.approx(
        0.6 * abs(0.05 - 0.1) + 0.4 * abs(0.55 - 0.75)
    )
    good, truth = study(3, n=20_000)
    assert expected_calibration_error(good, truth) < 0.02
    assert expected_calibration_error(good**3, truth) > 0.1


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.5, -0.7), (1.6, 0.4)])
def test_calibration_line_is_a_logistic_regression(slope, shift):
    p, sick = study(4, slope=slope, shift=shift)
    line = calibration_line(p, sick)
    logit = special.logit(p)[:, np.newaxis]
    plain = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(logit, sick)
    assert line.slope.value == pytest.approx(plain.coef_[0, 0], abs=1e-4)
    assert line.intercept.value == pytest.approx(plain.intercept_[0], abs=1e-4)
    assert line.slope.low < slope < line.slope.high
    assert line.intercept.low < shift < line.intercept.high


def test_in_the_large_makes_the_mean_right():
    p, sick = study(5, shift=-0.8)
    line = calibration_line(p, sick)
    moved = special.expit(special.logit(p) + line.in_the_large.value)
    assert moved.mean() == pytest.approx(sick.mean(), abs=1e-9)
    assert line.in_the_large.low < -0.8 < line.in_the_large.high


def test_the_line_s_intervals_cover():
    hits = np.zeros(3)
    for seed in range(300):
        line = calibration_line(*study(seed, n=250))
        hits += [
            line.slope.low <= 1 <= line.slope.high,
            line.intercept.low <= 0 <= line.intercept.high,
            line.in_the_large.low <= 0 <= line.in_the_large.high,
        ]
    assert ((hits / 300 > 0.91) & (hits / 300 < 0.99)).all()


def test_no_line_where_none_fits_best():
    for p in (
        [0.1, 0.2, 0.8, 0.9],
        [0.9, 0.8, 0.2, 0.1],
        [0.5] * 4,
        [0.0, 0.0, 1.0, 1.0],
        [0.1, 0.5, 0.5, 0.9],
    ):
        with pytest.raises(InputError, match="probabilities must overlap between the classes"):
            calibration_line(p, [False, False, True, True])
    with pytest.raises(InputError, match="both classes"):
        calibration_line([0.1, 0.2], [True, True])


def test_certain_probabilities_are_moved_a_little_inside():
    p, sick = study(6, n=400)
    p[:4], sick[:4] = [0, 0, 1, 1], [False, True, True, False]
    line = calibration_line(p, sick)
    assert np.isfinite([line.slope.low, line.slope.high]).all()


def test_the_report_is_safe_for_json_also_where_there_is_no_line():
    p, sick = study(7, n=200)
    report = json.loads(json.dumps(calibration_report(p, sick, bins=5), allow_nan=False))
    assert report["n"] == 200
    assert report["brier"] == brier_score(p, sick)
    assert report["line"]["slope"]["value"] == calibration_line(p, sick).slope.value
    assert sum(row["n"] for row in report["reliability"]) == 200
    perfect = json.loads(json.dumps(calibration_report([0.0, 1.0], [False, True]), allow_nan=False))
    assert perfect["line"] is None
    assert json.loads(json.dumps(calibration_report([0.3], [True]), allow_nan=False))["line"] is None


@pytest.mark.parametrize(
    "function", [brier_score, log_loss, reliability_table, calibration_line, calibration_report]
)
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


def test_bins_and_strategy_are_checked():
    with pytest.raises(InputError, match="bins must be a whole number of at least 1, got 0"):
        reliability_table([0.5], [True], bins=0)
    with pytest.raises(InputError, match="strategy must be 'uniform' or 'quantile', got 'equal'"):
        reliability_table([0.5], [True], strategy="equal")
