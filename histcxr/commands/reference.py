"""``histcxr reference``: networks that look at the whole image, beside the histograms."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from histcxr.commands import options

if TYPE_CHECKING:
    import pandas as pd


@click.group()
def command() -> None:
    """Train and measure networks that look at the whole image, to see what they add and what they cost.

    \b
    Example:  histcxr reference list
              histcxr reference train study -o net.histcxr
    """


@command.command("list", short_help="List the networks.")
@options.json_option()
def list_networks(json_file: str | None) -> None:
    """List the networks: size of the image, number of parameters, where they come from."""
    from histcxr.reference.architectures import ARCHITECTURES
    from histcxr.reports.tables import markdown_table

    rows = [
        {
            "name": name,
            "pixels": architecture.size,
            "parameters": architecture.parameters,
            "description": architecture.description,
        }
        for name, architecture in ARCHITECTURES.items()
    ]
    shown = [
        {**row, "parameters": f"{ARCHITECTURES[str(row['name'])].parameters / 1e6:.1f} million"}
        for row in rows
    ]
    options.say(markdown_table(shown))
    options.write_json(json_file, {"architectures": rows})


def _layers(ctx: click.Context, param: click.Parameter, value: str) -> int | str:
    if value != "all" and not value.isdigit():
        raise click.BadParameter(f"must be a number of layers or all, got {value!r}")
    return value if value == "all" else int(value)


def _held_out(ctx: click.Context, param: click.Parameter, value: str) -> float | str:
    try:
        return value if value == "val" else float(value)
    except ValueError:
        raise click.BadParameter(f"must be a share such as 0.1, or val, got {value!r}") from None


@command.command(short_help="Train a network on labelled radiographs.")
@options.config_option()
@options.manifest_options()
@options.output_option("Save the network here (NAME.histcxr), with its curves.", "model", beside=(".plots",))
@click.option(
    "--architecture",
    "--network",
    "architecture",
    default="resnet-small",
    show_default=True,
    help="See histcxr reference list.",
)
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
    "--unfreeze",
    default="0",
    show_default=True,
    callback=_layers,
    help="Layers of a backbone that are trained, from its end, or all.",
)
@click.option(
    "--weights",
    help="Where a backbone starts: a file, or imagenet (from the folder that HISTCXR_WEIGHTS names, else fetched).  "
    "[default: at random]",
)
@click.option(
    "--augment",
    type=click.Choice(["published", "none", "mild", "strong", "mixed"]),
    default="published",
    show_default=True,
    help="How far training images are varied; mixed: strongly, mirrored, and blended in pairs.",
)
@click.option("--averaged", is_flag=True, help="Run all epochs and keep the moving average of the weights.")
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
@click.option(
    "--tuned",
    type=click.Path(exists=True),
    help="Use what `histcxr tune` found for this architecture, its folder; what is given here comes first.",
)
@options.balancing_options
@click.option(
    "--held-out",
    default="0.1",
    show_default=True,
    callback=_held_out,
    help="Share of the training patients that only says when to stop; 0: all epochs; val: DATA's val part, which "
    "then certifies nothing.",
)
@options.certificate_options
@options.certified_by_option()
@options.reading_options(normal="Normal")
@options.overwrite_option()
@options.seed_option()
@options.json_option()
def train(
    data: pd.DataFrame,
    output: str | None,
    classes: str,
    overwrite: bool,
    tuned: str | None,
    seed: int,
    json_file: str | None,
    **how: Any,
) -> None:
    """Train a network on DATA, a folder or CSV of labelled radiographs.

    Trained on the training patients, certified on the validation patients, and measured once on the test
    patients. DATA's own split is used where it has one.

    \b
    Example:  histcxr reference train study -o net.histcxr
              histcxr reference train study --architecture cnn3 --region full
    """
    from histcxr.files.decoding import muted_decoders
    from histcxr.networks.backend import import_neural
    from histcxr.reports.tables import estimate_text
    from histcxr.reports.text import network_report
    from histcxr.study.certify import Promise
    from histcxr.study.network_train import ReferenceSettings, train_reference
    from histcxr.study.tune import read_tuned

    reading, by = options.take_reading(how), how.pop("by")
    promise = Promise(**{name: how.pop(name) for name in ("sensitivity", "specificity", "confidence")})
    settings = ReferenceSettings(classes=2 if classes == "2" else "all", **how)
    if tuned is not None:
        found = read_tuned([tuned], settings.inputs())
        if settings.architecture not in found:
            raise click.UsageError(
                f"--tuned holds settings of {', '.join(found)}, not of {settings.architecture}"
            )
        chosen = found[settings.architecture].items()
        settings = replace(settings, **{name: v for name, v in chosen if getattr(settings, name) is None})
    with muted_decoders():  # TensorFlow, too, greets on the terminal
        if settings.weights == "imagenet":  # what is fetched is kept
            os.environ.setdefault("KERAS_HOME", os.path.expanduser("~/.keras"))
        import_neural("keras", "to train a reference network")
        show = _say_epoch if reading.progress else None
        result = train_reference(data, settings, promise, reading, by=by, seed=seed, on_epoch=show)
    options.say(network_report(result.report) + "\n")
    if hidden := result.report["lungs_hidden"]:
        options.say(
            f"With the lungs hidden it still reaches an AUC of {estimate_text(hidden)} on the same test images: what "
            "is above 0.5 it reads outside of the lungs.\n"
        )
    if output is not None:
        path = options.write_model(result.model, output, overwrite=overwrite)
        options.say(_draw(result.report, path.with_suffix(".plots")))
    options.write_json(json_file, result.report)  # last: a wrong path must not cost the training


def _draw(report: dict[str, Any], folder: Path) -> str:
    """Draw the curves beside the network; say which pictures there are, or why there are none."""
    from histcxr.exceptions import MissingDependencyError
    from histcxr.reports.plots import plot_calls, plot_history

    try:
        folder.mkdir(exist_ok=True)
        plot_history(report, folder / "history.png")
        plot_calls(report["test"]["classes"], folder / "test.png", f"{report['architecture']}, split test")
    except MissingDependencyError as error:
        folder.rmdir()
        return f"No curves were drawn: {error}"
    return f"Drew curves into {folder}"


def _say_epoch(values: dict[str, float]) -> None:
    shown = [f"{name} {values[name]:.4f}" for name in ("loss", "val_loss", "val_accuracy") if name in values]
    click.echo(f"epoch {values['epoch']:.0f}: {', '.join(shown)}, {values['seconds']:.0f} s", err=True)
