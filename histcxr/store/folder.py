"""Writing and reading the folder of a saved model.

The hashes guard against accidents and against edits by hand. Against somebody who makes a whole model with
right hashes stands what is done with the content: nothing in it can run code, every type and every index is
checked, and a short list decides what may be named at all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from histcxr.decision.thresholds import ThresholdChoice
from histcxr.exceptions import HistcxrError, InputError, ModelError
from histcxr.features.recipe import Recipe
from histcxr.store.model import Model, installed_versions, json_ready, probe_counts
from histcxr.store.weights import ESTIMATOR_FILE, warn_version, weights_from_bytes, weights_to_bytes

FORMAT = "histcxr model"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
DIGEST_FILE = "manifest.sha256"
NETWORK_ABOUT = "model.json"  # what a reference network has instead of a manifest
MAX_MANIFEST = 16 << 20  # bytes
MAX_WEIGHTS = 2 << 30  # bytes, each file
MAX_FILES = 64
PROBE_TOLERANCE = 1e-6  # float rounding differs between processors; a changed model differs by far more

_WEIGHT_NAME = re.compile(r"estimator\.skops|booster-[0-9]{1,3}\.ubj")
_GET_AGAIN = "get the model again from where it came"


def save_model(model: Model, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Save a model as a folder that holds data only.

    The folder appears at once or not at all, and equal models give equal bytes. Before it appears it is
    loaded from those bytes and must score as the original does.

    Parameters
    ----------
    model : Model
    path : path-like
        The folder to make, by custom ``NAME.histcxr``.
    overwrite : bool
        Replace a model that is already there. Anything else in its place is never replaced.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        Something is in the way, or the folder above does not exist.
    ModelError
        The model cannot be saved safely, or the folder cannot be written.
    """
    target = Path(path)
    _check_place(target, overwrite)
    files = _pack(model)
    stored = weights_from_bytes(
        {name: content for name, content in files.items() if _WEIGHT_NAME.fullmatch(name)}
    )
    probe = probe_counts(model.recipe)
    if not np.allclose(
        stored.predict_proba(probe), model.estimator.predict_proba(probe), rtol=0, atol=PROBE_TOLERANCE
    ):
        raise ModelError(f"{model.name}: the model scores differently after saving, so it was not saved")
    try:
        _write_folder(target, files)
    except OSError as error:
        raise ModelError(f"{target}: cannot write the model ({error.strerror or error})") from error
    return target


def load_model(path: str | os.PathLike[str]) -> Model:
    """Load a model, after checking everything that can be checked.

    In this order: format version; SHA-256 of the manifest; the folder holds exactly the files that the
    manifest lists, none of them a link, each of the listed size and SHA-256; recipe of the histograms;
    package versions; types and indices inside the weights; scores on a fixed probe. Nothing from the folder
    is used before it has passed.

    Another minor version of scikit-learn or XGBoost than the saving one gives a warning, as long as the probe
    still scores the same; another major version is refused.

    Parameters
    ----------
    path : path-like
        The folder that :func:`save_model` made.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        The model is refused; the message names the file, what is wrong and what to do.

    Warns
    -----
    HistcxrWarning
        Saved with another version of scikit-learn or XGBoost.
    """
    folder = Path(path)
    try:
        raw_manifest, manifest = _read_manifest(folder)
        files = _read_weights(folder, manifest)
        recipe = _read_recipe(manifest["recipe"])
        _check_versions(manifest, uses_xgboost=len(files) > 1)
        estimator = weights_from_bytes(files)
        model = Model(
            name=manifest["name"],
            estimator=estimator,
            recipe=recipe,
            rule_out=ThresholdChoice.from_dict(manifest["thresholds"]["rule_out"]),
            rule_in=ThresholdChoice.from_dict(manifest["thresholds"]["rule_in"]),
            metrics=manifest["metrics"],
            training=manifest["training"],
            card=manifest["card"],
        )
        _ = model.familiarity  # damaged, it is refused here and not in the middle of a triage
        _check_probe(model, manifest["probe"])
    except (KeyError, TypeError, InputError) as error:
        raise ModelError(f"{folder}: {MANIFEST_FILE} is not complete ({error}); {_GET_AGAIN}") from error
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from error
    # Known only now; the fields stay out of the constructor so that a changed copy never inherits the hash.
    object.__setattr__(model, "versions", manifest["versions"])
    object.__setattr__(model, "hash", hashlib.sha256(raw_manifest).hexdigest())
    return model


