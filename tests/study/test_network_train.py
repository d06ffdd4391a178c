import pytest

from histcxr.exceptions import InputError
from histcxr.reference.augmentation import STRENGTHS
from histcxr.study.network_train import ReferenceSettings, class_names


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"architecture": "x"}, "architecture"),
        ({"classes": 3}, "classes"),
        ({"held_out": 0.9}, "held_out"),
        ({"architecture": "vgg16"}, "vgg16 without weights learns nothing while layers are frozen"),
        ({"augment": "wild"}, "augment must be one of published, none, mild, strong, mixed; got 'wild'"),
    ],
)
def test_wrong_settings_are_refused(wrong, match):
    with pytest.raises(InputError, match=match):
        ReferenceSettings(**wrong)


@pytest.mark.parametrize(
    ("augment", "used"), [("published", "published"), ("none", None), ("strong", STRENGTHS["strong"])]
)
def test_images_are_varied_as_asked_for(augment, used):
    assert ReferenceSettings(augment=augment).classifier(0).augmentation == used


def test_two_classes_are_sick_against_normal():
    assert class_names(["b", "a", " b"]) == ("normal", "sick")


def test_more_classes_are_the_labels_normal_first():
    assert class_names(["Viral", "COVID", "Normal", "Normal "]) == ("Normal", "COVID", "Viral")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["A", "B", "C"], "one of them 'Normal'; the table has 3: A 1, B 1, C 1"),
        (["Normal", "No finding", "C"], "the table has 3"),
        (["Normal"], "the table has 1: Normal 1"),
    ],
)
def test_classes_that_are_not_there(labels, message):
    with pytest.raises(InputError, match=message):
        class_names(labels)
