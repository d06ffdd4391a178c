"""From a DICOM file's bytes to the few data elements that matter, without trusting any of them.

Only a fixed list of elements is ever read, and their values leave this module as plain numbers and words. Names, dates
and free text therefore cannot reach a result, and an error says which element was at fault, never what it held:
pydicom's own messages quote values, so they are dropped with the exception.

Source: DICOM PS3.10, section 7 (file format); PS3.5, sections 7 and A (encoding, deflate).
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import re
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import Reason
from histcxr.files.headers import dicom_start, refuse

MAX_INFLATED = 2**27 + 2**24
"""A deflated file may unpack to so many bytes: the largest image accepted at 16 bits, and its tags."""

MISSING = "to read DICOM files: pip install 'histcxr[dicom]'"
"""What to do where a package for DICOM files is not installed."""

DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"

PIXEL_DATA = 0x7FE00010
_OTHER_PIXELS = (0x7FE00008, 0x7FE00009)  # of floating point
_UNDEFINED = 0xFFFFFFFF
_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}

KEYWORDS = (
    *("SOPClassUID", "Modality", "PresentationIntentType", "BodyPartExamined", "AnatomicRegionSequence"),
    *("ViewPosition", "ViewCodeSequence", "PatientOrientation", "SeriesDescription", "ProtocolName"),
    *("Laterality", "ImageLaterality", "PatientSex", "PatientAge", "PatientBirthDate", "StudyDate"),
    *("PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames", "PixelRepresentation"),
    *("RepresentativeFrameNumber", "BitsAllocated", "BitsStored", "HighBit", "PhotometricInterpretation"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "VOILUTFunction"),
    *("WindowCenter", "WindowWidth", "PresentationLUTShape"),
)
"""The elements that are read, by pydicom's keywords; all others are passed over unread."""

# Where pydicom's warnings point at: its own lines, or ours that called it.
_WARNERS = r"pydicom(\.|$)|histcxr\.data\.dicom"

_IMPORTING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of one file.

    Attributes
    ----------
    syntax : str
        UID of the transfer syntax, ``""`` where the file names none.
    media_class : str
        UID of the SOP class that the file's meta information names.
    pixels : bytes or None
        The value of Pixel Data as stored (compressed: a series of items); None where there is none.
    declared : int or None
        Length that Pixel Data declares in bytes; None where it is encapsulated.
    big_endian, words : bool
        Byte order of numbers in Pixel Data; whether its bytes are stored as 16-bit words.
    other_pixels : bool
        Whether there are floating-point pixels instead.
    """

    syntax: str
    media_class: str = field(repr=False)
    dataset: Any = field(repr=False)
    pixels: bytes | None = field(repr=False)
    declared: int | None = None
    big_endian: bool = False
    words: bool = False
    other_pixels: bool = False


@functools.cache
def parse_errors() -> tuple[type[Exception], ...]:
    """What pydicom and the codecs raise on damaged input; ``RuntimeError`` covers too deep a nesting."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    python = (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError)
    return (
        *python,
        RuntimeError,
        TypeError,
        ValueError,
        struct.error,
        BytesLengthException,
        InvalidDicomError,
    )


