"""How the three drawers fared on patients whose truth is known."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import bool_vector, real_vector
from histcxr.decision.intervals import Estimate, proportion
from histcxr.decision.patients import patient_codes, patient_labels
from histcxr.decision.proportions import Confusion, npv_of, ppv_of
from histcxr.decision.thresholds import REVIEW, RULE_IN, RULE_OUT, ThresholdChoice, decide, threshold_value
from histcxr.exceptions import InputError

_DRAWERS = np.array([RULE_OUT, REVIEW, RULE_IN])  # in rising order: a patient takes the highest of the images


def patient_drawers(drawers: ArrayLike, patient_ids: ArrayLike | None) -> NDArray[np.str_]:
    """Reduce the drawers of images to one a patient.

    ``rule_in`` as soon as one image is; ``rule_out`` only when every image is; else ``review``. Where all
    scores are usable this is the drawer of the patient's highest score.

    Parameters
    ----------
    drawers : array_like of str, shape (n,)
        From :func:`histcxr.decision.thresholds.decide`.
    patient_ids : array_like, shape (n,), or None
        ``""`` or None: each image its own patient.

    Returns
    -------
    ndarray of str, shape (patients,)
        In the order in which the patients first appear.

    Raises
    ------
    InputError
        Another word than the three, or shapes are wrong.
    """
    names = np.asarray(drawers)
    if names.ndim != 1 or not np.isin(names, _DRAWERS).all():
        raise InputError(f"drawers must be one-dimensional and of {_DRAWERS.tolist()}, got {names!r}")
    codes = patient_codes(patient_ids, names.size)
    ranks = np.zeros(int(codes.max(initial=-1)) + 1, np.int64)
    np.maximum.at(ranks, codes, (names == REVIEW) + 2 * (names == RULE_IN))
    return _DRAWERS[ranks]


@dataclass(frozen=True)
class DrawerReport:
    """What two thresholds did to patients whose truth is known. Everything but ``images`` counts patients.

    A figure is None where nobody is there to count, e.g. the NPV when nobody was ruled out.

    Attributes
    ----------
    n_images, n_patients, n_sick, n_normal : int
    rule_out, rule_in : float or None
        The thresholds; None: nobody is ruled out (or in).
    sensitivity : Estimate or None
        Sick patients not ruled out, among the sick: what the rule-out certificate promises.
    specificity : Estimate or None
        Normal patients ruled out, among the normal: what the rule-out threshold saves.
    rule_in_specificity : Estimate or None
        Normal patients not ruled in, among the normal: what the rule-in certificate promises.
    rule_in_sensitivity : Estimate or None
        Sick patients ruled in, among the sick.
    npv, ppv : Estimate or None
        Normal among the ruled out, and sick among the ruled in.
    missed, false_alarms : int
        Sick patients ruled out, and normal patients ruled in.
    shares : dict of str to Estimate
        Share of the patients in each drawer.
    images : dict of str to int
        Images in each drawer.
    """

    n_images: int
    n_patients: int
    n_sick: int
    n_normal: int
    rule_out: float | None
    rule_in: float | None
    sensitivity: Estimate | None
    specificity: Estimate | None
    rule_in_specificity: Estimate | None
    rule_in_sensitivity: Estimate | None
    npv: Estimate | None
    ppv: Estimate | None
    missed: int
    false_alarms: int
    shares: dict[str, Estimate]
    images: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a nested dict, ready for JSON (no NaN, no infinity)."""
        return asdict(self)


def evaluate_decisions(
    scores: ArrayLike,
    sick: ArrayLike,
    patient_ids: ArrayLike | None,
    rule_out: ThresholdChoice | float,
    rule_in: ThresholdChoice | float,
    *,
    prevalence: float | None = None,
    confidence: float = 0.95,
) -> DrawerReport:
    """Decide on every image, reduce to patients, and count against the truth.

    Parameters
    ----------
    scores : array_like of float, shape (n,)
        NaN or infinite: no usable score, so the image goes to review.
    sick : array_like of bool, shape (n,)
        A patient is sick as soon as one image is.
    patient_ids : array_like, shape (n,), or None
    rule_out, rule_in : ThresholdChoice or float
    prevalence : float in (0, 1) or None
        For NPV and PPV (:mod:`histcxr.decision.proportions`); None takes the patients as they are.
    confidence : float in (0, 1)

    Returns
    -------
    DrawerReport
        Intervals are Clopper-Pearson's over patients.

    Raises
    ------
    InputError
        No image at all, or shapes, types or numbers are wrong.
    """
    values = real_vector(scores, finite=False)
    labels = bool_vector(sick, length=values.size)
    if values.size == 0:
        raise InputError("scores must hold at least one image, got none")
    by_image = decide(values, rule_out, rule_in)
    by_patient, truth = patient_drawers(by_image, patient_ids), patient_labels(labels, patient_ids)
    out, taken = by_patient == RULE_OUT, by_patient == RULE_IN
    n_sick, n_normal = int(truth.sum()), int((~truth).sum())

    def share(count: int, n: int) -> Estimate | None:
        return proportion(count, n, confidence=confidence) if n else None

    missed, spared = int((out & truth).sum()), int((out & ~truth).sum())
    caught, alarms = int((taken & truth).sum()), int((taken & ~truth).sum())
    # each threshold as a test of its own: "positive" is not ruled out, or is ruled in
    first = Confusion(n_sick - missed, n_normal - spared, missed, spared)
    second = Confusion(caught, alarms, n_sick - caught, n_normal - alarms)
    both_classes = prevalence is None or (n_sick > 0 and n_normal > 0)
    low, high = threshold_value(rule_out, RULE_OUT), threshold_value(rule_in, RULE_IN)
    return DrawerReport(
        n_images=values.size,
        n_patients=truth.size,
        n_sick=n_sick,
        n_normal=n_normal,
        rule_out=low if math.isfinite(low) else None,
        rule_in=high if math.isfinite(high) else None,
        sensitivity=share(n_sick - missed, n_sick),
        specificity=share(spared, n_normal),
        rule_in_specificity=share(n_normal - alarms, n_normal),
        rule_in_sensitivity=share(caught, n_sick),
        npv=npv_of(first, prevalence, confidence) if missed + spared and both_classes else None,
        ppv=ppv_of(second, prevalence, confidence) if caught + alarms and both_classes else None,
        missed=missed,
        false_alarms=alarms,
        shares={
            name: proportion(int((by_patient == name).sum()), truth.size, confidence=confidence)
            for name in _DRAWERS.tolist()
        },
        images={name: int((by_image == name).sum()) for name in _DRAWERS.tolist()},
    )
