"""A site's worklists over the days: what is refused, where the patients go, and whether the promise still stands.

Four tests together raise a false alarm with a chance of 5 % at most, however long they run and however often one looks
(:mod:`histcxr.decision.sequential`), while the share of sick goes up and down; a lasting jump to a share never seen
before is covered roughly (``benchmarks/README.md``, "Monitoring"). Two need no labels: whether the images come from the
certified population, and whether they changed since the site began. Two wait for labels: whether rule_out and rule_in
keep what they promise. Everything else (shares, scores, refusals) is shown and never an alarm, since it moves with the
share of sick, too.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from histcxr.data.manifest import is_sick
from histcxr.decision.intervals import proportion
from histcxr.decision.sequential import (
    FIRST,
    LEVEL,
    LIMIT,
    SCALES,
    TOLERANCE,
    ChangeTest,
    p_value_evidence,
    promise_evidence,
)
from histcxr.decision.site import LEAST_IMAGES, SiteReference, SiteTest
from histcxr.decision.site import TOLERANCE as SITE_TOLERANCE
from histcxr.decision.thresholds import RULE_IN, RULE_OUT, ThresholdChoice
from histcxr.exceptions import InputError
from histcxr.files.cells import unguarded
from histcxr.site.worklists import Batch, Day, Worklists
from histcxr.store import load_model, model_hash
from histcxr.store.judges import SavedModel
from histcxr.study.cohort import normal_label

_FINEST: Final = 1 / 4000  # what the site test's draws can tell from 0
_LEAST_COMPARED: Final = 100  # images on either side of "before" and "lately"
_STRANGE: Final = 0.001  # p-value under which shares and scores are worth a note

_Path = str | os.PathLike[str]


@dataclass(frozen=True)
class Watch:
    """One test: the ``evidence`` against what it watches after each worklist, and ``since`` which it is an alarm.

    An ``alarm`` stays one. ``tested`` is False where nothing could be compared yet; ``finding`` says in a sentence what
    was found.
    """

    name: str
    tested: bool
    alarm: bool
    since: str | None
    evidence: tuple[float, ...]
    finding: str


@dataclass(frozen=True)
class MonitorResult:
    """What a site's worklists show, in the order of ``days``.

    ``watches`` are the four tests; evidence of ``limit`` is an alarm, and the chance that any ever gives a false one
    is at most ``level``. ``labelled`` counts the patients whose truth became known. ``notes`` are what a careful
    reader must know; they are no alarms.
    """

    model: str
    days: tuple[Day, ...]
    watches: tuple[Watch, ...]
    labelled: Mapping[str, Any]
    notes: tuple[str, ...]
    level: float = LEVEL
    limit: float = LIMIT

    @property
    def alarm(self) -> bool:
        """Whether any test alarms."""
        return any(watch.alarm for watch in self.watches)

    @property
    def exit_code(self) -> int:
        """3 where a test alarms, else 0."""
        return 3 if self.alarm else 0

    def to_dict(self) -> dict[str, Any]:
        """Return everything in types that JSON knows, ``alarm`` and ``exit_code`` included."""
        fields = asdict(self)
        for name in ("days", "watches", "notes"):
            fields[name] = list(fields[name])
        for watch in fields["watches"]:
            watch["evidence"] = list(watch["evidence"])
        return {**fields, "alarm": self.alarm, "exit_code": self.exit_code}


def monitor(
    worklists: Sequence[_Path],
    model: SavedModel | _Path,
    *,
    labels: _Path | None = None,
    normal: str | None = None,
) -> MonitorResult:
    """Watch over a site's worklists.

    Parameters
    ----------
    worklists : sequence of path-like
        Worklists that :func:`histcxr.triage` wrote, in the order of time, each with its audit trail
        (``NAME.audit.jsonl``) beside it. Give all of them every time: evidence grows from the first.
    model : Model, ReferenceModel or path-like
        The model that wrote them.
    labels : path-like, optional
        A CSV of truths that became known later: ``label``, and ``patient_id`` or ``image`` (as ``file`` in the
        worklist; with ``worklist``, its file name, where several hold such a file). Patients must be drawn without
        regard to what is known of them but their drawer (all of them, or every tenth patient ruled out and all others),
        and the labels of a worklist come together: the bound is exact where none is added to an earlier one afterwards.
    normal : str, optional
        The label that means normal, by default the model's; every other one is sick.

    Raises
    ------
    InputError
        A worklist or its trail is missing, damaged or of another model; or the labels are wrong.
    """
    paths = [os.fspath(path) for path in worklists]
    if not paths:
        raise InputError("worklists must name at least one worklist of histcxr triage, got none")
    used = load_model(model) if isinstance(model, str | os.PathLike) else model
    digest = model_hash(used)
    stream, images = Worklists(digest), ImageTests(used.site)
    for path in paths:
        images.add(stream.add(path))
    truths: dict[str, bool] = {}  # of each patient: sick as soon as one label is
    unmatched, rows = 0, [] if labels is None else _read_labels(labels, normal or normal_label(used))
    for place, sick in rows:
        patient = stream.find(*place)
        if patient is None:
            unmatched += 1
        else:
            truths[patient] = truths.get(patient, False) or sick
    promises = [
        watch_promise(stream.batches, truths, choice, sick)
        for choice, sick in ((used.rule_out, True), (used.rule_in, False))
    ]
    notes = [*stream.notes(), *_lately(stream.batches)]
    if unmatched:
        notes.append(f"{unmatched} of {len(rows)} labels are of nobody who was judged in these worklists")
    return MonitorResult(
        model=f"{used.name} {digest[:12]}",
        days=tuple(batch.day for batch in stream.batches),
        watches=(*images.watches(stream.batches), *(watch for watch, _ in promises)),
        labelled={
            "labels": len(rows),
            "unmatched": unmatched,
            "patients": len(truths),
            "sick": sum(truths.values()),
            **{watch.name: figures for watch, figures in promises},
        },
        notes=tuple(notes),
    )


class ImageTests:
    """The two tests that need no labels, day by day."""

    def __init__(self, site: SiteReference | None) -> None:
        self._site = site
        self._change = None if site is None else ChangeTest(site.means)
        self._sketch = None if site is None else site.sketch()
        self._p_values: list[float] = []
        self._last: SiteTest | None = None
        self._evidence: dict[str, list[float]] = {"site": [], "change": []}

    def add(self, batch: Batch) -> None:
        """Look at a day's new patients."""
        for evidence in self._evidence.values():
            evidence.append(evidence[-1] if evidence else 1.0)
        seen = [
            (where, score)
            for where, score in zip(batch.sites, batch.scores, strict=True)
            if where is not None
        ]
        if self._site is None or self._change is None or self._sketch is None or not seen:
            return
        coordinates = np.stack([where for where, _ in seen])
        self._sketch.add(coordinates)
        if self._sketch.images >= LEAST_IMAGES:
            self._last = self._site.test(self._sketch)
            self._p_values.append(max(_FINEST, self._last.p_value))
            self._evidence["site"][-1] = float(p_value_evidence(self._p_values)[-1])
            self._sketch = self._site.sketch()
        self._evidence["change"][-1] = self._change.add(coordinates, [score for _, score in seen])

    def watches(self, batches: Sequence[Batch]) -> list[Watch]:
        """Return both."""
        moved = None if self._change is None else self._change.distance
        if self._site is None:
            found = ["the model does not know what its certified patients look like (histcxr calibrate)"] * 2
        else:
            found = [f"too few new patients so far: it takes {n}" for n in (LEAST_IMAGES, FIRST + SCALES[0])]
        if self._last is not None:
            found[0] = (
                f"the last {self._last.images} patients' squared distance from the certified ones is "
                f"{self._last.distance:.2f} (up to {SITE_TOLERANCE:g} is like them)"
            )
        if moved is not None:
            found[1] = (
                f"the last patients' squared distance from those before is {moved:.2f} (up to {TOLERANCE:g} is like "
                "them)"
            )
        return [
            _watch(batches, "site", self._evidence["site"], self._last is not None, found[0]),
            _watch(batches, "change", self._evidence["change"], moved is not None, found[1]),
        ]


