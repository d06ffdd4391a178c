"""``histcxr models``."""

from __future__ import annotations

import click

from histcxr.commands import options
from histcxr.commands.shell.places import OutputPath


@click.command()
@click.argument("model", required=False)
@click.option(
    "--card",
    type=OutputPath("file"),
    metavar="CARD.md",
    help="Also write the card of MODEL as Markdown with a YAML head, for others.",
)
@options.json_option()
def command(model: str | None, card: str | None, json_file: str | None) -> None:
    """List the classifiers, or show the card of a saved MODEL of either kind; "boxed" comes with histcxr.

    A card says what a model is, what it promises, what it was measured on and where it fails.

    \b
    Example:  histcxr models
              histcxr models boxed
              histcxr models model.histcxr --card card.md
    """
    from histcxr.exceptions import InputError
    from histcxr.files.decoding import muted_decoders
    from histcxr.models.registry import describe_classifiers
    from histcxr.reports.card import card_file, model_card
    from histcxr.reports.tables import markdown_table

    if model is None:
        if card:
            raise InputError("--card is the card of a model: name one, such as boxed")
        rows = describe_classifiers()
        options.say(markdown_table(rows))
        options.write_json(json_file, {"classifiers": rows})
        return
    with muted_decoders():  # a network's backend greets on the terminal
        description = options.read_model(model).describe()
    options.say(model_card(description))
    if card:
        options.write_bytes(card, card_file(description).encode())
        options.say(f"Card: {card}")
    options.write_json(json_file, description)
