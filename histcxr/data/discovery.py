"""Finding images: a folder, a single file or a CSV list in, one entry for each input out.

The walk is a stream in a fixed order (names sorted, folder by folder) and remembers no more than the names of
the folders it stands in. Nothing is dropped in silence: what cannot be read is an entry with a problem, and
what is not an image is counted.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from histcxr.data.pairing import MaskFinder, extension_of, is_image_name, is_mask_folder
from histcxr.exceptions import InputError, MaskError, RadiographError, Reason, UnjudgeableError
from histcxr.files import remote
from histcxr.files.cells import unguarded
from histcxr.files.reading import detail_of, kind_of, read_file, reason_of
from histcxr.files.remote import Url, place_of, what_is

MANIFEST_NAME = "manifest.csv"
"""A list of this name in a folder is read instead of the folder."""

_PATHS = ("image", "mask")

IN_MASKS = "files in folders of masks"
"""Under this the files are counted that lie in folders called ``masks`` and the like."""

KNOWN_FOLDER = "links to folders"
"""Under this the links are counted that lead to a folder which is searched anyway."""

DICOM_INDEX = "DICOMDIR"
"""The index of a DICOM medium has this name (PS3.10, section 8.6), lies beside images and is none."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input of a triage.

    ``path`` is absolute (bytes that are not UTF-8 as surrogate escapes), ``relative`` is seen from the folder given or
    the list's folder, ``mask`` is the absolute path of the lung mask or ``""``. ``problem`` and ``detail`` say why it
    is already known to be unreadable; ``facts`` holds a list's other non-empty columns.
    """

    path: str
    relative: str
    mask: str = ""
    problem: Reason | None = None
    detail: str = ""
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def explanation(self) -> str:
        """The problem in one sentence, ``""`` when there is none."""
        return "" if self.problem is None else UnjudgeableError(self.problem, detail=self.detail).explanation


class Inputs(Iterator[InputFile]):
    """A stream of inputs that also counts what it passed over.

    ``skipped`` counts files that were no inputs, by extension in lower case, ``"hidden"`` or ``"DICOMDIR"``,
    :data:`IN_MASKS` and :data:`KNOWN_FOLDER`; it is complete when the stream has ended. ``notes`` say what was read
    instead of what was named.
    """

    def __init__(
        self, entries: Iterator[InputFile], skipped: Counter[str], notes: tuple[str, ...] = ()
    ) -> None:
        self._entries = entries
        self.skipped = skipped
        self.notes = notes

    def __next__(self) -> InputFile:
        return next(self._entries)


def find_inputs(folder: str | os.PathLike[str], masks: str | os.PathLike[str] | None = None) -> Inputs:
    """Find the images to triage: an iterator of :class:`InputFile`.

    ``folder`` is searched to any depth; it may hold ``manifest.csv``, or be a CSV file with the column ``image`` (and
    ``mask``), or a single image. ``masks`` is a folder that mirrors ``folder`` or holds all masks, or a single image's
    mask file; without it, masks are looked for in ``masks`` beside ``images``, inside the image's folder, and at the
    top, mirrored. A mask has its image's name and any image extension. Each may be a URL.

    Links that lead upwards or nowhere, pipes and closed folders are one entry each, with a problem; a folder that links
    make appear twice is searched once. InputError is raised at once when a path does not exist or a list cannot be
    used; a ``manifest.csv`` that a folder holds may list that folder's files alone.
    """
    top = place_of(folder)
    mask_folder = None if masks is None else place_of(masks)
    if mask_folder is not None and not what_is(mask_folder):
        raise InputError(f"masks must be a folder; there is nothing at {mask_folder!r}")
    skipped: Counter[str] = Counter()
    kind = what_is(top)
    if kind == "folder":
        listed = remote.join(top, MANIFEST_NAME)
        if what_is(listed) == "file":
            note = f"the inputs are those that {listed} lists; other files of the folder were not looked at"
            return Inputs(_listed(listed, mask_folder, inside=True), skipped, (note,))
        if mask_folder is not None and what_is(mask_folder) != "folder":
            raise InputError(f"masks must be a folder when the input is one; {mask_folder!r} is a file")
        try:
            if isinstance(top, Url):
                next(remote.listing(top), None)
            else:
                os.scandir(top).close()
        except (OSError, RadiographError) as error:
            told = error.strerror if isinstance(error, OSError) else error.explanation
            raise InputError(f"the folder {top!r} cannot be read: {told}") from error
        return Inputs(_walk(top, mask_folder, skipped), skipped)
    if not kind:
        raise InputError(f"the input must be a folder, a CSV file or an image; there is nothing at {top!r}")
    if top.lower().endswith(".csv"):
        return Inputs(_listed(top, mask_folder), skipped)
    return Inputs(_single(top, mask_folder), skipped)


def _single(path: str, masks: str | None) -> Iterator[InputFile]:
    folder, name = remote.split(path)
    if masks is None or what_is(masks) == "folder":
        masks = MaskFinder(folder, masks).of(folder, "", name)
    yield InputFile(path, name, masks)


def _listed(path: str, masks: str | None, *, inside: bool = False) -> Iterator[InputFile]:
    """Entries of a CSV list, checked whole before the first is given; all of them ``inside`` its folder, if asked."""
    if masks is not None and what_is(masks) != "folder":
        raise InputError(f"masks must be a folder when the input is a list; {masks!r} is a file")
    seen: set[int] = set()
    for line, image, mask, _ in _rows(path):
        if inside:
            check_inside(path, line, image, mask)
        key = hash(image)  # numbers instead of names: long lists stay small
        if key in seen:
            raise InputError(f"every image must be listed once; {path!r} repeats {image!r} in line {line}")
        seen.add(key)
    if not seen:
        raise InputError(f"{path!r} lists no image")
    return _entries(path, masks)


def check_inside(path: str, line: int, *named: str) -> None:
    """Refuse a list that a folder holds, and whose line names files elsewhere: InputError."""
    home = os.path.join(remote.split(path)[0], "")
    for one in named:
        if one and not one.startswith(home):
            raise InputError(
                f"{path!r}, line {line}, leads out of its folder, to {one!r}: a list that a folder holds may "
                "name that folder's files alone; if these are meant, give the list itself as the input"
            )


def _entries(path: str, masks: str | None) -> Iterator[InputFile]:
    top = remote.split(path)[0]
    inside = os.path.join(top, "")
    finder = MaskFinder(top, masks, lambda: (image for _, image, *_ in _rows(path)))
    for _, image, mask, facts in _rows(path):
        place = image.removeprefix(inside)
        if masks is None:
            yield InputFile(image, str(place), mask, facts=facts)
        else:
            found = _paired(finder, image, place if place != image else os.path.basename(image))
            yield replace(found, facts=facts)


def _paired(finder: MaskFinder, path: str, place: str) -> InputFile:
    """An entry with its mask, or with the reason why the mask cannot be told."""
    folder, name = remote.split(path)
    try:
        return InputFile(path, place, finder.of(folder, os.path.dirname(place), name))
    except (MaskError, RadiographError) as error:
        return InputFile(path, place, problem=error.reason, detail=error.detail)


def _rows(path: str) -> Iterator[tuple[int, str, str, dict[str, str]]]:
    """Line number, absolute image, absolute mask and the other columns of each row of a CSV list."""
    folder = remote.split(path)[0]
    rows = read_rows(path)
    _, columns = next(rows)
    image, mask = columns.index("image"), columns.index("mask") if "mask" in columns else None
    for line, row in rows:
        facts = {
            name: value for name, value in zip(columns, row, strict=False) if value and name not in _PATHS
        }
        yield line, locate(row[image], folder), "" if mask is None else locate(row[mask], folder), facts


def _walk(top: str, masks: str | None, skipped: Counter[str]) -> Iterator[InputFile]:
    """Every entry below ``top``, with its mask."""
    files = _objects if isinstance(top, Url) else _files
    finder = MaskFinder(top, masks, lambda: (entry.relative for entry in files(top, masks, Counter())))
    for entry in files(top, masks, skipped):
        yield entry if entry.problem is not None else _paired(finder, entry.path, entry.relative)


def _files(top: str, masks: str | None, skipped: Counter[str]) -> Iterator[InputFile]:
    """Every entry below ``top``, masks apart; folders are kept on a stack, so depth is no matter."""
    above, real_top = _identities_above(top), os.path.realpath(top)
    outside: set[tuple[int, int]] = set()  # folders that links led to, and all below them: searched once
    mask_folder = None if masks is None or isinstance(masks, Url) else _identity(os.stat(masks))
    # one level: relative folder, its identity, its names still to come (last first, to be popped), by a link
    names, special, problem = _names(top)
    stack = [("", _identity(os.stat(top)), names, special, False)]
    while stack:
        relative, _, names, special, linked = stack[-1]
        if not names:
            stack.pop()
            continue
        name = names.pop()
        path = os.path.join(top, relative, name)
        place = os.path.join(relative, name)
        if name.startswith("."):
            skipped["hidden"] += 1
            continue
        if name in special:
            try:
                status = os.stat(path)
            except OSError as error:
                yield InputFile(path, place, problem=reason_of(error), detail=detail_of(error))
                continue
            if stat.S_ISDIR(status.st_mode):
                identity = _identity(status)
                if identity == mask_folder:
                    continue
                if is_mask_folder(name):
                    closed: list[OSError] = []
                    skipped[IN_MASKS] += sum(len(files) for *_, files in os.walk(path, onerror=closed.append))
                    for one in closed:
                        where = os.path.relpath(one.filename, top)
                        yield InputFile(one.filename, where, problem=reason_of(one), detail="a folder")
                    continue
                if identity in above or any(identity == level[1] for level in stack):
                    detail = f"leads to {os.path.realpath(path)}"
                    yield InputFile(path, place, problem=Reason.LINK_LOOP, detail=detail)
                    continue
                is_link = os.path.islink(path)
                real = os.path.realpath(path) if is_link else ""
                if identity in outside or (is_link and os.path.commonpath([real, real_top]) == real_top):
                    skipped[KNOWN_FOLDER] += 1
                    continue
                if is_link or linked:
                    outside.add(identity)
                names, special, problem = _names(path)
                if problem is not None:
                    yield InputFile(path, place, problem=reason_of(problem), detail="a folder")
                else:
                    stack.append((place, identity, names, special, is_link or linked))
                continue
            if not stat.S_ISREG(status.st_mode):
                detail = f"a {kind_of(status.st_mode)}"
                yield InputFile(path, place, problem=Reason.NOT_A_FILE, detail=detail)
                continue
        if _is_input(name, skipped):
            yield InputFile(path, place)


def _is_input(name: str, skipped: Counter[str]) -> bool:
    """Whether a plain file is an input; it is counted where it is none."""
    if name.upper() in (DICOM_INDEX, f"{DICOM_INDEX}."):
        skipped[DICOM_INDEX] += 1
    elif is_image_name(name):
        return True
    else:
        skipped[extension_of(name)] += 1
    return False


def _objects(top: str, masks: str | None, skipped: Counter[str]) -> Iterator[InputFile]:
    """What :func:`_files` yields of a folder in a store, in the same order; a store has no links."""
    assert isinstance(top, Url)
    stack = [("", top, sorted(remote.listing(top), reverse=True))]
    while stack:
        relative, folder, names = stack[-1]
        if not names:
            stack.pop()
            continue
        name, is_folder, known = names.pop()
        url, place = folder.child(name, known), os.path.join(relative, name)
        if name.startswith("."):
            skipped["hidden"] += 1
        elif not is_folder:
            if _is_input(name, skipped):
                yield InputFile(url, place)
        elif url != masks:
            try:
                if is_mask_folder(name):
                    skipped[IN_MASKS] += _count(url)
                else:
                    stack.append((place, url, sorted(remote.listing(url), reverse=True)))
            except RadiographError as error:
                yield InputFile(url, place, problem=error.reason, detail=f"a folder: {error.detail}")


def _count(folder: Url) -> int:
    return sum(_count(folder.child(one.name)) if one.is_folder else 1 for one in remote.listing(folder))


def _names(path: str) -> tuple[list[str], set[str], OSError | None]:
    """Names in a folder, the first one last; which of them are no plain files; or why there are none."""
    names, special = [], set()
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                names.append(entry.name)
                if not entry.is_file(follow_symlinks=False):
                    special.add(entry.name)
    except OSError as error:
        return [], set(), error
    names.sort(reverse=True)
    return names, special, None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _identities_above(top: str) -> set[tuple[int, int]]:
    """The folders that hold ``top``: a link to one of them would lead back into it."""
    found = set()
    for path in Path(os.path.realpath(top)).parents:
        with contextlib.suppress(OSError):  # not visible from here: no link can lead into it either
            found.add(_identity(os.stat(path)))
    return found


def lists_file(path: str, file: str) -> bool:
    """Whether a CSV list names a file that exists, by its own name or by a link, as an image or a mask."""
    name = os.path.basename(file)
    with contextlib.suppress(InputError, OSError):
        for _, image, mask, _ in _rows(path):
            for one in (image, mask):
                alike = bool(one) and (os.path.basename(one) == name or os.path.islink(one))
                if alike and os.path.exists(one) and os.path.samefile(one, file):
                    return True
    return False


def _check_columns(columns: list[str], path: str) -> None:
    if "image" not in columns:
        hint = ""
        if len(columns) == 1 and (";" in columns[0] or "\t" in columns[0]):
            hint = " (values must be separated by commas)"
        raise InputError(f"{path!r} must have a column 'image'; it has {columns}{hint}")
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise InputError(f"{path!r} must not have a column twice; it repeats {repeated}")


def locate(value: str, folder: str) -> str:
    """Absolute path of a path that is relative to ``folder``; ``""`` stays ``""``."""
    return remote.join(folder, value) if value else ""


def _text(path: str) -> io.TextIOWrapper:
    how: Any = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    if not isinstance(path, Url):
        return open(path, **how)
    try:
        return io.TextIOWrapper(io.BytesIO(read_file(path)), **how)
    except RadiographError as error:
        raise InputError(f"the list {path!r} cannot be read: {error.explanation}") from error


def read_rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """Stream a CSV list of images as (number of the line that ends here, values); first come the trimmed column names.

    Bytes that are not UTF-8 become surrogate escapes; empty lines are passed over; an apostrophe that keeps a
    spreadsheet from taking a cell for a formula is taken away. InputError: wrong columns, a row with another number of
    values, or an empty image.
    """
    with _text(path) as stream:
        rows = csv.reader(stream)
        try:
            columns = [unguarded(column.strip()) for column in next(rows, [])]
            _check_columns(columns, path)
            image = columns.index("image")
            yield rows.line_num, columns
            for row in rows:
                if not row:
                    continue
                if len(row) != len(columns):
                    found = f"{len(row)} values for {len(columns)} columns"
                    raise InputError(f"{path!r}, line {rows.line_num}: {found}")
                if not row[image]:
                    raise InputError(f"{path!r}, line {rows.line_num}: the column 'image' is empty")
                yield rows.line_num, [unguarded(value) for value in row]
        except csv.Error as error:  # e.g. a value larger than any path
            raise InputError(f"{path!r}, line {rows.line_num}: {error}") from error
