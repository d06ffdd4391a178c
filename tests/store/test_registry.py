"""Every classifier of the registry comes back from its folder exactly as it went in."""

import numpy as np
import pytest

from histcxr.decision.thresholds import certify
from histcxr.features.histograms import ZONES
from histcxr.features.recipe import Recipe
from histcxr.models.registry import CLASSIFIERS, make_classifier
from histcxr.store import Model, load_model, save_model
from histcxr.store.structure import walk_objects
from histcxr.store.weights import TRUSTED


@pytest.mark.parametrize("bands", ["", "travel", "full"])
@pytest.mark.parametrize("zones", ZONES)
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_part_is_on_the_trust_list(name, zones, bands):
    for part in walk_objects(make_classifier(name, zones=zones, bands=bands)):
        assert f"{type(part).__module__}.{type(part).__name__}" in TRUSTED["ObjectNode"]


@pytest.mark.parametrize(("name", "zones"), [*((name, 2) for name in CLASSIFIERS), ("knn", 1), ("svm", 1)])
def test_round_trip_gives_the_same_bits(name, zones, study, tmp_path):
    if name == "lenet":
        pytest.importorskip("keras")
    counts, sick = study
    counts = counts if zones == 2 else counts.sum(axis=1, keepdims=True)
    classifier = make_classifier(name, zones=zones, random_state=0)
    # Few trees: what a forest consists of does not depend on their number.
    sizes = [parameter for parameter in classifier.get_params() if parameter.endswith("n_estimators")]
    classifier.set_params(**dict.fromkeys(sizes, 8))
    if name == "lenet":
        classifier.set_params(classifier__cv=2, classifier__estimator__epochs=2)
    classifier.fit(counts, sick)
    chosen = certify(classifier.predict_proba(counts)[:, 1], sick, None)
    model = Model(name, classifier, Recipe(zones), chosen.rule_out, chosen.rule_in)
    loaded = load_model(save_model(model, tmp_path / "m"))
    unseen = counts + np.random.default_rng(1).poisson(20, counts.shape)
    expected = model.score(unseen)
    assert len(np.unique(expected)) > 5
    assert np.array_equal(loaded.score(unseen), expected)
    again = save_model(loaded, tmp_path / "again")
    assert load_model(again).hash == loaded.hash
