"""``histcxr adapt``."""

from __future__ import annotations

from typing import Any

import click

from histcxr.commands import options


@click.command()
@options.config_option()
@options.manifest_options()
@options.model_option()
@options.output_option("Save the adapted model here (NAME.histcxr).", "model", required=True)
@options.certificate_options
@options.certified_by_option()
@click.option(
    "--certificate",
    type=click.Choice(["out-of-fold", "split"]),
    default="out-of-fold",
    show_default=True,
    help="All patients teach and certify (simulated to hold), or one half each (proven); both are told.",
)
@options.reading_options(lungs="either")
@options.seed_option()
@options.overwrite_option()
@options.json_option()
def command(model: str | None, output: str, overwrite: bool, json_file: str | None, **how: Any) -> None:
    """Adapt a saved model to DATA: 60 or more labelled patients of your own hospital, and certify it on them.

    Recalibrates the model, or blends it with what your patients teach, as cross-validation finds best; a network is
    recalibrated at most. Patients whom it was trained on are left out, and so is a split named test. Without enough
    patients for a promise, the model is saved without one (exit code 3).

    \b
    Example:  histcxr adapt our_patients -m model.histcxr -o ours.histcxr
    """
    from histcxr.files.decoding import muted_decoders
    from histcxr.reports.tables import certified_lines, seen_lines, thresholds_report
    from histcxr.site.adapt import adapt
    from histcxr.site.adapt_report import adaptation_text

    with muted_decoders():
        adapted = adapt(options.read_model(model), **how)
    found, made = adapted.to_dict(), adapted.model
    groups = made.training.get("groups")
    thresholds = {"rule_out": made.rule_out.to_dict(), "rule_in": made.rule_in.to_dict()}
    lines = [adaptation_text(found), "", thresholds_report(thresholds, groups)]
    lines += [*certified_lines(found["certified"]), *seen_lines({"seen": made.training["val"]["left_out"]})]
    options.say("\n".join(lines))
    options.write_model(made, output, overwrite=overwrite)
    options.write_json(
        json_file, {**found, **thresholds, "groups": groups, "left_out": made.training["val"]["left_out"]}
    )
    if not adapted.certified:
        click.get_current_context().exit(3)
