"""Hostile and damaged files, each made from scratch: small ones that ask for much, and radiographs that seem sound.

:data:`COSTLY` and :func:`damaged_files` give bytes, :func:`write_special_files` what is no plain file.
"""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.files.writing import encode_image
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.broken_files import huge_png, png_file
from histcxr.phantoms.dicom_files import encode_dicom

SIDE = 8192  # pixels; the largest square that is accepted
GROUND = np.zeros((64, 64), np.uint8)
ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HHL", 0xFFFE, part, 0) for part in (0xE000, 0xE00D, 0xE0DD))
OPEN_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
VIEWS, REGION = (0x0054, 0x0220), (0x0008, 0x2218)  # sequences that are looked into


def element(tag: tuple[int, int], kind: str, value: bytes, length: int | None = None) -> bytes:
    """Return an element of explicit type with a length of four bytes, whatever its type; it may lie."""
    head = struct.pack("<HH2s", *tag, kind.encode())
    long = kind in ("OB", "OW", "SQ", "UN", "UT", "UC", "UR")
    size = len(value) if length is None else length
    return head + (struct.pack("<HL", 0, size) if long else struct.pack("<H", size)) + value


def with_element(
    data: bytes, tag: tuple[int, int], kind: str, value: bytes, length: int | None = None
) -> bytes:
    """Put an element in front of the pixel module of an explicit DICOM file, or in its place in the first group."""
    before = (0x0008, 0x0016) if tag < (0x0008, 0x0016) else (0x0028, 0x0002)
    at = data.index(struct.pack("<HH", *before), 132 + 12)
    if tag[0] == 8 and tag > (0x0008, 0x0016):
        at = data.index(struct.pack("<HH2s", 0x0028, 0x0002, b"US"))
    return data[:at] + element(tag, kind, value, length) + data[at:]


def deflated(data: bytes) -> bytes:
    """Deflate the elements behind the meta information of an explicit file."""
    import pydicom
    from pydicom.filewriter import write_file_meta_info

    start, head = (
        144 + int.from_bytes(data[140:144], "little"),
        io.BytesIO(),
    )  # behind the length of that group
    meta = pydicom.dcmread(io.BytesIO(data[:start])).file_meta
    meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    write_file_meta_info(head, meta)
    packer = zlib.compressobj(6, wbits=-15)
    return bytes(128) + b"DICM" + head.getvalue() + packer.compress(data[start:]) + packer.flush()


def wrapped(frame: bytes, side: int = SIDE, syntax: str = "jpeg 2000", fragments: bytes = b"") -> bytes:
    """Return a DICOM file of ``side`` x ``side`` pixels at 8 bits around a compressed frame."""
    data = encode_dicom(GROUND, syntax=syntax)
    for tag in (0x10, 0x11):
        at = data.index(struct.pack("<HH2s", 0x28, tag, b"US"))
        data = data[: at + 8] + struct.pack("<H", side) + data[at + 10 :]
    at = data.index(struct.pack("<HH2s", 0x7FE0, 0x10, b"OB"))
    frame += b"\0" * (len(frame) % 2)
    one = struct.pack("<HHL", 0xFFFE, 0xE000, len(frame)) + frame
    return data[: at + 8] + struct.pack("<L", 0xFFFFFFFF) + ITEM + one + fragments + SEQUENCE_END


def jpeg_2000(layers: int = 100, precinct: int = 0x11, block: int = 4, *, in_tile: bool = False) -> bytes:
    """Return a JPEG 2000 stream of one empty tile of 8192 x 8192 pixels, of few bytes and many packets."""
    size = struct.pack(">H2x8LH3B", 41, SIDE, SIDE, 0, 0, SIDE, SIDE, 0, 0, 1, 7, 1, 1)
    levels = 5
    blocks = (block.bit_length() - 3, block.bit_length() - 3)
    style = struct.pack(">BBHB5B", 1, 0, layers, 0, levels, *blocks, 0, 1) + bytes([precinct]) * (levels + 1)
    plain = struct.pack(">BBHB5B", 0, 0, 1, 0, levels, 4, 4, 0, 1)
    quantised = bytes([0x40]) + bytes([0x40] * (3 * levels + 1))

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">HH", marker, len(body) + 2) + body

    head = (
        b"\xff\x4f\xff\x51" + size + segment(0xFF52, plain if in_tile else style) + segment(0xFF5C, quantised)
    )
    tile = (segment(0xFF52, style) if in_tile else b"") + b"\xff\x93" + bytes(300)
    part = struct.pack(">HHHLBB", 0xFF90, 10, 0, 12 + len(tile), 0, 1)
    return head + part + tile + b"\xff\xd9"


