"""Evidence that grows from day to day, and may be looked at on any of them.

A test that is repeated every day alarms some day, whatever is true. Here evidence is an e-process: a stake that no bet
against a true hypothesis can be expected to raise (a supermartingale that starts at 1). By Ville's inequality it ever
reaches 1 / a with a chance of at most a, however often one looks (Waudby-Smith and Ramdas, JRSS B 86, 2024; Ramdas et
al., Statistical Science 38, 2023). :data:`LEVEL` is shared equally by :data:`TESTS`, so :data:`LIMIT` ends each.

Things go wrong some day, not from the start. So the stake is divided beforehand among bets that begin on each day
(1/2, 1/6, 1/12 ...), and waits where its day has not come: what went well for long does not hide what goes wrong now.

The share of sick differs from day to day and is no drift. :func:`promise_evidence` looks at sick patients alone, or at
normal ones alone. :class:`ChangeTest` looks at what the images' coordinates of the site test have beyond what their
scores and their likeness to the certified groups explain, and forgives the more, the further the mean score is from
what it has been.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.checks import open_unit
from histcxr.exceptions import InputError

#: Largest chance that any test ever gives a false alarm.
LEVEL: Final = 0.05

#: What shares it: the folders' site, a change since the beginning, and the promises of rule_out and rule_in.
TESTS: Final = ("site", "change", "sensitivity", "specificity")

#: Evidence that is an alarm.
LIMIT: Final = len(TESTS) / LEVEL

#: Images that are compared together; half the stake each. Many images show small changes, few show large ones soon.
SCALES: Final = (100, 400)

#: Images before the first comparison.
FIRST: Final = 400

#: Squared distance from a site's own past that is no change. On patients outside the test parts .05 took up to 23 % of
#: jumps from 5 to 90 % sick for a change, .08 up to 5 %, and .12 none of 40 (``benchmarks/README.md``, "Monitoring").
TOLERANCE: Final = 0.12

#: Squared distance that is forgiven for each squared step of the mean score beyond the days before. Steps from 5 to
#: 90 % sick on two collections took 1.7 to 8.
SLACK: Final = 12.0

_LEAST_P = 1e-5  # the tails of sums of some hundred images are not trusted further
_ABSORBED = 0.02  # a block with a smaller p-value does not become part of the past
_CLIP = 0.002
_STEPS = np.geomspace(1.2, 16.0, 12)  # odds of an error that are betted on, in multiples of the promised ones

_Floats = NDArray[np.float64]


def betting(p_values: ArrayLike) -> _Floats:
    """Turn p-values (n,) into stakes won: the mixture of all k p^(k-1) (Vovk and Wang, Annals of Statistics 49, 2021).

    NaN, not tested, wins and loses nothing. p-values below 1e-5 count as 1e-5.
    """
    p = np.asarray(p_values, np.float64)
    inner = np.clip(np.where(np.isnan(p), 0.5, p), _LEAST_P, 1 - 1e-6)
    log = np.log(inner)
    won: _Floats = (1 - inner + inner * log) / (inner * log**2)
    return np.where(np.isnan(p), 1.0, won)


def p_value_evidence(p_values: ArrayLike) -> _Floats:
    """Return the evidence (n,) after each of n independent p-values (each conditionally valid given those before)."""
    stakes = betting(p_values)
    path, running = np.empty(len(stakes)), 0.0
    for day, won in enumerate(stakes):
        running = won * (running + 1 / ((day + 1) * (day + 2)))
        path[day] = running + 1 / (day + 2)
    return path


def promise_evidence(
    wrong: ArrayLike, right: ArrayLike, target: float, ratio: ArrayLike | float = 1.0
) -> _Floats:
    """Return the evidence (days,) against "at most 1 - target of these patients are judged wrongly" after each day.

    ``wrong`` and ``right``, int (days,), count the patients of the class whose truth became known: for the sensitivity
    of rule_out the sick ones that were ruled out, and those that were not. ``ratio`` (days,) tells how many times as
    often the truth of a wrong drawer's patients is known as that of the others', where labels are drawn at random
    within the drawers (an audit of every tenth patient ruled out, all others read: 0.1); NaN or infinite: the day says
    nothing. InputError: shapes or numbers are wrong.
    """
    bad, good = np.asarray(wrong, np.float64), np.asarray(right, np.float64)
    shares = np.broadcast_to(np.asarray(ratio, np.float64), bad.shape)
    if bad.ndim != 1 or bad.shape != good.shape or (bad < 0).any() or (good < 0).any():
        raise InputError(
            f"wrong and right must be counts of one shape (days,), got {bad.shape}, {good.shape}"
        )
    error = 1 - open_unit(target, "target")
    days, path = len(bad), np.empty(len(bad))
    logs = np.zeros((days, len(_STEPS)))  # of bets that began on each day, by the alternative they bet on
    weights = 1 / (np.arange(1, days + 1) * np.arange(2, days + 2))
    for day in range(days):
        odds = error / (1 - error) * shares[day]
        if np.isfinite(odds) and odds > 0:
            # log of the likelihood ratio: odds are multiplied, so errors gain and all patients pay
            paid = np.log1p(odds * _STEPS) - np.log1p(odds)
            logs[: day + 1] += bad[day] * np.log(_STEPS) - (bad[day] + good[day]) * paid
        bets = np.exp(np.minimum(logs[: day + 1], 700)).mean(axis=1)
        path[day] = weights[: day + 1] @ bets + 1 / (day + 2)
    return path


class ChangeTest:
    """Did the images change since a site began? Days are added in their order.

    ``means`` (groups, k) are the certified groups' (:class:`~histcxr.decision.site.SiteReference`). Differences of a
    mixture's share, of sick patients or of children, lie in the axes between them, so the other axes are looked at:
    their coordinates are regressed on the axes between the groups and on the score (within the past, image by image),
    and the mean of what is left in a block of new images is compared with the past. The regression of a block uses what
    came before it, as recursive residuals do (Brown, Durbin and Evans, JRSS B 37, 1975), so p-values of blocks are
    independent where nothing changes.
    """

    def __init__(self, means: ArrayLike) -> None:
        centres = np.asarray(means, np.float64)
        between = (centres - centres[0])[1:]
        axes = np.linalg.svd(between, full_matrices=True)[2] if len(between) else np.eye(centres.shape[1])
        rank = int(np.linalg.matrix_rank(between)) if len(between) else 0
        self._between, self._others = axes[:rank].T, axes[rank:].T
        self.possible = self._others.shape[1] > 0
        self._scales = [_Scale(size) for size in SCALES]

    def add(self, coordinates: ArrayLike, scores: ArrayLike) -> float:
        """Add a day's new patients, (n, k) and (n,), and return the evidence after it."""
        rows, values = np.asarray(coordinates, np.float64), np.asarray(scores, np.float64)
        if rows.ndim != 2 or values.shape != (len(rows),) or rows.shape[1] != len(self._others):
            raise InputError(
                f"coordinates must be (n, {len(self._others)}) and scores (n,), got {rows.shape}, {values.shape}"
            )
        if not self.possible:
            return 1.0
        clipped = np.clip(values, _CLIP, 1 - _CLIP)
        logit = np.log(clipped / (1 - clipped)) / 3
        facts = np.column_stack([np.ones(len(rows)), logit, logit**2, rows @ self._between])
        found = [scale.add(facts, rows @ self._others, values) for scale in self._scales]
        return float(np.mean(found))

    @property
    def distance(self) -> float | None:
        """Squared distance of the last block from the past; None before any was compared."""
        return next((scale.distance for scale in reversed(self._scales) if scale.distance is not None), None)


