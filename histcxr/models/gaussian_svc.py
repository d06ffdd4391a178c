"""The support vector machine with a Gaussian kernel, for many features: the kernel comes from matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC
from sklearn.utils import Tags
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from histcxr.checks import positive_number, whole_number
from histcxr.models.out_of_fold import two_classes

# Bytes of a kernel matrix that is kept whole; beyond, libsvm computes its own, entry by entry.
_LARGEST_KERNEL = 2 << 30
# Images scored at a time, always so many: matrix products of one shape add up in one order, so that an image's
# score does not depend on which others are scored with it, to the last bit.
_BLOCK = 64


class GaussianSVC(ClassifierMixin, BaseEstimator):
    """What scikit-learn's ``SVC(kernel="rbf")`` learns, many times as fast where features are many.

    libsvm computes kernels one pair of images at a time. With thousands of features nearly all of its time goes
    there; as products of matrices the same numbers take a fraction of it.

    Parameters
    ----------
    C : float, default=1.0
        Cost of an image on the wrong side.
    gamma : float, default=1.0
        The kernel of two images is ``exp(-gamma * ||x - y||**2)``.
    n_components : int or None, default=None
        Main components of the features that the kernel sees; None: all features. Support vectors, nearly all of what
        is saved, are shorter by as much.

    Attributes
    ----------
    classes_ : ndarray, shape (2,)
    support_vectors_ : ndarray of float32, shape (n_support, n_features or n_components)
    dual_coef_ : ndarray of float64, shape (n_support,)
    intercept_ : float
    mean_ : ndarray of float32, shape (n_features,)
    components_ : ndarray of float32, shape (n_components, n_features)
        Both only with ``n_components``; no more than there are images or features.
    """

    n_components: int | None = None  # for machines that were saved before there was such a setting

    def __init__(self, C: float = 1.0, gamma: float = 1.0, n_components: int | None = None) -> None:
        self.C = C
        self.gamma = gamma
        self.n_components = n_components

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> GaussianSVC:
        """Find the support vectors; ``sample_weight`` is a factor on ``C`` for each image.

        ValueError is raised when shapes, classes or parameters do not fit. The class that sorts last is positive.
        """
        for name in ("C", "gamma"):
            positive_number(getattr(self, name), name)
        images, target = validate_data(self, X, y, dtype=np.float32)
        self.classes_, encoded = two_classes(target)
        weight = _check_sample_weight(sample_weight, images)
        # libsvm drops images without weight, but not their columns of a given kernel.
        images, encoded, weight = images[weight > 0], encoded[weight > 0], weight[weight > 0]
        if self.n_components is not None:
            most = min(whole_number(self.n_components, "n_components", least=1), *images.shape)
            found = PCA(most, svd_solver="covariance_eigh").fit(images)
            self.mean_, self.components_ = found.mean_, np.ascontiguousarray(found.components_)
            images = self._reduced(images)
        if 8 * len(images) ** 2 <= _LARGEST_KERNEL:
            machine = SVC(C=self.C, kernel="precomputed", cache_size=500)
            machine.fit(self._kernel(images, images), encoded, weight)
        else:
            machine = SVC(C=self.C, gamma=self.gamma, cache_size=500).fit(images, encoded, weight)
        self.support_vectors_ = np.ascontiguousarray(images[machine.support_])
        self.dual_coef_ = np.asarray(machine.dual_coef_[0], dtype=np.float64)
        self.intercept_ = float(machine.intercept_[0])
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the distance of each image from the border, shape (n,); above 0 on the positive side."""
        check_is_fitted(self)
        images = validate_data(self, X, dtype=np.float32, reset=False)
        distance = np.empty(len(images))
        block = np.zeros((_BLOCK, images.shape[1]), np.float32)
        for start in range(0, len(images), _BLOCK):
            part = images[start : start + _BLOCK]
            block[: len(part)] = part
            weighed = self._kernel(self._reduced(block), self.support_vectors_) * self.dual_coef_
            distance[start : start + _BLOCK] = weighed.sum(axis=1)[: len(part)] + self.intercept_
        return distance

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class of each image, shape (n,)."""
        check_is_fitted(self)
        chosen: NDArray[Any] = self.classes_[(self.decision_function(X) > 0).astype(np.intp)]
        return chosen

    def _reduced(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.n_components is None:
            return X
        reduced: NDArray[np.float32] = (X - self.mean_) @ self.components_.T
        return reduced

    def _kernel(self, X: NDArray[np.float32], Y: NDArray[np.float32]) -> NDArray[np.float64]:
        kernel: NDArray[np.float64] = rbf_kernel(X, Y, gamma=self.gamma).astype(np.float64)
        return kernel

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
