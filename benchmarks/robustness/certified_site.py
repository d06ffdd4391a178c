"""Is a folder of the certified hospitals? False alarms and power of the site test, beside tests that are known.

    python -m benchmarks.robustness.certified_site --data COLLECTIONS

COLLECTIONS holds covid_full, chest_xray (whose test patients are the known hospitals) and foreign/* (one folder a
hospital that nobody trained on). Folders are drawn at random without replacement, of 40, 100 and 400 images, the
known ones with 5, 20, 50 and 90 % sick. The others compare a folder with validation patients of the known
hospitals, in the same coordinates: a classifier two-sample test (Lopez-Paz and Oquab, 2017), maximum mean
discrepancy (Gretton et al., 2012) and energy distance (Szekely and Rizzo, 2004) by permutations, MAPIE's jumper
martingale on conformal p-values of the model's scores, and crepes' martingales (jumper, stayer and drifter of Vovk,
Gammerman and Shafer, 2022, averaged) on semi-online p-values, of the scores and of the distances from the known mean.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from benchmarks.common import make_parser, publish, run
from histcxr.data.manifest import is_sick, read_manifest
from histcxr.exceptions import InputError
from histcxr.features.extraction import extract_features
from histcxr.reports.tables import markdown_table
from histcxr.store import Model, load_model

SIZES, SHARES, KNOWN = (40, 100, 400), (0.05, 0.2, 0.5, 0.9), ("covid_full", "chest_xray")
LEVEL, PERMUTATIONS, COMPARED = 0.05, 100, 400
Images = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]  # coordinates, scores, sick


def read(model: Model, manifest: pd.DataFrame, given: argparse.Namespace) -> Images:
    """Return site coordinates, scores and truth of the radiographs that triage would judge."""
    rows = manifest.reset_index(drop=True)
    found = extract_features(rows, model.recipe, lungs="found", cache=given.cache, n_jobs=given.jobs)
    counts, table = found.counts[found.usable], found.table.loc[found.usable]
    familiar = ~model.unfamiliar(counts)
    sick = is_sick(table["label"].replace({"NORMAL": "Normal"}))[familiar]
    return model.site.project(model.site_numbers(counts[familiar])), model.score(counts[familiar]), sick


def permuted(distances: NDArray[np.float64], n: int, statistic: Callable[..., float], rng: Any) -> float:
    """Return the p-value of a statistic of two samples, the first of ``n``, by permutations of their members."""
    order = np.arange(len(distances))
    observed = statistic(distances, order, n)
    above = sum(statistic(distances, rng.permutation(order), n) >= observed for _ in range(PERMUTATIONS))
    return (above + 1) / (PERMUTATIONS + 1)


def gap(distances: NDArray[np.float64], order: NDArray[np.intp], n: int) -> float:
    """Return twice the mean between two samples less the means within them."""
    a, b = order[:n], order[n:]
    within = distances[np.ix_(a, a)].mean() + distances[np.ix_(b, b)].mean()
    return float(2 * distances[np.ix_(a, b)].mean() - within)


def ours(model: Model, folder: Images, known: Images, rng: Any) -> bool:
    """The test that triage makes."""
    sketch = model.site.sketch()
    sketch.add(folder[0])
    return model.site.test(sketch).differs


def classifier(model: Model, folder: Images, known: Images, rng: Any) -> bool:
    """Can a classifier tell the folder from the known patients?"""
    both = np.concatenate([folder[0], known[0]])
    mine = np.arange(len(both)) < len(folder[0])
    scores = cross_val_predict(
        LogisticRegression(C=0.1, max_iter=500), both, mine, method="decision_function"
    )
    return bool(mannwhitneyu(scores[mine], scores[~mine], alternative="greater").pvalue < LEVEL)


def energy(model: Model, folder: Images, known: Images, rng: Any) -> bool:
    """Energy distance."""
    both = np.concatenate([folder[0], known[0]])
    return permuted(cdist(both, both), len(folder[0]), gap, rng) < LEVEL


def discrepancy(model: Model, folder: Images, known: Images, rng: Any) -> bool:
    """Maximum mean discrepancy with a Gaussian kernel as wide as the median distance."""
    both = np.concatenate([folder[0], known[0]])
    squared = cdist(both, both, "sqeuclidean")
    return permuted(-np.exp(-squared / np.median(squared)), len(folder[0]), gap, rng) < LEVEL


def martingale(model: Model, folder: Images, known: Images, rng: Any) -> bool:
    """MAPIE's jumper martingale over conformal p-values of the scores."""
    from mapie.exchangeability_testing import OnlineMartingaleTest

    test = OnlineMartingaleTest(task="classification", test_level=LEVEL, warn=False)
    history = known[1]
    for score in rng.permutation(folder[1]):
        value = test.update_simple_jumper_martingale(test.compute_p_value(score, history))
        if value >= 1 / LEVEL:
            return True
    return False


