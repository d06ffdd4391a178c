"""From the counts of intensity and bands to features: a scikit-learn transformer.

Each channel (the intensity, then each band) becomes quantiles zone by zone; bands are already counted on an
axis of their own spread, the intensity is put on its own median and range here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from histcxr.exceptions import InputError
from histcxr.features.bands import BINS_PER_SPREAD, ZERO_BIN, Band, as_bands
from histcxr.features.histograms import BINS, Zones, check_zones, zone_names
from histcxr.features.transformers import HistogramFeatures

__all__ = ["BandFeatures", "mirror_counts"]

_INTENSITIES = {"own": ("own",), "raw": ("raw",), "both": ("raw", "own")}


class BandFeatures(TransformerMixin, BaseEstimator):
    """Turn histograms of intensity and bands into quantiles for a classifier.

    Like :class:`~histcxr.features.transformers.HistogramFeatures` it learns nothing from the data but their
    layout.

    Parameters
    ----------
    zones : {1, 2, 6, "1+2", "1+6"}, default=1
        The zones of each channel.
    bands : bool, str, or iterable of str or Band, default=False
        The bands that follow the intensity; see :func:`histcxr.features.filters.as_bands`.
    intensity : {"own", "raw", "both"}, default="own"
        ``"own"`` shifts and scales intensities by the whole lungs' own median and interquartile range: brightness
        and contrast of the scanner drop out. ``"raw"`` keeps grey levels: worth a little within the hospitals
        of the training, harmful elsewhere.
    n_quantiles : int, default=24
        Levels a zone and channel: ``(i + 0.5) / n_quantiles``.
    dtype : {"float64", "float32"}, default="float64"
        Of the features.

    Attributes
    ----------
    bands_ : tuple of str
    n_bins_ : int
        Bins of a histogram.
    n_features_in_ : int
        Counts of an image: channels times zones times bins.

    Notes
    -----
    Counts may come as ``(n, channels * zones, bins)``, channel by channel, as extraction gives them, or flat. A zone
    without a pixel takes the distribution of the whole lungs; an image without any is refused.
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

    def fit(self, X: ArrayLike, y: Any = None) -> BandFeatures:
        """Check the parameters and note the layout of the counts.

        Parameters
        ----------
        X : array-like, shape (n, channels * zones, bins) or (n, channels * zones * bins)
            Counts, not negative.
        y : None
            Ignored.

        Raises
        ------
        ValueError
            When a parameter or the counts' layout does not fit (:class:`~histcxr.exceptions.InputError`).
        """
        zones = check_zones(self.zones)
        if self.intensity not in _INTENSITIES:
            raise InputError(f"intensity must be one of {', '.join(_INTENSITIES)}; got {self.intensity!r}")
        bands = as_bands(self.bands)
        rows = (1 + len(bands)) * len(zone_names(zones))
        flat = self._flatten(X, rows, reset=True)
        if flat.shape[1] % rows:
            raise InputError(
                f"X must have a multiple of {rows} columns, bins for intensity and {len(bands)} bands in "
                f"zones={zones!r}; got {flat.shape[1]}"
            )
        bins = flat.shape[1] // rows
        if bands and bins != BINS:
            raise InputError(f"X must have {BINS} bins a row where there are bands; got {bins}")
        self.bands_ = tuple(band.name for band in bands)
        self.n_bins_ = bins
        self._blocks = [
            HistogramFeatures(
                "quantile", zones=zones, scale=scale, n_quantiles=self.n_quantiles, dtype=self.dtype
            )
            for scale in (*_INTENSITIES[self.intensity], *("raw" for _ in bands))
        ]
        for (_, channel), block in zip(self._sources(), self._blocks, strict=True):
            block.fit(self._channel(flat, channel))
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Compute the features.

        Parameters
        ----------
        X : array-like, shape (n, channels * zones, bins) or (n, channels * zones * bins)

        Returns
        -------
        ndarray, shape (n, n_features_out)
            Channel by channel, within each zone by zone. Intensities in grey levels (``raw``) or interquartile
            ranges from the median (``own``); bands in spreads from zero.

        Raises
        ------
        InputError
            When an image has no counted pixel.
        """
        check_is_fitted(self)
        flat = self._flatten(X, (1 + len(self.bands_)) * len(zone_names(self.zones)), reset=False)
        found = []
        for (band, channel), block in zip(self._sources(), self._blocks, strict=True):
            quantiles = block.transform(self._channel(flat, channel))
            if band is not None:
                quantiles = (quantiles - (ZERO_BIN if band.signed else 0)) / BINS_PER_SPREAD
            found.append(quantiles)
        return np.concatenate(found, axis=1, dtype=self.dtype)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Name the features, e.g. ``dog4_right_upper_quantile_0.25``.

        Parameters
        ----------
        input_features : array-like of str, optional
            Only compared with the names seen by ``fit``.
        """
        check_is_fitted(self)
        if input_features is not None:
            given = np.asarray(input_features, dtype=object)
            seen = getattr(self, "feature_names_in_", None)
            if seen is not None and not np.array_equal(seen, given):
                raise InputError("input_features is not equal to feature_names_in_")
            if len(given) != self.n_features_in_:
                raise InputError(
                    "input_features should have length equal to number of features "
                    f"({self.n_features_in_}), got {len(given)}"
                )
        prefixes = [*_INTENSITIES[self.intensity], *self.bands_]
        names = [
            f"{prefix}_{name}"
            for prefix, block in zip(prefixes, self._blocks, strict=True)
            for name in block.get_feature_names_out()
        ]
        return np.array(names, dtype=object)

    def _sources(self) -> list[tuple[Band | None, int]]:
        """Return for each block of features its band (None: the intensity) and its channel."""
        intensity: list[tuple[Band | None, int]] = [(None, 0) for _ in _INTENSITIES[self.intensity]]
        return intensity + [(band, index + 1) for index, band in enumerate(as_bands(self.bands_))]

    def _channel(self, flat: NDArray[Any], channel: int) -> NDArray[Any]:
        width = self.n_bins_ * len(zone_names(self.zones))
        return flat[:, channel * width : (channel + 1) * width]

    def _flatten(self, X: ArrayLike, rows: int, *, reset: bool) -> NDArray[Any]:
        """Return the counts as (n, channels * zones * bins); scikit-learn's own checks know two dimensions."""
        if getattr(X, "ndim", 2) == 3 or (isinstance(X, list | tuple) and np.ndim(X) == 3):
            cube = check_array(X, allow_nd=True)
            if cube.shape[1] != rows:
                raise InputError(
                    f"X must have {rows} rows an image, one for each channel and zone; got shape {cube.shape}"
                )
            X = cube.reshape(len(cube), -1)
        return np.asarray(validate_data(self, X, reset=reset))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = [self.dtype]
        return tags


