"""How soon does `histcxr monitor` see that something is wrong, and how often does it alarm where nothing is?

    python -m benchmarks.robustness.monitor_streams --data COLLECTIONS --cache CACHE

COLLECTIONS holds covid_full, chest_xray (whose test patients are two known hospitals) and foreign/* (hospitals that
nobody trained on). A stream is a hospital's life of 10,000 images (drawn with replacement) in days of 50 to 200. Its
share of sick is drawn anew each day from 5 to 90 %, or moves like a season of 60 days between them, or jumps from 5 to
90 % or back on one day; "both, mixed" draws each day's share of either hospital's patients, too. Thresholds are set so
that the promises of 95 % are exactly kept. Everybody's truth becomes known, or that of every tenth patient ruled out
and of all others.

Changes begin on day 21: images with another gamma (measured anew, lungs found anew), 20 % (or all) from a foreign
hospital, a rule-out threshold that keeps a sensitivity of 85 %.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common import make_parser, publish, run
from histcxr.data.manifest import is_sick, read_manifest
from histcxr.decision.intervals import clopper_pearson
from histcxr.decision.thresholds import rule_in_threshold, rule_out_threshold
from histcxr.exceptions import InputError
from histcxr.features.extraction import extract_features
from histcxr.reports.tables import markdown_table
from histcxr.site.monitor import ImageTests, watch_promise
from histcxr.site.worklists import Batch, Day
from histcxr.store import Model, load_model

HOSPITALS = ("covid_full", "chest_xray", "both, mixed")
IMAGES, QUIET, GAMMAS, COPIES, FOREIGN_SHARE = 10_000, 20, (0.8, 1.25), 250, 0.2
TESTS = ("site", "change", "sensitivity", "specificity")
OUT, TAKEN = rule_out_threshold(np.zeros(100)), rule_in_threshold(np.zeros(100))  # for their targets of 95 %
Rng = np.random.Generator


@dataclass(frozen=True)
class Images:
    """What triage keeps of judged images: site coordinates (n, k), scores (n,); and whether sick, bool (n,)."""

    where: NDArray[np.float64]
    scores: NDArray[np.float64]
    sick: NDArray[np.bool_]

    def part(self, rows: NDArray[Any]) -> Images:
        """Return some of them."""
        return Images(self.where[rows], self.scores[rows], self.sick[rows])

    def draw(self, n: int, share: float | None, rng: Rng) -> Images:
        """Draw ``n`` with replacement, each sick with a probability of ``share`` (None: as they come)."""
        if share is None:
            return self.part(rng.integers(len(self.sick), size=n))
        sick = rng.binomial(n, share)
        pools = (np.flatnonzero(self.sick), sick), (np.flatnonzero(~self.sick), n - sick)
        return self.part(rng.permutation(np.concatenate([rng.choice(pool, size) for pool, size in pools])))


def together(*parts: Images) -> Images:
    """Put images after one another."""
    names = ("where", "scores", "sick")
    return Images(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def read(model: Model, manifest: pd.DataFrame, given: Any) -> Images:
    """Measure the radiographs that triage would judge, as its trail keeps them."""
    rows = manifest.reset_index(drop=True)
    found = extract_features(rows, model.recipe, given.jobs, lungs="found", cache=given.cache)
    counts, table = found.counts[found.usable], found.table.loc[found.usable]
    familiar = ~model.unfamiliar(counts)
    sick = is_sick(table["label"].replace({"NORMAL": "Normal"}))[familiar]
    where = model.site.project(model.site_numbers(counts[familiar]))
    return Images(np.clip(np.round(where * 16), -127, 127) / 16, model.score(counts[familiar]), sick)


def with_gamma(manifest: pd.DataFrame, gamma: float, folder: str) -> pd.DataFrame:
    """Write copies of some radiographs as another device's look-up table would show them."""
    rows = manifest.sample(min(COPIES, len(manifest)), random_state=1)
    paths = []
    for number, image in enumerate(rows["image"]):
        pixels = cv2.imread(image, cv2.IMREAD_GRAYSCALE)
        paths.append(os.path.join(folder, f"{gamma}-{number}.png"))
        cv2.imwrite(paths[-1], np.round(255 * (pixels / 255.0) ** gamma).astype(np.uint8))
    return rows.assign(image=paths, mask="")


