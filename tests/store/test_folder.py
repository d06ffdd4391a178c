"""Saving and loading a model, and every way in which a folder is refused."""

import dataclasses
import hashlib
import json
import os
import pickle
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

from histcxr.decision.thresholds import rule_out_threshold
from histcxr.exceptions import HistcxrWarning, InputError, ModelError, OutputError
from histcxr.features.recipe import Recipe
from histcxr.store import installed_versions, load_model, model_hash, save_model

FILES = ["manifest.json", "manifest.sha256", "estimator.skops", "booster-0.json.gz"]


class Bomb:
    """Unpickling it leaves a file behind: the proof that something ran."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch '{self.marker}'",))


def test_round_trip_is_exact(model, saved, study):
    loaded = load_model(saved)
    assert np.array_equal(loaded.score(study[0]), model.score(study[0]))
    assert (loaded.name, loaded.recipe) == ("xgboost", Recipe(2))
    assert loaded.rule_out == model.rule_out
    assert loaded.rule_in == model.rule_in
    assert not loaded.rule_in.certified  # 60 normal patients cannot promise 99 %
    assert loaded.metrics == {"auc": 0.75, "nothing": None, "curve": [0, 1, 2]}
    assert loaded.training == {"n": 120, "classes": ["Normal", "Sick"]}
    assert loaded.card == {"purpose": "tests"}
    assert {"histcxr", "python", "scikit-learn", "xgboost", "skops"} <= set(loaded.versions)


def test_folder_holds_the_expected_files_and_digest(saved):
    assert sorted(os.listdir(saved)) == sorted(FILES)
    raw = (saved / "manifest.json").read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    assert load_model(saved).hash == digest
    assert (saved / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"
    assert json.loads(raw)["format_version"] == 2


def test_saving_is_deterministic(model, saved, tmp_path):
    again = save_model(model, tmp_path / "again")
    reloaded = save_model(load_model(saved), tmp_path / "reloaded")
    for name in FILES:
        assert (again / name).read_bytes() == (saved / name).read_bytes()
        assert (reloaded / name).read_bytes() == (saved / name).read_bytes()
    assert model.hash == ""
    assert model_hash(model) == model_hash(load_model(saved)) == load_model(saved).hash


def test_a_changed_copy_has_its_own_hash(saved):
    loaded = load_model(saved)
    changed = dataclasses.replace(loaded, rule_out=rule_out_threshold(np.linspace(0.3, 1, 80)))
    assert changed.hash == ""
    assert model_hash(changed) != loaded.hash


def test_description_is_json(saved):
    description = load_model(saved).describe()
    assert json.loads(json.dumps(description, allow_nan=False)) == description
    assert description["recipe"]["zones"] == 2
    assert description["thresholds"]["rule_in"]["threshold"] is None


def test_the_original_is_left_alone(model, saved):
    booster = model.estimator[-1].get_booster()
    assert booster.num_boosted_rounds() == 5
    assert model.estimator[-1].device is None


# --- refused folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_byte_is_refused(saved, name):
    content = (saved / name).read_bytes()
    rng = np.random.default_rng(3)
    places = {0, len(content) - 1, *rng.integers(0, len(content), 25).tolist()}
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        (saved / name).write_bytes(damaged)
        with pytest.raises(ModelError, match=r"get the model again|format version|not describe|not the list"):
            load_model(saved)
    (saved / name).write_bytes(content)
    load_model(saved)


@pytest.mark.parametrize("name", FILES)
def test_truncated_missing_and_longer_files_are_refused(saved, name):
    content = (saved / name).read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"", content + b"\n"):
        (saved / name).write_bytes(damaged)
        with pytest.raises(ModelError, match=name.replace(".", r"\.")):
            load_model(saved)
    (saved / name).unlink()
    with pytest.raises(ModelError, match=rf"{name}: is missing; get the model again"):
        load_model(saved)


def test_an_edited_threshold_is_refused(saved):
    path = saved / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["thresholds"]["rule_out"]["threshold"] = 0.999
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    with pytest.raises(ModelError, match=r"manifest\.json: does not match manifest\.sha256.*edited"):
        load_model(saved)


def test_a_threshold_that_contradicts_its_patients_is_refused_even_with_right_hashes(saved, forge):
    def promise_more(manifest):
        manifest["thresholds"]["rule_out"]["target"] = 0.999

    with pytest.raises(ModelError, match=r"manifest\.json is not complete"):
        load_model(forge(saved, promise_more))


@pytest.mark.parametrize("version", [1, 0, "2", None, [2]])
def test_a_foreign_format_version_is_named(saved, forge, version):
    with pytest.raises(ModelError, match=r"format version .* this histcxr reads 2; install the histcxr"):
        load_model(forge(saved, lambda manifest: manifest.update(format_version=version)))


def test_another_histogram_recipe_is_refused(saved, forge):
    def other(manifest):
        manifest["recipe"]["histogram"] += 1

    with pytest.raises(ModelError, match="trained on other histograms"):
        load_model(forge(saved, other))


@pytest.mark.parametrize(
    "name", ["model.pkl", "estimator.joblib", ".hidden", "booster-1.json.gz", "__init__.py"]
)
def test_a_planted_file_is_refused_and_nothing_runs(saved, tmp_path, name):
    marker = tmp_path / "ran"
    (saved / name).write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(ModelError, match="does not belong to the model"):
        load_model(saved)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["estimator.skops", "booster-0.json.gz", "manifest.json"])
def test_a_pickle_in_place_of_a_file_never_runs(saved, tmp_path, forge, name):
    """Also with right hashes: the formats themselves cannot run it."""
    marker = tmp_path / "ran"
    payload = pickle.dumps(Bomb(marker))
    (saved / name).write_bytes(payload)
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        load_model(saved)
    if name != "manifest.json":
        with pytest.raises(ModelError, match=rf"{name}: damaged"):
            load_model(forge(saved))
    assert not marker.exists()
    pickle.loads(payload)  # noqa: S301 - the payload itself works
    assert marker.exists()


def test_a_manifest_that_lists_a_pickle_is_refused(saved, tmp_path, forge):
    marker = tmp_path / "ran"
    payload = pickle.dumps(Bomb(marker))
    (saved / "model.pkl").write_bytes(payload)

    def list_it(manifest):
        facts = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
        manifest["files"]["model.pkl"] = facts

    with pytest.raises(ModelError, match=r"lists 'model\.pkl', which is no part of a model"):
        load_model(forge(saved, list_it))
    assert not marker.exists()


@pytest.mark.parametrize("listed", ["../estimator.skops", "/etc/passwd", "a/b", ""])
def test_a_listed_path_outside_the_folder_is_refused(saved, forge, listed):
    def list_it(manifest):
        manifest["files"][listed] = {"bytes": 1, "sha256": "0" * 64}

    with pytest.raises(ModelError, match="no part of a model"):
        load_model(forge(saved, list_it))


@pytest.mark.parametrize("size", [0, -1, 1 << 60, 2.5, "9", None])
def test_absurd_sizes_are_refused(saved, forge, size):
    def claim(manifest):
        manifest["files"]["booster-0.json.gz"]["bytes"] = size

    with pytest.raises(ModelError, match=r"booster-0\.json\.gz: is listed with"):
        load_model(forge(saved, claim))


def test_a_huge_sparse_file_is_refused_unread(saved):
    with open(saved / "manifest.json", "r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match=r"manifest\.json: has 1099511627776 bytes"):
        load_model(saved)


@pytest.mark.parametrize("name", FILES)
def test_links_inside_are_refused(saved, tmp_path, name):
    outside = tmp_path / name
    (saved / name).rename(outside)
    (saved / name).symlink_to(outside)
    with pytest.raises(ModelError, match=rf"{name}: is no plain file"):
        load_model(saved)


def test_a_pipe_or_folder_in_place_of_a_file_is_refused(saved):
    (saved / "booster-0.json.gz").unlink()
    os.mkfifo(saved / "booster-0.json.gz")
    with pytest.raises(ModelError, match="is no plain file"):
        load_model(saved)
    (saved / "booster-0.json.gz").unlink()
    (saved / "booster-0.json.gz").mkdir()
    with pytest.raises(ModelError, match="is no plain file"):
        load_model(saved)


def test_things_that_are_no_model_are_refused(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match=r"manifest\.json: is missing"):
        load_model(empty)
    plain = tmp_path / "plain"
    plain.write_bytes(b"PK")
    with pytest.raises(ModelError, match="is a folder, but this is a file"):
        load_model(plain)
    with pytest.raises(ModelError, match="is a folder, but this is missing"):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b'{"format": "other"}', b"[" * 100_000, b"\xff\xfe", b"NaN"]
)
def test_a_manifest_of_something_else_is_refused(saved, content):
    (saved / "manifest.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"manifest\.json: (does not|has format version)"):
        load_model(saved)


@pytest.mark.parametrize("key", ["name", "recipe", "thresholds", "files", "versions", "probe", "metrics"])
def test_an_incomplete_manifest_is_refused(saved, forge, key):
    def forget(manifest):
        del manifest[key]

    with pytest.raises(ModelError, match=r"manifest\.json"):
        load_model(forge(saved, lambda m: m.update({key: 5})) if key == "files" else forge(saved, forget))


# --- versions ------------------------------------------------------------------------------------------


def test_another_minor_version_warns(saved, forge):
    def older(manifest):
        manifest["versions"]["scikit-learn"] = "1.0.2"

    with pytest.warns(HistcxrWarning, match=r"saved with scikit-learn 1\.0\.2, here is"):
        load_model(forge(saved, older))


@pytest.mark.parametrize("package", ["scikit-learn", "xgboost"])
def test_another_major_version_is_refused(saved, forge, package):
    def older(manifest):
        manifest["versions"][package] = "0.24.2"

    with pytest.raises(ModelError, match=rf"saved with {package} 0\.24\.2, .*install {package} 0\.x"):
        load_model(forge(saved, older))


def test_another_minor_xgboost_needs_no_word(saved, forge, recwarn):
    """Its own JSON is read alike, and the probe is compared."""
    load_model(forge(saved, lambda manifest: manifest["versions"].update(xgboost="3.0.1")))
    assert not recwarn.list


def test_xgboost_without_gpu_code_is_xgboost(model, saved, monkeypatch):
    def version(package):
        if package == "xgboost":
            raise PackageNotFoundError(package)
        return "3.2.0" if package == "xgboost-cpu" else "1.9.0"

    monkeypatch.setattr("histcxr.store.versions.version", version)
    assert installed_versions(["xgboost"])["xgboost"] == "3.2.0"


def test_xgboost_does_not_matter_to_a_model_without_it(plain_model, tmp_path, forge):
    saved = save_model(plain_model, tmp_path / "m")
    load_model(forge(saved, lambda manifest: manifest["versions"].pop("xgboost")))


def test_scores_that_changed_are_noticed(saved, forge):
    def other(manifest):
        manifest["probe"][0] += 1e-4

    with pytest.raises(ModelError, match="scores differently here"):
        load_model(forge(saved, other))


# --- saving --------------------------------------------------------------------------------------------


def test_overwriting_takes_a_request(model, plain_model, saved):
    with pytest.raises(InputError, match="exists; choose another name"):
        save_model(plain_model, saved)
    assert load_model(saved).name == "xgboost"
    save_model(plain_model, saved, overwrite=True)
    assert load_model(saved).name == "linear"
    assert sorted(os.listdir(saved)) == ["estimator.skops", "manifest.json", "manifest.sha256"]
    assert os.listdir(saved.parent) == [saved.name]


def test_only_models_are_overwritten(plain_model, tmp_path):
    patients = tmp_path / "patients"
    patients.mkdir()
    (patients / "a.png").touch()
    with pytest.raises(InputError, match="holds something else"):
        save_model(plain_model, patients, overwrite=True)
    assert (patients / "a.png").exists()
    with pytest.raises(InputError, match="a file or a link"):
        save_model(plain_model, patients / "a.png", overwrite=True)
    with pytest.raises(InputError, match="folder that exists"):
        save_model(plain_model, tmp_path / "no" / "m")


def test_a_failed_save_leaves_the_old_model(plain_model, saved, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        save_model(plain_model, saved, overwrite=True)
    monkeypatch.undo()
    assert load_model(saved).name == "xgboost"
    assert os.listdir(saved.parent) == [saved.name]


def test_a_model_that_could_not_be_loaded_is_not_saved(make_model, tmp_path):
    with pytest.raises(ModelError, match=r"names sklearn\.dummy\.DummyClassifier"):
        save_model(make_model(DummyClassifier()), tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_papers_must_be_json(plain_model, tmp_path):
    odd = dataclasses.replace(plain_model, card={"when": object()})
    with pytest.raises(InputError, match=r"card\['when'\] must be something that JSON can hold"):
        save_model(odd, tmp_path / "m")


def test_a_fresh_process_scores_the_same_and_says_nothing(model, saved, study, tmp_path):
    np.save(tmp_path / "counts.npy", study[0])
    code = (
        "import sys, numpy as np; from histcxr import load_model; "
        "m = load_model(sys.argv[1]); np.save(sys.argv[3], m.score(np.load(sys.argv[2])))"
    )
    arguments = [str(saved), str(tmp_path / "counts.npy"), str(tmp_path / "scores.npy")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True)
    assert done.stdout + done.stderr == b""
    assert np.array_equal(np.load(tmp_path / "scores.npy"), model.score(study[0]))
