import numpy as np
import pytest

from histcxr.data.patient_folds import hold_out, patient_folds, validation_folds
from histcxr.exceptions import InputError


@pytest.mark.parametrize("classes", [2, 3])
def test_folds_share_no_patient_and_keep_the_classes(classes):
    patients = np.repeat(np.arange(150), 2)
    y = patients % classes
    folds = patient_folds(y, patients, 5, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(len(y)))
    for train, test in folds:
        assert not set(patients[train]) & set(patients[test])
        for value in range(classes):
            assert np.mean(y[test] == value) == pytest.approx(1 / classes, abs=0.05)


@pytest.mark.parametrize(
    ("y", "groups", "n_splits", "message"),
    [
        ([0, 1] * 5, None, 1, "integer of at least 2; got 1"),
        ([0, 1] * 5, None, 2.0, "integer of at least 2; got 2.0"),
        ([0, 1] * 5, None, 6, "class .*0.* has 5"),
        ([0, 1] * 5, [0, 1] * 5, 2, "class .*0.* has 1"),
    ],
)
def test_folds_refused(y, groups, n_splits, message):
    with pytest.raises(InputError, match=message):
        patient_folds(y, groups, n_splits)


def test_patients_stay_together_in_the_held_out_part():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 300)
    y = groups % 2
    folds = validation_folds(y, groups, 0.2, 7, seed=1)
    for rows, held_out in folds:
        assert not set(groups[rows]) & set(groups[held_out])
        np.testing.assert_array_equal(np.sort(np.concatenate([rows, held_out])), np.arange(300))
        assert 0.1 < len(held_out) / 300 < 0.3
    covered = np.concatenate([held_out for _, held_out in folds[:5]])
    np.testing.assert_array_equal(np.sort(covered), np.arange(300))
    np.testing.assert_array_equal(folds[5][1], folds[0][1])
    assert validation_folds(y, groups, 0, 2, seed=1)[1][1] is None
    with pytest.raises(InputError, match="validation_fraction=0.2: 5 folds take at least 5 patients"):
        validation_folds(y, np.minimum(groups, 7), 0.2, 1, seed=1)
    with pytest.raises(InputError, match="validation_fraction must be between 0 and 0.5; got 0.9"):
        validation_folds(y, groups, 0.9, 1, seed=1)


@pytest.mark.parametrize("groups", [None, np.arange(120) // 2])
def test_one_part_held_out_is_the_first_fold(groups):
    y = np.arange(120) // 2 % 3
    rows, held_out = hold_out(y, groups, 0.25, seed=3)
    first = patient_folds(y, groups, 4, 3)[0]
    np.testing.assert_array_equal(rows, first[0])
    np.testing.assert_array_equal(held_out, first[1])


def test_only_a_fold_that_is_used_must_hold_every_class():
    groups = np.repeat([0, 1, 2, 3, 4], [3, 1, 5, 1, 3])
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 1])
    with pytest.raises(InputError, match="3 folds without shared patients leave one that lacks a class"):
        patient_folds(y, groups, 3, 0)
    rows, held_out = hold_out(y, groups, 1 / 3, seed=0)
    assert set(y[rows]) == set(y[held_out]) == {0, 1}
    with pytest.raises(InputError, match=r"validation_fraction=0\.333\d*: 3 folds without shared patients"):
        validation_folds(y, groups, 1 / 3, 3, seed=0)
