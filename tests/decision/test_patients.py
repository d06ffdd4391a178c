import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histcxr.decision.patients import patient_codes, patient_labels, patient_scores
from histcxr.exceptions import InputError

IDS = st.lists(st.sampled_from(["", "a", "b", "c", None]), max_size=30)


def test_codes_follow_first_appearance_and_unknown_ids_stand_alone():
    assert patient_codes(["b", "", "a", "b", "", None, np.nan], 7).tolist() == [0, 1, 2, 0, 3, 4, 5]
    assert patient_codes(None, 3).tolist() == [0, 1, 2]
    assert patient_codes([], 0).size == 0


def test_ids_may_be_numbers_and_pandas_columns():
    assert patient_codes(np.array([7, 5, 7]), 3).tolist() == [0, 1, 0]
    assert patient_codes(pd.Series(["x", "", "x"], index=[5, 6, 7]), 3).tolist() == [0, 1, 0]
    assert patient_codes(pd.Series(["x", None, "x"], dtype="string"), 3).tolist() == [0, 1, 0]


@given(ids=IDS, data=st.data())
def test_scores_and_labels_agree_with_a_plain_loop(ids, data):
    scores = data.draw(st.lists(st.floats(-5, 5), min_size=len(ids), max_size=len(ids)))
    sick = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    highest, labels = {}, {}
    for position, patient in enumerate(ids):
        key = patient or position
        highest[key] = max(highest.get(key, -np.inf), scores[position])
        labels[key] = labels.get(key, False) or sick[position]
    assert patient_scores(np.array(scores, float), ids).tolist() == list(highest.values())
    assert patient_labels(np.array(sick, bool), ids).tolist() == list(labels.values())


def test_a_patient_with_an_image_without_score_has_none():
    got = patient_scores([0.1, np.nan, 0.9, np.inf, 0.5], ["a", "a", "b", "b", "c"])
    np.testing.assert_array_equal(got, [np.nan, np.nan, 0.5])


def test_wrong_shapes_are_refused():
    with pytest.raises(
        InputError, match=r"patient_ids must have shape \(2,\), one for each image, got \(3,\)"
    ):
        patient_scores([0.1, 0.2], ["a", "b", "c"])
    with pytest.raises(InputError, match="patient_ids must have shape"):
        patient_labels([True, False], [["a", "b"]])
    with pytest.raises(InputError, match="scores must be one-dimensional"):
        patient_scores([[0.1]], ["a"])
    with pytest.raises(InputError, match="sick must be bool"):
        patient_labels([0, 2], ["a", "b"])
