"""Does an audit stay silent on clean data, find what is planted, and name the confounds of public radiographs?

    python -m benchmarks.robustness.audit_confounds --data COLLECTIONS

Made-up studies of 160 patients (84 pixels a side, two sources, two views, ages and sexes drawn by lot) are audited as
they are, and with one confound planted: sick images brighter by 15 grey levels; a frame of one pixel, darker, around
sick images; masks of the sick larger by one pixel; five training images again, recompressed, as test patients.
COLLECTIONS holds radiography and foreign/tb_unknown_hospital; without --data only made-up studies are audited.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from benchmarks.common import make_parser, publish, run
from histcxr.data.manifest import read_manifest
from histcxr.decision.intervals import proportion
from histcxr.files.writing import write_image, write_mask
from histcxr.phantoms.studies import write_study
from histcxr.reports.tables import interval_text, markdown_table
from histcxr.site.audit import Audit, audit
from histcxr.study.cohort import Reading, select_rows

SIDE = 84
REAL: dict[str, tuple[str, dict[str, list[str]]]] = {
    "radiography": ("radiography", {}),
    "radiography, RSNA alone": ("radiography", {"source": ["rsna"]}),
    "tb_unknown_hospital": ("foreign/tb_unknown_hospital", {}),
}


def _sick(table: pd.DataFrame, column: str, change: Callable[[Any], Any]) -> pd.DataFrame:
    """Change the sick radiographs or their masks, in place, by the writer that made the others."""
    write = write_mask if column == "mask" else write_image
    for path in table.loc[table["label"] != "Normal", column]:
        write(Path(path), change(cv2.imread(path, cv2.IMREAD_GRAYSCALE)))
    return table


def _framed(image: Any) -> Any:
    inner = np.zeros(image.shape, bool)
    inner[1:-1, 1:-1] = True
    return np.where(inner, image, image // 2)


def brightness(table: pd.DataFrame) -> pd.DataFrame:
    """Another exposure."""
    return _sick(table, "image", lambda image: cv2.add(image, 15))


def border(table: pd.DataFrame) -> pd.DataFrame:
    """Another digitiser."""
    return _sick(table, "image", _framed)


def mask_size(table: pd.DataFrame) -> pd.DataFrame:
    """Another segmenter."""
    return _sick(table, "mask", lambda mask: cv2.dilate(mask // 255, np.ones((3, 3), np.uint8)))


def twins(table: pd.DataFrame) -> pd.DataFrame:
    """The same radiographs under other names."""
    again = table[table["split"] == "train"].drop_duplicates("patient_id").head(5).copy()
    for position, path in enumerate(again["image"]):
        place = f"{path}-again.jpg"
        cv2.imwrite(place, cv2.imread(path, cv2.IMREAD_GRAYSCALE), [cv2.IMWRITE_JPEG_QUALITY, 60])
        again.iloc[position, again.columns.get_loc("image")] = place
    again["patient_id"] = [f"other-{number}" for number in range(len(again))]
    return pd.concat([table, again.assign(split="test")], ignore_index=True)


#: What is planted, and which probes may name it; twins are told by their count.
PLANTED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], tuple[str, ...]]] = {
    "clean": (lambda table: table, ()),
    "brightness": (brightness, ("outside the lungs", "borders")),
    "border": (border, ("borders",)),
    "mask size": (mask_size, ("mask shape",)),
    "twins": (twins, ()),
}


def made_up(seed: int, kind: str, folder: str | Path, n_patients: int = 160) -> pd.DataFrame:
    """Write a study with facts drawn by lot and one confound planted, or plant it in one that is there already."""
    place = Path(folder) / "clean"
    if not place.exists():
        size = (SIDE, SIDE)
        write_study(place, n_patients=n_patients, seed=seed, size=size, mask_size=size, repeats=0.1)
    if kind != "clean":
        place = Path(shutil.copytree(place, Path(folder) / kind.replace(" ", "-")))
    table = read_manifest(place)
    codes, patients = pd.factorize(table["patient_id"])
    rng = np.random.default_rng([seed, 13])
    facts = {
        "source": rng.choice(["one", "other"], len(patients)),
        "view": rng.choice(["AP", "PA"], len(patients)),
        "sex": rng.choice(["F", "M"], len(patients)),
        "age": rng.integers(18, 90, len(patients)),
    }
    return PLANTED[kind][0](table.assign(**{name: values[codes] for name, values in facts.items()}))


def named(result: Audit, kind: str) -> bool:
    """Tell whether an audit found what was planted; of clean data, whether it found anything."""
    if kind == "clean":
        return result.found
    if kind == "twins":
        return result.copies.across_splits > 0
    return any(one.probe in PLANTED[kind][1] for one in result.findings)


def one_study(seed: int) -> list[tuple[str, bool, list[str], int]]:
    """Audit one made-up study, clean and with each confound.

    Returns for each kind: its name, whether it was named, all that found something, and how many questions were asked.
    """
    done = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in PLANTED:
            result = audit(made_up(seed, kind, folder), seed=seed)
            probes = [*dict.fromkeys(one.probe for one in result.findings)] + ["copies"] * result.copies.found
            done.append((kind, named(result, kind), probes, len(result.answers)))
    return done


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", help="folder with radiography and foreign/tb_unknown_hospital")
    parser.add_argument(
        "--sets", type=int, default=40, help="made-up studies of each kind (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    seeds = [given.seed * given.sets + number for number in range(given.sets)]
    studies = Parallel(n_jobs=given.jobs)(delayed(one_study)(seed) for seed in seeds)
    done = [one for study in studies for one in study]
    rows: list[dict[str, object]] = []
    content: dict[str, list[dict[str, Any]]] = {"sets": [], "real": []}
    for kind in PLANTED if done else ():
        mine = [one for one in done if one[0] == kind]
        share = proportion(sum(one[1] for one in mine), len(mine))
        probes = pd.Series([probe for one in mine for probe in one[2]], dtype=str).value_counts()
        rows.append(
            {
                "planted": kind if kind != "clean" else "nothing (false alarms)",
                "studies": len(mine),
                "found": f"{share.value:.1%} ({share.low:.1%}-{share.high:.1%})",
                "questions": int(np.median([one[3] for one in mine])),
                "by": ", ".join(f"{name} {count}" for name, count in probes.items()),
            }
        )
        content["sets"].append({**rows[-1], **share.to_dict()})
    text = [markdown_table(rows)] if rows else []
    for name, (folder, where) in REAL.items() if given.data else ():
        start = time.perf_counter()
        table = select_rows(read_manifest(Path(given.data) / folder, require_labels=True), where)
        result = audit(table, Reading(n_jobs=given.jobs), seed=given.seed)
        seconds = time.perf_counter() - start
        text += [f"\n{name}: {result.images} images, {seconds:.0f} s", *result.verdict[:-1], ""]
        text.append(
            markdown_table(
                [
                    {"by": one.probe, "tells": one.target, "within": one.within or "all"}
                    | {"AUC": interval_text(one.effect.value, one.effect.low, one.effect.high)}
                    for one in result.findings
                ]
            )
        )
        content["real"].append({"name": name, "seconds": seconds, **result.to_dict()})
    publish("\n".join(text), content, given.json)


if __name__ == "__main__":
    run(main)
