"""How good probabilities of being sick are: Brier score, calibration curve, expected calibration error.

Intervals of the curve want independent patients; for an interval of a score here use
:func:`histcxr.decision.intervals.patient_bootstrap`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from histcxr.checks import BoolArray, FloatArray, bool_vector, real_vector, whole_number
from histcxr.decision.intervals import clopper_pearson
from histcxr.exceptions import InputError


def _checked(probabilities: ArrayLike, sick: ArrayLike) -> tuple[FloatArray, BoolArray]:
    values = real_vector(probabilities, "probabilities")
    if values.size == 0 or values.min() < 0 or values.max() > 1:
        raise InputError("probabilities must be at least one number, all in [0, 1]")
    return values, bool_vector(sick, length=values.size)


def brier_score(probabilities: ArrayLike, sick: ArrayLike) -> float:
    """Return the mean squared distance of the probabilities from the truth: 0 is perfect.

    Parameters and errors as :func:`reliability_table`.
    """
    values, truth = _checked(probabilities, sick)
    return float(((values - truth) ** 2).mean())


def reliability_table(
    probabilities: ArrayLike,
    sick: ArrayLike,
    *,
    bins: int = 10,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Compare predicted with observed shares of sick, bin by bin.

    Parameters
    ----------
    probabilities : array_like of float in [0, 1], shape (n,)
    sick : array_like of bool, shape (n,)
    bins : int
        Of equal width, at least 1; empty ones are left out.
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
    edges = np.linspace(0, 1, whole_number(bins, "bins", least=1) + 1)
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


def expected_calibration_error(probabilities: ArrayLike, sick: ArrayLike, *, bins: int = 10) -> float:
    """Return the mean distance between predicted and observed shares over the bins, weighted by counts.

    It depends on the bins and is above 0 even for perfect probabilities of few patients (Naeini et al., 2015).

    Parameters and errors as :func:`reliability_table`.
    """
    table = reliability_table(probabilities, sick, bins=bins)
    return float(np.average((table["predicted"] - table["observed"]).abs(), weights=table["n"]))
