"""Reading the files of a folder once each: what they declare, what their lungs hold, small pictures of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.data.fingerprints import FINGERPRINT_BYTES, fine_copy, fingerprint
from histcxr.data.radiograph import read_any_header
from histcxr.exceptions import RadiographError, UnjudgeableError
from histcxr.features.histograms import BINS, zone_names
from histcxr.features.measuring import checked_histogram, measure_batch
from histcxr.files.reading import Header, read_file
from histcxr.lungs.segmenter import Segmenter

#: The zones that are counted: both lungs, then each in thirds.
ZONES: Final = "1+6"

_MEAN_SIDE: Final = 128  # pixels of the mean images
_SHOWN_SIDE: Final = 224  # longer side of the examples


@dataclass(frozen=True)
class Job:
    """Rows of a manifest for one worker; ``wanted`` are those whose pictures are kept."""

    rows: NDArray[np.intp]
    images: Sequence[str]
    masks: Sequence[str]
    labels: NDArray[np.object_]
    wanted: frozenset[int]


@dataclass
class Found:
    """What a worker hands back about its rows."""

    rows: NDArray[np.intp]
    headers: list[Header | None] = field(default_factory=list)
    masks: list[tuple[int, int] | None] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    sums: dict[str, tuple[NDArray[np.float64], int]] = field(default_factory=dict)
    pictures: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = field(default_factory=dict)


def look(job: Job, segmenter: Segmenter | None) -> Found:
    """Read the files of some rows once, and note what there is to know."""
    found = Found(job.rows)
    images: list[Any] = []
    masks: list[Any] = []
    for image, mask in zip(job.images, job.masks, strict=True):
        content, header = _read(image)
        found.headers.append(header)
        images.append(image if content is None else content)
        content, header = _read(mask) if mask else (None, None)
        found.masks.append(None if header is None else (header.width, header.height))
        masks.append(mask if content is None else content)

    def measure(pixels: NDArray[np.uint8], lungs: NDArray[np.bool_], name: str) -> tuple[Any, ...]:
        counts = checked_histogram(pixels, lungs, ZONES, name)
        row = int(name)
        label = job.labels[row - job.rows[0]]
        small = cv2.resize(pixels, (_MEAN_SIDE, _MEAN_SIDE), interpolation=cv2.INTER_AREA)
        total, number = found.sums.get(label, (np.zeros((_MEAN_SIDE, _MEAN_SIDE)), 0))
        found.sums[label] = total + small, number + 1
        if row in job.wanted:
            found.pictures[row] = _smaller(pixels), _smaller(np.where(lungs, pixels, 0).astype(np.uint8))
        return counts, fingerprint(pixels), np.count_nonzero(lungs) / lungs.size, fine_copy(pixels)

    found.results = list(
        measure_batch(images, masks, measure, segmenter=segmenter, paths=[str(row) for row in job.rows])
    )
    return found


def _read(path: str) -> tuple[bytes | None, Header | None]:
    """Return a file's content and what it declares, each None where it cannot be had."""
    try:
        content = read_file(path)
    except RadiographError:
        return None, None
    try:
        return content, read_any_header(content, path)._replace(stream=None, dicom=None)
    except RadiographError:
        return content, None


def _smaller(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = _SHOWN_SIDE / max(pixels.shape)
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


class Seen:
    """What is gathered of all rows."""

    def __init__(self, n: int, classes: Sequence[str]) -> None:
        self.counts = np.zeros((n, len(zone_names(ZONES)), BINS), np.int64)
        self.fingerprints = np.zeros((n, FINGERPRINT_BYTES), np.uint8)
        self.shares = np.zeros(n)
        self.copies = np.zeros((n, 1024), np.float32)
        self.reasons = [""] * n
        self.headers: list[Header | None] = [None] * n
        self.masks: list[tuple[int, int] | None] = [None] * n
        self.pictures: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        self._sums = {name: np.zeros((_MEAN_SIDE, _MEAN_SIDE)) for name in classes}
        self._numbers: Counter[str] = Counter()

    def take(self, found: Found) -> None:
        """Take in what a worker handed back."""
        for place, row in enumerate(found.rows):
            self.headers[row], self.masks[row] = found.headers[place], found.masks[place]
            result = found.results[place]
            if isinstance(result, UnjudgeableError):
                self.reasons[row] = result.reason.value
            else:
                (self.counts[row], self.fingerprints[row], self.shares[row], self.copies[row]) = result[0]
        self.pictures |= found.pictures
        for label, (total, number) in found.sums.items():
            self._sums[label] += total
            self._numbers[label] += number

    def mean_images(self) -> dict[str, NDArray[np.uint8]]:
        """Return the mean image of each class that has any: uint8 (128, 128)."""
        return {
            name: np.asarray(np.round(total / self._numbers[name]), np.uint8)
            for name, total in self._sums.items()
            if self._numbers[name]
        }

    def files(self) -> dict[str, dict[str, int]]:
        """Count formats, modes, sizes and depths of the images, and sizes of the masks."""
        known = [header for header in self.headers if header is not None]
        sizes = [f"{one.width} x {one.height}" for one in known]
        found = {
            "format": [one.format for one in known],
            "mode": [_mode(one) for one in known],
            "size": sizes,
            "bits": [f"{one.bits} bits" for one in known],
            "mask_size": [f"{one[0]} x {one[1]}" for one in self.masks if one is not None],
        }
        return {name: _commonest(values) for name, values in found.items()}


def _mode(header: Header) -> str:
    """Say how a file stores its pixels."""
    if header.palette:
        return "palette"
    colours = header.channels - header.alpha
    return ("grey" if colours == 1 else f"{colours} channels") + (" with alpha" if header.alpha else "")


def _commonest(values: Sequence[str], most: int = 12) -> dict[str, int]:
    counts = Counter(values).most_common()
    found = dict(counts[:most])
    if len(counts) > most:
        found[f"{len(counts) - most} others"] = sum(count for _, count in counts[most:])
    return found
