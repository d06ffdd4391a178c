"""``histcxr models``."""

from __future__ import annotations

import click

from histcxr.commands import options


@click.command()
@click.argument("model", required=False)
@options.json_option()
def command(model: str | None, json_file: str | None) -> None:
    """List the classifiers, or show the card of a saved MODEL of either kind; "boxed" comes with histcxr.

    \b
    Example:  histcxr models
              histcxr models boxed
              histcxr models model.histcxr
    """
    from histcxr.files.decoding import muted_decoders
    from histcxr.models.registry import describe_classifiers
    from histcxr.reports.card import model_card
    from histcxr.reports.tables import markdown_table

    if model is None:
        rows = describe_classifiers()
        options.say(markdown_table(rows))
        options.write_json(json_file, {"classifiers": rows})
        return
    with muted_decoders():  # a network's backend greets on the terminal
        description = options.read_model(model).describe()
    options.say(model_card(description))
    options.write_json(json_file, description)
