"""Labelled radiographs as training and evaluation see them: what a model reads of each, truth, patient and split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.fingerprints import recognised
from histcxr.data.manifest import is_sick, read_manifest
from histcxr.data.progress import Progress
from histcxr.data.splits import SPLITS, patient_groups, split_patients, undersample
from histcxr.exceptions import InputError, Reason, counted, did_you_mean
from histcxr.features.extraction import Features, extract_features
from histcxr.features.recipe import Recipe
from histcxr.reference.images import InputSettings, ReferenceImages, read_images
from histcxr.store import Cascade, Model, ReferenceModel
from histcxr.store.judges import SavedModel

if TYPE_CHECKING:
    from distributed import Client

#: Labelled radiographs: a folder, a CSV, or a manifest.
Data: TypeAlias = str | PathLike[str] | pd.DataFrame


@dataclass(frozen=True)
class Reading:
    """How labelled radiographs are read.

    ``lungs`` says whose masks: the data's (``"given"``), those that the segmenter finds for every image (``"found"``),
    or the segmenter's where the data have none (``"either"``). By default the data's, or the segmenter's where the
    data have none at all: never a mixture, because masks of two makers tell the images apart. ``normal`` is the label
    that means normal, by default that of the model that reads, or "Normal"; every other one is sick. ``cache`` is a
    folder that keeps counts of histograms; squares for networks are not kept. ``n_jobs`` threads; ``progress``:
    ``Progress`` (:mod:`histcxr.data.progress`); ``client``: of a Dask cluster that counts instead, squares apart.
    """

    lungs: str | None = None
    normal: str | None = None
    cache: str | PathLike[str] | None = None
    n_jobs: int = 1
    progress: Progress = False
    client: Client | None = None


@dataclass(frozen=True)
class Cohort:
    """Radiographs with their truth.

    ``table`` has their manifest rows under the manifest's own index; ``sick`` is bool (n,); ``patients`` is object
    (n,), never empty: an image without a patient is its own. ``measured`` is what a model reads of them: counts, int64
    (n, rows, 256), or squares, uint8 (n, size, size). By ``fingerprints``, uint8 (n, 72), images are known again
    (:mod:`histcxr.data.fingerprints`). Both are None before anything is read. ``unusable`` counts the images left out
    by reason code; ``lungs`` and ``normal`` are as of :class:`Reading`.
    """

    table: pd.DataFrame
    sick: NDArray[np.bool_]
    patients: NDArray[np.object_]
    measured: NDArray[Any] | None = None
    unusable: Mapping[str, int] = field(default_factory=dict)
    lungs: str = "given"
    normal: str = "Normal"
    fingerprints: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.sick)

    @property
    def values(self) -> NDArray[Any]:
        """``measured``, of a cohort that was read."""
        if self.measured is None:
            raise InputError("the cohort must be read before a model can use it")
        return self.measured

    @property
    def prints(self) -> NDArray[np.uint8]:
        """``fingerprints``, of a cohort that was read."""
        if self.fingerprints is None:
            raise InputError("the cohort must be read before an image can be recognised")
        return self.fingerprints

    def part(self, keep: NDArray[np.bool_]) -> Cohort:
        """Return the radiographs where ``keep`` is true."""
        same = ("sick", "patients", "measured", "fingerprints")
        arrays: dict[str, Any] = {name: getattr(self, name) for name in same}
        kept: dict[str, Any] = {name: None if one is None else one[keep] for name, one in arrays.items()}
        return replace(self, table=self.table.loc[keep], **kept)

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

    def digest(self) -> str:
        """Return one SHA-256 for these images with their labels, whatever their order and masks."""
        labelled = sorted(
            f"{code.tobytes().hex()} {int(sick)}" for code, sick in zip(self.prints, self.sick, strict=True)
        )
        return hashlib.sha256("\n".join(labelled).encode()).hexdigest()


def labelled_manifest(data: Data) -> pd.DataFrame:
    """Return the manifest of labelled radiographs. InputError: an image has no label."""
    manifest = data if isinstance(data, pd.DataFrame) else read_manifest(data, require_labels=True)
    empty = int((manifest["label"].astype(str) == "").sum())
    if empty:
        raise InputError(f"label must be given for every image here, got none for {empty} of {len(manifest)}")
    return manifest


def select_rows(manifest: pd.DataFrame, where: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Keep the rows whose columns all have one of the wanted values, compared as text.

    InputError: an unknown column, or no row left.
    """
    keep = np.ones(len(manifest), dtype=bool)
    for column, values in where.items():
        if column not in manifest:
            raise InputError(
                f"where must name a column of the data, got {column!r}; it has {list(manifest.columns)}"
                f"{did_you_mean(column, manifest.columns)}"
            )
        named = manifest[column].astype(str)
        for value in values:
            if len(manifest) and not (named == value).any():
                raise InputError(
                    f"where must name values of the data, got {column}={value}; "
                    f"{value_list(named)}{did_you_mean(value, set(named))}"
                )
        keep &= named.isin(list(values)).to_numpy()
    if len(manifest) and not keep.any():
        raise InputError(f"where must leave at least one image, got none with {dict(where)}")
    return manifest.loc[keep].reset_index(drop=True)


