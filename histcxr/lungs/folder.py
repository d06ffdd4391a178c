"""Segmenting a whole folder: a mask for each radiograph, a table with a row for every file, a sheet to look at."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.data.ahead import reading_ahead
from histcxr.data.discovery import InputFile, find_inputs
from histcxr.data.masks import read_mask
from histcxr.data.pairing import stem_of
from histcxr.data.radiograph import read_radiograph
from histcxr.exceptions import InputError, MaskError, Reason, UnjudgeableError
from histcxr.files import remote
from histcxr.files.cells import csv_line, sentence, unguarded
from histcxr.files.remote import place_of
from histcxr.files.writing import replacing, write_error, write_image, write_mask
from histcxr.lungs.segmenter import Found, Segmenter, load_segmenter

#: What is written: the table, the sheet, a folder with the masks, which mirrors the input, and what made them.
TABLE, SHEET, MASKS, RUN = "segmentation.csv", "sheet.png", "masks", "segmentation.json"

#: Columns of the table.
COLUMNS = ("file", "mask", "lung_share", "distance", "reason", "detail")

# The sheet: pictures, pictures side by side, their side and the height of their captions in pixels.
_TILES: Final = 64
_COLUMNS: Final = 8
_SIDE: Final = 224
_CAPTION: Final = 18
_GREEN, _RED, _WHITE = (80, 220, 80), (60, 60, 230), (230, 230, 230)  # blue first, as OpenCV has it

# A row of an earlier run instead of lungs, where it still holds.
_Segmented = tuple[InputFile, NDArray[np.uint8] | None, Found | UnjudgeableError | list[str]]

_TEXT: Final[Any] = {"encoding": "utf-8", "newline": "", "errors": "surrogateescape"}


@dataclass(frozen=True)
class SegmentationSummary:
    """What became of a folder: files seen, masks there are, and why the others have none (reason to count).

    ``resumed`` masks were there from an earlier run. ``skipped`` counts files that were passed over, by kind.
    """

    total: int
    segmented: int
    reasons: dict[str, int]
    output: str
    resumed: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when every file has a mask, 3 when some have none or there was no file."""
        return 0 if self.total and self.segmented == self.total else 3

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {**asdict(self), "exit_code": self.exit_code}


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

    def add_kept(self, item: InputFile, mask: Path) -> None:
        """Add a radiograph that an earlier run segmented; it is read only where it has a place."""
        if self.seen % self.step:
            self.seen += 1
            return
        try:
            pixels = read_radiograph(item.path).pixels
            lungs = read_mask(mask, (pixels.shape[0], pixels.shape[1]))
        except UnjudgeableError:
            return
        self.add(pixels, Found(lungs, 0.0), item.relative)

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
    progress: Callable[[int], None] | None = None,
) -> SegmentationSummary:
    """Find the lungs of every radiograph in a folder, a CSV list or one image; masks that lie there are not used.

    The folder ``output`` gets ``masks/`` (PNG of one bit, the image's size, mirroring ``data``), ``segmentation.csv``
    with a row for every file (:data:`COLUMNS`), ``segmentation.json`` and ``sheet.png``. The same call goes on where an
    earlier one was stopped: masks that are there are kept, unless their image is newer. ``overwrite`` starts anew.
    ``segmenter``: by default histcxr's own network; ``n_jobs``: threads that read; ``progress`` is called with the
    number of files done. InputError: no such data, or a folder that holds something else; OutputError: a file cannot
    be written.
    """
    target = Path(output)
    stream = find_inputs(data)
    finder = segmenter or load_segmenter()
    run = {"input": str(place_of(data)), "segmenter": finder.digest}
    work = _Work(finder, target, {} if overwrite else _earlier_rows(target, run))
    reasons: Counter[str] = Counter()
    rows: list[list[str]] = []
    taken: set[str] = set()
    sheet, resumed = _Sheet(), 0
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        _write_table(target / TABLE, work.known.values())
        # Rows are added as they come, so that a run that is stopped loses nothing; at the end they come in order.
        with open(target / TABLE, "a", buffering=1, **_TEXT) as file:
            for item, pixels, found in _segmented(stream, work, n_jobs):
                name = _mask_name(item)
                if not isinstance(found, UnjudgeableError) and name in taken:
                    found = MaskError(Reason.MASK_MISSING, item.path, "another image has the same mask name")
                if isinstance(found, list):
                    resumed += 1
                    sheet.add_kept(item, target / name)
                    row = found
                elif isinstance(found, UnjudgeableError):
                    reasons[found.reason.value] += 1
                    row = [item.relative, "", "", "", found.reason.value, sentence(found.explanation)]
                else:
                    write_mask(target / name, found.mask)
                    row = [item.relative, name, f"{found.mask.mean():.4f}", f"{found.distance:.1f}", "", ""]
                if not isinstance(found, list):
                    file.write(csv_line(row))
                    if pixels is not None:
                        sheet.add(pixels, found, item.relative)
                if row[1]:
                    taken.add(name)
                rows.append(row)
                if progress is not None:
                    progress(len(rows))
        _write_table(target / TABLE, rows)
        picture = sheet.draw()
        if picture is not None:
            write_image(target / SHEET, picture)
    except OSError as error:
        raise write_error(target, error) from error
    segmented = len(rows) - sum(reasons.values())
    skipped = dict(sorted(stream.skipped.items()))
    return SegmentationSummary(len(rows), segmented, dict(reasons), os.fspath(target), resumed, skipped)


