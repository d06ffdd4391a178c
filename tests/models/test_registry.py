import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import skops.io
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import Pipeline

from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.features.band_features import BandFeatures, BothSides, mirror_counts
from histcxr.features.histograms import ZONES
from histcxr.features.recipe import Recipe
from histcxr.models.out_of_fold import StackedClassifier
from histcxr.models.registry import (
    CLASSIFIERS,
    describe_classifiers,
    make_classifier,
    make_stack,
    stack_members,
)

MEMBERS = ("knn", "svm", "random-forest", "xgboost")
CLASSICAL = (*MEMBERS, "stack")
needs_keras = pytest.mark.skipif(find_spec("keras") is None, reason="needs the extra neural")
EVERY = [*CLASSICAL, pytest.param("lenet", marks=needs_keras)]

# Fewer trees, epochs and folds: the same code, faster.
_SMALL = {
    "lenet": {
        f"classifier__estimator__{key}": value
        for key, value in {
            "filters": (8,),
            "kernel_size": 9,
            "dense": (16,),
            "epochs": 25,
            "batch_size": 32,
            "learning_rate": 0.01,
            "validation_fraction": 0.2,
        }.items()
    },
    "random-forest": {"classifier__estimator__n_estimators": 8},
    "xgboost": {"classifier__estimator__n_estimators": 10},
}


def small(name, **settings):
    if name == "stack":
        members = {member: small(member, **settings) for member in MEMBERS}
        return make_stack(members, class_weight=settings.get("class_weight")).set_params(classifier__cv=2)
    return make_classifier(name, **settings).set_params(classifier__cv=2, **_SMALL.get(name, {}))


@pytest.fixture(scope="module")
def fitted(study):
    """Every classifier on six zones, fitted once: name to pipeline."""
    counts, sick, patients = study
    names = [name for name in CLASSIFIERS if name != "lenet" or find_spec("keras")]
    return {name: small(name, zones=6).fit(counts, sick, classifier__groups=patients) for name in names}


def as_zones(counts, zones):
    """Lay six zones together."""
    whole, lungs = counts.sum(axis=1, keepdims=True), counts.reshape(-1, 2, 3, 256).sum(axis=2)
    parts = {"1": [whole], "2": [lungs], "6": [counts], "1+2": [whole, lungs], "1+6": [whole, counts]}
    return np.concatenate(parts[str(zones)], axis=1)


@pytest.mark.parametrize("zones", ZONES)
@pytest.mark.parametrize("name", MEMBERS)
def test_every_classifier_learns_from_every_zone_setting(name, zones, study, others):
    counts, sick, patients = study
    model = small(name, zones=zones).fit(as_zones(counts, zones), sick, classifier__groups=patients)
    scores = model.predict_proba(as_zones(others[0], zones))
    assert isinstance(model, Pipeline)
    assert list(model.classes_) == [False, True]
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert scores.min() >= 0
    # Six zones show what is wrong; the whole lungs hide most of it.
    assert roc_auc_score(others[1], scores[:, 1]) > (0.85 if zones in (6, "1+6") else 0.5)


@pytest.mark.parametrize("name", EVERY)
def test_flat_counts_and_words_will_do_and_seeds_repeat(name, study, others, fitted):
    counts, sick, patients = study
    words = np.where(sick, "sick", "normal")
    flat = clone(fitted[name]).fit(counts.reshape(len(counts), -1), words, classifier__groups=patients)
    assert list(flat.classes_) == ["normal", "sick"]
    np.testing.assert_allclose(
        flat.predict_proba(others[0].reshape(len(others[0]), -1)), fitted[name].predict_proba(others[0])
    )


@pytest.mark.parametrize("name", CLASSICAL)
def test_brightness_and_contrast_of_the_scanner_hardly_matter(name, others, fitted):
    """Zones are scored on the lungs' own scale: a brighter image is not a sicker one."""
    counts, sick, _ = others
    before, after = (fitted[name].predict_proba(np.roll(counts, shift, axis=2))[:, 1] for shift in (0, 10))
    assert roc_auc_score(sick, after) > roc_auc_score(sick, before) - 0.03


@pytest.mark.parametrize("name", EVERY)
def test_the_area_of_the_zones_does_not_matter(name, others, fitted):
    """Masks betray the class by their shape, so no classifier may see how large a zone is."""
    same_areas = np.repeat(others[0].sum(axis=1, keepdims=True), 6, axis=1)
    other_areas = same_areas * np.array([1, 2, 3, 4, 5, 6])[:, None]
    np.testing.assert_allclose(
        fitted[name].predict_proba(other_areas), fitted[name].predict_proba(same_areas), atol=1e-6
    )


@pytest.mark.parametrize("name", EVERY)
def test_it_is_saved_by_skops_with_a_short_list_of_types(name, others, fitted):
    content = skops.io.dumps(fitted[name])
    unknown = skops.io.get_untrusted_types(data=content)
    assert set(unknown) <= {
        "histcxr.features.transformers.HistogramFeatures",
        "histcxr.features.transformers.LungIntensity",
        "histcxr.models.out_of_fold.CalibratedClassifier",
        "histcxr.models.pipelines.GaussianSVC",
        "histcxr.models.lenet.LeNetClassifier",
        "histcxr.models.out_of_fold.StackedClassifier",
        "sklearn.tree._tree.Tree",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
    }
    again = skops.io.loads(content, trusted=unknown)
    np.testing.assert_array_equal(again.predict_proba(others[0]), fitted[name].predict_proba(others[0]))


