"""``histcxr reference``: networks that look at the whole image, beside the histograms."""

from __future__ import annotations

import click

from histcxr.commands import options
from histcxr.commands.reference_calibrate import calibrate
from histcxr.commands.reference_evaluate import evaluate
from histcxr.commands.reference_explain import explain
from histcxr.commands.reference_train import train


@click.group()
def command() -> None:
    """Train and measure networks that look at the whole image, to see what they add and what they cost.

    \b
    Example:  histcxr reference list
              histcxr reference train study -o net.histcxr
    """


@command.command("list")
@options.json_option()
def list_networks(json_file: str | None) -> None:
    """List the networks: size of the image, number of parameters, where they come from."""
    from histcxr.reference.registry import ARCHITECTURES, PARAMETERS
    from histcxr.reports.reference import architectures_report

    rows = [
        {
            "name": name,
            "pixels": architecture.size,
            "parameters": PARAMETERS[name],
            "description": architecture.description,
        }
        for name, architecture in ARCHITECTURES.items()
    ]
    click.echo(
        architectures_report(
            [{**row, "parameters": f"{PARAMETERS[str(row['name'])] / 1e6:.1f} million"} for row in rows]
        )
    )
    options.write_json(json_file, {"architectures": rows})


for subcommand in (train, evaluate, calibrate, explain):
    command.add_command(subcommand)
