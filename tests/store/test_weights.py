"""What the weights may hold: the trust list against crafted files, and indices against crafted arrays."""

import contextlib
import copy
import io
import json
import zipfile
from dataclasses import asdict

import numpy as np
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from xgboost import XGBClassifier

from histcxr.exceptions import ModelError
from histcxr.models.gaussian_svc import GaussianSVC
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.lenet_network import LeNetGraph
from histcxr.store import load_model, save_model
from histcxr.store.structure import check_booster, check_structure
from histcxr.store.ubjson import read_ubjson
from histcxr.store.weights import TRUSTED, weights_from_bytes, weights_to_bytes


class Runner:
    """A class whose loading runs code, as a foreign package might bring one along."""

    def __init__(self, marker):
        self.marker = marker

    def __setstate__(self, state):
        with open(state["marker"], "w") as file:
            file.write("ran")


def zipped(schema, arrays=None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("schema.json", schema if isinstance(schema, str) else json.dumps(schema))
        for name, content in (arrays or {}).items():
            archive.writestr(name, content)
    return out.getvalue()


def edited(content: bytes, edit) -> bytes:
    """Change a skops file: edit(schema, arrays) in place."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read("schema.json"))
        arrays = {name: archive.read(name) for name in archive.namelist() if name != "schema.json"}
    edit(schema, arrays)
    return zipped(schema, arrays)


def node(loader, name, **more):
    module, _, cls = name.rpartition(".")
    return {"__loader__": loader, "__module__": module, "__class__": cls, **more}


PROTOCOL = {"protocol": 2, "_skops_version": skops.__version__}
STRINGS = {"content": [node("JsonNode", "builtins.str", content='"touch x"', is_json=True)]}


@pytest.mark.parametrize(
    "schema",
    [
        node("TypeNode", "os.system"),
        node("FunctionNode", "os.system"),
        node("FunctionNode", "builtins.eval"),
        node("FunctionNode", "numpy.add"),  # skops would let it pass
        node("ObjectNode", "subprocess.Popen"),
        node("ObjectNode", "sklearn.preprocessing._function_transformer.FunctionTransformer"),
        node(
            "ObjectNode", "sklearn.feature_extraction.text.TfidfVectorizer"
        ),  # reads any file, trusted by skops
        node("ConstructorFromReduceNode", "sklearn.linear_model._logistic.LogisticRegression", **STRINGS),
        node("ListNode", "os.system", **STRINGS),
        node("ListNode", "sklearn.linear_model._logistic.LogisticRegression", **STRINGS),
        node("TupleNode", "os.system", **STRINGS),
        node(
            "OperatorFuncNode", "operator.methodcaller", attrs=node("TupleNode", "builtins.tuple", content=[])
        ),
        node("MethodNode", "builtins.str", content={"func": "format", "obj": {}}),
        node("PartialNode", "functools.partial", content={}),
        node("ReduceNode", "os.system"),
        node("RandomGeneratorNode", "numpy.random.Generator"),
        node("BytesNode", "builtins.bytes", file="x.bin"),
        node("UnknownNode", "builtins.list"),
        node("JsonNode", "os.system", content="1"),
        {"__loader__": ["ListNode"], "__module__": "builtins", "__class__": "list"},
        {"__loader__": "ListNode", "__module__": None, "__class__": None},
    ],
    ids=lambda schema: f"{schema['__loader__']}-{schema['__class__']}",
)
@pytest.mark.parametrize("depth", [0, 1])
def test_whatever_is_not_on_the_list_is_refused(schema, depth):
    if depth:
        schema = node("ListNode", "builtins.list", content=[schema])
    with pytest.raises(ModelError, match=r"estimator\.skops: names .* not on the list of types"):
        weights_from_bytes({"estimator.skops": zipped({**schema, **PROTOCOL})})


def test_a_malicious_object_with_right_hashes_is_stopped(plain_model, tmp_path, forge):
    marker = tmp_path / "ran"
    bomb = skops.io.dumps(make_pipeline(FunctionTransformer(), Runner(str(marker))))
    saved = forge(save_model(plain_model, tmp_path / "m"), estimator_skops=bomb)
    with pytest.raises(ModelError, match=r"estimator\.skops: names .*Runner.*do not use this file"):
        load_model(saved)
    assert not marker.exists()
    skops.io.loads(bomb, trusted=skops.io.get_untrusted_types(data=bomb))  # trusted, it does run
    assert marker.exists()


def test_the_list_holds_data_only():
    assert not set(TRUSTED) & {"FunctionNode", "MethodNode", "PartialNode", "ConstructorFromReduceNode"}
    for names in TRUSTED.values():
        assert not [name for name in names if name.split(".")[0] in ("os", "subprocess", "sys", "functools")]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        zipped("[" * 100_000),
        zipped("\xff"),
        zipped("5"),
        zipped({"protocol": 2}),
        zipped({**node("ListNode", "builtins.list"), **PROTOCOL}),
        zipped({**node("ListNode", "builtins.list", content=[]), "protocol": "2"}),
        zipped({**node("NdArrayNode", "numpy.ndarray", type="numpy", file="0.npy"), **PROTOCOL}),
        zipped({**node("ListNode", "builtins.list", content=[]), **PROTOCOL}, {"more.npy": b"x"}),
    ],
)
def test_damaged_files_are_refused(content):
    with pytest.raises(ModelError, match=r"estimator\.skops: "):
        weights_from_bytes({"estimator.skops": content})


def array_file(array=None, *, claim=None):
    out = io.BytesIO()
    if claim is None:
        np.save(out, array, allow_pickle=True)
    else:
        header = {"descr": "<f8", "fortran_order": False, "shape": claim}
        np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        array_file(claim=(1 << 50,)),
        array_file(claim=(1 << 40, 1 << 40, 1 << 40)),
        array_file(claim=(-1,)),
        array_file(np.array([{}], dtype=object)),
        array_file(np.ones(3))[:-1],
        array_file(np.ones(3)) + b"x",
        b"\x93NUMPY\x09\x00",
        b"no array",
    ],
)
def test_arrays_that_lie_about_themselves_are_refused(plain_model, array):
    def swap(schema, arrays):
        arrays[next(iter(arrays))] = array

    files = weights_to_bytes(plain_model.estimator)
    files["estimator.skops"] = edited(files["estimator.skops"], swap)
    with pytest.raises(ModelError, match=r"estimator\.skops: damaged"):
        weights_from_bytes(files)


def test_an_archive_that_unpacks_to_too_much_is_refused(plain_model, monkeypatch):
    files = weights_to_bytes(plain_model.estimator)
    monkeypatch.setattr("histcxr.store.weights.MAX_UNPACKED", 100)
    with pytest.raises(ModelError, match="unpacks to more than"):
        weights_from_bytes(files)


# --- boosters ------------------------------------------------------------------------------------------


def test_boosters_must_fit_the_pipeline(model):
    files = weights_to_bytes(model.estimator)
    assert set(files) == {"estimator.skops", "booster-0.ubj"}
    with pytest.raises(ModelError, match=r"names the booster 'booster-0\.ubj', which is not there"):
        weights_from_bytes({"estimator.skops": files["estimator.skops"]})
    with pytest.raises(ModelError, match=r"booster-1\.ubj: no part of the model uses this file"):
        weights_from_bytes({**files, "booster-1.ubj": files["booster-0.ubj"]})


def same(ours, theirs):
    """Whether UBJSON as we read it says what XGBoost's JSON says; single precision for the floats."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, np.ndarray):
        return np.array_equal(ours, np.array(theirs, ours.dtype))
    return type(ours) is type(theirs) and ours == theirs


def booster_of(study, **settings):
    counts, sick = study
    features = counts.reshape(len(counts), -1)[:, ::16]
    fit = {"eval_set": [(features, sick)], "verbose": False}
    return XGBClassifier(n_estimators=6, n_jobs=1, **settings).fit(features, sick, **fit).get_booster()


@pytest.fixture(scope="module")
def booster_document(study):
    return read_ubjson(bytes(booster_of(study).save_raw("ubj")))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_depth": 1},
        {"tree_method": "exact", "gamma": 4},
        {"grow_policy": "lossguide", "max_leaves": 5},
        {"early_stopping_rounds": 2, "eval_metric": "auc"},
        {"num_parallel_tree": 3, "subsample": 0.5},
        {"scale_pos_weight": 2.0, "base_score": 0.3},
    ],
    ids=str,
)
def test_the_reader_agrees_with_xgboost(study, settings):
    booster = booster_of(study, **settings)
    document = read_ubjson(bytes(booster.save_raw("ubj")))
    assert same(document, json.loads(bytes(booster.save_raw("json"))))
    check_booster(document, "b.ubj")


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
        (lambda learner, tree: tree["split_type"].__setitem__(0, 1), "categories"),
        (lambda learner, tree: tree.update(categories=np.ones(2, int)), "categories"),
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
    with pytest.raises(ModelError, match=rf"b\.ubj .*{message}"):
        check_booster(document, "b.ubj")


