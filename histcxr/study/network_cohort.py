"""Labelled radiographs as a reference network sees them: squares with truth, patient and split."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from os import PathLike

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import is_sick, read_manifest
from histcxr.data.splits import patient_groups
from histcxr.exceptions import InputError
from histcxr.reference.images import MAX_BYTES, InputSettings, read_images
from histcxr.study.cohort import PARTS, Cohort, split_cohort

__all__ = ["StudyImages", "pixel_hashes", "read_study", "split_study"]

_ROW = "_row"  # where a part's images stand among those that were divided


@dataclass(frozen=True)
class StudyImages:
    """Usable images with their truth.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (n, size, size)
    cohort : Cohort
        Truth, patients and manifest rows; it holds no histograms.
    settings : InputSettings
    """

    pixels: NDArray[np.uint8]
    cohort: Cohort
    settings: InputSettings

    def __len__(self) -> int:
        return len(self.cohort)

    def part(self, keep: NDArray[np.bool_]) -> StudyImages:
        """Return the images where ``keep`` is true."""
        return StudyImages(self.pixels[keep], self.cohort.part(keep), self.settings)

    def leave_out(self, hashes: Collection[str]) -> tuple[StudyImages, int]:
        """Leave out every patient of whom any image is among ``hashes``; also return how many images that were."""
        known = set(hashes)
        own = pixel_hashes(self.pixels) if known else []
        seen = {patient for patient, code in zip(self.cohort.patients, own, strict=False) if code in known}
        keep = np.array([patient not in seen for patient in self.cohort.patients], dtype=bool)
        return self.part(keep), int((~keep).sum())


def read_study(
    data: str | PathLike[str] | pd.DataFrame,
    settings: InputSettings,
    *,
    lungs: str | None = None,
    normal: str = "Normal",
    max_bytes: int = MAX_BYTES,
    n_jobs: int = 1,
    progress: bool = False,
) -> StudyImages:
    """Read labelled radiographs as squares.

    Parameters
    ----------
    data : path or DataFrame
        A folder, a CSV, or a manifest.
    settings : InputSettings
    lungs : {"given", "found", "either"}, optional
        Whose masks, where the region takes any. By default those given, or where the data give none the network's.
    normal : str
        The label that means normal.
    max_bytes, n_jobs, progress
        As in :func:`~histcxr.reference.images.read_images`.

    Returns
    -------
    StudyImages
        The usable ones; ``cohort.unusable`` counts the others by reason.

    Raises
    ------
    InputError
        An image without a label, or not one usable radiograph.
    """
    manifest = data if isinstance(data, pd.DataFrame) else read_manifest(data, require_labels=True)
    empty = int((manifest["label"].astype(str) == "").sum())
    if empty:
        raise InputError(f"label must be given for every image here, got none for {empty} of {len(manifest)}")
    if settings.region == "full":
        lungs = "given"
    elif lungs is None:
        lungs = "given" if (manifest["mask"].astype(str) != "").any() else "found"
    images = read_images(
        manifest,
        settings,
        lungs=lungs,
        max_bytes=max_bytes,
        n_jobs=n_jobs,
        progress=progress,
    )
    usable = images.usable
    reasons = images.table.loc[~usable, "reason"].value_counts()
    unusable = {str(code): int(count) for code, count in reasons.items()}
    if not usable.any():
        raise InputError(
            f"data must hold at least one usable radiograph, got none of {len(manifest)}: {unusable}"
        )
    table = images.table.loc[usable].reset_index(drop=True)
    cohort = Cohort(
        np.empty((len(table), 0, 256), np.int64),
        is_sick(table["label"], normal),
        patient_groups(table),
        table,
        unusable,
        lungs,
    )
    pixels = images.pixels if usable.all() else images.pixels[usable]
    return StudyImages(pixels, cohort, settings)


def pixel_hashes(pixels: NDArray[np.uint8]) -> list[str]:
    """Fingerprint each image (n, size, size) by the pixels that the network sees: 64 bits of BLAKE2b in hex.

    A saved network keeps those of the images it was trained and certified on, so that nobody measures it on them by
    accident.
    """
    return [hashlib.blake2b(square.tobytes(), digest_size=8).hexdigest() for square in pixels]


def split_study(images: StudyImages, *, seed: int = 0) -> tuple[dict[str, StudyImages], list[str]]:
    """Divide images into training, validation and test patients, as :func:`histcxr.study.cohort.split_cohort` does.

    With one difference: a data set's own test part stays as it was published. Where its patients stand in an earlier
    part, too, those images are left out there, instead of being added to the test part.

    Parameters
    ----------
    images : StudyImages
    seed : int
        Of the splits made here.

    Returns
    -------
    parts : dict of str to StudyImages
        ``train``, ``val`` and ``test``, which share no patient.
    notes : list of str

    Raises
    ------
    InputError
        A split that is not train, val or test, or that only some rows have.
    """
    notes = []
    place = images.cohort.table["split"].map({part: number for number, part in enumerate(PARTS)})
    if place.notna().all():
        last = place.groupby(images.cohort.patients).transform("max")
        keep = (place == last).to_numpy()
        if not keep.all():
            notes.append(
                f"{int((~keep).sum())} images were left out: their patients stand in a later part of the data's own "
                "split, too (train before val before test)"
            )
            images = images.part(keep)
    cohort = images.cohort
    numbered = cohort.table.assign(**{_ROW: np.arange(len(cohort))})
    parts, more = split_cohort(
        Cohort(cohort.counts, cohort.sick, cohort.patients, numbered, cohort.unusable, cohort.lungs),
        seed=seed,
    )
    divided = {}
    for part, members in parts.items():
        rows = members.table[_ROW].to_numpy()
        chosen = np.zeros(len(images), dtype=bool)
        chosen[rows] = True
        divided[part] = images.part(chosen)
    return divided, [*notes, *more]
