"""Radiographs with the lung masks that a network is to learn from, and what archives do to such pairs.

Each disturbance takes a pair, picture and lung mask, and a random generator, and gives a new pair.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray

from histcxr.data.discovery import locate
from histcxr.data.manifest import read_manifest
from histcxr.data.masks import read_mask
from histcxr.data.radiograph import read_radiograph
from histcxr.data.splits import patient_groups, split_patients
from histcxr.exceptions import InputError, UnjudgeableError
from histcxr.lungs.segmenter import PAIR_SIZE, squared

_Bytes = NDArray[np.uint8]


class Pair(NamedTuple):
    """A picture and its mask, uint8 ``(height, width)``: 255 inside the lungs, a share where a pixel is partly lung."""

    pixels: _Bytes
    mask: _Bytes


def _bordered(pair: Pair, rng: np.random.Generator) -> Pair:
    """Lay the picture on a larger, even ground, black or white or grey, as viewers and scanners do."""
    height, width = pair.pixels.shape
    top, bottom, left, right = (int(share * height) for share in rng.uniform(0, 0.15, 4))
    ground = int(rng.choice(np.array([0, 255, rng.integers(256)])))

    def framed(picture: _Bytes, grey: int) -> _Bytes:
        larger = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_CONSTANT, value=[grey])
        return _bytes(cv2.resize(larger, (width, height), interpolation=cv2.INTER_AREA))

    return Pair(framed(pair.pixels, ground), framed(pair.mask, 0))


def _collimated(pair: Pair, rng: np.random.Generator) -> Pair:
    """Shut the blades: even strips at the sides, behind which there is no lung to be seen."""
    height, width = pair.pixels.shape
    pixels, mask = pair.pixels.copy(), pair.mask.copy()
    ground = int(rng.choice([0, 0, 255]))
    for axis, length in ((0, height), (0, height), (1, width), (1, width)):
        if rng.random() < 0.6:
            strip = int(rng.uniform(0.02, 0.1) * length)
            place: list[slice] = [slice(None), slice(None)]
            place[axis] = slice(0, strip) if rng.random() < 0.5 else slice(length - strip, length)
            pixels[tuple(place)], mask[tuple(place)] = ground, 0
    return Pair(pixels, mask)


def _brightened(pair: Pair, rng: np.random.Generator) -> Pair:
    """Bend the scale of grey by an exponent from one half to two."""
    exponent = 2.0 ** rng.uniform(-1, 1)
    table = np.rint(255 * (np.arange(256) / 255) ** exponent).astype(np.uint8)
    return Pair(_bytes(cv2.LUT(pair.pixels, table)), pair.mask)


def _faint(pair: Pair, rng: np.random.Generator) -> Pair:
    """Squeeze the grey levels into a quarter to a half of their range, anywhere in it."""
    share = rng.uniform(0.25, 0.5)
    lowest = rng.uniform(0, 255 * (1 - share))
    return Pair(_bytes(cv2.convertScaleAbs(pair.pixels, alpha=share, beta=lowest)), pair.mask)


def _marked(pair: Pair, rng: np.random.Generator) -> Pair:
    """Write side markers, digits and label plates onto the picture."""
    height, width = pair.pixels.shape
    pixels = pair.pixels.copy()
    for _ in range(rng.integers(1, 5)):
        text = str(rng.choice(["L", "R", "AP", "PA", "PORTABLE", "SUPINE", "1234567", "12.03. 08:15", "X"]))
        place = (int(rng.uniform(0, 0.85) * width), int(rng.uniform(0.06, 1) * height))
        grey = int(rng.choice(np.array([0, 255, rng.integers(180, 256)])))
        size = rng.uniform(0.25, 0.9) * height / 256
        if rng.random() < 0.25:
            end = (place[0] + int(rng.uniform(0.05, 0.2) * width), place[1] - int(0.06 * height))
            cv2.rectangle(pixels, place, end, 255 - grey, -1)
        cv2.putText(pixels, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, grey, 1 + int(2 * size), cv2.LINE_AA)
    return Pair(pixels, pair.mask)


def _noisy(pair: Pair, rng: np.random.Generator) -> Pair:
    noise = rng.normal(0, rng.uniform(2, 12), pair.pixels.shape)
    return Pair(np.clip(pair.pixels + noise, 0, 255).astype(np.uint8), pair.mask)


def _blurred(pair: Pair, rng: np.random.Generator) -> Pair:
    deviation = rng.uniform(0.5, 2) * pair.pixels.shape[0] / 256
    return Pair(_bytes(cv2.GaussianBlur(pair.pixels, (0, 0), deviation)), pair.mask)


#: Name to disturbance, each with a strength that archives show.
DISTURBANCES: Final[Mapping[str, Callable[[Pair, np.random.Generator], Pair]]] = MappingProxyType(
    {
        "inverted": lambda pair, rng: Pair(_bytes(cv2.bitwise_not(pair.pixels)), pair.mask),
        "bordered": _bordered,
        "collimated": _collimated,
        "rotated": lambda pair, rng: move(pair, rng.uniform(-15, 15)),
        "brightened": _brightened,
        "faint": _faint,
        "marked": _marked,
        "noisy": _noisy,
        "blurred": _blurred,
    }
)

# How often training meets each. Rotation is part of the movement that every picture gets.
_SHARES: Final = {
    "marked": 0.3,
    "bordered": 0.15,
    "collimated": 0.1,
    "brightened": 0.4,
    "blurred": 0.1,
    "noisy": 0.15,
    "faint": 0.2,
    "inverted": 0.2,
}
_LUNGS_ONLY = 0.05


def disturb(pair: Pair, rng: np.random.Generator) -> Pair:
    """Move a pair a little and disturb it at random; a few keep their lungs alone, as some public collections do."""
    pair = move(
        pair,
        float(np.clip(rng.normal(0, 8), -25, 25)),
        (rng.uniform(0.85, 1.2) * rng.uniform(0.93, 1.07), rng.uniform(0.85, 1.2)),
        (rng.uniform(-0.08, 0.08), rng.uniform(-0.08, 0.08)),
        flip=bool(rng.random() < 0.5),
        ground=None if rng.random() < 0.5 else int(rng.choice([0, 255])),
    )
    if rng.random() < _LUNGS_ONLY:
        pair = Pair(np.where(pair.mask > 127, pair.pixels, 0).astype(np.uint8), pair.mask)
    for name, share in _SHARES.items():
        if rng.random() < share:
            pair = DISTURBANCES[name](pair, rng)
    return pair


def move(
    pair: Pair,
    degrees: float,
    scale: tuple[float, float] = (1.0, 1.0),
    shift: tuple[float, float] = (0.0, 0.0),
    *,
    flip: bool = False,
    ground: int | None = 0,
) -> Pair:
    """Rotate (degrees counter-clockwise), scale, shift and mirror a pair about its centre.

    ``scale, shift``: (across, down), factors and shares of the sides; ``ground``: grey from outside, None: the rim.
    """
    height, width = pair.pixels.shape
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([-scale[0] if flip else scale[0], scale[1]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = centre - matrix @ centre + np.array(shift) * (width, height)
    affine = np.column_stack([matrix, offset])
    size = (width, height)
    border = cv2.BORDER_REPLICATE if ground is None else cv2.BORDER_CONSTANT
    pixels = cv2.warpAffine(pair.pixels, affine, size, borderMode=border, borderValue=[ground or 0])
    mask = cv2.warpAffine(pair.mask, affine, size, borderMode=cv2.BORDER_CONSTANT, borderValue=[0])
    return Pair(_bytes(pixels), _bytes(mask))


def _bytes(array: NDArray[np.generic]) -> _Bytes:
    """Tell the type checker what OpenCV gives back for bytes."""
    return array.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class MaskedRadiographs:
    """Pictures and masks, uint8 ``(n, PAIR_SIZE, PAIR_SIZE)``, their manifest rows, and what was wrong with others."""

    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    table: pd.DataFrame
    unusable: dict[str, str]

    def __len__(self) -> int:
        return len(self.table)

    def pair(self, row: int) -> Pair:
        """Return one picture with its mask."""
        return Pair(self.pixels[row], self.masks[row])

    def part(self, name: str) -> MaskedRadiographs:
        """Return the radiographs of one split."""
        keep = (self.table["split"] == name).to_numpy()
        table = self.table.loc[keep].reset_index(drop=True)
        return MaskedRadiographs(self.pixels[keep], self.masks[keep], table, self.unusable)


def with_masks(
    data: Iterable[str | os.PathLike[str]], column: str = "mask", *, seed: int = 0
) -> pd.DataFrame:
    """Join folders or lists (as for ``read_manifest``) to one table of images with masks, and give patients one split.

    Who is a test patient in any row, even without a mask, is one in all; then likewise for validation, for which a
    fifth of the training patients are taken where there is none. ``column`` has the masks' paths, relative to the list;
    rows that have one are returned, in ``mask``. InputError: no such column, or no row has a mask.
    """
    tables = []
    for path in [os.fspath(one) for one in data]:
        manifest = read_manifest(path)
        if column not in manifest:
            raise InputError(
                f"the masks must be in the column {column!r}, which {path} lacks: {', '.join(manifest.columns)}"
            )
        folder = path if os.path.isdir(path) else os.path.dirname(path)
        table = manifest.assign(
            mask=[locate(str(name), folder) for name in manifest[column].fillna("")],
            patient_id=patient_groups(manifest),
        )
        if not (table["split"] != "").any():
            table["split"] = split_patients(table, seed=seed)
        tables.append(table)
    # Rows without a mask go only now: what they say of their patients counts.
    tables = [table[table["mask"] != ""].reset_index(drop=True) for table in _one_split_each(tables)]
    for table in tables:
        if not (table["split"] == "val").any() and (table["split"] == "train").any():
            training = table["split"] == "train"
            fresh = split_patients(table[training].reset_index(drop=True), (0.8, 0.2, 0.0), seed=seed)
            table.loc[training, "split"] = fresh
    joined = pd.concat(_one_split_each(tables), ignore_index=True) if tables else pd.DataFrame()
    if joined.empty:
        raise InputError(f"no image has a mask in the column {column!r}")
    return joined


def _one_split_each(tables: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Give every patient one split over all tables: test before validation before training."""
    for split in ("val", "test"):
        known = {one for table in tables for one in table.loc[table["split"] == split, "patient_id"]}
        tables = [
            table.assign(split=table["split"].mask(table["patient_id"].isin(known), split))
            for table in tables
        ]
    return tables


def read_pairs(table: pd.DataFrame, *, n_jobs: int = 1) -> MaskedRadiographs:
    """Read images and masks, in ``n_jobs`` threads, at training's size; ``unusable`` names what cannot be read."""
    read = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(_read)(image, mask) for image, mask in zip(table["image"], table["mask"], strict=True)
    )
    good = np.array([isinstance(one, Pair) for one in read], bool)
    pairs = [one for one in read if isinstance(one, Pair)]
    empty = np.empty((0, PAIR_SIZE, PAIR_SIZE), np.uint8)
    return MaskedRadiographs(
        np.stack([pair.pixels for pair in pairs]) if pairs else empty,
        np.stack([pair.mask for pair in pairs]) if pairs else empty,
        table.loc[good].reset_index(drop=True),
        {image: one for image, one in zip(table["image"], read, strict=True) if not isinstance(one, Pair)},
    )


def _read(image: str, mask: str) -> Pair | str:
    try:
        pixels = read_radiograph(image).pixels
        marked = read_mask(mask, (PAIR_SIZE, PAIR_SIZE))
    except UnjudgeableError as error:
        return error.explanation
    return Pair(squared(pixels), marked.astype(np.uint8) * np.uint8(255))