@pytest.mark.parametrize("document", [None, 5, [], {}, {"learner": None}, {"learner": {}}])
def test_other_documents_are_refused(document):
    with pytest.raises(ModelError, match="not a model as XGBoost writes it"):
        check_booster(document, "b.ubj")


def test_damaged_boosters_never_reach_xgboost(model, monkeypatch):
    """XGBoost's reader can end the process; whatever gets past ours must at least be the same document."""
    import xgboost

    seen = []
    monkeypatch.setattr(xgboost.Booster, "load_model", lambda self, content: seen.append(bytes(content)))
    files = weights_to_bytes(model.estimator)
    right = files["booster-0.ubj"]
    rng = np.random.default_rng(5)
    broken = [b"", b"{}", b"{" * 5000, b"[#L" + b"\x7f" * 8, b"[$d#L" + b"\x7f" * 8, b"{L" + b"\xff" * 8]
    broken += [right[:-1], right + b"}", right[: len(right) // 2]]
    for content in broken:
        with pytest.raises(ModelError, match=r"booster-0\.ubj"):
            weights_from_bytes({**files, "booster-0.ubj": content})
    assert seen == []
    for place in rng.integers(0, len(right), 60):
        damaged = bytearray(right)
        damaged[place] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(ModelError):
            weights_from_bytes({**files, "booster-0.ubj": bytes(damaged)})
    for content in seen:  # floats and texts may differ, the structure is whole
        check_booster(read_ubjson(content), "b.ubj")


# --- indices -------------------------------------------------------------------------------------------


def change_array(content: bytes, wanted, change) -> bytes:
    """Apply change(array) to the first array for which wanted(array) holds."""

    def swap(schema, arrays):
        for name, raw in arrays.items():
            array = np.load(io.BytesIO(raw))
            if wanted(array):
                change(array)
                arrays[name] = array_file(array)
                return
        raise AssertionError("no such array")

    return edited(content, swap)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("left_child", 10**9, "wrong place"),
        ("left_child", 0, "wrong place"),
        ("right_child", -7, "wrong place"),
        ("right_child", -1, "one child"),
        ("feature", 10**9, "do not exist"),
        ("feature", -3, "do not exist"),
    ],
)
def test_crafted_trees_are_refused(forest_model, field, value, message):
    def change(nodes):
        nodes[field][0] = value

    files = weights_to_bytes(forest_model.estimator)
    files["estimator.skops"] = change_array(
        files["estimator.skops"], lambda array: array.dtype.names is not None, change
    )
    with pytest.raises(ModelError, match=f"a decision tree .*{message}|cannot be loaded"):
        weights_from_bytes(files)


