"""``histcxr tune``."""

from __future__ import annotations

import click

from histcxr.commands import options


@click.command()
@options.data_argument()
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False),
    required=True,
    help="Folder for trials.csv, best.json and trials.png. A search found there is gone on with.",
)
@click.option("--classifier", required=True, help="knn, svm, random-forest, xgboost, lenet or stack.")
@options.recipe_options
@click.option("--trials", type=click.IntRange(min=0), default=None, help="Settings to try; by default a few.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="Begin no trial after this time."
)
@click.option(
    "--search",
    type=click.Choice(["halving", "random", "hyperband", "bayesian"]),
    help="halving or random; for the lenet hyperband, random or bayesian.  [default: the first]",
)
@click.option("--plot/--no-plot", default=True, show_default=True, help="Draw the trials (extra report).")
@options.normal_option()
@options.where_option()
@click.option("--cache", type=click.Path(file_okay=False), help="Keep extracted histograms in this folder.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="For XGBoost."
)
@options.seed_option()
@options.jobs_option()
@options.json_option()
def command(
    data: str,
    output: str,
    classifier: str,
    zones: int | str,
    bands: str,
    trials: int | None,
    seconds: float | None,
    search: str | None,
    plot: bool,
    normal: str,
    where: dict[str, list[str]],
    cache: str | None,
    device: str,
    seed: int,
    jobs: int,
    json_file: str | None,
) -> None:
    """Search for the settings of a classifier on DATA's training patients.

    What it finds is for ``histcxr train --tuned FOLDER``. Broken off, the same command goes on where it stopped.

    \b
    Example:  histcxr tune study --classifier lenet --zones 6 --trials 30 -o lenet-search
              histcxr train study --classifier lenet --zones 6 --tuned lenet-search -o model.histcxr
    """
    from pathlib import Path

    from histcxr.data.manifest import read_manifest
    from histcxr.features.recipe import Recipe
    from histcxr.files.decoding import muted_decoders
    from histcxr.reports.plots import require_matplotlib
    from histcxr.reports.text import search_report
    from histcxr.store.model import json_ready
    from histcxr.study.cohort import select_rows
    from histcxr.study.tune import search_settings, write_search

    if plot:
        require_matplotlib()  # before the search rather than after it
    with muted_decoders():  # TensorFlow, too, greets on the terminal
        result = search_settings(
            select_rows(read_manifest(data, require_labels=True), where),
            classifier,
            zones=zones,
            bands=bands,
            trials=trials,
            seconds=seconds,
            search=search,
            directory=Path(output) / "search",
            normal=normal,
            cache=cache,
            device=device,
            seed=seed,
            n_jobs=jobs,
            progress=options.show_progress(),
        )
    paths = write_search(result, Recipe(zones, bands), output, plot=plot)
    click.echo(search_report(result))
    click.echo("\nWrote " + ", ".join(str(path) for path in paths))
    options.write_json(
        json_file,
        {
            "classifier": result.name,
            "cross_validated_auc": result.score,
            "seconds": result.seconds,
            "not_tried": result.not_tried,
            "trials": json_ready(options.table_rows(result.trials)),
        },
    )
