"""Split, truth, figures and the saved network."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, classification_report, log_loss

from histcxr.data.manifest import read_manifest
from histcxr.exceptions import InputError
from histcxr.phantoms.studies import write_study
from histcxr.reference.augmentation import STRENGTHS
from histcxr.reference.images import InputSettings
from histcxr.store.model import sick_score
from histcxr.study.class_figures import class_figures, class_numbers
from histcxr.study.cohort import Cohort
from histcxr.study.explain import Explanation, draw_images
from histcxr.study.network_cohort import StudyImages, pixel_hashes, read_study, split_study
from histcxr.study.network_train import ReferenceSettings

pytest.importorskip("keras")

SETTINGS = InputSettings(16, "full")


def study(split, patients, sick):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"split": split, "patient_id": patients, "image": [f"{i}.png" for i in range(len(split))]}
    )
    table["label"] = np.where(sick, "Sick", "Normal")
    cohort = Cohort(
        np.empty((len(split), 0, 256), np.int64),
        np.asarray(sick, bool),
        np.asarray(patients, dtype=object),
        table,
        {},
    )
    return StudyImages(rng.integers(0, 256, (len(split), 16, 16), np.uint8), cohort, SETTINGS)


def test_a_published_test_part_stays_as_it_was_and_shares_no_patient():
    split = ["train"] * 40 + ["test"] * 10
    patients = [f"p{i}" for i in range(40)] + [f"p{i}" for i in range(5)] + [f"q{i}" for i in range(5)]
    images = study(split, patients, np.arange(50) % 2 == 0)
    parts, notes = split_study(images)
    assert list(parts["test"].cohort.table["image"]) == [f"{i}.png" for i in range(40, 50)]
    assert any(note.startswith("5 images were left out") for note in notes)
    assert len(parts["train"]) + len(parts["val"]) == 35
    groups = [set(part.cohort.patients) for part in parts.values()]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]
    for part in parts.values():  # pixels go with their rows
        rows = [int(name.removesuffix(".png")) for name in part.cohort.table["image"]]
        np.testing.assert_array_equal(part.pixels, images.pixels[rows])


def test_every_patient_of_a_known_image_is_left_out():
    images = study(["test"] * 6, ["a", "a", "b", "b", "c", "c"], [True, False] * 3)
    rest, left_out = images.leave_out(pixel_hashes(images.pixels[3:4]))
    assert list(rest.cohort.patients) == ["a", "a", "c", "c"]
    assert left_out == 2


def test_lungs_are_found_where_the_data_have_no_masks(tmp_path):
    write_study(tmp_path, n_patients=10, size=(128, 128), masks=False, seed=4, repeats=0)
    images = read_study(tmp_path, InputSettings(32, "lungs"))
    assert images.cohort.lungs == "found"
    assert 0.05 < (images.pixels > 0).mean() < 0.6


def test_figures_agree_with_scikit_learn():
    rng = np.random.default_rng(1)
    targets, probabilities = rng.integers(0, 3, 200), rng.dirichlet([1, 1, 1], 200)
    found = class_figures(targets, probabilities, ("a", "b", "c"))
    calls = probabilities.argmax(axis=1)
    oracle = classification_report(targets, calls, target_names=["a", "b", "c"], output_dict=True)
    for row in found["classes"]:
        for ours, theirs in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score"), ("images", "support")):
            assert row[ours] == pytest.approx(oracle[row["class"]][theirs])
    assert found["accuracy"] == pytest.approx(oracle["accuracy"])
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(targets, calls))
    assert found["loss"] == pytest.approx(log_loss(targets, probabilities))
    assert set(found["roc"]) == {"a", "b", "c"}


def test_figures_of_one_class_alone_have_no_area():
    found = class_figures(np.zeros(4, int), np.array([[0.6, 0.4]] * 3 + [[0.2, 0.8]]), ("normal", "sick"))
    assert [row["auc"] for row in found["classes"]] == [None, None]
    assert found["balanced_accuracy"] == found["accuracy"] == 0.75
    json.dumps(found, allow_nan=False)


def test_labels_become_the_numbers_that_the_network_learnt():
    labels = pd.Series(["Normal", "B", "no finding", "A"])
    assert class_numbers(labels, ("normal", "sick"), "Normal").tolist() == [0, 1, 0, 1]
    assert class_numbers(labels, ("Normal", "A", "B"), "Normal").tolist() == [0, 2, 0, 1]
    with pytest.raises(InputError, match="got also B"):
        class_numbers(labels, ("Normal", "A", "C"), "Normal")


def test_the_score_is_the_probability_of_any_disease():
    assert sick_score(np.array([[0.2, 0.5, 0.3]])) == pytest.approx([0.8])
    assert sick_score(np.array([[0.2, 0.8]])) == pytest.approx([0.8])


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"architecture": "x"}, "architecture"),
        ({"classes": 3}, "classes"),
        ({"held_out": 0.9}, "held_out"),
        ({"architecture": "vgg16"}, "vgg16 without weights learns nothing while layers are frozen"),
        ({"augment": "wild"}, "augment must be one of published, none, mild, strong; got 'wild'"),
    ],
)
def test_wrong_settings_are_refused(wrong, match):
    with pytest.raises(InputError, match=match):
        ReferenceSettings(**wrong)


def test_images_are_drawn_by_label_from_many_patients(tmp_path):
    write_study(tmp_path, n_patients=20, size=(64, 64), repeats=1, seed=2)
    drawn = draw_images(read_manifest(tmp_path), 8)
    assert drawn["label"].value_counts().to_dict() == {"Normal": 8, "Lung_Opacity": 8}
    assert drawn["patient_id"].nunique() == 16
    assert len(draw_images(read_manifest(tmp_path), 1000)) == 40


def test_shares_are_averaged_over_maps_that_have_one():
    table = pd.DataFrame({"label": ["a"] * 12, "patient_id": [str(i) for i in range(12)], "even": 0.25})
    table["inside"] = [np.nan, *np.linspace(0.3, 0.8, 11)]
    empty = np.empty((0, 1, 1))
    (whole, _) = Explanation(empty, empty, table).summary()
    assert (whole["images"], whole["maps"]) == (12, 11)
    assert whole["inside"] == pytest.approx(0.55)
    assert whole["difference"] == pytest.approx(0.30)
    assert whole["low"] < 0.30 < whole["high"]
    table["inside"] = np.nan
    assert Explanation(empty, empty, table).summary()[0]["inside"] is None


@pytest.mark.parametrize(
    ("augment", "used"), [("published", "published"), ("none", None), ("strong", STRENGTHS["strong"])]
)
def test_images_are_varied_as_asked_for(augment, used):
    assert ReferenceSettings(augment=augment).classifier(0).augmentation == used
