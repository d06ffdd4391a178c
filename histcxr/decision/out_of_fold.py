"""Adapting and certifying on the same patients: scores out of fold, so that nobody is lost.

Patients are divided into K folds; each fold is scored by what was fitted to the others. The scorer that is used later
is the mean of the K fitted ones: on the same scale as the scores that certify it, and never a refit on everybody, whose
tails may be wider. Background: Blum, Kalai and Langford, 1999 (K-fold estimates); Barber et al., 2021, and Vovk, 2015
(thresholds from out-of-fold scores). The thresholds are those of :mod:`histcxr.decision.thresholds` on the scores of
all patients.

**What is proven and what is simulated.** A scorer that ranks patients as a model that never saw them does, such as that
model recalibrated, is certified exactly. For a fitted scorer no theorem gives the stated confidence: the scores of
different folds come from different fits and are not independent. In simulations of n = 60 to 500 patients of each class
(``benchmarks/robustness/adapt_certificate.py``) the promise breaks no more often than stated: the left-out patient is
scored a little worse than a new one will be, and averaging narrows the tails. A refit on everybody has neither margin.

**Why weights and not a choice.** Taking the candidate with the better cross-validated loss favours the one whose
certifying scores happen to lie well, and the promise then breaks too often (same benchmark). So the candidates' logits
are averaged with one weight between 0 and 1, a smooth function of the patients; at 0 the certificate is the exact one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit

from histcxr.checks import bool_vector, real_vector
from histcxr.decision.intervals import Estimate, patient_codes, patient_labels, patient_scores, proportion
from histcxr.decision.thresholds import Certificates, certify
from histcxr.exceptions import InputError

__all__ = ["FOLDS", "Offer", "log_losses", "mixture_weight", "offer", "within_standard_error"]

#: Folds: with more of them the margin of the out-of-fold certificate shrinks.
FOLDS: Final = 5


@dataclass(frozen=True)
class Offer:
    """What one way to certify gives: the thresholds, and what they will do to the other class.

    ``specificity`` is the share of normal patients below the rule-out threshold, ``sensitivity`` that of the sick above
    the rule-in threshold, on the patients that certified (None: no threshold, or nobody); ``patients`` counts them.
    """

    certificates: Certificates
    specificity: Estimate | None
    sensitivity: Estimate | None
    patients: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return {
            "rule_out": self.certificates.rule_out.to_dict(),
            "rule_in": self.certificates.rule_in.to_dict(),
            "specificity": self.specificity.to_dict() if self.specificity else None,
            "sensitivity": self.sensitivity.to_dict() if self.sensitivity else None,
            "patients": self.patients,
        }


def offer(scores: ArrayLike, sick: ArrayLike, patient_ids: ArrayLike | None, **promise: float) -> Offer:
    """Certify by image scores (n,), and say what the thresholds do; ``promise`` is as of :func:`certify`.

    The shares are of the patients that made the thresholds: a threshold that few errors made is a little lucky on them.
    """
    found = certify(scores, sick, patient_ids, **promise)
    highest, truth = patient_scores(scores, patient_ids), patient_labels(sick, patient_ids)
    shares: list[Estimate | None] = []
    for choice, hits in (
        (found.rule_out, highest[~truth] < found.rule_out.threshold),
        (found.rule_in, highest[truth] > found.rule_in.threshold),
    ):
        shares.append(proportion(int(hits.sum()), hits.size) if choice.certified and hits.size else None)
    return Offer(found, shares[0], shares[1], int(truth.size))


def log_losses(logits: ArrayLike, sick: ArrayLike) -> NDArray[np.float64]:
    """Return -log of the probability that logits (n,) gave to the truth (n,): float64 (n,)."""
    values = real_vector(logits, "logits")
    truth = bool_vector(sick, length=values.size)
    return np.asarray(np.logaddexp(0.0, np.where(truth, -values, values)))


def mixture_weight(
    simple: ArrayLike, rich: ArrayLike, sick: ArrayLike, patient_ids: ArrayLike | None = None
) -> float:
    """Return the weight in [0, 1] of ``rich`` beside ``simple`` at which the mean log loss of patients is least.

    Both are out-of-fold logits (n,); the mixture is ``(1 - weight) * simple + weight * rich``. Each patient counts
    once, however many images there are. The loss is convex in the weight, so there is one such weight. InputError:
    wrong shapes or types.
    """
    first, second = real_vector(simple, "simple"), real_vector(rich, "rich")
    truth = bool_vector(sick, length=first.size)
    if second.size != first.size:
        raise InputError(f"rich must have {first.size} entries, one for each of simple, got {second.size}")
    codes = patient_codes(patient_ids, first.size)
    share = 1.0 / np.bincount(codes)[codes]
    step = second - first

    def slope(weight: float) -> float:
        return float((share * (expit(first + weight * step) - truth)) @ step)

    if slope(0.0) >= 0:
        return 0.0
    if slope(1.0) <= 0:
        return 1.0
    return float(brentq(slope, 0.0, 1.0, xtol=1e-6))


def within_standard_error(
    simple: ArrayLike, other: ArrayLike, sick: ArrayLike, patient_ids: ArrayLike | None = None
) -> bool:
    """Tell whether logits ``simple`` (n,) are no worse than ``other`` by more than one standard error.

    Of the mean difference of the patients' log losses, paired by patient.
    """
    difference = log_losses(simple, sick) - log_losses(other, sick)
    codes = patient_codes(patient_ids, difference.size)
    mean = np.bincount(codes, difference) / np.bincount(codes)
    if mean.size < 2:
        return True
    return bool(mean.mean() <= mean.std(ddof=1) / np.sqrt(mean.size))
