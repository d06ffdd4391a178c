"""Where a network looks: Grad-CAM maps of radiographs, and how much of them lies inside the lungs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.manifest import read_manifest
from histcxr.data.splits import undersample
from histcxr.decision.intervals import patient_bootstrap
from histcxr.exceptions import InputError, counted
from histcxr.files.cells import write_table
from histcxr.files.writing import write_error
from histcxr.reference.backbones import last_convolution
from histcxr.reference.gradcam import even_share, grad_cam, share_inside
from histcxr.reference.images import read_images, read_lung_squares
from histcxr.reports.drawing import new_figure, save_figure
from histcxr.reports.image_displays import GradCamDisplay
from histcxr.reports.plots import plot_map_grid
from histcxr.store import Model, ReferenceModel
from histcxr.store.judges import SavedModel
from histcxr.store.model import sick_score
from histcxr.study.cohort import only_split, select_rows

# Fewer maps than this have no interval worth showing.
_MIN_MAPS: Final = 10
# What an explanation leaves in its folder beside the overlays.
_FILES: Final = ("grid.png", "shares.csv", "maps.npy")


@dataclass(frozen=True)
class Explanation:
    """The maps of some images, of one ``layer``.

    ``pixels``, uint8 (n, size, size), is what the network saw; ``maps``, float32 of the same shape, go from 0 to 1
    (:func:`~histcxr.reference.gradcam.grad_cam`). ``table`` has n rows: ``image, label, patient_id``, ``score`` (of
    being sick), ``called`` (the most probable class), ``explained`` (the class that the map speaks for), ``inside``
    (share of the map's mass inside the lungs; NaN where the map is empty or the lungs are not known) and ``even``
    (that of an even map).
    """

    pixels: NDArray[np.uint8]
    maps: NDArray[np.float32]
    table: pd.DataFrame
    layer: str

    def summary(self, *, seed: int = 0) -> list[dict[str, Any]]:
        """Return the mean shares, of all images and by label, ready for JSON.

        Each has ``label, images, maps`` (those with a share), ``inside``, ``even`` (means), and ``difference`` (inside
        less even) with ``low`` and ``high``, a 95 % interval over patients, None of fewer than 10 maps.
        """
        names = list(dict.fromkeys(self.table["label"]))
        rows = [_row("all", self.table, seed)]
        return rows + [_row(name, self.table[self.table["label"] == name], seed) for name in names if name]

    def displays(self) -> list[GradCamDisplay]:
        """Return a display for each image, to be drawn."""
        about = self.table[["explained", "score", "image"]].itertuples(index=False)
        return [
            GradCamDisplay(pixels, cam, explained, float(score), Path(image).name)
            for pixels, cam, (explained, score, image) in zip(self.pixels, self.maps, about, strict=True)
        ]

    def write(self, folder: str | os.PathLike[str], *, maps: bool) -> list[str]:
        """Write overlays, grid, table and, where wanted, maps in place of an earlier explanation; say what.

        OutputError: the folder cannot be written.
        """
        place = Path(folder)
        try:
            for file in earlier_files(place):
                file.unlink()
            (place / "overlays").mkdir(parents=True, exist_ok=True)
            displays = self.displays()
            for row, display in enumerate(displays):
                figure = new_figure(4.2, 4.8)
                display.plot(figure.subplots())
                save_figure(figure, place / "overlays" / f"{row:04d}-{Path(display.name).stem}.png", 110)
            labels = [label or "unknown" for label in self.table["label"]]
            about = f"What speaks for a class: Grad-CAM of {self.layer}, {counted(len(labels), 'image')}"
            plot_map_grid(displays, labels, place / "grid.png", about)
            write_table(self.table, place / "shares.csv")
            if maps:
                np.save(place / "maps.npy", self.maps, allow_pickle=False)
        except OSError as error:
            raise write_error(place, error) from error
        return ["grid.png", f"overlays ({len(self.table)})", "shares.csv", *(["maps.npy"] if maps else [])]


def earlier_files(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files of an earlier explanation: two in one folder could not be told apart."""
    place = Path(folder)
    return [
        *(place / "overlays").glob("*.png"),
        *(place / name for name in _FILES if (place / name).exists()),
    ]


def images_to_explain(
    paths: Sequence[str], *, split: str, where: Mapping[str, Sequence[str]], per_label: int, seed: int = 0
) -> pd.DataFrame:
    """Return the manifest of what is to be explained: image files, or a draw from one folder or CSV.

    Of a folder or CSV ``per_label`` images of each label at most, from as many patients as possible; none is a label,
    too.
    """
    if not any(os.path.isdir(path) or path.lower().endswith(".csv") for path in paths):
        files = [os.path.abspath(path) for path in paths]
        nothing = dict.fromkeys(("mask", "label", "patient_id", "source", "split"), "")
        return pd.DataFrame({"image": files, **nothing})
    if len(paths) > 1:
        raise InputError("DATA must be one folder, one CSV, or any number of image files")
    manifest = only_split(select_rows(read_manifest(paths[0]), where), split)
    parts = [
        rows if len(rows) <= per_label else rows.iloc[undersample(rows, per_class=per_label, seed=seed)]
        for _, rows in manifest.groupby("label", sort=True)
    ]
    return pd.concat(parts).reset_index(drop=True)


def explain_images(
    model: SavedModel,
    manifest: pd.DataFrame,
    *,
    layer: str | None = None,
    target: str | None = None,
    lungs: str | None = None,
    n_jobs: int = 1,
) -> Explanation:
    """Map what speaks for a class in each image of a manifest, whose labels may be "".

    ``layer``: whose maps, by default the last convolution's. ``target``: the class, by default the one predicted for
    each image. ``lungs``: whose masks, for what the network sees and for the shares alike; by default as it was
    trained, and a network of full images, or one whose data have no masks, takes the segmenter's where there is none.

    InputError: a histogram model, no such layer or class, or not one usable image.
    """
    if not isinstance(model, ReferenceModel):
        kind = "a histogram model" if isinstance(model, Model) else "a cascade (name its network)"
        raise InputError(
            f"{model.name} is {kind}, of which there is nothing to explain yet but its card: histcxr models"
        )
    if target is not None and target not in model.classes:
        raise InputError(f"target must be one of {', '.join(model.classes)}; got {target!r}")
    if lungs is None:
        bare = not (manifest["mask"] != "").any()
        trained = str(model.training.get("lungs", "given"))
        lungs = "either" if bare or model.inputs.region == "full" else trained
    images = read_images(manifest, model.inputs, lungs=lungs, n_jobs=n_jobs)
    if not images.usable.any():
        reasons = ", ".join(sorted(set(images.table["reason"])))
        raise InputError(f"data must hold at least one usable radiograph, got none: {reasons}")
    images = images.select(images.usable)
    number = None if target is None else model.classes.index(target)
    network = model.classifier.to_keras()
    layer = layer or last_convolution(network)
    maps = grad_cam(network, images.pixels, layer=layer, target=number)
    probabilities = model.probabilities(images.pixels)
    called = np.array(model.classes, dtype=object)[probabilities.argmax(axis=1)]
    squares, known = read_lung_squares(images.table, size=model.inputs.size, lungs=lungs)
    inside = [
        share_inside(one, square) if there else np.nan
        for one, square, there in zip(maps, squares, known, strict=True)
    ]
    table = pd.DataFrame(
        {
            **{name: images.table[name].astype(str).to_numpy() for name in ("image", "label", "patient_id")},
            "score": sick_score(probabilities),
            "called": called,
            "explained": called if target is None else target,
            "inside": inside,
            "even": [even_share(s) if there else np.nan for s, there in zip(squares, known, strict=True)],
        }
    )
    return Explanation(images.pixels, maps, table, layer)


def _row(label: str, table: pd.DataFrame, seed: int) -> dict[str, Any]:
    known = table[table["inside"].notna()]
    row: dict[str, Any] = {"label": label, "images": len(table), "maps": len(known)}
    if not len(known):
        return row | dict.fromkeys(("inside", "even", "difference", "low", "high"))
    gaps = (known["inside"] - known["even"]).to_numpy()
    row |= {"inside": float(known["inside"].mean()), "even": float(known["even"].mean())}
    row |= {"difference": float(gaps.mean()), "low": None, "high": None}
    if len(known) >= _MIN_MAPS and np.ptp(gaps) > 0:
        # One stratum: whoever was drawn may be drawn again.
        estimate = patient_bootstrap(
            np.mean,
            gaps,
            sick=np.ones(len(gaps), dtype=bool),
            patient_ids=known["patient_id"].to_numpy(dtype=object),
            draws=1000,
            seed=seed,
        )
        row |= {"low": estimate.low, "high": estimate.high}
    return row
