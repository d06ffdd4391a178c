"""Synthetic chest radiographs, drawn from a seed: soft body, mediastinum, heart, two lungs, ribs and opacities.

They look like radiographs to an algorithm, not to a radiologist. Brightness is attenuation, so lungs are dark;
findings, exposure and anatomy vary so much that sick and normal overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import InputError

Grid = NDArray[Any]

MIN_SIZE = 64
"""Shortest side at which a phantom still shows its parts, in pixels."""


@dataclass(frozen=True, slots=True)
class Phantom:
    """One synthetic radiograph: image ``(height, width)`` with dark lungs, their mask, and what is wrong.

    ``sick`` where there is an opacity; ``findings`` holds ``"consolidation"``, ``"haze"``, both, or nothing.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    sick: bool
    findings: tuple[str, ...]


def make_phantom(
    seed: int,
    *,
    sick: bool = False,
    size: tuple[int, int] = (224, 224),
    severity: float | None = None,
    exposure: int = 0,
) -> Phantom:
    """Draw a chest radiograph of ``size`` (height, width) pixels, at least 64 each.

    Equal arguments give equal phantoms; the anatomy depends on the seed alone. ``sick``: whether to add opacities;
    ``severity``: how dense, 0 (unseen) to 1 (white), by default random; ``exposure``: number of the radiograph of this
    patient, of other position and film. InputError: the size or the severity is out of range.
    """
    height, width = size
    if height < MIN_SIZE or width < MIN_SIZE:
        raise InputError(f"size must be at least {MIN_SIZE} x {MIN_SIZE} pixels; it is {size}")
    if severity is not None and not 0 <= severity <= 1:
        raise InputError(f"severity must be between 0 and 1; it is {severity}")
    body, illness = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    film = np.random.default_rng([seed, 2, exposure])
    # x from -1 to 1, y from 0 (top) to 1, in the patient's own frame: slightly shifted, scaled and tilted
    x, y = _frame(height, width, film)
    lungs, mask = _lungs(x, y, body)
    scene = _soft_tissue(x, y, body)
    aeration = np.float32(body.uniform(0.4, 0.5))
    inside = _lung_texture(x, y, body)
    findings: tuple[str, ...] = ()
    if sick:
        density = illness.beta(1.6, 2.2) if severity is None else severity
        opacity, findings = _opacities(x, y, illness, float(density))
        inside = inside + opacity * (1 - inside)
    scene -= lungs * aeration * (1 - inside)
    scene += _bones(x, y, body)
    return Phantom(_exposed(scene, film), mask, sick, findings)


def _smooth(edge: Grid, width: float) -> Grid:
    """A soft step: 0 where ``edge`` is far below 0, 1 where it is far above."""
    return 1 / (1 + cv2.exp(edge * np.float32(-4 / width)))


def _blob(x: Grid, y: Grid, cx: float, cy: float, rx: float, ry: float) -> Grid:
    """A bell of height 1."""
    return cv2.exp(-(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2))


