"""Places that a command writes to: refused before its work where something would be lost, and guarded while it goes on.

Every output of every command is an :class:`OutputPath`, and every command is :func:`guarded`: nothing is overwritten
unless asked, an input never is, and no two outputs are one file. What came to a place while the work went on stays, too
(:func:`histcxr.files.writing.guarding`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import click

from histcxr.exceptions import OutputError
from histcxr.files.remote import Url, is_url, place_of
from histcxr.files.writing import guarding, replacing, write_error

STDOUT: Final = "-"
KEYS: Final = "names.csv"  # by this is a folder of keyed names known, the one result that is made of links
_KEY: Final = (
    __name__  # of what stands in a context's meta: whether to overwrite, what is claimed, the stdout of JSON
)
_NO_INPUTS: Final = ("cache",)  # paths that are neither read as inputs nor results
_WORDS_OR_PATHS: Final = ("model", "weights")
# How our own results begin: --overwrite replaces these, not whatever has their name.
_BEGINNINGS: Final = {
    **dict.fromkeys((".html", ".htm"), b"<!"),
    ".png": b"\x89PNG",
    ".pdf": b"%PDF",
    ".svg": b"<?xml",
    ".parquet": b"PAR1",
    ".npz": b"PK",
}


class InputPath(click.Path):
    """A path that is read, or a URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Keep what gives access out of a URL's name; whether something is there shows when it is read."""
        if isinstance(value, str) and "://" in value:
            value = place_of(value)
        return value if isinstance(value, Url) else super().convert(value, param, ctx)


class OutputPath(click.Path):
    """A place for a result.

    ``kind``: ``"file"``; ``"json"``, which may be ``-``; ``"worklist"``, of which the triage itself says what it goes
    on from; ``"model"``; ``"folder"``, made with those above it: new or empty. ``earlier`` is a file in a folder by
    which an earlier result is known, that ``--overwrite`` replaces; ``resumes`` one by which a run is known that the
    same command goes on with unasked. ``beside``: endings of further files that the command writes, added to the name
    (instead of a model's own). ``named`` names the place after the command's DATA where none is given.
    """

    def __init__(
        self,
        kind: str,
        *,
        earlier: str = "",
        resumes: str = "",
        beside: tuple[str, ...] = (),
        named: Callable[[str], str] | None = None,
    ) -> None:
        super().__init__(dir_okay=kind in ("folder", "model"), file_okay=kind != "folder")
        self.kind, self.earlier, self.resumes, self.beside, self.named = (
            kind, earlier, resumes, beside, named,
        )  # fmt: skip

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what cannot be written at all."""
        if self.kind == "json" and value == STDOUT:
            return value
        if is_url(value):
            return place_of(value)
        place = Path(os.fsdecode(super().convert(value, param, ctx)))
        problem = _problem(place, make_parents=self.kind == "folder")
        if problem:
            self.fail(f"{str(place)!r} {problem}", param, ctx)
        return value


class _Claim(NamedTuple):
    """A place that a command will write to."""

    place: Path
    type: OutputPath
    param: click.Parameter
    added: bool = False  # written beside the place that was named

    @property
    def real(self) -> str:
        return os.path.realpath(self.place)


def overwrite_option(help_text: str, *, expose: bool = True) -> Any:
    """Whether what is there may be replaced."""

    def note(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
        ctx.meta[f"{_KEY}.overwrite"] = value
        return value

    return click.option(
        "--overwrite", is_flag=True, is_eager=True, callback=note, expose_value=expose, help=help_text
    )


def add_input(ctx: click.Context, path: str) -> None:
    """Note a file that is read, though no parameter of the command keeps its name."""
    ctx.meta.setdefault(f"{_KEY}.inputs", []).append(path)


def guarded(command: click.Command) -> click.Command:
    """Let a command, or a group's commands, look at all places before its work, and give it ``--overwrite``."""
    for one in getattr(command, "commands", {}).values():
        guarded(one)
    work = command.callback
    if work is None or isinstance(command, click.Group) or hasattr(work, "guarded"):
        return command
    outputs = [one for one in command.params if isinstance(one.type, OutputPath)]
    if outputs and not any(one.name == "overwrite" for one in command.params):
        overwrite_option("Replace earlier results.", expose=False)(command)

    @functools.wraps(work)
    def look_first(*args: Any, **given: Any) -> Any:
        ctx = click.get_current_context()
        for one in outputs:
            assert isinstance(one.type, OutputPath)
            if one.type.named is not None and given.get(str(one.name)) is None:
                ctx.params[str(one.name)] = given[str(one.name)] = one.type.named(given["data"])
                one.type.convert(given[str(one.name)], one, ctx)
        urls = {one: url for one in outputs if isinstance(url := given.get(str(one.name)), Url)}
        with _uploading(ctx, urls, given), guarding(_checked(ctx, outputs)):
            return work(*args, **given)

    look_first.guarded = True  # type: ignore[attr-defined]
    command.callback = look_first
    return command


