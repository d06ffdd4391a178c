"""Objects of a store that come while others are worked on: in the order of their work, and few bytes at a time."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from histcxr.files.budget import BUDGET
from histcxr.files.remote import Url, fetch_now

MOST_BYTES: Final = 1 << 26
"""Bytes that may have come, or be on their way, before anybody asks for them; a larger object comes alone."""

_AT_ONCE: Final = 16  # requests
_GUESS: Final = 1 << 20  # bytes of an object of which no listing said how many it has


@contextlib.contextmanager
def reading_ahead(names: Iterable[object]) -> Iterator[None]:
    """Let the objects among some names come now; what nobody has read by the end of the block is dropped."""
    begun = _AHEAD.begin([name for name in names if isinstance(name, Url)])
    try:
        yield
    finally:
        _AHEAD.drop(begun)


class _Coming:
    """One object, to be taken once: called, it waits for the content, or reads it where its turn has not come."""

    def __init__(self, url: Url) -> None:
        self.url = url
        size = _GUESS if url.known is None else max(1, url.known.size)
        self.cost = size if size <= BUDGET.file_bytes else 1  # it will be refused unread
        self.content: Future[bytes] | None = None
        self.taken = False

    def __call__(self) -> bytes:
        content = _AHEAD.take(self)
        if content is None:
            return fetch_now(self.url)
        try:
            return content.result()
        finally:
            _AHEAD.release(self.cost)


class _Ahead:
    """What is to come, what is on its way, and how many bytes that is."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiting: deque[_Coming] = deque()
        self._held = 0
        self._pool: ThreadPoolExecutor | None = None

    def begin(self, urls: list[Url]) -> list[_Coming]:
        with self._lock:
            begun = []
            for url in urls:
                if url.coming is None:
                    url.coming = one = _Coming(url)
                    begun.append(one)
            self._waiting.extend(begun)
            self._pump()
        return begun

    def take(self, one: _Coming) -> Future[bytes] | None:
        with self._lock:
            content = None if one.taken else one.content
            one.taken = True
            return content

    def drop(self, begun: list[_Coming]) -> None:
        """Let go of what nobody took; what is on its way still counts until it has come."""
        left = [(one, self.take(one)) for one in begun]
        for one, content in left:
            if one.url.coming is one:
                one.url.coming = None
            if content is not None:
                content.add_done_callback(functools.partial(self._came, one.cost))

    def _came(self, cost: int, _: object) -> None:
        self.release(cost)

    def release(self, cost: int) -> None:
        with self._lock:
            self._held -= cost
            self._pump()

    def _pump(self) -> None:
        while self._waiting:
            one = self._waiting[0]
            if not one.taken:
                if self._held and self._held + one.cost > MOST_BYTES:
                    return
                self._held += one.cost
                self._pool = self._pool or ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="histcxr-fetch")
                one.content = self._pool.submit(fetch_now, one.url)
            self._waiting.popleft()


_AHEAD: Final = _Ahead()
