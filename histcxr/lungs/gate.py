"""The gate: is this picture an upright frontal chest radiograph at all?

Two tests on the network's context, the means of its deepest maps over each quarter of the picture. Its distance from
the contexts of radiographs (:mod:`histcxr.decision.out_of_distribution`) refuses what nobody thought of. A plane
between radiographs and pictures that are none (drawn ones, and radiographs turned, cut in half, laid side by side or
burnt out: outlier exposure, Hendrycks, Mazeika and Dietterich 2019) refuses what looks much like a radiograph. Both
limits follow from the share of validation radiographs that may be refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.out_of_distribution import OutOfDistribution, fit_out_of_distribution
from histcxr.phantoms.not_chests import TRANSFORMS, draw_not_chest

#: Share of the validation radiographs that each of the two tests may refuse.
FALSE_ALARMS: Final = 0.004

#: Directions in which distances are measured: those in which radiographs differ most.
DIRECTIONS: Final = 96

#: Kinds of drawn pictures that the plane is fitted with; the others show what it does with the unknown.
EXPOSED: Final = ("grey_photograph", "text", "noise", "blank", "lateral", "hand", "abdomen")

# Inverted radiographs are told by their grey levels, not by the network, which is taught to see through it.
_CHANGES: Final = tuple(name for name in TRANSFORMS if name not in ("inverted", "solarised"))


@dataclass(frozen=True)
class Gate:
    """Two limits on the context.

    Attributes
    ----------
    distribution : OutOfDistribution
        Its whitening keeps :data:`DIRECTIONS` directions.
    plane : ndarray of float64, shape (k,)
    offset : float
        ``context @ plane + offset`` is high for radiographs.
    limit : float
        Below it the picture is refused.
    false_alarms : float
        Share of the validation radiographs below it.
    """

    distribution: OutOfDistribution
    plane: NDArray[np.float64]
    offset: float
    limit: float
    false_alarms: float


def fit_gate(
    training: NDArray[np.floating], validation: NDArray[np.floating], others: NDArray[np.floating]
) -> Gate:
    """Fit both limits from contexts (n, k) of radiographs, of different patients, and of ``others``, which are none.

    Raises
    ------
    InputError
        Too few radiographs.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    distribution = fit_out_of_distribution(
        training, validation, false_alarms=FALSE_ALARMS, directions=DIRECTIONS
    )
    contexts = np.concatenate([training, others]).astype(np.float64)
    good = np.arange(len(contexts)) < len(training)
    scaler = StandardScaler().fit(contexts)
    fitted = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000).fit(
        scaler.transform(contexts), good
    )
    plane = fitted.coef_[0] / scaler.scale_
    offset = float(fitted.intercept_[0] - plane @ scaler.mean_)
    heights = np.asarray(validation, np.float64) @ plane + offset
    limit = float(np.quantile(heights, FALSE_ALARMS, method="lower"))
    return Gate(distribution, plane, offset, limit, float(np.mean(heights < limit)))


def no_radiographs(
    radiographs: NDArray[np.uint8], seed: int, *, drawn: int = 300
) -> Iterator[NDArray[np.uint8]]:
    """Yield pictures to fit the plane with, of different sizes.

    First ``drawn`` ones of each kind in :data:`EXPOSED`, then the radiographs (uint8 ``(n, height, width)``, of
    training patients), each changed in one way.
    """
    rng = np.random.default_rng([seed, 3])
    for kind in EXPOSED:
        for _ in range(drawn):
            yield draw_not_chest(kind, rng)
    for i, pixels in enumerate(radiographs):
        yield TRANSFORMS[_CHANGES[i % len(_CHANGES)]](pixels)
