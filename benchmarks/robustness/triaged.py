"""Folders of bad files triaged in processes of their own: each file alone and measured, and all at once."""

from __future__ import annotations

import csv
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import last_line, start
from benchmarks.one_by_one import Row, one_by_one, watch

WAITING = 120  # seconds by the clock after which a file counts as a hang
_EACH = "import sys; from benchmarks.robustness.triaged import work; work(*sys.argv[1:])"
_WHOLE = """
import json, sys
from benchmarks.common import peak_bytes
from histcxr.files.decoding import muted_decoders
from histcxr.worklist.engine import triage
folder, model, output, segment, jobs = sys.argv[1:]
with muted_decoders():
    summary = triage(folder, model, output, segment=segment == "True", n_jobs=int(jobs))
print(json.dumps({**summary.to_dict(), "peak_bytes": peak_bytes()}))
"""


def names_of(folder: Path) -> list[str]:
    """Return the files of a folder that are triaged: all whose names have a dot."""
    return sorted(path.name for path in folder.glob("*.*"))


def each_alone(folder: Path, model: Path, *, segment: bool = True) -> list[Row]:
    """Triage each file of a folder alone; return rows of :func:`~benchmarks.one_by_one.watch` with file, decision and
    reason, both empty where the process ended.
    """
    names = names_of(folder)
    rows = one_by_one(_EACH, (folder, model, segment), len(names), WAITING)
    for row, name in zip(rows, names, strict=True):
        decision, _, reason = row["detail"].partition(" ") if row["ended"] == "judged" else ("", "", "")
        row.update(file=name, decision=decision, reason=reason)
    return rows


def all_at_once(
    folder: Path, model: Path, output: Path, *, segment: bool = True, jobs: int, patience: float
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Triage a folder; return the rows, and the summary with ``peak_bytes``, or ``problem``: how it ended instead."""
    summary = started(_WHOLE, (folder, model, output, segment, jobs), patience)
    return ([] if "problem" in summary else read_rows(output)), summary


def started(code: str, arguments: tuple[object, ...], patience: float) -> dict[str, Any]:
    """Run code in a process of its own and return what it printed, or ``problem``: how it ended instead."""
    try:
        done = start(["-c", code, *arguments], timeout=patience)
    except subprocess.TimeoutExpired as error:
        return {"problem": f"no end after {patience:.0f} seconds; last words: {last_line(error.stderr)}"}
    if done.returncode:
        return {"problem": f"ended with status {done.returncode}; last words: {last_line(done.stderr)}"}
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def read_rows(worklist: Path) -> list[dict[str, str]]:
    """Return the rows of a worklist."""
    with worklist.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def work(folder: str, model: str, segment: str, first: str, last: str) -> None:
    """Triage files one after the other; what each became is its detail."""
    from histcxr.files.decoding import muted_decoders
    from histcxr.files.writing import encode_image
    from histcxr.lungs.segmenter import load_segmenter
    from histcxr.phantoms.anatomy import make_phantom
    from histcxr.store import load_model
    from histcxr.worklist.engine import triage

    how: dict[str, Any] = {"segmenter": load_segmenter()} if segment == "True" else {"segment": False}
    loaded, names = load_model(model), names_of(Path(folder))
    with tempfile.TemporaryDirectory() as place:
        sound = Path(place) / "sound.png"
        sound.write_bytes(encode_image(make_phantom(0, sick=True).image))
        triage(sound, loaded, Path(place) / "sound.csv", **how)  # imports, before anything is measured
        output = Path(place) / "single.csv"

        def use(name: str) -> tuple[str, str]:
            with muted_decoders():
                triage(Path(folder) / name, loaded, output, overwrite=True, **how)
            (row,) = read_rows(output)
            return "judged", f"{row['decision']} {row['reason_code']}"

        watch(range(int(first), int(last)), names.__getitem__, use, waiting=WAITING)
