"""Several classifiers that vote, with weights learnt on patients that none of them had seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.metaestimators import _BaseComposition

from histcxr.exceptions import InputError
from histcxr.models.out_of_fold import OutOfFoldClassifier

_FREE = 1e3
_LEAST = 1e-6  # keeps the regression solvable where members agree exactly


class StackedClassifier(OutOfFoldClassifier, _BaseComposition):
    """A logistic regression on the out-of-fold logits of several classifiers, drawn towards equal weights.

    What scikit-learn's ``StackingClassifier`` does (Wolpert 1992), except that folds share no patient (its ``fit``
    has no place for groups), that probabilities enter as logits, that counts may have three dimensions, and for the
    penalty: which member is best at home says little about which is best elsewhere, and an even vote travels
    better.

    Parameters
    ----------
    estimators : list of (str, classifier)
        The members by name, each with ``decision_function`` or ``predict_proba``.
    evenness : float, default=0.05
        Penalty on the differences between the members' weights, beside the mean loss of an image. 0: weights as
        they fit best; large: all members weigh the same.
    cv : int or None, default=5
        Folds. None: the mean of the members' logits instead of a regression.
    class_weight : "balanced", dict or None, default=None
        Weights of the classes in the regression; the members have their own.
    random_state : int, RandomState instance or None, default=None
        Of the folds.
    n_jobs : int or None, default=None
        Members and folds fitted at a time.
    """

    def __init__(
        self,
        estimators: Sequence[tuple[str, Any]],
        *,
        evenness: float = 0.05,
        cv: int | None = 5,
        class_weight: Any = None,
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimators = estimators
        self.evenness = evenness
        self.cv = cv
        self.class_weight = class_weight
        self.random_state = random_state
        self.n_jobs = n_jobs

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, those of the members as ``NAME__PARAMETER``."""
        parameters: dict[str, Any] = self._get_params("estimators", deep=deep)
        return parameters

    def set_params(self, **params: Any) -> StackedClassifier:
        """Set parameters, those of the members as ``NAME__PARAMETER``."""
        self._set_params("estimators", **params)
        return self

    def _members(self) -> list[Any]:
        if not self.estimators:
            raise InputError("estimators must be a list of (name, classifier); got none")
        names = [name for name, _ in self.estimators]
        self._validate_names(names)
        if not isinstance(self.evenness, int | float | np.number) or not 0 <= self.evenness < np.inf:
            raise InputError(f"evenness must be a number of at least 0; got {self.evenness!r}")
        return [member for _, member in self.estimators]

    def _regression(
        self, logits: NDArray[np.float64], encoded: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], float]:
        # Each member is calibrated first, so that equal weights mean equal say.
        own = [self._logistic(column[:, None], encoded) for column in logits.T]
        slopes = np.array([coef[0] for coef, _ in own])
        shifts = np.array([intercept for _, intercept in own])
        calibrated = logits * slopes + shifts
        mean = calibrated.mean(axis=1, keepdims=True)
        # weight of member j = weight of the mean / m + weight of its deviation (less their mean). The mean is
        # as good as free of the penalty, being so large; the deviations bear it.
        values = np.hstack([_FREE * mean, calibrated - mean])
        penalty = 2 * max(self.evenness, _LEAST) * len(encoded)
        coef, intercept = self._logistic(values, encoded, C=1 / penalty)
        deviations = coef[1:] - coef[1:].mean()
        weights = _FREE * coef[0] / len(slopes) + deviations
        return weights * slopes, intercept + float(weights @ shifts)
