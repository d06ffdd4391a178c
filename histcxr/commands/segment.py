"""``histcxr segment`` and ``histcxr segment-train``."""

from __future__ import annotations

from typing import Any

import click

from histcxr.commands import options
from histcxr.exceptions import counted


@click.command()
@options.data_argument()
@options.output_option(
    "A new folder for masks, table and sheet.", "folder", required=True, resumes="segmentation.json"
)
@options.segmenter_option()
@options.anonymous_option
@options.scheduler_option("Find lungs")
@options.overwrite_option("Start anew in the folder of an earlier run.")
@options.jobs_option()
@options.json_option()
def segment(
    data: str,
    output: str,
    segmenter: str | None,
    client: Any,
    overwrite: bool,
    jobs: int,
    json_file: str | None,
) -> None:
    """Find the lungs in every radiograph of DATA, a folder, a CSV or one file.

    OUTPUT gets masks/ with one mask a radiograph, segmentation.csv with one row a file (a reason where no lungs were
    found), and sheet.png: look at it before you trust the masks.

    A run that was stopped goes on where it was when the same command is given again.

    \b
    Example:     histcxr segment incoming -o lungs
                 histcxr triage incoming --masks lungs/masks
    Exit codes:  0 all segmented, 3 some have no mask or there was no image,
                 2 wrong usage, 1 failure
    """
    from histcxr.data.discovery import find_inputs
    from histcxr.files.decoding import muted_decoders
    from histcxr.lungs.folder import segment_folder
    from histcxr.lungs.segmenter import load_segmenter
    from histcxr.reports.text import skipped_lines

    with (
        muted_decoders(),
        options.progress_bar("segmenting", lambda: sum(1 for _ in find_inputs(data))) as show,
    ):
        summary = segment_folder(
            data,
            output,
            segmenter=load_segmenter(segmenter),
            n_jobs=jobs,
            overwrite=overwrite,
            client=client,
            progress=show,
        )
    options.say(
        f"{summary.segmented} of {counted(summary.total, 'radiograph')} segmented in {summary.output}"
    )
    for code, count in sorted(summary.reasons.items()):
        options.say(f"  {count} without lungs: {code}")
    for line in skipped_lines(summary.skipped):
        options.say(f"  {line}")
    if summary.resumed:
        options.say(
            f"  {counted(summary.resumed, 'mask was', 'masks were')} already there from an earlier run"
        )
    options.write_json(json_file, summary.to_dict())
    click.get_current_context().exit(summary.exit_code)


@click.command("segment-train")
@click.argument("data", type=click.Path(exists=True), nargs=-1, required=True)
@options.output_option("The file to write (NAME.onnx).", "file", required=True)
@click.option("--masks", default="mask", show_default=True, help="The column of DATA that names the masks.")
@click.option(
    "--epochs", type=click.IntRange(min=1), default=24, show_default=True, help="Passes through the data."
)
@click.option(
    "--finishing",
    type=click.IntRange(min=0),
    default=8,
    show_default=True,
    help="Further passes, half of the pictures as they are.",
)
@options.seed_option()
@options.jobs_option()
@options.json_option()
def segment_train(
    data: tuple[str, ...],
    output: str,
    masks: str,
    epochs: int,
    finishing: int,
    seed: int,
    jobs: int,
    json_file: str | None,
) -> None:
    """Train the network that finds lungs on DATA: one or more folders or CSVs of radiographs with lung masks.

    Patients of any test split are never trained on; the Dice coefficient is measured on them.

    \b
    Example:  histcxr segment-train study -o lungs.onnx
              histcxr triage incoming -m model.histcxr --segmenter lungs.onnx
    """
    from histcxr.files.decoding import muted_decoders
    from histcxr.lungs.training import SegmenterOptions, build_segmenter

    def show(entry: dict[str, float | int | None]) -> None:
        score = "" if entry["dice"] is None else f", Dice coefficient on validation {entry['dice']:.4f}"
        click.echo(f"epoch {entry['epoch']}: loss {entry['loss']:.4f}{score}", err=True)

    settings = SegmenterOptions(epochs=epochs, finishing=finishing, seed=seed)
    with muted_decoders():
        model, about = build_segmenter(data, masks, settings, n_jobs=jobs, progress=show)
    options.write_bytes(output, model)
    for group, figures in about.get("test", {}).items():
        options.say(
            f"{group}: Dice coefficient {figures['dice']:.4f} (5th percentile {figures['dice_5th']:.4f}) over "
            f"{counted(figures['images'], 'test radiograph')}, {figures['refused']} of them refused"
        )
    options.say(f"Saved to {output} ({len(model) / 1e6:.2f} MB)")
    options.write_json(json_file, about)
