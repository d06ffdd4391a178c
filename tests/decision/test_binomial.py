import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histcxr.decision.binomial import errors_allowed, patients_needed
from histcxr.exceptions import InputError


def exact_tail(k: int, n: int, p: Fraction) -> Fraction:
    """BinomCDF(k; n, p) by whole numbers, from the top term down."""
    hit, base = p.numerator, p.denominator
    miss = base - hit
    term = math.comb(n, k) * hit**k * miss ** (n - k)
    total = term
    for i in range(k, 0, -1):
        term = term * i * miss // ((n - i + 1) * hit)
        total += term
    return Fraction(total, base**n)


def exact_errors(n: int, target: str, confidence: str) -> int:
    p, limit = 1 - Fraction(target), 1 - Fraction(confidence)
    k = -1
    while k + 1 < n and exact_tail(k + 1, n, p) <= limit:
        k += 1
    return k


@pytest.mark.parametrize("target", ["0.5", "0.8", "0.95", "0.99"])
@pytest.mark.parametrize("confidence", ["0.5", "0.9", "0.95", "0.999"])
def test_errors_allowed_is_the_exact_count(target, confidence):
    for n in (*range(0, 12), 58, 59, 92, 93, 200, 299, 300, 600):
        assert errors_allowed(n, float(target), float(confidence)) == exact_errors(n, target, confidence), n


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(0, 150),
    target=st.decimals("0.01", "0.99", places=3),
    confidence=st.decimals("0.01", "0.99", places=3),
)
def test_errors_allowed_for_any_numbers(n, target, confidence):
    expected = exact_errors(n, str(target), str(confidence))
    assert errors_allowed(n, float(target), float(confidence)) == expected


@pytest.mark.parametrize(("n", "target"), [(20_000, "0.95"), (30_000, "0.9"), (50_000, "0.99")])
def test_errors_allowed_is_right_for_many_patients(n, target):
    k = errors_allowed(n, float(target), 0.95)
    p = 1 - Fraction(target)
    assert exact_tail(k, n, p) <= Fraction(1, 20) < exact_tail(k + 1, n, p)


def test_a_tail_that_equals_the_limit_is_within_it():
    # in floating point 1 - 0.9 < 0.1, and the one patient with the one tail of exactly 1/10 would be refused
    assert errors_allowed(1, 0.1, 0.9) == 0
    assert errors_allowed(2, 0.5, 0.75) == 0
    assert errors_allowed(3, 0.5, 0.5) == 1
    assert patients_needed(0.5, 0.75) == 2
    assert patients_needed(0.1, 0.999) == 3


def test_a_near_tie_of_very_many_patients_is_settled_on_the_safe_side():
    n = 100_001  # for odd n the lower half of the outcomes of a fair coin has exactly 1/2
    assert errors_allowed(n, 0.5, 0.5) == n // 2 - 1
    assert errors_allowed(49_999, 0.5, 0.5) == 49_999 // 2


@pytest.mark.parametrize(
    ("target", "confidence", "n"),
    [(0.95, 0.95, 59), (0.99, 0.95, 299), (0.9, 0.95, 29), (0.95, 0.99, 90), (0.999, 0.95, 2995)],
)
def test_patients_needed(target, confidence, n):
    assert patients_needed(target, confidence) == n
    assert errors_allowed(n, target, confidence) == 0
    assert errors_allowed(n - 1, target, confidence) == -1


@settings(max_examples=100, deadline=None)
@given(target=st.floats(1e-6, 1 - 1e-6), confidence=st.floats(1e-6, 1 - 1e-6))
def test_patients_needed_is_the_first_count_that_certifies(target, confidence):
    n = patients_needed(target, confidence)
    assert errors_allowed(n, target, confidence) >= 0
    assert n == 1 or errors_allowed(n - 1, target, confidence) == -1


def test_patients_needed_ends_for_an_absurd_target():
    assert patients_needed(1 - 1e-12, 0.95) == pytest.approx(math.log(20) * 1e12, rel=1e-3)
    assert patients_needed(1e-300, 0.95) == 1


@pytest.mark.parametrize("value", [0, 1, 95, -0.1, math.nan, True, "0.95", None])
def test_a_number_outside_0_and_1_is_refused(value):
    with pytest.raises(InputError, match="target must be a number strictly between 0 and 1, got"):
        errors_allowed(100, value, 0.95)
    with pytest.raises(InputError, match="confidence must be"):
        patients_needed(0.95, value)


@pytest.mark.parametrize("n", [-1, 59.0, True, "59"])
def test_a_count_that_is_none_is_refused(n):
    with pytest.raises(InputError, match="n must be a whole number of at least 0"):
        errors_allowed(n, 0.95, 0.95)
