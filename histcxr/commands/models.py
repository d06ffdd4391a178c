"""``histcxr models``."""

from __future__ import annotations

import click

from histcxr.commands import options


@click.command()
@click.argument("model", required=False)
@options.json_option()
def command(model: str | None, json_file: str | None) -> None:
    """List the classifiers, or show the card of a saved MODEL; "boxed" is the one that comes with histcxr.

    \b
    Example:  histcxr models
              histcxr models boxed
              histcxr models model.histcxr
    """
    from histcxr.reports.tables import markdown_table

    if model is None:
        from histcxr.models.registry import describe_classifiers

        rows = describe_classifiers()
        click.echo(markdown_table(rows))
        options.write_json(json_file, {"classifiers": rows})
        return
    from histcxr.reports.card import model_card
    from histcxr.store import BOXED

    description = options.read_model(None if model == BOXED else model).describe()
    click.echo(model_card(description))
    options.write_json(json_file, description)
