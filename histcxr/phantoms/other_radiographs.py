"""Drawings of radiographs that are no frontal chests: a chest from the side, abdomen, pelvis, skull, hand, foot, knee.

They look like radiographs to an algorithm, not to a radiologist. Attenuation is added up on a canvas, and exposure,
grain, collimation and a side marker are laid over it. Each function returns uint8 ``(height, width)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.phantoms.anatomy import smooth_noise

Rng = np.random.Generator
Layer = NDArray[Any]


def places(text: str) -> Layer:
    """Read numbers written as ``"x,y x,y ..."``: float64 ``(n, numbers in each)``."""
    return np.array([place.split(",") for place in text.split()], np.float64)


@dataclass(slots=True)
class Canvas:
    """Attenuation, added up; places are given in a frame of its own, about -1 to 1 on the short side."""

    scene: Layer
    matrix: Layer
    unit: float
    rng: Rng

    def outline(self, points: str | ArrayLike, rough: float = 0.0) -> Layer:
        """The inside of a closed smooth curve through some points, as uint8 0 or 255."""
        corners = places(points) if isinstance(points, str) else np.asarray(points, np.float64)
        if rough:
            corners = corners + self.rng.normal(0, rough, corners.shape)
        mask = np.zeros(self.scene.shape, np.uint8)
        cv2.fillPoly(mask, [self._pixels(_closed_curve(corners))], 255)
        return mask

    def tube(self, points: str | ArrayLike, radii: Sequence[float] | Layer) -> Layer:
        """A limb or a bone: a path with a radius at each of its points."""
        path = places(points) if isinstance(points, str) else np.asarray(points, np.float64)
        steps = np.linspace(0, len(path) - 1, 24 * (len(path) - 1) + 1)
        knots = np.arange(len(path))
        along = np.stack([np.interp(steps, knots, path[:, axis]) for axis in (0, 1)], axis=1)
        mask = np.zeros(self.scene.shape, np.uint8)
        centres = self._pixels(along)
        for centre, size in zip(centres, np.interp(steps, knots, radii), strict=True):
            cv2.circle(mask, (int(centre[0]), int(centre[1])), max(1, round(size * self.unit)), 255, -1)
        return mask

    def disc(self, x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> Layer:
        """An ellipse, turned by degrees."""
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        u, v = rx * np.cos(angle), ry * np.sin(angle)
        return self.outline(np.stack([x + c * u - s * v, y + s * u + c * v], axis=1))

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


def _closed_curve(corners: Layer, steps: int = 8) -> Layer:
    """A Catmull-Rom curve through the corners."""
    t = (np.arange(steps) / steps)[:, None]
    a, b, c, d = (np.roll(corners, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))
    square, cube = (2 * a - 5 * b + 4 * c - d) * t**2, (3 * b - a - 3 * c + d) * t**3
    return np.asarray(0.5 * (2 * b + (c - a) * t + square + cube)).reshape(-1, 2)


def _new_canvas(rng: Rng, portrait: bool | None = None, turn: float = 8.0) -> Canvas:
    """An empty canvas of 256 to 1024 pixels a side, its frame moved, scaled, turned and mirrored at random."""
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


def _film(canvas: Canvas) -> NDArray[np.uint8]:
    """Exposure, blur, grain, collimation and marker; uint8 (height, width)."""
    rng = canvas.rng
    size = 2 * int(0.004 * canvas.unit) + 3
    scene = cv2.GaussianBlur(canvas.scene, (size, size), 0)
    scene = np.clip(scene * (1 + 0.03 * smooth_noise(scene.shape, 14, rng)), 0, None)
    fog = np.float32(0.05 * rng.uniform(0.2, 1.6))
    levels = fog + 1 - np.exp(-np.float32(rng.uniform(0.85, 1.6)) * scene)
    levels = np.clip(levels * rng.uniform(0.85, 1.08), 0, 1) ** np.float32(rng.uniform(0.75, 1.35))
    levels += np.float32(rng.uniform(0.006, 0.025)) * rng.standard_normal(levels.shape, dtype=np.float32)
    image: Layer = cv2.convertScaleAbs(np.clip(levels, 0, 1), alpha=255)
    height, width = image.shape
    if rng.random() < 0.35:
        top, bottom = (rng.uniform(0.0, 0.09, 2) * height).astype(int)
        left, right = (rng.uniform(0.0, 0.09, 2) * width).astype(int)
        shade = int(rng.integers(0, 12))
        image[:top], image[height - bottom :] = shade, shade
        image[:, :left], image[:, width - right :] = shade, shade
    if rng.random() < 0.6:
        corner = (int(rng.choice([0.05, 0.85]) * width), int(rng.uniform(0.08, 0.95) * height))
        text, scale = str(rng.choice(["R", "L"])), height / rng.uniform(250, 500)
        cv2.putText(image, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, 245, max(1, height // 200))
    return image


def draw_lateral(rng: Rng) -> NDArray[np.uint8]:
    """A chest from the side: one outline, the spine at the back, two lungs on top of each other, the heart in front."""
    canvas = _new_canvas(rng, portrait=True, turn=4)
    back, front, base = rng.uniform(0.68, 0.8), rng.uniform(0.62, 0.8), rng.uniform(0.45, 0.62)
    spine = f"-0.25,-1.6 0.3,-1.6 {back},-0.8 {back + 0.05},0 {back - 0.06},0.9 {back},1.7"
    chest = f"{0.1 - front},1.7 {-front},0.8 {-front - 0.03},0 {0.2 - front},-0.8"
    body = canvas.outline(f"{spine} {chest}", rough=0.015)
    canvas.flesh(body, rng.uniform(0.9, 1.2))
    arms = canvas.outline("-0.4,-1.5 0.4,-1.5 0.5,-0.75 -0.45,-0.7")
    canvas.flesh(arms, rng.uniform(0.3, 0.7), 0.1)
    behind = f"-0.05,-0.85 0.3,-0.82 {back - 0.16},-0.4 {back - 0.1},0.2 {back - 0.12},{base + 0.22}"
    below = f"{back - 0.35},{base + 0.02} 0,{base - 0.1} {0.35 - front},{base} {0.12 - front},{base + 0.08}"
    lung = canvas.outline(f"{behind} {below} {0.1 - front},0.1 {0.2 - front},-0.4", rough=0.015)
    canvas.air(lung, rng.uniform(0.5, 0.68), 0.03)
    x, long, short = rng.uniform(-0.38, -0.22), rng.uniform(0.34, 0.42), rng.uniform(0.24, 0.3)
    canvas.flesh(canvas.disc(x, base - 0.24, long, short, -35), rng.uniform(0.35, 0.6), 0.07)  # heart
    canvas.flesh(canvas.disc(0.05, -0.1, 0.14, 0.16), rng.uniform(0.12, 0.3), 0.08)  # hilum
    for level in np.arange(-1.1, 1.4, rng.uniform(0.15, 0.18)):  # vertebrae along a curve
        x = back - 0.24 + 0.16 * np.cos(1.3 * (level - 0.1)) - 0.1
        canvas.bone(canvas.disc(x, level, 0.085, 0.062, 8 * level), rng.uniform(0.22, 0.38), 0.015)
    for level in np.arange(-0.75, 0.75, rng.uniform(0.15, 0.19)):  # ribs fall forwards
        path = [(back - 0.2, level), (0.2, level + 0.1), (-front + 0.12, level + 0.34)]
        canvas.bone(canvas.tube(path, [0.022] * 3), 0.1, 0.01)
    canvas.bone(canvas.tube([(-front + 0.26, -0.6), (-front + 0.06, 0.2)], [0.03, 0.025]), 0.25, 0.01)
    return _film(canvas)


def draw_abdomen(rng: Rng) -> NDArray[np.uint8]:
    """An abdomen from the front: lumbar spine, last ribs, iliac crests, and gas in the bowel."""
    canvas = _new_canvas(rng, portrait=True, turn=3)
    density, wide = rng.uniform(0.3, 0.5), rng.uniform(0.9, 1.08)
    hips, waist = 0.9 * wide, 0.84 * wide
    right = f"-0.9,-1.7 0.9,-1.7 {waist},-0.3 {hips},0.5 0.98,1.7"
    body = canvas.outline(f"{right} -0.98,1.7 {-hips},0.5 {-waist},-0.3", rough=0.02)
    canvas.flesh(body, rng.uniform(0.8, 1.2))
    canvas.flesh(canvas.outline("-0.85,-1.1 -0.1,-1 -0.3,-0.3 -0.7,0.1"), rng.uniform(0.1, 0.25))  # liver
    for side in (-1, 1):
        flip = np.array([side, 1])
        canvas.flesh(canvas.tube(places("0.16,-0.4 0.42,0.8") * flip, [0.06, 0.17]), 0.12)  # psoas
        canvas.flesh(canvas.disc(side * 0.4, -0.35, 0.14, 0.26, side * 12), rng.uniform(0.06, 0.14))  # kidney
        wing = places("0.25,0.85 0.5,0.62 0.8,0.78 0.85,1.2 0.5,1.6 0.3,1.3") * flip
        canvas.bone(canvas.outline(wing), density, 0.03, 0.4)
        for rib in range(3):
            y = -1.05 + 0.22 * rib
            reach = 0.8 - 0.16 * rib
            path = [(side * 0.16, y), (side * reach * 0.7, y + 0.12), (side * reach, y + 0.36)]
            canvas.bone(canvas.tube(path, [0.035, 0.035, 0.028]), density * 0.5, 0.012)
    for level in np.arange(-1.3, 0.75, rng.uniform(0.24, 0.28)):
        middle, below = level + 0.1, level + 0.2
        vertebra = f"-0.15,{level} 0.15,{level} 0.13,{middle} 0.15,{below} -0.15,{below} -0.13,{middle}"
        canvas.bone(canvas.outline(vertebra), density, 0.02, 0.55)
        canvas.bone(canvas.tube([(-0.3, middle), (0.3, middle)], [0.025, 0.025]), density * 0.5, 0.012)
        canvas.bone(canvas.disc(0, level + 0.16, 0.03, 0.07), density * 0.5, 0.012)
    for _ in range(rng.integers(4, 22)):
        x, y = rng.uniform(-0.65, 0.65), rng.uniform(-0.6, 1.0)
        size = rng.uniform(0.04, 0.16)
        bubble = canvas.disc(x, y, size, size * rng.uniform(0.5, 1), rng.uniform(0, 180))
        canvas.air(bubble, rng.uniform(0.15, 0.45), 0.03)
    if rng.random() < 0.6:
        stomach = canvas.disc(0.35, -0.85, rng.uniform(0.12, 0.25), 0.1, -15)
        canvas.air(stomach, rng.uniform(0.3, 0.6), 0.03)
    return _film(canvas)


def draw_pelvis(rng: Rng) -> NDArray[np.uint8]:
    """A pelvis from the front with both hips."""
    canvas = _new_canvas(rng, portrait=bool(rng.random() < 0.3), turn=4)
    density, wide = rng.uniform(0.3, 0.55), rng.uniform(0.92, 1.08)
    body = "-0.85,-1.5 0.85,-1.5 0.95,-0.4 1.15,0.2 1.1,1.6 -1.1,1.6 -1.15,0.2 -0.95,-0.4"
    canvas.flesh(canvas.outline(body, rough=0.02), rng.uniform(0.7, 1.1))
    canvas.air(canvas.outline("-0.03,0.75 0.03,0.75 0.16,1.6 -0.16,1.6"), 0.75, 0.05)  # between the thighs
    for level in np.arange(-1.2, -0.45, 0.23):
        vertebra = f"-0.15,{level} 0.15,{level} 0.13,{level + 0.18} -0.13,{level + 0.18}"
        canvas.bone(canvas.outline(vertebra), density, 0.02)
    sacrum = canvas.outline("-0.3,-0.5 0.3,-0.5 0.2,-0.15 0.05,0.1 -0.05,0.1 -0.2,-0.15")
    canvas.bone(sacrum, density, 0.03)
    for side in (-1, 1):
        s = side * wide
        flip = np.array([s, 1])
        wing = "0.25,-0.45 0.4,-0.72 0.72,-0.66 0.82,-0.4 0.66,-0.05 0.7,0.12 0.5,0.2 0.38,0"
        canvas.bone(canvas.outline(places(wing) * flip, rough=0.01), density, 0.025, 0.4)
        ring = canvas.outline(places("0.5,0.1 0.08,0.34 0.05,0.52 0.3,0.72 0.5,0.5") * flip)
        hole = canvas.disc(s * 0.27, 0.47, 0.1, 0.12, -side * 25)
        canvas.bone(ring & ~hole, density * 0.9, 0.025, 0.5)
        canvas.bone(canvas.disc(s * 0.62, 0.22, 0.17, 0.17), density * 0.8, 0.03, 0.6)  # head of the femur
        neck = places("0.62,0.22 0.84,0.4 0.84,0.7 0.8,1.7") * flip
        canvas.bone(canvas.tube(neck, [0.11, 0.15, 0.12, 0.11]), density, 0.035, 0.45)
    for _ in range(rng.integers(2, 7)):
        gas = canvas.disc(rng.normal(0, 0.4), rng.uniform(-1.0, -0.3), rng.uniform(0.05, 0.15), 0.06)
        canvas.air(gas, 0.25, 0.04)
    return _film(canvas)


def draw_skull(rng: Rng) -> NDArray[np.uint8]:
    """A skull, from the front or from the side."""
    canvas = _new_canvas(rng, turn=9)
    density, tall = rng.uniform(0.6, 0.95), rng.uniform(0.92, 1.08)
    draw = _skull_front if rng.random() < 0.5 else _skull_side
    draw(canvas, density, tall)
    return _film(canvas)


def _skull_front(canvas: Canvas, density: float, tall: float) -> None:
    rng = canvas.rng
    right = "0.45,-0.82 0.66,-0.35 0.62,0.15 0.5,0.6 0.25,0.92"
    left = "-0.25,0.92 -0.5,0.6 -0.62,0.15 -0.66,-0.35 -0.45,-0.82"
    head = canvas.outline(f"0,{-0.95 * tall} {right} {left}")
    neck = canvas.outline("-0.38,0.5 0.38,0.5 0.42,1 0.8,1.7 -0.8,1.7 -0.42,1")
    canvas.flesh(head | neck, rng.uniform(0.35, 0.55))
    canvas.bone(canvas.disc(0, -0.32, 0.6, 0.6 * tall), density * 0.8, 0.05, 0.5)
    face = canvas.outline("-0.44,0 0.44,0 0.36,0.5 0.18,0.8 -0.18,0.8 -0.36,0.5")
    canvas.bone(face, density * 0.6, 0.03, 0.6)
    for side in (-1, 1):
        x = side * 0.25
        canvas.air(canvas.disc(x, -0.02, 0.16, 0.13, side * 8), rng.uniform(0.3, 0.45), 0.015)
        orbit = canvas.disc(x, -0.02, 0.18, 0.15) & ~canvas.disc(x, -0.02, 0.15, 0.12)
        canvas.bone(orbit, 0.3, 0.02)
        canvas.air(canvas.disc(side * 0.22, 0.27, 0.11, 0.13), rng.uniform(0.2, 0.35), 0.02)
        jaw = places("0.47,0.22 0.43,0.55 0.2,0.78 0,0.84") * np.array([side, 1])
        canvas.bone(canvas.tube(jaw, [0.05, 0.065, 0.07, 0.07]), density * 0.6, 0.03)
    canvas.air(canvas.outline("0,0.02 0.09,0.28 0,0.34 -0.09,0.28"), 0.4, 0.015)
    canvas.air(canvas.disc(rng.normal(0, 0.02), -0.22, 0.2, 0.07), rng.uniform(0.1, 0.25), 0.03)
    for place in np.linspace(-0.2, 0.2, 9):
        for level in (0.5, 0.63):
            canvas.bone(canvas.disc(place, level + place**2, 0.018, 0.055), density * 0.7, 0.02, 0.8)
    for level in np.arange(0.9, 1.6, 0.16):
        canvas.bone(canvas.disc(0, level, 0.12, 0.06), density * 0.5, 0.02)


def _skull_side(canvas: Canvas, density: float, tall: float) -> None:
    rng = canvas.rng
    back = f"-0.1,{-0.92 * tall} 0.5,-0.8 0.82,-0.3 0.7,0.2 0.5,0.5 0.55,1.6"
    front = "-0.1,1.6 -0.2,0.85 -0.62,0.85 -0.72,0.45 -0.86,0.28 -0.72,-0.05 -0.7,-0.5"
    canvas.flesh(canvas.outline(f"{back} {front}", rough=0.01), rng.uniform(0.35, 0.55))
    canvas.bone(canvas.disc(0.07, -0.32, 0.74, 0.55 * tall, -6), density * 0.8, 0.045, 0.45)
    base = "-0.62,-0.02 -0.2,0.02 0.15,0.15 0.5,0.18"
    canvas.bone(canvas.tube(base, [0.05, 0.08, 0.12, 0.05]), density * 0.6, 0.03)
    canvas.bone(canvas.outline("-0.66,0 -0.3,0.05 -0.22,0.4 -0.6,0.45"), density * 0.45, 0.025)
    canvas.air(canvas.disc(-0.5, 0.02, 0.13, 0.12), rng.uniform(0.25, 0.4), 0.02)
    canvas.air(canvas.disc(-0.42, 0.22, 0.12, 0.1), rng.uniform(0.2, 0.4), 0.02)
    jaw = canvas.tube("0.02,0.2 -0.03,0.5 -0.3,0.68 -0.62,0.76", [0.07, 0.09, 0.08, 0.09])
    canvas.bone(jaw, density * 0.7, 0.03)
    for place in np.linspace(-0.64, -0.3, 7):
        for level in (0.48, 0.6):
            canvas.bone(canvas.disc(place, level, 0.022, 0.055), density * 0.7, 0.02, 0.8)
    for level in np.arange(0.32, 1.5, 0.15):
        canvas.bone(canvas.disc(0.28 + 0.05 * level, level, 0.1, 0.06, 8), density * 0.6, 0.02)
    for _ in range(4):  # vessels' grooves and sutures
        x, y = rng.uniform(-0.3, 0.5), rng.uniform(-0.6, -0.2)
        groove = [(x, y), (x + rng.normal(0, 0.2), y + rng.normal(0, 0.2))]
        canvas.air(canvas.tube(groove, [0.012, 0.008]), 0.12, 0.01)


def draw_hand(rng: Rng) -> NDArray[np.uint8]:
    """A hand from above, fingers up, with the wrist and the ends of the forearm's bones."""
    canvas = _new_canvas(rng, turn=18)
    spread, length, thick = rng.uniform(0.6, 1.3), rng.uniform(0.85, 1.1), rng.uniform(0.85, 1.15)
    rays = []  # each a list of joints, wrist first
    for finger, (knuckle, reach) in enumerate(places("-0.42,0.62 -0.24,0.92 -0.03,1 0.17,0.92 0.34,0.74")):
        lean = np.deg2rad((knuckle * 34 * spread) - (28 if finger == 0 else 0) + rng.normal(0, 2))
        way = np.array([np.sin(lean), -np.cos(lean)])
        joints = [np.array([knuckle * 0.55, 0.55 - 0.14])]
        for part in (0.42, 0.3, 0.24) if finger == 0 else (0.46, 0.33, 0.21, 0.15):
            joints.append(joints[-1] + way * part * reach * length)
        rays.append(joints)
    skin = canvas.outline("-0.22,1.6 -0.22,0.7 -0.42,0.35 -0.3,-0.02 0.3,-0.02 0.36,0.35 0.22,0.7 0.22,1.6")
    for joints in rays:
        skin |= canvas.tube(joints, [0.11 * thick] * 2 + [0.085 * thick] * (len(joints) - 2))
    canvas.flesh(skin, rng.uniform(0.25, 0.5))
    density = rng.uniform(0.45, 0.8)
    for joints in rays:
        for near, far in zip(joints[:-1], joints[1:], strict=True):
            gap = (far - near) * 0.06
            path, radii = [near + gap, (near + far) / 2, far - gap], np.array([0.052, 0.03, 0.045]) * thick
            canvas.bone(canvas.tube(path, radii), density, 0.013, 0.5)
    for x, y in places("-0.17,0.4 -0.05,0.37 0.08,0.38 0.18,0.43 -0.12,0.53 0,0.52 0.12,0.54"):
        dx, dy = rng.normal(0, 0.008, 2)
        canvas.bone(canvas.disc(x + dx, y + dy, 0.065, 0.055, rng.uniform(0, 90)), density * 0.9, 0.012, 0.6)
    canvas.bone(canvas.tube("-0.09,0.66 -0.08,0.85 -0.07,1.7", [0.115, 0.075, 0.07]), density, 0.02)
    canvas.bone(canvas.tube("0.13,0.69 0.13,0.85 0.13,1.7", [0.065, 0.05, 0.05]), density, 0.018)
    return _film(canvas)


