import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn import metrics as oracle

from histcxr.decision.intervals import clopper_pearson
from histcxr.decision.metrics import accuracy, confusion, npv, ppv, sensitivity, specificity
from histcxr.exceptions import InputError

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def calls(tp, fp, fn, tn):
    positive = np.repeat([True, True, False, False], [tp, fp, fn, tn])
    return positive, np.repeat([True, False, True, False], [tp, fp, fn, tn])


@given(pairs=PAIRS)
def test_counts_are_scikit_learn_s(pairs):
    positive, sick = np.array(pairs).T
    tn, fp, fn, tp = oracle.confusion_matrix(sick, positive, labels=[False, True]).ravel().tolist()
    counts = confusion(positive, sick)
    assert (counts.tp, counts.fp, counts.fn, counts.tn) == (tp, fp, fn, tn)
    assert json.loads(json.dumps(counts.to_dict())) == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}


@pytest.mark.parametrize("counts", [(90, 20, 10, 80), (5, 0, 0, 7), (1, 9, 9, 1)])
def test_proportions_are_the_right_ones_with_exact_intervals(counts):
    tp, fp, fn, tn = counts
    positive, sick = calls(*counts)
    for function, hits, trials in (
        (sensitivity, tp, tp + fn),
        (specificity, tn, tn + fp),
        (ppv, tp, tp + fp),
        (npv, tn, tn + fn),
        (accuracy, tp + tn, sum(counts)),
    ):
        got = function(positive, sick, confidence=0.9)
        expected = binomtest(hits, trials).proportion_ci(0.9)
        assert got.value == hits / trials
        assert (got.low, got.high) == pytest.approx((expected.low, expected.high))
    assert sensitivity(positive, sick).value == oracle.recall_score(sick, positive)
    assert ppv(positive, sick).value == oracle.precision_score(sick, positive)
    assert accuracy(positive, sick).value == oracle.accuracy_score(sick, positive)


def test_predictive_values_at_a_prevalence_follow_bayes():
    positive, sick = calls(90, 20, 10, 80)
    assert ppv(positive, sick, prevalence=0.1).value == pytest.approx(0.9 * 0.1 / (0.9 * 0.1 + 0.2 * 0.9))
    assert npv(positive, sick, prevalence=0.1).value == pytest.approx(0.8 * 0.9 / (0.8 * 0.9 + 0.1 * 0.1))
    # at the data's own prevalence both ways agree
    assert ppv(positive, sick, prevalence=0.5).value == pytest.approx(ppv(positive, sick).value)
    assert npv(positive, sick, prevalence=0.5).value == pytest.approx(npv(positive, sick).value)


def test_the_interval_at_a_prevalence_spans_the_whole_box():
    positive, sick = calls(27, 6, 3, 24)
    each = np.sqrt(0.95)
    se = np.linspace(*clopper_pearson(27, 30, each), 50)[:, np.newaxis]
    sp = np.linspace(*clopper_pearson(24, 30, each), 50)
    grid = se * 0.2 / (se * 0.2 + (1 - sp) * 0.8)
    got = ppv(positive, sick, prevalence=0.2)
    assert (got.low, got.high) == pytest.approx((grid.min(), grid.max()))
    grid = sp * 0.8 / (sp * 0.8 + (1 - se) * 0.2)
    got = npv(positive, sick, prevalence=0.2)
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
            got = npv(*calls(tp, 12 - tn, 12 - tp, tn), prevalence=0.1)
            covered += weight * (got.low <= truth <= got.high)
    assert covered >= 0.95


@pytest.mark.parametrize("prevalence", [None, 0.1])
def test_what_is_undefined_is_an_error(prevalence):
    with pytest.raises(InputError, match="the PPV is undefined: there is nobody to count"):
        ppv([False, False], [True, False], prevalence=prevalence)
    with pytest.raises(InputError, match="the NPV is undefined: there is nobody to count"):
        npv([True, True], [True, False], prevalence=prevalence)


def test_missing_classes_are_errors():
    with pytest.raises(InputError, match="the sensitivity is undefined"):
        sensitivity([True], [False])
    with pytest.raises(InputError, match="the specificity is undefined"):
        specificity([True], [True])
    with pytest.raises(InputError, match="the accuracy is undefined"):
        accuracy([], np.zeros(0, bool))
    with pytest.raises(InputError, match="both classes for the PPV"):
        ppv([True], [True], prevalence=0.1)
    with pytest.raises(InputError, match="prevalence must be a number strictly between 0 and 1, got 10"):
        npv([True, False], [True, False], prevalence=10)


def test_arrays_are_checked():
    with pytest.raises(InputError, match="sick must have 2 entries"):
        sensitivity([True, False], [True])
    with pytest.raises(InputError, match="positive must be bool"):
        sensitivity([0.3, 0.9], [True, False])
