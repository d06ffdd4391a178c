"""Landmarks of an image's histograms: few numbers that say whether its lungs look like lungs at all."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError
from histcxr.features.curves import quantiles
from histcxr.features.histograms import BINS, zone_names
from histcxr.features.recipe import Recipe

__all__ = ["landmarks"]

_AT: Final = np.array([0.05, 0.25, 0.5, 0.75, 0.95])


def landmarks(counts: NDArray[np.integer], recipe: Recipe) -> NDArray[np.float64]:
    """Return quantiles of the grey levels in each zone, whatever bands follow.

    Parameters
    ----------
    counts : ndarray of int, shape (n, rows, 256)
    recipe : Recipe
        What the rows are.

    Returns
    -------
    ndarray of float64, shape (n, 5 * n_zones)
        Of a zone without a pixel, the quantiles of both lungs.

    Raises
    ------
    InputError
        When the counts are of another shape than the recipe's.
    """
    rows = np.asarray(counts)
    if rows.ndim != 3 or rows.shape[1:] != (len(recipe.names), BINS):
        raise InputError(
            f"counts must have the shape (n, {len(recipe.names)}, {BINS}) for {recipe}; got {rows.shape}"
        )
    zones = rows[:, : len(zone_names(recipe.zones))].astype(np.float64)
    both = zones.sum(axis=1, keepdims=True)
    filled = np.where(zones.sum(axis=2, keepdims=True) > 0, zones, both)
    return quantiles(filled, _AT).reshape(len(rows), len(_AT) * zones.shape[1])
