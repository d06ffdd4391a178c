"""From counts to features: a scikit-learn transformer over the histograms of the lungs.

The formulas are pure functions in :mod:`histcxr.features.curves`; this module checks, names and joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, check_non_negative, validate_data

from histcxr.exceptions import InputError
from histcxr.features import curves
from histcxr.features.histograms import Zones, check_zones, zone_names

__all__ = ["KINDS", "HistogramFeatures"]

#: The kinds of feature there are.
KINDS = ("density", "cumulative", "sqrt", "smoothed", "quantile", "share")

# Rows worked on at a time: bounds the memory for what lies between counts and features.
_BLOCK = 1024


class HistogramFeatures(TransformerMixin, BaseEstimator):
    """Turn histograms of the lungs into features for a classifier.

    The transformer learns nothing from the data but their layout, so it may stand anywhere in a pipeline.

    Parameters
    ----------
    kind : str or sequence of str, default="quantile"
        What to compute for each zone; several kinds are joined in the order given.

        - ``"density"``: each bin's share of the zone's pixels.
        - ``"cumulative"``: the density summed up to each bin.
        - ``"sqrt"``: the square root of the density; its Euclidean distance is Hellinger's.
        - ``"smoothed"``: the density under a Gaussian window of ``sigma`` bins.
        - ``"quantile"``: the intensity under which a given share of the zone's pixels lies, at
          ``n_quantiles`` evenly spaced levels, interpolated within bins.
        - ``"share"``: the whole lungs' intensities are cut at their own quantiles into ``n_shares`` intervals
          of equal weight; the feature is the share of the *zone's* pixels in each. It knows no unit of
          intensity, only how the zones differ. Needs two zones or more.
    zones : {1, 2, 6, "1+2", "1+6"}, default=1
        The zones that the rows of the counts stand for; see :mod:`histcxr.features.histograms`.
    scale : {"raw", "own"}, default="raw"
        ``"raw"`` keeps the intensity axis. ``"own"`` shifts and scales it by the whole lungs' own median and
        interquartile range: quantiles become ``(quantile - median) / iqr``; the other kinds are computed on
        ``own_bins`` equal bins over the fixed range from ``-own_range`` to ``own_range``, where what lies
        beyond falls into the first or last bin. ``"share"`` is the same either way.
    n_quantiles : int, default=32
        Levels of ``"quantile"``: ``(i + 0.5) / n_quantiles``.
    n_shares : int, default=16
        Intervals of ``"share"``.
    sigma : float, default=2.0
        Standard deviation of the window of ``"smoothed"``, in bins.
    own_bins : int, default=128
        Bins of the standardised axis.
    own_range : float, default=3.0
        Half the length of the standardised axis, in interquartile ranges.
    areas : bool, default=False
        Whether to add each zone's share of the lungs' area (not for ``zones=1``). Off by default: masks come
        from models that cut diseased lung away, so their shape betrays the class without the image.
    ignore_bins : sequence of int, default=()
        Bins to count as empty, e.g. ``(0, 255)`` where pixels of these values are an artefact of processing.
    dtype : {"float64", "float32"}, default="float64"
        Of the features.

    Attributes
    ----------
    n_bins_ : int
        Bins of a histogram.
    zone_names_ : tuple of str
        What the rows stand for.
    n_features_in_ : int
        Counts of an image: zones times bins.
    feature_names_in_ : ndarray of str
        Only when fitted on a table with named columns.

    Notes
    -----
    Counts may come as ``(n, zones, bins)``, or flat as ``(n, zones * bins)``.

    A zone without a pixel (a lung that is missing) takes the distribution of the whole lungs: the neutral
    guess, finite, and told apart only by ``areas``. An image without any counted pixel has no features and is
    refused: extraction marks such images as unusable.
    """

    def __init__(
        self,
        kind: str | Sequence[str] = "quantile",
        *,
        zones: Zones = 1,
        scale: str = "raw",
        n_quantiles: int = 32,
        n_shares: int = 16,
        sigma: float = 2.0,
        own_bins: int = 128,
        own_range: float = 3.0,
        areas: bool = False,
        ignore_bins: Sequence[int] = (),
        dtype: str = "float64",
    ) -> None:
        self.kind = kind
        self.zones = zones
        self.scale = scale
        self.n_quantiles = n_quantiles
        self.n_shares = n_shares
        self.sigma = sigma
        self.own_bins = own_bins
        self.own_range = own_range
        self.areas = areas
        self.ignore_bins = ignore_bins
        self.dtype = dtype

    def fit(self, X: ArrayLike, y: Any = None) -> HistogramFeatures:
        """Check the parameters and note the layout of the counts.

        Parameters
        ----------
        X : array-like, shape (n, zones, bins) or (n, zones * bins)
            Counts, not negative.
        y : None
            Ignored.

        Raises
        ------
        ValueError
            When a parameter or the counts' layout does not fit (:class:`~histcxr.exceptions.InputError`), or
            the counts are negative, missing or infinite.
        """
        self._check_parameters()
        names = zone_names(self.zones)
        flat = self._flatten(X, names, reset=True)
        if flat.shape[1] % len(names):
            raise InputError(
                f"X must have a multiple of {len(names)} columns, bins for each of zones={self.zones!r}; "
                f"got {flat.shape[1]}"
            )
        bins = flat.shape[1] // len(names)
        for index in self.ignore_bins:
            if not 0 <= index < bins:
                raise InputError(f"ignore_bins must lie between 0 and {bins - 1}; got {index!r}")
        self.n_bins_ = bins
        self.zone_names_ = names
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.floating]:
        """Compute the features.

        Parameters
        ----------
        X : array-like, shape (n, zones, bins) or (n, zones * bins)
            Counts, not negative.

        Returns
        -------
        ndarray, shape (n, n_features_out)
            Zone by zone within each kind, then the areas; see :meth:`get_feature_names_out`.

        Raises
        ------
        InputError
            When an image has no counted pixel in any zone.
        """
        check_is_fitted(self)
        flat = self._flatten(X, self.zone_names_, reset=False)
        n_out = len(self._names())
        features = np.empty((len(flat), n_out), self.dtype)
        for start in range(0, len(flat), _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.float64)
            block = block.reshape(len(block), len(self.zone_names_), self.n_bins_)
            features[start : start + _BLOCK] = self._features(block, start)
        return features

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Name the features, e.g. ``right_upper_quantile_0.25``.

        Parameters
        ----------
        input_features : array-like of str, optional
            Only compared with the names seen by ``fit``: features are named after zones, not after columns.
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
        return np.array(self._names(), dtype=object)

    @property
    def _kinds(self) -> tuple[str, ...]:
        return (self.kind,) if isinstance(self.kind, str) else tuple(self.kind)

    def _check_parameters(self) -> None:
        check_zones(self.zones)
        kinds = self._kinds
        if not kinds or any(kind not in KINDS for kind in kinds) or len(set(kinds)) < len(kinds):
            raise InputError(
                f"kind must be one or several different of {', '.join(KINDS)}; got {self.kind!r}"
            )
        if "share" in kinds and len(zone_names(self.zones)) == 1:
            raise InputError("kind 'share' compares zones and needs two or more; got zones=1")
        if self.scale not in ("raw", "own"):
            raise InputError(f"scale must be 'raw' or 'own'; got {self.scale!r}")
        for name, least in (("n_quantiles", 1), ("n_shares", 2), ("own_bins", 2)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} must be an integer of at least {least}; got {value!r}")
        for name in ("sigma", "own_range"):
            value = getattr(self, name)
            if not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
                raise InputError(f"{name} must be a positive number; got {value!r}")
        if self.dtype not in ("float64", "float32"):
            raise InputError(f"dtype must be 'float64' or 'float32'; got {self.dtype!r}")

    def _flatten(self, X: ArrayLike, names: tuple[str, ...], *, reset: bool) -> NDArray[Any]:
        """Return the counts as (n, zones * bins), checked; scikit-learn's own checks know two dimensions."""
        if getattr(X, "ndim", 2) == 3 or (isinstance(X, list | tuple) and np.ndim(X) == 3):
            cube = check_array(X, allow_nd=True)
            if cube.shape[1] != len(names):
                raise InputError(
                    f"X must have {len(names)} rows an image, one for each of zones={self.zones!r}; "
                    f"got shape {cube.shape}"
                )
            X = cube.reshape(len(cube), -1)
        flat = validate_data(self, X, reset=reset)
        check_non_negative(flat, type(self).__name__)
        return flat

    def _features(self, counts: NDArray[np.float64], start: int) -> NDArray[np.float64]:
        """Compute one block: (n, zones, bins) to (n, n_features_out)."""
        counts[:, :, list(self.ignore_bins)] = 0
        whole_first = isinstance(check_zones(self.zones), str)
        parts = counts[:, 1:] if whole_first else counts
        whole, areas = parts.sum(axis=1), parts.sum(axis=2)
        empty = np.flatnonzero(whole.sum(axis=1) <= 0)
        if empty.size:
            raise InputError(
                f"X must have a counted pixel in every image (ignore_bins={tuple(self.ignore_bins)}); "
                f"image {start + int(empty[0])} has none"
            )
        counts = curves.fill_empty(counts, whole)
        zones = curves.density(counts)
        median, spread = curves.centre_and_spread(whole)
        blocks = []
        on_own_axis: NDArray[np.float64] | None = None
        for kind in self._kinds:
            if kind == "quantile":
                found = curves.quantiles(counts, curves.levels(self.n_quantiles))
                if self.scale == "own":
                    found = (found - median[:, None, None]) / spread[:, None, None]
            elif kind == "share":
                found = curves.shares(zones[:, int(whole_first) :], whole, self.n_shares)
            else:
                curve = zones
                if self.scale == "own":
                    if on_own_axis is None:
                        on_own_axis = curves.resample(zones, median, spread, self.own_range, self.own_bins)
                    curve = on_own_axis
                found = self._of_density(kind, curve)
            blocks.append(found.reshape(len(counts), -1))
        if self._area_names():
            blocks.append(areas / areas.sum(axis=1, keepdims=True))
        return np.concatenate(blocks, axis=1)

    def _of_density(self, kind: str, density: NDArray[np.float64]) -> NDArray[np.float64]:
        if kind == "cumulative":
            return np.cumsum(density, axis=2)
        if kind == "sqrt":
            return np.sqrt(density)
        if kind == "smoothed":
            return curves.smooth(density, float(self.sigma))
        return density

    def _area_names(self) -> list[str]:
        names = [name for name in self.zone_names_ if name != "lungs"]
        return [f"{name}_area" for name in names] if self.areas else []

    def _names(self) -> list[str]:
        names: list[str] = []
        for kind in self._kinds:
            zones = self.zone_names_
            if kind == "quantile":
                # As many digits as tell the levels apart, so that 1000 levels still have 1000 names.
                keys = [f"{level:.6g}" for level in curves.levels(self.n_quantiles)]
            elif kind == "share":
                keys = [str(index) for index in range(self.n_shares)]
                zones = tuple(name for name in zones if name != "lungs")
            else:
                keys = [str(index) for index in range(self.own_bins if self.scale == "own" else self.n_bins_)]
            names += [f"{zone}_{kind}_{key}" for zone in zones for key in keys]
        return names + self._area_names()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = [self.dtype]
        return tags
