"""A finished triage read back: each row of its worklist, with its line in the audit trail."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from histcxr.exceptions import InputError
from histcxr.files.cells import printable, unguarded
from histcxr.worklist.audit_trail import FORMAT, FORMAT_VERSION, Offsets, key_of
from histcxr.worklist.rows import DIGITS, SUFFIXES

_Outcome = tuple[str, str, str]  # file, decision, reason code: what a row and its line share
_NAMES = ("file", "decision", "score", "reason_code")


class FinishedTriage:
    """What a triage that came to its end found, row by row; holds 8 bytes a row and reads the rest when asked.

    ``worklist`` has any format, ``audit`` is its trail, and ``header`` the trail's first line: versions, model,
    thresholds, input. InputError: there is no such file, the run did not end, or the two do not belong together.
    """

    def __init__(self, worklist: str | os.PathLike[str], audit: str | os.PathLike[str]) -> None:
        self._worklist, self._audit = os.fspath(worklist), os.fspath(audit)
        try:
            self._file = open(audit, "rb")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise InputError(
                f"audit must be the audit trail of {self._worklist}, but {self._audit} cannot be read: "
                f"{error.strerror}; name it if it lies elsewhere"
            ) from error
        try:
            self.header = self._header()
            known, total = self._scan()
            self._offsets = np.fromiter(self._places(known), np.uint64)
            if len(self) != total:
                raise InputError(
                    f"{self._worklist} has {len(self)} rows, and the last run of {self._audit} wrote {total}: give the "
                    "worklist as that run left it"
                )
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._offsets)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the trail's line of each row, in the order of the worklist."""
        return (self.record(row) for row in range(len(self)))

    def record(self, row: int) -> dict[str, Any]:
        """Return the trail's line of a row."""
        self._file.seek(int(self._offsets[row]))
        found: dict[str, Any] = json.loads(self._file.readline())
        return found

    def path_of(self, record: dict[str, Any]) -> str:
        """Return where a file was when it was judged."""
        top = self.header["input"]
        return os.path.join(top if os.path.isdir(top) else os.path.dirname(top), record["file"])

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def __enter__(self) -> FinishedTriage:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _header(self) -> dict[str, Any]:
        found: Any = None
        line = self._file.readline()
        if line.startswith(b"{"):
            found = self._parse(line, 1)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise InputError(
                f"audit must be an audit trail of histcxr triage, but {self._audit} is another file"
            )
        if found["format_version"] != FORMAT_VERSION:
            raise InputError(f"{self._audit} is of another version of histcxr ({found['histcxr']})")
        return found

    def _scan(self) -> tuple[Offsets, int]:
        """Where each outcome's line is, and how many rows the last run wrote."""
        known, last, offset = Offsets(), self.header, self._file.tell()
        for number, line in enumerate(self._file, start=2):
            last = self._parse(line, number)
            if last.get("record") == "image":
                known.add(_digest(self._outcome_of(last, number)), offset)
            offset += len(line)
        if last.get("record") != "finished":
            raise InputError(
                f"{self._audit} is of a run that has not ended; give the same triage command again, and it goes on"
            )
        known.freeze()
        return known, int(last["rows"])

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or not line.endswith(b"\n"):
            raise InputError(
                f"{self._audit}: line {number} is damaged or cut off; give the same triage command again"
            )
        return found

    def _outcome_of(self, record: dict[str, Any], number: int) -> _Outcome:
        try:
            file = printable(key_of(record).file)
            return file, record["decision"], record["reason"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{self._audit}: line {number} is damaged") from error

    def _places(self, known: Offsets) -> Iterator[int]:
        for number, (outcome, score) in enumerate(_outcomes(self._worklist), start=1):
            offset = known.find(_digest(outcome))
            if offset is None or not self._rounded_at(offset, score):
                raise InputError(
                    f"{self._worklist}: row {number}, {outcome[0]!r}, is not what {self._audit} says of it; give the "
                    "worklist as the triage left it, with its own audit trail"
                )
            yield offset

    def _rounded_at(self, offset: int, score: float | None) -> bool:
        """Tell whether a row's score is that of a line, rounded."""
        self._file.seek(offset)
        exact = json.loads(self._file.readline())["score"]
        if score is None or exact is None:
            return score is exact
        return math.isclose(score, exact, rel_tol=0.51 * 10.0 ** (1 - DIGITS), abs_tol=0.0)


def _digest(outcome: _Outcome) -> bytes:
    return hashlib.blake2b(json.dumps(outcome).encode(), digest_size=16).digest()


def _outcomes(path: str) -> Iterator[tuple[_Outcome, float | None]]:
    """Read file, decision and reason code of each row, and its score."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise InputError(f"worklist must end in one of {', '.join(SUFFIXES)}, got {path!r}")
    readers = {".csv": _from_csv, ".parquet": _from_parquet}
    try:
        for row in readers.get(suffix, _from_json_lines)(path):
            file, decision, score, code = (row[name] for name in _NAMES)
            yield (file, decision, code), None if score in (None, "") else float(score)
    except OSError as error:
        raise InputError(
            f"worklist must be a file of histcxr triage, but {path!r} cannot be read: {error.strerror or error}"
        ) from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:  # pyarrow's are ValueErrors
        raise InputError(f"worklist must be a file of histcxr triage, but {path!r} is not") from error


def _from_csv(path: str) -> Iterable[dict[str, Any]]:
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if not set(_NAMES) <= set(table.fieldnames or ()):
            raise KeyError(_NAMES)
        for row in table:
            yield {**row, "file": unguarded(row["file"])}


def _from_json_lines(path: str) -> Iterable[dict[str, Any]]:
    with open(path, "rb") as file:
        for line in file:
            yield json.loads(line)


def _from_parquet(path: str) -> Iterable[dict[str, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=list(_NAMES)):
            yield from batch.to_pylist()
