"""Where a network looks: Grad-CAM maps of labelled radiographs, and how much of them lies inside the lungs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.decision.intervals import patient_bootstrap
from histcxr.exceptions import InputError
from histcxr.reference.gradcam import even_share, grad_cam, share_inside
from histcxr.reference.images import read_images, read_lung_squares, undersample
from histcxr.store.model import ReferenceModel, sick_score

__all__ = ["Explanation", "draw_images", "explain_images", "file_manifest"]

# Fewer maps than this have no interval worth showing.
_MIN_MAPS = 10


@dataclass(frozen=True)
class Explanation:
    """The maps of some images.

    Attributes
    ----------
    pixels : ndarray of uint8, shape (n, size, size)
        What the network saw.
    maps : ndarray of float32, shape (n, size, size)
        From 0 to 1; see :func:`~histcxr.reference.gradcam.grad_cam`.
    table : DataFrame, n rows
        ``image, label, patient_id``, ``score`` (of being sick), ``called`` (the most probable class), ``explained``
        (the class that the map speaks for), ``inside`` (share of the map's mass inside the lungs; NaN where the map
        is empty or the lungs are not known) and ``even`` (that of an even map).
    """

    pixels: NDArray[np.uint8]
    maps: NDArray[np.float32]
    table: pd.DataFrame

    def summary(self, *, seed: int = 0) -> list[dict[str, Any]]:
        """Return the mean shares, of all images and by label, ready for JSON.

        Returns
        -------
        list of dict
            ``label, images, maps`` (those with a share), ``inside``, ``even`` (means), and ``difference`` (inside
            less even) with ``low`` and ``high``, a 95 % interval over patients, None of fewer than 10 maps.
        """
        names = list(dict.fromkeys(self.table["label"]))
        rows = [_row("all", self.table, seed)]
        return rows + [_row(name, self.table[self.table["label"] == name], seed) for name in names if name]


def draw_images(manifest: pd.DataFrame, per_class: int, *, seed: int = 0) -> pd.DataFrame:
    """Draw so many images of each label at most, from as many patients as possible; none is a label, too."""
    parts = []
    for _, rows in manifest.groupby("label", sort=True):
        if len(rows) > per_class:
            rows = rows.iloc[undersample(rows, per_class=per_class, seed=seed)]
        parts.append(rows)
    return pd.concat(parts).reset_index(drop=True)


def explain_images(
    model: ReferenceModel,
    manifest: pd.DataFrame,
    *,
    layer: str | None = None,
    target: str | None = None,
    lungs: str | None = None,
    n_jobs: int = 1,
) -> Explanation:
    """Map what speaks for a class in each image.

    Parameters
    ----------
    model : ReferenceModel
    manifest : DataFrame
        Labels may be ``""``.
    layer : str, optional
        Whose maps; by default the last convolution.
    target : str, optional
        The class; by default the one that is predicted for each image.
    lungs : {"given", "found", "either"}, optional
        Whose lung masks, for what the network sees and for the shares alike. By default as it was trained; a network
        of full images takes the network's that comes with histcxr where there is no mask.
    n_jobs : int

    Returns
    -------
    Explanation

    Raises
    ------
    InputError
        No such layer or class, or not one usable image.
    """
    if target is not None and target not in model.classes:
        raise InputError(f"target must be one of {', '.join(model.classes)}; got {target!r}")
    if lungs is None:
        lungs = "either" if model.inputs.region == "full" else str(model.training.get("lungs", "given"))
    images = read_images(manifest, model.inputs, lungs=lungs, n_jobs=n_jobs)
    if not images.usable.any():
        reasons = ", ".join(sorted(set(images.table["reason"])))
        raise InputError(f"data must hold at least one usable radiograph, got none: {reasons}")
    images = images.select(images.usable)
    network = model.classifier.to_keras()
    number = None if target is None else model.classes.index(target)
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
    return Explanation(images.pixels, maps, table)


def file_manifest(paths: tuple[str, ...]) -> pd.DataFrame:
    """Return a manifest of single files without labels."""
    files = [os.path.abspath(path) for path in paths]
    return pd.DataFrame(
        {"image": files, "mask": "", "label": "", "patient_id": "", "source": "", "split": ""}
    )


def _row(label: str, table: pd.DataFrame, seed: int) -> dict[str, Any]:
    known = table[table["inside"].notna()]
    row: dict[str, Any] = {"label": label, "images": len(table), "maps": len(known)}
    if not len(known):
        return row | dict.fromkeys(("inside", "even", "difference", "low", "high"))
    gaps = (known["inside"] - known["even"]).to_numpy()
    row |= {
        "inside": float(known["inside"].mean()),
        "even": float(known["even"].mean()),
        "difference": float(gaps.mean()),
        "low": None,
        "high": None,
    }
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
