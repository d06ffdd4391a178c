"""Calibration and stacking: logistic regressions on scores by classifiers that had not seen an image's patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed, parallel_config
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils import Tags
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, has_fit_parameter

from histcxr.checks import whole_number
from histcxr.data.splits import Fold, patient_folds
from histcxr.exceptions import InputError
from histcxr.features.transformers import validate_counts
from histcxr.models.scoring import case_logits, combined, expit

_FREE = 1e3
_LEAST = 1e-6  # keeps the stack's regression solvable where members agree exactly


def fits_in_workers(estimator: Any) -> bool:
    """Tell whether no part says ``fits_in_workers = False``, as what uses Keras does, which does not survive a fork."""
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
        found = f"one class, {classes[0]!r}" if len(classes) else "none"
        raise InputError(f"y must hold two classes; got {found}")
    return classes, encoded


class TwoClassClassifier(ClassifierMixin, BaseEstimator):
    """What classifiers with a decision function for two classes, ``classes_``, have in common."""

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likelier class of each image, shape (n,)."""
        check_is_fitted(self)
        chosen: NDArray[Any] = self.classes_[(self.decision_function(X) > 0).astype(np.intp)]
        return chosen

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


@dataclass(eq=False, repr=False, kw_only=True)
class OutOfFoldClassifier(TwoClassClassifier):
    """Members, and a logistic regression on their out-of-fold logits; subclasses give ``_members``, ``_regression``.

    ``cv``: folds that share no patient; None: the mean of the members' logits, ``cv + 1`` times as fast, where only the
    order counts. ``class_weight``: in the regression; ``random_state``: of the folds; ``n_jobs``: members and folds at
    a time. Fitted: ``classes_`` (2,); ``estimators_``, on all images, with classes 0 and 1; ``coef_`` (n_members,),
    ``intercept_``.
    """

    cv: int | None = 5
    class_weight: Any = None
    random_state: Any = None
    n_jobs: int | None = None

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> OutOfFoldClassifier:
        """Fit the members on everything, and the logistic regression on their out-of-fold logits.

        Of ``X``, shape (n, n_features) or (n, rows, bins), two classes in ``y``, of which the one that sorts last is
        the positive one, and the patient of each image (None: each is a patient of its own). ValueError when shapes or
        classes do not fit, or there are too few patients of a class for the folds.
        """
        self._fit(X, y, groups)
        return self

    def fit_out_of_fold(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Fit, and return P(second class) of each training image by what was fitted without its fold.

        The folds are ``patient_folds(y, groups, cv, random_state)``; InputError where ``cv`` is None.
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
        return combined(self, validate_counts(self, X, reset=False))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of both classes, shape (n, 2)."""
        positive = expit(self.decision_function(X))
        return np.column_stack([1 - positive, positive])

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
        parts = [*folds, (np.arange(len(encoded)), np.arange(0))]
        found: dict[tuple[int, int], Any] = {}
        for may_leave in (True, False):
            jobs = {
                (column, part): delayed(_fit_part)(clone(member), checked, encoded, fold, parameters, views)
                for column, member in enumerate(members)
                if fits_in_workers(member) == may_leave
                for parameters in [self._member_parameters(member, encoded, patients)]
                for part, fold in enumerate(parts)
            }
            # Named, so that what must stay here does, whatever joblib is told to work on.
            run = Parallel(n_jobs=self.n_jobs) if may_leave else Parallel(n_jobs=1, backend="sequential")
            found |= zip(jobs, run(jobs.values()), strict=True)
        self.estimators_ = [found[column, len(folds)][0] for column in range(len(members))]
        logits = None
        if folds:
            logits = np.empty((len(encoded), len(members)))
            for column, part in found:
                if part < len(folds):
                    logits[parts[part][1], column] = found[column, part][1]
            self.coef_, self.intercept_ = self._regression(logits, encoded)
        else:
            self.coef_, self.intercept_ = np.full(len(members), 1 / len(members)), 0.0
        return logits, folds, encoded

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
    with parallel_config("threading"):  # on a cluster, too: its trees are not worth a journey each
        member.fit(images, target, **{name: values[train] for name, values in parameters.items()})
        return (member, None) if whole else (None, case_logits(member, X[test], views))


@dataclass(eq=False, repr=False)
class CalibratedClassifier(MetaEstimatorMixin, OutOfFoldClassifier):
    """A classifier and Platt's sigmoid (1999), fitted on scores of patients that the classifier had not seen.

    As ``CalibratedClassifierCV(ensemble=False)``, but folds share no patient and probabilities enter as logits. The
    order of scores stays, unless it proves worse than chance and is turned over. ``estimator`` has
    ``decision_function`` or ``predict_proba``; its ``fit`` gets class weights as ``sample_weight`` and patients as
    ``groups``, where it takes them. ``views``: of each image, side by side in its row of ``X``, such as its mirror
    image; the first is learnt from, the mean of all is the score.
    """

    estimator: Any
    _: KW_ONLY
    views: int = 1

    def _members(self) -> list[Any]:
        return [self.estimator]

    def _views(self) -> int:
        return whole_number(self.views, "views", least=1)

    def _regression(
        self, logits: NDArray[np.float64], encoded: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], float]:
        return self._logistic(logits, encoded)

    def _member_parameters(
        self, member: Any, encoded: NDArray[np.intp], patients: NDArray[Any] | None
    ) -> dict[str, Any]:
        parameters: dict[str, Any] = {}
        if patients is not None and has_fit_parameter(member, "groups"):
            parameters["groups"] = patients
        if self.class_weight is not None and has_fit_parameter(member, "sample_weight"):
            weights = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[encoded])
            parameters["sample_weight"] = weights[encoded]
        return parameters


@dataclass(eq=False, repr=False)
class StackedClassifier(OutOfFoldClassifier, _BaseComposition):
    """A logistic regression on the out-of-fold logits of several classifiers, drawn towards equal weights.

    As ``StackingClassifier`` (Wolpert 1992), but folds share no patient, probabilities enter as logits, counts may have
    three dimensions, and weights are penalised, for an even vote travels better. ``estimators``: (name, classifier)
    pairs, with ``decision_function`` or ``predict_proba``; ``evenness``: penalty on differences between weights beside
    an image's mean loss, 0: as they fit best, large: all equal.
    """

    estimators: Sequence[tuple[str, Any]]
    _: KW_ONLY
    evenness: float = 0.05

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, those of the members as ``NAME__PARAMETER``."""
        return dict(self._get_params("estimators", deep=deep))

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
