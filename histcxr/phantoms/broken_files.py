"""Files that a folder of radiographs really holds and should not: broken in every known way, or sound but odd.

Both sets are flat folders with their masks in ``masks/``.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import Reason
from histcxr.files.writing import encode_image, write_image, write_mask
from histcxr.phantoms.anatomy import Phantom, make_phantom

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_ODD_NAMES = (
    "with spaces.png",
    "with 'single' and \"double\" quotes.png",
    "with, comma; and semicolon.png",
    "with\nnewline.png",
    "=1+1.png",
    "-dash.png",
    "\u00fcml\u00e4ut \u80ba \U0001fac1.png",
    "UPPER.PNG",
)


def write_broken_files(folder: str | os.PathLike[str], seed: int = 0) -> dict[str, Reason]:
    """Write one file of every kind that cannot be judged; return file names and the reasons that they must be given.

    Pictures that are no upright chest have no mask; what the system does not permit is left out.
    """
    top = Path(folder)
    phantom = make_phantom(seed, sick=True)
    expected: dict[str, Reason] = {}
    for name, (content, reason) in _contents(phantom.image).items():
        _write(top / name, content)
        write_mask(_mask_of(top, name), phantom.mask)
        expected[name] = reason
    for name, (mask, reason) in _masks(phantom).items():
        write_image(top / name, phantom.image)
        _write(_mask_of(top, name), mask)
        expected[name] = reason
    for name, (pixels, reason) in _strangers(phantom.image).items():
        write_image(top / name, pixels)
        expected[name] = reason
    return expected | _special_files(top)


def write_unusual_files(folder: str | os.PathLike[str], seed: int = 0) -> tuple[str, ...]:
    """Write files that look wrong and are not: odd formats, depths and names. Return their names; all can be judged."""
    top = Path(folder)
    phantom = make_phantom(seed + 1)
    image, mask = encode_image(phantom.image), encode_image(phantom.mask.view(np.uint8), bilevel=True)
    files = {name: (content, mask) for name, content in _unusual_contents(phantom.image).items()}
    files |= {name: (image, content) for name, content in _unusual_masks(phantom.mask).items()}
    files |= dict.fromkeys(_ODD_NAMES, (image, mask))
    names = []
    for name, (content, lungs) in files.items():
        try:
            _write(top / name, content)
        except OSError:  # a file system that forbids such names
            continue
        _write(_mask_of(top, name), lungs)
        names.append(name)
    return tuple(names)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file: length, kind, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A PNG file of chunks, each its kind and its data."""
    return PNG_SIGNATURE + b"".join(png_chunk(kind, data) for kind, data in chunks)


