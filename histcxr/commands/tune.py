"""``histcxr tune``."""

from __future__ import annotations

from typing import Any

import click

from histcxr.commands import options


@click.command()
@options.config_option()
@options.data_argument()
@options.output_option(
    "Folder for trials.csv, best.json and trials.png. A network's search found there is gone on with.",
    "folder",
    required=True,
    earlier="trials.csv",
    resumes="search",
)
@click.option(
    "--classifier",
    required=True,
    help="knn, svm, random-forest, xgboost, lenet, or a network of `histcxr reference list`.",
)
@options.recipe_options
@click.option(
    "--region",
    type=click.Choice(["lungs", "hidden", "full"]),
    help="What a reference network sees.  [default: lungs]",
)
@click.option("--weights", help="Where a reference network's backbone starts: imagenet, or a file.")
@click.option(
    "--size", type=click.IntRange(8, 2048), help="Side of its image in pixels.  [default: the network's]"
)
@click.option("--epochs", type=click.IntRange(min=1), help="A reference network's, at most.")
@click.option("--trials", "n_trials", type=click.IntRange(min=0), help="Settings to try; by default a few.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="For networks: begin no trial after this time.",
)
@click.option(
    "--search",
    "method",
    type=click.Choice(["halving", "random", "hyperband", "bayesian"]),
    help="halving or random; for networks hyperband, random or bayesian.  [default: the first]",
)
@options.lungs_option()
@options.normal_option()
@options.where_option()
@options.cache_option()
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="For XGBoost."
)
@options.scheduler_option("Count and fit, networks apart,")
@options.seed_option()
@options.jobs_option()
@options.json_option()
def command(
    data: str,
    output: str,
    classifier: str,
    zones: int | str,
    bands: str,
    region: str | None,
    weights: str | None,
    size: int | None,
    epochs: int | None,
    lungs: str | None,
    normal: str,
    where: dict[str, list[str]],
    cache: str | None,
    client: Any,
    seed: int,
    jobs: int,
    json_file: str | None,
    **search: Any,
) -> None:
    """Search for the settings of a classifier or a reference network on DATA's training patients.

    What it finds is for --tuned FOLDER of `histcxr train` or `histcxr reference train`. Broken off, the same
    command goes on where a network's search stopped.

    \b
    Example:  histcxr tune study --classifier lenet --zones 6 -o search
              histcxr train study --classifier lenet --zones 6 --tuned search
    """
    from pathlib import Path

    from histcxr.data.manifest import read_manifest
    from histcxr.exceptions import MissingDependencyError
    from histcxr.features.recipe import Recipe
    from histcxr.files.decoding import muted_decoders
    from histcxr.models.tuning import TuningOptions
    from histcxr.reference.architectures import ARCHITECTURES
    from histcxr.reports.plots import plot_trials
    from histcxr.reports.text import search_report
    from histcxr.store.model import json_ready
    from histcxr.study.cohort import select_rows
    from histcxr.study.network_train import ReferenceSettings
    from histcxr.study.tune import describe_search, search_settings, write_search

    how = TuningOptions(
        directory=Path(output) / "search",
        random_state=seed,
        recipe=Recipe(zones, bands),
        n_jobs=jobs,
        **search,
    )
    given = {"region": region, "weights": weights, "size": size, "epochs": epochs}
    own: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if own and classifier not in ARCHITECTURES:
        raise click.UsageError(f"--{' and --'.join(own)}: for reference networks only")
    network = ReferenceSettings(classifier, **own) if classifier in ARCHITECTURES else None
    with muted_decoders():  # TensorFlow, too, greets on the terminal
        result = search_settings(
            select_rows(read_manifest(data, require_labels=True), where),
            network or classifier,
            how,
            lungs=lungs,
            normal=normal,
            cache=cache,
            client=client,
            progress=options.show_progress(),
        )
    paths = write_search(result, network.inputs() if network else how.recipe, output)
    options.say(search_report(result))
    try:
        paths.append(plot_trials(result.trials, Path(output) / "trials.png"))
    except MissingDependencyError as error:
        options.say(f"Note: no picture was drawn: {error}")
    options.say("\nWrote " + ", ".join(str(path) for path in paths))
    more = {"seconds": result.seconds, "not_tried": result.not_tried}
    trials = json_ready(options.table_rows(result.trials))
    options.write_json(json_file, {**describe_search(result), **more, "output": output, "trials": trials})
