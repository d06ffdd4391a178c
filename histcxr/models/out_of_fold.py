"""Scores of images by classifiers that have not seen their patients: what calibration and stacking learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
)

from histcxr.data.splits import Fold, patient_folds
from histcxr.exceptions import InputError
from histcxr.features.transformers import validate_counts

# Probabilities are squeezed into [e, 1 - e] before they become logits: the votes of 25 neighbours may be
# 0 or 1. Squeezed, not cut off, so that the order of all scores stays.
_EDGE = 0.005


def case_logits(estimator: Any, X: Any, views: int = 1) -> NDArray[np.float64]:
    """Return a real-valued score of each image for the second class; higher is likelier.

    That is the decision function where there is one, otherwise the logit of the probability squeezed into
    [0.005, 0.995]. Of several views, which stand side by side in an image's row of ``X``, it is the mean.
    """
    if views > 1:
        logits: NDArray[np.float64] = np.mean(
            [case_logits(estimator, view) for view in np.split(X, views, axis=1)], axis=0
        )
        return logits
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(X), dtype=np.float64)
    probability = np.asarray(estimator.predict_proba(X), dtype=np.float64)[:, 1]
    squeezed = _EDGE + (1 - 2 * _EDGE) * probability
    return np.log(squeezed / (1 - squeezed))


def fits_in_workers(estimator: Any) -> bool:
    """Tell whether an estimator and all its parts may be fitted in another process.

    Those that may not (networks: Keras uses all cores by itself, and its runtime does not survive a fork) say so
    by an attribute ``fits_in_workers = False``.
    """
    parts = (estimator, *estimator.get_params(deep=True).values())
    return all(getattr(part, "fits_in_workers", True) for part in parts)


def two_classes(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the two classes of a target, shape (n,), and the target as 0 and 1; or raise ValueError."""
    check_classification_targets(y)
    kind = type_of_target(y, input_name="y", raise_unknown=True)
    classes, encoded = np.unique(y, return_inverse=True)
    if len(classes) > 2:
        raise InputError(f"Only binary classification is supported. The type of the target is {kind}.")
    if len(classes) < 2:
        raise InputError(f"y must hold two classes; got one class, {classes[0]!r}")
    return classes, encoded


