"""Reading XGBoost's model files in Python, before XGBoost's own reader sees them.

XGBoost trusts its files: bytes that are no proper UBJSON can end the process. This reader knows only what XGBoost
writes, never looks beyond the end, and gives plain values that can be checked.

Source: Universal Binary JSON, Draft 12 (ubjson.org), with the strongly typed arrays that XGBoost uses; the
markers are those of ``src/common/json.cc`` in XGBoost.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

MAX_DEPTH = 32

_NUMBERS = {"i": ">i1", "U": ">u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}
_CONSTANTS = {"T": True, "F": False, "Z": None}


def read_ubjson(content: bytes) -> Any:
    """Decode a UBJSON document.

    Parameters
    ----------
    content : bytes

    Returns
    -------
    dict, list, str, int, float, bool, None or ndarray
        Typed arrays become one-dimensional NumPy arrays, in the machine's byte order.

    Raises
    ------
    ValueError
        Not a document, or more than one.
    """
    reader = _Reader(content)
    value = reader.value(reader.marker(), 0)
    if reader.place != len(content):
        raise ValueError(f"{len(content) - reader.place} bytes follow the document")
    return value


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.place = 0

    def _take(self, n: int) -> bytes:
        if n < 0 or n > len(self._content) - self.place:
            raise ValueError(f"at byte {self.place}: {n} bytes are announced, the file is shorter")
        self.place += n
        return self._content[self.place - n : self.place]

    def marker(self) -> str:
        return self._take(1).decode("latin-1")

    def _length(self) -> int:
        if self.marker() != "L":
            raise ValueError(f"at byte {self.place}: no length of a kind that XGBoost writes")
        (length,) = struct.unpack(">q", self._take(8))
        return int(length)

    def value(self, marker: str, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"at byte {self.place}: nested deeper than {MAX_DEPTH}")
        if marker == "{":
            return self._object(depth)
        if marker == "[":
            return self._array(depth)
        if marker == "S":
            return self._take(self._length()).decode("utf-8")
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker in _NUMBERS:
            kind = np.dtype(_NUMBERS[marker])
            return np.frombuffer(self._take(kind.itemsize), kind)[0].item()
        raise ValueError(f"at byte {self.place}: unknown marker {marker!r}")

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._content[self.place : self.place + 1] != b"}":
            key = self._take(self._length()).decode("utf-8")
            if key in found:
                raise ValueError(f"at byte {self.place}: {key!r} comes twice")
            found[key] = self.value(self.marker(), depth + 1)
        self.place += 1
        return found

    def _array(self, depth: int) -> Any:
        marker = self.marker()
        if marker == "$":
            kind = _NUMBERS.get(self.marker())
            if kind is None or self.marker() != "#":
                raise ValueError(f"at byte {self.place}: unknown kind of array")
            length, dtype = self._length(), np.dtype(kind)
            values = np.frombuffer(self._take(length * dtype.itemsize), dtype)
            return values.astype(dtype.newbyteorder("="))
        if marker != "#":
            raise ValueError(f"at byte {self.place}: an array without its length")
        length = self._length()
        if length < 0 or length > len(self._content) - self.place:  # each item takes at least one byte
            raise ValueError(f"at byte {self.place}: {length} items are announced, the file is shorter")
        return [self.value(self.marker(), depth + 1) for _ in range(length)]
