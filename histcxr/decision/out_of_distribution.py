"""What lies outside the training data: the Mahalanobis distance of features from those of the training radiographs.

Any features will do: the context of the network that finds lungs, or quantiles of the histograms that a model scores
(Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples"). The covariance is shrunk
(Ledoit and Wolf 2004), so that a few hundred radiographs suffice. The limit follows from the share of validation
radiographs that may be refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError

#: Fewer radiographs than this show no spread.
MIN_RADIOGRAPHS = 50


@dataclass(frozen=True)
class OutOfDistribution:
    """Centre, spread and limit of what a model was trained on.

    ``centre`` is float64 (k,); ``whitening``, float64 (r, k), takes deviations from it to ``r`` uncorrelated ones of
    variance 1. Squared distances above ``limit`` lie outside; ``false_alarms`` is their share of the validation
    radiographs.
    """

    centre: NDArray[np.float64]
    whitening: NDArray[np.float64]
    limit: float
    false_alarms: float

    def distances(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Squared Mahalanobis distances of features (n, k)."""
        white = (np.asarray(features, np.float64) - self.centre) @ self.whitening.T
        return np.asarray((white**2).sum(axis=1))

    def outside(self, features: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Tell which of the features (n, k) lie beyond the limit, or are no numbers."""
        return ~(self.distances(features) <= self.limit)

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {**vars(self), "centre": self.centre.tolist(), "whitening": self.whitening.tolist()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> OutOfDistribution:
        """Restore what :meth:`to_dict` gave; InputError when numbers are missing or do not fit each other."""
        try:
            centre, whitening = (np.array(stored[name], np.float64) for name in ("centre", "whitening"))
            found = cls(centre, whitening, float(stored["limit"]), float(stored["false_alarms"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"what is familiar must be stored as four sets of numbers: {error!r}") from error
        if centre.ndim != 1 or whitening.shape[1:] != centre.shape:
            raise InputError(
                f"what is familiar has shapes that do not fit: {centre.shape}, {whitening.shape}"
            )
        return found


def fit_out_of_distribution(
    training: NDArray[np.floating],
    validation: NDArray[np.floating],
    *,
    false_alarms: float = 0.005,
    directions: int | None = None,
) -> OutOfDistribution:
    """Learn the limit from the features (n, k) of radiographs of different patients.

    ``false_alarms`` is the share of the validation radiographs that may be refused; distances are measured in the
    ``directions`` of largest variance (None: all). InputError: fewer than :data:`MIN_RADIOGRAPHS` of either, or no
    share.
    """
    if min(len(training), len(validation)) < MIN_RADIOGRAPHS:
        raise InputError(
            f"at least {MIN_RADIOGRAPHS} training and as many validation radiographs must be there to learn "
            f"what is familiar; got {len(training)} and {len(validation)}"
        )
    if not 0 <= false_alarms < 1:
        raise InputError(f"false_alarms must be at least 0 and below 1; got {false_alarms!r}")
    from sklearn.covariance import LedoitWolf

    found = LedoitWolf().fit(np.asarray(training, np.float64))
    values, vectors = np.linalg.eigh(found.covariance_)
    largest = np.argsort(-values, kind="stable")[:directions]
    whitening = (vectors[:, largest] / np.sqrt(values[largest])).T
    unlimited = OutOfDistribution(found.location_, whitening, np.inf, 0.0)
    distances = unlimited.distances(validation)
    limit = float(np.quantile(distances, 1 - false_alarms, method="higher"))
    return OutOfDistribution(found.location_, whitening, limit, float(np.mean(distances > limit)))
