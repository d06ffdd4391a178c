"""A process that does what ``ratios.py`` tells it, and says what it took.

Started as ``python ratio_worker.py``, with the package to measure on PYTHONPATH, or in an environment without it. Reads
one JSON object a line, ``{"task": NAME, ...}``, and answers with ``images``, seconds by the clock, and seconds of
processor (of all threads, and of the processes that the task started). Nothing is loaded that no task asks for, and a
task that cannot be done answers with the ``reason``.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CHUNK = 64  # images that a thread takes at a time


def columns(table: str) -> list[dict[str, str]]:
    """Read a list of files."""
    with open(table, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def in_threads(work: Callable[[str], object], files: Sequence[str], threads: int, chunk: int) -> int:
    """Do something with each file; return how many there are."""

    def some(part: Sequence[str]) -> None:
        for file in part:
            work(file)

    if threads == 1:
        some(files)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(some, [files[i : i + chunk] for i in range(0, len(files), chunk)]))
    return len(files)


def opencv(table: str, threads: int) -> int:
    """Decode images, and masks where there are any, with OpenCV and do nothing with them."""
    import cv2

    rows = columns(table)
    files = [file for row in rows for file in (row["image"], row.get("mask")) if file]
    in_threads(
        lambda file: cv2.imread(file, cv2.IMREAD_GRAYSCALE),
        files,
        threads,
        2 * CHUNK if len(files) > len(rows) else 1,
    )
    return len(rows)


def pydicom(table: str, threads: int) -> int:
    """Decode DICOM files with pydicom; with imagecodecs what no plugin of pydicom here decodes."""
    import imagecodecs
    from pydicom import dcmread
    from pydicom.encaps import get_frame

    def decode(file: str) -> Any:
        dataset = dcmread(file)
        try:
            return dataset.pixel_array
        except RuntimeError:
            return imagecodecs.jpeg8_decode(get_frame(dataset.PixelData, 0, number_of_frames=1))

    return in_threads(decode, [row["image"] for row in columns(table)], threads, 1)


@functools.cache
def boxed() -> Any:
    """Load the model in the box."""
    from histcxr.store import load_model

    return load_model()


def triage(table: str, threads: int, scratch: str) -> int:
    """Triage a list of images without masks with the model in the box."""
    from histcxr.worklist.engine import triage

    output = Path(scratch, f"worklist{os.getpid()}.csv")
    return triage(table, boxed(), output, n_jobs=threads, overwrite=True, trust_site=True).total


def extract(table: str, threads: int, zones: str, bands: str, cache: str | None = None) -> int:
    """Count images inside their masks."""
    import pandas as pd

    from histcxr.features.extraction import extract_features

    frame = pd.read_csv(table)
    return len(extract_features(frame, zones, threads, bands=bands, cache=cache))


@functools.cache
def trained(table: str, bands: str) -> Any:
    """Train a boosted model on six zones, alone or with bands."""
    from histcxr.data.manifest import read_manifest
    from histcxr.study.train import train

    manifest = read_manifest(table, require_labels=True)
    settings = {"sensitivity": 0.8, "specificity": 0.8, "confidence": 0.8, "n_jobs": 2}
    return train(manifest, classifiers="xgboost", zones=6, bands=bands, trials=0, **settings).models[
        "xgboost"
    ]


@functools.cache
def decoded(table: str) -> list[Any]:
    """Decode images with their masks."""
    from benchmarks.quality.reference_costs import decode

    return decode([(row["image"], row["mask"]) for row in columns(table)])


def score(table: str, bands: str) -> int:
    """Score decoded images with a histogram model, with every check that triage makes."""
    import numpy as np

    model, images = trained(table, bands), decoded(table)
    measured = np.stack([model.measure(pixels, lungs, "") for pixels, lungs in images])
    model.unfamiliar(measured)
    model.score(measured)
    return len(images)


@functools.cache
def network() -> Any:
    """Build a DenseNet121 that computes on one core."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from benchmarks.quality.reference_costs import limit_threads, yardstick

    limit_threads(1)
    return yardstick()


def densenet(table: str, images: int) -> int:
    """Score decoded images with it."""
    network().score(decoded(table)[:images])
    return images


def radiomics(table: str, images: int) -> int:
    """First-order features of PyRadiomics, as its documentation has it for two-dimensional images."""
    import logging

    import SimpleITK
    from radiomics import featureextractor, setVerbosity

    setVerbosity(logging.ERROR)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    extractor = featureextractor.RadiomicsFeatureExtractor(force2D=True, binCount=256)
    extractor.disableAllFeatures()
    extractor.enableFeatureClassByName("firstorder")
    for row in columns(table)[:images]:
        pixels, lungs = (
            SimpleITK.ReadImage(row["image"], SimpleITK.sitkUInt8),
            SimpleITK.ReadImage(row["mask"]),
        )
        if lungs.GetNumberOfComponentsPerPixel() > 1:
            lungs = SimpleITK.VectorIndexSelectionCast(lungs, 0)
        lungs = SimpleITK.Cast(lungs > 0, SimpleITK.sitkUInt8)
        if lungs.GetSize() != pixels.GetSize():
            spacing = [a / b for a, b in zip(pixels.GetSize(), lungs.GetSize(), strict=True)]
            lungs.SetSpacing(spacing)
            lungs.SetOrigin([(s - 1) / 2 for s in spacing])
            lungs = SimpleITK.Resample(lungs, pixels, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
        extractor.execute(SimpleITK.JoinSeries(pixels), SimpleITK.JoinSeries(lungs), label=1)
    return images


TASKS = {task.__name__: task for task in (opencv, pydicom, triage, extract, score, densenet, radiomics)}


def processor() -> float:
    """Seconds of processor of this process and of all that it started."""
    parents, spent = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            parents[name], spent[name] = words[1], sum(map(int, words[11:15]))
    family = {str(os.getpid())}
    while more := {name for name, parent in parents.items() if parent in family} - family:
        family |= more
    others = sum(spent[name] for name in family - {str(os.getpid())} if name in spent)
    waited = os.times()
    return (
        time.process_time()
        + waited.children_user
        + waited.children_system
        + others / os.sysconf("SC_CLK_TCK")
    )


def main() -> None:
    """Do tasks until there are none."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)  # the threads that are counted are the callers'
    for line in sys.stdin:
        asked = json.loads(line)
        before, began = processor(), time.perf_counter()
        try:
            images = TASKS[asked.pop("task")](**asked)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            answer = {"reason": f"{type(error).__name__}: {error}"[:300]}
        else:
            seconds = time.perf_counter() - began
            answer = {"images": images, "clock": seconds, "processor": processor() - before}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