def draw_foot(rng: Rng) -> NDArray[np.uint8]:
    """A foot, from above or from the side."""
    return _foot_from_side(rng) if rng.random() < 0.5 else _foot_from_above(rng)


def _foot_from_above(rng: Rng) -> NDArray[np.uint8]:
    canvas = _new_canvas(rng, portrait=True, turn=12)
    thick, density = rng.uniform(0.9, 1.15), rng.uniform(0.45, 0.75)
    outer = "-0.3,1.2 -0.36,0.5 -0.46,-0.3 -0.44,-0.75 0,-0.85"
    skin = canvas.outline(f"{outer} 0.36,-0.6 0.36,0.1 0.28,0.8 0.2,1.25 -0.05,1.35", rough=0.015)
    rays = []
    for toe, x in enumerate((-0.3, -0.13, 0.02, 0.16, 0.28)):
        end = -0.62 + 0.1 * toe + rng.normal(0, 0.01)
        down = [0.22 + 0.03 * toe, -0.4 + 0.08 * toe, end - 0.12, end - 0.3]
        rays.append(np.stack([x * np.array([0.7, 1.0, 1.08, 1.1]), down], axis=1))
        skin |= canvas.tube(rays[-1][1:], [0.1, 0.095, 0.085])
    canvas.flesh(skin, rng.uniform(0.4, 0.7))
    for toe, joints in enumerate(rays):
        wide = (1.7 if toe == 0 else 1.0) * thick
        for a, b in zip(joints[:-1], joints[1:], strict=True):
            path = [a + 0.05 * (b - a), (a + b) / 2, b - 0.05 * (b - a)]
            canvas.bone(canvas.tube(path, np.array([0.048, 0.03, 0.045]) * wide), density, 0.013, 0.5)
    for x, y, r in places("-0.2,0.34,0.1 -0.06,0.36,0.08 0.06,0.38,0.075 0.19,0.45,0.11 -0.12,0.52,0.12"):
        canvas.bone(canvas.disc(x, y, r, r * 0.8, rng.uniform(-20, 20)), density * 0.9, 0.014, 0.65)
    canvas.bone(canvas.outline("-0.2,0.62 0.05,0.58 0.12,0.8 0.02,0.95 -0.16,0.86"), density, 0.02, 0.7)
    canvas.bone(canvas.outline("0,0.7 0.2,0.66 0.18,1.1 0.05,1.26 -0.08,1.1"), density, 0.02, 0.7)
    return _film(canvas)


