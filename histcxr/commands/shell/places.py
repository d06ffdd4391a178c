"""Places that a command writes to, refused before its work begins; results for machines, in a file or on stdout."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, TextIO

import click

STDOUT: Final = "-"
_STDOUT_KEY: Final = f"{__name__}.stdout"


class OutputPath(click.Path):
    """A place for a result: refused at once where it cannot be written, or holds what must not be replaced.

    ``kind``: ``"file"``; ``"json"``, which may be ``-``; ``"model"``, which ``--overwrite`` alone replaces;
    ``"folder"``, made with those above it, of which the command itself says what it may hold; ``"any"`` of these.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(dir_okay=kind not in ("file", "json"), file_okay=kind != "folder")
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check the place. ``--overwrite`` is an eager option, so it is known by now."""
        if self.kind == "json" and value == STDOUT:
            return value
        place = Path(os.fsdecode(super().convert(value, param, ctx)))
        if self.kind == "model":
            from histcxr.store import check_place

            check_place(place, bool(ctx and ctx.params.get("overwrite")))
        problem = _problem(place, make_parents=self.kind in ("folder", "any"))
        if problem:
            self.fail(f"{str(place)!r} {problem}", param, ctx)
        return value


def _problem(place: Path, *, make_parents: bool) -> str:
    """Say why nothing can be written at a place, "" where it can."""
    above = place if make_parents and place.is_dir() else place.parent
    while make_parents and not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        what = "is no folder" if above.exists() else "does not exist"
        return f"cannot be written: {str(above)!r} {what}; make it first, or choose another place"
    if place.exists() and not place.is_file() and not place.is_dir():
        return ""  # a pipe or a terminal
    try:
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        return f"cannot be written: {error.strerror or error}; choose another place"
    if place.is_file() and not os.access(place, os.W_OK):
        return "cannot be written: it is read-only; choose another place"
    return ""


def keep_stdout(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Send what the command prints to stderr where its JSON goes to stdout, so that a pipe gets JSON alone."""
    if value == STDOUT:
        ctx.meta[_STDOUT_KEY] = sys.stdout
        ctx.with_resource(contextlib.redirect_stdout(_stderr()))
    return value


def _stderr() -> TextIO:
    """Return stderr, by a descriptor of its own: the decoders are muted by redirecting descriptor 2."""
    try:
        return open(os.dup(sys.stderr.fileno()), "w", buffering=1, encoding=sys.stderr.encoding)  # noqa: SIM115
    except (OSError, ValueError, AttributeError):  # replaced by something that is no file
        return sys.stderr


def write_bytes(path: str, content: bytes) -> None:
    """Write a file."""
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise click.FileError(path, hint=error.strerror or str(error)) from error


def write_json(path: str | None, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path``, if there is one, as strict JSON (no NaN, no Infinity); "-" is stdout."""
    if path is None:
        return
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if path == STDOUT:
        click.echo(text, file=click.get_current_context().meta.get(_STDOUT_KEY), nl=False)
    else:
        write_bytes(path, text.encode())
