"""Options that several commands share, so that they look and mean the same everywhere."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import click

from histcxr.commands.shell import places
from histcxr.commands.shell.names import anonymous_option, dicom_options
from histcxr.commands.shell.places import OutputPath, keep_stdout, write_bytes, write_json
from histcxr.commands.shell.settings import config_option, write_recipe
from histcxr.commands.shell.terminal import progress_bar, say, show_progress

if TYPE_CHECKING:
    from pathlib import Path

    from histcxr.store.judges import SavedModel
    from histcxr.study.cohort import Reading

# beside what stands below
__all__ = [
    "anonymous_option",
    "config_option",
    "dicom_options",
    "progress_bar",
    "say",
    "write_bytes",
    "write_json",
]

ZONES = ("1", "2", "6", "1+2", "1+6")


def _zones(value: str) -> int | str:
    return int(value) if value.isdigit() else value


def data_argument() -> Any:
    """The radiographs: a folder or a CSV manifest, or the URL of one."""
    return click.argument("data", type=places.InputPath(exists=True))


def output_option(
    help_text: str, kind: str, *, required: bool = False, default: str | None = None, **more: Any
) -> Any:
    """Where the result goes: a ``kind`` of :class:`~histcxr.commands.shell.places.OutputPath`, ``more`` of it."""
    return click.option(
        "-o",
        "--output",
        type=OutputPath(kind, **more),
        required=required,
        default=default,
        show_default=default is not None,
        help=help_text,
    )


class _ModelPath(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and "://" in value and ctx is not None:
            from histcxr.commands.shell.uploads import fetch_folder

            value = places.place_of(value)
            return fetch_folder(value, ctx) if isinstance(value, places.Url) else value
        return value if value == "boxed" else super().convert(value, param, ctx)


def network_option() -> Any:
    """A saved network; the model in the box is none."""
    return click.option("-m", "--model", type=_ModelPath(exists=True), required=True, help="A saved network.")


def model_option(*, two: bool = False) -> Any:
    """A saved model of either kind, by default the one in the box; or two to compare."""
    return click.option(
        "-m",
        "--model",
        "models" if two else "model",
        type=_ModelPath(exists=True),
        multiple=two,
        help='A saved model, of histograms or a network; by default "boxed", the one that comes with histcxr.'
        + (" Give two to compare them on the same patients." if two else ""),
    )


def overwrite_option(help_text: str = "Replace a model that is already there.") -> Any:
    """Whether what is there may be replaced; commands that do not ask for it get one of their own."""
    return places.overwrite_option(help_text)


def read_model(path: str | None, signed_by: str | None = None) -> SavedModel:
    """Load the model of either kind that was named, or the one in the box; signed by a key, where one is given."""
    from histcxr.store import BOXED, load_model

    return load_model(path or BOXED, signed_by=signed_by)


def write_model(model: SavedModel, path: str, *, overwrite: bool, **resolved: Any) -> Path:
    """Save a model of either kind, the settings of the command beside it, and say so."""
    from histcxr.store import save_model

    saved = save_model(model, path, overwrite=overwrite)
    recipe = write_recipe(saved, resolved)
    say(f"Saved {model.name} to {saved}" + (f", its settings to {recipe}" if recipe else ""))
    return saved


def manifest_options(*, labels: bool = True) -> Any:
    """DATA read as a manifest: the rows wanted, with facts from DICOM files where wanted."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def with_manifest(
            *args: Any, data: str, where: Any, dicom_tags: bool, salt: str, **others: Any
        ) -> Any:
            from histcxr.data.manifest import read_manifest
            from histcxr.study.cohort import select_rows

            manifest = read_manifest(data, require_labels=labels, dicom_tags=dicom_tags, salt=salt)
            return function(*args, data=select_rows(manifest, where), **others)

        return data_argument()(where_option()(dicom_options(with_manifest)))

    return decorate


