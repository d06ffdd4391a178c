"""Decoding in a process of its own, with limits on memory and processor time, for what no check can bound.

Rare encodings (JPEG 2000, JPEG-LS, lossless or many-scan JPEG, RLE, packed TIFF) are decoded by a few worker processes,
each started when it is first needed. A codec that asks for too much, hangs, crashes or is ended by the system takes its
worker with it: the file is refused as ``too_costly``, the next one gets a new worker. Common PNG, JPEG and raw DICOM
stay where they are; after a crash, :func:`cautiously` sends them, too.

Own code on the standard library: pools (``concurrent.futures``, loky) give up all work when one worker dies and cannot
end one that hangs; pebble can, but does not limit memory, and its pool may block when the system ends a worker. All of
them run the main script of the user again. Here a worker imports this package and nothing else.

On systems without limits on memory (macOS) only time is bounded. The worker is no sandbox: it protects the run, not the
machine.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import RadiographError, Reason, UnjudgeableError
from histcxr.files.budget import BUDGET
from histcxr.files.reading import refuse

MOST_SECONDS = 60
"""Seconds of processor that a worker gets at most: the budget's, and one more for each MiB of the file."""

KEPT = 2**28
"""Bytes that a worker may hold on to after a file; with more it makes room for a new one."""

WORKERS = min(4, os.cpu_count() or 1)
STARTING = 120
"""Seconds by the clock in which a worker must have imported what it needs."""

_CODE = "import sys; sys.path[:] = sys.argv[2:]; import histcxr.files.apart as a; a.serve(int(sys.argv[1]))"
_POSSIBLE = os.name == "posix" and bool(sys.executable) and not getattr(sys, "frozen", False)
_P = ParamSpec("_P")
_T = TypeVar("_T")
_Pixels = NDArray[Any]
_Task = tuple[str, str, tuple[Any, ...], dict[str, Any]]  # module, function, arguments by place and by name

_inside = False  # this is a worker
_thread = threading.local()
_idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()


def apart(when: Callable[_P, bool]) -> Callable[[Callable[_P, _Pixels]], Callable[_P, _Pixels]]:
    """Let a decoder run in a worker ``when`` its arguments say so.

    The decoder is a function of a module, its arguments can be pickled, and the last of those by place is the file's
    name; it returns an array or raises an UnjudgeableError.
    """

    def decorate(decoder: Callable[_P, _Pixels]) -> Callable[_P, _Pixels]:
        @functools.wraps(decoder)
        def decode(*arguments: _P.args, **options: _P.kwargs) -> _Pixels:
            wanted = getattr(_thread, "cautious", False) or when(*arguments, **options)
            if _inside or not wanted or not _POSSIBLE:
                return decoder(*arguments, **options)
            return _ask((decoder.__module__, decoder.__qualname__, arguments, options), str(arguments[-1]))

        return decode

    return decorate


