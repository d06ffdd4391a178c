"""Does standardising intensities help across hospitals? Leave-one-source-out, before and after.

    python -m benchmarks.studies.standardisation --data DATA --json standard.json > tables.md

DATA needs labels and a column ``source``. Each fold trains on the ``train`` rows of some sources and is measured
on a source that training never saw, once on its ``test`` rows and once on all its rows. A source of one class only
is measured against the other class of each other source's ``test`` rows. No patient is on both sides. ``at home``
folds train on every source and test on the ``test`` rows of each, to show what a standardisation costs there.

Every standardisation is a pure function of pixels and lung mask whose result goes through the library's own
counting, so intensity and bands both see it. Outside the lungs the result is 0, which no feature ever looks at.
Nothing is tuned: one logistic regression, and the library's XGBoost without calibration.

Densities of 256 bins on the raw scale read how the levels once lay from the gaps that a map of grey levels leaves; raw
quantiles, which are blind to gaps, stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from benchmarks.common import make_parser, publish, run
from histcxr.data.manifest import is_sick, read_manifest
from histcxr.data.masks import check_mask, read_mask
from histcxr.data.radiograph import read_radiograph
from histcxr.data.splits import patient_groups, split_patients
from histcxr.decision.auc import auc, compare_auc
from histcxr.exceptions import InputError, RadiographError, Reason, UnjudgeableError
from histcxr.features.histograms import BINS
from histcxr.features.measuring import count_lungs
from histcxr.features.recipe import Recipe
from histcxr.features.transformers import HistogramFeatures
from histcxr.models.registry import make_classifier
from histcxr.reports.tables import interval_text, markdown_table

RECIPE = Recipe(6, "travel")
ZONES = 6
CLIP_LIMIT, TILES = 2.0, (8, 8)  # of CLAHE, over the lungs' bounding box
RING = (0.01, 0.08)  # the tissue around the lungs lies between these distances, in the image's longer side
RING_CENTRE, RING_SPREAD = 192.0, 32.0  # where its median goes, and grey levels to its quartile range
MIN_TISSUE = 0.5  # share of the ring that must be brighter than 0

Pixels = NDArray[np.uint8]
Lungs = NDArray[np.bool_]
Rows = NDArray[np.bool_]
Scores = NDArray[np.float64]
Standardise = Callable[[Pixels, Lungs], Pixels]


def none(pixels: Pixels, mask: Lungs) -> Pixels:
    """Keep the grey levels as they are."""
    return _inside(pixels, mask)


def clahe(pixels: Pixels, mask: Lungs) -> Pixels:
    """Contrast-limited adaptive equalisation of the lungs' bounding box.

    OpenCV's tiles are rectangles. At the rim they would see what lies outside (zeros, in lungs-only data), so every
    pixel outside takes the value of the nearest lung pixel first, and is set to 0 again afterwards.
    """
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    box = np.s_[y : y + height, x : x + width]
    lungs, image = mask[box], pixels[box]
    outside = np.ascontiguousarray(~lungs).view(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    values = np.zeros(int(nearest.max()) + 1, np.uint8)
    values[nearest[lungs]] = image[lungs]
    result = np.zeros_like(pixels)
    result[box] = cv2.createCLAHE(CLIP_LIMIT, TILES).apply(values[nearest])
    return _inside(result, mask)


def equalise(pixels: Pixels, mask: Lungs) -> Pixels:
    """Replace each grey level by its mean rank among the lungs' pixels, from 0 to 255."""
    twice_rank, n = _twice_ranks(pixels, mask)
    return _inside(np.rint(twice_rank * (BINS - 1) / (2 * n)).astype(np.uint8)[pixels], mask)


def match(pixels: Pixels, mask: Lungs, *, reference: NDArray[np.int64]) -> Pixels:
    """Map grey levels so that the lungs' histogram becomes that of a reference, counts (256,): by mean rank."""
    twice_rank, n = _twice_ranks(pixels, mask)
    # Whole numbers throughout: an image mapped to its own histogram stays exactly as it is.
    levels = np.searchsorted(2 * reference.cumsum() * n, twice_rank * int(reference.sum()))
    return _inside(levels.astype(np.uint8)[pixels], mask)


