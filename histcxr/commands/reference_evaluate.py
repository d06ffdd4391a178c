"""``histcxr reference evaluate``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from histcxr.commands import options


def network_option() -> Any:
    """A saved network."""
    return click.option(
        "-m", "--model", type=click.Path(exists=True), required=True, help="A saved network (NAME.histcxr)."
    )


@click.command()
@options.data_argument()
@network_option()
@options.output_option("Draw confusion matrix and ROC curves into this folder.")
@click.option("--split", default="test", show_default=True, help="Which split of DATA; 'all' for every row.")
@click.option(
    "--by", multiple=True, metavar="COLUMN", help="Also within each value of this column; repeatable."
)
@click.option(
    "--prevalence", type=float, default=None, help="Share of sick patients where PPV and NPV should hold."
)
@click.option(
    "--lungs",
    type=click.Choice(["given", "found", "either"]),
    help="Whose lung masks.  [default: as the network was trained]",
)
@options.where_option()
@options.jobs_option()
@options.json_option()
def evaluate(
    data: str,
    model: str,
    output: str | None,
    split: str,
    by: tuple[str, ...],
    prevalence: float | None,
    lungs: str | None,
    where: dict[str, list[str]],
    jobs: int,
    json_file: str | None,
) -> None:
    """Measure a saved network on DATA, a folder or CSV of labelled radiographs.

    \b
    Example:  histcxr reference evaluate study -m net.histcxr --by source
    """
    from histcxr.data.manifest import read_manifest
    from histcxr.files.decoding import muted_decoders
    from histcxr.reports.reference import measured_report
    from histcxr.study.cohort import select_rows
    from histcxr.study.network_evaluate import evaluate_reference

    with muted_decoders():
        result = evaluate_reference(
            options.read_network(model),
            select_rows(read_manifest(data, require_labels=True), where),
            split=None if split == "all" else split,
            by=by,
            prevalence=prevalence,
            lungs=lungs,
            n_jobs=jobs,
            progress=options.show_progress(),
        )
    click.echo(measured_report(result))
    options.write_json(json_file, result)
    if output is not None:
        click.echo(f"\nDrew {_draw(result, Path(output))}")


def _draw(result: dict[str, Any], folder: Path) -> str:
    """Draw the calls as a whole and of each group; return the names of the pictures."""
    from histcxr.exceptions import OutputError
    from histcxr.reports.reference_plots import plot_calls

    parts = {"all": result["overall"]}
    for column, groups in result["groups"].items():
        parts |= {f"{column}-{value or 'unknown'}": figures for value, figures in groups.items()}
    files = {name: folder / (re.sub(r"[^\w.-]+", "_", name) + ".png") for name in parts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figures in parts.items():
            plot_calls(figures["classes"], files[name])
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return ", ".join(map(str, files.values()))
