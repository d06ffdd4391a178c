"""What no image shows by itself: whether the folder is of a certified site, and what a patient's other images say.

Both can only take a promise back. A row that was ruled out becomes ``review``, with the reason, where another image of
the same patient is not ruled out (a promise about patients is kept for whoever reads row by row); and every row that
was ruled out or in does where the folder does not come from the population that certified the model
(:mod:`histcxr.decision.site`), or where that should be tested and cannot be.

A row costs 18 bytes of memory where its image names a patient, none else, and 4 more at the end (kept by name,
patients cost up to 271). At the end each line of the audit trail is read once more, 5 microseconds each.
"""

from __future__ import annotations

import base64
import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.site import LEAST_IMAGES, SiteReference, SiteTest
from histcxr.decision.thresholds import DRAWERS, REVIEW
from histcxr.exceptions import Reason, counted

# A coordinate of the site test is kept with a row in one byte, in sixteenths of a standard deviation.
_STEPS: Final = 16.0
# Patients are grouped in so many parts, by their hashes.
_PARTS: Final = 64


def pack_site(coordinates: NDArray[np.float64]) -> str:
    """Keep the coordinates (k,) of one image in a line of the audit trail."""
    return base64.b64encode(
        np.clip(np.round(coordinates * _STEPS), -127, 127).astype(np.int8).tobytes()
    ).decode()


def unpack_site(packed: str) -> NDArray[np.float64]:
    """Return the coordinates (k,) that :func:`pack_site` kept."""
    return np.frombuffer(base64.b64decode(packed), np.int8) / _STEPS


def patient_of(facts: Mapping[str, str], study_uid: str, key: str) -> str:
    """Name the patient as the list does, else by the DICOM study, as a pseudonym by the run's ``key``; "": unknown."""
    if facts.get("patient_id"):
        return facts["patient_id"]
    if not study_uid:
        return ""
    return f"study-{hashlib.blake2b(study_uid.encode(), key=key.encode()[:64], digest_size=8).hexdigest()}"


