"""The histogram study's results as Markdown tables and as plots; from its records alone, with nothing measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import mean, median
from typing import Any

from histogram_study_models import CLASSIFIERS
from histogram_study_regions import REGIONS, REPRESENTATIONS
from histogram_study_robustness import ANY_DISTRIBUTION, REFERENCE

from histcxr.exceptions import MissingDependencyError
from histcxr.reports.text import interval_text, markdown_table

AUGMENTED = "lenet+augmentation"
Records = dict[str, dict[str, Any]]


def import_matplotlib() -> Any:
    """Return matplotlib's Figure.

    Raises
    ------
    MissingDependencyError
        When it is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "matplotlib is needed for --plots and cannot be imported; "
            "install it with: pip install matplotlib, or leave --plots out",
            name=error.name,
        ) from error
    return Figure


def section(records: Records, name: str) -> list[tuple[list[str], dict[str, Any]]]:
    """Return the records of one part of the study, with the rest of their keys in pieces."""
    return [(key.split("/")[1:], record) for key, record in records.items() if key.startswith(f"{name}/")]


def ordered(values: Iterable[str]) -> list[str]:
    """Return each value once: those of the grid in its own order, then others as they appear."""
    seen = set(values := list(values))
    known = [name for name in (*REGIONS, *REPRESENTATIONS, *CLASSIFIERS) if name in seen]
    return list(dict.fromkeys([*known, *values]))


def markdown(study: dict[str, Any], records: Records) -> str:
    """Lay out everything that is known.

    Parameters
    ----------
    study : dict
        What the results hold for.
    records : dict of str to dict
        Key to figures.
    """
    parts = [_introduction(study)]
    for title, text in (
        ("Regions, representations, classifiers", _grid(records)),
        ("What each choice is worth", _means(records)),
        ("Chosen on the validation part", _chosen(records)),
        ("How many radiographs", _learning(records)),
        ("What breaks it", _robustness(records)),
        ("Classifiers of series", _rivals(records)),
    ):
        if text:
            parts.append(f"## {title}\n\n{text}")
    return "\n\n".join(parts) + "\n"


def _introduction(study: dict[str, Any]) -> str:
    rows = [{"part": part, **counts} for part, counts in study["data"].items()]
    effort = ", ".join(f"{name} {value}" for name, value in study["effort"].items())
    return (
        f"# Histogram study\n\n{markdown_table(rows)}\n\nSeed {study['seed']}; {effort}. "
        "Fitted on train; thresholds from val; all figures on test. Intervals are 95 %, images of a patient kept "
        "together."
    )


def _grid(records: Records) -> str:
    found = section(records, "grid")
    if not found:
        return ""
    cells = {tuple(key): record["auc"] for key, record in found}
    widths = [(record["auc_high"] - record["auc_low"]) / 2 for _, record in found]
    classifiers = ordered(key[2] for key, _ in found)
    tables = []
    for region in ordered(key[0] for key, _ in found):
        rows = [
            {"representation": name, **{c: cells.get((region, name, c)) for c in classifiers}}
            for name in ordered(key[1] for key, _ in found if key[0] == region)
        ]
        tables.append(f"### {region}\n\n{markdown_table(rows)}")
    return (
        f"Test AUC. The intervals' half-width is {median(widths):.3f} in the middle and {max(widths):.3f} at most: "
        "the best of so many cells is best partly by luck. An empty cell was not run.\n\n"
        "`raw` counts also tell how large the mask is, which betrays the class where masks leave diseased lung out; "
        "the other representations do not. Settings are the same in every cell: 25 neighbours by Euclidean "
        "distance; a Gaussian kernel on standardised main components; the LeNet stopped on a fifth of the training "
        "patients and without augmentation, which would have no meaning for `raw`, `quantile` and bands.\n\n"
        + "\n\n".join(tables)
    )


def _means(records: Records) -> str:
    """Mean AUC by region, representation and classifier, over the cells that all values of the axis share."""
    found = section(records, "grid")
    cells = {tuple(key): record["auc"] for key, record in found}
    tables = []
    for axis, name in enumerate(("region", "representation", "classifier")):
        values = ordered(key[axis] for key, _ in found)
        rest: dict[tuple[str, ...], set[str]] = {}
        for key in cells:
            rest.setdefault(key[:axis] + key[axis + 1 :], set()).add(key[axis])
        shared = [others for others, seen in rest.items() if len(seen) == len(values)]
        if len(values) < 2 or not shared:
            continue
        rows = [
            {
                name: value,
                "mean AUC": mean(cells[(*others[:axis], value, *others[axis:])] for others in shared),
            }
            for value in values
        ]
        tables.append(f"{markdown_table(rows)}\n\nOver {len(shared)} cells each.")
    return "\n\n".join(tables)


