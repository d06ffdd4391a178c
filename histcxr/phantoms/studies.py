"""Whole studies of synthetic radiographs on disk, in every layout, for demonstrations and tests."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from histcxr.exceptions import InputError
from histcxr.files.writing import write_image, write_mask
from histcxr.phantoms.anatomy import Phantom, make_phantom
from histcxr.phantoms.broken_files import write_broken_files, write_unusual_files

__all__ = [
    "Phantom",
    "make_phantom",
    "sample_study",
    "write_broken_files",
    "write_study",
    "write_unusual_files",
]

LAYOUTS = ("classes-masks", "classes", "split-classes", "flat")
"""``CLASS/{images,masks}/*``, ``CLASS/*``, ``{train,val,test}/CLASS/*``, and files without classes."""

NORMAL, SICK = "Normal", "Lung_Opacity"
_PARTS = ("train", "val", "test")
_VAL = 0.16
# The least that certifies is 59; a few are refused as unlike the training patients.
_SICK_TO_CERTIFY, _FEWEST_TO_CERTIFY = 70, 300
_FEWEST_TO_SPLIT = 5  # patients of a class, so that each of three parts gets one


def write_study(
    folder: str | os.PathLike[str],
    *,
    n_patients: int = 120,
    layout: str = "classes-masks",
    seed: int = 0,
    size: tuple[int, int] = (224, 224),
    mask_size: tuple[int, int] = (256, 256),
    masks: bool = True,
    repeats: float = 0.2,
    gamma: float = 1.0,
) -> Path:
    """Write the radiographs of a made-up study, half of whose patients are sick, as PNG; returns the folder.

    All layouts (of :data:`LAYOUTS`) but ``flat`` get a ``manifest.csv`` with labels, patients, findings and, from five
    patients of a class on, splits. Masks, PNG of one bit, lie beside the images (``classes-masks``) or in ``masks/``,
    in folders that mirror theirs. Equal seeds give equal files. ``size, mask_size``: (height, width) in pixels;
    ``repeats``: share of patients with a second radiograph; ``gamma``: the exponent of grey levels from 0 to 1, which
    another hospital's scanner may have. InputError: an argument is out of range, or too few
    patients to fill ``train``, ``val`` and ``test``.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout must be one of {', '.join(LAYOUTS)}; it is {layout!r}")
    if n_patients < 1:
        raise InputError(f"n_patients must be at least 1; it is {n_patients}")
    if not 0 <= repeats <= 1:
        raise InputError(f"repeats must be between 0 and 1; it is {repeats}")
    if not 0.2 <= gamma <= 5:
        raise InputError(f"gamma must be between 0.2 and 5; it is {gamma}")
    curve = np.rint(255 * np.linspace(0, 1, 256) ** gamma).astype(np.uint8)
    top = Path(folder)
    table = _roster(n_patients, repeats, seed)
    patients_of_class = table.groupby("label")["patient_id"].nunique()
    if layout == "split-classes" or (patients_of_class >= _FEWEST_TO_SPLIT).all():
        table["split"] = _splits(table, seed)
    table["image"], table["mask"] = _places(table, layout)

    def draw(number: int, label: str, exposure: int, image: str, mask: str) -> str:
        phantom = make_phantom(number, sick=label == SICK, size=size, exposure=exposure)
        write_image(top / image, curve[phantom.image])
        if masks:
            levels = phantom.mask.view(np.uint8)
            write_mask(top / mask, cv2.resize(levels, mask_size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))
        return " ".join(phantom.findings)

    columns = (table[column] for column in ("seed", "label", "exposure", "image", "mask"))
    findings = [draw(*row) for row in zip(*columns, strict=True)]
    if layout != "flat":
        table["findings"] = findings
        if not masks:
            table["mask"] = ""
        table.drop(columns=["seed", "exposure"]).to_csv(top / "manifest.csv", index=False)
    return top


def sample_study(
    folder: str | os.PathLike[str],
    *,
    n_patients: int = 400,
    seed: int = 0,
    size: tuple[int, int] = (224, 224),
) -> Path:
    """Write a made-up study that a model can be trained, certified and measured on; returns the folder.

    As :func:`write_study`, with lung masks beside the images, and with so many validation patients that 95 %
    sensitivity can be certified at 95 % confidence: of fewer than 870 patients, more than a sixth. ``size`` is
    (height, width) in pixels. InputError: fewer than 300 patients, or what :func:`write_study` refuses.
    """
    if n_patients < _FEWEST_TO_CERTIFY:
        raise InputError(f"n_patients must be at least {_FEWEST_TO_CERTIFY}; it is {n_patients}")
    top = write_study(folder, n_patients=n_patients, seed=seed, size=size, mask_size=size)
    table = pd.read_csv(top / "manifest.csv", dtype=str, keep_default_na=False)
    table["split"] = _splits(table, seed, max(_VAL, 2 * _SICK_TO_CERTIFY / n_patients))
    table.to_csv(top / "manifest.csv", index=False)
    return top


def _roster(n_patients: int, repeats: float, seed: int) -> pd.DataFrame:
    """One row a radiograph: label, patient, what to draw."""
    rng = np.random.default_rng(seed)
    sick = rng.permutation(n_patients) < round(n_patients / 2)
    counts = 1 + (rng.permutation(n_patients) < round(n_patients * repeats))
    patient = np.repeat(np.arange(n_patients), counts)
    exposure = np.arange(len(patient)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = pd.DataFrame({"label": np.where(sick, SICK, NORMAL)[patient], "exposure": exposure})
    table["patient_id"] = [f"phantom-{seed}-{number + 1:04d}" for number in patient]
    table["source"], table["split"] = "phantom", ""
    table["seed"] = rng.integers(0, 2**31, n_patients)[patient]
    table["image"] = [str(number) for number in range(len(table))]
    return table


def _splits(table: pd.DataFrame, seed: int, val: float = _VAL) -> pd.Series:
    """Put 20 % of the patients of each class into test, a share into val, and the others into train."""
    rng = np.random.default_rng(seed)
    patients = table.drop_duplicates("patient_id")
    parts: dict[str, str] = {}
    for _, members in patients.groupby("label")["patient_id"]:
        borders = np.round(len(members) * np.array([0.8 - val, 0.8])).astype(int)
        for part, names in zip(_PARTS, np.split(rng.permutation(members), borders), strict=True):
            parts |= dict.fromkeys(names, part)
    if len(set(parts.values())) < len(_PARTS):
        raise InputError(f"n_patients must be enough to fill {', '.join(_PARTS)}; it is {len(patients)}")
    return table["patient_id"].map(parts)


def _places(table: pd.DataFrame, layout: str) -> tuple[list[str], list[str]]:
    """Relative paths of images and masks."""
    images, masks = [], []
    numbers = table.groupby("label").cumcount() + 1
    for position, (label, split, number) in enumerate(
        zip(table["label"], table["split"], numbers, strict=True)
    ):
        stem = f"phantom-{position + 1:05d}" if layout == "flat" else f"{label}-{number}"
        if layout == "classes-masks":
            images.append(f"{label}/images/{stem}.png")
            masks.append(f"{label}/masks/{stem}.png")
            continue
        folder = {"classes": f"{label}/", "split-classes": f"{split}/{label}/", "flat": ""}[layout]
        images.append(f"{folder}{stem}.png")
        masks.append(f"masks/{folder}{stem}.png")
    return images, masks
