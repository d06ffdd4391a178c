"""Several classifiers that vote, with weights learnt on patients that none of them had seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.utils.metaestimators import _BaseComposition

from histcxr.exceptions import InputError
from histcxr.models.out_of_fold import OutOfFoldClassifier

__all__ = ["StackedClassifier"]


class StackedClassifier(OutOfFoldClassifier, _BaseComposition):
    """A logistic regression on the out-of-fold logits of several classifiers.

    What scikit-learn's ``StackingClassifier`` does, except that folds share no patient (its ``fit`` has no
    place for groups), that probabilities enter as logits, and that counts may have three dimensions.

    Parameters
    ----------
    estimators : list of (str, classifier)
        The members by name, each with ``decision_function`` or ``predict_proba``.
    cv : int or None, default=5
        Folds. None: the mean of the members' logits instead of a regression.
    class_weight : "balanced", dict or None, default=None
        Weights of the classes in the regression; the members have their own.
    random_state : int, RandomState instance or None, default=None
        Of the folds.
    n_jobs : int or None, default=None
        Members and folds fitted at a time.

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
    estimators_ : list of fitted classifiers
        In the order of ``estimators``, fitted on all images, with the classes as 0 and 1.
    coef_ : ndarray, shape (n_members,)
        Weight of each member's logit.
    intercept_ : ndarray, shape (1,)
    n_features_in_ : int
        Values of an image: for counts, zones times bins.
    feature_names_in_ : ndarray of str
        Only when fitted on a table with named columns.

    References
    ----------
    D. Wolpert, Stacked generalization, 1992.
    """

    def __init__(
        self,
        estimators: Sequence[tuple[str, Any]],
        *,
        cv: int | None = 5,
        class_weight: Any = None,
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimators = estimators
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
        return [member for _, member in self.estimators]
