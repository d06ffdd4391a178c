"""What a terminal shows: reports whose tables fit into it, and progress where somebody is watching."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Final

from histcxr.commands.shell.places import print_to
from histcxr.files.cells import shown

_ONE: Final = re.compile(
    r"(?<![\w.,+-])1 (image|input|patient|radiograph|file|report|row|trial|epoch|mask|worklist|pair|label|question)s\b"
    r"( are\b| were\b| name\b)?"
)
_VERBS: Final = {None: "", " are": " is", " were": " was", " name": " names"}


def say(text: str = "") -> None:
    """Print a report to stdout: one image is no "1 images", and on a terminal no table is wider than it.

    Characters that a terminal would obey are shown, not sent. OutputError: stdout is closed or full.
    """
    text = _ONE.sub(lambda found: f"1 {found[1]}{_VERBS[found[2]]}", text)
    if sys.stdout is not None and sys.stdout.isatty():
        text = fit_tables(text, shutil.get_terminal_size().columns)
    print_to(sys.stdout, f"{shown(text)}\n")


def fit_tables(text: str, width: int) -> str:
    """Cut the Markdown tables of a text into narrower ones, each of which begins with the table's first column."""
    lines: list[str] = []
    for is_table, group in itertools.groupby(text.split("\n"), lambda line: line.startswith("|")):
        block = list(group)
        lines += _fitted(block, width) if is_table and len(block) > 1 else block
    return "\n".join(lines)


def _fitted(table: list[str], width: int) -> list[str]:
    rule = table[1]
    if len(rule) <= width or len({len(line) for line in table}) > 1:
        return table
    bars = [place for place, sign in enumerate(rule) if sign == "|"]
    first, columns = bars[1], list(itertools.pairwise(bars))[1:]
    lines: list[str] = []
    while columns:
        taken = 1
        while taken < len(columns) and first + columns[taken][1] - columns[0][0] < width:
            taken += 1
        start, end = columns[0][0], columns[taken - 1][1]
        lines += [*([""] if lines else []), *(line[:first] + line[start : end + 1] for line in table)]
        columns = columns[taken:]
    return lines


def show_progress() -> bool:
    """Say whether somebody is watching: a progress bar in a log file helps nobody."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def progress_bar(what: str, count: Callable[[], int]) -> Iterator[Callable[[int], None] | None]:
    """Show a bar on stderr, and yield what takes the number of images done; None where nobody is watching.

    ``count`` tells how many there are; it is asked only where the bar is shown.
    """
    if not show_progress():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=count(), desc=what, unit="image") as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        yield show
