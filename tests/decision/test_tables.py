import json

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from histcxr.decision import metrics
from histcxr.exceptions import InputError


def study(seed, n=300, digits=2):
    rng = np.random.default_rng(seed)
    sick = rng.random(n) < 0.4
    return np.round(rng.normal(sick * 1.2), digits), sick


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_roc_table_is_scikit_learn_s_curve(digits):
    scores, sick = study(digits, digits=digits)
    table = metrics.roc_table(scores, sick)
    fpr, tpr, thresholds = roc_curve(sick, scores, drop_intermediate=False)
    np.testing.assert_array_equal(table["threshold"], thresholds)
    np.testing.assert_allclose(table["false_positive_rate"], fpr, rtol=0, atol=1e-15)
    np.testing.assert_allclose(table["sensitivity"], tpr, rtol=0, atol=1e-15)
    np.testing.assert_allclose(table["specificity"], 1 - fpr, rtol=0, atol=1e-15)
    area = np.trapezoid(table["sensitivity"], table["false_positive_rate"])
    assert area == pytest.approx(metrics.roc_auc(scores, sick))


@pytest.mark.parametrize("prevalence", [None, 0.07])
def test_each_row_is_what_the_single_functions_say(prevalence):
    scores, sick = study(3, n=60, digits=1)
    table = metrics.threshold_table(scores, sick, prevalence=prevalence, confidence=0.9)
    assert table["threshold"].tolist() == np.unique(scores).tolist()
    for row in table.itertuples():
        positive = scores >= row.threshold
        for name in ("sensitivity", "specificity", "ppv", "npv"):
            function = getattr(metrics, name)
            if name == "npv" and positive.all():
                assert np.isnan(row.npv)
                assert (row.npv_low, row.npv_high) == (0, 1)
                continue
            options = {"prevalence": prevalence} if name in ("ppv", "npv") else {}
            one = function(positive, sick, confidence=0.9, **options)
            got = (getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high"))
            assert got == pytest.approx((one.value, one.low, one.high), abs=1e-12), (name, row.threshold)
        if prevalence is None:
            assert row.ruled_out == pytest.approx((~positive).mean())
        else:
            missed, spared = (~positive)[sick].mean(), (~positive)[~sick].mean()
            assert row.ruled_out == pytest.approx(prevalence * missed + (1 - prevalence) * spared)


def test_thresholds_of_one_s_own_and_values_that_do_not_exist():
    table = metrics.threshold_table([0.1, 0.9], [False, True], thresholds=[0.5, 2.0], prevalence=0.5)
    assert table["ruled_out"].tolist() == [0.5, 1.0]
    assert np.isnan(table["ppv"][1])
    assert (table["ppv_low"][1], table["ppv_high"][1]) == (0, 1)
    assert not table.drop(columns="ppv").isna().any(axis=None)


def test_specificity_at_sensitivity_is_the_best_point_of_the_curve():
    scores, sick = study(4, digits=1)
    for wanted in (0.5, 0.9, 0.95, 0.999):
        point = metrics.specificity_at_sensitivity(scores, sick, sensitivity=wanted, draws=200)
        table = metrics.roc_table(scores, sick)
        best = table[table["sensitivity"] >= wanted].iloc[0]
        assert point.threshold == best["threshold"]
        assert point.sensitivity == pytest.approx(best["sensitivity"])
        assert point.specificity.value == pytest.approx(best["specificity"])
        fixed = metrics.specificity(scores >= point.threshold, sick)
        assert point.specificity.low <= fixed.low < fixed.high <= point.specificity.high
        assert json.loads(json.dumps(point.to_dict(), allow_nan=False))["threshold"] == point.threshold


def test_a_sensitivity_that_is_a_whole_count_needs_no_more_than_it():
    # 0.95 of 20 is 19, whatever floating point makes of the product
    scores = np.concatenate([np.arange(20), np.arange(20) - 100.0])
    point = metrics.specificity_at_sensitivity(scores, np.arange(40) < 20, sensitivity=0.95, draws=100)
    assert (point.threshold, point.sensitivity) == (1, 0.95)
    assert point.specificity.value == 1
    assert point.specificity.low == pytest.approx(0.025 ** (1 / 20))


def test_choosing_the_threshold_on_the_data_widens_the_interval():
    scores, sick = study(6, n=120, digits=6)
    point = metrics.specificity_at_sensitivity(scores, sick, sensitivity=0.95, draws=500)
    fixed = metrics.specificity(scores >= point.threshold, sick)
    assert point.specificity.high - point.specificity.low > 1.2 * (fixed.high - fixed.low)


@pytest.mark.parametrize(
    "function", [metrics.roc_table, metrics.threshold_table, metrics.specificity_at_sensitivity]
)
def test_both_classes_and_finite_scores_are_needed(function):
    with pytest.raises(InputError, match="sick must hold both classes, got 2 sick and 0 normal"):
        function([0.1, 0.2], [True, True])
    with pytest.raises(InputError, match="scores must be finite"):
        function([0.1, np.nan], [True, False])
    with pytest.raises(InputError, match="sick must have 2 entries"):
        function([0.1, 0.2], [True])
