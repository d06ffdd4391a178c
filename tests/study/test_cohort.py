import numpy as np
import pandas as pd
import pytest

from histcxr.exceptions import InputError
from histcxr.study.cohort import Cohort, histogram_hashes, leave_out, select_rows, split_cohort


def cohort(n=40, *, split=None, patients=None, seed=0):
    rng = np.random.default_rng(seed)
    patients = [f"p{i}" for i in range(n)] if patients is None else patients
    sick = np.arange(n) % 2 == 0
    table = pd.DataFrame(
        {
            "image": [f"{i}.png" for i in range(n)],
            "label": np.where(sick, "COVID", "Normal"),
            "patient_id": patients,
            "split": [""] * n if split is None else split,
            "source": ["rsna"] * n,
        }
    )
    return Cohort(rng.integers(0, 99, (n, 1, 256)), sick, np.array(patients, dtype=object), table, {})


def test_named_split_is_kept():
    split = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    parts, notes = split_cohort(cohort(split=split))
    assert {part: len(members) for part, members in parts.items()} == {"train": 20, "val": 10, "test": 10}
    assert notes == []


def test_no_split_is_made_by_patient_and_said():
    members = cohort(120, patients=[f"p{i // 3}" for i in range(120)])
    parts, notes = split_cohort(members)
    seen = [set(part.patients) for part in parts.values()]
    assert sum(len(patients) for patients in seen) == len(set.union(*seen)) == 40
    assert sum(len(part) for part in parts.values()) == 120
    assert "64/16/20" in notes[0]


def test_missing_val_is_carved_from_train_only():
    parts, notes = split_cohort(cohort(100, split=["train"] * 80 + ["test"] * 20))
    assert len(parts["test"]) == 20
    assert len(parts["val"]) == 16
    assert "no val part" in notes[0]


def test_a_patient_in_two_parts_stays_in_the_last():
    members = cohort(6, split=["train", "test", "train", "val", "train", "train"], patients=list("aabbcd"))
    parts, notes = split_cohort(members)
    assert set(parts["test"].patients) == {"a"}
    assert set(parts["val"].patients) == {"b"}
    assert set(parts["train"].patients) == {"c", "d"}
    assert "2 patients stand in several parts" in notes[0]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (["train"] * 3 + ["holdout"], "must be train, val or test, got also"),
        (["train"] * 3 + [""], "got none for 1"),
    ],
)
def test_strange_splits_are_refused(split, message):
    with pytest.raises(InputError, match=message):
        split_cohort(cohort(4, split=split))


def test_images_without_patients_are_said():
    members = cohort(60)
    members.table["patient_id"] = ""
    assert "no patient_id" in split_cohort(members)[1][0]


def test_leave_out_takes_the_whole_patient():
    members = cohort(6, patients=list("aabbcc"))
    rest, n = leave_out(members, histogram_hashes(members.counts[:1]))
    assert n == 2
    assert set(rest.patients) == {"b", "c"}
    assert leave_out(members, [])[1] == 0


def test_hashes_depend_on_content_only():
    members = cohort(5)
    hashes = histogram_hashes(members.counts)
    assert len(set(hashes)) == 5
    assert histogram_hashes(members.counts[::-1].astype(np.int32)) == hashes[::-1]


def test_both_classes_are_wanted():
    members = cohort(6).part(np.array([True, False] * 3))
    with pytest.raises(
        InputError, match="the val part must hold sick and normal radiographs, got 3 sick of 3"
    ):
        members.require_both_classes("the val part", "Normal")


def test_select_rows():
    table = cohort(10).table
    table["view"] = ["PA", "AP"] * 5
    assert len(select_rows(table, {"view": ["PA"], "source": ["rsna"]})) == 5
    assert len(select_rows(table, {"view": ["PA", "AP"]})) == 10
    assert select_rows(table, {}).equals(table)
    with pytest.raises(InputError, match="must name a column"):
        select_rows(table, {"hospital": ["x"]})
    with pytest.raises(InputError, match="must leave at least one image"):
        select_rows(table, {"view": ["LL"]})


def test_description_counts():
    about = cohort(10).describe()
    assert about["images"] == 10
    assert about["sick"] == about["normal"] == 5
    assert about["label"] == {"COVID": 5, "Normal": 5}
    assert "view" not in about
