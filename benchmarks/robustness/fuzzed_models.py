"""Models from strangers: thousands of saved models, each changed to do harm, with right hashes.

Small models of every kind are trained on made-up histograms and images and saved. Each mutant is a copy that is changed
in one to three places: values of the manifest, types, names and shared parts of the weights, numbers and shapes of
arrays, XGBoost's trees, bytes, or an attack of :mod:`benchmarks.robustness.model_attacks` (bombs of JSON and of zeros,
parts that hold each other, pipes, devices, paths to download from). All hashes are made right again. A process with a
limit on its address space (1 GiB over what it holds with the sound model loaded) loads each mutant, and where it loads,
scores with it and writes its card.

What hangs is told by seconds of processor (10), which other work on the machine does not lengthen. The clock (120
seconds) only ends what waits and takes no processor, such as for a pipe; what it showed is printed beside.

    python -m benchmarks.robustness.fuzzed_models --files 1000 --json fuzzed.json

Prints a Markdown table. Exit status 1 when a process is killed by a signal or meets the limits, or when an error is no
sentence of ours; else 0.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import make_parser, publish, run
from benchmarks.one_by_one import one_by_one, watch
from benchmarks.robustness.model_attacks import mutate_model, mutate_onnx, sealed
from histcxr.decision.thresholds import certify
from histcxr.features.recipe import Recipe
from histcxr.lungs.segmenter import load_segmenter
from histcxr.models.registry import make_classifier
from histcxr.phantoms.anatomy import make_phantom
from histcxr.reports.card import model_card
from histcxr.reports.tables import markdown_table
from histcxr.store import Model, ReferenceModel, load_model, save_model

SECONDS, WAITING = 10, 120  # of processor; by the clock, for what waits without any
BYTES = 2**30  # over the sound model
KINDS = ("svm", "xgboost", "random-forest", "knn", "stack", "lenet", "network", "segmenter")
WORKER = "import sys; from benchmarks.robustness.fuzzed_models import work; work(*sys.argv[1:])"


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


def write_mutant(sound: Path, folder: Path, kind: str, rng: random.Random) -> None:
    """Write one mutant of a sound model."""
    files = {path.name: path.read_bytes() for path in sorted(sound.iterdir())}
    folder.mkdir()
    if kind == "segmenter":
        files["lungs.onnx"] = mutate_onnx(files["lungs.onnx"], rng)
    else:
        del files["manifest.sha256"]
        files = sealed(mutate_model(files, rng))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if rng.random() < 0.03:  # what is no plain file
        place = folder / rng.choice(list(files))
        place.unlink()
        rng.choice((os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")))(place)


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
        write_mutant(Path(sound), folder, kind, random.Random(f"{seed} {kind} {number}"))

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
            ends["slow"] = sum(row["processor"] > SECONDS for row in rows)
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
                    "slowest (s of processor)": f"{max(row['processor'] for row in rows):.1f}",
                    "by the clock": f"{max(row['seconds'] for row in rows):.1f}",
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
