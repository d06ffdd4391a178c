"""Segmenting a whole folder: a mask for each radiograph, a table with a row for every file, a sheet to look at."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.data.discovery import InputFile, find_inputs
from histcxr.data.pairing import stem_of
from histcxr.data.radiograph import read_radiograph
from histcxr.exceptions import InputError, MaskError, OutputError, Reason, UnjudgeableError
from histcxr.files.writing import write_image, write_mask
from histcxr.lungs.segmenter import Found, Segmenter, load_segmenter

#: What is written: the table, the sheet, and a folder with the masks, which mirrors the input.
TABLE, SHEET, MASKS = "segmentation.csv", "sheet.png", "masks"

#: Columns of the table.
COLUMNS = ("file", "mask", "lung_share", "distance", "reason", "detail")

# The sheet: pictures, pictures side by side, their side and the height of their captions in pixels.
_TILES: Final = 64
_COLUMNS: Final = 8
_SIDE: Final = 224
_CAPTION: Final = 18
_GREEN, _RED, _WHITE = (80, 220, 80), (60, 60, 230), (230, 230, 230)  # blue first, as OpenCV has it

_Segmented = tuple[InputFile, NDArray[np.uint8] | None, Found | UnjudgeableError]


@dataclass(frozen=True)
class SegmentationSummary:
    """What became of a folder: files seen, masks written, and why the others have none (reason to count)."""

    total: int
    segmented: int
    reasons: dict[str, int]
    output: str

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


@dataclass
class _Sheet:
    """Outlined lungs of every k-th radiograph, k doubling as the folder turns out larger, and the first refused."""

    step: int = 1
    seen: int = 0
    good: list[NDArray[np.uint8]] = field(default_factory=list)
    refused: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, pixels: NDArray[np.uint8], found: Found | UnjudgeableError, name: str) -> None:
        if isinstance(found, UnjudgeableError):
            if len(self.refused) < _TILES // 2:
                self.refused.append(_tile(pixels, None, f"{found.reason.value}: {name}"))
            return
        if self.seen % self.step == 0:
            self.good.append(_tile(pixels, found.mask, name))
            if len(self.good) > _TILES:
                self.good, self.step = self.good[::2], self.step * 2
        self.seen += 1

    def draw(self) -> NDArray[np.uint8] | None:
        """Lay the tiles side by side: uint8 ``(height, width, 3)``, blue first; None without any."""
        tiles = [*self.refused, *self.good[: _TILES - len(self.refused)]]
        if not tiles:
            return None
        columns = min(_COLUMNS, len(tiles))
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
        rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
        return np.concatenate(rows)


def _tile(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, caption: str) -> NDArray[np.uint8]:
    """Draw one radiograph with its lungs, or with a red frame."""
    height, width = pixels.shape
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    ground = np.zeros((_SIDE + _CAPTION, _SIDE, 3), np.uint8)
    picture = cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    if mask is None:
        cv2.rectangle(picture, (0, 0), (size[0] - 1, size[1] - 1), _RED, 3)
    else:
        small = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, _GREEN, 1)
    ground[: size[1], : size[0]] = picture
    text = caption if len(caption) <= 34 else f"...{caption[-31:]}"
    colour = _RED if mask is None else _WHITE
    place = (2, _SIDE + _CAPTION - 5)
    cv2.putText(ground, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, colour, 1, cv2.LINE_AA)
    return ground


def segment_folder(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    segmenter: Segmenter | None = None,
    n_jobs: int = 2,
    overwrite: bool = False,
) -> SegmentationSummary:
    """Find the lungs of every radiograph in a folder, a CSV list or one image; masks that lie there are not used.

    The new folder ``output`` gets ``masks/`` (PNG of one bit, the image's size, mirroring ``data``),
    ``segmentation.csv`` with a row for every file (:data:`COLUMNS`) and ``sheet.png``. ``segmenter``: by default
    histcxr's own network; ``n_jobs``: threads that read. InputError: no such data, or a folder that exists without
    ``overwrite``; OutputError: a file cannot be written.
    """
    target = Path(output)
    stream = find_inputs(data)
    if target.exists() and not (overwrite and target.is_dir()):
        raise InputError(f"output must be a new folder, but {os.fspath(target)!r} exists; or overwrite it")
    finder = segmenter or load_segmenter()
    reasons: Counter[str] = Counter()
    taken: set[str] = set()
    sheet, total = _Sheet(), 0
    try:
        target.mkdir(parents=True, exist_ok=True)
        with open(target / TABLE, "w", encoding="utf-8", newline="", errors="surrogateescape") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            for item, pixels, found in _segmented(stream, finder, n_jobs):
                total += 1
                name = os.path.join(MASKS, f"{stem_of(_inside(item.relative))}.png")
                if isinstance(found, Found) and name in taken:
                    found = MaskError(Reason.MASK_MISSING, item.path, "another image has the same mask name")
                if pixels is not None:
                    sheet.add(pixels, found, item.relative)
                if isinstance(found, UnjudgeableError):
                    reasons[found.reason.value] += 1
                    table.writerow([item.relative, "", "", "", found.reason.value, found.explanation])
                    continue
                taken.add(name)
                write_mask(target / name, found.mask)
                share = f"{found.mask.mean():.4f}"
                table.writerow([item.relative, name, share, f"{found.distance:.1f}", "", ""])
        picture = sheet.draw()
        if picture is not None:
            write_image(target / SHEET, picture)
    except OSError as error:
        raise OutputError(f"{os.fspath(target)!r} cannot be written: {error.strerror}") from error
    return SegmentationSummary(total, total - sum(reasons.values()), dict(reasons), os.fspath(target))


def _inside(relative: str) -> str:
    """Keep a mask's name inside the output, also where a list names images elsewhere."""
    parts = [part for part in Path(relative).parts if part not in ("..", os.sep)]
    return os.path.join(*parts)


def _segmented(stream: Iterator[InputFile], segmenter: Segmenter, n_jobs: int) -> Iterator[_Segmented]:
    """Yield every input with its pixels, where it has any, and its lungs; few images are in memory at a time."""
    with ThreadPoolExecutor(n_jobs, thread_name_prefix="histcxr") as pool:
        while items := list(islice(stream, 2 * n_jobs)):
            yield from pool.map(lambda item: _segment(item, segmenter), items)


def _segment(item: InputFile, segmenter: Segmenter) -> _Segmented:
    """Read one image and find its lungs; never raises an :class:`Exception`."""
    if item.problem is not None:
        return item, None, UnjudgeableError(item.problem, item.path, item.detail)
    pixels = None
    try:
        pixels = read_radiograph(item.path).pixels
        (found,) = segmenter.segment([pixels], [item.path])
    except UnjudgeableError as error:
        # Not the error itself: its traceback would hold the pixels.
        return item, pixels, UnjudgeableError(error.reason, error.path, error.detail)
    except Exception as error:  # noqa: BLE001 - one image's bug must not take the other images with it
        bug = UnjudgeableError(Reason.UNEXPECTED, item.path, f"{type(error).__name__}: {error}")
        return item, pixels, bug
    return item, pixels, found