def _chosen(records: Records) -> str:
    found = section(records, "grid")
    rows = []
    for classifier in ordered(key[2] for key, _ in found):
        own = [(record["val_auc"], key, record) for key, record in found if key[2] == classifier]
        best, (region, representation, _), record = max(own, key=lambda item: item[0])
        rows.append(
            {
                "classifier": classifier,
                "region": region,
                "representation": representation,
                "AUC on val": best,
                "AUC on test": interval_text(record["auc"], record["auc_low"], record["auc_high"]),
                "accuracy": record["accuracy"],
                "sensitivity": record["sensitivity"],
                "specificity": record["specificity"],
            }
        )
    if not rows:
        return ""
    return (
        "For each classifier the cell with the highest AUC on val. Accuracy at a score of 0.5; sensitivity and "
        "specificity on test at the threshold that reaches 95 % sensitivity on val.\n\n"
        + markdown_table(rows)
    )


def learning_curves(records: Records) -> dict[tuple[str, str], list[tuple[int, list[float]]]]:
    """Return for each region and classifier the sizes wanted, rising, with the AUC of every repeat."""
    curves: dict[tuple[str, str], dict[int, list[float]]] = {}
    for (region, learner, size, _), record in section(records, "learning"):
        curves.setdefault((region, learner), {}).setdefault(int(size), []).append(record["auc"])
    return {key: sorted(curve.items()) for key, curve in curves.items()}


def _learning(records: Records) -> str:
    curves = learning_curves(records)
    sizes = sorted({size for curve in curves.values() for size, _ in curve})
    rows = []
    for (region, learner), curve in curves.items():
        cells = {
            str(size): f"{mean(values):.3f}"
            + (f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else "")
            for size, values in curve
        }
        rows.append(
            {"region": region, "classifier": learner, **{str(size): cells.get(str(size)) for size in sizes}}
        )
    if not rows:
        return ""
    return (
        "Test AUC by the number of training images, square-root densities: mean (lowest-highest) over nested subsets "
        "drawn anew. Whole patients join, so a subset may be an image or two larger. Settings are those of the "
        f"grid; `{AUGMENTED}` varies brightness, gamma and contrast in training.\n\n" + markdown_table(rows)
    )


def _robustness(records: Records) -> str:
    found = section(records, "robustness")
    if not found:
        return ""
    tables = []
    for region, classifier in dict.fromkeys((key[0], key[1]) for key, _ in found):
        rows = [
            {
                "alteration": key[2],
                "AUC": record["auc"],
                "AUC lost": _loss_text(record),
                "sensitivity": record["sensitivity"],
                "specificity": record["specificity"],
                "refused": record["refused"],
            }
            for key, record in found
            if key[:2] == [region, classifier]
        ]
        tables.append(f"### {region}, {classifier}\n\n{markdown_table(rows)}")
    return (
        "histcxr's own pipelines, trained on radiographs as they are, tested on altered ones; the loss is that of "
        "the same images, with its paired interval. Sensitivity and specificity at the threshold that reaches 95 % "
        "sensitivity on the unaltered val part. `refused`: images that extraction would not judge. No interval: "
        "the change has no variance, as where no sick image changes places with a normal one.\n\n"
        "Intensities change inside the lungs only, and a blur weighs only the lungs. A dilated mask reaches the "
        "zeros that surround the lungs where images hold lungs alone: there it is harder than on full "
        "radiographs.\n\n" + "\n\n".join(tables)
    )


def _loss_text(record: dict[str, Any]) -> str:
    if record["lost_method"] == ANY_DISTRIBUTION:
        return f"{record['auc_lost']:.3f} (no interval)"
    return interval_text(record["auc_lost"], record["lost_low"], record["lost_high"])