@dataclass(frozen=True)
class Hospital:
    """The images of a hospital (two, where they are mixed), as they are and as each gamma shows them."""

    parts: tuple[Images, ...]
    changed: dict[float, tuple[Images, ...]]

    def draw(self, n: int, share: float, rng: Rng, gamma: float | None = None) -> Images:
        """Draw a day's images."""
        parts = self.parts if gamma is None else self.changed[gamma]
        if len(parts) == 1:
            return parts[0].draw(n, share, rng)
        first = rng.binomial(n, rng.uniform())
        return together(parts[0].draw(first, share, rng), parts[1].draw(n - first, share, rng))

    def limits(self, sensitivity: float = 0.95, specificity: float = 0.95) -> list[tuple[float, float]]:
        """Return the thresholds that just keep these, for each part."""
        found = []
        for one in self.parts:
            sick, normal = np.sort(one.scores[one.sick]), np.sort(one.scores[~one.sick])[::-1]
            found.append(
                (
                    float(sick[int((1 - sensitivity) * len(sick))]),
                    float(normal[int((1 - specificity) * len(normal))]),
                )
            )
        return found


def shares(kind: str, days: int, rng: Rng) -> NDArray[np.float64]:
    """Return the share of sick patients on each day."""
    if kind == "random":
        return rng.uniform(0.05, 0.9, days)
    if kind == "season":
        return 0.475 + 0.425 * np.sin(2 * np.pi * (np.arange(days) / 60 + rng.uniform()))
    before, after = (0.05, 0.9) if kind == "jump to 90 %" else (0.9, 0.05)
    return np.where(np.arange(days) < rng.integers(15, days - 15), before, after)


def batch(number: int, images: Images, wrong: tuple[NDArray[Any], NDArray[Any]]) -> Batch:
    """Make the day of a worklist of it; ``wrong`` says who is ruled out and who is ruled in."""
    drawers = np.where(wrong[0], "rule_out", np.where(wrong[1], "rule_in", "review"))
    n = len(drawers)
    day = Day(str(number), "", n, 0, {}, {}, 0, n, float(images.scores.mean()), False)
    names = [f"{number}/{i}" for i in range(n)]
    return Batch(
        day, dict(zip(names, drawers.tolist(), strict=True)), images.scores.tolist(), list(images.where)
    )


def first_alarms(
    model: Model, days: Sequence[Images], hospital: Hospital, given: dict[str, Any]
) -> dict[str, Any]:
    """Return for each test the day of its alarm (from 0), None for none; ``sick`` patients with a label a day."""
    tests, batches, truths = ImageTests(model.site), [], {}
    rng, audited = given["rng"], given["audited"]
    rates = np.full(len(days), 0.05)
    rates[given["begins"] :] = 1 - given["sensitivity"]
    high = hospital.limits()[0][1]
    sick = []
    for number, images in enumerate(days):
        if len(hospital.parts) == 1:
            low = hospital.limits(1 - rates[number])[0][0]
            wrong = images.scores < low, images.scores > high
        else:  # mixed hospitals have no threshold that keeps a promise exactly on every day
            chance = rng.uniform(size=len(images.sick))
            wrong = (
                chance < np.where(images.sick, rates[number], 0.5),
                chance > np.where(images.sick, 0.5, 0.95),
            )
        batches.append(batch(number, images, wrong))
        tests.add(batches[-1])
        known = ~wrong[0] | (rng.uniform(size=len(wrong[0])) < audited)
        names = list(batches[-1].patients)
        truths |= {names[i]: bool(images.sick[i]) for i in np.flatnonzero(known)}
        sick.append(int((known & images.sick).sum()))
    watches = list(tests.watches(batches))
    watches += [watch_promise(batches, truths, one, of)[0] for one, of in ((OUT, True), (TAKEN, False))]
    return {"sick": sick, **{one.name: None if one.since is None else int(one.since) for one in watches}}


