"""A file's bytes, read safely, and what they say of themselves: the format, and the facts that every header gives.

A folder from a hospital holds links that lead nowhere, pipes and files without permission: every way in which reading
fails becomes a reason. Opening a pipe would wait for ever, so files are opened without blocking and looked at first.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
from typing import Any, Literal, NamedTuple, NoReturn

from histcxr.exceptions import RadiographError, Reason
from histcxr.files import remote
from histcxr.files.budget import BUDGET

MIN_SIDE = 32
"""Shortest accepted side of a radiograph, in pixels."""

_OPEN_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):  # each where the system knows it
    _OPEN_FLAGS |= getattr(os, _name, 0)

_REASON_OF_ERRNO = {
    errno.ENOENT: Reason.NOT_FOUND,
    errno.ENOTDIR: Reason.NOT_FOUND,
    errno.ENAMETOOLONG: Reason.NOT_FOUND,
    errno.ELOOP: Reason.LINK_LOOP,
    errno.EACCES: Reason.PERMISSION,
    errno.EPERM: Reason.PERMISSION,
    errno.EISDIR: Reason.NOT_A_FILE,
    errno.ENXIO: Reason.NOT_A_FILE,  # a socket, or a device that is not there
    errno.ENODEV: Reason.NOT_A_FILE,
}


def reason_of(error: OSError) -> Reason:
    """The reason that an error stands for; of the disk or the network (``EIO``, ``ESTALE``): a damaged file."""
    return _REASON_OF_ERRNO.get(error.errno or 0, Reason.DAMAGED)


def detail_of(error: OSError) -> str:
    """What the operating system said, where the reason alone does not say it."""
    if error.errno in (errno.ENOENT, errno.EACCES, errno.ELOOP):
        return ""
    return error.strerror or str(error)


def kind_of(mode: int) -> str:
    """Name the kind of thing that a ``st_mode`` describes, for messages."""
    names = {
        stat.S_IFDIR: "folder",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
        stat.S_IFREG: "file",
    }
    return names.get(stat.S_IFMT(mode), "unknown kind of file")


def read_file(path: str | os.PathLike[str], most: int | None = None) -> bytes:
    """Read a regular file, at least one byte: whole, or its first ``most`` bytes (the system may give fewer).

    Symbolic links are followed; a URL is read by :func:`histcxr.files.remote.fetch`, with its errors.
    :class:`RadiographError` says ``not_found`` (also a link that leads nowhere), ``link_loop``, ``permission``,
    ``not_a_file`` (folder, pipe, socket, device), ``file_empty``, ``too_large`` or ``damaged`` (the disk failed).
    """
    name = os.fspath(path)
    if remote.is_url(name):
        url = remote.place_of(name)
        assert isinstance(url, remote.Url)
        return remote.fetch(url, most)
    try:
        descriptor = os.open(name, _OPEN_FLAGS)
    except OSError as error:
        raise RadiographError(reason_of(error), name, detail_of(error)) from error
    except ValueError as error:  # a NUL character: no file can have such a name
        raise RadiographError(Reason.NOT_FOUND, name, str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise RadiographError(Reason.NOT_A_FILE, name, f"a {kind_of(status.st_mode)}")
        size = status.st_size
        if size > BUDGET.file_bytes:
            raise RadiographError(
                Reason.TOO_LARGE, name, f"{size:,} bytes; the limit is {BUDGET.file_bytes:,}"
            )
        if most is not None and size > most:
            return os.read(descriptor, most)
        data = os.read(descriptor, size + 1)  # one byte more, so that one read also sees the end
        if len(data) != size:
            data = _read_on(descriptor, data, name)
    except OSError as error:
        raise RadiographError(reason_of(error), name, detail_of(error)) from error
    finally:
        os.close(descriptor)
    if not data:
        raise RadiographError(Reason.FILE_EMPTY, name)
    return data


def _read_on(descriptor: int, data: bytes, name: str) -> bytes:
    """Finish a read that gave fewer or more bytes than announced (network disks, growing files)."""
    parts, total = [data], len(data)
    while part := os.read(descriptor, 2**20):
        parts.append(part)
        total += len(part)
        if total > BUDGET.file_bytes:
            raise RadiographError(Reason.TOO_LARGE, name, f"more than {BUDGET.file_bytes:,} bytes")
    return b"".join(parts)


MAX_JSON_PARTS = 2**22
"""Most values of a JSON document; a saved model in the package has 0.1 million, Python takes up to 80 bytes for one."""


def parse_json(content: bytes) -> Any:
    """Parse JSON that somebody else may have written; ValueError where it is none, or would take too much memory.

    Its values are counted first: two bytes of text become up to eighty in memory. NaN and infinity are refused.
    """
    parts = sum(content.count(sign) for sign in (b",", b"[", b"{"))
    if parts > MAX_JSON_PARTS:
        raise ValueError(f"JSON of more than {MAX_JSON_PARTS:,} values")
    try:
        return json.loads(content, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deep") from error


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


class Header(NamedTuple):
    """What a file declares, checked for consistency with its own length.

    ``format`` is ``"PNG"``, ``"JPEG"``, ``"TIFF"``, ``"BMP"`` or ``"DICOM"``; ``width`` and ``height`` are in pixels,
    before any turning; ``bits`` (1 to 16) are of a sample, ``channels`` the samples of a pixel as stored (a palette
    counts as 1). ``orientation`` is the EXIF orientation, 1 to 8, still to be applied to the decoded pixels,
    ``turned`` one that the decoder applies by itself (TIFF). ``palette``: colours come from a table; ``alpha``: the
    last channel is opacity; ``inverted``: stored values run from white to black.

    ``second_look``: OpenCV passes over damage in this compression, so another decoder must agree (TIFF).
    ``stream``: bytes to decode instead of the file's own, the same image without annexes that make decoders complain.
    ``costly``: the encoding is rare and may take much, so it is decoded apart (:mod:`histcxr.files.apart`).
    ``dicom`` is the :class:`~histcxr.dicom.pixels.DicomImage` of a DICOM file: what its tags say of its pixels.
    """

    format: str
    width: int
    height: int
    bits: int
    channels: int
    orientation: int = 1
    turned: int = 1
    palette: bool = False
    alpha: bool = False
    inverted: bool = False
    second_look: bool = False
    costly: bool = False
    stream: bytes | None = None
    dicom: Any = None


def refuse(reason: Reason, path: str, detail: str = "") -> NoReturn:
    """Raise the error of an image that cannot be read."""
    raise RadiographError(reason, path, detail)


def check_size(width: int, height: int, path: str, pixel_bytes: int = 1) -> None:
    """Refuse sizes that no radiograph has, before memory is asked for them: ``pixel_bytes`` for each pixel."""
    if width < 1 or height < 1:
        refuse(Reason.DAMAGED, path, f"declares {width} x {height} pixels")
    if max(width, height) > BUDGET.side or width * height > BUDGET.pixels:
        detail = f"declares {width} x {height} pixels; the limit is {BUDGET.pixels:,} in all"
        refuse(Reason.TOO_LARGE, path, detail)
    if width * height * pixel_bytes > BUDGET.unpacked:
        detail = f"declares {width} x {height} pixels of {pixel_bytes} bytes; the limit is {BUDGET.unpacked:,} bytes"
        refuse(Reason.TOO_LARGE, path, detail)


def check_end(end: int, size: int, path: str) -> None:
    """Refuse a file that is shorter than it says."""
    if end > size:
        refuse(Reason.TRUNCATED, path, f"{size:,} bytes, at least {end:,} expected")


def check_parts(parts: int, path: str) -> int:
    """Return a number of parts; refuse a file of more than any radiograph has."""
    if parts > BUDGET.parts:
        refuse(Reason.TOO_COSTLY, path, f"more than {BUDGET.parts:,} parts")
    return parts


SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"BM", "BMP"),
    (b"II+\x00", "BigTIFF"),
    (b"MM\x00+", "BigTIFF"),
    (b"GIF8", "GIF"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"\x93NUMPY", "NumPy array"),
)


def sniff(data: bytes) -> str:
    """Name the format of a file by its first bytes (at least 140 of them, or all).

    ``"PNG"``, ``"JPEG"``, ``"TIFF"``, ``"BMP"``, ``"DICOM"``, a format that is known but not read, or ``""``.
    """
    if data[128:132] == b"DICM":  # first: the 128 bytes before it may be the head of a TIFF file
        return "DICOM"
    for signature, name in SIGNATURES:
        # Two letters are no signature (a text may begin with "BM"), so look at the second header's size.
        if data.startswith(signature) and (name != "BMP" or data[14:18] in _BMP_HEADER_SIZES):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"heic", b"heix", b"mif1", b"msf1"):
        return "HEIF"
    return "" if dicom_start(data) is None else "DICOM"


_BMP_HEADER_SIZES = {size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124)}


def dicom_start(data: bytes) -> int | None:
    """Where the first data element of a DICOM file begins; None when nothing looks like one.

    Most files have 128 free bytes and the prefix "DICM" (DICOM PS3.10, section 7.1); old archives and careless
    exports leave out either or both. Without the prefix, the file must begin with a likely first element: of
    group 2 or 8, of a low number, with a known type or a small length. ``data`` is the file, or at least its
    first 140 bytes.
    """
    if data[128:132] == b"DICM":
        return 132
    if data[:4] == b"DICM":
        return 4
    if _looks_like_element(data[:8]):
        return 0
    return 128 if data[:128] == bytes(128) and _looks_like_element(data[128:136]) else None


def _looks_like_element(head: bytes) -> bool:
    order: Literal["little", "big"] = "big" if head[:1] == b"\x00" else "little"
    if len(head) < 8 or head[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    if int.from_bytes(head[2:4], order) > 0x70:
        return False
    explicit = head[4:6] in (b"UL", b"OB", b"UI", b"CS", b"DA", b"TM", b"SH", b"LO")
    return explicit or 0 < int.from_bytes(head[4:8], order) <= 64


def exif_orientation(tiff: bytes) -> int:
    """Orientation 1 to 8 from an EXIF block (a small TIFF structure); 1 when absent or malformed."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    try:
        if order is not None:
            start = struct.unpack_from(f"{order}I", tiff, 4)[0]
            for entry in range(struct.unpack_from(f"{order}H", tiff, start)[0]):
                tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
                if tag == 274:
                    return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
