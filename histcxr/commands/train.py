"""``histcxr train``."""

from __future__ import annotations

import click

from histcxr.commands import options


@click.command()
@options.data_argument()
@options.output_option("Save the model with the best cross-validated AUC here (NAME.histcxr).")
@click.option(
    "--classifier",
    "classifiers",
    multiple=True,
    default=("stack",),
    show_default=True,
    help="knn, svm, random-forest, xgboost, lenet, stack or all; repeatable.",
)
@options.recipe_options
@options.certificate_options
@click.option(
    "--trials", type=click.IntRange(min=0), default=None, help="Settings to try per classifier; 0: no tuning."
)
@click.option(
    "--tuned",
    multiple=True,
    type=click.Path(exists=True),
    help="Use what `histcxr tune` found, its folder; repeatable.",
)
@options.lungs_option("given", "found", "either")
@options.normal_option()
@options.where_option()
@options.dicom_options
@click.option("--cache", type=click.Path(file_okay=False), help="Keep extracted histograms in this folder.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="For XGBoost."
)
@click.option("--overwrite", is_flag=True, help="Replace a model that is already there.")
@options.seed_option()
@options.jobs_option()
@options.json_option()
def command(
    data: str,
    output: str | None,
    classifiers: tuple[str, ...],
    zones: int | str,
    bands: str,
    sensitivity: float,
    specificity: float,
    confidence: float,
    trials: int | None,
    tuned: tuple[str, ...],
    lungs: str | None,
    normal: str,
    where: dict[str, list[str]],
    dicom_tags: bool,
    salt: str,
    cache: str | None,
    device: str,
    overwrite: bool,
    seed: int,
    jobs: int,
    json_file: str | None,
) -> None:
    """Train classifiers on DATA, a folder or CSV of labelled radiographs, with lung masks or without.

    Tuned by cross-validation on the training patients, certified on the validation patients, and measured
    once on the test patients. DATA's own split is used where it has one.

    \b
    Example:  histcxr train study -o model.histcxr
              histcxr train study --classifier all --zones 6
    """
    from histcxr.data.manifest import read_manifest
    from histcxr.features.recipe import Recipe
    from histcxr.files.decoding import muted_decoders
    from histcxr.reports.evaluation import training_report
    from histcxr.store import save_model
    from histcxr.study.cohort import select_rows
    from histcxr.study.train import train
    from histcxr.study.tune import read_all_settings

    manifest = read_manifest(data, require_labels=True, dicom_tags=dicom_tags, salt=salt)
    with muted_decoders():  # TensorFlow, too, greets on the terminal
        result = train(
            select_rows(manifest, where),
            classifiers=classifiers,
            zones=zones,
            bands=bands,
            sensitivity=sensitivity,
            specificity=specificity,
            confidence=confidence,
            trials=trials,
            tuned={
                name: settings.parameters
                for name, settings in read_all_settings(tuned, Recipe(zones, bands)).items()
            },
            lungs=lungs,
            normal=normal,
            cache=cache,
            device=device,
            seed=seed,
            n_jobs=jobs,
            progress=options.show_progress(),
        )
    click.echo(training_report(result.report))
    options.write_json(json_file, result.report)
    if output is not None:
        path = save_model(result.best, output, overwrite=overwrite)
        click.echo(f"\nSaved {result.best.name} to {path}")
