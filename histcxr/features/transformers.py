"""From counts to features: what every such transformer of scikit-learn shares, and those of the grey levels.

The formulas are pure functions in :mod:`histcxr.features.curves`. A further transformer is a subclass of
:class:`CountsTransformer` with the two methods ``_features`` and ``_names``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_array,
    check_is_fitted,
    check_non_negative,
    validate_data,
)

from histcxr.checks import positive_number, whole_number
from histcxr.exceptions import InputError
from histcxr.features import curves
from histcxr.features.filters import Band
from histcxr.features.formulas import histogram_features, in_blocks, lung_intensity
from histcxr.features.histograms import BINS, Zones, zone_names
from histcxr.features.recipe import Recipe

#: The kinds of feature there are.
KINDS = ("density", "cumulative", "sqrt", "smoothed", "quantile", "share")


def has_three_dimensions(X: Any) -> bool:
    """Tell counts ``(n, rows, bins)`` from flat ones, asking nothing of other containers."""
    return getattr(X, "ndim", 2) == 3 or (isinstance(X, list | tuple) and np.ndim(X) == 3)


def validate_counts(estimator: BaseEstimator, X: ArrayLike, *, reset: bool) -> NDArray[Any]:
    """Do what scikit-learn's ``validate_data`` does, for flat counts or such of three dimensions, which stay so."""
    if not has_three_dimensions(X):
        flat: NDArray[Any] = validate_data(estimator, X, reset=reset)
        return flat
    cube: NDArray[Any] = check_array(X, allow_nd=True)
    validate_data(estimator, cube.reshape(len(cube), -1), reset=reset)
    return cube


class CountsTransformer(TransformerMixin, BaseEstimator):
    """From counts to features, image by image; nothing is learnt from the data but their layout.

    A subclass stores what the rows stand for as ``zones`` and, where rows of bands follow, ``bands``. Counts may come
    as ``(n, rows, bins)`` or flat as ``(n, rows * bins)``. A zone without a pixel (a lung that is missing) takes the
    distribution of the whole lungs: the neutral guess. An image without any counted pixel has no features and is
    refused; extraction marks such images as unusable. Once fitted, ``n_bins_`` says how many bins a histogram has.
    """

    zones: Zones
    bands: bool | str | Iterable[str | Band] = ()
    ignore_bins: Sequence[int] = ()
    #: Of the features; None: as ``_features`` gives them.
    dtype: str | None = "float64"
    #: Whether rows must have 256 bins. Where there are bands, they always must.
    _whole_axis: ClassVar[bool] = False

    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Check the parameters and note the counts' layout; InputError if unfit, negative, missing or infinite."""
        self._check_parameters()
        if self.dtype not in (None, "float64", "float32"):
            raise InputError(f"dtype must be 'float64' or 'float32'; got {self.dtype!r}")
        counts = self._counts(X, reset=True)
        self.n_bins_ = counts.shape[2]
        self._learn(counts)
        return self

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the features, shape (n, n_features_out); ValueError also when an image has no counted pixel."""
        check_is_fitted(self)
        counts = self._counts(X, reset=False)
        return in_blocks(self._features, counts, self.zones, self.ignore_bins, self.dtype)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Name the features, e.g. ``right_upper_quantile_0.25``; ``input_features`` are only checked."""
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        return np.array(self._names(), dtype=object)

    def _check_parameters(self) -> None:
        """Raise InputError unless the parameters fit; zones and bands are checked anyway."""

    def _learn(self, counts: NDArray[Any]) -> None:
        """Learn from counts, shape (n, rows, bins)."""

    def _features(self, counts: NDArray[Any]) -> NDArray[Any]:
        """Return the features of counts, shape (n, rows, bins), which must not be changed."""
        raise NotImplementedError

    def _names(self) -> list[str]:
        """Return the names of the features."""
        raise NotImplementedError

    def _counts(self, X: ArrayLike, *, reset: bool) -> NDArray[Any]:
        """Return counts as (n, rows, bins), checked."""
        recipe = Recipe(self.zones, self.bands)
        counts = validate_counts(self, X, reset=reset)
        check_non_negative(counts, type(self).__name__)
        rows = len(recipe.names)
        bins, rest = divmod(counts[0].size, rows)
        whole_axis = self._whole_axis or bool(recipe.bands)
        if rest or (whole_axis and bins != BINS) or (counts.ndim == 3 and counts.shape[1] != rows):
            raise InputError(
                f"X must have {rows} rows{f' of {BINS} bins' if whole_axis else ''} an image for {recipe}; "
                f"got shape {counts.shape}"
            )
        for place in self.ignore_bins:
            if not 0 <= place < bins:
                raise InputError(f"ignore_bins must lie between 0 and {bins - 1}; got {place!r}")
        return counts.reshape(len(counts), rows, bins)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.three_d_array = True
        if self.dtype is not None:
            tags.transformer_tags.preserves_dtype = [self.dtype]
        return tags


class HistogramFeatures(CountsTransformer):
    """Turn histograms of the lungs into features for a classifier.

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

    Notes
    -----
    How counts may come, and what becomes of empty zones: see :class:`CountsTransformer`.
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

    @property
    def _kinds(self) -> tuple[str, ...]:
        return (self.kind,) if isinstance(self.kind, str) else tuple(self.kind)

    def _check_parameters(self) -> None:
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
            whole_number(getattr(self, name), name, least=least)
        for name in ("sigma", "own_range"):
            positive_number(getattr(self, name), name)

    _features = histogram_features

    def _area_names(self) -> list[str]:
        return [f"{name}_area" for name in zone_names(self.zones) if name != "lungs"] if self.areas else []

    def _names(self) -> list[str]:
        names: list[str] = []
        for kind in self._kinds:
            zones = zone_names(self.zones)
            if kind == "quantile":
                keys = level_names(self.n_quantiles)
            elif kind == "share":
                keys = [str(index) for index in range(self.n_shares)]
                zones = tuple(name for name in zones if name != "lungs")
            else:
                keys = [str(index) for index in range(self.own_bins if self.scale == "own" else self.n_bins_)]
            names += [f"{zone}_{kind}_{key}" for zone in zones for key in keys]
        return names + self._area_names()


class LungIntensity(CountsTransformer):
    """Median and interquartile range of the whole lungs, two features an image, in bins.

    Features on the lungs' own scale (``HistogramFeatures(scale="own")``) are blind to both. Added as two
    numbers among many they help at home and elsewhere; raw quantiles of each zone, which hold the same, bring
    the scanner's brightness into every feature and travel badly. ``zones`` are those that the rows stand for.
    """

    def __init__(self, zones: Zones = 1) -> None:
        self.zones = zones

    _features = lung_intensity

    def _names(self) -> list[str]:
        return ["lungs_median", "lungs_iqr"]


def level_names(n: int) -> list[str]:
    """Return ``n`` quantile levels with as many digits as tell them apart: 1000 levels have 1000 names."""
    return [f"{level:.6g}" for level in curves.levels(n)]
