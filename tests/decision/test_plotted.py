"""Curves for plots against scikit-learn, by hand, and by what must hold."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from histcxr.decision import plotted
from histcxr.decision.curves import recalibration
from histcxr.decision.drawers import confusion
from histcxr.exceptions import InputError


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(5)
    sick = rng.random(400) < 0.4
    return np.clip(rng.beta(2, 4, 400) + 0.25 * sick, 0, 1), sick


def test_the_band_of_the_roc_curve_holds_the_curve_and_narrows(case):
    scores, sick = case
    found = plotted.roc(scores, sick)
    curve = np.interp(found["grid"], found["fpr"], found["tpr"])
    inside = (np.array(found["low"]) <= curve + 1e-9) & (curve <= np.array(found["high"]) + 1e-9)
    assert inside.mean() > 0.95
    many = plotted.roc(np.tile(scores, 4), np.tile(sick, 4))
    assert (
        np.subtract(many["high"], many["low"]).mean() < 0.7 * np.subtract(found["high"], found["low"]).mean()
    )


def test_images_of_one_patient_widen_the_band(case):
    scores, sick = case
    alone = plotted.roc(np.tile(scores, 3), np.tile(sick, 3))
    together = plotted.roc(
        np.tile(scores, 3), np.tile(sick, 3), patient_ids=np.tile(np.arange(400), 3).astype(str)
    )
    assert (
        np.subtract(together["high"], together["low"]).mean()
        > 1.3 * np.subtract(alone["high"], alone["low"]).mean()
    )


def test_net_benefit_by_hand(case):
    scores, sick = case
    found = plotted.decision_curve(scores, sick)
    for at in (0.1, 0.5, 0.9):
        place = found["at"].index(at)
        called = scores >= at
        wanted = ((called & sick).sum() - (called & ~sick).sum() * at / (1 - at)) / len(sick)
        assert found["model"][place] == pytest.approx(wanted)
    assert found["treat_all"][found["at"].index(0.4)] == pytest.approx(
        sick.mean() - (~sick).mean() * 0.4 / 0.6
    )
    rare = plotted.decision_curve(scores, sick, prevalence=0.01)
    assert rare["prevalence"] == 0.01
    assert rare["model"][0] < 0.01


def test_predictive_values_are_those_of_the_confusion(case):
    scores, sick = case
    called = scores > 0.4
    for kind in ("npv", "ppv"):
        found = plotted.predictive_values(called, sick, kind=kind)
        place = found["prevalence"].index(0.2)
        estimate = getattr(confusion(called, sick), kind)(0.2)
        assert [found[name][place] for name in ("value", "low", "high")] == [
            estimate.value,
            estimate.low,
            estimate.high,
        ]
    with pytest.raises(InputError, match="npv or ppv"):
        plotted.predictive_values(called, sick, kind="accuracy")


def test_true_probabilities_are_calibrated_and_sharpened_ones_are_not():
    rng = np.random.default_rng(1)
    share = rng.uniform(0.02, 0.98, 20_000)
    sick = rng.random(20_000) < share
    fine = recalibration(share, sick)
    assert fine["slope"] == pytest.approx(1, abs=0.05)
    assert fine["in_the_large"] == pytest.approx(0, abs=0.05)
    logit = np.log(share / (1 - share))
    sharp = recalibration(1 / (1 + np.exp(-2 * logit)), sick)
    assert sharp["slope"] == pytest.approx(0.5, abs=0.05)
    fitted = LogisticRegression(C=np.inf).fit(logit[:, None], sick)
    assert fine["slope"] == pytest.approx(fitted.coef_[0, 0], rel=1e-3)


def test_every_score_is_counted_once(case):
    scores, sick = case
    found = plotted.score_spread(np.append(scores, [0.0, 1.0]), np.append(sick, [False, True]))
    assert sum(found["normal"]) == (~sick).sum() + 1
    assert sum(found["sick"]) == sick.sum() + 1
