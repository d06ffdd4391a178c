"""Radiographs with the lung masks that a network is to learn from, by patient."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray

from histcxr.data.discovery import locate
from histcxr.data.manifest import read_manifest
from histcxr.data.masks import read_mask
from histcxr.data.radiograph import read_radiograph
from histcxr.data.splits import patient_groups, split_patients
from histcxr.exceptions import InputError, UnjudgeableError
from histcxr.lungs.disturbances import Pair
from histcxr.lungs.segmenter import PAIR_SIZE, squared


@dataclass(frozen=True)
class MaskedRadiographs:
    """Pictures and masks, uint8 ``(n, PAIR_SIZE, PAIR_SIZE)``, their manifest rows, and what was wrong with others."""

    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    table: pd.DataFrame
    unusable: dict[str, str]

    def __len__(self) -> int:
        return len(self.table)

    def pair(self, row: int) -> Pair:
        """Return one picture with its mask."""
        return Pair(self.pixels[row], self.masks[row])

    def part(self, name: str) -> MaskedRadiographs:
        """Return the radiographs of one split."""
        keep = (self.table["split"] == name).to_numpy()
        table = self.table.loc[keep].reset_index(drop=True)
        return MaskedRadiographs(self.pixels[keep], self.masks[keep], table, self.unusable)


def with_masks(
    data: Iterable[str | os.PathLike[str]], column: str = "mask", *, seed: int = 0
) -> pd.DataFrame:
    """Join folders or lists to one table of images with masks to learn from, and give every patient one split.

    Who is a test patient in any row of any of them, with a mask or without, is one in all, and likewise then for
    validation. Where one has no validation part, a fifth of its training patients become one.

    Parameters
    ----------
    data : iterable of path-like
        What :func:`~histcxr.data.manifest.read_manifest` reads.
    column : str
        The column with the masks, its paths relative to the list.
    seed : int
        For drawing patients.

    Returns
    -------
    DataFrame
        The rows that have a mask, with the column ``mask`` taken from ``column``.

    Raises
    ------
    InputError
        When one has no such column, or no row has a mask.
    """
    tables = []
    for path in [os.fspath(one) for one in data]:
        manifest = read_manifest(path)
        if column not in manifest:
            raise InputError(
                f"the masks must be in the column {column!r}, which {path} lacks: {', '.join(manifest.columns)}"
            )
        folder = path if os.path.isdir(path) else os.path.dirname(path)
        table = manifest.assign(
            mask=[locate(str(name), folder) for name in manifest[column].fillna("")],
            patient_id=patient_groups(manifest),
        )
        if not (table["split"] != "").any():
            table["split"] = split_patients(table, seed=seed)
        tables.append(table)
    # Rows without a mask go only now: what they say of their patients counts.
    tables = [table[table["mask"] != ""].reset_index(drop=True) for table in _one_split_each(tables)]
    for table in tables:
        if not (table["split"] == "val").any() and (table["split"] == "train").any():
            training = table["split"] == "train"
            fresh = split_patients(table[training].reset_index(drop=True), (0.8, 0.2, 0.0), seed=seed)
            table.loc[training, "split"] = fresh
    joined = pd.concat(_one_split_each(tables), ignore_index=True) if tables else pd.DataFrame()
    if joined.empty:
        raise InputError(f"no image has a mask in the column {column!r}")
    return joined


def _one_split_each(tables: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Give every patient one split over all tables: test before validation before training."""
    for split in ("val", "test"):
        known = {one for table in tables for one in table.loc[table["split"] == split, "patient_id"]}
        tables = [
            table.assign(split=table["split"].mask(table["patient_id"].isin(known), split))
            for table in tables
        ]
    return tables


def read_pairs(table: pd.DataFrame, *, n_jobs: int = 1) -> MaskedRadiographs:
    """Read the table's images and masks, in ``n_jobs`` threads, at the size that training works on.

    Those that cannot be read are named in ``unusable``.
    """
    read = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(_read)(image, mask) for image, mask in zip(table["image"], table["mask"], strict=True)
    )
    good = np.array([isinstance(one, Pair) for one in read], bool)
    pairs = [one for one in read if isinstance(one, Pair)]
    empty = np.empty((0, PAIR_SIZE, PAIR_SIZE), np.uint8)
    return MaskedRadiographs(
        np.stack([pair.pixels for pair in pairs]) if pairs else empty,
        np.stack([pair.mask for pair in pairs]) if pairs else empty,
        table.loc[good].reset_index(drop=True),
        {image: one for image, one in zip(table["image"], read, strict=True) if not isinstance(one, Pair)},
    )


def _read(image: str, mask: str) -> Pair | str:
    try:
        pixels = read_radiograph(image).pixels
        marked = read_mask(mask, (PAIR_SIZE, PAIR_SIZE))
    except UnjudgeableError as error:
        return error.explanation
    return Pair(squared(pixels), marked.astype(np.uint8) * np.uint8(255))
