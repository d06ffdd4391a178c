"""Drawings of radiographs of hands, feet and knees; see :mod:`~histcxr.phantoms.canvas`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from histcxr.phantoms.canvas import Rng, film, new_canvas


def draw_hand(rng: Rng) -> NDArray[np.uint8]:
    """A hand from above, fingers up, with the wrist and the ends of the forearm's bones."""
    canvas = new_canvas(rng, turn=18)
    spread, length, thick = rng.uniform(0.6, 1.3), rng.uniform(0.85, 1.1), rng.uniform(0.85, 1.15)
    wrist = (0.0, 0.55)
    rays = []  # each a list of joints, wrist first
    for finger, (knuckle, reach) in enumerate(
        zip([-0.42, -0.24, -0.03, 0.17, 0.34], [0.62, 0.92, 1.0, 0.92, 0.74], strict=True)
    ):
        lean = np.deg2rad((knuckle * 34 * spread) - (28 if finger == 0 else 0) + rng.normal(0, 2))
        start = np.array([wrist[0] + knuckle * 0.55, wrist[1] - 0.14])
        way = np.array([np.sin(lean), -np.cos(lean)])
        parts = (0.42, 0.3, 0.24) if finger == 0 else (0.46, 0.33, 0.21, 0.15)
        joints = [start]
        for part in parts:
            joints.append(joints[-1] + way * part * reach * length)
        rays.append(joints)
    skin = canvas.outline(
        [(-0.22, 1.6), (-0.22, 0.7), (-0.42, 0.35), (-0.3, -0.02), (0.3, -0.02), (0.36, 0.35), (0.22, 0.7)]
        + [(0.22, 1.6)]
    )
    for joints in rays:
        skin |= canvas.tube(
            [tuple(joint) for joint in joints], [0.11 * thick] * 2 + [0.085 * thick] * (len(joints) - 2)
        )
    canvas.flesh(skin, rng.uniform(0.25, 0.5))
    density = rng.uniform(0.45, 0.8)
    for joints in rays:
        for near, far in zip(joints[:-1], joints[1:], strict=True):
            gap = (far - near) * 0.06
            middle, a, b = (near + far) / 2, near + gap, far - gap
            radii = np.array([0.052, 0.03, 0.045]) * thick
            canvas.bone(canvas.tube([tuple(a), tuple(middle), tuple(b)], radii), density, 0.013, 0.5)
    for x, y in (
        (-0.17, 0.4),
        (-0.05, 0.37),
        (0.08, 0.38),
        (0.18, 0.43),
        (-0.12, 0.53),
        (0.0, 0.52),
        (0.12, 0.54),
    ):
        dx, dy = rng.normal(0, 0.008, 2)
        canvas.bone(canvas.disc(x + dx, y + dy, 0.065, 0.055, rng.uniform(0, 90)), density * 0.9, 0.012, 0.6)
    canvas.bone(
        canvas.tube([(-0.09, 0.66), (-0.08, 0.85), (-0.07, 1.7)], [0.115, 0.075, 0.07]), density, 0.02
    )
    canvas.bone(canvas.tube([(0.13, 0.69), (0.13, 0.85), (0.13, 1.7)], [0.065, 0.05, 0.05]), density, 0.018)
    return film(canvas)


def draw_foot(rng: Rng) -> NDArray[np.uint8]:
    """A foot, from above or from the side."""
    return _foot_from_side(rng) if rng.random() < 0.5 else _foot_from_above(rng)


def _foot_from_above(rng: Rng) -> NDArray[np.uint8]:
    canvas = new_canvas(rng, portrait=True, turn=12)
    thick, density = rng.uniform(0.9, 1.15), rng.uniform(0.45, 0.75)
    skin = canvas.outline(
        [(-0.3, 1.2), (-0.36, 0.5), (-0.46, -0.3), (-0.44, -0.75), (0.0, -0.85), (0.36, -0.6), (0.36, 0.1)]
        + [(0.28, 0.8), (0.2, 1.25), (-0.05, 1.35)],
        rough=0.015,
    )
    rays = []
    for toe, x in enumerate((-0.3, -0.13, 0.02, 0.16, 0.28)):
        end = -0.62 + 0.1 * toe + rng.normal(0, 0.01)
        rays.append(
            [
                (x * 0.7, 0.22 + 0.03 * toe),
                (x, -0.4 + 0.08 * toe),
                (x * 1.08, end - 0.12),
                (x * 1.1, end - 0.3),
            ]
        )
        skin |= canvas.tube(rays[-1][1:], [0.1, 0.095, 0.085])
    canvas.flesh(skin, rng.uniform(0.4, 0.7))
    for toe, joints in enumerate(rays):
        wide = (1.7 if toe == 0 else 1.0) * thick
        for near, far in zip(joints[:-1], joints[1:], strict=True):
            a, b = np.array(near), np.array(far)
            path = [tuple(a + 0.05 * (b - a)), tuple((a + b) / 2), tuple(b - 0.05 * (b - a))]
            canvas.bone(canvas.tube(path, np.array([0.048, 0.03, 0.045]) * wide), density, 0.013, 0.5)
    for x, y, r in (
        (-0.2, 0.34, 0.1),
        (-0.06, 0.36, 0.08),
        (0.06, 0.38, 0.075),
        (0.19, 0.45, 0.11),
        (-0.12, 0.52, 0.12),
    ):
        canvas.bone(canvas.disc(x, y, r, r * 0.8, rng.uniform(-20, 20)), density * 0.9, 0.014, 0.65)
    canvas.bone(
        canvas.outline([(-0.2, 0.62), (0.05, 0.58), (0.12, 0.8), (0.02, 0.95), (-0.16, 0.86)]),
        density,
        0.02,
        0.7,
    )
    canvas.bone(
        canvas.outline([(0.0, 0.7), (0.2, 0.66), (0.18, 1.1), (0.05, 1.26), (-0.08, 1.1)]), density, 0.02, 0.7
    )
    return film(canvas)