def parse(data: bytes, path: str = "", last: int = PIXEL_DATA) -> Elements:
    """Find the elements of a DICOM file.

    Parameters
    ----------
    data : bytes
        The file's content; preamble, prefix and meta information may be missing.
    path : str, optional
        Its name, for messages.
    last : int, optional
        Tag of the last element that is wanted: what stands behind it need not be there.

    Raises
    ------
    RadiographError
        ``unsupported`` (pydicom is not installed), ``truncated``, ``damaged`` or ``too_large``.
    """
    try:
        _import_pydicom()
        from pydicom.datadict import tag_for_keyword
        from pydicom.dataset import Dataset
        from pydicom.filereader import data_element_generator
    except ImportError:
        refuse(Reason.UNSUPPORTED, path, MISSING)
    _hush()
    position, syntax, media_class = _meta(data, dicom_start(data) or 0, path)
    stream = io.BytesIO(data)
    if syntax == DEFLATED:
        stream, position = io.BytesIO(_inflated(data, position, path)), 0
    implicit, big = _encoding(stream.getbuffer()[position : position + 6].tobytes(), syntax)
    stream.seek(position)
    wanted = [tag for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]
    dataset, failed, ended = Dataset(), False, False
    try:
        for element in data_element_generator(
            stream,
            implicit,
            not big,
            stop_when=lambda tag, vr, length: int(tag) > last,
            specific_tags=[*wanted, PIXEL_DATA, *_OTHER_PIXELS],
        ):
            dataset[element.tag] = element
    except EOFError:
        ended = True
    except parse_errors():  # what they say may quote the patient; the refusal comes after, outside this block
        failed = True
    if failed:
        refuse(Reason.DAMAGED, path, "the data elements cannot be told apart")
    raw = _raw(dataset, PIXEL_DATA)
    other = any(tag in dataset for tag in _OTHER_PIXELS)
    if raw is None or ended:
        return Elements(syntax, media_class, dataset, None, big_endian=big, other_pixels=other)
    declared = None if raw.length == _UNDEFINED else raw.length
    return Elements(syntax, media_class, dataset, raw.value, declared, big, raw.VR != "OB", other)


def text(elements: Elements, keyword: str) -> str:
    """The first value of a text element, upper case, without blanks around it; ``""`` where there is none.

    For decisions only: what is read here is compared with lists of known words and never handed on.
    """
    found = texts(elements.dataset, keyword)
    return found[0] if found else ""


def texts(dataset: Any, keyword: str) -> list[str]:
    """All values of a text element, as :func:`text`; also of an item of a sequence."""
    value, _, _ = _stored(dataset, keyword)
    return [part.strip(" \0").upper() for part in value.decode("latin-1").split("\\")] if value else []


def items(dataset: Any, keyword: str) -> list[Any]:
    """The items of a sequence; none where it is missing or damaged."""
    found: Any = None
    with contextlib.suppress(*parse_errors()):
        found = dataset[keyword].value if keyword in dataset else None
    return list(found) if type(found).__name__ == "Sequence" else []


