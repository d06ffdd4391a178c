"""``histcxr segment``."""

from __future__ import annotations

import click

from histcxr.commands import options


@click.command()
@options.data_argument()
@options.output_option("A new folder for masks, table and sheet.", required=True)
@options.segmenter_option()
@click.option("--overwrite", is_flag=True, help="Write into a folder that exists.")
@options.jobs_option()
@options.json_option()
def command(
    data: str, output: str, segmenter: str | None, overwrite: bool, jobs: int, json_file: str | None
) -> None:
    """Find the lungs in every radiograph of DATA, a folder, a CSV or one file.

    OUTPUT gets masks/ with one mask a radiograph, segmentation.csv with one row a file (a reason where no lungs were
    found), and sheet.png: look at it before you trust the masks.

    \b
    Example:  histcxr segment incoming -o lungs
              histcxr triage incoming --masks lungs/masks
    """
    from histcxr.files.decoding import muted_decoders
    from histcxr.lungs.folder import segment_folder
    from histcxr.lungs.segmenter import load_segmenter

    with muted_decoders():
        summary = segment_folder(
            data, output, segmenter=load_segmenter(segmenter), n_jobs=jobs, overwrite=overwrite
        )
    click.echo(f"{summary.segmented} of {summary.total} radiographs segmented in {summary.output}")
    for code, count in sorted(summary.reasons.items()):
        click.echo(f"  {count} without lungs: {code}")
    options.write_json(json_file, summary.to_dict())