@pytest.mark.parametrize("name", EVERY)
def test_scikit_learn_can_validate_it(name, study):
    counts, sick, patients = study
    folds = StratifiedGroupKFold(2)
    options = {"groups": patients, "params": {"classifier__groups": patients}}
    scores = cross_val_score(
        small(name, zones=6), counts, sick, cv=folds, scoring="roc_auc", error_score="raise", **options
    )
    assert scores.mean() > 0.85


@pytest.mark.parametrize("name", ["knn", "svm"])
def test_scikit_learn_can_search_it(name, study):
    counts, sick, patients = study
    space = {key: values[:2] for key, values in CLASSIFIERS[name].space(Recipe(6)).items()}
    search = GridSearchCV(
        small(name, zones=6), space, cv=StratifiedGroupKFold(2), scoring="roc_auc", error_score="raise"
    )
    search.fit(counts, sick, groups=patients, classifier__groups=patients)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_score_ > 0.8
    assert search.best_estimator_.predict_proba(counts).shape == (len(sick), 2)


@pytest.mark.parametrize("zones", [1, 6])
@pytest.mark.parametrize("name", MEMBERS)
def test_search_spaces_hold_the_defaults(name, zones):
    defaults = make_classifier(name, zones=zones).get_params()
    space = CLASSIFIERS[name].space(Recipe(zones))
    assert space
    for key, values in space.items():
        assert defaults[key] in values
        assert len(set(values)) == len(values) > 1
    assert json.loads(json.dumps(space)) == space
    RandomizedSearchCV(make_classifier(name, zones=zones), space)


@pytest.mark.parametrize("name", EVERY)
def test_class_weights_reach_every_classifier(name, study, others):
    counts, sick, patients = study
    keep = ~sick | (patients < 60)
    counts = as_zones(counts, 1)  # hard to tell apart, so that much is left to prevalence
    found = []
    for weight in (None, {False: 1, True: 20}):
        model = small(name, zones=1, class_weight=weight)
        model.fit(counts[keep], sick[keep], classifier__groups=patients[keep])
        found.append(model.predict_proba(as_zones(others[0], 1))[:, 1].mean())
    assert found[1] > found[0] + 0.1


def test_the_stack_consists_of_plain_members(study):
    stack = make_classifier("stack", zones=6, n_jobs=2)["classifier"]
    assert isinstance(stack, StackedClassifier)
    assert stack.n_jobs == 2
    assert [name for name, _ in stack.estimators] == list(MEMBERS) == list(stack_members(Recipe(6)))
    for _, member in stack.estimators:
        assert member["classifier"].cv is None
        assert member["classifier"].estimator.get_params().get("n_jobs", 1) == 1
    counts, sick, patients = study
    svm = make_classifier("svm", zones=6).fit(counts, sick)
    own = make_stack({"broad": svm, "narrow": small("svm", zones=6)}).fit(
        counts, sick, classifier__groups=patients
    )
    assert own["classifier"].coef_.shape == (2,)
    assert svm["classifier"].cv == 5


def test_members_with_equal_features_share_them(study, others):
    counts, sick, patients = study
    features = BothSides(BandFeatures(zones=6, n_quantiles=8, dtype="float32"))
    tuned = {"features": features, "classifier__views": 2}
    machine = make_classifier("svm", zones=6).set_params(**tuned, classifier__estimator__n_components=10)
    machine = Pipeline([step for step in machine.steps if step[0] != "scale"])
    trees = make_classifier("xgboost", zones=6).set_params(**tuned, classifier__estimator__n_estimators=10)
    stack = make_stack({"svm": machine, "xgboost": trees})
    assert list(stack.named_steps) == ["features", "classifier"]
    assert all(member.views == 2 for _, member in stack["classifier"].estimators)
    stack.fit(counts, sick, classifier__groups=patients)
    mirrored = mirror_counts(others[0], zones=6)
    scores = stack.predict_proba(others[0])
    assert roc_auc_score(others[1], scores[:, 1]) > 0.8
    np.testing.assert_allclose(stack.predict_proba(mirrored), scores, atol=1e-6)
    # One by one, each with features of its own, the members say the same.
    for alone, member in zip((machine, trees), stack["classifier"].estimators_, strict=True):
        alone.set_params(classifier__cv=None).fit(counts, sick)
        found = member.decision_function(stack["features"].transform(others[0]))
        np.testing.assert_allclose(found, alone.decision_function(others[0]), atol=1e-5)
    assert "features" not in make_stack({"a": machine, "b": make_classifier("svm", zones=6)}).named_steps


def test_descriptions():
    rows = describe_classifiers()
    assert [row["name"] for row in rows] == list(CLASSIFIERS)
    assert all(row["description"] and row["searched"] for row in rows)
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "resnet"},
            "name must be one of knn, svm, random-forest, xgboost, lenet, stack; got 'resnet'",
        ),
        ({"name": "svm", "zones": 3}, "zones"),
        ({"name": "svm", "n_jobs": 0}, "n_jobs must be"),
        ({"name": "xgboost", "device": "gpu"}, "device must be 'cpu', 'cuda' or 'cuda:N'; got 'gpu'"),
        ({"name": "stack", "device": "cuda:x"}, "device must be"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        make_classifier(**arguments)


def test_stacks_refused():
    with pytest.raises(InputError, match="at least one"):
        make_stack({})
    with pytest.raises(InputError, match="'inner' is not"):
        make_stack({"inner": make_classifier("stack")})


def test_a_gpu_that_is_not_there_is_an_error():
    """XGBoost alone would warn and go on, on the processor. No machine has a hundredth GPU."""
    with pytest.raises(InputError, match="device 'cuda:99'.*or use device='cpu'"):
        make_classifier("xgboost", device="cuda:99")


def test_without_xgboost_the_others_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    make_classifier("svm")
    with pytest.raises(MissingDependencyError, match="pip install xgboost"):
        make_classifier("xgboost")
