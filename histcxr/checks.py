"""Guards on the arrays and numbers that every function of this folder takes."""

from __future__ import annotations

import numbers

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.exceptions import InputError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def real_vector(values: ArrayLike, name: str = "scores", *, finite: bool = True) -> FloatArray:
    """Return ``values`` as a 1-D float64 array; ``name`` is what the caller calls it in messages.

    InputError: not one-dimensional, not real numbers, or, with ``finite``, NaN or infinite.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"{name} must be one-dimensional, got shape {array.shape}")
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} must be real numbers, got dtype {array.dtype}")
    result = array.astype(np.float64)
    if finite and not np.isfinite(result).all():
        bad = int((~np.isfinite(result)).sum())
        raise InputError(f"{name} must be finite, got {bad} NaN or infinite among {result.size} values")
    return result


def bool_vector(values: ArrayLike, name: str = "sick", *, length: int | None = None) -> BoolArray:
    """Return ``values`` (bool, or all 0 or 1) as a 1-D bool array of ``length``; anything else is an InputError."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise InputError(f"{name} must be one-dimensional, got shape {array.shape}")
    if array.dtype.kind != "b" and (array.dtype.kind not in "iuf" or not np.isin(array, (0, 1)).all()):
        raise InputError(f"{name} must be bool, or numbers that are 0 or 1, got dtype {array.dtype}")
    if length is not None and array.size != length:
        raise InputError(f"{name} must have {length} entries, one for each score, got {array.size}")
    return array.astype(bool)


def scores_and_sick(scores: ArrayLike, sick: ArrayLike, name: str = "scores") -> tuple[FloatArray, BoolArray]:
    """Return both as arrays of one length, finite and with both classes; anything else is an InputError."""
    values = real_vector(scores, name)
    truth = bool_vector(sick, length=values.size)
    n_sick = int(truth.sum())
    if n_sick == 0 or n_sick == truth.size:
        raise InputError(f"sick must hold both classes, got {n_sick} sick and {truth.size - n_sick} normal")
    return values, truth


def open_unit(value: float, name: str) -> float:
    """Return a float strictly between 0 and 1; anything else (a bool, NaN, a percentage) is an InputError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real) or not 0 < value < 1:
        raise InputError(f"{name} must be a number strictly between 0 and 1, got {value!r}")
    return float(value)


def whole_number(value: int, name: str, *, least: int = 0, most: int | None = None) -> int:
    """Return an int of at least ``least`` and at most ``most``; anything else is an InputError."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
    if not whole or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputError(f"{name} must be a whole number {span}, got {value!r}")
    return int(value)


def positive_number(value: float, name: str) -> float:
    """Return ``value`` as a finite float above 0; anything else is an InputError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real) or not 0 < value < np.inf:
        raise InputError(f"{name} must be a number above 0, got {value!r}")
    return float(value)
