"""Radiographs: a file's bytes in, uint8 grey levels out, and a record of what was done to them.

Equal tissue must fall into equal bins, so depths are reduced by the *declared* range (16 bits: the upper
byte) and never by an image's own minimum or maximum.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import RadiographError, Reason
from histcxr.files.decoding import decode_grey, grey_of, reduced
from histcxr.files.formats import read_header
from histcxr.files.reading import MIN_SIDE, Header, read_file, sniff

MIN_LUNG_CONTRAST = 16
"""Fewest grey levels between the darkest and the brightest lung pixel of an image that can be judged."""

WORKING_SIDE = 224
"""Longer side, in pixels, of the working image: the copy of a radiograph in which everything is found and counted."""

MOST_DECODED = 1 << 25
"""Pixels that all threads together decode at a time; a larger image is decoded by itself."""

_decoding = threading.Condition()
_decoded = 0


@contextlib.contextmanager
def room_for(n_pixels: int) -> Iterator[None]:
    """Wait until an image of so many pixels may be decoded beside those that other threads decode now."""
    global _decoded
    with _decoding:
        _decoding.wait_for(lambda: not _decoded or _decoded + n_pixels <= MOST_DECODED)
        _decoded += n_pixels
    try:
        yield
    finally:
        with _decoding:
            _decoded -= n_pixels
            _decoding.notify_all()


def working_shape(shape: tuple[int, int], side: int = WORKING_SIDE) -> tuple[int, int]:
    """Return height and width of the working image of a radiograph of this height and width."""
    share = min(1.0, side / max(shape))
    return max(1, round(shape[0] * share)), max(1, round(shape[1] * share))


def working_image(pixels: NDArray[np.uint8], side: int = WORKING_SIDE) -> NDArray[np.uint8]:
    """Average a radiograph, uint8 (height, width), down to a longer side of ``side`` pixels; a small one stays.

    Scanners and archives store the same lungs in 200 and in 3,000 pixels; noise, and so the histogram's spread, depends
    on it. In the working image it does not.
    """
    return _averaged(reduced(pixels, side), working_shape((pixels.shape[0], pixels.shape[1]), side))


def _averaged(pixels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Average an image to height and width."""
    if pixels.shape == shape:
        return pixels
    return np.asarray(cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One radiograph, lungs dark: ``pixels``, uint8 (height, width), and ``metadata``.

    Metadata are ``format``, ``bits`` and ``channels`` as declared, ``width`` and ``height`` as stored (and turned), and
    ``steps``, what was done on the way, e.g. ``("16 to 8 bits", "alpha dropped")``. Of a DICOM file also ``modality``,
    ``view``, ``laterality``, ``sex``, ``age_group``, ``photometric`` and ``transfer_syntax``, each from a closed list
    of words; no name, number, date or free text.
    """

    pixels: NDArray[np.uint8]
    metadata: dict[str, Any] = field(default_factory=dict)


def read_radiograph(path: str | os.PathLike[str], *, side: int | None = None) -> Radiograph:
    """Read a radiograph from a PNG, JPEG, TIFF, BMP or DICOM file, known by its content and not by its name.

    ``side`` and RadiographError as :func:`~histcxr.files.reading.read_file` and :func:`decode_radiograph`.
    """
    return decode_radiograph(read_file(path), path, side=side)


def decode_radiograph(
    data: bytes, path: str | os.PathLike[str] = "", *, side: int | None = None
) -> Radiograph:
    """Decode a radiograph from the bytes of its file; ``path`` is for messages.

    With ``side`` it comes as :func:`working_image` makes it, or nearly so, without decoding all of a large one.

    Grey images and colour images with (nearly) equal channels are accepted, at 1 to 16 bits; an alpha channel is
    dropped; an EXIF orientation is applied. DICOM files pass through their modality and VOI transformations, see
    :mod:`histcxr.dicom.radiograph`. Everything done is recorded in the metadata.

    RadiographError: ``file_empty``, ``not_an_image``, ``unsupported``, ``truncated``, ``damaged``, ``too_large``,
    ``too_small`` or ``colour``; of a DICOM file also ``modality``, ``body_part``, ``view`` or ``several_frames``.
    """
    name = os.fspath(path)
    header = read_any_header(data, name)
    if header.width < MIN_SIDE or header.height < MIN_SIDE:
        detail = f"{header.width} x {header.height} pixels; at least {MIN_SIDE} x {MIN_SIDE} are needed"
        raise RadiographError(Reason.TOO_SMALL, name, detail)
    with room_for(header.width * header.height):
        pixels, coloured = _decode_any(data, header, name, side)
    steps = []
    if header.palette:
        steps.append("palette applied")
    if header.alpha:
        steps.append("alpha dropped")
    if coloured:
        steps.append(f"{coloured:.2%} coloured pixels made grey")
    if header.inverted:
        steps.append("inverted")
    if header.orientation != 1 or header.turned != 1:
        steps.append(f"turned by orientation {max(header.orientation, header.turned)}")
    if header.dicom is not None:
        steps.extend(header.dicom.steps)
    if pixels.dtype == np.uint16:
        high = 1 if sys.byteorder == "little" else 0
        pixels = np.ascontiguousarray(pixels.view(np.uint8)[:, high::2])  # without a copy of 16 bits
        steps.append("16 to 8 bits")
    turned = max(header.orientation, header.turned) >= 5
    height, width = (header.width, header.height) if turned else (header.height, header.width)
    if side is not None and max(height, width) > side:
        pixels = _averaged(pixels, working_shape((height, width), side))
        steps.append(f"averaged to {pixels.shape[1]} x {pixels.shape[0]}")
    metadata = {
        "format": header.format,
        "bits": header.bits,
        "channels": header.channels,
        "width": width,
        "height": height,
        "steps": tuple(steps),
    }
    if header.dicom is not None:
        metadata.update(header.dicom.facts)
    return Radiograph(pixels, metadata)


def read_any_header(data: bytes, path: str = "") -> Header:
    """Check an image file of any format, DICOM included, without decoding it.

    RadiographError as :func:`~histcxr.files.formats.read_header` and :func:`~histcxr.dicom.radiograph.read`.
    """
    if sniff(data) != "DICOM":
        return read_header(data, path)
    from histcxr.dicom.radiograph import read  # with it comes pydicom, which only DICOM files need

    return read(data, path)


def _decode_any(data: bytes, header: Header, path: str, side: int | None) -> tuple[NDArray[Any], float]:
    """Return grey levels as decoded, reduced to ``side`` or nearly so, and the share of coloured pixels."""
    if header.dicom is None:
        return decode_grey(data, header, path, side)
    from histcxr.dicom.pixels import decode

    pixels = decode(header.dicom, path, side)
    return grey_of(pixels, path) if pixels.ndim == 3 else (pixels, 0.0)


def check_lungs(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], path: str | os.PathLike[str] = ""
) -> None:
    """Refuse pixels, uint8 (height, width), whose lungs, bool and not empty, show (almost) no contrast.

    RadiographError ``blank``: the lungs span fewer than :data:`MIN_LUNG_CONTRAST` grey levels.
    """
    lungs = mask.view(np.uint8)
    low, high, _, _ = cv2.minMaxLoc(pixels[::8], lungs[::8])
    if high - low >= MIN_LUNG_CONTRAST:
        return  # every eighth row shows enough already
    low, high, _, _ = cv2.minMaxLoc(pixels, lungs)
    if high - low < MIN_LUNG_CONTRAST:
        raise RadiographError(Reason.BLANK, path, f"grey levels {low:.0f} to {high:.0f} of 0 to 255")
