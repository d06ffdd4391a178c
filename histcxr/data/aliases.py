"""File names are identifiers, too: a folder of links with keyed names, by which everything else is done and told.

Whatever is read through such a folder names files by the links alone: worklists, trails, tables, pages, messages. The
folder leads back, by its links and by ``names.csv``, so it belongs where the images may be.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any, Final, NamedTuple

from histcxr.data.discovery import MANIFEST_NAME, InputFile, Inputs, find_inputs, read_rows
from histcxr.data.pairing import IMAGE_EXTENSIONS, extension_of
from histcxr.dicom.tags import keyed_name
from histcxr.exceptions import InputError, Reason
from histcxr.files.cells import csv_line
from histcxr.files.reading import read_file
from histcxr.files.remote import is_url, place_of
from histcxr.files.writing import replacing, write_error

NAMES = "names.csv"
"""The key: each link, and the path that it stands for."""

_SECRET = "secret"
_DIGITS = 16
_TEXT: Final[Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


class Aliases(NamedTuple):
    """What was named anew: the CSV list to read instead, how many files it holds, how many were passed over, notes."""

    listed: str
    files: int
    skipped: int
    notes: tuple[str, ...]


def alias_files(
    data: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    masks: str | os.PathLike[str] | None = None,
    salt: str = "",
) -> Aliases:
    """Make a folder of links to the images and masks of ``data``, and a list of them, named by a keyed hash.

    ``data`` and ``masks`` are as of :func:`~histcxr.data.discovery.find_inputs`; every input gets a row, also one that
    cannot be read. A name is the keyed hash of the absolute path, so it stays as long as file and key do. The key is
    the ``salt``, or a random secret that the folder keeps. The list takes over the columns of a list, labels and
    patients among them. Classes that folders give are left out: folders may be called after patients, too.

    The folder gets ``names.csv`` (to which later calls add), links and lists; only its owner may read it. InputError:
    no such data. OutputError: it cannot be written, or the disk knows no links.
    """
    top, place = place_of(data), Path(os.path.abspath(os.fspath(folder)))
    if is_url(top) or is_url(masks):
        raise InputError(
            "anonymous names are those of links, which no store has; copy the files to this machine first"
        )
    stream = find_inputs(top, masks)
    source = os.path.join(top, MANIFEST_NAME) if os.path.isdir(top) else top
    is_list = source.lower().endswith(".csv") and os.path.isfile(source)
    columns = next(read_rows(source))[1] if is_list else []
    columns = [name for name in columns if name not in ("image", "mask")]
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        place.chmod(0o700)
        return _alias(stream, place, top, columns, salt or _own_secret(place))
    except OSError as error:
        raise write_error(place, error) from error


def _alias(stream: Inputs, place: Path, top: str, columns: list[str], salt: str) -> Aliases:
    listed = place / f"list-{_key(top, salt)}.csv"
    known = dict(row for _, row in _earlier(place / NAMES))
    _write_names(place, known)  # by this the folder is known again, should the run be stopped
    files = 0
    with replacing(listed) as unfinished, open(unfinished, "w", **_TEXT) as file:
        file.write(csv_line(["image", "mask", *columns]))
        for entry in stream:
            image = _link(place, entry.path, salt, known)
            mask = _link(place, entry.mask or _lost(entry), salt, known, ".mask")
            file.write(csv_line([image, mask, *(entry.facts.get(name, "") for name in columns)]))
            files += 1
    _write_names(place, known)
    return Aliases(str(listed), files, sum(stream.skipped.values()), stream.notes)


def _write_names(place: Path, known: dict[str, str]) -> None:
    with replacing(place / NAMES) as unfinished, open(unfinished, "w", **_TEXT) as file:
        unfinished.chmod(0o600)
        file.write(csv_line(["image", "path"]))
        file.writelines(csv_line(pair) for pair in known.items())


def _earlier(path: Path) -> list[tuple[int, tuple[str, str]]]:
    if not path.exists():
        return []
    rows = read_rows(str(path))
    next(rows)
    return [(line, (row[0], row[1])) for line, row in rows]


def _lost(entry: InputFile) -> str:
    """A mask that nobody can tell stays one: its link leads nowhere."""
    return os.path.join(entry.path, "no mask can be told") if entry.problem is Reason.MASK_MISSING else ""


def _key(path: str, salt: str) -> str:
    return keyed_name(os.fsencode(path), salt)[:_DIGITS]


def _link(place: Path, path: str, salt: str, known: dict[str, str], kind: str = "") -> str:
    """Make a link to a path, ``""`` for none, and return its name: a key, and the ending that says what it is."""
    if not path:
        return ""
    ending = extension_of(os.path.basename(path))
    name = f"{_key(path, salt)}{kind}{ending if ending in IMAGE_EXTENSIONS else ''}"
    known[name] = path
    link = place / name
    with contextlib.suppress(OSError):
        if os.readlink(link) == path:
            return name
        link.unlink()
    link.symlink_to(path)
    return name


def _own_secret(place: Path) -> str:
    """Return the folder's own secret, made at random where there is none."""
    path = place / _SECRET
    with (
        contextlib.suppress(FileExistsError),
        open(path, "x", opener=lambda p, how: os.open(p, how, 0o600)) as file,
    ):
        file.write(secrets.token_hex(32))
    return read_file(path).decode()
