"""What a file says about itself before any pixel is decoded: kind, size, depth, orientation, completeness.

Decoders return half an image for a truncated file and allocate whatever a header asks for, so the bytes are
checked first. This module holds what the formats share; ``png_header``, ``jpeg_header``, ``tiff_header`` and
``bmp_header`` each walk the structure of one format without touching pixels, at the cost of a few
microseconds. Anything wrong is a :class:`~histcxr.exceptions.RadiographError` with a reason.

The position of the DICOM prefix is from DICOM PS3.10, section 7.1. DICOM files carry far more than pixels;
:mod:`histcxr.dicom.radiograph` reads them.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, NoReturn

from histcxr.exceptions import RadiographError, Reason

MAX_PIXELS = 2**26
"""Largest accepted image: 8192 x 8192, several times a full-field detector at 100 micrometres."""

MAX_SIDE = 2**16 - 1
"""Longest accepted side, in pixels."""

MIN_SIDE = 32
"""Shortest accepted side of a radiograph, in pixels."""


class Header(NamedTuple):
    """What a file declares, checked for consistency with its own length.

    Attributes
    ----------
    format : str
        ``"PNG"``, ``"JPEG"``, ``"TIFF"``, ``"BMP"`` or ``"DICOM"``.
    width, height : int
        Declared size in pixels, before any turning.
    bits : int
        Declared bits per sample, 1 to 16.
    channels : int
        Samples per pixel as stored (a palette counts as 1).
    orientation : int
        EXIF orientation 1 to 8 that is still to be applied to the decoded pixels.
    turned : int
        Orientation 1 to 8 that the decoder applies by itself (TIFF).
    palette, alpha, inverted : bool
        Colours come from a table; the last channel is opacity; stored values run from white to black.
    fills_silently : bool
        What is missing at the end would be decoded as mid-grey, so the ending wants a look (sequential JPEG).
    packed : bytes or None
        The deflated rows, where the image is one bit deep and plain enough for :mod:`histcxr.files.bitmap`.
    stream : bytes or None
        Bytes to decode instead of the file's own: the same image without annexes that make decoders complain.
    dicom : object or None
        The :class:`~histcxr.dicom.pixels.DicomImage` of a DICOM file: what its tags say of its pixels.
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
    fills_silently: bool = False
    packed: bytes | None = None
    stream: bytes | None = None
    dicom: Any = None


def refuse(reason: Reason, path: str, detail: str = "") -> NoReturn:
    """Raise the error of an image that cannot be read."""
    raise RadiographError(reason, path, detail)


def check_size(width: int, height: int, path: str) -> None:
    """Refuse sizes that no radiograph has, before memory is asked for them."""
    if width < 1 or height < 1:
        refuse(Reason.DAMAGED, path, f"declares {width} x {height} pixels")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        refuse(
            Reason.TOO_LARGE, path, f"declares {width} x {height} pixels; the limit is {MAX_PIXELS:,} in all"
        )


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
    """Name the format of a file by its first bytes; ``""`` when no image format is recognised.

    Parameters
    ----------
    data : bytes
        The file's content, or at least its first 132 bytes.

    Returns
    -------
    str
        ``"PNG"``, ``"JPEG"``, ``"TIFF"``, ``"BMP"``, ``"DICOM"``, the name of a format that is known but not
        read, or ``""``.
    """
    if data[128:132] == b"DICM":  # first: the 128 bytes before it may be the head of a TIFF file
        return "DICOM"
    for signature, name in SIGNATURES:
        if data.startswith(signature):
            if name == "BMP" and not _looks_like_bmp(data):
                continue
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"heic", b"heix", b"mif1", b"msf1"):
        return "HEIF"
    return "" if dicom_start(data) is None else "DICOM"


def dicom_start(data: bytes) -> int | None:
    """Where the first data element of a DICOM file begins; None when nothing looks like one.

    Most files have 128 free bytes and the prefix "DICM"; old archives and careless exports leave out either or
    both. Without the prefix, the file must begin with a likely first element: of group 2 or 8, of a low
    number, with a known type or a small length.

    Parameters
    ----------
    data : bytes
        The file's content, or at least its first 140 bytes.
    """
    if data[128:132] == b"DICM":
        return 132
    if data[:4] == b"DICM":
        return 4
    if _looks_like_element(data[:8]):
        return 0
    return 128 if data[:128] == bytes(128) and _looks_like_element(data[128:136]) else None


def _looks_like_element(head: bytes) -> bool:
    if head[:2] in (b"\x02\x00", b"\x08\x00"):
        order: Literal["little", "big"] = "little"
    elif head[:2] == b"\x00\x08":
        order = "big"
    else:
        return False
    if len(head) < 8 or int.from_bytes(head[2:4], order) > 0x70:
        return False
    explicit = head[4:6] in (b"UL", b"OB", b"UI", b"CS", b"DA", b"TM", b"SH", b"LO")
    return explicit or 0 < int.from_bytes(head[4:8], order) <= 64


def _looks_like_bmp(data: bytes) -> bool:
    """Two letters are no signature (a text may begin with "BM"), so look at the second header's size."""
    return int.from_bytes(data[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124)


def exif_orientation(tiff: bytes) -> int:
    """Orientation 1 to 8 from an EXIF block (a small TIFF structure); 1 when absent or malformed."""
    order: Literal["little", "big"]
    if tiff[:4] == b"II*\x00":
        order = "little"
    elif tiff[:4] == b"MM\x00*":
        order = "big"
    else:
        return 1
    start = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[start : start + 2], order)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        if int.from_bytes(tiff[entry : entry + 2], order) == 274:
            value = int.from_bytes(tiff[entry + 8 : entry + 10], order)
            return value if 1 <= value <= 8 else 1
    return 1
