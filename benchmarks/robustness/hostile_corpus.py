"""Nothing gets in, nothing gets lost: every attack on the reading of files, made from scratch and triaged.

Small files that ask for much (:mod:`benchmarks.robustness.hostile_files`), what is no plain file, a file that grows,
and radiographs of the sick whose damage decoders pass over. A process triages each alone, so that its seconds and its
memory are known, that of decoding processes included; what ends the process costs one row, and another goes on. Then
one triage sorts all of them at once.

    python -m benchmarks.robustness.hostile_corpus --json hostile.json

Prints a Markdown table. Exit status 1 when a damaged file is ruled out, a process crashes or hangs, an error is
unforeseen, a file takes more than 5 seconds of processor or 1 GiB over what the process held before, or rows are not
files.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import last_line, make_parser, publish, run
from benchmarks.one_by_one import one_by_one, watch
from benchmarks.robustness.hostile_files import (
    COSTLY,
    damaged_files,
    growing_file,
    radiograph,
    write_special_files,
)
from benchmarks.speed.triage_memory import phantom_model
from histcxr.files.writing import encode_image
from histcxr.reports.tables import markdown_table

SECONDS, WAITING = 5, 120  # that a file may take; after which it counts as a hang
BYTES = 2**30  # over what the process held
WORKER = "import sys; from benchmarks.robustness.hostile_corpus import work; work(*sys.argv[1:])"
GROWING = "grows.png"


def write_corpus(folder: Path, seed: int, copies: int, names: Sequence[str] = ()) -> dict[str, str]:
    """Write all files, or those whose names hold one of ``names``; return the kind of each."""
    folder.mkdir()
    kinds: dict[str, str] = {}

    def wanted(name: str) -> bool:
        return not names or any(part in name for part in names)

    for name, make in COSTLY.items():
        if wanted(name):
            (folder / name).write_bytes(make())
            kinds[name] = "costly"
    for name, data in damaged_files(seed, copies):
        if wanted(name):
            (folder / name).write_bytes(data)
            kinds[name] = "damaged"
    if not names:
        kinds |= dict.fromkeys(write_special_files(folder), "no plain file")
        for i in range(copies):
            (folder / f"{i} sound.png").write_bytes(encode_image(radiograph(seed + i, sick=i % 2 == 1)))
            kinds[f"{i} sound.png"] = "sound"
    return kinds


def work(folder: str, model: str, first: str, last: str) -> None:
    """Triage files one after the other; what each became is its detail."""
    from histcxr.files.decoding import muted_decoders
    from histcxr.lungs.segmenter import load_segmenter
    from histcxr.store import load_model
    from histcxr.worklist.engine import triage

    loaded, finder = load_model(model), load_segmenter()
    names = sorted(os.listdir(folder))
    output = Path(folder).parent / "single.csv"
    with tempfile.TemporaryDirectory() as place:  # imports and caches, before anything is measured
        sound = Path(place) / "sound.png"
        sound.write_bytes(encode_image(radiograph(0)))
        triage(sound, loaded, Path(place) / "sound.csv", segmenter=finder)

    def use(name: str) -> tuple[str, str]:
        with muted_decoders():
            triage(Path(folder) / name, loaded, output, segmenter=finder, overwrite=True)
        (row,) = read_rows(output)
        return "judged", f"{row['decision']} {row['reason_code']}"

    watch(range(int(first), int(last)), names.__getitem__, use, waiting=WAITING)


def read_rows(worklist: Path) -> list[dict[str, str]]:
    """Return the rows of a worklist."""
    with worklist.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def triage_all(folder: Path, model: Path, output: Path, jobs: int) -> tuple[list[dict[str, str]], str]:
    """Triage the folder by the command, while a file in it grows; return its rows, and how it ended if not well."""
    growing = growing_file(folder / GROWING)
    command = [
        sys.executable,
        "-m",
        "histcxr",
        "triage",
        folder,
        "-m",
        model,
        "-o",
        output,
        "--jobs",
        str(jobs),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * WAITING, check=False)
    except subprocess.TimeoutExpired:
        return [], "no end"
    finally:
        growing.send_signal(signal.SIGKILL)
        growing.wait()
        (folder / GROWING).unlink()
    if done.returncode not in (0, 3):
        return [], f"status {done.returncode}: {last_line(done.stderr)}"
    return read_rows(output), ""


def table_of(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Count the files of each kind."""
    table = []
    for kind in sorted({one["kind"] for one in found}):
        rows = [one for one in found if one["kind"] == kind]
        reasons = Counter(one["reason"] or "judged" for one in rows)
        table.append(
            {
                "kind": kind,
                "files": len(rows),
                "rule_out": sum(one["decision"] == "rule_out" for one in rows),
                "review": sum(one["decision"] == "review" for one in rows),
                "reasons": ", ".join(f"{name} {n}" for name, n in reasons.most_common()),
                "slowest (s of processor)": f"{max(one['processor'] for one in rows):.1f}",
                "most memory (MiB)": f"{max(one['bytes'] for one in rows) / 2**20:.0f}",
            }
        )
    return table


