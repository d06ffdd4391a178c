"""Nothing gets in, nothing gets lost: every attack that is known to us, made from scratch, run, and told in one table.

Numbers say what is attacked: 1 the pixels (damage of radiographs of the sick that decoders pass over), 2 the budget
(small files that ask for much, :mod:`benchmarks.robustness.hostile_files`; what is no plain file; a file that grows),
4 the right patient and safe tables, 7 what is there already, 8 what is there to read, 9 names
(:mod:`benchmarks.robustness.hostile_places`), 5 model folders, 6 trust (:mod:`benchmarks.robustness.hostile_models`).
3, the network, takes a tracer: ``tests/commands/test_offline.py``.

A process runs each attack alone, so that its seconds and its memory are known, that of decoding processes included;
what ends the process costs one row, and another goes on. Then one triage sorts all files at once.

    python -m benchmarks.robustness.hostile_corpus --json hostile.json

Prints a Markdown table. Exit status 1 when an attack comes to something else than it must (a damaged file is ruled out,
an error is unforeseen, something is overwritten), a process crashes or hangs, an attack takes more than 5 seconds of
processor or 1 GiB over what the process held before, or rows are not files.
"""

from __future__ import annotations

import re
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import make_parser, publish, run
from benchmarks.one_by_one import Row, one_by_one, watch
from benchmarks.robustness.fuzzed_models import make_models
from benchmarks.robustness.hostile_files import (
    COSTLY,
    damaged_files,
    growing_file,
    radiograph,
    write_special_files,
)
from benchmarks.robustness.hostile_models import ATTACKS
from benchmarks.robustness.hostile_places import Place
from benchmarks.robustness.triaged import WAITING, all_at_once, each_alone
from benchmarks.speed.triage_memory import phantom_model
from histcxr.files.writing import encode_image
from histcxr.reports.tables import markdown_table

SECONDS, BYTES = 5, 2**30  # of processor, and over what the process held, that an attack may take
ATTACKER = "import sys; from benchmarks.robustness.hostile_corpus import attack; attack(*sys.argv[1:])"
GROWING = "grows.png"
_PARTS = {"damaged": 1, "costly": 2, "no plain file": 2}


def write_corpus(folder: Path, seed: int, copies: int, names: Sequence[str] = ()) -> dict[str, str]:
    """Write all files, or those whose names hold one of ``names``; return the kind of each."""
    folder.mkdir()
    kinds: dict[str, str] = {}
    for name, make in COSTLY.items():
        if wanted(name, names):
            (folder / name).write_bytes(make())
            kinds[name] = "costly"
    for name, data in damaged_files(seed, copies):
        if wanted(name, names):
            (folder / name).write_bytes(data)
            kinds[name] = "damaged"
    if not names:
        kinds |= dict.fromkeys(write_special_files(folder), "no plain file")
        for i in range(copies):
            (folder / f"{i} sound.png").write_bytes(encode_image(radiograph(seed + i, sick=i % 2 == 1)))
            kinds[f"{i} sound.png"] = "sound"
    return kinds


def wanted(name: str, names: Sequence[str]) -> bool:
    """Tell whether a name holds one of ``names``, or all are wanted."""
    return not names or any(part in name for part in names)