def only_split(manifest: pd.DataFrame, split: str | None) -> pd.DataFrame:
    """Return one part of the data; all of it where ``split`` is None or "all", or the data name no split.

    InputError: there is no such part.
    """
    named = manifest["split"].astype(str)
    if split in (None, "all") or not (named != "").any():
        return manifest
    part = manifest.loc[(named == split).to_numpy()].reset_index(drop=True)
    if not len(part):
        raise InputError(
            f"data must hold radiographs of split {split!r}, got {sorted(set(named))}{did_you_mean(split, set(named))}"
        )
    return part


def split_named(manifest: pd.DataFrame, split: str | None) -> str:
    """Return the part that :func:`only_split` took, ``"all"`` where it took all of the data."""
    return split if split is not None and (manifest["split"].astype(str) != "").any() else "all"


def value_list(values: pd.Series) -> str:
    """Say in a message which values a column has, the most frequent first."""
    names = [str(name) or "''" for name in values.value_counts().index]
    return f"it has {', '.join(names[:10])}{' and others' if len(names) > 10 else ''}"


def check_normal(manifest: pd.DataFrame, normal: str | None) -> None:
    """Refuse a normal label that was asked for and that no image has: all would count as sick."""
    labels = manifest["label"].astype(str)
    if normal is not None and is_sick(labels, normal).all():
        raise InputError(
            f"normal must be a label of the data (--normal), got {normal!r}; {value_list(labels)}"
            f"{did_you_mean(normal, set(labels))}"
        )


def read_cohort(
    data: Data, what: Recipe | InputSettings | SavedModel, reading: Reading | None = None
) -> Cohort:
    """Read of labelled radiographs what ``what`` wants: a recipe's counts, squares, or what a saved model takes.

    Those that cannot be used are counted in ``unusable``. InputError: an image without a label, or not one usable
    radiograph.
    """
    how = reading or Reading()
    given = how.normal
    if isinstance(what, Cascade):
        return _read_both(data, what, replace(how, normal=how.normal or normal_label(what)))
    if not isinstance(what, Recipe | InputSettings):
        how = replace(how, normal=how.normal or normal_label(what))
        what = model_input(what)
    manifest, normal = labelled_manifest(data), how.normal or "Normal"
    check_normal(manifest, given)
    measured, read, lungs = read_measured(manifest, what, how)
    table, usable, known = read.table, read.usable, read.fingerprints
    reasons = table.loc[~usable, "reason"].value_counts()
    unusable = {str(code): int(count) for code, count in reasons.items()}
    if not usable.any():
        advice = "; have the lungs found (--lungs found)" if Reason.MASK_MISSING in unusable else ""
        raise InputError(
            f"data must hold at least one usable radiograph, got none of {len(manifest)}: {unusable}{advice}"
        )
    sick, patients = is_sick(table["label"], normal), patient_groups(table)
    cohort = Cohort(table, sick, patients, measured, unusable, lungs, normal, known)
    return cohort if usable.all() else cohort.part(usable)


def _read_both(data: Data, cascade: Cascade, how: Reading) -> Cohort:
    """Read what both models of a cascade need, of the images that both can use."""
    first, then = (read_cohort(data, one, how) for one in cascade.members)
    common = first.table.index.intersection(then.table.index)
    lost = max(first, then, key=lambda cohort: sum(cohort.unusable.values())).unusable
    first, then = (one.part(one.table.index.isin(common)) for one in (first, then))
    return replace(first, measured=cascade.pack(first.values, then.values), unusable=lost)


def read_measured(
    manifest: pd.DataFrame, what: Recipe | InputSettings, how: Reading
) -> tuple[NDArray[Any], Features | ReferenceImages, str]:
    """Read what a model sees of each image, labelled or not, used or not: the values, all else, and whose lungs."""
    lungs = whose_lungs(manifest, how.lungs)
    if isinstance(what, InputSettings):
        lungs = "given" if what.region == "full" else lungs  # which uses none
        images = read_images(manifest, what, lungs=lungs, n_jobs=how.n_jobs, progress=how.progress)
        return images.pixels, images, lungs
    features = extract_features(
        manifest,
        what,
        how.n_jobs,
        lungs=lungs,
        cache=how.cache,
        client=how.client,
        progress=how.progress,
    )
    return features.counts, features, lungs


