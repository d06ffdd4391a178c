"""Models from strangers: thousands of saved models, each changed to do harm, with right hashes.

Small models of every kind are trained on made-up histograms and images and saved. Each mutant is a copy that is changed
in one to three places: values of the manifest, types, names and shared parts of the weights, numbers and shapes of
arrays, XGBoost's trees, bytes, or one of the attacks below (bombs of JSON and of zeros, parts that hold each other,
pipes, devices, paths to download from). All hashes are made right again. A process with a limit on its address space
(1 GiB over what it holds with the sound model loaded), on each mutant's seconds of processor (10) and on its seconds
(30) loads it, and where it loads, scores with it and writes its card.

    python -m benchmarks.robustness.fuzzed_models --files 1000 --json fuzzed.json

Prints a Markdown table. Exit status 1 when a process is killed by a signal or meets the limits, or when an error is no
sentence of ours; else 0.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import make_parser, publish, run
from benchmarks.one_by_one import one_by_one, watch
from histcxr.decision.thresholds import certify
from histcxr.features.recipe import Recipe
from histcxr.lungs.segmenter import load_segmenter
from histcxr.models.registry import make_classifier
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.broken_files import MUTATIONS
from histcxr.reports.card import model_card
from histcxr.reports.tables import markdown_table
from histcxr.store import Model, ReferenceModel, load_model, save_model

SECONDS, WAITING = 10, 30  # of processor, and in all, that a mutant may take
BYTES = 2**30  # over the sound model
KINDS = ("svm", "xgboost", "random-forest", "knn", "stack", "lenet", "network", "segmenter")
WORKER = "import sys; from benchmarks.robustness.fuzzed_models import work; work(*sys.argv[1:])"

Rng = random.Random
Files = dict[str, bytes]

HOSTILE: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        255,
        2**20,
        10**9,
        2**31 - 1,
        2**31,
        2**63,
        10**30,
        0.5,
        -0.5,
        2.0,
        1e308,
    ),
    *(
        float("nan"),
        float("inf"),
        "",
        "x" * 300,
        "imagenet",
        "/dev/zero",
        "../../etc/passwd",
        "\u0000\u202e\x1b[2J",
    ),
    *([], {}, [[]], [None], [0] * 1000, ["a", "b"], {"a": {"b": []}}, {"__loader__": "ListNode"}),
)


def make_models(folder: Path, kinds: Sequence[str], seed: int) -> None:
    """Train a small model of each kind and save it below ``folder``."""
    rng = np.random.default_rng(seed)
    sick = np.arange(120) % 2
    centre = 110 + 25 * sick[:, None, None] + rng.normal(0, 15, (120, 2, 1))
    counts = rng.poisson(200 * np.exp(-((np.arange(256) - centre) ** 2) / 1000)).astype(np.int64)
    for kind in kinds:
        if kind == "segmenter":
            (folder / kind).mkdir()
            (folder / kind / "lungs.onnx").write_bytes(
                resources.files("histcxr.lungs").joinpath("lungs.onnx").read_bytes()
            )
        elif kind == "network":
            save_model(_network(), folder / kind)
        else:
            classifier = make_classifier(kind, zones=2)
            few = {name: 8 for name in classifier.get_params() if name.endswith("n_estimators")}
            if kind == "lenet":
                few = {"classifier__cv": 2, "classifier__estimator__epochs": 1}
            classifier.set_params(**few).fit(counts, sick)
            chosen = certify(np.repeat(classifier.predict_proba(counts)[:, 1], 2), np.repeat(sick, 2), None)
            papers: dict[str, Any] = {
                "training": {"val": {"images": 120, "patients": 120, "sick": 60}, "notes": ["made up"]},
                "card": {"limits": ["made up"], "sources": [{"name": "a", "what": "b", "licence": "c"}]},
            }
            save_model(Model(kind, classifier, Recipe(2), *chosen, **papers), folder / kind)


def _network() -> ReferenceModel:
    from histcxr.reference.classifier import ReferenceClassifier
    from histcxr.reference.images import InputSettings
    from histcxr.reference.small_networks import ConvOptions

    inputs, sick = InputSettings(32, "full"), np.arange(24) % 2
    pixels = np.stack([inputs.prepare(make_phantom(i, sick=bool(s)).image, None) for i, s in enumerate(sick)])
    network = ReferenceClassifier(
        "cnn3", inputs=inputs, epochs=1, validation_fraction=0.0, options=ConvOptions(filters=(4, 8))
    )
    scores = network.fit(pixels, sick).predict_proba(pixels)[:, 1]
    return ReferenceModel(network, ("normal", "sick"), "normal", *certify(scores, sick, None))


# ---- changes


def change_json(document: Any, rng: Rng) -> Any:
    """Change one place of a JSON document: another value, none, twice, or what stands elsewhere in it."""
    holder, key = None, None
    place = document
    while isinstance(place, dict | list) and place and (holder is None or rng.random() < 0.85):
        holder = place
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        place = place[key]
    if holder is None:
        return rng.choice(HOSTILE)
    way = rng.random()
    if isinstance(place, str) and key == "content":  # JSON within JSON, as skops writes it
        holder[key] = json.dumps(rng.choice(HOSTILE))
    elif way < 0.6:
        holder[key] = rng.choice(HOSTILE)
    elif way < 0.7:
        del holder[key]
    elif way < 0.8 and isinstance(holder, list):
        holder.extend(json.loads(json.dumps([place])) * rng.choice((1, 3, 500)))
    elif way < 0.9 and isinstance(place, int | float):
        holder[key] = place + rng.choice((-1, 1, 0.5, 10**6))
    else:
        holder[key] = json.loads(json.dumps(rng.choice(_parts(document))))
    return document


def _parts(document: Any) -> list[Any]:
    found, waiting = [], [document]
    while waiting:
        item = waiting.pop()
        found.append(item)
        waiting.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
    return found[1:] or [None]


def change_array(content: bytes, rng: Rng) -> bytes:
    """Change a number, the shape or the type of an array."""
    array = np.load(io.BytesIO(content)).copy()
    way = rng.randrange(6)
    flat = array.reshape(-1)
    if way < 3 and array.size:
        fields = [flat] if array.dtype.names is None else [flat[rng.choice(array.dtype.names)]]
        if fields[0].dtype.kind in "iufb":
            with np.errstate(all="ignore"):
                bad = rng.choice((-1, 0, 1, 2, 255, 10**9, -(10**9), 2**62, np.nan, np.inf, 1e38))
                if fields[0].dtype.kind != "f" and not np.isfinite(bad):
                    bad = 7
                places = rng.sample(range(array.size), min(array.size, rng.choice((1, 5, 10**6))))
                fields[0][places] = np.asarray(bad).astype(fields[0].dtype)
    elif way == 3 and array.dtype.names is None:
        with contextlib.suppress(ValueError, RuntimeError):  # a number that the other type cannot hold
            array = array.astype(
                rng.choice(("<f4", "<f8", "<i4", "<i8", "?", "<c16", "<U3", ">f8", "<M8[s]"))
            )
    elif way == 4:
        array = rng.choice(
            (flat, flat[:0], flat[: len(flat) // 2], array[None], array[:-1] if array.ndim else flat)
        )
    else:
        array = np.concatenate([flat] * rng.choice((2, 50)))
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _unzipped(content: bytes) -> tuple[Any, Files]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist() if name != "schema.json"}
        return json.loads(archive.read("schema.json")), arrays


def _zipped(schema: Any, arrays: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("schema.json", schema if isinstance(schema, bytes) else json.dumps(schema))
        for name, content in arrays.items():
            archive.writestr(name, content)
    return out.getvalue()


def mutate_model(files: Files, rng: Rng) -> Files:
    """Return the files of a model, changed in one to three places, or by an attack."""
    files = dict(files)
    if rng.random() < 0.15:
        rng.choice(ATTACKS)(files, rng)
        return files
    boosters = [name for name in files if name.startswith("booster")]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        way = rng.choice(("manifest", "schema", "array", "array", "booster", "booster", "bytes"))
        if way == "booster" and boosters:
            name = rng.choice(boosters)
            files[name] = gzip.compress(_json(change_json(json.loads(gzip.decompress(files[name])), rng)), 1)
        elif way == "manifest":
            files["manifest.json"] = _json(change_json(json.loads(files["manifest.json"]), rng))
        elif way == "bytes":
            name = rng.choice(list(files))
            files[name] = (
                MUTATIONS[rng.choice(list(MUTATIONS))](files[name], rng, list(files.values())) or b"x"
            )
            if way == "bytes":
                break
        else:
            schema, arrays = _unzipped(files["estimator.skops"])
            if way == "schema" or not arrays:
                schema = change_json(schema, rng)
            else:
                name = rng.choice(list(arrays))
                arrays[name] = change_array(arrays[name], rng)
            files["estimator.skops"] = _zipped(schema, arrays)
    return files


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


def many_lists(files: Files, rng: Rng) -> None:
    """Small lists by the million: bytes that Python's objects make thirty times larger."""
    bomb = b"[" + b"[]," * (10 * 10**6) + b"[]]"
    where = rng.choice(list(files))
    if where.startswith("booster"):
        files[where] = gzip.compress(bomb, 1)
    elif where == "estimator.skops":
        files[where] = _zipped(bomb, _unzipped(files[where])[1])
    else:
        files["manifest.json"] = (
            files["manifest.json"].rstrip()[:-1] + b',"more":' + bomb[: 15 << 20 | 1] + b"[]]}"
        )


