"""Judging on a Dask cluster: blocks of inputs go out, verdicts come back, in order.

The driver sends the model and the network that finds lungs once to each worker process, which loads the model as
from a folder: its hashes and its probe are checked there. A worker reads, finds lungs, counts and scores a block at
a time, as threads on one machine do, so its rows are the same. Only hashes, scores and reasons travel back. Files are
read where the worker runs: paths must lead to them there, too.

A block whose worker dies is judged once more elsewhere. A file that ends one worker process after another becomes a
row of its own (``unexpected``).
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from histcxr import __version__
from histcxr.data.discovery import InputFile
from histcxr.decision.thresholds import REVIEW
from histcxr.exceptions import InputError, MissingDependencyError, OutputError, Reason, how_to_install
from histcxr.lungs.segmenter import Segmenter
from histcxr.store import Judge, model_hash, pack_model, unpack_model
from histcxr.worklist.judging import TASK_SIZE, Judged, Measured, Verdict, judge, measure_images, signature

try:
    from distributed import Client, KilledWorker, WorkerPlugin, get_worker
except ImportError as missing:
    raise MissingDependencyError(
        f"a cluster needs the package distributed: {how_to_install('dask')}"
    ) from missing

_AHEAD: Final = 2  # blocks in flight for each thread of the cluster: one is judged, one waits beside it
_DIED: Final = "the worker process that judged it ended, again and again"


def connect(scheduler: str, timeout: float = 10.0) -> Client:
    """Connect to a Dask scheduler, such as ``tcp://HOST:8786``; InputError where none answers."""
    try:
        return Client(scheduler, timeout=timeout, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"scheduler must be the address of a running Dask scheduler, as tcp://HOST:8786; {scheduler!r}: {error}"
        ) from error


class Cluster:
    """A Dask ``client`` that judges blocks by a model; ``segmenter`` finds the lungs of images without a mask.

    InputError: no worker, or one that has another version of histcxr or refuses the model.
    """

    def __init__(self, client: Client, model: Judge, segmenter: Segmenter | None) -> None:
        self._client = client
        self._name = f"histcxr {model_hash(model)} {'' if segmenter is None else segmenter.digest}"
        if not self._threads():
            raise InputError("the cluster must have at least one worker; it has none")
        judging = _Judging(pack_model(model), model_hash(model), segmenter)
        try:
            client.register_plugin(judging, name=self._name)
        except Exception as error:  # whatever a worker's set-up raises comes through here
            raise InputError(f"the cluster's workers must be able to load the model: {error}") from error

    @property
    def ahead(self) -> int:
        """How many blocks may be in flight: what bounds the driver's memory."""
        with _asking():
            return _AHEAD * max(1, self._threads())

    def submit(self, files: Sequence[InputFile]) -> Callable[[], Judged]:
        """Send a block out; what is returned waits for what became of it."""
        with _asking():
            future = self._client.submit(_judge_there, self._name, list(files), pure=False)
        return lambda: self._result(future, files)

    def _threads(self) -> int:
        return sum(self._client.nthreads().values())

    def _result(self, future: Any, files: Sequence[InputFile]) -> Judged:
        try:
            with _asking():
                found: Judged = future.result()
        except KilledWorker:
            if len(files) == 1:
                return [_lost(files[0])]
            return [one for file in files for one in self.submit([file])()]
        return found


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Name a cluster that is lost. Judging itself never raises, so every other error is the cluster's."""
    try:
        yield
    except KilledWorker:
        raise
    except Exception as error:
        raise OutputError(
            f"the cluster was lost ({type(error).__name__}: {error}); what was judged is kept, and the same command "
            "goes on"
        ) from error


class _Judging(WorkerPlugin):
    """What a worker process needs to judge; made by the driver, set up once in each worker."""

    def __init__(self, files: Mapping[str, bytes], hash_: str, segmenter: Segmenter | None) -> None:
        self.files, self.hash, self.segmenter, self.version = files, hash_, segmenter, __version__
        self.digest = _digest(files)

    def setup(self, worker: Any) -> None:
        """Load the model; called by Dask."""
        if __version__ != self.version:
            raise InputError(f"{worker.address} has histcxr {__version__}, the driver {self.version}")
        self.model = unpack_model(dict(self.files))
        if model_hash(self.model) != self.hash or _digest(self.files) != self.digest:
            raise InputError(f"{worker.address}: the model is not the one that was sent")
        self.scoring = threading.Lock()

    def judge(self, files: Sequence[InputFile]) -> Judged:
        """Judge a block as threads do; counts stay here."""
        measured: list[Measured] = []
        for start in range(0, len(files), TASK_SIZE):
            measured += measure_images(
                files[start : start + TASK_SIZE], self.model.measure, self.segmenter, self.model.side
            )
        with self.scoring:
            verdicts = judge(self.model, measured)
        return [(replace(one, values=None), verdict) for one, verdict in zip(measured, verdicts, strict=True)]


def _digest(files: Mapping[str, bytes]) -> str:
    return hashlib.sha256(
        b"".join(hashlib.sha256(files[name]).digest() for name in sorted(files))
    ).hexdigest()


def _judge_there(name: str, files: Sequence[InputFile]) -> Judged:
    judging = get_worker().plugins[name]
    assert isinstance(judging, _Judging)
    return judging.judge(files)


def _lost(file: InputFile) -> tuple[Measured, Verdict]:
    stat, mask_stat = signature(file.path), signature(file.mask) if file.mask else None
    gone = Measured(None, Reason.UNEXPECTED, _DIED, stat=stat, mask_stat=mask_stat, facts=file.facts)
    return gone, Verdict(REVIEW, None, gone.reason, gone.detail)