def smooth_noise(shape: tuple[int, ...], cells: int, rng: np.random.Generator) -> Grid:
    """Noise of unit spread with about ``cells`` swings across the image, float32 (height, width)."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def _frame(height: int, width: int, rng: np.random.Generator) -> tuple[Grid, Grid]:
    shift_x, shift_y = rng.normal(0, 0.03), rng.normal(0, 0.02)
    scale_x, scale_y = rng.normal(1, 0.05), rng.normal(1, 0.04)
    tilt = rng.normal(0, 0.03)
    column = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    row = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    x = (column - np.float32(shift_x) - np.float32(tilt) * (row - 0.5)) / np.float32(scale_x)
    y = (row - 0.5 - np.float32(shift_y) + np.float32(tilt) * column / 2) / np.float32(scale_y)
    return x, y + np.float32(0.5)


def _lungs(x: Grid, y: Grid, rng: np.random.Generator) -> tuple[Grid, NDArray[np.bool_]]:
    """Soft lung fields from 0 to 1, and the hard mask."""
    apex, base = rng.uniform(0.1, 0.15), rng.uniform(0.7, 0.8)
    breadth = rng.uniform(0.68, 0.76)
    heart = rng.uniform(0.9, 1.25)  # how far the heart pushes the left lung aside
    field = np.zeros_like(x)
    for side in (-1, 1):  # the patient's right lung lies on the left of the image
        depth = x * side
        level = (y - apex) / (base - apex)  # 0 at the apex, 1 at the base
        arch = np.sqrt(np.clip((level + 0.06) * (2.04 - level), 0, None))
        lateral = breadth * arch * rng.uniform(0.96, 1.02)
        notch = heart if side == 1 else 0.4
        medial = 0.12 + 0.05 * np.clip(level, 0, 1) + notch * 0.2 * np.exp(-(((level - 0.9) / 0.33) ** 2))
        roof = apex + 0.9 * (depth - 0.3) ** 2
        dome = base - 0.06 + (0.02 if side == 1 else -0.01)
        floor = dome + 0.55 * (depth - 0.42) ** 2 + 0.07 * (depth - 0.42)
        edge = np.minimum(np.minimum(lateral - depth, depth - medial), 2 * np.minimum(floor - y, y - roof))
        field = np.maximum(field, _smooth(edge.astype(np.float32), 0.05))
    return field, field > 0.5


def _soft_tissue(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    """Body, neck and shoulders, spine, mediastinum, heart and what lies under the diaphragm."""
    stout = rng.uniform(0.9, 1.0)
    shoulder = np.minimum(1.0, 0.28 + 9 * np.clip(y - 0.02, 0, None) ** 1.2).astype(np.float32)
    scene = 0.62 * _smooth(stout * shoulder - np.abs(x), 0.12)
    scene += rng.uniform(0.1, 0.16) * _blob(x, y, 0.0, 0.5, 0.13, 2.0)  # spine
    scene += rng.uniform(0.06, 0.12) * _blob(x, y, 0.02, 0.4, 0.2, 0.35)  # mediastinum
    scene += rng.uniform(0.12, 0.18) * _blob(x, y, rng.uniform(0.14, 0.2), 0.64, 0.3, 0.15)  # heart
    scene += 0.14 * _smooth(y - np.float32(0.8), 0.12)  # abdomen
    scene -= rng.uniform(0, 0.12) * _blob(x, y, 0.38, 0.9, 0.14, 0.05)  # gas in the stomach
    return scene


def _lung_texture(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    """Vessels: blotches that are densest around the hila, from 0 (air) to about 0.5."""
    hila = np.maximum(_blob(x, y, -0.24, 0.45, 0.3, 0.2), _blob(x, y, 0.26, 0.43, 0.3, 0.2))
    blotches = np.abs(smooth_noise(x.shape, 28, rng)) * 0.5 + np.abs(smooth_noise(x.shape, 56, rng)) * 0.35
    markings = rng.uniform(0.1, 0.2)
    return np.clip(0.06 + markings * blotches * (0.35 + hila) + rng.uniform(0.15, 0.3) * hila**3, 0, 0.6)


def _bones(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    """Ribs that fall away from the spine, and two collar bones."""
    away = np.abs(x)
    spacing, slope = rng.uniform(0.074, 0.084), rng.uniform(0.16, 0.24)
    fall = (y - 0.1 - slope * away + 0.3 * (away - 0.45) ** 2) / spacing
    crest = np.cos(2 * np.pi * fall).astype(np.float32)
    cage = _smooth(np.float32(0.86) - away, 0.06) * _smooth(away - np.float32(0.1), 0.06)
    cage *= _smooth(y - np.float32(0.1), 0.05) * _smooth(np.float32(0.86) - y, 0.1)
    bones = rng.uniform(0.05, 0.08) * cage * _smooth(crest - np.float32(0.2), 0.9)
    line = y - np.float32(rng.uniform(0.13, 0.16)) + 0.1 * (away - 0.1)
    reach = _smooth(away - np.float32(0.1), 0.05) * _smooth(np.float32(0.75) - away, 0.1)
    return bones + rng.uniform(0.06, 0.1) * reach * _blob(line, line, 0, 0, 0.025, 0.025)


def _opacities(x: Grid, y: Grid, rng: np.random.Generator, density: float) -> tuple[Grid, tuple[str, ...]]:
    """Share of the air replaced, from 0 to 1, and the names of what was drawn."""
    kind = rng.choice(["consolidation", "haze", "both"], p=[0.5, 0.3, 0.2])
    opacity = np.zeros_like(x)
    if kind in ("consolidation", "both"):
        ragged = 1 + 0.35 * smooth_noise(x.shape, 14, rng)
        for _ in range(rng.integers(1, 4)):
            side = rng.choice([-1, 1])
            cx, cy = side * rng.uniform(0.3, 0.55), rng.uniform(0.3, 0.68)
            reach = rng.uniform(0.12, 0.26)
            spot = np.clip(1.6 * _blob(x, y, cx, cy, reach, reach * 0.6) * ragged - 0.2, 0, 1)
            opacity = np.maximum(opacity, spot * np.float32(0.25 + 0.7 * density))
    if kind in ("haze", "both"):
        veil = np.clip(0.5 + 0.25 * smooth_noise(x.shape, 8, rng) + 0.5 * (y - 0.4), 0, 1)
        opacity = np.maximum(opacity, veil * np.float32(0.1 + 0.75 * density))
    findings = ("consolidation", "haze") if kind == "both" else (str(kind),)
    return opacity * np.float32(min(1.0, 4 * density)), findings


def _exposed(scene: Grid, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Film: blur, exposure, contrast, grain, and a side marker; 8 bits."""
    contrast, gamma, fog = rng.normal(1.0, 0.07), rng.uniform(0.85, 1.2), rng.uniform(0.01, 0.07)
    film = np.clip(cv2.GaussianBlur(scene, (3, 3), 0.7), 0, 1.2)
    film = cv2.pow(film, float(gamma)) * np.float32(contrast) + np.float32(fog)
    film += np.float32(rng.uniform(0.008, 0.018)) * rng.standard_normal(scene.shape, dtype=np.float32)
    image: NDArray[Any] = cv2.convertScaleAbs(np.clip(film, 0, 1), alpha=255)
    height, width = image.shape
    corner = (int(0.05 * width), int(0.1 * height))
    cv2.putText(image, "R", corner, cv2.FONT_HERSHEY_SIMPLEX, height / 450, 247, max(1, height // 200))
    return image
