"""A figure with its interval, and the exact interval of a proportion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from histcxr.checks import FloatArray, open_unit, whole_number
from histcxr.exceptions import InputError


@dataclass(frozen=True)
class Estimate:
    """A figure with its two-sided confidence interval.

    Attributes
    ----------
    value, low, high : float
        The figure and its interval's ends, never NaN.
    confidence : float
        Coverage that the interval aims at, e.g. 0.95.
    method : str
        How the interval was made.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95
    method: str = ""

    def __post_init__(self) -> None:
        if np.isnan([self.value, self.low, self.high]).any():
            raise InputError(f"an Estimate must not hold NaN, got {self.value}, {self.low}, {self.high}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of plain floats and strings, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Comparison:
    """Two figures on the same patients.

    Attributes
    ----------
    first, second : float
        The figures.
    difference : Estimate
        ``first - second`` with its paired interval.
    p_value : float
        Two-sided, of the hypothesis that the difference is 0.
    """

    first: float
    second: float
    difference: Estimate
    p_value: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a nested dict, ready for JSON."""
        return asdict(self)


def clopper_pearson(
    count: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the exact interval of a proportion, elementwise.

    Coverage is at least ``confidence`` for every true proportion (Clopper and Pearson, Biometrika 26, 1934).

    Parameters
    ----------
    count, n : array_like of int, shapes that broadcast
        Successes and trials; where ``n`` is 0 the interval is [0, 1].
    confidence : float in (0, 1)

    Returns
    -------
    low, high : ndarray of float64

    Raises
    ------
    InputError
        ``count`` outside 0 ... ``n``, or ``confidence`` outside (0, 1).
    """
    tail = (1 - open_unit(confidence, "confidence")) / 2
    hits, trials = np.broadcast_arrays(np.asarray(count, np.float64), np.asarray(n, np.float64))
    if not ((hits >= 0) & (hits <= trials)).all():
        raise InputError("count must lie between 0 and n everywhere")
    misses = trials - hits
    # the beta functions want positive parameters; the ends they cannot give are 0 and 1
    low = np.where(hits > 0, special.betaincinv(np.maximum(hits, 1), misses + 1, tail), 0.0)
    high = np.where(misses > 0, special.betainccinv(hits + 1, np.maximum(misses, 1), tail), 1.0)
    return low, high


def proportion(count: int, n: int, *, confidence: float = 0.95, of: str = "proportion") -> Estimate:
    """Return ``count / n`` with its Clopper-Pearson interval.

    Parameters
    ----------
    count, n : int
        Successes and independent trials (patients, not several images of one patient).
    confidence : float in (0, 1)
    of : str
        Name of the figure, for the message.

    Raises
    ------
    InputError
        No trials at all: the figure is undefined.
    """
    trials = whole_number(n, "n")
    if trials == 0:
        raise InputError(f"the {of} is undefined: there is nobody to count")
    low, high = clopper_pearson(whole_number(count, "count"), trials, confidence)
    return Estimate(count / trials, float(low), float(high), confidence, "Clopper-Pearson")
