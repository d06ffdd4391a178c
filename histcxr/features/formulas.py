"""Counts to features as plain functions: what transformers and saved models compute, without scikit-learn.

Each takes the settings of its transformer (of :mod:`~histcxr.features.transformers` and
:mod:`~histcxr.features.band_features`) as attributes of ``settings``, and counts (n, rows, bins), which it does not
change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.features import curves
from histcxr.features.filters import Band, as_bands
from histcxr.features.histograms import BINS, Zones, check_zones, zone_names
from histcxr.features.recipe import BINS_PER_SPREAD, ZERO_BIN, Recipe

#: The representations of a network's input there are, each with its exponent: where an intensity axis is stretched by
#: ``s``, the values at a place are multiplied by ``s ** -exponent`` (a density thins out, a share of pixels does not).
REPRESENTATIONS: Final[dict[str, float]] = {"density": 1.0, "sqrt": 0.5, "cumulative": 0.0}

# Images worked on at a time: bounds the memory for what lies between counts and features, or tensor.
_BLOCK, _TENSOR_BLOCK = 64, 1024

# Pixels of a row that count as much as a density that sums to 1; the lungs of a small radiograph have about as many.
_SIZE = 10_000.0


def first_part(zones: Zones) -> int:
    """Return the first row of a channel from which on no two share a pixel: 1 where the whole lungs come first."""
    return int(isinstance(check_zones(zones), str))


def in_blocks(
    compute: Callable[[NDArray[Any]], NDArray[Any]],
    counts: NDArray[Any],
    zones: Zones,
    ignore_bins: Sequence[int],
    dtype: str | None,
) -> NDArray[Any]:
    """Compute features of a type (None: as they come) a few images at a time; InputError: one has no counted pixel."""
    parts = counts.reshape(len(counts), -1, len(zone_names(zones)), counts.shape[2])
    channels = parts[:, :, first_part(zones) :].sum(axis=2)
    channels[:, :, list(ignore_bins)] = 0
    empty = np.flatnonzero((channels.sum(axis=2) <= 0).any(axis=1))
    if empty.size:
        ignored = f" (ignore_bins={tuple(ignore_bins)})" if len(ignore_bins) else ""
        raise InputError(
            f"X must have a counted pixel in every image{ignored}; image {int(empty[0])} has none"
        )
    first = compute(counts[:_BLOCK])
    found = np.empty((len(counts), first.shape[1]), dtype or first.dtype)
    found[:_BLOCK] = first
    for start in range(_BLOCK, len(counts), _BLOCK):
        found[start : start + _BLOCK] = compute(counts[start : start + _BLOCK])
    return found


def histogram_features(settings: Any, counts: NDArray[Any]) -> NDArray[np.float64]:
    """Compute what ``HistogramFeatures`` gives, float64 (n, features)."""
    kinds = (settings.kind,) if isinstance(settings.kind, str) else tuple(settings.kind)
    counts = counts.astype(np.float64)
    counts[:, :, list(settings.ignore_bins)] = 0
    parts = counts[:, first_part(settings.zones) :]
    whole, areas = parts.sum(axis=1), parts.sum(axis=2)
    counts = curves.fill_empty(counts, whole)
    zones = curves.density(counts)
    median, spread = curves.centre_and_spread(whole)
    curve = zones
    if settings.scale == "own" and not {"quantile", "share"}.issuperset(kinds):
        curve = curves.resample(zones, median, spread, settings.own_range, settings.own_bins)
    blocks = []
    for kind in kinds:
        if kind == "quantile":
            found = curves.quantiles(counts, curves.levels(settings.n_quantiles))
            if settings.scale == "own":
                found = (found - median[:, None, None]) / spread[:, None, None]
        elif kind == "share":
            found = curves.shares(zones[:, first_part(settings.zones) :], whole, settings.n_shares)
        elif kind == "cumulative":
            found = np.cumsum(curve, axis=2)
        elif kind == "sqrt":
            found = np.sqrt(curve)
        elif kind == "smoothed":
            found = curves.smooth(curve, float(settings.sigma))
        else:
            found = curve
        blocks.append(found.reshape(len(counts), -1))
    if settings.areas and settings.zones != 1:
        blocks.append(areas / areas.sum(axis=1, keepdims=True))
    return np.concatenate(blocks, axis=1)


def lung_intensity(settings: Any, counts: NDArray[Any]) -> NDArray[np.float64]:
    """Compute what ``LungIntensity`` gives, float64 (n, 2)."""
    whole = counts[:, first_part(settings.zones) :].sum(axis=1, dtype=np.float64)
    return np.column_stack(curves.centre_and_spread(whole))


def band_quantiles(settings: Any, counts: NDArray[Any]) -> NDArray[np.floating]:
    """Compute what ``BandFeatures`` gives, (n, features)."""
    found: list[NDArray[np.floating]] = []
    zones = len(zone_names(settings.zones))
    channels = counts.reshape(len(counts), -1, zones, counts.shape[2]).swapaxes(0, 1)
    for channel, band in zip(channels, (None, *as_bands(settings.bands)), strict=True):
        parts = channel.astype(np.float64)
        whole = parts[:, first_part(settings.zones) :].sum(axis=1)
        parts = curves.fill_empty(parts, whole)
        if band is not None and band.traits.codes:
            found.append(np.sqrt(curves.density(parts[:, :, : len(band.traits.codes)])))
            continue
        quantiles = curves.quantiles(parts, curves.levels(settings.n_quantiles))
        if band is not None:
            zero = ZERO_BIN if band.traits.signed else 0
            found.append((quantiles.astype(settings.dtype) - zero) / BINS_PER_SPREAD)
            continue
        if settings.intensity != "own":
            found.append(quantiles)
        if settings.intensity != "raw":
            median, spread = curves.centre_and_spread(whole)
            found.append((quantiles - median[:, None, None]) / spread[:, None, None])
    return np.concatenate([one.reshape(len(counts), -1) for one in found], axis=1, dtype=settings.dtype)


def band_densities(settings: Any, counts: NDArray[Any]) -> NDArray[np.float64]:
    """Compute what ``BandDensities`` gives, (n, features)."""
    zones = len(zone_names(settings.zones))
    ordered = [True, *(not band.traits.codes for band in as_bands(settings.bands))]
    channels = counts.reshape(len(counts), -1, zones, BINS)[:, ordered].reshape(
        -1, zones, settings.n_bins, BINS // settings.n_bins
    )
    wide = channels.sum(axis=3, dtype=np.float64)
    density = curves.density(curves.fill_empty(wide, wide[:, first_part(settings.zones) :].sum(axis=1)))
    return settings.weight * np.sqrt(density).reshape(len(counts), -1)


def mirror_counts(
    counts: NDArray[Any], *, zones: Zones, bands: bool | str | Iterable[str | Band] = False
) -> NDArray[Any]:
    """Return the mirrored images' counts from counts (n, rows, 256): the lungs change places.

    InputError for another shape. Equal to counting mirrored images but for rounding: bin 0 of ``dx`` and ``dxy`` is
    joined to bin 1, and responses just between two bins may go to the other one.
    """
    Recipe(zones, bands).check_counts(counts)
    names = zone_names(zones)
    other = {"right": "left", "left": "right"}
    swapped = []
    for name in names:
        side, line, third = name.partition("_")
        swapped.append(names.index(f"{other.get(side, side)}{line}{third}"))
    cube = counts.reshape(len(counts), -1, len(names), BINS)[:, :, swapped]
    for channel, band in enumerate(as_bands(bands), 1):
        mirrored, rows = cube[:, channel], cube[:, channel].copy()
        if band.traits.codes:
            mirrored[:, :, list(band.traits.codes)] = rows[:, :, : len(band.traits.codes)]
        elif band.traits.odd:
            # Bin k of 1 to 255 goes to 256 - k; bin 0, beyond the range, stays on the other end.
            mirrored[:, :, 1:] = rows[:, :, :0:-1]
            mirrored[:, :, -1] += rows[:, :, 0]
            mirrored[:, :, 0] = 0
    return cube.reshape(counts.shape)


def histogram_tensor(
    counts: NDArray[np.number],
    representation: str = "sqrt",
    *,
    smoothing: float = 0.0,
    scale: str = "raw",
    areas: bool | str = False,
) -> NDArray[np.float32]:
    """Turn counts, not negative, (n, rows, bins), into float32 inputs of about unit size, each image by itself.

    A row without counts (a lung that is missing) takes the distribution of all rows together. InputError for an unknown
    option, or an image without any count.

    - ``representation``: ``"density"`` times the bins, the ``"sqrt"`` of that, or twice the ``"cumulative"`` density
      minus 1
    - ``smoothing``: standard deviation in bins of a Gaussian window over the density; 0 for none
    - ``scale``: ``"raw"``, or ``"own"``: as many bins over 3 interquartile ranges to either side of the image's median
    - ``areas``: what each row is divided by: its own sum (False), the mean sum of the image's rows (True), or 10,000
      pixels (``"size"``); off, because masks from models betray the class by shape and size
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
    for start in range(0, len(counts), _TENSOR_BLOCK):
        block = counts[start : start + _TENSOR_BLOCK].astype(np.float64)
        tensor[start : start + _TENSOR_BLOCK] = _representation(
            block, representation, smoothing, scale, areas
        )
    return tensor


def check_counted(counts: NDArray[np.number]) -> None:
    """Raise InputError for an image, of (n, ...), without any count."""
    empty = np.flatnonzero(counts.reshape(len(counts), -1).sum(axis=1) <= 0)
    if empty.size:
        raise InputError(f"X must have counts in every image; image {int(empty[0])} has none")


def _representation(
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
