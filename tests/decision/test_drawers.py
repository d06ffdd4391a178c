import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn import metrics as oracle

from histcxr.decision.drawers import Confusion, confusion, evaluate_decisions, patient_drawers
from histcxr.decision.intervals import clopper_pearson, patient_scores
from histcxr.decision.thresholds import certify, decide
from histcxr.exceptions import InputError


def test_a_patient_takes_the_sickest_drawer_of_the_images():
    drawers = np.array(
        ["rule_out", "review", "rule_out", "rule_in", "rule_out", "rule_out", "review", "rule_in"]
    )
    ids = ["a", "a", "b", "c", "c", "b", "d", "d"]
    assert patient_drawers(drawers, ids).tolist() == ["review", "rule_out", "rule_in", "rule_in"]
    assert patient_drawers(drawers, None).tolist() == drawers.tolist()


@given(
    rows=st.lists(st.tuples(st.floats(-1, 1), st.sampled_from(["a", "b", "c", ""])), max_size=25),
    low=st.floats(-1, 1),
    high=st.floats(-1, 1),
)
def test_that_is_the_drawer_of_the_highest_score(rows, low, high):
    scores, ids = np.array([r[0] for r in rows], float), [r[1] for r in rows]
    by_image = patient_drawers(decide(scores, low, high), ids)
    assert by_image.tolist() == decide(patient_scores(scores, ids), low, high).tolist()


SCORES = [0.1, 0.2, 0.1, 0.5, 0.9, 0.15, 0.1, 0.95, 0.5, np.nan, 0.1]
SICK = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0]
IDS = ["n1", "n1", "n2", "n2", "n3", "s1", "s2", "s2", "s3", "s4", "n4"]


def test_counts_and_shares_by_hand():
    report = evaluate_decisions(SCORES, SICK, IDS, 0.3, 0.8)
    assert (report.n_images, report.n_patients, report.n_sick, report.n_normal) == (11, 8, 4, 4)
    assert (report.rule_out, report.rule_in) == (0.3, 0.8)
    assert report.missed == 1  # s1
    assert report.false_alarms == 1  # n3
    assert report.sensitivity.value == 3 / 4
    assert report.specificity.value == 2 / 4  # n1, n4
    assert report.rule_in_specificity.value == 3 / 4
    assert report.rule_in_sensitivity.value == 1 / 4  # s2
    assert report.npv.value == 2 / 3
    assert report.ppv.value == 1 / 2
    assert {k: v.value for k, v in report.shares.items()} == {
        "rule_out": 3 / 8, "review": 3 / 8, "rule_in": 2 / 8,
    }  # fmt: skip
    assert report.images == {"rule_out": 6, "review": 3, "rule_in": 2}
    expected = binomtest(3, 4).proportion_ci(0.95)
    assert (report.sensitivity.low, report.sensitivity.high) == pytest.approx((expected.low, expected.high))


def test_a_stated_prevalence_reaches_npv_and_ppv():
    report = evaluate_decisions(SCORES, SICK, IDS, 0.3, 0.8, prevalence=0.1)
    assert report.npv.value == pytest.approx(0.5 * 0.9 / (0.5 * 0.9 + 0.25 * 0.1))
    assert report.ppv.value == pytest.approx(0.25 * 0.1 / (0.25 * 0.1 + 0.25 * 0.9))
    # patients in the order n1, n2, n3, s1, s2, s3, s4, n4; "positive" is not ruled out
    positive = [False, True, True, False, True, True, True, False]
    truth = [False, False, False, True, True, True, True, False]
    assert report.npv == confusion(positive, truth).npv(prevalence=0.1)


def test_the_report_is_safe_for_json():
    report = evaluate_decisions(SCORES, SICK, IDS, 0.3, math.inf)
    fields = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert fields["rule_in"] is None
    assert fields["ppv"] is None
    assert fields["sensitivity"]["value"] == 0.75
    assert fields["shares"]["rule_in"]["value"] == 0


def test_what_nobody_stands_for_is_none():
    healthy = evaluate_decisions([0.1, 0.9], [False, False], None, 0.3, 0.8, prevalence=0.1)
    assert healthy.sensitivity is None
    assert healthy.rule_in_sensitivity is None
    assert healthy.npv is None  # at a prevalence it takes both classes
    assert healthy.specificity.value == 0.5
    none_out = evaluate_decisions([0.1, 0.9], [False, True], None, -math.inf, math.inf)
    assert (none_out.npv, none_out.ppv, none_out.rule_out, none_out.rule_in) == (None, None, None, None)
    assert none_out.sensitivity.value == 1
    assert none_out.shares["review"].value == 1


def test_on_the_calibration_set_itself_no_more_errors_than_allowed():
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(300), 2)
    sick = np.repeat(np.arange(300) < 150, 2)
    scores = np.round(rng.normal(sick), 1)
    out, into = certify(scores, sick, ids)
    report = evaluate_decisions(scores, sick, ids, out, into)
    assert 0 < report.missed <= out.errors_allowed
    assert 0 < report.false_alarms <= into.errors_allowed
    assert sum(report.images.values()) == 600