def _rivals(records: Records) -> str:
    rows = [
        {
            "region": region,
            "representation": representation,
            "classifier": rival,
            "AUC": interval_text(record["auc"], record["auc_low"], record["auc_high"]),
            "accuracy": record["accuracy"],
            "sensitivity": record["sensitivity"],
            "specificity": record["specificity"],
        }
        for (region, representation, rival), record in section(records, "rivals")
    ]
    return markdown_table(rows) if rows else ""


def write_plots(records: Records, folder: Path) -> list[Path]:
    """Draw what is known as PNG files; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in (("grid", _draw_grid), ("learning", _draw_learning), ("robustness", _draw_robustness)):
        if section(records, name):
            path = folder / f"{name}.png"
            draw(records).savefig(path, dpi=130)
            drawn.append(path)
    return drawn


def _draw_grid(records: Records) -> Any:
    found = section(records, "grid")
    cells = {tuple(key): record["auc"] for key, record in found}
    regions, names, classifiers = (ordered(key[axis] for key, _ in found) for axis in range(3))
    low, high = min(cells.values()), max(cells.values())
    figure = import_matplotlib()(
        figsize=(1.2 + 0.62 * len(classifiers) * len(regions), 1.6 + 0.42 * len(names)), layout="constrained"
    )
    panels = figure.subplots(1, len(regions), sharey=True, squeeze=False)[0]
    for panel, region in zip(panels, regions, strict=True):
        values = [[cells.get((region, name, c), float("nan")) for c in classifiers] for name in names]
        drawn = panel.imshow(values, vmin=low, vmax=high, cmap="cividis", aspect="auto")
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                if value == value:
                    shade = "black" if value > (low + high) / 2 else "white"
                    panel.text(
                        column, row, f"{value:.3f}"[1:], ha="center", va="center", fontsize=7, color=shade
                    )
        panel.set_title(region, fontsize=9)
        panel.set_xticks(range(len(classifiers)), classifiers, rotation=60, ha="right", fontsize=8)
        panel.set_yticks(range(len(names)), names, fontsize=8)
    figure.colorbar(drawn, ax=list(panels), label="test AUC", shrink=0.9)
    return figure


def _draw_learning(records: Records) -> Any:
    curves = learning_curves(records)
    regions = ordered(region for region, _ in curves)
    figure = import_matplotlib()(figsize=(4.6 * len(regions), 3.6), layout="constrained")
    panels = figure.subplots(1, len(regions), sharey=True, squeeze=False)[0]
    for panel, region in zip(panels, regions, strict=True):
        for (of, learner), curve in curves.items():
            if of != region:
                continue
            sizes = [size for size, _ in curve]
            [line] = panel.plot(
                sizes, [mean(values) for _, values in curve], marker="o", markersize=4, label=learner
            )
            panel.fill_between(
                sizes,
                [min(values) for _, values in curve],
                [max(values) for _, values in curve],
                color=line.get_color(),
                alpha=0.15,
            )
        panel.set_title(region)
        panel.set_xscale("log")
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
        panel.minorticks_off()
        panel.set_xlabel("training images")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test AUC")
    panels[0].legend(fontsize=8)
    return figure


def _draw_robustness(records: Records) -> Any:
    found = [(key, record) for key, record in section(records, "robustness") if key[2] != REFERENCE]
    names = ordered(key[2] for key, _ in found)
    models = list(dict.fromkeys((key[0], key[1]) for key, _ in found))
    figure = import_matplotlib()(figsize=(7.5, 1.2 + 0.42 * len(names)), layout="constrained")
    panel = figure.subplots()
    for number, model in enumerate(models):
        own = {key[2]: record for key, record in found if (key[0], key[1]) == model}
        shown = [name for name in names if name in own]
        lost = [own[name]["auc_lost"] for name in shown]
        known = [own[name]["lost_method"] != ANY_DISTRIBUTION for name in shown]
        error = [
            [
                has * (own[name]["auc_lost"] - own[name]["lost_low"])
                for name, has in zip(shown, known, strict=True)
            ],
            [
                has * (own[name]["lost_high"] - own[name]["auc_lost"])
                for name, has in zip(shown, known, strict=True)
            ],
        ]
        places = [names.index(name) + 0.16 * (number - (len(models) - 1) / 2) for name in shown]
        panel.errorbar(lost, places, xerr=error, fmt="o", markersize=4, linewidth=1, label=", ".join(model))
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.invert_yaxis()
    panel.set_xlabel("test AUC lost (95 % interval)")
    panel.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    return figure