@contextlib.contextmanager
def _uploading(ctx: click.Context, urls: dict[click.Parameter, Url], given: dict[str, Any]) -> Iterator[None]:
    """Put places on this machine instead of outputs that are URLs, and upload them in the end."""
    if not urls:
        yield
        return
    from histcxr.commands.shell.uploads import staged, uploading, why_not

    overwrite = bool(ctx.meta.get(f"{_KEY}.overwrite"))
    results = ctx.meta.setdefault(f"{_KEY}.uploads", [])
    for one, url in urls.items():
        kind = one.type
        assert isinstance(kind, OutputPath)
        suffix = os.path.splitext(url)[1].lower()
        beginning = b"{\n" if kind.kind == "json" else _BEGINNINGS.get(suffix, b"")
        trail = kind.resumes if kind.kind == "worklist" else ""
        problem = why_not(
            url,
            [path for name, path in ctx.params.items() if isinstance(path, Url) and name != one.name],
            [result.url for result in results],
            whole=kind.kind in ("folder", "model"),
            trail=trail,
            beginning=beginning,
            overwrite=overwrite,
        )
        if problem:
            raise click.BadParameter(f"{str(url)!r} {problem}", ctx, one)
        results.append(staged(url, resumes=bool(kind.resumes), trail="" if overwrite else trail))
        ctx.params[str(one.name)] = given[str(one.name)] = str(results[-1].local)
    with uploading(results):
        yield


def _checked(ctx: click.Context, outputs: list[click.Parameter]) -> dict[str, bool]:
    """Return the real paths of all outputs, and whether what is there may be replaced; UsageError: one must not be."""
    claims = list(_claims(ctx, outputs))
    known: dict[str, bool] = {}
    overwrite = bool(ctx.meta.get(f"{_KEY}.overwrite"))
    for claim in claims:
        problem = _like_input(ctx, claim) or _like_other(claim, claims) or _taken(claim, claims, overwrite)
        if problem:
            raise click.BadParameter(f"{str(claim.place)!r} {problem}", ctx, claim.param)
        known[claim.real] = overwrite or claim.type.kind == "folder" or os.path.exists(claim.real)
    return known


def _claims(ctx: click.Context, outputs: list[click.Parameter]) -> Iterator[_Claim]:
    for one in outputs:
        value, kind = ctx.params.get(str(one.name)), one.type
        if value is None or value == STDOUT or not isinstance(kind, OutputPath):
            continue
        place = Path(os.fsdecode(value))
        yield _Claim(place, kind, one)
        for ending in kind.beside:
            more = place.with_suffix(ending) if kind.kind == "model" else Path(f"{place}{ending}")
            yield _Claim(more, kind, one, added=True)


def _inputs(ctx: click.Context) -> Iterator[str]:
    """Yield what a command reads: what is there of the values of its parameters that are paths, and no outputs."""
    yield from ctx.meta.get(f"{_KEY}.inputs", ())
    for one in ctx.command.params:
        is_path = isinstance(one.type, click.Path) and one.name not in _NO_INPUTS
        if isinstance(one.type, OutputPath) or not (is_path or one.name in _WORDS_OR_PATHS):
            continue
        value = ctx.params.get(str(one.name))
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, str) and path and os.path.exists(path):
                yield path


def _like_input(ctx: click.Context, claim: _Claim) -> str:
    from histcxr.data.discovery import MANIFEST_NAME, lists_file
    from histcxr.data.pairing import is_image_name

    for path in _inputs(ctx):
        real = os.path.realpath(path)
        if _key(real) == _key(claim.real):
            return "is an input of this command; choose another place"
        if claim.type.kind in ("folder", "model") and _is_in(real, claim.real) and not claim.added:
            return f"holds an input of this command, {path!r}; choose another place"
        if os.path.isdir(path) and _is_in(claim.real, real):
            is_model = os.path.isfile(os.path.join(path, "manifest.json"))
            name = os.path.basename(claim.real)
            if is_model or name == MANIFEST_NAME or (
                claim.type.kind == "folder" or is_image_name(name) and claim.type.kind != "model"
            ):  # fmt: skip
                return f"lies in an input folder, {path!r}, of which it would become a part; choose another place"
        elif path.lower().endswith(".csv") and os.path.isfile(claim.real) and lists_file(path, claim.real):
            return f"is listed in {path!r}, an input of this command; choose another place"
    return ""


def _like_other(claim: _Claim, claims: list[_Claim]) -> str:
    for other in claims:
        if other is claim:
            return ""
        inside = other.type.kind == "model" and not other.added and _is_in(claim.real, other.real)
        if (
            _key(claim.real) == _key(other.real)
            or inside
            or (claim.type.kind == "model" and _is_in(other.real, claim.real))
        ):
            return (
                f"is, or lies in, another output of this command, {str(other.place)!r}; choose another place"
            )
    return ""


