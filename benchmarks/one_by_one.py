"""Things done one after the other in a process that any of them may end, each with its seconds and its memory.

:func:`one_by_one` starts the process, and another one behind whatever ended it; :func:`watch` is what runs in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import last_line, peak_bytes, start
from histcxr.exceptions import HistcxrError, InputError

Row = dict[str, Any]


def one_by_one(code: str, arguments: Sequence[object], things: int, waiting: float) -> list[Row]:
    """Run ``code`` with ``arguments``, the first number and the last one, until each of the things has its row.

    Rows are :func:`watch`'s; ``ended`` is ``"hang"`` or ``"signal"`` where a thing ended the process. ``waiting``:
    seconds that a thing may take. InputError: the process ends before the first thing begins.
    """
    rows: list[Row] = []
    while len(rows) < things:
        try:
            done = start(["-c", code, *arguments, len(rows), things], timeout=120 + waiting * things)
            said, status, words = done.stdout, done.returncode, last_line(done.stderr)
        except subprocess.TimeoutExpired as error:
            said, status, words = error.stdout or "", -int(signal.SIGALRM), "no end"
            said = said if isinstance(said, str) else said.decode()
        lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        rows += [line for line in lines if "ended" in line]
        if len(rows) < things:
            if not lines or "begins" not in lines[-1]:
                raise InputError(f"{arguments[0]} must work as it is, got status {status}: {words}")
            name = signal.Signals(-status).name if status < 0 else f"status {status}"
            ended = "hang" if name in ("SIGXCPU", "SIGALRM") else "signal"
            nothing = {"seconds": 0, "processor": 0, "bytes": 0}
            rows.append({"number": len(rows), "ended": ended, "detail": f"{name} {words}", **nothing})
    return rows


def watch(
    numbers: Sequence[int],
    make: Callable[[int], Any],
    use: Callable[[Any], tuple[str, str]],
    *,
    waiting: float,
    seconds: int | None = None,
    memory: int | None = None,
) -> None:
    """Make and use things; say before each use that it begins, and after it how it ended.

    ``use`` returns how it ended, and a detail; another exception than a HistcxrError (``"refused"``) is a
    ``"traceback"``, or ``"memory"``. ``memory``, in bytes over what is held now, and ``seconds`` of processor are
    limits of the system; ``waiting`` is by the clock.
    """
    unlimited = resource.RLIM_INFINITY
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for number in numbers:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (unlimited, unlimited))
        thing = make(number)
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (held + memory, unlimited))
        if seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds + 1, unlimited))
        signal.setitimer(signal.ITIMER_REAL, waiting)
        print(json.dumps({"begins": number}), flush=True)
        began = time.perf_counter()
        with _figures() as grown:
            try:
                ended, detail = use(thing)
            except HistcxrError as error:
                ended, detail = "refused", str(error)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is told
                ended, detail = "traceback", f"{type(error).__name__}: {error}"
        if ended == "traceback" and re.search("MemoryError|[Uu]nable to allocate|bad.?alloc|memory", detail):
            ended = "memory"
        signal.setitimer(signal.ITIMER_REAL, 0)
        figures = {"seconds": time.perf_counter() - began, "processor": grown.processor}
        figures["bytes"] = grown.own + grown.others
        print(json.dumps({"number": number, "ended": ended, "detail": detail[:300], **figures}), flush=True)


@dataclass(slots=True)
class Figures:
    """What a use took: bytes of this process, bytes of its children, seconds of processor of all."""

    own: int = 0
    others: int = 0
    processor: float = 0.0


@contextlib.contextmanager
def _figures() -> Iterator[Figures]:
    """Yield figures that at last hold the bytes by which this process grew, and its children's most; and seconds of
    processor, those of children included.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, began, figures, over = peak_bytes(), time.process_time(), Figures(), threading.Event()
    used = {child: _of(child)[1] for child in _children()}
    last: dict[str, float] = {}

    def look() -> None:
        while not over.wait(0.01):
            seen = {child: _of(child) for child in _children()}
            figures.others = max(figures.others, sum(one[0] for one in seen.values()))
            last.update({child: one[1] for child, one in seen.items()})

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield figures
    finally:
        over.set()
        looking.join()
        figures.own = max(0, peak_bytes() - before)
        others = sum(max(0.0, seconds - used.get(child, 0.0)) for child, seconds in last.items())
        figures.processor = time.process_time() - began + others


def _children() -> list[str]:
    """Return the numbers of the processes that any thread of this one started."""
    found = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            found += Path(f"/proc/self/task/{task}/children").read_text().split()
    return found


def _of(process: str) -> tuple[int, float]:
    """Bytes that another process holds, and the seconds of processor that it took."""
    with contextlib.suppress(OSError, IndexError):
        held = int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
        words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return held, (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return 0, 0.0