def many_zeros(files: Files, rng: Rng) -> None:
    """An array of zeros, a thousand times as large as its file."""
    schema, arrays = _unzipped(files["estimator.skops"])
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out, {"descr": "<f8", "fortran_order": False, "shape": (rng.choice((9, 40)) << 20,)}
    )
    shape = int(re.findall(rb"\((\d+),", out.getvalue())[0])
    arrays[rng.choice(list(arrays))] = out.getvalue() + bytes(8 * shape)
    files["estimator.skops"] = _zipped(schema, arrays)


def laughs(files: Files, rng: Rng) -> None:
    """Lists that hold one list ten times, which does the same: 10**9 parts in a few lines."""
    schema, arrays = _unzipped(files["estimator.skops"])
    text = {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": "1",
        "is_json": True,
    }
    node: Any = text
    for level in range(9):
        inner = {
            "__class__": "list",
            "__module__": "builtins",
            "__loader__": "ListNode",
            "__id__": 10**6 + level,
        }
        short = {**inner, "content": []}
        node = (
            {**inner, "content": [node] + [{**node, "content": short["content"]}] * 9}
            if level
            else {
                **inner,
                "content": [node] * 10,
            }
        )
    places = [
        part for part in _parts(schema) if isinstance(part, dict) and isinstance(part.get("content"), dict)
    ]
    place = rng.choice(places)["content"]
    inside = place.get("content", place) if isinstance(place.get("content", place), dict) else place
    if inside:
        inside[rng.choice(list(inside))] = node
    files["estimator.skops"] = _zipped(schema, arrays)


