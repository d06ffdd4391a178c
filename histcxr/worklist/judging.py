"""Judging one image and one batch, so that every failure becomes a reason and none becomes a decision.

Here, and where a whole folder is segmented, every exception is caught: a file that brings out a bug must not take
the other files with it, and must not pass for normal. It goes to review with the exception's own words.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from histcxr.data.ahead import reading_ahead
from histcxr.data.discovery import InputFile
from histcxr.data.radiograph import WORKING_SIDE
from histcxr.decision.thresholds import REVIEW
from histcxr.dicom.tags import ImageUids, tags_in
from histcxr.exceptions import RadiographError, Reason, UnjudgeableError
from histcxr.features.measuring import Measure, measure_batch, measure_image
from histcxr.files import remote
from histcxr.files.apart import cautiously
from histcxr.files.reading import read_file
from histcxr.files.stages import stage
from histcxr.lungs.segmenter import Segmenter
from histcxr.store import Judge
from histcxr.worklist.whole import pack_site

MAX_HELD = 1 << 24  # bytes of files that a thread holds before it decodes them
MAX_DETAIL = 300  # characters of an unexpected error's message that are kept

TASK_SIZE: Final = 8  # images that are measured together, the same for all workers, so that their rows are

Signature = list[int] | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of one image before the model sees it.

    ``values`` is what the model reads from it: int64 (rows, 256), or the uint8 square of a network; None where there
    is a ``reason``, of which ``detail`` says what was found. ``sha256`` and ``mask_sha256`` are of the files as they
    were read, "" where they could not be; ``stat`` and ``mask_stat`` their :func:`signature` just before: if one
    changes meanwhile, the next run sees it. ``facts`` is what the list, or else the DICOM file, says of the image: its
    groups, and its patient. ``uids`` are of a DICOM file.
    """

    values: NDArray[Any] | None
    reason: Reason | None = None
    detail: str = ""
    sha256: str = ""
    mask_sha256: str = ""
    stat: Signature = None
    mask_stat: Signature = None
    facts: Mapping[str, str] = field(default_factory=dict)
    uids: ImageUids = ImageUids()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Score and drawer of one image; a reason instead of a score where it could not be judged.

    ``site`` is what the test of the folder keeps of it, "" where it keeps nothing. ``limits`` are the thresholds of its
    groups, None for nobody; () where the model has none.
    """

    decision: str
    score: float | None
    reason: Reason | None = None
    detail: str = ""
    site: str = ""
    limits: tuple[float | None, ...] = ()


#: What becomes of a block: one pair for each input, in order.
Judged = list[tuple[Measured, Verdict]]


def measure_images(
    items: Sequence[InputFile],
    measure: Measure[NDArray[Any]],
    segmenter: Segmenter | None = None,
    side: int = WORKING_SIDE,
) -> list[Measured]:
    """Read some inputs and measure them; never raises an :class:`Exception`.

    One result each, in order, by the model's :meth:`~histcxr.store.judges.Judge.measure`. The ``segmenter`` finds the
    lungs of images without a mask.
    """
    found: dict[int, Measured] = {}
    waiting: list[_Loaded] = []
    held = 0
    with reading_ahead(_read_by(items)):
        for place, item in enumerate(items):
            with stage("read"):
                loaded = _load(place, item)
            if isinstance(loaded, Measured):
                found[place] = loaded
                continue
            waiting.append(loaded)
            held += loaded.size
            if held >= MAX_HELD:
                found |= _measure(waiting, measure, segmenter, side)
                waiting, held = [], 0
    found |= _measure(waiting, measure, segmenter, side)
    return [found[place] for place in range(len(items))]


def _read_by(items: Sequence[InputFile]) -> list[str]:
    return [name for item in items if item.problem is None for name in (item.path, item.mask)]


class _Loaded(NamedTuple):
    """The files of one input, in memory."""

    place: int
    path: str
    image: bytes
    mask: bytes | str  # the path where the file cannot be read: the reader of masks finds the words
    sha256: str
    mask_sha256: str
    stat: Signature
    mask_stat: Signature
    facts: Mapping[str, str]
    uids: ImageUids

    @property
    def size(self) -> int:
        return len(self.image) + len(self.mask)


def _load(place: int, item: InputFile) -> _Loaded | Measured:
    if item.problem is not None:
        return Measured(None, item.problem, item.detail, facts=item.facts)
    stat, mask_stat = signature(item.path), signature(item.mask) if item.mask else None
    lost = Measured(None, stat=stat, mask_stat=mask_stat, facts=item.facts)
    try:
        image = read_file(item.path)
        tags, uids = tags_in(image)
        mask: bytes | str = item.mask
        try:
            mask = read_file(item.mask) if item.mask else ""
        except RadiographError as error:
            if error.reason is Reason.UNREACHABLE:
                raise
    except UnjudgeableError as error:
        return replace(lost, reason=error.reason, detail=error.detail)
    except Exception as error:  # noqa: BLE001 - one image's bug must not end the run; see the module's text
        return replace(lost, reason=Reason.UNEXPECTED, detail=describe(error))
    mask_digest = hashlib.sha256(mask).hexdigest() if isinstance(mask, bytes) else ""
    digest = hashlib.sha256(image).hexdigest()
    facts = {**{name: value for name, value in tags.items() if value}, **item.facts}
    return _Loaded(place, item.path, image, mask, digest, mask_digest, stat, mask_stat, facts, uids)


def _measure(
    waiting: Sequence[_Loaded], measure: Measure[NDArray[Any]], segmenter: Segmenter | None, side: int
) -> dict[int, Measured]:
    """Measure what was read, together if that works, else one by one."""
    images, masks, paths = ([getattr(one, name) for one in waiting] for name in ("image", "mask", "path"))
    results: Sequence[tuple[NDArray[Any], str] | UnjudgeableError | Measured]
    try:
        results = measure_batch(images, masks, measure, segmenter=segmenter, paths=paths, side=side)
    except Exception:  # noqa: BLE001 - whatever it was, it comes up again with its image
        results = [_measure_alone(one, measure, segmenter, side) for one in waiting]
    found = {}
    for one, result in zip(waiting, results, strict=True):
        if isinstance(result, UnjudgeableError):
            result = Measured(None, result.reason, result.detail)
        elif not isinstance(result, Measured):
            result = Measured(result[0])
        found[one.place] = replace(
            result,
            sha256=one.sha256,
            mask_sha256=one.mask_sha256,
            stat=one.stat,
            mask_stat=one.mask_stat,
            facts=one.facts,
            uids=one.uids,
        )
    return found


def _measure_alone(
    one: _Loaded, measure: Measure[NDArray[Any]], segmenter: Segmenter | None, side: int
) -> tuple[NDArray[Any], str] | UnjudgeableError | Measured:
    try:
        return measure_image(one.image, one.mask, measure, segmenter=segmenter, path=one.path, side=side)
    except UnjudgeableError as error:
        # Not the error itself: its traceback would hold the pixels.
        return UnjudgeableError(error.reason, error.path, error.detail)
    except Exception as error:  # noqa: BLE001 - one image's bug must not end the run; see the module's text
        return Measured(None, Reason.UNEXPECTED, describe(error))


def judge(model: Judge, batch: Sequence[Measured]) -> list[Verdict]:
    """Score a batch and put each image into its drawer, in order; never raises an :class:`Exception`.

    A batch that the model fails on is scored one by one, so that only the images at fault go to review.
    """
    verdicts = [Verdict(REVIEW, None, found.reason, found.detail) for found in batch]
    places = [place for place, found in enumerate(batch) if found.values is not None]
    measured = [found.values for found in batch if found.values is not None]
    if not places:
        return verdicts
    scores = np.full(len(places), np.nan)
    failed: dict[int, str] = {}
    together: Any = measured
    try:
        together = np.stack(measured)  # once: tens of megabytes with all bands
        scores[:] = model.score(together)
    except Exception:  # noqa: BLE001 - whatever it was, it comes up again below, with its image
        for i, one in enumerate(measured):
            try:
                scores[i] = model.score(one[np.newaxis])[0]
            except Exception as error:  # noqa: BLE001 - see the module's text
                failed[i] = describe(error)
    strange = _unfamiliar(model, together)
    sites = _sites(model, together)
    known = {
        name: np.array([batch[place].facts.get(name, "") for place in places], object)
        for name in _names(batch)
    }
    drawers, limits = model.drawers(scores, known).tolist(), _limits(model, known, len(places))
    for i, (place, drawer, score) in enumerate(zip(places, drawers, scores.tolist(), strict=True)):
        if strange[i]:
            verdicts[place] = Verdict(REVIEW, None, Reason.UNLIKE_TRAINING)
        elif i in failed:
            verdicts[place] = Verdict(REVIEW, None, Reason.UNEXPECTED, failed[i])
        elif not 0 <= score <= 1:  # so is NaN
            verdicts[place] = Verdict(REVIEW, None, Reason.SCORE_INVALID, f"a score of {score!r}")
        else:
            verdicts[place] = Verdict(drawer, score, site=sites[i], limits=limits[i])
    return verdicts


def _limits(model: Judge, known: Mapping[str, NDArray[Any]], n: int) -> Sequence[tuple[float | None, ...]]:
    """By which thresholds of their groups images are judged, where the model has such."""
    groups = getattr(model, "groups", None)
    if groups is None:
        return [()] * n
    both = np.stack([thresholds.limits(known, n) for thresholds in groups], axis=1)
    return [tuple(limit if math.isfinite(limit) else None for limit in one) for one in both.tolist()]


def _unfamiliar(model: Judge, measured: Any) -> NDArray[np.bool_]:
    """Which images the model does not know; all of them where that cannot be told."""
    try:
        return model.unfamiliar(measured)
    except Exception:  # noqa: BLE001 - see the module's text; what cannot be checked is not judged
        return np.ones(len(measured), bool)


def _sites(model: Judge, measured: Any) -> list[str]:
    """What the test of the folder keeps of each image; nothing where the model tests none, or its numbers fail."""
    nothing = [""] * len(measured)
    if model.site is None:
        return nothing
    try:
        found = model.site.project(model.site_numbers(measured))
    except Exception:  # noqa: BLE001 - see the module's text; whole.py withholds what cannot be tested
        return nothing
    return [pack_site(one) if np.isfinite(one).all() else "" for one in found]


def _names(batch: Sequence[Measured]) -> set[str]:
    return {name for found in batch for name in found.facts}


class Workers(Protocol):
    """Judges blocks of inputs, several at a time."""

    @property
    def ahead(self) -> int:
        """How many blocks may be on their way beside the one that is waited for: what bounds the memory."""

    def submit(self, files: Sequence[InputFile], *, careful: bool = False) -> Callable[[], Judged]:
        """Begin a block; what is returned waits for what became of it.

        ``careful``: decode every file in a process that may be ended, for one of them may have ended an earlier run.
        """


class Threads:
    """Threads that measure a block ahead of the model, which scores in the thread that waits; a context manager."""

    ahead: Final = 1

    def __init__(self, n_jobs: int, model: Judge, segmenter: Segmenter | None) -> None:
        self._pool = ThreadPoolExecutor(n_jobs, thread_name_prefix="histcxr")
        self._model = model
        self._segmenter = segmenter
        self._ahead: deque[contextlib.ExitStack] = deque()  # what comes from a store, block by block

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: Any) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        while self._ahead:
            self._ahead.popleft().close()

    def submit(self, files: Sequence[InputFile], *, careful: bool = False) -> Callable[[], Judged]:
        """Begin a block."""
        model, size, work = self._model, TASK_SIZE, cautiously(measure_images) if careful else measure_images
        self._ahead.append(contextlib.ExitStack())
        self._ahead[-1].enter_context(reading_ahead(_read_by(files)))
        tasks = [
            self._pool.submit(work, files[i : i + size], model.measure, self._segmenter, model.side)
            for i in range(0, len(files), size)
        ]

        def wait() -> Judged:
            measured = [one for task in tasks for one in task.result()]
            self._ahead.popleft().close()
            with stage("score"):
                return list(zip(measured, judge(model, measured), strict=True))

        return wait


def limits_of(model: Judge) -> tuple[float, ...]:
    """Return every threshold by which a model's scores may be judged: over all patients, and within groups."""
    drawers = getattr(model, "groups", None) or ()
    choices = [choice for one in drawers for values in one.groups.values() for choice in values.values()]
    overall = [model.rule_out, model.rule_in, *(one.overall for one in drawers)]
    return tuple({choice.threshold for choice in (*overall, *choices)})


def describe(error: Exception) -> str:
    """Name an unexpected error, shortly."""
    text = f"{type(error).__name__}: {error}".strip(": ")
    return text if len(text) <= MAX_DETAIL else text[: MAX_DETAIL - 3] + "..."


def signature(path: str) -> Signature:
    """Tell a file apart from what it was: size and times, None where there is no file.

    The change time is part of it: it also moves when the content is replaced under the old date, and when
    somebody repairs the permission.
    """
    if isinstance(path, remote.Url):
        try:
            return list(remote.stat(path))
        except RadiographError:
            return None
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
