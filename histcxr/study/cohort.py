"""Labelled radiographs as training and evaluation see them: what a model reads of each, truth, patient and split."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import is_sick, read_manifest
from histcxr.data.splits import SPLITS, patient_groups, split_patients, undersample
from histcxr.exceptions import HistcxrWarning, InputError
from histcxr.features.extraction import extract_features
from histcxr.features.recipe import Recipe
from histcxr.reference.images import InputSettings, read_images
from histcxr.store import Model
from histcxr.store.judges import SavedModel

#: Labelled radiographs: a folder, a CSV, or a manifest.
Data: TypeAlias = str | PathLike[str] | pd.DataFrame


@dataclass(frozen=True)
class Reading:
    """How labelled radiographs are read.

    Parameters
    ----------
    lungs : {"given", "found", "either"}, optional
        Whose masks: the data's, those that the segmenter finds for every image, or the segmenter's where the data
        have none. By default the data's, or the segmenter's where the data have none at all: never a mixture, because
        masks of two makers tell the images apart.
    normal : str, optional
        The label that means normal; every other one is sick. By default that of the model that reads, or "Normal".
    cache : path, optional
        Folder that keeps counts of histograms for next time; squares for networks are not kept.
    n_jobs, progress
        Threads, and whether to show a progress bar on stderr.
    """

    lungs: str | None = None
    normal: str | None = None
    cache: str | PathLike[str] | None = None
    n_jobs: int = 1
    progress: bool = False


@dataclass(frozen=True)
class Cohort:
    """Radiographs with their truth.

    Attributes
    ----------
    table : DataFrame
        Their manifest rows, under the manifest's own index.
    sick : ndarray of bool, shape (n,)
    patients : ndarray of object, shape (n,)
        Never empty: an image without a patient is its own.
    measured : ndarray or None
        What a model reads of them: counts of int64, shape (n, rows, 256), or squares of uint8, shape (n, size, size).
        None before anything is read.
    unusable : mapping
        Reason code to the number of images that were left out.
    lungs : {"given", "found", "either"}
        Whose masks.
    normal : str
        The label that means normal.
    """

    table: pd.DataFrame
    sick: NDArray[np.bool_]
    patients: NDArray[np.object_]
    measured: NDArray[Any] | None = None
    unusable: Mapping[str, int] = field(default_factory=dict)
    lungs: str = "given"
    normal: str = "Normal"

    def __len__(self) -> int:
        return len(self.sick)

    @property
    def values(self) -> NDArray[Any]:
        """``measured``, of a cohort that was read."""
        if self.measured is None:
            raise InputError("the cohort must be read before a model can use it")
        return self.measured

    def part(self, keep: NDArray[np.bool_]) -> Cohort:
        """Return the radiographs where ``keep`` is true."""
        measured = None if self.measured is None else self.measured[keep]
        table, sick, patients = self.table.loc[keep], self.sick[keep], self.patients[keep]
        return replace(self, table=table, sick=sick, patients=patients, measured=measured)

    def require_both_classes(self, what: str) -> None:
        """Raise :class:`InputError` unless there are sick and normal radiographs."""
        if not self.sick.any() or self.sick.all():
            raise InputError(
                f"{what} must hold sick and normal radiographs, got {int(self.sick.sum())} sick of {len(self)}; "
                f"is {self.normal!r} the label of the normal ones?"
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

    def fingerprint(self) -> str:
        """Return one SHA-256 for these images with their labels, whatever their order."""
        labelled = sorted(
            f"{code} {int(sick)}" for code, sick in zip(image_hashes(self.values), self.sick, strict=True)
        )
        return hashlib.sha256("\n".join(labelled).encode()).hexdigest()


def labelled_manifest(data: Data) -> pd.DataFrame:
    """Return the manifest of labelled radiographs.

    Raises
    ------
    InputError
        An image has no label.
    """
    manifest = data if isinstance(data, pd.DataFrame) else read_manifest(data, require_labels=True)
    empty = int((manifest["label"].astype(str) == "").sum())
    if empty:
        raise InputError(f"label must be given for every image here, got none for {empty} of {len(manifest)}")
    return manifest


def select_rows(manifest: pd.DataFrame, where: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Keep the rows whose columns all have one of the wanted values, compared as text.

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


def only_split(manifest: pd.DataFrame, split: str | None) -> pd.DataFrame:
    """Return one part of the data; all of it where ``split`` is None or "all", or the data name no split.

    Raises
    ------
    InputError
        When there is no such part.
    """
    named = manifest["split"].astype(str)
    if split in (None, "all") or not (named != "").any():
        return manifest
    part = manifest.loc[(named == split).to_numpy()].reset_index(drop=True)
    if not len(part):
        raise InputError(f"data must hold radiographs of split {split!r}, got {sorted(set(named))}")
    return part


def read_cohort(
    data: Data, what: Recipe | InputSettings | SavedModel, reading: Reading | None = None
) -> Cohort:
    """Read of labelled radiographs what ``what`` wants: a recipe's counts, squares, or what a saved model takes.

    Returns
    -------
    Cohort
        The usable ones; those left out are counted by reason in ``unusable``.

    Raises
    ------
    InputError
        An image without a label, or not one usable radiograph.
    """
    how = reading or Reading()
    if not isinstance(what, Recipe | InputSettings):
        how = replace(how, normal=how.normal or normal_label(what))
        what = model_input(what)
    manifest, normal = labelled_manifest(data), how.normal or "Normal"
    lungs = how.lungs or ("given" if _has_masks(manifest) else "found")
    measured: NDArray[Any]
    same: Any = {"n_jobs": how.n_jobs, "progress": how.progress}
    if isinstance(what, InputSettings):
        lungs = "given" if what.region == "full" else lungs  # which uses none
        images = read_images(manifest, what, lungs=lungs, **same)
        measured, table, usable = images.pixels, images.table, images.usable
    else:
        features = extract_features(manifest, what, lungs=lungs, cache=how.cache, **same)
        measured, table, usable = features.counts, features.table, features.usable
    reasons = table.loc[~usable, "reason"].value_counts()
    unusable = {str(code): int(count) for code, count in reasons.items()}
    if not usable.any():
        raise InputError(
            f"data must hold at least one usable radiograph, got none of {len(manifest)}: {unusable}"
        )
    if not usable.all():
        measured, table = measured[usable], table.loc[usable]
    sick, patients = is_sick(table["label"], normal), patient_groups(table)
    return Cohort(table, sick, patients, measured, unusable, lungs, normal)


def split_cohort(cohort: Cohort, *, seed: int = 0) -> tuple[dict[str, Cohort], list[str]]:
    """Divide a cohort into its training, validation and test patients.

    The data's own split is kept. Without one, patients are split 64/16/20. Where it names no ``val``, a fifth of the
    training patients becomes it, because a threshold must be certified on patients that training never saw. The
    data's own test part stays as it was published: images of a patient who stands in a later part, too, are left out.

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
    unknown = sorted(set(split) - {*SPLITS, ""})
    if unknown:
        raise InputError(f"split must be train, val or test, got also {unknown}")
    if (split == "").all():
        split = np.asarray(split_patients(cohort.table, seed=seed), dtype=object)
        notes.append("the data names no split: patients were split 64/16/20 into train, val and test")
    elif (split == "").any():
        raise InputError(
            f"split must be given for every image or for none, got none for {int((split == '').sum())}"
        )
    rank = pd.Series([SPLITS.index(part) for part in split])
    last = (rank == rank.groupby(cohort.patients).transform("max")).to_numpy()
    if not last.all():
        cohort, split = cohort.part(last), split[last]
        notes.append(
            f"{int((~last).sum())} images were left out: their patients stand in a later part of the data's own "
            "split, too (train before val before test)"
        )
    if not (split == "val").any():
        rows = np.flatnonzero(split == "train")
        split[rows] = split_patients(cohort.table.iloc[rows], (0.8, 0.2, 0.0), seed=seed)
        notes.append("the data names no val part: a fifth of the training patients was set aside for it")
    return {part: cohort.part(split == part) for part in SPLITS}, notes