def _lately(batches: Sequence[Batch]) -> list[str]:
    """Compare the last worklists that hold enough patients with all before: refusals and scores."""
    from scipy import stats

    start = len(batches)
    while start and sum(len(batch.scores) for batch in batches[start:]) < _LEAST_COMPARED:
        start -= 1
    parts = batches[:start], batches[start:]
    before, now = ([score for batch in part for score in batch.scores] for part in parts)
    if len(before) < _LEAST_COMPARED:
        return []
    notes = []
    days = [[batch.day for batch in part] for part in parts]
    lost = [(sum(day.unjudged for day in part), sum(day.images for day in part)) for part in days]
    if stats.fisher_exact([(bad, images - bad) for bad, images in lost]).pvalue < _STRANGE:
        was, is_now = (bad / images for bad, images in lost)
        reasons = sum((Counter(day.reasons) for day in days[1]), Counter()).most_common(1)
        why = f", most of them {reasons[0][0]}" if reasons else ""
        notes.append(f"of the last images {is_now:.1%} could not be judged{why}; before it was {was:.1%}")
    if stats.mannwhitneyu(before, now).pvalue < _STRANGE:
        notes.append(
            f"the scores moved: the median of the last {len(now)} patients is {np.median(now):.2f}, before it was "
            f"{np.median(before):.2f}. Another share of sick patients does this, too, so it is no alarm"
        )
    return notes


