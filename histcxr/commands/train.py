"""``histcxr train``."""

from __future__ import annotations

from typing import Any

import click

from histcxr.commands import options


@click.command()
@options.config_option()
@options.manifest_options()
@options.output_option(
    "Save the model with the best cross-validated AUC here (NAME.histcxr).", "model", beside=(".recipe.toml",)
)
@click.option(
    "--classifier",
    "classifiers",
    multiple=True,
    default=("stack",),
    show_default=True,
    help="knn, svm, random-forest, xgboost, lenet, stack or all; repeatable.",
)
@options.recipe_options
@options.certificate_options
@options.certified_by_option()
@click.option(
    "--trials", type=click.IntRange(min=0), default=None, help="Settings to try per classifier; 0: no tuning."
)
@click.option(
    "--tuned",
    multiple=True,
    type=click.Path(exists=True),
    help="Use what `histcxr tune` found, its folder; repeatable.",
)
@options.balancing_options
@options.reading_options(normal="Normal")
@options.scheduler_option("Count and fit")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="For XGBoost."
)
@options.overwrite_option()
@options.seed_option()
@options.json_option()
def command(
    output: str | None, tuned: tuple[str, ...], overwrite: bool, json_file: str | None, **how: Any
) -> None:
    """Train classifiers on DATA, a folder or CSV of labelled radiographs, with lung masks or without.

    Tuned by cross-validation on the training patients, certified on the validation patients, and measured
    once on the test patients. DATA's own split is used where it has one. NAME.recipe.toml, written beside the model,
    has all settings, so that the training can be repeated.

    \b
    Example:  histcxr train study -o model.histcxr
              histcxr train --config model.recipe.toml -o again.histcxr
              histcxr train study --classifier all --zones 6
    """
    from histcxr.features.recipe import Recipe
    from histcxr.files.decoding import muted_decoders
    from histcxr.reports.text import training_report
    from histcxr.study.train import train
    from histcxr.study.tune import read_tuned

    found = read_tuned(tuned, Recipe(how["zones"], how["bands"]))
    with muted_decoders():  # TensorFlow, too, greets on the terminal
        result = train(tuned=found, **how)
    options.say(training_report(result.report))
    options.write_json(json_file, result.report)
    if output is not None:
        options.say()
        chosen = {
            "zones": str(how["zones"]),
            "bands": how["bands"] or "none",
            "lungs": result.report["lungs"],
        }
        options.write_model(result.best, output, overwrite=overwrite, **chosen)
