"""How calls and the three drawers fared on patients whose truth is known.

PPV and NPV depend on how many are sick. Without a ``prevalence`` they are the proportions seen in the data.
With one they follow from sensitivity and specificity by Bayes' rule. Their interval then spans the rule's
values over both intervals, each at the square root of the confidence: the sick and the normal patients are
independent samples, so both hold at once with at least the confidence asked for, and as PPV and NPV grow with
either, their extremes lie at the intervals' ends. Conservative; the prevalence counts as known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import bool_vector, open_unit, real_vector
from histcxr.decision.intervals import (
    Estimate,
    Record,
    clopper_pearson,
    patient_codes,
    patient_labels,
    proportion,
)
from histcxr.decision.thresholds import (
    DRAWERS,
    REVIEW,
    RULE_IN,
    RULE_OUT,
    ThresholdChoice,
    decide,
    threshold_value,
)
from histcxr.exceptions import InputError

_CONFIDENCE = 0.95  # of all intervals here


def patient_drawers(drawers: NDArray[np.str_], patient_ids: ArrayLike | None) -> NDArray[np.str_]:
    """Reduce the drawers of images to one a patient, in the order in which patients first appear.

    ``rule_in`` as soon as one image is; ``rule_out`` only when every image is; else ``review``.
    """
    codes = patient_codes(patient_ids, drawers.size)
    ranks = np.zeros(int(codes.max(initial=-1)) + 1, np.int64)
    np.maximum.at(ranks, codes, (drawers == REVIEW) + 2 * (drawers == RULE_IN))
    return np.array(DRAWERS)[ranks]


@dataclass(frozen=True)
class Confusion(Record):
    """Counts of calls against truth: true and false positives, false and true negatives."""

    tp: int
    fp: int
    fn: int
    tn: int

    def ppv(self, prevalence: float | None = None) -> Estimate:
        """Return the positive predictive value: the share of those called sick who are sick.

        ``prevalence`` is the share of sick where the model is used (interval: see the module); None takes the data as
        they are. InputError: nobody is called sick, or a class that the prevalence needs is missing.
        """
        return _predictive("PPV", (self.tp, self.tp + self.fn), (self.fp, self.fp + self.tn), prevalence)

    def npv(self, prevalence: float | None = None) -> Estimate:
        """Return the negative predictive value, the share of normal among those not called sick; as :meth:`ppv`."""
        return _predictive("NPV", (self.tn, self.tn + self.fp), (self.fn, self.fn + self.tp), prevalence)


def _predictive(
    name: str, right: tuple[int, int], wrong: tuple[int, int], prevalence: float | None
) -> Estimate:
    """Return the share of right calls among all of one kind; ``right`` and ``wrong``: how many of how many members."""
    if prevalence is None:
        return proportion(right[0], right[0] + wrong[0], of=name)
    weight = open_unit(prevalence, "prevalence")
    weight = 1 - weight if name == "NPV" else weight
    if right[1] == 0 or wrong[1] == 0:
        raise InputError(f"sick must hold both classes for the {name} at a stated prevalence")
    if right[0] + wrong[0] == 0:
        raise InputError(f"the {name} is undefined: there is nobody to count")
    (right_low, wrong_low), (right_high, wrong_high) = (
        ends.tolist()
        for ends in clopper_pearson((right[0], wrong[0]), (right[1], wrong[1]), math.sqrt(_CONFIDENCE))
    )
    method = f"Bayes at prevalence {prevalence:g}, Clopper-Pearson ends"
    return Estimate(
        _bayes(right[0] / right[1], wrong[0] / wrong[1], weight),
        _bayes(right_low, wrong_high, weight),
        _bayes(right_high, wrong_low, weight),
        _CONFIDENCE,
        method,
    )


def _bayes(right: float, wrong: float, weight: float) -> float:
    """Share of the right among all calls of one kind."""
    return right * weight / (right * weight + wrong * (1 - weight))


def confusion(positive: ArrayLike, sick: ArrayLike) -> Confusion:
    """Count the calls, bool (n,), against the truth, alike; InputError for wrong shapes, types or lengths."""
    called = bool_vector(positive, "positive")
    truth = bool_vector(sick, length=called.size)
    tp, fp = int((called & truth).sum()), int((called & ~truth).sum())
    return Confusion(tp, fp, int(truth.sum()) - tp, int((~truth).sum()) - fp)


@dataclass(frozen=True)
class DrawerReport(Record):
    """What two thresholds did to patients whose truth is known. Everything but ``images`` counts patients.

    A figure is None where nobody is there to count; a threshold is None where nobody is ruled out (or in).

    - ``sensitivity``: sick not ruled out, among the sick: what the rule-out certificate promises.
    - ``specificity``: normal ruled out, among the normal: what the rule-out threshold saves.
    - ``rule_in_specificity``: normal not ruled in, among the normal: what the rule-in certificate promises.
    - ``rule_in_sensitivity``: sick ruled in, among the sick.
    - ``npv``, ``ppv``: normal among the ruled out, and sick among the ruled in.
    - ``missed``, ``false_alarms``: sick ruled out, and normal ruled in.
    - ``shares``, ``images``: share of the patients and number of images in each drawer.
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


def evaluate_decisions(
    scores: ArrayLike,
    sick: ArrayLike,
    patient_ids: ArrayLike | None,
    rule_out: ThresholdChoice | float,
    rule_in: ThresholdChoice | float,
    *,
    drawers: ArrayLike | None = None,
    prevalence: float | None = None,
) -> DrawerReport:
    """Decide on every image, reduce to patients, and count against the truth; arrays have shape (n,).

    A score that is not finite sends its image to review; a patient is sick as soon as one image is. ``drawers`` are
    those of each image where groups have thresholds of their own (None: by the two thresholds), ``prevalence`` is for
    NPV and PPV (None: the patients as they are). Intervals are Clopper's and Pearson's at 95 %, over patients.
    InputError: no image, or wrong shapes, types or numbers.
    """
    values = real_vector(scores, finite=False)
    labels = bool_vector(sick, length=values.size)
    if values.size == 0:
        raise InputError("scores must hold at least one image, got none")
    by_image = decide(values, rule_out, rule_in) if drawers is None else np.asarray(drawers)
    if by_image.shape != values.shape:
        raise InputError(f"drawers must have shape {values.shape}, got {by_image.shape}")
    by_patient, truth = patient_drawers(by_image, patient_ids), patient_labels(labels, patient_ids)
    out, taken = by_patient == RULE_OUT, by_patient == RULE_IN
    n_sick, n_normal = int(truth.sum()), int((~truth).sum())

    def share(count: int, n: int) -> Estimate | None:
        return proportion(count, n) if n else None

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
        npv=first.npv(prevalence) if missed + spared and both_classes else None,
        ppv=second.ppv(prevalence) if caught + alarms and both_classes else None,
        missed=missed,
        false_alarms=alarms,
        shares={name: proportion(int((by_patient == name).sum()), truth.size) for name in DRAWERS},
        images={name: int((by_image == name).sum()) for name in DRAWERS},
    )
