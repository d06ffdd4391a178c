"""Damaged radiographs in every encoding: how many are refused, and in which drawer do those lie that are not?

    python -m benchmarks.robustness.mutated_radiographs [--data DATA ...] [--images 120] [--mutations 10000]

Radiographs are encoded as PNG, JPEG, TIFF, BMP and DICOM of every transfer syntax that can be made here, by DCMTK
(``dcmcjpeg``, ``dcmcjpls``, ``dcmcrle``) and GDCM (``gdcmconv``) too where they are installed, and each file is damaged
in one way. What still decodes is held against the sound picture, both as they are judged, in the working image; more
than 2 % of the pixels off by more than 24 grey levels is visible damage. Such files, and the sound ones, then go
through a triage. With ``--side`` the radiographs are enlarged before, with noise. Without ``--data``, folders such as
``covid_full`` with a ``manifest.csv``, phantoms are taken, and no drawer can be trusted.

Prints Markdown tables. Exit status 1 when a sound file is refused, when more than 1 in 1,000 of the visibly damaged
files lie in rule_out, or any whose sound picture lies in review or rule_in; else 0.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import make_parser, publish, run
from benchmarks.robustness.stored_sizes import master
from histcxr.data.manifest import read_manifest
from histcxr.data.radiograph import WORKING_SIDE, decode_radiograph, read_radiograph
from histcxr.exceptions import UnjudgeableError
from histcxr.files.decoding import muted_decoders
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.dicom_files import SYNTAXES, encode_dicom
from histcxr.reports.tables import markdown_table
from histcxr.store import BOXED
from histcxr.worklist.engine import triage

LEVELS, SHARE = 24, 0.02  # visible damage: so many grey levels in so many pixels
WORST = 1e-3  # share of the visibly damaged that may lie in rule_out

Image = NDArray[np.uint8]

TIFFS = {"plain": 1, "LZW": 5, "PackBits": 32773, "deflate": 8}
JPEGS = {
    "grey": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 28],
    "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_QUALITY, 80],
}
TOOLS = {
    "DCMTK JPEG": "dcmcjpeg +un +eb +q 90 {} {}",
    "DCMTK JPEG progressive": "dcmcjpeg +un +ep +q 90 {} {}",
    "DCMTK JPEG 12 bits": "dcmcjpeg +un +ee +q 95 {} {}",
    "DCMTK lossless SV1": "dcmcjpeg +un +e1 {} {}",
    "DCMTK lossless": "dcmcjpeg +un +el {} {}",
    "DCMTK JPEG-LS": "dcmcjpls +el {} {}",
    "DCMTK RLE": "dcmcrle {} {}",
    "GDCM lossless": "gdcmconv --jpeg {} {}",
    "GDCM JPEG-LS": "gdcmconv --jpegls {} {}",
    "GDCM JPEG 2000": "gdcmconv --j2k {} {}",
    "GDCM JPEG 2000 lossy": "gdcmconv --j2k --irreversible -q 40 {} {}",
    "GDCM RLE": "gdcmconv --rle {} {}",
}
EIGHT_BITS = ("DCMTK JPEG", "DCMTK JPEG progressive", "GDCM JPEG 2000 lossy")


def encodings(image: Image, scratch: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, extension and bytes of every encoding of an image."""
    colours = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    yield "PNG", ".png", encoded(".png", image)
    yield "PNG colour", ".png", encoded(".png", colours)
    yield "PNG 16 bits", ".png", encoded(".png", image.astype(np.uint16) * 257)
    yield "BMP", ".bmp", encoded(".bmp", image)
    for name, options in JPEGS.items():
        yield f"JPEG {name}", ".jpg", encoded(".jpg", image, options)
    yield "JPEG colour", ".jpg", encoded(".jpg", colours)
    for name, scheme in TIFFS.items():
        yield f"TIFF {name}", ".tif", encoded(".tif", image, [cv2.IMWRITE_TIFF_COMPRESSION, scheme])
    deep = (image.astype(np.uint16) << 4) | 7
    raw = {8: encode_dicom(image), 12: encode_dicom(deep, bits=12)}
    yield "DICOM 8 bits", ".dcm", raw[8]
    yield "DICOM 12 bits", ".dcm", raw[12]
    for name in SYNTAXES:
        if name not in ("implicit", "explicit"):
            eight = name == "jpeg"
            pixels = image if eight else deep
            yield f"DICOM {name}", ".dcm", encode_dicom(pixels, bits=8 if eight else 12, syntax=name)
    for name, command in TOOLS.items():
        tool, *options = command.split()
        if shutil.which(tool):
            source, target = scratch / "in.dcm", scratch / "out.dcm"
            source.write_bytes(raw[8 if name in EIGHT_BITS else 12])
            paths = iter((str(source), str(target)))
            filled = [next(paths) if option == "{}" else option for option in options]
            subprocess.run([tool, *filled], check=True, capture_output=True)
            yield name, ".dcm", target.read_bytes()