def averaged(known: NDArray[np.float64], folder: NDArray[np.float64], rng: Any) -> bool:
    """Crepes' three martingales, averaged, over p-values of a folder's numbers after the known ones."""
    from crepes import martingales as crepes

    numbers = np.concatenate([rng.permutation(known), rng.permutation(folder)])
    p_values = crepes.semi_online_p_values(numbers, seed=int(rng.integers(2**31)))[len(known) :]
    three = [crepes.SimpleJumper(), crepes.SleeperStayer(), crepes.SleeperDrifter()]
    return bool(crepes.CompositeMartingale(three).apply(p_values).max() >= 1 / LEVEL)


def averaged_scores(model: Model, folder: Images, known: Images, rng: Any) -> bool:
    """Crepes' martingales over the scores."""
    return averaged(known[1], folder[1], rng)


def averaged_distances(model: Model, folder: Images, known: Images, rng: Any) -> bool:
    """Crepes' martingales over distances from the known mean, which half of the known gives and the other half uses."""
    half = len(known[0]) // 2
    mean = known[0][:half].mean(axis=0)
    return averaged(*(np.linalg.norm(rows - mean, axis=1) for rows in (known[0][half:], folder[0])), rng)


TESTS = {
    "site test": ours,
    "classifier": classifier,
    "MMD": discrepancy,
    "energy distance": energy,
    "martingale of scores": martingale,
    "crepes' martingales of scores": averaged_scores,
    "crepes' martingales of distances": averaged_distances,
}


def drawn(images: Images, n: int, share: float | None, rng: Any) -> Images | None:
    """Draw ``n`` images, of them so many sick; None where there are not enough."""
    if share is None:
        pools, sizes = [np.arange(len(images[2]))], [n]
    else:
        pools = [np.flatnonzero(images[2]), np.flatnonzero(~images[2])]
        sizes = [round(n * share), n - round(n * share)]
    if any(len(pool) < size for pool, size in zip(pools, sizes, strict=True)):
        return None
    rows = np.concatenate(
        [rng.choice(pool, size, replace=False) for pool, size in zip(pools, sizes, strict=True)]
    )
    return images[0][rows], images[1][rows], images[2][rows]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = make_parser(__doc__, data="folder with covid_full, chest_xray and foreign/*")
    parser.add_argument("--model", help="a saved histogram model; by default the one in the box")
    parser.add_argument("--cache", help="folder that keeps counts for next time")
    parser.add_argument(
        "--strange",
        choices=KNOWN,
        help="the collection that --model was built without (tools/box_model.py --without): foreign, too",
    )
    parser.add_argument("--alone", action="store_true", help="the site test without the others")
    parser.add_argument("--draws", type=int, default=100, help="folders a cell; the slow tests take a fifth")
    given = parser.parse_args(arguments)
    model, rng = load_model(given.model or "boxed"), np.random.default_rng(given.seed)
    if not isinstance(model, Model) or model.site is None:
        raise InputError("model must be a histogram model with a reference of its site")
    tables = {name: read_manifest(os.path.join(given.data, name), require_labels=True) for name in KNOWN}
    sets = {name: read(model, table[table["split"] == "test"], given) for name, table in tables.items()}
    foreign = {given.strange: sets.pop(given.strange)} if given.strange else {}
    tables = {name: tables[name] for name in sets}
    if len(sets) > 1:
        sets["both"] = tuple(np.concatenate(parts) for parts in zip(*sets.values(), strict=True))
    learnt = pd.concat([table[table["split"] != "test"] for table in tables.values()], ignore_index=True)
    known = read(model, learnt.sample(COMPARED, random_state=given.seed), given)
    top = os.path.join(given.data, "foreign")
    foreign |= {
        name: read(model, read_manifest(os.path.join(top, name), require_labels=True), given)
        for name in sorted(os.listdir(top))
        if os.path.isdir(os.path.join(top, name))
    }
    rows = []
    for test, differs in list(TESTS.items())[: 1 if given.alone else None]:
        draws = given.draws if test == "site test" else max(1, given.draws // 5)
        for n in SIZES:
            row: dict[str, Any] = {"test": test, "images": n}
            for share in SHARES:
                alarms = [
                    differs(model, folder, known, rng)
                    for images in sets.values()
                    for _ in range(draws)
                    if (folder := drawn(images, n, share, rng)) is not None
                ]
                row[f"alarms, {share:.0%} sick"] = float(np.mean(alarms)) if alarms else None
            for name, images in foreign.items():
                found = [
                    differs(model, folder, known, rng)
                    for _ in range(draws)
                    if (folder := drawn(images, min(n, len(images[2])), None, rng)) is not None
                ]
                row[f"found: {name}"] = float(np.mean(found))
            rows.append(row)
    large = np.tile(next(reversed(sets.values()))[0], (40, 1))[:10000]
    started = time.perf_counter()
    ours(model, (large, large[:, 0], large[:, 0] > 0), known, rng)
    seconds = time.perf_counter() - started
    text = f"{markdown_table(rows)}\n\nThe site test of {len(large)} images takes {seconds:.2f} s."
    publish(text, {"rows": rows, "seconds": seconds}, given.json)


if __name__ == "__main__":
    run(main)
