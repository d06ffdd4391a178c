"""``histcxr demo``."""

from __future__ import annotations

import click

from histcxr.commands import options


@click.command()
@options.output_option("The folder to write: studies, model, worklist.", required=True)
@click.option(
    "--patients", type=click.IntRange(min=400), default=1000, show_default=True, help="Phantom patients."
)
@options.seed_option()
@options.jobs_option()
@options.json_option()
def command(output: str, patients: int, seed: int, jobs: int, json_file: str | None) -> None:
    """Show the whole chain on made-up radiographs: train, certify, triage a folder with broken files.

    \b
    Example:  histcxr demo -o demo_output
    """
    from histcxr.commands.demo_run import run_demo
    from histcxr.files.decoding import muted_decoders

    with muted_decoders():
        result = run_demo(output, n_patients=patients, seed=seed, n_jobs=jobs, say=click.echo)
    options.write_json(json_file, result)
