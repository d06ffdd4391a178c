"""Labelled radiographs as training and evaluation see them: histograms with truth, patient and split."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import is_sick, read_manifest
from histcxr.data.splits import patient_groups, split_patients
from histcxr.exceptions import InputError
from histcxr.features.extraction import extract_features
from histcxr.features.recipe import Recipe

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Cohort:
    """Radiographs that could be read, with their truth.

    Attributes
    ----------
    counts : ndarray of int64, shape (n, rows, 256)
    sick : ndarray of bool, shape (n,)
    patients : ndarray of object, shape (n,)
        Never empty: an image without a patient is its own.
    table : DataFrame
        Their manifest rows.
    unusable : mapping
        Reason code to the number of images that were left out.
    lungs : {"given", "found", "either"}
        Whose masks; see :func:`~histcxr.features.extraction.extract_features`.
    """

    counts: NDArray[np.int64]
    sick: NDArray[np.bool_]
    patients: NDArray[np.object_]
    table: pd.DataFrame
    unusable: Mapping[str, int]
    lungs: str = "given"

    def __len__(self) -> int:
        return len(self.sick)

    def part(self, keep: NDArray[np.bool_]) -> Cohort:
        """Return the radiographs where ``keep`` is true."""
        table = self.table.loc[keep].reset_index(drop=True)
        return Cohort(
            self.counts[keep], self.sick[keep], self.patients[keep], table, self.unusable, self.lungs
        )

    def require_both_classes(self, what: str, normal: str) -> None:
        """Raise :class:`InputError` unless there are sick and normal radiographs."""
        if not self.sick.any() or self.sick.all():
            raise InputError(
                f"{what} must hold sick and normal radiographs, got {int(self.sick.sum())} sick of {len(self)}; "
                f"is {normal!r} the label of the normal ones?"
            )

    def describe(self) -> dict[str, Any]:
        """Count images, patients, labels and sources, ready for JSON."""
        description: dict[str, Any] = {
            "images": len(self),
            "patients": len(set(self.patients)),
            "sick": int(self.sick.sum()),
            "normal": int((~self.sick).sum()),
        }
        for column in ("label", "source", "age_group", "view", "sex"):
            if column in self.table and (self.table[column].astype(str) != "").any():
                values = self.table[column].astype(str).replace("", "unknown").value_counts()
                description[column] = {str(value): int(count) for value, count in sorted(values.items())}
        return description


def select_rows(manifest: pd.DataFrame, where: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Keep the rows whose columns have one of the wanted values.

    Parameters
    ----------
    manifest : DataFrame
    where : mapping of str to sequence of str
        Column to values, compared as text; all columns must match. Empty: every row.

    Raises
    ------
    InputError
        An unknown column, or no row left.
    """
    keep = np.ones(len(manifest), dtype=bool)
    for column, values in where.items():
        if column not in manifest:
            raise InputError(
                f"where must name a column of the data, got {column!r}; it has {list(manifest.columns)}"
            )
        keep &= manifest[column].astype(str).isin(list(values)).to_numpy()
    if len(manifest) and not keep.any():
        raise InputError(f"where must leave at least one image, got none with {dict(where)}")
    return manifest.loc[keep].reset_index(drop=True)


