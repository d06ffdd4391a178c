"""From an image file's checked bytes to one grey channel; what a decoder complains of is refused.

JPEG goes through simplejpeg (libjpeg-turbo), which hands on each warning where OpenCV prints it and goes on; their
pixels are the same (9,348 of 9,348 radiographs), in 0.7 of the time. All else goes through OpenCV, whose messages can
be muted. Radiographs and masks both come through here, so both are turned the same way.

Who needs a small copy gets one that was made on the way: by libjpeg out of fewer coefficients, or by halves (one pass
of OpenCV over the pixels as stored, 0.6 ms for 2,000 x 2,000, where one step to the end takes 9). It keeps twice the
side asked for, or nearly so, for the last step.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from histcxr.exceptions import Reason
from histcxr.files.apart import apart
from histcxr.files.damage import check_pixels
from histcxr.files.reading import Header, refuse

# Every failure becomes a reason here; the libraries' own lines about it would only litter the terminal. Set once and
# not around each call, where threads would undo each other.
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")

Pixels = NDArray[Any]
"""Grey levels or channels as decoded: uint8 or uint16."""

JPEG_SHARE = 1.0
"""A JPEG is decoded to at least so many times the side that is wanted."""

COLOUR_TOLERANCE = 16
"""Channels may differ by so many of 256 levels: the rounding of JPEG's colour transform, a faint tint."""

COLOUR_SHARE = 0.005
"""Share of pixels that may differ by more: a side marker in colour is no photograph."""


def decode_grey(data: bytes, header: Header, path: str = "", side: int | None = None) -> tuple[Pixels, float]:
    """Decode an image into one grey channel, turned as EXIF says; ``path`` is its name, for messages.

    Where only a longer side of ``side`` pixels is needed, a much larger image is averaged on the way: see
    :func:`reduced`.

    The pixels, uint8 or uint16 (height, width), are as stored, except that samples under 8 bits are spread over 0 to
    255; an alpha channel is dropped. With them comes the share of pixels whose channels differ by more than
    :data:`COLOUR_TOLERANCE` levels. RadiographError: ``damaged``, ``unsupported`` or ``colour``.
    """
    pixels = decode_stored(data, header, path, side=side)
    coloured = 0.0
    if pixels.ndim == 3:
        pixels, coloured = grey_of(pixels, path)
    check_pixels(pixels, path, shrunk=round(max(header.height, header.width) / max(pixels.shape)))
    return _finish(pixels, header), coloured


def decode_brightness(data: bytes, header: Header, path: str = "") -> Pixels:
    """Decode an image like :func:`decode_grey`, but take any colour for its brightness.

    Returns uint8 or uint16 (height, width); raises ``damaged`` or ``unsupported``.
    """
    return _finish(decode_stored(data, header, path, grey=True), header)


@apart(lambda data, header, path, *, grey=False, side=None: header.costly)
def decode_stored(
    data: bytes, header: Header, path: str, *, grey: bool = False, side: int | None = None
) -> Pixels:
    """Decode and check what came: pixels as stored, neither turned nor inverted; colours made brightness if ``grey``.

    With ``side`` they are :func:`reduced`, and damage is looked for before.

    A costly file is decoded in another process: all that enters is data, and all that leaves the pixels.
    RadiographError: ``damaged``, wherever the decoder complained, or ``unsupported``.
    """
    content = data if header.stream is None else header.stream
    if header.format == "JPEG":
        return reduced(_decode_jpeg(content, header, header.channels == 1 or grey, side, path), side)
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION if grey else cv2.IMREAD_UNCHANGED
    try:
        pixels = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags)
    except cv2.error as error:
        refuse(Reason.DAMAGED, path, error.err or "the decoder refused it")
    if pixels is None:
        refuse(Reason.DAMAGED, path)
    if header.second_look:
        _look_again(data, path)
    if pixels.dtype != np.uint8 and pixels.dtype != np.uint16:
        refuse(Reason.UNSUPPORTED, path, f"samples of type {pixels.dtype}")
    if is_large(pixels, side):
        check_pixels(pixels if pixels.ndim == 2 else pixels[..., 1], path)
    return reduced(pixels, side)


