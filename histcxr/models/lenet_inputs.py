"""From counts to the arrays that a 1-D network reads."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.features import curves

__all__ = ["REPRESENTATIONS", "check_counted", "histogram_tensor"]

#: The representations there are, each with its exponent: where an intensity axis is stretched by ``s``, the
#: values at a place are multiplied by ``s ** -exponent`` (a density thins out, a share of pixels does not).
REPRESENTATIONS: Final[dict[str, float]] = {"density": 1.0, "sqrt": 0.5, "cumulative": 0.0}

# Pixels of a row that count as much as a density that sums to 1; the lungs of a small radiograph have about as many.
_SIZE = 10_000.0

# Rows worked on at a time: bounds the float64 copies that lie between counts and tensor.
_BLOCK = 1024


def histogram_tensor(
    counts: NDArray[np.number],
    representation: str = "sqrt",
    *,
    smoothing: float = 0.0,
    scale: str = "raw",
    areas: bool | str = False,
) -> NDArray[np.float32]:
    """Turn counts into network inputs of about unit size, each image by itself.

    Parameters
    ----------
    counts : ndarray, shape (n, rows, bins)
        Counts, not negative, of one or several histograms an image (zones, bands).
    representation : {"density", "sqrt", "cumulative"}, default="sqrt"
        ``bins * density``, the square root of that, or twice the cumulative density minus 1. Constants make
        their size about 1; no statistic of other images enters.
    smoothing : float, default=0
        Standard deviation in bins of a Gaussian window over the density; 0 for none.
    scale : {"raw", "own"}, default="raw"
        ``"raw"`` keeps the intensity axis. ``"own"`` lays it out anew around the image's own median: the same
        number of bins over 3 interquartile ranges to either side.
    areas : {False, True, "size"}, default=False
        What each row is divided by. False: its own sum. True: the mean sum of the image's rows, so that the
        rows' areas remain visible. ``"size"``: 10,000 pixels, so that the lungs' size remains visible, too, as in
        raw counts; then images must have one size. Masks from models betray the class by shape and size, so
        off by default.

    Returns
    -------
    ndarray of float32, shape (n, rows, bins)
        A row without counts (a lung that is missing) takes the distribution of all rows together.

    Raises
    ------
    InputError
        When an option is unknown or an image has no counts at all.
    """
    if representation not in REPRESENTATIONS:
        raise InputError(
            f"representation must be one of {', '.join(REPRESENTATIONS)}; got {representation!r}"
        )
    if scale not in ("raw", "own"):
        raise InputError(f"scale must be 'raw' or 'own'; got {scale!r}")
    if areas not in (False, True, "size"):
        raise InputError(f"areas must be False, True or 'size'; got {areas!r}")
    check_counted(counts)
    tensor = np.empty(counts.shape, np.float32)
    for start in range(0, len(counts), _BLOCK):
        block = counts[start : start + _BLOCK].astype(np.float64)
        tensor[start : start + _BLOCK] = _block(block, representation, smoothing, scale, areas)
    return tensor


def check_counted(counts: NDArray[np.number]) -> None:
    """Refuse images without a single count, of which there is nothing to read.

    Parameters
    ----------
    counts : ndarray, shape (n, rows, bins) or (n, rows * bins)

    Raises
    ------
    InputError
    """
    empty = np.flatnonzero(counts.reshape(len(counts), -1).sum(axis=1) <= 0)
    if empty.size:
        raise InputError(f"X must have counts in every image; image {int(empty[0])} has none")


def _block(
    counts: NDArray[np.float64], representation: str, smoothing: float, scale: str, areas: bool | str
) -> NDArray[np.float64]:
    whole, sums = counts.sum(axis=1), counts.sum(axis=2, keepdims=True)
    bins = counts.shape[2]
    density = curves.density(curves.fill_empty(counts, whole))
    if scale == "own":
        median, spread = curves.centre_and_spread(whole)
        density = curves.resample(density, median, spread, 3.0, bins)
    if smoothing:
        density = curves.smooth(density, smoothing)
    if areas:
        whole_size = _SIZE if areas == "size" else sums.mean(axis=1, keepdims=True)
        density = density * (sums / whole_size)
    if representation == "cumulative":
        return 2.0 * np.cumsum(density, axis=2) - 1.0
    return np.sqrt(density * bins) if representation == "sqrt" else density * bins
