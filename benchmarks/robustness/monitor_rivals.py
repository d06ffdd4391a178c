"""What the libraries' sequential tests say of the streams that `monitor_streams` makes.

    python -m benchmarks.robustness.monitor_rivals --data COLLECTIONS --cache CACHE

At the level of one of histcxr's four tests: martingales of MAPIE and crepes on conformal p-values of the scores (all,
or within each drawer), and MAPIE's RiskMonitoring of the sensitivity. The data and the streams are as of
`benchmarks.robustness.monitor_streams`; a twentieth of ``--streams`` is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.common import run
from benchmarks.robustness.monitor_streams import (
    HOSPITALS,
    QUIET,
    Hospital,
    Images,
    days_text,
    prepared,
    publish_tables,
    share_text,
    shares,
    sizes,
)
from histcxr.decision.sequential import LIMIT


def mapie_scores(days: Sequence[Images], limits: tuple[float, float], within: bool) -> int | None:
    """Return the day on which MAPIE's jumper martingale(s) of the scores alarm; ``within`` each drawer: their mean."""
    from mapie.exchangeability_testing import OnlineMartingaleTest

    tests = [OnlineMartingaleTest(task="classification", warn=False) for _ in range(3)]
    history: list[list[float]] = [[], [], []]
    values = np.ones(3)
    for number, images in enumerate(days):
        for score in images.scores:
            drawer = int(score >= limits[0]) + int(score > limits[1]) if within else 0
            if history[drawer]:
                p_value = tests[drawer].compute_p_value(score, np.array(history[drawer]))
                values[drawer] = tests[drawer].update_simple_jumper_martingale(p_value)
            history[drawer].append(score)
            if (values.mean() if within else values[0]) >= LIMIT:
                return number
    return None


def crepes_scores(days: Sequence[Images], limits: tuple[float, float]) -> int | None:
    """Return the day on which crepes' jumper martingale of the scores alarms."""
    from crepes.martingales import SimpleJumper, semi_online_p_values

    index = SimpleJumper().apply(
        semi_online_p_values(np.concatenate([one.scores for one in days]), seed=0), c=LIMIT
    )
    ends = np.cumsum([len(one.scores) for one in days])
    return None if index >= ends[-1] else int(np.searchsorted(ends, index, side="right"))


def mapie_risk(days: Sequence[Images], lows: Sequence[float]) -> int | None:
    """Return the day on which MAPIE's RiskMonitoring says that more than 5 % of the sick are ruled out."""
    from mapie.exchangeability_testing import RiskMonitoring

    test = RiskMonitoring(risk="recall", threshold=0.05, test_level=2 / LIMIT, warn=False)
    for number, (images, low) in enumerate(zip(days, lows, strict=True)):
        if images.sick.any():
            test.update(images.sick.astype(int), (images.scores >= low).astype(int))
            if test.harmful_shift_detected:
                return number
    return None


def rival_rows(hospitals: dict[str, Hospital], streams: int, seed: int) -> list[dict[str, Any]]:
    """Let the libraries' tests see the same streams: nothing wrong; gamma; sensitivity 85 %."""
    rows = []
    rivals: dict[str, Callable[..., int | None]] = {
        "MAPIE, martingale of scores": lambda days, limits, lows: mapie_scores(days, limits, False),
        "MAPIE, of scores within drawers": lambda days, limits, lows: mapie_scores(days, limits, True),
        "crepes, martingale of scores": lambda days, limits, lows: crepes_scores(days, limits),
        "MAPIE, RiskMonitoring of recall": lambda days, limits, lows: mapie_risk(days, lows),
    }
    for name, rival in rivals.items():
        row: dict[str, Any] = {"rival": name, "streams": streams}
        for case in ("random", "season", "gamma 0.8, 30 % sick", "sensitivity 85 %, 30 % sick"):
            alarms: list[int | None] = []
            for number in range(streams):
                rng = np.random.default_rng([seed, number, 7])
                hospital = hospitals[HOSPITALS[number % 2]]
                each = sizes(rng)
                steady = "%" in case
                level = np.full(len(each), 0.3) if steady else shares(case, len(each), rng)
                days = [
                    hospital.draw(n, share, rng, 0.8 if "gamma" in case and day >= QUIET else None)
                    for day, (n, share) in enumerate(zip(each, level, strict=True))
                ]
                limits, fallen = hospital.limits()[0], hospital.limits(0.85)[0][0]
                lows = [fallen if "85" in case and day >= QUIET else limits[0] for day in range(len(each))]
                alarms.append(rival(days, limits, lows))
            if steady:
                early = sum(one is not None and one < QUIET for one in alarms)
                late = [None if one is None or one < QUIET else one - QUIET + 1 for one in alarms]
                row[case] = days_text(late) + (f"; {early} before" if early else "")
            else:
                row[f"false, {case}"] = share_text(sum(one is not None for one in alarms), streams)
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    given, _, hospitals = prepared(__doc__, arguments)
    rows = rival_rows(hospitals, max(2, given.streams // 20), given.seed)
    publish_tables({"Rivals on the same streams, at the level of one test": rows}, given.json)


if __name__ == "__main__":
    run(main)
