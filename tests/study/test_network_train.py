import pytest

from histcxr.exceptions import InputError
from histcxr.reference.augmentation import STRENGTHS
from histcxr.study.network_train import ReferenceSettings


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


@pytest.mark.parametrize(
    ("augment", "used"), [("published", "published"), ("none", None), ("strong", STRENGTHS["strong"])]
)
def test_images_are_varied_as_asked_for(augment, used):
    assert ReferenceSettings(augment=augment).classifier(0).augmentation == used