def balanced_rows(cohort: Cohort, classes: NDArray[Any], wanted: bool | int, seed: int) -> NDArray[np.intp]:
    """Draw equally many images of each class (n,), patient by patient and without replacement: positions, ascending.

    ``wanted`` of each class: as many as the smallest has (True), a number, or all that there are (False).
    """
    if wanted is False:
        return np.arange(len(cohort))
    table = cohort.table.assign(_class=classes)
    return undersample(table, by="_class", per_class=None if wanted is True else wanted, seed=seed)


def image_hashes(measured: NDArray[Any]) -> list[str]:
    """Fingerprint each image by what a model reads of it: 64 bits of BLAKE2b, as 16 hexadecimal digits.

    A model keeps those of the images it was trained and certified on, so that nobody measures it on them by accident.
    They say nothing about a patient to anyone who does not hold the image itself.
    """
    rows = np.ascontiguousarray(measured if measured.dtype == np.uint8 else measured.astype("<i8"))
    return [hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in rows]


def leave_out(cohort: Cohort, hashes: Collection[str]) -> tuple[Cohort, int]:
    """Leave out every patient of whom any image is among ``hashes``; also return how many images that were."""
    known = set(hashes)
    own = image_hashes(cohort.values) if known else []
    patients = {patient for patient, code in zip(cohort.patients, own, strict=False) if code in known}
    keep = np.array([patient not in patients for patient in cohort.patients], dtype=bool)
    return cohort.part(keep), int((~keep).sum())


