"""The lines of an audit trail: how each is made, and what each must agree with when it is read again.

Every line but the first has ``before``, the SHA-256 of the line before it with its line end, as ``sha256sum`` counts
it: whoever changes a line must change all that follow. The first line says by which thresholds the run decides, so
every later one is decided anew from its score. That finds accidents and edits by hand. Somebody who writes a whole
trail anew is found only by comparing the hash of its last line with one that was kept elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, BinaryIO, Final, NamedTuple

from histcxr.decision.groups import GroupCertificates
from histcxr.decision.thresholds import DRAWERS, REVIEW, RULE_IN, RULE_OUT
from histcxr.exceptions import Reason
from histcxr.files.reading import parse_json
from histcxr.worklist.summary import JUDGED

FORMAT: Final = "histcxr audit trail"
FORMAT_VERSION: Final = 3  # 3: each line holds the hash of the line before, and the thresholds of its groups
MAX_LINE: Final = 1 << 20  # bytes

Limits = tuple[float | None, float | None]  # of rule_out and rule_in; None: nobody is ruled out, or in


class DamagedTrailError(ValueError):
    """A line is not what a triage writes: which, and what does not fit."""


class ForeignTrailError(DamagedTrailError):
    """The file is no audit trail, or one of another version."""


class Rules(NamedTuple):
    """What the first line says that later ones must agree with."""

    limits: Limits  # over all patients
    possible: tuple[frozenset[float | None], ...] | None  # the limits of groups; None: the model has none
    site: int  # coordinates that the test of the folder keeps of an image
    uids: bool

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Every threshold by which a score may be judged."""
        every = {*self.limits, *(limit for part in self.possible or () for limit in part)}
        return tuple(limit for limit in every if limit is not None)


