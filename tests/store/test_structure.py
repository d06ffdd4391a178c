"""Indices, shapes and settings inside weights, against crafted ones."""

import copy
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from histcxr.exceptions import ModelError
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.lenet_network import LeNetGraph
from histcxr.models.pipelines import GaussianSVC
from histcxr.reference.images import InputSettings
from histcxr.store.structure import _CHECKS, check_booster, check_structure
from histcxr.store.weights import TRUSTED


def test_every_check_belongs_to_a_class_that_may_be_saved():
    """Checks find their class by its name: after renaming a class they would be silent."""
    names = {path.rpartition(".")[2] for paths in TRUSTED.values() for path in paths}
    assert set(_CHECKS) <= names


@pytest.fixture(scope="module")
def booster_document(study, make_booster):
    return json.loads(bytes(make_booster(study).save_raw("json")))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda learner, tree: tree["left_children"].__setitem__(0, 10**6), "point to a wrong place"),
        (lambda learner, tree: tree["left_children"].__setitem__(0, 0), "point to a wrong place"),
        (
            lambda learner, tree: tree["right_children"].__setitem__(0, tree["left_children"][0]),
            "wrong place",
        ),
        (lambda learner, tree: tree["right_children"].__setitem__(0, -1), "one child"),
        (lambda learner, tree: tree["split_indices"].__setitem__(0, 10**6), "features that do not exist"),
        (lambda learner, tree: tree.update(parents=tree["parents"][1:]), "differ in length"),
        (lambda learner, tree: tree["parents"].__setitem__(0, 0), "whose parents are others"),
        (lambda learner, tree: tree["parents"].__setitem__(1, 2), "whose parents are others"),
        (lambda learner, tree: tree["parents"].__setitem__(0, 2**70), "TypeError: whole numbers"),
        (lambda learner, tree: tree["split_type"].__setitem__(0, 1), "categories"),
        (lambda learner, tree: tree.update(categories=[1, 1]), "categories"),
        (lambda learner, tree: tree["tree_param"].update(num_feature="3"), "other features"),
        (lambda learner, tree: tree["tree_param"].update(size_leaf_vector="9"), "other features or outputs"),
        (lambda learner, tree: tree["tree_param"].update(num_nodes="-1"), "differ in length"),
        (lambda learner, tree: tree.pop("left_children"), "as XGBoost writes it .KeyError"),
        (lambda learner, tree: tree.update(left_children="abc"), "differ in length"),
        (lambda learner, tree: tree.update(left_children=tree["base_weights"]), "TypeError: whole numbers"),
        (lambda learner, tree: learner.update(feature_names=["a"]), "names other features"),
        (
            lambda learner, tree: learner["gradient_booster"]["model"]["tree_info"].__setitem__(0, 7),
            "outputs",
        ),
        (lambda learner, tree: learner["gradient_booster"]["model"]["tree_info"].pop(), "counts its trees"),
        (lambda learner, tree: learner["gradient_booster"]["model"]["iteration_indptr"].append(99), "rounds"),
        (lambda learner, tree: learner["gradient_booster"].update(name="gblinear"), "plain trees"),
        (lambda learner, tree: learner["objective"].update(name="multi:softprob"), "two classes"),
        (lambda learner, tree: learner["learner_model_param"].update(num_class="3"), "one output"),
        (lambda learner, tree: learner["learner_model_param"].update(num_feature="many"), "ValueError"),
    ],
)
def test_crafted_boosters_are_refused(booster_document, edit, message):
    document = copy.deepcopy(booster_document)
    edit(document["learner"], document["learner"]["gradient_booster"]["model"]["trees"][0])
    with pytest.raises(ModelError, match=rf"booster .*{message}"):
        check_booster(document, "booster")


def test_endless_boosters_are_refused(booster_document, monkeypatch):
    monkeypatch.setattr("histcxr.store.structure._MOST_TREES", 5)
    with pytest.raises(ModelError, match="has 6 trees, more than 5"):
        check_booster(booster_document, "booster")


@pytest.mark.parametrize("document", [None, 5, [], {}, {"learner": None}, {"learner": {}}])
def test_other_documents_are_refused(document):
    with pytest.raises(ModelError, match="not a model as XGBoost writes it"):
        check_booster(document, "booster")


def test_crafted_gaussian_machines_are_refused():
    rng = np.random.default_rng(0)
    svc = GaussianSVC(gamma=0.1).fit(rng.normal(size=(40, 3)), np.arange(40) % 2)
    check_structure(svc)
    for name, value in (
        ("support_vectors_", svc.support_vectors_[:, :-1]),
        ("support_vectors_", svc.support_vectors_.astype(np.float64)),
        ("support_vectors_", np.full_like(svc.support_vectors_, np.inf)),
        ("dual_coef_", svc.dual_coef_[:-1]),
        ("dual_coef_", np.full_like(svc.dual_coef_, np.nan)),
        ("intercept_", float("nan")),
        ("n_features_in_", 4),
        ("gamma", -1.0),
        ("classes_", np.arange(3)),
    ):
        right = getattr(svc, name)
        setattr(svc, name, value)
        with pytest.raises(ModelError, match="the support vector machine .* were built to do harm"):
            check_structure(svc)
        setattr(svc, name, right)
    check_structure(svc)


def test_crafted_components_are_refused():
    rng = np.random.default_rng(0)
    svc = GaussianSVC(gamma=0.1, n_components=2).fit(rng.normal(size=(40, 3)), np.arange(40) % 2)
    check_structure(svc)
    for name, value in (
        ("components_", svc.components_[:, :-1]),
        ("components_", svc.components_[:-1]),
        ("components_", svc.components_.astype(np.float64)),
        ("mean_", svc.mean_[:-1]),
        ("mean_", np.full_like(svc.mean_, np.nan)),
        ("n_components", None),
    ):
        right = getattr(svc, name)
        setattr(svc, name, value)
        with pytest.raises(ModelError, match="the support vector machine .* were built to do harm"):
            check_structure(svc)
        setattr(svc, name, right)
    check_structure(svc)


