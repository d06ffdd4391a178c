"""Reading the files of a data set once each: what they declare, what their lungs hold, small pictures of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray

from histcxr.data.fingerprints import FINGERPRINT_BYTES, fine_copy, fingerprint
from histcxr.data.progress import Progress, counting
from histcxr.data.radiograph import read_any_header
from histcxr.exceptions import RadiographError, UnjudgeableError
from histcxr.features.histograms import BINS, zone_names
from histcxr.features.measuring import Measure, checked_histogram, measure_batch
from histcxr.files.reading import Header, read_file
from histcxr.lungs.segmenter import load_segmenter
from histcxr.study.cohort import groups_of

#: The zones that are counted: both lungs, then each in thirds.
ZONES: Final = "1+6"

_CHUNK: Final = 16  # files held at a time by a thread
_MEAN_SIDE: Final = 128  # pixels of the mean images


def read_once(
    table: pd.DataFrame,
    lungs: str,
    measure: Measure[Any],
    about: Callable[[bytes | None], Any],
    *,
    n_jobs: int = 1,
    progress: Progress = False,
    what: str = "reading",
) -> Iterator[tuple[Any, Any, Any]]:
    """Read each image of a manifest, and its mask, once, in threads; yield in order what there is to know.

    That is ``about`` the image's content, ``about`` the mask's (None: there is none, or it cannot be read), and what
    ``measure`` gave, or the :class:`UnjudgeableError` instead. ``lungs`` is as of
    :class:`~histcxr.study.cohort.Reading`.
    """
    images = table["image"].tolist()
    given = lungs != "found" and "mask" in table
    masks = groups_of(table, "mask").tolist() if given else [""] * len(table)
    segmenter = load_segmenter() if lungs != "given" and "" in masks else None

    def read(rows: slice) -> list[tuple[Any, Any, Any]]:
        places = list(zip(images[rows], masks[rows], strict=True))
        files = [(_content(image), _content(mask)) for image, mask in places]
        held = [(one[0] or path[0], one[1] or path[1]) for one, path in zip(files, places, strict=True)]
        found = measure_batch(
            [image for image, _ in held],
            [mask for _, mask in held],
            measure,
            segmenter=segmenter,
            paths=images[rows],
        )
        return [
            (about(image), about(mask), one if isinstance(one, UnjudgeableError) else one[0])
            for (image, mask), one in zip(files, found, strict=True)
        ]

    jobs = (delayed(read)(slice(start, start + _CHUNK)) for start in range(0, len(images), _CHUNK))
    with counting(len(images), progress, what) as count:
        for part in Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(jobs):
            yield from part
            count(len(part))


def _content(path: str) -> bytes | None:
    try:
        return read_file(path) if path else None
    except RadiographError:
        return None  # the one who measures says why


def declared(content: bytes | None) -> Header | None:
    """Return what a file declares, None where that cannot be had."""
    try:
        return None if content is None else read_any_header(content)._replace(stream=None, dicom=None)
    except RadiographError:
        return None


class Look(NamedTuple):
    """What is noted of an image: counts, how to know it again, the lungs' share, and pictures (of the wanted ones)."""

    counts: NDArray[np.int64]
    fingerprint: NDArray[np.uint8]
    share: float
    copy: NDArray[np.float32]
    small: NDArray[np.uint8]
    pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None


def look(pixels: NDArray[np.uint8], lungs: NDArray[np.bool_], name: str, *, wanted: frozenset[str]) -> Look:
    """Note what there is to know of an image, and keep pictures of it where it is among the ``wanted``."""
    return Look(
        checked_histogram(pixels, lungs, ZONES, name),
        fingerprint(pixels),
        np.count_nonzero(lungs) / lungs.size,
        fine_copy(pixels),
        np.asarray(cv2.resize(pixels, (_MEAN_SIDE, _MEAN_SIDE), interpolation=cv2.INTER_AREA), np.uint8),
        (pixels, np.where(lungs, pixels, 0).astype(np.uint8)) if name in wanted else None,
    )


class Seen:
    """What is gathered of all rows, whose classes are ``labels`` (n,)."""

    def __init__(self, labels: NDArray[np.object_]) -> None:
        n = len(labels)
        self.counts = np.zeros((n, len(zone_names(ZONES)), BINS), np.int64)
        self.fingerprints = np.zeros((n, FINGERPRINT_BYTES), np.uint8)
        self.shares = np.zeros(n)
        self.copies = np.zeros((n, 1024), np.float32)
        self.reasons = [""] * n
        self.headers: list[Header | None] = []
        self.masks: list[tuple[int, int] | None] = []
        self.pictures: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        self._labels = labels
        self._sums: dict[str, Any] = {}
        self._numbers: Counter[str] = Counter()

    def take(self, header: Header | None, mask: Header | None, found: Look | UnjudgeableError) -> None:
        """Take in the next row."""
        row = len(self.headers)
        self.headers.append(header)
        self.masks.append(None if mask is None else (mask.width, mask.height))
        if isinstance(found, UnjudgeableError):
            self.reasons[row] = found.reason.value
            return
        self.counts[row], self.fingerprints[row], self.shares[row], self.copies[row] = found[:4]
        label = self._labels[row]
        self._sums[label] = self._sums.get(label, 0.0) + found.small
        self._numbers[label] += 1
        if found.pictures is not None:
            self.pictures[row] = found.pictures

    def mean_images(self, classes: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
        """Return the mean image of each class that has any: uint8 (128, 128)."""
        return {
            name: np.asarray(np.round(self._sums[name] / self._numbers[name]), np.uint8)
            for name in classes
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
