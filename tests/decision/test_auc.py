import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.metrics import roc_auc_score, roc_curve

from histcxr.decision.auc import auc, compare, compare_auc
from histcxr.decision.intervals import drawn_patients, patient_bootstrap, patient_codes, patient_strata
from histcxr.exceptions import InputError


def kernel(scores, sick):
    """Every sick image against every normal one: 1 above, 1/2 tied, 0 below; the slow, plain way."""
    gap = scores[sick][:, np.newaxis] - scores[~sick]
    return (gap > 0) + 0.5 * (gap == 0)


def area(scores, sick):
    return float(kernel(scores, sick).mean())


def plain_variance(*kernels_and_weights):
    """DeLong's variance of a weighted sum of areas, from the covariance of the structural components."""
    combined = sum(weight * table for table, weight in kernels_and_weights)
    n_sick, n_normal = combined.shape
    return combined.mean(axis=1).var(ddof=1) / n_sick + combined.mean(axis=0).var(ddof=1) / n_normal


def clustered_variance(table, sick_ids, normal_ids):
    """Obuchowski's variance by loops over patients."""
    area, (n_sick, n_normal) = table.mean(), table.shape
    patients = sorted({*sick_ids, *normal_ids})
    rows, columns = table.mean(axis=1) - area, table.mean(axis=0) - area
    a = np.array([rows[sick_ids == p].sum() for p in patients])
    b = np.array([columns[normal_ids == p].sum() for p in patients])
    i_sick, i_normal, both = len(set(sick_ids)), len(set(normal_ids)), len(patients)
    return (
        i_sick / (i_sick - 1) * (a**2).sum() / n_sick**2
        + i_normal / (i_normal - 1) * (b**2).sum() / n_normal**2
        + 2 * both / (both - 1) * (a * b).sum() / (n_sick * n_normal)
    )


def study(seed, n=120, digits=1, shift=1.0):
    rng = np.random.default_rng(seed)
    sick = rng.permutation(np.arange(n) < 0.4 * n)
    return np.round(rng.normal(shift * sick), digits), sick


@given(
    scores=st.lists(st.integers(0, 6), min_size=4, max_size=50), data=st.data(),
)  # fmt: skip
def test_the_area_is_scikit_learn_s(scores, data):
    sick = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    sick[:4] = [True, False, True, False]
    assert auc(scores, sick).value == pytest.approx(roc_auc_score(sick, scores), abs=1e-12)


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_delong_is_the_plain_formula_on_the_logit_scale(digits):
    scores, sick = study(digits, digits=digits)
    area, variance = roc_auc_score(sick, scores), plain_variance((kernel(scores, sick), 1))
    margin = stats.norm.ppf(0.95) * np.sqrt(variance) / (area * (1 - area))
    got = auc(scores, sick, confidence=0.9)
    assert got.value == pytest.approx(area)
    assert got.low == pytest.approx(special.expit(special.logit(area) - margin))
    assert got.high == pytest.approx(special.expit(special.logit(area) + margin))
    assert got.method == "DeLong, logit"
    json.dumps(got.to_dict(), allow_nan=False)


def test_several_images_of_a_patient_follow_obuchowski():
    scores, sick = study(7, digits=2)
    ids = np.random.default_rng(7).integers(0, 45, scores.size).astype(str)  # many patients have both classes
    area = roc_auc_score(sick, scores)
    variance = clustered_variance(kernel(scores, sick), ids[sick], ids[~sick])
    margin = stats.norm.ppf(0.975) * np.sqrt(variance) / (area * (1 - area))
    got = auc(scores, sick, patient_ids=ids)
    assert (got.low, got.high) == pytest.approx(
        (special.expit(special.logit(area) - margin), special.expit(special.logit(area) + margin))
    )


def test_one_image_a_patient_is_plain_delong():
    scores, sick = study(8)
    alone = auc(scores, sick)
    assert auc(scores, sick, patient_ids=[""] * scores.size) == alone
    named = auc(scores, sick, patient_ids=[f"p{i}" for i in range(scores.size)])
    assert (named.low, named.high) == pytest.approx((alone.low, alone.high))


