"""Looking at data before anything is learnt from it: what is there, what the lungs look like, what does not add up."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import is_sick, read_manifest
from histcxr.data.progress import Progress
from histcxr.exceptions import InputError, counted
from histcxr.features.histograms import BINS, zone_names
from histcxr.files.writing import replacing, write_error, write_image
from histcxr.reports.image_displays import histogram_band
from histcxr.reports.pages.exploration import Example, draw_pictures, write_exploration
from histcxr.study.cohort import Data, groups_of, whose_lungs
from histcxr.study.exploring.checkup import disagreements, repeated
from histcxr.study.exploring.looking import ZONES, Seen, declared, look, read_once

#: What an exploration leaves in its folder beside the pictures.
PAGE, FIGURES = "index.html", "figures.json"

_TEXT: Final = ("image", "mask", "label", "patient_id", "source", "split")
_NO_LABEL: Final = "no label"
_SHARE_EDGES: Final = np.linspace(0, 0.7, 36)


@dataclass(frozen=True, eq=False)
class Exploration:
    """What :func:`explore` found.

    ``figures``, ready for JSON, has everything that page and plots show. ``means`` are the mean image of each class,
    uint8 (128, 128), all images stretched to a square; ``examples`` a few images of each class.
    """

    figures: Mapping[str, Any] = field(repr=False)
    means: Mapping[str, NDArray[np.uint8]] = field(repr=False)
    examples: tuple[Example, ...] = field(repr=False)

    def __repr__(self) -> str:
        about = self.figures
        return (
            f"Exploration({counted(about['images'], 'image')}, {counted(len(about['classes']), 'class', 'classes')}, "
            f"{about['usable']} usable)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""
        return dict(self.figures)

    def write(self, folder: str | os.PathLike[str]) -> list[str]:
        """Write page, figures and pictures into a folder; return their names. OutputError: it cannot be written."""
        place = Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(place, error) from error
        names = draw_pictures(self.figures, place)
        for number, (label, mean) in enumerate(self.means.items()):
            names.append(f"mean-{number}-{_plain(label)}.png")
            write_image(place / names[-1], mean)
        for number, one in enumerate(self.examples):
            names.append(f"example-{number:02d}-{_plain(one.label)}.png")
            write_image(place / names[-1], np.hstack([one.pixels, one.masked]))
        with replacing(place / FIGURES) as unfinished:
            unfinished.write_text(json.dumps(self.figures, indent=1, allow_nan=False) + "\n")
        write_exploration(self.figures, self.means, self.examples, place / PAGE)
        return [PAGE, FIGURES, *names]


def explore(
    data: Data,
    *,
    lungs: str | None = None,
    normal: str = "Normal",
    examples: int = 3,
    seed: int = 0,
    n_jobs: int = 1,
    progress: Progress = False,
) -> Exploration:
    """Look at radiographs, labelled or not: each file is read once.

    ``lungs, n_jobs, progress`` are as of :class:`~histcxr.study.cohort.Reading`; ``normal`` is the label that comes
    first; ``examples`` of each class are drawn at random.

    The figures: ``images``, ``usable``, ``unusable`` (by reason code), ``classes`` and ``splits`` (images by
    source, and by split), ``files`` (formats, modes, sizes and bit depths of images, and sizes of masks),
    ``disagreements`` (where files and list do not say the same), ``mask_share`` (share of the image that the lungs
    cover, by class),
    ``intensity`` (mean and standard deviation over the images of a class, of the lungs' mean grey level and of their
    standard deviation), ``intensity_by_source``, ``histograms`` (by zone and class: mean and quartiles of the images,
    in % of the zone's pixels for each grey level), ``twins`` and ``patients`` (who stands in several splits), and
    ``notes``, what stands out, in sentences.

    InputError: no such data, or not one usable radiograph.
    """
    if examples < 0:
        raise InputError(f"examples must be a number of at least 0; got {examples!r}")
    table = (data if isinstance(data, pd.DataFrame) else read_manifest(data)).reset_index(drop=True)
    table = table.assign(**{name: groups_of(table, name) if name in table else "" for name in _TEXT})
    labels = table["label"].where(table["label"] != "", _NO_LABEL).to_numpy(object)
    classes = _ordered(labels, normal)
    lungs = whose_lungs(table, lungs)
    wanted = _drawn(labels, classes, examples, seed)
    seen = Seen(labels)
    chosen = partial(look, wanted=frozenset(table["image"].iloc[sorted(wanted)]))
    how: dict[str, Any] = {"n_jobs": n_jobs, "progress": progress, "what": "looking"}
    for found in read_once(table, lungs, chosen, declared, **how):
        seen.take(*found)
    usable = seen.counts[:, 0].sum(axis=1) > 0
    unusable = dict(Counter(reason for reason in seen.reasons if reason).most_common())
    if not usable.any():
        raise InputError(
            f"data must hold at least one usable radiograph, got none of {len(table)}: {unusable}"
        )
    shown = _examples(wanted, seen, labels, table["image"].tolist(), classes, examples)
    read = table.assign(label=labels, share=seen.shares, **_measures(seen.counts))[usable]
    sources = sorted(set(table["source"]))
    figures: dict[str, Any] = {
        "data": "a table" if isinstance(data, pd.DataFrame) else os.path.basename(os.path.abspath(data)),
        "images": len(table),
        "usable": int(usable.sum()),
        "unusable": unusable,
        "patients": table["patient_id"].replace("", np.nan).nunique(),
        "no_patient": int((table["patient_id"] == "").sum()),
        "normal": normal,
        "lungs": lungs,
        "classes": _crossed(labels, table["source"], classes),
        "splits": _crossed(labels, table["split"], classes),
        "files": seen.files(),
        "disagreements": disagreements(data, table, seen.headers, seen.masks, seen.reasons),
        "mask_share": _mask_share(read, classes),
        "intensity": _intensity(read, classes),
        "intensity_by_source": [
            {"source": source or "not said", **row}
            for source in (sources if len(sources) > 1 else ())
            for row in _intensity(read[read["source"] == source], classes)
        ],
        "histograms": {
            zone: {
                name: histogram_band(seen.counts[usable & (labels == name), row])
                for name in classes
                if (usable & (labels == name)).any()
            }
            for row, zone in enumerate(zone_names(ZONES))
        },
        **repeated(seen.fingerprints, seen.copies, usable, table, labels),
    }
    figures["notes"] = _notes(figures)
    return Exploration(figures, seen.mean_images(classes), tuple(shown))


def _ordered(labels: NDArray[np.object_], normal: str) -> list[str]:
    """Return the classes, the normal one first."""
    names = sorted(set(labels.tolist()))
    first = [name for name in names if name != _NO_LABEL and not is_sick([name], normal)[0]]
    return first + [name for name in names if name not in first]


def _drawn(labels: NDArray[np.object_], classes: Sequence[str], examples: int, seed: int) -> frozenset[int]:
    """Draw rows to show, twice as many of each class as wanted: some cannot be used."""
    rng = np.random.default_rng(seed)
    rows: list[int] = []
    for name in classes:
        members = np.flatnonzero(labels == name)
        rows += rng.permutation(members)[: 2 * examples].tolist()
    return frozenset(rows)


def _examples(
    wanted: frozenset[int],
    seen: Seen,
    labels: NDArray[np.object_],
    files: Sequence[str],
    classes: Sequence[str],
    examples: int,
) -> Iterator[Example]:
    for name in classes:
        rows = [row for row in sorted(wanted) if labels[row] == name and row in seen.pictures]
        for row in rows[:examples]:
            file = os.path.join(*Path(files[row]).parts[-3:])
            yield Example(name, file, *seen.pictures[row], seen.counts[row, 0])


def _crossed(
    labels: NDArray[np.object_], column: pd.Series[Any], classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    return {
        name: {str(value): int(count) for value, count in sorted(Counter(column[labels == name]).items())}
        for name in classes
    }


def _measures(counts: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return mean and standard deviation of the lungs' grey levels, each float64 (n,), NaN without a pixel."""
    grey = np.arange(BINS, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        n = counts[:, 0].sum(axis=1)
        mean = counts[:, 0] @ grey / n
        square = counts[:, 0] @ grey**2 / n
    return {"mean": mean, "deviation": np.sqrt(np.maximum(square - mean**2, 0))}


def _by_class(read: pd.DataFrame, classes: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    parts = ((name, read[read["label"] == name]) for name in classes)
    return ((name, part) for name, part in parts if len(part))


def _intensity(read: pd.DataFrame, classes: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "class": name,
            "images": len(own),
            **{one: float(own[one].mean()) for one in ("mean", "deviation")},
            **{f"{one}_spread": float(own[one].std(ddof=0)) for one in ("mean", "deviation")},
        }
        for name, own in _by_class(read, classes)
    ]


def _mask_share(read: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    found = {}
    for name, part in _by_class(read, classes):
        own = part["share"]
        found[name] = {
            "images": len(own),
            "mean": float(own.mean()),
            "spread": float(own.std(ddof=0)),
            **{key: float(own.quantile(at)) for key, at in (("p05", 0.05), ("median", 0.5), ("p95", 0.95))},
            "shares": (np.histogram(own, _SHARE_EDGES)[0] / len(own)).round(6).tolist(),
        }
    edges = _SHARE_EDGES.round(4).tolist()
    return {"mean": float(read["share"].mean()), "edges": edges, "classes": found}


def _notes(figures: Mapping[str, Any]) -> list[str]:
    """Say in sentences what stands out."""
    notes = []
    for name, sources in figures["classes"].items():
        others = {source for other, found in figures["classes"].items() if other != name for source in found}
        if len(figures["classes"]) > 1 and set(sources) != {""} and not set(sources) & others:
            said = ", ".join(source or "no named source" for source in sources)
            notes.append(
                f"What there is of {name}, {counted(sum(sources.values()), 'image')}, comes from {said}, where no "
                "other class comes from: a "
                "model can tell the source instead of the disease"
            )
    counts = {name: sum(found.values()) for name, found in figures["classes"].items()}
    if len(counts) > 1 and max(counts.values()) > 3 * min(counts.values()):
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        notes.append(
            f"The classes are not balanced: {counted(counts[most], 'image')} of {most}, {counts[least]} of {least}"
        )
    if figures["unusable"]:
        lost = figures["images"] - figures["usable"]
        notes.append(f"{lost} of {counted(figures['images'], 'image')} cannot be used")
    areas = {name: one["mean"] for name, one in figures["mask_share"]["classes"].items()}
    if len(areas) > 1 and max(areas.values()) > 1.1 * min(areas.values()):
        most, least = max(areas, key=areas.__getitem__), min(areas, key=areas.__getitem__)
        notes.append(
            f"The lungs' share of the image differs by class, {100 * areas[most]:.1f} % of {most} and "
            f"{100 * areas[least]:.1f} % of {least}: the mask alone may tell the class"
        )
    if lone := figures["no_patient"]:
        notes.append(
            f"{counted(lone, 'image names', 'images name')} no patient: each counts as one of its own"
        )
    twins = figures["twins"]
    pairs = "pair of near-duplicates {}", "pairs of near-duplicates {}"
    for n, one, several, text in (
        (twins["across_splits"], pairs[0].format("stands"), pairs[1].format("stand"), "in two splits"),
        (twins["across_classes"], pairs[0].format("carries"), pairs[1].format("carry"), "two labels"),
        (figures["patients_across"]["patients"], "patient stands", "patients stand", "in several splits"),
    ):
        if n:
            notes.append(f"{counted(n, one, several)} {text}")
    return notes + [
        one["sentence"] for one in figures["disagreements"] if one["what"] != "mask size"
    ]  # which is usual


def _plain(name: str) -> str:
    """Return a name of which only what every file system takes is left."""
    return "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name)[:40]
