"""``histcxr reference calibrate``."""

from __future__ import annotations

import click

from histcxr.commands import options
from histcxr.commands.reference_evaluate import network_option


@click.command()
@options.data_argument()
@network_option()
@options.output_option("Save the certified network here (NAME.histcxr).", required=True)
@options.certificate_options
@click.option("--split", default="val", show_default=True, help="Which split of DATA; 'all' for every row.")
@click.option(
    "--views",
    type=click.IntRange(1, 64),
    help="Score an image by so many views of it from now on.  [default: as before]",
)
@click.option(
    "--lungs",
    type=click.Choice(["given", "found", "either"]),
    help="Whose lung masks.  [default: as the network was trained]",
)
@options.where_option()
@click.option("--overwrite", is_flag=True, help="Replace a network that is already there.")
@options.jobs_option()
@options.json_option()
def calibrate(
    data: str,
    model: str,
    output: str,
    sensitivity: float,
    specificity: float,
    confidence: float,
    split: str,
    views: int | None,
    lungs: str | None,
    where: dict[str, list[str]],
    overwrite: bool,
    jobs: int,
    json_file: str | None,
) -> None:
    """Certify a saved network's thresholds anew on DATA: labelled radiographs of your own patients.

    The patients must not have been used to train it; those that were are left out.

    \b
    Example:  histcxr reference calibrate our_patients -m net.histcxr -o ours.histcxr --split all
    """
    from histcxr.data.manifest import read_manifest
    from histcxr.files.decoding import muted_decoders
    from histcxr.reports.evaluation import thresholds_report
    from histcxr.store import check_place, save_model
    from histcxr.study.cohort import select_rows
    from histcxr.study.network_calibrate import calibrate_reference

    check_place(output, overwrite)
    with muted_decoders():
        calibrated = calibrate_reference(
            options.read_network(model),
            select_rows(read_manifest(data, require_labels=True), where),
            views=views,
            sensitivity=sensitivity,
            specificity=specificity,
            confidence=confidence,
            split=None if split == "all" else split,
            lungs=lungs,
            n_jobs=jobs,
            progress=options.show_progress(),
        )
    path = save_model(calibrated, output, overwrite=overwrite)
    thresholds = {"rule_out": calibrated.rule_out.to_dict(), "rule_in": calibrated.rule_in.to_dict()}
    click.echo(thresholds_report(thresholds))
    click.echo(f"Saved {calibrated.name} to {path}")
    options.write_json(json_file, thresholds)
