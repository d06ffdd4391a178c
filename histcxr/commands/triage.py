"""``histcxr triage``, and ``histcxr report`` about a triage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from histcxr.commands import options
from histcxr.commands.shell.places import InputPath
from histcxr.exceptions import counted

if TYPE_CHECKING:
    from histcxr.worklist.summary import TriageSummary

NAMED = 5  # files that the terminal names for each reason


def default_worklist(data: str) -> str:
    """Name a worklist after its folder, list or file, so that yesterday's is not in the way of another folder's."""
    name = Path(data).resolve().name
    return f"worklist-{name if Path(data).is_dir() else Path(name).stem}.csv"


@click.command()
@options.data_argument()
@options.model_option()
@click.option(
    "--then",
    type=click.Path(exists=True),
    help="A network that judges what the model leaves open, without a promise; with one: histcxr calibrate --then.",
)
@options.output_option(
    "The worklist: .csv, .jsonl or .parquet by its name.  [default: worklist-NAME.csv, NAME being DATA's]",
    "worklist",
    resumes=".audit.jsonl",
    beside=(".audit.jsonl", ".partial"),
    named=default_worklist,
)
@click.option(
    "--masks", type=InputPath(exists=True, file_okay=False), help="Folder of lung masks, same names."
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
@click.option(
    "--trust-site",
    is_flag=True,
    help="Let drawers stand where the folder differs from the hospitals that certified the model; without a promise.",
)
@options.scheduler_option("Judge")
@click.option(
    "--require-signature",
    type=click.Path(exists=True, dir_okay=False),
    metavar="PUBLIC.pem",
    help="Use the model only if the owner of this public key signed it (histcxr models sign).",
)
@options.anonymous_option
@options.report_option(
    "Also write a page to look at, one HTML file: all rows, the most urgent with pictures."
)
@click.option("--profile", is_flag=True, help="Also print where the time went, stage by stage.")
@options.overwrite_option("Start anew over an earlier worklist of the same name.")
@options.jobs_option()
@options.json_option()
@click.pass_context
def triage(
    ctx: click.Context,
    data: str,
    model: str | None,
    then: str | None,
    output: str,
    masks: str | None,
    no_segment: bool,
    segmenter: str | None,
    sort: str,
    uids: bool,
    trust_site: bool,
    client: Any,
    require_signature: str | None,
    report: str | None,
    profile: bool,
    overwrite: bool,
    jobs: int,
    json_file: str | None,
) -> None:
    """Sort the radiographs in DATA (a folder, a CSV or one file) into rule_out, review and rule_in.

    DATA, masks and results may be URLs, such as s3://bucket/incoming. Each input becomes exactly one row. The lungs
    of an image without a mask are found by a network; whatever cannot be judged goes to review with a reason, whether a
    histogram model or a reference network judges. A run that was stopped goes on where it was when the same command is
    given again.

    \b
    Example:     histcxr triage incoming
                 histcxr triage incoming -m model.histcxr --sort urgency
                 histcxr triage incoming -m net.histcxr -o worklist.csv
    Exit codes:  0 all judged, 3 some files need attention,
                 2 wrong usage, 1 failure
    """
    from histcxr.data.discovery import find_inputs
    from histcxr.files.decoding import muted_decoders
    from histcxr.files.stages import stages
    from histcxr.reports.text import triage_report
    from histcxr.store import Cascade
    from histcxr.worklist.engine import triage as sort_folder

    if report is not None:
        from histcxr.reports.page import check_page, require_page

        check_page(report)
        require_page()
    # What a decoder has to say of a broken file stands in its row; a network's backend only greets.
    with (
        muted_decoders(),
        options.progress_bar("judging", lambda: sum(1 for _ in find_inputs(data, masks))) as show,
        stages() as seconds,
    ):
        loaded = options.read_model(model, require_signature)
        if then is not None:
            loaded = Cascade.of(loaded, options.read_model(then, require_signature))
        result = sort_folder(
            data,
            loaded,
            output,
            masks=masks,
            segment=not no_segment,
            segmenter=segmenter,
            n_jobs=jobs,
            sort=sort,
            uids=uids,
            trust_site=trust_site,
            client=client,
            overwrite=overwrite,
            progress=show,
        )
        summary = result.to_dict()
        if report is not None:
            from histcxr.lungs.segmenter import load_segmenter
            from histcxr.worklist.pages import write_triage_page

            finder = None if no_segment else load_segmenter(segmenter)
            figures = write_triage_page(result, loaded, report, segmenter=finder, n_jobs=jobs)
            summary["report"] = figures
    options.say(triage_report(summary))
    if report is not None:
        options.say(f"Look at {report}")
    if profile:
        summary["profile"] = {"processor_seconds": dict(seconds), "bytes_a_row": _bytes_a_row(result)}
        options.say("\n" + _profile_text(summary["profile"], result.total))
    options.write_json(json_file, summary)
    ctx.exit(summary["exit_code"])


def _bytes_a_row(result: TriageSummary) -> dict[str, float]:
    rows = max(1, result.total)
    return {Path(name).name: Path(name).stat().st_size / rows for name in (result.output, result.audit)}


def _profile_text(profile: dict[str, Any], rows: int) -> str:
    """Lay out where the time and the disk went."""
    from histcxr.reports.tables import markdown_table

    seconds: dict[str, float] = profile["processor_seconds"]
    total = sum(seconds.values())
    found = [
        {"stage": name, "seconds": value, "ms a row": 1000 * value / max(1, rows), "share": value / total}
        for name, value in seconds.items()
    ]
    disk = ", ".join(f"{value:,.0f} in {name}" for name, value in profile["bytes_a_row"].items())
    return f"{markdown_table(found)}\nProcessor seconds of all threads. Bytes a row: {disk}"


@click.command()
@click.argument("worklist", type=click.Path(exists=True, dir_okay=False))
@options.output_option("A new or empty folder for the reports and reports.csv.", "folder", required=True)
@click.option(
    "--audit",
    type=click.Path(exists=True, dir_okay=False),
    help="The audit trail.  [default: WORKLIST.audit.jsonl]",
)
@options.json_option()
@click.pass_context
def report(ctx: click.Context, worklist: str, output: str, audit: str | None, json_file: str | None) -> None:
    """Write one DICOM Structured Report for each study of a finished triage.

    THE REPORTS NAME THE PATIENTS: name, number, birth date, sex and study are copied from the images, so that an
    archive can file them. Keep them where the images may be kept. Nothing else that histcxr writes does so.

    WORKLIST and its audit trail must be as `histcxr triage` left them, and the images where it found them. OUTPUT gets
    SR000001.dcm and so on, and reports.csv: for each row of WORKLIST its report, or why it is in none (a PNG belongs
    to no study). Needs the extra report-dicom.

    \b
    Example:     histcxr report worklist.csv -o reports
    Exit codes:  0 every file is in a report, 3 some are not,
                 2 wrong usage, 1 failure
    """
    from histcxr.worklist.study_reports import TABLE, write_study_reports

    result = write_study_reports(worklist, output, audit=audit)
    options.say(
        f"{counted(result.reports, 'report')} about {result.images} of {counted(result.total, 'file')} in {output}"
    )
    for reason, files in result.left_out.items():
        names = ", ".join(files[:NAMED])
        more = f" and {len(files) - NAMED} more in {TABLE}" if len(files) > NAMED else ""
        options.say(f"  {len(files)} left out: {reason}: {names}{more}")
    options.say(
        "For research use only. The reports name the patients: keep them where the images may be kept."
    )
    options.write_json(json_file, result.to_dict())
    ctx.exit(result.exit_code)
