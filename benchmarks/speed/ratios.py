"""Is triage as fast as decoding? One table of ratios: large files, small ones with masks, start-up, a network beside.

    python -m benchmarks.speed.ratios --data COLLECTIONS --json ratios.json
    python -m benchmarks.speed.ratios --data COLLECTIONS --only png start-up --old OTHER_CHECKOUT

COLLECTIONS holds ``radiography``, ``covid_full`` and ``chest_xray/val``. Files of 2,000 to 3,000 pixels are made from
``covid_full``, with a scanner's noise, in a temporary folder. The package here, that of another checkout (``--old``),
and what they are measured by take turns in processes of their own, each with one thread and with two; a ratio is the
median over turns. ``by processor`` is the same ratio of processor time, steadier on a busy machine; ``others`` is how
many cores other programs used meanwhile. Start-up is compared with a Python that imports NumPy and OpenCV. PyRadiomics:
``--peers-python`` of an environment with numpy, SimpleITK and pyradiomics.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from benchmarks.common import ROOT, last_line, make_parser, publish, run
from histcxr.data.manifest import read_manifest
from histcxr.exceptions import HistcxrError, InputError
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.reports.tables import markdown_table

WORKER = Path(__file__).with_name("ratio_worker.py")
NOISE = 4.0  # grey levels, of a pixel as the scanner made it
MADE = 8  # files of each kind that are made; each is read under several names
THREADS = (1, 2)

Row = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """Something measured beside its yardstick, both on one list of files; ``wanted``: the least ratio by threads."""

    name: str
    task: str
    by: str
    wanted: Mapping[int, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    by_extra: Mapping[str, Any] = field(default_factory=dict)
    threads: Sequence[int | None] = THREADS  # None: the task knows no threads


class Worker:
    """A process that does tasks; a context manager."""

    def __init__(self, python: str, home: Path) -> None:
        paths = os.pathsep.join(filter(None, (str(home), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [python, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def do(self, task: str, **arguments: Any) -> Row:
        """Do a task; return what it took, or InputError with the reason why it cannot be done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"task": task, **arguments}), file=self._process.stdin, flush=True)
        answer: Row = json.loads(self._process.stdout.readline() or '{"reason": "the process ended"}')
        if "reason" in answer:
            raise InputError(answer["reason"])
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def write_list(place: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write a list of files as CSV."""
    with open(place, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return place


def links(files: Sequence[Path], folder: Path, number: int) -> list[Mapping[str, object]]:
    """Give files more names; return the rows of a list."""
    folder.mkdir()
    rows = []
    for i in range(number):
        source = files[i % len(files)]
        place = folder / f"{i:04}{source.suffix}"
        place.symlink_to(source)
        rows.append({"image": place})
    return rows


def large(source: Path, side: int, seed: int) -> np.ndarray:
    """Enlarge a radiograph to what a scanner would have made, with noise in each pixel: uint8."""
    pixels = cv2.imread(str(source), cv2.IMREAD_GRAYSCALE).astype(np.float32)
    pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC)
    pixels += NOISE * np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def make(kind: str, sources: Sequence[Path], folder: Path, largest: int) -> list[Path]:
    """Write large files of one kind: ``jpg``, ``png``, or a transfer syntax of DICOM, with 12 bits."""
    folder.mkdir()

    def one(i: int) -> Path:
        pixels = large(sources[i], 2000 + (largest - 2000) * i // max(1, len(sources) - 1), i)
        place = folder / f"{i}.{kind if len(kind) == 3 else 'dcm'}"
        if len(kind) == 3:
            cv2.imwrite(str(place), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_PNG_COMPRESSION, 4])
        else:
            place.write_bytes(encode_dicom(pixels.astype(np.uint16) << 4, bits=12, syntax=kind))
        return place

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(len(sources))))


def full_size(data: Path, kind: str, scratch: Path) -> tuple[Block, Path]:
    """Return a block about large files, and their list."""
    name, task, wanted, number, largest = FULL[kind]
    sources = sorted((data / "covid_full" / "Normal" / "images").iterdir())[:MADE]
    if kind == "val":
        files = sorted((data / "chest_xray" / "val").rglob("*.jpeg"))
    else:
        files = make(kind, sources, scratch / f"made {kind}", largest)
    if not files:
        raise InputError(f"no radiograph in {data}")
    place = write_list(scratch / f"{kind}.csv", links(files, scratch / f"links {kind}", number))
    block = Block(name, "triage", task, dict.fromkeys(THREADS, wanted), {"scratch": str(scratch)})
    return block, place


#: Of each kind of large file: what it is called, its yardstick, the least ratio, how many are read, the longest side.
FULL = {
    "val": ("triage, full-size JPEG as published", "opencv", 1.0, 64, 0),
    "jpg": ("triage, JPEG of 2,000 to 3,000 pixels", "opencv", 1.0, 64, 3000),
    "png": ("triage, PNG of 2,000 to 3,000 pixels", "opencv", 0.75, 48, 3000),
    "explicit": ("triage, DICOM, uncompressed", "pydicom", 0.75, 64, 3000),
    "jpeg lossless": ("triage, DICOM, JPEG lossless", "pydicom", 0.75, 32, 3000),
    "jpeg 2000": ("triage, DICOM, JPEG 2000", "pydicom", 0.75, 16, 2000),
}


def small(data: Path, name: str, images: int, scratch: Path) -> tuple[Block, Path]:
    """Return a block about files of 224 pixels, and their list."""
    folder = data / ("covid_full" if name == "small" else "radiography")
    if name in ("score-6", "score-travel"):  # to train on, too
        images = 600
    table = read_manifest(folder, require_labels=True).sample(images, random_state=0)
    rows = table if name != "small" else table[["image"]]
    place = write_list(scratch / f"{name}.csv", rows.to_dict("records"))
    for_score: Row = {"by": "densenet", "by_extra": {"images": 16}, "threads": (None,)}
    blocks = {
        "small": Block("triage, JPEG of 224 pixels", "triage", "opencv", {}, {"scratch": str(scratch)}),
        "zones": Block(
            "extraction, zones 6", "extract", "opencv", {1: 0.85, 2: 0.8}, {"zones": "6", "bands": ""}
        ),
        "travel": Block(
            "extraction, travel bands", "extract", "opencv", {}, {"zones": "6", "bands": "travel"}
        ),
        "full": Block("extraction, all bands", "extract", "opencv", {}, {"zones": "1+6", "bands": "full"}),
        "score-6": Block(
            "decoded to scored, zones 6", "score", extra={"bands": ""}, wanted={1: 300}, **for_score
        ),
        "score-travel": Block(
            "decoded to scored, travel bands", "score", extra={"bands": "travel"}, wanted={1: 60}, **for_score
        ),
        "radiomics": Block(
            "extraction, zones 1",
            "extract",
            "radiomics",
            {},
            {"zones": "1", "bands": ""},
            {"images": 60},
            (1,),
        ),
    }
    return blocks[name], place


SMALL = ("small", "zones", "travel", "full", "score-6", "score-travel", "radiomics")


def busy() -> float:
    """Seconds that all cores together worked since the machine started."""
    try:
        words = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    except OSError:
        return 0.0
    return (sum(map(int, words[:8])) - int(words[3]) - int(words[4])) / os.sysconf("SC_CLK_TCK")


def measure(
    block: Block, table: Path, workers: Mapping[str, Worker], seconds: float, turns: int
) -> list[Row]:
    """Let the packages and the yardstick take turns; one row for each number of threads."""
    few = table.with_suffix(".few.csv")
    few.write_text("".join(islice(open(table, encoding="utf-8"), 9)), encoding="utf-8")  # noqa: SIM115

    def take(name: str, threads: int | None, table: Path) -> Row:
        yardstick = name not in ("new", "old")
        settings = dict(block.by_extra if yardstick else block.extra, table=str(table))
        if threads is not None and name != "radiomics":
            settings["threads"] = threads
        return workers[name].do(block.by if yardstick else block.task, **settings)

    names = [name for name in ("new", "old", block.by) if name in workers]
    for name in names:  # whatever is loaded or compiled once is not counted
        take(name, block.threads[0], table if block.threads[0] is None else few)
    found: dict[tuple[str, int | None], list[Row]] = {}
    began, busy_before, own = time.perf_counter(), busy(), 0.0
    while len(found.get(("new", block.threads[0]), ())) < turns or time.perf_counter() - began < seconds:
        for threads in block.threads:
            for name in names:
                took = take(name, threads, table)
                own += took["processor"]
                found.setdefault((name, threads), []).append(took)
    others = max(0.0, (busy() - busy_before - own) / (time.perf_counter() - began))

    def ratio(what: str, one: tuple[str, int | None], other: tuple[str, int | None]) -> float | None:
        if one not in found or other not in found:
            return None
        pairs = zip(found[one], found[other], strict=True)
        return median((b[what] / b["images"]) / (a[what] / a["images"]) for a, b in pairs)

    rows = []
    for threads in block.threads:
        own_key, by_key, old_key = ("new", threads), (block.by, threads), ("old", threads)
        row = {
            "what": block.name,
            "threads": threads or 1,
            "images a second": median(one["images"] / one["clock"] for one in found[own_key]),
            "beside": block.by,
            "ratio": ratio("clock", own_key, by_key),
            "by processor": ratio("processor", own_key, by_key),
            "wanted": block.wanted.get(threads or 1),
            "of one thread": ratio("clock", own_key, ("new", 1)) if threads not in (None, 1) else None,
            "of the old": ratio("clock", own_key, old_key),
            "of the old, by processor": ratio("processor", own_key, old_key),
            "others": others,
            "turns": len(found[own_key]),
        }
        rows.append(row)
    return rows


START = """
import atexit, runpy, sys
from pathlib import Path
def told():
    lines = Path("/proc/self/status").read_text().splitlines()
    print("peak", next(line.split()[1] for line in lines if line.startswith("VmHWM")), file=sys.stderr)
atexit.register(told)
if sys.argv[1:]:
    runpy.run_module("histcxr", run_name="__main__", alter_sys=True)
else:
    import cv2, numpy
"""


def start_up(file: Path, homes: Mapping[str, Path], scratch: Path, turns: int) -> list[Row]:
    """Triage one file by the command line, beside a Python that imports NumPy and OpenCV and ends."""
    found: dict[str, list[tuple[float, float]]] = {}
    began, busy_before, own = time.perf_counter(), busy(), 0.0
    for _ in range(turns + 1):
        for name, home in {**homes, "imports": ROOT}.items():
            output = ["triage", str(file), "-o", str(scratch / "one.csv"), "--overwrite", "--trust-site"]
            command = [sys.executable, "-c", START, *(() if name == "imports" else output)]
            before, times = time.perf_counter(), os.times()
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env={**os.environ, "PYTHONPATH": str(home)},
                check=False,
            )
            seconds, after = time.perf_counter() - before, os.times()
            own += after.children_user + after.children_system - times.children_user - times.children_system
            if done.returncode not in (0, 3):
                raise HistcxrError(f"a triage of {file} failed: {last_line(done.stderr)}")
            found.setdefault(name, []).append((seconds, int(done.stderr.split()[-1]) / 1024))
    others = max(0.0, (busy() - busy_before - own) / (time.perf_counter() - began))
    clock = {name: median(one[0] for one in values[1:]) for name, values in found.items()}
    peak = {name: median(one[1] for one in values[1:]) for name, values in found.items()}
    rows = []
    for what, figures, wanted in (("one file, seconds", clock, 1.2), ("one file, peak MiB", peak, 200.0)):
        row = {
            "what": what,
            **figures,
            "wanted": wanted,
            "new of imports": figures["new"] / figures["imports"],
        }
        rows.append({**row, "others": others, "turns": turns})
    return rows


def shown(rows: Sequence[Row]) -> str:
    """Lay rows out as a Markdown table."""
    return markdown_table(
        [
            {
                key: "" if value is None else f"{value:.3g}" if isinstance(value, float) else value
                for key, value in row.items()
            }
            for row in rows
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = make_parser(
        __doc__, data="folder with radiography, covid_full and chest_xray", jobs=None, seed=False
    )
    every = (*FULL, *SMALL, "start-up")
    parser.add_argument(
        "--only", nargs="+", choices=every, default=every, metavar="BLOCK", help=", ".join(every)
    )
    parser.add_argument("--old", type=Path, help="another checkout, to be measured in the same turns")
    parser.add_argument("--seconds", type=float, default=15, help="of a block, at least (default: 15)")
    parser.add_argument("--turns", type=int, default=3, help="of a block, at least (default: 3)")
    parser.add_argument("--images", type=int, default=1000, help="small files to draw (default: 1000)")
    parser.add_argument("--peers-python", help="interpreter of an environment with PyRadiomics")
    given = parser.parse_args(arguments)

    cv2.setNumThreads(1)
    data, rows, starts, skipped = Path(given.data).resolve(), [], [], {}
    homes = {"new": ROOT} | ({"old": given.old.resolve()} if given.old else {})
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for kind in given.only:
            try:
                if kind == "start-up":
                    file = next((data / "chest_xray" / "val").rglob("*.jpeg"))
                    starts = start_up(file, homes, scratch, 2 + given.turns)
                    continue
                if kind == "radiomics" and given.peers_python is None:
                    raise InputError("no --peers-python")
                block, table = (
                    full_size(data, kind, scratch)
                    if kind in FULL
                    else small(data, kind, given.images, scratch)
                )
                workers = {name: Worker(sys.executable, home) for name, home in homes.items()}
                python = given.peers_python if kind == "radiomics" else sys.executable
                workers[block.by] = Worker(python, ROOT)
                try:
                    rows += measure(block, table, workers, given.seconds, given.turns)
                finally:
                    for worker in workers.values():
                        worker.__exit__()
            except InputError as error:
                skipped[kind] = str(error)
    text = "\n\n".join(filter(None, (rows and shown(rows), starts and shown(starts))))
    for kind, reason in skipped.items():
        text += f"\n\n{kind} was left out: {reason}"
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    publish(
        f"{load}\n\n{text}",
        {"load": load, "ratios": rows, "start-up": starts, "skipped": skipped},
        given.json,
    )


if __name__ == "__main__":
    run(main)