def triage_all(
    folder: Path, model: Path, output: Path, jobs: int
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Triage the folder while a file in it grows; return what :func:`all_at_once` does."""
    growing = growing_file(folder / GROWING)
    try:
        return all_at_once(folder, model, output, jobs=jobs, patience=60 * WAITING)
    finally:
        growing.send_signal(signal.SIGKILL)
        growing.wait()
        (folder / GROWING).unlink()


def attack_all(names: Sequence[str], scratch: Path) -> list[Row]:
    """Run attacks one after the other; return a row of each, with its outcome in words."""
    if not names:
        return []
    models = scratch / "models"
    models.mkdir()
    make_models(models, ("svm", "xgboost"), 0)
    rows = one_by_one(ATTACKER, (models, "|".join(names)), len(names), WAITING)
    return [{**row, "attack": name} for row, name in zip(rows, names, strict=True)]


def attack(models: str, names: str, first: str, last: str) -> None:
    """Run attacks; what each came to is its detail."""

    def use(name: str) -> tuple[str, str]:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return "came to", ATTACKS[name].run(Place(Path(folder), Path(models)))

    watch(range(int(first), int(last)), names.split("|").__getitem__, use, waiting=WAITING)


def table_of(found: Sequence[Row], attacks: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a row for each attack; copies of one kind of damage, special and sound files are one row each."""
    groups: dict[tuple[int | str, str], list[Row]] = {}
    for one in found:
        kind = one["kind"]
        name = (
            one["file"] if kind == "costly" else kind if kind != "damaged" else one["file"].split(" ", 1)[1]
        )
        groups.setdefault((_PARTS.get(kind, ""), name), []).append(one)
    for one in attacks:
        groups.setdefault((ATTACKS[one["attack"]].part, one["attack"]), []).append(one)
    return [
        {
            "part": part,
            "attack": name,
            "files": len(rows) if "file" in rows[0] else "",
            "comes to": _outcome(rows),
            "as due": "yes" if not any(map(problems_of, rows)) else "NO",
            "s of processor": f"{max(one['processor'] for one in rows):.1f}",
            "by the clock": f"{max(one['seconds'] for one in rows):.1f}",
            "MiB": f"{max(one['bytes'] for one in rows) / 2**20:.0f}",
        }
        for (part, name), rows in sorted(groups.items(), key=lambda item: str(item[0][0]))
    ]


def _outcome(rows: Sequence[Row]) -> str:
    if "attack" in rows[0]:
        words = str(rows[0]["detail"] if rows[0]["ended"] == "came to" else rows[0]["ended"])
        return (words if len(words) <= 90 else f"{words[:50]} ... {words[-36:]}").replace("|", "and")
    ends = Counter(
        f"{one['decision']} {one['reason']}".strip() if one["ended"] == "judged" else one["ended"]
        for one in rows
    )
    return ", ".join(f"{name} {n}" if len(rows) > 1 else name for name, n in ends.most_common())


def problems_of(one: Row) -> list[str]:
    """Name what must not be, of one attack."""
    said = []
    if "attack" in one:
        name = one["attack"]
        if one["ended"] != "came to" or not re.match(ATTACKS[name].expected, one["detail"]):
            said.append(f"{name}: {one['ended']} {one['detail']}")
    else:
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
    """Write, run, measure, print; say by the exit status whether every attack comes to what it must."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--copies", type=int, default=20, help="damaged files of each kind (default: %(default)s)"
    )
    parser.add_argument("--names", nargs="+", default=(), help="only attacks whose names hold one of these")
    parser.add_argument("--model", type=Path, help="a saved model, instead of one trained on phantoms")
    parser.add_argument("--scratch", type=Path, help="where to write; by default the temporary folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        model = options.model or phantom_model(scratch)
        kinds = write_corpus(scratch / "corpus", options.seed, options.copies, options.names)
        found = [{**row, "kind": kinds[row["file"]]} for row in each_alone(scratch / "corpus", model)]
        attacks = attack_all([name for name in ATTACKS if wanted(name, options.names)], scratch)
        rows, summary = triage_all(scratch / "corpus", model, scratch / "all.csv", options.jobs)
    problems = [problem for one in (*found, *attacks) for problem in problems_of(one)]
    if sorted(row["file"] for row in rows) != sorted([*kinds, GROWING]):
        problems.append(f"all at once: {len(kinds) + 1} files, {len(rows)} rows {summary.get('problem', '')}")
    table = table_of(found, attacks)
    text = (
        f"{markdown_table(table)}\n\n{len(found)} files and {len(attacks)} other attacks, {len(table)} kinds: "
        f"{sum(row['as due'] == 'yes' for row in table)} come to what they must within {SECONDS} s of processor and "
        f"{BYTES >> 20} MiB. {len(kinds) + 1} files, {len(rows)} rows in one triage of all."
    )
    text += "".join(f"\n- broken: {problem}" for problem in problems)
    publish(text, {"table": table, "found": found, "attacks": attacks, "problems": problems}, options.json)
    return int(bool(problems))


if __name__ == "__main__":
    run(main)
