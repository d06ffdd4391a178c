"""Segmenting a whole folder: a mask for each radiograph, a table with a row for every file, a sheet to look at."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.data.ahead import reading_ahead
from histcxr.data.blocks import DIED, work
from histcxr.data.discovery import InputFile, find_inputs
from histcxr.data.masks import read_mask
from histcxr.data.pairing import stem_of
from histcxr.data.radiograph import read_radiograph
from histcxr.exceptions import InputError, Reason, UnjudgeableError
from histcxr.files import remote
from histcxr.files.apart import cautiously
from histcxr.files.cells import csv_line, sentence, unguarded
from histcxr.files.remote import place_of
from histcxr.files.writing import encode_mask, replacing, write_bytes, write_error, write_image
from histcxr.lungs.segmenter import Segmenter, load_segmenter

if TYPE_CHECKING:
    from distributed import Client

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

# Images that a worker takes at a time.
_BLOCK: Final = 8

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

    def add(self, item: InputFile, mask: Path) -> None:
        """Add a radiograph with its mask; both are read only where it has a place."""
        if self.seen % self.step == 0:
            try:
                pixels = read_radiograph(item.path).pixels
                lungs = read_mask(mask, (pixels.shape[0], pixels.shape[1]))
            except UnjudgeableError:
                return
            self.good.append(_tile(pixels, lungs, item.relative))
            if len(self.good) > _TILES:
                self.good, self.step = self.good[::2], self.step * 2
        self.seen += 1

    def add_refused(self, item: InputFile, reason: str) -> None:
        """Add a radiograph without a mask."""
        if len(self.refused) < _TILES // 2:
            with contextlib.suppress(UnjudgeableError):
                pixels = read_radiograph(item.path).pixels
                self.refused.append(_tile(pixels, None, f"{reason}: {item.relative}"))

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
    client: Client | None = None,
    progress: Callable[[int], None] | None = None,
) -> SegmentationSummary:
    """Find the lungs of every radiograph in a folder, a CSV list or one image; masks that lie there are not used.

    The folder ``output`` gets ``masks/`` (PNG of one bit, the image's size, mirroring ``data``), ``segmentation.csv``
    with a row for every file (:data:`COLUMNS`), ``segmentation.json`` and ``sheet.png``. The same call goes on where an
    earlier one was stopped: masks that are there are kept, unless their image is newer. ``overwrite`` starts anew.
    ``segmenter``: by default histcxr's own network; ``n_jobs``: threads that read; where a Dask
    ``client`` is given, its workers do, which see the same files; ``progress`` is called with the number of files done.
    InputError: no such data, or a folder that holds something else; OutputError: a file cannot
    be written.
    """
    target = Path(output)
    stream = find_inputs(data)
    finder = segmenter or load_segmenter()
    run = {"input": str(place_of(data)), "segmenter": finder.digest}
    earlier = {} if overwrite else _earlier_rows(target, run)
    reasons: Counter[str] = Counter()
    rows: list[list[str]] = []
    taken: set[str] = set()
    sheet, resumed = _Sheet(), 0
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        _write_table(target / TABLE, earlier.values())
        # Rows are added as they come, so that a run that is stopped loses nothing; at the end they come in order.
        with open(target / TABLE, "a", buffering=1, **_TEXT) as file:
            for item, found in _segmented(stream, _Finding(finder), earlier, target, n_jobs, client):
                name = _mask_name(item)
                if not isinstance(found, _Refused) and name in taken:
                    found = _Refused(Reason.MASK_MISSING, "another image has the same mask name")
                if isinstance(found, _Refused):
                    reasons[found.reason.value] += 1
                    words = sentence(UnjudgeableError(found.reason, detail=found.detail).explanation)
                    row = [item.relative, "", "", "", found.reason.value, words]
                    sheet.add_refused(item, found.reason.value)
                else:
                    if isinstance(found, list):
                        resumed, row = resumed + 1, found
                    else:
                        row = [item.relative, name, f"{found.share:.4f}", f"{found.distance:.1f}", "", ""]
                        write_bytes(target / name, found.mask)
                    taken.add(name)
                    sheet.add(item, target / name)
                if row is not found:
                    file.write(csv_line(row))
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


class _Refused(NamedTuple):
    """Why there is no mask."""

    reason: Reason
    detail: str = ""


class _Mask(NamedTuple):
    """A mask as a PNG of one bit, its share of the image, and its distance from those of the training."""

    mask: bytes
    share: float
    distance: float


def _segmented(
    stream: Iterator[InputFile],
    job: _Finding,
    earlier: Mapping[str, list[str]],
    target: Path,
    n_jobs: int,
    client: Client | None,
) -> Iterator[tuple[InputFile, _Mask | _Refused | list[str]]]:
    """Yield every input with its lungs, or with its row of an earlier run; few images are in memory at a time."""
    asked: deque[list[tuple[InputFile, list[str] | None]]] = deque()

    def blocks() -> Iterator[list[InputFile]]:
        while items := list(islice(stream, _BLOCK)):
            asked.append([(item, _kept(item, earlier, target)) for item in items])
            yield [item for item, row in asked[-1] if row is None]

    for done in work(job, blocks(), n_jobs, client):
        fresh = iter(done)
        for item, row in asked.popleft():
            yield item, next(fresh) if row is None else row


def _kept(item: InputFile, earlier: Mapping[str, list[str]], target: Path) -> list[str] | None:
    """Return the row that an earlier run left of an image, if its mask is there and not older than the image."""
    row = earlier.get(item.relative)
    if item.problem is not None or row is None:
        return None
    try:
        mask = os.stat(target / row[1])
        if isinstance(item.path, remote.Url):
            newest = remote.stat(item.path).modified
        else:
            image = os.stat(item.path)
            newest = max(image.st_mtime_ns, image.st_ctime_ns)
    except (OSError, UnjudgeableError):
        return None
    holds = row[1] == _mask_name(item) and mask.st_size > 0 and newest <= mask.st_mtime_ns
    return row if holds else None


@dataclass(frozen=True)
class _Finding:
    """A job: the lungs of radiographs are found, each by itself."""

    segmenter: Segmenter

    def __call__(self, items: Sequence[InputFile], careful: bool = False) -> list[_Mask | _Refused]:
        """Find the lungs in a block; never raises an :class:`Exception`."""
        find = cautiously(self._find) if careful else self._find
        with reading_ahead(item.path for item in items):
            return [find(item) for item in items]

    def lost(self, item: InputFile) -> _Refused:
        """Refuse a radiograph."""
        return _Refused(Reason.UNEXPECTED, DIED)

    def _find(self, item: InputFile) -> _Mask | _Refused:
        if item.problem is not None:
            return _Refused(item.problem, item.detail)
        try:
            pixels = read_radiograph(item.path).pixels
            (found,) = self.segmenter.segment([pixels], [item.path])
            if isinstance(found, UnjudgeableError):
                return _Refused(found.reason, found.detail)
            return _Mask(encode_mask(found.mask), float(found.mask.mean()), found.distance)
        except UnjudgeableError as error:
            return _Refused(error.reason, error.detail)
        except Exception as error:  # noqa: BLE001 - one image's bug must not take the other images with it
            return _Refused(Reason.UNEXPECTED, f"{type(error).__name__}: {error}")
