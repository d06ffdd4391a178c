"""Writing and reading the folder of a saved model, of either kind.

The hashes guard against accidents and against edits by hand. Against somebody who makes a whole model with
right hashes stands what is done with the content: nothing in it can run code, every type and every index is
checked, and a short list decides what may be named at all.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.decision.thresholds import ThresholdChoice
from histcxr.exceptions import HistcxrError, InputError, ModelError, NoModelError
from histcxr.features.recipe import Recipe
from histcxr.files.reading import parse_json
from histcxr.files.writing import replacing
from histcxr.store.cascade import Cascade
from histcxr.store.model import Model, Origin, ReferenceModel, json_ready
from histcxr.store.plain import Saved
from histcxr.store.signing import SIGNATURE_FILE, check_signature, make_signature
from histcxr.store.versions import check_versions, installed_versions
from histcxr.store.weights import ESTIMATOR_FILE, weights_from_bytes, weights_to_bytes

if TYPE_CHECKING:
    from histcxr.store.judges import Judge, SavedModel

__all__ = ["BOXED", "check_place", "load_model", "model_hash", "save_model", "sign_model", "verify_model"]

_Path = str | os.PathLike[str]

#: The name of the model that comes with histcxr, instead of a path.
BOXED: Final = "boxed"

FORMAT = "histcxr model"
FORMAT_VERSION = 2
MANIFEST_FILE = "manifest.json"
DIGEST_FILE = "manifest.sha256"
MAX_MANIFEST = 16 << 20  # bytes
MAX_WEIGHTS = 2 << 30  # bytes, all files together
MAX_FILES = 64
_NEEDED = {ESTIMATOR_FILE, f"first-{ESTIMATOR_FILE}"}

# How far the scores of the probe may be from those at the time of saving, and the digits that are recorded: few enough
# not to record which thread finished first. Rounding differs between processors, for networks also between Keras'
# backends; a changed model differs by far more.
_TOLERANCE = {Model.kind: 1e-6, ReferenceModel.kind: 1e-3, Cascade.kind: 1e-3}
_DIGITS = {Model.kind: 12, ReferenceModel.kind: 4, Cascade.kind: 4}

_WEIGHT_NAME = re.compile(r"estimator\.skops|booster-[0-9]{1,3}\.json\.gz")
_PARTS = ("first-", "then-")
_PART_NAME = re.compile(rf"({'|'.join(_PARTS)})({_WEIGHT_NAME.pattern}|manifest\.(json|sha256))")
_GET_AGAIN = "get the model again from where it came"
_TABLES = ("thresholds", "metrics", "training", "card", "versions", "files")
_TYPES: dict[str, type] = {"name": str, "probe": list, **dict.fromkeys(_TABLES, dict)}


def save_model(model: Judge, path: _Path, *, overwrite: bool = False) -> Path:
    """Save a model of either kind as a folder that holds data only, by custom ``NAME.histcxr``; return the folder.

    It appears at once or not at all, and equal models give equal bytes. Before it appears it is loaded from those
    bytes and must score as the original does. ``overwrite`` replaces a model that is already there, never anything
    else.

    InputError: something is in the way, or the folder above does not exist. ModelError: the model cannot be saved
    safely. OutputError: the folder cannot be written.
    """
    target = check_place(path, overwrite)
    files = pack_model(model)
    try:
        unpack_model(files)
    except HistcxrError as error:
        raise ModelError(
            f"{model.name}: the model was not saved, for it could not be loaded ({error})"
        ) from error
    with replacing(target, folder=True) as fresh:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
    return target


def load_model(path: _Path = BOXED, *, signed_by: _Path | None = None) -> SavedModel:
    """Load a model of either kind from its folder, after checking everything that can be checked.

    In this order: signature, where one is asked for; format version; SHA-256 of the manifest; the folder holds exactly
    the files that the manifest lists, none of them a link, each of the listed size and SHA-256; types of the manifest;
    package versions; types, shapes and indices inside the weights; scores on a fixed probe. Nothing from the folder is
    used before it has passed.

    Another minor version of scikit-learn than the saving one gives a :class:`~histcxr.exceptions.HistcxrWarning`, as
    long as the probe still scores the same; another major version, also of XGBoost, is refused. Networks hold no
    objects of a package, so for them the probe alone decides.

    ``"boxed"`` is the model that comes with histcxr. ``signed_by``: a public Ed25519 key in PEM, whose owner must have
    signed the model. NoModelError: there is none at this path. ModelError: it is refused; the message names the file,
    what is wrong and what to do. InputError: the key is none. MissingDependencyError: a network without Keras or its
    backend, or XGBoost or cryptography is needed and missing.
    """
    if path == BOXED and signed_by is None:
        return _boxed()
    with _opened(path) as folder:
        return unpack_model(_read_folder(folder, signed_by))


@functools.cache
def _boxed() -> SavedModel:
    with _opened(BOXED) as folder:
        return unpack_model(_read_folder(folder))


@contextlib.contextmanager
def _opened(path: _Path) -> Iterator[Path]:
    """Give the folder of a model, the one in the box too; whatever is wrong with it is told with its place."""
    box = resources.files("histcxr.store").joinpath("boxed.histcxr")
    with resources.as_file(box) if path == BOXED else contextlib.nullcontext(Path(path)) as folder:
        try:
            yield folder
        except ModelError as error:
            raise type(error)(f"{folder}: {error}") from error


def sign_model(
    path: _Path, key: _Path, *, ask: Callable[[], str] | None = None, overwrite: bool = False
) -> Path:
    """Sign a saved model with a private Ed25519 key in PEM: write ``manifest.sig`` into its folder, and return it.

    ``ask`` returns the key's passphrase. InputError: the key is none, or another signature is there and is not to be
    replaced (``overwrite``). ModelError: the model does not load. OutputError: the folder cannot be written.
    """
    with _opened(path) as folder:
        files = _read_folder(folder)
        unpack_model(files)
        signature = make_signature(files[MANIFEST_FILE], key, ask)
        place = folder / SIGNATURE_FILE
        if os.path.lexists(place) and not overwrite and _read_file(folder, SIGNATURE_FILE, 1024) != signature:
            raise InputError(f"the model must be signed by no other key, but {place} exists (--overwrite)")
        with replacing(place) as fresh:
            fresh.write_bytes(signature)
        return place


def verify_model(path: _Path, key: _Path) -> str:
    """Check, loading nothing, that a model is as it was when the owner of a public key signed it; return its hash."""
    with _opened(path) as folder:
        return hashlib.sha256(_read_folder(folder, key)[MANIFEST_FILE]).hexdigest()


def model_hash(model: Judge) -> str:
    """Return the model's hash: that of its folder if it was loaded, else the one that saving would give."""
    return model.hash or hashlib.sha256(pack_model(model)[MANIFEST_FILE]).hexdigest()