def is_large(pixels: Pixels, side: int | None) -> bool:
    """Tell whether half an image (height, width[, channels]) is still twice as long as ``side``."""
    return side is not None and max(pixels.shape[:2]) >= 4 * side and min(pixels.shape[:2]) > 1


def reduced(pixels: Pixels, side: int | None) -> Pixels:
    """Halve an image (height, width[, channels]), each pixel the mean of four, while it stays twice ``side`` long.

    An odd last row or column is left out.
    """
    turned = False
    while is_large(pixels, side):
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        pixels = pixels[: 2 * height, : 2 * width]
        # Means are rounded up by an eighth of a level, on average: turned, the next ones are rounded down.
        pixels = cv2.bitwise_not(pixels) if turned else pixels
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        pixels = cv2.bitwise_not(pixels) if turned else pixels
        turned = not turned
    return pixels


def _decode_jpeg(content: bytes, header: Header, grey: bool, side: int | None, path: str) -> Pixels:
    """Decode a JPEG; whatever libjpeg warns of, such as bytes too few or too many for the pixels, is damage.

    With ``side``, at an eighth, a quarter or half of its size where that is enough: all bytes are unpacked even so.
    """
    eighths = 8
    while (
        side is not None
        and eighths > 1
        and max(header.width, header.height) * eighths >= 16 * JPEG_SHARE * side
    ):
        eighths //= 2
    least = -(-header.height * eighths // 8), -(-header.width * eighths // 8)
    colours = "GRAY" if grey else "BGR"
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(content, colours, False, False, *least, strict=True)
    except ValueError as error:
        refuse(Reason.DAMAGED, path, str(error))
    return pixels[..., 0] if grey else pixels


def _look_again(data: bytes, path: str) -> None:
    """Refuse a TIFF that Pillow cannot read to its end: of 4,000 mutated, 2.8 % (not 6.3 %) pass visibly damaged."""
    from PIL import Image, UnidentifiedImageError  # only such files need it

    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            image.load()
    except UnidentifiedImageError:  # a kind that only OpenCV knows, such as most of 12 bits
        return
    except Exception as error:  # noqa: BLE001 - whatever odd tags make it raise
        refuse(Reason.DAMAGED, path, str(error))


def _finish(pixels: Pixels, header: Header) -> Pixels:
    """Lungs dark, head up: what the file declares and the decoder leaves to us."""
    if header.inverted:
        pixels = cv2.bitwise_not(pixels)
    if header.orientation >= 5:
        pixels = cv2.transpose(pixels)
    if header.orientation in _FLIPS:
        pixels = cv2.flip(pixels, _FLIPS[header.orientation])
    return pixels


_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
"""What an EXIF orientation asks for, from 5 on after a transpose: 1 left-right, 0 up-down, -1 both."""


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


_lock = threading.Lock()
_depth = 0
_undo: list[contextlib.ExitStack] = []


@contextlib.contextmanager
def muted_decoders() -> Iterator[None]:
    """Drop what C libraries write to the terminal, while Python's own messages still get there.

    libjpeg and libpng report damage on file descriptor 2 and offer no other way through OpenCV. The descriptor
    belongs to the whole process, so this is for programs, around a whole run, and not for single calls in a
    library. Nested and concurrent uses share one redirection. Handlers that kept an older ``sys.stderr`` are
    silenced too.
    """
    global _depth
    with _lock:
        if _depth == 0:
            _undo.append(_redirect())
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _undo.pop().close()


def _redirect() -> contextlib.ExitStack:
    """Send descriptor 2 to nowhere and ``sys.stderr`` to where descriptor 2 led; the stack's ``close`` undoes it."""
    stack = contextlib.ExitStack()
    try:
        saved = os.dup(2)
    except OSError:  # closed already: nothing can be printed
        return stack
    stack.callback(os.close, saved)
    before = sys.stderr
    try:
        direct = before is not None and before.fileno() == 2
    except (OSError, ValueError):  # replaced by something that is no file
        direct = False
    if direct:
        before.flush()
        sys.stderr = stack.enter_context(  # the stack is the context manager
            open(  # noqa: SIM115
                saved, "w", buffering=1, encoding=before.encoding, errors=before.errors, closefd=False
            )
        )
        stack.callback(setattr, sys, "stderr", before)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    stack.callback(os.dup2, saved, 2)
    return stack
