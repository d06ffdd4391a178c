"""What a model of either kind scores, refuses and says of itself."""

import copy
import dataclasses
from functools import partial

import numpy as np
import pytest

from histcxr.decision.thresholds import rule_out_threshold
from histcxr.exceptions import InputError, ModelError, RadiographError, Reason
from histcxr.features.measuring import count_lungs
from histcxr.features.recipe import Recipe
from histcxr.lungs.segmenter import load_segmenter
from histcxr.phantoms.studies import make_phantom
from histcxr.reference.images import InputSettings
from histcxr.store import Model
from histcxr.store.model import Origin


def test_a_changed_copy_forgets_where_it_came_from(plain_model):
    fields = {field.name: getattr(plain_model, field.name) for field in dataclasses.fields(plain_model)}
    del fields["origin"]
    loaded = Model(**fields, origin=Origin("f" * 64, {"python": "3.0"}, fields))
    assert (loaded.hash, loaded.versions) == ("f" * 64, {"python": "3.0"})
    assert dataclasses.replace(loaded).hash == "f" * 64
    for change in (
        {"name": "other"},
        {"training": {}},
        {"rule_out": rule_out_threshold(np.linspace(0, 1, 90))},
    ):
        changed = dataclasses.replace(loaded, **change)
        assert changed.hash == ""
        assert "histcxr" in changed.versions


def test_counts_are_checked(plain_model, study):
    counts = study[0]
    assert plain_model.score(counts[:0]).shape == (0,)
    for wrong in (counts[:, :1], counts[0], counts.astype(float), counts[..., :-1]):
        with pytest.raises(InputError, match=r"counts must be whole numbers of shape \(n, 2, 256\)"):
            plain_model.score(wrong)


def test_fields_are_checked(plain_model):
    for change, message in (
        ({"name": " "}, "name must be a text"),
        ({"rule_in": plain_model.rule_out}, "rule_in must be a rule_in ThresholdChoice"),
        ({"recipe": 5}, "recipe must be a Recipe"),
        ({"estimator": object()}, "predict_proba"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(plain_model, **change)


def test_a_classifier_of_three_classes_cannot_score(study):
    class Three:
        def predict_proba(self, counts):
            return np.full((len(counts), 3), 1 / 3)

    scores = np.linspace(0, 1, 80)
    rule_in = dataclasses.replace(rule_out_threshold(scores), kind="rule_in")
    model = Model("three", Three(), Recipe(2), rule_out_threshold(scores), rule_in)
    with pytest.raises(ModelError, match=r"gave shape \(120, 3\), must be \(120, 2\)"):
        model.score(study[0])


@pytest.mark.parametrize("region", ["lungs", "hidden", "full"])
def test_a_network_refuses_the_images_that_histograms_refuse(network, region):
    settings = InputSettings(32, region)
    classifier = copy.copy(network.classifier).set_params(inputs=settings)
    judge = type(network)(classifier, network.classes, network.normal, network.rule_out, network.rule_in)
    phantom = make_phantom(3)
    pale, dark = phantom.image.copy(), phantom.image.copy()
    pale[phantom.mask] = 100
    dark[phantom.mask & (np.random.default_rng(0).random(dark.shape) < 0.6)] = 0
    for image, reason in (
        (255 - phantom.image, Reason.POLARITY),
        (pale, Reason.BLANK),
        (dark, Reason.BLANK),
    ):
        found = []
        for measure in (judge.measure, partial(count_lungs, recipe=Recipe(6))):
            with pytest.raises(RadiographError) as caught:
                measure(image, phantom.mask, "a.png")
            found.append((caught.value.reason, caught.value.path, caught.value.detail))
        assert found[0] == found[1]
        assert found[0][0] is reason
    seen = judge.measure(phantom.image, phantom.mask, "a.png")
    np.testing.assert_array_equal(seen, settings.prepare(phantom.image, phantom.mask))


@pytest.mark.parametrize(
    ("region", "lungs", "found", "notes"),
    [("full", None, 5, 1), ("lungs", "given", 5, 2), ("lungs", "found", 5, 1), ("lungs", "given", 0, 1)],
)
def test_a_network_says_what_it_cannot_tell(network, region, lungs, found, notes):
    classifier = copy.copy(network.classifier).set_params(inputs=InputSettings(32, region))
    judge = type(network)(
        classifier,
        network.classes,
        network.normal,
        network.rule_out,
        network.rule_in,
        training={"lungs": lungs},
    )
    said = judge.caveats(found, load_segmenter().digest)
    assert len(said) == notes
    assert "no check of what it was trained on" in said[0]
    if notes == 2:
        assert said[1].startswith("the lungs of 5 images were found by a network")
    assert len(judge.caveats(found, "another")) == (2 if found and region == "lungs" else 1)