def check_place(path: _Path, overwrite: bool) -> Path:
    """Refuse a place where no model may be written; to be asked before hours of training.

    :class:`~histcxr.exceptions.InputError` where the folder above does not exist, or something is in the way that is no
    model or must not be replaced.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"path must lie in a folder that exists, got {target}")
    if not os.path.lexists(target):
        return target
    if target.is_symlink() or not target.is_dir():
        raise InputError(f"path must be free or a saved model, but {target} is a file or a link")
    if not overwrite:
        raise InputError(
            f"path must be free, but {target} exists; choose another name (-o), or replace it (--overwrite)"
        )
    if any(target.iterdir()) and not (target / MANIFEST_FILE).is_file():
        raise InputError(f"path must be a saved model to be replaced, but {target} holds something else")
    return target


def pack_model(model: Judge) -> dict[str, bytes]:
    """Turn a model into the content of its folder, file name to bytes."""
    if not isinstance(model, Model | ReferenceModel | Cascade):
        raise InputError(f"model must be a Model, a ReferenceModel or a Cascade, got {type(model).__name__}")
    if isinstance(model, Cascade):
        packed = zip(_PARTS, (pack_model(model.first), pack_model(model.then)), strict=True)
        files = {f"{part}{name}": content for part, one in packed for name, content in one.items()}
    else:
        held = vars(model)["estimator"] if isinstance(model, Model) else model.classifier
        files = dict(held.files) if isinstance(held, Saved) else weights_to_bytes(held)
    scores = model.score(model.probe())  # type: ignore[arg-type]  # each kind's own
    description = {
        **model.describe(),
        **model.describe_input(),
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": installed_versions(model.saved_with),
        "probe": [round(float(score), _DIGITS[model.kind]) for score in scores],
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    del description["hash"]
    text = json.dumps(json_ready(description), indent=2, sort_keys=True, allow_nan=False)
    manifest = (text + "\n").encode()
    if len(manifest) > MAX_MANIFEST:
        raise InputError(
            f"metrics, training and card must fit into {MAX_MANIFEST >> 20} MiB, got {len(manifest)} bytes"
        )
    return {**files, MANIFEST_FILE: manifest, DIGEST_FILE: _digest_line(manifest)}


def unpack_model(files: dict[str, bytes]) -> SavedModel:
    """Rebuild a model from the content of its folder, whose hashes are right."""
    raw = files[MANIFEST_FILE]
    weights = {name: content for name, content in files.items() if _WEIGHT_NAME.fullmatch(name)}
    try:
        manifest = parse_json(raw)
        for key, kind in _TYPES.items():
            if not isinstance(manifest[key], kind):
                raise TypeError(f"{key} is a {type(manifest[key]).__name__}")
        if any(not isinstance(manifest["training"].get(key, {}), dict) for key in ("seen", "settings")):
            raise TypeError("what it was trained on is no table")
        make = {kind.kind: kind for kind in (Model, ReferenceModel, Cascade)}[manifest["kind"]]
        versions = {str(package): str(number) for package, number in manifest["versions"].items()}
        parts = {key: manifest[key] for key in ("metrics", "training", "card")}
        parts |= {
            key: ThresholdChoice.from_dict(manifest["thresholds"][key]) for key in ("rule_out", "rule_in")
        }
        if make is Model:
            parts |= {"name": manifest["name"], "recipe": _read_recipe(manifest["recipe"])}
            check_versions(versions, ["scikit-learn", "xgboost"] if len(weights) > 1 else ["scikit-learn"])
            parts["estimator"] = Saved(weights)
        elif make is Cascade:
            parts |= {key: float(manifest["cascade"][key]) for key in ("low", "high")}
            parts |= {part[:-1]: unpack_model(_part_of(files, part)) for part in _PARTS}
        else:
            parts |= {"classes": tuple(map(str, manifest["classes"])), "normal": str(manifest["normal"])}
            parts["classifier"] = weights_from_bytes(weights)
        model: SavedModel = make(**parts, origin=Origin(hashlib.sha256(raw).hexdigest(), versions, parts))
        if manifest != {**manifest, "name": model.name, **model.describe_input()}:
            raise ValueError("its name or input is not that of the weights")
        model.check_papers()
        if isinstance(model, Model):
            _ = model.familiarity  # damaged, it is refused here and not in the middle of a triage
        probe = np.asarray(manifest["probe"], np.float64)
    except (ModelError, ImportError):
        raise
    except Exception as error:  # whatever a stranger's folder makes a reader stumble over, InputError, too
        raise ModelError(f"{MANIFEST_FILE} is not complete ({error}); {_GET_AGAIN}") from error
    _check_probe(model, probe)
    return model


def _part_of(files: dict[str, bytes], part: str) -> dict[str, bytes]:
    """Return the files of one of a cascade's models under their own names, checked as its own folder would be."""
    found = {name.removeprefix(part): content for name, content in files.items() if name.startswith(part)}
    listed = _listed_files(found[MANIFEST_FILE], found[DIGEST_FILE])
    if set(found) != {*listed, MANIFEST_FILE, DIGEST_FILE} or any(map(_PART_NAME.fullmatch, listed)):
        raise ModelError(f"{part}{MANIFEST_FILE}: lists other files than there are; {_GET_AGAIN}")
    return found


