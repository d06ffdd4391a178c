"""Formulas on histograms: densities, quantile functions, shares, and the lungs' own intensity axis.

Histograms are float64, shape ``(..., bins)``; densities are histograms that add up to 1. Bin ``k`` stands for
the interval from ``k - 0.5`` to ``k + 0.5``, over which its weight is spread evenly: so a quantile moves
smoothly where a pixel changes bins. No row's result depends on the rows beside it: cut batches anywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from histcxr.features.histograms import zone_names
from histcxr.features.recipe import Recipe

_Floats = NDArray[np.float64]

# Levels of the quantiles by which a model knows what lungs look like; they are stored with it.
_REFERENCE_LEVELS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
# Levels of the quantiles by which one site is told from another: of both lungs, and of grey levels in each zone.
_SITE_LEVELS = np.array([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
_SITE_ZONE_LEVELS = np.array([0.1, 0.5, 0.9])


def levels(n: int) -> _Floats:
    """Return the middles of ``n`` equal parts of [0, 1]: no extremes, which a single pixel moves."""
    return (np.arange(n) + 0.5) / n


def fill_empty(counts: _Floats, whole: _Floats) -> _Floats:
    """Give zones without a pixel, of counts (n, zones, bins), the distribution of the whole lungs (n, bins)."""
    empty = counts.sum(axis=-1, keepdims=True) <= 0
    return np.where(empty, whole[:, None, :], counts)


def density(counts: _Floats) -> _Floats:
    """Divide histograms, none of them empty, by their sums."""
    return counts / counts.sum(axis=-1, keepdims=True)


def smooth(density: _Floats, sigma: float) -> _Floats:
    """Convolve with a Gaussian of ``sigma`` bins, reflected at both ends, so that the sum stays 1."""
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(density, sigma, axis=-1, mode="reflect")


def quantiles(counts: _Floats, at: _Floats) -> _Floats:
    """Invert the cumulative distribution of counts (..., bins), none empty, at rising levels in (0, 1): (..., levels).

    Whole numbers keep ties exact, so pass counts rather than densities. Intensities lie between -0.5 and ``bins -
    0.5``; where the distribution is flat, it is the lower end.
    """
    bins = counts.shape[-1]
    cumulative = np.cumsum(counts, axis=-1).reshape(-1, bins)
    wanted = cumulative[:, -1:] * at
    bin_ = np.empty(wanted.shape, np.intp)
    for row in range(len(wanted)):
        bin_[row] = cumulative[row].searchsorted(wanted[row])
    padded = np.concatenate([np.zeros((len(cumulative), 1)), cumulative], axis=1)
    below = np.take_along_axis(padded, bin_, axis=1)
    # The first bin to reach a level is never an empty one.
    weight = np.take_along_axis(padded, bin_ + 1, axis=1) - below
    return (bin_ - 0.5 + (wanted - below) / weight).reshape(*counts.shape[:-1], len(at))


def cumulative_at(density: _Floats, at: _Floats) -> _Floats:
    """Return the share of each zone's pixels below given intensities; the inverse of :func:`quantiles`.

    Of densities (n, zones, bins) at (n, points), the same for all zones of an image: shares (n, zones, points).
    """
    n, zones, bins = density.shape
    padded = np.concatenate([np.zeros((n, zones, 1)), np.cumsum(density, axis=-1)], axis=-1)
    place = np.clip(at + 0.5, 0, bins)
    edge = np.minimum(place.astype(np.intp), bins - 1)
    index = np.broadcast_to(edge[:, None, :], (n, zones, at.shape[1]))
    low = np.take_along_axis(padded, index, axis=2)
    high = np.take_along_axis(padded, index + 1, axis=2)
    return np.clip(low + (place - edge)[:, None, :] * (high - low), 0, 1)


def shares(density: _Floats, whole: _Floats, n: int) -> _Floats:
    """Return the share of each zone's pixels in each of ``n`` intervals of equal weight for the whole lungs.

    Of densities (images, zones, bins) and the whole lungs' counts (images, bins), none of them empty: shares
    (images, zones, n), which add up to 1 over the intervals; ``1 / n`` everywhere for a zone like the whole.
    """
    return _between(density, quantiles(whole, np.arange(1, n) / n))


def centre_and_spread(whole: _Floats) -> tuple[_Floats, _Floats]:
    """Return median and interquartile range, shape (images,); the range is at least half a bin."""
    low, median, high = quantiles(whole, np.array([0.25, 0.5, 0.75])).T
    return median, np.maximum(high - low, 0.5)


def resample(density: _Floats, centre: _Floats, spread: _Floats, half: float, bins: int) -> _Floats:
    """Lay densities on the axis ``(intensity - centre) / spread``, in equal bins over ``[-half, half]``.

    What lies beyond falls into the first or the last bin, so each still adds up to 1. Of densities
    (n, zones, bins_in), centres and spreads (n,) in bins of the old axis: densities (n, zones, bins).
    """
    cuts = np.linspace(-half, half, bins + 1)[1:-1]
    return _between(density, centre[:, None] + spread[:, None] * cuts)


def _between(density: _Floats, cuts: _Floats) -> _Floats:
    """Return the share of each zone's pixels between neighbouring cuts and beyond them."""
    below = cumulative_at(density, cuts)
    ends = np.zeros((*below.shape[:2], 1))
    return np.diff(np.concatenate([ends, below, ends + 1], axis=-1), axis=-1)