def same_array(files: Files, rng: Rng) -> None:
    """One large array under many names."""
    schema, arrays = _unzipped(files["estimator.skops"])
    name = rng.choice(list(arrays))
    out = io.BytesIO()
    np.save(out, np.zeros(4 << 20))
    arrays[name] = out.getvalue()
    nodes = [one for one in _parts(schema) if isinstance(one, dict) and one.get("file") == name]
    lists = [one for one in _parts(schema) if isinstance(one, dict) and isinstance(one.get("content"), list)]
    if nodes and lists:
        rng.choice(lists)["content"].extend({**nodes[0], "__id__": 10**6 + i} for i in range(200))
    files["estimator.skops"] = _zipped(schema, arrays)


def circle(files: Files, rng: Rng) -> None:
    """A part that holds itself."""
    schema, arrays = _unzipped(files["estimator.skops"])
    held = [part for part in _parts(schema) if isinstance(part, dict) and "__loader__" in part]
    part = rng.choice(held)
    inner = [one for one in _parts(part) if isinstance(one, dict) and "__loader__" in one]
    if inner:
        part["__id__"] = rng.choice(inner)["__id__"] = 10**6
    files["estimator.skops"] = _zipped(schema, arrays)


def large_setting(files: Files, rng: Rng) -> None:
    """A setting that is a whole number becomes one that asks for all memory or time."""
    schema, arrays = _unzipped(files["estimator.skops"])
    nodes = [
        one for one in _parts(schema) if isinstance(one, dict) and str(one.get("content", "x")).isdigit()
    ]
    for node in rng.sample(nodes, min(len(nodes), rng.choice((1, 3)))):
        node["content"] = str(rng.choice((300, 1000, 2048, 4000, 10**5, 10**7, 10**9, 2**62)))
    files["estimator.skops"] = _zipped(schema, arrays)


