"""The pixels of a DICOM file: which bytes they are, the codec that unpacks them, and the levels they become.

JPEG of 8 bits goes the way of JPEG files (OpenCV); lossless and deeper JPEG to libjpeg-turbo by way of imagecodecs,
which reports damage where other decoders end the process; JPEG-LS and JPEG 2000 to CharLS and OpenJPEG by way of
pydicom's plugins; RLE to pydicom itself. None of them is under the GPL.

Source: DICOM PS3.5, sections 8 and A.4; PS3.3, C.7.6.3.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.dicom.codestream import MAX_PADDING, Codestream, check
from histcxr.dicom.dataset import MISSING, Elements, parse_errors, whole
from histcxr.exceptions import Reason
from histcxr.files import formats
from histcxr.files.decoding import Pixels, decode_stored
from histcxr.files.headers import refuse

# transfer syntax and plugin by which pydicom unpacks each kind
_PLUGINS = {
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", "pyjpegls"),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", "pylibjpeg"),
    "RLE": ("1.2.840.10008.1.2.5", "pydicom"),
}


@dataclass(frozen=True, slots=True)
class DicomImage:
    """One frame and all that is needed to turn it into grey levels; no element of the file beside that.

    Attributes
    ----------
    frame : bytes or Codestream
        Plain samples, or a checked compressed stream.
    rows, columns, samples : int
    planar : bool
        The channels of a colour image come one after the other.
    allocated, stored, shift : int
        Bits allocated and stored for a sample, and how far the stored ones are moved up.
    signed, big_endian, swapped : bool
        Two's complement; byte order; 8-bit samples in swapped pairs.
    ybr : bool
        The channels are brightness and two colour differences.
    table : uint8 (2**stored,)
        Grey level of each stored value.
    steps : tuple of str
        What decoding does, for the record.
    facts : dict
        What is kept of the tags.
    """

    frame: bytes | Codestream = field(repr=False)
    rows: int
    columns: int
    samples: int
    planar: bool
    allocated: int
    stored: int
    shift: int
    signed: bool
    big_endian: bool
    swapped: bool
    ybr: bool
    table: NDArray[np.uint8] = field(repr=False)
    steps: tuple[str, ...]
    facts: dict[str, str]


def frame_of(
    elements: Elements, shape: tuple[int, int, int], sample_bytes: int, path: str
) -> bytes | Codestream:
    """The bytes of the one frame to be judged, checked against the size in the tags.

    A file of several frames is used where Representative Frame Number names one of them.

    Parameters
    ----------
    elements : Elements
    shape : (rows, columns, samples)
        What the tags declare.
    sample_bytes : int
        Bytes allocated for a sample.
    path : str
        The file's name, for messages.

    Raises
    ------
    RadiographError
        ``several_frames``, ``truncated``, ``damaged`` or ``unsupported``.
    """
    if elements.pixels is None:
        if elements.other_pixels:
            refuse(Reason.UNSUPPORTED, path, "floating-point pixels")
        refuse(Reason.TRUNCATED, path, "no pixel data: the file ends before them")
    frames = whole(elements, "NumberOfFrames", 1, path) or 1
    chosen = whole(elements, "RepresentativeFrameNumber", 0, path)
    if frames > 1 and not 1 <= chosen <= frames:
        refuse(Reason.SEVERAL_FRAMES, path, f"{frames:,} frames")
    index = chosen - 1 if frames > 1 else 0
    rows, columns, samples = shape
    if elements.declared is None:
        return check(_unwrapped(elements.pixels, index, frames, path), *shape, sample_bytes, path)
    size = rows * columns * samples * sample_bytes
    expected, found = size * frames, len(elements.pixels)
    if found < min(expected, elements.declared):
        refuse(Reason.TRUNCATED, path, f"{found:,} bytes of pixel data, {expected:,} expected")
    if not expected <= found <= expected + MAX_PADDING:
        detail = f"{found:,} bytes of pixel data, where {columns} x {rows} pixels take {expected:,}"
        refuse(Reason.DAMAGED, path, detail)
    return elements.pixels[index * size : (index + 1) * size]


def _unwrapped(pixels: bytes, index: int, frames: int, path: str) -> bytes:
    """One frame out of a series of items."""
    from pydicom.encaps import get_frame

    frame = b""
    with contextlib.suppress(*parse_errors()):
        frame = get_frame(pixels, index, number_of_frames=frames)
    return frame or refuse(Reason.DAMAGED, path, "the compressed pixel data is not wrapped as it must be")


def levels_of(image: DicomImage, path: str = "") -> Pixels:
    """Decode a frame.

    Returns
    -------
    uint8 (height, width) or (height, width, 3)
        Grey levels, lungs dark; of a colour image its channels as OpenCV orders them, unchanged.

    Raises
    ------
    RadiographError
        ``damaged``, ``truncated`` or ``unsupported``.
    """
    if isinstance(image.frame, Codestream):
        pixels = _unpacked(image.frame, image, path)
        flat = pixels.shape[:2] == (image.rows, image.columns) and pixels.dtype in (np.uint8, np.uint16)
        if not flat or pixels.ndim != (2 if image.samples == 1 else 3):
            refuse(Reason.DAMAGED, path, "the decoder gave an image of another size")
    else:
        pixels = _plain(image.frame, image)
    if image.samples == 3:
        if pixels.dtype != np.uint8:
            refuse(Reason.UNSUPPORTED, path, "a colour image of more than 8 bits")
        if isinstance(image.frame, Codestream) and image.frame.kind == "JPEG":
            return pixels  # blue first already
        return cv2.cvtColor(pixels, cv2.COLOR_YUV2BGR if image.ybr else cv2.COLOR_RGB2BGR)
    if image.shift or image.stored < 8 * pixels.itemsize:  # what lies around the stored bits may be anything
        pixels = (pixels >> image.shift) & np.array(2**image.stored - 1, pixels.dtype)
    return image.table[pixels]


def _plain(frame: bytes, image: DicomImage) -> Pixels:
    order = ">" if image.big_endian else "<"
    pixels: Pixels = np.frombuffer(frame, f"{order}u{image.allocated // 8}")
    if image.swapped:
        padded = np.frombuffer(frame + b"\0" * (len(frame) % 2), "u1")
        pixels = padded.reshape(-1, 2)[:, ::-1].reshape(-1)[: len(frame)]
    shaped: Pixels = pixels.reshape(image.rows, image.columns, -1)
    if image.samples == 1:
        shaped = shaped[..., 0]
    elif image.planar:
        shaped = pixels.reshape(image.samples, image.rows, image.columns).transpose(1, 2, 0)
    return np.ascontiguousarray(shaped, shaped.dtype.newbyteorder("="))


def _unpacked(stream: Codestream, image: DicomImage, path: str) -> Pixels:
    if stream.kind == "JPEG":
        header = formats.read_jpeg(stream.data, path)
        return decode_stored(stream.data, header, cv2.IMREAD_UNCHANGED, path)
    name, pixels, missing = stream.kind.removesuffix(" deep"), None, False
    try:
        pixels = _by_turbo(stream.data) if stream.kind == "JPEG deep" else _by_pydicom(stream, image)
    except ImportError:
        missing = True
    except parse_errors():  # a codec's words may hold anything
        pass
    if missing:
        refuse(Reason.UNSUPPORTED, path, f"{name} inside; {MISSING}")
    if pixels is None:
        refuse(Reason.DAMAGED, path, f"the {name} decoder refused the pixel data")
    if stream.kind == "JPEG deep" and _fills(pixels, stream.data):
        refuse(Reason.TRUNCATED, path, "the lower part of the image is missing")
    return pixels.view(f"u{pixels.itemsize}") if pixels.dtype.kind == "i" else pixels


def _by_turbo(data: bytes) -> Any:
    from imagecodecs import jpeg8_decode

    return jpeg8_decode(data)


def _by_pydicom(stream: Codestream, image: DicomImage) -> Any:
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    syntax, plugin = _PLUGINS[stream.kind]
    decoder = get_decoder(syntax)
    if plugin not in decoder.available_plugins:
        raise ImportError(plugin)
    declared: dict[str, Any] = {
        "rows": image.rows,
        "columns": image.columns,
        "number_of_frames": 1,
        "samples_per_pixel": image.samples,
        "planar_configuration": int(image.planar),
        "photometric_interpretation": "MONOCHROME2" if image.samples == 1 else "RGB",
        "bits_allocated": image.allocated,
        "bits_stored": image.stored,
        "pixel_representation": int(image.signed),
        "pixel_keyword": "PixelData",
    }
    frame = encapsulate([stream.data])
    return decoder.as_array(frame, index=0, raw=True, decoding_plugin=plugin, **declared)[0]


def _fills(pixels: Pixels, data: bytes) -> bool:
    """Whether a lossless JPEG ends in a row of one value although its data does not repeat to the end.

    libjpeg goes on with the last value where data is missing, and says nothing. A row that really has one value is a
    short code, over and over.
    """
    if (pixels[-1] != pixels[-1].flat[0]).any():
        return False
    tail = data[-34:-3]  # before the end marker and the byte that is filled up with ones
    return not any(tail[period:] == tail[:-period] for period in range(1, 17))