def by_outside_tissue(pixels: Pixels, mask: Lungs) -> Pixels:
    """Shift and scale by median and interquartile range of the tissue in a ring around the lungs.

    RadiographError: most of the ring is 0, as in lungs-only images, or it has one grey level only.
    """
    near, far = (cv2.dilate(mask.view(np.uint8), _disc(share * max(pixels.shape))) > 0 for share in RING)
    ring = pixels[far & ~near]
    tissue = ring[ring > 0]  # collimators and padding are 0
    if tissue.size < MIN_TISSUE * max(ring.size, 1) or not tissue.size:
        raise RadiographError(Reason.BLANK, detail="outside of the lungs is 0")
    low, median, high = np.percentile(tissue, (25, 50, 75))
    if high <= low:
        raise RadiographError(Reason.BLANK, detail="the tissue outside of the lungs has no contrast")
    scaled = RING_CENTRE + RING_SPREAD * (np.arange(BINS) - median) / (high - low)
    return _inside(np.clip(np.rint(scaled), 0, BINS - 1).astype(np.uint8)[pixels], mask)


def _inside(pixels: Pixels, mask: Lungs) -> Pixels:
    return np.where(mask, pixels, np.uint8(0))


def _twice_ranks(pixels: Pixels, mask: Lungs) -> tuple[NDArray[np.int64], int]:
    """For each grey level twice the mean rank of its pixels among the lungs', and the lungs' pixels."""
    counts = np.bincount(pixels[mask], minlength=BINS)
    return 2 * counts.cumsum() - counts, int(counts.sum())


def _disc(radius: float) -> Any:
    size = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


#: Standardisations that need nothing but the image; quantile mapping has a reference in each fold.
STANDARDISATIONS: dict[str, Standardise] = {
    "none": none,
    "CLAHE": clahe,
    "equalised": equalise,
    "outside tissue": by_outside_tissue,
}
QUANTILE_MAPPING = "quantile mapping"


class Test(NamedTuple):
    """What a fold is measured on: a name, ``"test"`` or ``"all"`` rows, and which rows these are."""

    name: str
    part: str
    rows: Rows


class Fold(NamedTuple):
    """Sources to train on, the rows to train on, and the tests."""

    trained_on: tuple[str, ...]
    rows: Rows
    tests: tuple[Test, ...]
    at_home: bool


def make_folds(table: pd.DataFrame) -> list[Fold]:
    """Divide a manifest (``label, patient_id, source, split``) into folds that leave sources out, and the one at home.

    Training rows have the split ``train`` and share no patient with any of the fold's tests. InputError: rows have no
    source, or no source holds both classes, so that every figure would tell sources apart.
    """
    source = table["source"].astype(str).to_numpy()
    if (source == "").any():
        raise InputError(f"source must be given for every image; {int((source == '').sum())} have none")
    sick, groups = is_sick(table["label"]), patient_groups(table)
    train, test = (table["split"].to_numpy() == part for part in ("train", "test"))
    names = sorted(set(source))

    def enough(rows: Rows) -> bool:
        """Two patients of each class: the least that an interval takes."""
        return all(len(set(groups[rows & (sick == kind)])) >= 2 for kind in (True, False))

    of = {name: source == name for name in names}
    homes = [name for name in names if enough(of[name] & test)]
    if not homes:
        raise InputError(
            f"source must have a value that holds sick and normal test patients; none of {', '.join(names)} does: any "
            "figure would tell sources apart"
        )
    found: dict[tuple[str, ...], list[Test]] = {}
    for left_out in names:
        rest = tuple(name for name in names if name != left_out)
        if left_out in homes:
            tests = [Test(left_out, "test", of[left_out] & test), Test(left_out, "all", of[left_out])]
            for trained_on in dict.fromkeys([rest, *((home,) for home in homes if home != left_out)]):
                found.setdefault(trained_on, []).extend(tests)
            continue
        kind = bool(sick[of[left_out]].all())
        others = test & (sick != kind)
        for against in dict.fromkeys([tuple(homes), *((home,) for home in homes)]):
            controls = others & np.isin(source, against)
            name = f"{left_out} against {' + '.join(against)} {'normals' if kind else 'sick'}"
            found.setdefault(rest, []).extend(
                Test(name, part, (of[left_out] & (sick == kind) & chosen) | controls)
                for part, chosen in (("test", test), ("all", np.ones_like(test)))
            )
    found.setdefault(tuple(names), []).extend(Test(home, "test", of[home] & test) for home in homes)
    folds = []
    for trained_on, tests in found.items():
        kept = tuple(item for item in tests if enough(item.rows))
        seen = set(groups[np.any([item.rows for item in kept], axis=0)]) if kept else set()
        rows = train & np.isin(source, trained_on) & ~np.isin(groups, list(seen))
        if kept and enough(rows):
            folds.append(Fold(trained_on, rows, kept, at_home=trained_on == tuple(names)))
    return folds


