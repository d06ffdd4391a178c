"""Where the histogram study counts, and how the counts are written down: regions, representations, subsets.

Counts are extracted once; every region is a slice of them. Functions take arrays and return arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.features import curves
from histcxr.features.histograms import BINS, Zones, zone_names
from histcxr.features.recipe import Recipe
from histcxr.features.transformers import HistogramFeatures
from histcxr.study.cohort import Cohort

#: What is counted once; every region is a slice of it.
RECIPE = Recipe("1+6", "travel")
#: Width of the window of ``smoothed``, in bins.
SIGMA = 2.0
#: Levels of ``quantile``.
QUANTILES = 32


@dataclass(frozen=True)
class Region:
    """Where is counted: the zones, and whether bands are counted beside the intensity."""

    zones: Zones
    bands: bool = False

    @property
    def recipe(self) -> Recipe:
        """The recipe that would extract just this."""
        return Recipe(self.zones, RECIPE.bands if self.bands else ())


REGIONS = {
    "whole": Region(1),
    "lungs": Region(2),
    "zones": Region(6),
    "whole+zones": Region("1+6"),
    "whole+zones+bands": Region("1+6", bands=True),
}
REPRESENTATIONS = ("raw", "density", "cumulative", "sqrt", "smoothed", "quantile")


@dataclass(frozen=True)
class Sample:
    """Radiographs with their truth.

    Attributes
    ----------
    counts : ndarray, shape (n, rows, 256)
        Of one region, or of :data:`RECIPE`.
    sick : ndarray of bool, shape (n,)
    patients : ndarray of object, shape (n,)
    """

    counts: NDArray[Any]
    sick: NDArray[np.bool_]
    patients: NDArray[np.object_]

    @classmethod
    def of(cls, cohort: Cohort) -> Sample:
        """Take over a cohort, in half of the memory."""
        return cls(cohort.values.astype(np.int32), cohort.sick, cohort.patients)

    def region(self, region: Region) -> Sample:
        """Return the counts of one region, from those of :data:`RECIPE`."""
        return Sample(slice_region(self.counts, region), self.sick, self.patients)

    def take(self, rows: NDArray[Any]) -> Sample:
        """Return some of the radiographs, by position or by a mask of bool."""
        return Sample(self.counts[rows], self.sick[rows], self.patients[rows])


def slice_region(counts: NDArray[Any], region: Region) -> NDArray[Any]:
    """Return what extraction would give for a region, from the counts of :data:`RECIPE`.

    Parameters
    ----------
    counts : ndarray, shape (n, 28, 256)
    region : Region

    Returns
    -------
    ndarray, shape (n, rows of the region's recipe, 256)

    Raises
    ------
    InputError
        When the counts are not those of :data:`RECIPE`.
    """
    expected = (len(RECIPE.names), BINS)
    if counts.ndim != 3 or counts.shape[1:] != expected:
        raise InputError(f"counts must have the shape (n, {expected[0]}, {BINS}); got {counts.shape}")
    channels = counts.reshape(len(counts), -1, len(zone_names(RECIPE.zones)), BINS)
    if not region.bands:
        channels = channels[:, :1]
    whole, sixths = channels[:, :, :1], channels[:, :, 1:]
    if region.zones in (2, "1+2"):
        lungs = sixths.reshape(*sixths.shape[:2], 2, 3, BINS).sum(axis=3, dtype=counts.dtype)
    parts = {1: [whole], 2: [sixths], 6: [sixths], "1+2": [whole, sixths], "1+6": [whole, sixths]}[
        region.zones
    ]
    if region.zones in (2, "1+2"):
        parts[-1] = lungs
    return np.concatenate(parts, axis=2).reshape(len(counts), -1, BINS)


def signals(counts: NDArray[Any], region: Region, representation: str) -> NDArray[np.float32]:
    """Write a region's counts down in a representation.

    Parameters
    ----------
    counts : ndarray, shape (n, rows, 256)
        As :func:`slice_region` gives them.
    region : Region
    representation : str
        One of :data:`REPRESENTATIONS`. ``"raw"`` is the counts themselves: they also tell how large the mask
        is. The others are computed row by row by :class:`~histcxr.features.transformers.HistogramFeatures`.

    Returns
    -------
    ndarray of float32, shape (n, rows, 256), or (n, rows, 32) for ``"quantile"``

    Raises
    ------
    InputError
        When the representation is unknown.
    """
    if representation not in REPRESENTATIONS:
        raise InputError(
            f"representation must be one of {', '.join(REPRESENTATIONS)}; got {representation!r}"
        )
    if representation == "raw":
        return counts.astype(np.float32)
    features = HistogramFeatures(
        representation, zones=region.zones, sigma=SIGMA, n_quantiles=QUANTILES, dtype="float32"
    )
    rows = len(zone_names(region.zones))
    # Channel by channel: a zone that is missing takes the whole lungs' distribution of the same channel.
    found = [
        features.fit_transform(counts[:, start : start + rows]).reshape(len(counts), rows, -1)
        for start in range(0, counts.shape[1], rows)
    ]
    return np.concatenate(found, axis=1)


def filled(counts: NDArray[Any], region: Region) -> NDArray[np.float64]:
    """Return counts in which a zone without a pixel has the whole lungs' counts of its channel."""
    channels = counts.reshape(len(counts), -1, len(zone_names(region.zones)), BINS)
    whole = channels[:, :, 0] if isinstance(region.zones, str) else channels.sum(axis=2)
    done = [curves.fill_empty(channels[:, i], whole[:, i]) for i in range(channels.shape[1])]
    return np.concatenate(done, axis=1).astype(np.float64)


def nested_subsets(patients: NDArray[np.object_], sizes: Sequence[int], seed: int) -> list[NDArray[np.intp]]:
    """Draw training sets of rising size, each within the next, that take whole patients.

    Parameters
    ----------
    patients : ndarray, shape (n,)
    sizes : sequence of int
        Images wanted; the set ends with the patient who reaches the number.
    seed : int
        Of the order in which patients join.

    Returns
    -------
    list of ndarray of int
        Rows, one array for each size.
    """
    names, codes = np.unique(patients.astype(str), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(names))[codes]
    order = np.argsort(place, kind="stable")
    last_of_patient = np.flatnonzero(np.diff(place[order], append=-1))
    subsets = []
    for size in sizes:
        if not 1 <= size <= len(patients):
            raise InputError(f"sizes must lie between 1 and {len(patients)} images; got {size}")
        end = last_of_patient[np.searchsorted(last_of_patient, size - 1)]
        subsets.append(np.sort(order[: end + 1]))
    return subsets
