"""From the counts of grey levels and bands to features: quantiles, coarse densities, and both sides of an image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import MetaEstimatorMixin, clone

from histcxr.checks import positive_number, whole_number
from histcxr.exceptions import InputError
from histcxr.features.filters import Band, as_bands
from histcxr.features.formulas import band_densities, band_quantiles, mirror_counts
from histcxr.features.histograms import BINS, Zones, zone_names
from histcxr.features.recipe import Recipe
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

    _features = band_quantiles

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

    _features = band_densities

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