def huge_png(side: int = 20_000) -> bytes:
    """A sound PNG of ``side`` x ``side`` black pixels at one bit each: some kilobytes that unpack to very much."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    # row by row, so that the memory it threatens is never used
    row = bytes((side + 7) // 8 + 1)
    packer = zlib.compressobj(9)
    packed = b"".join([packer.compress(row) for _ in range(side)]) + packer.flush()
    return png_file([(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")])


def palette_png(image: NDArray[Any]) -> bytes:
    """A PNG whose pixels are places in a palette that runs from white to black."""
    height, width = image.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)
    rows[:, 1:] = 255 - image
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    palette = np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 3).tobytes()
    pixels = zlib.compress(rows.tobytes())
    return png_file([(b"IHDR", header), (b"PLTE", palette), (b"IDAT", pixels), (b"IEND", b"")])


def exif_jpeg(image: NDArray[Any], orientation: int) -> bytes:
    """A JPEG that says by EXIF how it is to be turned."""
    jpeg = encode_image(image, ".jpg")
    entry = struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entry
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def _mask_of(top: Path, name: str) -> Path:
    return top / "masks" / f"{os.path.splitext(name)[0]}.png"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _contents(image: NDArray[Any]) -> dict[str, tuple[bytes, Reason]]:
    """Images that are broken themselves; their masks are sound."""
    png, jpeg = encode_image(image), encode_image(image, ".jpg")
    tiff, bmp = encode_image(image, ".tif"), encode_image(image, ".bmp")
    red = np.dstack([image // 3, image // 2, image])
    one_byte = bytearray(png)
    one_byte[len(png) // 2] ^= 0x55
    return {
        "truncated.png": (png[: len(png) // 2], Reason.TRUNCATED),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], Reason.TRUNCATED),
        "truncated.tif": (tiff[: len(tiff) // 2], Reason.TRUNCATED),
        "truncated.bmp": (bmp[: len(bmp) // 2], Reason.TRUNCATED),
        "zeros at the end.jpg": (jpeg[: len(jpeg) // 2].ljust(len(jpeg), b"\0"), Reason.TRUNCATED),
        "flipped byte.png": (bytes(one_byte), Reason.DAMAGED),
        "zero bytes.png": (b"", Reason.FILE_EMPTY),
        "text.png": (b"This is a note about the patient, not an image.\n" * 20, Reason.NOT_AN_IMAGE),
        "one pixel.png": (encode_image(image[:1, :1]), Reason.TOO_SMALL),
        "huge.png": (huge_png(), Reason.TOO_LARGE),
        "colour photo.png": (encode_image(red), Reason.COLOUR),
        "all black.png": (encode_image(np.zeros_like(image)), Reason.BLANK),
        "animation.gif.png": (b"GIF89a" + bytes(100), Reason.UNSUPPORTED),
        "report.dcm": (bytes(128) + b"DICM" + bytes(100), Reason.UNSUPPORTED),
    }


def _strangers(image: NDArray[np.uint8]) -> dict[str, tuple[NDArray[np.uint8], Reason]]:
    """Pictures without a mask that are no upright frontal chest, or not in the usual grey levels."""
    return {
        "grey levels inverted.png": (255 - image, Reason.POLARITY),
        "upside down.png": (np.ascontiguousarray(image[::-1]), Reason.NOT_A_CHEST),
        "on its side.png": (np.ascontiguousarray(np.rot90(image)), Reason.NOT_A_CHEST),
        "two at once.png": (np.hstack([image, image]), Reason.NOT_A_CHEST),
    }


def _masks(phantom: Phantom) -> dict[str, tuple[bytes, Reason]]:
    """Masks that are broken; their images are sound."""
    mask = phantom.mask.view(np.uint8)
    sound = encode_image(mask * 255)
    speck = np.zeros_like(mask)
    speck[100:110, 60:70] = 255
    most = np.full_like(mask, 255)
    most[[0, -1]], most[:, [0, -1]] = 0, 0
    return {
        "mask is text.png": (b"not a mask\n" * 50, Reason.MASK_UNREADABLE),
        "mask truncated.png": (sound[: len(sound) // 2], Reason.MASK_UNREADABLE),
        "mask empty.png": (encode_image(np.zeros_like(mask)), Reason.MASK_EMPTY),
        "mask tiny.png": (encode_image(speck), Reason.MASK_TINY),
        "mask inverted.png": (encode_image((1 - mask) * 255), Reason.MASK_INVERTED),
        "mask too large.png": (encode_image(most), Reason.MASK_TOO_LARGE),
        "mask is a picture.png": (encode_image(phantom.image), Reason.MASK_NOT_BINARY),
    }


def _special_files(top: Path) -> dict[str, Reason]:
    """Links, pipes and closed files, as far as the system permits them."""

    def closed(path: Path) -> None:
        _write(path, b"closed")
        path.chmod(0)
        if os.access(path, os.R_OK):  # an administrator reads everything
            path.unlink()
            raise PermissionError(f"{path} can be read all the same")

    makers: dict[str, tuple[Callable[[Path], None], Reason]] = {
        "link to itself.png": (lambda path: path.symlink_to(path.name), Reason.LINK_LOOP),
        "link to nothing.png": (lambda path: path.symlink_to("no such file.png"), Reason.NOT_FOUND),
        "folder above": (lambda path: path.symlink_to(".", target_is_directory=True), Reason.LINK_LOOP),
        "pipe.png": (lambda path: os.mkfifo(path), Reason.NOT_A_FILE),
        "closed.png": (closed, Reason.PERMISSION),
    }
    made = {}
    for name, (make, reason) in makers.items():
        path = top / name
        if path.is_symlink() or path.exists():
            path.unlink()
        try:
            make(path)
        except (OSError, NotImplementedError, AttributeError):  # AttributeError: no pipes on this system
            continue
        made[name] = reason
    return made


def _unusual_contents(image: NDArray[Any]) -> dict[str, bytes]:
    """The same radiograph in many guises."""
    deep = image.astype(np.uint16) * 257
    opaque = np.full_like(image, 255)
    return {
        "16 bit.png": encode_image(deep),
        "16 bit.tif": encode_image(deep, ".tif"),
        "rgb.png": encode_image(np.dstack([image] * 3)),
        "rgba.png": encode_image(np.dstack([image, image, image, opaque])),
        "palette.png": palette_png(image),
        "colour.jpg": encode_image(np.dstack([image] * 3), ".jpg"),
        "exif.jpg": exif_jpeg(cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE), 6),
        "bitmap.bmp": encode_image(image, ".bmp"),
        "trailing bytes.jpg": encode_image(image, ".jpg") + b"appended by a scanner",
        "jpeg named.png": encode_image(image, ".jpg"),
        "no extension": encode_image(image),
    }


def _unusual_masks(mask: NDArray[Any]) -> dict[str, bytes]:
    """The same mask in many guises."""
    levels = mask.view(np.uint8)
    height, width = mask.shape
    larger = cv2.resize(levels, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST_EXACT)
    return {
        "mask of another size.png": encode_image(larger * 255),
        "mask of zeros and ones.png": encode_image(levels),
        "mask of 16 bits.png": encode_image(levels.astype(np.uint16)),
        "mask in colour.png": encode_image(np.dstack([levels * 0, levels * 0, levels * 200])),
        "mask smoothed.png": encode_image(cv2.GaussianBlur(levels * 255, (3, 3), 0.8)),
    }