def cautiously(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let all decoding that a function does in its thread happen apart: one of its files may have ended a run."""

    @functools.wraps(function)
    def careful(*arguments: _P.args, **options: _P.kwargs) -> _T:
        _thread.cautious = True
        try:
            return function(*arguments, **options)
        finally:
            _thread.cautious = False

    return careful


def _ask(task: _Task, path: str) -> _Pixels:
    """Have a task done by a worker that is free, or wait for one."""
    idle, worker = _idle, _idle.get()
    try:
        for _ in range(2):  # a worker may have been ended while it waited, through no fault of this file
            worker = worker or _Worker()
            if worker.begin(task):
                answer = worker.answer()
                break
            worker.end()
            worker = None
        else:
            raise OSError("no process for decoding can be started")
        if answer is None:
            detail = worker.last_words()
            worker = None
            refuse(Reason.TOO_COSTLY, path, detail)
    except BaseException:  # Ctrl-C, too: who knows what the worker is at
        if worker is not None:
            worker.end()
            worker = None
        raise
    finally:
        idle.put(worker)
    if isinstance(answer, dict):
        _fail(answer, path)
    return answer


def _fail(answer: dict[str, str], path: str) -> NoReturn:
    if "reason" in answer:
        raise RadiographError(Reason(answer["reason"]), path, answer["detail"])
    raise RuntimeError(answer["error"])


class _Worker:
    """A process that decodes, and the socket that leads to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, str(theirs.fileno()), *sys.path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._file = self._socket.makefile("rb")
        self._seconds = BUDGET.seconds

    def begin(self, task: _Task) -> bool:
        """Hand over a task; whether the worker lives and has begun it."""
        packed = pickle.dumps(task, protocol=5)
        size = len(packed)
        self._seconds = min(BUDGET.seconds + size // 2**20, max(BUDGET.seconds, MOST_SECONDS))
        self._socket.settimeout(STARTING)
        with contextlib.suppress(OSError):  # also TimeoutError
            self._socket.sendall(pickle.dumps(self._seconds) + packed)
            return self._file.readline() == b"begins\n"
        return False

    def answer(self) -> _Pixels | dict[str, str] | None:
        """Wait for the pixels, or what is wrong; None where the worker did not live to say it."""
        self._socket.settimeout(10 * self._seconds)
        with contextlib.suppress(OSError):
            line = self._file.readline()
            if not line:
                return None
            said = json.loads(line)
            if "shape" not in said:
                return dict(said)
            pixels = np.empty(said["shape"], np.dtype(said["kind"]))
            view = pixels.reshape(-1).view(np.uint8).data
            while view and (size := self._file.readinto(view)):
                view = view[size:]
            return None if view else pixels
        return None

    def last_words(self) -> str:
        """End the worker and say how it came to its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        code = self._process.poll()
        self.end()
        if code is None or -code == getattr(signal, "SIGXCPU", 0):
            return f"the decoder took more than {self._seconds} seconds"
        name = signal.Signals(-code).name if code < 0 else f"status {code}"
        return f"the decoder was ended by {name}"

    def end(self) -> None:
        """End the process; its place is free."""
        self._process.kill()
        self._process.wait()
        self._file.close()
        self._socket.close()


def serve(descriptor: int) -> None:
    """Be a worker: decode what comes from a socket until nothing comes any more."""
    global _inside
    _inside = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    warnings.simplefilter("ignore")
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory runs out, the system shall take this process first
    with socket.socket(fileno=descriptor) as line, line.makefile("rwb") as file:
        most = 0
        with contextlib.suppress(EOFError, BrokenPipeError):
            while (
                not most or _held() < most + KEPT
            ):  # what was not given back would narrow the next file's budget
                seconds = pickle.load(file)  # noqa: S301 - from who started this process
                module, name, arguments, options = pickle.load(file)  # noqa: S301
                decoder = getattr(importlib.import_module(module), name)
                most = most or _held()
                _limit(seconds, most)
                file.write(b"begins\n")
                file.flush()
                _write(file, _done(decoder, arguments, options))
        with contextlib.suppress(BrokenPipeError):
            file.flush()


def _done(
    decoder: Callable[..., _Pixels], arguments: tuple[Any, ...], options: dict[str, Any]
) -> _Pixels | dict[str, str]:
    try:
        return np.ascontiguousarray(decoder(*arguments, **options))
    except UnjudgeableError as error:
        return {"reason": error.reason.value, "detail": error.detail}
    except MemoryError:
        detail = f"the decoder asked for more than {BUDGET.mebibytes:,} MiB of memory"
        return {"reason": Reason.TOO_COSTLY.value, "detail": detail}
    except Exception as error:  # noqa: BLE001 - raised again where the file was read
        return {"error": f"{type(error).__name__}: {error}"}


def _write(file: Any, answer: _Pixels | dict[str, str]) -> None:
    if isinstance(answer, dict):
        file.write(json.dumps(answer).encode() + b"\n")
    else:
        head = {"shape": answer.shape, "kind": answer.dtype.str}
        file.write(json.dumps(head).encode() + b"\n")
        file.write(answer.reshape(-1).view(np.uint8))
    file.flush()


def _held() -> int:
    """Bytes of address space of this process; 0 where the system does not say it."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _limit(seconds: int, held: int) -> None:
    """Bound the time of this process from now on, and its memory over ``held``, where the system knows such limits."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        "RLIMIT_CPU": int(used.ru_utime + used.ru_stime) + 1 + seconds,
        "RLIMIT_CORE": 0,  # a core dump would hold the image
    }
    if held:
        limits["RLIMIT_AS"] = held + (BUDGET.mebibytes << 20)
    for name, value in limits.items():
        kind = getattr(resource, name)
        with contextlib.suppress(OSError, ValueError):  # the user's own limit is lower
            resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def _anew() -> None:
    """Begin without workers: at first, and in a process that was forked, for they belong to its parent."""
    global _idle
    _idle = queue.LifoQueue()
    for _ in range(WORKERS):
        _idle.put(None)


@atexit.register
def close() -> None:
    """End the workers that are idle; they start again when they are needed."""
    with contextlib.suppress(queue.Empty):
        while True:
            if worker := _idle.get_nowait():
                worker.end()
    _anew()


_anew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_anew)
