"""What a network's calls are worth class by class: confusion matrix, precision, recall, F1, ROC curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import (
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from histcxr.data.manifest import is_sick
from histcxr.exceptions import InputError

__all__ = ["class_figures", "class_numbers"]

#: Points of a ROC curve that are kept: more than a plot can show.
_POINTS: Final = 200


def class_numbers(labels: pd.Series[Any], classes: Sequence[str], normal: str) -> NDArray[np.int64]:
    """Turn labels into the numbers of a network's classes, of which the first is normal.

    Raises
    ------
    InputError
        When a network of several classes does not know a label.
    """
    sick = is_sick(labels, normal)
    if len(classes) == 2:
        return sick.astype(np.int64)
    numbers = {name: number for number, name in enumerate(classes)}
    names = labels.astype(str).str.strip().where(sick, classes[0])
    unknown = sorted(set(names) - set(numbers))
    if unknown:
        raise InputError(
            f"label must be one of the network's classes {', '.join(classes)}; got also {', '.join(unknown)}"
        )
    return np.array([numbers[name] for name in names], np.int64)


def class_figures(
    targets: NDArray[np.integer], probabilities: NDArray[np.float64], names: Sequence[str]
) -> dict[str, Any]:
    """Count calls of the most probable class.

    Parameters
    ----------
    targets : ndarray of int, shape (n,)
        Number of each image's class.
    probabilities : ndarray of float, shape (n, k)
    names : sequence of str
        Of the k classes.

    Returns
    -------
    dict
        ``names``, ``accuracy``, ``balanced_accuracy`` (mean recall of the classes there are), ``macro_f1``, ``loss``
        (mean negative log likelihood), ``matrix`` (rows: truth, columns: calls), ``classes`` (per class ``images,
        precision, recall, f1, auc``, the last against the rest, None where it does not exist) and ``roc`` (per class
        ``fpr`` and ``tpr``; of two classes the second one alone); ready for JSON. A precision without any call is 0.
    """
    numbers = np.arange(len(names))
    calls = probabilities.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, calls, labels=numbers, zero_division=0
    )
    there = np.unique(targets)
    classes, curves = [], {}
    for number, name in enumerate(names):
        own = targets == number
        defined = 0 < own.sum() < len(own)
        classes.append(
            {
                "class": name,
                "images": int(support[number]),
                "precision": float(precision[number]),
                "recall": float(recall[number]),
                "f1": float(f1[number]),
                "auc": float(roc_auc_score(own, probabilities[:, number])) if defined else None,
            }
        )
        if defined and (len(names) > 2 or number == 1):
            curves[name] = _curve(own, probabilities[:, number])
    return {
        "names": list(names),
        "accuracy": float(np.mean(calls == targets)),
        "balanced_accuracy": float(np.mean(recall[there])),
        "macro_f1": float(np.mean(f1[there])),
        "loss": float(log_loss(targets, probabilities, labels=numbers)),
        "matrix": confusion_matrix(targets, calls, labels=numbers).tolist(),
        "classes": classes,
        "roc": curves,
    }


def _curve(own: NDArray[np.bool_], scores: NDArray[np.float64]) -> dict[str, list[float]]:
    fpr, tpr, _ = roc_curve(own, scores)
    kept = np.unique(np.linspace(0, len(fpr) - 1, min(_POINTS, len(fpr))).round().astype(int))
    return {"fpr": np.round(fpr[kept], 5).tolist(), "tpr": np.round(tpr[kept], 5).tolist()}
