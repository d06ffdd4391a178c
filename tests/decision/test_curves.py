import json

import numpy as np
import pytest

from histcxr.decision.auc import roc_auc
from histcxr.decision.curves import roc_table, specificity_at_sensitivity
from histcxr.decision.intervals import proportion
from histcxr.exceptions import InputError


def study(seed, n=300, digits=2):
    rng = np.random.default_rng(seed)
    sick = rng.random(n) < 0.4
    return np.round(rng.normal(sick * 1.2), digits), sick


def exact_specificity(positive, sick):
    return proportion(int((~positive & ~sick).sum()), int((~sick).sum()))


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_roc_table_counts_every_threshold(digits):
    scores, sick = study(digits, digits=digits)
    table = roc_table(scores, sick)
    assert table["threshold"].tolist() == [np.inf, *np.unique(scores)[::-1]]
    for row in table.itertuples():
        called = scores >= row.threshold
        assert row.sensitivity == pytest.approx(called[sick].mean())
        assert row.specificity == pytest.approx((~called[~sick]).mean())
    area = np.trapezoid(table["sensitivity"], 1 - table["specificity"])
    assert area == pytest.approx(roc_auc(scores, sick))


def test_specificity_at_sensitivity_is_the_best_point_of_the_curve():
    scores, sick = study(4, digits=1)
    for wanted in (0.5, 0.9, 0.95, 0.999):
        point = specificity_at_sensitivity(scores, sick, sensitivity=wanted, draws=200)
        table = roc_table(scores, sick)
        best = table[table["sensitivity"] >= wanted].iloc[0]
        assert point.threshold == best["threshold"]
        assert point.sensitivity == pytest.approx(best["sensitivity"])
        assert point.specificity.value == pytest.approx(best["specificity"])
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


@pytest.mark.parametrize("function", [roc_table, specificity_at_sensitivity])
def test_both_classes_and_finite_scores_are_needed(function):
    with pytest.raises(InputError, match="sick must hold both classes, got 2 sick and 0 normal"):
        function([0.1, 0.2], [True, True])
    with pytest.raises(InputError, match="scores must be finite"):
        function([0.1, np.nan], [True, False])
    with pytest.raises(InputError, match="sick must have 2 entries"):
        function([0.1, 0.2], [True])
