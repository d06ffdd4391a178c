"""How good probabilities are: Brier score, log loss, reliability table, expected calibration error, line.

Probabilities are of being sick. Intervals of the reliability table want independent patients; for an interval
of any score here use :func:`histcxr.decision.bootstrap.patient_bootstrap`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, special, stats
from sklearn import metrics

from histcxr.checks import (
    BoolArray,
    FloatArray,
    bool_vector,
    open_unit,
    real_vector,
    scores_and_sick,
    whole_number,
)
from histcxr.decision.intervals import Estimate, clopper_pearson
from histcxr.exceptions import InputError

_CLIP = 1e-6  # probabilities nearer to 0 or 1 have their logit taken here


def _checked(probabilities: ArrayLike, sick: ArrayLike) -> tuple[FloatArray, BoolArray]:
    values = real_vector(probabilities, "probabilities")
    if values.size == 0 or values.min() < 0 or values.max() > 1:
        raise InputError("probabilities must be at least one number, all in [0, 1]")
    return values, bool_vector(sick, length=values.size)


def brier_score(probabilities: ArrayLike, sick: ArrayLike) -> float:
    """Return the mean squared distance of the probabilities from the truth: 0 is perfect.

    Parameters
    ----------
    probabilities : array_like of float in [0, 1], shape (n,)
    sick : array_like of bool, shape (n,)

    Raises
    ------
    InputError
        Shapes, types or values are wrong.
    """
    values, truth = _checked(probabilities, sick)
    return float(((values - truth) ** 2).mean())


def log_loss(probabilities: ArrayLike, sick: ArrayLike) -> float:
    """Return the mean negative log-likelihood in nats; wrong certainty is clipped as in scikit-learn.

    Parameters and errors as :func:`brier_score`.
    """
    values, truth = _checked(probabilities, sick)
    return float(metrics.log_loss(truth, values, labels=[False, True]))


def reliability_table(
    probabilities: ArrayLike,
    sick: ArrayLike,
    *,
    bins: int = 10,
    strategy: Literal["uniform", "quantile"] = "uniform",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Compare predicted with observed shares of sick, bin by bin.

    Parameters
    ----------
    probabilities : array_like of float in [0, 1], shape (n,)
    sick : array_like of bool, shape (n,)
    bins : int
        At least 1; empty ones are left out.
    strategy : {"uniform", "quantile"}
        Bins of equal width, or of nearly equal counts (equal probabilities are never parted).
    confidence : float in (0, 1)

    Returns
    -------
    DataFrame
        Columns ``low``, ``high`` (the bin is low <= p < high, the last one closed), ``n``, ``predicted``
        (mean), ``observed``, ``observed_low``, ``observed_high`` (Clopper-Pearson).

    Raises
    ------
    InputError
        Shapes, types or values are wrong.
    """
    values, truth = _checked(probabilities, sick)
    steps = np.linspace(0, 1, whole_number(bins, "bins", least=1) + 1)
    if strategy == "uniform":
        edges = steps
    elif strategy == "quantile":
        edges = np.unique(np.concatenate([[0.0], np.quantile(values, steps[1:-1], method="lower"), [1.0]]))
    else:
        raise InputError(f"strategy must be 'uniform' or 'quantile', got {strategy!r}")
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, edges.size - 2)
    n = np.bincount(place, minlength=edges.size - 1)
    hits = np.bincount(place[truth], minlength=edges.size - 1)
    total = np.bincount(place, values, minlength=edges.size - 1)
    full = n > 0
    low, high = clopper_pearson(hits[full], n[full], confidence)
    return pd.DataFrame(
        {
            "low": edges[:-1][full],
            "high": edges[1:][full],
            "n": n[full],
            "predicted": total[full] / n[full],
            "observed": hits[full] / n[full],
            "observed_low": low,
            "observed_high": high,
        }
    )


def expected_calibration_error(
    probabilities: ArrayLike,
    sick: ArrayLike,
    *,
    bins: int = 10,
    strategy: Literal["uniform", "quantile"] = "uniform",
) -> float:
    """Return the mean distance between predicted and observed shares over the bins, weighted by counts.

    It depends on the bins and is above 0 even for perfect probabilities of few patients (Naeini et al.,
    2015).

    Parameters and errors as :func:`reliability_table`.
    """
    table = reliability_table(probabilities, sick, bins=bins, strategy=strategy)
    return float(np.average((table["predicted"] - table["observed"]).abs(), weights=table["n"]))