def problems_of(found: Sequence[dict[str, Any]]) -> list[str]:
    """Name what must not be."""
    said = []
    for one in found:
        name = one["file"]
        if one["ended"] != "judged":
            said.append(f"{name}: {one['ended']}: {one['detail']}")
        if one["kind"] != "sound" and one["decision"] == "rule_out":
            said.append(f"{name}: ruled out")
        if one["kind"] == "costly" and one["reason"] == "unexpected":
            said.append(f"{name}: an unforeseen error")
        if one["processor"] > SECONDS:
            said.append(f"{name}: {one['processor']:.1f} s")
        if one["bytes"] > BYTES:
            said.append(f"{name}: {one['bytes'] / 2**20:.0f} MiB")
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, triage, measure, print; say by the exit status whether every limit holds."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--copies", type=int, default=20, help="damaged files of each kind (default: %(default)s)"
    )
    parser.add_argument("--names", nargs="+", default=(), help="only files whose names hold one of these")
    parser.add_argument("--model", type=Path, help="a saved model, instead of one trained on phantoms")
    parser.add_argument("--scratch", type=Path, help="where to write; by default the temporary folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        model = options.model or phantom_model(scratch)
        kinds = write_corpus(scratch / "corpus", options.seed, options.copies, options.names)
        files = sorted(kinds)
        found = one_by_one(WORKER, (scratch / "corpus", model), len(files), WAITING)
        for row, file in zip(found, files, strict=True):
            decision, _, reason = row["detail"].partition(" ") if row["ended"] == "judged" else ("", "", "")
            row.update(file=file, kind=kinds[file], decision=decision, reason=reason)
        problems = problems_of(found)
        rows, ended = triage_all(scratch / "corpus", model, scratch / "all.csv", options.jobs)
        if ended or sorted(row["file"] for row in rows) != sorted([*files, GROWING]):
            problems.append(f"all at once: {len(files) + 1} files, {len(rows)} rows {ended}")
    table = table_of(found)
    costly = [
        {"file": one["file"], "becomes": f"{one['decision']} {one['reason']}".strip() or one["ended"]}
        | {"seconds of processor": f"{one['processor']:.2f}", "by the clock": f"{one['seconds']:.2f}"}
        | {"MiB": f"{one['bytes'] / 2**20:.0f}"}
        for one in found
        if one["kind"] == "costly"
    ]
    text = "\n\n".join([markdown_table(table), markdown_table(costly)] if costly else [markdown_table(table)])
    text += f"\n\n{len(files) + 1} files, {len(rows)} rows in one triage of all."
    text += "".join(f"\n- broken: {problem}" for problem in problems)
    publish(text, {"table": table, "found": found, "problems": problems}, options.json)
    return int(bool(problems))


if __name__ == "__main__":
    run(main)
