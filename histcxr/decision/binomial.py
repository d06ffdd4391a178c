"""How many errors a calibration set may hold, and how large it must be: the counts behind a certificate."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from scipy import stats

from histcxr.checks import open_unit, whole_number

_NEAR = 1e-9  # relative distance within which floating point is not trusted to order two probabilities
_EXACT_UP_TO = 50_000  # patients; beyond it a near tie is settled on the safe side


def _as_written(value: float) -> Fraction:
    """0.95 as 95/100, the number that was meant, not the binary one nearest to it."""
    return Fraction(repr(value))


def _tail_within(k: int, n: int, p: Fraction, limit: Fraction) -> bool:
    """Whether BinomCDF(k; n, p) <= limit, by whole numbers where floating point cannot tell."""
    cdf = float(stats.binom.cdf(k, n, float(p)))
    bound = float(limit)
    if abs(cdf - bound) > _NEAR * bound:
        return cdf < bound
    if n > _EXACT_UP_TO:
        return False
    hit, base = p.numerator, p.denominator
    miss = base - hit
    term = total = miss**n
    for i in range(k):
        term = term * (n - i) * hit // ((i + 1) * miss)  # C(n, i+1) hit^(i+1) miss^(n-i-1), no remainder
        total += term
    return total * limit.denominator <= limit.numerator * base**n


@lru_cache(maxsize=1024)
def _errors_allowed(n: int, target: float, confidence: float) -> int:
    p, limit = 1 - _as_written(target), 1 - _as_written(confidence)
    k = int(stats.binom.ppf(float(limit), n, float(p))) if n else -1
    while k >= 0 and not _tail_within(k, n, p, limit):
        k -= 1
    while k < n - 1 and _tail_within(k + 1, n, p, limit):
        k += 1
    return k


def errors_allowed(n: int, target: float, confidence: float) -> int:
    """Return the largest k with BinomCDF(k; n, 1 - target) <= 1 - confidence, or -1 where there is none.

    Parameters
    ----------
    n : int
        Calibration patients of the class that the target is about.
    target, confidence : float in (0, 1)
        Taken as the decimals they are written as; a tail that equals the limit counts as within it.

    Returns
    -------
    int
        How many of the n calibration patients may fall on the wrong side of the threshold.

    Raises
    ------
    InputError
        Not a whole number of patients, or a target or confidence outside (0, 1).
    """
    return _errors_allowed(
        whole_number(n, "n"), open_unit(target, "target"), open_unit(confidence, "confidence")
    )


def patients_needed(target: float, confidence: float) -> int:
    """Return the fewest patients with which a threshold can be certified at all.

    The smallest n with ``target ** n <= 1 - confidence``: 59 for 95 % at 95 %, 299 for 99 % at 95 %.

    Raises
    ------
    InputError
        A number outside (0, 1).
    """
    return _patients_needed(open_unit(target, "target"), open_unit(confidence, "confidence"))


@lru_cache(maxsize=1024)
def _patients_needed(target: float, confidence: float) -> int:
    p, limit = 1 - _as_written(target), 1 - _as_written(confidence)
    log_target = math.log1p(-float(p)) if p < Fraction(1, 2) else math.log(target)  # each precise at its end
    n = max(1, math.ceil(math.log(float(limit)) / log_target))
    while not _tail_within(0, n, p, limit):
        n += max(1, n >> 40)  # beyond 10^12 patients doubles cannot count one by one
    while n > 1 and _tail_within(0, n - 1, p, limit):
        n -= 1
    return n
