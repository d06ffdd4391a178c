"""Lung masks: a file's bytes in, a checked bool array of the image's own size out.

A mask is whatever marks the lungs with its higher value: one bit, 0/1, 0/255, 16 bits, or RGB with equal
channels. It may have another size than the image (the public database pairs 299-pixel images with 256-pixel
masks).
"""

from __future__ import annotations

import os
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import MaskError, RadiographError, Reason
from histcxr.files.decoding import Pixels, decode_brightness
from histcxr.files.formats import read_header
from histcxr.files.reading import Header, read_file, sniff

MIN_AREA = 0.01
"""Smallest share of the image that two lungs cover."""

MAX_AREA = 0.7
"""Largest share of the image that two lungs cover."""

MAX_BORDER = 0.5
"""Largest share of the image's border that lungs touch; an inverted mask covers all of it."""

_SURELY_NOT_INVERTED = 1 - MAX_AREA  # the outside of the largest lungs covers more than this

MAX_GREY = 0.2
"""Intermediate pixels (smoothed edges) may number so many to each pixel marked."""


def read_mask(
    path: str | os.PathLike[str], shape: tuple[int, int], *, working: tuple[int, int] | None = None
) -> NDArray[np.bool_]:
    """Read a lung mask (``""``: there is none) at its image's ``shape``, checked: bool (height, width), True inside.

    ``working`` is the shape wanted where it is not the image's own.

    MaskError: ``mask_missing``, ``mask_unreadable``, ``mask_not_binary``, ``mask_empty``, ``mask_tiny``,
    ``mask_too_large`` or ``mask_inverted``.
    """
    name = os.fspath(path)
    if not name:
        raise MaskError(Reason.MASK_MISSING)
    try:
        data = read_file(name)
    except RadiographError as error:
        if error.reason is Reason.UNREACHABLE:  # it may come the next time
            raise MaskError(error.reason, name, error.detail) from error
        missing = error.reason is Reason.NOT_FOUND
        reason = Reason.MASK_MISSING if missing else Reason.MASK_UNREADABLE
        raise MaskError(reason, name, error.detail if missing else error.explanation) from error
    return decode_mask(data, shape, name, working=working)


def decode_mask(
    data: bytes,
    shape: tuple[int, int],
    path: str | os.PathLike[str] = "",
    *,
    working: tuple[int, int] | None = None,
) -> NDArray[np.bool_]:
    """Decode a lung mask from the bytes of its file; ``path`` is for messages, see :func:`read_mask`.

    Pixels above half of the mask's highest value are lung. Resizing is nearest neighbour between pixel centres
    (``INTER_NEAREST_EXACT``; OpenCV's ``INTER_NEAREST`` shifts the mask by up to half a pixel).
    """
    name = os.fspath(path)
    if sniff(data) == "DICOM":
        raise MaskError(Reason.MASK_UNREADABLE, name, "a DICOM file; a mask must be PNG, BMP, TIFF or JPEG")
    try:
        header = read_header(data, name)
        marked = _one_bit(data, header)
        if marked is None:
            marked = _binary(decode_brightness(data, header, name), name)
    except RadiographError as error:
        raise MaskError(Reason.MASK_UNREADABLE, name, error.explanation) from error
    if marked.shape != shape and marked.shape == shape[::-1]:
        size = f"{marked.shape[1]} x {marked.shape[0]}"
        detail = f"{size} pixels for an image of {shape[1]} x {shape[0]}: turned?"
        raise MaskError(Reason.MASK_UNREADABLE, name, detail)
    wanted = working or shape
    if marked.shape != wanted:
        marked = cv2.resize(marked, (wanted[1], wanted[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    mask = marked.view(np.bool_)
    check_mask(mask, name)
    return mask


def _one_bit(data: bytes, header: Header) -> Pixels | None:
    """Unpack a PNG of one grey bit, not empty, with the plainest filters; None for any other, or a damaged one.

    So most tools write masks. It takes a quarter of the time of OpenCV, which makes bytes of bits row by row.
    """
    content = header.stream or data
    told = header.format, header.bits, header.channels, header.orientation, header.palette, header.alpha
    if told != ("PNG", 1, 1, 1, False, False) or content[28]:  # the last: interlaced
        return None
    parts, place = [], 33
    while content[place + 4 : place + 8] == b"IDAT":
        length = int.from_bytes(content[place : place + 4], "big")
        parts.append(content[place + 8 : place + 8 + length])
        place += 12 + length
    row, unpacking = 1 + (header.width + 7) // 8, zlib.decompressobj()
    try:
        raw = unpacking.decompress(b"".join(parts), header.height * row + 1)
    except zlib.error:
        return None
    if len(raw) != header.height * row or not unpacking.eof:
        return None
    rows = np.frombuffer(raw, np.uint8).reshape(header.height, row)
    filters, packed = rows[:, 0], rows[:, 1:]
    if filters.any():
        if filters.max() > 1:
            return None
        added = np.add.accumulate(
            packed, axis=1, dtype=np.uint8
        )  # filter 1: each byte as more than the one before
        packed = np.where(filters[:, None] == 1, added, packed)
    marked = np.unpackbits(packed, axis=1, count=header.width)
    return marked if marked.any() else None


def _binary(levels: Pixels, path: str) -> Pixels:
    """Zeros and ones, cut at half of the highest value; refuse a picture with many values in between."""
    highest = cv2.minMaxLoc(levels)[1]
    if highest == 0:
        raise MaskError(Reason.MASK_EMPTY, path)
    _, marked = cv2.threshold(levels, highest / 2, 1, cv2.THRESH_BINARY)
    count = cv2.countNonZero(marked)
    exact = count == cv2.countNonZero(levels) and count * highest == cv2.sumElems(levels)[0]
    if not exact:
        between = cv2.countNonZero(cv2.inRange(levels, highest / 4, highest * 3 / 4))
        if between > MAX_GREY * count:
            share = between / levels.size
            raise MaskError(Reason.MASK_NOT_BINARY, path, f"{share:.0%} of it is neither dark nor bright")
    return marked if marked.dtype == np.uint8 else marked.astype(np.uint8)


def check_mask(mask: NDArray[np.bool_], path: str | os.PathLike[str] = "") -> None:
    """Refuse a mask, bool (height, width), that cannot be two lungs.

    MaskError: ``mask_empty``, ``mask_tiny`` (less than :data:`MIN_AREA` of the image), ``mask_inverted`` (more than
    :data:`MAX_BORDER` of the border marked) or ``mask_too_large`` (more than :data:`MAX_AREA`).
    """
    area = int(np.count_nonzero(mask))
    if area == 0:
        raise MaskError(Reason.MASK_EMPTY, path)
    share = area / mask.size
    if share < MIN_AREA:
        raise MaskError(Reason.MASK_TINY, path, f"{share:.1%} of the image")
    if share < _SURELY_NOT_INVERTED:
        return
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    border = sum(int(np.count_nonzero(edge)) for edge in edges) / sum(edge.size for edge in edges)
    if border > MAX_BORDER and share < 1:
        raise MaskError(Reason.MASK_INVERTED, path, f"{border:.0%} of the image's border is marked")
    if share > MAX_AREA:
        raise MaskError(Reason.MASK_TOO_LARGE, path, f"{share:.1%} of the image")
