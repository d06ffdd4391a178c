"""``histcxr reference explain``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from histcxr.commands import options
from histcxr.commands.reference_evaluate import network_option

if TYPE_CHECKING:
    import pandas as pd

    from histcxr.study.explain import Explanation


_FILES = ("grid.png", "shares.csv", "maps.npy")


@click.command()
@click.argument("data", type=click.Path(exists=True), nargs=-1, required=True)
@network_option()
@options.output_option("Write the pictures and the table into this folder.", required=True)
@click.option("--layer", help="Whose maps.  [default: the last convolution]")
@click.option("--target", help="The class that is explained.  [default: the predicted one]")
@click.option("--split", default="test", show_default=True, help="Which split of DATA; 'all' for every row.")
@click.option(
    "--images", type=click.IntRange(min=1), default=50, show_default=True, help="Of each label, at most."
)
@click.option("--maps", is_flag=True, help="Also write the maps as numbers, maps.npy.")
@click.option(
    "--lungs",
    type=click.Choice(["given", "found", "either"]),
    help="Whose lung masks.  [default: as the network was trained]",
)
@options.where_option()
@click.option("--overwrite", is_flag=True, help="Replace the pictures of an earlier run.")
@options.seed_option()
@options.jobs_option()
@options.json_option()
def explain(
    data: tuple[str, ...],
    model: str,
    output: str,
    layer: str | None,
    target: str | None,
    split: str,
    images: int,
    maps: bool,
    lungs: str | None,
    where: dict[str, list[str]],
    overwrite: bool,
    seed: int,
    jobs: int,
    json_file: str | None,
) -> None:
    """Show where a network looks in DATA: a folder, a CSV, or image files.

    Writes each radiograph with its Grad-CAM map, a grid by label, and the share of the maps inside the lungs beside
    the share of an even map.

    \b
    Example:  histcxr reference explain study -m net.histcxr -o maps
              histcxr reference explain chest1.png chest2.png -m net.histcxr -o maps
    """
    from histcxr.files.decoding import muted_decoders
    from histcxr.reference.backbones import last_convolution
    from histcxr.reports.reference import explanation_report
    from histcxr.study.explain import explain_images

    if not overwrite:
        _refuse_earlier(Path(output))
    with muted_decoders():
        network = options.read_network(model)
        manifest = _chosen_images(data, split, images, where, seed)
        if lungs is None and not (manifest["mask"] != "").any():
            lungs = "either"
        found = explain_images(network, manifest, layer=layer, target=target, lungs=lungs, n_jobs=jobs)
        name = layer or last_convolution(network.classifier.to_keras())
    result: dict[str, Any] = {
        "model": {"name": network.name, "hash": network.hash, "inputs": network.inputs.to_dict()},
        "layer": name,
        "target": target,
        "shares": found.summary(seed=seed),
        "images": _plain_rows(found.table),
        "output": output,
        "pictures": _write(found, Path(output), maps),
    }
    click.echo(explanation_report(result))
    options.write_json(json_file, result)


def _chosen_images(
    data: tuple[str, ...], split: str, images: int, where: dict[str, list[str]], seed: int
) -> pd.DataFrame:
    """Return the manifest of what is to be explained."""
    from histcxr.data.manifest import read_manifest
    from histcxr.study.cohort import select_rows
    from histcxr.study.explain import draw_images, file_manifest
    from histcxr.study.network_evaluate import only_split

    tables = [path for path in data if os.path.isdir(path) or path.lower().endswith(".csv")]
    if not tables:
        return file_manifest(data)
    if len(data) > 1:
        raise click.UsageError("DATA must be one folder, one CSV, or any number of image files")
    manifest = only_split(select_rows(read_manifest(data[0]), where), None if split == "all" else split)
    return draw_images(manifest, images, seed=seed)


def _earlier(folder: Path) -> list[Path]:
    """Return the files of an earlier explanation."""
    return [
        *(folder / "overlays").glob("*.png"),
        *(folder / name for name in _FILES if (folder / name).exists()),
    ]


def _refuse_earlier(folder: Path) -> None:
    """Refuse a folder with an explanation: two in one folder could not be told apart."""
    from histcxr.exceptions import InputError

    if _earlier(folder):
        raise InputError(f"{folder} holds an explanation already; give another folder, or --overwrite")


def _write(found: Explanation, folder: Path, maps: bool) -> list[str]:
    """Write pictures and table; return the names."""
    import numpy as np

    from histcxr.exceptions import OutputError
    from histcxr.files.writing import write_image
    from histcxr.reference.gradcam import overlay, save_grid

    labels = [label or "unknown" for label in found.table["label"]]
    try:
        for file in _earlier(folder):
            file.unlink()
        (folder / "overlays").mkdir(parents=True, exist_ok=True)
        for row, (pixels, cam) in enumerate(zip(found.pixels, found.maps, strict=True)):
            stem = Path(found.table["image"].iloc[row]).stem
            write_image(folder / "overlays" / f"{row:04d}-{stem}.png", overlay(pixels, cam)[..., ::-1])
        save_grid(folder / "grid.png", list(found.pixels), list(found.maps), labels)
        found.table.to_csv(folder / "shares.csv", index=False)
        if maps:
            np.save(folder / "maps.npy", found.maps, allow_pickle=False)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    return ["grid.png", f"overlays ({len(found.table)})", "shares.csv", *(["maps.npy"] if maps else [])]


def _plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as JSON holds it; NaN becomes None."""
    return [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]