def scheduler_option(help_text: str) -> Any:
    """The workers of a Dask cluster instead of this machine's threads, as ``client``."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def with_client(*args: Any, scheduler: str | None, **others: Any) -> Any:
            if scheduler is None:
                return function(*args, client=None, **others)
            from histcxr.data.cluster import connect

            with connect(scheduler) as client:
                return function(*args, client=client, **others)

        what = f"{help_text} on the workers of this Dask cluster, which see the same files."
        return click.option("--scheduler", metavar="tcp://HOST:8786", help=what)(with_client)

    return decorate


def reading_options(*, lungs: str | None = None, normal: str | None = None, squares: bool = False) -> Any:
    """How images are read, as ``lungs, normal, cache, n_jobs, progress``: two defaults, and whether squares alone are.

    Squares are not kept, so there is no ``--cache``.
    """

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def with_reading(*args: Any, jobs: int, **others: Any) -> Any:
            given = {"cache": None, **others, "n_jobs": jobs, "progress": show_progress()}
            return function(*args, **given)

        for option in (
            jobs_option(),
            *([] if squares else [cache_option()]),
            normal_option(normal),
            lungs_option(lungs),
        ):
            with_reading = option(with_reading)
        return with_reading

    return decorate


def take_reading(options: dict[str, Any]) -> Reading:
    """Take what :func:`reading_options` gave out of the options of a command."""
    from histcxr.study.cohort import Reading

    return Reading(**{name: options.pop(name) for name in ("lungs", "normal", "cache", "n_jobs", "progress")})


def split_option() -> Any:
    """Which part of the data."""
    return click.option(
        "--split", default="test", show_default=True, help="Which split of DATA; 'all' for every row."
    )


def balancing_options(function: Any) -> Any:
    """Two ways to make classes count alike in training."""
    for option in (
        click.option(
            "--class-weight",
            type=click.Choice(["balanced"]),
            help="Weigh classes so that each counts alike in training.",
        ),
        click.option("--undersample", is_flag=True, help="Learn from equally many images of each class."),
    ):
        function = option(function)
    return function


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
        default="none",
        show_default=True,
        callback=lambda ctx, param, value: "" if value == "none" else value,
        help="Filtered images to count beside the intensity: none, travel (best across hospitals), full, or names.",
    )


def recipe_options(function: Any) -> Any:
    """What is counted, by default the recipe that travels best; zones alone mean zones alone."""

    @functools.wraps(function)
    def with_recipe(*args: Any, zones: str | None, bands: str | None, **others: Any) -> Any:
        from histcxr.study.train import usual_recipe

        division, filters = usual_recipe(None if zones is None else _zones(zones), bands)
        return function(*args, zones=division, bands="" if filters in (False, "none") else filters, **others)

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


def lungs_option(default: str | None = None) -> Any:
    """Whose lung masks."""
    return click.option(
        "--lungs",
        type=click.Choice(["given", "found", "either"]),
        default=default,
        show_default=default is not None,
        help="Whose lung masks: DATA's (given), the network's for every image (found), or the network's where DATA has "
        "none (either)." + ("" if default else "  [default: given where DATA has any, else found]"),
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


def normal_option(default: str | None = "Normal") -> Any:
    """The label that means normal."""
    return click.option(
        "--normal",
        default=default,
        show_default=True,
        help="The label that means normal; all others are sick."
        + ("" if default else "  [default: the model's]"),
    )


def cache_option() -> Any:
    """Where counts are kept."""
    return click.option(
        "--cache",
        type=click.Path(file_okay=False),
        help="Keep in this folder what is computed of an image: histograms, what a frozen backbone gives.",
    )


def where_option() -> Any:
    """Keep the rows of a manifest whose column has a value; repeatable."""
    return click.option(
        "--where",
        multiple=True,
        metavar="COLUMN=VALUE",
        callback=_pairs,
        help="Use only these rows, e.g. --where source=rsna.",
    )


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


def by_option(help_text: str) -> Any:
    """Columns whose groups are told apart."""
    return click.option(
        "--by",
        multiple=True,
        metavar="COLUMN[,COLUMN]",
        callback=lambda ctx, param, value: tuple(dict.fromkeys(",".join(value).split(","))) if value else (),
        help=f"{help_text}; repeatable.",
    )


def certified_by_option() -> Any:
    """Columns within whose groups a promise is made."""
    return by_option(
        "Certify within each group of this column, too (view, age_group, source; label: each disease), at a confidence "
        "that all groups share"
    )


def report_option(help_text: str) -> Any:
    """A page to look at."""
    return click.option("--report", type=OutputPath("file"), metavar="PAGE.html", help=help_text)


def plot_option(help_text: str) -> Any:
    """A picture, refused before the work begins."""
    return click.option("--plot", type=OutputPath("file"), callback=_check_picture, help=help_text)


def _check_picture(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    if path is not None:
        from histcxr.reports.drawing import check_picture

        check_picture(path)
    return path


def json_option() -> Any:
    """The same result for machines."""
    return click.option(
        "--json",
        "json_file",
        type=OutputPath("json"),
        callback=keep_stdout,
        help="Also write the result as JSON; - writes it to stdout, and all else to stderr.",
    )


def table_rows(table: Any) -> list[dict[str, Any]]:
    """Turn a pandas table into rows for :func:`write_json`: what is missing becomes None."""
    return [
        {
            str(key): None if isinstance(value, float) and math.isnan(value) else value
            for key, value in row.items()
        }
        for row in table.to_dict("records")
    ]