def encoded(extension: str, pixels: NDArray[Any], options: Sequence[int] = ()) -> bytes:
    """Encode by OpenCV."""
    return cv2.imencode(extension, pixels, list(options))[1].tobytes()


def _run(data: bytes, rng: random.Random, share: float) -> tuple[int, int]:
    """Draw where a piece begins and how long it is: up to ``share`` of the file, small ones as likely as large."""
    length = max(1, int(len(data) * share ** rng.uniform(1, 4)))
    return rng.randrange(min(140, len(data) // 4), max(len(data) - length, 141)), length


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Single bits turned."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 30))):
        changed[_run(data, rng, 0.5)[0]] ^= 1 << rng.randrange(8)
    return bytes(changed)


def constant(data: bytes, rng: random.Random) -> bytes:
    """A piece that is one byte, mostly zero, as of a sector that was never written."""
    start, length = _run(data, rng, 0.6)
    byte = rng.choice((0, 0, 255, rng.randrange(256)))
    return data[:start] + bytes([byte]) * length + data[start + length :]


def tail(data: bytes, rng: random.Random) -> bytes:
    """An end of zeros or of one byte, as of a copy that stopped in a file made large beforehand."""
    length = max(1, int(len(data) * rng.uniform(0, 0.7)))
    return data[:-length] + bytes([rng.choice((0, 0, 255, rng.randrange(256)))]) * length


def removed(data: bytes, rng: random.Random) -> bytes:
    """A piece is missing."""
    start, length = _run(data, rng, 0.4)
    return data[:start] + data[start + length :]


def doubled(data: bytes, rng: random.Random) -> bytes:
    """A piece stands there twice."""
    start, length = _run(data, rng, 0.4)
    return data[: start + length] + data[start:]


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end is missing, or all of it but the last bytes."""
    kept = data[: rng.randrange(min(140, len(data) // 4), len(data))]
    return kept + (data[-rng.choice((2, 8, 10)) :] if rng.random() < 0.5 else b"")


def swapped(data: bytes, rng: random.Random) -> bytes:
    """Two pieces of equal length in each other's place."""
    first, length = _run(data, rng, 0.3)
    second = rng.randrange(first, len(data))
    length = min(length, second - first, len(data) - second)
    one, other = data[first : first + length], data[second : second + length]
    return data[:first] + other + data[first + length : second] + one + data[second + length :]


def marked(data: bytes, rng: random.Random) -> bytes:
    """A marker of JPEG or of JPEG 2000, written over two bytes, put between them, or changed."""
    marker = bytes(
        [0xFF, rng.choice((0xD9, 0xD0 + rng.randrange(8), 0x91, 0x90, 0xDA, 0xC4, rng.randrange(256)))]
    )
    known = [at for at in range(140, len(data) - 1) if data[at] == 0xFF and 0xC0 <= data[at + 1] < 0xFF]
    start = rng.choice(known) if known and rng.random() < 0.5 else _run(data, rng, 0.1)[0]
    return data[:start] + marker + data[start + 2 * rng.randrange(2) :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flipped, constant, tail, removed, doubled, cut, swapped, marked),
)


def visible(pixels: Image, sound: Image) -> bool:
    """Whether an image differs visibly from its sound version."""
    if pixels.shape != sound.shape:
        return True
    return bool(np.count_nonzero(cv2.absdiff(pixels, sound) > LEVELS) > SHARE * sound.size)


def radiographs(folders: Sequence[str], number: int, seed: int) -> Iterator[Image]:
    """Yield radiographs of the validation and test splits, as many of each folder; without folders, phantoms."""
    if not folders:
        for i in range(number):
            yield make_phantom(seed + i, sick=i % 2 == 0).image
    for folder in folders:
        table = read_manifest(folder)
        known = table[table["split"].isin(("val", "test"))]["image"]
        for path in known.sample(number // len(folders), random_state=seed):
            yield read_radiograph(path).pixels


def write_files(options: Any, folder: Path) -> list[dict[str, str]]:
    """Encode, damage and decode; write what is sound or visibly damaged. One record for each file made."""
    rng = random.Random(options.seed)
    for name in ("sound", "damaged"):
        (folder / name).mkdir()
    images = list(radiographs(options.data or [], options.images, options.seed))
    if options.side:
        noise = np.random.default_rng(options.seed)
        images = [master(image, noise, options.side) for image in images]
    records: list[dict[str, str]] = []
    count = sum(1 for _ in encodings(images[0], folder)) * len(images)
    each = -(-options.mutations // count)
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), initializer=_quietly) as pool:
        for number, image in enumerate(images):
            tasks = []
            for name, extension, data in encodings(image, folder):
                ways = []
                for _ in range(each):
                    way = rng.choice(MUTATIONS)
                    ways.append((way.__name__, way(data, rng)))
                tasks.append((f"{number:04} {name}{extension}", name, data, ways))
            for found, kept in pool.map(_judged, tasks, chunksize=4):
                records += found
                for place, data in kept.items():
                    (folder / place).write_bytes(data)
    return records


def _quietly() -> None:
    """Mute the decoders of a process for good."""
    muted_decoders().__enter__()


Task = tuple[
    str, str, bytes, list[tuple[str, bytes]]
]  # file, encoding, sound bytes, damaged ones and by which way


def _judged(task: Task) -> tuple[list[dict[str, str]], dict[str, bytes]]:
    """Decode an encoded radiograph and what was made of it; its records, and the files to be kept."""
    file, name, data, ways = task
    kept = {f"sound/{file}": data}
    try:
        sound = decode_radiograph(data, side=WORKING_SIDE).pixels
    except UnjudgeableError as error:
        return [{"encoding": name, "outcome": "sound, refused", "file": file, "detail": str(error)}], kept
    records = [{"encoding": name, "outcome": "sound, decoded", "file": file}]
    for turn, (way, damaged) in enumerate(ways):
        record = {"encoding": name, "way": way, "sound": file, "file": f"{turn} {file}"}
        try:
            pixels = decode_radiograph(damaged, side=WORKING_SIDE).pixels
        except UnjudgeableError as error:
            record |= {"outcome": "refused", "detail": f"{error.reason}: {error.detail}"}
        else:
            record["outcome"] = "visibly damaged" if visible(pixels, sound) else "harmless"
            if record["outcome"] == "visibly damaged":
                kept[f"damaged/{record['file']}"] = damaged
        records.append(record)
    return records, kept


def drawers(folder: Path, scratch: Path, options: Any) -> dict[str, str]:
    """Triage a folder and return the drawer of each file."""
    if not any(folder.iterdir()):
        return {}
    worklist = scratch / f"{folder.name}.csv"
    triage(folder, options.model, worklist, n_jobs=options.jobs, trust_site=True, overwrite=True)
    rows = pd.read_csv(worklist, dtype=str, keep_default_na=False)
    return dict(zip(rows["file"], rows["decision"], strict=True))


def figures(records: Sequence[dict[str, str]], found: dict[str, str], seconds: float) -> dict[str, Any]:
    """Count outcomes by encoding and by way, and moves from drawer to drawer."""
    outcomes = ("refused", "harmless", "visibly damaged")
    tables: dict[str, list[dict[str, Any]]] = {}
    for key in ("encoding", "way"):
        counts: dict[str, Counter[str]] = {}
        for record in records:
            if key in record:
                counts.setdefault(record[key], Counter())[record["outcome"]] += 1
        sound = ("sound, decoded", "sound, refused") if key == "encoding" else ()
        tables[key] = [
            {key: one, **{name: by[name] for name in (*sound, *outcomes)}} for one, by in counts.items()
        ]
    damaged = [record for record in records if record["outcome"] == "visibly damaged"]
    moves = Counter((found[one["sound"]], found[one["file"]]) for one in damaged)
    ruled_out = [one for one in damaged if found[one["file"]] == "rule_out"]
    total = Counter(record["outcome"] for record in records)
    worse = [one["file"] for one in ruled_out if found[one["sound"]] != "rule_out"]
    problems = [
        f"sound and refused: {one['detail']}" for one in records if one["outcome"] == "sound, refused"
    ]
    if len(ruled_out) > WORST * len(damaged):
        problems.append(f"{len(ruled_out)} of {len(damaged)} visibly damaged files lie in rule_out")
    problems += [f"moved to rule_out: {name}" for name in worse]
    return {
        "outcomes": dict(total),
        "by_encoding": tables["encoding"],
        "by_way": tables["way"],
        "moves": [{"before": old, "after": new, "files": n} for (old, new), n in sorted(moves.items())],
        "ruled_out": [
            {
                "encoding": one["encoding"],
                "way": one["way"],
                "before": found[one["sound"]],
                "file": one["file"],
            }
            for one in ruled_out
        ],
        "seconds": seconds,
        "problems": problems,
    }


def report(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    total = result["outcomes"]
    made = sum(total.get(name, 0) for name in ("refused", "harmless", "visibly damaged"))
    sound = total.get("sound, decoded", 0) + total.get("sound, refused", 0)
    said = (
        f"{sound:,} sound files, {total.get('sound, refused', 0)} refused. {made:,} mutations: "
        f"{total.get('refused', 0):,} refused, {total.get('harmless', 0):,} harmless, "
        f"{total.get('visibly damaged', 0):,} visibly damaged and read; of these "
        f"{len(result['ruled_out'])} in rule_out ({result['seconds']:.0f} s)."
    )
    tables = [result[name] for name in ("by_encoding", "by_way", "moves", "ruled_out") if result[name]]
    return "\n".join([*(markdown_table(rows) + "\n" for rows in tables), said]) + "".join(
        f"\n- broken: {problem}" for problem in result["problems"]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, damage, judge, print; say by the exit status whether every limit holds."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--data", nargs="+", action="extend", help="folders with a manifest.csv; else phantoms"
    )
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=0, help="enlarge radiographs to so many pixels")
    parser.add_argument(
        "--model", type=Path, help="a saved model, instead of the one that comes with histcxr"
    )
    parser.add_argument("--scratch", type=Path, help="where to write and to keep the files")
    options = parser.parse_args(arguments)
    options.model = options.model or BOXED
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, muted_decoders():
        scratch = Path(name) if options.scratch is None else options.scratch
        scratch.mkdir(exist_ok=True, parents=True)
        records = write_files(options, scratch)
        found: dict[str, str] = {}
        for folder in ("sound", "damaged"):
            found |= drawers(scratch / folder, scratch, options)
    result = figures(records, found, time.perf_counter() - start)
    publish(report(result), result, options.json)
    return int(bool(result["problems"]))


if __name__ == "__main__":
    run(main)