def reference_quantiles(counts: NDArray[np.integer], recipe: Recipe) -> _Floats:
    """Return quantiles of the grey levels in each zone: few numbers that say whether lungs look like lungs at all.

    Of a recipe's counts (n, rows, 256), an array (n, 5 * n_zones), at 0.05, 0.25, 0.5, 0.75 and 0.95. A zone without
    a pixel has the quantiles of both lungs. InputError is raised for counts of another recipe's shape.
    """
    recipe.check_counts(counts)
    zones = counts[:, : len(zone_names(recipe.zones))].astype(np.float64)
    found = quantiles(fill_empty(zones, zones.sum(axis=1)), _REFERENCE_LEVELS)
    return found.reshape(len(counts), zones.shape[1] * len(_REFERENCE_LEVELS))


def site_numbers(counts: NDArray[np.integer], recipe: Recipe) -> _Floats:
    """Return what tells one scanner or hospital from another in a recipe's counts (n, rows, 256): an array (n, d).

    Seven quantiles of both lungs in each channel, and three of the grey levels in each zone; :func:`site_names` names
    them. See :mod:`histcxr.decision.site`.
    """
    recipe.check_counts(counts)
    names = zone_names(recipe.zones)
    channels = counts.reshape(len(counts), -1, len(names), counts.shape[-1]).astype(np.float64)
    whole = channels[:, :, 0] if names[0] == "lungs" else channels.sum(axis=2)
    zones = fill_empty(channels[:, 0], whole[:, 0])
    found = quantiles(whole, _SITE_LEVELS), quantiles(zones, _SITE_ZONE_LEVELS)
    return np.concatenate([one.reshape(len(counts), one.shape[1] * one.shape[2]) for one in found], axis=1)


def site_names(recipe: Recipe) -> tuple[str, ...]:
    """Name the numbers of :func:`site_numbers`."""
    both = [f"{band} at {at:.0%}" for band in ("intensity", *map(str, recipe.bands)) for at in _SITE_LEVELS]
    zones = [
        f"intensity in {zone} at {at:.0%}" for zone in zone_names(recipe.zones) for at in _SITE_ZONE_LEVELS
    ]
    return (*both, *zones)


def square_numbers(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what tells one scanner or hospital from another in squares (n, size, size): an array (n, 21).

    Quantiles of the visible grey levels and of their differences from the neighbours below and to the right.
    """
    found = np.zeros((len(pixels), 3 * len(_SITE_LEVELS)))
    for row, square in enumerate(pixels):
        seen, grey = square > 0, square.astype(np.float64)
        down, right = seen[1:] & seen[:-1], seen[:, 1:] & seen[:, :-1]
        parts = grey[seen], np.diff(grey, axis=0)[down], np.diff(grey, axis=1)[right]
        found[row] = np.concatenate(
            [np.quantile(one, _SITE_LEVELS) if one.size else 0 * _SITE_LEVELS for one in parts]
        )
    return found


def square_names() -> tuple[str, ...]:
    """Name the numbers of :func:`square_numbers`."""
    kinds = ("intensity", "vertical difference", "horizontal difference")
    return tuple(f"{kind} at {at:.0%}" for kind in kinds for at in _SITE_LEVELS)