@dataclass(frozen=True)
class CalibrationLine:
    """The logistic line of truth on the logit of the probabilities (Cox, 1958); ideal: slope 1, others 0.

    Attributes
    ----------
    slope : Estimate
        Below 1: the probabilities are too extreme.
    intercept : Estimate
        Fitted together with the slope.
    in_the_large : Estimate
        Intercept with the slope held at 1; above 0: the probabilities are too low on the whole.
    """

    slope: Estimate
    intercept: Estimate
    in_the_large: Estimate


def _separated(logits: FloatArray, sick: BoolArray) -> bool:
    """Whether some cut has all sick on one side: then the likelihood has no maximum."""
    ill, well = logits[sick], logits[~sick]
    return bool(ill.min() >= well.max() or ill.max() <= well.min())


def calibration_line(
    probabilities: ArrayLike, sick: ArrayLike, *, confidence: float = 0.95
) -> CalibrationLine:
    """Fit the calibration line, with Wald intervals.

    Parameters
    ----------
    probabilities : array_like of float in [0, 1], shape (n,)
        0 and 1 are moved to 1e-6 and 1 - 1e-6, as their logits are infinite.
    sick : array_like of bool, shape (n,)
    confidence : float in (0, 1)

    Raises
    ------
    InputError
        Shapes, types or values are wrong, a class is missing, or the probabilities separate the classes
        perfectly (or are all equal), so that no line fits best.
    """
    values, _ = _checked(probabilities, sick)
    values, truth = scores_and_sick(values, sick, "probabilities")
    z = float(stats.norm.isf((1 - open_unit(confidence, "confidence")) / 2))
    logits = np.asarray(special.logit(np.clip(values, _CLIP, 1 - _CLIP)), np.float64)
    if _separated(logits, truth):
        raise InputError("probabilities must overlap between the classes for a calibration line to exist")

    def estimate(value: float, variance: float) -> Estimate:
        margin = z * float(np.sqrt(variance))
        return Estimate(float(value), float(value - margin), float(value + margin), confidence, "Wald")

    def surplus(shift: float) -> float:
        return float((special.expit(logits + shift) - truth).sum())

    shift = float(optimize.brentq(surplus, -60, 60, xtol=1e-12))
    spread = special.expit(logits + shift)
    centre = logits.mean()
    design = np.column_stack([logits - centre, np.ones(truth.size)])
    weights = np.array([1.0, shift + centre])

    def loss(trial: FloatArray) -> tuple[float, FloatArray]:
        line = design @ trial
        slope = design.T @ (special.expit(line) - truth) / truth.size
        return float((np.logaddexp(0, line) - truth * line).mean()), slope

    weights = optimize.minimize(loss, weights, jac=True, method="BFGS", options={"gtol": 1e-10}).x
    fitted = special.expit(design @ weights)
    covariance = np.linalg.inv((design * (fitted * (1 - fitted))[:, np.newaxis]).T @ design)
    back = np.array([-centre, 1.0])  # intercept at logit 0 = weights[1] - weights[0] * centre
    return CalibrationLine(
        slope=estimate(weights[0], covariance[0, 0]),
        intercept=estimate(back @ weights, back @ covariance @ back),
        in_the_large=estimate(shift, 1 / float((spread * (1 - spread)).sum())),
    )


def calibration_report(
    probabilities: ArrayLike, sick: ArrayLike, *, bins: int = 10, confidence: float = 0.95
) -> dict[str, Any]:
    """Gather the figures of this module, ready for JSON.

    Parameters
    ----------
    probabilities : array_like of float in [0, 1], shape (n,)
    sick : array_like of bool, shape (n,)
    bins : int
        Of equal width.
    confidence : float in (0, 1)

    Returns
    -------
    dict
        ``n``, ``brier``, ``log_loss``, ``ece``, ``line`` (``slope``, ``intercept``, ``in_the_large``; None
        where one class is missing or the probabilities separate the classes) and ``reliability`` (list of
        rows).

    Raises
    ------
    InputError
        Shapes, types or values are wrong.
    """
    values, truth = _checked(probabilities, sick)
    exists = 0 < truth.sum() < truth.size and not _separated(np.clip(values, _CLIP, 1 - _CLIP), truth)
    return {
        "n": int(values.size),
        "brier": brier_score(values, truth),
        "log_loss": log_loss(values, truth),
        "ece": expected_calibration_error(values, truth, bins=bins),
        "line": asdict(calibration_line(values, truth, confidence=confidence)) if exists else None,
        "reliability": reliability_table(values, truth, bins=bins, confidence=confidence).to_dict("records"),
    }
