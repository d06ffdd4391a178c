"""Any classifier of two classes with probabilities that mean what they say, calibrated across patients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import MetaEstimatorMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import has_fit_parameter

from histcxr.checks import whole_number
from histcxr.models.out_of_fold import OutOfFoldClassifier


class CalibratedClassifier(MetaEstimatorMixin, OutOfFoldClassifier):
    """A classifier and Platt's sigmoid (1999), fitted on scores of patients that the classifier had not seen.

    What ``CalibratedClassifierCV(ensemble=False)`` does, except that folds share no patient, whatever
    scikit-learn's global settings, and that probabilities enter the sigmoid as logits. The order of the
    scores is the classifier's own, except where it proves worse than chance and the sigmoid turns it over.

    Parameters
    ----------
    estimator : classifier
        With ``decision_function`` or ``predict_proba``.
    views : int, default=1
        Views of each image that stand side by side in its row of ``X``, such as it and its mirror image. The
        classifier learns from the first and scores the mean of all: an image of a lung and its mirror image then
        score the same, and what only one of them would show about the hospital counts half.
    cv : int or None, default=5
        Folds. None: no calibration; probabilities are the estimator's own, or the logistic function of its
        decision function. Enough where only the order counts, and ``cv + 1`` times as fast.
    class_weight : "balanced", dict or None, default=None
        Weights of the classes, for the classifier (where its ``fit`` takes ``sample_weight``) and the sigmoid.
    random_state : int, RandomState instance or None, default=None
        Of the folds.
    n_jobs : int or None, default=None
        Folds fitted at a time. For classifiers that use one thread themselves.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        views: int = 1,
        cv: int | None = 5,
        class_weight: Any = None,
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.views = views
        self.cv = cv
        self.class_weight = class_weight
        self.random_state = random_state
        self.n_jobs = n_jobs

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
