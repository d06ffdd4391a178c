"""Does the out-of-fold certificate of `histcxr adapt` hold? Thresholds from many sets of local patients.

    python -m benchmarks.robustness.adapt_certificate --draws 2000
    python -m benchmarks.robustness.adapt_certificate --draws 500 --data covid_full -m without_covid_full.histcxr

Each draw has n sick and n normal patients, a model's logit and features. It is adapted as the tool does it, by
logistic regressions in closed steps, and every way to certify names its thresholds; their *true* sensitivity and
specificity are those on 20,000 patients of each class, or with --data on the patients who were not drawn (their number
adds noise, so compare with the first row, whose certificate is exact). Without --data patients are made up; with it
features are the 40 main components of the model's own.

The share of draws below 95 % must not exceed 5 % beyond its Monte-Carlo interval (99 %, Clopper-Pearson), nor what the
exact certificate shows there, for "adapt"; else exit status 1. The other rows show why it is made as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.common import make_parser, publish, run
from histcxr.decision.intervals import proportion
from histcxr.decision.out_of_fold import FOLDS, log_losses, mixture_weights, within_standard_error
from histcxr.decision.thresholds import errors_allowed
from histcxr.reports.tables import markdown_table

TARGET, CONFIDENCE, MONTE_CARLO, COST, REFERENCE = 0.95, 0.95, 0.99, 8.0, 20000
Floats = NDArray[np.float64]
#: Images: features, logits and an intercept's ones, (n, d + 2); truth (n,).
Images = tuple[Floats, NDArray[np.bool_]]


@dataclass(frozen=True)
class Population:
    """Made-up patients of a name: what features and the model know of the disease (in standard deviations)."""

    name: str
    features: int
    local: float
    model: float
    heavy: bool = False

    def draw(self, rng: np.random.Generator, n: int) -> Images:
        """Draw ``n`` patients of each class."""
        sick = np.arange(2 * n) < n
        noise = rng.normal(size=(2 * n, self.features + 1))
        if self.heavy:
            noise *= np.sqrt(3 / rng.chisquare(3, size=(2 * n, 1)))
        side = np.where(sick, 0.5, -0.5)
        noise[:, 0] += self.local * side
        noise[:, -1] += self.model * side
        return np.column_stack([noise, np.ones(2 * n)]), sick


POPULATIONS = [
    Population("both know", 30, 1.2, 1.0),
    Population("features know nothing", 30, 0.0, 1.0),
    Population("model knows nothing", 30, 1.5, 0.0),
    Population("many features", 100, 2.0, 1.0),
    Population("heavy tails", 30, 1.2, 1.0, heavy=True),
]


def newton(values: Floats, sick: Floats, rows: NDArray[np.bool_], penalty: Floats) -> Floats:
    """Fit a ridge logistic regression to each set of rows (m, n): coefficients (m, p)."""
    found = np.zeros((len(rows), values.shape[1]))
    for _ in range(8):
        chance = expit(found @ values.T)
        slope = ((chance - sick) * rows) @ values + penalty * found
        weight = (chance * (1 - chance) * rows)[:, None, :]
        curve = np.matmul(values.T[None] * weight, values) + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        found -= step
        if np.abs(step).max() < 1e-3:
            break
    return found


def adapted(images: Images, rng: np.random.Generator) -> dict[str, tuple[Floats, Floats]]:
    """Return by way to certify the scorer (d + 2,) and the scores (n,) that certify it."""
    values, sick = images
    d = values.shape[1] - 2
    fold = np.empty(len(sick), int)
    for one in (True, False):
        fold[rng.permutation(np.flatnonzero(sick == one))] = np.arange((sick == one).sum()) % FOLDS
    rows = np.array([*(fold != k for k in range(FOLDS)), np.ones(len(sick), bool)])
    simple = np.zeros((FOLDS + 1, d + 2))
    simple[:, d:] = newton(values[:, d:], sick, rows, np.array([1e-3, 0.0]))
    rich = newton(values, sick, rows, np.r_[np.full(d, d / COST), 1e-3, 0.0])
    alone = np.zeros((FOLDS + 1, d + 2))
    without = np.delete(np.arange(d + 2), d)
    alone[:, without] = newton(values[:, without], sick, rows, np.r_[np.full(d, d / COST), 0.0])
    fits = (simple, rich, alone)
    apart = [np.einsum("ij,ij->i", values, part[fold]) for part in fits]
    mean_rich = rich[:FOLDS].mean(axis=0)
    exact = simple[-1], values @ simple[-1]
    weights = mixture_weights(apart, sick)
    better = log_losses(apart[1], sick).mean() < log_losses(apart[0], sick).mean()
    chosen = better and not within_standard_error(*apart[:2], sick)
    mixed = weights @ [part[:FOLDS].mean(axis=0) for part in fits], weights @ apart
    return {
        "model alone (exact)": exact,
        "mixture, no choice": (mean_rich, apart[1]),
        "mixture refitted on all": (rich[-1], apart[1]),
        "the better one": (mean_rich, apart[1]) if better else exact,
        "simpler within 1 SE": (mean_rich, apart[1]) if chosen else exact,
        "adapt": exact if weights[0] == 1 else mixed,
    }


def thresholds(scores: Floats, sick: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Return both certified thresholds, or None where there are too few patients."""
    ill, well = scores[sick], scores[~sick]
    k, m = (errors_allowed(part.size, TARGET, CONFIDENCE) for part in (ill, well))
    if min(k, m) < 0:
        return None
    return float(np.partition(ill, k)[k]), float(-np.partition(-well, m)[m])