def holds_network(path: str | os.PathLike[str]) -> bool:
    """Tell whether a folder is a reference network (:mod:`histcxr.store.network`) rather than a model."""
    return (Path(path) / NETWORK_ABOUT).is_file() and not os.path.lexists(Path(path) / MANIFEST_FILE)


def model_hash(model: Model) -> str:
    """Return the model's hash: that of its folder if it was loaded, else the one that saving would give."""
    return model.hash or hashlib.sha256(_pack(model)[MANIFEST_FILE]).hexdigest()


def _pack(model: Model) -> dict[str, bytes]:
    """Turn a model into the content of its folder, file name to bytes."""
    files = weights_to_bytes(model.estimator)
    probe = np.asarray(model.estimator.predict_proba(probe_counts(model.recipe)), dtype=np.float64)
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": model.name,
        "recipe": model.recipe.to_dict(),
        "thresholds": {"rule_out": model.rule_out.to_dict(), "rule_in": model.rule_in.to_dict()},
        "calibration": "one score a patient, the highest of their images",
        "training": model.training,
        "metrics": model.metrics,
        "card": model.card,
        "versions": installed_versions(),
        # Twelve digits: enough to notice a change, too few to record which thread finished first.
        "probe": [round(float(score), 12) for score in probe[:, 1]],
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in sorted(files.items())
        },
    }
    ready = json_ready(description, "model")
    text = json.dumps(ready, indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False)
    manifest = (text + "\n").encode()
    if len(manifest) > MAX_MANIFEST:
        raise InputError(
            f"metrics, training and card must fit into {MAX_MANIFEST >> 20} MiB, got {len(manifest)} bytes"
        )
    return {**files, MANIFEST_FILE: manifest, DIGEST_FILE: _digest_line(manifest)}


def _digest_line(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST_FILE}\n".encode()