def to_fetch(files: Files, rng: Rng) -> None:
    """Name a file to read or weights to download among the arguments of a network, and other settings' texts."""
    schema, arrays = _unzipped(files["estimator.skops"])
    bad = rng.choice(("imagenet", "/dev/zero", "/etc/passwd", "https://example.org/x.h5"))
    node = {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(bad),
        "is_json": True,
    }
    tables = [one for one in _parts(schema) if isinstance(one, dict) and one.get("__loader__") == "DictNode"]
    for part in rng.sample(tables, (len(tables) + 1) // 2):
        kinds = part["key_types"]["content"]
        if kinds:
            part["content"]["weights"] = node
            kinds.append({**kinds[0], "__id__": 10**6 + len(kinds)})
    files["estimator.skops"] = _zipped(schema, arrays)


ATTACKS: tuple[Callable[[Files, Rng], None], ...] = (
    *(many_lists, many_zeros, laughs, same_array, circle),
    *(large_setting, large_setting, large_setting, to_fetch, to_fetch),
)


def mutate_onnx(content: bytes, rng: Rng) -> bytes:
    """Change bytes of an ONNX file, or wrap in it what no network for lungs has."""
    way = rng.random()
    if way < 0.5:
        return MUTATIONS[rng.choice(list(MUTATIONS))](content, rng, [content])
    if way < 0.8:  # small bytes of the head of a node or a tensor
        changed = bytearray(content)
        for _ in range(rng.choice((1, 2, 20))):
            place = rng.choice(
                [m.start() for m in re.finditer(b"Conv|kernel_shape|strides|pads|kernel|bias", content)]
            )
            changed[max(0, place + rng.randrange(-12, 40))] = rng.randrange(256)
        return bytes(changed)
    old, new = rng.choice(
        (
            (b"Relu", b"Loop"),
            (b"Relu", b"Scan"),
            (b"pads", b"Pads"),
            (b"Sigmoid", b"Reshape"),
            (b"Concat", b"Expand"),
        )
    )
    return content.replace(old, new, rng.choice((1, 100)))


def write_mutant(sound: Path, folder: Path, kind: str, rng: Rng) -> None:
    """Write one mutant of a sound model."""
    files = {path.name: path.read_bytes() for path in sorted(sound.iterdir())}
    folder.mkdir()
    if kind == "segmenter":
        files["lungs.onnx"] = mutate_onnx(files["lungs.onnx"], rng)
    else:
        del files["manifest.sha256"]
        files = _sealed(mutate_model(files, rng))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if rng.random() < 0.03:  # what is no plain file
        place = folder / rng.choice(list(files))
        place.unlink()
        rng.choice((os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")))(place)


def _sealed(files: Files) -> Files:
    """Make sizes and hashes right again, as somebody would who knows the format."""
    try:
        manifest = json.loads(files["manifest.json"])
        for name, facts in manifest["files"].items():
            facts.update(bytes=len(files[name]), sha256=hashlib.sha256(files[name]).hexdigest())
        files["manifest.json"] = _json(manifest)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass  # the list itself is what was changed
    digest = hashlib.sha256(files["manifest.json"]).hexdigest()
    return {**files, "manifest.sha256": f"{digest}  manifest.json\n".encode()}


# ---- the process that opens them


def use(folder: Path, kind: str) -> None:
    """Do with a model what triage and the commands do."""
    if kind == "segmenter":
        segmenter = load_segmenter(folder / "lungs.onnx")
        segmenter.segment([make_phantom(1).image] * 2)
        return
    model = load_model(folder)
    probe = model.probe()
    rng = np.random.default_rng(0)
    seen: Any = rng.integers(0, 200, (16, *probe.shape[1:]), np.int64).astype(probe.dtype)
    scores = model.score(seen)
    model.drawers(scores, {})
    model.unfamiliar(seen)
    if model.site is not None:
        model.site_numbers(seen)
    model.caveats(3, "")
    model_card(model.describe())
    repr(model)
    model._repr_html_()


def work(kind: str, sound: str, scratch: str, seed: str, first: str, last: str) -> None:
    """Open mutants one after the other."""
    warnings.simplefilter("ignore")
    use(Path(sound), kind)
    folder = Path(scratch) / "mutant"

    def make(number: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        write_mutant(Path(sound), folder, kind, Rng(f"{seed} {kind} {number}"))

    def load(_: None) -> tuple[str, str]:
        use(folder, kind)
        return "loaded", ""

    watch(range(int(first), int(last)), make, load, waiting=WAITING, seconds=SECONDS, memory=BYTES)


def fuzz(kind: str, sound: Path, scratch: Path, files: int, seed: int) -> list[dict[str, Any]]:
    """Open the mutants of one model, in as many processes as it takes; return how each ended."""
    return one_by_one(WORKER, (kind, sound, scratch, seed), files, WAITING)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, change, open, print; say by the exit status whether every limit holds."""
    parser = make_parser(__doc__, jobs=None)
    parser.add_argument("--files", type=int, default=1000, help="mutants of each kind (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--scratch", type=Path, help="where to write; by default the temporary folder")
    options = parser.parse_args(arguments)
    table, found = [], {}
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        make_models(scratch, options.kinds, options.seed)
        for kind in options.kinds:
            rows = fuzz(kind, scratch / kind, scratch, options.files, options.seed)
            ends = Counter(row["ended"] for row in rows)
            ends["slow"] = sum(row["seconds"] > SECONDS for row in rows)
            ends["large"] = sum(row["bytes"] > BYTES for row in rows)
            bad = [row for row in rows if row["ended"] not in ("loaded", "refused")]
            found[kind] = {"ends": dict(ends), "bad": bad}
            table.append(
                {
                    "kind": kind,
                    "mutants": len(rows),
                    "refused": ends["refused"],
                    "loaded": ends["loaded"],
                    "signals": ends["signal"],
                    "hangs": ends["hang"] + ends["slow"],
                    "over 1 GiB": ends["memory"] + ends["large"],
                    "tracebacks": ends["traceback"],
                    "slowest (s)": f"{max(row['seconds'] for row in rows):.1f}",
                    "most memory (MiB)": f"{max(row['bytes'] for row in rows) / 2**20:.0f}",
                }
            )
            print(f"{kind}: {dict(ends)}", file=sys.stderr, flush=True)
    broken = [
        f"- {kind} {row['number']}: {row['ended']}: {row['detail']}"
        for kind, one in found.items()
        for row in one["bad"]
    ]
    publish("\n".join([markdown_table(table), *broken]), {"table": table, "found": found}, options.json)
    over = ("signals", "hangs", "over 1 GiB", "tracebacks")
    return int(any(row[key] for row in table for key in over))


if __name__ == "__main__":
    run(main)
