"""Where the time goes: processor seconds of each stage of a run, over all threads.

Stages are marked where they happen and cost nothing until somebody asks. Processor time, not the clock's: it stays the
same beside other work, and over several threads it adds up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

_lock = threading.Lock()
_asking: list[Counter[str]] = []


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Count what happens inside, in this thread, as a stage."""
    if not _asking:
        yield
        return
    started = time.thread_time()
    try:
        yield
    finally:
        spent = time.thread_time() - started
        with _lock:
            for seconds in _asking:
                seconds[name] += spent  # type: ignore[assignment]  # a Counter holds seconds as well


@contextlib.contextmanager
def stages() -> Iterator[Counter[str]]:
    """Give the processor seconds by stage, which grow while the context is open."""
    seconds: Counter[str] = Counter()
    _asking.append(seconds)
    try:
        yield seconds
    finally:
        _asking.remove(seconds)
