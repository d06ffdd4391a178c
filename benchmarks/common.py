"""What benchmarks do alike: options, tables beside JSON, errors in one sentence, processes of their own."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from histcxr.exceptions import HistcxrError
from histcxr.files.writing import replacing

ROOT = Path(__file__).resolve().parents[1]


def make_parser(
    doc: str | None, *, data: str | None = None, many: bool = False, jobs: int | None = 2, seed: bool = True
) -> argparse.ArgumentParser:
    """Return a parser with the options that benchmarks share: ``--json`` always, others where they are wanted.

    ``doc`` is shown by ``--help`` as it is; ``data`` says what ``--data`` must be, of which there may be ``many``;
    ``jobs`` is the default of ``--jobs``.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if data is not None:
        parser.add_argument(
            "--data", required=True, help=data, **({"nargs": "+", "action": "extend"} if many else {})
        )
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too; - is standard output")
    if jobs is not None:
        parser.add_argument("--jobs", type=int, default=jobs, help="threads (default: %(default)s)")
    if seed:
        parser.add_argument("--seed", type=int, default=0)
    return parser


def zones(text: str) -> int | str:
    """Read a setting of zones from the command line: a number, or one such as ``1+6``."""
    return int(text) if text.isdigit() else text


def publish(text: str, content: Any, place: str | None) -> None:
    """Print a text, and write what it says as JSON to a file.

    Where the JSON goes to standard output (``"-"``), the text goes to standard error.
    """
    print(text, file=sys.stderr if place == "-" else sys.stdout)
    if place == "-":
        print(json.dumps(content, indent=2, allow_nan=False))
    elif place is not None:
        write_json(content, place)


def write_json(content: Any, place: str | Path) -> None:
    """Write a JSON file, whole or not at all."""
    with replacing(place) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a benchmark and leave with its exit code; what its user can mend is one sentence and exit code 2."""
    try:
        sys.exit(main())
    except (HistcxrError, OSError) as error:
        message = str(error)
    except ModuleNotFoundError as error:
        message = f"the package {error.name} is needed and is not installed"
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def start(
    command: Sequence[object], *, stdin: str | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``python COMMAND`` in a process of its own that can import histcxr and the benchmarks.

    subprocess.TimeoutExpired: it took more than ``timeout`` seconds, and was ended.
    """
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, *map(str, command)],
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )


def last_line(words: str | bytes | None) -> str:
    """Return the last line of what a process said, at most 200 characters of it."""
    text = words.decode(errors="replace") if isinstance(words, bytes) else words or ""
    return text.strip().rpartition("\n")[2][-200:]


def peak_bytes() -> int:
    """Return the most bytes that this process ever held."""
    try:  # getrusage would also count what the parent held before it started us
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
