"""What a triage did: the order of its rows in a few bytes each, and its numbers."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.thresholds import REVIEW, RULE_IN, RULE_OUT
from histcxr.exceptions import Reason

EXIT_ALL_JUDGED = 0
EXIT_ATTENTION = 3


# Most urgent first. What could not be judged comes before the scores between the thresholds: nobody knows yet
# what is on it, and the reason may be gone once the file is exported again.
_UNJUDGED = "unjudged"
_GROUPS = (RULE_IN, _UNJUDGED, REVIEW, RULE_OUT)
_GROUP_OF = {group: number for number, group in enumerate(_GROUPS)}


#: Reasons of rows that were judged, and whose drawer the whole folder took back.
JUDGED = ("", Reason.OTHER_IMAGE, Reason.UNCERTIFIED_SITE, Reason.UNTESTED_SITE)


def urgency(decision: str, reason: str) -> int:
    """Rank an outcome: 0 for what should be looked at first."""
    return _GROUP_OF[decision if reason in JUDGED else _UNJUDGED]


class Order:
    """Rows in the order of the inputs, 17 bytes each."""

    def __init__(self) -> None:
        self._offsets = array("Q")
        self._scores = array("d")
        self._groups = array("B")
        self._reasons: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, offset: int, decision: str, score: float | None, reason: str) -> None:
        """Add the next row: where its line is, and what was decided."""
        self._offsets.append(offset)
        self._scores.append(0.0 if score is None else score)
        self._groups.append(urgency(decision, reason))
        if reason not in JUDGED:
            self._reasons[reason] += 1

    def revise(self, row: int, offset: int, decision: str, reason: str) -> None:
        """Put another line in the place of a row's, of an image that was judged."""
        self._offsets[row], self._groups[row] = offset, urgency(decision, reason)

    def by_input(self) -> NDArray[np.uint64]:
        """Return the offsets in the order of the inputs."""
        return np.frombuffer(self._offsets, np.uint64) if self._offsets else np.empty(0, np.uint64)

    def by_urgency(self) -> NDArray[np.uint64]:
        """Return the offsets, the most urgent first.

        rule_in, then what could not be judged, then review, then rule_out; the highest score first within
        each, and the order of the inputs among equals.
        """
        if not self._offsets:
            return np.empty(0, np.uint64)
        groups, scores = np.frombuffer(self._groups, np.uint8), np.frombuffer(self._scores, np.float64)
        return self.by_input()[np.lexsort((-scores, groups))]

    @property
    def drawers(self) -> dict[str, int]:
        """Rows in each drawer; what could not be judged counts as review."""
        counts = np.bincount(np.frombuffer(self._groups, np.uint8), minlength=4) if self._groups else [0] * 4
        found = dict(zip(_GROUPS, map(int, counts), strict=True))
        return {RULE_IN: found[RULE_IN], REVIEW: found[REVIEW] + found[_UNJUDGED], RULE_OUT: found[RULE_OUT]}

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows could not be judged, by reason code, the most frequent first."""
        return dict(sorted(self._reasons.items(), key=lambda pair: (-pair[1], pair[0])))


@dataclass(frozen=True)
class TriageSummary:
    """What a triage did.

    ``total`` counts the rows, one for each input; ``drawers`` those of ``rule_in``, ``review`` and ``rule_out``;
    ``unjudged`` those of ``review`` that could not be judged, and ``reasons`` these by code, the most frequent first.
    ``skipped`` counts files that are no images, by extension; they have no row. ``patients`` counts those of each
    drawer; an image without a patient is its own.

    ``site`` is what the test of the folder found (:class:`~histcxr.decision.site.SiteTest`), None where the model has
    no reference; ``withheld``: the folder differs from the certified population, or that could not be tested though it
    is large enough, so nobody is ruled out or in.
    ``resumed`` rows were taken over from an earlier run with the same output.

    ``model`` is name and short hash; ``output`` and ``audit`` are the worklist and its trail, ``audit_head`` is the
    SHA-256 of the trail's last line: kept elsewhere, it shows later that the trail is still this one. ``seconds`` is
    wall time, ``images_per_second`` the rate of the images judged in this run. ``notes`` are what a careful reader must
    know, ``warnings`` those of the libraries, each once.
    """

    total: int
    drawers: Mapping[str, int]
    unjudged: int
    reasons: Mapping[str, int]
    skipped: Mapping[str, int]
    patients: Mapping[str, int]
    site: Mapping[str, Any] | None
    withheld: bool
    resumed: int
    model: str
    output: str
    audit: str
    seconds: float
    images_per_second: float
    audit_head: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when all were judged, 3 when some need attention, the site is not certified, or there was no image."""
        return EXIT_ATTENTION if self.unjudged or self.withheld or not self.total else EXIT_ALL_JUDGED

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types that JSON knows, ``exit_code`` included."""
        fields = asdict(self)
        return {
            **fields,
            "drawers": dict(self.drawers),
            "patients": dict(self.patients),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "exit_code": self.exit_code,
        }
