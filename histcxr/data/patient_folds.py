"""Folds of images that share no patient: what scores, calibration and early stopping rest on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, column_or_1d

from histcxr.exceptions import InputError

__all__ = ["Fold", "hold_out", "patient_folds", "validation_folds"]

#: Row numbers to learn from and to judge by.
Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


def patient_folds(
    y: ArrayLike, groups: ArrayLike | None, n_splits: int = 5, random_state: Any = None
) -> list[Fold]:
    """Split images into folds of about equal class shares that share no patient.

    Parameters
    ----------
    y : array-like, shape (n,)
        Classes.
    groups : array-like, shape (n,), optional
        The patient of each image. None: every image is a patient of its own.
    n_splits : int, default=5
    random_state : int, RandomState instance or None

    Returns
    -------
    list of (ndarray, ndarray)
        Row numbers to learn from and to judge by, for each fold.

    Raises
    ------
    InputError
        When there are too few patients of a class for so many folds.
    """
    return list(_folds(y, groups, n_splits, random_state))


def validation_folds(
    y: NDArray[Any], groups: ArrayLike | None, fraction: float, n: int, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp] | None]]:
    """Hold out a part for early stopping, another one each time, stratified by class.

    Parameters
    ----------
    y : ndarray, shape (rows,)
    groups : array-like, shape (rows,) or None
        Patients, who stay together.
    fraction : float
        Share held out: 0, or up to one half. It is rounded to one in a whole number.
    n : int
        How many times.
    seed : int

    Returns
    -------
    list of (rows to learn from, rows held out or None)
        The held-out parts are disjoint until each row has been held out once; then they come again.

    Raises
    ------
    InputError
        When ``fraction`` is out of range, or there are too few patients of a class.
    """
    if not 0 <= fraction <= 0.5:
        raise InputError(f"validation_fraction must be between 0 and 0.5; got {fraction!r}")
    if fraction == 0:
        return [(np.arange(len(y)), None)] * n
    try:
        folds = list(islice(_folds(y, groups, round(1 / fraction), seed), n))
    except InputError as error:
        raise InputError(
            f"validation_fraction={fraction:g}: {error}; or give 0, to train without early stopping"
        ) from error
    return [folds[i % len(folds)] for i in range(n)]


def hold_out(
    y: NDArray[Any], groups: ArrayLike | None, fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
    """Hold out one part, the first of :func:`validation_folds`."""
    return validation_folds(y, groups, fraction, 1, seed)[0]


def _folds(y: ArrayLike, groups: ArrayLike | None, n_splits: int, random_state: Any) -> Iterator[Fold]:
    """Yield the folds one by one, each after a look at its classes: those that nobody asks for may lack one."""
    if not isinstance(n_splits, int | np.integer) or isinstance(n_splits, bool) or n_splits < 2:
        raise InputError(f"the number of folds must be an integer of at least 2; got {n_splits!r}")
    target = column_or_1d(y)
    check_consistent_length(target, groups)
    patients = np.arange(len(target)) if groups is None else column_or_1d(groups)
    classes = np.unique(target)
    for value in classes:
        members = len(np.unique(patients[target == value]))
        if members < n_splits:
            raise InputError(
                f"{n_splits} folds take at least {n_splits} patients of each class; "
                f"class {value!r} has {members}"
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
