import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from histcxr.decision.intervals import Estimate, clopper_pearson, proportion
from histcxr.exceptions import InputError


@settings(deadline=None)
@given(n=st.integers(1, 2000), share=st.floats(0, 1), confidence=st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_clopper_pearson_is_scipy_s_exact_interval(n, share, confidence):
    count = round(share * n)
    expected = binomtest(count, n).proportion_ci(confidence, method="exact")
    low, high = clopper_pearson(count, n, confidence)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


def test_clopper_pearson_is_elementwise_and_knows_nothing_without_trials():
    low, high = clopper_pearson([0, 3, 5, 0], [5, 5, 5, 0])
    assert low.tolist()[0] == 0
    assert high.tolist()[2:] == [1, 1]
    assert low[2] == pytest.approx(0.025 ** (1 / 5))
    assert (low[3], high[3]) == (0, 1)


def test_clopper_pearson_ends_are_exact_tails_for_many_trials():
    low, high = clopper_pearson(990_000, 1_000_000)
    assert binom.sf(989_999, 1_000_000, low) == pytest.approx(0.025, rel=1e-6)
    assert binom.cdf(990_000, 1_000_000, high) == pytest.approx(0.025, rel=1e-6)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.95])
def test_coverage_is_never_below_the_confidence(p):
    counts = np.arange(41)
    low, high = clopper_pearson(counts, 40)
    assert binom.pmf(counts, 40, p)[(low <= p) & (p <= high)].sum() >= 0.95


@pytest.mark.parametrize(("count", "n"), [(-1, 5), (6, 5), (np.nan, 5), (1, 0)])
def test_counts_outside_are_refused(count, n):
    with pytest.raises(InputError, match="count must lie between 0 and n"):
        clopper_pearson(count, n)


def test_proportion():
    estimate = proportion(19, 20, confidence=0.9)
    expected = binomtest(19, 20).proportion_ci(0.9)
    assert estimate.value == 0.95
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
    assert (estimate.confidence, estimate.method) == (0.9, "Clopper-Pearson")
    assert json.loads(json.dumps(estimate.to_dict(), allow_nan=False))["value"] == 0.95
    assert str(estimate) == "0.950 (0.784 to 0.997)"


def test_a_proportion_of_nobody_is_an_error_and_not_nan():
    with pytest.raises(InputError, match="the NPV is undefined: there is nobody to count"):
        proportion(0, 0, of="NPV")
    with pytest.raises(InputError, match="confidence must be"):
        proportion(1, 2, confidence=95)
    with pytest.raises(InputError, match="must not hold NaN"):
        Estimate(0.5, np.nan, 1.0)
