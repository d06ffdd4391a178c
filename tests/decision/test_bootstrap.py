import numpy as np
import pytest
from scipy import stats

from histcxr.decision.bootstrap import drawn_patients, paired_bootstrap, patient_bootstrap, patient_strata
from histcxr.decision.metrics import compare_auc, roc_auc
from histcxr.decision.patients import patient_codes
from histcxr.exceptions import HistcxrWarning, InputError


def test_each_stratum_keeps_its_size():
    ids = ["a", "a", "b", "c", "c", "d", "e", ""]
    sick = np.array([1, 1, 0, 1, 0, 0, 1, 1], bool)
    strata = patient_strata(sick, patient_codes(ids, 8))
    assert strata.tolist() == [1, 2, 3, 2, 1, 1]
    for chosen in drawn_patients(strata, 50, seed=0):
        assert np.bincount(strata[chosen]).tolist() == [0, 3, 2, 1]
    assert len({tuple(chosen) for chosen in drawn_patients(strata, 50, seed=0)}) > 10


def test_images_of_a_patient_are_drawn_together():
    ids = np.array(["a", "b", "a", "c", "c", "c", ""])
    sick = np.array([1, 0, 1, 0, 0, 0, 1], bool)
    seen = []

    def count(rows):
        patients, times = np.unique(rows, return_counts=True)
        seen.append(dict(zip(patients.tolist(), times.tolist(), strict=True)))
        return float(rows.size)

    patient_bootstrap(count, np.arange(7), sick=sick, patient_ids=ids, draws=100)
    for drawn in seen:
        assert drawn.get(0, 0) == drawn.get(2, 0)
        assert drawn.get(3, 0) == drawn.get(4, 0) == drawn.get(5, 0)
        assert drawn.get(0, 0) + drawn.get(6, 0) == 2
        assert drawn.get(1, 0) + drawn.get(3, 0) == 2
    assert len({tuple(sorted(drawn.items())) for drawn in seen}) > 4


def test_the_interval_of_a_mean_is_the_textbook_one():
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    got = patient_bootstrap(np.mean, values, sick=np.arange(400) < 200, draws=2000, confidence=0.9)
    groups = [values[:200], values[200:]]
    error = np.sqrt(sum(group.var() / 200 for group in groups)) / 2  # the strata keep their sizes
    margin = stats.norm.ppf(0.95) * error
    assert got.value == pytest.approx(values.mean())
    assert (got.low, got.high) == pytest.approx((got.value - margin, got.value + margin), abs=0.1 * margin)
    assert (got.confidence, got.method) == (0.9, "patient bootstrap")


def test_several_arrays_are_drawn_alike():
    values = np.arange(50.0)
    got = patient_bootstrap(
        lambda a, b: float(np.abs(a - b).max() + a.mean()), values, values, sick=values < 20, draws=100
    )
    assert got.low < values.mean() < got.high
    assert patient_bootstrap(np.mean, values, sick=values < 20, draws=100).low == got.low


def test_a_difference_without_spread_warns():
    with pytest.warns(HistcxrWarning, match="every bootstrap draw gave 1.0: no interval"):
        patient_bootstrap(np.mean, np.ones(10), sick=np.arange(10) < 5, draws=100)
    a = np.arange(10.0)
    with pytest.warns(HistcxrWarning, match="every draw gave the difference 0.0"):
        paired_bootstrap(roc_auc, a, a**2, a > 4, draws=100)


def test_a_statistic_that_is_undefined_on_draws_is_an_error_and_not_nan():
    sick = np.arange(20) < 10
    rare = np.arange(20) == 0

    def share(rows, labels):
        return float(labels[rows].mean()) if rows.any() else np.nan

    with pytest.raises(InputError, match=r"statistic must be finite on every draw, got \d+ of 200"):
        patient_bootstrap(share, rare, sick, sick=sick, draws=200)
    with pytest.raises(InputError, match="statistic must be finite on the data, got nan"):
        patient_bootstrap(share, np.zeros(20, bool), sick, sick=sick)


def test_paired_bootstrap_of_the_area_is_compare_auc():
    rng = np.random.default_rng(1)
    sick = np.arange(200) < 80
    a = np.round(rng.normal(sick), 1)
    b = np.round(a + rng.normal(size=200), 1)
    ids = rng.integers(0, 120, 200)
    slow = paired_bootstrap(roc_auc, a, b, sick, patient_ids=ids, draws=300, seed=4)
    fast = compare_auc(a, b, sick, patient_ids=ids, method="bootstrap", draws=300, seed=4)
    assert slow.difference.low == pytest.approx(fast.difference.low)
    assert slow.difference.high == pytest.approx(fast.difference.high)
    assert slow.p_value == fast.p_value
    assert (slow.first, slow.second) == (fast.first, fast.second)


def test_the_paired_p_value_sees_a_difference_and_sees_none():
    rng = np.random.default_rng(2)
    sick = np.arange(200) < 100
    good, noise = rng.normal(2 * sick), rng.normal(size=200)
    assert paired_bootstrap(roc_auc, good, noise, sick, draws=200).p_value == pytest.approx(2 / 201)
    assert paired_bootstrap(roc_auc, good, good, sick, draws=200).p_value == 1
    assert paired_bootstrap(roc_auc, noise, rng.normal(size=200), sick, draws=200).p_value > 0.05


def test_lengths_are_checked():
    with pytest.raises(InputError, match=r"arrays\[1\] must have 3 rows, got shape \(2,\)"):
        patient_bootstrap(np.mean, [1, 2, 3], [1, 2], sick=[True, False, True])
    with pytest.raises(InputError, match="scores_b must have 2 entries, as scores_a, got 3"):
        paired_bootstrap(roc_auc, [0.1, 0.2], [0.1, 0.2, 0.3], [True, False])
    with pytest.raises(InputError, match="draws must be a whole number of at least 100, got 5"):
        patient_bootstrap(np.mean, [1.0, 2.0], sick=[True, False], draws=5)
    with pytest.raises(InputError, match="confidence must be"):
        patient_bootstrap(np.mean, [1.0, 2.0], sick=[True, False], confidence=2)
