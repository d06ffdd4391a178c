import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histcxr.data.splits import SPLITS, patient_groups, split_patients, undersample
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
    drawn = undersample(manifest, seed=seed)
    counts = drawn["label"].value_counts()
    assert (counts == manifest["label"].value_counts().min()).all()
    assert len(counts) == manifest["label"].nunique()
    assert drawn["image"].is_unique
    order = [manifest["image"].tolist().index(image) for image in drawn["image"]]
    assert order == sorted(order)
    assert drawn.index.tolist() == list(range(len(drawn)))
    assert undersample(manifest, seed=seed).equals(drawn)


def test_undersampling_by_another_column():
    manifest = table(["x"] * 10).assign(source=["a"] * 7 + ["b"] * 3)
    assert undersample(manifest, by="source")["source"].value_counts().to_dict() == {"a": 3, "b": 3}
    with pytest.raises(InputError, match="by must be a column of the manifest; it is 'nothing'"):
        undersample(manifest, by="nothing")
    with pytest.raises(InputError, match="must have rows"):
        undersample(manifest.iloc[:0])
