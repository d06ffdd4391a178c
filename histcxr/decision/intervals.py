"""From images to patients, and figures with their intervals: exact for proportions, else by a bootstrap of patients.

Images of one patient are drawn together, with replacement, within strata (patients with sick images only, with
normal images only, with both), so every draw holds both classes. Bootstrap intervals are percentiles of the
draws: approximate, and too narrow with few patients. For a proportion of independent patients take the exact one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import BoolArray, FloatArray, bool_vector, open_unit, real_vector, whole_number
from histcxr.exceptions import HistcxrWarning, InputError


def patient_codes(patient_ids: ArrayLike | None, length: int) -> NDArray[np.int64]:
    """Number the patients 0, 1, ... in the order in which they first appear: int64 (length,).

    An unknown one (``""``, None or NaN) makes its image a patient of its own, and None instead of the array does so
    for all. InputError for another shape than ``(length,)``.
    """
    if patient_ids is None:
        return np.arange(length)
    import pandas as pd  # a triage has no use for it

    ids = np.asarray(patient_ids, dtype=object)
    if ids.shape != (length,):
        raise InputError(f"patient_ids must have shape ({length},), one for each image, got {ids.shape}")
    keys, _ = pd.factorize(ids)  # None and NaN become -1
    keys = keys.astype(np.int64)
    unknown = (keys < 0) | np.fromiter((isinstance(i, str) and i == "" for i in ids), bool, length)
    keys[unknown] = length + np.arange(int(unknown.sum()))
    codes, _ = pd.factorize(keys)
    return codes.astype(np.int64)


def patient_scores(scores: ArrayLike, patient_ids: ArrayLike | None) -> FloatArray:
    """Reduce image scores (n,) to one a patient, the highest: float64 (patients,), in order of first appearance.

    A patient is ruled out only when every image is, and ruled in as soon as one image is. He gets NaN when any image's
    score is not finite: he goes to review and cannot serve to certify. InputError: wrong shapes or types.
    """
    values = real_vector(scores, finite=False)
    codes = patient_codes(patient_ids, values.size)
    usable = np.isfinite(values)
    result = np.full(int(codes.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(result, codes[usable], values[usable])
    result[codes[~usable]] = np.nan
    return result


def patient_labels(sick: ArrayLike, patient_ids: ArrayLike | None) -> BoolArray:
    """Reduce image labels, bool (n,), to one a patient: sick as soon as one is; else as :func:`patient_scores`."""
    truth = bool_vector(sick)
    codes = patient_codes(patient_ids, truth.size)
    return np.bincount(codes[truth], minlength=int(codes.max(initial=-1)) + 1) > 0


class Record:
    """A dataclass of figures, ready for JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a nested dict of plain values."""
        return asdict(self)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Estimate(Record):
    """A figure, never NaN, with its two-sided confidence interval and how that was made."""

    value: float
    low: float
    high: float
    confidence: float = 0.95
    method: str = ""

    def __post_init__(self) -> None:
        if np.isnan([self.value, self.low, self.high]).any():
            raise InputError(f"an Estimate must not hold NaN, got {self.value}, {self.low}, {self.high}")

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Comparison(Record):
    """Two figures on the same patients, ``first - second`` and the two-sided p-value of no difference."""

    first: float
    second: float
    difference: Estimate
    p_value: float


def clopper_pearson(
    count: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the exact interval of a proportion, elementwise (Clopper and Pearson, Biometrika 26, 1934).

    ``count`` and ``n``, successes and trials, broadcast; where ``n`` is 0 the interval is [0, 1]. InputError:
    ``count`` outside 0 ... ``n``, or ``confidence`` outside (0, 1).
    """
    from scipy import special

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
    """Return ``count / n`` with its Clopper-Pearson interval; InputError, naming ``of``, where ``n`` is 0."""
    trials = whole_number(n, "n")
    if trials == 0:
        raise InputError(f"the {of} is undefined: there is nobody to count")
    low, high = clopper_pearson(whole_number(count, "count"), trials, confidence)
    return Estimate(count / trials, float(low), float(high), confidence, "Clopper-Pearson")


def patient_strata(sick: BoolArray, codes: NDArray[np.int64]) -> NDArray[np.int64]:
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


def draw_statistic(
    statistic: Callable[..., Any],
    arrays: Sequence[NDArray[Any]],
    sick: BoolArray,
    patient_ids: ArrayLike | None,
    *,
    draws: int,
    seed: int,
) -> FloatArray:
    """Return the statistic (a float or a tuple) on every draw of patients; shape (draws,) or (draws, s).

    InputError is raised for fewer than 100 draws, and where the statistic is not finite on one.
    """
    codes = patient_codes(patient_ids, sick.size)
    strata = patient_strata(sick, codes)
    order, counts = np.argsort(codes, kind="stable"), np.bincount(codes)
    starts = np.cumsum(counts) - counts  # of each patient's images within the order
    values = np.empty((whole_number(draws, "draws", least=100), *np.shape(statistic(*arrays))))
    for row, chosen in enumerate(drawn_patients(strata, draws, seed)):
        sizes = counts[chosen]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        index = order[np.repeat(starts[chosen], sizes) + within]
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

    ``statistic`` takes the arrays (one row an image), resampled alike, and returns a float. ``sick``, bool (n,), makes
    the strata; pass it among ``arrays`` too where the statistic wants it. ``patient_ids`` ``""`` or None: each image
    its own patient. InputError: lengths differ, fewer than 100 draws, or a statistic that is not finite.
    HistcxrWarning: every draw gave the same value, so the interval says nothing about uncertainty.
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
