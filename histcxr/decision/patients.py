"""Many images, one patient: what is promised about patients must be counted in patients."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import BoolArray, FloatArray, bool_vector, real_vector
from histcxr.exceptions import InputError


def patient_codes(patient_ids: ArrayLike | None, length: int) -> NDArray[np.int64]:
    """Number the patients 0, 1, ... in the order in which they first appear.

    Parameters
    ----------
    patient_ids : array_like, shape (length,), or None
        Any identifiers. An unknown one (``""``, None or NaN) makes its image a patient of its own, and
        None instead of the array does so for all of them.
    length : int
        Number of images.

    Returns
    -------
    ndarray of int64, shape (length,)

    Raises
    ------
    InputError
        Not one-dimensional or of another length.
    """
    if patient_ids is None:
        return np.arange(length)
    ids = np.asarray(patient_ids, dtype=object)
    if ids.shape != (length,):
        raise InputError(f"patient_ids must have shape ({length},), one for each image, got {ids.shape}")
    keys, _ = pd.factorize(ids)  # None and NaN become -1
    keys = keys.astype(np.int64)
    unknown = (keys < 0) | np.fromiter((isinstance(i, str) and i == "" for i in ids), bool, length)
    keys[unknown] = length + np.arange(int(unknown.sum()))
    codes, _ = pd.factorize(keys)
    return codes.astype(np.int64)


def patient_scores(scores: ArrayLike, patient_ids: ArrayLike | None) -> FloatArray:
    """Reduce image scores to one a patient: the highest.

    A patient is ruled out only when every image is, and ruled in as soon as one image is; so the highest
    score decides both.

    Parameters
    ----------
    scores : array_like of float, shape (n,)
        NaN or infinite stands for "no usable score".
    patient_ids : array_like, shape (n,), or None
        See :func:`patient_codes`; ``""`` is a patient of its own.

    Returns
    -------
    ndarray of float64, shape (patients,)
        In the order in which the patients first appear. NaN for a patient with any image that has no
        usable score: such a patient goes to review and cannot serve to certify a threshold.

    Raises
    ------
    InputError
        Shapes or types are wrong.
    """
    values = real_vector(scores, finite=False)
    codes = patient_codes(patient_ids, values.size)
    usable = np.isfinite(values)
    result = np.full(int(codes.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(result, codes[usable], values[usable])
    result[codes[~usable]] = np.nan
    return result


def patient_labels(sick: ArrayLike, patient_ids: ArrayLike | None) -> BoolArray:
    """Reduce image labels (bool, shape (n,)) to one a patient: sick as soon as one image is.

    Order and errors as :func:`patient_scores`.
    """
    truth = bool_vector(sick)
    codes = patient_codes(patient_ids, truth.size)
    return np.bincount(codes[truth], minlength=int(codes.max(initial=-1)) + 1) > 0
