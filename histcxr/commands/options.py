"""Options that several commands share, so that they look and mean the same everywhere."""

from __future__ import annotations

import functools
import json
import math
import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

SALT_VARIABLE = "HISTCXR_SALT"
if TYPE_CHECKING:
    from histcxr.store import Judge, Model, ReferenceModel

ZONES = ("1", "2", "6", "1+2", "1+6")


def _zones(value: str) -> int | str:
    return int(value) if value.isdigit() else value


def data_argument() -> Any:
    """The radiographs: a folder or a CSV manifest."""
    return click.argument("data", type=click.Path(exists=True))


def output_option(help_text: str, *, required: bool = False) -> Any:
    """Where the result goes."""
    return click.option("-o", "--output", type=click.Path(), required=required, help=help_text)


def model_option(*, networks: bool = False) -> Any:
    """A saved model, or the one in the box; where it may, a network that sees the image itself."""
    kinds = "NAME.histcxr, also of a network" if networks else "NAME.histcxr"
    return click.option(
        "-m",
        "--model",
        type=click.Path(exists=True),
        help=f"A saved model ({kinds}); by default the one that comes with histcxr.",
    )


def read_model(
    path: str | None, *, instead: str = "histcxr triage and histcxr reference take networks"
) -> Model:
    """Load the model that was named, or the one in the box; say what to do with a network ``instead``."""
    from histcxr.exceptions import InputError
    from histcxr.store import BOXED, Model, load_model

    model = load_model(BOXED if path is None else path)
    if not isinstance(model, Model):
        raise InputError(f"{path} is a reference network, and this command takes histogram models; {instead}")
    return model


def read_network(path: str) -> ReferenceModel:
    """Load the network that was named."""
    from histcxr.exceptions import InputError
    from histcxr.store import ReferenceModel, load_model

    model = load_model(path)
    if not isinstance(model, ReferenceModel):
        raise InputError(
            f"{path} is a histogram model, and this command takes networks; histcxr evaluate takes it"
        )
    return model


def read_judge(path: str | None) -> Judge:
    """Load the model or the network that was named, or the model in the box."""
    from histcxr.store import BOXED, load_model

    return load_model(BOXED if path is None else path)


def zones_option() -> Any:
    """How the lungs are divided."""
    return click.option(
        "--zones",
        type=click.Choice(ZONES),
        default="1",
        show_default=True,
        callback=lambda ctx, param, value: _zones(value),
        help="1 both lungs, 2 each lung, 6 each lung in thirds; 1+2 and 1+6 add the whole.",
    )


def bands_option() -> Any:
    """Filtered images beside the intensity."""
    return click.option(
        "--bands",
        default="",
        help="Filtered images to count beside the intensity: travel (best across hospitals), full, or names.",
    )


def recipe_options(function: Any) -> Any:
    """What is counted, by default the recipe that travels best; zones alone mean zones alone."""

    @functools.wraps(function)
    def with_recipe(*args: Any, zones: str | None, bands: str | None, **others: Any) -> Any:
        if bands is None:
            bands = "travel" if zones is None else ""
        return function(
            *args,
            zones=_zones(zones) if zones is not None else 6,
            bands="" if bands == "none" else bands,
            **others,
        )

    with_recipe = click.option(
        "--bands",
        default=None,
        help="Filtered images to count beside the intensity: none, travel (best across hospitals), full, or names.  "
        "[default: travel; none where --zones is given]",
    )(with_recipe)
    return click.option(
        "--zones",
        type=click.Choice(ZONES),
        default=None,
        help="1 both lungs, 2 each lung, 6 each lung in thirds; 1+2 and 1+6 add the whole.  [default: 6]",
    )(with_recipe)