def many_scans(scans: int, side: int = 2048) -> bytes:
    """Return a progressive JPEG whose last scan stands there again and again."""
    jpeg = cv2.imencode(".jpg", np.full((side, side), 128, np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[
        1
    ].tobytes()
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * scans + b"\xff\xd9"


def tiff(tags: Mapping[int, tuple[int, ...]], data: bytes, pages: bytes = b"", following: int = 0) -> bytes:
    """Return a little-endian TIFF: its data, the values of its tags (all LONG), the directory, further directories."""
    values, entries, start = b"", b"", 8 + len(data)
    for tag, value in sorted(tags.items()):
        packed = struct.pack(f"<{len(value)}L", *value)
        place = packed if len(value) == 1 else struct.pack("<L", start + len(values))
        values += packed if len(value) > 1 else b""
        entries += struct.pack("<HHL", tag, 4, len(value)) + place
    at = start + len(values)
    after = at + 2 + len(entries) + 4
    directory = (
        struct.pack("<H", len(tags)) + entries + struct.pack("<L", after if following == -1 else following)
    )
    return b"II*\0" + struct.pack("<L", at) + data + values + directory + pages


def _grey(side: int, **more: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    tags = {256: (side,), 257: (side,), 258: (8,), 259: (1,), 262: (1,), 277: (1,), 273: (8,), 278: (side,)}
    return tags | {279: (side * side,)} | {int(name[1:]): value for name, value in more.items()}


def shared_stream(strips: int = SIDE) -> bytes:
    """Return a TIFF whose strips are one row each and share one deflate stream of 64 MiB."""
    packed = zlib.compress(bytes(2**26), 9)
    parts = {"t273": (8,) * strips, "t279": (len(packed),) * strips, "t278": (1,), "t259": (8,)}
    return tiff(_grey(strips, **parts), packed)


def circling_directory(entries: int = 65_535) -> bytes:
    """Return a TIFF whose second directory, a preview of many entries, is followed by itself."""
    first = tiff(_grey(64), bytes(4096), following=-1)
    preview = struct.pack("<HHLL", 254, 4, 1, 1)
    filling = b"".join(struct.pack("<HHLL", 40_000 + i % 20_000, 4, 1, i) for i in range(entries - 1))
    return first + struct.pack("<H", entries) + preview + filling + struct.pack("<L", len(first))


def many_directories(pages: int = 100_000) -> bytes:
    """Return a TIFF of very many previews."""
    first = tiff(_grey(64), bytes(4096), following=-1)
    entry, found = struct.pack("<HHLL", 254, 4, 1, 1), []
    for i in range(pages):
        found.append(struct.pack("<H", 1) + entry + struct.pack("<L", len(first) + 18 * (i + 1)))
    return first + b"".join(found)


def nested(depth: int = 100_000) -> bytes:
    """Return a DICOM file of sequences inside sequences."""
    opening = struct.pack("<HH2sHL", *VIEWS, b"SQ", 0, 0xFFFFFFFF) + OPEN_ITEM
    value = OPEN_ITEM + opening * depth + (ITEM_END + SEQUENCE_END) * (depth + 1)
    return with_element(encode_dicom(GROUND), VIEWS, "SQ", value, 0xFFFFFFFF)


def _plain(tag: tuple[int, int], kind: str, value: bytes, length: int | None = None) -> bytes:
    return with_element(encode_dicom(GROUND), tag, kind, value, length)


def _open_item(value: bytes) -> bytes:
    return _plain(VIEWS, "SQ", OPEN_ITEM + value + ITEM_END + SEQUENCE_END, 0xFFFFFFFF)


def _claims(data: bytes, at: int, *sizes: int, order: str = ">") -> bytes:
    packed = struct.pack(f"{order}{len(sizes)}L", *sizes)
    return data[:at] + packed + data[at + len(packed) :]


def _png_rgba16(side: int) -> bytes:
    row, packer = bytes(side * 8 + 1), zlib.compressobj(9)
    packed = b"".join([packer.compress(row) for _ in range(side)]) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    return png_file([(b"IHDR", head), (b"IDAT", packed), (b"IEND", b"")])


def _idle_runs(size: int) -> bytes:
    head = struct.pack("<16L", 1, 64, *(0,) * 14)
    return wrapped(head + b"\x80" * size, syntax="rle")


def _many_chunks(chunks: int) -> bytes:
    png = encode_image(make_phantom(0).image)
    text = b"\0\0\0\0tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    return png[:33] + text * chunks + png[33:]


def _jpeg() -> bytes:
    return encode_image(make_phantom(0).image, ".jpg")


COSTLY: dict[str, Callable[[], bytes]] = {
    "jpeg 2000, tiny precincts, 100 layers.dcm": lambda: wrapped(jpeg_2000()),
    "jpeg 2000, the same hidden in a tile.dcm": lambda: wrapped(jpeg_2000(in_tile=True)),
    "jpeg 2000, tiny blocks.dcm": lambda: wrapped(jpeg_2000(1, 0xFF)),
    "jpeg 2000, 65,535 layers.dcm": lambda: wrapped(jpeg_2000(65_535, 0xFF, 64)),
    "jpeg 2000, 16 bits.dcm": lambda: encode_dicom(np.zeros((SIDE, SIDE), np.uint16), syntax="jpeg 2000"),
    "jpeg-ls, 16 bits.dcm": lambda: encode_dicom(np.zeros((SIDE, SIDE), np.uint16), syntax="jpeg-ls"),
    "jpeg lossless, 16 bits.dcm": lambda: encode_dicom(
        np.zeros((SIDE, SIDE), np.uint16), syntax="jpeg lossless"
    ),
    "20,000 scans.jpg": lambda: many_scans(20_000),
    "90 scans of 8192 pixels.jpg": lambda: many_scans(84, SIDE),
    "18 scans of 8192 pixels.jpg": lambda: many_scans(12, SIDE),
    "20,000 scans.dcm": lambda: wrapped(many_scans(20_000), 2048, "jpeg"),
    "a million segments.jpg": lambda: _jpeg()[:2] + b"\xff\xfe\0\2" * 10**6 + _jpeg()[2:],
    "a million chunks.png": lambda: _many_chunks(10**6),
    "one bit unpacked.png": lambda: huge_png(SIDE),
    "RGBA of 16 bits.png": lambda: _png_rgba16(SIDE),
    "declares 65,535 pixels.jpg": lambda: (
        (j := _jpeg())[: (at := j.index(b"\xff\xc0") + 5)] + b"\xff\xff\xff\xff" + j[at + 4 :]
    ),
    "declares 4 thousand million pixels.png": lambda: png_file(
        [
            (b"IHDR", struct.pack(">IIBBBBB", 65_535, 65_535, 8, 0, 0, 0, 0)),
            (b"IDAT", bytes(99)),
            (b"IEND", b""),
        ]
    ),
    "declares 2 thousand million rows.bmp": lambda: _claims(
        encode_image(GROUND, ".bmp"), 18, 2**31 - 1, 2**31 - 1, order="<"
    ),
    "strips share one stream.tif": shared_stream,
    "directory leads to itself.tif": circling_directory,
    "100,000 directories.tif": many_directories,
    "a strip goes on for a gigabyte.tif": lambda: tiff(
        _grey(64, t259=(8,), t279=(len(packed := zlib.compress(bytes(2**30), 1)),)), packed
    ),
    "6 million empty items.dcm": lambda: deflated(
        _plain(VIEWS, "SQ", ITEM * 6_000_000 + SEQUENCE_END, 0xFFFFFFFF)
    ),
    "6 million items in a closed sequence.dcm": lambda: deflated(_plain(VIEWS, "SQ", ITEM * 6_000_000)),
    "3 million elements.dcm": lambda: deflated(
        _open_item(struct.pack("<HH2sH", 8, 0x60, b"CS", 0) * 3_000_000)
    ),
    "backslashes in a text.dcm": lambda: _plain((0x0018, 0x1030), "UT", b"\\" * 143_000),
    "backslashes in place of a sequence.dcm": lambda: _plain(REGION, "UT", b"\\" * 143_000),
    "backslashes in character sets.dcm": lambda: _plain((0x0008, 0x0005), "UT", b"\\" * 143_000),
    "backslashes in nested character sets.dcm": lambda: _open_item(element((8, 5), "UT", b"\\" * 143_000)),
    "backslashes in a number.dcm": lambda: deflated(_plain((0x0028, 0x1050), "UT", b"\\" * 100_000_000)),
    "100,000 nested sequences.dcm": nested,
    "a million fragments.dcm": lambda: wrapped(b"\xff\x4f\xff\x51", fragments=ITEM * 10**6),
    "fragments without an end.dcm": lambda: wrapped(b"\xff\x4f\xff\x51", fragments=ITEM * 10**5)[:-8],
    "unpacks to 1 GiB.dcm": lambda: deflated(_plain((0x0009, 0x1001), "OB", bytes(2**30 - 2**12))),
    "8192 pixels of 16 bits, deflated.dcm": lambda: encode_dicom(
        np.zeros((SIDE, SIDE), np.uint16), syntax="deflated"
    ),
    "RLE that does nothing.dcm": lambda: _idle_runs(20_000_000),
    "gzip of zeros.png": lambda: _gzip(),
}


def _gzip() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()


def damaged_files(seed: int = 0, copies: int = 4) -> Iterator[tuple[str, bytes]]:
    """Yield radiographs of the surely sick with damage that decoders pass over or fill up, by name."""
    rng = random.Random(seed)
    for copy in range(copies):
        image = make_phantom(seed + copy, sick=True, severity=0.9, size=(256, 224)).image
        deep = image.astype(np.uint16) << 4
        for name, data in {
            "corrupt.jpg": encode_image(image, ".jpg"),
            "corrupt progressive.jpg": cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[
                1
            ].tobytes(),
            "corrupt LZW.tif": cv2.imencode(".tif", image, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes(),
            "corrupt PackBits.tif": cv2.imencode(".tif", image, [cv2.IMWRITE_TIFF_COMPRESSION, 32773])[
                1
            ].tobytes(),
            "corrupt jpeg.dcm": encode_dicom(image, syntax="jpeg"),
            "corrupt jpeg lossless.dcm": encode_dicom(deep, bits=12, syntax="jpeg lossless"),
            "corrupt jpeg 2000.dcm": encode_dicom(deep, bits=12, syntax="jpeg 2000"),
            "corrupt jpeg-ls.dcm": encode_dicom(deep, bits=12, syntax="jpeg-ls"),
        }.items():
            yield f"{copy} {name}", _corrupted(data, rng)
        raw = encode_dicom(deep, bits=12)
        for name, value in (("zeros", 0), ("ones", 0xFF), ("one value", 0x55)):
            part = rng.randrange(len(raw) // 3, len(raw) * 3 // 4)
            yield f"{copy} ends in {name}.dcm", raw[:part] + bytes([value]) * (len(raw) - part)


def _corrupted(data: bytes, rng: random.Random) -> bytes:
    """Change a twentieth of the bytes of the second and third quarter, keeping clear of markers: what is decoded all
    the same is visibly damaged.
    """
    changed = bytearray(data)
    start, end = len(data) // 4, len(data) * 3 // 4
    for _ in range((end - start) // 20):
        place = rng.randrange(start, end)
        if 0xFF not in changed[place - 1 : place + 2]:
            changed[place] = rng.randrange(0xFF)
    return bytes(changed)


def write_special_files(folder: Path) -> list[str]:
    """Write what is no plain file, as far as the system permits; return the names."""

    def bound(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            place = os.open(path.parent, os.O_RDONLY)
            try:
                one.bind(f"/proc/self/fd/{place}/{path.name}")  # whole paths may be too long for a socket
            finally:
                os.close(place)

    makers: dict[str, Callable[[Path], Any]] = {
        "a pipe.png": os.mkfifo,
        "a socket.png": bound,
        "a device.png": lambda path: os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5)),
        "to zeros.png": lambda path: path.symlink_to("/dev/zero"),
        "to noise.dcm": lambda path: path.symlink_to("/dev/urandom"),
        "to itself.png": lambda path: path.symlink_to(path.name),
        "to the terminal.png": lambda path: path.symlink_to("/dev/tty"),
        "to memory.png": lambda path: path.symlink_to("/proc/self/mem"),
    }
    made = []
    for name, make in makers.items():
        try:
            make(folder / name)
        except OSError:
            continue
        made.append(name)
    return made


def growing_file(path: Path, size: int = 2**29) -> subprocess.Popen[bytes]:
    """Begin a file that grows while it is read, by a process that is to be ended."""
    code = f"import sys; f = open(sys.argv[1], 'ab', 0)\nfor _ in range({size >> 16}): f.write(bytes(2**16))"
    path.write_bytes(encode_image(make_phantom(0).image))
    return subprocess.Popen([sys.executable, "-c", code, str(path)])


def radiograph(seed: int, *, sick: bool = True) -> NDArray[np.uint8]:
    """A sound radiograph."""
    return make_phantom(seed, sick=sick, size=(256, 224)).image
