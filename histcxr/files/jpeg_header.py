"""The structure of a JPEG file: every segment up to the end-of-image marker.

Decoders fill what is missing with grey and say nothing, so the walk insists on the marker that ends the
image. It passes over whole segments, so a thumbnail inside one cannot be taken for the image.

Source: ITU-T Recommendation T.81 (1992), annex B; Exif 2.32 for the orientation.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from histcxr.exceptions import Reason
from histcxr.files.headers import Header, check_size, exif_orientation, refuse

# a marker inside entropy-coded data: not a stuffed zero, not a restart marker, not a fill byte
_next_marker = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL).search

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers, less DHT, JPG and DAC
_DECODABLE = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_SOS, _EOI, _APP0, _APP14, _COM = 0xDA, 0xD9, 0xE0, 0xEE, 0xFE


class _Frame(NamedTuple):
    """What a start-of-frame segment says."""

    height: int
    width: int
    channels: int
    first_channel: int
    progressive: bool


def read(data: bytes, path: str = "") -> Header:
    """Walk a JPEG file from segment to segment.

    Annexes (EXIF, colour profiles, comments) are left out of :attr:`Header.stream`: their orientation is
    taken here, and decoders print warnings about malformed ones. Bytes after the end of the image are
    ignored.

    Raises
    ------
    RadiographError
        ``truncated``, ``damaged``, ``too_large`` or ``unsupported`` (12 bits, lossless, arithmetic coding).
    """
    size = len(data)
    position, orientation, scans = 2, 1, 0
    frame: _Frame | None = None
    kept, start = [], 0
    precision: list[int | None] = [None] * 64  # of the first channel's coefficients: bits still to come
    while True:
        marker, position = _marker(data, position, path)
        if marker == _EOI:
            break
        length = int.from_bytes(data[position : position + 2], "big")
        end = position + length
        if position + 2 > size or end > size:
            refuse(Reason.TRUNCATED, path, f"{size:,} bytes, at least {end:,} expected")
        if length < 2:
            refuse(Reason.DAMAGED, path, f"a segment of {length} bytes at byte {position:,}")
        if marker in _FRAMES:
            if frame is not None:
                refuse(Reason.UNSUPPORTED, path, "a JPEG of several frames")
            frame = _frame(data, marker, position, length, path)
        elif marker == _SOS:
            if frame is None:
                refuse(Reason.DAMAGED, path, "image data comes before the header that describes it")
            scans += 1
            _follow_scan(data, position, length, frame, precision, path)
            found = _next_marker(data, end)
            if found is None:
                refuse(Reason.TRUNCATED, path, f"{size:,} bytes, and no end of the image")
            end = found.start()
        elif _is_annex(data, marker, position):
            if marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\x00\x00":
                orientation = exif_orientation(data[position + 8 : end])
            kept.append(data[start : position - 2])
            start = end
        position = end
    if frame is None or not scans:
        refuse(Reason.DAMAGED, path, "the file holds no image data")
    if frame.progressive and any(precision):  # None: coefficients that are all zero may be left out
        refuse(Reason.TRUNCATED, path, f"a progressive JPEG that ends early, after {scans} scans")
    if kept or position < size:
        kept.append(data[start:position])
    return Header(
        "JPEG",
        frame.width,
        frame.height,
        8,
        frame.channels,
        orientation,
        fills_silently=not frame.progressive,
        stream=b"".join(kept) if kept else None,
    )


def _marker(data: bytes, position: int, path: str) -> tuple[int, int]:
    """The marker at ``position`` (fill bytes passed over) and the position after it."""
    start, size = position, len(data)
    while position + 1 < size and data[position] == 0xFF:
        position += 1
        if data[position] not in (0x00, 0xFF):
            return data[position], position + 1
    if position + 1 >= size:
        refuse(Reason.TRUNCATED, path, f"the file ends after {size:,} bytes, before the end of the image")
    return refuse(Reason.DAMAGED, path, f"no marker at byte {start:,}, where one must be")


def _frame(data: bytes, marker: int, position: int, length: int, path: str) -> _Frame:
    """Read a start-of-frame segment."""
    if length < 11:
        refuse(Reason.DAMAGED, path, f"a frame header of {length} bytes")
    if marker not in _DECODABLE:
        refuse(Reason.UNSUPPORTED, path, "a lossless, hierarchical or arithmetic-coded JPEG")
    bits, channels = data[position + 2], data[position + 7]
    height = int.from_bytes(data[position + 3 : position + 5], "big")
    width = int.from_bytes(data[position + 5 : position + 7], "big")
    if bits != 8:
        refuse(Reason.UNSUPPORTED, path, f"a JPEG of {bits} bits a sample")
    if height == 0:
        refuse(Reason.UNSUPPORTED, path, "a JPEG that declares its height after the image")
    if channels not in (1, 3):
        refuse(Reason.UNSUPPORTED, path, f"a JPEG of {channels} colour channels")
    check_size(width, height, path)
    return _Frame(height, width, channels, data[position + 8], marker == 0xC2)


def _follow_scan(
    data: bytes, position: int, length: int, frame: _Frame, precision: list[int | None], path: str
) -> None:
    """Note which coefficients of the first channel a scan brings, and how many of their bits are still to come."""
    channels = data[position + 2] if length > 2 else 0
    if not 1 <= channels <= 4 or length != 6 + 2 * channels:
        refuse(Reason.DAMAGED, path, f"a scan header of {length} bytes for {channels} channels")
    if frame.first_channel in data[position + 3 : position + 3 + 2 * channels : 2]:
        first, last, step = data[position + length - 3 : position + length]
        for k in range(first, min(last, 63) + 1):
            precision[k] = step & 15


def _is_annex(data: bytes, marker: int, position: int) -> bool:
    """Whether the pixels are the same without this segment (Adobe and sound JFIF ones name the colours)."""
    if marker == _APP0:
        return data[position + 2 : position + 7] != b"JFIF\x00" or data[position + 7] != 1
    return marker == _COM or (_APP0 < marker <= 0xEF and marker != _APP14)
