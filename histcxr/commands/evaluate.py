"""``histcxr evaluate``."""

from __future__ import annotations

import click

from histcxr.commands import options


@click.command()
@options.data_argument()
@options.model_option()
@click.option("--split", default="test", show_default=True, help="Which split of DATA; 'all' for every row.")
@click.option(
    "--by", multiple=True, metavar="COLUMN", help="Also within each value of this column; repeatable."
)
@click.option(
    "--prevalence", type=float, default=None, help="Share of sick patients where PPV and NPV should hold."
)
@options.normal_option()
@options.where_option()
@click.option("--cache", type=click.Path(file_okay=False), help="Keep extracted histograms in this folder.")
@options.jobs_option()
@options.json_option()
def command(
    data: str,
    model: str,
    split: str,
    by: tuple[str, ...],
    prevalence: float | None,
    normal: str,
    where: dict[str, list[str]],
    cache: str | None,
    jobs: int,
    json_file: str | None,
) -> None:
    """Measure a saved model on DATA, a folder or CSV of labelled radiographs with lung masks.

    \b
    Example:  histcxr evaluate study -m model.histcxr --by source
    """
    from histcxr.cohorts import select_rows
    from histcxr.data.manifest import read_manifest
    from histcxr.evaluation import evaluate
    from histcxr.model_store import load_model
    from histcxr.reports.evaluation import evaluation_report

    result = evaluate(
        load_model(model),
        select_rows(read_manifest(data, require_labels=True), where),
        split=None if split == "all" else split,
        by=by,
        prevalence=prevalence,
        normal=normal,
        cache=cache,
        n_jobs=jobs,
        progress=options.show_progress(),
    )
    click.echo(evaluation_report(result))
    options.write_json(json_file, result)
