"""What a certificate will be worth: closed formulas against thresholds that are really certified."""

import numpy as np
import pytest
from scipy import stats

from histcxr.decision.planning import (
    advised_patients,
    binormal_worth,
    chance_of_enough,
    expected_worth,
    patients_for,
    readings_needed,
    worths_of_scores,
)
from histcxr.decision.thresholds import errors_allowed, rule_in_threshold, rule_out_threshold
from histcxr.exceptions import InputError

AUC, SPREAD = 0.88, 0.7
APART = np.hypot(1, SPREAD) * stats.norm.ppf(AUC)


def calibrations(n, kind, draws=4000):
    """The true worth of thresholds, each certified on n patients: the sick N(APART, 1), the normal N(0, SPREAD)."""
    rng = np.random.default_rng(n)
    if kind == "rule_out":
        thresholds = [rule_out_threshold(rng.normal(APART, 1, n)).threshold for _ in range(draws)]
        return stats.norm.cdf(np.array(thresholds) / SPREAD)
    thresholds = [rule_in_threshold(rng.normal(0, SPREAD, n)).threshold for _ in range(draws)]
    return stats.norm.sf(np.array(thresholds) - APART)


@pytest.mark.parametrize("kind", ["rule_out", "rule_in"])
@pytest.mark.parametrize("n", [59, 200])
def test_the_range_is_what_calibrating_gives(n, kind):
    found = expected_worth([binormal_worth(AUC, SPREAD, kind)], n, 0.95, 0.95)
    wanted = np.quantile(calibrations(n, kind), (0.05, 0.5, 0.95))
    assert [found.low, found.median, found.high] == pytest.approx(wanted, abs=0.02)
    assert found.lost == pytest.approx(float(binormal_worth(AUC, SPREAD, kind)(0.05)) - found.low)


def test_the_binormal_curve_has_its_auc():
    u = (np.arange(20000) + 0.5) / 20000
    for kind in ("rule_out", "rule_in"):
        assert binormal_worth(AUC, SPREAD, kind)(u).mean() == pytest.approx(AUC, abs=1e-4)


@pytest.mark.parametrize("kind", ["rule_out", "rule_in"])
def test_tied_scores_are_planned_exactly(kind):
    """Patients taken for the population, certified on samples of them: the share under each quantile is as planned."""
    rng = np.random.default_rng(3)
    sick = np.repeat([True, False], [80, 120])
    scores = np.round(rng.normal(np.where(sick, 1.5, 0.0)), 1)
    [worth] = worths_of_scores(scores, sick, kind=kind, draws=0)
    found = expected_worth([worth], 100, 0.95, 0.95)
    if kind == "rule_out":
        real = [(scores[~sick] < rule_out_threshold(rng.choice(scores[sick], 100)).threshold).mean()
                for _ in range(4000)]  # fmt: skip
    else:
        real = [(scores[sick] > rule_in_threshold(rng.choice(scores[~sick], 100)).threshold).mean()
                for _ in range(4000)]  # fmt: skip
    for value, level in ((found.low, 0.05), (found.median, 0.5), (found.high, 0.95)):
        assert np.mean(np.array(real) < value - 1e-9) <= level + 0.02
        assert np.mean(np.array(real) <= value + 1e-9) >= level - 0.02


def test_few_patients_foretell_a_range_that_holds():
    """Of calibrations at a hospital of which 60 patients of either class are known, 9 of 10 lie in the range."""
    real, rng, inside, under = calibrations(100, "rule_out"), np.random.default_rng(0), [], []
    sick = np.repeat([True, False], 60)
    for _ in range(60):
        scores = np.concatenate([rng.normal(APART, 1, 60), rng.normal(0, SPREAD, 60)])
        found = expected_worth(worths_of_scores(scores, sick, draws=100), 100, 0.95, 0.95)
        inside.append(((real >= found.low) & (real <= found.high)).mean())
        under.append((real < found.low).mean())
    assert np.mean(inside) > 0.88
    assert np.mean(under) < 0.07


def test_a_patient_counts_once():
    scores, sick = [0.9, 0.2, 0.4, 0.1, 0.3], [1, 0, 0, 0, 0]
    by_patient = worths_of_scores(scores, sick, ["a", "a", "b", "c", "c"], draws=0)[0]
    assert by_patient(np.array([0.5])) == 1.0  # sick: a, .9; normal: b .4 and c .3
    with pytest.raises(InputError, match="every patient has a sick image"):
        worths_of_scores([0.1, 0.2], [1, 0], ["a", "a"])


@pytest.mark.parametrize(("target", "confidence"), [(0.95, 0.95), (0.9, 0.99), (0.5, 0.5), (0.99, 0.8)])
@pytest.mark.parametrize("errors", [0, 1, 7, 40])
def test_the_fewest_patients_for_so_many_errors(errors, target, confidence):
    n = patients_for(errors, target, confidence)
    assert errors_allowed(n, target, confidence) >= errors
    assert errors_allowed(n - 1, target, confidence) < errors


def test_advice_is_the_fewest_that_lose_little():
    worths = [binormal_worth(0.9)]
    advice = advised_patients(worths, 0.95, 0.95, 0.15)
    k = errors_allowed(advice, 0.95, 0.95)
    assert expected_worth(worths, advice, 0.95, 0.95).lost <= 0.15
    assert expected_worth(worths, patients_for(k - 1, 0.95, 0.95), 0.95, 0.95).lost > 0.15
    assert advised_patients(worths, 0.95, 0.95, 0.9) == 59
    assert advised_patients(worths, 0.95, 0.95, 1e-6) is None
    with pytest.raises(InputError, match="n must be at least 59, got 58"):
        expected_worth(worths, 58, 0.95, 0.95)


def test_readings():
    n = readings_needed(59, 0.1)
    assert chance_of_enough(n, 59, 0.1) >= 0.95 > chance_of_enough(n - 1, 59, 0.1)
    assert readings_needed(59, 0.999) in (59, 60)
