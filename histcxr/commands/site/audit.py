"""``histcxr audit``."""

from __future__ import annotations

from typing import Any

import click

from histcxr.commands import options


@click.command()
@options.manifest_options()
@options.reading_options(lungs=None, normal="Normal", squares=True)
@options.seed_option()
@options.json_option()
def command(data: Any, seed: int, json_file: str | None, **how: Any) -> None:
    """Ask of DATA, labelled radiographs: is it disease, or the scanner?

    Sick and normal should differ by their lungs alone. Tells where files, borders, corners, views, sources, outlines or
    age tell them apart, where the lungs show the scanner, and which patients or near-duplicates stand in several
    splits. Silent on clean data; where something is found, or too few patients leave nothing to ask, the exit code
    is 3.

    \b
    Example:  histcxr audit study --json audit.json
              histcxr audit study --where source=rsna
    """
    from histcxr.files.decoding import muted_decoders
    from histcxr.site.audit import audit

    with muted_decoders():
        result = audit(data, options.take_reading(how), seed=seed)
    options.say(result.text())
    options.write_json(json_file, result.to_dict())
    click.get_current_context().exit(result.exit_code)