def read_cohort(
    data: str | PathLike[str] | pd.DataFrame,
    *,
    recipe: Recipe,
    lungs: str | None = None,
    normal: str = "Normal",
    cache: str | PathLike[str] | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> Cohort:
    """Read labelled radiographs and reduce them to histograms.

    Parameters
    ----------
    data : path or DataFrame
        A folder, a CSV, or a manifest.
    recipe : Recipe
        What to extract from each image.
    lungs : {"given", "found", "either"}, optional
        Whose masks. By default those given, or where the data give none the network's: never a mixture, because masks
        of two makers tell the images apart.
    cache, n_jobs, progress
        As in :func:`~histcxr.features.extraction.extract_features`.
    normal : str
        The label that means normal; every other one is sick.

    Returns
    -------
    Cohort
        The usable ones; those left out are counted by reason in ``unusable``.

    Raises
    ------
    InputError
        An image without a label, or not one usable radiograph.
    """
    manifest = data if isinstance(data, pd.DataFrame) else read_manifest(data, require_labels=True)
    empty = int((manifest["label"].astype(str) == "").sum())
    if empty:
        raise InputError(f"label must be given for every image here, got none for {empty} of {len(manifest)}")
    if lungs is None:
        lungs = "given" if (manifest["mask"].astype(str) != "").any() else "found"
    features = extract_features(manifest, recipe, n_jobs=n_jobs, lungs=lungs, cache=cache, progress=progress)
    reasons = features.table.loc[~features.usable, "reason"].value_counts()
    unusable = {str(code): int(count) for code, count in reasons.items()}
    if not features.usable.any():
        raise InputError(
            f"data must hold at least one usable radiograph, got none of {len(manifest)}: {unusable}"
        )
    table = features.table.loc[features.usable].reset_index(drop=True)
    return Cohort(
        features.counts[features.usable],
        is_sick(table["label"], normal),
        patient_groups(table),
        table,
        unusable,
        lungs,
    )


def split_cohort(cohort: Cohort, *, seed: int = 0) -> tuple[dict[str, Cohort], list[str]]:
    """Divide a cohort into its training, validation and test patients.

    The manifest's own split is kept. Without one, patients are split 64/16/20. Where it names no ``val``, a
    fifth of the training patients becomes it, because a threshold must be certified on patients that training
    never saw. A patient whom the manifest puts into several parts stays in the last of them (test before val
    before train), so that nobody is measured who was trained on.

    Parameters
    ----------
    cohort : Cohort
    seed : int
        Of the splits made here.

    Returns
    -------
    parts : dict of str to Cohort
        ``train``, ``val`` and ``test``, which share no patient.
    notes : list of str
        What was done to the split, for the report.

    Raises
    ------
    InputError
        A split that is not train, val or test, or that only some rows have.
    """
    split = cohort.table["split"].astype(str).to_numpy(dtype=object)
    notes = []
    if (cohort.table["patient_id"].astype(str) == "").any():
        notes.append("some images have no patient_id: each of them counts as a patient of its own")
    unknown = sorted(set(split) - {*PARTS, ""})
    if unknown:
        raise InputError(f"split must be train, val or test, got also {unknown}")
    if (split == "").all():
        split = np.asarray(split_patients(cohort.table, seed=seed), dtype=object)
        notes.append("the data names no split: patients were split 64/16/20 into train, val and test")
    elif (split == "").any():
        raise InputError(
            f"split must be given for every image or for none, got none for {int((split == '').sum())}"
        )
    split, moved = _one_part_each(split, cohort.patients)
    if moved:
        notes.append(
            f"{moved} patients stand in several parts of the data's own split: all their images count to the "
            "last part (test before val before train)"
        )
    if not (split == "val").any():
        rows = np.flatnonzero(split == "train")
        split[rows] = split_patients(cohort.table.iloc[rows], (0.8, 0.2, 0.0), seed=seed)
        notes.append("the data names no val part: a fifth of the training patients was set aside for it")
    return {part: cohort.part(split == part) for part in PARTS}, notes


def _one_part_each(
    split: NDArray[np.object_], patients: NDArray[np.object_]
) -> tuple[NDArray[np.object_], int]:
    rank = pd.Series([PARTS.index(part) for part in split])
    last = rank.groupby(patients).transform("max")
    moved = len(set(patients[(rank != last).to_numpy()]))
    return np.array([PARTS[i] for i in last], dtype=object), moved


def histogram_hashes(counts: NDArray[np.int64]) -> list[str]:
    """Fingerprint each image by its histograms: 64 bits of BLAKE2b, as 16 hexadecimal digits.

    A model keeps those of the images it was trained on, so that nobody certifies or measures it on them by
    accident. They say nothing about a patient to anyone who does not hold the image itself.
    """
    rows = np.ascontiguousarray(counts.astype("<i8"))
    return [hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in rows]


def leave_out(cohort: Cohort, hashes: Collection[str]) -> tuple[Cohort, int]:
    """Leave out every patient of whom any image is among ``hashes``.

    Parameters
    ----------
    cohort : Cohort
    hashes : collection of str
        Images, as :func:`histogram_hashes` names them.

    Returns
    -------
    rest : Cohort
    left_out : int
        Number of images left out.
    """
    known = set(hashes)
    own = histogram_hashes(cohort.counts) if known else []
    patients = {patient for patient, code in zip(cohort.patients, own, strict=False) if code in known}
    keep = np.array([patient not in patients for patient in cohort.patients], dtype=bool)
    return cohort.part(keep), int((~keep).sum())
