"""``histcxr extract``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from histcxr.commands import options

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@options.manifest_options(labels=False)
@options.output_option("The table to write: .parquet, .csv or .npz by its name.", "file", required=True)
@options.zones_option()
@options.bands_option()
@options.lungs_option("either", "given", "found", default="either")
@options.cache_option()
@options.jobs_option()
@options.json_option()
def command(data: pd.DataFrame, output: str, jobs: int, json_file: str | None, **how: Any) -> None:
    """Reduce DATA, a folder or CSV of radiographs, to 256-bin lung histograms.

    Every image becomes a row; one that cannot be used has zeros for counts and says why in `reason`.

    \b
    Example:     histcxr extract study --zones 6 -o histograms.parquet
    Exit codes:  0 every image counted, 3 some are not usable, 2 wrong usage, 1 failure
    """
    from histcxr.features.extraction import check_format, extract_features, write_features

    check_format(output)  # before the work, not after it
    features = extract_features(data, n_jobs=jobs, progress=options.show_progress(), **how)
    write_features(features, output)
    usable = int(features.usable.sum())
    unusable = features.table.loc[~features.usable, "reason"].value_counts()
    reasons = {str(code): int(count) for code, count in unusable.items()}
    options.say(f"{usable} of {len(features)} radiographs reduced to histograms in {output}")
    for code, count in reasons.items():
        options.say(f"  {count} not usable: {code}")
    options.write_json(
        json_file, {"output": output, "images": len(features), "usable": usable, "reasons": reasons}
    )
    if usable < len(features):
        click.get_current_context().exit(3)
