"""The whole lungs' own intensity level: what features on the lungs' own scale have lost."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, check_non_negative, validate_data

from histcxr.exceptions import InputError
from histcxr.features.curves import centre_and_spread
from histcxr.features.histograms import Zones, check_zones, zone_names

__all__ = ["IntensityLevel"]


class IntensityLevel(TransformerMixin, BaseEstimator):
    """Median and interquartile range of the whole lungs, two features an image, in bins.

    Features on the lungs' own scale (``HistogramFeatures(scale="own")``) are blind to both. Added as two
    numbers among many they help at home and elsewhere; raw quantiles of each zone, which hold the same, bring
    the scanner's brightness into every feature and travel badly.

    Parameters
    ----------
    zones : {1, 2, 6, "1+2", "1+6"}, default=1
        The zones that the rows of the counts stand for; see :mod:`histcxr.features.histograms`.

    Attributes
    ----------
    n_features_in_ : int
        Counts of an image: zones times bins.
    feature_names_in_ : ndarray of str
        Only when fitted on a table with named columns.

    Notes
    -----
    Counts may come as ``(n, zones, bins)``, or flat as ``(n, zones * bins)``. The transformer learns nothing
    from the data but their layout.
    """

    def __init__(self, zones: Zones = 1) -> None:
        self.zones = zones

    def fit(self, X: ArrayLike, y: Any = None) -> IntensityLevel:
        """Check the counts and note their layout.

        Parameters
        ----------
        X : array-like, shape (n, zones, bins) or (n, zones * bins)
            Counts, not negative.
        y : None
            Ignored.

        Raises
        ------
        ValueError
            When ``zones`` or the counts' layout do not fit (:class:`~histcxr.exceptions.InputError`), or the
            counts are negative, missing or infinite.
        """
        check_zones(self.zones)
        self._whole(X, reset=True)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the features, shape (n, 2).

        Raises
        ------
        InputError
            When an image has no counted pixel.
        """
        check_is_fitted(self)
        whole = self._whole(X, reset=False)
        empty = np.flatnonzero(whole.sum(axis=1) <= 0)
        if empty.size:
            raise InputError(f"X must have a counted pixel in every image; image {int(empty[0])} has none")
        return np.column_stack(centre_and_spread(whole))

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Name the features; ``input_features`` must be those seen by ``fit``, where given."""
        check_is_fitted(self)
        seen = getattr(self, "feature_names_in_", None)
        if input_features is not None and seen is not None and not np.array_equal(seen, input_features):
            raise InputError("input_features is not equal to feature_names_in_")
        if input_features is not None and len(np.asarray(input_features)) != self.n_features_in_:
            raise InputError(
                "input_features should have length equal to number of features "
                f"({self.n_features_in_}), got {len(np.asarray(input_features))}"
            )
        return np.array(["lungs_median", "lungs_iqr"], dtype=object)

    def _whole(self, X: ArrayLike, *, reset: bool) -> NDArray[np.float64]:
        """Return the whole lungs' counts, shape (n, bins)."""
        n_zones = len(zone_names(self.zones))
        if getattr(X, "ndim", 2) == 3 or (isinstance(X, list | tuple) and np.ndim(X) == 3):
            cube = check_array(X, allow_nd=True)
            if cube.shape[1] != n_zones:
                raise InputError(
                    f"X must have {n_zones} rows an image, one for each of zones={self.zones!r}; "
                    f"got shape {cube.shape}"
                )
            X = cube.reshape(len(cube), -1)
        flat = validate_data(self, X, reset=reset)
        check_non_negative(flat, type(self).__name__)
        if flat.shape[1] % n_zones:
            raise InputError(
                f"X must have a multiple of {n_zones} columns, bins for each of zones={self.zones!r}; "
                f"got {flat.shape[1]}"
            )
        # With "1+6" every pixel counts twice, which moves no quantile.
        whole: NDArray[np.float64] = flat.reshape(len(flat), n_zones, -1).sum(axis=1, dtype=np.float64)
        return whole

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.three_d_array = True
        return tags
