"""Silencing the image libraries, whose complaints go straight to the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_depth = 0
_undo: list[contextlib.ExitStack] = []


@contextlib.contextmanager
def muted_decoders() -> Iterator[None]:
    """Drop what C libraries write to the terminal, while Python's own messages still get there.

    libjpeg and libpng report odd files on file descriptor 2 and offer no other way through OpenCV. Everything that
    can be known beforehand is checked before they are called; this is for the rest: damage inside a JPEG's
    compressed data, for instance. The descriptor belongs to the whole process, so this is for programs, around
    a whole run, and not for single calls in a library. Nested and concurrent uses share one redirection.

    Notes
    -----
    Handlers that kept an older ``sys.stderr`` write to the descriptor and are silenced too.
    """
    global _depth
    with _lock:
        if _depth == 0:
            _undo.append(_redirect())
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _undo.pop().close()


def _redirect() -> contextlib.ExitStack:
    """Send descriptor 2 to nowhere and ``sys.stderr`` to where descriptor 2 led; the stack's ``close`` undoes it."""
    stack = contextlib.ExitStack()
    try:
        saved = os.dup(2)
    except OSError:  # closed already: nothing can be printed
        return stack
    stack.callback(os.close, saved)
    before = sys.stderr
    try:
        direct = before is not None and before.fileno() == 2
    except (OSError, ValueError):  # replaced by something that is no file
        direct = False
    if direct:
        before.flush()
        sys.stderr = stack.enter_context(  # the stack is the context manager
            open(  # noqa: SIM115
                saved, "w", buffering=1, encoding=before.encoding, errors=before.errors, closefd=False
            )
        )
        stack.callback(setattr, sys, "stderr", before)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    stack.callback(os.dup2, saved, 2)
    return stack
