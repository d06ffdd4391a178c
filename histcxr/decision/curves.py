"""The specificity where a wanted sensitivity is reached, and how good probabilities of being sick are.

A patient is called sick where ``score >= threshold``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from histcxr.checks import (
    BoolArray,
    FloatArray,
    bool_vector,
    open_unit,
    real_vector,
    scores_and_sick,
    whole_number,
)
from histcxr.decision.intervals import (
    Estimate,
    Record,
    clopper_pearson,
    draw_statistic,
    percentiles,
    proportion,
)
from histcxr.exceptions import InputError


@dataclass(frozen=True)
class OperatingPoint(Record):
    """Where a sensitivity is reached on the data at hand: it is at least the one wanted."""

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
    draws: int = 1000,
    seed: int = 0,
) -> OperatingPoint:
    """Return the specificity at the highest threshold that reaches a sensitivity on these very data.

    For comparing models on one test set; it certifies nothing (see :mod:`histcxr.decision.thresholds`). Arrays have
    shape (n,). The specificity's 95 % interval is the span of two: the patient bootstrap, which picks the threshold
    anew in each draw, and Clopper-Pearson, which keeps its width when no draw holds an error. InputError: wrong shapes
    or types, a score that is not finite, a missing class, or a number out of range (at least 100 draws).
    """
    values, truth = scores_and_sick(scores, sick)
    wanted = Fraction(repr(open_unit(sensitivity, "sensitivity")))
    threshold = threshold_at_sensitivity(values[truth], wanted)

    def negatives(drawn: FloatArray, labels: BoolArray) -> float:
        return float((drawn[~labels] < threshold_at_sensitivity(drawn[labels], wanted)).mean())

    fixed = proportion(int((values[~truth] < threshold).sum()), int((~truth).sum()))
    drawn = draw_statistic(negatives, [values, truth], truth, patient_ids, draws=draws, seed=seed)
    low, high = percentiles(drawn, fixed.confidence)
    method = "patient bootstrap with Clopper-Pearson"
    span = Estimate(fixed.value, min(low, fixed.low), max(high, fixed.high), method=method)
    return OperatingPoint(threshold, float((values[truth] >= threshold).mean()), span)


def checked_probabilities(probabilities: ArrayLike, sick: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Return both as arrays of one length, probabilities in [0, 1]; InputError: anything else."""
    values = real_vector(probabilities, "probabilities")
    if values.size == 0 or values.min() < 0 or values.max() > 1:
        raise InputError("probabilities must be at least one number, all in [0, 1]")
    return values, bool_vector(sick, length=values.size)


def reliability_table(probabilities: ArrayLike, sick: ArrayLike, *, bins: int = 10) -> pd.DataFrame:
    """Compare predicted (in [0, 1], shape (n,)) with observed shares of sick in bins of equal width; no empty ones.

    Columns are ``low``, ``high`` (the bin is low <= p < high, the last one closed), ``n``, ``predicted`` (mean),
    ``observed``, ``observed_low``, ``observed_high`` (95 %, Clopper-Pearson; they want independent patients).
    InputError: wrong shapes, types or values.
    """
    values, truth = checked_probabilities(probabilities, sick)
    edges = np.linspace(0, 1, whole_number(bins, "bins", least=1) + 1)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, edges.size - 2)
    rows = pd.DataFrame({"low": edges[place], "high": edges[place + 1], "p": values, "sick": truth})
    table = rows.groupby(["low", "high"]).agg(n=("p", "size"), predicted=("p", "mean"), hits=("sick", "sum"))
    table = table.reset_index()
    hits = table.pop("hits")
    low, high = clopper_pearson(hits, table["n"])
    return table.assign(observed=hits / table["n"], observed_low=low, observed_high=high)


def expected_calibration_error(probabilities: ArrayLike, sick: ArrayLike) -> float:
    """Return the mean distance between predicted and observed shares over ten bins, weighted by counts.

    Above 0 even for perfect probabilities of few patients (Naeini et al., 2015). Errors as :func:`reliability_table`.
    """
    table = reliability_table(probabilities, sick)
    return float(np.average((table["predicted"] - table["observed"]).abs(), weights=table["n"]))


def recalibration(probabilities: ArrayLike, sick: ArrayLike) -> dict[str, float]:
    """Return what would have to be done to make probabilities true for these data (Cox, 1958), both classes there.

    ``predicted`` is their mean, ``observed`` the share of sick; ``in_the_large`` is what to add to the log odds so that
    both are equal (0 is right); ``slope`` is what to multiply the log odds with (1 is right, less: they are too
    extreme), with an offset of its own. Probabilities of 0 and 1 count as 1e-6 off. Errors as
    :func:`reliability_table`; InputError, too, where a class is missing.
    """
    from scipy.optimize import brentq
    from scipy.special import expit, logit
    from sklearn.linear_model import LogisticRegression

    values, truth = checked_probabilities(probabilities, sick)
    if truth.all() or not truth.any():
        raise InputError("sick must hold sick and normal images, or nothing can be calibrated")
    odds = logit(np.clip(values, 1e-6, 1 - 1e-6))
    offset = brentq(lambda added: float(expit(odds + added).mean() - truth.mean()), -50, 50)
    slope = LogisticRegression(C=np.inf, max_iter=1000).fit(odds[:, None], truth).coef_[0, 0]
    return {
        "predicted": float(values.mean()),
        "observed": float(truth.mean()),
        "in_the_large": float(offset),
        "slope": float(slope),
    }
