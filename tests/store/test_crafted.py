"""Model folders made by somebody who means harm: all hashes are right, and a small file may ask for much."""

import contextlib
import dataclasses
import gzip
import io
import json
import warnings
import zipfile

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from histcxr.decision.groups import certify_groups
from histcxr.decision.thresholds import rule_out_threshold
from histcxr.exceptions import ModelError
from histcxr.reports.card import model_card
from histcxr.store import load_model, save_model
from histcxr.store.weights import weights_to_bytes

from .test_weights import PROTOCOL, edited, node, zipped


@pytest.mark.parametrize("kind", ["rule_out", "rule_in"])
@pytest.mark.parametrize("threshold", [2.0, -1.0, 1e308, True, "0.5", 1, [0.5]])
def test_a_threshold_that_is_no_score_is_refused(saved, forge, kind, threshold):
    with pytest.raises(ModelError, match="is not complete"):
        load_model(forge(saved, lambda manifest: manifest["thresholds"][kind].update(threshold=threshold)))


def test_promises_must_agree_with_who_is_said_to_have_certified_them(saved, forge):
    def said(patients):
        return lambda manifest: manifest["training"].update(certified={"patients": patients})

    n = load_model(saved).rule_out.n + load_model(saved).rule_in.n
    load_model(forge(saved, said(n)))
    for other in (n - 1, n + 1):
        with pytest.raises(ModelError, match=f"rest on the {other} patients"):
            load_model(forge(saved, said(other)))


@pytest.mark.parametrize("joint", [0.99, 0.5, "0.95", [0.95], True])
def test_the_joint_confidence_must_follow_from_the_promises(saved, forge, joint):
    loaded = load_model(saved)
    about = {"patients": loaded.rule_out.n + loaded.rule_in.n}

    def said(value):
        return lambda manifest: manifest["training"].update(certified={**about, "joint_confidence": value})

    load_model(forge(saved, said(0.95)))  # one drawer is certified, at 95 %
    with pytest.raises(ModelError, match="is not complete"):
        load_model(forge(saved, said(joint)))


def test_groups_are_read_with_the_model_and_must_be_its_own(make_model, tmp_path, forge):
    rng = np.random.default_rng(0)
    chosen = certify_groups(
        rng.random(300), rng.random(300) < 0.5, None, {"view": rng.choice(["AP", "PA"], 300)}
    )
    drawers = {"rule_out": chosen.rule_out.overall, "rule_in": chosen.rule_in.overall}
    model = dataclasses.replace(
        make_model(LogisticRegression()), training={"groups": chosen.to_dict()}, **drawers
    )
    saved = save_model(model, tmp_path / "m")
    assert load_model(saved).groups == chosen

    def another(manifest):
        manifest["training"]["groups"]["rule_out"]["overall"]["threshold"] = 0.9

    def no_score(manifest):
        group = manifest["training"]["groups"]["rule_out"]["groups"]["view"]
        group[next(iter(group))]["threshold"] = 2.0

    def more_patients(manifest):
        group = manifest["training"]["groups"]["rule_out"]["groups"]["view"]
        name = next(iter(group))
        few = rule_out_threshold(np.linspace(0, 1, 400), confidence=group[name]["confidence"])
        group[name] = few.to_dict()

    def less_sure(manifest):
        group = manifest["training"]["groups"]["rule_out"]["groups"]["view"]
        name = next(iter(group))
        group[name] = rule_out_threshold(np.linspace(0, 1, 70), confidence=0.9).to_dict()

    original = (saved / "manifest.json").read_text()
    for edit, message in (
        (another, "over all patients of its groups"),
        (no_score, "from 0 to 1"),
        (more_patients, "a part of .* patients, the same"),
        (less_sure, "a part of .* patients, the same"),
        (lambda manifest: manifest["training"].update(groups=[1]), "groups are damaged"),
    ):
        (saved / "manifest.json").write_text(original)
        with pytest.raises(ModelError, match=message):
            load_model(forge(saved, edit))


WRONG = [None, True, -1, 10**30, 0.5, "", "text", [], [None], {}, {"a": []}]


def places(item, path=()):
    yield path
    parts = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def test_another_type_anywhere_in_the_manifest_is_no_traceback(saved, forge):
    original = (saved / "manifest.json").read_text()
    rng = np.random.default_rng(0)
    paths = [path for path in places(json.loads(original)) if path and path[0] != "files"]
    assert len(paths) > 30
    for path in paths:
        for wrong in rng.choice(len(WRONG), 2, replace=False):

            def edit(manifest, path=path, wrong=wrong):
                place = manifest
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = WRONG[wrong]

            (saved / "manifest.json").write_text(original)
            with contextlib.suppress(ModelError), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model_card(load_model(forge(saved, edit)).describe())


