"""``histcxr calibrate``."""

from __future__ import annotations

from typing import Any

import click

from histcxr.commands import options


@click.command()
@options.config_option()
@options.manifest_options()
@options.model_option()
@click.option(
    "--then",
    type=click.Path(exists=True),
    help="A network that judges what the model leaves open; both are certified as one. A quarter of the patients says "
    "what that is.",
)
@options.output_option("Save the certified model here (NAME.histcxr).", "model", required=True)
@options.certificate_options
@options.certified_by_option()
@click.option(
    "--split",
    help="Which split of DATA to calibrate on; 'all' for every row.  [default: val where DATA names it, else all]",
)
@click.option(
    "--views",
    type=click.IntRange(1, 64),
    help="Networks: score an image by so many views of it from now on.  [default: as before]",
)
@options.reading_options(lungs="either")
@options.scheduler_option("Count")
@options.overwrite_option()
@options.json_option()
def command(
    model: str | None, then: str | None, output: str, overwrite: bool, json_file: str | None, **how: Any
) -> None:
    """Certify a saved model's thresholds anew on DATA: labelled radiographs of your own patients.

    A threshold is a promise about patients like those it was certified on. Do this before a model, of histograms or a
    network, judges another hospital's radiographs. Patients whom it was trained on are left out.

    \b
    Example:  histcxr calibrate our_patients -o ours.histcxr --sensitivity 0.98
              histcxr calibrate ours -m a.histcxr --then net.histcxr -o c.histcxr
    """
    from histcxr.files.decoding import muted_decoders
    from histcxr.reports.tables import certified_lines, seen_lines, thresholds_report
    from histcxr.study.certify import calibrate

    with muted_decoders():
        network: Any = None if then is None else options.read_model(then)
        calibrated = calibrate(options.read_model(model), then=network, **how)
    thresholds = {"rule_out": calibrated.rule_out.to_dict(), "rule_in": calibrated.rule_in.to_dict()}
    training = calibrated.training
    certified, groups, left_out = training["certified"], training.get("groups"), training["val"]["left_out"]
    lines = [
        thresholds_report(thresholds, groups),
        *certified_lines(certified),
        *seen_lines({"seen": left_out}),
    ]
    options.say("\n".join(lines))
    options.write_model(calibrated, output, overwrite=overwrite)
    options.write_json(
        json_file, {**thresholds, "groups": groups, "certified": certified, "left_out": left_out}
    )