def _foot_from_side(rng: Rng) -> NDArray[np.uint8]:
    canvas = _new_canvas(rng, turn=10)
    density = rng.uniform(0.5, 0.9)
    behind = "0.28,-1.5 0.72,-1.5 0.74,-0.3 0.95,0.25 0.85,0.55 0.3,0.6 -0.3,0.52"
    skin = canvas.outline(f"{behind} -0.95,0.6 -1.05,0.42 -0.5,0.15 0,-0.12 0.25,-0.5", rough=0.012)
    canvas.flesh(skin, rng.uniform(0.5, 0.9))
    canvas.bone(canvas.tube("0.46,-1.6 0.46,-0.6 0.45,-0.32", [0.1, 0.1, 0.15]), density, 0.025, 0.45)
    canvas.bone(canvas.tube("0.6,-1.6 0.58,-0.5 0.57,-0.18", [0.05, 0.05, 0.07]), density * 0.7, 0.02, 0.5)
    canvas.bone(canvas.outline("0.25,-0.12 0.5,-0.2 0.66,-0.05 0.5,0.08 0.2,0.08"), density, 0.02)
    heel = "0.3,0.1 0.6,0.08 0.84,0.22 0.84,0.42 0.65,0.46 0.3,0.3 0.15,0.25"
    canvas.bone(canvas.outline(heel), density, 0.02, 0.6)
    for x, y, r in ((0.1, 0.08, 0.1), (-0.06, 0.14, 0.1), (0.02, 0.26, 0.09)):
        canvas.bone(canvas.disc(x, y, r, r * 0.85), density * 0.8, 0.015, 0.65)
    for lift in (0.0, 0.05, 0.1, 0.14):
        path = [(-0.1, 0.18 + lift), (-0.35, 0.27 + lift), (-0.58, 0.38 + lift / 2)]
        canvas.bone(canvas.tube(path, [0.05, 0.03, 0.045]), density * 0.6, 0.012, 0.5)
    canvas.bone(canvas.tube("-0.63,0.42 -0.78,0.44", [0.05, 0.04]), density * 0.8, 0.012)
    canvas.bone(canvas.tube("-0.83,0.47 -0.96,0.5", [0.04, 0.03]), density * 0.7, 0.012)
    return _film(canvas)


