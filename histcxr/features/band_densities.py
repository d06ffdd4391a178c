"""From the counts of intensity and bands to coarse densities: a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, check_non_negative, validate_data

from histcxr.exceptions import InputError
from histcxr.features import curves
from histcxr.features.bands import Band
from histcxr.features.histograms import BINS, Zones, zone_names
from histcxr.features.recipe import Recipe

__all__ = ["BandDensities"]

# Images worked on at a time: bounds the memory for what lies between counts and features.
_BLOCK = 512


class BandDensities(TransformerMixin, BaseEstimator):
    """Turn every row of the counts into the square root of its density in a few wide bins.

    The Euclidean distance of two rows is then Hellinger's between their distributions. Beside quantiles, which
    tell where a distribution lies, it tells what it looks like. Learns nothing but the layout.

    Parameters
    ----------
    zones : {1, 2, 6, "1+2", "1+6"}, default=1
    bands : bool, str, or iterable of str or Band, default=()
        What the rows stand for. The intensity keeps its grey levels, bands lie on an axis of their own spread.
    n_bins : {1, 2, 4, ..., 256}, default=32
        Wide bins a row.
    weight : float, default=1.0
        Factor on all features, for kernels that add up distances of several kinds.

    Attributes
    ----------
    n_features_in_ : int
        Counts of an image.

    Notes
    -----
    Counts may come as ``(n, rows, 256)`` or flat. A zone without a pixel takes the distribution of the whole lungs.
    """

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

    def fit(self, X: ArrayLike, y: Any = None) -> BandDensities:
        """Check the parameters and the counts' layout.

        Raises
        ------
        ValueError
            When a parameter or the layout does not fit (:class:`~histcxr.exceptions.InputError`).
        """
        if (
            not isinstance(self.n_bins, int | np.integer)
            or isinstance(self.n_bins, bool)
            or self.n_bins < 1
            or BINS % self.n_bins
        ):
            raise InputError(f"n_bins must be an integer that divides {BINS}; got {self.n_bins!r}")
        if not isinstance(self.weight, int | float | np.number) or not 0 < self.weight < np.inf:
            raise InputError(f"weight must be a number above 0; got {self.weight!r}")
        self._cube(X, reset=True)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the features, float32, shape (n, rows * n_bins)."""
        check_is_fitted(self)
        cube = self._cube(X, reset=False)
        zones = len(zone_names(self.zones))
        found = np.empty((len(cube), cube.shape[1] * self.n_bins), np.float32)
        for start in range(0, len(cube), _BLOCK):
            block = cube[start : start + _BLOCK].astype(np.float64)
            wide = block.reshape(*block.shape[:2], self.n_bins, -1).sum(axis=3)
            channels = wide.reshape(-1, zones, self.n_bins)
            density = curves.density(curves.fill_empty(channels, channels.sum(axis=1)))
            found[start : start + _BLOCK] = self.weight * np.sqrt(density).reshape(len(block), -1)
        return found

    def _cube(self, X: ArrayLike, *, reset: bool) -> NDArray[Any]:
        rows = len(Recipe(self.zones, self.bands).names)
        shape = np.shape(X)
        if getattr(X, "ndim", 2) == 3 or (isinstance(X, list | tuple) and np.ndim(X) == 3):
            cube: NDArray[Any] = check_array(X, allow_nd=True)
            X = cube.reshape(len(cube), -1)
        flat = validate_data(self, X, reset=reset)
        check_non_negative(flat, type(self).__name__)
        if flat.shape[1] != rows * BINS or (len(shape) == 3 and shape[1] != rows):
            raise InputError(
                f"X must have {rows} rows of {BINS} bins an image for these zones and bands; got shape {shape}"
            )
        empty = np.flatnonzero(flat.reshape(len(flat), -1).sum(axis=1) <= 0)
        if empty.size:
            raise InputError(f"X must have counts in every image; image {int(empty[0])} has none")
        return flat.reshape(len(flat), rows, BINS)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = [np.float32]
        return tags
