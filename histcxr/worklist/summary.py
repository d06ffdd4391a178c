"""What a triage did, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

EXIT_ALL_JUDGED = 0
EXIT_ATTENTION = 3


@dataclass(frozen=True)
class TriageSummary:
    """What a triage did.

    Attributes
    ----------
    total : int
        Rows of the worklist, one for each input.
    drawers : mapping of str to int
        Rows of ``rule_in``, ``review`` and ``rule_out``.
    unjudged : int
        Rows of ``review`` that could not be judged and need attention.
    reasons : mapping of str to int
        These by reason code, the most frequent first.
    skipped : mapping of str to int
        Files that are no images, by extension; they have no row.
    resumed : int
        Rows taken over from an earlier run with the same output.
    model : str
        Name and short hash, as in the worklist.
    output, audit : str
        The worklist and the audit trail.
    seconds, images_per_second : float
        Wall time, and the rate of the images judged in this run.
    notes : tuple of str
        What a careful reader must know: thresholds that are not certified, nothing found.
    warnings : tuple of str
        Warnings of the libraries during the run, each once.
    """

    total: int
    drawers: Mapping[str, int]
    unjudged: int
    reasons: Mapping[str, int]
    skipped: Mapping[str, int]
    resumed: int
    model: str
    output: str
    audit: str
    seconds: float
    images_per_second: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when every input was judged, 3 when some need attention."""
        return EXIT_ATTENTION if self.unjudged else EXIT_ALL_JUDGED

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types that JSON knows, ``exit_code`` included."""
        fields = asdict(self)
        return {
            **fields,
            "drawers": dict(self.drawers),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "exit_code": self.exit_code,
        }
