"""What the weights may hold: the trust list against crafted files, boosters, moved classes."""

import contextlib
import gzip
import importlib
import io
import json
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from histcxr.exceptions import ModelError
from histcxr.store import load_model, save_model
from histcxr.store.structure import check_booster, read_booster
from histcxr.store.weights import OLD_PATHS, TRUSTED, _load_booster, weights_from_bytes, weights_to_bytes


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
def test_whatever_is_not_on_the_list_is_refused(read, schema, depth):
    if depth:
        schema = node("ListNode", "builtins.list", content=[schema])
    with pytest.raises(ModelError, match=r"estimator\.skops: names .* not on the list of types"):
        read({"estimator.skops": zipped({**schema, **PROTOCOL})})


def test_a_malicious_object_with_right_hashes_is_stopped(plain_model, tmp_path, forge):
    marker = tmp_path / "ran"
    bomb = skops.io.dumps(make_pipeline(FunctionTransformer(), Runner(str(marker))))
    saved = forge(save_model(plain_model, tmp_path / "m"), estimator_skops=bomb)
    with pytest.raises(
        ModelError, match=r"estimator\.skops: names .*(Runner|FunctionTransformer).*do not use this file"
    ):
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
def test_damaged_files_are_refused(read, content):
    with pytest.raises(ModelError, match=r"estimator\.skops: "):
        read({"estimator.skops": content})


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
        array_file(np.ones(3)).replace(b"}", b"{"),
        b"no array",
    ],
)
def test_arrays_that_lie_about_themselves_are_refused(read, plain_model, array):
    def swap(schema, arrays):
        arrays[next(iter(arrays))] = array

    files = weights_to_bytes(plain_model.estimator)
    files["estimator.skops"] = edited(files["estimator.skops"], swap)
    with pytest.raises(ModelError, match=r"estimator\.skops: damaged"):
        read(files)


def test_an_archive_that_unpacks_to_too_much_is_refused(read, plain_model, monkeypatch):
    files = weights_to_bytes(plain_model.estimator)
    monkeypatch.setattr("histcxr.store.weights.MAX_UNPACKED", 100)
    with pytest.raises(ModelError, match="unpacks to more than"):
        read(files)


# --- boosters ------------------------------------------------------------------------------------------


def test_boosters_must_fit_the_pipeline(read, model):
    files = weights_to_bytes(model.estimator)
    assert set(files) == {"estimator.skops", "booster-0.json.gz"}
    with pytest.raises(ModelError, match=r"names the booster 'booster-0\.json\.gz', which is not there"):
        read({"estimator.skops": files["estimator.skops"]})
    with pytest.raises(ModelError, match=r"booster-1\.json\.gz: no part of the model uses this file"):
        read({**files, "booster-1.json.gz": files["booster-0.json.gz"]})


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
def test_json_keeps_every_bit_of_a_booster(study, make_booster, settings):
    booster = make_booster(study, **settings)
    packed = gzip.compress(bytes(booster.save_raw("json")))
    again = _load_booster("booster", read_booster("booster", packed, 1 << 20)[0])
    assert bytes(again.save_raw("ubj")) == bytes(booster.save_raw("ubj"))


def test_damaged_boosters_never_reach_xgboost(model, monkeypatch):
    """XGBoost's reader trusts indices; what gets past ours is what was checked."""
    import xgboost

    seen = []
    monkeypatch.setattr(xgboost.Booster, "load_model", lambda self, content: seen.append(bytes(content)))
    files = weights_to_bytes(model.estimator)
    right = files["booster-0.json.gz"]
    text = gzip.decompress(right)
    tree = b'"left_children":['
    broken = [b"", b"{}", text, right[:-1], right + b"}", right * 2, right[: len(right) // 2]]
    broken += map(gzip.compress, (b"", b"[" * 10**6, b"[]", text[:-1], text.replace(tree, tree + b"1E999,")))
    broken += map(gzip.compress, (text.replace(tree, b'"left_children":[9],' + tree[:-1]), text + text))
    for content in broken:
        with pytest.raises(ModelError, match=r"booster-0\.json\.gz"):
            weights_from_bytes({**files, "booster-0.json.gz": content})
    assert seen == []
    twice = gzip.compress(text.replace(tree, b'"left_children":[10000],' + tree))
    weights_from_bytes({**files, "booster-0.json.gz": twice})  # the second was checked: only that one goes on
    assert json.loads(seen.pop()) == json.loads(text)
    rng = np.random.default_rng(5)
    for place in rng.integers(0, len(text), 60):
        damaged = bytearray(text)
        damaged[place] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(ModelError):
            weights_from_bytes({**files, "booster-0.json.gz": gzip.compress(damaged)})
    for content in seen:  # floats and texts may differ, the structure is whole
        check_booster(json.loads(content), "booster")


def test_a_booster_that_unpacks_to_too_much_is_refused(read, model, monkeypatch):
    monkeypatch.setattr("histcxr.store.weights.MAX_BOOSTER", 1000)
    with pytest.raises(ModelError, match=r"booster-0\.json\.gz: damaged .it ends early, or holds more"):
        read(weights_to_bytes(model.estimator))


# --- moved classes -------------------------------------------------------------------------------------


def test_a_model_survives_a_class_that_moved(plain_model, study, forge, tmp_path, monkeypatch):
    """Saved when a class had another path, it scores the same; without the entry it is refused."""
    today = "histcxr.features.transformers.HistogramFeatures"

    def age(schema, arrays):
        text = json.dumps(schema)
        for now, once in (
            ("histcxr.features.transformers", "histcxr.once.here"),
            ("HistogramFeatures", "Shapes"),
        ):
            assert text.count(f'"{now}"') == 1
            text = text.replace(f'"{now}"', f'"{once}"')
        schema.update(json.loads(text))

    saved = save_model(plain_model, tmp_path / "m")
    old = edited((saved / "estimator.skops").read_bytes(), age)
    forge(saved, estimator_skops=old)
    with pytest.raises(ModelError, match=r"names histcxr\.once\.here\.Shapes .* not on the list"):
        load_model(saved)
    monkeypatch.setitem(OLD_PATHS, "histcxr.once.here.Shapes", today)
    assert np.array_equal(load_model(saved).score(study[0]), plain_model.score(study[0]))
    monkeypatch.setitem(OLD_PATHS, "histcxr.once.here.Shapes", "os.system")
    with pytest.raises(ModelError, match=r"names os\.system"):
        load_model(saved)


def test_old_paths_lead_to_classes_of_today():
    trusted = set().union(*TRUSTED.values())
    assert set(OLD_PATHS.values()) <= trusted
    assert not set(OLD_PATHS) & trusted
    for path in sorted(TRUSTED["ObjectNode"]):
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(module), name).__module__ == module


# --- arrays


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
def test_crafted_trees_are_refused(read, forest_model, field, value, message):
    def change(nodes):
        nodes[field][0] = value

    files = weights_to_bytes(forest_model.estimator)
    files["estimator.skops"] = change_array(
        files["estimator.skops"], lambda array: array.dtype.names is not None, change
    )
    with pytest.raises(ModelError, match=f"a decision tree .*{message}|cannot be loaded"):
        read(files)


def test_a_search_tree_is_not_saved(make_model):
    with pytest.raises(ModelError, match=r"names sklearn\..*(KDTree|EuclideanDistance64)"):
        weights_to_bytes(make_model(KNeighborsClassifier(algorithm="kd_tree")).estimator)


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