def test_arguments_are_checked():
    with pytest.raises(InputError, match="scores must hold at least one image"):
        evaluate_decisions([], np.zeros(0, bool), None, 0.1, 0.9)
    with pytest.raises(InputError, match="sick must have 1 entries"):
        evaluate_decisions([0.5], [True, False], None, 0.1, 0.9)
    with pytest.raises(InputError, match="prevalence must be"):
        evaluate_decisions([0.1, 0.9], [False, True], None, 0.3, 0.8, prevalence=1)


# ---- calls, PPV and NPV

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(pairs=PAIRS)
def test_counts_are_scikit_learn_s(pairs):
    positive, sick = np.array(pairs).T
    tn, fp, fn, tp = oracle.confusion_matrix(sick, positive, labels=[False, True]).ravel().tolist()
    counts = confusion(positive, sick)
    assert counts == Confusion(tp, fp, fn, tn)
    assert json.loads(json.dumps(counts.to_dict())) == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}


@pytest.mark.parametrize("counts", [(90, 20, 10, 80), (5, 0, 0, 7), (1, 9, 9, 1)])
def test_predictive_values_are_proportions_with_exact_intervals(counts):
    tp, fp, fn, tn = counts
    for got, hits, trials in (
        (Confusion(*counts).ppv(), tp, tp + fp),
        (Confusion(*counts).npv(), tn, tn + fn),
    ):
        ends = got.low, got.high
        expected = binomtest(hits, trials).proportion_ci(0.95)
        assert got.value == hits / trials
        assert ends == pytest.approx((expected.low, expected.high))


def test_predictive_values_at_a_prevalence_follow_bayes():
    counts = Confusion(90, 20, 10, 80)
    assert counts.ppv(0.1).value == pytest.approx(0.9 * 0.1 / (0.9 * 0.1 + 0.2 * 0.9))
    assert counts.npv(0.1).value == pytest.approx(0.8 * 0.9 / (0.8 * 0.9 + 0.1 * 0.1))
    # at the data's own prevalence both ways agree
    assert counts.ppv(0.5).value == pytest.approx(counts.ppv().value)
    assert counts.npv(0.5).value == pytest.approx(counts.npv().value)


def test_the_interval_at_a_prevalence_spans_the_whole_box():
    counts, each = Confusion(27, 6, 3, 24), np.sqrt(0.95)
    se = np.linspace(*clopper_pearson(27, 30, each), 50)[:, np.newaxis]
    sp = np.linspace(*clopper_pearson(24, 30, each), 50)
    grid = se * 0.2 / (se * 0.2 + (1 - sp) * 0.8)
    got = counts.ppv(0.2)
    assert (got.low, got.high) == pytest.approx((grid.min(), grid.max()))
    grid = sp * 0.8 / (sp * 0.8 + (1 - se) * 0.2)
    got = counts.npv(0.2)
    assert (got.low, got.high) == pytest.approx((grid.min(), grid.max()))


@pytest.mark.parametrize(("se", "sp"), [(0.9, 0.6), (0.99, 0.99), (0.5, 0.05)])
def test_the_interval_at_a_prevalence_covers(se, sp):
    """Over all outcomes of 12 sick and 12 normal patients, the NPV's interval holds the truth in 95 %."""
    truth = sp * 0.9 / (sp * 0.9 + (1 - se) * 0.1)
    covered = 0.0
    for tp in range(13):
        for tn in range(13):
            weight = binom.pmf(tp, 12, se) * binom.pmf(tn, 12, sp)
            if tn + 12 - tp == 0:
                covered += weight  # undefined: no statement, so none that is wrong
                continue
            got = Confusion(tp, 12 - tn, 12 - tp, tn).npv(0.1)
            covered += weight * (got.low <= truth <= got.high)
    assert covered >= 0.95


@pytest.mark.parametrize("prevalence", [None, 0.1])
def test_what_is_undefined_is_an_error(prevalence):
    with pytest.raises(InputError, match="the PPV is undefined: there is nobody to count"):
        Confusion(0, 0, 1, 1).ppv(prevalence)
    with pytest.raises(InputError, match="the NPV is undefined: there is nobody to count"):
        Confusion(1, 1, 0, 0).npv(prevalence)


def test_calls_are_checked():
    with pytest.raises(InputError, match="both classes for the PPV"):
        Confusion(1, 0, 0, 0).ppv(0.1)
    with pytest.raises(InputError, match="prevalence must be a number strictly between 0 and 1, got 10"):
        Confusion(1, 0, 0, 1).npv(10)
    with pytest.raises(InputError, match="sick must have 2 entries"):
        confusion([True, False], [True])
    with pytest.raises(InputError, match="positive must be bool"):
        confusion([0.3, 0.9], [True, False])
