"""Radiographs: a file's bytes in, uint8 grey levels out, and a record of what was done to them.

Equal tissue must fall into equal bins, so depths are reduced by the *declared* range (16 bits: the upper
byte) and never by an image's own minimum or maximum.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import RadiographError, Reason
from histcxr.files.decoding import decode_grey, grey_of
from histcxr.files.formats import read_header
from histcxr.files.reading import MIN_SIDE, Header, read_file, sniff

MIN_LUNG_CONTRAST = 16
"""Fewest grey levels between the darkest and the brightest lung pixel of an image that can be judged."""

LARGE_PIXELS = 1 << 24
"""Images with more pixels than this go one at a time where they take many times their size."""

_LARGE = threading.Lock()


def one_large_at_a_time(n_pixels: int) -> contextlib.AbstractContextManager[Any]:
    """Let threads wait for each other over large images, so that memory stays bounded."""
    return _LARGE if n_pixels > LARGE_PIXELS else contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class Radiograph:
    """One radiograph, lungs dark: ``pixels``, uint8 (height, width), and ``metadata``.

    Metadata are ``format``, ``bits`` and ``channels`` as declared, ``width`` and ``height`` of the pixels, and
    ``steps``, what was done on the way, e.g. ``("16 to 8 bits", "alpha dropped")``. Of a DICOM file also ``modality``,
    ``view``, ``laterality``, ``sex``, ``age_group``, ``photometric`` and ``transfer_syntax``, each from a closed list
    of words; no name, number, date or free text.
    """

    pixels: NDArray[np.uint8]
    metadata: dict[str, Any] = field(default_factory=dict)


def read_radiograph(path: str | os.PathLike[str]) -> Radiograph:
    """Read a radiograph from a PNG, JPEG, TIFF, BMP or DICOM file, known by its content and not by its name.

    RadiographError as :func:`~histcxr.files.reading.read_file` and :func:`decode_radiograph`.
    """
    return decode_radiograph(read_file(path), path)


def decode_radiograph(data: bytes, path: str | os.PathLike[str] = "") -> Radiograph:
    """Decode a radiograph from the bytes of its file; ``path`` is for messages.

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
    with one_large_at_a_time(header.width * header.height):
        pixels, coloured = _decode_any(data, header, name)
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
    height, width = pixels.shape
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


def _decode_any(data: bytes, header: Header, path: str) -> tuple[NDArray[Any], float]:
    """Return grey levels as decoded, and the share of coloured pixels."""
    if header.dicom is None:
        return decode_grey(data, header, path)
    from histcxr.dicom.pixels import decode

    pixels = decode(header.dicom, path)
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
