"""What a yes-or-no call is worth on patients whose truth is known: proportions with their intervals.

"Positive" is a call of sick: ``score >= threshold``, so that at the rule-out threshold a negative call is
exactly the rule-out drawer. Proportions carry Clopper-Pearson intervals, which want independent patients:
reduce images to patients first (:mod:`histcxr.decision.patients`), or use the patient bootstrap.

PPV and NPV depend on how many are sick. Without a ``prevalence`` they are the proportions seen in the data.
With one they follow from sensitivity and specificity by Bayes' rule. Their interval then spans the rule's
values over both intervals, each at the square root of the confidence: the sick and the normal patients are
independent samples, so both hold at once with at least the confidence asked for, and as PPV and NPV grow with
either, their extremes lie at the intervals' ends. Conservative; the prevalence counts as known.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from histcxr.checks import FloatArray, bool_vector, open_unit
from histcxr.decision.intervals import Estimate, clopper_pearson, proportion
from histcxr.exceptions import InputError


@dataclass(frozen=True)
class Confusion:
    """Counts of calls against truth: true and false positives, false and true negatives."""

    tp: int
    fp: int
    fn: int
    tn: int

    def to_dict(self) -> dict[str, int]:
        """Return the counts as a dict, ready for JSON."""
        return asdict(self)


def confusion(positive: ArrayLike, sick: ArrayLike) -> Confusion:
    """Count the calls against the truth.

    Parameters
    ----------
    positive : array_like of bool, shape (n,)
        Called sick, e.g. ``scores >= threshold``.
    sick : array_like of bool, shape (n,)

    Raises
    ------
    InputError
        Shapes, types or lengths are wrong.
    """
    called = bool_vector(positive, "positive")
    truth = bool_vector(sick, length=called.size)
    tp, fp = int((called & truth).sum()), int((called & ~truth).sum())
    return Confusion(tp, fp, int(truth.sum()) - tp, int((~truth).sum()) - fp)


def sensitivity(positive: ArrayLike, sick: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return the share of the sick that are called sick, with its Clopper-Pearson interval.

    Raises
    ------
    InputError
        As :func:`confusion`, or there are no sick.
    """
    counts = confusion(positive, sick)
    return proportion(counts.tp, counts.tp + counts.fn, confidence=confidence, of="sensitivity")


def specificity(positive: ArrayLike, sick: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return the share of the normal that are not called sick, with its Clopper-Pearson interval.

    Raises
    ------
    InputError
        As :func:`confusion`, or there are no normals.
    """
    counts = confusion(positive, sick)
    return proportion(counts.tn, counts.tn + counts.fp, confidence=confidence, of="specificity")


def accuracy(positive: ArrayLike, sick: ArrayLike, *, confidence: float = 0.95) -> Estimate:
    """Return the share of calls that are right, with its Clopper-Pearson interval.

    Raises
    ------
    InputError
        As :func:`confusion`, or there is nobody.
    """
    counts = confusion(positive, sick)
    everybody = counts.tp + counts.fp + counts.fn + counts.tn
    return proportion(counts.tp + counts.tn, everybody, confidence=confidence, of="accuracy")


def ppv(
    positive: ArrayLike, sick: ArrayLike, *, prevalence: float | None = None, confidence: float = 0.95
) -> Estimate:
    """Return the positive predictive value: the share of those called sick who are sick.

    Parameters
    ----------
    positive, sick : array_like of bool, shape (n,)
    prevalence : float in (0, 1) or None
        Share of sick where the model is used; None takes the data as they are.
    confidence : float in (0, 1)

    Returns
    -------
    Estimate
        See the module's text for the interval at a stated prevalence.

    Raises
    ------
    InputError
        As :func:`confusion`, nobody is called sick, or a class that the prevalence needs is missing.
    """
    return ppv_of(confusion(positive, sick), prevalence, confidence)


def ppv_of(counts: Confusion, prevalence: float | None = None, confidence: float = 0.95) -> Estimate:
    """Return the positive predictive value from counts; see :func:`ppv`."""
    if prevalence is None:
        return proportion(counts.tp, counts.tp + counts.fp, confidence=confidence, of="PPV")
    return _at_prevalence(counts, prevalence, confidence, "PPV")


def npv(
    positive: ArrayLike, sick: ArrayLike, *, prevalence: float | None = None, confidence: float = 0.95
) -> Estimate:
    """Return the negative predictive value: the share of those not called sick who are normal.

    Parameters and errors as :func:`ppv`.
    """
    return npv_of(confusion(positive, sick), prevalence, confidence)


def npv_of(counts: Confusion, prevalence: float | None = None, confidence: float = 0.95) -> Estimate:
    """Return the negative predictive value from counts; see :func:`npv`."""
    if prevalence is None:
        return proportion(counts.tn, counts.tn + counts.fn, confidence=confidence, of="NPV")
    return _at_prevalence(counts, prevalence, confidence, "NPV")


def _bayes(right: ArrayLike, wrong: ArrayLike, weight: float) -> FloatArray:
    """Share of the right among all calls of one kind; NaN where there is no such call."""
    hit = np.asarray(right, np.float64) * weight
    miss = np.asarray(wrong, np.float64) * (1 - weight)
    with np.errstate(invalid="ignore"):
        return hit / (hit + miss)


def predictive_values(
    tp: ArrayLike, fn: ArrayLike, tn: ArrayLike, fp: ArrayLike, prevalence: float, confidence: float
) -> dict[str, tuple[FloatArray, FloatArray, FloatArray]]:
    """Return PPV and NPV at a prevalence as (value, low, high), from counts of both classes, elementwise.

    The value is NaN where nobody is called sick (PPV) or normal (NPV).

    Raises
    ------
    InputError
        A number outside (0, 1).
    """
    prevalence = open_unit(prevalence, "prevalence")
    each = math.sqrt(open_unit(confidence, "confidence"))
    tp, fn, tn, fp = (np.asarray(count, np.float64) for count in (tp, fn, tn, fp))
    se, sp = tp / (tp + fn), tn / (tn + fp)
    (se_low, se_high), (sp_low, sp_high) = (
        clopper_pearson(tp, tp + fn, each),
        clopper_pearson(tn, tn + fp, each),
    )
    return {
        "ppv": (
            _bayes(se, 1 - sp, prevalence),
            _bayes(se_low, 1 - sp_low, prevalence),
            _bayes(se_high, 1 - sp_high, prevalence),
        ),
        "npv": (
            _bayes(sp, 1 - se, 1 - prevalence),
            _bayes(sp_low, 1 - se_low, 1 - prevalence),
            _bayes(sp_high, 1 - se_high, 1 - prevalence),
        ),
    }


def _at_prevalence(counts: Confusion, prevalence: float, confidence: float, name: str) -> Estimate:
    if counts.tp + counts.fn == 0 or counts.tn + counts.fp == 0:
        raise InputError(f"sick must hold both classes for the {name} at a stated prevalence")
    called = counts.tp + counts.fp if name == "PPV" else counts.tn + counts.fn
    if called == 0:
        raise InputError(f"the {name} is undefined: there is nobody to count")
    columns = predictive_values(counts.tp, counts.fn, counts.tn, counts.fp, prevalence, confidence)
    value, low, high = (float(end) for end in columns[name.lower()])
    return Estimate(value, low, high, confidence, f"Bayes at prevalence {prevalence:g}, Clopper-Pearson ends")
