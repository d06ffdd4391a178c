"""The ROC curve: every point of it, and the specificity where a wanted sensitivity is reached.

A patient is called sick where ``score >= threshold``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from histcxr.checks import BoolArray, FloatArray, open_unit, scores_and_sick
from histcxr.decision.intervals import Estimate, Record, draw_statistic, percentiles, proportion


def roc_table(scores: ArrayLike, sick: ArrayLike) -> pd.DataFrame:
    """Return every point of the empirical ROC curve.

    Parameters
    ----------
    scores : array_like of float, shape (n,)
    sick : array_like of bool, shape (n,)

    Returns
    -------
    DataFrame
        Columns ``threshold`` (falling, +inf first: nobody is called sick), ``sensitivity``, ``specificity``.

    Raises
    ------
    InputError
        Shapes or types are wrong, a score is not finite, or a class is missing.
    """
    values, truth = scores_and_sick(scores, sick)
    false_positive_rate, sensitivity, threshold = roc_curve(truth, values, drop_intermediate=False)
    return pd.DataFrame(
        {"threshold": threshold, "sensitivity": sensitivity, "specificity": 1 - false_positive_rate}
    )


@dataclass(frozen=True)
class OperatingPoint(Record):
    """Where a wanted sensitivity is reached on the data at hand.

    From ``threshold`` on a score is called sick; ``sensitivity`` is what these data reach, at least the one wanted.
    """

    threshold: float
    sensitivity: float
    specificity: Estimate


def threshold_at_sensitivity(sick_scores: FloatArray, wanted: Fraction) -> float:
    """Return the highest threshold t with ``score >= t`` for the ``wanted`` share of the sick."""
    called = math.ceil(wanted * sick_scores.size)
    return float(np.partition(sick_scores, sick_scores.size - called)[sick_scores.size - called])


def specificity_at_sensitivity(
    scores: ArrayLike,
    sick: ArrayLike,
    *,
    sensitivity: float = 0.95,
    patient_ids: ArrayLike | None = None,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> OperatingPoint:
    """Return the specificity at the highest threshold that reaches a sensitivity on these very data.

    For comparing models on one test set; it certifies nothing (see :mod:`histcxr.decision.thresholds`).

    Parameters
    ----------
    scores : array_like of float, shape (n,)
    sick : array_like of bool, shape (n,)
    sensitivity : float in (0, 1)
        At least this, on these data.
    patient_ids : array_like, shape (n,), or None
    confidence : float in (0, 1)
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    OperatingPoint
        The specificity's interval is the span of two: the patient bootstrap, which picks the threshold anew
        in each draw, and Clopper-Pearson, which keeps its width when no draw holds an error.

    Raises
    ------
    InputError
        As :func:`roc_table`, or a number outside (0, 1).
    """
    values, truth = scores_and_sick(scores, sick)
    wanted = Fraction(repr(open_unit(sensitivity, "sensitivity")))
    threshold = threshold_at_sensitivity(values[truth], wanted)

    def negatives(drawn: FloatArray, labels: BoolArray) -> float:
        return float((drawn[~labels] < threshold_at_sensitivity(drawn[labels], wanted)).mean())

    fixed = proportion(int((values[~truth] < threshold).sum()), int((~truth).sum()), confidence=confidence)
    drawn = draw_statistic(negatives, [values, truth], truth, patient_ids, draws=draws, seed=seed)
    low, high = percentiles(drawn, confidence)
    method = "patient bootstrap with Clopper-Pearson"
    span = Estimate(fixed.value, min(low, fixed.low), max(high, fixed.high), confidence, method)
    return OperatingPoint(threshold, float((values[truth] >= threshold).mean()), span)
