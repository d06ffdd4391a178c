"""``histcxr evaluate``."""

from __future__ import annotations

from typing import Any

import click

from histcxr.commands import options


@click.command()
@options.manifest_options()
@options.model_option(two=True)
@options.output_option(
    "Draw a network's confusion matrix and ROC curves into this folder.", "folder", earlier="all.png"
)
@options.report_option(
    "Also write a page to look at, one HTML file: curves, calls, subgroups, errors, reporting items."
)
@options.split_option()
@options.by_option("Also within each value of this column")
@click.option("--prevalence", type=float, help="Share of sick patients where PPV and NPV should hold.")
@options.reading_options(lungs="either")
@options.json_option()
def command(
    models: tuple[str, ...], output: str | None, report: str | None, json_file: str | None, **how: Any
) -> None:
    """Measure a saved model on DATA, a folder or CSV of labelled radiographs, with lung masks or without.

    Two models, of histograms or networks, are compared on the same patients. Where figures contradict a certified
    promise, the exit code is 3.

    \b
    Example:  histcxr evaluate study -m model.histcxr --by source
              histcxr evaluate study -m model.histcxr -m network.histcxr
    """
    import os
    from functools import partial

    from histcxr.files.decoding import muted_decoders
    from histcxr.reports.page import check_page, require_page
    from histcxr.reports.pages.evaluation import write_evaluation
    from histcxr.reports.plots import plot_evaluation
    from histcxr.reports.text import comparison_report, evaluation_report
    from histcxr.study.evaluate import compare, evaluate
    from histcxr.study.evidence import closer_look

    if report is not None:
        check_page(report)
        require_page()
    if len(models) > 2:
        raise click.UsageError(f"give one model, or two to compare; got {len(models)}")
    with muted_decoders():  # a network's backend greets on the terminal
        loaded = [options.read_model(path) for path in models or (None,)]
        if output is not None and (len(loaded) > 1 or "inputs" not in loaded[0].describe_input()):
            raise click.UsageError("pictures are drawn of the calls of one network: leave out --output")
        if report is not None and len(loaded) > 1:
            raise click.UsageError("a page is about one model: leave out --report, or one of the models")
        if len(loaded) > 1:
            result = compare(loaded, how.pop("data"), options.take_reading(how), **how)
        else:
            look = (
                None if report is None else partial(closer_look, by=how["by"], prevalence=how["prevalence"])
            )
            result = evaluate(loaded[0], **how, look=look)
    options.say(comparison_report(result) if len(loaded) > 1 else evaluation_report(result))
    options.write_json(json_file, result)
    if report is not None:
        write_evaluation(
            result, report, os.path.basename(os.path.abspath(click.get_current_context().params["data"]))
        )
        options.say(f"\nLook at {report}")
    if output is not None:
        options.say(f"\nDrew {plot_evaluation(result, output)}")
    if any(one.get("contradicted") for one in (result, *result.get("models", ()))):
        click.get_current_context().exit(3)
