"""A command's settings as a TOML file: read with ``--config``, and written beside each model to repeat it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Final

import click

from histcxr import __version__
from histcxr.commands.shell.places import add_input, write_bytes
from histcxr.exceptions import InputError, did_you_mean
from histcxr.files.remote import place_of

_CONFIG: Final = "config"
# A secret belongs into no file; the others say where results go, not what is done.
_NEVER: Final = (_CONFIG, "salt")
_NOT_RECORDED: Final = (*_NEVER, "output", "json", "overwrite", "cache", "scheduler")


def config_option() -> Any:
    """Settings from a file; what the command line says comes first."""
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="Take settings from this TOML file, by the names of the options and data; what is given here comes first.",
    )


def _read(ctx: click.Context, param: click.Parameter, path: str | None) -> None:
    if path is None:
        return
    add_input(ctx, path)
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # so are TOML's errors
        raise InputError(f"config must be a TOML file, but {path} cannot be read: {error}") from error
    known = {name: one for name, one in _names(ctx.command).items() if name not in _NEVER}
    settings: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            raise InputError(
                f"{path}: {key!r} is no setting of {ctx.info_name}; there are {', '.join(sorted(known))}"
                f"{did_you_mean(key, known)}"
            )
        settings[str(known[key].name)] = _as_given(known[key], value, f"{path}: {key}")
    ctx.default_map = {**(ctx.default_map or {}), **settings}


def _as_given(param: click.Parameter, value: Any, name: str) -> Any:
    """Return a TOML value as the command line would have it."""
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) for one in values) or (
        isinstance(value, list) and not param.multiple
    ):
        raise InputError(
            f"{name} must be {'a list of values' if param.multiple else 'one value'}, got {value!r}"
        )
    if isinstance(param, click.Option) and param.is_flag:
        return value
    return [str(one) for one in values] if param.multiple else str(value)


def write_recipe(model_path: Path, resolved: dict[str, Any]) -> Path | None:
    """Write ``NAME.recipe.toml`` beside a model: the settings of the command, those ``resolved`` as they became.

    None for a command that takes no ``--config``. OutputError: it cannot be written.
    """
    ctx = click.get_current_context()
    params = _names(ctx.command)
    if _CONFIG not in params:
        return None
    path = model_path.with_suffix(".recipe.toml")
    lines = [
        f"# histcxr {__version__}; to repeat it:",
        f"#   histcxr {ctx.command_path.partition(' ')[2]} --config {path.name} -o again.histcxr",
    ]
    for name, param in params.items():
        value = resolved.get(name, ctx.params.get(str(param.name)))
        if name in _NOT_RECORDED or value is None or value == () or value == {} or value is False:
            continue
        lines.append(f"{name} = {_toml(value, isinstance(param.type, click.Path) and value != 'boxed')}")
    write_bytes(str(path), ("\n".join(lines) + "\n").encode())
    return path


def _names(command: click.Command) -> dict[str, click.Parameter]:
    """Return a command's parameters by the names that people know: its options' long ones, and data."""
    names = {}
    for param in command.params:
        longest = max(param.opts, key=len).lstrip("-")
        names[longest] = param
    return names


def _toml(value: Any, is_path: bool) -> str:
    if isinstance(value, dict):  # --where
        value = [f"{column}={one}" for column, values in value.items() for one in values]
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(one, is_path) for one in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = str(place_of(value)) if is_path else str(value)
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
