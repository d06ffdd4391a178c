"""``histcxr reference train``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from histcxr.commands import options


def _layers(ctx: click.Context, param: click.Parameter, value: str) -> int | str:
    if value != "all" and not value.isdigit():
        raise click.BadParameter(f"must be a number of layers or all, got {value!r}")
    return value if value == "all" else int(value)


def _held_out(ctx: click.Context, param: click.Parameter, value: str) -> float | str:
    try:
        return value if value == "val" else float(value)
    except ValueError:
        raise click.BadParameter(f"must be a share such as 0.1, or val, got {value!r}") from None


@click.command()
@options.data_argument()
@options.output_option("Save the network here (NAME.histcxr), its curves in NAME.plots.")
@click.option("--architecture", default="resnet-small", show_default=True, help="See histcxr reference list.")
@click.option(
    "--region",
    type=click.Choice(["lungs", "hidden", "full"]),
    default="lungs",
    show_default=True,
    help="What the network sees: the lungs only, all but the lungs, or the full image.",
)
@click.option(
    "--size", type=click.IntRange(8, 2048), help="Side of the image in pixels.  [default: the network's]"
)
@click.option("--epochs", type=click.IntRange(min=1), help="At most.  [default: as published]")
@click.option("--batch-size", type=click.IntRange(min=1), help="Images a step.  [default: as published]")
@click.option("--learning-rate", type=float, help="Adam's.  [default: as published]")
@click.option(
    "--second-stage-learning-rate",
    type=float,
    help="Adam's once layers of a backbone are unfrozen.  [default: a tenth]",
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    help="Epochs without progress after which training ends.  [default: as published, or all epochs]",
)
@click.option(
    "--unfrozen",
    default="0",
    show_default=True,
    callback=_layers,
    help="Layers of a backbone that are trained, from its end, or all.",
)
@click.option("--weights", help="Where a backbone starts: imagenet, or a file.  [default: at random]")
@click.option(
    "--augment",
    type=click.Choice(["published", "none", "mild", "strong"]),
    default="published",
    show_default=True,
    help="How far training images are varied.",
)
@click.option(
    "--views",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Score an image by the mean of so many slightly changed views of it; costs so many times more.",
)
@click.option("--equalise", is_flag=True, help="Spread each image's grey levels evenly.")
@click.option("--blur", is_flag=True, help="Smooth each image by a Gaussian window.")
@click.option(
    "--classes",
    type=click.Choice(["2", "all"]),
    default="2",
    show_default=True,
    help="Sick against normal, or every label.",
)
@click.option("--undersample", is_flag=True, help="Learn from equally many images of each class.")
@click.option("--balance", is_flag=True, help="Weigh classes so that each counts alike in training.")
@click.option(
    "--held-out",
    default="0.1",
    show_default=True,
    callback=_held_out,
    help="Share of the training patients that only says when to stop; 0: all epochs; val: DATA's val part, which "
    "then certifies nothing.",
)
@options.certificate_options
@options.lungs_option("given", "found", "either")
@options.normal_option()
@options.where_option()
@click.option("--overwrite", is_flag=True, help="Replace a network that is already there.")
@options.seed_option()
@options.jobs_option()
@options.json_option()
def train(
    data: str,
    output: str | None,
    classes: str,
    sensitivity: float,
    specificity: float,
    confidence: float,
    lungs: str | None,
    normal: str,
    where: dict[str, list[str]],
    overwrite: bool,
    balance: bool,
    seed: int,
    jobs: int,
    json_file: str | None,
    **settings: Any,
) -> None:
    """Train a network on DATA, a folder or CSV of labelled radiographs.

    Trained on the training patients, certified on the validation patients, and measured once on the test
    patients. DATA's own split is used where it has one.

    \b
    Example:  histcxr reference train study -o net.histcxr
              histcxr reference train study --architecture cnn3 --region full
    """
    from histcxr.data.manifest import read_manifest
    from histcxr.files.decoding import muted_decoders
    from histcxr.networks.backend import import_neural
    from histcxr.reports.reference import trained_report
    from histcxr.store import check_place, save_model
    from histcxr.study.cohort import select_rows
    from histcxr.study.network_train import ReferenceSettings, train_reference

    if output is not None:
        check_place(output, overwrite)
    chosen = ReferenceSettings(
        classes=2 if classes == "2" else "all", class_weight="balanced" if balance else None, **settings
    )
    with muted_decoders():  # TensorFlow, too, greets on the terminal
        import_neural("keras", "to train a reference network")
        result = train_reference(
            select_rows(read_manifest(data, require_labels=True), where),
            chosen,
            sensitivity=sensitivity,
            specificity=specificity,
            confidence=confidence,
            lungs=lungs,
            normal=normal,
            seed=seed,
            n_jobs=jobs,
            progress=options.show_progress(),
            on_epoch=_say_epoch if options.show_progress() else None,
        )
    click.echo(trained_report(result.report))
    if output is not None:
        path = save_model(result.model, output, overwrite=overwrite)
        click.echo(f"\nSaved {result.model.name} to {path}{_draw(result.report, path.with_suffix('.plots'))}")
    options.write_json(json_file, result.report)  # last: a wrong path must not cost the training


def _draw(report: dict[str, Any], folder: Path) -> str:
    """Draw the curves beside the network; say which pictures there are, or why there are none."""
    from histcxr.exceptions import MissingDependencyError
    from histcxr.reports.reference_plots import plot_calls, plot_history

    try:
        folder.mkdir(exist_ok=True)
        plot_history(report, folder / "history.png")
        plot_calls(report["test"]["classes"], folder / "test.png")
    except MissingDependencyError as error:
        with contextlib.suppress(OSError):  # earlier pictures stay
            folder.rmdir()
        return f"\nNo curves were drawn: {error}"
    return f", curves to {folder}"


def _say_epoch(values: dict[str, float]) -> None:
    shown = [f"{name} {values[name]:.4f}" for name in ("loss", "val_loss", "val_accuracy") if name in values]
    click.echo(f"epoch {values['epoch']:.0f}: {', '.join(shown)}, {values['seconds']:.0f} s", err=True)
