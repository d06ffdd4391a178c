"""Area under the ROC curve with its interval, and the comparison of two models on the same patients.

DeLong's variance (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988) from midranks in O(n log n) (Sun
and Xu, IEEE Signal Processing Letters 21, 2014), extended to several images of one patient (Obuchowski,
Biometrics 53, 1997), which is the same when each patient has one image. The interval of one area is made on
the logit scale, so that it stays within (0, 1) and covers well near 1 (Pepe, 2003); that of a difference is
plain.

Where the variance is 0 the normal interval would have no width. There we fall back on bounds that hold for
any distribution, from the K pairs of a sick and a normal patient that share nobody: perfect separation is K
successes in K trials (Clopper-Pearson), and otherwise Hoeffding's bound for U-statistics (1963) applies.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from histcxr.checks import BoolArray, FloatArray, open_unit, scores_and_sick
from histcxr.decision.curves import threshold_at_sensitivity
from histcxr.decision.intervals import (
    Comparison,
    Estimate,
    Record,
    bootstrap_p_value,
    clopper_pearson,
    draw_statistic,
    patient_codes,
    patient_strata,
    percentiles,
)
from histcxr.exceptions import InputError


def _p_value_bound(difference: Estimate) -> float:
    """What an interval alone says about the p-value of a difference of 0."""
    return 1.0 if difference.low <= 0 <= difference.high else 1 - difference.confidence


class _Placements(NamedTuple):
    """How the images of each patient stand among the other class, as deviations from the area."""

    area: float
    sick: FloatArray  # (patients,) sums over the patient's sick images
    normal: FloatArray  # (patients,) sums over the patient's normal images


def areas(scores: FloatArray, sick: NDArray[Any]) -> Any:
    """P(sick score > normal score), ties counted half, of scores (n,), or of each column of (n, k); both classes there.

    For hundreds of draws: 300 scores take 0.07 ms, scikit-learn 1.9 ms.
    """
    n_sick = sick.sum(axis=0)
    ranks = (stats.rankdata(scores, axis=0) * sick).sum(axis=0)
    return (ranks - n_sick * (n_sick + 1) / 2) / (n_sick * (len(sick) - n_sick))


def _placements(scores: FloatArray, sick: BoolArray, codes: NDArray[np.int64]) -> _Placements:
    n_sick, n_normal = int(sick.sum()), int((~sick).sum())
    ranks = stats.rankdata(scores)
    # share of normals below each sick image, and of the sick above each normal one; ties count half
    among_normal = (ranks[sick] - stats.rankdata(scores[sick])) / n_normal
    among_sick = 1 - (ranks[~sick] - stats.rankdata(scores[~sick])) / n_sick
    area, n_patients = float(areas(scores, sick)), int(codes.max()) + 1
    return _Placements(
        area,
        np.bincount(codes[sick], among_normal - area, n_patients).astype(np.float64),
        np.bincount(codes[~sick], among_sick - area, n_patients).astype(np.float64),
    )


def _variance(
    sick_part: FloatArray, normal_part: FloatArray, sick: BoolArray, strata: NDArray[np.int64]
) -> float:
    n_sick, n_normal = int(sick.sum()), int((~sick).sum())
    with_sick, with_normal, patients = int((strata != 2).sum()), int((strata != 1).sum()), strata.size
    return float(
        with_sick / (with_sick - 1) * (sick_part @ sick_part) / n_sick**2
        + with_normal / (with_normal - 1) * (normal_part @ normal_part) / n_normal**2
        + 2 * patients / (patients - 1) * (sick_part @ normal_part) / (n_sick * n_normal)
    )


def _strata(sick: BoolArray, codes: NDArray[np.int64]) -> NDArray[np.int64]:
    strata = patient_strata(sick, codes)
    with_sick, with_normal = int((strata != 2).sum()), int((strata != 1).sum())
    if min(with_sick, with_normal) < 2:
        raise InputError(
            "sick must hold at least two sick and two normal patients for an interval of the AUC, "
            f"got {with_sick} and {with_normal}"
        )
    return strata


def _any_distribution(area: float, strata: NDArray[np.int64], confidence: float) -> tuple[float, float]:
    """Bounds that hold whatever the distribution, from pairs of patients that share nobody."""
    only_sick, only_normal, both = (int((strata == kind).sum()) for kind in (1, 2, 3))
    pairs = min(only_sick + both, only_normal + both, strata.size // 2)
    if area in (0.0, 1.0):
        low, high = clopper_pearson(pairs * area, pairs, confidence)
        return float(low), float(high)
    margin = float(np.sqrt(np.log(2 / (1 - confidence)) / (2 * pairs)))
    return max(0.0, area - margin), min(1.0, area + margin)


def auc(
    scores: ArrayLike,
    sick: ArrayLike,
    *,
    patient_ids: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Return the area under the ROC curve with its interval.

    Scores, sick (bool) and patients have shape (n,); the interval allows for several images of a patient, and ``""``
    or None makes an image its own patient. InputError: wrong shapes or types, a score that is not finite, or fewer
    than two sick or two normal patients.
    """
    values, truth = scores_and_sick(scores, sick)
    open_unit(confidence, "confidence")
    codes = patient_codes(patient_ids, values.size)
    strata = _strata(truth, codes)
    area, sick_part, normal_part = _placements(values, truth, codes)
    variance = _variance(sick_part, normal_part, truth, strata)
    if variance > 0:
        error = np.sqrt(variance) / (area * (1 - area)) * stats.norm.isf((1 - confidence) / 2)
        low, high = (float(special.expit(special.logit(area) + side * error)) for side in (-1, 1))
        return Estimate(area, low, high, confidence, "DeLong, logit")
    low, high = _any_distribution(area, strata, confidence)
    return Estimate(area, low, high, confidence, "distribution-free")