def words_of(item: Any, keyword: str, count: int = 0) -> NDArray[Any]:
    """The words of a LUT in a sequence item.

    Parameters
    ----------
    item : Dataset
    keyword : str
        ``LUTDescriptor`` or ``LUTData``.
    count : int, optional
        How many are expected: data of as many bytes (and one to make them even) holds 8-bit entries.

    Returns
    -------
    uint16 or uint8 (n,)
        None (n = 0) where they are missing.
    """
    value, _, order = _stored(item, keyword)
    narrow = count and len(value) in (count, count + count % 2)
    kind = np.dtype("u1" if narrow else f"{order}u2")
    return np.frombuffer(value[: len(value) // kind.itemsize * kind.itemsize], kind)


def number(elements: Elements, keyword: str, path: str = "") -> float | None:
    """The first value of a numeric element; None where it is missing or empty.

    Raises
    ------
    RadiographError
        ``damaged``, when the element holds anything but a finite number.
    """
    stored, kind, order = _stored(elements.dataset, keyword)
    if not stored.strip(b" \0") and kind not in _BINARY:
        return None
    value: float | None = math.nan
    with contextlib.suppress(ValueError, struct.error):
        if kind in _BINARY:
            value = float(struct.unpack_from(order + _BINARY[kind], stored)[0]) if stored else None
        else:
            value = float(stored.decode("latin-1").split("\\")[0].strip(" \0") or "nan")
    if value is not None and not math.isfinite(value):
        refuse(Reason.DAMAGED, path, f"{keyword} is not a number")
    return value


def whole(elements: Elements, keyword: str, default: int | None, path: str = "") -> int:
    """The value of an element that counts something; see :func:`number`. Without a default it must be there."""
    value = number(elements, keyword, path)
    if value is None:
        return refuse(Reason.DAMAGED, path, f"{keyword} is missing") if default is None else default
    if value != int(value) or value < 0:
        refuse(Reason.DAMAGED, path, f"{keyword} is not a whole number")
    return int(value)


def _stored(dataset: Any, keyword: str) -> tuple[bytes, str, str]:
    """Bytes, type and byte order of an element as stored; no bytes where there is none.

    pydicom would turn them into values, and warn and log on the way with the value in the message.
    """
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    raw = _raw(dataset, tag_for_keyword(keyword) or 0)
    if raw is None:
        return b"", "", "<"
    kind = raw.VR if raw.VR and raw.VR != "UN" else dictionary_VR(raw.tag)
    return raw.value, kind, "<" if raw.is_little_endian else ">"


def _raw(dataset: Any, tag: int) -> Any:
    """An element as it was found; None where there is none, an empty one, or a sequence instead."""
    from pydicom.dataelem import RawDataElement

    found: Any = None
    with contextlib.suppress(*parse_errors()):  # pydicom takes a closer look at empty elements
        found = dataset.get_item(tag) if tag in dataset else None
    return found if isinstance(found, RawDataElement) and isinstance(found.value, bytes) else None


@functools.cache
def _import_pydicom() -> None:
    """Import pydicom whole before anything uses a part of it.

    Its modules import each other. Threads that begin with different ones, as those of a triage do, would meet half
    imported modules, and every DICOM file of the run would pass for damaged.
    """
    with _IMPORTING:
        import pydicom.encaps
        import pydicom.filewriter
        import pydicom.pixels  # noqa: F401


def _hush() -> None:
    """Let pydicom not warn of what is decided here, and of values that nobody may see.

    A filter for its modules alone, once for the process: setting and undoing one around each file would be
    undone by other threads.
    """
    for _, _, _, module, _ in warnings.filters:
        if getattr(module, "pattern", None) == _WARNERS:
            return
    warnings.filterwarnings("ignore", module=_WARNERS)


def _meta(data: bytes, position: int, path: str) -> tuple[int, str, str]:
    """End of the file meta information (group 2, always little endian), transfer syntax, SOP class."""
    found = {0x10: "", 0x02: ""}
    while data[position : position + 2] == b"\x02\x00":
        element = int.from_bytes(data[position + 2 : position + 4], "little")
        kind = data[position + 4 : position + 6]
        if kind in (b"OB", b"UN"):
            start, length = position + 12, int.from_bytes(data[position + 8 : position + 12], "little")
        elif re.fullmatch(rb"[A-Z]{2}", kind):
            start, length = position + 8, int.from_bytes(data[position + 6 : position + 8], "little")
        else:
            start, length = position + 8, int.from_bytes(data[position + 4 : position + 8], "little")
        position = start + length
        if position > len(data):
            refuse(Reason.TRUNCATED, path, "the file ends within its meta information")
        if element in found:
            found[element] = data[start:position].decode("ascii", "replace").strip(" \0")
    return position, found[0x10], found[0x02]


def _inflated(data: bytes, start: int, path: str) -> bytes:
    """The deflated part of a file, unpacked as far as is safe."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    unpacked = None
    with contextlib.suppress(zlib.error):
        unpacked = unpacker.decompress(memoryview(data)[start:], MAX_INFLATED)
    if unpacked is None:
        refuse(Reason.DAMAGED, path, "the deflated data cannot be unpacked")
    if not unpacker.eof:
        if len(unpacked) >= MAX_INFLATED:
            refuse(Reason.TOO_LARGE, path, f"unpacks to more than {MAX_INFLATED:,} bytes")
        refuse(Reason.TRUNCATED, path, "the deflated data ends too early")
    return unpacked


def _encoding(head: bytes, syntax: str) -> tuple[bool, bool]:
    """Whether types are implicit, as the first element shows (syntaxes lie), and numbers big-endian."""
    big = syntax == BIG_ENDIAN or (not syntax and head[:2] == b"\x00\x08")
    return re.fullmatch(rb"[A-Z]{2}", head[4:6]) is None, big