def mirror_counts(
    counts: NDArray[Any], *, zones: Zones, bands: bool | str | Iterable[str | Band] = False
) -> NDArray[Any]:
    """Return the counts of the mirrored images, without the images: the lungs change places.

    As an augmentation it teaches a classifier that either lung may be the sick one.

    Parameters
    ----------
    counts : ndarray, shape (n, channels * zones, 256)
    zones, bands
        What the rows stand for.

    Returns
    -------
    ndarray, shape and dtype of counts
        Equal to counting the mirrored images but for what is rounded: the outermost bins of ``dx`` and ``dxy``
        are no mirror images of each other, so bin 0 is joined to bin 1, and responses just between two bins
        may go to the other one.

    Raises
    ------
    InputError
        When the shape does not fit.
    """
    zones = check_zones(zones)
    names = zone_names(zones)
    found = as_bands(bands)
    expected = ((1 + len(found)) * len(names), BINS)
    if counts.ndim != 3 or counts.shape[1:] != expected:
        raise InputError(f"counts must have the shape (n, {expected[0]}, {BINS}); got {counts.shape}")
    other = {"right": "left", "left": "right"}
    swapped = []
    for name in names:
        side, _, third = name.partition("_")
        swapped.append(names.index(f"{other.get(side, side)}{'_' if third else ''}{third}"))
    cube = counts.reshape(len(counts), 1 + len(found), len(names), BINS)[:, :, swapped]
    for channel, band in enumerate(found, 1):
        if band.odd:
            # Bin k of 1 to 255 goes to 256 - k; bin 0, beyond the range, stays on the other end.
            rows = cube[:, channel].copy()
            cube[:, channel, :, 1:] = rows[:, :, :0:-1]
            cube[:, channel, :, -1] += rows[:, :, 0]
            cube[:, channel, :, 0] = 0
    return cube.reshape(counts.shape)
