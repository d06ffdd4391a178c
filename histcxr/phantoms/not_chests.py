"""Pictures that a triage of chest radiographs must not judge, drawn from a seed, and radiographs made unfit for it.

:func:`draw_not_chest` draws what is no frontal chest radiograph; :data:`TRANSFORMS` turn a sound one into one that was
exported, exposed or cropped wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.exceptions import InputError
from histcxr.phantoms import other_radiographs
from histcxr.phantoms.anatomy import smooth_noise

Image = NDArray[np.uint8]
Layer = NDArray[Any]
Rng = np.random.Generator
Shade = tuple[float, ...]

_TEXT = (
    "the report of this patient was sent to ward four and will be signed tomorrow morning by the doctor on duty "
    "findings clinical history request comparison none lungs heart size normal no effusion follow up in two weeks"
)
_WORDS = _TEXT.split()
_FONTS = tuple(range(5))  # OpenCV's simplex, plain, duplex, complex and triplex


def _size(rng: Rng) -> tuple[int, int]:
    height, width = (int(side) for side in rng.integers(256, 1025, 2))
    return max(height, width // 2), max(width, height // 2)


def _photograph(rng: Rng) -> Image:
    """A landscape, a face or things on a table, uint8 (height, width, 3), red first."""
    kinds: tuple[Callable[[Rng], Layer], ...] = (_landscape, _face, _objects)
    picture = kinds[rng.integers(len(kinds))](rng)
    shape = picture.shape[:2]
    light = 1 + 0.12 * smooth_noise(shape, 4, rng) + 0.02 * smooth_noise(shape, 30, rng)
    picture = picture * light[..., None] * rng.uniform(0.75, 1.1)
    picture += rng.uniform(1, 8) * rng.standard_normal(picture.shape, dtype=np.float32)
    picture = cv2.GaussianBlur(np.clip(picture, 0, 255), (3, 3), rng.uniform(0.4, 1.2))
    return np.asarray(picture.astype(np.uint8))


def _grey_photograph(rng: Rng) -> Image:
    return np.asarray(cv2.cvtColor(_photograph(rng), cv2.COLOR_RGB2GRAY))


def _shade(rng: Rng, low: int = 20, high: int = 235) -> Shade:
    return tuple(float(value) for value in rng.uniform(low, high, 3))


def _dimmed(shade: Shade, share: float) -> Shade:
    return tuple(share * value for value in shade)


def _polygon(picture: Layer, corners: ArrayLike, shade: Shade) -> None:
    cv2.fillPoly(picture, [np.asarray(corners).astype(np.int32)], shade)


def _gradient(shape: tuple[int, int], top: Shade, bottom: Shade) -> Layer:
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
        land = np.concatenate([np.stack([x, edge], 1), [[width, height], [0, height]]])
        dark = 1 - 0.16 * ridge
        colour = (rng.uniform(50, 130) * dark, rng.uniform(90, 160) * dark, rng.uniform(40, 120) * dark)
        _polygon(picture, land, colour)
    for _ in range(rng.integers(0, 14)):
        left, foot = int(rng.uniform(0, width)), int(rng.uniform(0.65, 1) * height)
        size = int(rng.uniform(0.04, 0.2) * height)
        top = foot - size
        if rng.random() < 0.6:  # a tree, or else a house
            cv2.rectangle(picture, (left - size // 12, top), (left + size // 12, foot), (80, 55, 35), -1)
            cv2.circle(picture, (left, top), size // 2, (40, rng.uniform(80, 140), 40), -1)
        else:
            cv2.rectangle(picture, (left, top), (left + size, foot), _shade(rng, 100, 230), -1)
            door = (left + size // 3, foot - size // 2)
            cv2.rectangle(picture, door, (left + size // 2, foot), (50, 40, 30), -1)
            gable = (left + size // 2, foot - size * 3 // 2)
            _polygon(picture, [(left, top), (left + size, top), gable], (150, 60, 45))
    return picture


def _face(rng: Rng) -> Layer:
    """Somebody before a wall: shoulders, neck, head, hair, eyes, nose, mouth; lit from one side."""
    height, width = shape = _size(rng)
    picture = _gradient(shape, _shade(rng), _shade(rng))
    unit = min(height, width) * rng.uniform(0.25, 0.36)
    cx, cy = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.38, 0.5)
    red = rng.uniform(110, 245)
    skin = (red, red * rng.uniform(0.72, 0.82), red * rng.uniform(0.55, 0.7))
    dark = rng.uniform(15, 130)
    hair = (dark, dark * 0.75, dark * 0.5)

    def ellipse(x: float, y: float, rx: float, ry: float, shade: Shade, start: float = 0) -> None:
        centre = (int(cx + x * unit), int(cy + y * unit))
        axes = (max(1, int(rx * unit)), max(1, int(ry * unit)))
        cv2.ellipse(picture, centre, axes, 0, start, 360, shade, -1, cv2.LINE_AA)

    ellipse(0, 2.45, 1.7, 1.2, _shade(rng))
    ellipse(0, 1.1, 0.36, 0.6, _dimmed(skin, 0.85))
    ellipse(0, -0.18, 0.87, 1.1 + rng.uniform(0, 0.5), hair)
    ellipse(0, 0, 0.75, 1, skin)
    ellipse(0, -0.42, 0.8, 0.62, hair, 180)
    for side in (-1, 1):
        ellipse(side * 0.3, -0.1, 0.14, 0.075, (245, 245, 240))
        ellipse(side * 0.3 + 0.02, -0.1, 0.06, 0.07, (60, 45, 30))
        ellipse(side * 0.3, -0.27, 0.18, 0.035, hair)
        ellipse(side * 0.78, 0.02, 0.1, 0.2, _dimmed(skin, 0.9))
    ellipse(0.02, 0.2, 0.1, 0.2, _dimmed(skin, 0.88))
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
        shadow = (x + size // 3, y + size)
        cv2.ellipse(picture, shadow, (size * 5 // 4, size // 4), 0, 0, 360, (35, 32, 30), -1)
        form = rng.integers(3)
        if form == 0:
            for step in range(6):  # a ball, brighter towards the light
                part = 1 - step / 7
                shade = tuple(min(255.0, value * (0.6 + 0.12 * step)) for value in colour)
                shift = step * size // 20
                cv2.circle(picture, (x - shift, y - shift), int(size * part), shade, -1)
        elif form == 1:
            cv2.rectangle(picture, (x - size, y - size), (x + size, y + size), colour, -1)
            near, far = x + size, x + size * 3 // 2
            side = [(near, y - size), (far, y - size * 3 // 2), (far, y + size // 2), (near, y + size)]
            _polygon(picture, side, _dimmed(colour, 0.6))
        else:
            end = (x + int(rng.normal(0, 3) * size), y - 2 * size)
            cv2.line(picture, (x, y + size), end, colour, max(2, size // 4), cv2.LINE_AA)
    return picture


def _text(rng: Rng) -> Image:
    """A page of writing, black on white or white on black, with or without a table."""
    height, width = shape = _size(rng)
    page: Layer = np.full(shape, 255, np.uint8)
    scale = min(shape) / rng.uniform(500, 1100)
    font, line = int(rng.choice(_FONTS)), int(rng.uniform(30, 48) * scale) + 4
    weight = max(1, round(scale * rng.uniform(1, 2.5)))
    margin = int(rng.uniform(0.04, 0.12) * width)
    y = float(margin + line)
    if rng.random() < 0.7:
        title = f"REPORT  {rng.integers(10**5)}"
        cv2.putText(page, title, (margin, int(y)), font, 1.7 * scale, 0, 2 * weight, cv2.LINE_AA)
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
            ink = int(rng.integers(0, 60))
            cv2.putText(page, text, (margin, int(y)), font, scale, ink, weight, cv2.LINE_AA)
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


def _noise(rng: Rng) -> Image:
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


def _blank(rng: Rng) -> Image:
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


_DRAW: dict[str, Callable[[Rng], Image]] = {
    "photograph": _photograph,
    "grey_photograph": _grey_photograph,
    "text": _text,
    "noise": _noise,
    "blank": _blank,
    "lateral": other_radiographs.draw_lateral,
    "hand": other_radiographs.draw_hand,
    "foot": other_radiographs.draw_foot,
    "skull": other_radiographs.draw_skull,
    "pelvis": other_radiographs.draw_pelvis,
    "knee": other_radiographs.draw_knee,
    "abdomen": other_radiographs.draw_abdomen,
}

KINDS = tuple(_DRAW)
"""What :func:`draw_not_chest` draws."""


def draw_not_chest(kind: str, rng: np.random.Generator) -> Image:
    """Draw something that is no frontal chest radiograph, of a kind in :data:`KINDS`; InputError for another.

    Returns uint8 (height, width), of ``"photograph"`` (height, width, 3) with red first; 256 to 1024 pixels a side.
    """
    if kind not in _DRAW:
        raise InputError(f"kind must be one of {', '.join(KINDS)}; it is {kind!r}")
    return _DRAW[kind](rng)


def _turned(pixels: Image, quarters: int) -> Image:
    return np.ascontiguousarray(np.rot90(pixels, -quarters))  # clockwise


def _stretched(pixels: Image, darkest: float, brightest: float) -> Image:
    """Spread what lies between two percentiles over the whole range; the rest becomes black or white."""
    black, white = np.percentile(pixels, darkest), np.percentile(pixels, brightest)
    levels = (pixels.astype(np.float32) - np.float32(black)) * np.float32(255 / max(white - black, 1.0))
    return np.clip(levels, 0, 255).astype(np.uint8)


def _solarised(pixels: Image) -> Image:
    """Brighter than middle grey turned round: what a wrong sign of stored values makes of a radiograph."""
    levels = pixels.astype(np.int16)
    return (2 * np.where(pixels < 128, levels, 255 - levels)).astype(np.uint8)


def _two_images(pixels: Image) -> Image:
    """Two radiographs side by side on one image, as for comparison."""
    gap = np.zeros((pixels.shape[0], max(2, pixels.shape[1] // 40)), np.uint8)
    return np.ascontiguousarray(np.hstack([pixels, gap, cv2.convertScaleAbs(pixels, alpha=0.9)]))


TRANSFORMS: dict[str, Callable[[Image], Image]] = {
    "inverted": lambda pixels: 255 - pixels,
    "turned90": partial(_turned, quarters=1),
    "turned180": partial(_turned, quarters=2),
    "turned270": partial(_turned, quarters=3),
    "upside_down": lambda pixels: np.ascontiguousarray(pixels[::-1]),
    "left_half": lambda pixels: np.ascontiguousarray(pixels[:, : pixels.shape[1] // 2]),
    "right_half": lambda pixels: np.ascontiguousarray(pixels[:, pixels.shape[1] // 2 :]),
    "upper_half": lambda pixels: np.ascontiguousarray(pixels[: pixels.shape[0] // 2]),
    "overexposed": partial(_stretched, darkest=10, brightest=35),
    "underexposed": partial(_stretched, darkest=65, brightest=99),
    "solarised": _solarised,
    "two_images": _two_images,
}
"""Name to function: uint8 (height, width) of a frontal chest radiograph in, one that must not be judged out.

Pure functions; none changes its input. ``left_half`` and ``right_half`` keep one lung, ``upper_half`` cuts the lower
half away; ``turned90`` is clockwise.
"""