def test_the_order_of_the_rows_does_not_matter():
    scores, sick = study(9)
    ids = np.arange(scores.size) // 2
    order = np.random.default_rng(9).permutation(scores.size)
    one = auc(scores, sick, patient_ids=ids)
    other = auc(scores[order], sick[order], patient_ids=ids[order])
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_doubling_every_image_under_its_patient_s_name_adds_no_certainty():
    scores, sick = study(10)
    ids = np.arange(scores.size)
    single = auc(scores, sick, patient_ids=ids)
    twice = auc(np.tile(scores, 2), np.tile(sick, 2), patient_ids=np.tile(ids, 2))
    fooled = auc(np.tile(scores, 2), np.tile(sick, 2))
    assert twice.low == pytest.approx(single.low, abs=1e-9)
    assert fooled.low > single.low + 0.01


def test_a_bootstrap_of_patients_gives_the_same_interval():
    scores, sick = study(11, n=400, digits=0)  # many ties
    ids = np.random.default_rng(11).integers(0, 250, 400)
    for patients in (None, ids):
        one = auc(scores, sick, patient_ids=patients)
        other = patient_bootstrap(area, scores, sick, sick=sick, patient_ids=patients, draws=1000)
        assert (other.value, other.low, other.high) == pytest.approx(
            (one.value, one.low, one.high), abs=0.012
        )


def test_coverage_of_delong_with_and_without_patients():
    """Two images of a patient share most of their score: the interval covers only if it is told so."""
    rng = np.random.default_rng(13)
    truth = stats.norm.cdf(1.0 / np.sqrt(2))
    told = fooled = 0
    for _ in range(400):
        sick = np.repeat(rng.permutation(np.arange(80) < 40), 2)
        ids = np.repeat(np.arange(80), 2)
        scores = sick + np.sqrt(0.8) * rng.normal(size=80)[ids] + np.sqrt(0.2) * rng.normal(size=160)
        one, other = auc(scores, sick, patient_ids=ids), auc(scores, sick)
        told += one.low <= truth <= one.high
        fooled += other.low <= truth <= other.high
    assert 0.92 <= told / 400 <= 0.98
    assert fooled / 400 < 0.9


# ---- where there is no variance


def test_perfect_separation_keeps_an_interval():
    scores, sick = np.arange(50.0), np.arange(50) >= 30
    got = auc(scores, sick)
    assert (got.value, got.high) == (1, 1)
    assert got.low == pytest.approx(0.025 ** (1 / 20))  # 20 pairs that share nobody, all in order
    got = auc(-scores, sick)
    assert (got.value, got.low) == (0, 0)
    assert got.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert got.method == "distribution-free"


def test_perfect_separation_of_few_patients_is_worth_little_however_many_images():
    sick = np.repeat(np.arange(6) >= 3, 50)
    got = auc(sick * 1.0, sick, patient_ids=np.repeat(np.arange(6), 50))
    assert (got.value, got.high) == (1, 1)
    assert got.low == pytest.approx(0.025 ** (1 / 3))


def test_equal_scores_keep_an_interval():
    got = auc(np.full(400, 0.5), np.arange(400) < 200)
    assert got.value == 0.5
    assert (got.low, got.high) == pytest.approx((0.5 - 0.0960, 0.5 + 0.0960), abs=1e-4)
    got = auc(np.full(4, 0.5), np.arange(4) < 2)
    assert (got.low, got.high) == (0, 1)


def test_too_few_patients_or_one_class_are_errors():
    with pytest.raises(InputError, match="at least two sick and two normal patients .* got 1 and 2"):
        auc([0.1, 0.2, 0.3], [True, False, False])
    with pytest.raises(InputError, match="got 1 and 2"):
        auc([0.1, 0.2, 0.3, 0.4], [True, True, False, False], patient_ids=["a", "a", "", ""])
    with pytest.raises(InputError, match="sick must hold both classes, got 0 sick and 2 normal"):
        auc([0.1, 0.2], [False, False])


def test_arguments_are_checked():
    scores, sick = study(0)
    with pytest.raises(InputError, match="confidence must be"):
        auc(scores, sick, confidence=95)
    with pytest.raises(InputError, match="scores must be finite"):
        auc(np.where(sick, np.nan, scores), sick)
    with pytest.raises(InputError, match="patient_ids must have shape"):
        auc(scores, sick, patient_ids=["a"])


# ---- two areas


