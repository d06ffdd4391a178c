"""A site's finished worklists in the order of time, where every image and every patient counts once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.thresholds import DRAWERS, RULE_OUT
from histcxr.exceptions import InputError, Reason, counted
from histcxr.files.cells import printable
from histcxr.worklist.audit_trail import AUDIT_SUFFIX
from histcxr.worklist.reading import FinishedTriage
from histcxr.worklist.whole import unpack_site


@dataclass(frozen=True)
class Day:
    """One worklist, without images that an earlier one (or itself) had already: ``repeated`` counts those.

    ``unjudged`` images have no score, ``reasons`` counts them by code; ``drawers`` counts all images. ``patients`` are
    those judged for the first time, on whom the tests rest, ``mean_score`` is theirs. ``withheld``: the triage took
    the folder for another site's, or could not tell. ``begun`` is when the triage began, in ISO format.
    """

    worklist: str
    begun: str
    images: int
    unjudged: int
    reasons: Mapping[str, int]
    drawers: Mapping[str, int]
    repeated: int
    patients: int
    mean_score: float | None
    withheld: bool


@dataclass(frozen=True)
class Batch:
    """A day, and the patients who were judged on it for the first time.

    ``patients`` maps them to their drawers; ``scores`` and ``sites`` (coordinates of the site test, None where the
    triage kept none) are of the first judged image of each, in the same order.
    """

    day: Day
    patients: Mapping[str, str]
    scores: Sequence[float]
    sites: Sequence[NDArray[np.float64] | None]


class Worklists:
    """The worklists that one model wrote, known by its hash, ``digest``; they are added in the order of time."""

    def __init__(self, digest: str) -> None:
        self.batches: list[Batch] = []
        self.nameless = 0  # judged images that name no patient
        self._digest = digest
        self._images: dict[str, str] = {}  # content to patient
        self._files: dict[tuple[str, str], set[str]] = {}  # (worklist or "", file) to patients
        self._judged: set[str] = set()

    def add(self, path: str) -> Batch:
        """Read one; InputError: it or its trail is missing or damaged, or of another model."""
        trail = path + AUDIT_SUFFIX
        if os.path.isfile(path) and not os.path.isfile(trail):
            raise InputError(
                f"every worklist must have its audit trail beside it, but {trail} is missing: without it nobody knows "
                "which model judged, nor what its images look like; put it back, or leave the worklist out"
            )
        with FinishedTriage(path, trail) as triage:
            of = triage.header["model"]
            if of["hash"] != self._digest:
                raise InputError(
                    f"worklists must be of the given model ({self._digest[:12]}), but {path} was written by "
                    f"{of['name']} {of['hash'][:12]}, another model or other thresholds: monitor the worklists of each "
                    "by themselves"
                )
            batch = self._read(os.path.basename(path), triage.header["started"], triage)
        self.batches.append(batch)
        return batch

    def _read(self, name: str, begun: str, records: Iterable[Mapping[str, Any]]) -> Batch:
        reasons: Counter[str] = Counter()
        drawers: Counter[str] = Counter()
        first: dict[str, Mapping[str, Any]] = {}  # the first judged image of each new patient
        patients: dict[str, str] = {}
        repeated, withheld = 0, False
        for record in records:
            file, content = printable(record["file"]), record["sha256"]
            known = self._images.get(content) if content else None
            patient = known or record["patient"] or f"\0{name}\0{file}"
            for place in (name, ""):
                self._files.setdefault((place, file), set()).add(patient)
            if known is not None:
                repeated += 1
                continue
            if content:
                self._images[content] = patient
            drawers[record["decision"]] += 1
            withheld |= record["reason"] in (Reason.UNCERTIFIED_SITE, Reason.UNTESTED_SITE)
            if record["score"] is None:
                reasons[record["reason"]] += 1
            if patient in self._judged:
                continue
            patients[patient] = max(patients.get(patient, RULE_OUT), record["decision"], key=DRAWERS.index)
            if record["score"] is not None:
                first.setdefault(patient, record)
                self.nameless += not record["patient"]
        self._judged |= first.keys()
        scores = [float(record["score"]) for record in first.values()]
        return Batch(
            Day(
                worklist=name,
                begun=begun,
                images=drawers.total(),
                unjudged=reasons.total(),
                reasons=dict(reasons.most_common()),
                drawers={str(drawer): drawers[drawer] for drawer in DRAWERS},
                repeated=repeated,
                patients=len(first),
                mean_score=float(np.mean(scores)) if scores else None,
                withheld=withheld,
            ),
            {patient: patients[patient] for patient in first},
            scores,
            [unpack_site(record["site"]) if record.get("site") else None for record in first.values()],
        )

    def find(self, worklist: str, image: str, patient: str = "") -> str | None:
        """Return the judged patient of that name, or of an image of a worklist ("": of any); None: nobody.

        InputError: the image is of several patients, as a file name that comes again.
        """
        whose = {patient} if patient else self._files.get((worklist, image), set())
        if len(whose) > 1:
            raise InputError(
                f"labels must name each image once, but {image!r} is in several worklists; name the patient in a "
                "column patient_id, or the worklist's file in a column worklist"
            )
        return next(iter(whose & self._judged), None)

    def notes(self) -> list[str]:
        """Say what a reader must know of them."""
        days = [batch.day for batch in self.batches]
        notes = []
        begun = [day.begun for day in days]
        if begun != sorted(begun):
            notes.append(
                "the worklists are not in the order in which their triages began; they count in the order given"
            )
        if repeated := sum(day.repeated for day in days):
            notes.append(
                f"{counted(repeated, 'image was', 'images were')} in a worklist before; each counts once, where "
                "it came first"
            )
        if self.nameless:
            notes.append(
                f"{counted(self.nameless, 'judged image names', 'judged images name')} no patient: each counts as "
                "a patient of its own, and whoever "
                "comes again is not recognised"
            )
        if withheld := [day.worklist for day in days if day.withheld]:
            notes.append(
                f"nobody was ruled out or in by {', '.join(withheld)}: they say nothing about the promises"
            )
        return notes