class Chain:
    """The place behind the last line: what the next one must hold."""

    def __init__(self) -> None:
        self.rules: Rules | None = None
        self.head = ""  # SHA-256 of the last line
        self.size = 0  # bytes of all lines
        self._number = 0

    def link(self, record: dict[str, Any]) -> bytes:
        """Make the next line of a record."""
        line = _line({**record, "before": self.head} if self.head else record)
        self._advance(line)
        return line

    def read(self, file: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield where each line of a trail begins and what it says, all that follow from the start of the file.

        A line behind the first that lacks its end, as a run that was killed leaves it, is left out. Errors are
        :meth:`take`'s.
        """
        for line in iter(lambda: file.readline(MAX_LINE + 1), b""):
            if self.size and _cut_off(line):
                return
            offset = self.size
            yield offset, self.take(line)

    def take(self, line: bytes) -> dict[str, Any]:
        """Check the next line, return its record; :class:`DamagedTrailError` where it is not what a triage writes."""
        try:
            record = self._parse(line)
            if self.rules is None:
                self.rules = _rules_of(record)
            else:
                _check_record(record, self.rules)
        except ForeignTrailError:
            raise
        except (ValueError, RecursionError) as error:  # InputError is a ValueError
            raise DamagedTrailError(
                f"line {self._number + 1} is damaged or was changed: it {error}"
            ) from error
        self._advance(line)
        return record

    def _advance(self, line: bytes) -> None:
        self.head, self._number = hashlib.sha256(line).hexdigest(), self._number + 1
        self.size += len(line)

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            record = parse_json(line)
        except (ValueError, RecursionError):
            record = None
        if self.rules is None:
            _check_format(record)
        if not line.endswith(b"\n"):
            raise ValueError("is cut off" if _cut_off(line) else f"has more than {MAX_LINE:,} bytes")
        if not isinstance(record, dict):
            raise ValueError("is no record of a triage")
        if self.head and record.get("before") != self.head:
            raise ValueError(
                f"does not follow from line {self._number}: one of the two was edited, or a line between them taken "
                "out or put in"
            )
        # So no reader can understand it otherwise: no field twice, no number beyond the others' range.
        if _line(record) != line:
            raise ValueError("is not written as a triage writes it")
        return record


def _cut_off(line: bytes) -> bool:
    return not line.endswith(b"\n") and len(line) <= MAX_LINE


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def beginning() -> bytes:
    """Return how every trail begins."""
    return _line({"record": "run", "format": FORMAT})[:-2]


def _check_format(record: Any) -> None:
    if not isinstance(record, dict) or (record.get("record"), record.get("format")) != ("run", FORMAT):
        raise ForeignTrailError("is another file")
    if record.get("format_version") != FORMAT_VERSION:
        raise ForeignTrailError(
            f"was written by histcxr {record.get('histcxr')!r:.20}, whose trails have another form than those of this "
            "version, so the folder must be triaged anew"
        )


# ---- what a field may be

_Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _table(value: Any) -> bool:
    return isinstance(value, dict)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _drawer(value: Any) -> bool:
    return isinstance(value, str) and value in DRAWERS


def _score(value: Any) -> bool:
    return value is None or (type(value) is float and 0 <= value <= 1)


def _reason(value: Any) -> bool:
    return isinstance(value, str) and value in _REASONS


def _signature(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and len(value) == 3 and all(type(n) is int for n in value)
    )


def _time(value: Any) -> bool:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return moment.tzinfo is not None and 1970 <= moment.year < 9999


def _three_texts(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_text, value))


_REASONS = frozenset(["", *(reason.value for reason in Reason)])
_IMAGE: dict[str, _Check] = {
    **dict.fromkeys(("file", "mask", "sha256", "mask_sha256", "patient", "detail"), _text),
    **dict.fromkeys(("stat", "mask_stat"), _signature),
    "decision": _drawer,
    "score": _score,
    "reason": _reason,
    "time": _time,
}
_SOMETIMES: dict[str, _Check] = {
    "own": _drawer,
    "site": _text,
    "uids": _three_texts,
    "limits": lambda value: isinstance(value, list) and len(value) == 2,
}
_KINDS: dict[str, dict[str, _Check]] = {
    "image": _IMAGE,
    "resumed": {"packages": _table, "time": _time},
    "finished": {
        **dict.fromkeys(("rows", *DRAWERS, "unjudged", "resumed"), _count),
        "site": lambda value: value is None or _table(value),
        "trust_site": lambda value: type(value) is bool,
        "time": _time,
    },
}
_RUN: dict[str, _Check] = {
    **dict.fromkeys(("histcxr", "input", "key"), _text),
    **dict.fromkeys(("segmenter", "masks"), _text_or_none),
    **dict.fromkeys(("packages", "thresholds"), _table),
    "model": lambda value: _table(value) and _text(value.get("name")) and _text(value.get("hash")),
    "groups": lambda value: value is None or _table(value),
    "site": _count,
    "uids": lambda value: type(value) is bool,
    "options": lambda value: _table(value) and _count(value.get("batch_size")) and value["batch_size"] > 0,
    "started": _time,
}


def _check_fields(
    record: Mapping[str, Any], wanted: Mapping[str, _Check], sometimes: Mapping[str, _Check]
) -> None:
    for name, right in wanted.items():
        if name not in record:
            raise ValueError(f"lacks {name}")
        if not right(record[name]):
            raise ValueError(f"has {name} {record[name]!r:.60}")
    for name, value in record.items():
        if name in wanted or name in ("record", "before"):
            continue
        if name not in sometimes:
            raise ValueError(f"has {name!r:.60}, which no triage writes")
        if not sometimes[name](value):
            raise ValueError(f"has {name} {value!r:.60}")


def _rules_of(record: Mapping[str, Any]) -> Rules:
    """Check the first line and read the rules in it."""
    # What the model reads of an image has a name of its kind.
    _check_fields(record, _RUN, dict.fromkeys(record, _any))
    limits = []
    for kind in (RULE_OUT, RULE_IN):
        choice = record["thresholds"].get(kind)
        limit = choice.get("threshold", "none") if isinstance(choice, dict) else "none"
        if limit is not None and not (type(limit) is float and 0 <= limit <= 1):
            raise ValueError(f"has no threshold of {kind} from 0 to 1")
        limits.append(limit)
    possible = None
    if record["groups"] is not None:
        groups = GroupCertificates.from_dict(record["groups"])
        possible = tuple(
            frozenset([None, *(_finite(choice.threshold) for choice in drawer.choices())])
            for drawer in groups
        )
    return Rules((limits[0], limits[1]), possible, record["site"], record["uids"])


def _any(value: Any) -> bool:
    return True


def _finite(limit: float) -> float | None:
    return limit if math.isfinite(limit) else None


def _check_record(record: Mapping[str, Any], rules: Rules) -> None:
    kind = record.get("record")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"is a record {kind!r:.60}, which has no place here")
    _check_fields(record, _KINDS[kind], _SOMETIMES if kind == "image" else {})
    if kind == "image":
        _check_image(record, rules)


def _check_image(record: Mapping[str, Any], rules: Rules) -> None:
    """Decide anew from the score, and compare."""
    if ("uids" in record) != rules.uids:
        raise ValueError("has identifiers of DICOM files" if "uids" in record else "lacks uids")
    if "site" in record and _coordinates(record["site"]) != rules.site:
        raise ValueError("has other numbers for the test of the folder than the model gives")
    decision, reason, score = record["decision"], record["reason"], record["score"]
    own = record.get("own", decision)
    if score is None:
        if (decision, own) != (REVIEW, REVIEW) or reason in JUDGED:
            raise ValueError(f"puts what has no score into {decision} for the reason {reason!r}")
        return
    due = _decide(score, *_limits_of(record, rules))
    if own != due:
        raise ValueError(
            f"puts a score of {score!r} into {own}, where the thresholds of the run put it into {due}"
        )
    if reason not in JUDGED or decision != (REVIEW if reason else own):
        raise ValueError(f"puts a score of {score!r} into {decision} for the reason {reason!r}")
    if reason and own == REVIEW or (reason == Reason.OTHER_IMAGE and own != RULE_OUT):
        raise ValueError(
            f"takes back a decision that its score does not give ({own}) for the reason {reason!r}"
        )


def _coordinates(packed: str) -> int:
    try:
        return len(base64.b64decode(packed, validate=True))
    except ValueError:
        return -1


def _limits_of(record: Mapping[str, Any], rules: Rules) -> Limits:
    """Return the limits of an image: those of its groups, which its line names, or those over all patients."""
    if rules.possible is None:
        if "limits" in record:
            raise ValueError("has limits of groups, and the model has none")
        return rules.limits
    if "limits" not in record:
        raise ValueError("lacks limits")
    low, high = record["limits"]
    for limit, options in zip((low, high), rules.possible, strict=True):
        if not (limit is None or type(limit) is float) or limit not in options:
            raise ValueError(f"has the limit {limit!r:.60}, which is no threshold of the run")
    return low, high


def _decide(score: float, low: float | None, high: float | None) -> str:
    """Do for one image what :func:`~histcxr.decision.thresholds.drawers_between` does for many."""
    if low is not None and score < low:
        return RULE_OUT
    return RULE_IN if high is not None and score > high else REVIEW
