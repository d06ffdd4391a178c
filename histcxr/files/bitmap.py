"""Unpacking one-bit PNG masks, several times faster than a general decoder does it.

Lung masks are mostly stored at one bit a pixel, and reading them is a good part of the time that an image costs. Such
a file is nothing but deflated rows of bits, which zlib and NumPy take apart with a few calls. Whatever is less plain
(filtered or interlaced rows, palettes) is left to OpenCV.

Source: Portable Network Graphics (Third Edition), W3C Recommendation 2025, sections 7.2, 9 and 10.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import Reason
from histcxr.files.headers import Header, refuse

_NONE, _SUB, _UP = 0, 1, 2  # how the bytes of a row are filtered


def unpack_bits(header: Header, path: str = "") -> NDArray[np.uint8] | None:
    """Pixels of a one-bit PNG whose rows are all filtered in one simple way.

    Parameters
    ----------
    header : Header
        As read from the file.
    path : str, optional
        Its name, for messages.

    Returns
    -------
    uint8 (height, width) or None
        Zeros and ones; None when the file needs the general decoder.

    Raises
    ------
    RadiographError
        ``damaged`` or ``truncated``, when the rows cannot be inflated whole.
    """
    if header.packed is None or header.orientation != 1:
        return None
    stride = (header.width + 7) // 8 + 1  # each row begins with the number of its filter
    size = header.height * stride
    unpacker = zlib.decompressobj()
    try:
        rows = unpacker.decompress(header.packed, size + 1)
    except zlib.error as error:
        refuse(Reason.DAMAGED, path, str(error))
    if len(rows) > size:
        refuse(Reason.DAMAGED, path, f"holds more than {header.width} x {header.height} pixels")
    if len(rows) < size or not unpacker.eof:
        refuse(Reason.TRUNCATED, path, f"{len(rows):,} bytes of image data where {size:,} must be")
    table = np.frombuffer(rows, dtype=np.uint8).reshape(header.height, stride)
    filters, bits = table[:, 0], table[:, 1:]
    kind = filters[0]
    if kind > _UP or (filters != kind).any():
        return None
    if kind != _NONE:  # bytes are differences to the byte on the left, or above
        bits = np.cumsum(bits, axis=1 if kind == _SUB else 0, dtype=np.uint8)
    return np.unpackbits(bits, axis=1, count=header.width)
