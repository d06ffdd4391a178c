"""``histcxr report``."""

from __future__ import annotations

import click

from histcxr.commands import options

NAMED = 5  # files that the terminal names for each reason


@click.command()
@click.argument("worklist", type=click.Path(exists=True, dir_okay=False))
@options.output_option("A new or empty folder for the reports and reports.csv.", required=True)
@click.option(
    "--audit",
    type=click.Path(exists=True, dir_okay=False),
    help="The audit trail.  [default: WORKLIST.audit.jsonl]",
)
@options.json_option()
@click.pass_context
def command(ctx: click.Context, worklist: str, output: str, audit: str | None, json_file: str | None) -> None:
    """Write one DICOM Structured Report for each study of a finished triage.

    THE REPORTS NAME THE PATIENTS: name, number, birth date, sex and study are copied from the images, so that an
    archive can file them. Keep them where the images may be kept. Nothing else that histcxr writes does so.

    WORKLIST and its audit trail must be as `histcxr triage` left them, and the images where it found them. OUTPUT gets
    SR000001.dcm and so on, and reports.csv: for each row of WORKLIST its report, or why it is in none (a PNG belongs
    to no study). Needs pip install 'histcxr[report-dicom]'.

    \b
    Example:     histcxr report worklist.csv -o reports
    Exit codes:  0 every file is in a report, 3 some are not, 2 wrong usage, 1 failure
    """
    from histcxr.worklist.study_reports import TABLE, write_study_reports

    result = write_study_reports(worklist, output, audit=audit)
    click.echo(f"{result.reports} reports about {result.images} of {result.total} files in {output}")
    for reason, files in result.left_out.items():
        names = ", ".join(files[:NAMED])
        more = f" and {len(files) - NAMED} more in {TABLE}" if len(files) > NAMED else ""
        click.echo(f"  {len(files)} left out: {reason}: {names}{more}")
    click.echo(
        "For research use only. The reports name the patients: keep them where the images may be kept."
    )
    options.write_json(json_file, result.to_dict())
    ctx.exit(result.exit_code)
