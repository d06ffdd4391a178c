"""How far the reading of many images has come: a bar on stderr, or a function that is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from tqdm import tqdm

#: Whether a bar is shown on stderr, or a function that takes how many images are done, and of how many.
Progress: TypeAlias = bool | Callable[[int, int], None]


@contextlib.contextmanager
def counting(total: int, progress: Progress, what: str = "reading") -> Iterator[Callable[[int], Any]]:
    """Yield what takes how many images were just done; it must be called in the thread that counts."""
    if not callable(progress):
        with tqdm(total=total, unit="image", desc=what, disable=not progress) as bar:
            yield bar.update
        return
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    yield count
