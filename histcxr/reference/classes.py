"""What a reference network learns to tell apart, and from which images: classes as numbers, and undersampling."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import is_sick
from histcxr.data.splits import undersample
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


def _require(table: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"table must have the columns {', '.join(columns)}; missing: {', '.join(missing)}")
