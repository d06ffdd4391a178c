"""From a DICOM file's bytes to the few data elements that matter, without trusting any of them.

Only a fixed list of elements is read, as bytes, and their values leave this module as plain numbers and words. An error
says which element was at fault, never what it held: pydicom's messages quote values, so they go no further.

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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import RadiographError, Reason, how_to_install
from histcxr.files.budget import BUDGET
from histcxr.files.reading import check_parts, dicom_start, refuse

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
else:
    Dataset = Any  # pydicom is imported when the first DICOM file is met

MAX_TEXT = 2**10
"""Bytes of a text that are looked at, and of a list of character sets, for each of which pydicom makes an object."""

MAX_SEQUENCE = 2**22
"""Bytes of a sequence that is looked into: the largest VOI LUT takes a thirtieth of it."""

MISSING = f"to read DICOM files: {how_to_install('dicom')}"  # where a package is not installed
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"

PIXEL_DATA, FLOAT_PIXELS = 0x7FE00010, (0x7FE00008, 0x7FE00009)
UNDEFINED = 0xFFFFFFFF
"""Length of compressed pixel data."""
_BINARY = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}

KEYWORDS = (
    *("TransferSyntaxUID", "MediaStorageSOPClassUID"),
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

_FROM_PYDICOM = r"pydicom(\.|$)|histcxr\.dicom"  # where its warnings point at: its own lines, or ours
_IMPORTING = threading.Lock()


def parse(data: bytes, path: str = "", last: int = PIXEL_DATA) -> Dataset:
    """Find the elements of a DICOM file: :data:`KEYWORDS` and pixel data, as stored.

    Preamble, prefix and meta information may be missing, and so may anything behind ``last``, the tag of the last
    element that is wanted. RadiographError: ``unsupported`` (pydicom is not installed), ``truncated``, ``damaged``,
    ``too_large`` or ``too_costly``.

    pydicom tells the elements apart. The way in is our own, because ``dcmread`` inflates without a limit: of 3,379
    damaged files it hung on one, and its ``pixel_array`` showed 164 that are refused here.
    """
    try:
        _wanted()
    except ImportError:
        refuse(Reason.UNSUPPORTED, path, MISSING)
    import pydicom

    _hush()
    found, stream, start = pydicom.Dataset(), _Stream(data), dicom_start(data) or 0
    stream.seek(start)
    _add(found, stream, False, True, lambda tag, *_: tag >> 16 != 2, path)
    if start < len(data) <= stream.tell():
        refuse(Reason.TRUNCATED, path, "the file ends within its meta information")
    syntax = text(found, "TransferSyntaxUID")
    if syntax == DEFLATED:
        stream = _Stream(_inflated(stream.read(), path))
    start = stream.tell()
    head = stream.read(6)  # syntaxes lie: whether types are explicit, the first element shows
    stream.seek(start)
    implicit = re.fullmatch(rb"[A-Z]{2}", head[4:]) is None
    big = syntax == BIG_ENDIAN or (not syntax and head[:2] == b"\x00\x08")
    _add(found, stream, implicit, not big, lambda tag, *_: tag > last, path)
    pixels = raw(found, PIXEL_DATA)
    if pixels is not None:
        _check_rest(pixels, stream, path)
    return found


class _Stream(io.BytesIO):
    """A file that may be asked for so many parts: every element and every item takes a read, and becomes objects.

    Pixels that are not packed are not copied: their value is a memoryview.
    """

    _reads = 0
    _tag = _last = b""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._whole = memoryview(data)

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads = check_parts(self._reads + 1, "")
        if (size or 0) > MAX_TEXT and self._tag in _CHARACTER_SETS:
            refuse(Reason.TOO_COSTLY, "", f"more than {MAX_TEXT:,} bytes of character sets")
        if (
            size
            and size > 4
            and self._tag in _PIXELS
            and self._last[-4:] == size.to_bytes(4, _PIXELS[self._tag])
        ):
            start = self.tell()
            return self._whole[start : self.seek(start + size)]  # type: ignore[return-value]  # pydicom takes its length
        found = self._last = super().read(size)
        if size != 4:  # four more bytes of a head may hold the length
            self._tag = found[:4]
        return found


_PIXELS: dict[bytes, Literal["little", "big"]] = {b"\xe0\x7f\x10\x00": "little", b"\x7f\xe0\x00\x10": "big"}
_CHARACTER_SETS = (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")


def _check_rest(pixels: Any, stream: io.BytesIO, path: str) -> None:
    """Refuse pixel data that is followed by what is no element: a piece too many has moved the pixels before it."""
    stream.seek(pixels.value_tell + len(pixels.value) + (8 if pixels.length == UNDEFINED else 0))
    rest = stream.read()
    order: Literal["little", "big"] = "little" if pixels.is_little_endian else "big"
    if pixels.is_implicit_VR:
        known = int.from_bytes(rest[4:8], order) in (*range(len(rest)), UNDEFINED)
    else:
        known = re.fullmatch(rb"[A-Z]{2}", rest[4:6]) is not None
    element = len(rest) >= 8 and known and int.from_bytes(rest[:2], order) >= PIXEL_DATA >> 16
    padding = len(rest) < 2 or (len(rest) >= 8 and not rest.strip(b"\0"))
    if not element and not padding:
        refuse(Reason.DAMAGED, path, "what follows the pixel data is no data element")


def _add(
    dataset: Dataset, stream: io.BytesIO, implicit: bool, little: bool, stop: Callable[..., bool], path: str
) -> None:
    """Take the elements that are wanted out of a stream, up to where it ends or ``stop`` says."""
    from pydicom.filereader import data_element_generator

    failed: tuple[Reason, str] | None = None
    try:
        with contextlib.suppress(EOFError):  # what is missing is missed later
            for element in data_element_generator(stream, implicit, little, stop, specific_tags=_wanted()):
                dataset[element.tag] = element
    except RadiographError as error:
        failed = error.reason, error.detail
    except Exception:  # noqa: BLE001 - the refusal comes after this block, so that it drags nothing along
        failed = Reason.DAMAGED, "the data elements cannot be told apart"
    if failed is not None:
        refuse(failed[0], path, failed[1])


def text(dataset: Dataset, keyword: str) -> str:
    """The first value of a text element, upper case, without blanks around it; ``""`` where there is none.

    For decisions only: what is read here is compared with lists of known words and never handed on.
    """
    value = _stored(dataset, keyword)[0]
    return value[:MAX_TEXT].decode("latin-1").split("\\")[0].strip(" \0").upper()


def items(dataset: Dataset, keyword: str) -> list[Any]:
    """The items of a sequence; none where it is missing, damaged or of no use for its size."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_sequence

    stored = raw(dataset, tag_for_keyword(keyword) or 0)
    found: Any = None
    with contextlib.suppress(Exception):
        if stored is None:
            found = dataset[keyword].value if keyword in dataset else None
        elif stored.VR in (None, "SQ", "UN") and len(stored.value) <= MAX_SEQUENCE:
            how = stored.is_implicit_VR, stored.is_little_endian, len(stored.value), "latin-1"
            found = read_sequence(_Stream(stored.value), *how)
    return list(found) if type(found).__name__ == "Sequence" else []


