import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histcxr.data.splits import (
    SPLITS,
    hold_out,
    patient_folds,
    patient_groups,
    split_patients,
    undersample,
    validation_folds,
)
from histcxr.exceptions import InputError


def table(labels, patients=None):
    count = len(labels)
    return pd.DataFrame(
        {
            "image": [f"/{k}.png" for k in range(count)],
            "label": np.asarray(labels, dtype=object),
            "patient_id": np.asarray([""] * count if patients is None else patients, dtype=object),
        }
    )


def random_table(seed, patients=200):
    rng = np.random.default_rng(seed)
    of_image = np.repeat(np.arange(patients), rng.integers(1, 5, patients))
    labels = rng.choice(["Normal", "A", "B"], patients, p=[0.5, 0.4, 0.1])[of_image]
    return table(labels, [f"p{k}" for k in of_image])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_no_patient_is_divided_and_classes_are_alike(seed):
    manifest = random_table(seed)
    manifest["split"] = split_patients(manifest, seed=seed)
    assert set(manifest["split"]) == set(SPLITS)
    assert (manifest.groupby("patient_id")["split"].nunique() == 1).all()
    patients = manifest.drop_duplicates("patient_id")
    for _, members in patients.groupby("label"):
        shares = members["split"].value_counts() / len(members)
        for split, share in zip(SPLITS, (0.64, 0.16, 0.2), strict=True):
            assert abs(shares.get(split, 0) - share) < 1 / len(members)


def test_every_patient_has_the_same_chance():
    """Patients with many images go to each part as often as patients with one: the parts are exchangeable."""
    manifest = table(["x"] * 40, ["many"] * 20 + [f"p{k}" for k in range(20)])
    found = [split_patients(manifest, seed=seed)[0] for seed in range(300)]
    share = np.mean(np.array(found) == "test")
    assert abs(share - 4 / 21) < 3 * np.sqrt(0.2 * 0.8 / 300)


def test_seeds():
    manifest = random_table(0)
    first, again, other = (split_patients(manifest, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert first.dtype == object


def test_unknown_patients_are_one_image_each():
    manifest = table(["x"] * 6, ["", "", "a", "a", "b", ""])
    groups = patient_groups(manifest)
    assert groups.tolist() == ["/0.png", "/1.png", "a", "a", "b", "/5.png"]


def test_a_patient_of_two_classes_counts_once():
    manifest = table(["x", "y", "y"] * 30, np.repeat([f"p{k}" for k in range(30)], 3))
    manifest["split"] = split_patients(manifest)
    assert (manifest.groupby("patient_id")["split"].nunique() == 1).all()
    assert manifest.drop_duplicates("patient_id")["split"].value_counts().to_dict() == {
        "train": 19,
        "test": 6,
        "val": 5,
    }


def test_parts_may_be_left_out():
    assert set(split_patients(table(["x"] * 10), (0.5, 0, 0.5))) == {"train", "test"}


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.6, 0.1), (1.2, -0.2, 0), (np.nan, 0.5, 0.5)])
def test_impossible_fractions(fractions):
    with pytest.raises(InputError, match="three shares that add up to 1"):
        split_patients(table(["x"] * 10), fractions)


def test_too_few_patients():
    with pytest.raises(InputError, match=r"need more patients; 2 give \{'train': 1, 'val': 0, 'test': 1\}"):
        split_patients(table(["x"] * 8, ["a"] * 4 + ["b"] * 4))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_undersampling_balances_without_replacement(seed):
    manifest = random_table(seed)
    rows = undersample(manifest, seed=seed)
    counts = manifest["label"].iloc[rows].value_counts()
    assert len(counts) == manifest["label"].nunique()
    assert (counts == manifest["label"].value_counts().min()).all()
    assert (np.diff(rows) > 0).all()
    assert (
        rows.tolist()
        == undersample(manifest, seed=seed).tolist()
        != undersample(manifest, seed=seed + 1).tolist()
    )


def test_undersampling_by_another_column_and_to_a_given_number():
    manifest = table(["x"] * 10).assign(source=["a"] * 7 + ["b"] * 3)
    rows = undersample(manifest, by="source", per_class=2, seed=3)
    assert manifest["source"].iloc[rows].value_counts().to_dict() == {"a": 2, "b": 2}


def test_undersampling_takes_every_patient_before_any_twice():
    # Eleven patients a class: each comes once, and the one with twenty images fills the rest.
    patients = [f"{label}{max(image - 19, 0)}" for label in "NC" for image in range(30)]
    manifest = table(["Normal"] * 30 + ["COVID"] * 30, patients)
    for seed in range(5):
        drawn = manifest.iloc[undersample(manifest, per_class=13, seed=seed)]
        assert drawn["patient_id"].nunique() == 22
        assert drawn["patient_id"].value_counts().head(2).tolist() == [3, 3]


def test_undersampling_draws_what_it_drew_before():
    """Studies name a seed; their images must not change."""
    manifest = table(list("AABBBAABBB"), list("ppqqrstuvv"))
    assert undersample(manifest, per_class=3, seed=8).tolist() == [1, 2, 5, 6, 7, 9]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_class": 8}, "per_class must be at most 7, the number of images of 'COVID'; got 8"),
        ({"per_class": 0}, "per_class must be a whole number"),
        ({"by": "colour"}, "missing: colour"),
    ],
)
def test_impossible_undersampling(options, message):
    manifest = table(["Normal"] * 9 + ["COVID"] * 7)
    with pytest.raises(InputError, match=message):
        undersample(manifest, **options)
    with pytest.raises(InputError, match="must have rows"):
        undersample(manifest.iloc[:0])


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
        ([0, 1] * 5, None, 1, "whole number of at least 2, got 1"),
        ([0, 1] * 5, None, 2.0, "whole number of at least 2, got 2.0"),
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
