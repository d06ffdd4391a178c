"""A finished triage as a page to look at: the folder in a few figures, then its rows, the most urgent with pictures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from histcxr.checks import whole_number
from histcxr.data.radiograph import WORKING_SIDE, read_radiograph
from histcxr.decision.site import SiteReference
from histcxr.exceptions import UnjudgeableError
from histcxr.features.histograms import BINS, masked_histogram
from histcxr.files.cells import shown
from histcxr.lungs.segmenter import Segmenter
from histcxr.reports.displays import ScoreDisplay
from histcxr.reports.page import embedded, polyline, svg, write_page
from histcxr.reports.pages.evaluation import deciding_limits, lungs_of, outline
from histcxr.store import Judge, Model
from histcxr.worklist.audit_trail import explanation_of
from histcxr.worklist.judging import limits_of
from histcxr.worklist.reading import FinishedTriage
from histcxr.worklist.rows import shown_score
from histcxr.worklist.summary import TriageSummary, urgency

#: Rows that get a picture by default: some 5 kB each.
PICTURES: Final = 400

_SIDE: Final = 112  # longer side of a picture in pixels
_CHUNK: Final = 8
_SCORE_BINS: Final = 40
_NORMAL_SPREADS: Final = 1.645  # to either side: 90 % of a normal distribution
# Where a small plot has its points, and its size.
_POINTS, _WIDTH, _HEIGHT = 32, 128, 48
_GROUPS: Final = ("rule_in", "not judged", "review", "rule_out")


def write_triage_page(
    summary: TriageSummary,
    model: Judge,
    path: str | os.PathLike[str],
    *,
    segmenter: Segmenter | None = None,
    pictures: int = PICTURES,
    n_jobs: int = 2,
) -> dict[str, Any]:
    """Write the page of a triage that ended, and return its figures, ready for JSON.

    The figures: ``scores`` (judged images in bins of the score), ``thresholds``, ``limits`` (the thresholds that decide
    where nothing but the image is known), ``groups`` (images that are ruled in, not judged, in review, ruled out),
    ``normal`` (:func:`normal_band`) and ``pictured`` (rows with a picture: ``pictures`` at most, the most urgent of
    each group). The ``segmenter`` draws lungs where there is no mask.

    InputError: worklist and audit trail do not belong together. OutputError: the page cannot be written.
    """
    whole_number(pictures, "pictures")
    with FinishedTriage(summary.output, summary.audit) as finished:
        records = [
            {
                name: record[name]
                for name in ("file", "mask", "patient", "decision", "score", "reason", "detail")
            }
            | {"path": finished.path_of(record)}
            for record in finished
        ]
    ranks = [urgency(record["decision"], record["reason"]) for record in records]
    order = sorted(range(len(records)), key=lambda row: (ranks[row], -(records[row]["score"] or 0.0)))
    chosen = set(_chosen([ranks[row] for row in order], order, pictures))
    rows = [records[row] for row in order]
    parts = [
        [record for row, record in zip(order, rows, strict=True) if row in chosen][start : start + _CHUNK]
        for start in range(0, len(chosen), _CHUNK)
    ]
    run = Parallel(n_jobs=n_jobs, prefer="threads")
    drawn = {
        record["file"]: found
        for part, pictured in zip(parts, run(delayed(_look)(part, segmenter) for part in parts), strict=True)
        for record, found in zip(part, pictured, strict=True)
    }
    figures = _figures(records, ranks, model, sum(found is not None for found in drawn.values()))
    limits, exact = figures["limits"], limits_of(model)
    content = {
        "summary": summary.to_dict(),
        "figures": figures,
        "folder": os.path.basename(os.path.dirname(summary.output)) or summary.output,
        "scores_plot": svg(
            ScoreDisplay(figures["scores"], limits), "scores of the folder with both thresholds"
        ),
        "limits": [f"{100 * limit:.1f}" for limit in limits.values()],
        "band": _band(figures["normal"]),
        "rows": [_row(record, drawn.get(record["file"]), exact) for record in rows],
        "whole": len(chosen) == len(rows),
    }
    write_page(Path(path), "triage.html", content, summary.output)
    return figures


def _chosen(ranks: Sequence[int], order: Sequence[int], most: int) -> list[int]:
    """Share pictures among the groups: each gets a quarter, and what one does not need goes to the most urgent."""
    groups = {rank: [row for own, row in zip(ranks, order, strict=True) if own == rank] for rank in range(4)}
    taken = {rank: min(len(rows), most // 4) for rank, rows in groups.items()}
    left = most - sum(taken.values())
    for rank, rows in groups.items():
        more = min(left, len(rows) - taken[rank])
        taken[rank], left = taken[rank] + more, left - more
    return [row for rank, rows in groups.items() for row in rows[: taken[rank]]]


def _figures(
    records: Sequence[Mapping[str, Any]], ranks: Sequence[int], model: Judge, pictured: int
) -> dict[str, Any]:
    judged = [record for record in records if record["score"] is not None]
    edges = np.linspace(0, 1, _SCORE_BINS + 1)
    counts, _ = np.histogram([record["score"] for record in judged], edges)
    found = Counter(ranks)
    thresholds = {kind: getattr(model, kind).to_dict() for kind in ("rule_out", "rule_in")}
    groups = getattr(model, "groups", None)
    return {
        "scores": {"edges": edges.round(6).tolist(), "judged images": counts.tolist()},
        "thresholds": thresholds,
        "limits": deciding_limits(thresholds, None if groups is None else groups.to_dict()),
        "groups": {name: found[rank] for rank, name in enumerate(_GROUPS)},
        "normal": normal_band(model),
        "pictured": pictured,
    }


def normal_band(model: Judge) -> dict[str, list[float]] | None:
    """Return what the lungs of normal certified patients look like, from what the model keeps for its site test.

    ``levels`` are shares of the lung's pixels, ``mean`` the grey level below which so many lie, on average; 90 % of the
    patients between ``low`` and ``high``. None of a network, or of a model that keeps nothing or names nobody normal.
    """
    if not isinstance(model, Model) or model.site is None:
        return None
    site: SiteReference = model.site
    normal = str(model.training.get("normal", "Normal")).casefold()
    names = [f" {name.casefold().replace(' / ', ' ')} " for name in site.groups]
    groups = [place for place, name in enumerate(names) if f" {normal} " in name]
    prefix = "intensity at "
    places = [place for place, name in enumerate(site.features) if name.startswith(prefix)]
    if not groups or not places:
        return None
    # The axes are eigenvectors of the covariance within groups, each divided by the root of its eigenvalue.
    roots = 1 / np.linalg.norm(site.axes, axis=0)
    spread = site.scale * np.linalg.norm(site.axes * roots**2, axis=1)
    means = np.average(site.means[groups], axis=0, weights=site.sizes[groups])
    centre = site.centre + site.scale * np.linalg.lstsq(site.axes.T, means, rcond=None)[0]
    rows = {
        "levels": [float(site.features[place].removeprefix(prefix).rstrip("%")) / 100 for place in places],
        "mean": centre[places],
        "low": centre[places] - _NORMAL_SPREADS * spread[places],
        "high": centre[places] + _NORMAL_SPREADS * spread[places],
    }
    return {name: [round(float(np.clip(value, 0, 255)), 3) for value in row] for name, row in rows.items()}


def _band(normal: Mapping[str, Sequence[float]] | None) -> str:
    """Return the normal band as points of an SVG polygon, "" for none."""
    if normal is None:
        return ""
    heights = [_HEIGHT * (1 - level) for level in normal["levels"]]
    points = [
        *zip(normal["low"], heights, strict=True),
        *zip(normal["high"][::-1], heights[::-1], strict=True),
    ]
    return " ".join(f"{grey * _WIDTH / BINS:.1f},{height:.1f}" for grey, height in points)


def _look(
    records: Sequence[Mapping[str, Any]], segmenter: Segmenter | None
) -> list[tuple[NDArray[np.uint8], NDArray[np.bool_] | None] | None]:
    return [_small(record, segmenter) for record in records]


def _small(record: Mapping[str, Any], segmenter: Segmenter | None) -> Any:
    """Return what a row shows of an image: picture, outlines, points of two lines; None where it cannot be read."""
    try:
        pixels = read_radiograph(record["path"], side=WORKING_SIDE).pixels
    except UnjudgeableError:
        return None
    found = {"picture": embedded(pixels, _SIDE), "outline": [], "histogram": "", "below": ""}
    lungs = lungs_of(pixels, record["mask"], segmenter)
    if lungs is not None and lungs.any():
        wide = masked_histogram(pixels, lungs, 1)[0].reshape(_POINTS, -1).sum(axis=1).astype(float)
        below = np.concatenate([[0.0], np.cumsum(wide)]) / wide.sum()
        found |= {
            "outline": outline(lungs),
            "histogram": f"0,{_HEIGHT} {polyline(wide, 1.6 * wide.max())} {_WIDTH},{_HEIGHT}",
            "below": polyline(below, 1.0),
        }
    return found


def _row(
    record: Mapping[str, Any], picture: Mapping[str, Any] | None, limits: tuple[float, ...]
) -> dict[str, Any]:
    score = shown_score(record["score"], limits)
    return {
        "file": shown(record["file"]),
        "patient": shown(record["patient"]),
        "decision": record["decision"],
        "score": score,
        "place": "" if score is None else f"{100 * min(max(score, 0.0), 1.0):.1f}",
        "reason": shown(explanation_of(record)),
        "picture": picture,
    }
