"""Dividing images into training, validation and test parts without ever dividing a patient.

Patients are drawn at random within their class, each with the same chance whatever the number of their
images, so that the patients of the parts are exchangeable: the certified thresholds rest on that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, column_or_1d

from histcxr.checks import whole_number
from histcxr.exceptions import InputError

SPLITS = ("train", "val", "test")
"""Names of the parts."""

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Row numbers to learn from and to judge by."""


def patient_groups(manifest: pd.DataFrame) -> NDArray[np.object_]:
    """One group name for each image, object (n,): its patient, or the image itself where that is unknown."""
    patients = manifest["patient_id"].to_numpy(dtype=object)
    images = manifest["image"].to_numpy(dtype=object)
    return np.where(patients == "", images, patients)


def split_patients(
    manifest: pd.DataFrame, fractions: Sequence[float] = (0.64, 0.16, 0.2), *, seed: int = 0
) -> NDArray[np.object_]:
    """Assign every image to ``train``, ``val`` or ``test``, patient by patient and class by class: object (n,).

    The manifest has the columns ``image``, ``label`` and ``patient_id``; an image without a patient is a patient of
    its own. ``fractions`` are shares of the patients of each class and add up to 1; a patient's class is his commonest
    label. Equal seeds give equal splits. InputError: impossible fractions, or too few patients to fill every part.
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


def undersample(
    table: pd.DataFrame, *, by: str = "label", per_class: int | None = None, seed: int = 0
) -> NDArray[np.intp]:
    """Draw equally many images of each class, without replacement: positions of the rows, int, ascending.

    Every patient of a class gives one image before any gives a second. The table has the columns ``by`` (the class),
    ``patient_id`` and ``image`` (one without a patient is its own); ``per_class`` None takes as many as the smallest
    class has. Equal seeds give equal draws. InputError: a column is missing, no row, or a class has fewer images than
    asked for.
    """
    if missing := [column for column in (by, "patient_id", "image") if column not in table.columns]:
        raise InputError(
            f"table must have the columns {by}, patient_id, image; missing: {', '.join(missing)}"
        )
    if table.empty:
        raise InputError("table must have rows; it has none")
    codes, names = pd.factorize(table[by], use_na_sentinel=False)
    sizes = np.bincount(codes)
    wanted = int(sizes.min()) if per_class is None else whole_number(per_class, "per_class", least=1)
    if wanted > sizes.min():
        smallest = names[int(sizes.argmin())]
        raise InputError(
            f"per_class must be at most {sizes.min()}, the number of images of {smallest!r}; got {wanted}"
        )
    patients = pd.factorize(patient_groups(table))[0]
    generator = np.random.default_rng(seed)
    drawn = []
    for code in range(len(sizes)):
        rows = generator.permutation(np.flatnonzero(codes == code))
        # The patients' turns: 0 for the first image of each, in random order within a turn.
        turns = pd.Series(patients[rows]).groupby(patients[rows]).cumcount().to_numpy()
        drawn.append(rows[np.argsort(turns, kind="stable")[:wanted]])
    return np.sort(np.concatenate(drawn))


def patient_folds(
    y: ArrayLike, groups: ArrayLike | None, n_splits: int = 5, random_state: Any = None
) -> list[Fold]:
    """Split images into folds of about equal class shares that share no patient: rows to learn from, rows to judge by.

    ``y`` and ``groups`` (patients; None: every image its own) have shape (n,). InputError: too few patients of a
    class.
    """
    return list(_folds(y, groups, n_splits, random_state))


def validation_folds(
    y: NDArray[Any], groups: ArrayLike | None, fraction: float, n: int, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp] | None]]:
    """Hold out a part for early stopping ``n`` times, stratified by class: (rows to learn from, rows held out or None).

    ``fraction`` is 0, or up to one half, rounded to one in a whole number; ``y`` and ``groups`` as in
    :func:`patient_folds`. The held-out parts are disjoint until each row has been held out once; then they come again.
    InputError: ``fraction`` out of range, or too few patients of a class.
    """
    if not 0 <= fraction <= 0.5:
        raise InputError(f"validation_fraction must be between 0 and 0.5; got {fraction!r}")
    if fraction == 0:
        return [(np.arange(len(y)), None)] * n
    try:
        folds = list(islice(_folds(y, groups, round(1 / fraction), seed), n))
    except InputError as error:
        advice = "or give 0, to train without early stopping"
        raise InputError(f"validation_fraction={fraction:g}: {error}; {advice}") from error
    return [folds[i % len(folds)] for i in range(n)]


def hold_out(
    y: NDArray[Any], groups: ArrayLike | None, fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
    """Hold out one part, the first of :func:`validation_folds`."""
    return validation_folds(y, groups, fraction, 1, seed)[0]


def _class_of_patients(codes: NDArray[np.intp], labels: NDArray[np.object_]) -> NDArray[np.object_]:
    """The commonest label of each patient; of equally common ones the first in the alphabet."""
    table = pd.DataFrame({"patient": codes, "label": labels})
    counted = table.value_counts(sort=False).reset_index(name="images")
    ranked = counted.sort_values(["patient", "images", "label"], ascending=[True, False, True])
    return ranked.drop_duplicates("patient")["label"].to_numpy(dtype=object)


def _sizes(count: int, shares: NDArray[np.float64]) -> NDArray[np.intp]:
    """Whole numbers that add up to ``count``, nearest to its shares (largest remainders)."""
    exact = count * shares
    sizes = np.floor(exact + 1e-9).astype(np.intp)
    order = np.argsort(sizes - exact, kind="stable")
    sizes[order[: count - sizes.sum()]] += 1
    return sizes


def _folds(y: ArrayLike, groups: ArrayLike | None, n_splits: int, random_state: Any) -> Iterator[Fold]:
    """Yield the folds one by one, each after a look at its classes: those that nobody asks for may lack one."""
    whole_number(n_splits, "the number of folds", least=2)
    target = column_or_1d(y)
    check_consistent_length(target, groups)
    patients = np.arange(len(target)) if groups is None else column_or_1d(groups)
    classes = np.unique(target)
    for value in classes:
        members = len(np.unique(patients[target == value]))
        if members < n_splits:
            raise InputError(
                f"{n_splits} folds take at least {n_splits} patients of each class; "
                f"class {value} has {members}"
            )
    seed = check_random_state(random_state)
    rows = np.zeros((len(target), 1))
    if groups is None:  # the other splitter is slow where every image is a group
        yield from StratifiedKFold(n_splits, shuffle=True, random_state=seed).split(rows, target)
        return
    for fold in StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed).split(rows, target, patients):
        if min(len(np.unique(target[part])) for part in fold) < len(classes):
            raise InputError(
                f"{n_splits} folds without shared patients leave one that lacks a class; "
                "use fewer folds or more patients"
            )
        yield fold
