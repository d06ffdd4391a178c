"""Dividing images into training, validation and test parts without ever dividing a patient.

Patients are drawn at random within their class, each with the same chance whatever the number of their
images, so that the patients of the parts are exchangeable: the certified thresholds rest on that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.exceptions import InputError

SPLITS = ("train", "val", "test")
"""Names of the parts."""


def patient_groups(manifest: pd.DataFrame) -> NDArray[np.object_]:
    """One group name for each image: its patient, or the image itself where the patient is unknown.

    Parameters
    ----------
    manifest : DataFrame
        With the columns ``patient_id`` and ``image``.

    Returns
    -------
    object (n,)
    """
    patients = manifest["patient_id"].to_numpy(dtype=object)
    images = manifest["image"].to_numpy(dtype=object)
    return np.where(patients == "", images, patients)


def split_patients(
    manifest: pd.DataFrame, fractions: Sequence[float] = (0.64, 0.16, 0.2), *, seed: int = 0
) -> NDArray[np.object_]:
    """Assign every image to ``train``, ``val`` or ``test``, patient by patient and class by class.

    Parameters
    ----------
    manifest : DataFrame
        With the columns ``image``, ``label`` and ``patient_id``. An image without a patient is a patient of
        its own.
    fractions : three floats
        Shares of the patients of each class, adding up to 1. A patient's class is the commonest label of his
        images.
    seed : int
        Equal seeds give equal splits of equal manifests.

    Returns
    -------
    object (n,)
        ``"train"``, ``"val"`` or ``"test"``.

    Raises
    ------
    InputError
        When the fractions are impossible or the patients too few to fill every part.
    """
    shares = np.asarray(fractions, dtype=float)
    if shares.shape != (3,) or not (shares >= 0).all() or not np.isclose(shares.sum(), 1.0):
        raise InputError(f"fractions must be three shares that add up to 1; they are {tuple(fractions)}")
    codes, patients = pd.factorize(patient_groups(manifest))
    classes = _class_of_patients(codes, manifest["label"].to_numpy(dtype=object))
    generator = np.random.default_rng(seed)
    part = np.empty(len(patients), dtype=np.intp)
    for name in np.unique(classes):
        members = np.flatnonzero(classes == name)
        part[generator.permutation(members)] = np.repeat(np.arange(3), _sizes(len(members), shares))
    filled = np.bincount(part, minlength=3)
    if ((filled == 0) & (shares > 0)).any():
        counts = dict(zip(SPLITS, filled.tolist(), strict=True))
        raise InputError(f"fractions {tuple(fractions)} need more patients; {len(patients)} give {counts}")
    return np.array(SPLITS, dtype=object)[part[codes]]


def undersample(manifest: pd.DataFrame, *, by: str = "label", seed: int = 0) -> pd.DataFrame:
    """Draw as many images of each class as the smallest class has, without replacement.

    Parameters
    ----------
    manifest : DataFrame
        One row an image.
    by : str, default "label"
        Column whose values are to be equally frequent.
    seed : int
        Equal seeds give equal draws.

    Returns
    -------
    DataFrame
        The rows drawn, in their old order, numbered anew.

    Raises
    ------
    InputError
        When there is no such column or no row.
    """
    if by not in manifest.columns:
        raise InputError(
            f"by must be a column of the manifest; it is {by!r}, the columns are {list(manifest.columns)}"
        )
    if manifest.empty:
        raise InputError("manifest must have rows; it has none")
    codes, _ = pd.factorize(manifest[by], use_na_sentinel=False)
    size = np.bincount(codes).min()
    generator = np.random.default_rng(seed)
    drawn = [
        generator.choice(np.flatnonzero(codes == code), size, replace=False)
        for code in range(codes.max() + 1)
    ]
    return manifest.iloc[np.sort(np.concatenate(drawn))].reset_index(drop=True)


def _class_of_patients(codes: NDArray[np.intp], labels: NDArray[np.object_]) -> NDArray[np.object_]:
    """The commonest label of each patient; of equally common ones the first in the alphabet."""
    counted = (
        pd.DataFrame({"patient": codes, "label": labels}).value_counts(sort=False).reset_index(name="images")
    )
    ranked = counted.sort_values(["patient", "images", "label"], ascending=[True, False, True])
    return ranked.drop_duplicates("patient")["label"].to_numpy(dtype=object)


def _sizes(count: int, shares: NDArray[np.float64]) -> NDArray[np.intp]:
    """Whole numbers that add up to ``count``, nearest to its shares (largest remainders)."""
    exact = count * shares
    sizes = np.floor(exact + 1e-9).astype(np.intp)
    order = np.argsort(sizes - exact, kind="stable")
    sizes[order[: count - sizes.sum()]] += 1
    return sizes
