"""What was read of images kept on disk, so that it is computed once: counts, or what a frozen network makes of them.

An image is known by content, not by name: moved files are found again, changed ones are not mistaken. The folder
holds one subfolder for each recipe and version of the program, and in it parts in Parquet, for counts::

    CACHE/3f1c…/part-8a91….parquet   columns: key (binary, 32 bytes), counts (list of rows * 256 uint32),
                                     fingerprint (binary, 72 bytes)

A killed run leaves whole parts or none. A part's name is the SHA-256 of its bytes: one that was cut short or
altered does not fit its name and is never trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import histcxr
from histcxr.data.fingerprints import FINGERPRINT_BYTES
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.features.histograms import BINS
from histcxr.features.recipe import Recipe
from histcxr.files.writing import replacing

# A part is written when it has so many images, or when so much time went by: what a killed run can lose.
_PART_IMAGES: Final = 1024
_PART_SECONDS: Final = 30.0
_PART_BYTES: Final = 1 << 27
# Half-written files of runs that were killed are removed when they are this old.
_STALE_SECONDS: Final = 24 * 3600.0
_KEY_BYTES: Final = 32
# Of what is kept of an image's counts; another layout is another folder.
_VERSION: Final = 2


def content_key(image: bytes, mask: bytes) -> bytes:
    """Return the key of an image and its mask: 32 bytes from the content of both files."""
    return hashlib.sha256(hashlib.sha256(image).digest() + hashlib.sha256(mask).digest()).digest()


class ArrayCache:
    """Rows of arrays on disk; a context manager that writes what is left when it is closed.

    ``identity``: all that the values depend on beside the image, ready for JSON; ``columns``: of each array the name,
    and the type and length of a row. The folder is made where there is none, or InputError raised. Several identities
    and several processes may share it. A part that is damaged is removed with a HistcxrWarning.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        identity: Mapping[str, Any],
        columns: Mapping[str, tuple[Any, int]],
    ) -> None:
        self._columns = {name: (np.dtype(kind), length) for name, (kind, length) in columns.items()}
        row = sum(kind.itemsize * length for kind, length in self._columns.values())
        self._part_images = max(1, min(_PART_IMAGES, _PART_BYTES // row))
        self._identity = json.dumps({**identity, "histcxr": histcxr.__version__}, sort_keys=True)
        self._folder = Path(folder) / hashlib.sha256(self._identity.encode()).hexdigest()[:16]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cache must be a folder that can be written; got {folder}: {error.strerror}"
            ) from error
        for left in self._folder.glob(".histcxr-*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    left.unlink()
        self._part_of: dict[bytes, Path] = {}
        for part in sorted(self._folder.glob("part-*.parquet")):
            table = self._read(part, ["key"])
            if table is not None:
                self._part_of.update(dict.fromkeys(table["key"].to_pylist(), part))
        self._new: dict[bytes, tuple[NDArray[Any], ...]] = {}
        self._written = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.flush()

    def __len__(self) -> int:
        return len(self._part_of) + len(self._new)

    def keys(self) -> frozenset[bytes]:
        """Return the keys of all rows on disk."""
        return frozenset(self._part_of)

    def add(self, keys: Sequence[bytes], *arrays: Sequence[NDArray[Any]]) -> None:
        """Keep rows of the arrays, in the order of the columns, to be written in parts; empty keys are skipped."""
        kinds = [kind for kind, _ in self._columns.values()]
        for key, *rows in zip(keys, *arrays, strict=True):
            if key and key not in self._part_of:
                self._new[key] = tuple(
                    row.astype(kind).reshape(-1) for row, kind in zip(rows, kinds, strict=True)
                )
        if len(self._new) >= self._part_images or time.monotonic() - self._written >= _PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet as one part; all of it appears, or nothing."""
        self._written = time.monotonic()
        if not self._new:
            return
        columns = [pa.array(list(self._new), pa.binary(_KEY_BYTES))]
        for (kind, length), rows in zip(
            self._columns.values(), zip(*self._new.values(), strict=True), strict=True
        ):
            if kind == np.uint8:
                columns.append(pa.array([row.tobytes() for row in rows], pa.binary(length)))
            else:
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(rows)), length))
        schema = pa.schema(
            [(name, column.type) for name, column in zip(("key", *self._columns), columns, strict=True)],
            metadata={b"identity": self._identity.encode()},
        )
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table(columns, schema=schema), buffer, compression="zstd")
        data = buffer.getvalue()
        part = self._folder / f"part-{hashlib.sha256(data).hexdigest()}.parquet"
        with replacing(part) as unfinished:
            unfinished.write_bytes(data)
        self._part_of.update(dict.fromkeys(self._new, part))
        self._new = {}

    def fill(self, wanted: Sequence[tuple[int, bytes]], *arrays: NDArray[Any]) -> list[int]:
        """Copy what is kept into arrays ``(n, ...)``, one a column, given as row and key, part by part.

        The rows are returned that could not be filled, because their part is gone or damaged by now.
        """
        by_part: dict[Path, list[tuple[int, bytes]]] = {}
        lost: list[int] = []
        for row, key in wanted:
            part = self._part_of.get(key)
            if part is None:
                lost.append(row)
            else:
                by_part.setdefault(part, []).append((row, key))
        for part, rows in by_part.items():
            table = self._read(part, ["key", *self._columns])
            if table is None:
                lost += [row for row, _ in rows]
                self._part_of = {key: path for key, path in self._part_of.items() if path != part}
                continue
            place = {key: index for index, key in enumerate(table["key"].to_pylist())}
            into, of = [row for row, _ in rows], [place[key] for _, key in rows]
            for array, (name, (kind, length)) in zip(arrays, self._columns.items(), strict=True):
                if kind == np.uint8:
                    flat = np.frombuffer(b"".join(table[name].to_pylist()), np.uint8)
                else:
                    flat = table[name].combine_chunks().flatten().to_numpy()
                array[into] = flat.reshape(len(table), length)[of].reshape(-1, *array.shape[1:])
        return sorted(lost)

    def _read(self, part: Path, columns: list[str]) -> pa.Table | None:
        """Read a part if its bytes fit its name; else remove it and return None."""
        try:
            data = part.read_bytes()
        except FileNotFoundError:
            return None
        if part.name == f"part-{hashlib.sha256(data).hexdigest()}.parquet":
            with contextlib.suppress(pa.ArrowInvalid):
                table = pq.read_table(pa.BufferReader(data), columns=columns)
                if (table.schema.metadata or {}).get(b"identity") == self._identity.encode():
                    return table
        warnings.warn(
            f"{part} is damaged; it is removed, and its images are read again",
            HistcxrWarning,
            stacklevel=3,
        )
        with contextlib.suppress(OSError):
            part.unlink()
        return None


class CountsCache(ArrayCache):
    """The counts of one recipe, (rows, 256), and fingerprints, (72,)."""

    def __init__(self, folder: str | os.PathLike[str], recipe: Recipe) -> None:
        # Decoders differ in the last bit between versions, so theirs belongs to the identity of the counts.
        identity = {**recipe.to_dict(), "opencv": cv2.__version__, "layout": _VERSION}
        columns = {
            "counts": (np.uint32, len(recipe.names) * BINS),
            "fingerprint": (np.uint8, FINGERPRINT_BYTES),
        }
        super().__init__(folder, identity, columns)
