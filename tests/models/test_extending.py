"""A further feature and a further classifier, added as a contributor adds them: in three files at most."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import roc_auc_score

import histcxr
from histcxr.data.manifest import is_sick, read_manifest
from histcxr.features.extraction import extract_features
from histcxr.features.filters import KINDS, BandKind
from histcxr.features.formulas import mirror_counts
from histcxr.features.recipe import Recipe
from histcxr.models.pipelines import count_features, pipeline
from histcxr.models.registry import (
    CLASSIFIERS,
    ClassifierSpec,
    describe_classifiers,
    make_classifier,
    make_stack,
)
from histcxr.phantoms.studies import write_study
from histcxr.store.weights import TRUSTED, weights_from_bytes, weights_to_bytes

# What a contributor edits; the code below stands for these edits.
FILES = {
    "a band": ["features/filters.py"],  # the function and an entry in KINDS
    "a classifier": [
        "models/pipelines.py",  # the function
        "models/registry.py",  # an entry in CLASSIFIERS
        "store/weights.py",  # what it consists of, in the trust list
    ],
}

RING = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]


def local_binary_patterns(low, scale):
    """How many of eight neighbours on a ring are brighter, or 9 where bright and dark alternate (Ojala 2002)."""
    mean, step = low.mean(scale), max(1, round(scale * low.unit))
    (height, width), padded = mean.shape, np.pad(mean, step)
    brighter = np.array(
        [padded[(1 + down) * step :, (1 + across) * step :][:height, :width] > mean for down, across in RING]
    )
    changes = (brighter != np.roll(brighter, 1, axis=0)).sum(axis=0)
    return np.where(changes <= 2, brighter.sum(axis=0), 9).astype(np.float32)


def brighter_side(low, scale):
    """1 where it is brighter towards the image's right, else 0: codes that change places in a mirror."""
    return (low.derivative(scale, 1, 0) > 0).astype(np.float32)


def extra_trees(settings):
    trees = ExtraTreesClassifier(50, random_state=settings.random_state, n_jobs=settings.n_jobs)
    return pipeline(trees, settings, count_features(settings.recipe, "sqrt"))


@pytest.fixture
def extended(monkeypatch):
    monkeypatch.setitem(KINDS, "lbp", BandKind(local_binary_patterns, codes=tuple(range(10))))
    monkeypatch.setitem(KINDS, "side", BandKind(brighter_side, codes=(1, 0)))
    spec = ClassifierSpec(
        "extremely random trees",
        extra_trees,
        lambda recipe: {"classifier__estimator__max_features": ["sqrt", 0.1]},
        2,
    )
    monkeypatch.setitem(CLASSIFIERS, "extra-trees", spec)
    types = {"sklearn.ensemble._forest.ExtraTreesClassifier", "sklearn.tree._classes.ExtraTreeClassifier"}
    monkeypatch.setitem(TRUSTED, "ObjectNode", TRUSTED["ObjectNode"] | types)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return read_manifest(write_study(folder, n_patients=60, size=(112, 112), repeats=0, seed=4))


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_it_takes_three_files_at_most(files):
    package = Path(histcxr.__file__).parent
    assert len(files) <= 3
    assert all((package / file).is_file() for file in files)


def test_a_band_and_a_classifier_from_files_to_scores(manifest, extended, tmp_path):
    features = extract_features(manifest, 6, bands=("lbp2", "dog4"), cache=tmp_path)
    assert features.recipe == Recipe(6, "lbp2,dog4")
    assert Recipe.from_dict(features.recipe.to_dict()) == features.recipe
    counts, sick = features.counts, is_sick(manifest["label"])
    codes = counts[:, 6:12]
    assert not codes[:, :, 10:].any()
    assert (codes[:, :, :10].sum(axis=(0, 1)) > 0).all()
    np.testing.assert_array_equal(codes.sum(axis=2), counts[:, 12:].sum(axis=2))

    model = make_classifier("extra-trees", zones=6, bands=features.recipe.bands)
    model.fit(counts[:40], sick[:40], classifier__groups=manifest["patient_id"][:40])
    scores = model.predict_proba(counts[40:])[:, 1]
    assert roc_auc_score(sick[40:], scores) > 0.8
    again = weights_from_bytes(weights_to_bytes(model))
    np.testing.assert_array_equal(again.predict_proba(counts[40:])[:, 1], scores)

    names = model["features"]["quantiles"].get_feature_names_out()
    assert model["features"].transform(counts).shape[1] == len(names)
    assert "lbp2_left_lower_code_9" in names
    assert make_stack({"trees": model})["classifier"].estimators[0][0] == "trees"
    assert describe_classifiers()[-1]["name"] == "extra-trees"


@pytest.mark.parametrize("name", ["svm", "random-forest"])
def test_the_other_classifiers_take_the_band(name, manifest, extended):
    features = extract_features(manifest, 6, bands=("lbp2",))
    sick = is_sick(manifest["label"])
    model = make_classifier(name, zones=6, bands=("lbp2",)).set_params(classifier__cv=2)
    scores = model.fit(features.counts[:40], sick[:40]).predict_proba(features.counts[40:])[:, 1]
    assert roc_auc_score(sick[40:], scores) > 0.7


def test_codes_are_mirrored_by_their_table(manifest, extended):
    counts = extract_features(manifest.head(3), 6, bands=("lbp2", "side2")).counts
    mirrored = mirror_counts(counts, zones=6, bands=("lbp2", "side2"))
    right, left = np.s_[:, 6:9], np.s_[:, 9:12]
    np.testing.assert_array_equal(mirrored[right], counts[left])
    right, left = np.s_[:, 12:15, :2], np.s_[:, 15:18, 1::-1]
    np.testing.assert_array_equal(mirrored[right], counts[left])
    assert (mirrored[right] != counts[:, 15:18, :2]).any()
