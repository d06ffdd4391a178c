"""What is counted of an image beside its grey levels, and the description of all that is counted: the recipe.

**Bands** are histograms of filtered images: what the lungs look like at one scale, counted like their intensity.
IBSI calls such features *filtered first-order*: the image passes a filter, and the histogram of the response
inside the mask is taken. The filters and their names are those of :mod:`histcxr.features.filters`.

Their axis of 256 bins is fixed in units of the band's own spread over both lungs, because contrast differs more
between scanners than between patients. For signed bands bin ``k`` holds responses around ``(k - 128) / 32``
interquartile ranges; for ``mag`` and ``std`` around ``k / 32`` medians. What lies beyond falls into the first or
the last bin. So brightness and contrast of the image do not change the counts, and a zone's histogram tells how
the zone differs from the lungs as a whole. Codes have a bin each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.features.filters import TRAVEL_BANDS, Band, BandKind, as_bands, filtered_images
from histcxr.features.histograms import (
    BINS,
    HISTOGRAM_VERSION,
    Zones,
    check_pixels,
    check_zones,
    zone_labels,
    zone_names,
)

#: Raised whenever the same files may give other counts than before.
EXTRACTION_VERSION: Final = 3

#: Raised whenever the same pixels and mask may give other counts of bands than before.
BANDS_VERSION: Final = 3

#: Bins for one spread. A range of four spreads to either side loses about one pixel in 10,000.
BINS_PER_SPREAD: Final = 32

#: The bin of responses around zero, for signed bands; for the others it is 0.
ZERO_BIN: Final = BINS // 2

#: Longer side, in pixels, of the copy of a working image that is filtered. Models lose nothing by it, and it takes a
#: third of the time (``benchmarks/quality/across_sources.py --sides``).
BANDS_SIDE: Final = 112

# Grey levels. The response to rounding alone is far below, that to any tissue far above.
_LEAST_SPREAD: Final = 1e-3


class _Settings(NamedTuple):
    zones: Zones
    bands: tuple[str, ...]


class Recipe(_Settings):
    """What is extracted from each image: a value that never changes, in every cache key and with every model.

    ``zones`` are counted apart (:mod:`histcxr.features.histograms`; InputError for unknown ones); ``bands`` beside the
    intensity (:func:`histcxr.features.filters.as_bands`), kept as a tuple of names.
    """

    __slots__ = ()

    def __new__(cls, zones: Zones = 1, bands: bool | str | Iterable[str | Band] = ()) -> Recipe:
        """Check the settings and bring them into their one spelling."""
        return super().__new__(cls, check_zones(zones), tuple(band.name for band in as_bands(bands)))

    @property
    def names(self) -> tuple[str, ...]:
        """What the rows of the counts stand for: the zones, then those of each band, as ``dog4_right_upper``."""
        zones = zone_names(self.zones)
        return (*zones, *(f"{band}_{zone}" for band in self.bands for zone in zones))

    def check_counts(self, counts: NDArray[Any]) -> None:
        """Raise InputError unless counts have the shape (n, rows, 256) of this recipe."""
        shape = (len(self.names), BINS)
        if counts.ndim != 3 or counts.shape[1:] != shape:
            raise InputError(
                f"counts must have the shape (n, {shape[0]}, {BINS}) for {self}; got {counts.shape}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return settings and versions in types that JSON knows."""
        settings: dict[str, Any] = {
            "zones": self.zones,
            "histogram": HISTOGRAM_VERSION,
            "extraction": EXTRACTION_VERSION,
        }
        if self.bands:
            settings |= {"bands": list(self.bands), "filtering": BANDS_VERSION}
        return settings

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Recipe:
        """Rebuild a recipe from :meth:`to_dict`; InputError for wrong keys, or another version of the extraction."""
        bands = settings.get("bands", [])
        if not isinstance(bands, list):
            raise InputError(f"a recipe's bands must be a list of names; got {bands!r}")
        current = cls(1, bands).to_dict()
        if set(settings) != set(current):
            raise InputError(f"a recipe must have the keys {sorted(current)}; got {sorted(settings)}")
        for key in ("histogram", "extraction", "filtering"):
            if settings.get(key) != current.get(key):
                raise InputError(
                    f"a recipe's {key} version must be this program's, {current[key]}; got {settings[key]!r}"
                )
        return cls(settings["zones"], bands)


def as_recipe(zones: Zones | Recipe, bands: bool | str | Iterable[str | Band] = ()) -> Recipe:
    """Return a recipe, given or for zones and bands; InputError for unknown ones, or bands beside a recipe."""
    if not isinstance(zones, Recipe):
        return Recipe(zones, bands)
    if as_bands(bands):
        raise InputError("bands must not be given beside a Recipe, which has its own")
    return zones


def band_histograms(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    zones: Zones = 6,
    bands: bool | str | Iterable[str | Band] = TRAVEL_BANDS,
) -> NDArray[np.int64]:
    """Count the responses of each band in each zone, on the axis of the module's text: int64 (n_bands, n_zones, 256).

    Pixels, mask and zones are as for :func:`~histcxr.features.histograms.masked_histogram`, bands as for
    :func:`histcxr.features.filters.as_bands`, and so are the errors. Lungs of
    one grey level have all their counts in the bin of zero: 128, or 0 for ``mag`` and ``std``.
    """
    zones = check_zones(zones)
    wanted = as_bands(bands)
    check_pixels(pixels, mask)
    counts = np.zeros((len(wanted), len(zone_names(zones)), BINS), np.int64)
    if not wanted or not mask.any():
        return counts
    filtered = filtered_images(pixels, mask, wanted)
    parts = counts.shape[1] - isinstance(zones, str)
    # Labels of pixels, from 0; offsets of their rows in one flat histogram.
    offset = (zone_labels(filtered.mask, zones)[filtered.mask].astype(np.intp) - 1) * BINS
    for row, band, values in zip(counts, wanted, filtered.values, strict=True):
        found = np.bincount(offset + _bins(values, band.traits), minlength=parts * BINS)
        row[-parts:] = found.reshape(parts, BINS)
        if len(row) > parts:
            row[0] = row[1:].sum(axis=0)
    return counts


def _bins(values: NDArray[np.float32], kind: BandKind) -> NDArray[np.uint8]:
    """Return the bin of every response, shape (n,): its code, or its place on the axis of their own spread."""
    n = values.size
    scaled = values
    if not kind.codes:
        ranks = (n // 4, n - 1 - n // 4) if kind.signed else (n // 2,)
        ordered = np.partition(values, ranks)
        spread = float(ordered[ranks[-1]]) - (float(ordered[ranks[0]]) if kind.signed else 0.0)
        scaled = values * np.float32(BINS_PER_SPREAD / max(spread, _LEAST_SPREAD))
        if kind.signed:
            scaled += np.float32(ZERO_BIN)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, BINS - 1, out=scaled).astype(np.uint8)
