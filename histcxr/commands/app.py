"""``histcxr app``."""

from __future__ import annotations

import click

from histcxr.commands import options
from histcxr.commands.shell.places import OutputPath


@click.command()
@options.model_option()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8501,
    show_default=True,
    help="Where it listens, on this machine alone; 0: any that is free.",
)
@click.option(
    "--max-upload",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="MB",
    help="Refuse a file that is larger.",
)
@click.option(
    "--keep",
    type=OutputPath("folder"),
    metavar="FOLDER",
    help="Keep here what is dropped and written.  [default: a temporary folder, removed at the end]",
)
def command(model: str | None, port: int, max_upload: int, keep: str | None) -> None:
    """Open the app in a browser: triage, train, explore and audit by looking.

    Prints an address that nobody can guess; open it in a browser on this machine. It reads the folders that you may
    read, so keep the address for yourself. Needs pip install 'histcxr[app]'.

    \b
    Example:     histcxr app
                 histcxr app -m model.histcxr --keep looked_at
    Exit codes:  130 it was ended by Ctrl-C, 2 wrong usage, 1 failure
    """
    from histcxr.app.serving import serve
    from histcxr.files.decoding import muted_decoders

    with muted_decoders():
        serve(port=port, max_upload=max_upload, model=model, keep=keep, say=options.say)