def unseen_cohort(
    model: SavedModel, manifest: pd.DataFrame, reading: Reading, parts: Sequence[str] = ("train", "val")
) -> tuple[Cohort, int]:
    """Read the images whose patients a model has not seen in ``parts``; also return how many images were left out.

    Raises
    ------
    InputError
        When nothing is left.

    Warns
    -----
    HistcxrWarning
        The lungs are not of the maker that they were of in training, so that no image can be recognised.
    """
    _warn_of_other_masks(model, manifest, reading)
    cohort, left_out = leave_out(
        read_cohort(manifest, model, reading),
        [code for part in parts for code in model.training.get("seen", {}).get(part, ())],
    )
    if not len(cohort):
        raise InputError(
            f"data must hold radiographs that the model has not seen, got none ({left_out} were left out because it "
            "has)"
        )
    return cohort, left_out


def model_input(model: SavedModel) -> Recipe | InputSettings:
    """Return what a model of either kind reads of an image."""
    return model.recipe if isinstance(model, Model) else model.inputs


def normal_label(model: SavedModel) -> str:
    """Return the label that meant normal when the model was trained."""
    return str(model.training.get("normal", "Normal")) if isinstance(model, Model) else model.normal


def _has_masks(manifest: pd.DataFrame) -> bool:
    return "mask" in manifest and bool((manifest["mask"].astype(str) != "").any())


def _warn_of_other_masks(model: SavedModel, manifest: pd.DataFrame, reading: Reading) -> None:
    known = str(model.training.get("lungs", "given"))
    found = reading.lungs == "found" or not _has_masks(manifest)
    other = {"given": found, "found": not found}.get(known, reading.lungs == "found")
    if other and getattr(model_input(model), "region", "lungs") != "full":
        warnings.warn(
            f"the model was trained with lungs={known}; with masks of another maker its training images look "
            "different and cannot be recognised: make sure yourself that none of them is among these",
            HistcxrWarning,
            stacklevel=4,
        )
