"""The audit trail: what was judged, by what, with which result; and the journal from which a run goes on.

A text file of JSON Lines that is only ever appended to. The first line describes the run: versions, model
hash, what the model reads from an image, thresholds, input. Then comes one line an input, in the order of judging;
``resumed`` and ``finished`` lines mark where runs began again and ended. The text is ASCII: a file name that is not
valid UTF-8 keeps its foreign bytes as ``\\udcXX``, as Python reads them back. Each line holds the hash of the line
before (:mod:`~histcxr.worklist.trail_lines`).

A run that is killed leaves at most one unfinished line at the end. Opening the trail again cuts it off.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError, OutputError, Reason, UnjudgeableError
from histcxr.files.cells import printable
from histcxr.store.cascade import judged_by
from histcxr.worklist.locks import open_locked, write_all, write_error
from histcxr.worklist.rows import Row, shown_score
from histcxr.worklist.trail_lines import (
    FORMAT,
    FORMAT_VERSION,
    MAX_LINE,
    Chain,
    DamagedTrailError,
    ForeignTrailError,
    beginning,
)

AUDIT_SUFFIX = ".audit.jsonl"
# A run goes on only where all of these are the same; anything else would mix two runs in one worklist.
_SAME = (
    *("histcxr", "model", "recipe", "inputs", "thresholds", "groups", "site"),
    *("segmenter", "input", "masks", "uids", "key", "budget", "cascade"),
)


class Key(NamedTuple):
    """What makes an input the same one as in an earlier run."""

    file: str
    mask: str

    def digest(self) -> bytes:
        """Return 16 bytes that stand for the key, so that a hundred thousand of them need little memory."""
        text = json.dumps(self).encode()
        return hashlib.blake2b(text, digest_size=16).digest()


class AuditTrail:
    """An open audit trail, locked against other runs.

    The file ``path`` is made if it is missing; ``overwrite`` starts anew over whatever it holds. ``header`` is the run
    as it is about to be: at least the fields that must be the same to go on; afterwards it is the first line, the
    given one or that of the run which goes on. ``unfinished``: an earlier run began this trail and did not come to its
    end.

    InputError: the file is an audit trail of another run, or none. OutputError: it cannot be written, another run
    holds it, or it is damaged.
    """

    def __init__(self, path: str, header: dict[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        self._descriptor = open_locked(path)
        try:
            # Read through a descriptor of its own: appending moves the place of the one that writes.
            self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        except OSError as error:
            os.close(self._descriptor)
            raise write_error(path, error) from error
        try:
            self._open(header, overwrite)
        except BaseException:
            self.close()
            raise

    def _open(self, header: dict[str, Any], overwrite: bool) -> None:
        self._chain = Chain()
        if overwrite:
            self._cut(0)
        start = beginning()
        first = self._file.readline(MAX_LINE + 1)
        if not first.endswith(b"\n"):
            # Killed while the very first line was written; anything else that lacks a line end is not ours.
            if not start.startswith(first[: len(start)]):
                raise InputError(_foreign(self.path, "is another file"))
            self._cut(0)
            self.header = header
            self.unfinished, self._kept = False, Offsets()
            about = {"format": FORMAT, "format_version": FORMAT_VERSION, **header}
            self._append({"record": "run", **about, "started": _now()})
            return
        try:
            self._file.seek(0)
            lines = self._chain.read(self._file)
            _, self.header = next(lines)
            self._check_header(header)
            self._kept, last = last_lines(lines)
            self.unfinished = last.get("record") != "finished"
            self._cut(self._chain.size)
        except ForeignTrailError as error:
            raise InputError(_foreign(self.path, str(error))) from error
        except DamagedTrailError as error:
            raise OutputError(
                f"{self.path}: {error}, so the run cannot go on from it; keep a copy of the file and overwrite the "
                "output (--overwrite)"
            ) from error
        self._append({"record": "resumed", "packages": header["packages"], "time": _now()})

    def _check_header(self, wanted: dict[str, Any]) -> None:
        for name in _SAME:
            if self.header.get(name) != wanted.get(name):
                raise InputError(
                    f"output must be free or of the same run, but {self.path} belongs to a run with "
                    f"{name} {_short(self.header.get(name))}, this one has {_short(wanted.get(name))}; "
                    "choose another output (-o), or overwrite it (--overwrite)"
                )

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._file.seek(0)
        self._end = size

    def find(self, key: Key) -> tuple[int, dict[str, Any]] | None:
        """Return where the last line of earlier runs about an input is, and what it says, or None."""
        offset = self._kept.find(key.digest()) if len(self._kept) else None
        return None if offset is None else (offset, self.read(offset))

    def read(self, offset: int) -> dict[str, Any]:
        """Return the line at an offset."""
        return line_at(self._file, offset)

    def append(self, records: Sequence[dict[str, Any]]) -> list[int]:
        """Append lines about inputs, and return the offset of each."""
        lines = [self._chain.link({"record": "image", **record}) for record in records]
        offsets = [self._end]
        for line in lines:
            offsets.append(offsets[-1] + len(line))
        write_all(self._descriptor, b"".join(lines), self.path)
        self._end = offsets.pop()
        return offsets

    def finish(self, counts: dict[str, Any]) -> None:
        """Mark the end of a run and bring everything onto the disk."""
        self._append({"record": "finished", **counts, "time": _now()})
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise write_error(self.path, error) from error

    @property
    def head(self) -> str:
        """SHA-256 of the last line: whoever keeps it elsewhere can tell whether the trail was written anew."""
        return self._chain.head

    def _append(self, record: dict[str, Any]) -> None:
        line = self._chain.link(record)
        write_all(self._descriptor, line, self.path)
        self._end += len(line)

    def close(self) -> None:
        """Give the file and its lock back."""
        self._file.close()
        os.close(self._descriptor)

    def __enter__(self) -> AuditTrail:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Offsets:
    """Digest (16 bytes) to offset, in 24 bytes an entry; the last of equal digests counts."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._high = self._low = self._offset = np.empty(0, np.uint64)

    def __len__(self) -> int:
        return len(self._offset)

    def add(self, digest: bytes, offset: int) -> None:
        """Note where the line of a digest is."""
        self._raw += digest + offset.to_bytes(8, "big")

    def freeze(self) -> None:
        """End the adding; :meth:`find` sees what was added before."""
        table = np.frombuffer(bytes(self._raw), dtype=">u8").reshape(-1, 3).astype(np.uint64)
        self._raw = bytearray()
        order = np.lexsort((table[:, 2], table[:, 1], table[:, 0]))
        self._high, self._low, self._offset = (np.ascontiguousarray(column) for column in table[order].T)

    def last(self) -> NDArray[np.uint64]:
        """Return the offset of each digest, in rising order."""
        ends = np.ones(len(self), bool)
        ends[:-1] = (self._high[1:] != self._high[:-1]) | (self._low[1:] != self._low[:-1])
        return np.sort(self._offset[ends])

    def find(self, digest: bytes) -> int | None:
        """Return the offset, or None."""
        high, low = (np.uint64(int.from_bytes(part, "big")) for part in (digest[:8], digest[8:]))
        start, stop = np.searchsorted(self._high, high, "left"), np.searchsorted(self._high, high, "right")
        found = start + np.searchsorted(self._low[start:stop], low, "right") - 1
        if found < start or self._low[found] != low:
            return None
        return int(self._offset[found])