def small_lenet():
    """A network of right shapes that nobody trained."""
    graph = LeNetGraph(16, 2, (3,), (5,), (4,), (0.0,), (6,), (0.0, 0.0))
    lenet = LeNetClassifier(zones=2, bin_width=2)
    lenet.graph_ = asdict(graph)
    lenet.n_zones_, lenet.n_bins_, lenet.n_features_in_, lenet.classes_ = 2, 32, 64, np.array([0, 1])
    lenet.members_ = [{name: np.zeros(shape, np.float32) for name, shape in graph.shapes().items()}]
    return lenet


def test_crafted_networks_are_refused():
    lenet = small_lenet()
    check_structure(lenet)
    assert lenet.predict_proba(np.ones((3, 2, 32))).shape == (3, 2)
    weights = lenet.members_[0]
    for name, value in (
        ("members_", []),
        ("members_", [{**weights, "dense1/kernel": weights["dense1/kernel"][:-1]}]),
        ("members_", [{**weights, "dense9/kernel": weights["dense1/kernel"]}]),
        ("members_", [{**weights, "output/bias": np.full(1, np.nan, np.float32)}]),
        ("members_", [{name: values.astype(np.float64) for name, values in weights.items()}]),
        ("graph_", {**lenet.graph_, "kernel_size": (10**9,)}),
        ("graph_", {**lenet.graph_, "pool_size": (10**9,)}),
        ("graph_", {**lenet.graph_, "activation": "exec"}),
        ("graph_", {**lenet.graph_, "layers": 3}),
        ("graph_", {"bins": 32}),
        ("n_bins_", 64),
        ("n_features_in_", 128),
        ("bin_width", 1),
        ("representation", "raw"),
        ("scale", "other"),
        ("areas", "none"),
        ("smoothing", 1e9),
        ("classes_", np.arange(3)),
    ):
        right = getattr(lenet, name)
        setattr(lenet, name, value)
        with pytest.raises(ModelError, match="the 1-D LeNet .* were built to do harm"):
            check_structure(lenet)
        setattr(lenet, name, right)
    check_structure(lenet)


def test_crafted_neighbours_are_refused(make_model):
    pipeline = make_model(KNeighborsClassifier(algorithm="brute")).estimator
    check_structure(pipeline)
    knn = pipeline[-1]
    for name, value in (
        ("_y", np.full(120, 9)),
        ("_y", np.full(120, -1)),
        ("_y", np.zeros(119, int)),
        ("_y", np.zeros(120)),
        ("_fit_X", knn._fit_X[:, 1:]),
        ("n_neighbors", 500),
        ("_fit_method", "kd_tree"),
        ("classes_", np.arange(3)),
    ):
        right = getattr(knn, name)
        setattr(knn, name, value)
        with pytest.raises(ModelError, match="the nearest-neighbour search"):
            check_structure(pipeline)
        setattr(knn, name, right)


def forced(settings, **values):
    """A copy with values that its constructor refuses, as a crafted file could hold."""
    changed = replace(settings)
    for name, value in values.items():
        object.__setattr__(changed, name, value)
    return changed


def test_crafted_networks_of_images_are_refused(network):
    classifier = copy.deepcopy(network.classifier)
    classifier.augmentation = None
    check_structure(classifier)
    weights, graph = classifier.weights_, classifier.graph_
    bias = np.zeros(4, np.float32)
    assert weights["0001/bias"].shape == bias.shape
    for name, value, message in (
        ("weights_", {key: weights[key] for key in list(weights)[1:]}, "weights of other names"),
        ("weights_", {key: weights[key] for key in reversed(weights)}, "weights of other names"),
        ("weights_", {**weights, "evil": bias}, "weights of other names"),
        ("weights_", list(weights.values()), "weights of other names"),
        ("weights_", {**weights, "0001/bias": np.zeros(5, np.float32)}, r"is not float32 of shape \(4,\)"),
        ("weights_", {**weights, "0001/bias": np.zeros(4)}, "is not float32"),
        ("weights_", {**weights, "0001/bias": bias.tolist()}, "is not float32"),
        ("weights_", {**weights, "0001/bias": bias * np.nan}, "not finite"),
        ("graph_", {**graph, "name": "os.system"}, "architecture must be one of"),
        ("graph_", {**graph, "size": 10**6}, "size must be a whole number"),
        ("graph_", {**graph, "size": 24}, "size must be that of the images"),
        ("graph_", {**graph, "n_classes": 10**9}, "n_classes must be a whole number"),
        ("graph_", {**graph, "n_classes": 3}, "classes must be 3 numbers"),
        ("graph_", {**graph, "options": forced(graph["options"], filters=(10**9,))}, "layers of at most"),
        ("graph_", {**graph, "options": {"filters": 3}}, "settings that cannot be"),
        ("graph_", {**graph, "weights": "imagenet"}, "settings that cannot be"),
        ("graph_", {}, "settings that cannot be"),
        ("inputs", forced(InputSettings(32), region="elsewhere"), "region must be one of"),
        ("classes_", np.array(["a", "b"]), "classes must be 2 numbers"),
        ("image_shape_", (16, 64), "size must be that of the images"),
        ("views", 10**9, "views must be"),
        ("predict_proba", 1, "'predict_proba', which no network has"),
    ):
        changed = copy.copy(classifier)
        setattr(changed, name, value)
        with pytest.raises(ModelError, match=rf"the network .*{message}.* were built to do harm"):
            check_structure(changed)
