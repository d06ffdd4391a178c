"""How well the network finds lungs: against published masks, and under what archives do to radiographs.

    python -m benchmarks.quality.segmentation --data DATA/covid_full DATA/chest_xray --masks published_mask

Dice coefficients over the radiographs of test patients, whom the network has not seen. The first table goes the way
that triage goes: a refused radiograph counts 0. The second takes the outline as it is, refused or not, of
radiographs disturbed one way at a time, by source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import make_parser, publish, run
from histcxr.lungs.pairs import DISTURBANCES, MaskedRadiographs, read_pairs, with_masks
from histcxr.lungs.segmenter import Segmenter, load_segmenter
from histcxr.lungs.training import dice, measure_segmenter
from histcxr.reports.text import markdown_table


def disturbed_scores(segmenter: Segmenter, pairs: MaskedRadiographs, name: str) -> np.ndarray:
    """Dice coefficient of every pair under one disturbance; ``""`` is none."""
    scores = []
    for row in range(len(pairs)):
        pair = pairs.pair(row)
        if name:
            pair = DISTURBANCES[name](pair, np.random.default_rng([row, 7]))
        (found,) = segmenter.outline([pair.pixels])
        scores.append(dice(found, pair.mask > 127))
    return np.array(scores)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = make_parser(__doc__, data="folders or CSVs with masks", many=True, jobs=None, seed=False)
    parser.add_argument("--masks", default="mask", help="column with the masks")
    parser.add_argument("--split", default="test")
    parser.add_argument("--segmenter", help="a file of histcxr segment-train; by default the packaged one")
    given = parser.parse_args(arguments)

    segmenter = load_segmenter(given.segmenter)
    table = with_masks(given.data, given.masks)
    table = table[table["split"] == given.split].reset_index(drop=True)
    plain = measure_segmenter(segmenter, table)
    found = [
        {
            "source": source,
            "radiographs": figures["images"],
            "refused": figures["refused"],
            "Dice coefficient": f"{figures['dice']:.4f}",
            "5th percentile": f"{figures['dice_5th']:.4f}",
        }
        for source, figures in plain.items()
    ]
    pairs = read_pairs(table)
    sources = pairs.table["source"].astype(str).to_numpy()
    names = sorted(set(sources))
    baseline = disturbed_scores(segmenter, pairs, "")
    rows: list[dict[str, Any]] = []
    for name in ["", *DISTURBANCES]:
        scores = disturbed_scores(segmenter, pairs, name) if name else baseline
        row: dict[str, Any] = {"disturbance": name or "none"}
        for source in names:
            keep = sources == source
            row[source] = f"{scores[keep].mean():.4f}"
            row[f"drop, {source}"] = f"{baseline[keep].mean() - scores[keep].mean():.4f}"
        rows.append(row)
    text = f"{markdown_table(found)}\n\n{markdown_table(rows)}"
    publish(text, {"plain": plain, "disturbed": rows}, given.json)


if __name__ == "__main__":
    run(main)