def test_all_files_together_are_bounded(saved, monkeypatch):
    sizes = [facts["bytes"] for facts in json.loads((saved / "manifest.json").read_text())["files"].values()]
    monkeypatch.setattr("histcxr.store.folder.MAX_WEIGHTS", sum(sizes) - 1)
    with pytest.raises(ModelError, match="which no model has"):
        load_model(saved)


# --- what a small folder may ask for


def nested(times: int) -> dict:
    """A list of one list ten times, which holds one list ten times, and so on: the later ones by reference."""
    inner = node("JsonNode", "builtins.str", content="1", is_json=True)
    for level in range(times):
        again = {**inner, "content": []} if level else inner
        inner = node("ListNode", "builtins.list", content=[inner, *[again] * 9], __id__=level + 1)
    return inner


@pytest.mark.parametrize("times", [2, 9])
def test_parts_that_hold_each_other_are_refused(read, times):
    with pytest.raises(ModelError, match="are two things"):
        read({"estimator.skops": zipped({**nested(times), **PROTOCOL})})


def test_one_array_under_many_names_is_refused(read, plain_model):
    def repeat(schema, arrays):
        one = node("NdArrayNode", "numpy.ndarray", type="numpy", file=sorted(arrays)[0])
        schema["content"]["content"]["more"] = node("ListNode", "builtins.list", content=[one] * 20)

    files = weights_to_bytes(plain_model.estimator)
    with pytest.raises(ModelError, match="is part of several objects"):
        read({"estimator.skops": edited(files["estimator.skops"], repeat)})


@pytest.mark.parametrize("key", ["node_count", "n_outputs"])
def test_trees_that_count_wrongly_are_refused_before_they_are_built(read, forest_model, key):
    """scikit-learn's constructor would read beyond its arrays."""

    def miscount(schema, arrays):
        def walk(item):
            if isinstance(item, dict) and item.get("__loader__") == "TreeNode":
                counts = item["content"]["content"], item["__reduce__"]["args"]["content"]
                (counts[0]["node_count"] if key == "node_count" else counts[1][2])["content"] = "1000000"
            for part in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
                walk(part)

        walk(schema)

    files = weights_to_bytes(forest_model.estimator)
    with pytest.raises(ModelError, match="counts are not those of its arrays"):
        read({"estimator.skops": edited(files["estimator.skops"], miscount)})


@pytest.mark.parametrize(
    ("packing", "message"), [(zipfile.ZIP_LZMA, "packed in another way"), (8, "more than 1 MiB")]
)
def test_other_packings_and_zeros_are_refused(read, plain_model, monkeypatch, packing, message):
    monkeypatch.setattr("histcxr.store.weights.SMALL_UNPACKED", 1 << 20)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        archive.writestr("schema.json", "{}")
        if packing == zipfile.ZIP_DEFLATED:
            archive.writestr("0.npy", bytes(2 << 20))
    with pytest.raises(ModelError, match=message):
        read({"estimator.skops": out.getvalue()})


@pytest.mark.parametrize("name", ["schema", "booster"])
def test_small_lists_by_the_million_are_refused_unread(read, model, monkeypatch, name):
    monkeypatch.setattr("histcxr.files.reading.MAX_JSON_PARTS", 10**4)
    bomb = b"[" + b"[]," * 10**4 + b"[]]"
    files = weights_to_bytes(model.estimator)
    changed = (
        {"booster-0.json.gz": gzip.compress(bomb)}
        if name == "booster"
        else {"estimator.skops": zipped(bomb.decode())}
    )
    with pytest.raises(ModelError, match="more than 10,000 values"):
        read({**files, **changed})


def test_a_setting_that_asks_for_all_memory_is_refused(read, plain_model):
    files = weights_to_bytes(plain_model.estimator)
    grown = edited(files["estimator.skops"], lambda schema, _: grow(schema))
    with pytest.raises(ModelError, match="n_quantiles=1000000000, larger than any real one"):
        read({"estimator.skops": grown})


def grow(item):
    for key, part in (
        item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    ):
        if key == "n_quantiles":
            part["content"] = "1000000000"
        grow(part)