def sizes(rng: Rng, images: int = IMAGES) -> list[int]:
    """Return the images of each day."""
    made: list[int] = []
    while sum(made) < images:
        made.append(int(rng.integers(50, 201)))
    return made


def share_text(count: int, n: int) -> str:
    """Write a share with its Clopper-Pearson interval."""
    low, high = clopper_pearson(count, n)
    return f"{count / n:.3f} ({float(low):.3f}-{float(high):.3f})"


def days_text(found: Sequence[int | None]) -> str:
    """Write median and 80 % range of days to the alarm, and in how many streams there was one."""
    days = [np.inf if one is None else one for one in found]
    low, median, high = (
        "never" if not np.isfinite(end) else f"{end:.0f}"
        for end in np.quantile(days, [0.1, 0.5, 0.9], method="inverted_cdf")
    )
    return f"{median} ({low}-{high}), {np.isfinite(days).mean():.0%}"


def quiet_rows(model: Model, hospitals: dict[str, Hospital], streams: int, seed: int) -> list[dict[str, Any]]:
    """Count false alarms."""
    rows = []
    for kind in ("random", "season", "jump to 90 %", "jump to 5 %"):
        for audited in (1.0, 0.1) if kind == "random" else (1.0,):
            n = streams if audited == 1 and kind == "random" else max(3, streams // 6)
            alarms = dict.fromkeys((*TESTS, "any"), 0)
            for number in range(n):
                rng = np.random.default_rng([seed, number, len(kind), int(10 * audited)])
                hospital = hospitals[HOSPITALS[number % 3]]
                each = sizes(rng)
                days = [
                    hospital.draw(size, share, rng)
                    for size, share in zip(each, shares(kind, len(each), rng), strict=True)
                ]
                how = {"rng": rng, "audited": audited, "begins": 0, "sensitivity": 0.95}
                found = first_alarms(model, days, hospital, how)
                over = [name for name in TESTS if found[name] is not None]
                for name in (*over, *(["any"] if over else [])):
                    alarms[name] += 1
            read_ = "all" if audited == 1 else "all but 9 of 10 ruled out"
            counts = {name: alarms[name] for name in TESTS}
            rows.append(
                {
                    "share of sick": kind,
                    "read": read_,
                    "streams": n,
                    **counts,
                    "any": share_text(alarms["any"], n),
                }
            )
    return rows


def change_rows(
    model: Model, hospitals: dict[str, Hospital], foreign: dict[str, Images], streams: int, seed: int
) -> list[dict[str, Any]]:
    """Measure days to the alarm after a change on day 21."""
    changes: dict[str, Callable[[Hospital, int, float, Rng], Images]] = {
        f"gamma {gamma:g}": lambda of, n, share, rng, gamma=gamma: of.draw(n, share, rng, gamma)
        for gamma in GAMMAS
    }
    for name, images in foreign.items():

        def mixed(
            of: Hospital, n: int, share: float, rng: Rng, images: Images = images, part: float = FOREIGN_SHARE
        ) -> Images:
            others = rng.binomial(n, part)
            return together(of.draw(n - others, share, rng), images.draw(others, None, rng))

        changes[f"{FOREIGN_SHARE:.0%} {name}"] = mixed
        changes[f"all {name}"] = lambda of, n, share, rng, mixed=mixed: mixed(of, n, share, rng, part=1.0)
    for audited in ("all read", "every tenth ruled out read"):
        changes[f"sensitivity 85 %, {audited}"] = lambda of, n, share, rng: of.draw(n, share, rng)
    rows = []
    for change, draw in changes.items():
        for name, hospital in hospitals.items():
            found: dict[str, list[int | None]] = {test: [] for test in (*TESTS, "labelled sick")}
            for number in range(streams):
                rng = np.random.default_rng([seed, number, 99])
                each = sizes(rng, IMAGES // 2 + 125 * QUIET)
                days = [
                    hospital.draw(n, share, rng) if day < QUIET else draw(hospital, n, share, rng)
                    for day, (n, share) in enumerate(zip(each, shares("random", len(each), rng), strict=True))
                ]
                fallen = "sensitivity" in change
                how = {
                    "rng": rng, "audited": 0.1 if "tenth" in change else 1.0, "begins": QUIET,
                    "sensitivity": 0.85 if fallen else 0.95,
                }  # fmt: skip
                alarms = first_alarms(model, days, hospital, how)
                for test in TESTS:
                    day = alarms[test]
                    found[test].append(None if day is None or day < QUIET else day - QUIET + 1)
                day = alarms["sensitivity"]
                seen = None if day is None or day < QUIET else sum(alarms["sick"][QUIET : day + 1])
                found["labelled sick"].append(seen)
            row = {"what": change, "hospital": name}
            if fallen:
                row |= {
                    "sensitivity": days_text(found["sensitivity"]),
                    "labelled sick": days_text(found["labelled sick"]),
                }
            else:
                row |= {test: days_text(found[test]) for test in ("site", "change")}
            rows.append(row)
    return rows


def prepared(doc: str | None, arguments: Sequence[str] | None) -> tuple[Any, Model, dict[str, Hospital]]:
    """Return the options, the model and the known hospitals."""
    parser = make_parser(doc, data="folder with covid_full, chest_xray and foreign/*")
    parser.add_argument("--model", help="a saved histogram model; by default the one in the box")
    parser.add_argument("--cache", help="folder that keeps counts")
    parser.add_argument(
        "--streams",
        type=int,
        default=400,
        help="of random shares; a sixth of it of others, a twentieth for changes and rivals",
    )
    given = parser.parse_args(arguments)
    model = load_model(given.model or "boxed")
    if not isinstance(model, Model) or model.site is None:
        raise InputError("model must be a histogram model with a reference of its site")
    known, changed = [], {gamma: [] for gamma in GAMMAS}
    for name in HOSPITALS[:2]:
        table = read_manifest(os.path.join(given.data, name), require_labels=True)
        table = table[table["split"] == "test"]
        known.append(read(model, table, given))
        for gamma in GAMMAS:
            with tempfile.TemporaryDirectory() as folder:
                changed[gamma].append(read(model, with_gamma(table, gamma, folder), given))
    hospitals = {
        name: Hospital((known[i],), {gamma: (parts[i],) for gamma, parts in changed.items()})
        for i, name in enumerate(HOSPITALS[:2])
    }
    hospitals[HOSPITALS[2]] = Hospital(
        tuple(known), {gamma: tuple(parts) for gamma, parts in changed.items()}
    )
    return given, model, hospitals


def publish_tables(tables: dict[str, list[dict[str, Any]]], place: str | None) -> None:
    """Print each table below its title, with the columns of all its rows."""
    text = []
    for title, rows in tables.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        text.append(f"{title}:\n\n{markdown_table(rows, columns)}")
    publish("\n\n".join(text), tables, place)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    given, model, hospitals = prepared(__doc__, arguments)
    top = os.path.join(given.data, "foreign")
    foreign = {
        name: read(model, read_manifest(os.path.join(top, name), require_labels=True), given)
        for name in sorted(os.listdir(top))
        if os.path.isdir(os.path.join(top, name))
    }
    tables = {
        "Streams of 10,000 images where nothing is wrong: how many alarmed": quiet_rows(
            model, hospitals, given.streams, given.seed
        ),
        "Days from the change to the alarm: median (10-90 %), share of streams with an alarm": change_rows(
            model, hospitals, foreign, max(2, given.streams // 20), given.seed
        ),
    }
    publish_tables(tables, given.json)


if __name__ == "__main__":
    run(main)
