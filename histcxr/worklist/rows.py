"""Rows of a worklist, the three ways to write them (CSV, JSON Lines, Parquet), and the file they become.

A CSV is safe to open in a spreadsheet (:mod:`histcxr.files.cells`). JSON Lines and Parquet carry the text as it is. A
name that is not valid UTF-8 is shown with its foreign bytes as ``\\xff`` everywhere; the audit trail keeps it exactly.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from histcxr.exceptions import InputError
from histcxr.files.cells import csv_line, sentence
from histcxr.files.writing import put
from histcxr.worklist.locks import open_locked, write_error

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")
PARQUET_BATCH = 4096  # rows held in memory while writing
PARTIAL_SUFFIX = ".partial"
# What a run that was killed leaves there begins so; nothing else is written over.
_BEGINNINGS = (b"file,patient_id,", b'{"file": ', b"PAR1")


class Row(NamedTuple):
    """One line of the worklist.

    ``file`` is relative to the folder that was triaged. ``patient_id`` is as the list says, or a pseudonym of the
    DICOM study; "" where nobody says, so that the image stands alone. ``decision`` is ``rule_out``, ``review`` or
    ``rule_in``; ``score``, rounded by :func:`shown_score`, is None where the image could not be judged. ``reason``
    says in a sentence why not and what to do, ``reason_code`` the same as a stable code; both are "" where it was
    judged, also for a ``review`` between the thresholds. ``model`` is name and short hash. ``study_uid, series_uid,
    sop_uid`` identify a DICOM image (:class:`~histcxr.dicom.tags.ImageUids`); they are written only where asked for.
    """

    file: str
    patient_id: str
    decision: str
    score: float | None
    reason: str
    reason_code: str
    model: str
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""


UID_COLUMNS = Row._fields[-3:]
"""Columns that lead back to the patient, and are there only where asked for."""

COLUMNS = Row._fields[: -len(UID_COLUMNS)]
"""Columns of every worklist."""

DIGITS = 6
"""Significant digits of a score in a worklist."""


def shown_score(score: float | None, thresholds: Iterable[float]) -> float | None:
    """Round a score to :data:`DIGITS` significant digits, or as many more as keep it on its side of every threshold.

    Whoever compares a worklist's score with a threshold comes to the drawer that the exact one, in the audit trail,
    came to.
    """
    if score is None:
        return None
    limits = tuple(thresholds)
    for digits in range(DIGITS, 17):
        rounded = float(f"{score:.{digits}g}")
        if all((rounded < t) == (score < t) and (rounded > t) == (score > t) for t in limits):
            return rounded
    return score


class RowWriter(Protocol):
    """Something that takes rows one after the other."""

    def write(self, row: Row) -> None:
        """Add one row."""

    def close(self) -> None:
        """Write what is still held and finish the file."""


def writer_for(path: str, *, uids: bool = False) -> Callable[[Any], RowWriter]:
    """Return the writer that a worklist's name asks for; call it with a binary file.

    ``uids``: whether the worklist has :data:`UID_COLUMNS`. InputError: the name ends in none of ``.csv``, ``.jsonl``,
    ``.ndjson``, ``.parquet``.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise InputError(f"output must end in one of {', '.join(SUFFIXES)}, got {path!r}")
    columns = Row._fields if uids else COLUMNS
    if suffix == ".csv":
        return functools.partial(CsvWriter, columns=columns)
    return functools.partial(ParquetWriter if suffix == ".parquet" else JsonLinesWriter, columns=columns)


class CsvWriter:
    """Rows as CSV: UTF-8, comma, ``\\n``, a header line."""

    def __init__(self, file: Any, columns: Sequence[str] = COLUMNS) -> None:
        self._file = file
        self._columns = columns
        self._file.write((",".join(columns) + "\n").encode())

    def write(self, row: Row) -> None:
        """Add one row."""
        self._file.write(_line(row, self._columns).encode())

    def close(self) -> None:
        """Nothing is held back."""


