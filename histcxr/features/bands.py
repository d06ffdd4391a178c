"""Histograms of filtered images: what the lungs look like at one scale, counted like their intensity.

IBSI calls such features *filtered first-order*: the image passes a filter, and the histogram of the response
inside the mask is taken. The filters and their names are those of :mod:`histcxr.features.filters`.

**The axis** of 256 bins is fixed in units of the band's own spread over both lungs, because contrast differs
more between scanners than between patients. For signed bands bin ``k`` holds responses around
``(k - 128) / 32`` interquartile ranges; for ``mag`` and ``std`` around ``k / 32`` medians. What lies beyond
falls into the first or the last bin. So brightness and contrast of the image do not change the counts, and a
zone's histogram tells how the zone differs from the lungs as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from histcxr.features.filters import (
    FULL_BANDS,
    TRAVEL_BANDS,
    WORKING_SIZE,
    Band,
    Filtered,
    as_bands,
    check_pixels,
    filtered_images,
)
from histcxr.features.histograms import BINS, Zones, check_zones, zone_labels, zone_names

__all__ = [
    "BANDS_VERSION",
    "BINS_PER_SPREAD",
    "FULL_BANDS",
    "TRAVEL_BANDS",
    "WORKING_SIZE",
    "ZERO_BIN",
    "Band",
    "Filtered",
    "as_bands",
    "band_histograms",
    "filtered_images",
]

#: Raised whenever the same pixels and mask may give other counts than before.
BANDS_VERSION: Final = 1

#: Bins for one spread. A range of four spreads to either side loses about one pixel in 10,000.
BINS_PER_SPREAD: Final = 32

#: The bin of responses around zero, for signed bands; for the others it is 0.
ZERO_BIN: Final = BINS // 2
# Grey levels. The response to rounding alone is far below, that to any tissue far above.
_LEAST_SPREAD: Final = 1e-3


def band_histograms(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    zones: Zones = 6,
    bands: bool | str | Iterable[str | Band] = TRAVEL_BANDS,
) -> NDArray[np.int64]:
    """Count the responses of each band in each zone, on an axis of the band's own spread.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width)
        The radiograph, lungs dark.
    mask : ndarray of bool, shape (height, width)
        True inside the lungs. An empty mask gives zeros.
    zones : {1, 2, 6, "1+2", "1+6"}
        As in :func:`histcxr.features.histograms.masked_histogram`.
    bands : see :func:`as_bands`

    Returns
    -------
    ndarray of int64, shape (n_bands, n_zones, 256)
        Pixels of the working image; see the module's description for the axis. Lungs of one grey level have
        all their counts in the bin of zero: 128, or 0 for ``mag`` and ``std``.

    Raises
    ------
    InputError
        When dtype, dimensions or shapes do not fit, zones or a band is unknown.

    Notes
    -----
    The spread is taken over both lungs together, whatever the zones: so differences between zones stay.
    """
    zones = check_zones(zones)
    wanted = as_bands(bands)
    check_pixels(pixels, mask)
    n_zones = len(zone_names(zones))
    counts = np.zeros((len(wanted), n_zones, BINS), np.int64)
    if not wanted or not mask.any():
        return counts
    filtered = filtered_images(pixels, mask, wanted)
    whole_first = int(isinstance(zones, str))
    parts = n_zones - whole_first
    # Labels of working pixels, from 0; offsets of their rows in one flat histogram.
    offset = (zone_labels(filtered.mask, zones)[filtered.mask].astype(np.int32) - 1) * BINS
    for row, band, image in zip(counts, wanted, filtered.values, strict=True):
        bins = _bins(image[filtered.mask], band.signed)
        found = np.bincount(offset + bins, minlength=parts * BINS).reshape(parts, BINS)
        row[whole_first:] = found
        if whole_first:
            row[0] = found.sum(axis=0)
    return counts


def _bins(values: NDArray[np.float32], signed: bool) -> NDArray[np.int32]:
    """Return the bin of every response, shape (n,), on the axis of their own spread."""
    n = values.size
    if signed:
        quarter, rest = n // 4, n - 1 - n // 4
        ordered = np.partition(values, (quarter, rest))
        spread = float(ordered[rest] - ordered[quarter])
    else:
        spread = float(np.partition(values, n // 2)[n // 2])
    scaled = values * np.float32(BINS_PER_SPREAD / max(spread, _LEAST_SPREAD))
    if signed:
        scaled += np.float32(ZERO_BIN)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, BINS - 1, out=scaled).astype(np.int32)