def _read_recipe(settings: dict[str, Any]) -> Recipe:
    try:
        return Recipe.from_dict(settings)
    except InputError as error:
        raise ModelError(
            f"{MANIFEST_FILE}: the model was trained on other histograms than this histcxr counts ({error}); "
            "install the histcxr that saved it, or train the model anew"
        ) from error


def _check_probe(model: SavedModel, expected: NDArray[np.float64]) -> None:
    """Compare the scores of a made-up input with those at the time of saving."""
    try:
        scores = model.score(model.probe())  # type: ignore[arg-type]
    except Exception as error:
        raise ModelError(
            f"{ESTIMATOR_FILE}: the model cannot score ({type(error).__name__}: {error}); "
            "install the versions it was saved with, or train it anew"
        ) from error
    if expected.shape != scores.shape or not np.allclose(
        scores, expected, rtol=0, atol=_TOLERANCE[model.kind]
    ):
        raise ModelError(
            f"{ESTIMATOR_FILE}: the model scores differently here than where it was saved; install the "
            "versions it was saved with (see its manifest), or train it anew"
        )


def _digest_line(manifest: bytes) -> bytes:
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST_FILE}\n".encode()


def _read_folder(folder: Path, signed_by: _Path | None = None) -> dict[str, bytes]:
    """Read a model's files and check signature, digest, sizes and hashes; refuse whatever else lies in the folder."""
    if not folder.is_dir():
        what = "a file" if folder.exists() else "missing"
        raise NoModelError(f"a saved model is a folder, but this is {what}; check the path")
    if (folder / "model.json").is_file() and not os.path.lexists(folder / MANIFEST_FILE):
        raise ModelError(
            "this is a network in the format of an earlier histcxr, which is read no more; train it anew with "
            "histcxr reference train"
        )
    if not any(os.path.lexists(folder / name) for name in (MANIFEST_FILE, DIGEST_FILE)):
        raise NoModelError(f"{MANIFEST_FILE}: is missing, so this is no saved model; check the path")
    raw = _read_file(folder, MANIFEST_FILE, MAX_MANIFEST)
    if signed_by is not None:
        there = os.path.lexists(folder / SIGNATURE_FILE)
        check_signature(raw, _read_file(folder, SIGNATURE_FILE, 1024) if there else None, signed_by)
    line = _read_file(folder, DIGEST_FILE, 1024)
    listed = _listed_files(raw, line)
    expected = {*listed, MANIFEST_FILE, DIGEST_FILE, SIGNATURE_FILE}
    for entry in os.listdir(folder):
        if entry not in expected:
            raise ModelError(
                f"{entry!r:.80}: does not belong to the model; remove it, and ask who put it there"
            )
    files, left = {MANIFEST_FILE: raw, DIGEST_FILE: line}, MAX_WEIGHTS
    for name, facts in listed.items():
        size = facts.get("bytes") if isinstance(facts, dict) else None
        if not isinstance(size, int) or not 0 < size <= left:
            raise ModelError(f"{name}: is listed with {size!r:.40} bytes, which no model has; {_GET_AGAIN}")
        content = _read_file(folder, name, size)
        if len(content) != size:
            raise ModelError(
                f"{name}: has {len(content)} bytes instead of {size}, so a part is missing; {_GET_AGAIN}"
            )
        if hashlib.sha256(content).hexdigest() != facts.get("sha256"):
            raise ModelError(f"{name}: was damaged or changed after saving (SHA-256 differs); {_GET_AGAIN}")
        files[name], left = content, left - size
    return files