def _foot_from_side(rng: Rng) -> NDArray[np.uint8]:
    canvas = new_canvas(rng, turn=10)
    density = rng.uniform(0.5, 0.9)
    skin = canvas.outline(
        [(0.28, -1.5), (0.72, -1.5), (0.74, -0.3), (0.95, 0.25), (0.85, 0.55), (0.3, 0.6), (-0.3, 0.52)]
        + [(-0.95, 0.6), (-1.05, 0.42), (-0.5, 0.15), (0.0, -0.12), (0.25, -0.5)],
        rough=0.012,
    )
    canvas.flesh(skin, rng.uniform(0.5, 0.9))
    canvas.bone(
        canvas.tube([(0.46, -1.6), (0.46, -0.6), (0.45, -0.32)], [0.1, 0.1, 0.15]), density, 0.025, 0.45
    )
    canvas.bone(
        canvas.tube([(0.6, -1.6), (0.58, -0.5), (0.57, -0.18)], [0.05, 0.05, 0.07]), density * 0.7, 0.02, 0.5
    )
    canvas.bone(
        canvas.outline([(0.25, -0.12), (0.5, -0.2), (0.66, -0.05), (0.5, 0.08), (0.2, 0.08)]), density, 0.02
    )
    heel = [(0.3, 0.1), (0.6, 0.08), (0.84, 0.22), (0.84, 0.42), (0.65, 0.46), (0.3, 0.3), (0.15, 0.25)]
    canvas.bone(canvas.outline(heel), density, 0.02, 0.6)
    for x, y, r in ((0.1, 0.08, 0.1), (-0.06, 0.14, 0.1), (0.02, 0.26, 0.09)):
        canvas.bone(canvas.disc(x, y, r, r * 0.85), density * 0.8, 0.015, 0.65)
    for lift in (0.0, 0.05, 0.1, 0.14):
        path = [(-0.1, 0.18 + lift), (-0.35, 0.27 + lift), (-0.58, 0.38 + lift / 2)]
        canvas.bone(canvas.tube(path, [0.05, 0.03, 0.045]), density * 0.6, 0.012, 0.5)
    canvas.bone(canvas.tube([(-0.63, 0.42), (-0.78, 0.44)], [0.05, 0.04]), density * 0.8, 0.012)
    canvas.bone(canvas.tube([(-0.83, 0.47), (-0.96, 0.5)], [0.04, 0.03]), density * 0.7, 0.012)
    return film(canvas)


def draw_knee(rng: Rng) -> NDArray[np.uint8]:
    """A knee, from the front or from the side."""
    canvas = new_canvas(rng, portrait=True, turn=6)
    density, slim = rng.uniform(0.55, 0.9), rng.uniform(0.85, 1.1)
    if rng.random() < 0.5:
        skin = [
            (-0.6, -1.7),
            (0.6, -1.7),
            (0.55, -0.5),
            (0.52, 0.2),
            (0.55, 0.8),
            (0.42, 1.7),
            (-0.42, 1.7),
            (-0.55, 0.8),
        ]
        canvas.flesh(canvas.outline([*skin, (-0.52, 0.2), (-0.55, -0.5)], rough=0.02), rng.uniform(0.5, 0.8))
        femur = [
            (-0.14, -1.8),
            (-0.15, -0.75),
            (-0.36, -0.35),
            (-0.36, -0.1),
            (-0.15, 0.0),
            (0, -0.08),
            (0.15, 0.0),
        ]
        canvas.bone(
            canvas.outline([*femur, (0.36, -0.1), (0.36, -0.35), (0.15, -0.75), (0.14, -1.8)]),
            density,
            0.035,
            0.45,
        )
        tibia = [
            (-0.37, 0.06),
            (0, 0.04),
            (0.37, 0.06),
            (0.33, 0.28),
            (0.16, 0.65),
            (0.13, 1.8),
            (-0.13, 1.8),
        ]
        canvas.bone(canvas.outline([*tibia, (-0.16, 0.65), (-0.33, 0.28)]), density, 0.035, 0.45)
        canvas.bone(
            canvas.tube([(0.36, 0.3), (0.33, 0.6), (0.3, 1.8)], [0.075, 0.045, 0.045]), density * 0.7, 0.02
        )
        canvas.bone(canvas.disc(0.0, -0.32, 0.17 * slim, 0.19), density * 0.3, 0.02, 0.7)
        return film(canvas)
    bend = rng.uniform(0.0, 0.9)
    foot = (-0.05 + 1.4 * np.sin(bend), 0.15 + 1.5 * np.cos(bend))
    leg = canvas.tube([(0.1, -1.8), (0.0, -0.1), foot], [0.55 * slim, 0.42 * slim, 0.38 * slim])
    canvas.flesh(leg, rng.uniform(0.5, 0.8))
    canvas.bone(
        canvas.tube([(0.05, -1.8), (0.0, -0.6), (0.03, -0.25)], [0.14, 0.14, 0.24]), density, 0.035, 0.45
    )
    canvas.bone(
        canvas.tube([(-0.02, 0.14), (0.1 * foot[0], 0.4), foot], [0.24, 0.15, 0.12]), density, 0.035, 0.45
    )
    canvas.bone(canvas.tube([(0.18, 0.25), (foot[0] + 0.2, foot[1])], [0.06, 0.05]), density * 0.6, 0.02)
    canvas.bone(canvas.disc(-0.34, -0.25, 0.08, 0.16, 12), density * 0.8, 0.02, 0.6)
    return film(canvas)
