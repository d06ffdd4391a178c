from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from histcxr.exceptions import InputError
from histcxr.features.recipe import Recipe
from histcxr.phantoms.studies import write_study
from histcxr.reference.images import InputSettings
from histcxr.study.cohort import (
    Cohort,
    Reading,
    only_split,
    read_cohort,
    select_rows,
    split_cohort,
)


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
    return Cohort(table, sick, np.array(patients, dtype=object), rng.integers(0, 99, (n, 1, 256)))


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


def test_a_published_test_part_stays_as_it_was_and_shares_no_patient():
    split = ["train"] * 40 + ["test"] * 10
    patients = [f"p{i}" for i in range(40)] + [f"p{i}" for i in range(5)] + [f"q{i}" for i in range(5)]
    members = cohort(50, split=split, patients=patients)
    parts, notes = split_cohort(members)
    assert list(parts["test"].table["image"]) == [f"{i}.png" for i in range(40, 50)]
    assert notes[0].startswith("5 images were left out: their patients stand in a later part")
    assert len(parts["train"]) + len(parts["val"]) == 35
    groups = [set(part.patients) for part in parts.values()]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]
    for part in parts.values():  # what was measured goes with its rows
        np.testing.assert_array_equal(part.values, members.values[part.table.index])


def test_a_patient_of_train_and_val_is_one_of_val():
    members = cohort(6, split=["train", "test", "train", "val", "train", "train"], patients=list("aabbcd"))
    parts, _ = split_cohort(members)
    found = {name: list(part.table["image"]) for name, part in parts.items()}
    assert found == {"train": ["4.png", "5.png"], "val": ["3.png"], "test": ["1.png"]}


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


def test_both_classes_are_wanted():
    members = cohort(6).part(np.array([True, False] * 3))
    with pytest.raises(
        InputError, match="the val part must hold sick and normal radiographs, got 3 sick of 3"
    ):
        members.require_both_classes("the val part")


def test_select_rows():
    table = cohort(10).table
    table["view"] = ["PA", "AP"] * 5
    assert len(select_rows(table, {"view": ["PA"], "source": ["rsna"]})) == 5
    assert len(select_rows(table, {"view": ["PA", "AP"]})) == 10
    assert select_rows(table, {}).equals(table)
    with pytest.raises(InputError, match="must name a column.*did you mean 'source'"):
        select_rows(table, {"sources": ["x"]})
    with pytest.raises(
        InputError, match="must name values of the data, got view=pa; it has .*did you mean 'PA'"
    ):
        select_rows(table, {"view": ["pa"]})
    with pytest.raises(InputError, match="must leave at least one image"):
        select_rows(table, {"view": ["PA"], "label": ["Normal"], "patient_id": [table["patient_id"][1]]})


def test_description_counts():
    about = cohort(10).describe()
    assert about["images"] == 10
    assert about["sick"] == about["normal"] == 5
    assert about["label"] == {"COVID": 5, "Normal": 5}
    assert "view" not in about


def test_one_part_or_all():
    table = cohort(6, split=["train"] * 4 + ["test"] * 2).table
    assert len(only_split(table, "test")) == 2
    assert only_split(table, "all") is only_split(table, None) is table
    bare = table.assign(split="")
    assert only_split(bare, "test") is bare
    with pytest.raises(InputError, match="data must hold radiographs of split 'val'"):
        only_split(table, "val")


def test_nothing_is_made_up_before_anything_is_read():
    bare = replace(cohort(20), measured=None)
    parts, _ = split_cohort(bare)
    assert parts["test"].measured is None
    with pytest.raises(InputError, match="the cohort must be read"):
        _ = bare.values


def test_digest_knows_labels_but_not_order(manifest):
    cohort = read_cohort(manifest.head(30), Recipe(1))
    order = np.random.default_rng(0).permutation(30)
    shuffled = read_cohort(manifest.head(30).iloc[order].reset_index(drop=True), Recipe(1))
    assert cohort.digest() == shuffled.digest()
    flipped = manifest.head(30).assign(label=["Normal"] * 30)
    assert read_cohort(flipped, Recipe(1)).digest() != cohort.digest()


@pytest.mark.parametrize("what", [Recipe(1), InputSettings(32, "lungs")])
def test_lungs_are_found_where_the_data_have_no_masks(tmp_path, what):
    write_study(tmp_path, n_patients=10, size=(128, 128), masks=False, seed=4, repeats=0)
    found = read_cohort(tmp_path, what)
    assert found.lungs == "found"
    assert len(found) + sum(found.unusable.values()) == 10
    assert found.values.sum(axis=(1, 2)).min() > 0.05


def test_either_kind_of_model_reads_the_same_images(manifest):
    few = manifest.head(40).copy()
    few.loc[3, "image"] = "nowhere.png"
    few.loc[5, "mask"] = ""
    counts, squares = (read_cohort(few, what, Reading("given")) for what in (Recipe(6), InputSettings(32)))
    assert counts.unusable == squares.unusable != {}
    assert list(counts.table.index) == list(squares.table.index)
    assert counts.values.shape == (38, 6, 256)
    assert squares.values.shape == (38, 32, 32)
    assert squares.values.dtype == np.uint8
