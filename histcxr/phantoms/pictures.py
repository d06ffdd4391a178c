"""Pictures that are no radiographs at all: photographs, pages of writing, noise, and nothing.

They stand for what a folder of radiographs holds by mistake: a snapshot, a scanned letter, a test pattern of the
detector, an exposure that failed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.phantoms.canvas import Layer, Rng, smooth_noise

_TEXT = (
    "the report of this patient was sent to ward four and will be signed tomorrow morning by the doctor on duty "
    "findings clinical history request comparison none lungs heart size normal no effusion follow up in two weeks"
)
_WORDS = _TEXT.split()
_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_PLAIN,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
)


def _size(rng: Rng) -> tuple[int, int]:
    height, width = (int(side) for side in rng.integers(256, 1025, 2))
    return max(height, width // 2), max(width, height // 2)


def draw_photograph(rng: Rng) -> NDArray[np.uint8]:
    """A landscape, a face or things on a table, uint8 (height, width, 3), red first."""
    kinds: tuple[Callable[[Rng], Layer], ...] = (_landscape, _face, _objects)
    picture = kinds[rng.integers(len(kinds))](rng)
    shape = picture.shape[:2]
    light = 1 + 0.12 * smooth_noise(shape, 4, rng) + 0.02 * smooth_noise(shape, 30, rng)
    picture = picture * light[..., None] * rng.uniform(0.75, 1.1)
    picture += rng.uniform(1, 8) * rng.standard_normal(picture.shape, dtype=np.float32)
    picture = cv2.GaussianBlur(np.clip(picture, 0, 255), (3, 3), rng.uniform(0.4, 1.2))
    return np.asarray(picture.astype(np.uint8))


def draw_grey_photograph(rng: Rng) -> NDArray[np.uint8]:
    """The same in grey, uint8 (height, width)."""
    return np.asarray(cv2.cvtColor(draw_photograph(rng), cv2.COLOR_RGB2GRAY))


def _shade(rng: Rng, low: int = 20, high: int = 235) -> tuple[float, ...]:
    return tuple(float(value) for value in rng.uniform(low, high, 3))


def _gradient(shape: tuple[int, int], top: tuple[float, ...], bottom: tuple[float, ...]) -> Layer:
    t = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None, None]
    rows = (1 - t) * np.asarray(top, np.float32) + t * np.asarray(bottom, np.float32)
    return np.repeat(rows, shape[1], axis=1)


def _landscape(rng: Rng) -> Layer:
    """Sky, sun, clouds, ridges that darken towards the viewer, trees or houses."""
    height, width = shape = _size(rng)
    picture = _gradient(shape, (60, 120, rng.uniform(180, 250)), (210, 220, 240))
    clouds = np.clip(smooth_noise(shape, 7, rng) + 0.5 * smooth_noise(shape, 18, rng) - 0.3, 0, 1)[..., None]
    picture += (245 - picture) * clouds
    sun = (int(rng.uniform(0.1, 0.9) * width), int(rng.uniform(0.05, 0.35) * height))
    cv2.circle(picture, sun, int(0.05 * width), (255, 245, 190), -1)
    x = np.arange(width)
    horizon = rng.uniform(0.3, 0.6) * height
    for ridge in range(rng.integers(2, 6)):
        wave = np.interp(x, np.linspace(0, width, 9), rng.normal(0, 0.07 * height, 9))
        rough = np.interp(x, np.linspace(0, width, 70), rng.normal(0, 0.012 * height, 70))
        edge = horizon + ridge * 0.12 * height + wave + rough
        points = np.concatenate([np.stack([x, edge], 1), [[width, height], [0, height]]]).astype(np.int32)
        dark = 1 - 0.16 * ridge
        colour = (rng.uniform(50, 130) * dark, rng.uniform(90, 160) * dark, rng.uniform(40, 120) * dark)
        cv2.fillPoly(picture, [points], colour)
    for _ in range(rng.integers(0, 14)):
        foot = (int(rng.uniform(0, width)), int(rng.uniform(0.65, 1) * height))
        size = int(rng.uniform(0.04, 0.2) * height)
        if rng.random() < 0.6:
            cv2.rectangle(
                picture,
                (foot[0] - size // 12, foot[1] - size),
                (foot[0] + size // 12, foot[1]),
                (80, 55, 35),
                -1,
            )
            cv2.circle(picture, (foot[0], foot[1] - size), size // 2, (40, rng.uniform(80, 140), 40), -1)
        else:
            cv2.rectangle(
                picture, (foot[0], foot[1] - size), (foot[0] + size, foot[1]), _shade(rng, 100, 230), -1
            )
            cv2.rectangle(
                picture,
                (foot[0] + size // 3, foot[1] - size // 2),
                (foot[0] + size // 2, foot[1]),
                (50, 40, 30),
                -1,
            )
            roof = np.array(
                [
                    [foot[0], foot[1] - size],
                    [foot[0] + size, foot[1] - size],
                    [foot[0] + size // 2, foot[1] - size * 3 // 2],
                ]
            )
            cv2.fillPoly(picture, [roof.astype(np.int32)], (150, 60, 45))
    return picture


def _face(rng: Rng) -> Layer:
    """Somebody before a wall: shoulders, neck, head, hair, eyes, nose, mouth; lit from one side."""
    height, width = shape = _size(rng)
    picture = _gradient(shape, _shade(rng), _shade(rng))
    unit = min(height, width) * rng.uniform(0.25, 0.36)
    cx, cy = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.38, 0.5)
    skin = np.array([rng.uniform(110, 245), 0, 0])
    skin[1], skin[2] = skin[0] * rng.uniform(0.72, 0.82), skin[0] * rng.uniform(0.55, 0.7)
    colour, hair = (
        tuple(float(value) for value in skin),
        tuple(float(v) for v in rng.uniform(15, 130) * np.array([1, 0.75, 0.5])),
    )

    def ellipse(
        x: float, y: float, rx: float, ry: float, shade: tuple[float, ...], start: float = 0, end: float = 360
    ) -> None:
        centre, axes = (
            (int(cx + x * unit), int(cy + y * unit)),
            (max(1, int(rx * unit)), max(1, int(ry * unit))),
        )
        cv2.ellipse(picture, centre, axes, 0, start, end, shade, -1, cv2.LINE_AA)

    ellipse(0, 2.45, 1.7, 1.2, _shade(rng))
    ellipse(0, 1.1, 0.36, 0.6, tuple(0.85 * value for value in colour))
    ellipse(0, -0.18, 0.87, 1.1 + rng.uniform(0, 0.5), hair)
    ellipse(0, 0, 0.75, 1, colour)
    ellipse(0, -0.42, 0.8, 0.62, hair, 180, 360)
    for side in (-1, 1):
        ellipse(side * 0.3, -0.1, 0.14, 0.075, (245, 245, 240))
        ellipse(side * 0.3 + 0.02, -0.1, 0.06, 0.07, (60, 45, 30))
        ellipse(side * 0.3, -0.27, 0.18, 0.035, hair)
        ellipse(side * 0.78, 0.02, 0.1, 0.2, tuple(0.9 * value for value in colour))
    ellipse(0.02, 0.2, 0.1, 0.2, tuple(0.88 * value for value in colour))
    ellipse(0, 0.55, 0.26, rng.uniform(0.04, 0.13), (170, 70, 75))
    lit = np.linspace(rng.uniform(0.6, 1), rng.uniform(0.6, 1.2), width, dtype=np.float32)[None, :, None]
    return picture * lit


def _objects(rng: Rng) -> Layer:
    """Boxes, balls and sticks with shadows on a table."""
    height, width = shape = _size(rng)
    picture = _gradient(shape, _shade(rng), _shade(rng))
    table = int(height * rng.uniform(0.3, 0.6))
    picture[table:] = _gradient((height - table, width), _shade(rng, 60, 200), _shade(rng, 60, 200))
    for _ in range(rng.integers(4, 16)):
        size = int(rng.uniform(0.05, 0.2) * min(shape))
        x, y = int(rng.uniform(0, width)), int(rng.uniform(table, height))
        colour = _shade(rng)
        cv2.ellipse(
            picture, (x + size // 3, y + size), (size * 5 // 4, size // 4), 0, 0, 360, (35, 32, 30), -1
        )
        form = rng.integers(3)
        if form == 0:
            for step in range(6):  # a ball, brighter towards the light
                part = 1 - step / 7
                shade = tuple(min(255.0, value * (0.6 + 0.12 * step)) for value in colour)
                cv2.circle(
                    picture, (x - step * size // 20, y - step * size // 20), int(size * part), shade, -1
                )
        elif form == 1:
            cv2.rectangle(picture, (x - size, y - size), (x + size, y + size), colour, -1)
            side = np.array(
                [
                    [x + size, y - size],
                    [x + size * 3 // 2, y - size * 3 // 2],
                    [x + size * 3 // 2, y + size // 2],
                    [x + size, y + size],
                ]
            )
            cv2.fillPoly(picture, [side.astype(np.int32)], tuple(0.6 * value for value in colour))
        else:
            end = (x + int(rng.normal(0, 3) * size), y - 2 * size)
            cv2.line(picture, (x, y + size), end, colour, max(2, size // 4), cv2.LINE_AA)
    return picture


def draw_text(rng: Rng) -> NDArray[np.uint8]:
    """A page of writing, black on white or white on black, with or without a table."""
    height, width = shape = _size(rng)
    page: Layer = np.full(shape, 255, np.uint8)
    scale = min(shape) / rng.uniform(500, 1100)
    font, line = int(rng.choice(_FONTS)), int(rng.uniform(30, 48) * scale) + 4
    weight = max(1, round(scale * rng.uniform(1, 2.5)))
    margin = int(rng.uniform(0.04, 0.12) * width)
    y = float(margin + line)
    if rng.random() < 0.7:
        cv2.putText(
            page,
            "REPORT  " + str(rng.integers(10**5)),
            (margin, int(y)),
            font,
            1.7 * scale,
            0,
            2 * weight,
            cv2.LINE_AA,
        )
        y += 2 * line
    table_at = rng.uniform(0.2, 0.8) * height if rng.random() < 0.5 else np.inf
    while y < height - margin // 2:
        if y > table_at:
            y, table_at = _table(page, rng, margin, y, line, font, scale), np.inf
            continue
        text = ""
        end = width - margin if rng.random() < 0.8 else width * rng.uniform(0.3, 0.8)
        while True:
            longer = f"{text} {rng.choice(_WORDS)}".strip()
            if margin + cv2.getTextSize(longer, font, scale, weight)[0][0] > end:
                break
            text = longer
        if rng.random() < 0.9:
            cv2.putText(
                page, text, (margin, int(y)), font, scale, int(rng.integers(0, 60)), weight, cv2.LINE_AA
            )
        y += line
    if rng.random() < 0.5:  # a scan: paper's shade, a slight turn, grain
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 2), 1)
        page = cv2.warpAffine(page, turn, (width, height), borderValue=255)
        shaded = page * (0.9 + 0.04 * smooth_noise(shape, 4, rng)) + rng.normal(0, 4, shape)
        page = np.clip(shaded, 0, 255).astype(np.uint8)
    return page if rng.random() < 0.6 else 255 - page


def _table(page: Layer, rng: Rng, margin: int, y: float, line: int, font: int, scale: float) -> float:
    """Draw a ruled table of numbers; return where the text goes on."""
    height, width = page.shape
    rows, columns = int(rng.integers(3, 9)), int(rng.integers(2, 6))
    step = (width - 2 * margin) // columns
    for row in range(rows + 1):
        level = int(y + row * line)
        cv2.line(page, (margin, level), (margin + step * columns, level), 60, 1)
        for column in range(columns if row < rows else 0):
            text = str(rng.choice(_WORDS)) if column == 0 else f"{rng.uniform(0, 100):.1f}"
            place = (margin + column * step + 4, level + int(0.75 * line))
            cv2.putText(page, text, place, font, 0.8 * scale, 20, 1, cv2.LINE_AA)
    for column in range(columns + 1):
        x = margin + column * step
        cv2.line(page, (x, int(y)), (x, int(y + rows * line)), 60, 1)
    return y + (rows + 2) * line


def draw_noise(rng: Rng) -> NDArray[np.uint8]:
    """White or cloudy noise, ramps, chessboards, stripes or rings."""
    height, width = shape = _size(rng)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    field: Layer
    kind = rng.integers(6)
    if kind == 0:
        field = rng.standard_normal(shape, dtype=np.float32)
    elif kind == 1:
        octaves = [smooth_noise(shape, 4 * 2**i, rng) / np.float32(1.7**i) for i in range(6)]
        field = np.sum(octaves, axis=0)
    elif kind == 2:
        angle = rng.uniform(0, 2 * np.pi)
        field = np.cos(angle) * x / width + np.sin(angle) * y / height
    elif kind == 3:
        side = rng.integers(8, 90)
        field = ((x // side + y // side) % 2).astype(np.float32)
    elif kind == 4:
        angle, wave = rng.uniform(0, np.pi), rng.uniform(8, 120)
        field = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / wave)
        field = np.sign(field) if rng.random() < 0.4 else field
    else:
        away = np.hypot(x - width * rng.uniform(0.2, 0.8), y - height * rng.uniform(0.2, 0.8))
        field = np.cos(2 * np.pi * away / rng.uniform(15, 200)) if rng.random() < 0.5 else -away
    low, high = np.percentile(field, [1, 99])
    black, white = sorted(rng.uniform(0, 255, 2)) if rng.random() < 0.5 else (0, 255)
    white = min(255, max(white, black + 60))
    levels = black + (field - low) / max(float(high - low), 1e-6) * (white - black)
    levels = levels + rng.uniform(0, 6) * rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(np.clip(levels, 0, 255).astype(np.uint8))


def draw_blank(rng: Rng) -> NDArray[np.uint8]:
    """One grey level, almost one, or an exposure that failed: nearly all black or white."""
    height, width = shape = _size(rng)
    kind = rng.integers(4)
    level = int(rng.choice([0, 255, int(rng.integers(1, 255))], p=[0.2, 0.2, 0.6]))
    if kind == 0:
        return np.full(shape, level, np.uint8)
    if kind == 1:
        return np.clip(level + np.round(rng.normal(0, 0.8, shape)), 0, 255).astype(np.uint8)
    if kind == 2:
        drift = level + 6 * smooth_noise(shape, 4, rng)
        return np.asarray(np.clip(drift, 0, 255).astype(np.uint8))
    picture: NDArray[Any] = np.full(shape, 255 * rng.integers(2), np.uint8)
    edge = int(rng.uniform(0.01, 0.06) * height)
    picture[:edge] = 255 - picture[-1, -1]
    cv2.putText(picture, "L", (width // 10, height // 6), cv2.FONT_HERSHEY_SIMPLEX, height / 400, 128, 2)
    return picture
