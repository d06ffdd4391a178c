"""The structure of TIFF files: directories, and strips or tiles that hold what they must.

Sources: TIFF Revision 6.0, Adobe 1992, sections 2, 3, 8, 9 and 15, and its Technical Note 2.
"""

from __future__ import annotations

import struct
import zlib
from typing import Literal

from histcxr.exceptions import Reason
from histcxr.files.budget import BUDGET
from histcxr.files.reading import Header, check_end, check_size, refuse

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES_PER_PIXEL, _ROWS, _COUNTS, _PLANAR = 273, 274, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_COUNTS, _FORMAT = 322, 323, 324, 325, 339
_WANTED = frozenset({*range(254, 263), *range(273, 285), *range(322, 326), _FORMAT})
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG
_BYTES = {1: (1, 2, 6, 7), 2: (3, 8), 4: (4, 9, 11, 13), 8: (5, 10, 12, 16, 17, 18)}
_SIZES = {kind: size for size, kinds in _BYTES.items() for kind in kinds}
_PLAIN, _LZW, _PACKBITS, _DEFLATE, _CCITT = 1, 5, 32773, (8, 32946), (2, 3, 4)
_MAX_VALUES = 2**20
_SPARE = 2**12  # bytes that a deflated strip may hold behind its pixels

Order = Literal["little", "big"]
Tags = dict[int, tuple[int, ...]]


def read_tiff(data: bytes, path: str = "") -> Header:
    """Read the directory of a TIFF and check that its image data is all there.

    Deflated strips are unpacked once, because decoders pass over damage in them; the checksum cannot be had
    otherwise. Several images, floating point, exotic depths and compressions are ``unsupported``.
    """
    order: Order = "little" if data[:2] == b"II" else "big"
    tags, following = _directory(data, int.from_bytes(data[4:8], order), order, path)
    _check_pages(data, tags, int.from_bytes(data[4:8], order), following, order, path)
    width, height = tags.get(_WIDTH, (0,))[0], tags.get(_HEIGHT, (0,))[0]
    check_size(width, height, path)
    channels, photometric = tags.get(_SAMPLES_PER_PIXEL, (1,))[0], tags.get(_PHOTOMETRIC, (1,))[0]
    depths = set(tags.get(_BITS, (1,)))
    bits = max(depths)
    if len(depths) != 1 or bits not in (1, 8, 12, 16) or channels not in (1, 2, 3, 4):
        refuse(Reason.UNSUPPORTED, path, f"a TIFF of {channels} channels with {sorted(depths)} bits")
    if set(tags.get(_FORMAT, (1,))) != {1}:
        refuse(Reason.UNSUPPORTED, path, "a TIFF of signed or floating-point numbers")
    if photometric not in (0, 1, 2, 3):
        refuse(Reason.UNSUPPORTED, path, f"a TIFF of photometric interpretation {photometric}")
    compression = tags.get(_COMPRESSION, (_PLAIN,))[0]
    header = Header(
        "TIFF",
        width,
        height,
        bits,
        channels,
        turned=tags.get(_ORIENTATION, (1,))[0],
        palette=photometric == 3,
        alpha=channels in (2, 4),
        inverted=photometric == 0 and bits > 8,  # the decoder turns 1 and 8 bits itself
        second_look=compression not in (_PLAIN, _PACKBITS, *_DEFLATE),  # these are checked whole below
        costly=compression != _PLAIN,
    )
    _check_strips(data, tags, header, compression, path)
    return header


def _directory(data: bytes, start: int, order: Order, path: str) -> tuple[Tags, int]:
    """The wanted integer tags of the directory at ``start``, and where the next directory is (0: none)."""
    count = int.from_bytes(data[start : start + 2], order)
    end = start + 2 + 12 * count
    if start < 8 or end > len(data) or not count:
        refuse(Reason.TRUNCATED, path, f"the directory should be at byte {start:,} of {len(data):,}")
    tags: Tags = {}
    sign = "<" if order == "little" else ">"
    claimed = 0
    for entry in range(start + 2, end, 12):
        tag, kind, number, first = struct.unpack_from(f"{sign}HHII", data, entry)
        claimed += min(number * _SIZES.get(kind, 0), len(data))
        if claimed > 4 * len(data):  # values on top of each other, which a reader might copy one by one
            refuse(Reason.DAMAGED, path, "the tags claim many times the file's size")
        if tag not in _WANTED or kind not in _INTEGERS or not number:
            continue
        values = struct.Struct(f"{sign}{min(number, _MAX_VALUES)}{_INTEGERS[kind]}")
        if values.size <= 4:
            first = entry + 8
        if number > _MAX_VALUES or first + values.size > len(data):
            refuse(Reason.TRUNCATED, path, f"the values of tag {tag} lie outside the file")
        tags[tag] = values.unpack_from(data, first)
    return tags, int.from_bytes(data[end : end + 4], order)


