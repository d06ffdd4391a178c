"""``histcxr triage``."""

from __future__ import annotations

import click

from histcxr.commands import options


@click.command()
@options.data_argument()
@options.model_option(networks=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    default="worklist.csv",
    show_default=True,
    help="The worklist: .csv, .jsonl or .parquet by its name.",
)
@click.option(
    "--masks", type=click.Path(exists=True, file_okay=False), help="Folder of lung masks, same names."
)
@click.option(
    "--no-segment",
    is_flag=True,
    help="Send images without a mask to review; with a network that sees the full image, too: the lungs are what "
    "shows that it is a chest to be judged.",
)
@options.segmenter_option()
@click.option(
    "--sort",
    type=click.Choice(["input", "urgency"]),
    default="input",
    show_default=True,
    help="Order of the rows: as found, or the most urgent first.",
)
@click.option(
    "--uids",
    is_flag=True,
    help="Add study_uid, series_uid and sop_uid of DICOM files: they lead back to the patient.",
)
@click.option("--overwrite", is_flag=True, help="Start anew over an earlier worklist of the same name.")
@options.jobs_option()
@options.json_option()
@click.pass_context
def command(
    ctx: click.Context,
    data: str,
    model: str | None,
    output: str,
    masks: str | None,
    no_segment: bool,
    segmenter: str | None,
    sort: str,
    uids: bool,
    overwrite: bool,
    jobs: int,
    json_file: str | None,
) -> None:
    """Sort the radiographs in DATA (a folder, a CSV or one file) into rule_out, review and rule_in.

    Each input becomes exactly one row. The lungs of an image without a mask are found by a network; whatever
    cannot be judged goes to review with a reason, whether a histogram model or a reference network judges. A run
    that was stopped goes on where it was when the same command is given again.

    \b
    Example:     histcxr triage incoming
                 histcxr triage incoming -m model.histcxr -o worklist.csv
                 histcxr triage incoming -m net.histcxr -o worklist.csv
    Exit codes:  0 all judged, 3 some files need attention, 2 wrong usage, 1 failure
    """
    from histcxr.files.decoding import muted_decoders
    from histcxr.reports.evaluation import triage_report
    from histcxr.worklist.engine import triage

    # What a decoder has to say of a broken file stands in its row; a network's backend only greets.
    with muted_decoders():
        result = triage(
            data,
            options.read_judge(model),
            output,
            masks=masks,
            segment=not no_segment,
            segmenter=segmenter,
            n_jobs=jobs,
            sort=sort,
            uids=uids,
            overwrite=overwrite,
        )
    summary = result.to_dict()
    click.echo(triage_report(summary), err=True)
    options.write_json(json_file, summary)
    ctx.exit(summary["exit_code"])