def _listed_files(raw: bytes, line: bytes) -> dict[str, Any]:
    """Check format version and digest of a manifest; return the files that it lists."""
    edited = (
        f"{MANIFEST_FILE}: does not match {DIGEST_FILE}, so one of the two was damaged or edited after "
        f"saving (thresholds hold only as certified); {_GET_AGAIN}"
    )
    try:
        manifest = parse_json(raw)
    except ValueError as error:
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
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not 0 < len(listed) <= MAX_FILES or not listed.keys() & _NEEDED:
        raise ModelError(f"{MANIFEST_FILE}: lists no usable set of files; {_GET_AGAIN}")
    for name in listed:
        if not (_WEIGHT_NAME.fullmatch(name) or _PART_NAME.fullmatch(name)):
            raise ModelError(
                f"{MANIFEST_FILE}: lists {name!r:.80}, which is no part of a model; do not use it"
            )
    return listed


def _read_file(folder: Path, name: str, limit: int) -> bytes:
    """Read one regular file of at most ``limit`` bytes, following no link and waiting for no pipe."""
    try:
        with open(folder / name, "rb", opener=lambda p, flags: os.open(p, flags | _NO_LINK)) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise IsADirectoryError(errno.EISDIR, "not a plain file")
            if facts.st_size > limit:
                raise ModelError(
                    f"{name}: has {facts.st_size} bytes, at most {limit} are expected; {_GET_AGAIN}"
                )
            return file.read(limit + 1)
    except FileNotFoundError:
        raise ModelError(f"{name}: is missing; {_GET_AGAIN}") from None
    except OSError as error:
        plain = error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO)  # link, folder or pipe, socket
        what = f"cannot be read ({error.strerror})" if plain else "is no plain file"
        raise ModelError(f"{name}: {what}; {_GET_AGAIN}") from error


_NO_LINK = os.O_NOFOLLOW | os.O_NONBLOCK