def _check_place(target: Path, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise InputError(f"path must lie in a folder that exists, got {target}")
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise InputError(f"path must be free or a saved model, but {target} is a file or a link")
    if not overwrite:
        raise InputError(
            f"path must be free, but {target} exists; choose another name or ask to overwrite it"
        )
    if any(target.iterdir()) and not (target / MANIFEST_FILE).is_file():
        raise InputError(f"path must be a saved model to be replaced, but {target} holds something else")


def _write_folder(target: Path, files: dict[str, bytes]) -> None:
    """Write all files beside the target and put the folder in its place by renaming it."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        for name, content in files.items():
            with open(fresh / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            with contextlib.suppress(OSError):
                old.rename(target)
            raise


def _read_manifest(folder: Path) -> tuple[bytes, dict[str, Any]]:
    """Read the manifest and check its format version and its digest."""
    if not folder.is_dir():
        what = "a file" if folder.exists() else "missing"
        raise ModelError(f"a saved model is a folder, but this is {what}; check the path")
    if holds_network(folder):
        raise ModelError(
            "this is a reference network, which sees the image itself, and a histogram model is wanted; networks go "
            "with histcxr triage and histcxr reference"
        )
    raw = _read_file(folder, MANIFEST_FILE, MAX_MANIFEST)
    line = _read_file(folder, DIGEST_FILE, 1024)
    edited = (
        f"{MANIFEST_FILE}: does not match {DIGEST_FILE}, so one of the two was damaged or edited after "
        f"saving (thresholds hold only as certified); {_GET_AGAIN}"
    )
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelError(edited) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{MANIFEST_FILE}: does not describe a histcxr model; check the path")
    # Before the digest, which another version may well compute otherwise.
    if manifest.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{MANIFEST_FILE}: has format version {manifest.get('format_version')!r:.40}, this histcxr reads "
            f"{FORMAT_VERSION}; install the histcxr that saved it, or train the model anew"
        )
    if line != _digest_line(raw):
        raise ModelError(edited)
    return raw, manifest


def _read_weights(folder: Path, manifest: dict[str, Any]) -> dict[str, bytes]:
    """Read the weights that the manifest lists, and refuse whatever else lies in the folder."""
    listed = manifest["files"]
    if not isinstance(listed, dict) or not 0 < len(listed) <= MAX_FILES or ESTIMATOR_FILE not in listed:
        raise ModelError(f"{MANIFEST_FILE}: lists no usable set of files; {_GET_AGAIN}")
    for name in listed:
        if not _WEIGHT_NAME.fullmatch(name):
            raise ModelError(
                f"{MANIFEST_FILE}: lists {name!r:.80}, which is no part of a model; do not use it"
            )
    expected = {*listed, MANIFEST_FILE, DIGEST_FILE}
    for entry in _entries(folder):
        if entry not in expected:
            raise ModelError(
                f"{entry!r:.80}: does not belong to the model; remove it, and ask who put it there"
            )
    files = {}
    for name, facts in listed.items():
        size = facts["bytes"]
        if not isinstance(size, int) or not 0 < size <= MAX_WEIGHTS:
            raise ModelError(f"{name}: is listed with {size!r:.40} bytes, which no model has; {_GET_AGAIN}")
        content = _read_file(folder, name, size)
        if len(content) != size:
            raise ModelError(
                f"{name}: has {len(content)} bytes instead of {size}, so a part is missing; {_GET_AGAIN}"
            )
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            raise ModelError(f"{name}: was damaged or changed after saving (SHA-256 differs); {_GET_AGAIN}")
        files[name] = content
    return files


def _entries(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name


def _read_file(folder: Path, name: str, limit: int) -> bytes:
    """Read one regular file of at most ``limit`` bytes, following no link."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ModelError(f"{name}: is missing; {_GET_AGAIN}") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ModelError(f"{name}: is a link, a model holds plain files only; {_GET_AGAIN}") from error
        raise ModelError(f"{name}: cannot be read ({error.strerror})") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ModelError(f"{name}: is not a plain file; {_GET_AGAIN}")
        if facts.st_size > limit:
            raise ModelError(f"{name}: has {facts.st_size} bytes, at most {limit} are expected; {_GET_AGAIN}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    except OSError as error:
        raise ModelError(f"{name}: cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)


def _read_recipe(settings: dict[str, Any]) -> Recipe:
    try:
        return Recipe.from_dict(settings)
    except InputError as error:
        raise ModelError(
            f"{MANIFEST_FILE}: the model was trained on other histograms than this histcxr counts ({error}); "
            "install the histcxr that saved it, or train the model anew"
        ) from error


def _check_versions(manifest: dict[str, Any], *, uses_xgboost: bool) -> None:
    """Refuse another major version of the packages whose objects the model holds; warn of a minor one."""
    saved, here = manifest["versions"], installed_versions()
    for package in ("scikit-learn", *(["xgboost"] if uses_xgboost else [])):
        then, now = str(saved[package]), here.get(package, "none")
        if then.split(".")[0] != now.split(".")[0]:
            raise ModelError(
                f"was saved with {package} {then}, here is {now}; install {package} {then.split('.')[0]}.x "
                "or train the model anew"
            )
        if then.split(".")[:2] != now.split(".")[:2]:
            warn_version(
                f"the model was saved with {package} {then}, here is {now}; its scores on the probe are "
                "compared, but only the saving version is certain to agree everywhere"
            )


def _check_probe(model: Model, expected: list[float]) -> None:
    """Compare the scores of made-up histograms with those at the time of saving."""
    try:
        scores = model.score(probe_counts(model.recipe))
    except (HistcxrError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(
            f"{ESTIMATOR_FILE}: the model cannot score ({type(error).__name__}: {error}); "
            "install the versions it was saved with, or train it anew"
        ) from error
    if len(expected) != len(scores) or not np.allclose(scores, expected, rtol=0, atol=PROBE_TOLERANCE):
        raise ModelError(
            f"{ESTIMATOR_FILE}: the model scores differently here than where it was saved; install the "
            "versions it was saved with (see its manifest), or train it anew"
        )
