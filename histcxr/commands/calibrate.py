"""``histcxr calibrate``."""

from __future__ import annotations

import click

from histcxr.commands import options


@click.command()
@options.data_argument()
@options.model_option()
@options.output_option("Save the certified model here (NAME.histcxr).", required=True)
@options.certificate_options
@click.option("--split", default="all", show_default=True, help="Which split of DATA to calibrate on.")
@options.lungs_option("either", "given", "found", default="either")
@options.dicom_options
@options.normal_option()
@options.where_option()
@click.option("--overwrite", is_flag=True, help="Replace a model that is already there.")
@click.option("--cache", type=click.Path(file_okay=False), help="Keep extracted histograms in this folder.")
@options.jobs_option()
@options.json_option()
def command(
    data: str,
    model: str | None,
    output: str,
    sensitivity: float,
    specificity: float,
    confidence: float,
    split: str,
    lungs: str,
    dicom_tags: bool,
    salt: str,
    normal: str,
    where: dict[str, list[str]],
    overwrite: bool,
    cache: str | None,
    jobs: int,
    json_file: str | None,
) -> None:
    """Certify a saved model's thresholds anew on DATA: labelled radiographs of your own patients.

    A threshold is a promise about patients like those it was certified on. Do this before a model judges
    another hospital's radiographs; the patients must not have been used to train it.

    \b
    Example:  histcxr calibrate our_patients -m model.histcxr -o ours.histcxr --sensitivity 0.98
    """
    from histcxr.data.manifest import read_manifest
    from histcxr.reports.evaluation import thresholds_report
    from histcxr.store import save_model
    from histcxr.study.cohort import select_rows
    from histcxr.study.train import calibrate

    loaded = options.read_model(
        model, instead="histcxr reference calibrate certifies the thresholds of a network"
    )
    manifest = read_manifest(data, require_labels=True, dicom_tags=dicom_tags, salt=salt)
    calibrated = calibrate(
        loaded,
        select_rows(manifest, where),
        sensitivity=sensitivity,
        specificity=specificity,
        confidence=confidence,
        split=None if split == "all" else split,
        lungs=lungs,
        normal=normal,
        cache=cache,
        n_jobs=jobs,
        progress=options.show_progress(),
    )
    thresholds = {"rule_out": calibrated.rule_out.to_dict(), "rule_in": calibrated.rule_in.to_dict()}
    click.echo(thresholds_report(thresholds))
    options.write_json(json_file, thresholds)
    path = save_model(calibrated, output, overwrite=overwrite)
    click.echo(f"Saved {calibrated.name} to {path}")