def _line(row: Row, columns: Sequence[str]) -> str:
    free = ("patient_id", "reason", "model")
    cells = zip(columns, row, strict=False)
    return csv_line(sentence(str(value)) if name in free else value for name, value in cells)


def csv_cells(row: Row) -> list[str]:
    """Return the texts of a row's cells in a CSV file, made safe for spreadsheets."""
    return next(csv.reader([_line(row, Row._fields)]))


class JsonLinesWriter:
    """Rows as JSON Lines, UTF-8; ``score`` is null where there is none."""

    def __init__(self, file: Any, columns: Sequence[str] = COLUMNS) -> None:
        self._file = file
        self._columns = columns

    def write(self, row: Row) -> None:
        """Add one row."""
        cells = dict(zip(self._columns, row, strict=False))
        self._file.write(json.dumps(cells, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Nothing is held back."""


class ParquetWriter:
    """Rows as Parquet, in groups of a few thousand; ``score`` is null where there is none."""

    def __init__(self, file: Any, columns: Sequence[str] = COLUMNS) -> None:
        import pyarrow
        from pyarrow import parquet

        self._arrow = pyarrow
        self._columns = columns
        self._schema = pyarrow.schema(
            [(name, pyarrow.float64() if name == "score" else pyarrow.string()) for name in columns]
        )
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._held: list[Row] = []

    def write(self, row: Row) -> None:
        """Add one row."""
        self._held.append(row)
        if len(self._held) >= PARQUET_BATCH:
            self._flush()

    def close(self) -> None:
        """Write what is held and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = {
            name: self._arrow.array([getattr(row, name) for row in self._held], self._schema.field(name).type)
            for name in self._columns
        }
        self._writer.write_table(self._arrow.table(columns, schema=self._schema))
        self._held.clear()


def write_rows(file: Any, make_writer: Callable[[Any], RowWriter], rows: Iterable[Row]) -> None:
    """Write all rows to an open binary file."""
    writer = make_writer(file)
    for row in rows:
        writer.write(row)
    writer.close()


class WorklistFile:
    """A place for a worklist, locked against other runs while it is open; ``remove`` removes the worklist there now.

    Until :meth:`write` has ended there is at most a ``.partial`` file beside it, and whatever worklist was there
    before. InputError: somebody else's file is in the way. OutputError: the place cannot be written, another run holds
    it, or has put a file there meanwhile.
    """

    def __init__(self, path: str, *, remove: bool = False) -> None:
        self.path = path
        self._partial = path + PARTIAL_SUFFIX
        is_link = os.path.islink(self._partial)
        with contextlib.suppress(
            FileNotFoundError
        ):  # killed just after the worklist got its name, it has both
            if not is_link and os.path.samefile(self._partial, path):
                os.unlink(self._partial)
        self._descriptor = open_locked(self._partial)
        self._done = False
        beginning = os.pread(self._descriptor, 16, 0)
        if is_link or (beginning and not beginning.startswith(_BEGINNINGS)):
            os.close(self._descriptor)
            raise InputError(
                f"output is first written to {self._partial}, but another file is there; choose another name (-o), or "
                "move that file away"
            )
        if remove:
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            except OSError as error:
                self.close()
                raise write_error(path, error) from error
        self._replace = os.path.lexists(path)

    def write(self, make_writer: Callable[[Any], RowWriter], rows: Iterable[Row]) -> None:
        """Write all rows, bring them onto the disk and move the file into its place.

        OutputError: the disk is full, or the place is gone or taken.
        """
        try:
            os.ftruncate(self._descriptor, 0)
            with open(self._descriptor, "wb", closefd=False) as file:
                write_rows(file, make_writer, rows)
            os.fsync(self._descriptor)
            put(self._partial, self.path, replace=self._replace)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._done = True
        _sync_folder(os.path.dirname(self.path))

    def close(self) -> None:
        """Give the place back; a worklist that was not finished is removed."""
        if not self._done:
            with contextlib.suppress(OSError):
                os.unlink(self._partial)
        os.close(self._descriptor)

    def __enter__(self) -> WorklistFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _sync_folder(folder: str) -> None:
    """Bring the new name onto the disk too, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
