"""Triage: a stream of files in, one row for each of them out, in constant memory.

Threads, or the workers of a cluster, measure images ahead of the model; each block is scored at once and its lines
are appended to the audit trail with one write. The worklist is made from the trail at the end, beside its place, and
moved there in one step. So a run that is killed at any moment leaves no half worklist, and the same command goes
on behind the last line.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from histcxr.checks import whole_number
from histcxr.data.discovery import InputFile, find_inputs
from histcxr.exceptions import InputError, Reason
from histcxr.files.budget import BUDGET
from histcxr.files.remote import place_of
from histcxr.files.stages import stage
from histcxr.lungs.segmenter import Segmenter, load_segmenter
from histcxr.store import Judge, installed_versions, load_model, model_hash
from histcxr.worklist.audit_trail import AUDIT_SUFFIX, AuditTrail, Key, label_of, row_of
from histcxr.worklist.judging import Judged, Measured, Threads, Verdict, Workers, limits_of, signature
from histcxr.worklist.locks import check_places
from histcxr.worklist.rows import WorklistFile, writer_for
from histcxr.worklist.summary import Order, TriageSummary
from histcxr.worklist.whole import WholeFolder, patient_of

if TYPE_CHECKING:
    from distributed import Client

SORTS = ("input", "urgency")
PACKAGES = ("numpy", "onnxruntime", "opencv-python-headless")  # beside the model's own
MAX_WARNINGS = 20

_Path = str | os.PathLike[str]


def triage(
    inputs: _Path,
    model: Judge | _Path,
    output: _Path,
    *,
    masks: _Path | None = None,
    segment: bool = True,
    segmenter: Segmenter | _Path | None = None,
    n_jobs: int = 2,
    batch_size: int = 256,
    sort: str = "input",
    overwrite: bool = False,
    audit: _Path | None = None,
    uids: bool = False,
    trust_site: bool = False,
    client: Client | None = None,
    progress: Callable[[int], None] | None = None,
) -> TriageSummary:
    """Put each radiograph of a folder into ``rule_out``, ``review`` or ``rule_in``.

    Every input becomes exactly one row. What cannot be judged, for whatever reason, becomes ``review`` with the
    reason; nothing ever fails into ``rule_out``. Without a certified threshold its drawer stays empty.

    The same call goes on where an earlier one was stopped. After an earlier one that ended, it judges only the
    files that are new or changed, and writes the worklist anew.

    Parameters
    ----------
    inputs : path-like
        A folder, a CSV list or a single image, or the URL of one; see :func:`~histcxr.data.discovery.find_inputs`.
    model : Model, ReferenceModel or path-like
        A histogram model, a network that sees the image itself, or the folder of either.
    output : path-like
        The worklist, by its name CSV (``.csv``), JSON Lines (``.jsonl``, ``.ndjson``) or Parquet
        (``.parquet``). Columns: :class:`~histcxr.worklist.rows.Row`.
    masks : path-like, optional
        Where the lung masks are, if not beside the images.
    segment : bool
        Whether the lungs of images without a mask are found by a network; otherwise they go to review. So, too, with
        models that see the full image: its lungs show that it is an upright frontal chest, exposed as it should be.
    segmenter : Segmenter or path-like, optional
        That network; by default the one that comes with histcxr.
    n_jobs : int, default=2
        Threads that read images; -1 for one a core.
    batch_size : int, default=256
        Images scored at a time. A run that goes on keeps it, since a score's last digit may depend on it.
    sort : {"input", "urgency"}
        Order of the rows: as found; or rule_in, what could not be judged, review, rule_out, the highest
        score first.
    overwrite : bool
        Start anew over an earlier worklist and its audit trail.
    audit : path-like, optional
        The audit trail; by default the output's name with ``.audit.jsonl`` added.
    uids : bool
        Whether worklist and audit trail hold ``study_uid, series_uid, sop_uid`` of DICOM images, which lead back to
        the patient.
    trust_site : bool
        Let the drawers stand where the folder differs from the population that certified the model; written into the
        audit trail. By default such a folder has no ``rule_out`` and no ``rule_in``.
    client : distributed.Client, optional
        Of a Dask cluster that judges instead of this machine's threads; ``n_jobs`` is not used then. Its workers must
        see the same files under the same paths. The worklist is the same.
    progress : callable, optional
        Called with the number of rows done so far, after each batch.

    Raises
    ------
    InputError
        An argument is wrong, or the output belongs to another run.
    ModelError
        The model is refused.
    OutputError
        The output cannot be written, or another run is writing it. What was judged is kept.
    MissingDependencyError
        The model is a network, and Keras or its backend is not installed.
    """
    started = time.monotonic()
    n_jobs, batch_size = _check_numbers(n_jobs, batch_size)
    if sort not in SORTS:
        raise InputError(f"sort must be one of {', '.join(SORTS)}, got {sort!r}")
    target = os.path.abspath(os.fspath(output))
    trail_path = os.path.abspath(os.fspath(audit)) if audit is not None else target + AUDIT_SUFFIX
    make_writer = writer_for(target, uids=uids)
    check_places(place_of(inputs), target, trail_path, overwrite)
    stream = find_inputs(inputs, masks)
    used = load_model(model) if isinstance(model, str | os.PathLike) else model
    finder = _finder(segment, segmenter)
    header = _header(used, finder, inputs, masks, batch_size, uids)
    with (
        _quiet() as heard,
        AuditTrail(trail_path, header, overwrite=overwrite) as trail,
        WorklistFile(target, remove=overwrite) as worklist,
    ):
        run = _Run(trail, progress, WholeFolder(used.site, trust_site))
        with _workers(client, used, finder, n_jobs) as workers:
            run.judge_all(stream, workers)
        run.revise()
        order, whole = run.order, run.whole
        site = None if whole.result is None else whole.result.to_dict()
        places = order.by_urgency() if sort == "urgency" else order.by_input()
        limits = limits_of(used)
        with stage("write"):
            worklist.write(make_writer, (row_of(trail.read(int(place)), header, limits) for place in places))
        unjudged = sum(order.reasons.values())
        counts = {"unjudged": unjudged, "resumed": run.resumed, "site": site, "trust_site": trust_site}
        trail.finish({"rows": len(order), **order.drawers, **counts})
        head = trail.head
    seconds = time.monotonic() - started
    return TriageSummary(
        total=len(order),
        drawers=order.drawers,
        unjudged=unjudged,
        reasons=order.reasons,
        skipped=dict(sorted(stream.skipped.items())),
        patients=whole.patients(),
        site=site,
        withheld=whole.withheld,
        resumed=run.resumed,
        model=label_of(header),
        output=target,
        audit=trail_path,
        audit_head=head,
        seconds=seconds,
        images_per_second=(len(order) - run.resumed) / max(seconds, 1e-9),
        notes=(
            *stream.notes,
            *_notes(used, header["segmenter"], len(order), run.found),
            *(whole.notes() if len(order) else ()),
        ),
        warnings=tuple(heard),
    )


@dataclass(slots=True)
class _Input:
    """One input on its way, and its line of an earlier run if that still holds."""

    file: InputFile
    kept: tuple[int, dict[str, Any]] | None


@dataclass(slots=True)
class _Block:
    """Inputs that the model sees together, those of them that are being measured, and where the results come."""

    inputs: list[_Input]
    measuring: list[_Input]
    result: Callable[[], Judged]


class _Run:
    """The loop over blocks of inputs: one is measured while the one before is scored."""

    def __init__(self, trail: AuditTrail, progress: Callable[[int], None] | None, whole: WholeFolder) -> None:
        self.order = Order()
        self.whole = whole
        self.resumed = 0
        self.found = 0  # images that were scored by lungs that the network found
        self._trail = trail
        self._uids: bool = trail.header["uids"]
        self._key: str = trail.header["key"]
        self._batch_size: int = trail.header["options"]["batch_size"]
        self._progress = progress
        self._careful = 2 * trail.unfinished  # blocks that were begun when an earlier run came to its end

    def judge_all(self, stream: Iterator[InputFile], workers: Workers) -> None:
        """Judge every input and note its row."""
        blocks: deque[_Block] = deque()
        while files := list(islice(stream, self._batch_size)):
            blocks.append(self._begin(files, workers))
            if len(blocks) > workers.ahead:
                self._finish(blocks.popleft())
        while blocks:
            self._finish(blocks.popleft())

    def _begin(self, files: list[InputFile], workers: Workers) -> _Block:
        """Look up what earlier runs know of a block, and have the rest measured."""
        inputs = [self._look_up(file) for file in files]
        measuring = [one for one in inputs if one.kept is None]
        # A killed run may have cut a block in two. Its whole is measured again, so that the model sees the
        # same batch as in an uninterrupted run; kept rows are not written again.
        if measuring and self._trail.unfinished:
            measuring = inputs
        careful = self._careful > 0
        self._careful -= bool(measuring)
        return _Block(inputs, measuring, workers.submit([one.file for one in measuring], careful=careful))

    def _look_up(self, file: InputFile) -> _Input:
        found = self._trail.find(Key(file.relative, file.mask))
        return _Input(file, found if found is not None and _still_true(found[1], file) else None)

    def _finish(self, block: _Block) -> None:
        """Score a block, append its lines to the trail and note its rows."""
        judged = block.result()
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        fresh = [
            self._record(one, found, verdict, now)
            for one, (found, verdict) in zip(block.measuring, judged, strict=True)
            if one.kept is None
        ]
        with stage("write"):
            written = iter(zip(self._trail.append(fresh), fresh, strict=True))
        for one in block.inputs:
            offset, record = one.kept or next(written)
            self.whole.add(len(self.order), record)
            self.order.add(offset, record["decision"], record["score"], record["reason"])
            self.resumed += one.kept is not None
            self.found += not record["mask"] and record["score"] is not None
        if self._progress is not None:
            self._progress(len(self.order))

    def revise(self) -> None:
        """Write new lines for the rows whose drawer the whole folder changes."""
        demoted = self.whole.demoted(len(self.order))
        places = self.order.by_input()  # a view: a row is read before it is revised
        for start in range(0, len(places), self._batch_size):
            rows = range(start, min(start + self._batch_size, len(places)))
            changed = {}
            for row in rows:
                record = self._trail.read(int(places[row]))
                decision, reason = self.whole.revised(record, bool(demoted[row]))
                if (decision, reason) != (record["decision"], record["reason"]):
                    own = record.get("own", record["decision"])
                    changed[row] = {**record, "decision": decision, "reason": reason, "own": own}
            for (row, record), offset in zip(
                changed.items(), self._trail.append(list(changed.values())), strict=True
            ):
                self.order.revise(row, offset, record["decision"], record["reason"])

    def _record(self, one: _Input, found: Measured, verdict: Verdict, now: str) -> dict[str, Any]:
        """One line of the audit trail."""
        patient = patient_of(found.facts, found.uids.study_uid, self._key)
        return {
            "file": one.file.relative,
            "mask": one.file.mask,
            "sha256": found.sha256,
            "mask_sha256": found.mask_sha256,
            "stat": found.stat,
            "mask_stat": found.mask_stat,
            "patient": patient,
            "decision": verdict.decision,
            "score": verdict.score,
            "reason": "" if verdict.reason is None else verdict.reason.value,
            "detail": verdict.detail,
            **({"limits": list(verdict.limits)} if verdict.limits else {}),
            **({"site": verdict.site} if verdict.site else {}),
            **({"uids": list(found.uids[:3])} if self._uids else {}),
            "time": now,
        }


def _still_true(record: dict[str, Any], file: InputFile) -> bool:
    """Tell whether what an earlier run wrote about an input would be written again."""
    if file.problem is not None:
        return bool(record["reason"] == file.problem and record["detail"] == file.detail)
    if record["reason"] in (Reason.UNEXPECTED, Reason.UNREACHABLE):
        return False  # memory may have been short, the bug is gone, the store answers again
    mask_stat = signature(file.mask) if file.mask else None
    if record["patient"] != file.facts.get("patient_id", record["patient"]):
        return False  # the list names another patient now
    return bool(record["stat"] == signature(file.path) and record["mask_stat"] == mask_stat)


@contextlib.contextmanager
def _workers(
    client: Client | None, model: Judge, segmenter: Segmenter | None, n_jobs: int
) -> Iterator[Workers]:
    """Give what judges: a cluster, or threads that end with the run."""
    if client is None:
        with Threads(n_jobs, model, segmenter) as threads:
            yield threads
        return
    from histcxr.data.cluster import Cluster  # Dask is an extra
    from histcxr.worklist.cluster import Judging

    with Cluster(client, Judging(model, segmenter)) as cluster:
        yield cluster


def _finder(segment: bool, segmenter: Segmenter | _Path | None) -> Segmenter | None:
    """Return what finds the lungs where there is no mask, None where nothing shall."""
    if not segment:
        return None
    return segmenter if isinstance(segmenter, Segmenter) else load_segmenter(segmenter)


def _header(
    model: Judge,
    segmenter: Segmenter | None,
    inputs: _Path,
    masks: _Path | None,
    batch_size: int,
    uids: bool,
) -> dict[str, Any]:
    packages = installed_versions((*PACKAGES, *model.packages))
    place, digest = place_of(inputs), model_hash(model)
    groups = getattr(model, "groups", None)
    return {
        "histcxr": packages.pop("histcxr"),
        "packages": packages,
        "model": {"name": model.name, "hash": digest},
        **model.describe_input(),
        "segmenter": None if segmenter is None else segmenter.digest,
        "thresholds": {"rule_out": model.rule_out.to_dict(), "rule_in": model.rule_in.to_dict()},
        "groups": None if groups is None else groups.to_dict(),
        "site": 0 if model.site is None else model.site.axes.shape[1],
        "input": place,
        "masks": None if masks is None else place_of(masks),
        "uids": uids,
        "budget": BUDGET.changed() or None,
        # Of the pseudonyms of DICOM patients: the same for the same folder and model, so that runs can be compared.
        "key": hashlib.sha256(f"{place}\0{digest}".encode("utf-8", "surrogatepass")).hexdigest()[:32],
        "options": {"batch_size": batch_size},
    }


def _check_numbers(n_jobs: int, batch_size: int) -> tuple[int, int]:
    batch_size = whole_number(batch_size, "batch_size", least=1)
    if n_jobs == -1:
        return os.cpu_count() or 1, batch_size
    return whole_number(n_jobs, "n_jobs", least=1), batch_size


def _notes(model: Judge, segmenter: str | None, total: int, found: int) -> tuple[str, ...]:
    notes = [*model.caveats(found, segmenter)] if total else ["no image was found in the input"]
    for choice, empty in ((model.rule_out, "nothing is ruled out"), (model.rule_in, "nothing is ruled in")):
        if not choice.certified:
            notes.append(f"{empty}: the {choice.kind} threshold is {choice.message}")
    return tuple(notes)


@contextlib.contextmanager
def _quiet() -> Iterator[list[str]]:
    """Collect the libraries' warnings, each text once, instead of printing them."""
    heard: list[str] = []

    def hear(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        text = f"{category.__name__}: {message}"
        if text not in heard and len(heard) < MAX_WARNINGS:
            heard.append(text)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = hear
        yield heard
