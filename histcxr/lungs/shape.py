"""From the network's probabilities to two lungs, or to the reason why these cannot be two lungs.

All is done at the network's size; the outline is then interpolated to the radiograph's own.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from histcxr.data.radiograph import room_for
from histcxr.exceptions import Reason

#: Side of the input and output of the network that finds lungs, in pixels; it suffices for their outline.
SIZE: Final = 128

#: Smallest and largest share of the picture that both lungs cover together.
MIN_AREA: Final = 0.04
MAX_AREA: Final = 0.6

#: The smaller lung has at least this share of the larger one.
MIN_SYMMETRY: Final = 0.12

#: A connected part smaller than this share of the largest one is no lung.
_SPECK: Final = 0.05

#: Largest share of the lungs' outline that may lie on the picture's edge.
MAX_ON_EDGE: Final = 0.2

_LEVEL: Final = 0.5

# What lies between the lungs is even where the middle half of its grey levels spans no more than this share of the
# lungs' own: a little of the lungs may lie outside their mask.
_EVEN: Final = 0.02


class Lungs(NamedTuple):
    """What was found, of shape (size, size), and why these cannot be two lungs.

    Probabilities are cleaned: specks are 0, holes are 1. The mask is 1 where they exceed one half.
    """

    probabilities: NDArray[np.float32]
    mask: NDArray[np.uint8]
    reason: Reason | None = None
    detail: str = ""


def find_lungs(probabilities: NDArray[np.float32]) -> Lungs:
    """Keep the two lungs among each pixel's probabilities of belonging to one, fill their holes, check their shape.

    The result has no reason where two lungs of plausible area, symmetry and place were found.
    """
    binary = (probabilities > _LEVEL).astype(np.uint8)
    n, labels, stats, centres = cv2.connectedComponentsWithStats(binary, connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas) or areas.sum() < MIN_AREA * binary.size:
        share = binary.mean()
        return Lungs(
            probabilities, binary, Reason.LUNGS_NOT_FOUND, f"{share:.1%} of the image looks like lung"
        )
    kept = 1 + np.flatnonzero(areas >= _SPECK * areas.max())
    kept = kept[np.argsort(-areas[kept - 1], kind="stable")][:2]
    mask = binary.copy() if len(kept) == len(areas) else np.isin(labels, kept).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mask, outlines, -1, 1, cv2.FILLED)
    cleaned = probabilities
    if (binary != mask).any():  # not so in most radiographs
        cleaned = np.where(binary == mask, probabilities, mask).astype(np.float32)
        cleaned[(labels > 0) & (mask == 0)] = 0
    reason, detail = _implausible(mask, centres[kept].astype(np.float64), areas[kept - 1].astype(np.int64))
    return Lungs(cleaned, mask, reason, detail)


def enlarged(lungs: Lungs, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Interpolate the outline to a radiograph's size: bool ``(height, width)``."""
    height, width = shape
    with room_for(height * width):
        levels = cv2.resize(lungs.probabilities, (width, height), interpolation=cv2.INTER_LINEAR)
        return levels > _LEVEL


def polarity(picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> float:
    """Say how much brighter lungs (mask 1) are than what lies between them: below 0 in every proper radiograph.

    Their median grey level minus that of the rest of their convex hull; 0 if that is missing or even.
    """
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not outlines:
        return 0.0
    hull = np.zeros_like(mask)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.concatenate(outlines)), 1)
    # How many pixels have at most each grey level: the first level with more than k is that of rank k.
    between, lungs = (
        cv2.calcHist([picture], [0], part, [256], [0, 256]).cumsum()
        for part in (cv2.subtract(hull, mask), mask)
    )
    n, m = int(between[-1]), int(lungs[-1])
    if not n:
        return 0.0
    low, middle, high = between.searchsorted((n // 4, n // 2, 3 * n // 4), "right").tolist()
    first, below, above, last = lungs.searchsorted((0, (m - 1) // 2, m // 2, m - 1), "right").tolist()
    return 0.0 if high - low <= _EVEN * (last - first) else (below + above) / 2 - middle


def _implausible(
    mask: NDArray[np.uint8], centres: NDArray[np.float64], areas: NDArray[np.int64]
) -> tuple[Reason | None, str]:
    """Check area, symmetry, position and the picture's edges."""
    share = cv2.countNonZero(mask) / mask.size
    if share > MAX_AREA:
        return Reason.LUNGS_IMPLAUSIBLE, f"they cover {share:.0%} of the image"
    if len(centres) == 1:
        # Lungs that touch: take what lies on either side of their common centre.
        columns = np.flatnonzero(mask.any(axis=0))
        middle = (columns[0] + columns[-1] + 1) // 2
        sides = np.array([mask[:, :middle].sum(), mask[:, middle:].sum()])
        smaller = float(sides.min() / sides.sum())
        spread = (columns[-1] - columns[0] + 1) / np.count_nonzero(mask.any(axis=1))
        if smaller < MIN_SYMMETRY or spread < 0.65:
            return Reason.LUNGS_IMPLAUSIBLE, "only one lung can be seen"
    else:
        if areas.min() < MIN_SYMMETRY * areas.max():
            return Reason.LUNGS_IMPLAUSIBLE, f"one has {areas.min() / areas.max():.0%} of the other's area"
        (x1, y1), (x2, y2) = centres
        if abs(x1 - x2) < abs(y1 - y2):
            return Reason.LUNGS_IMPLAUSIBLE, "they lie above each other instead of side by side"
    gradient = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    outline = cv2.countNonZero(cv2.min(gradient, mask))
    edges = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    on_edge = float(edges.sum() / max(1, outline + int(edges.sum())))
    if on_edge > MAX_ON_EDGE:
        return Reason.LUNGS_CUT_OFF, f"{on_edge:.0%} of their outline lies on the image's edge"
    return None, ""
