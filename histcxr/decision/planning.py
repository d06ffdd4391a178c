"""Before anybody is read: how many patients a certificate takes, and what it will be worth.

A certified threshold is the (k+1)-th smallest of n scores. The share of its own class that lies under it, u, has the
distribution Beta(k+1, n-k) whatever the scores look like, and what it is worth, the share of the other class on the
right side, is a function g(u) of it that rises (the ROC curve read sideways). So quantiles of the worth are g at
quantiles of a Beta distribution: exact, without simulation, for continuous scores and for tied ones.

Everything is told of rule_out, whose own class is the sick and whose worth is the specificity; rule_in is its mirror
image: own class the normals, worth the sensitivity. Where the two thresholds cross, rule_in keeps less than is told
here.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from histcxr.checks import open_unit, positive_number, scores_and_sick, whole_number
from histcxr.decision.intervals import Record, patient_labels, patient_scores
from histcxr.decision.thresholds import RULE_OUT, Kind, errors_allowed, patients_needed
from histcxr.exceptions import InputError

#: What a threshold is worth, float (m,), by the shares u of its own class that lie under it, float (m,).
Worth = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: The range that is told: from its 5 % to its 95 % quantile.
RANGE: Final = (0.05, 0.95)

_LEVELS: Final = 200  # points of a Beta distribution, where several curves are joined
_MOST_ERRORS: Final = 400  # advice ends at so many errors allowed: about 8,900 patients at 95 %


@dataclass(frozen=True)
class Expected(Record):
    """What a certificate from ``n`` patients of the own class will be worth.

    ``errors_allowed`` is k. ``low``, ``median`` and ``high`` are the 5, 50 and 95 % quantiles of the specificity
    (rule_out) or sensitivity (rule_in). ``lost`` is the 95 % quantile of what is lost against endless patients.
    """

    n: int
    errors_allowed: int
    low: float
    median: float
    high: float
    lost: float


def binormal_worth(auc: float, spread: float = 1.0, kind: Kind = RULE_OUT) -> Worth:
    """Return the worth where both classes are normally distributed (Dorfman and Alf, 1969).

    ``auc`` in (0, 1); ``spread`` is the standard deviation of the normals' scores over that of the sick's. With it,
    b, and a = sqrt(1 + b^2) Phi^-1(auc), sensitivity = Phi(a + b Phi^-1(1 - specificity)).
    """
    b = positive_number(spread, "spread")
    a = math.hypot(1, b) * float(stats.norm.ppf(open_unit(auc, "auc")))
    if kind == RULE_OUT:
        return lambda u: np.asarray(stats.norm.cdf((a + stats.norm.ppf(u)) / b))
    return lambda u: np.asarray(stats.norm.cdf(a + b * stats.norm.ppf(u)))


def worths_of_scores(
    scores: ArrayLike,
    sick: ArrayLike,
    patient_ids: ArrayLike | None = None,
    *,
    kind: Kind = RULE_OUT,
    draws: int = 200,
    seed: int = 0,
) -> list[Worth]:
    """Return the worth that scores (n,) of images tell, once for each draw of what they leave open.

    Among N sick, the shares of all future sick that lie under each of their scores are N uniform numbers in order, so
    they are drawn as such, and those of the normals likewise; between two scores the worth is interpolated. So few
    patients give a wide range, and one that reaches below the lowest score seen. With ``draws`` 0 the patients are
    taken for the whole population. InputError: one class only, or wrong shapes, types or numbers.
    """
    values, truth = scores_and_sick(scores, sick)
    labels, highest = patient_labels(truth, patient_ids), patient_scores(values, patient_ids)
    if labels.all():
        raise InputError("sick must leave a normal patient, but every patient has a sick image")
    sign, mine = (1.0, labels) if kind == RULE_OUT else (-1.0, ~labels)
    own, other = np.sort(sign * highest[mine]), np.sort(sign * highest[~mine])
    below = np.searchsorted(other, own)  # members of the other class under each own score
    rng, number = np.random.default_rng(seed), whole_number(draws, "draws")
    if not number:
        reached, shares = np.arange(1, len(own) + 1) / len(own), below / len(other)
        return [lambda u: np.asarray(shares[np.minimum(np.searchsorted(reached, u), len(own) - 1)])]

    def drawn() -> Worth:
        mine, others = (np.cumsum(rng.standard_exponential(len(one) + 1)) for one in (own, other))
        ends = np.append(0.0, others) / others[-1]
        middles = (ends[below] + ends[below + 1]) / 2
        known, worth = np.append(0.0, mine) / mine[-1], np.concatenate([[0.0], middles, [1.0]])
        return lambda u: np.interp(u, known, worth)

    return [drawn() for _ in range(number)]


def patients_for(errors: int, target: float, confidence: float) -> int:
    """Return the fewest patients that allow so many ``errors``: 59, 93, 124, 153 ... for 95 % at 95 %.

    Between these, a further patient gains nothing.
    """
    wanted, high = whole_number(errors, "errors"), 2 * patients_needed(target, confidence)
    while errors_allowed(high, target, confidence) < wanted:
        high *= 2
    return bisect_left(range(high), wanted, key=lambda n: errors_allowed(n, target, confidence))


def expected_worth(worths: Sequence[Worth], n: int, target: float, confidence: float) -> Expected:
    """Return what a certificate from ``n`` patients will be worth; several ``worths`` count alike.

    InputError: too few patients for any certificate, or numbers outside (0, 1).
    """
    k = errors_allowed(n, target, confidence)
    if k < 0:
        raise InputError(f"n must be at least {patients_needed(target, confidence)}, got {n}")
    tails = (RANGE[0], 0.5, RANGE[1])
    levels = np.array(tails) if len(worths) == 1 else (np.arange(_LEVELS) + 0.5) / _LEVELS
    shares = stats.beta.ppf(levels, k + 1, n - k)
    found = np.stack([worth(shares) for worth in worths])
    lost = np.stack([worth(np.array([1 - target])) for worth in worths]) - found
    if len(worths) == 1:  # the worth rises with u, so its quantiles are those of u, without any rounding
        low, median, high = found[0].tolist()
        return Expected(n, k, low, median, high, float(lost[0, 0]))
    low, median, high = np.quantile(found, tails).tolist()
    return Expected(n, k, low, median, high, float(np.quantile(lost, RANGE[1])))


def advised_patients(worths: Sequence[Worth], target: float, confidence: float, within: float) -> int | None:
    """Return the fewest patients that lose at most ``within`` of the worth in 95 % of all calibrations.

    That is against endless patients. None: not even some thousands do.
    """

    def enough(errors: int) -> bool:
        n = patients_for(errors, target, confidence)
        return expected_worth(worths, n, target, confidence).lost <= within

    fewest = bisect_left(range(_MOST_ERRORS + 1), True, key=enough)
    return patients_for(fewest, target, confidence) if fewest <= _MOST_ERRORS else None


def readings_needed(n: int, prevalence: float, confidence: float = 0.95) -> int:
    """Return how many patients to read at random until ``n`` sick are among them, with ``confidence``."""
    sick, share = whole_number(n, "n", least=1), open_unit(prevalence, "prevalence")
    return sick + int(stats.nbinom.ppf(open_unit(confidence, "confidence"), sick, share))


def chance_of_enough(drawn: int, needed: int, share: float) -> float:
    """Return how probably ``drawn`` patients at random hold at least ``needed`` of those who are ``share`` of all."""
    trials, least = whole_number(drawn, "drawn"), whole_number(needed, "needed")
    return float(stats.binom.sf(least - 1, trials, open_unit(share, "share")))
