"""The structure of a TIFF file: its directory of tags, and whether every strip lies inside the file.

Source: TIFF Revision 6.0, Adobe 1992, sections 2, 3, 8 and 15; TIFF Technical Note 2 for Deflate.
"""

from __future__ import annotations

import zlib
from typing import Literal

from histcxr.exceptions import Reason
from histcxr.files.headers import Header, check_size, refuse

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_INTEGERS = (1, 3, 4)  # BYTE, SHORT, LONG

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES, _ROWS, _COUNTS, _PLANAR = 273, 274, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_COUNTS, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_WANTED = {
    *(
        _SUBFILE,
        _WIDTH,
        _HEIGHT,
        _BITS,
        _COMPRESSION,
        _PHOTOMETRIC,
        _STRIPS,
        _ORIENTATION,
        _SAMPLES,
        _ROWS,
        _COUNTS,
    ),
    *(_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_COUNTS, _EXTRA, _FORMAT),
}
_PLAIN, _LZW, _PACKBITS, _DEFLATE = 1, 5, 32773, (8, 32946)
_CCITT = (2, 3, 4)
_MAX_PAGES = 1000

Order = Literal["little", "big"]


def read(data: bytes, path: str = "") -> Header:
    """Read the directory of a TIFF file and check that its image data is all there.

    Deflated strips are unpacked once, because decoders pass over damage in them; the checksum cannot be had
    otherwise.

    Raises
    ------
    RadiographError
        ``truncated``, ``damaged``, ``too_large`` or ``unsupported`` (several images, floating point, exotic
        depths or compression).
    """
    order: Order = "little" if data[:2] == b"II" else "big"
    tags, following = _directory(data, int.from_bytes(data[4:8], order), order, path)
    _check_pages(data, tags, following, order, path)
    width, height = _one(tags, _WIDTH, 0), _one(tags, _HEIGHT, 0)
    check_size(width, height, path)
    channels, photometric = _one(tags, _SAMPLES, 1), _one(tags, _PHOTOMETRIC, 1)
    depths = set(tags.get(_BITS, (1,)))
    bits = max(depths, default=0)
    if len(depths) != 1 or bits not in (1, 8, 12, 16) or channels not in (1, 2, 3, 4):
        refuse(Reason.UNSUPPORTED, path, f"a TIFF of {channels} channels with {sorted(depths)} bits")
    if set(tags.get(_FORMAT, (1,))) != {1}:
        refuse(Reason.UNSUPPORTED, path, "a TIFF of signed or floating-point numbers")
    if photometric not in (0, 1, 2, 3):
        refuse(Reason.UNSUPPORTED, path, f"a TIFF of photometric interpretation {photometric}")
    _check_data(data, tags, width, height, bits, channels, path)
    return Header(
        "TIFF",
        width,
        height,
        bits,
        channels,
        turned=_one(tags, _ORIENTATION, 1),
        palette=photometric == 3,
        alpha=channels in (2, 4),
        inverted=photometric == 0 and bits > 8,  # the decoder turns 1 and 8 bits itself
    )


def _directory(data: bytes, start: int, order: Order, path: str) -> tuple[dict[int, tuple[int, ...]], int]:
    """The wanted integer tags of the directory at ``start``, and where the next directory is (0: none)."""
    count = int.from_bytes(data[start : start + 2], order)
    end = start + 2 + 12 * count
    if start < 8 or end > len(data) or not count:
        refuse(Reason.TRUNCATED, path, f"the directory should be at byte {start:,} of {len(data):,}")
    tags: dict[int, tuple[int, ...]] = {}
    for entry in range(start + 2, end, 12):
        tag = int.from_bytes(data[entry : entry + 2], order)
        kind = int.from_bytes(data[entry + 2 : entry + 4], order)
        if tag not in _WANTED or kind not in _INTEGERS:
            continue
        number, size = int.from_bytes(data[entry + 4 : entry + 8], order), _SIZES[kind]
        inline = number * size <= 4
        first = entry + 8 if inline else int.from_bytes(data[entry + 8 : entry + 12], order)
        if first + number * size > len(data):
            refuse(Reason.TRUNCATED, path, f"the values of tag {tag} lie outside the file")
        tags[tag] = tuple(
            int.from_bytes(data[k : k + size], order) for k in range(first, first + number * size, size)
        )
    return tags, int.from_bytes(data[end : end + 4], order)