def _highest(own: NDArray[np.uint8], patient: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the highest drawer of each patient."""
    highest = np.zeros(int(patient.max(initial=-1)) + 1, np.uint8)
    np.maximum.at(highest, patient, own)
    return highest


class WholeFolder:
    """What is gathered while rows come in, and what follows from it at the end.

    Without the model's ``site`` no folder can be tested; ``trusted`` judges it as if it came from the certified
    population.
    """

    def __init__(self, site: SiteReference | None, trusted: bool) -> None:
        self.trusted = trusted
        self.unknown = 0  # judged images without a patient
        self.untested = 0  # judged images of which the test has no numbers
        self._site = site
        self._sketch = None if site is None else site.sketch()
        # Of each image with a patient: its row, the patient as 8 bytes of a hash, the drawer that its own score gave.
        # Two patients of one hash in 200,000 are as likely as 1 to 10^9, and could only take a rule_out back.
        self._rows, self._names, self._drawers = array("Q"), array("Q"), array("B")
        self._lone: Counter[str] = Counter()  # drawers of images without a patient
        self._result: SiteTest | None = None

    def add(self, row: int, record: Mapping[str, Any]) -> None:
        """Take in a line about an image."""
        if self._sketch is not None and record.get("site"):
            self._sketch.add(unpack_site(record["site"]))
        elif self._sketch is not None:
            self.untested += record["score"] is not None
        own = record.get("own", record["decision"])
        if record.get("patient"):
            name = record["patient"].encode("utf-8", "surrogatepass")
            self._rows.append(row)
            self._names.append(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()))
            self._drawers.append(DRAWERS.index(own))
        else:
            self._lone[own] += 1
            self.unknown += record["score"] is not None

    @property
    def result(self) -> SiteTest | None:
        """What the site test found; None without a reference."""
        if self._result is None and self._site is not None and self._sketch is not None:
            self._result = self._site.test(self._sketch)
        return self._result

    @property
    def untestable(self) -> bool:
        """Whether the folder is large enough for the test, which has no numbers of some of its judged images."""
        found = self.result
        return found is not None and self.untested > 0 and found.images + self.untested >= LEAST_IMAGES

    @property
    def withheld(self) -> bool:
        """Whether nobody is ruled out or in, since the folder is of another site, or nobody can tell."""
        if self.trusted or self.result is None:
            return False
        return self.result.differs or self.untestable

    def _by_patient(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]]]:
        """Yield the images with a patient, a part of all patients at a time, which bounds the memory.

        Of each the row, the drawer as a number, and the number of the patient within the part.
        """
        names, rows = (np.frombuffer(values or b"", np.uint64) for values in (self._names, self._rows))
        drawers, part_of = np.frombuffer(self._drawers or b"", np.uint8), names.view(np.uint8)[::8] % _PARTS
        for part in range(_PARTS):
            mine = np.flatnonzero(part_of == part)
            yield rows[mine], drawers[mine], np.unique(names[mine], return_inverse=True)[1]

    def demoted(self, total: int) -> NDArray[np.bool_]:
        """Tell which of all ``total`` rows were ruled out, of patients of whom another image is not."""
        found = np.zeros(total, bool)
        for rows, own, patient in self._by_patient():
            found[rows[(own == 0) & (_highest(own, patient)[patient] > 0)]] = True
        return found

    def revised(self, record: Mapping[str, Any], demoted: bool) -> tuple[str, str]:
        """Return drawer and reason code of a line, as the whole folder has them."""
        own = str(record.get("own", record["decision"]))
        reason = str(record["reason"]) if own == REVIEW and record["score"] is None else ""
        if self.withheld and own != REVIEW:
            differs = self.result is not None and self.result.differs
            return REVIEW, (Reason.UNCERTIFIED_SITE if differs else Reason.UNTESTED_SITE).value
        if demoted:
            return REVIEW, Reason.OTHER_IMAGE.value
        return own, reason

    def patients(self) -> dict[str, int]:
        """Count patients by drawer; an image without a patient is its own."""
        counts = Counter(self._lone)
        for _, own, patient in self._by_patient():
            found = np.bincount(_highest(own, patient), minlength=len(DRAWERS))
            counts.update(dict(zip(DRAWERS, found.tolist(), strict=True)))
        if self.withheld:
            counts = Counter({REVIEW: counts.total()})
        return {drawer: counts[drawer] for drawer in reversed(DRAWERS)}

    def notes(self) -> list[str]:
        """Say in sentences what a reader must know."""
        found, notes = self.result, []
        several = sum(int((np.bincount(patient) > 1).sum()) for _, _, patient in self._by_patient())
        if self.unknown:
            notes.append(
                f"{counted(self.unknown, 'judged image names', 'judged images name')} no patient, so each counts as a "
                "patient of its own: where patients have several, a promise about patients is weaker read row by row "
                "(of 95 %, 87 % with three images); give a list with patient_id"
            )
        if several:
            notes.append(
                f"{counted(several, 'patient has', 'patients have')} several images: they are ruled out only "
                "where every image is"
            )
        if found is None:
            notes.append(
                "the model does not know what its certified patients look like, so whether this folder is of their "
                "hospitals could not be tested; histcxr calibrate gives it that knowledge"
            )
        elif self.untestable and not found.differs:
            done = (
                "trusted as asked, so the drawers stand, without a promise"
                if self.trusted
                else "so nobody is ruled out or in; report it, or give --trust-site"
            )
            notes.append(
                f"UNTESTED SITE: of {self.untested} of {counted(found.images + self.untested, 'judged image')} "
                "the numbers that "
                "tell one hospital from another could not be computed, so nobody knows whether this folder is of those "
                f"that the thresholds were certified at, {done}"
            )
        elif not found.tested:
            notes.append(
                f"{counted(found.images + self.untested, 'judged image is', 'judged images are')} too few to test "
                "whether this folder is of the "
                f"hospitals that the thresholds were certified at (it takes {LEAST_IMAGES}): the promise holds for "
                "their patients only"
            )
        elif found.differs:
            what = ", ".join(f"{name} {size:+.1f}" for name, size in found.differences.items())
            chance = f"{found.p_value:.3f}" if found.p_value >= 0.001 else "below 0.001"
            done = (
                "trusted as asked, so the drawers stand, without a promise"
                if self.trusted
                else "so nobody is ruled out or in; certify the model on patients of yours "
                "(histcxr adapt or calibrate), or give --trust-site"
            )
            notes.append(
                "UNCERTIFIED SITE: these images differ from those that the thresholds were certified on by more than "
                f"hospitals differ within themselves (squared distance {found.distance:.1f}, p {chance}; in "
                f"standard deviations: {what}), {done}"
            )
        return notes