def _check_pages(data: bytes, first: Tags, begin: int, start: int, order: Order, path: str) -> None:
    """Refuse files of several images; previews (reduced-size subfiles) do not count."""
    if first.get(_SUBFILE, (0,))[0] & 1:
        refuse(Reason.UNSUPPORTED, path, "the first image of the TIFF is a preview")
    seen, entries = {begin}, 0
    while start and start not in seen:
        seen.add(start)
        entries += int.from_bytes(data[start : start + 2], order)
        if entries > BUDGET.entries:
            refuse(Reason.TOO_COSTLY, path, f"a TIFF of more than {BUDGET.entries:,} entries")
        tags, start = _directory(data, start, order, path)
        if not tags.get(_SUBFILE, (0,))[0] & 1:
            refuse(Reason.UNSUPPORTED, path, "a TIFF of several images; export one image a file")
    if start:
        refuse(Reason.DAMAGED, path, "the directories of the TIFF lead in a circle")


def _check_strips(data: bytes, tags: Tags, header: Header, compression: int, path: str) -> None:
    """Every strip or tile must lie inside the file and hold the pixels that it should."""
    width, height, bits, channels = header.width, header.height, header.bits, header.channels
    ccitt = compression in _CCITT and bits == 1 and channels == 1
    if not (ccitt or compression in (_PLAIN, _LZW, _PACKBITS, *_DEFLATE)):
        refuse(Reason.UNSUPPORTED, path, f"a TIFF of compression {compression}; export it uncompressed")
    planes = channels if tags.get(_PLANAR, (1,))[0] == 2 else 1
    if planes > 1 and bits > 8:  # OpenCV returns memory that nobody has written
        refuse(Reason.UNSUPPORTED, path, f"a TIFF of {planes} planes with {bits} bits")
    if _TILES in tags:
        offsets, counts = tags[_TILES], tags.get(_TILE_COUNTS, ())
        across, down = tags.get(_TILE_WIDTH, (0,))[0], tags.get(_TILE_HEIGHT, (0,))[0]
        check_size(across, down, path)
        columns, rows, last = -(-width // across), -(-height // down), down
    else:
        offsets, counts = tags.get(_STRIPS, ()), tags.get(_COUNTS, ())
        across, down = width, min(tags.get(_ROWS, (height,))[0], height) or height
        columns, rows = 1, -(-height // down)
        last = height - down * (rows - 1)  # the last strip is shorter, a tile is not
    parts = columns * rows * planes
    if len(offsets) != parts or len(counts) != parts:
        refuse(Reason.DAMAGED, path, f"{len(offsets)} parts of image data where {parts} must be")
    row_bytes = (across * channels // planes * bits + 7) // 8
    most = row_bytes * down + _SPARE
    sizes = ([row_bytes * down] * (columns * (rows - 1)) + [row_bytes * last] * columns) * planes
    held = 0
    for offset, count, size in zip(offsets, counts, sizes, strict=True):
        check_end(offset + count, len(data), path)
        held += count
        if held > len(data):
            refuse(Reason.DAMAGED, path, "the parts of the image data lie on top of each other")
        if compression == _PLAIN and count < size:
            refuse(Reason.DAMAGED, path, f"{count:,} bytes of image data where {size:,} must be")
        if compression in _DEFLATE and _unpacked(data[offset : offset + count], size, most) < size:
            refuse(Reason.DAMAGED, path, "compressed image data is damaged")
        if compression == _PACKBITS and not _runs_fit(data[offset : offset + count], size, row_bytes):
            refuse(Reason.DAMAGED, path, "runs of pixels that do not end with the rows")


def _unpacked(packed: bytes, size: int, most: int) -> int:
    """How many bytes a deflated strip gives, at most ``size``; 0 where it is damaged or goes on and on."""
    unpacker = zlib.decompressobj()
    try:
        length = len(unpacker.decompress(packed, size))
        for _ in range(2):  # a longer strip than needed, or only its checksum left
            unpacker.decompress(unpacker.unconsumed_tail, most)
    except zlib.error:
        return 0
    return length if unpacker.eof else 0


def _runs_fit(packed: bytes, size: int, row_bytes: int) -> bool:
    """Whether runs give ``size`` bytes, no more and no less, each row beginning a run (TIFF 6.0, section 9)."""
    position, length, last, across = 0, 0, len(packed) - 1, 0
    while position < last and length < size:
        run = packed[position]
        position += 2 if run > 128 else (1 if run == 128 else run + 2)
        if run != 128:
            row = length // row_bytes
            length += 257 - run if run > 128 else run + 1
            across += length > (row + 1) * row_bytes
    # some encoders never heed rows, and then almost none begins a run
    return position >= last and length == size and (across == 0 or 2 * across > size // row_bytes)
