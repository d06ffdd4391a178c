"""Judging on a Dask cluster: workers read, find lungs, count and score a block at a time, as threads here do.

So rows are the same. Only hashes, scores and reasons travel back. The model is loaded as from a folder: its hash and
its probe are checked in each worker.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from histcxr.data.blocks import DIED
from histcxr.data.discovery import InputFile
from histcxr.exceptions import InputError, Reason
from histcxr.files.apart import cautiously
from histcxr.lungs.segmenter import Segmenter
from histcxr.store import Judge, model_hash, pack_model, unpack_model
from histcxr.worklist.judging import TASK_SIZE, Judged, Measured, judge, measure_images, signature


class Judging:
    """A job: a block of inputs is judged by ``model``; ``segmenter`` finds the lungs of images without a mask."""

    def __init__(self, model: Judge, segmenter: Segmenter | None) -> None:
        self._model, self._segmenter, self._scoring = model, segmenter, threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (pack_model(self._model), model_hash(self._model), self._segmenter)

    def __call__(self, items: Sequence[InputFile], careful: bool = False) -> Judged:
        """Judge a block; its counts stay here."""
        measured: list[Measured] = []
        work = cautiously(measure_images) if careful else measure_images
        for start in range(0, len(items), TASK_SIZE):
            part = items[start : start + TASK_SIZE]
            measured += work(part, self._model.measure, self._segmenter, self._model.side)
        with self._scoring:
            verdicts = judge(self._model, measured)
        return [(replace(one, values=None), verdict) for one, verdict in zip(measured, verdicts, strict=True)]

    def lost(self, item: InputFile) -> Any:
        """Send an input to review."""
        stat, mask_stat = signature(item.path), signature(item.mask) if item.mask else None
        gone = Measured(None, Reason.UNEXPECTED, DIED, stat=stat, mask_stat=mask_stat, facts=item.facts)
        return gone, judge(self._model, [gone])[0]


def _unpacked(files: Mapping[str, bytes], hash_: str, segmenter: Segmenter | None) -> Judging:
    model = unpack_model(dict(files))
    if model_hash(model) != hash_:
        raise InputError("the model is not the one that was sent")
    return Judging(model, segmenter)
