"""What does a graphics card (GPU) spare? Each training here, on the card and on the processor, in one run.

    python -m benchmarks.speed.gpu --json gpu.json

Three parts on made-up data, each in a process of its own on either device: the search of the 1-D LeNet (trials a minute
of one process, and of several that share the card), XGBoost, and training and inference of a reference network, in
single and in mixed precision. Its images lie on the device: a step copies the numbers of its rows and nothing else.
Keras runs on TensorFlow where that sees the card, else on JAX or torch. Without a card it says why and ends (exit code
0); `--device cpu` runs all parts on the processor alone, `--images`, `--size` and `--epochs` make them small. What does
not fit into `--minutes` is left out and said.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from subprocess import TimeoutExpired
from typing import Any, Final

import numpy as np

from benchmarks.common import last_line, make_parser, publish, run, start
from histcxr.exceptions import HistcxrError
from histcxr.networks.backend import import_neural
from histcxr.reports.tables import markdown_table

BACKENDS: Final = ("tensorflow", "jax", "torch")
PARTS: Final = ("lenet", "xgboost", "network")
# A process leaves the card's memory to the others; the processor's processes do not see the card.
SHARED: Final = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
HIDDEN: Final = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
ZONES: Final = 6


def cards(backend: str) -> list[str]:
    """Name the cards that a backend sees; an error of its own where it is broken."""
    module: Any = importlib.import_module(backend)
    if backend == "tensorflow":
        found = module.config.list_physical_devices("GPU")
        return [
            str(module.config.experimental.get_device_details(one).get("device_name", one.name))
            for one in found
        ]
    if backend == "jax":
        return [str(one.device_kind) for one in module.devices() if one.platform == "gpu"]
    return [module.cuda.get_device_name(number) for number in range(module.cuda.device_count())]


def choose() -> tuple[str | None, str]:
    """Return the first backend that sees a card, with its name; or None, and why not."""
    reasons = []
    for backend in (os.environ["KERAS_BACKEND"],) if "KERAS_BACKEND" in os.environ else BACKENDS:
        if find_spec(backend) is None:
            reasons.append(f"{backend} is not installed")
            continue
        done = start(["-m", "benchmarks.speed.gpu", "--cards", backend], timeout=180)
        found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else []
        if found:
            return backend, found[0]
        reasons.append(
            f"{backend} sees no card" if done.returncode == 0 else f"{backend}: {last_line(done.stderr)}"
        )
    return None, "; ".join(reasons)


def counts(images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make histograms (n, zones, 256) of two classes, and patients."""
    rng = np.random.default_rng(0)
    sick = np.arange(images) % 2
    grey = np.arange(256)
    centre = rng.normal(110 + 12 * sick[:, None], 20, (images, ZONES))
    shape = np.exp(-(((grey - centre[..., None]) / 30) ** 2))
    return rng.poisson(40 * shape), sick, np.arange(images)


def lenet(options: argparse.Namespace) -> dict[str, float]:
    """Train LeNets one after the other, as a search does; the first, which compiles, is not counted."""
    from histcxr.models.lenet import LeNetClassifier

    data, sick, patients = counts(options.images)
    seconds = []
    for seed in range(1 + options.trials):
        begun = time.perf_counter()
        network = LeNetClassifier(epochs=options.epochs, patience=options.epochs, random_state=seed)
        network.fit(data, sick, groups=patients)
        seconds.append(time.perf_counter() - begun)
    return {"trials a minute": 60 / float(np.mean(seconds[1:]))}


def xgboost(options: argparse.Namespace) -> dict[str, float]:
    """Fit and score the histograms' XGBoost; the second time, for the first one prepares the card."""
    from histcxr.models.registry import make_classifier

    data, sick, _ = counts(options.images)
    device = "cuda" if options.device == "gpu" else "cpu"
    for _ in range(2):
        begun = time.perf_counter()
        model = make_classifier("xgboost", zones=ZONES, n_jobs=options.jobs, device=device).fit(data, sick)
        fitted = time.perf_counter()
        model.predict_proba(data)
        scored = time.perf_counter()
    return {
        "images a second, fit": len(sick) / (fitted - begun),
        "images a second, score": len(sick) / (scored - fitted),
    }


def rows_on_device(keras: Any, images: np.ndarray) -> Any:
    """Return a layer that gives the images (n, side, side, 1) of row numbers (n,), which lie on the device."""

    class Rows(keras.layers.Layer):
        def build(self, _: Any) -> None:
            self.images = self.add_weight(
                shape=images.shape, dtype="uint8", initializer="zeros", trainable=False, name="images"
            )
            self.images.assign(images)

        def call(self, rows: Any) -> Any:
            return keras.ops.cast(keras.ops.take(self.images, rows, axis=0), "float32")

    return Rows(name="rows")