def _earlier_rows(target: Path, run: Mapping[str, str]) -> dict[str, list[str]]:
    """Read the rows with a mask that an earlier run left, by file. InputError: the folder holds something else."""
    advice = "choose another folder (-o), or start anew (--overwrite)"
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return {}
    try:
        earlier = json.loads((target / RUN).read_text(encoding="utf-8"))
        with open(target / TABLE, **_TEXT) as file:
            rows = [[unguarded(cell) for cell in row] for row in csv.reader(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"output must be a new folder, but {os.fspath(target)!r} exists and holds no earlier run; {advice}"
        ) from error
    if earlier != run:
        raise InputError(
            f"output must be a new folder or one of the same run, but {os.fspath(target)!r} holds what came of another "
            f"input or another network; {advice}"
        )
    return {row[0]: row for row in rows[1:] if len(row) == len(COLUMNS) and row[1]}


def _write_table(path: Path, rows: Iterable[list[str]]) -> None:
    with replacing(path) as unfinished, open(unfinished, "w", **_TEXT) as file:
        file.writelines(map(csv_line, [list(COLUMNS), *rows]))


def _mask_name(item: InputFile) -> str:
    """Name the mask of an input, seen from the output."""
    return os.path.join(MASKS, f"{stem_of(_inside(item.relative))}.png")


def _inside(relative: str) -> str:
    """Keep a mask's name inside the output, also where a list names images elsewhere."""
    parts = [part for part in Path(relative).parts if part not in ("..", os.sep)]
    return os.path.join(*parts)


def _segmented(stream: Iterator[InputFile], work: _Work, n_jobs: int) -> Iterator[_Segmented]:
    """Yield every input with its pixels, where it has any, and its lungs; few images are in memory at a time."""
    with ThreadPoolExecutor(n_jobs, thread_name_prefix="histcxr") as pool:
        while items := list(islice(stream, 2 * n_jobs)):
            with reading_ahead(item.path for item in items):
                yield from pool.map(work.segment, items)


@dataclass(frozen=True)
class _Work:
    """What finds the lungs, and what an earlier run found: the rows that have a mask, by file."""

    segmenter: Segmenter
    target: Path
    known: Mapping[str, list[str]]

    def segment(self, item: InputFile) -> _Segmented:
        """Read one image and find its lungs, or take its row of an earlier run; never raises an :class:`Exception`."""
        if item.problem is not None:
            return item, None, UnjudgeableError(item.problem, item.path, item.detail)
        row = self.known.get(item.relative)
        if row is not None and self._holds(item, row):
            return item, None, row
        pixels = None
        try:
            pixels = read_radiograph(item.path).pixels
            (found,) = self.segmenter.segment([pixels], [item.path])
        except UnjudgeableError as error:
            # Not the error itself: its traceback would hold the pixels.
            return item, pixels, UnjudgeableError(error.reason, error.path, error.detail)
        except Exception as error:  # noqa: BLE001 - one image's bug must not take the other images with it
            bug = UnjudgeableError(Reason.UNEXPECTED, item.path, f"{type(error).__name__}: {error}")
            return item, pixels, bug
        return item, pixels, found

    def _holds(self, item: InputFile, row: list[str]) -> bool:
        """Tell whether the mask of a row is this image's, and not older than it."""
        try:
            mask = os.stat(self.target / row[1])
            if isinstance(item.path, remote.Url):
                newest = remote.stat(item.path).modified
            else:
                image = os.stat(item.path)
                newest = max(image.st_mtime_ns, image.st_ctime_ns)
        except (OSError, UnjudgeableError):
            return False
        return row[1] == _mask_name(item) and mask.st_size > 0 and newest <= mask.st_mtime_ns
