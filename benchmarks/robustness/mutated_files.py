"""One row for each file, whatever it holds: thousands of damaged DICOM and PNG files through a whole triage.

Phantoms are written as PNG (8 and 16 bits, colour, palette) and as DICOM in every transfer syntax that can be
encoded here, and each copy is damaged in one way: bits flipped, cut off, pieces missing, heads and tails of
different files spliced, absurd sizes, absurd lengths, damage below the checksums, and sound files that unpack to
the largest image accepted. A triage in a process of its own sorts all of them. Then a second process
triages each file alone, to time it: seconds of processor, which other work on the machine does not lengthen.

    python -m benchmarks.robustness.mutated_files --files 5000 --json mutated.json

Prints Markdown tables. Exit status 1 when a process crashes, hangs or needs more than 1 GiB, when a file takes more
than 5 seconds, has no row of its own, or meets an error that nobody foresaw; else 0.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import make_parser, publish, run
from benchmarks.mutations import MUTATIONS
from benchmarks.robustness.triaged import all_at_once, each_alone, names_of
from benchmarks.speed.triage_memory import phantom_model
from histcxr.exceptions import Reason
from histcxr.files.writing import encode_image, write_mask
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.broken_files import huge_png, palette_png
from histcxr.phantoms.dicom_files import SYNTAXES, encode_dicom, lut_item
from histcxr.reports.tables import markdown_table

SECONDS = 5  # a file may take
BYTES = 2**30  # a process may take
BOMB_SIDE = 8192  # pixels; the largest square that is accepted
BOMBS = 24  # files in a row, so that threads meet several at once
PATIENCE = 900  # seconds without an end that count as a hang, and SECONDS more for every hundred files


def sound_files(seed: int = 0) -> dict[str, bytes]:
    """Return the files that damage is done to, by name; the extension says PNG or DICOM."""
    image = make_phantom(seed, sick=True, size=(160, 144)).image
    deep = image.astype(np.uint16) << 4
    tags = {
        "ViewPosition": "PA",
        "WindowCenter": [2048, 100],
        "WindowWidth": [4096, 50],
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "PatientOrientation": ["L", "F"],
        "PatientName": "Doe^Jane",
    }
    shades = lut_item(np.arange(4096), 0, 12)
    files = {
        "8 bit.png": encode_image(image),
        "16 bit.png": encode_image(image.astype(np.uint16) * 257),
        "rgb.png": encode_image(np.dstack([image] * 3)),
        "rgba.png": encode_image(np.dstack([image, image, image, np.full_like(image, 255)])),
        "palette.png": palette_png(image),
        "jpeg.dcm": encode_dicom(image, syntax="jpeg", tags=tags),
        "explicit 8 bit.dcm": encode_dicom(image, tags=tags),
        "rle 8 bit.dcm": encode_dicom(image, syntax="rle", tags=tags),
        "voi lut.dcm": encode_dicom(deep, bits=12, tags={"VOILUTSequence": [shades]}),
        "modality lut.dcm": encode_dicom(
            deep, bits=12, syntax="implicit", tags={"ModalityLUTSequence": [shades]}
        ),
    }
    for name in SYNTAXES:
        if name != "jpeg":
            files[f"{name}.dcm"] = encode_dicom(deep, bits=12, syntax=name, tags=tags)
    return files


def bombs() -> dict[str, bytes]:
    """Return sound little files that unpack to the largest image accepted."""
    ground = np.zeros((BOMB_SIDE, BOMB_SIDE), np.uint16)
    return {
        "1 bit.png": huge_png(BOMB_SIDE),
        "16 bit.png": encode_image(ground),
        "deflated.dcm": encode_dicom(ground, syntax="deflated"),
        "jpeg-ls.dcm": encode_dicom(ground, syntax="jpeg-ls"),
        "jpeg 2000.dcm": encode_dicom(ground, syntax="jpeg 2000"),
        "jpeg.dcm": encode_dicom(ground.astype(np.uint8), syntax="jpeg"),
    }


def write_mutated(folder: Path, files: int, unmasked: float, seed: int = 0) -> None:
    """Write damaged copies, half of them PNG, with lung masks for all but a share of them."""
    rng = random.Random(seed)
    sound, large = sound_files(seed), bombs()
    mask = make_phantom(seed, size=(160, 144)).mask
    write_mask(folder / "masks" / "mask.png", mask)
    kinds = {suffix: [name for name in sound if name.endswith(suffix)] for suffix in (".png", ".dcm")}
    others = list(sound.values())
    names = list(large) * BOMBS
    for i in range(files):
        bomb = i - files // 2
        if 0 <= bomb < BOMBS:
            way, name = "bomb", names[bomb]
            content = large[name]
        else:
            way, name = rng.choice(list(MUTATIONS)), rng.choice(kinds[rng.choice((".png", ".dcm"))])
            content = MUTATIONS[way](sound[name], rng, others)
        place = Path(f"{i:05} {way} {name}")
        (folder / place).write_bytes(content)
        if rng.random() >= unmasked:
            (folder / "masks" / f"{place.stem}.png").hardlink_to(folder / "masks" / "mask.png")
    (folder / "masks" / "mask.png").unlink()


def counts_of(rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Count rows by drawer and reason, for each format."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        key = (row["decision"], row["reason_code"])
        found.setdefault(key, Counter())[row["file"].rpartition(".")[2]] += 1
    ordered = sorted(found.items(), key=lambda one: (one[0][1] != "", one[0][0], -one[1].total()))
    return [
        {"drawer": drawer, "reason": reason or "(judged)", "PNG": by["png"], "DICOM": by["dcm"]}
        for (drawer, reason), by in ordered
    ]


def measure(folder: Path, model: Path, output: Path, *, segment: bool, jobs: int) -> dict[str, Any]:
    """Triage the folder, then each file alone, and say which limits are broken."""
    names = names_of(folder)
    patience = PATIENCE + len(names) / 100 * SECONDS
    rows, whole = all_at_once(
        folder, model, output / "worklist.csv", segment=segment, jobs=jobs, patience=patience
    )
    each = each_alone(folder, model, segment=segment)
    slowest = sorted(each, key=lambda one: -one["processor"])[:5]
    unforeseen = [row["file"] for row in rows if row["reason_code"] == Reason.UNEXPECTED]
    peaks = {"whole": whole.get("peak_bytes", 0), "each": max((one["bytes"] for one in each), default=0)}
    problems = [f"the triage: {whole['problem']}"] if "problem" in whole else []
    problems += [
        f"{one['file']}: {one['ended']}: {one['detail']}" for one in each if one["ended"] != "judged"
    ]
    if not problems and sorted(row["file"] for row in rows) != names:
        problems.append(f"{len(names)} files gave {len(rows)} rows")
    problems += [
        f"{one['file']} took {one['processor']:.1f} s" for one in slowest if one["processor"] > SECONDS
    ]
    problems += [f"{kind}: {peak / 2**20:.0f} MiB" for kind, peak in peaks.items() if peak > BYTES]
    problems += [f"unforeseen: {name}" for name in unforeseen[:20]]
    return {
        "files": len(names),
        "rows": len(rows),
        "jobs": jobs,
        "seconds": whole.get("seconds"),
        "peak_bytes": peaks["whole"],
        "peak_bytes_one_by_one": peaks["each"],
        "slowest": [{"file": one["file"], "seconds": one["processor"]} for one in slowest],
        "median_seconds": float(np.median([one["processor"] for one in each])),
        "unexpected": len(unforeseen),
        "counts": counts_of(rows),
        "problems": problems,
    }


def report(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    slowest = [
        {"slowest files, each alone": one["file"], "seconds": f"{one['seconds']:.2f}"}
        for one in result["slowest"]
    ]
    whole, alone = (result[name] / 2**20 for name in ("peak_bytes", "peak_bytes_one_by_one"))
    lines = [markdown_table(rows) + "\n" for rows in (result["counts"], slowest) if rows]
    lines.append(
        f"{result['files']:,} files, {result['rows']:,} rows, {result['unexpected']} unforeseen errors. Peak memory "
        f"{whole:.0f} MiB with {result['jobs']} threads; for one file alone {alone:.0f} MiB more; limit "
        f"{BYTES / 2**20:.0f} MiB. Limit {SECONDS} s of processor a file."
    )
    return "\n".join(lines + [f"- broken: {problem}" for problem in result["problems"]])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, triage, measure, print; say by the exit status whether every limit holds."""
    parser = make_parser(__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--unmasked", type=float, default=0.5, help="share of the files without a lung mask")
    parser.add_argument("--no-segment", action="store_true", help="leave files without a lung mask to review")
    parser.add_argument("--model", type=Path, help="a saved model, instead of one trained on phantoms")
    parser.add_argument("--scratch", type=Path, help="where to write; by default the temporary folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        folder = scratch / "mutated"
        (folder / "masks").mkdir(parents=True)
        write_mutated(folder, options.files, options.unmasked, options.seed)
        model = options.model or phantom_model(scratch)
        result = measure(folder, model, scratch, segment=not options.no_segment, jobs=options.jobs)
    publish(report(result), result, options.json)
    return int(bool(result["problems"]))


if __name__ == "__main__":
    run(main)
