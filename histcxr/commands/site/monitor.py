"""``histcxr monitor``."""

from __future__ import annotations

from typing import Any

import click

from histcxr.commands import options


@click.command()
@click.argument("worklists", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@options.model_option()
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False),
    help="Truths that became known later: a CSV with label, and patient_id or image (file of the worklist).",
)
@options.normal_option(None)
@options.plot_option("Draw the days into this picture, e.g. days.png.")
@options.json_option()
def command(
    worklists: tuple[str, ...], model: str | None, plot: str | None, json_file: str | None, **truth: Any
) -> None:
    """Watch over the WORKLISTS that `histcxr triage` wrote, given in the order of time, and all of them every time.

    Are the images still of the certified population, and still what they were in the beginning? Where labels came in,
    do rule_out and rule_in keep their promise? All tests together give a false alarm with a chance of 5 % at most,
    however long they run and however the share of sick goes up and down. A lasting jump to a share never seen before
    may be taken for a change a little more often (6 % of simulated streams).

    \b
    Example:     histcxr monitor days/*.csv -m ours.histcxr --labels later.csv
    Exit codes:  0 no alarm, 3 alarm, 2 wrong usage, 1 failure
    """
    from histcxr.reports.monitoring import monitor_report, plot_monitor
    from histcxr.site.monitor import monitor

    result = monitor(worklists, options.read_model(model), **truth).to_dict()
    options.say(monitor_report(result))
    options.write_json(json_file, result)
    if plot is not None:
        options.say(f"\nDrew {plot_monitor(result, plot)}")
    click.get_current_context().exit(result["exit_code"])
