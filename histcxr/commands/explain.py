"""``histcxr explain``."""

from __future__ import annotations

from typing import Any

import click

from histcxr.commands import options


@click.command()
@click.argument("data", type=click.Path(exists=True), nargs=-1, required=True)
@options.network_option()
@options.output_option(
    "Write the pictures and the table into this folder.", "folder", required=True, earlier="shares.csv"
)
@click.option("--layer", help="Whose maps.  [default: the last convolution]")
@click.option("--target", help="The class that is explained.  [default: the predicted one]")
@options.split_option()
@click.option(
    "--images",
    "per_label",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Of each label, at most.",
)
@click.option("--maps", is_flag=True, help="Also write the maps as numbers, maps.npy.")
@click.option(
    "--lungs",
    type=click.Choice(["given", "found", "either"]),
    help="Whose lung masks.  [default: as the network was trained]",
)
@options.where_option()
@options.seed_option()
@options.jobs_option()
@options.json_option()
def command(data: tuple[str, ...], model: str, output: str, json_file: str | None, **how: Any) -> None:
    """Show where a network looks in DATA: a folder, a CSV, or image files.

    Grad-CAM maps are strong where the image speaks for a class. Writes each radiograph with its map, a grid by label,
    and the share of the maps inside the lungs beside the share of an even map. Of a histogram
    model there is nothing yet but its card.

    \b
    Example:  histcxr explain study -m net.histcxr -o maps
              histcxr explain chest1.png chest2.png -m net.histcxr -o maps
    """
    from histcxr.files.decoding import muted_decoders
    from histcxr.reports.drawing import require_matplotlib
    from histcxr.reports.text import explanation_report
    from histcxr.study.explain import explain_images, images_to_explain

    require_matplotlib()
    chosen = {name: how[name] for name in ("split", "where", "per_label", "seed")}
    seen = {name: how[name] for name in ("layer", "target", "lungs")}
    with muted_decoders():
        network = options.read_model(model)
        found = explain_images(network, images_to_explain(data, **chosen), n_jobs=how["jobs"], **seen)
    result = {
        "model": {"name": network.name, "hash": network.hash, **network.describe_input()},
        "layer": found.layer,
        "target": how["target"],
        "shares": found.summary(seed=how["seed"]),
        "images": options.table_rows(found.table),
        "output": output,
        "pictures": found.write(output, maps=how["maps"]),
    }
    options.say(explanation_report(result))
    options.write_json(json_file, result)
