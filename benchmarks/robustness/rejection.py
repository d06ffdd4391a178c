"""What is no upright frontal chest radiograph goes to review: how surely, and at what price.

    python -m benchmarks.robustness.rejection --data DATA [--model MODEL] [--each 100] [--json rejection.json]

Pictures drawn by code (photographs, text, noise, bones, lateral views), and real test radiographs inverted, turned,
cut in half or spoilt, are triaged as files without masks; so are the real test radiographs as they are, of which as
few as possible may be refused. DATA holds ``covid_full`` and ``chest_xray``.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common import make_parser, publish, run
from histcxr.data.manifest import read_manifest
from histcxr.data.radiograph import read_radiograph
from histcxr.files.writing import write_image
from histcxr.phantoms.not_chests import KINDS, TRANSFORMS, draw_not_chest
from histcxr.reports.text import markdown_table
from histcxr.store import Model, load_model
from histcxr.worklist.engine import triage

COLLECTIONS = ("covid_full", "chest_xray")


def read_test(data: str) -> pd.DataFrame:
    """The test radiographs of all collections, without masks."""
    tables = []
    for name in COLLECTIONS:
        table = read_manifest(os.path.join(data, name), require_labels=True)
        tables.append(table[table["split"] == "test"].assign(origin=name))
    return pd.concat(tables, ignore_index=True)


def write_wrong(folder: Path, images: Sequence[str], each: int, seed: int) -> None:
    """Write ``each`` pictures of every kind, one folder a kind."""
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        for i in range(each):
            picture = draw_not_chest(kind, rng)
            write_image(folder / kind / f"{i:04d}.png", picture[..., ::-1] if picture.ndim == 3 else picture)
    for name, change in TRANSFORMS.items():
        for i, path in enumerate(rng.choice(np.asarray(images, dtype=object), each, replace=False)):
            write_image(folder / f"radiograph {name}" / f"{i:04d}.png", change(read_radiograph(path).pixels))


def judged(model: Model, source: Path, scratch: Path, n_jobs: int) -> pd.DataFrame:
    """Triage and return the worklist."""
    worklist = scratch / "worklist.csv"
    triage(source, model, worklist, n_jobs=n_jobs, overwrite=True)
    return pd.read_csv(worklist, keep_default_na=False)


def row_of(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    """Count the drawers of some rows."""
    reasons = Counter(code for code in rows["reason_code"] if code)
    return {
        "kind": name,
        "images": len(rows),
        "to review": float((rows["decision"] == "review").mean()),
        "refused with a reason": float((rows["reason_code"] != "").mean()),
        "ruled out": int((rows["decision"] == "rule_out").sum()),
        "ruled in": int((rows["decision"] == "rule_in").sum()),
        "reasons": ", ".join(f"{code} {count}" for code, count in reasons.most_common(3)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = make_parser(__doc__, data="folder with covid_full and chest_xray")
    parser.add_argument("--model", help="a saved model; by default the one in the box")
    parser.add_argument("--each", type=int, default=100, help="pictures of each kind")
    given = parser.parse_args(arguments)

    model = load_model(given.model or "boxed")
    test = read_test(given.data)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_wrong(scratch / "wrong", list(test["image"]), given.each, given.seed)
        found = judged(model, scratch / "wrong", scratch, given.jobs)
        kinds = found["file"].map(os.path.dirname)
        wrong = [row_of(kind, found[kinds == kind]) for kind in sorted(set(kinds))]
        wrong.append(row_of("all of these", found))
        test[["image"]].to_csv(scratch / "real.csv", index=False)
        real_rows = judged(model, scratch / "real.csv", scratch, given.jobs)
    real = []
    for origin in COLLECTIONS:
        for label in sorted(set(test.loc[test["origin"] == origin, "label"])):
            keep = ((test["origin"] == origin) & (test["label"] == label)).to_numpy()
            real.append(row_of(f"{origin} {label}", real_rows[keep]))
    real.append(row_of("all real test radiographs", real_rows))
    text = f"{markdown_table(wrong)}\n\n{markdown_table(real)}"
    publish(text, {"wrong": wrong, "real": real}, given.json)


if __name__ == "__main__":
    run(main)