class _Scale:
    """Blocks of at least ``size`` images, each compared with the past before it becomes part of it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: list[tuple[_Floats, _Floats, _Floats]] = []
        self._squares: Any = 0.0  # of the facts; products with the others; squares of the others
        self._products: Any = 0.0
        self._total: Any = 0.0
        self._images = 0
        self._levels: list[float] = []  # mean score of each block of the past
        self.p_values: list[float] = []
        self.distance: float | None = None

    def add(self, facts: _Floats, others: _Floats, scores: _Floats) -> float:
        self._waiting.append((facts, others, scores))
        if sum(len(one[2]) for one in self._waiting) >= self._size:
            block = tuple(np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting = []
            self._compare(*block)
        return float(p_value_evidence(self.p_values)[-1]) if self.p_values else 1.0

    def _compare(self, facts: _Floats, others: _Floats, scores: _Floats) -> None:
        level = float(scores.mean())
        p_value = float("nan")
        if self._images >= FIRST and len(self._levels) > 1:
            p_value = self._p_value(facts, others, level)
        self.p_values.append(p_value)
        if not p_value < _ABSORBED:
            self._squares = self._squares + facts.T @ facts
            self._products = self._products + facts.T @ others
            self._total = self._total + np.square(others).sum(axis=0)
            self._images += len(scores)
            self._levels.append(level)

    def _p_value(self, facts: _Floats, others: _Floats, level: float) -> float:
        """Return the p-value of "the mean of what the past does not explain is within the tolerance of 0"."""
        from scipy import stats

        inverse = np.linalg.pinv(self._squares, hermitian=True)
        slopes = inverse @ self._products
        left = others - facts @ slopes
        mean, about = left.mean(axis=0), facts.mean(axis=0)
        past = np.maximum(self._total - (slopes * self._products).sum(axis=0), 0) / self._images
        noise = left.var(axis=0, ddof=1) / len(left) + past * (about @ inverse @ about)
        low, high = np.quantile(self._levels, [0.1, 0.9])
        tolerated = TOLERANCE + SLACK * max(0.0, low - level, level - high) ** 2
        self.distance = max(0.0, float(mean @ mean - noise.sum()))
        # Squares at the tolerance's edge, where noise is largest, add up to about a multiple of chi squared
        # (Satterthwaite).
        centre = noise.sum() + tolerated
        spread = 2 * (noise**2).sum() + 4 * noise.max() * tolerated
        return float(stats.chi2.sf(2 * centre * (mean @ mean) / spread, 2 * centre**2 / spread))
