"""``histcxr plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from histcxr.commands import options

if TYPE_CHECKING:
    from histcxr.site.plan import Aim
    from histcxr.study.cohort import Reading

# Options that belong to one of the two uses alone, by their names here.
_OF_PLANS = ("auc", "spread", "split", "sizes", "within", "plot")
_OF_LISTS = ("output", "by_score")


@click.command()
@click.argument("data", type=click.Path(exists=True), required=False)
@options.model_option()
@click.option("--auc", type=float, help="Plan from this assumed AUC instead of DATA and a model.")
@click.option(
    "--spread",
    type=float,
    default=1.0,
    show_default=True,
    help="With --auc: standard deviation of the normals' scores over that of the sick's.",
)
@options.certificate_options
@click.option(
    "--prevalence",
    type=float,
    help="Share of sick among the patients who will be read.  [default: as in DATA]",
)
@click.option(
    "--within",
    type=float,
    default=0.15,
    show_default=True,
    help="Advise the fewest patients that lose so little against endless ones, in 19 of 20 calibrations.",
)
@click.option(
    "--size",
    "sizes",
    type=click.IntRange(min=1),
    multiple=True,
    default=(100, 200, 500, 1000),
    show_default=True,
    help="Patients to tell the worth of; repeatable.",
)
@click.option(
    "--split",
    default="all",
    show_default=True,
    help="Which split of labelled DATA to plan from; 'all' for every row.",
)
@options.plot_option("Draw the plan into this picture, e.g. plan.png.")
@click.option(
    "--draw", type=click.IntRange(min=2), help="Draw so many patients of DATA to have read, into --output."
)
@click.option(
    "--by-score", is_flag=True, help="With --draw: half of them by the scores of --model; needs no labels."
)
@options.output_option("With --draw: write the labelling list here (.csv).", "file")
@options.where_option()
@options.dicom_options
@options.seed_option()
@options.reading_options(lungs="either")
@options.json_option()
@click.pass_context
def command(
    ctx: click.Context, data: str | None, draw: int | None, json_file: str | None, **how: Any
) -> None:
    """Plan how many patients a certificate takes, what it will be worth, and whom to read.

    DATA are labelled radiographs, scored by a model that has not seen them; --auc needs none. Nothing is certified
    here. With --draw, DATA is a folder or CSV without labels, and a list of the patients to have read is written:
    drawn at random, so that all may certify, or with --by-score half at random (these certify) and half by score (to
    adapt or train a model). `histcxr calibrate` takes the list when its labels are filled in.

    \b
    Example:  histcxr plan --auc 0.9 --prevalence 0.1
              histcxr plan study -m model.histcxr --plot plan.png
              histcxr plan --draw 300 incoming -o list.csv
    """
    from histcxr.data.manifest import read_manifest
    from histcxr.files.decoding import muted_decoders
    from histcxr.site.plan import Aim
    from histcxr.study.certify import Promise
    from histcxr.study.cohort import select_rows

    _check(ctx, data, draw, how)
    promise = Promise(*(how[name] for name in ("sensitivity", "specificity", "confidence")))
    aim = Aim(promise, how["prevalence"], how["within"], how["sizes"])
    reading = options.take_reading(how)
    with muted_decoders():
        manifest = None
        if data is not None:
            facts = {name: how[name] for name in ("dicom_tags", "salt")}
            manifest = select_rows(read_manifest(data, require_labels=draw is None, **facts), how["where"])
        text, result = (
            _plan(manifest, aim, reading, **how)
            if draw is None
            else _list(manifest, draw, aim, reading, **how)
        )
    options.say(text)
    options.write_json(json_file, result)


def _check(ctx: click.Context, data: str | None, draw: int | None, how: dict[str, Any]) -> None:
    for name in _OF_PLANS if draw is not None else _OF_LISTS:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = next(one for one in ctx.command.params if one.name == name).opts[-1]
            raise click.UsageError(f"{option} {'does not go with' if draw is not None else 'needs'} --draw")
    if draw is not None and how["model"] is not None and not how["by_score"]:
        raise click.UsageError(
            "--model goes with --draw only where --by-score does: at random nobody is scored"
        )
    if draw is not None and how["output"] is None:
        raise click.UsageError("--draw needs --output, where the list goes")
    if how["auc"] is not None and data is not None:
        raise click.UsageError("give DATA or --auc, not both")
    if how["auc"] is None and data is None:
        raise click.UsageError("give DATA, radiographs to plan from, or --auc")


def _plan(
    manifest: Any,
    aim: Aim,
    reading: Reading,
    model: str | None,
    auc: float | None,
    plot: str | None,
    **how: Any,
) -> tuple[str, dict[str, Any]]:
    from histcxr.reports.planning import plan_report, plot_plan
    from histcxr.site.plan import plan, plan_auc

    if auc is not None:
        found = plan_auc(auc, aim, spread=how["spread"])
    else:
        loaded = options.read_model(model)
        found = plan(loaded, manifest, aim, split=how["split"], reading=reading, seed=how["seed"])
    result = found.to_dict()
    text = plan_report(result)
    if plot is not None:
        text += f"\nDrew {plot_plan(result, plot)}"
    return text, result


def _list(
    manifest: Any, draw: int, aim: Aim, reading: Reading, output: str, **how: Any
) -> tuple[str, dict[str, Any]]:
    from histcxr.reports.planning import labelling_report
    from histcxr.site.labelling import draw_labelling_list

    model = options.read_model(how["model"]) if how["by_score"] else None
    drawn = draw_labelling_list(manifest, draw, by_score=model, aim=aim, reading=reading, seed=how["seed"])
    drawn.write(output)
    result = drawn.to_dict()
    return labelling_report(result, output), result
