"""``histcxr demo``: the whole chain on made-up radiographs, from a study to a worklist with broken files."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import click

from histcxr.commands import options


@click.command()
@options.output_option(
    "The folder to write, or an earlier demo's: studies, model, worklist.",
    "folder",
    required=True,
    resumes="study/manifest.csv",
)
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
    from histcxr.files.decoding import muted_decoders

    with muted_decoders():
        result = run_demo(output, n_patients=patients, seed=seed, n_jobs=jobs, say=options.say)
    options.write_json(json_file, result)


def run_demo(
    output: str | PathLike[str],
    *,
    n_patients: int = 1000,
    seed: int = 0,
    n_jobs: int = 2,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """Write phantom radiographs, train and certify on them, and triage a second folder.

    ``output`` is a folder to make, or an earlier demo's, which is replaced. ``say`` receives each piece of text as it
    comes. Returns the ``training`` and ``triage`` reports and the paths written, ready for JSON.

    Raises
    ------
    InputError
        ``output`` exists and is not an earlier demo.
    """
    from histcxr.exceptions import InputError
    from histcxr.phantoms.broken_files import write_broken_files, write_unusual_files
    from histcxr.phantoms.studies import sample_study, write_study
    from histcxr.reports.text import training_report, triage_report
    from histcxr.store import save_model
    from histcxr.study.train import train
    from histcxr.worklist.engine import triage

    folder = Path(output)
    marker = folder / "study" / "manifest.csv"
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise InputError(
            f"output must be a new folder or an earlier demo's, got {folder}, which holds other files"
        )
    say(f"1. A study of {n_patients} phantom patients in {folder / 'study'}")
    study = sample_study(folder / "study", n_patients=n_patients, seed=seed)
    say("2. Train, tune, certify\n")
    result = train(study, classifiers=("svm", "xgboost"), zones=6, trials=4, seed=seed, n_jobs=n_jobs)
    say(training_report(result.report))
    model = save_model(result.best, folder / "model.histcxr", overwrite=True)
    say(f"\n3. Triage a second folder, {folder / 'incoming'}, which holds broken files too\n")
    incoming = write_study(folder / "incoming", n_patients=200, seed=seed + 1, layout="flat")
    write_unusual_files(incoming, seed=seed)
    write_broken_files(incoming, seed=seed)
    worklist = folder / "worklist.csv"
    summary = triage(incoming, result.best, worklist, n_jobs=n_jobs, sort="urgency", overwrite=True).to_dict()
    say(triage_report(summary))
    say(f"\nWorklist {worklist}, most urgent first; model {model} (`histcxr models {model}` shows its card)")
    return {"training": result.report, "triage": summary, "model": str(model), "worklist": str(worklist)}
