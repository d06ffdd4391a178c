"""``histcxr models``."""

from __future__ import annotations

import click

from histcxr.commands import options
from histcxr.commands.shell.places import OutputPath


class _Models(click.Group):
    """A group in which a model, or nothing, means :func:`show`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if args and args[0] in known else ["show", *args])


@click.group(cls=_Models)
def command() -> None:
    """List the classifiers, show the card of a saved model, sign a model, or verify who signed it.

    \b
    Example:  histcxr models
              histcxr models boxed
              histcxr models model.histcxr
              histcxr models sign model.histcxr --key key.pem
              histcxr models verify model.histcxr --key public.pem
    """


@command.command(
    short_help="List the classifiers, or show a model's card; `histcxr models MODEL` does the same."
)
@click.argument("model", required=False)
@click.option(
    "--card",
    type=OutputPath("file"),
    metavar="CARD.md",
    help="Also write the card of MODEL as Markdown with a YAML head, for others.",
)
@options.json_option()
def show(model: str | None, card: str | None, json_file: str | None) -> None:
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


@command.command(short_help="Sign a model: vouch for it with a private key.")
@click.argument("model")
@click.option("--key", required=True, type=click.Path(exists=True), help="Your private Ed25519 key, in PEM.")
@options.overwrite_option("Replace a signature by another key.")
def sign(model: str, key: str, overwrite: bool) -> None:
    """Sign a saved MODEL, "boxed" too: vouch for its files and thresholds as they are now.

    Writes manifest.sig into the model's folder. Only who has the private key can sign; everybody who has the public
    key can verify. Make a pair of keys, the private one with a passphrase, by

    \b
      openssl genpkey -algorithm ed25519 -aes256 -out key.pem
      openssl pkey -in key.pem -pubout -out public.pem

    Needs the extra sign.

    \b
    Example:  histcxr models sign model.histcxr --key key.pem
              histcxr triage incoming -m model.histcxr --require-signature public.pem
    """
    from histcxr.files.decoding import muted_decoders
    from histcxr.store import sign_model

    with muted_decoders():
        place = sign_model(
            model,
            key,
            ask=lambda: str(click.prompt("Passphrase", hide_input=True, err=True)),
            overwrite=overwrite,
        )
    options.say(f"Signed: {place}")


@command.command(short_help="Verify that the owner of a public key signed a model.")
@click.argument("model")
@click.option("--key", required=True, type=click.Path(exists=True), help="The signer's public key, in PEM.")
def verify(model: str, key: str) -> None:
    """Verify that every file of MODEL is as it was when the owner of a public key signed it.

    \b
    Example:     histcxr models verify model.histcxr --key public.pem
    Exit codes:  0 signed by that key and unchanged, 1 not
    """
    from histcxr.store import verify_model

    digest = verify_model(model, key)
    options.say(f"{model} is as the owner of {key} signed it (model {digest[:12]})")
