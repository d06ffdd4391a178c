"""Bootstrap of whole patients: images of one patient are drawn together, and each class keeps its size.

Patients are drawn with replacement within strata (with sick images only, with normal images only, with both),
so every draw holds both classes. Intervals are percentiles of the draws. They are approximate, and too narrow
with few patients; for a proportion of independent patients the exact interval is the better choice.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import FloatArray, bool_vector, open_unit, real_vector, whole_number
from histcxr.decision.intervals import Comparison, Estimate
from histcxr.decision.patients import patient_codes
from histcxr.exceptions import HistcxrWarning, InputError


def patient_strata(sick: NDArray[np.bool_], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each patient 1 (sick images only), 2 (normal images only) or 3 (both); shape (patients,)."""
    n_patients = int(codes.max(initial=-1)) + 1
    has_sick = np.bincount(codes[sick], minlength=n_patients) > 0
    has_normal = np.bincount(codes[~sick], minlength=n_patients) > 0
    return has_sick + 2 * has_normal


def drawn_patients(strata: NDArray[np.int64], draws: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield ``draws`` arrays of patient numbers, each drawn with replacement within the strata."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    for _ in range(draws):
        yield np.concatenate([rng.choice(group, group.size) for group in members])


def _drawn_images(
    codes: NDArray[np.int64], n_patients: int
) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
    """Prepare the step from drawn patients to the indices of their images."""
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=n_patients)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])

    def images(chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        sizes = counts[chosen]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return order[np.repeat(starts[chosen], sizes) + within]

    return images


def draw_statistic(
    statistic: Callable[..., Any],
    arrays: Sequence[NDArray[Any]],
    sick: NDArray[np.bool_],
    patient_ids: ArrayLike | None,
    *,
    draws: int,
    seed: int,
) -> FloatArray:
    """Return the statistic (a float or a tuple) on every draw of patients; shape (draws,) or (draws, s).

    Raises
    ------
    InputError
        Fewer than 100 draws, or the statistic is not finite on one.
    """
    codes = patient_codes(patient_ids, sick.size)
    strata = patient_strata(sick, codes)
    images = _drawn_images(codes, strata.size)
    values = np.empty((whole_number(draws, "draws", least=100), *np.shape(statistic(*arrays))))
    for row, chosen in enumerate(drawn_patients(strata, draws, seed)):
        index = images(chosen)
        values[row] = statistic(*(array[index] for array in arrays))
    undefined = int((~np.isfinite(values)).reshape(draws, -1).any(axis=1).sum())
    if undefined:
        raise InputError(f"statistic must be finite on every draw, got {undefined} of {draws} that are not")
    return values


def percentiles(values: FloatArray, confidence: float) -> tuple[float, float]:
    """Return the two ends that leave ``(1 - confidence) / 2`` of the draws on either side."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_p_value(differences: FloatArray) -> float:
    """Return the two-sided p-value of a difference of 0 from its draws, never below 2 / (draws + 1)."""
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (1 + tail) / (differences.size + 1))


def patient_bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    sick: ArrayLike,
    patient_ids: ArrayLike | None = None,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Return any statistic with its patient-bootstrap interval.

    Parameters
    ----------
    statistic : callable
        Takes the arrays, resampled alike, and returns a float.
    *arrays : array_like, first dimension n
        What the statistic takes, one row an image.
    sick : array_like of bool, shape (n,)
        For the strata; pass it among ``arrays`` too where the statistic wants it.
    patient_ids : array_like, shape (n,), or None
        Images of one patient are drawn together; ``""`` or None: each image its own patient.
    draws : int
        At least 100.
    confidence : float in (0, 1)
    seed : int

    Returns
    -------
    Estimate

    Raises
    ------
    InputError
        Lengths differ, or the statistic is not finite on the data or on a draw.

    Warns
    -----
    HistcxrWarning
        Every draw gave the same value, so the interval has no width and says nothing about uncertainty.
    """
    truth = bool_vector(sick)
    data = [np.asarray(array) for array in arrays]
    for position, array in enumerate(data):
        if array.shape[:1] != truth.shape:
            raise InputError(f"arrays[{position}] must have {truth.size} rows, got shape {array.shape}")
    open_unit(confidence, "confidence")
    value = float(statistic(*data))
    if not np.isfinite(value):
        raise InputError(f"statistic must be finite on the data, got {value}")
    values = draw_statistic(statistic, data, truth, patient_ids, draws=draws, seed=seed)
    low, high = percentiles(values, confidence)
    if low == high:
        warnings.warn(f"every bootstrap draw gave {low}: no interval", HistcxrWarning, stacklevel=2)
    return Estimate(value, low, high, confidence, "patient bootstrap")


def paired_bootstrap(
    statistic: Callable[[NDArray[Any], NDArray[Any]], float],
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    sick: ArrayLike,
    *,
    patient_ids: ArrayLike | None = None,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare ``statistic(scores, sick)`` of two score arrays on the same, jointly resampled patients.

    Parameters
    ----------
    statistic : callable
        Takes scores and labels (both resampled), returns a float.
    scores_a, scores_b : array_like of float, shape (n,)
    sick : array_like of bool, shape (n,)
    patient_ids, draws, confidence, seed
        As :func:`patient_bootstrap`.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        As :func:`patient_bootstrap`.

    Warns
    -----
    HistcxrWarning
        The scores differ and yet every draw gave the same difference.
    """
    a, b = real_vector(scores_a, "scores_a"), real_vector(scores_b, "scores_b")
    truth = bool_vector(sick, length=a.size)
    if b.size != a.size:
        raise InputError(f"scores_b must have {a.size} entries, as scores_a, got {b.size}")
    open_unit(confidence, "confidence")

    def both(first: FloatArray, second: FloatArray, labels: NDArray[np.bool_]) -> tuple[float, float]:
        return float(statistic(first, labels)), float(statistic(second, labels))

    value_a, value_b = both(a, b, truth)
    if not np.isfinite([value_a, value_b]).all():
        raise InputError(f"statistic must be finite on the data, got {value_a} and {value_b}")
    values = draw_statistic(both, [a, b, truth], truth, patient_ids, draws=draws, seed=seed)
    differences = values[:, 0] - values[:, 1]
    low, high = percentiles(differences, confidence)
    if low == high and not np.array_equal(a, b):
        warnings.warn(f"every draw gave the difference {low}: no interval", HistcxrWarning, stacklevel=2)
    difference = Estimate(value_a - value_b, low, high, confidence, "paired patient bootstrap")
    return Comparison(value_a, value_b, difference, bootstrap_p_value(differences))
