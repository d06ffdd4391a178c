"""What a reference network learns to tell apart, and from which images: classes as numbers, and undersampling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import is_sick
from histcxr.data.splits import patient_groups
from histcxr.exceptions import InputError

__all__ = ["class_targets", "undersample"]


def class_targets(
    table: pd.DataFrame, classes: int = 2, *, normal: str = "Normal"
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Turn labels into the numbers of classes.

    Parameters
    ----------
    table : DataFrame
        With the column ``label``.
    classes : int, default=2
        2: sick against normal. More: the labels themselves, of which there must be so many.
    normal : str, default="Normal"
        The label that means normal.

    Returns
    -------
    targets : ndarray of int64, shape (n,)
        0 is normal.
    names : tuple of str
        The name of each class: ``("normal", "sick")``, or the labels, the normal one first and the others in
        alphabetical order.

    Raises
    ------
    InputError
        When a label is missing or there are other classes than asked for.
    """
    if not isinstance(classes, int | np.integer) or isinstance(classes, bool) or classes < 2:
        raise InputError(f"classes must be a whole number from 2; got {classes!r}")
    _require(table, "label")
    sick = is_sick(table["label"], normal)
    if classes == 2:
        return sick.astype(np.int64), ("normal", "sick")
    labels = table["label"].astype(str).str.strip().to_numpy(dtype=object)
    healthy = sorted(set(labels[~sick]))
    names = (*healthy, *sorted(set(labels[sick])))
    if len(names) != classes or len(healthy) != 1:
        counts = ", ".join(f"{name} {int((labels == name).sum())}" for name in names)
        raise InputError(
            f"classes={classes} takes so many labels, one of them {normal!r}; the table has {len(names)}: {counts}. "
            "Leave out the rows of labels that are not wanted, or give classes=2 for sick against normal"
        )
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers[label] for label in labels], np.int64), names


def undersample(
    table: pd.DataFrame, *, per_class: int | None = None, by: str = "label", seed: int = 0
) -> NDArray[np.intp]:
    """Draw equally many images of each class, without replacement and from as many patients as possible.

    Patients are drawn first: every patient of a class gives one image before any gives a second. So the images
    drawn differ as much as they can; a patient with many does not fill the sample.

    Parameters
    ----------
    table : DataFrame
        With the columns ``by``, ``patient_id`` and ``image`` (an image without a patient is its own).
    per_class : int, optional
        Images of each class. None: as many as the smallest class has.
    by : str, default="label"
        The column that holds the class.
    seed : int, default=0
        Equal seeds give equal draws.

    Returns
    -------
    ndarray of int
        Positions of the rows drawn, ascending.

    Raises
    ------
    InputError
        When a column is missing, there is no row, or a class has fewer images than asked for.
    """
    _require(table, by, "patient_id", "image")
    if table.empty:
        raise InputError("table must have rows; it has none")
    codes, names = pd.factorize(table[by], use_na_sentinel=False)
    sizes = np.bincount(codes)
    wanted: Any = int(sizes.min()) if per_class is None else per_class
    if not isinstance(wanted, int | np.integer) or isinstance(wanted, bool) or wanted < 1:
        raise InputError(f"per_class must be a whole number from 1, or None; got {per_class!r}")
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


def _require(table: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"table must have the columns {', '.join(columns)}; missing: {', '.join(missing)}")
