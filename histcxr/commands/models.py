"""``histcxr models``."""

from __future__ import annotations

import click

from histcxr.commands import options


@click.command()
@click.argument("model", type=click.Path(exists=True), required=False)
@options.json_option()
def command(model: str | None, json_file: str | None) -> None:
    """List the classifiers, or show the card of a saved MODEL.

    \b
    Example:  histcxr models
              histcxr models model.histcxr
    """
    from histcxr.reports.tables import markdown_table

    if model is None:
        from histcxr.models.registry import describe_classifiers

        rows = describe_classifiers()
        click.echo(markdown_table(rows))
        options.write_json(json_file, {"classifiers": rows})
        return
    from histcxr.model_store import load_model
    from histcxr.reports.card import model_card

    description = load_model(model).describe()
    click.echo(model_card(description))
    options.write_json(json_file, description)
