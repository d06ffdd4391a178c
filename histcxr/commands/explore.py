"""``histcxr explore`` looks at data, ``histcxr app`` in a browser; ``histcxr extract`` counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from histcxr.commands import options
from histcxr.commands.shell.places import OutputPath
from histcxr.exceptions import counted

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@options.anonymous_option
@options.data_argument()
@options.output_option(
    "A folder for the page, its figures and pictures.", "folder", default="explore", earlier="index.html"
)
@click.option(
    "--examples",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Images to show of each class.",
)
@options.lungs_option()
@options.normal_option()
@options.seed_option()
@options.jobs_option()
@options.json_option()
def explore(data: str, output: str, jobs: int, json_file: str | None, **how: Any) -> None:
    """Look at DATA, a folder or CSV of radiographs, before anything is learnt from it.

    Writes a page to look at (index.html, one file), the same figures as numbers (figures.json) and the pictures:
    classes and sources, what the files are and where they contradict their list, how much of the image the lungs
    cover, grey levels and histograms of each class, examples, mean images, near-duplicates and patients across splits.

    \b
    Example:  histcxr explore study -o look
    """
    from pathlib import Path

    from histcxr.files.decoding import muted_decoders
    from histcxr.reports.page import require_page
    from histcxr.study.explore import PAGE
    from histcxr.study.explore import explore as look

    require_page()  # before the work, not after it
    with muted_decoders():
        found = look(data, n_jobs=jobs, progress=options.show_progress(), **how)
    figures = found.to_dict()
    found.write(output)
    options.say(
        f"{counted(figures['images'], 'image')} in {counted(len(figures['classes']), 'class', 'classes')}, "
        f"{figures['usable']} usable"
    )
    for note in figures["notes"]:
        options.say(f"- {note}")
    options.say(f"Look at {Path(output) / PAGE}")
    options.write_json(json_file, figures)


@click.command()
@options.anonymous_option
@options.manifest_options(labels=False)
@options.output_option("The table to write: .parquet, .csv or .npz by its name.", "file", required=True)
@options.zones_option()
@options.bands_option()
@options.lungs_option("either")
@options.cache_option()
@options.scheduler_option("Count")
@options.jobs_option()
@options.json_option()
def extract(data: pd.DataFrame, output: str, jobs: int, json_file: str | None, **how: Any) -> None:
    """Reduce DATA, a folder or CSV of radiographs, to 256-bin lung histograms.

    Every image becomes a row; one that cannot be used has zeros for counts and says why in `reason`.

    \b
    Example:     histcxr extract study --zones 6 -o histograms.parquet
    Exit codes:  0 every image counted, 3 some are not usable,
                 2 wrong usage, 1 failure
    """
    from histcxr.features.extraction import check_format, extract_features, write_features

    check_format(output)  # before the work, not after it
    features = extract_features(data, n_jobs=jobs, progress=options.show_progress(), **how)
    write_features(features, output)
    usable = int(features.usable.sum())
    unusable = features.table.loc[~features.usable, "reason"].value_counts()
    reasons = {str(code): int(count) for code, count in unusable.items()}
    options.say(f"{usable} of {counted(len(features), 'radiograph')} reduced to histograms in {output}")
    for code, count in reasons.items():
        options.say(f"  {count} not usable: {code}")
    options.write_json(
        json_file, {"output": output, "images": len(features), "usable": usable, "reasons": reasons}
    )
    if usable < len(features):
        click.get_current_context().exit(3)


@click.command()
@options.model_option()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8501,
    show_default=True,
    help="Where it listens, on this machine alone; 0: any that is free.",
)
@click.option(
    "--max-upload",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="MB",
    help="Refuse a file that is larger.",
)
@click.option(
    "--keep",
    type=OutputPath("folder"),
    metavar="FOLDER",
    help="Keep here what is dropped and written.  [default: a temporary folder, removed at the end]",
)
def app(model: str | None, port: int, max_upload: int, keep: str | None) -> None:
    """Open the app in a browser: triage, train, explore and audit by looking.

    Prints an address that nobody can guess; open it in a browser on this machine. It reads the folders that you may
    read, so keep the address for yourself. Needs pip install '.[app]'.

    \b
    Example:     histcxr app
                 histcxr app -m model.histcxr --keep looked_at
    Exit codes:  130 it was ended by Ctrl-C, 2 wrong usage, 1 failure
    """
    from histcxr.app.serving import serve
    from histcxr.files.decoding import muted_decoders

    with muted_decoders():
        serve(port=port, max_upload=max_upload, model=model, keep=keep, say=options.say)
