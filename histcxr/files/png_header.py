"""The structure of a PNG file: every chunk, its checksum, and whether the data can hold the declared pixels.

Source: Portable Network Graphics (Third Edition), W3C Recommendation 2025, sections 5 and 11.
"""

from __future__ import annotations

import struct
from zlib import crc32

from histcxr.exceptions import Reason
from histcxr.files.headers import Header, check_size, exif_orientation, refuse

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples a pixel
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")  # all that the pixels depend on
_MAX_RATIO = 1032  # the most that DEFLATE can shrink data

_chunk_head = struct.Struct(">I4s").unpack_from
_chunk_crc = struct.Struct(">I").unpack_from
_ihdr = struct.Struct(">IIBBBBB").unpack_from


def read(data: bytes, path: str = "") -> Header:
    """Walk a PNG file from chunk to chunk.

    Annexes (colour profiles, texts, dates, animations) are left out of :attr:`Header.stream`: the pixels do
    not depend on them, and malformed ones make libpng print warnings.

    Raises
    ------
    RadiographError
        ``truncated``, ``damaged`` (a checksum or the order of the chunks is wrong), ``too_large``,
        ``unsupported``.
    """
    size = len(data)
    if size < 33:
        refuse(Reason.TRUNCATED, path, f"only {size} bytes")
    if data[8:16] != b"\x00\x00\x00\x0dIHDR":
        refuse(Reason.DAMAGED, path, "a PNG must begin with an IHDR chunk of 13 bytes")
    width, height, bits, colour, compression, filtering, interlace = _ihdr(data, 16)
    view = memoryview(data)
    position, annexes, deflated = 8, [], []
    packed = palette = orientation = 0
    ended = transparent = False
    while not ended:
        if position + 12 > size:
            refuse(Reason.TRUNCATED, path, f"the file ends after {size:,} bytes, before the end of the image")
        length, kind = _chunk_head(data, position)
        end = position + 12 + length
        if end > size:
            refuse(Reason.TRUNCATED, path, f"{size:,} bytes, at least {end:,} expected")
        if crc32(view[position + 4 : end - 4]) != _chunk_crc(data, end - 4)[0]:
            refuse(Reason.DAMAGED, path, f"wrong checksum in the chunk at byte {position:,}")
        if kind == b"IDAT":
            packed += length
            if bits == 1:
                deflated.append(view[position + 8 : end - 4])
        elif kind == b"IEND":
            ended = True
        elif kind == b"PLTE":
            palette = length
            _check_palette(length, bits, colour, packed, path)
        elif kind == b"tRNS":
            transparent = True
        elif kind not in _NEEDED:
            if not kind[0] & 32:  # upper case: the image cannot be understood without it
                refuse(Reason.UNSUPPORTED, path, f"a PNG with the unknown chunk {kind!r}")
            if kind == b"eXIf":
                orientation = exif_orientation(data[position + 8 : end - 4])
            annexes.append((position, end))
        position = end
    check_size(width, height, path)
    if bits not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        refuse(Reason.DAMAGED, path, f"impossible header: {bits} bits, colour type {colour}")
    if colour == 3 and not palette:
        refuse(Reason.DAMAGED, path, "the palette is missing")
    needed = height * ((width * bits * _SAMPLES[colour] + 7) // 8 + 1)
    if not interlace and packed * _MAX_RATIO < needed:
        refuse(
            Reason.TRUNCATED, path, f"{packed:,} bytes of image data cannot hold {width} x {height} pixels"
        )
    return Header(
        "PNG",
        width,
        height,
        bits,
        _SAMPLES[colour],
        orientation=orientation or 1,
        palette=colour == 3,
        alpha=colour in (4, 6) or transparent,
        packed=b"".join(deflated) if bits == 1 and colour == 0 and not interlace else None,
        stream=_without(data, annexes, position) if annexes or position < size else None,
    )


def _check_palette(length: int, bits: int, colour: int, packed: int, path: str) -> None:
    if packed or length % 3 or not 3 <= length <= 768 or (colour == 3 and length > 3 << bits):
        refuse(Reason.DAMAGED, path, f"a palette of {length} bytes is impossible here")


def _without(data: bytes, spans: list[tuple[int, int]], end: int) -> bytes:
    """The bytes up to ``end`` with ``spans`` left out."""
    parts, start = [], 0
    for first, last in spans:
        parts.append(data[start:first])
        start = last
    parts.append(data[start:end])
    return b"".join(parts)
