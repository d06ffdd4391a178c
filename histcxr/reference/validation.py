"""Judging a reference network: its scores in bounded memory, and the images held out for it by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score
from sklearn.utils.validation import column_or_1d

from histcxr.exceptions import InputError

__all__ = ["check_images", "class_scores", "judge", "named_part"]

# Pixels judged at a time: bounds the memory for activations, which grow with them.
_JUDGED_PIXELS = 1 << 21
_JUDGED_IMAGES = 256

# Keras's own bound for probabilities in a logarithm.
_EPSILON = 1e-7


def class_scores(model: Any, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the probability of each class, in batches that bound the memory.

    Parameters
    ----------
    model : keras.Model
        See :func:`train_network`.
    images : ndarray of uint8, shape (n, height, width)

    Returns
    -------
    ndarray, shape (n, classes)
        Each row adds up to 1. What an image gets does not depend on its neighbours, but for the rounding of
        32-bit sums, which a backend may order by the size of the batch.
    """
    pixels = int(np.prod(images.shape[1:]))
    largest = _power_of_two(min(_JUDGED_PIXELS // pixels, _JUDGED_IMAGES))
    parts = []
    for start in range(0, len(images), largest):
        batch = images[start : start + largest]
        # Powers of two only: a backend may compile the network anew for every size of batch that it meets.
        full = np.zeros((_power_of_two(2 * len(batch) - 1), *images.shape[1:], 1), np.uint8)
        full[: len(batch), ..., 0] = batch
        parts.append(np.asarray(model.predict_on_batch(full), np.float64)[: len(batch)])
    scores = np.concatenate(parts)
    if scores.shape[1] == 1:
        return np.concatenate([1.0 - scores, scores], axis=1)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def judge(
    model: Any,
    images: NDArray[np.uint8],
    targets: NDArray[np.integer],
    rows: NDArray[np.intp],
    weights: NDArray[np.floating] | None = None,
) -> dict[str, float]:
    """Judge a network by held-out images, which are never augmented.

    Parameters
    ----------
    model : keras.Model
    images : ndarray of uint8, shape (n, height, width)
    targets : ndarray of int, shape (n,)
    rows : ndarray of int
        Which images.
    weights : ndarray, shape (n,), optional
        Of the images in the loss.

    Returns
    -------
    dict
        ``val_loss``, the weighted mean of the negative log likelihood, ``val_accuracy``, and ``val_auc``, of more
        than two classes the mean of each against the rest (NaN where a class is missing).
    """
    scores, truth = class_scores(model, images[rows]), targets[rows]
    likelihood = np.clip(scores[np.arange(len(rows)), truth], _EPSILON, 1.0)
    auc = math.nan
    if np.isfinite(scores).all() and len(np.unique(truth)) == scores.shape[1]:
        positive = scores[:, 1] if scores.shape[1] == 2 else scores
        auc = float(roc_auc_score(truth, positive, multi_class="ovr"))
    return {
        "val_loss": float(
            np.average(-np.log(likelihood), weights=None if weights is None else weights[rows])
        ),
        "val_accuracy": float(np.mean(scores.argmax(axis=1) == truth)),
        "val_auc": auc,
    }


def named_part(
    targets: NDArray[np.integer], groups: ArrayLike | None, validation: ArrayLike
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Hold out the images that were named, after a look at them.

    Parameters
    ----------
    targets : ndarray of int, shape (n,)
    groups : array-like, shape (n,) or None
        Patients.
    validation : array-like of bool, shape (n,)
        Which images to hold out.

    Returns
    -------
    (rows to learn from, rows held out)

    Raises
    ------
    InputError
        When a side lacks a class, or a patient is on both.
    """
    held = column_or_1d(validation)
    if held.dtype != bool:
        raise InputError(f"validation must be an array of bool; got dtype {held.dtype}")
    classes = len(np.unique(targets))
    for name, part in (("the part to learn from", ~held), ("the validation part", held)):
        found = len(np.unique(targets[part]))
        if found < classes:
            raise InputError(f"{name} must hold every class; got {found} of {classes}")
    if groups is not None:
        patients = column_or_1d(groups)
        shared = np.intersect1d(patients[held], patients[~held])
        if len(shared):
            raise InputError(
                f"validation must not divide a patient; {len(shared)} have images on both sides, the first is "
                f"{shared[0]!r}"
            )
    return np.flatnonzero(~held), np.flatnonzero(held)


def check_images(X: Any) -> NDArray[np.uint8]:
    """Return images as an array, or say what they must be.

    Raises
    ------
    InputError
        When they are not uint8 (n, height, width), or there are none.
    """
    images = np.asarray(X)
    if images.dtype != np.uint8 or images.ndim != 3 or not images.size:
        raise InputError(
            "X must be uint8 grey levels (n, side, side), as read_images gives; got "
            f"{images.dtype} of shape {images.shape}"
        )
    return images


def _power_of_two(largest: int) -> int:
    """Return the largest power of two that is not above a number; 1 at least."""
    return 1 << (max(1, largest).bit_length() - 1)