def count(table: pd.DataFrame, standardise: Standardise, n_jobs: int) -> tuple[NDArray[Any], list[str]]:
    """Standardise every image and count it; return counts (n, rows, 256) and per row why there are none."""

    def one(image: str, mask: str) -> NDArray[Any] | str:
        try:
            pixels = read_radiograph(image).pixels
            lungs = read_mask(mask, (pixels.shape[0], pixels.shape[1]))
            check_mask(lungs, image)
            counts = count_lungs(standardise(pixels, lungs), lungs, image, recipe=RECIPE)
        except UnjudgeableError as error:
            return error.detail or error.reason.value
        return counts.astype(np.uint16 if counts.max() < 1 << 16 else np.uint32)  # thousands are held at once

    pairs = zip(table["image"], table["mask"], strict=True)
    found = Parallel(n_jobs, prefer="threads")(delayed(one)(image, mask) for image, mask in pairs)
    empty = np.zeros((len(RECIPE.names), BINS), np.uint16)
    counts = np.array([empty if isinstance(item, str) else item for item in found])
    return counts, [item if isinstance(item, str) else "" for item in found]


def feature_sets() -> dict[str, tuple[int, Any]]:
    """Return by name how many rows of the counts a set of features takes, and its unfitted transformer."""
    raw = HistogramFeatures(("quantile", "sqrt"), zones=ZONES, n_quantiles=16, dtype="float32")
    return {
        "raw": (ZONES, raw),
        "raw quantiles": (ZONES, clone(raw).set_params(kind="quantile")),
        "own": (ZONES, make_classifier("xgboost", zones=ZONES)["features"]),
        "bands": (len(RECIPE.names), make_classifier("xgboost", zones=ZONES, bands=RECIPE.bands)["features"]),
    }


def classifiers(n_jobs: int) -> dict[str, Any]:
    """Return the two classifiers by name: settings are fixed, nothing is tuned."""
    # Where a bin was all but empty in training, its deviation elsewhere may be hundreds: it is cut off.
    clip = FunctionTransformer(np.clip, kw_args={"a_min": -4, "a_max": 4})
    boosted = make_classifier("xgboost", zones=ZONES, n_jobs=n_jobs).set_params(classifier__cv=None)
    return {
        "logistic": make_pipeline(StandardScaler(), clip, LogisticRegression(C=1e-3, max_iter=2000)),
        "xgboost": boosted["classifier"],
    }


def fit_and_score(
    counts: NDArray[Any], fold: Fold, sick: Rows, groups: NDArray[np.object_], n_jobs: int
) -> Iterator[tuple[str, str, NDArray[np.float64]]]:
    """Yield features, classifier and scores (n,), NaN where a row is in none of the fold's tests."""
    tested = np.any([test.rows for test in fold.tests], axis=0)
    for features, (rows, transformer) in feature_sets().items():
        fitted = clone(transformer).fit(counts[fold.rows, :rows])
        inside, beyond = (fitted.transform(counts[which, :rows]) for which in (fold.rows, tested))
        for name, classifier in classifiers(n_jobs).items():
            known = {"groups": groups[fold.rows]} if name == "xgboost" else {}
            classifier.fit(inside, sick[fold.rows], **known)
            scores = np.full(len(sick), np.nan)
            scores[tested] = classifier.predict_proba(beyond)[:, 1]
            yield features, name, scores