def dicom_options(function: Any) -> Any:
    """Facts from the DICOM files themselves, and their patients as pseudonyms that a secret makes."""

    @functools.wraps(function)
    def with_dicom(*args: Any, dicom_tags: bool, salt: str, **others: Any) -> Any:
        source = click.get_current_context().get_parameter_source("salt")
        if source is ParameterSource.COMMANDLINE and not (dicom_tags and salt):
            raise click.BadParameter(
                "must not be empty: without a secret the pseudonyms could be guessed"
                if dicom_tags
                else "is of use with --dicom-tags only",
                param_hint="'--salt'",
            )
        return function(*args, dicom_tags=dicom_tags, salt=salt if dicom_tags else "", **others)

    with_dicom = click.option(
        "--salt",
        envvar=SALT_VARIABLE,
        show_envvar=True,
        default="",
        metavar="TEXT",
        help="A secret: with it --dicom-tags also tells patients apart, by pseudonyms in patient_id. Give the same for "
        "all data that belongs together; set the variable rather than have it in the shell's history.",
    )(with_dicom)
    return click.option(
        "--dicom-tags",
        is_flag=True,
        help="Fill view, laterality, sex, age_group and modality from DICOM files where DATA does not say them.",
    )(with_dicom)


def lungs_option(*choices: str, default: str | None = None) -> Any:
    """Whose lung masks."""
    usual = "" if default else "  [default: given where DATA has any, else found]"
    return click.option(
        "--lungs",
        type=click.Choice(choices),
        default=default,
        show_default=default is not None,
        help="Whose lung masks: DATA's (given), the network's for every image (found)"
        + (", or the network's where DATA has none (either)." if "either" in choices else ".")
        + usual,
    )


def segmenter_option() -> Any:
    """Another network that finds lungs."""
    return click.option(
        "--segmenter",
        type=click.Path(exists=True, dir_okay=False),
        help="Find lungs with this file of `histcxr segment-train` instead of the network that comes with histcxr.",
    )


def jobs_option() -> Any:
    """How many threads or processes work at once."""
    return click.option(
        "-j", "--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Parallel workers."
    )


def seed_option() -> Any:
    """The seed of everything random."""
    return click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed."
    )


def normal_option() -> Any:
    """The label that means normal."""
    return click.option(
        "--normal",
        default="Normal",
        show_default=True,
        help="The label that means normal; all others are sick.",
    )


def where_option(
    name: str = "--where", help_text: str = "Use only these rows, e.g. --where source=rsna."
) -> Any:
    """Keep the rows of a manifest whose column has a value; repeatable."""
    return click.option(name, multiple=True, metavar="COLUMN=VALUE", callback=_pairs, help=help_text)


def _pairs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, list[str]]:
    pairs: dict[str, list[str]] = {}
    for item in value:
        column, equals, wanted = item.partition("=")
        if not column or not equals:
            raise click.BadParameter(f"must look like COLUMN=VALUE, got {item!r}")
        pairs.setdefault(column, []).append(wanted)
    return pairs


def _fraction(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 < value < 1:
        raise click.BadParameter(f"must lie between 0 and 1, e.g. 0.95, got {value:g}")
    return value


def certificate_options(function: Any) -> Any:
    """The promise: sensitivity of rule-out, specificity of rule-in, and the confidence of both."""
    for name, text in (
        ("--confidence", "How sure the promise is."),
        ("--specificity", "Specificity that rule_in promises."),
        ("--sensitivity", "Sensitivity that rule_out promises."),
    ):
        function = click.option(
            name, type=float, default=0.95, show_default=True, callback=_fraction, help=text
        )(function)
    return function


def json_option() -> Any:
    """The same result for machines."""
    return click.option(
        "--json", "json_file", type=click.Path(dir_okay=False), help="Also write the result as JSON."
    )


def show_progress() -> bool:
    """Say whether somebody is watching: a progress bar in a log file helps nobody."""
    return sys.stderr.isatty()


def table_rows(table: Any) -> list[dict[str, Any]]:
    """Turn a pandas table into rows for :func:`write_json`: what is missing becomes None."""
    return [
        {
            str(key): None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]


def write_bytes(path: str, content: bytes) -> None:
    """Write a file."""
    try:
        with open(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise click.FileError(path, hint=error.strerror or str(error)) from error


def write_json(path: str | None, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path`` if there is one, as strict JSON (no NaN, no Infinity)."""
    if path is None:
        return
    text = json.dumps(content, indent=2, allow_nan=False)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise click.FileError(path, hint=error.strerror or str(error)) from error