def test_paired_delong_is_the_plain_formula():
    a, sick = study(20, digits=1)
    b = np.round(a + np.random.default_rng(20).normal(size=a.size), 1)
    variance = plain_variance((kernel(a, sick), 1), (kernel(b, sick), -1))
    gap = roc_auc_score(sick, a) - roc_auc_score(sick, b)
    got = compare_auc(a, b, sick)
    assert (got.first, got.second) == (auc(a, sick).value, auc(b, sick).value)
    assert got.difference.value == pytest.approx(gap)
    assert got.difference.low == pytest.approx(gap - stats.norm.ppf(0.975) * np.sqrt(variance))
    assert got.difference.high == pytest.approx(gap + stats.norm.ppf(0.975) * np.sqrt(variance))
    assert got.p_value == pytest.approx(2 * stats.norm.sf(abs(gap) / np.sqrt(variance)))
    json.dumps(got.to_dict(), allow_nan=False)


def test_the_comparison_uses_that_both_saw_the_same_patients():
    a, sick = study(21, n=200, digits=3)
    b = a + 0.2 * np.random.default_rng(21).normal(size=a.size)
    paired = compare_auc(a, b, sick).difference
    alone = auc(a, sick)
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_swapping_the_two_turns_the_sign():
    a, sick = study(22)
    b = study(23)[0] + sick
    one, other = compare_auc(a, b, sick), compare_auc(b, a, sick)
    assert one.difference.low == pytest.approx(-other.difference.high)
    assert one.p_value == pytest.approx(other.p_value)


def test_a_paired_bootstrap_of_patients_gives_the_same_difference():
    a, sick = study(24, n=400)
    b = np.round(a + np.random.default_rng(24).normal(size=a.size), 1)
    ids = np.random.default_rng(25).integers(0, 300, 400)
    one = compare_auc(a, b, sick, patient_ids=ids)

    def gap(first, second, labels):
        return area(first, labels) - area(second, labels)

    other = patient_bootstrap(gap, a, b, sick, sick=sick, patient_ids=ids, draws=1000)
    assert other.value == pytest.approx(one.difference.value)
    assert (other.low, other.high) == pytest.approx((one.difference.low, one.difference.high), abs=0.012)
    assert one.p_value < 0.05


def test_scores_of_one_order_do_not_differ():
    a, sick = study(26)
    got = compare_auc(a, np.exp(a), sick)
    assert (got.difference.value, got.difference.low, got.difference.high, got.p_value) == (0, 0, 0, 1)


def test_two_perfect_scores_may_still_differ():
    sick = np.arange(40) >= 20
    a, b = np.arange(40.0), np.where(sick, 100 - np.arange(40.0), 0)
    got = compare_auc(a, b, sick)
    width = 1 - 0.0125 ** (1 / 20)
    assert got.difference.value == 0
    assert (got.difference.low, got.difference.high) == pytest.approx((-width, width))
    assert got.p_value == 1
    got = compare_auc(a, -b, sick)
    assert got.difference.value == 1
    assert 0 < got.difference.low < 1
    assert got.p_value == pytest.approx(0.05)


