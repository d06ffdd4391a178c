"""The pixels of a DICOM file: which bytes they are, the codec that unpacks them, and the grey levels they mean.

Every step to grey levels maps a value to a value, whatever the pixel, so all of them together are one table. Only
*declared* ranges enter it, never the content of an image, so equal tissue falls into equal bins.

Source: DICOM PS3.5, sections 8 and A.4; PS3.3, C.7.6.3, C.11.1 (modality LUT), C.11.2 (VOI LUT).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.dicom.codecs import decoded
from histcxr.dicom.codestream import MAX_PADDING, Codestream, check, rle_planes
from histcxr.dicom.dataset import (
    FLOAT_PIXELS,
    PIXEL_DATA,
    UNDEFINED,
    Dataset,
    items,
    number,
    raw,
    text,
    whole,
    words_of,
)
from histcxr.exceptions import Reason
from histcxr.files.apart import apart
from histcxr.files.damage import check_pixels, check_waves
from histcxr.files.decoding import Pixels, is_large, reduced
from histcxr.files.reading import check_parts, refuse

LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"

_ROUNDING = 1e-6  # of a level: values that are exact on paper may come out a hair below
_Values: TypeAlias = NDArray[np.float64]


class Rescale(NamedTuple):
    """Output = slope * stored value + intercept."""

    slope: float = 1.0
    intercept: float = 0.0


class Window(NamedTuple):
    """A VOI window; ``function`` is LINEAR (width at least 1), LINEAR_EXACT or SIGMOID (width above 0)."""

    center: float
    width: float
    function: str = LINEAR


class Lut(NamedTuple):
    """A look-up table: ``values`` uint16 (n,), the first for the input ``first`` and all below; ``bits`` deep."""

    first: int
    values: NDArray[Any]
    bits: int


@dataclass(frozen=True, slots=True)
class DicomImage:
    """One frame and all that is needed to turn it into grey levels; no element of the file beside that."""

    frame: bytes | memoryview | Codestream = field(
        repr=False
    )  # plain samples, or a checked compressed stream
    shape: tuple[int, int, int]  # rows, columns, samples
    planar: bool  # the channels come one after the other
    ybr: bool  # the channels are brightness and two colour differences
    kind: np.dtype[Any]  # of a sample as it is stored: uint8 or uint16, with its byte order
    stored: int  # bits of it that count
    shift: int  # how far these are moved up
    signed: bool  # they are two's complements
    swapped: bool  # 8-bit samples in swapped pairs
    table: NDArray[np.uint8] = field(repr=False)  # (2**stored,): grey level of each stored bit pattern
    steps: tuple[str, ...]  # what decoding does, for the record
    facts: dict[str, str]  # what is kept of the tags


def frame_of(
    dataset: Dataset, shape: tuple[int, int, int], sample_bytes: int, path: str
) -> bytes | memoryview | Codestream:
    """The bytes of the one frame to be judged, checked against the ``shape`` (rows, columns, samples) in the tags.

    A file of several frames is used where Representative Frame Number names one of them, and else refused.
    """
    stored = raw(dataset, PIXEL_DATA)
    if stored is None:
        if any(tag in dataset for tag in FLOAT_PIXELS):
            refuse(Reason.UNSUPPORTED, path, "floating-point pixels")
        refuse(Reason.TRUNCATED, path, "no pixel data: the file ends before them")
    frames = whole(dataset, "NumberOfFrames", 1, path) or 1
    chosen = whole(dataset, "RepresentativeFrameNumber", 0, path)
    if frames > 1 and not 1 <= chosen <= frames:
        refuse(Reason.SEVERAL_FRAMES, path, f"{frames:,} frames")
    index = chosen - 1 if frames > 1 else 0
    pixels, declared = stored.value, stored.length
    if declared == UNDEFINED:
        frame = _fragments(pixels, index, frames, path)
        if not frame:
            refuse(Reason.DAMAGED, path, "the compressed pixel data is not wrapped as it must be")
        return check(frame, shape, sample_bytes, path)
    rows, columns, samples = shape
    size = rows * columns * samples * sample_bytes
    expected, found = size * frames, len(pixels)
    if found < min(expected, declared):
        refuse(Reason.TRUNCATED, path, f"{found:,} bytes of pixel data, {expected:,} expected")
    if not expected <= found <= expected + MAX_PADDING:
        detail = f"{found:,} bytes of pixel data, where {columns} x {rows} pixels take {expected:,}"
        refuse(Reason.DAMAGED, path, detail)
    return pixels[index * size : (index + 1) * size]


def _fragments(pixels: bytes, index: int, frames: int, path: str) -> bytes:
    """One frame out of its fragments (PS3.5, A.4), the first of which is a table; empty where they are damaged."""
    position, parts = 0, 0
    while pixels[position : position + 4] == b"\xfe\xff\x00\xe0":
        parts = check_parts(parts + 1, path)
        start, position = (
            position + 8,
            position + 8 + int.from_bytes(pixels[position + 4 : position + 8], "little"),
        )
    if parts == 2 and frames == 1 and position == len(pixels):  # as nearly always
        return pixels[start:]
    from pydicom.encaps import get_frame

    with contextlib.suppress(Exception):
        return get_frame(pixels, index, number_of_frames=frames)
    return b""


def decode(image: DicomImage, path: str = "", side: int | None = None) -> Pixels:
    """Decode what :func:`~histcxr.dicom.radiograph.read` found, or refuse it: damaged, truncated or unsupported.

    uint8 (height, width), lungs dark, or (height, width, 3), the channels of a colour image as OpenCV orders them,
    unchanged. With ``side``, a much larger image is averaged as stored: :func:`~histcxr.files.decoding.reduced`.
    """
    kind = image.frame.kind if isinstance(image.frame, Codestream) else ""
    levels = (_levels if kind in ("", "JPEG") else _levels_apart)(image, side, path)
    shrunk = round(max(image.shape[:2]) / max(levels.shape[:2]))
    first = levels if levels.ndim == 2 else cv2.extractChannel(levels, 1)
    check_pixels(first, path, noise=_tells_noise(image), shrunk=shrunk)
    if kind == "JPEG 2000" and _tells_noise(image):
        check_waves(first, path)
    return levels


def _levels(image: DicomImage, side: int | None, path: str) -> Pixels:
    """Decode to grey levels or to channels, and look for damage before anything is averaged."""
    colour, stream = image.shape[2] == 3, image.frame if isinstance(image.frame, Codestream) else None
    if stream is None or stream.kind == "RLE":
        pixels = _plain(image, path)
    else:
        bits = image.stored + image.shift
        pixels = decoded(stream, image.shape, bits, side, path)
        _check_range(pixels, bits, path)
    if colour:
        if pixels.dtype != np.uint8:
            refuse(Reason.UNSUPPORTED, path, "a colour image of more than 8 bits")
        if is_large(pixels, side):
            check_pixels(pixels[..., 1], path)
        pixels = reduced(pixels, side)
        if stream is not None and stream.kind == "JPEG":  # which is blue first already
            return pixels
        return cv2.cvtColor(pixels, cv2.COLOR_YUV2BGR if image.ybr else cv2.COLOR_RGB2BGR)
    values, table, half = 2**image.stored, image.table, 2 ** (image.stored - 1)
    if image.shift or pixels.max() >= values:  # what lies around the stored bits may be anything
        pixels = (pixels >> image.shift) & np.array(values - 1, pixels.dtype)
    if image.signed:  # in the order of what the patterns stand for, so that they can be averaged
        pixels, table = pixels ^ np.array(half, pixels.dtype), np.roll(table, half)
    if is_large(pixels, side):
        check_pixels(pixels, path, noise=_tells_noise(image), table=table)
    levels: Pixels = table.take(reduced(pixels, side))
    return levels


_levels_apart = apart(lambda *_: True)(_levels)


def _tells_noise(image: DicomImage) -> bool:
    """Whether noise would be damage: a narrow window makes it of every picture."""
    window = int(np.count_nonzero((image.table > 0) & (image.table < 255)))
    return 4 * window >= len(image.table)


def _plain(image: DicomImage, path: str) -> Pixels:
    """Samples that no codec has packed, or only in runs: then in planes of bytes, the high one first."""
    rows, columns, samples = image.shape
    kind, planar = image.kind, image.planar
    if isinstance(image.frame, Codestream):
        found = rle_planes(image.frame.data, samples * kind.itemsize, rows * columns, path)
        planes = np.frombuffer(found, np.uint8)
        split = planes.reshape(samples, kind.itemsize, -1).transpose(0, 2, 1)
        pixels, planar = np.ascontiguousarray(split).reshape(-1).view(kind.newbyteorder(">")), True
    elif image.swapped:
        padded = np.frombuffer(bytes(image.frame) + b"\0" * (len(image.frame) % 2), "u1")
        pixels = padded.reshape(-1, 2)[:, ::-1].reshape(-1)[: len(image.frame)]
    else:
        pixels = np.frombuffer(image.frame, kind)
    shaped = pixels.reshape((samples, rows, columns) if planar else image.shape)
    shaped = shaped.transpose(1, 2, 0) if planar else shaped
    shaped = shaped if samples > 1 else shaped[..., 0]
    return np.ascontiguousarray(shaped, shaped.dtype.newbyteorder("="))


def _check_range(pixels: Pixels, bits: int, path: str) -> None:
    """Refuse values beyond the bits that are stored: a difference decoded wrongly carries on into all that follow."""
    signed, half = pixels.view(f"i{pixels.itemsize}"), 2 ** (bits - 1)
    if pixels.max() >= 2 * half and not (-half <= signed.min() and signed.max() < half):
        refuse(Reason.DAMAGED, path, f"values of more than {bits} bits")


def grey_table(
    dataset: Dataset, stored: int, signed: bool, photometric: str, path: str
) -> tuple[Any, list[str]]:
    """The table of grey levels and the steps that it stands for."""
    modality, below_zero, changed = _modality(dataset, stored, signed, path)
    voi, shown = _voi(dataset, below_zero, path)
    turned, shape = "inverted" if photometric == "MONOCHROME1" else "", text(dataset, "PresentationLUTShape")
    if turned and shape == "IDENTITY":  # viewers disagree: DCMTK follows the latter
        refuse(
            Reason.DAMAGED,
            path,
            "MONOCHROME1 makes 0 white, the presentation LUT shape IDENTITY makes it black",
        )
    if not turned and shape == "INVERSE":
        turned = "inverted by the presentation LUT shape"
    table = None
    with contextlib.suppress(ValueError):
        table = level_table(stored, signed=signed, modality=modality, voi=voi, inverted=bool(turned))
    if table is None:
        refuse(Reason.DAMAGED, path, "the rescale, window or LUT leaves no range of grey")
    steps = [step for step in (changed, shown, turned, f"{stored} to 8 bits" * (stored != 8)) if step]
    return table, [] if steps == ["declared range"] else steps


def _modality(dataset: Dataset, stored: int, signed: bool, path: str) -> tuple[Rescale | Lut, bool, str]:
    """The modality step, whether what comes out of it can be negative, and its name for the record."""
    luts = items(dataset, "ModalityLUTSequence")
    if luts:
        lut = _lut(luts[0], signed, "ModalityLUTSequence", path)
        return lut, False, f"modality LUT of {len(lut.values)} entries, {lut.bits} bits"
    slope, intercept = number(dataset, "RescaleSlope", path), number(dataset, "RescaleIntercept", path) or 0.0
    if slope == 0:
        refuse(Reason.DAMAGED, path, "RescaleSlope is 0")
    slope = 1.0 if slope is None else slope
    low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)
    said = "" if (slope, intercept) == (1, 0) else f"rescaled by {slope:g}, {intercept:+g}"
    return Rescale(slope, intercept), min(slope * low, slope * high) + intercept < 0, said


def _voi(dataset: Dataset, below_zero: bool, path: str) -> tuple[Window | Lut | None, str]:
    """The first VOI LUT, else the first window, else nothing; and its name for the record."""
    luts = items(dataset, "VOILUTSequence")
    if luts:
        lut = _lut(luts[0], below_zero, "VOILUTSequence", path)
        return lut, f"VOI LUT of {len(lut.values)} entries, {lut.bits} bits"
    center, width = number(dataset, "WindowCenter", path), number(dataset, "WindowWidth", path)
    if center is None and width is None:
        return None, "declared range"
    function = text(dataset, "VOILUTFunction") or LINEAR
    if function not in (LINEAR, LINEAR_EXACT, SIGMOID):
        refuse(Reason.UNSUPPORTED, path, "a VOI LUT function other than LINEAR, LINEAR_EXACT and SIGMOID")
    if center is None or width is None or width <= 0 or (function == LINEAR and width < 1):
        return None, "declared range, for the window is incomplete or has no width"
    return Window(center, width, function), f"window {center:g}, {width:g} {function}"


def _lut(item: Any, below_zero: bool, keyword: str, path: str) -> Lut:
    """A LUT out of its sequence item (C.11.1.1.1): descriptor of three words, then 8- or 16-bit data."""
    descriptor = words_of(item, "LUTDescriptor")
    if len(descriptor) != 3:
        refuse(Reason.DAMAGED, path, f"{keyword} has no sound descriptor")
    count, first, bits = (int(value) for value in descriptor)
    count = count or 2**16
    if below_zero and first >= 2**15:
        first -= 2**16
    values = words_of(item, "LUTData", count)
    if len(values) < count or not 8 <= bits <= 16:
        detail = f"{keyword} declares {count} entries of {bits} bits and has {len(values)}"
        refuse(Reason.DAMAGED, path, detail)
    values = values[:count]
    if int(values.max()) >= 2**bits:
        refuse(Reason.DAMAGED, path, f"{keyword} declares {bits} bits and holds larger values")
    return Lut(first, values, bits)


def level_table(
    bits: int,
    *,
    signed: bool = False,
    modality: Rescale | Lut | None = None,
    voi: Window | Lut | None = None,
    inverted: bool = False,
) -> NDArray[np.uint8]:
    """Grey level of every value that can be stored: the modality, VOI and polarity steps of DICOM; uint8 (2**bits,).

    By the stored bit pattern: with 12 bits ``signed`` (two's complement), entry 4095 is the value -1. The ``modality``
    step leads from stored values to the maker's unit, the ``voi`` step to what is to be shown. Without a VOI step, all
    that can come out of the modality step is cut into 256 equal bins, as by dropping the low bits. Where the lowest
    output is white, ``inverted`` turns the levels at last. ``ValueError``: the range is empty or not finite (a slope
    of 0, absurd numbers).

    Own code: of 2,978 sound files pydicom's ``apply_modality_lut`` and ``apply_voi_lut`` showed 188 with wrong levels
    (a window after a negative slope, a VOI LUT of 8 bits), and they take 47 ms where this takes 7 (2,000 x 2,000).
    """
    stored = np.arange(2**bits, dtype=np.float64)
    if signed:
        stored[2 ** (bits - 1) :] -= 2**bits
    if isinstance(modality, Lut):
        values, low, high = _looked_up(stored, modality)
    else:
        slope, intercept = modality or Rescale()
        values = slope * stored + intercept
        low, high = float(values.min()), float(values.max())
    if isinstance(voi, Lut):
        values, low, high = _looked_up(values, voi)
    if isinstance(voi, Window):
        levels = _windowed(values, voi)
    else:
        levels = (values - low) * 256 / (high - low) if high > low else values * np.nan
    if not np.isfinite(levels).all():
        raise ValueError("the grey scale has no range")
    table = np.clip(np.floor(levels + _ROUNDING), 0, 255).astype(np.uint8)
    return 255 - table if inverted else table


def _looked_up(values: _Values, lut: Lut) -> tuple[_Values, float, float]:
    """Values through a LUT, and its declared range; inputs outside it take its first or last value."""
    index = np.clip(np.rint(values) - lut.first, 0, len(lut.values) - 1).astype(np.intp)
    return lut.values[index].astype(np.float64), 0.0, float(2**lut.bits - 1)


def _windowed(values: _Values, window: Window) -> _Values:
    """Values through a window, on a scale from 0 to 256 (C.11.2.1.2 and C.11.2.1.3)."""
    center, width, function = window
    if function == SIGMOID:
        steep = np.clip(-4 * (values - center) / width, -700, 700)
        return np.asarray(256 / (1 + np.exp(steep)))
    if function == LINEAR:
        center, width = center - 0.5, width - 1
        if width == 0:  # a threshold: C.11.2.1.2.1, note 3
            return np.where(values <= center, 0.0, 256.0)
    return np.asarray(np.clip((values - center + width / 2) * 256 / width, 0, 256))