class OutOfFoldClassifier(ClassifierMixin, BaseEstimator):
    """Members, and a logistic regression on their out-of-fold logits.

    Subclasses store ``cv, class_weight, random_state, n_jobs`` and say who the members are.

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
    estimators_ : list of fitted classifiers
        Fitted on all images, with the classes as 0 and 1.
    coef_ : ndarray, shape (n_members,)
        Weight of each member's logit.
    intercept_ : float
    """

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> OutOfFoldClassifier:
        """Fit the members on everything, and the logistic regression on their out-of-fold logits.

        Parameters
        ----------
        X : array-like, shape (n, n_features) or (n, rows, bins)
        y : array-like, shape (n,)
            Two classes; the one that sorts last is the positive class.
        groups : array-like, shape (n,), optional
            The patient of each image: no fold shares one. None: every image is a patient of its own.

        Raises
        ------
        ValueError
            When shapes or classes do not fit, or there are too few patients of a class for the folds.
        """
        self._fit(X, y, groups)
        return self

    def fit_out_of_fold(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Fit, and return P(second class) of each training image by what was fitted without its fold.

        As :meth:`fit`; the folds are ``patient_folds(y, groups, cv, random_state)``. InputError where ``cv`` is None:
        then there are none.
        """
        logits, folds, encoded = self._fit(X, y, groups)
        if logits is None:
            raise InputError("cv must be a number of folds for out-of-fold scores; got None")
        scores = np.empty(len(encoded))
        for train, test in folds:
            coef, intercept = self._regression(logits[train], encoded[train])
            scores[test] = expit(logits[test] @ coef + intercept)
        return scores

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the calibrated logit of each image, shape (n,)."""
        check_is_fitted(self)
        checked = validate_counts(self, X, reset=False)
        logits = np.column_stack([case_logits(member, checked, self._views()) for member in self.estimators_])
        # Not a matrix product, whose order of summation depends on the number of images.
        result: NDArray[np.float64] = (logits * self.coef_).sum(axis=1) + self.intercept_
        return result

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of both classes, shape (n, 2)."""
        positive = expit(self.decision_function(X))
        return np.column_stack([1 - positive, positive])

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likelier class of each image, shape (n,)."""
        check_is_fitted(self)
        chosen: NDArray[Any] = self.classes_[(self.decision_function(X) > 0).astype(np.intp)]
        return chosen

    def _members(self) -> Sequence[Any]:
        """Return the unfitted members."""
        raise NotImplementedError

    def _views(self) -> int:
        """Return how many views of an image stand side by side in its row."""
        return 1

    def _member_parameters(
        self, member: Any, encoded: NDArray[np.intp], patients: NDArray[Any] | None
    ) -> dict[str, Any]:
        """Return what a member's ``fit`` receives for every image, e.g. weights."""
        return {}

    def _fit(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None
    ) -> tuple[NDArray[np.float64] | None, list[Fold], NDArray[np.intp]]:
        if y is None:
            raise InputError("requires y to be passed, but the target y is None")
        checked = validate_counts(self, X, reset=True)
        target = column_or_1d(y, warn=True)
        check_consistent_length(checked, target, groups)
        self.classes_, encoded = two_classes(target)
        patients = None if groups is None else column_or_1d(groups)
        members, views = self._members(), self._views()
        if views > 1 and (checked.ndim != 2 or checked.shape[1] % views):
            raise InputError(
                f"X must hold {views} views of each image side by side; got shape {checked.shape}"
            )
        folds = [] if self.cv is None else patient_folds(encoded, patients, self.cv, self.random_state)
        everything: list[Fold] = [(np.arange(len(encoded)), np.arange(0))]
        jobs = [
            (fits_in_workers(member), clone(member), fold, self._member_parameters(member, encoded, patients))
            for member in members
            for fold in (*folds, *everything)
        ]
        in_workers = iter(
            Parallel(n_jobs=self.n_jobs)(
                delayed(_fit_part)(member, checked, encoded, fold, parameters, views)
                for may_leave, member, fold, parameters in jobs
                if may_leave
            )
        )
        parts = [
            next(in_workers) if may_leave else _fit_part(member, checked, encoded, fold, parameters, views)
            for may_leave, member, fold, parameters in jobs
        ]
        step = len(folds) + 1
        self.estimators_ = [parts[start + len(folds)][0] for start in range(0, len(parts), step)]
        logits = None
        if folds:
            logits = np.empty((len(encoded), len(members)))
            for place, (_, found) in enumerate(parts):
                column, fold = divmod(place, step)
                if fold < len(folds):
                    logits[folds[fold][1], column] = found
            self.coef_, self.intercept_ = self._regression(logits, encoded)
        else:
            self.coef_, self.intercept_ = np.full(len(members), 1 / len(members)), 0.0
        return logits, folds, encoded

    def _regression(
        self, logits: NDArray[np.float64], encoded: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], float]:
        """Return the weight of each member's logit and the intercept."""
        raise NotImplementedError

    def _logistic(
        self, values: NDArray[np.float64], encoded: NDArray[np.intp], C: float = 1.0
    ) -> tuple[NDArray[np.float64], float]:
        """Return coefficients and intercept of a logistic regression with the class weights."""
        weight = self.class_weight
        if isinstance(weight, dict):
            weight = {code: weight[value] for code, value in enumerate(self.classes_) if value in weight}
        found = LogisticRegression(C=C, class_weight=weight, max_iter=1000).fit(values, encoded)
        return found.coef_[0], float(found.intercept_[0])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.three_d_array = True
        return tags


def _fit_part(
    member: Any,
    X: NDArray[Any],
    y: NDArray[np.intp],
    fold: Fold,
    parameters: dict[str, Any],
    views: int,
) -> tuple[Any, NDArray[np.float64] | None]:
    """Fit a member on one part and score the other: (fitted member, None) or (None, logits)."""
    train, test = fold
    whole = not len(test)
    first = X if views == 1 else X[:, : X.shape[1] // views]
    images, target = (first, y) if whole else (first[train], y[train])
    member.fit(images, target, **{name: values[train] for name, values in parameters.items()})
    return (member, None) if whole else (None, case_logits(member, X[test], views))
