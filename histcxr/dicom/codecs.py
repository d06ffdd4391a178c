"""The codecs that unpack a compressed DICOM frame, and what tells that they went wrong on the way.

JPEG of 8 bits goes the way of JPEG files (simplejpeg), all other kinds to imagecodecs (libjpeg-turbo, CharLS,
OpenJPEG), which reports damage where other decoders end the process. None of them is under the GPL.

libjpeg warns where a code is unknown, where bits are missing, and where some are left over, but no binding hands on
what it says of more than 8 bits. In a lossless JPEG each pixel's difference from its prediction has one code, so the
pixels say how many bits they took: where that is what the stream has, nothing went wrong. That takes 4 ms for 2,000 x
2,000 pixels, where a second decoder takes 34.

Source: ITU-T T.81, annexes C, H.1 and H.2.
"""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from histcxr.dicom.codestream import Codestream
from histcxr.dicom.dataset import MISSING
from histcxr.exceptions import Reason
from histcxr.files import formats
from histcxr.files.decoding import Pixels, decode_stored
from histcxr.files.reading import refuse

_LOSSLESS, _TABLES, _RESTARTS, _SCAN = 0xC3, 0xC4, 0xDD, 0xDA


def decoded(
    stream: Codestream, shape: tuple[int, int, int], bits: int, side: int | None, path: str
) -> Pixels:
    """Bit patterns out of a codec: uint8 or uint16 of this shape, or smaller where ``side`` says that it is enough.

    ``bits``: as many as the values of a sound image may have.
    """
    if stream.kind == "JPEG":
        return decode_stored(stream.data, formats.read_jpeg(stream.data, path), path, side=side)
    name, pixels = stream.kind.removesuffix(" deep"), None
    try:
        import imagecodecs
    except ImportError:
        refuse(Reason.UNSUPPORTED, path, f"{name} inside; {MISSING}")
    if stream.kind == "JPEG 2000" and side is not None:
        small = _coarse(stream, max(shape), side, bits)
        if small is not None:
            return small
    codecs = {"JPEG-LS": imagecodecs.jpegls_decode, "JPEG 2000": imagecodecs.jpeg2k_decode}
    try:
        pixels = codecs.get(stream.kind, imagecodecs.jpeg8_decode)(stream.data)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a codec's words may hold anything
        pixels = None
    if pixels is None:
        refuse(Reason.DAMAGED, path, f"the {name} decoder refused the pixel data")
    if pixels.shape != (shape if shape[2] == 3 else shape[:2]) or pixels.itemsize > 2:
        refuse(Reason.DAMAGED, path, "the decoder gave an image of another size")
    pixels = pixels.view(f"u{pixels.itemsize}")
    if stream.kind == "JPEG deep":
        sure = _all_used(stream, pixels)
        if sure is None:
            _hear(stream, pixels.ndim == 3, path)
        elif not sure:
            refuse(Reason.DAMAGED, path, "Corrupt JPEG data: the pixels do not account for all bits")
    return pixels


def _coarse(stream: Codestream, longer: int, side: int, bits: int) -> Pixels | None:
    """A JPEG 2000 image without its finest resolutions, at least twice ``side`` long; None: all of it is needed.

    Pillow, because imagecodecs cannot leave resolutions out.
    """
    levels = 0
    while levels < stream.levels and longer >> (levels + 1) >= 2 * side:
        levels += 1
    if not levels:
        return None
    from PIL import Image

    try:
        with Image.open(io.BytesIO(stream.data), formats=["JPEG2000"]) as image:
            image.reduce = levels  # type: ignore[method-assign, assignment]  # so Pillow's handbook
            pixels = np.asarray(image)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - the other decoder will say what is wrong
        return None
    spare = 8 * pixels.itemsize - stream.bits  # Pillow spreads the values over all bits
    if pixels.ndim != 2 or spare < 0:
        return None
    pixels, most = pixels >> spare, 2**bits - 1
    return (
        pixels if pixels.max() > 1.5 * most else np.minimum(pixels, most)
    )  # smooth parts swing beyond an edge


