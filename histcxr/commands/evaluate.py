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
@options.lungs_option("either", "given", "found", default="either")
@options.normal_option()
@options.where_option()
@options.dicom_options
@click.option("--cache", type=click.Path(file_okay=False), help="Keep extracted histograms in this folder.")
@options.jobs_option()
@options.json_option()
def command(
    data: str,
    model: str | None,
    split: str,
    by: tuple[str, ...],
    prevalence: float | None,
    lungs: str,
    normal: str,
    where: dict[str, list[str]],
    dicom_tags: bool,
    salt: str,
    cache: str | None,
    jobs: int,
    json_file: str | None,
) -> None:
    """Measure a saved model on DATA, a folder or CSV of labelled radiographs, with lung masks or without.

    \b
    Example:  histcxr evaluate study -m model.histcxr --by source
    """
    from histcxr.data.manifest import read_manifest
    from histcxr.reports.evaluation import evaluation_report
    from histcxr.study.cohort import select_rows
    from histcxr.study.evaluate import evaluate

    loaded = options.read_model(model, instead=f"use histcxr reference evaluate {data} -m {model}")
    manifest = read_manifest(data, require_labels=True, dicom_tags=dicom_tags, salt=salt)
    result = evaluate(
        loaded,
        select_rows(manifest, where),
        split=None if split == "all" else split,
        by=by,
        prevalence=prevalence,
        lungs=lungs,
        normal=normal,
        cache=cache,
        n_jobs=jobs,
        progress=options.show_progress(),
    )
    click.echo(evaluation_report(result))
    options.write_json(json_file, result)