def last_lines(lines: Iterable[tuple[int, dict[str, Any]]]) -> tuple[Offsets, dict[str, Any]]:
    """Return where the last line of each input is, and what the last line of all says; ``{}`` where there is none."""
    kept, record = Offsets(), dict[str, Any]()
    for offset, record in lines:
        if record["record"] == "image":
            kept.add(key_of(record).digest(), offset)
    kept.freeze()
    return kept, record


def line_at(file: BinaryIO, offset: int) -> dict[str, Any]:
    """Return what the line at an offset says."""
    file.seek(offset)
    record: dict[str, Any] = json.loads(file.readline())
    return record


def key_of(record: dict[str, Any]) -> Key:
    """Return the key of a line about an input."""
    return Key(record["file"], record["mask"])


def explanation_of(record: Mapping[str, Any]) -> str:
    """Return in a sentence why the input of a line could not be judged; "" where it was judged."""
    code = record["reason"]
    return UnjudgeableError(Reason(code), "", record["detail"]).explanation if code else ""


def row_of(record: Mapping[str, Any], header: Mapping[str, Any], thresholds: Iterable[float]) -> Row:
    """Return the row of the worklist that a line of the run with this header gives."""
    return Row(
        printable(record["file"]),
        printable(record["patient"]),
        record["decision"],
        shown_score(record["score"], thresholds),
        printable(explanation_of(record)),
        record["reason"],
        printable(label_of(header, record["score"])),
        *record.get("uids", ()),
    )


def label_of(header: Mapping[str, Any], score: float | None = None) -> str:
    """Return how the model of a run is named in rows, name and short hash; of a cascade, the one that gave a score."""
    name = header["model"]["name"]
    if score is not None and (parts := header.get("cascade")):
        name = parts[judged_by(score)]["name"]
    return f"{name} {header['model']['hash'][:12]}"


def _foreign(path: str, what: str) -> str:
    return (
        f"audit must be free or an audit trail of the same run, but {path} {what}; choose another output (-o), or "
        "overwrite it (--overwrite)"
    )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
