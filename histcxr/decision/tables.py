"""Every threshold at once: the ROC curve, the table of thresholds, the specificity at a wanted sensitivity.

A patient is called sick where ``score >= threshold``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import BoolArray, FloatArray, open_unit, real_vector, scores_and_sick
from histcxr.decision.bootstrap import draw_statistic, percentiles
from histcxr.decision.intervals import Estimate, clopper_pearson, proportion
from histcxr.decision.proportions import predictive_values


def roc_table(scores: ArrayLike, sick: ArrayLike) -> pd.DataFrame:
    """Return every point of the empirical ROC curve.

    Parameters
    ----------
    scores : array_like of float, shape (n,)
    sick : array_like of bool, shape (n,)

    Returns
    -------
    DataFrame
        Columns ``threshold`` (falling, +inf first: nobody is called sick), ``tp``, ``fp``, ``sensitivity``,
        ``specificity``, ``false_positive_rate``.

    Raises
    ------
    InputError
        Shapes or types are wrong, a score is not finite, or a class is missing.
    """
    values, truth = scores_and_sick(scores, sick)
    thresholds = np.concatenate([[np.inf], np.unique(values)[::-1]])
    tp, fp = _called_at(values[truth], thresholds), _called_at(values[~truth], thresholds)
    rate = fp / int((~truth).sum())
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "tp": tp,
            "fp": fp,
            "sensitivity": tp / int(truth.sum()),
            "specificity": 1 - rate,
            "false_positive_rate": rate,
        }
    )


def _called_at(scores: FloatArray, thresholds: FloatArray) -> NDArray[np.int64]:
    """How many of ``scores`` are >= each threshold."""
    return (scores.size - np.searchsorted(np.sort(scores), thresholds, side="left")).astype(np.int64)


def threshold_table(
    scores: ArrayLike,
    sick: ArrayLike,
    *,
    thresholds: ArrayLike | None = None,
    prevalence: float | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Tabulate what each threshold would mean.

    Parameters
    ----------
    scores : array_like of float, shape (n,)
        One a patient.
    sick : array_like of bool, shape (n,)
    thresholds : array_like of float, shape (t,), or None
        None takes every distinct score, rising.
    prevalence : float in (0, 1) or None
        For PPV, NPV and the share ruled out; None takes the data as they are.
    confidence : float in (0, 1)
        Of each interval by itself.

    Returns
    -------
    DataFrame
        One row a threshold: ``threshold``; ``sensitivity``, ``specificity``, ``ppv``, ``npv``, each followed
        by its ``_low`` and ``_high``; and ``ruled_out``, the share of patients with ``score < threshold``.
        Where nobody is called sick (or normal), the PPV (or NPV) does not exist: NaN, and an interval from
        0 to 1.

    Raises
    ------
    InputError
        As :func:`roc_table`, or a threshold is not finite, or a number outside (0, 1).
    """
    values, truth = scores_and_sick(scores, sick)
    cuts = np.unique(values) if thresholds is None else real_vector(thresholds, "thresholds")
    tp, fp = _called_at(values[truth], cuts), _called_at(values[~truth], cuts)
    fn, tn = int(truth.sum()) - tp, int((~truth).sum()) - fp
    columns: dict[str, FloatArray] = {"threshold": cuts}
    for name, hits, trials in (
        ("sensitivity", tp, tp + fn),
        ("specificity", tn, tn + fp),
        ("ppv", tp, tp + fp),
        ("npv", tn, tn + fn),
    ):
        columns[name] = np.divide(hits, trials, out=np.full(cuts.size, np.nan), where=trials > 0)
        columns[f"{name}_low"], columns[f"{name}_high"] = clopper_pearson(hits, trials, confidence)
    if prevalence is None:
        columns["ruled_out"] = (fn + tn) / values.size
        return pd.DataFrame(columns)
    for name, (value, low, high) in predictive_values(tp, fn, tn, fp, prevalence, confidence).items():
        exists = ~np.isnan(value)
        columns[name] = value
        columns[f"{name}_low"], columns[f"{name}_high"] = np.where(exists, low, 0), np.where(exists, high, 1)
    columns["ruled_out"] = (
        prevalence * (1 - columns["sensitivity"]) + (1 - prevalence) * columns["specificity"]
    )
    return pd.DataFrame(columns)


@dataclass(frozen=True)
class OperatingPoint:
    """Where a wanted sensitivity is reached on the data at hand.

    Attributes
    ----------
    threshold : float
        ``score >= threshold`` is called sick.
    sensitivity : float
        Reached on these data, at least the one wanted.
    specificity : Estimate
    """

    threshold: float
    sensitivity: float
    specificity: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a nested dict, ready for JSON."""
        return asdict(self)


def _cut(sick_scores: FloatArray, wanted: Fraction) -> float:
    """Highest threshold that still calls the wanted share of the sick."""
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
    threshold = _cut(values[truth], wanted)

    def negatives(drawn: FloatArray, labels: BoolArray) -> float:
        return float((drawn[~labels] < _cut(drawn[labels], wanted)).mean())

    fixed = proportion(int((values[~truth] < threshold).sum()), int((~truth).sum()), confidence=confidence)
    drawn = draw_statistic(negatives, [values, truth], truth, patient_ids, draws=draws, seed=seed)
    low, high = percentiles(drawn, confidence)
    method = "patient bootstrap with Clopper-Pearson"
    span = Estimate(fixed.value, min(low, fixed.low), max(high, fixed.high), confidence, method)
    return OperatingPoint(threshold, float((values[truth] >= threshold).mean()), span)
