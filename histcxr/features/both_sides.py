"""The features of a radiograph and of its mirror image: a scikit-learn transformer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, TransformerMixin, clone
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from histcxr.exceptions import InputError
from histcxr.features.band_features import mirror_counts
from histcxr.features.bands import Band
from histcxr.features.histograms import BINS, Zones
from histcxr.features.recipe import Recipe

__all__ = ["BothSides"]

# Images worked on at a time: bounds the memory for their mirrored counts.
_BLOCK = 512


class BothSides(TransformerMixin, MetaEstimatorMixin, BaseEstimator):
    """Put the features of each image and of its mirror image side by side.

    A classifier that learns from the first half and scores the mean of both halves
    (:class:`~histcxr.models.calibrated.CalibratedClassifier` with ``views=2``) does not care which lung is the
    sick one. The mirrored image is never made: its counts follow from the image's own.

    Parameters
    ----------
    features : transformer
        From counts to features, such as :class:`~histcxr.features.transformers.HistogramFeatures`; learns from the
        images alone, not from their mirror images.
    zones : {1, 2, 6, "1+2", "1+6"}, default=6
        What the rows of the counts stand for.
    bands : bool, str, or iterable of str or Band, default=()
        The bands whose rows follow.

    Attributes
    ----------
    features_ : fitted transformer
    n_features_in_ : int
        Counts of an image.

    Notes
    -----
    Counts may come as ``(n, rows, 256)`` or flat as ``(n, rows * 256)``.
    """

    def __init__(
        self, features: Any, *, zones: Zones = 6, bands: bool | str | Iterable[str | Band] = ()
    ) -> None:
        self.features = features
        self.zones = zones
        self.bands = bands

    def fit(self, X: ArrayLike, y: Any = None) -> BothSides:
        """Fit the transformer on the images as they are.

        Parameters
        ----------
        X : array-like, shape (n, rows, 256) or (n, rows * 256)
            Counts, not negative.
        y : ignored

        Raises
        ------
        InputError
            When the counts do not fit zones and bands.
        """
        self.features_ = clone(self.features).fit(self._counts(X, reset=True))
        return self

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Return features, shape (n, 2 * n_features): first the image's own, then its mirror image's."""
        check_is_fitted(self)
        counts = self._counts(X, reset=False)
        parts = []
        for start in range(0, len(counts), _BLOCK):
            block = counts[start : start + _BLOCK]
            mirrored = mirror_counts(block, zones=self.zones, bands=self.bands)
            parts.append(np.hstack([self.features_.transform(block), self.features_.transform(mirrored)]))
        return np.vstack(parts)

    def _counts(self, X: ArrayLike, *, reset: bool) -> NDArray[Any]:
        rows = len(Recipe(self.zones, self.bands).names)
        if getattr(X, "ndim", 2) == 3 or (isinstance(X, list | tuple) and np.ndim(X) == 3):
            cube: NDArray[Any] = check_array(X, allow_nd=True)
            X = cube.reshape(len(cube), -1)
            fits = cube.shape[1:] == (rows, BINS)
        else:
            fits = True
        flat = validate_data(self, X, reset=reset)
        if not fits or flat.shape[1] != rows * BINS:
            raise InputError(
                f"X must have {rows} rows of {BINS} bins an image for zones={self.zones!r} and these bands; "
                f"got shape {np.shape(X) if fits else cube.shape}"
            )
        return flat.reshape(len(flat), rows, BINS)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.three_d_array = True
        return tags
