"""``histcxr extract``."""

from __future__ import annotations

import click

from histcxr.commands import options


@click.command()
@options.data_argument()
@options.output_option("The table to write: .parquet, .csv or .npz by its name.", required=True)
@options.zones_option()
@options.bands_option()
@options.lungs_option("either", "given", "found", default="either")
@options.where_option()
@options.dicom_options
@click.option("--cache", type=click.Path(file_okay=False), help="Keep extracted histograms in this folder.")
@options.jobs_option()
@options.json_option()
def command(
    data: str,
    output: str,
    zones: int | str,
    bands: str,
    lungs: str,
    where: dict[str, list[str]],
    dicom_tags: bool,
    salt: str,
    cache: str | None,
    jobs: int,
    json_file: str | None,
) -> None:
    """Reduce DATA, a folder or CSV of radiographs, to 256-bin lung histograms.

    Every image becomes a row; one that cannot be used has zeros for counts and says why in `reason`.

    \b
    Example:  histcxr extract study --zones 6 -o histograms.parquet
    """
    from histcxr.data.manifest import read_manifest
    from histcxr.features.extraction import check_format, extract_features, write_features
    from histcxr.study.cohort import select_rows

    check_format(output)  # before the work, not after it
    features = extract_features(
        select_rows(read_manifest(data, dicom_tags=dicom_tags, salt=salt), where),
        zones=zones,
        bands=bands,
        lungs=lungs,
        n_jobs=jobs,
        cache=cache,
        progress=options.show_progress(),
    )
    write_features(features, output)
    unusable = features.table.loc[~features.usable]
    reasons = {str(code): int(count) for code, count in unusable["reason"].value_counts().items()}
    click.echo(
        f"{int(features.usable.sum())} of {len(features.table)} radiographs reduced to histograms in {output}"
    )
    for code, count in reasons.items():
        click.echo(f"  {count} not usable: {code}")
    options.write_json(
        json_file,
        {
            "output": output,
            "images": len(features.table),
            "usable": int(features.usable.sum()),
            "reasons": reasons,
        },
    )