def _one(tags: dict[int, tuple[int, ...]], tag: int, default: int) -> int:
    values = tags.get(tag, ())
    return values[0] if values else default


def _check_pages(data: bytes, first: dict[int, tuple[int, ...]], start: int, order: Order, path: str) -> None:
    """Refuse files of several images; previews (reduced-size subfiles) do not count."""
    if _one(first, _SUBFILE, 0) & 1:
        refuse(Reason.UNSUPPORTED, path, "the first image of the TIFF is a preview")
    pages, full = 1, 1
    while start and pages < _MAX_PAGES:
        tags, start = _directory(data, start, order, path)
        pages += 1
        full += not _one(tags, _SUBFILE, 0) & 1
    if full > 1:
        refuse(Reason.UNSUPPORTED, path, f"a TIFF of {full} images; export one image a file")


def _check_data(
    data: bytes,
    tags: dict[int, tuple[int, ...]],
    width: int,
    height: int,
    bits: int,
    channels: int,
    path: str,
) -> None:
    """Every strip or tile must lie inside the file and hold the pixels that it should."""
    compression = _one(tags, _COMPRESSION, _PLAIN)
    ccitt = compression in _CCITT and bits == 1 and channels == 1
    if not (ccitt or compression in (_PLAIN, _LZW, _PACKBITS, *_DEFLATE)):
        refuse(Reason.UNSUPPORTED, path, f"a TIFF of compression {compression}; export it uncompressed")
    planes = channels if _one(tags, _PLANAR, 1) == 2 else 1
    samples = channels // planes
    if _TILES in tags:
        offsets, counts = tags[_TILES], tags.get(_TILE_COUNTS, ())
        across, down = _one(tags, _TILE_WIDTH, 0), _one(tags, _TILE_HEIGHT, 0)
        check_size(across, down, path)
        columns, rows = -(-width // across), -(-height // down)
    else:
        offsets, counts = tags.get(_STRIPS, ()), tags.get(_COUNTS, ())
        across, down = width, min(_one(tags, _ROWS, height), height) or height
        columns, rows = 1, -(-height // down)
    parts = columns * rows * planes
    if len(offsets) != parts or len(counts) != parts:
        refuse(Reason.DAMAGED, path, f"{len(offsets)} parts of image data where {parts} must be")
    row_bytes = (across * samples * bits + 7) // 8
    last = down if _TILES in tags else height - down * (rows - 1)  # the last strip is shorter, a tile is not
    sizes = ([row_bytes * down] * (columns * (rows - 1)) + [row_bytes * last] * columns) * planes
    for offset, count, size in zip(offsets, counts, sizes, strict=True):
        if offset + count > len(data):
            refuse(Reason.TRUNCATED, path, f"{len(data):,} bytes, at least {offset + count:,} expected")
        if compression == _PLAIN and count < size:
            refuse(Reason.DAMAGED, path, f"{count:,} bytes of image data where {size:,} must be")
        if compression in _DEFLATE and _unpacked(data[offset : offset + count], size) < size:
            refuse(Reason.DAMAGED, path, "compressed image data is damaged")


def _unpacked(packed: bytes, size: int) -> int:
    """How many bytes a deflated strip gives, at most ``size``; 0 where it is damaged."""
    unpacker = zlib.decompressobj()
    try:
        length = len(unpacker.decompress(packed, size))
        while (
            not unpacker.eof and unpacker.unconsumed_tail
        ):  # a longer strip than needed, or only its checksum left
            if not unpacker.decompress(unpacker.unconsumed_tail, 2**16):
                break
    except zlib.error:
        return 0
    return length if unpacker.eof else 0
