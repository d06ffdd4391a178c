"""A finished triage read back: each row of its worklist, with its line in the audit trail."""

from __future__ import annotations

import csv
import errno
import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from histcxr.decision.thresholds import DRAWERS, REVIEW
from histcxr.exceptions import InputError, Reason
from histcxr.files.cells import printable, unguarded
from histcxr.files.reading import parse_json
from histcxr.files.remote import join, place_of, split, what_is
from histcxr.worklist.audit_trail import Offsets, last_lines, line_at, row_of
from histcxr.worklist.rows import COLUMNS, SUFFIXES, Row, csv_cells
from histcxr.worklist.trail_lines import Chain, DamagedTrailError, ForeignTrailError
from histcxr.worklist.whole import WholeFolder

_Outcome = tuple[str, str, str]  # file, decision, reason code: what a row and its line share


class FinishedTriage:
    """What a triage that came to its end found, row by row; holds 8 bytes a row and reads the rest when asked.

    ``worklist`` has any format, ``audit`` is its trail, and ``header`` the trail's first line: versions, model,
    thresholds, input. Every line is checked, and every row made anew from its line. InputError: there is no such file,
    the run did not end, a line was changed, or the worklist does not follow from the trail.
    """

    def __init__(self, worklist: str | os.PathLike[str], audit: str | os.PathLike[str]) -> None:
        self._worklist, self._audit = os.fspath(worklist), os.fspath(audit)
        try:
            if os.path.exists(audit) and not os.path.isfile(audit):
                raise OSError(errno.EINVAL, "it is no plain file")  # a pipe would be waited for
            self._file = open(audit, "rb")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise InputError(
                f"audit must be the audit trail of {self._worklist}, but {self._audit} cannot be read: "
                f"{error.strerror}; name it if it lies elsewhere"
            ) from error
        try:
            known, finished = self._scan()
            self._offsets = np.fromiter(self._places(known), np.uint64)
            if len(self) != finished["rows"]:
                raise InputError(
                    f"{self._worklist} has {len(self)} rows, and the last run of {self._audit} wrote "
                    f"{finished['rows']}: give the worklist as that run left it"
                )
            self._check_whole(finished)
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
        return line_at(self._file, int(self._offsets[row]))

    def path_of(self, record: dict[str, Any]) -> str:
        """Return where a file was when it was judged."""
        return join(self._home, record["file"])

    @functools.cached_property
    def _home(self) -> str:
        top = place_of(self.header["input"])
        return top if what_is(top) == "folder" else split(top)[0]

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def __enter__(self) -> FinishedTriage:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _scan(self) -> tuple[Offsets, dict[str, Any]]:
        """Check every line; return where the line of each outcome is, the last of its input, and the last line."""
        chain = Chain()
        try:
            lines = chain.read(self._file)
            _, self.header = next(lines, (0, {}))
            kept, record = last_lines(lines)
        except ForeignTrailError as error:
            raise InputError(
                f"audit must be an audit trail of histcxr triage, but {self._audit} {error}"
            ) from error
        except DamagedTrailError as error:
            raise InputError(
                f"{self._audit}: {error}; give the trail as the triage left it, or triage the folder anew (--overwrite)"
            ) from error
        if chain.rules is None:
            raise InputError(
                f"audit must be an audit trail of histcxr triage, but {self._audit} is another file"
            )
        self._rules = chain.rules
        if record.get("record") != "finished" or chain.size != os.fstat(self._file.fileno()).st_size:
            raise InputError(
                f"{self._audit} is of a run that has not ended; give the same triage command again, and it goes on"
            )
        known = Offsets()
        for place in kept.last().tolist():
            found = line_at(self._file, place)
            known.add(_digest((printable(found["file"]), found["decision"], found["reason"])), place)
        known.freeze()
        return known, record

    def _places(self, known: Offsets) -> Iterator[int]:
        """Yield where the line of each row is; InputError where a row is not the one that its line gives."""
        thresholds = self._rules.thresholds
        columns = Row._fields if self._rules.uids else COLUMNS
        as_text = self._worklist.lower().endswith(".csv")
        for number, (outcome, cells) in enumerate(_rows(self._worklist, columns), start=1):
            offset = known.find(_digest(outcome))
            due = None if offset is None else row_of(line_at(self._file, offset), self.header, thresholds)
            if due is None or cells != list(csv_cells(due) if as_text else due)[: len(columns)]:
                raise InputError(
                    f"{self._worklist}: row {number}, {outcome[0]!r}, is not what {self._audit} says of it; give the "
                    "worklist as the triage left it, with its own audit trail"
                )
            yield int(offset or 0)

    def _check_whole(self, finished: dict[str, Any]) -> None:
        """Compare the drawers with what the images of each patient, and the test of the folder, allow."""
        whole, counts = WholeFolder(None, trusted=True), Counter({"unjudged": 0})
        withheld = False
        for row, record in enumerate(self):
            whole.add(row, record)
            counts[record["decision"]] += 1
            counts["unjudged"] += record["score"] is None
            withheld |= record["reason"] in (Reason.UNCERTIFIED_SITE, Reason.UNTESTED_SITE)
        wrong = [name for name in (*DRAWERS, "unjudged") if finished[name] != counts[name]]
        if wrong:
            raise InputError(
                f"{self._audit}: its last line counts {finished[wrong[0]]} in {wrong[0]}, and its rows are "
                f"{counts[wrong[0]]}, so one of them was changed; give both files as the triage left them"
            )
        demoted = whole.demoted(sum(counts[name] for name in DRAWERS))
        for row, record in enumerate(self):
            judged = record["score"] is not None and record.get("own", record["decision"]) != REVIEW
            taken = record["reason"] in (Reason.UNCERTIFIED_SITE, Reason.UNTESTED_SITE)
            if judged and (taken != withheld or (not withheld and demoted[row] != bool(record["reason"]))):
                raise InputError(
                    f"{self._audit}: {record['file']!r} is in {record['decision']}, which does not follow from the "
                    "other images of its patient or of its folder; give both files as the triage left them"
                )


def _digest(outcome: _Outcome) -> bytes:
    return hashlib.blake2b(json.dumps(outcome).encode(), digest_size=16).digest()


def _rows(path: str, columns: Sequence[str]) -> Iterator[tuple[_Outcome, list[Any]]]:
    """Read of each row file, decision and reason code, and all its cells."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise InputError(f"worklist must end in one of {', '.join(SUFFIXES)}, got {path!r}")
    readers = {".csv": _from_csv, ".parquet": _from_parquet}
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("it is no plain file")
        for row in readers.get(suffix, _from_json_lines)(path):
            cells = [row[name] for name in columns]
            file = unguarded(row["file"]) if suffix == ".csv" else row["file"]
            yield (file, row["decision"], row["reason_code"]), cells
    except OSError as error:
        raise InputError(
            f"worklist must be a file of histcxr triage, but {path!r} cannot be read: {error.strerror or error}"
        ) from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:  # pyarrow's are ValueErrors
        raise InputError(f"worklist must be a file of histcxr triage, but {path!r} is not") from error


def _from_csv(path: str) -> Iterable[dict[str, Any]]:
    with open(path, encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if not set(COLUMNS) <= set(table.fieldnames or ()):
            raise KeyError(COLUMNS)
        yield from table


def _from_json_lines(path: str) -> Iterable[dict[str, Any]]:
    with open(path, "rb") as file:
        for line in file:
            yield parse_json(line)


def _from_parquet(path: str) -> Iterable[dict[str, Any]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()
