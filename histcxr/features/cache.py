"""Counts kept on disk, so that images are decoded once.

A count is known by the content of image and mask, not by their names: moved files are found again, changed
ones are not mistaken. The folder holds one subfolder for each recipe and version of the program, and in it
parts in Parquet::

    CACHE/3f1c…/part-8a91….parquet   columns: key (binary, 32 bytes), counts (list of rows * 256 uint32)

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
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import histcxr
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.features.histograms import BINS
from histcxr.features.recipe import Recipe
from histcxr.files.writing import replacing

# A part is written when it has so many images, or when so much time went by: what a killed run can lose.
_PART_IMAGES: Final = 1024
_PART_SECONDS: Final = 30.0
# Half-written files of runs that were killed are removed when they are this old.
_STALE_SECONDS: Final = 24 * 3600.0
_KEY_BYTES: Final = 32


def content_key(image: bytes, mask: bytes) -> bytes:
    """Return the key of an image and its mask: 32 bytes from the content of both files."""
    return hashlib.sha256(hashlib.sha256(image).digest() + hashlib.sha256(mask).digest()).digest()


class CountsCache:
    """The counts of one recipe on disk; a context manager that writes what is left when it is closed.

    The folder is made where there is none, or InputError raised. Several recipes and several processes may share it.
    A part that is damaged is removed with a HistcxrWarning.
    """

    def __init__(self, folder: str | os.PathLike[str], recipe: Recipe) -> None:
        self._rows = len(recipe.names)
        # Decoders differ in the last bit between versions, so theirs belongs to the identity of the counts.
        self._identity = json.dumps(
            {**recipe.to_dict(), "histcxr": histcxr.__version__, "opencv": cv2.__version__}, sort_keys=True
        )
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
        self._new: dict[bytes, NDArray[np.uint32]] = {}
        self._written = time.monotonic()

    def __enter__(self) -> CountsCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.flush()

    def __len__(self) -> int:
        return len(self._part_of) + len(self._new)

    def keys(self) -> frozenset[bytes]:
        """Return the keys of all counts on disk."""
        return frozenset(self._part_of)

    def add(self, keys: Sequence[bytes], counts: Sequence[NDArray[np.int64]]) -> None:
        """Keep counts, each of shape (rows, 256), to be written in parts; empty keys are skipped."""
        for key, rows in zip(keys, counts, strict=True):
            if key and key not in self._part_of:
                self._new[key] = rows.astype(np.uint32).reshape(-1)
        if len(self._new) >= _PART_IMAGES or time.monotonic() - self._written >= _PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet as one part; all of it appears, or nothing."""
        self._written = time.monotonic()
        if not self._new:
            return
        keys = pa.array(list(self._new), pa.binary(_KEY_BYTES))
        flat = pa.array(np.concatenate(list(self._new.values())))
        counts = pa.FixedSizeListArray.from_arrays(flat, self._rows * BINS)
        schema = pa.schema(
            [("key", keys.type), ("counts", counts.type)], metadata={b"identity": self._identity.encode()}
        )
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table([keys, counts], schema=schema), buffer, compression="zstd")
        data = buffer.getvalue()
        part = self._folder / f"part-{hashlib.sha256(data).hexdigest()}.parquet"
        with replacing(part) as unfinished:
            unfinished.write_bytes(data)
        self._part_of.update(dict.fromkeys(self._new, part))
        self._new = {}

    def fill(self, counts: NDArray[np.int64], wanted: Sequence[tuple[int, bytes]]) -> list[int]:
        """Copy kept counts into an array ``(n, rows, 256)``, given as its row and their key, part by part.

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
            table = self._read(part, ["key", "counts"])
            if table is None:
                lost += [row for row, _ in rows]
                self._part_of = {key: path for key, path in self._part_of.items() if path != part}
                continue
            place = {key: index for index, key in enumerate(table["key"].to_pylist())}
            flat = table["counts"].combine_chunks().flatten().to_numpy().reshape(len(table), self._rows, BINS)
            counts[[row for row, _ in rows]] = flat[[place[key] for _, key in rows]]
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
            f"{part} is damaged; it is removed, and its images are counted again",
            HistcxrWarning,
            stacklevel=3,
        )
        with contextlib.suppress(OSError):
            part.unlink()
        return None