def draw_knee(rng: Rng) -> NDArray[np.uint8]:
    """A knee, from the front or from the side."""
    canvas = _new_canvas(rng, portrait=True, turn=6)
    density, slim = rng.uniform(0.55, 0.9), rng.uniform(0.85, 1.1)
    if rng.random() < 0.5:
        right = "-0.6,-1.7 0.6,-1.7 0.55,-0.5 0.52,0.2 0.55,0.8"
        leg = canvas.outline(f"{right} 0.42,1.7 -0.42,1.7 -0.55,0.8 -0.52,0.2 -0.55,-0.5", rough=0.02)
        canvas.flesh(leg, rng.uniform(0.5, 0.8))
        left = "-0.14,-1.8 -0.15,-0.75 -0.36,-0.35 -0.36,-0.1 -0.15,0"
        femur = canvas.outline(f"{left} 0,-0.08 0.15,0 0.36,-0.1 0.36,-0.35 0.15,-0.75 0.14,-1.8")
        canvas.bone(femur, density, 0.035, 0.45)
        right = "0.37,0.06 0.33,0.28 0.16,0.65 0.13,1.8"
        tibia = canvas.outline(f"-0.37,0.06 0,0.04 {right} -0.13,1.8 -0.16,0.65 -0.33,0.28")
        canvas.bone(tibia, density, 0.035, 0.45)
        canvas.bone(canvas.tube("0.36,0.3 0.33,0.6 0.3,1.8", [0.075, 0.045, 0.045]), density * 0.7, 0.02)
        canvas.bone(canvas.disc(0.0, -0.32, 0.17 * slim, 0.19), density * 0.3, 0.02, 0.7)
        return _film(canvas)
    bend = rng.uniform(0.0, 0.9)
    foot = (-0.05 + 1.4 * np.sin(bend), 0.15 + 1.5 * np.cos(bend))
    leg = canvas.tube([(0.1, -1.8), (0.0, -0.1), foot], [0.55 * slim, 0.42 * slim, 0.38 * slim])
    canvas.flesh(leg, rng.uniform(0.5, 0.8))
    canvas.bone(canvas.tube("0.05,-1.8 0,-0.6 0.03,-0.25", [0.14, 0.14, 0.24]), density, 0.035, 0.45)
    shin = canvas.tube([(-0.02, 0.14), (0.1 * foot[0], 0.4), foot], [0.24, 0.15, 0.12])
    canvas.bone(shin, density, 0.035, 0.45)
    canvas.bone(canvas.tube([(0.18, 0.25), (foot[0] + 0.2, foot[1])], [0.06, 0.05]), density * 0.6, 0.02)
    canvas.bone(canvas.disc(-0.34, -0.25, 0.08, 0.16, 12), density * 0.8, 0.02, 0.6)
    return _film(canvas)
