"""A model at hand, in a notebook or a program: it shows itself in a line or a card, and judges pixels in memory.

Pixels take the same way as files: they are packed as a PNG file in memory and read, checked and measured like one, so
that whatever a triage would refuse is refused here.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.decision.site import LEAST_IMAGES
from histcxr.decision.thresholds import REVIEW
from histcxr.exceptions import InputError, Reason, UnjudgeableError
from histcxr.features.measuring import measure_image
from histcxr.files.writing import encode_image
from histcxr.lungs.segmenter import load_segmenter

if TYPE_CHECKING:
    from histcxr.store.judges import Judge

_SITE_UNKNOWN: Final = (
    "one image cannot show whether it comes from the hospitals that the thresholds were certified at: the promise "
    f"holds for their patients alone (histcxr.triage tests folders of {LEAST_IMAGES} images and more)"
)
_GROUPS_UNKNOWN: Final = "its {} is not known, so the strictest threshold of the groups applies"


@dataclass(frozen=True)
class Judgement:
    """What a model says of one image.

    ``drawer`` is ``rule_out``, ``review`` or ``rule_in``; ``score`` is None where the image could not be judged, and
    ``reason`` then says why, with ``explanation`` in a sentence. ``notes`` are what a careful reader must know.
    """

    drawer: str
    score: float | None
    reason: Reason | None = None
    explanation: str = ""
    notes: tuple[str, ...] = ()


class AtHand:
    """What every model can do with pixels in memory, and how it shows itself."""

    def predict_proba(self: Any, pixels: ArrayLike, mask: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return of one image, (height, width), the probabilities of normal and sick, (1, 2).

        ``pixels`` and ``mask`` are as of :meth:`triage`. :class:`~histcxr.exceptions.UnjudgeableError` where a triage
        would not judge the image: no figure at all is better than one that means nothing.
        """
        score = _score(self, pixels, mask)
        return np.array([[1 - score, score]])

    def triage(
        self: Any,
        pixels: ArrayLike,
        mask: ArrayLike | None = None,
        *,
        groups: Mapping[str, str] | None = None,
    ) -> Judgement:
        """Put one image in memory into its drawer, with the checks of :func:`histcxr.triage`.

        What cannot be judged goes to review. ``pixels`` are uint8 or uint16 (height, width), lungs dark, over the
        whole range of their type; ``mask``, bool or uint8, marks the lungs, else they are found. ``groups`` is what
        is known of it, such as ``{"view": "PA"}``. InputError: no image.
        """
        return _judgement(self, pixels, mask, groups)

    def __repr__(self) -> str:
        return _in_a_line(self)

    def _repr_html_(self) -> str:
        """Show a card in notebooks."""
        return _as_card(self)


def _judgement(
    model: Judge, pixels: ArrayLike, mask: ArrayLike | None, groups: Mapping[str, str] | None
) -> Judgement:
    known = {str(column): str(value) for column, value in (groups or {}).items()}
    notes = [_SITE_UNKNOWN]
    drawers: Sequence[Any] = getattr(model, "groups", None) or ()
    if unknown := sorted({column for one in drawers for column in one.groups} - {"label", *known}):
        notes.append(_GROUPS_UNKNOWN.format(", ".join(unknown)))
    notes += model.caveats(int(mask is None), load_segmenter().digest)
    try:
        score = _score(model, pixels, mask)
    except UnjudgeableError as error:  # no threshold was asked: the notes are about thresholds
        return Judgement(REVIEW, None, error.reason, error.explanation)
    columns = {column: np.array([value], object) for column, value in known.items()}
    return Judgement(str(model.drawers(np.array([score]), columns)[0]), score, notes=tuple(notes))


def _score(model: Judge, pixels: ArrayLike, mask: ArrayLike | None) -> float:
    lungs: Any = "" if mask is None else _packed(mask, "mask")
    segmenter = load_segmenter() if mask is None else None
    measured, _ = measure_image(
        _packed(pixels, "pixels"), lungs, model.measure, segmenter=segmenter, side=model.side
    )
    batch = measured[np.newaxis]
    if model.unfamiliar(batch)[0]:
        raise UnjudgeableError(Reason.UNLIKE_TRAINING)
    score = float(model.score(batch)[0])
    if not 0 <= score <= 1:  # so is NaN
        raise UnjudgeableError(Reason.SCORE_INVALID, detail=f"a score of {score!r}")
    return score


def _packed(values: ArrayLike, name: str) -> bytes:
    """Pack grey levels or a mask as a PNG file; InputError for anything else."""
    array = np.asarray(values)
    if name == "mask" and array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.ndim != 2 or array.dtype not in (np.uint8, np.uint16) or not array.size:
        kinds = (
            "bool, uint8 or uint16" if name == "mask" else "uint8 or uint16, lungs dark, over the whole range"
        )
        raise InputError(
            f"{name} must be one picture of shape (height, width), {kinds}, got {array.dtype} of shape {array.shape}"
        )
    return encode_image(np.ascontiguousarray(array))


def _in_a_line(model: Any) -> str:
    """Say in a line what a model is."""
    about = ", ".join(f"{key} {value}" for key, value in _facts(model).items())
    return f"<{type(model).__name__} {model.name} ({about})>"


def _as_card(model: Any) -> str:
    """Say in a small HTML table what a model is, what it promises, and on whom."""
    rows = {
        **_facts(model),
        **{f"{kind} promise": getattr(model, kind).message for kind in ("rule_out", "rule_in")},
    }
    certified = model.training.get("certified")
    if isinstance(certified, Mapping):
        counts = " and ".join(f"{certified.get(name, '?')} {name}" for name in ("images", "patients"))
        rows["certified on"] = f"{counts}, {certified.get('sick', '?')} sick"
    test = model.metrics.get("test")
    if isinstance(test, Mapping) and test.get("auc") is not None:
        rows["test AUC"] = "{auc:.3f} ({auc_low:.3f}-{auc_high:.3f})".format(**test)
    cells = "".join(
        f'<tr><th style="text-align:left">{html.escape(key)}</th>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for key, value in rows.items()
    )
    title = html.escape(f"{type(model).__name__} {model.name}")
    return (
        f"<table><caption>{title}</caption><tbody>{cells}</tbody></table>"
        "<p><small>Research software, not a medical device.</small></p>"
    )


def _facts(model: Any) -> dict[str, str]:
    ((_, seen),) = model.describe_input().items()
    facts = {"hash": model.hash[:12] or "not saved"}
    facts |= {name: str(seen[name]) for name in ("zones", "region", "size") if name in seen}
    if bands := seen.get("bands"):
        facts["bands"] = str(len(bands))
    groups = getattr(model, "groups", None)
    for kind, sign in (("rule_out", "<"), ("rule_in", ">")):
        choice = getattr(model, kind)
        # Of an image alone nothing else is known: then the strictest threshold of the groups decides.
        limit = choice.threshold if groups is None else float(getattr(groups, kind).limits({}, 1)[0])
        facts[kind] = f"{sign} {limit:.4f}" if choice.certified else "not certified"
    return facts
