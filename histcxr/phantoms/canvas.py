"""A canvas for made-up radiographs: attenuation is added up, and turned into film at the end.

Soft tissue is thickest in the middle, bones have a bright rim (cortex) and a paler core, air takes away. What pictures
share with film (exposure, grain, collimation, side marker, turning) is laid over all of them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Layer = NDArray[Any]
Points = Sequence[tuple[float, float]]


@dataclass(slots=True)
class Canvas:
    """Attenuation, added up; places are given in a frame of its own, about -1 to 1 on the short side."""

    scene: Layer
    matrix: Layer
    unit: float
    rng: Rng

    def outline(self, points: Points, rough: float = 0.0) -> Layer:
        """The inside of a closed smooth curve through some points, as uint8 0 or 255."""
        corners = np.asarray(points, np.float64)
        if rough:
            corners = corners + self.rng.normal(0, rough, corners.shape)
        mask = np.zeros(self.scene.shape, np.uint8)
        cv2.fillPoly(mask, [self._pixels(_closed_curve(corners))], 255)
        return mask

    def tube(self, points: Points, radii: Sequence[float] | Layer) -> Layer:
        """A limb or a bone: a path with a radius at each of its points."""
        path, sizes = np.asarray(points, np.float64), np.asarray(radii, np.float64)
        steps = np.linspace(0, len(path) - 1, 24 * (len(path) - 1) + 1)
        knots = np.arange(len(path))
        along = np.stack([np.interp(steps, knots, path[:, axis]) for axis in (0, 1)], axis=1)
        mask = np.zeros(self.scene.shape, np.uint8)
        centres = self._pixels(along)
        for centre, size in zip(centres, np.interp(steps, knots, sizes), strict=True):
            cv2.circle(mask, (int(centre[0]), int(centre[1])), max(1, round(size * self.unit)), 255, -1)
        return mask

    def disc(self, x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Layer:
        """An ellipse, turned by degrees."""
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        u, v = rx * np.cos(angle), ry * np.sin(angle)
        return self.outline(list(zip(x + c * u - s * v, y + s * u + c * v, strict=True)))

    def flesh(self, mask: Layer, density: float, softness: float = 0.0) -> None:
        """Add soft tissue: thick in the middle, thin at its edge."""
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        deepest = max(1.0, float(depth.max()))
        size = 2 * int(softness * self.unit) + 1
        self.scene += np.float32(density) * cv2.GaussianBlur(np.sqrt(depth / deepest), (size, size), 0)

    def bone(self, mask: Layer, density: float, cortex: float = 0.02, core: float = 0.55) -> None:
        """Add a bone: a bright rim and a paler, grained core."""
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        rim = np.exp(-depth / np.float32(max(1.0, cortex * self.unit)))
        grain = 1 + 0.08 * smooth_noise(self.scene.shape, 60, self.rng)
        self.scene += np.float32(density) * (mask > 0) * ((1 - core) * rim + core) * grain

    def air(self, mask: Layer, share: float, softness: float = 0.02) -> None:
        """Take away a share of what lies there."""
        size = 2 * int(softness * self.unit) + 1
        soft = cv2.GaussianBlur(mask, (size, size), 0).astype(np.float32) / 255
        self.scene *= 1 - np.float32(share) * soft

    def _pixels(self, points: Layer) -> Layer:
        turned = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return np.round(turned).astype(np.int32)


def smooth_noise(shape: tuple[int, ...], cells: int, rng: Rng) -> Layer:
    """Noise of unit spread with about ``cells`` swings across the image, float32 (height, width)."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def _closed_curve(corners: Layer, steps: int = 8) -> Layer:
    """A Catmull-Rom curve through the corners."""
    t = (np.arange(steps) / steps)[:, None]
    pieces = []
    for i in range(len(corners)):
        a, b, c, d = (corners[(i + k) % len(corners)] for k in (-1, 0, 1, 2))
        pieces.append(
            0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        )
    return np.concatenate(pieces)


def new_canvas(rng: Rng, portrait: bool | None = None, turn: float = 8.0) -> Canvas:
    """An empty canvas of any size from 256 to 1024 pixels a side, its frame shifted, scaled, turned (by about
    ``turn`` degrees) and mirrored at random.
    """
    short, long = sorted(int(side) for side in rng.integers(256, 1025, 2))
    long = min(long, int(1.35 * short))
    upright = rng.random() < 0.7 if portrait is None else portrait
    height, width = (long, short) if upright else (short, long)
    unit = min(height, width) / 2 * rng.uniform(0.85, 1.1)
    angle = np.deg2rad(rng.normal(0, turn))
    mirror = rng.choice([-1, 1])
    c, s = np.cos(angle) * unit, np.sin(angle) * unit
    shift = rng.normal(0, 0.05, 2) * unit
    matrix = np.array([[c * mirror, -s, width / 2 + shift[0]], [s * mirror, c, height / 2 + shift[1]]])
    return Canvas(np.zeros((height, width), np.float32), matrix, float(unit), rng)


def film(canvas: Canvas, ground: float = 0.05) -> NDArray[np.uint8]:
    """Exposure, blur, grain, collimation and marker; uint8 (height, width)."""
    rng = canvas.rng
    size = 2 * int(0.004 * canvas.unit) + 3
    scene = cv2.GaussianBlur(canvas.scene, (size, size), 0)
    scene = np.clip(scene * (1 + 0.03 * smooth_noise(scene.shape, 14, rng)), 0, None)
    levels = (
        np.float32(ground * rng.uniform(0.2, 1.6)) + 1 - np.exp(-np.float32(rng.uniform(0.85, 1.6)) * scene)
    )
    levels = np.clip(levels * rng.uniform(0.85, 1.08), 0, 1) ** np.float32(rng.uniform(0.75, 1.35))
    levels += np.float32(rng.uniform(0.006, 0.025)) * rng.standard_normal(levels.shape, dtype=np.float32)
    image: Layer = cv2.convertScaleAbs(np.clip(levels, 0, 1), alpha=255)
    if rng.random() < 0.35:
        _collimate(image, rng)
    if rng.random() < 0.6:
        height, width = image.shape
        corner = (int(rng.choice([0.05, 0.85]) * width), int(rng.uniform(0.08, 0.95) * height))
        text, scale = str(rng.choice(["R", "L"])), height / rng.uniform(250, 500)
        cv2.putText(image, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, 245, max(1, height // 200))
    return image


def _collimate(image: Layer, rng: Rng) -> None:
    height, width = image.shape
    top, bottom = (rng.uniform(0.0, 0.09, 2) * height).astype(int)
    left, right = (rng.uniform(0.0, 0.09, 2) * width).astype(int)
    shade = int(rng.integers(0, 12))
    image[:top], image[height - bottom :] = shade, shade
    image[:, :left], image[:, width - right :] = shade, shade
