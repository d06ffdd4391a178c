"""Recognising a radiograph again: by its pixels, or as a near-duplicate, whatever the file is called.

A fingerprint is 72 bytes: a hash of the decoded pixels (equal pixels, whatever mask, file format or metadata), and a
perceptual hash, the signs of 512 fixed random projections of a small high-passed copy (Charikar, 2002). The share of
signs that differ estimates the angle between two such copies, so comparing hashes is comparing correlations. On public
radiographs, copies that were resized, compressed or re-exposed correlate over 0.998, different patients under 0.985
(``benchmarks/README.md``, "Near-duplicates"). Neither part leads back to a patient without the image itself.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.exceptions import InputError

__all__ = [
    "FINGERPRINT_BYTES",
    "equal_pixels",
    "fine_copy",
    "fingerprint",
    "keyed_patients",
    "near_duplicates",
    "recognised",
]

_EXACT: Final = 8
_BITS: Final = 512
_SIDE: Final = 32
_BLUR: Final = 4.0  # pixels of the small copy: what is smoother is exposure
_COUNT_BLOCK: Final = 256

#: Bytes of a fingerprint.
FINGERPRINT_BYTES: Final = _EXACT + _BITS // 8

#: Correlation of small copies from which two radiographs are taken for one.
SAME_CORRELATION: Final = 0.985

#: Correlation from which two radiographs are one where the copies themselves are at hand. Of 38 pairs that hashes find
#: in public radiographs, the 37 true ones correlate at .992 and more, two other patients at .972; phantoms up to .986.
TWIN_CORRELATION: Final = 0.99

#: Signs that may differ at that correlation.
SAME_BITS: Final = round(_BITS * np.arccos(SAME_CORRELATION) / np.pi)


def fingerprint(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the fingerprint, uint8 (72,), of a radiograph, uint8 (height, width)."""
    exact = hashlib.blake2b(np.array(pixels.shape, "<i8").tobytes(), digest_size=_EXACT)
    exact.update(pixels.tobytes())
    signs = _projections() @ fine_copy(pixels) > 0
    return np.concatenate([np.frombuffer(exact.digest(), np.uint8), np.packbits(signs)])


def fine_copy(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the small high-passed copy of a radiograph, centred: float32 (1024,)."""
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = small - cv2.GaussianBlur(small, (0, 0), _BLUR)
    copy: NDArray[np.float32] = (fine - fine.mean()).ravel()
    return copy


def recognised(fingerprints: ArrayLike, known: ArrayLike) -> NDArray[np.bool_]:
    """Tell which radiographs are among known ones (equal pixels, or near-duplicates): bool (n,).

    Fingerprints are uint8 (n, 72), known ones (m, 72); InputError for another shape or type.
    """
    these, those = _checked(fingerprints, "fingerprints"), _checked(known, "known")
    found = equal_pixels(these, those)
    for start, alike in _alike(these, those):
        found[start : start + len(alike)] |= alike.any(axis=1)
    return found


def near_duplicates(fingerprints: ArrayLike, copies: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the pairs of radiographs that are one: positions (m, 2), i < j.

    Fingerprints and errors as :func:`recognised`; pairs are confirmed by ``copies``, float32 (n, 1024) of
    :func:`fine_copy`, which correlate by :data:`TWIN_CORRELATION` or more.
    """
    these = _checked(fingerprints, "fingerprints")
    found = [np.argwhere(np.triu(alike, start + 1)) + (start, 0) for start, alike in _alike(these, these)]
    pairs = np.concatenate([np.empty((0, 2), np.intp), *found])
    first, second = copies[pairs[:, 0]], copies[pairs[:, 1]]
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    confirmed: NDArray[np.intp] = pairs[(first * second).sum(axis=1) >= TWIN_CORRELATION * lengths]
    return confirmed


def _alike(these: NDArray[np.uint8], those: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Yield blocks of ``these``: where one starts, and which of ``those`` each of its rows is like, bool (rows, m)."""
    hashes = np.ascontiguousarray(those[:, _EXACT:]).view(np.uint64)
    for start in range(0, len(these) if len(those) else 0, _COUNT_BLOCK):
        block = np.ascontiguousarray(these[start : start + _COUNT_BLOCK, _EXACT:]).view(np.uint64)
        differing = np.zeros((len(block), len(hashes)), np.uint16)
        for word in range(hashes.shape[1]):
            differing += np.bitwise_count(block[:, word, None] ^ hashes[None, :, word])
        yield start, differing <= SAME_BITS


def equal_pixels(fingerprints: ArrayLike, known: ArrayLike) -> NDArray[np.bool_]:
    """Tell which radiographs have the pixels of a known one, shapes and errors as :func:`recognised`."""
    these, those = (
        _checked(values, name)[:, :_EXACT].copy().view("<u8")[:, 0]
        for values, name in ((fingerprints, "fingerprints"), (known, "known"))
    )
    return np.isin(these, those)


def keyed_patients(patients: ArrayLike, key: str) -> list[str]:
    """Hash patients' names by the model's own key (HMAC-SHA-256, 64 bits in hex), to know them again.

    Whoever has the model can test a name that he knows already, and read none.
    """
    return [
        hmac.new(key.encode(), str(patient).encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:16]
        for patient in np.asarray(patients, dtype=object).tolist()
    ]


@functools.cache
def _projections() -> NDArray[np.float32]:
    """Return 512 rows of -1 and 1, from the bits of a hash: the same everywhere and for ever."""
    bits = np.frombuffer(hashlib.shake_256(b"histcxr fingerprint 1").digest(_BITS * _SIDE**2 // 8), np.uint8)
    return np.unpackbits(bits).reshape(_BITS, _SIDE**2).astype(np.float32) * 2 - 1


def _checked(values: ArrayLike, name: str) -> NDArray[np.uint8]:
    array = np.asarray(values)
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != FINGERPRINT_BYTES:
        raise InputError(
            f"{name} must be uint8 of shape (n, {FINGERPRINT_BYTES}), got {array.dtype} of shape {array.shape}"
        )
    return array