def study(manifest: pd.DataFrame, n_jobs: int = 1) -> dict[str, Any]:
    """Run every fold with every standardisation, set of features and classifier; return figures ready for JSON.

    Each of ``rows`` is a figure with the paired difference to the same without standardisation (and to raw grey
    levels, where there is none).
    """
    table = manifest.reset_index(drop=True)
    if (table["split"] == "").all():
        table["split"] = split_patients(table)
    make_folds(table)  # data that allow no honest figure are refused before the long part
    counted, refused, not_possible = {}, [], {}
    for name, function in STANDARDISATIONS.items():
        counts, reasons = count(table, function, n_jobs)
        if all(reasons):
            not_possible[name] = max(set(reasons), key=reasons.count)
        else:
            counted[name] = counts
            refused.append([bool(reason) for reason in reasons])
    if "none" in not_possible:
        raise InputError(f"data must hold at least one usable image; got none: {not_possible['none']}")
    usable = ~np.any(refused, axis=0)
    fixed = {name: counts[usable] for name, counts in counted.items()}
    table = table[usable].reset_index(drop=True)
    sick, groups = is_sick(table["label"]), patient_groups(table)
    rows: list[dict[str, Any]] = []
    for fold in make_folds(table):
        reference = fixed["none"][fold.rows, :ZONES].sum(axis=(0, 1), dtype=np.int64)
        mapped, reasons = count(table, partial(match, reference=reference), n_jobs)
        if any(reasons):
            raise InputError(f"quantile mapping must keep every image usable; {set(reasons) - {''}}")
        base: dict[tuple[str, str], NDArray[np.float64]] = {}
        for name, counts in [*fixed.items(), (QUANTILE_MAPPING, mapped)]:
            for features, classifier, scores in fit_and_score(counts, fold, sick, groups, n_jobs):
                if name == "none":
                    base[features, classifier] = scores
                against = {"to_none": base[features, classifier]} if name != "none" else {}
                if name == "none" and features != "raw":
                    against["to_raw"] = base["raw", classifier]
                key = {"standardisation": name, "features": features, "classifier": classifier}
                key |= {"trained_on": " + ".join(fold.trained_on), "at_home": fold.at_home}
                rows += [{**key, **_figures(test, scores, against, sick, groups)} for test in fold.tests]
    found = {"images": len(table), "unusable": int((~usable).sum()), "not_possible": not_possible}
    return {**found, "rows": rows}


def _figures(
    test: Test, scores: Scores, against: Mapping[str, Scores], sick: Rows, groups: NDArray[np.object_]
) -> dict[str, Any]:
    truth, patients = sick[test.rows], groups[test.rows]
    area = auc(scores[test.rows], truth, patient_ids=patients)
    found: dict[str, Any] = {"tested_on": test.name, "part": test.part}
    found |= {"images": len(truth), "sick": int(truth.sum())}
    found |= {"auc": area.value, "auc_low": area.low, "auc_high": area.high}
    for name, other in against.items():
        gap = compare_auc(scores[test.rows], other[test.rows], truth, patient_ids=patients).difference
        found[name] = {"value": gap.value, "low": gap.low, "high": gap.high}
    return found


def report(result: Mapping[str, Any]) -> str:
    """Write the study as Markdown: AUC by fold on test rows and on all rows, then the paired differences."""
    rows = pd.DataFrame(result["rows"])
    parts = [
        f"{result['images']} images; {result['unusable']} left out that one of the standardisations cannot use."
    ]
    parts += [f"{name}: not possible: {why}." for name, why in result["not_possible"].items()]
    for part, title in (("test", "AUC (95 % interval), test rows"), ("all", "AUC (95 % interval), all rows")):
        some = rows[rows["part"] == part]
        if len(some):
            parts += [f"### {title}", _wide(some, lambda r: interval_text(r.auc, r.auc_low, r.auc_high))]
    # The most rows that a fold has: all of a source left out, the test rows at home.
    last = rows[(rows["part"] == "all") | rows["at_home"]]
    changed, same = last[last["standardisation"] != "none"], last[last["standardisation"] == "none"]
    parts += [
        "### Difference of AUC to none (paired, 95 % interval; * leaves out 0)",
        _wide(changed, lambda r: _gap(r.to_none)),
        "### Difference of AUC to raw grey levels, without standardisation",
        _wide(same[same["features"] != "raw"], lambda r: _gap(r.to_raw)),
    ]
    return "\n\n".join(parts)


def _gap(gap: Mapping[str, float]) -> str:
    star = "*" if gap["low"] > 0 or gap["high"] < 0 else ""
    return f"{gap['value']:+.3f}{star} ({gap['low']:+.3f} to {gap['high']:+.3f})"


def _wide(rows: pd.DataFrame, cell: Callable[[Any], str]) -> str:
    """Lay out figures: a line for each fold and standardisation, a column for each features and classifier."""
    lines: list[dict[str, object]] = []
    for _, fold in rows.groupby(["trained_on", "tested_on"], sort=False):
        for name, own in fold.groupby("standardisation", sort=False):
            first = next(own.itertuples())
            line: dict[str, object] = {"trained on": "all (at home)" if first.at_home else first.trained_on}
            line |= {"tested on": f"{first.tested_on} ({first.sick}/{first.images})", "standardisation": name}
            lines.append(line | {f"{row.features}, {row.classifier}": cell(row) for row in own.itertuples()})
    return markdown_table(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = make_parser(__doc__, data="folder or CSV with labels and sources", jobs=1, seed=False)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)  # threads work on images, not within one
    result = study(read_manifest(options.data, require_labels=True), options.jobs)
    publish(report(result), result, options.json)


if __name__ == "__main__":
    run(main)