def compare_auc(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    sick: ArrayLike,
    *,
    patient_ids: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Comparison:
    """Compare the areas of two scores on the same images, with the correlation between them.

    Scores that order all images alike differ by exactly 0 (interval [0, 0], p-value 1). Where the difference has no
    variance though the orders differ, the interval spans what the two areas' distribution-free bounds allow, and the
    p-value is the bound that this gives: ``1 - confidence`` if it leaves out 0, else 1. Errors as :func:`auc`, and for
    arrays of different lengths.
    """
    a, truth = scores_and_sick(scores_a, sick, "scores_a")
    b, _ = scores_and_sick(scores_b, sick, "scores_b")
    open_unit(confidence, "confidence")
    codes = patient_codes(patient_ids, a.size)
    strata = _strata(truth, codes)
    parts_a, parts_b = _placements(a, truth, codes), _placements(b, truth, codes)
    gap = parts_a.area - parts_b.area
    if np.array_equal(stats.rankdata(a), stats.rankdata(b)):
        estimate = Estimate(0.0, 0.0, 0.0, confidence, "same order")
        return Comparison(parts_a.area, parts_b.area, estimate, 1.0)
    variance = _variance(parts_a.sick - parts_b.sick, parts_a.normal - parts_b.normal, truth, strata)
    if variance > 0:
        error = float(np.sqrt(variance))
        margin = error * float(stats.norm.isf((1 - confidence) / 2))
        estimate = Estimate(gap, gap - margin, gap + margin, confidence, "paired DeLong")
        p_value = float(2 * stats.norm.sf(abs(gap) / error))
        return Comparison(parts_a.area, parts_b.area, estimate, p_value)
    each = (1 + confidence) / 2  # both bounds hold at once with `confidence`
    low_a, high_a = _any_distribution(parts_a.area, strata, each)
    low_b, high_b = _any_distribution(parts_b.area, strata, each)
    estimate = Estimate(gap, low_a - high_b, high_a - low_b, confidence, "distribution-free")
    return Comparison(parts_a.area, parts_b.area, estimate, _p_value_bound(estimate))


@dataclass(frozen=True)
class ModelComparison(Record):
    """Two models on the same patients, first minus second: areas, and specificities at ``sensitivity``."""

    n_images: int
    n_patients: int
    sensitivity: float
    auc: Comparison
    specificity: Comparison


def compare(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    sick: ArrayLike,
    patients: ArrayLike | None,
    *,
    sensitivity: float = 0.95,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> ModelComparison:
    """Compare two models, of any kind, by their scores of the same images; the scores' scales may differ.

    Areas as :func:`compare_auc`. Each model's threshold is the highest that reaches ``sensitivity`` on these images,
    or on those of a draw; the difference in specificity has the percentiles of a paired bootstrap of whole patients.
    Where every draw gives the same difference though the orders differ, the interval comes from the patients with a
    normal image that only one model rules out (Clopper-Pearson in either direction), and the p-value is the bound that
    this gives. ``confidence`` is that of each interval by itself. Errors as :func:`auc`, and for arrays of different
    lengths or fewer than 100 draws.
    """
    areas = compare_auc(scores_a, scores_b, sick, patient_ids=patients, confidence=confidence)
    wanted = Fraction(repr(open_unit(sensitivity, "sensitivity")))
    a, truth = scores_and_sick(scores_a, sick, "scores_a")
    b, _ = scores_and_sick(scores_b, sick, "scores_b")
    codes = patient_codes(patients, truth.size)

    def spared(scores: FloatArray, labels: BoolArray) -> BoolArray:
        return scores[~labels] < threshold_at_sensitivity(scores[labels], wanted)

    def both(first: FloatArray, second: FloatArray, labels: BoolArray) -> tuple[float, float]:
        return float(spared(first, labels).mean()), float(spared(second, labels).mean())

    first, second = both(a, b, truth)
    drawn = draw_statistic(both, [a, b, truth], truth, patients, draws=draws, seed=seed)
    gaps = drawn[:, 0] - drawn[:, 1]
    low, high = percentiles(gaps, confidence)
    difference = Estimate(first - second, low, high, confidence, "paired patient bootstrap")
    p_value = bootstrap_p_value(gaps)
    if low == high and areas.difference.method != "same order":
        difference = _from_discordant(spared(a, truth), spared(b, truth), codes[~truth], confidence)
        p_value = _p_value_bound(difference)
    return ModelComparison(
        n_images=truth.size,
        n_patients=int(codes.max()) + 1,
        sensitivity=float(sensitivity),
        auc=areas,
        specificity=Comparison(first, second, difference, p_value),
    )


def _from_discordant(a: BoolArray, b: BoolArray, codes: NDArray[np.int64], confidence: float) -> Estimate:
    """Difference of two shares of the same images, from the patients who have one where only one is true."""
    only_a, only_b = (np.unique(codes[mask]).size for mask in (a & ~b, b & ~a))
    lows, highs = clopper_pearson([only_a, only_b], np.unique(codes).size, (1 + confidence) / 2)
    gap = float(a.mean() - b.mean())
    low, high = min(gap, float(lows[0] - highs[1])), max(gap, float(highs[0] - lows[1]))
    return Estimate(gap, low, high, confidence, "discordant patients, Clopper-Pearson ends")
