"""What models cost on a CPU: seconds an image and memory.

Imported by compare_cnn.py, and started by it once a model as a process of its own for the peak of memory.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.common import last_line, peak_bytes, run, start
from histcxr.data.masks import read_mask
from histcxr.data.radiograph import check_lungs, read_radiograph
from histcxr.exceptions import HistcxrError
from histcxr.networks.backend import import_neural
from histcxr.reference.images import InputSettings
from histcxr.store import Judge, load_model

#: The yardstick of cost: what the field takes for radiographs, with random weights, for they cost the same.
YARDSTICK, YARDSTICK_SIZE = "densenet121", 224

Image: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.bool_]]
Score: TypeAlias = Callable[[Sequence[Image]], NDArray[np.float64]]


@dataclass(frozen=True)
class Contender:
    """A model whose time is taken: decoded images with their masks to scores."""

    name: str
    score: Score


def contender(name: str, model: Judge) -> Contender:
    """Return a model with all that triage does between decoding and drawer: check, measure, score, know."""

    def score(images: Sequence[Image]) -> NDArray[np.float64]:
        measured = np.stack([model.measure(pixels, lungs, "") for pixels, lungs in images])
        model.unfamiliar(measured)
        return model.score(measured)

    return Contender(name, score)


def together(name: str, first: Contender, then: Contender) -> Contender:
    """Return two models whose scores are weighed."""
    return Contender(name, lambda images: (first.score(images) + then.score(images)) / 2)


def joules() -> float | None:
    """Return what the processor has used since some moment, in joules (RAPL); None where it does not tell."""
    try:
        files = sorted(
            Path("/sys/class/powercap").glob("intel-rapl:?/energy_uj")
        )  # AMD's, too, has that name
        return sum(int(file.read_text()) for file in files) / 1e6 if files else None
    except OSError:
        return None


def yardstick(name: str = YARDSTICK, size: int = YARDSTICK_SIZE) -> Contender:
    """Return a network with random weights on full images."""
    from histcxr.networks.training import class_scores
    from histcxr.reference.architectures import build_architecture

    network, settings = build_architecture(name, size=size), InputSettings(size, "full")

    def score(images: Sequence[Image]) -> NDArray[np.float64]:
        return class_scores(network, _squares(images, settings)[..., None])[:, 1]

    return Contender(f"{name}, {size} px", score)


def _squares(images: Sequence[Image], settings: InputSettings) -> NDArray[np.uint8]:
    squares = np.empty((len(images), settings.size, settings.size), np.uint8)
    for row, (pixels, lungs) in enumerate(images):
        check_lungs(pixels, lungs)
        squares[row] = settings.prepare(pixels, lungs)
    return squares


def decode(files: Sequence[tuple[str, str]]) -> list[Image]:
    """Read radiographs and their masks."""
    images = []
    for image, mask in files:
        pixels = read_radiograph(image).pixels
        images.append((pixels, read_mask(mask, (pixels.shape[0], pixels.shape[1]))))
    return images


def take_times(
    contenders: Sequence[Contender], files: Sequence[tuple[str, str]], *, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Let models take turns, so that a busy machine slows all of them alike; the last one is the yardstick.

    Each turn has as many images (a power of two, since networks are compiled for those) as fill about ``seconds``;
    ``files``, pairs of image and mask, are repeated where a fast model needs more. The first round is not counted.

    Returns
    -------
    list of dict
        Per model ``model, images`` (of a turn), ``decoded_ms`` and ``file_ms`` (of an image, median over rounds),
        ``decoded_per_second``, ``file_per_second``, ``millijoules`` (of an image and the whole processor, None where
        it does not tell), ``times_cheaper`` (median over rounds of the yardstick's decoded
        time divided by its own) and ``times_cheaper_from_file``.
    """
    decoded = decode(files)
    sizes = [_images_in(contender, decoded, seconds) for contender in contenders]
    spent: list[dict[str, list[float]]] = [{"decoded": [], "file": [], "energy": []} for _ in contenders]
    for round_ in range(rounds + 1):
        for place, (contender, size) in enumerate(zip(contenders, sizes, strict=True)):
            rows = [number % len(files) for number in range(size)]
            images, paths = [decoded[row] for row in rows], [files[row] for row in rows]
            used, start = joules(), time.perf_counter()
            contender.score(images)
            middle, after = time.perf_counter(), joules()
            again = time.perf_counter()
            contender.score(decode(paths))
            end = time.perf_counter()
            if round_:
                spent[place]["decoded"].append((middle - start) / size)
                spent[place]["file"].append((end - again) / size)
                if (
                    used is not None and after is not None and after > used
                ):  # the counter begins anew at times
                    spent[place]["energy"].append((after - used) / size)
    last = spent[-1]
    rows_out = []
    for contender, size, own in zip(contenders, sizes, spent, strict=True):
        row: dict[str, Any] = {"model": contender.name, "images": size}
        for kind in ("decoded", "file"):
            middle_time = statistics.median(own[kind])
            row[f"{kind}_ms"] = 1e3 * middle_time
            row[f"{kind}_per_second"] = 1 / middle_time
        row["millijoules"] = 1e3 * statistics.median(own["energy"]) if own["energy"] else None
        row["times_cheaper"] = _ratio(last["decoded"], own["decoded"])
        row["times_cheaper_from_file"] = _ratio(last["file"], own["file"])
        rows_out.append(row)
    return rows_out


def _ratio(slow: list[float], own: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, own, strict=True))


def _images_in(contender: Contender, decoded: Sequence[Image], seconds: float, most: int = 1024) -> int:
    """Return the power of two of images that fills about ``seconds``, from 8 on."""
    size = 8
    while True:
        images = [decoded[number % len(decoded)] for number in range(size)]
        contender.score(images)  # whatever is compiled once is not counted
        start = time.perf_counter()
        contender.score(images)
        taken = time.perf_counter() - start
        if taken * 1.5 >= seconds or size >= most:
            return size
        size *= 2


def peak_memory(kind: str, path: str, files: Sequence[tuple[str, str]]) -> int:
    """Return the most bytes that a process holds which loads one model and scores the files, nothing else."""
    done = start(["-m", "benchmarks.quality.reference_costs", kind, path], stdin=json.dumps(list(files)))
    if done.returncode:
        raise HistcxrError(f"{path}: the process that measures memory failed: {last_line(done.stderr)}")
    return int(done.stdout.split()[-1])


def limit_threads(threads: int) -> None:
    """Let every library compute with so many threads; call it before anything is computed."""
    cv2.setNumThreads(threads)
    threadpool_limits(threads)  # OpenMP and BLAS, so XGBoost and scikit-learn
    backend = import_neural("keras", "to compare networks").backend.backend()
    if backend == "tensorflow":
        config = import_neural("tensorflow", "to compare networks").config
        config.set_visible_devices([], "GPU")  # costs are those of a CPU
        threading = config.threading
        threading.set_intra_op_parallelism_threads(threads)
        threading.set_inter_op_parallelism_threads(threads)
    elif backend == "torch":
        import_neural("torch", "to compare networks").set_num_threads(threads)


def main() -> None:
    """Load one model, score the files named on standard input, print the peak of memory in bytes."""
    kind, path = sys.argv[1:]
    images = decode([tuple(pair) for pair in json.load(sys.stdin)])
    if kind == "yardstick":
        name, _, size = path.partition("@")
        found = yardstick(name, int(size))
    else:
        found = contender(path, load_model(path))
    found.score(images)
    print(peak_bytes())


if __name__ == "__main__":
    run(main)