def measure(
    draw: Callable[[], tuple[Images, Images]], draws: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return by way: how often each promise was broken, and the mean specificity of rule_out."""
    broken: dict[str, list[tuple[bool, bool]]] = {}
    worth: dict[str, list[float]] = {}
    for _ in range(draws):
        images, truth = draw()
        ways = {name: (way, images[1]) for name, way in adapted(images, rng).items()}
        half = np.zeros(len(images[1]), bool)
        for one in (True, False):
            own = rng.permutation(np.flatnonzero(images[1] == one))
            half[own[: own.size // 2]] = True
        scorer = adapted((images[0][half], images[1][half]), rng)["adapt"][0]
        ways["split: half fits, half certifies"] = ((scorer, images[0][~half] @ scorer), images[1][~half])
        scored = truth[0] @ np.column_stack([way[0] for (way, _) in ways.values()])
        for (name, (way, sick)), scores in zip(ways.items(), scored.T, strict=True):
            found = thresholds(way[1], sick)
            ill, well = scores[truth[1]], scores[~truth[1]]
            low, high = found or (-np.inf, np.inf)
            broken.setdefault(name, []).append(
                (bool((ill >= low).mean() < TARGET), bool((well <= high).mean() < TARGET))
            )
            worth.setdefault(name, []).append(float((well < low).mean()))
    return {
        name: {
            "rule_out": share(sum(out for out, _ in pairs), draws),
            "rule_in": share(sum(taken for _, taken in pairs), draws),
            "specificity": float(np.mean(worth[name])),
        }
        for name, pairs in broken.items()
    }


def share(count: int, n: int) -> dict[str, float]:
    """Return a proportion with its interval."""
    found = proportion(count, n, confidence=MONTE_CARLO)
    return {"value": found.value, "low": found.low, "high": found.high}


def made_up(population: Population, n: int, rng: np.random.Generator) -> Callable[[], tuple[Images, Images]]:
    """Return what draws ``n`` made-up patients of each class, and those who tell the truth."""
    truth = population.draw(rng, REFERENCE)
    return lambda: (population.draw(rng, n), truth)


def resampled(images: Images, n: int, rng: np.random.Generator) -> Callable[[], tuple[Images, Images]]:
    """Return what draws ``n`` real patients of each class; the others tell the truth."""

    def draw() -> tuple[Images, Images]:
        values, sick = images
        mine = np.zeros(len(sick), bool)
        for one in (True, False):
            mine[rng.choice(np.flatnonzero(sick == one), n, replace=False)] = True
        return (values[mine], sick[mine]), (values[~mine], sick[~mine])

    return draw


def read(data: str, model: str | None, cache: str | None, jobs: int) -> Images:
    """Read a hospital's patients, one image each, as a model sees them."""
    from sklearn.decomposition import PCA

    from benchmarks.robustness.adapt_curves import inputs

    hospital = inputs(data, model, cache, jobs)
    parts = PCA(40, whiten=True, random_state=0).fit_transform(hospital.features)
    return np.column_stack([parts, hospital.logits, np.ones(len(parts))]).astype(np.float64), hospital.sick


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", help="draw from this labelled folder instead of made-up patients")
    parser.add_argument("-m", "--model", help="with --data: a saved histogram model; by default the box")
    parser.add_argument("--cache", help="with --data: folder that keeps counts")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[60, 100, 200, 500])
    parser.add_argument("--populations", type=int, nargs="+", default=list(range(len(POPULATIONS))))
    given = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    images = read(given.data, given.model, given.cache, given.jobs) if given.data else None
    for n in given.sizes:
        for number in given.populations if images is None else [0]:
            rng, started = np.random.default_rng([given.seed, n, number]), time.perf_counter()
            population = POPULATIONS[number]
            draw = made_up(population, n, rng) if images is None else resampled(images, n, rng)
            for way, found in measure(draw, given.draws, rng).items():
                rows.append(
                    {
                        "patients": population.name if images is None else given.data,
                        "n": n,
                        "way": way,
                        **found,
                    }
                )
            print(f"{rows[-1]['patients']}, n = {n}: {time.perf_counter() - started:.0f} s", flush=True)
    limits = {(row["patients"], row["n"]): row["rule_out"]["high"] for row in rows if "exact" in row["way"]}
    kept = all(
        row[drawer]["low"] <= max(1 - CONFIDENCE, limits[row["patients"], row["n"]] if images else 0.0)
        for row in rows
        if row["way"] == "adapt"
        for drawer in ("rule_out", "rule_in")
    )
    table = [
        {
            "patients": row["patients"],
            "n": row["n"],
            "way": row["way"],
            **{
                f"{drawer} broken": "{value:.1%} ({low:.1%}-{high:.1%})".format(**row[drawer])
                for drawer in ("rule_out", "rule_in")
            },
            "specificity": row["specificity"],
        }
        for row in rows
    ]
    verdict = "The certificate of adapt holds." if kept else "THE CERTIFICATE OF ADAPT FAILS."
    publish(
        f"{markdown_table(table)}\n\n{given.draws} draws a row. {verdict}",
        {"rows": rows, "holds": kept},
        given.json,
    )
    return 0 if kept else 1


if __name__ == "__main__":
    run(main)
