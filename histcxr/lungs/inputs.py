"""What the lung network sees of a radiograph: a small square, centred and scaled."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["PAIR_SIZE", "SIZE", "network_input", "squared", "standardised"]

#: Side of the network's input and output, in pixels.
SIZE: Final = 128

#: Side of the square that training disturbs and that is then shrunk to the network's size, in pixels.
PAIR_SIZE: Final = 2 * SIZE

# Half a grey level: an image without contrast becomes zeros, not amplified noise.
_FLOOR: Final = 0.5


def network_input(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bring a radiograph to the network's size and scale.

    The aspect ratio is given up, as in the pictures that the network was trained on; :data:`SIZE` pixels a side
    suffice for the outline of the lungs.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width)

    Returns
    -------
    ndarray of float32, shape (SIZE, SIZE)
        With mean 0 and standard deviation 1.
    """
    # By the square that training starts from: the same pixels come out a little sharper otherwise.
    square = cv2.resize(squared(pixels), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return standardised(square.astype(np.uint8, copy=False))


def squared(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring a radiograph to :data:`PAIR_SIZE` pixels a side: averaged where it shrinks, else interpolated."""
    how = cv2.INTER_AREA if min(pixels.shape) > PAIR_SIZE else cv2.INTER_LINEAR
    return cv2.resize(pixels, (PAIR_SIZE, PAIR_SIZE), interpolation=how).astype(np.uint8, copy=False)


def standardised(square: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Give a picture the mean 0 and the standard deviation 1, so that exposure and contrast matter little."""
    mean, deviation = cv2.meanStdDev(square)
    scaled = square.astype(np.float32)
    scaled -= np.float32(mean[0, 0])
    scaled /= np.float32(max(float(deviation[0, 0]), _FLOOR))
    return scaled