def _watch(
    batches: Sequence[Batch], name: str, evidence: Sequence[float], tested: bool, finding: str
) -> Watch:
    over = next((i for i, value in enumerate(evidence) if value >= LIMIT), None)
    since = None if over is None else batches[over].day.worklist
    return Watch(
        name, tested, over is not None, since, tuple(min(float(value), 1e12) for value in evidence), finding
    )


def watch_promise(
    batches: Sequence[Batch], truths: Mapping[str, bool], choice: ThresholdChoice, sick: bool
) -> tuple[Watch, dict[str, Any]]:
    """Test one promise on the patients of one class: a sick one who is ruled out is wrong, or a normal one ruled in.

    ``truths`` says who is sick. Drawers may be read in different shares. Of the drawers that are right, those that are
    read more are thinned out (at random, by the patients' names) to the share of the one that is read least.
    """
    name, drawer = ("sensitivity", RULE_OUT) if sick else ("specificity", RULE_IN)
    counts, ratio = np.zeros((len(batches), 2), np.int64), np.ones(len(batches))
    read, weighted, even = np.zeros(2, np.int64), np.zeros(2), True
    for row, batch in enumerate(batches):
        drawers = np.array(list(batch.patients.values()), object)
        known = np.array([one in truths for one in batch.patients], bool)
        mine = np.array([truths.get(one) is sick for one in batch.patients], bool)
        shares = {str(one): float(known[drawers == one].mean()) for one in np.unique(drawers)}
        if batch.day.withheld or not all(shares.values()):
            continue  # no promise was made, or a drawer was not read at all
        least = min((share for one, share in shares.items() if one != drawer), default=1.0)
        # Where nobody is wrong there was nobody to choose from.
        ratio[row] = shares.get(drawer, least) / least
        share, wrong = np.array([shares[one] for one in drawers.tolist()]), drawers == drawer
        kept = np.array([_chance(one) for one in batch.patients]) * share < least
        counts[row] = (mine & wrong).sum(), (mine & ~wrong & kept).sum()
        for side, inside in enumerate((mine & wrong, mine & ~wrong)):
            read[side] += inside.sum()
            weighted[side] += (1 / share[inside]).sum()
        even = even and len(set(shares.values())) < 2
    missed, total = int(read[0]), int(read.sum())
    figures: dict[str, Any] = {
        "promised": choice.target if choice.certified else None,
        "patients": total,
        "wrong": missed,
        "estimate": float(weighted[1] / weighted.sum()) if total else None,
        "interval": None,
    }
    who, between = "sick" if sick else "normal", ""
    if total and even:
        found = proportion(total - missed, total)
        figures["interval"], between = [found.low, found.high], f" ({found.low:.3f}-{found.high:.3f})"
    if not choice.certified:
        return _watch(batches, name, [1.0] * len(batches), False, f"{drawer} promises nothing"), figures
    text = f"no {who} patient has a label, or one of the drawers was not read at all"
    if total:
        text = (
            f"of {total} {who} patients with a label {missed} are {drawer}: {name} about {figures['estimate']:.3f}"
            f"{between}, promised {choice.target:g}"
        )
    evidence = promise_evidence(counts[:, 0], counts[:, 1], choice.target, ratio)
    return _watch(batches, name, evidence.tolist(), total > 0, text), figures


def _chance(patient: str) -> float:
    """Return a number from 0 to 1 that looks random and is always the same."""
    return (
        int.from_bytes(hashlib.blake2b(patient.encode("utf-8", "surrogatepass"), digest_size=7).digest())
        / 2**56
    )


def _read_labels(path: _Path, normal: str) -> list[tuple[tuple[str, str, str], bool]]:
    """Read worklist, image and patient of each row, and whether sick."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            names = set(table.fieldnames or ())
            rows = [
                {key: unguarded((value or "").strip()) for key, value in row.items() if key} for row in table
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"labels must be a CSV file, but {os.fspath(path)!r} cannot be read: {error}"
        ) from error
    if "label" not in names or not names & {"patient_id", "image"}:
        raise InputError(
            f"labels must have the columns label, and patient_id or image; {os.fspath(path)!r} has {sorted(names)}"
        )
    rows = [row for row in rows if row["label"]]  # an empty one is not known yet
    sick = is_sick([row["label"] for row in rows], normal).tolist() if rows else []
    return [
        ((row.get("worklist", ""), row.get("image", ""), row.get("patient_id", "")), bool(one))
        for row, one in zip(rows, sick, strict=True)
    ]
