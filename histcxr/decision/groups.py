"""Certificates within groups: each disease, each view, adults and children.

A threshold that is certified over all patients may fail one group of them and make up for it with another. Here every
group is certified by itself (group-conditional, or Mondrian, conformal thresholds; Vovk, 2012), and all promises hold
at once with the stated confidence, which is shared among them (Bonferroni). Groups of the very same images, such as a
disease that all sick children have and no adult, are one group to the calibration patients: one promise, one share.
Who is in which group is taken as given, not as chance.

An image is judged by the strictest of what applies to it: the threshold over all patients; in each column its own
group's where the group is known, the strictest of the column where it is not. So a promise needs no knowledge of the
group, as for diseases, which nobody knows before reading. A patient counts in every group that one of his images is
in, with the highest score of those images; he is ruled out only when each image lies under its own threshold, so each
group's promise holds for him, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import bool_vector, open_unit, real_vector, whole_number
from histcxr.decision.intervals import patient_codes, patient_labels, patient_scores
from histcxr.decision.thresholds import (
    RULE_IN,
    RULE_OUT,
    Kind,
    ThresholdChoice,
    certified_threshold,
    drawers_between,
    patients_needed,
)
from histcxr.exceptions import InputError

#: Most groups that one certificate is shared among.
MOST_GROUPS: Final = 64

Columns = Mapping[str, Mapping[str, ThresholdChoice]]


@dataclass(frozen=True)
class GroupThresholds:
    """The thresholds of one drawer: over all patients (at its share of the confidence), and by column and value.

    A group's threshold is uncertified where it has too few patients. ``promises`` counts the certified thresholds, one
    for all groups of the very same images.
    """

    overall: ThresholdChoice
    groups: Columns = field(default_factory=dict)
    promises: int = 1

    def __post_init__(self) -> None:
        for choice in self.choices():
            if choice.kind != self.overall.kind:
                raise InputError(f"groups must be {self.overall.kind} thresholds, got a {choice.kind} one")
        certified = [(choice.threshold, choice.n) for choice in self.choices() if choice.certified]
        if not len(set(certified)) <= self.promises <= max(1, len(certified)):
            raise InputError(f"promises must agree with {len(certified)} thresholds, got {self.promises}")

    def choices(self) -> list[ThresholdChoice]:
        """Return the thresholds: over all patients, then of each group."""
        return [self.overall, *(choice for values in self.groups.values() for choice in values.values())]

    def limits(self, known: Mapping[str, ArrayLike], n: int) -> NDArray[np.float64]:
        """Return the threshold of each of ``n`` images: float64 (n,).

        ``known`` maps columns to text (n,); ``""`` is unknown, and so is a missing column. An image known to be in a
        group without a certificate gets -inf (rule_out) or inf (rule_in).
        """
        out = self.overall.kind == RULE_OUT
        nobody, stricter = (-np.inf, np.minimum) if out else (np.inf, np.maximum)
        limits = np.full(n, self.overall.threshold)
        for column, values in self.groups.items():
            certified = [choice.threshold for choice in values.values() if choice.certified]
            if not certified:
                continue  # a column that promises nothing takes nothing away
            strictest = min(certified) if out else max(certified)
            names = np.asarray(known.get(column, np.full(n, "")), dtype=object)
            if names.shape != (n,):
                raise InputError(f"{column} must have shape ({n},), got {names.shape}")
            own = {
                value: choice.threshold if choice.certified else nobody for value, choice in values.items()
            }
            limits = stricter(
                limits,
                [strictest if name in ("", None) else own.get(str(name), nobody) for name in names.tolist()],
            )
        return limits

    def to_dict(self) -> dict[str, Any]:
        """Return the thresholds, ready for JSON."""
        return {
            "overall": self.overall.to_dict(),
            "groups": {
                column: {value: choice.to_dict() for value, choice in values.items()}
                for column, values in self.groups.items()
            },
            "promises": self.promises,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> GroupThresholds:
        """Read what :meth:`to_dict` gave; InputError when it is damaged or contradicts itself."""
        try:
            groups = {
                str(column): {str(value): ThresholdChoice.from_dict(one) for value, one in values.items()}
                for column, values in stored["groups"].items()
            }
            certified = sum(choice.certified for values in groups.values() for choice in values.values())
            # Models of before counted every group by itself.
            promises = whole_number(stored.get("promises", 1 + certified), "promises")
            return cls(ThresholdChoice.from_dict(stored["overall"]), groups, promises)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"the thresholds of groups are damaged ({error!r})") from error


class GroupCertificates(NamedTuple):
    """Both drawers' thresholds."""

    rule_out: GroupThresholds
    rule_in: GroupThresholds

    def decide(self, scores: ArrayLike, known: Mapping[str, ArrayLike]) -> NDArray[np.str_]:
        """Put each score (n,) into a drawer by its own thresholds; see :func:`~histcxr.decision.thresholds.decide`."""
        values = real_vector(scores, finite=False)
        return drawers_between(values, *(thresholds.limits(known, values.size) for thresholds in self))

    def further_promises(self) -> list[dict[str, Any]]:
        """Return one dict for each promise beside those over all patients, for ``joint_confidence``."""
        return [thresholds.overall.to_dict() for thresholds in self for _ in range(1, thresholds.promises)]

    def to_dict(self) -> dict[str, Any]:
        """Return the thresholds, ready for JSON."""
        return {kind: thresholds.to_dict() for kind, thresholds in self._asdict().items()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> GroupCertificates:
        """Read what :meth:`to_dict` gave; InputError where it is damaged."""
        try:
            return cls(*(GroupThresholds.from_dict(stored[kind]) for kind in (RULE_OUT, RULE_IN)))
        except (KeyError, TypeError) as error:
            raise InputError(f"the thresholds of groups are damaged ({error!r})") from error


def certify_groups(
    scores: ArrayLike,
    sick: ArrayLike,
    patient_ids: ArrayLike | None,
    groups: Mapping[str, ArrayLike],
    *,
    sensitivity: float = 0.95,
    specificity: float = 0.95,
    confidence: float = 0.95,
) -> GroupCertificates:
    """Certify both thresholds over all patients and within each group; all promises of a drawer hold at once.

    Arrays have shape (n,), one row a calibration image; a group ``""`` is unknown, in no group of the column. Each
    group is promised ``sensitivity`` and ``specificity``. InputError: wrong shapes, types or numbers, a score that is
    not finite, or more than 64 groups.
    """
    values = real_vector(scores)
    truth = bool_vector(sick, length=values.size)
    ids = np.arange(values.size) if patient_ids is None else np.asarray(patient_ids, dtype=object)
    members: dict[str, dict[str, NDArray[np.bool_]]] = {}
    for column, labels in groups.items():
        names = np.asarray(labels, dtype=object)
        if names.shape != values.shape:
            raise InputError(
                f"{column} must have shape {values.shape}, one for each score, got {names.shape}"
            )
        names = np.array(["" if name is None else str(name) for name in names.tolist()], dtype=object)
        members[column] = {name: names == name for name in sorted({*names} - {""})}
    if sum(map(len, members.values())) > MOST_GROUPS:
        counted = {column: len(found) for column, found in members.items()}
        raise InputError(f"by must make at most {MOST_GROUPS} groups, got {counted}")
    sick_patient = patient_labels(truth, ids)[patient_codes(ids, len(ids))]  # of each image

    def one(kind: Kind, target: float) -> GroupThresholds:
        mine = sick_patient if kind == RULE_OUT else ~sick_patient
        images = {("", ""): mine}
        for column, found in members.items():
            images |= {(column, name): mine & rows for name, rows in found.items() if (mine & rows).any()}
        # Groups of the same images are one pool: who belongs to a group decides, never a score.
        pools = {rows.tobytes(): patient_scores(values[rows], ids[rows]) for rows in images.values()}
        shared = _shared_confidence([len(pool) for pool in pools.values()], target, confidence)
        choices = {key: certified_threshold(kind, pool, target, shared) for key, pool in pools.items()}
        made = {group: choices[rows.tobytes()] for group, rows in images.items()}
        return GroupThresholds(
            made.pop(("", "")),
            {
                column: {name: choice for (of, name), choice in made.items() if of == column}
                for column in members
            },
            max(1, sum(choice.certified for choice in choices.values())),
        )

    open_unit(confidence, "confidence")
    return GroupCertificates(
        one(RULE_OUT, open_unit(sensitivity, "sensitivity")),
        one(RULE_IN, open_unit(specificity, "specificity")),
    )


def _shared_confidence(sizes: list[int], target: float, confidence: float) -> float:
    """Return each promise's confidence: shares for the fewest promises that are not outnumbered by pools large enough.

    Pools too small take no share. Only sizes decide, never a score.
    """
    for promises in range(1, len(sizes)):
        shared = 1 - (1 - confidence) / promises
        if sum(size >= patients_needed(target, shared) for size in sizes) <= promises:
            return shared
    return 1 - (1 - confidence) / len(sizes)