def fitted(make_model, estimator):
    return make_model(estimator).estimator


def test_crafted_support_vectors_are_refused(make_model, study):
    pipeline = fitted(make_model, CalibratedClassifierCV(SVC(), ensemble=False))
    check_structure(pipeline)
    svc = pipeline[-1].calibrated_classifiers_[0].estimator
    for name, value in (
        ("_n_support", np.array([10**6, 1], dtype=np.int32)),
        ("_n_support", np.array([-1, len(svc.support_) + 1], dtype=np.int32)),
        ("_dual_coef_", svc._dual_coef_[:, :-1]),
        ("support_vectors_", svc.support_vectors_[:, :-1]),
        ("support_", svc.support_[:-1]),
        ("_intercept_", np.zeros(5)),
        ("kernel", "precomputed"),
        ("_sparse", True),
        ("_probA", np.zeros(9)),
    ):
        right = getattr(svc, name)
        setattr(svc, name, value)
        with pytest.raises(ModelError, match="the support vector machine .* were built to do harm"):
            check_structure(pipeline)
        setattr(svc, name, right)
    check_structure(pipeline)


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
    pipeline = fitted(make_model, KNeighborsClassifier(algorithm="brute"))
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


def test_a_search_tree_is_not_saved(make_model):
    with pytest.raises(ModelError, match=r"names sklearn\..*(KDTree|EuclideanDistance64)"):
        weights_to_bytes(fitted(make_model, KNeighborsClassifier(algorithm="kd_tree")))


def test_nothing_of_the_memory_around_is_saved(forest_model):
    """Structured arrays have gaps; what happened to lie there must not reach the file."""
    files = weights_to_bytes(forest_model.estimator)
    seen = 0
    with zipfile.ZipFile(io.BytesIO(files["estimator.skops"])) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                content = archive.read(name)
                array = np.load(io.BytesIO(content))
                if array.dtype.names:
                    raw = np.frombuffer(content[-array.nbytes :], np.uint8).reshape(len(array), -1)
                    used = sum(array.dtype[field].itemsize for field in array.dtype.names)
                    assert not raw[:, used:].any()
                    seen += 1
    assert seen == 5


def test_the_copy_scores_on_one_thread(make_model):
    forest = make_model(RandomForestClassifier(3, n_jobs=2, random_state=0)).estimator
    assert weights_from_bytes(weights_to_bytes(forest))[-1].n_jobs == 1
    assert forest[-1].n_jobs == 2
