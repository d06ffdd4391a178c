"""Adapting and certifying on the same patients: scores out of fold, so that nobody is lost.

Patients are divided into K folds; each fold is scored by what was fitted to the others. The scorer that is used later
is the mean of the K fitted ones: on the same scale as the scores that certify it, and never a refit on everybody, whose
tails may be wider. Background: Blum, Kalai and Langford, 1999 (K-fold estimates); Barber et al., 2021, and Vovk, 2015
(thresholds from out-of-fold scores). The thresholds are those of :mod:`histcxr.decision.thresholds` on the scores of
all patients.

**What is proven and what is simulated.** A scorer that ranks patients as a model that never saw them does, such as that
model recalibrated, is certified exactly. For a fitted scorer no theorem gives the stated confidence: the scores of
different folds come from different fits and are not independent. In simulations with n = 60, 100, 200 and 500 patients
of each class (2,000 draws a cell, ``benchmarks/robustness/adapt_certificate.py``) promises of 95 % confidence break in
1.8 % to 5.1 % (3.9-6.4) of the draws, those of the exact certificate in 1.8 % to 5.2 % (4.0-6.6). The left-out patient
is scored a little worse than a new one will be, and averaging narrows the tails.

**Why weights and not a choice.** Taking the candidate with the better cross-validated loss favours whose certifying
scores happen to lie well, and so does the simpler one within a standard error: at n = 60 the promise breaks in up to
6.2 % (4.9-7.8) and 7.0 % (5.7-8.7). So candidates' logits are averaged with weights that are smooth in the patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

from histcxr.checks import bool_vector, real_vector
from histcxr.decision.intervals import Estimate, patient_codes, patient_labels, patient_scores, proportion
from histcxr.decision.thresholds import Certificates, certify
from histcxr.exceptions import InputError

#: Folds: with more of them the margin of the out-of-fold certificate shrinks.
FOLDS: Final = 5

_LEAST_WEIGHT = 1e-4


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
            **{kind: choice.to_dict() for kind, choice in self.certificates._asdict().items()},
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


def mixture_weights(
    logits: Sequence[ArrayLike], sick: ArrayLike, patient_ids: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the weights of candidates at which their mean logit has the least mean log loss of patients: (k,).

    ``logits`` are k out-of-fold logits (n,); weights are at least 0 and add up to 1. Each patient counts once, however
    many images there are. The loss is convex in the weights; where one candidate alone is best, its weight is exactly
    1. InputError: wrong shapes or types.
    """
    truth = bool_vector(sick)
    values = np.stack([real_vector(one, "logits") for one in logits])
    if values.shape[1] != truth.size:
        raise InputError(
            f"logits must have {truth.size} entries, one for each of sick, got {values.shape[1]}"
        )
    codes = patient_codes(patient_ids, truth.size)
    share = 1.0 / np.bincount(codes)[codes] / (codes.max() + 1)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mixed = weights @ values
        return float(share @ log_losses(mixed, truth)), values @ (share * (expit(mixed) - truth))

    for alone in np.eye(len(values)):
        slope = loss(alone)[1]
        if (slope >= alone @ slope).all():  # no step towards another candidate lowers the loss
            return alone
    found = minimize(
        loss,
        np.full(len(values), 1 / len(values)),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(values),
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-10, "maxiter": 200},
    ).x
    kept = np.where(found > _LEAST_WEIGHT, found, 0.0)
    return np.asarray(kept / kept.sum())


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