def network(options: argparse.Namespace) -> dict[str, float]:
    """Train all of a reference network and score with it, in single and in mixed precision, compiled as Keras does."""
    keras = import_neural("keras", "to train a network")
    from histcxr.reference.architectures import build_architecture

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.images, options.size, options.size, 1), np.uint8)
    rows, sick = np.arange(options.images, dtype="int32"), np.arange(options.images) % 2
    found: dict[str, float] = {}
    for policy in ("float32", "mixed_bfloat16") if options.device == "gpu" or options.mixed else ("float32",):
        keras.config.set_dtype_policy(policy)
        inner = build_architecture(options.architecture, size=options.size, unfrozen="all")
        numbers = keras.Input((), dtype="int32")
        model = keras.Model(numbers, inner(rows_on_device(keras, images)(numbers)))
        model.compile(
            "adam",
            loss="sparse_categorical_crossentropy",
            jit_compile="auto",
            steps_per_execution=options.steps,
        )
        how = {"batch_size": options.batch, "verbose": 0}
        model.fit(rows, sick, epochs=1, **how)  # compiles
        begun = time.perf_counter()
        model.fit(rows, sick, epochs=options.epochs, **how)
        trained = time.perf_counter()
        model.predict(rows, **how)
        again = time.perf_counter()
        model.predict(rows, **how)
        done = time.perf_counter()
        found[f"images a second, training, {policy}"] = options.epochs * len(rows) / (trained - begun)
        found[f"images a second, inference, {policy}"] = len(rows) / (done - again)
    return found


def measure(
    part: str, device: str, options: argparse.Namespace, backend: str, until: float, at_once: int = 1
) -> dict[str, Any]:
    """Run one part on one device in processes of its own; its figures, summed over processes, or why there are none."""
    left = until - time.monotonic()
    if left < 20:
        return {"not run": "no time was left"}
    images = options.images if device == "gpu" or options.device == "cpu" else max(64, options.images // 8)
    command = ["-m", "benchmarks.speed.gpu", "--part", part, "--device", device, "--images", images]
    for name in ("size", "epochs", "batch", "trials", "architecture", "jobs", "steps"):
        command += [f"--{name}", getattr(options, name)]
    before = dict(os.environ)
    os.environ.update({"KERAS_BACKEND": backend, **(SHARED if device == "gpu" else HIDDEN)})
    try:
        with ThreadPoolExecutor(at_once) as pool:
            tasks = [pool.submit(start, command, timeout=left) for _ in range(at_once)]
            done = [task.result() for task in tasks]
    except TimeoutExpired:
        return {"not run": f"more than the {left:.0f} s that were left"}
    finally:
        os.environ.clear()
        os.environ.update(before)
    bad = [one for one in done if one.returncode]
    if bad:
        return {"not run": last_line(bad[0].stderr)}
    figures = [json.loads(one.stdout.splitlines()[-1]) for one in done]
    return {name: sum(one[name] for one in figures) for name in figures[0]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all parts on both devices and print the table."""
    parser = make_parser(__doc__, seed=False)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: the processor alone")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it")
    parser.add_argument("--images", type=int, default=8192, help="an eighth of them on the processor")
    parser.add_argument("--size", type=int, default=224, help="side of the network's images")
    parser.add_argument("--architecture", default="mobilenet")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="training steps that run without the host")
    parser.add_argument("--trials", type=int, default=4, help="of the search, in each process")
    parser.add_argument("--at-once", type=int, default=8, help="processes of the search that share the card")
    parser.add_argument("--mixed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--cards", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.cards:
        print(json.dumps(cards(options.cards)))
        return
    if options.part:
        print(json.dumps(globals()[options.part](options)))
        return
    until = time.monotonic() + 60 * options.minutes
    backend, said = (
        choose()
        if options.device == "gpu"
        else (os.environ.get("KERAS_BACKEND", BACKENDS[0]), "none asked for")
    )
    if backend is None:
        publish(f"skipped: no GPU can be used here ({said})", {"skipped": said}, options.json)
        return
    devices = ("gpu", "cpu") if options.device == "gpu" else ("cpu",)
    found: list[dict[str, Any]] = []
    for part, at_once in (("network", 1), ("xgboost", 1), ("lenet", 1), ("lenet", options.at_once)):
        for device in devices:
            if at_once > 1 and device == "cpu" and len(devices) > 1:
                continue  # one process has all cores already
            print(f"{part} on the {device}, {at_once} at once ...", file=sys.stderr)
            own = measure(part, device, options, backend, until, at_once)
            found.append({"part": part, "device": device, "at once": at_once, "figures": own})
    if not any("not run" not in one["figures"] for one in found):
        raise HistcxrError(f"no part could be run: {found[0]['figures']['not run']}")
    table = [
        {**{key: one[key] for key in ("part", "device", "at once")}, "figure": name, "value": _shown(value)}
        for one in found
        for name, value in one["figures"].items()
    ]
    about = f"\n{said if options.device == 'gpu' else 'Processor alone'}; {os.cpu_count()} cores; Keras on {backend}."
    content = {"card": said, "backend": backend, "cores": os.cpu_count(), "parts": found}
    publish(markdown_table(table) + "\n" + about, content, options.json)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


if __name__ == "__main__":
    run(main)