def words_of(item: Any, keyword: str, count: int = 0) -> NDArray[Any]:
    """The numbers of ``LUTDescriptor`` or ``LUTData`` in a sequence item, uint16 (n,); none where they are missing.

    uint8 where there are just bytes enough for the ``count`` that is expected, made even by one more.
    """
    value, _, order = _stored(item, keyword)
    narrow = count and len(value) in (count, count + count % 2)
    kind = np.dtype("u1" if narrow else f"{order}u2")
    return np.frombuffer(value[: len(value) // kind.itemsize * kind.itemsize], kind)


def number(dataset: Dataset, keyword: str, path: str = "") -> float | None:
    """The first value of a numeric element; None where it is missing or empty, ``damaged`` where it is not finite."""
    stored, kind, order = _stored(dataset, keyword)
    if not stored or (kind not in _BINARY and not stored.strip(b" \0")):
        return None
    value = math.nan
    with contextlib.suppress(ValueError, struct.error):
        if kind in _BINARY:
            value = float(struct.unpack_from(order + _BINARY[kind], stored)[0])
        else:
            value = float(stored[:MAX_TEXT].decode("latin-1").split("\\")[0].strip(" \0"))
    return value if math.isfinite(value) else refuse(Reason.DAMAGED, path, f"{keyword} is not a number")


def whole(dataset: Dataset, keyword: str, default: int | None, path: str = "") -> int:
    """The value of an element that counts something; see :func:`number`. Without a default it must be there."""
    value = number(dataset, keyword, path)
    if value is None:
        return refuse(Reason.DAMAGED, path, f"{keyword} is missing") if default is None else default
    if value != int(value) or value < 0:
        refuse(Reason.DAMAGED, path, f"{keyword} is not a whole number")
    return int(value)


def _stored(dataset: Dataset, keyword: str) -> tuple[bytes, str, str]:
    """Bytes, type and byte order of an element as stored, none if missing; pydicom would log its value."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    found = raw(dataset, tag_for_keyword(keyword) or 0)
    if found is None:
        return b"", "", "<"
    kind = found.VR if found.VR and found.VR != "UN" else dictionary_VR(found.tag)
    return found.value, kind, "<" if found.is_little_endian else ">"


def raw(dataset: Dataset, tag: int) -> Any:
    """An element as it was found; None where there is none, an empty one, or a sequence instead."""
    from pydicom.dataelem import RawDataElement

    found: Any = None
    with contextlib.suppress(Exception):  # pydicom takes a closer look at empty elements
        found = dataset.get_item(tag) if tag in dataset else None
    return (
        found if isinstance(found, RawDataElement) and isinstance(found.value, bytes | memoryview) else None
    )


@functools.cache
def _wanted() -> list[int]:
    """The tags that are read; first imports pydicom whole, as threads would meet half imported modules."""
    with _IMPORTING:
        import pydicom.encaps
        import pydicom.filewriter  # noqa: F401
        from pydicom.datadict import tag_for_keyword
    return [PIXEL_DATA, *FLOAT_PIXELS, *(tag_for_keyword(keyword) or 0 for keyword in KEYWORDS)]


def _hush() -> None:
    """Filter pydicom's warnings, which show values, for good: an undone filter would undo other threads'."""
    if not any(getattr(found[3], "pattern", None) == _FROM_PYDICOM for found in warnings.filters):
        warnings.filterwarnings("ignore", module=_FROM_PYDICOM)


def _inflated(data: bytes, path: str) -> bytes:
    """The deflated part of a file, unpacked as far as is safe."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    unpacked = None
    with contextlib.suppress(zlib.error):
        unpacked = unpacker.decompress(data, BUDGET.inflated)
    if unpacked is None:
        refuse(Reason.DAMAGED, path, "the deflated data cannot be unpacked")
    if not unpacker.eof:
        if len(unpacked) >= BUDGET.inflated:
            refuse(Reason.TOO_LARGE, path, f"unpacks to more than {BUDGET.inflated:,} bytes")
        refuse(Reason.TRUNCATED, path, "the deflated data ends too early")
    if unpacker.unused_data.strip(b"\0"):
        refuse(Reason.DAMAGED, path, "the deflated data ends before the file does")
    return unpacked