def _taken(claim: _Claim, claims: list[_Claim], overwrite: bool) -> str:
    """Say why what is at a place must stay, "" where nothing is or it may be replaced."""
    place, kind = claim.place, claim.type
    if kind.kind == "model" and not claim.added:
        from histcxr.store import check_place

        check_place(place, overwrite)
        return ""
    if kind.kind == "worklist" or not place.exists() or place.samefile(os.devnull):
        return ""
    if kind.kind == "folder":
        if not any(place.iterdir()):
            return ""
        if kind.resumes != KEYS and any(one.is_symlink() for one in place.iterdir()):
            return (
                "holds links, through which other files could be written; choose a new or empty folder (-o)"
            )
        if kind.resumes and os.path.lexists(place / kind.resumes):
            return ""
        if not kind.earlier or not os.path.lexists(place / kind.earlier):
            return "holds other files; choose a new or empty folder (-o)"
        return "" if overwrite else "holds an earlier result; choose another folder (-o), or --overwrite"
    if any(_tells_of(place, other.place) for other in claims if other.type.resumes and not other.added):
        return ""
    if not overwrite:
        return "exists; choose another name, or overwrite it (--overwrite)"
    beginning = b"{\n" if kind.kind == "json" else _BEGINNINGS.get(place.suffix.lower(), b"")
    found = place.read_bytes()[: len(beginning)] if place.is_file() else beginning
    return "" if found in (b"", beginning) else "is no earlier result of histcxr; choose another name"


def _tells_of(place: Path, output: Path) -> bool:
    """Whether a JSON or a page is of an earlier run of the command that goes on, about the same output."""
    from histcxr.reports.page import mark_of

    try:
        content = place.read_bytes()
        if not content.startswith(b"{\n"):
            return mark_of(output).encode() in content[:4096]
        return os.path.realpath(json.loads(content).get("output", "")) == os.path.realpath(output)
    except (OSError, ValueError, TypeError):
        return False


def _key(path: str) -> str:
    """Return what two names of one file share, also where the disk tells neither case nor ways of writing é apart."""
    return unicodedata.normalize("NFC", path).casefold()


def _is_in(path: str, folder: str) -> bool:
    return _key(path).startswith(_key(os.path.join(folder, "")))


def _problem(place: Path, *, make_parents: bool) -> str:
    """Say why nothing can be written at a place, "" where it can."""
    above = place if make_parents and place.is_dir() else place.parent
    while make_parents and not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        what = "is no folder" if above.exists() else "does not exist"
        return f"cannot be written: {str(above)!r} {what}; make it first, or choose another place"
    if place.exists() and not place.is_file() and not place.is_dir():
        return (
            ""
            if place.samefile(os.devnull)
            else "is a pipe or a device; choose a file, or - where JSON may go"
        )
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
        ctx.meta[f"{_KEY}.stdout"] = sys.stdout
        ctx.with_resource(contextlib.redirect_stdout(_stderr()))
    return value


def _stderr() -> TextIO:
    """Return stderr, by a descriptor of its own: the decoders are muted by redirecting descriptor 2."""
    try:
        return open(os.dup(sys.stderr.fileno()), "w", buffering=1, encoding=sys.stderr.encoding)  # noqa: SIM115
    except (OSError, ValueError, AttributeError):  # replaced by something that is no file
        return sys.stderr


def write_bytes(path: str, content: bytes) -> None:
    """Write a file. OutputError: it cannot be written."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def write_json(path: str | None, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path``, if there is one, as strict JSON (no NaN, no Infinity); "-" is stdout."""
    if path is None:
        return
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if path == STDOUT:
        print_to(click.get_current_context().meta.get(f"{_KEY}.stdout"), text)
    else:
        write_bytes(path, _as_uploaded(text).encode())


def _as_uploaded(text: str) -> str:
    """Name results that go to a URL by it, not by where they are made."""
    ctx = click.get_current_context(silent=True)
    for one in () if ctx is None else ctx.meta.get(f"{_KEY}.uploads", ()):
        text = text.replace(str(one.local.parent), one.url.rpartition("/")[0])  # also what lies beside it
    return text


def print_to(stream: TextIO | None, text: str) -> None:
    """Print a text as it is. OutputError: the stream is closed, or what it leads to is full."""
    if stream is None:
        raise OutputError("standard output is closed, so the result cannot be shown there")
    try:
        click.echo(_as_uploaded(text), file=stream, nl=False)
    except BrokenPipeError:  # whoever read has seen enough: click ends the program with exit code 1
        raise
    except OSError as error:
        raise write_error("standard output", error) from error
