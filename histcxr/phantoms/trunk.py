"""Drawings of radiographs of a chest from the side, an abdomen, a pelvis and a skull.

They look like radiographs to an algorithm, not to a radiologist; see :mod:`~histcxr.phantoms.canvas`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from histcxr.phantoms.canvas import Canvas, Rng, film, new_canvas


def draw_lateral(rng: Rng) -> NDArray[np.uint8]:
    """A chest from the side: one outline, the spine at the back, two lungs on top of each other, the heart in front."""
    canvas = new_canvas(rng, portrait=True, turn=4)
    back, front, base = rng.uniform(0.68, 0.8), rng.uniform(0.62, 0.8), rng.uniform(0.45, 0.62)
    body = canvas.outline(
        [(-0.25, -1.6), (0.3, -1.6), (back, -0.8), (back + 0.05, 0.0), (back - 0.06, 0.9), (back, 1.7)]
        + [(-front + 0.1, 1.7), (-front, 0.8), (-front - 0.03, 0.0), (-front + 0.2, -0.8)],
        rough=0.015,
    )
    canvas.flesh(body, rng.uniform(0.9, 1.2))
    canvas.flesh(
        canvas.outline([(-0.4, -1.5), (0.4, -1.5), (0.5, -0.75), (-0.45, -0.7)]), rng.uniform(0.3, 0.7), 0.1
    )  # arms
    lung = canvas.outline(
        [(-0.05, -0.85), (0.3, -0.82), (back - 0.16, -0.4), (back - 0.1, 0.2), (back - 0.12, base + 0.22)]
        + [(back - 0.35, base + 0.02), (0.0, base - 0.1), (-front + 0.35, base), (-front + 0.12, base + 0.08)]
        + [(-front + 0.1, 0.1), (-front + 0.2, -0.4)],
        rough=0.015,
    )
    canvas.air(lung, rng.uniform(0.5, 0.68), 0.03)
    heart = canvas.disc(
        rng.uniform(-0.38, -0.22), base - 0.24, rng.uniform(0.34, 0.42), rng.uniform(0.24, 0.3), -35
    )
    canvas.flesh(heart, rng.uniform(0.35, 0.6), 0.07)
    hilum = canvas.disc(0.05, -0.1, 0.14, 0.16)
    canvas.flesh(hilum, rng.uniform(0.12, 0.3), 0.08)
    for level in np.arange(-1.1, 1.4, rng.uniform(0.15, 0.18)):  # vertebrae along a curve
        x = back - 0.24 + 0.16 * np.cos(1.3 * (level - 0.1)) - 0.1
        canvas.bone(canvas.disc(x, level, 0.085, 0.062, 8 * level), rng.uniform(0.22, 0.38), 0.015)
    for level in np.arange(-0.75, 0.75, rng.uniform(0.15, 0.19)):  # ribs fall forwards
        path = [(back - 0.2, level), (0.2, level + 0.1), (-front + 0.12, level + 0.34)]
        canvas.bone(canvas.tube(path, [0.022] * 3), 0.1, 0.01)
    canvas.bone(canvas.tube([(-front + 0.26, -0.6), (-front + 0.06, 0.2)], [0.03, 0.025]), 0.25, 0.01)
    return film(canvas)


def draw_abdomen(rng: Rng) -> NDArray[np.uint8]:
    """An abdomen from the front: lumbar spine, last ribs, iliac crests, and gas in the bowel."""
    canvas = new_canvas(rng, portrait=True, turn=3)
    density, wide = rng.uniform(0.3, 0.5), rng.uniform(0.9, 1.08)
    body = [(-0.9, -1.7), (0.9, -1.7), (0.84 * wide, -0.3), (0.9 * wide, 0.5), (0.98, 1.7), (-0.98, 1.7)]
    canvas.flesh(
        canvas.outline([*body, (-0.9 * wide, 0.5), (-0.84 * wide, -0.3)], rough=0.02), rng.uniform(0.8, 1.2)
    )
    canvas.flesh(
        canvas.outline([(-0.85, -1.1), (-0.1, -1.0), (-0.3, -0.3), (-0.7, 0.1)]), rng.uniform(0.1, 0.25)
    )  # liver
    for side in (-1, 1):
        canvas.flesh(canvas.tube([(side * 0.16, -0.4), (side * 0.42, 0.8)], [0.06, 0.17]), 0.12)  # psoas
        canvas.flesh(canvas.disc(side * 0.4, -0.35, 0.14, 0.26, side * 12), rng.uniform(0.06, 0.14))  # kidney
        wing = [
            (side * 0.25, 0.85),
            (side * 0.5, 0.62),
            (side * 0.8, 0.78),
            (side * 0.85, 1.2),
            (side * 0.5, 1.6),
        ]
        canvas.bone(canvas.outline([*wing, (side * 0.3, 1.3)]), density, 0.03, 0.4)
        for rib in range(3):
            y = -1.05 + 0.22 * rib
            reach = 0.8 - 0.16 * rib
            path = [(side * 0.16, y), (side * reach * 0.7, y + 0.12), (side * reach, y + 0.36)]
            canvas.bone(canvas.tube(path, [0.035, 0.035, 0.028]), density * 0.5, 0.012)
    for level in np.arange(-1.3, 0.75, rng.uniform(0.24, 0.28)):
        box = [
            (-0.15, level),
            (0.15, level),
            (0.13, level + 0.1),
            (0.15, level + 0.2),
            (-0.15, level + 0.2),
            (-0.13, level + 0.1),
        ]
        canvas.bone(canvas.outline(box), density, 0.02, 0.55)
        canvas.bone(
            canvas.tube([(-0.3, level + 0.1), (0.3, level + 0.1)], [0.025, 0.025]), density * 0.5, 0.012
        )
        canvas.bone(canvas.disc(0, level + 0.16, 0.03, 0.07), density * 0.5, 0.012)
    for _ in range(rng.integers(4, 22)):
        x, y = rng.uniform(-0.65, 0.65), rng.uniform(-0.6, 1.0)
        size = rng.uniform(0.04, 0.16)
        canvas.air(
            canvas.disc(x, y, size, size * rng.uniform(0.5, 1), rng.uniform(0, 180)),
            rng.uniform(0.15, 0.45),
            0.03,
        )
    if rng.random() < 0.6:
        canvas.air(
            canvas.disc(0.35, -0.85, rng.uniform(0.12, 0.25), 0.1, -15), rng.uniform(0.3, 0.6), 0.03
        )  # stomach
    return film(canvas)


def draw_pelvis(rng: Rng) -> NDArray[np.uint8]:
    """A pelvis from the front with both hips."""
    canvas = new_canvas(rng, portrait=bool(rng.random() < 0.3), turn=4)
    density, wide = rng.uniform(0.3, 0.55), rng.uniform(0.92, 1.08)
    body = [
        (-0.85, -1.5),
        (0.85, -1.5),
        (0.95, -0.4),
        (1.15, 0.2),
        (1.1, 1.6),
        (-1.1, 1.6),
        (-1.15, 0.2),
        (-0.95, -0.4),
    ]
    canvas.flesh(canvas.outline(body, rough=0.02), rng.uniform(0.7, 1.1))
    canvas.air(
        canvas.outline([(-0.03, 0.75), (0.03, 0.75), (0.16, 1.6), (-0.16, 1.6)]), 0.75, 0.05
    )  # between the thighs
    for level in np.arange(-1.2, -0.45, 0.23):
        canvas.bone(
            canvas.outline([(-0.15, level), (0.15, level), (0.13, level + 0.18), (-0.13, level + 0.18)]),
            density,
            0.02,
        )
    canvas.bone(
        canvas.outline([(-0.3, -0.5), (0.3, -0.5), (0.2, -0.15), (0.05, 0.1), (-0.05, 0.1), (-0.2, -0.15)]),
        density,
        0.03,
    )
    for side in (-1, 1):
        s = side * wide
        wing = [(s * 0.25, -0.45), (s * 0.4, -0.72), (s * 0.72, -0.66), (s * 0.82, -0.4), (s * 0.66, -0.05)]
        wing += [(s * 0.7, 0.12), (s * 0.5, 0.2), (s * 0.38, 0.0)]
        canvas.bone(canvas.outline(wing, rough=0.01), density, 0.025, 0.4)
        ring = canvas.outline(
            [(s * 0.5, 0.1), (s * 0.08, 0.34), (s * 0.05, 0.52), (s * 0.3, 0.72), (s * 0.5, 0.5)]
        )
        hole = canvas.disc(s * 0.27, 0.47, 0.1, 0.12, -side * 25)
        canvas.bone(ring & ~hole, density * 0.9, 0.025, 0.5)
        canvas.bone(canvas.disc(s * 0.62, 0.22, 0.17, 0.17), density * 0.8, 0.03, 0.6)  # head of the femur
        neck = [(s * 0.62, 0.22), (s * 0.84, 0.4), (s * 0.84, 0.7), (s * 0.8, 1.7)]
        canvas.bone(canvas.tube(neck, [0.11, 0.15, 0.12, 0.11]), density, 0.035, 0.45)
    for _ in range(rng.integers(2, 7)):
        canvas.air(
            canvas.disc(rng.normal(0, 0.4), rng.uniform(-1.0, -0.3), rng.uniform(0.05, 0.15), 0.06),
            0.25,
            0.04,
        )
    return film(canvas)


def draw_skull(rng: Rng) -> NDArray[np.uint8]:
    """A skull, from the front or from the side."""
    canvas = new_canvas(rng, turn=9)
    density, tall = rng.uniform(0.6, 0.95), rng.uniform(0.92, 1.08)
    return film(
        _skull_front(canvas, density, tall) if rng.random() < 0.5 else _skull_side(canvas, density, tall)
    )


def _skull_front(canvas: Canvas, density: float, tall: float) -> Canvas:
    rng = canvas.rng
    head = canvas.outline(
        [
            (0, -0.95 * tall),
            (0.45, -0.82),
            (0.66, -0.35),
            (0.62, 0.15),
            (0.5, 0.6),
            (0.25, 0.92),
            (-0.25, 0.92),
        ]
        + [(-0.5, 0.6), (-0.62, 0.15), (-0.66, -0.35), (-0.45, -0.82)]
    )
    neck = canvas.outline([(-0.38, 0.5), (0.38, 0.5), (0.42, 1.0), (0.8, 1.7), (-0.8, 1.7), (-0.42, 1.0)])
    canvas.flesh(head | neck, rng.uniform(0.35, 0.55))
    canvas.bone(canvas.disc(0, -0.32, 0.6, 0.6 * tall), density * 0.8, 0.05, 0.5)
    canvas.bone(
        canvas.outline([(-0.44, 0.0), (0.44, 0.0), (0.36, 0.5), (0.18, 0.8), (-0.18, 0.8), (-0.36, 0.5)]),
        density * 0.6,
        0.03,
        0.6,
    )
    for side in (-1, 1):
        canvas.air(canvas.disc(side * 0.25, -0.02, 0.16, 0.13, side * 8), rng.uniform(0.3, 0.45), 0.015)
        canvas.bone(
            canvas.disc(side * 0.25, -0.02, 0.18, 0.15) & ~canvas.disc(side * 0.25, -0.02, 0.15, 0.12),
            0.3,
            0.02,
        )
        canvas.air(canvas.disc(side * 0.22, 0.27, 0.11, 0.13), rng.uniform(0.2, 0.35), 0.02)
        jaw = [(side * 0.47, 0.22), (side * 0.43, 0.55), (side * 0.2, 0.78), (0, 0.84)]
        canvas.bone(canvas.tube(jaw, [0.05, 0.065, 0.07, 0.07]), density * 0.6, 0.03)
    canvas.air(canvas.outline([(0, 0.02), (0.09, 0.28), (0.0, 0.34), (-0.09, 0.28)]), 0.4, 0.015)
    canvas.air(canvas.disc(rng.normal(0, 0.02), -0.22, 0.2, 0.07), rng.uniform(0.1, 0.25), 0.03)
    for place in np.linspace(-0.2, 0.2, 9):
        for level in (0.5, 0.63):
            canvas.bone(canvas.disc(place, level + place**2, 0.018, 0.055), density * 0.7, 0.02, 0.8)
    for level in np.arange(0.9, 1.6, 0.16):
        canvas.bone(canvas.disc(0, level, 0.12, 0.06), density * 0.5, 0.02)
    return canvas


def _skull_side(canvas: Canvas, density: float, tall: float) -> Canvas:
    rng = canvas.rng
    head = canvas.outline(
        [
            (-0.1, -0.92 * tall),
            (0.5, -0.8),
            (0.82, -0.3),
            (0.7, 0.2),
            (0.5, 0.5),
            (0.55, 1.6),
            (-0.1, 1.6),
            (-0.2, 0.85),
        ]
        + [(-0.62, 0.85), (-0.72, 0.45), (-0.86, 0.28), (-0.72, -0.05), (-0.7, -0.5)],
        rough=0.01,
    )
    canvas.flesh(head, rng.uniform(0.35, 0.55))
    canvas.bone(canvas.disc(0.07, -0.32, 0.74, 0.55 * tall, -6), density * 0.8, 0.045, 0.45)
    base = [(-0.62, -0.02), (-0.2, 0.02), (0.15, 0.15), (0.5, 0.18)]
    canvas.bone(canvas.tube(base, [0.05, 0.08, 0.12, 0.05]), density * 0.6, 0.03)
    canvas.bone(
        canvas.outline([(-0.66, 0.0), (-0.3, 0.05), (-0.22, 0.4), (-0.6, 0.45)]), density * 0.45, 0.025
    )
    canvas.air(canvas.disc(-0.5, 0.02, 0.13, 0.12), rng.uniform(0.25, 0.4), 0.02)
    canvas.air(canvas.disc(-0.42, 0.22, 0.12, 0.1), rng.uniform(0.2, 0.4), 0.02)
    canvas.bone(
        canvas.tube([(0.02, 0.2), (-0.03, 0.5), (-0.3, 0.68), (-0.62, 0.76)], [0.07, 0.09, 0.08, 0.09]),
        density * 0.7,
        0.03,
    )
    for place in np.linspace(-0.64, -0.3, 7):
        for level in (0.48, 0.6):
            canvas.bone(canvas.disc(place, level, 0.022, 0.055), density * 0.7, 0.02, 0.8)
    for level in np.arange(0.32, 1.5, 0.15):
        canvas.bone(canvas.disc(0.28 + 0.05 * level, level, 0.1, 0.06, 8), density * 0.6, 0.02)
    for _ in range(4):  # vessels' grooves and sutures
        x, y = rng.uniform(-0.3, 0.5), rng.uniform(-0.6, -0.2)
        canvas.air(
            canvas.tube([(x, y), (x + rng.normal(0, 0.2), y + rng.normal(0, 0.2))], [0.012, 0.008]),
            0.12,
            0.01,
        )
    return canvas