def test_the_p_value_is_uniform_when_nothing_differs():
    rng = np.random.default_rng(27)
    sick = np.arange(150) < 60
    p_values = []
    for _ in range(400):
        common = sick + rng.normal(size=150)
        a, b = common + rng.normal(size=150), common + rng.normal(size=150)
        p_values.append(compare_auc(a, b, sick).p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_compared_arrays_must_match():
    with pytest.raises(InputError, match="sick must have 3 entries"):
        compare_auc([0.1, 0.2], [0.1, 0.2, 0.3], [True, False])
    with pytest.raises(InputError, match="scores_b must be finite"):
        compare_auc([0.1, 0.2], [0.1, np.nan], [True, False])


# ---- two models


def specificity_by_scikit_learn(scores, sick, wanted):
    false, true, _ = roc_curve(sick, scores, drop_intermediate=False)
    return 1 - false[true >= wanted - 1e-12].min()


def test_compare_is_a_plain_loop_over_drawn_patients():
    a, sick = study(30, n=150)
    b = np.round(a + np.random.default_rng(30).normal(size=a.size), 1)
    ids = np.random.default_rng(31).integers(0, 90, a.size)
    got = compare(a, b, sick, ids, sensitivity=0.9, confidence=0.8, draws=150, seed=5)
    assert got.auc == compare_auc(a, b, sick, patient_ids=ids, confidence=0.8)
    codes = patient_codes(ids, a.size)
    gaps = []
    for drawn in drawn_patients(patient_strata(sick, codes), 150, 5):
        rows = np.concatenate([np.flatnonzero(codes == patient) for patient in drawn])
        one, two = (specificity_by_scikit_learn(scores[rows], sick[rows], 0.9) for scores in (a, b))
        gaps.append(one - two)
    seen = got.specificity
    assert (seen.first, seen.second) == pytest.approx(
        (specificity_by_scikit_learn(a, sick, 0.9), specificity_by_scikit_learn(b, sick, 0.9))
    )
    assert seen.difference.value == seen.first - seen.second
    assert (seen.difference.low, seen.difference.high) == pytest.approx(tuple(np.quantile(gaps, [0.1, 0.9])))
    tail = min(np.sum(np.array(gaps) <= 1e-12), np.sum(np.array(gaps) >= -1e-12))
    assert seen.p_value == pytest.approx(min(1, 2 * (1 + tail) / 151))
    assert (got.n_images, got.n_patients) == (150, np.unique(ids).size)
    stored = json.loads(json.dumps(got.to_dict(), allow_nan=False))
    assert stored["specificity"]["difference"]["low"] == seen.difference.low
    assert stored["auc"]["p_value"] == got.auc.p_value


def test_the_intervals_of_compare_cover_the_true_differences():
    """Two normal scores whose true areas and specificities are known, made of a share in common."""
    rng, shifts = np.random.default_rng(32), np.array([1.6, 1.0])
    areas = stats.norm.cdf(shifts / np.sqrt(2))
    specificities = stats.norm.cdf(shifts - stats.norm.ppf(0.8))
    sick = np.arange(240) < 120
    covered = np.zeros(2)
    for _ in range(100):
        common, own = rng.normal(size=(240, 1)), rng.normal(size=(240, 2))
        a, b = (np.sqrt(0.5) * (common + own) + sick[:, np.newaxis] * shifts).T
        got = compare(a, b, sick, None, sensitivity=0.8, draws=150)
        covered += [
            one.difference.low <= truth[0] - truth[1] <= one.difference.high
            for one, truth in ((got.auc, areas), (got.specificity, specificities))
        ]
    assert ((covered / 100 > 0.89) & (covered / 100 < 0.995)).all()


def test_swapped_models_differ_by_the_opposite():
    a, sick = study(33)
    b = study(34)[0] + sick
    one, other = compare(a, b, sick, None, draws=100), compare(b, a, sick, None, draws=100)
    assert one.specificity.difference.low == pytest.approx(-other.specificity.difference.high)
    assert one.specificity.p_value == other.specificity.p_value


def test_models_of_one_order_do_not_differ_at_all():
    a, sick = study(35)
    got = compare(a, np.exp(a), sick, None, draws=100)
    for part in (got.auc, got.specificity):
        difference = part.difference
        assert (difference.value, difference.low, difference.high, part.p_value) == (0, 0, 0, 1)


def test_no_draw_that_differs_is_no_proof_of_equality():
    """Both models spare every normal patient: 20 patients without a discordant one still leave room."""
    sick = np.arange(40) >= 20
    a, b = np.arange(40.0), np.where(sick, 100 - np.arange(40.0), 0)
    got = compare(a, b, sick, None, draws=100).specificity
    room = 1 - 0.0125 ** (1 / 20)
    assert (got.difference.value, got.p_value) == (0, 1)
    assert (got.difference.low, got.difference.high) == pytest.approx((-room, room))
    patients = np.repeat(np.arange(8), 5)
    few = compare(a, b, sick, patients, draws=100).specificity.difference
    assert few.high == pytest.approx(1 - 0.0125 ** (1 / 4))
    apart = compare(a, -b, sick, None, draws=100).specificity
    assert apart.difference.value == 1
    assert 0 < apart.difference.low < 1
    assert apart.p_value == pytest.approx(0.05)


def test_compare_checks_its_arguments():
    a, sick = study(36)
    with pytest.raises(InputError, match="sensitivity must be a number strictly between 0 and 1, got 95"):
        compare(a, a, sick, None, sensitivity=95)
    with pytest.raises(InputError, match="draws must be a whole number of at least 100, got 5"):
        compare(a, a, sick, None, draws=5)
    with pytest.raises(InputError, match="scores_b must be finite"):
        compare(a, np.where(sick, np.nan, a), sick, None)
    with pytest.raises(InputError, match="patient_ids must have shape"):
        compare(a, a, sick, ["p"])
