"""From the counts of grey levels and bands to features: quantiles, coarse densities, and both sides of an image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import MetaEstimatorMixin, clone

from histcxr.checks import positive_number, whole_number
from histcxr.exceptions import InputError
from histcxr.features import curves
from histcxr.features.filters import Band, as_bands
from histcxr.features.histograms import BINS, Zones, zone_names
from histcxr.features.recipe import BINS_PER_SPREAD, ZERO_BIN, Recipe
from histcxr.features.transformers import CountsTransformer, level_names

_INTENSITIES = {"own": ("own",), "raw": ("raw",), "both": ("raw", "own")}


class BandFeatures(CountsTransformer):
    """Turn histograms of intensity and bands into quantiles for a classifier, zone by zone.

    Bands (:func:`histcxr.features.filters.as_bands`) are already counted on an axis of their own spread; of a band of
    codes, which have no order, it gives the square roots of their shares. ``intensity`` is ``"own"`` (shifted and
    scaled by the whole lungs' own median and interquartile range: the scanner's brightness and contrast drop out),
    ``"raw"`` (grey levels) or ``"both"``. The levels are ``(i + 0.5) / n_quantiles``; ``dtype`` is ``"float64"`` or
    ``"float32"``.

    Features come channel by channel, within each zone by zone: intensities in grey levels (``raw``) or interquartile
    ranges from the median (``own``), bands in spreads from zero.
    """

    def __init__(
        self,
        *,
        zones: Zones = 1,
        bands: bool | str | Iterable[str | Band] = False,
        intensity: str = "own",
        n_quantiles: int = 24,
        dtype: str = "float64",
    ) -> None:
        self.zones = zones
        self.bands = bands
        self.intensity = intensity
        self.n_quantiles = n_quantiles
        self.dtype = dtype

    def _check_parameters(self) -> None:
        if self.intensity not in _INTENSITIES:
            raise InputError(f"intensity must be one of {', '.join(_INTENSITIES)}; got {self.intensity!r}")
        whole_number(self.n_quantiles, "n_quantiles", least=1)

    def _features(self, counts: NDArray[Any]) -> NDArray[np.floating]:
        found: list[NDArray[np.floating]] = []
        zones = len(zone_names(self.zones))
        channels = counts.reshape(len(counts), -1, zones, counts.shape[2]).swapaxes(0, 1)
        for channel, band in zip(channels, (None, *as_bands(self.bands)), strict=True):
            parts = channel.astype(np.float64)
            whole = parts[:, self._first_part :].sum(axis=1)
            parts = curves.fill_empty(parts, whole)
            if band is not None and band.traits.codes:
                found.append(np.sqrt(curves.density(parts[:, :, : len(band.traits.codes)])))
                continue
            quantiles = curves.quantiles(parts, curves.levels(self.n_quantiles))
            if band is not None:
                zero = ZERO_BIN if band.traits.signed else 0
                found.append((quantiles.astype(self.dtype) - zero) / BINS_PER_SPREAD)
                continue
            if self.intensity != "own":
                found.append(quantiles)
            if self.intensity != "raw":
                median, spread = curves.centre_and_spread(whole)
                found.append((quantiles - median[:, None, None]) / spread[:, None, None])
        return np.concatenate([one.reshape(len(counts), -1) for one in found], axis=1, dtype=self.dtype)

    def _names(self) -> list[str]:
        levels = [f"quantile_{level}" for level in level_names(self.n_quantiles)]
        channels = [(name, levels) for name in _INTENSITIES[self.intensity]]
        for band in as_bands(self.bands):
            codes = [f"code_{code}" for code in range(len(band.traits.codes))]
            channels.append((band.name, codes or levels))
        zones = zone_names(self.zones)
        return [f"{channel}_{zone}_{key}" for channel, keys in channels for zone in zones for key in keys]


class BandDensities(CountsTransformer):
    """Turn every row of the counts into the square root of its density in ``n_bins`` (1, 2, 4, ..., 256) wide bins.

    The Euclidean distance of two rows is then Hellinger's between their distributions. The intensity keeps its grey
    levels, bands lie on an axis of their own spread; bands of codes are left out. ``weight`` is a factor on all
    features, for kernels that add up distances of several kinds.
    """

    dtype = "float32"
    _whole_axis = True

    def __init__(
        self,
        *,
        zones: Zones = 1,
        bands: bool | str | Iterable[str | Band] = (),
        n_bins: int = 32,
        weight: float = 1.0,
    ) -> None:
        self.zones = zones
        self.bands = bands
        self.n_bins = n_bins
        self.weight = weight

    def _check_parameters(self) -> None:
        if BINS % whole_number(self.n_bins, "n_bins", least=1):
            raise InputError(f"n_bins must divide {BINS}; got {self.n_bins!r}")
        positive_number(self.weight, "weight")

    def _features(self, counts: NDArray[Any]) -> NDArray[np.float64]:
        zones = len(zone_names(self.zones))
        ordered = [True, *(not band.traits.codes for band in as_bands(self.bands))]
        channels = counts.reshape(len(counts), -1, zones, BINS)[:, ordered].reshape(
            -1, zones, self.n_bins, BINS // self.n_bins
        )
        wide = channels.sum(axis=3, dtype=np.float64)
        density = curves.density(curves.fill_empty(wide, wide[:, self._first_part :].sum(axis=1)))
        return self.weight * np.sqrt(density).reshape(len(counts), -1)

    def _names(self) -> list[str]:
        rows = Recipe(self.zones, [band for band in as_bands(self.bands) if not band.traits.codes]).names
        return [f"{row}_density_{index}" for row in rows for index in range(self.n_bins)]


class BothSides(MetaEstimatorMixin, CountsTransformer):
    """Put the features of each image and of its mirror image side by side.

    A classifier that learns from the first half and scores the mean of both
    (:class:`~histcxr.models.out_of_fold.CalibratedClassifier` with ``views=2``) does not care which lung is the sick
    one. Mirrored counts follow from the image's own. ``features`` goes from counts to features and learns from the
    images alone; once fitted it is ``features_``.
    """

    dtype = None
    _whole_axis = True

    def __init__(
        self, features: Any, *, zones: Zones = 6, bands: bool | str | Iterable[str | Band] = ()
    ) -> None:
        self.features = features
        self.zones = zones
        self.bands = bands

    def _learn(self, counts: NDArray[Any]) -> None:
        self.features_ = clone(self.features).fit(counts)

    def _features(self, counts: NDArray[Any]) -> NDArray[Any]:
        mirrored = mirror_counts(counts, zones=self.zones, bands=self.bands)
        return np.hstack([self.features_.transform(counts), self.features_.transform(mirrored)])

    def _names(self) -> list[str]:
        names = self.features_.get_feature_names_out()
        return [*names, *(f"mirrored_{name}" for name in names)]


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