def whose_lungs(manifest: pd.DataFrame, lungs: str | None) -> str:
    """Return whose lung masks are taken: by default the data's, the segmenter's where the data have none at all."""
    masks = "mask" in manifest and (groups_of(manifest, "mask") != "").any()
    return lungs or ("given" if masks else "found")


def split_cohort(cohort: Cohort, *, seed: int = 0) -> tuple[dict[str, Cohort], list[str]]:
    """Divide a cohort into ``train``, ``val`` and ``test``, which share no patient.

    The notes say, for the report, what was done. The data's own split is kept. Without one, patients are split
    64/16/20. Where it names no ``val``, a fifth of the training patients becomes it, because a threshold must be
    certified on patients that training never saw. The data's own test part stays as it was published: images of a
    patient who stands in a later part, too, are left out. InputError: a split that is none of the three, or that only
    some rows have.
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
            f"{counted(int((~last).sum()), 'image was', 'images were')} left out: their patients stand in a later "
            "part of the data's own "
            "split, too (train before val before test)"
        )
    if not (split == "val").any():
        rows = np.flatnonzero(split == "train")
        split[rows] = split_patients(cohort.table.iloc[rows], (0.8, 0.2, 0.0), seed=seed)
        notes.append("the data names no val part: a fifth of the training patients was set aside for it")
    twins = _twins(cohort, split)
    if twins.any():
        out = np.isin(cohort.patients, cohort.patients[twins])
        # Patients who stand in one part alone by now, so that nobody of a later part is lost.
        notes.append(
            f"images left out: {int(twins.sum())}, near-duplicates of images in a later part (train before val before "
            f"test), and {int(out.sum() - twins.sum())} more of the same patients"
        )
        cohort, split = cohort.part(~out), split[~out]
    cohort = replace(cohort, unusable={})  # of which part they were is not known
    return {part: cohort.part(split == part) for part in SPLITS}, notes


def _twins(cohort: Cohort, split: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Tell which images (n,) are near-duplicates of one in a later part."""
    twins = np.zeros(len(cohort), np.bool_)
    if cohort.fingerprints is not None:
        for number, part in enumerate(SPLITS[:-1]):
            own, later = split == part, np.isin(split, SPLITS[number + 1 :])
            twins[own] = recognised(cohort.prints[own], cohort.prints[later])
    return twins


def balanced_rows(cohort: Cohort, classes: NDArray[Any], wanted: bool | int, seed: int) -> NDArray[np.intp]:
    """Draw equally many images of each class (n,), patient by patient and without replacement: positions, ascending.

    ``wanted`` of each class: as many as the smallest has (True), a number, or all that there are (False).
    """
    if wanted is False:
        return np.arange(len(cohort))
    table = cohort.table.assign(_class=classes)
    return undersample(table, by="_class", per_class=None if wanted is True else wanted, seed=seed)


def model_input(model: SavedModel) -> Recipe | InputSettings:
    """Return what a model of either kind reads of an image; InputError of a cascade, which reads both."""
    if isinstance(model, Cascade):
        raise InputError(
            f"{model.name} is two models as one, which cannot be had here: name the one that is meant"
        )
    return model.recipe if isinstance(model, Model) else model.inputs


def normal_label(model: SavedModel) -> str:
    """Return the label that meant normal when the model was trained."""
    return model.normal if isinstance(model, ReferenceModel) else str(model.training.get("normal", "Normal"))


def check_columns(by: Sequence[str], table: pd.DataFrame) -> None:
    """Raise :class:`InputError` where ``by`` names a column that a manifest does not have."""
    unknown = [column for column in by if column not in table]
    if unknown:
        raise InputError(
            f"by must name columns of the data, got {unknown}; it has {', '.join(table.columns)}"
            f"{did_you_mean(unknown[0], table.columns)}"
        )


def groups_of(table: pd.DataFrame, column: str) -> NDArray[np.object_]:
    """Return the group of each image (n,) as text; ``""`` is unknown."""
    return table[column].fillna("").astype(str).to_numpy(dtype=object)


def known_groups(model: SavedModel, table: pd.DataFrame) -> dict[str, NDArray[np.object_]]:
    """Return what is known of images before they are read: the columns of a model's groups, except the label."""
    columns = group_columns(model) - {"label"}
    return {column: groups_of(table, column) for column in sorted(columns) if column in table}


def group_columns(model: SavedModel) -> set[str]:
    """Return the columns within whose groups a model is certified."""
    return {column for drawer in model.groups or () for column in drawer.groups}