def _hear(stream: Codestream, colour: bool, path: str) -> None:
    """Let the decoder for 8 bits walk through a deeper JPEG: codes and warnings are the same, its pixels are not."""
    as_8_bits = stream.data[: stream.depth_at] + b"\x08" + stream.data[stream.depth_at + 1 :]
    try:
        simplejpeg.decode_jpeg(as_8_bits, "RGB" if colour else "GRAY", strict=True)
    except ValueError as error:
        refuse(Reason.DAMAGED, path, str(error))


def _all_used(stream: Codestream, pixels: NDArray[Any]) -> bool | None:
    """Tell whether pixels, uint8 or uint16 (height, width), account for every bit of a stream that was checked.

    None where that cannot be told: of several channels, restarts, or a JPEG that is not lossless.
    """
    data, position, marker = stream.data, 2, 0
    kinds: set[int] = set()
    lengths: dict[int, dict[int, int]] = {}
    while marker != _SCAN:
        while data[position + 1] == 0xFF:  # fill bytes
            position += 1
        marker, size = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position + 4 : position + 2 + size]
        if marker == _TABLES:
            lengths |= _code_lengths(segment)
        kinds.add(marker)
        position += 2 + size
    known = len(segment) == 6 and segment[2] >> 4 in lengths and 1 <= segment[3] <= 7 and not segment[5]
    if not known or pixels.ndim != 2 or _LOSSLESS not in kinds or _RESTARTS in kinds:
        return None
    packed = data[position:].removesuffix(b"\xff\xd9").rstrip(b"\xff")
    bits = 8 * (len(packed) - packed.count(b"\xff\x00"))
    differences = _differences(pixels.astype(np.uint16, copy=False), segment[3], 1 << (stream.bits - 1))
    counts = cv2.calcHist([differences], [0], None, [2**16], [0, 2**16]).ravel().astype(np.float64)
    distance = np.minimum(np.arange(2**16), 2**16 - np.arange(2**16))
    category = np.frexp(distance)[1]  # the number of bits of a difference (H.1.2.2)
    by_category = np.bincount(category, counts, minlength=17)
    codes = lengths[segment[2] >> 4]
    if any(by_category[k] and k not in codes for k in range(17)):
        return False
    used = sum(by_category[k] * (codes[k] + k % 16) for k in range(17) if by_category[k])
    return bool(0 <= bits - used < 8)


def _code_lengths(segment: bytes) -> dict[int, dict[int, int]]:
    """Of each Huffman table in a segment, the bits of the code of each symbol."""
    found = {}
    while len(segment) > 17:
        symbols = iter(segment[17:])
        lengths = [length for length, count in enumerate(segment[1:17], 1) for _ in range(count)]
        found[segment[0]] = {symbol: length for length, symbol in zip(lengths, symbols, strict=False)}
        segment = segment[17 + len(lengths) :]
    return found


def _differences(pixels: NDArray[np.uint16], predictor: int, first: int) -> NDArray[np.uint16]:
    """Pixels less their predictions, modulo 2**16 (table H.1): left, above, above left, or made of these."""
    found = np.empty_like(pixels)
    found[0, 0] = int(pixels[0, 0]) - first & 0xFFFF
    np.subtract(pixels[0, 1:], pixels[0, :-1], out=found[0, 1:])
    np.subtract(pixels[1:, 0], pixels[:-1, 0], out=found[1:, 0])
    left, above, corner = pixels[1:, :-1], pixels[:-1, 1:], pixels[:-1, :-1]
    if predictor <= 3:
        predicted = (left, above, corner)[predictor - 1]
    elif predictor == 4:
        predicted = left + above - corner
    else:
        a, b, c = (part.astype(np.int32) for part in (left, above, corner))
        predicted = (a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)[predictor - 5].astype(np.uint16)
    np.subtract(pixels[1:, 1:], predicted, out=found[1:, 1:])
    return found
