"""What no image shows by itself: whether the folder is of a certified site, and what a patient's other images say.

Both can only take a promise back. A row that was ruled out becomes ``review``, with the reason, where another image of
the same patient is not ruled out (a promise about patients is kept for whoever reads row by row); and every row that
was ruled out or in does where the folder does not come from the population that certified the model
(:mod:`histcxr.decision.site`).
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.site import LEAST_IMAGES, SiteReference, SiteTest
from histcxr.decision.thresholds import REVIEW, RULE_IN, RULE_OUT
from histcxr.exceptions import Reason

# A coordinate of the site test is kept with a row in one byte, in sixteenths of a standard deviation.
_STEPS: Final = 16.0
_DRAWERS: Final = (RULE_OUT, REVIEW, RULE_IN)  # of a patient: the highest of the images'


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


@dataclass(slots=True)
class _Image:
    """An image of a patient who has several: its row, and the drawer that its own score gave."""

    row: int
    own: str


class WholeFolder:
    """What is gathered while rows come in, and what follows from it at the end.

    Without the model's ``site`` no folder can be tested; ``trusted`` judges it as if it came from the certified
    population.
    """

    def __init__(self, site: SiteReference | None, trusted: bool) -> None:
        self.trusted = trusted
        self.unknown = 0  # judged images without a patient
        self._site = site
        self._sketch = None if site is None else site.sketch()
        self._patients: dict[str, list[_Image]] = {}
        self._lone: Counter[str] = Counter()  # drawers of images without a patient
        self._result: SiteTest | None = None

    def add(self, row: int, record: Mapping[str, Any]) -> None:
        """Take in a line about an image."""
        if self._sketch is not None and record.get("site"):
            self._sketch.add(unpack_site(record["site"]))
        own = record.get("own", record["decision"])
        if record.get("patient"):
            self._patients.setdefault(record["patient"], []).append(_Image(row, own))
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
    def withheld(self) -> bool:
        """Whether nobody is ruled out or in, since the folder is of another site."""
        return self.result is not None and self.result.differs and not self.trusted

    def demoted(self) -> set[int]:
        """Rows that were ruled out, of patients of whom another image is not."""
        return {
            image.row
            for images in self._patients.values()
            if any(other.own != RULE_OUT for other in images)
            for image in images
            if image.own == RULE_OUT
        }

    def revised(self, record: Mapping[str, Any], demoted: bool) -> tuple[str, str]:
        """Return drawer and reason code of a line, as the whole folder has them."""
        own = str(record.get("own", record["decision"]))
        reason = str(record["reason"]) if own == REVIEW and record["score"] is None else ""
        if self.withheld and own != REVIEW:
            return REVIEW, Reason.UNCERTIFIED_SITE.value
        if demoted:
            return REVIEW, Reason.OTHER_IMAGE.value
        return own, reason

    def patients(self) -> dict[str, int]:
        """Count patients by drawer; an image without a patient is its own."""
        counts = Counter(self._lone)
        for images in self._patients.values():
            counts[max((image.own for image in images), key=_DRAWERS.index)] += 1
        if self.withheld:
            counts = Counter({REVIEW: counts.total()})
        return {drawer: counts[drawer] for drawer in reversed(_DRAWERS)}

    def notes(self) -> list[str]:
        """Say in sentences what a reader must know."""
        found, notes = self.result, []
        several = sum(len(images) > 1 for images in self._patients.values())
        if self.unknown:
            notes.append(
                f"{self.unknown} judged images name no patient, so each counts as a patient of its own: where patients "
                "have several, a promise about patients is weaker read row by row (of 95 %, 87 % with three images); "
                "give a list with patient_id"
            )
        if several:
            notes.append(
                f"{several} patients have several images: they are ruled out only where every image is"
            )
        if found is None:
            notes.append(
                "the model does not know what its certified patients look like, so whether this folder is of their "
                "hospitals could not be tested; histcxr calibrate gives it that knowledge"
            )
        elif not found.tested:
            notes.append(
                f"{found.images} judged images are too few to test whether this folder is of the hospitals that the "
                f"thresholds were certified at (it takes {LEAST_IMAGES}): the promise holds for their patients only"
            )
        elif found.differs:
            what = ", ".join(f"{name} {size:+.1f}" for name, size in found.differences.items())
            done = (
                "trusted as asked, so the drawers stand, without a promise"
                if self.trusted
                else "so nobody is ruled out or in; certify the model on patients of yours (histcxr calibrate), or "
                "give --trust-site"
            )
            notes.append(
                "UNCERTIFIED SITE: these images differ from those that the thresholds were certified on by more than "
                f"hospitals differ within themselves (squared distance {found.distance:.1f}, p {found.p_value:.3f}; in "
                f"standard deviations: {what}), {done}"
            )
        return notes
