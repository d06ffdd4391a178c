"""From an image file's bytes to one grey channel: checks first, then OpenCV, then the colour check.

Radiographs and masks both come through here, so both are turned the same way. A further format plugs in with
one line in :data:`_READERS` (its signature is in :mod:`histcxr.files.headers`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import Reason
from histcxr.files import bmp_header, jpeg_header, png_header, tiff_header
from histcxr.files.headers import SIGNATURES, Header, refuse, sniff

if "OPENCV_LOG_LEVEL" not in os.environ:
    # Every failure becomes a reason here; OpenCV's own lines about it would only litter the terminal. The
    # level is one for the whole process, so it is set once and not around each call, where threads would undo
    # each other.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

Pixels = NDArray[Any]
"""Grey levels or channels as decoded: uint8 or uint16."""

COLOUR_TOLERANCE = 16
"""Channels may differ by so many of 256 levels: the rounding of JPEG's colour transform, a faint tint."""

COLOUR_SHARE = 0.005
"""Share of pixels that may differ by more: a side marker in colour is no photograph."""


_READERS: dict[str, Callable[[bytes, str], Header]] = {
    "PNG": png_header.read,
    "JPEG": jpeg_header.read,
    "TIFF": tiff_header.read,
    "BMP": bmp_header.read,
}


def read_header(data: bytes, path: str = "") -> Header:
    """Check an image file without decoding it.

    Parameters
    ----------
    data : bytes
        The file's content.
    path : str, optional
        Its name, for messages.

    Returns
    -------
    Header
        What the file declares.

    Raises
    ------
    RadiographError
        ``file_empty``, ``not_an_image``, ``unsupported`` (DICOM too: :mod:`histcxr.dicom` reads it),
        ``truncated``, ``damaged`` or ``too_large``.
    """
    if not data:
        refuse(Reason.FILE_EMPTY, path)
    name = sniff(data)
    reader = _READERS.get(name)
    if reader is not None:
        return reader(data, path)
    if name:
        refuse(Reason.UNSUPPORTED, path, f"a {name} file")
    if any(signature.startswith(data) for signature, _ in SIGNATURES):
        refuse(Reason.TRUNCATED, path, f"only {len(data)} bytes")
    return refuse(Reason.NOT_AN_IMAGE, path)


def decode_grey(data: bytes, header: Header, path: str = "") -> tuple[Pixels, float]:
    """Decode an image that :func:`read_header` has accepted into one grey channel, turned as EXIF says.

    Parameters
    ----------
    data : bytes
        The file's content.
    header : Header
        What :func:`read_header` returned for it.
    path : str, optional
        Its name, for messages.

    Returns
    -------
    pixels : uint8 or uint16 (height, width)
        As stored, except that samples under 8 bits are spread over 0 to 255. An alpha channel is dropped.
    coloured : float
        Share of pixels whose channels differ by more than :data:`COLOUR_TOLERANCE` levels.

    Raises
    ------
    RadiographError
        ``damaged``, ``unsupported`` or ``colour``.
    """
    pixels = decode_stored(data, header, cv2.IMREAD_UNCHANGED, path)
    coloured = 0.0
    if pixels.ndim == 3:
        pixels, coloured = grey_of(pixels, path)
    return _finish(pixels, header), coloured


def decode_brightness(data: bytes, header: Header, path: str = "") -> Pixels:
    """Decode an image like :func:`decode_grey`, but take any colour for its brightness.

    Returns
    -------
    uint8 or uint16 (height, width)

    Raises
    ------
    RadiographError
        ``damaged`` or ``unsupported``.
    """
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION  # without ANYCOLOR, this asks for grey
    return _finish(decode_stored(data, header, flags, path), header)


def decode_stored(data: bytes, header: Header, flags: int, path: str) -> Pixels:
    """Decode by OpenCV and check what came: pixels as stored, neither turned nor inverted nor made grey."""
    stream = np.frombuffer(data if header.stream is None else header.stream, dtype=np.uint8)
    try:
        pixels = cv2.imdecode(stream, flags)
    except cv2.error as error:
        refuse(Reason.DAMAGED, path, error.err or "the decoder refused it")
    if pixels is None:
        refuse(Reason.DAMAGED, path)
    if header.fills_silently:
        _check_ending(pixels, stream, path)
    if pixels.dtype != np.uint8 and pixels.dtype != np.uint16:
        refuse(Reason.UNSUPPORTED, path, f"samples of type {pixels.dtype}")
    return pixels


def _check_ending(pixels: Pixels, stream: NDArray[np.uint8], path: str) -> None:
    """Refuse a JPEG whose lower part is missing although its end is marked, as repaired files are.

    The decoder fills what is missing with 128 and says nothing. A picture that really ends in rows of 128 repeats
    one code to its end; the remains of a cut picture do not repeat.
    """
    if (pixels[-1] != 128).any():
        return
    tail = stream[-20:-3].tobytes()  # before the end marker and the byte that is filled up with ones
    repeats = any(tail[period:] == tail[:-period] for period in range(1, 9))
    restarts = any(0xD0 <= after <= 0xD7 for before, after in pairwise(tail) if before == 0xFF)
    if not repeats and not restarts:
        refuse(Reason.TRUNCATED, path, "the lower part of the image is missing")


def _finish(pixels: Pixels, header: Header) -> Pixels:
    """Lungs dark, head up: what the file declares and the decoder leaves to us."""
    if header.inverted:
        pixels = cv2.bitwise_not(pixels)
    if header.orientation != 1:
        pixels = _turned(pixels, header.orientation)
    return pixels


def grey_of(pixels: Pixels, path: str) -> tuple[Pixels, float]:
    """One channel of an image whose channels are (nearly) equal; alpha, the fourth, is dropped."""
    if pixels.shape[2] not in (3, 4):
        refuse(Reason.UNSUPPORTED, path, f"{pixels.shape[2]} channels")
    blue, green, red = (cv2.extractChannel(pixels, k) for k in range(3))
    largest = max(cv2.norm(blue, green, cv2.NORM_INF), cv2.norm(green, red, cv2.NORM_INF))
    if largest == 0:
        return green, 0.0
    tolerance = COLOUR_TOLERANCE * (257 if pixels.dtype == np.uint16 else 1)
    coloured = 0.0
    if largest > tolerance:
        spread = cv2.max(cv2.absdiff(blue, green), cv2.absdiff(green, red))
        coloured = float(np.count_nonzero(spread > tolerance)) / spread.size
        if coloured > COLOUR_SHARE:
            refuse(Reason.COLOUR, path, f"{coloured:.0%} of the pixels are coloured")
    code = cv2.COLOR_BGR2GRAY if pixels.shape[2] == 3 else cv2.COLOR_BGRA2GRAY
    return cv2.cvtColor(pixels, code), coloured


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation: 2 to 4 mirror or turn by half, 5 to 8 also swap rows and columns."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # after the transpose: 1 left-right, 0 up-down, -1 both
    if orientation in flips:
        pixels = cv2.flip(pixels, flips[orientation])
    return pixels
