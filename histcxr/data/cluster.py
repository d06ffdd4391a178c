"""A job on a Dask cluster: blocks of items go out, a result for each item comes back, in order.

The driver sends a job, with all that it needs, once to each worker process, which checks its SHA-256, the version of
histcxr and the limits on files before it takes it in. Files are read where the worker runs: paths must lead to them
there, too. A few blocks are on their way at a time, which bounds the driver's memory.

A block whose worker dies is done once more elsewhere. An item that ends one worker process after another gets what the
job says of lost items. What libraries warn of there is said here, each text once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pickle
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from histcxr import __version__
from histcxr.exceptions import HistcxrWarning, InputError, MissingDependencyError, OutputError, how_to_install
from histcxr.files.budget import BUDGET

try:
    from distributed import Client, KilledWorker, WorkerPlugin, get_worker
except ImportError as missing:
    raise MissingDependencyError(
        f"a cluster needs the package distributed: {how_to_install('dask')}"
    ) from missing

if TYPE_CHECKING:
    from histcxr.data.blocks import Job

_AHEAD: Final = 2  # blocks in flight for each thread of the cluster: one is worked at, one waits beside it
_LOOK: Final = (
    5.0  # seconds after which a block that is waited for has us look whether there still are workers
)
_PATIENCE: Final = 300.0  # seconds for which there may be none
_MOST_WARNINGS: Final = 20  # of a run


def connect(scheduler: str, timeout: float = 10.0) -> Client:
    """Connect to a Dask scheduler, such as ``tcp://HOST:8786``; InputError where none answers."""
    try:
        return Client(scheduler, timeout=timeout, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # the last: tls:// without a certificate
        raise InputError(
            f"scheduler must be the address of a running Dask scheduler, as tcp://HOST:8786; {scheduler!r}: {error}"
        ) from error


class Cluster:
    """A Dask ``client`` whose workers do a job; a context manager, at whose end they forget it.

    InputError: no worker, or one that has another version of histcxr, other limits on files, or refuses the job.
    """

    def __init__(self, client: Client, job: Job) -> None:
        self._client, self._job = client, job
        self._name = f"histcxr {uuid.uuid4().hex}"
        self._said: set[str] = set()
        self._alone_since: float | None = None
        if not self._threads():
            raise InputError("the cluster must have at least one worker; it has none")
        try:
            client.register_plugin(_Sent(job), name=self._name)
        except Exception as error:  # whatever a worker's set-up raises comes through here
            self.__exit__()  # else it would be sent to workers that come later
            raise InputError(f"the cluster's workers must be able to take in the job: {error}") from error

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(
            Exception, asyncio.CancelledError
        ):  # a cluster that is lost forgets it anyway
            self._client.unregister_worker_plugin(self._name)

    @property
    def ahead(self) -> int:
        """How many blocks may be in flight: what bounds the driver's memory."""
        with _asking():
            return _AHEAD * max(1, self._threads())

    def submit(self, items: Sequence[Any], *, careful: bool = False) -> Callable[[], list[Any]]:
        """Send a block out; what is returned waits for its results."""
        if not items:
            return list
        with _asking():
            future = self._client.submit(_work_there, self._name, list(items), careful, pure=False)
        return lambda: self._result(future, items)

    def in_order(self, blocks: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
        """Yield the results of blocks in their order."""
        flying: deque[Callable[[], list[Any]]] = deque()
        for block in blocks:
            flying.append(self.submit(block))
            if len(flying) > self.ahead:
                yield flying.popleft()()
        while flying:
            yield flying.popleft()()

    def _threads(self) -> int:
        return sum(self._client.nthreads().values())

    def _result(self, future: Any, items: Sequence[Any]) -> list[Any]:
        try:
            with _asking():
                found, heard = self._wait(future)
        except KilledWorker:
            if len(items) == 1:
                return [self._job.lost(items[0])]
            return [one for item in items for one in self.submit([item], careful=True)()]
        for text in heard:
            if text not in self._said and len(self._said) < _MOST_WARNINGS:
                self._said.add(text)
                warnings.warn(f"on a worker: {text}", HistcxrWarning, stacklevel=2)
        if isinstance(found, Exception):
            raise found
        results: list[Any] = found
        return results

    def _wait(self, future: Any) -> Any:
        """Wait for a block, unless nobody is left to do it."""
        while True:
            try:
                return future.result(timeout=_LOOK)
            except TimeoutError:
                if self._threads():
                    self._alone_since = None
                    continue
            self._alone_since = self._alone_since or time.monotonic()
            if time.monotonic() - self._alone_since > _PATIENCE:
                raise OSError(f"no worker for {_PATIENCE:.0f} seconds")


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Name a cluster that is lost: what the job itself raises does not come this way."""
    try:
        yield
    except KilledWorker:
        raise
    except (Exception, asyncio.CancelledError) as error:
        raise OutputError(
            f"the cluster was lost ({type(error).__name__}: {error}); what was written is kept, and the same "
            "command goes on from there"
        ) from error


class _Sent(WorkerPlugin):
    """A job on its way, and, once set up, in a worker process."""

    def __init__(self, job: Job) -> None:
        self.content = pickle.dumps(job)
        self.digest, self.version, self.limits = _digest(self.content), __version__, BUDGET.changed()

    def setup(self, worker: Any) -> None:
        """Check the job and take it in; called by Dask."""
        if __version__ != self.version:
            raise InputError(f"{worker.address} has histcxr {__version__}, the driver {self.version}")
        if BUDGET.changed() != self.limits:
            found = f"{BUDGET.changed()}, the driver {self.limits}"
            raise InputError(f"{worker.address} has other limits on files (HISTCXR_MAX_...): {found}")
        if _digest(self.content) != self.digest:
            raise InputError(f"{worker.address}: what came is not what was sent")
        self.job = pickle.loads(self.content)  # noqa: S301 - as Dask does with all that it sends
        self.content = b""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _work_there(name: str, items: Sequence[Any], careful: bool) -> tuple[list[Any] | Exception, list[str]]:
    sent: Any = get_worker().plugins[name]
    with _listening() as heard:
        try:
            return sent.job(items, careful), heard
        except Exception as error:  # noqa: BLE001 - raised by the driver, which takes others for the cluster's
            return error, heard


_lock = threading.Lock()
_ears: list[list[str]] = []
_undo = contextlib.ExitStack()


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """Collect warnings, each text once; filters are the process's, so all threads at work hear what one hears."""
    heard: list[str] = []
    with _lock:
        if not _ears:
            _undo.enter_context(warnings.catch_warnings())
            warnings.simplefilter("default")
            warnings.showwarning = _hear
        _ears.append(heard)
    try:
        yield heard
    finally:
        with _lock:
            _ears[:] = [one for one in _ears if one is not heard]
            if not _ears:
                _undo.close()


def _hear(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    text = f"{category.__name__}: {message}"
    for heard in list(_ears):
        if text not in heard and len(heard) < _MOST_WARNINGS:
            heard.append(text)
