"""From stored values to 256 grey levels: the modality, VOI and polarity steps of DICOM, as one table.

Every step maps a value to a value, whatever the pixel, so all of them together are one table with an entry for each
of the 2**bits values that can be stored. Only *declared* ranges enter it: the bit depth, the rescale, the window, the
depth of a LUT. The content of an image never does, so equal tissue falls into equal bins.

Source: DICOM PS3.3, C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.6.3.1.2 (photometric interpretation).
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"

_Values: TypeAlias = NDArray[np.float64]

_ROUNDING = 1e-6  # of a level: values that are exact on paper may come out a hair below


class Rescale(NamedTuple):
    """Output = slope * stored value + intercept."""

    slope: float = 1.0
    intercept: float = 0.0


class Window(NamedTuple):
    """A VOI window; ``function`` is LINEAR (width at least 1), LINEAR_EXACT or SIGMOID (width above 0)."""

    center: float
    width: float
    function: str = LINEAR


class Lut(NamedTuple):
    """A look-up table: ``values`` uint16 (n,), the first for the input ``first`` and all below; ``bits`` deep."""

    first: int
    values: NDArray[Any]
    bits: int


def level_table(
    bits: int,
    *,
    signed: bool = False,
    modality: Rescale | Lut | None = None,
    voi: Window | Lut | None = None,
    inverted: bool = False,
) -> NDArray[np.uint8]:
    """Grey level of every value that can be stored.

    Without a VOI step the range is all that can come out of the modality step. It is cut into 256 equal bins, as
    by dropping the low bits: 16 bits without a rescale become their upper byte.

    Parameters
    ----------
    bits : int
        Bits stored, 1 to 16.
    signed : bool, default False
        Two's complement.
    modality : Rescale or Lut, optional
        From stored values to the maker's unit.
    voi : Window or Lut, optional
        From there to what is to be shown.
    inverted : bool, default False
        The lowest output is white: turned against 255, after everything else.

    Returns
    -------
    uint8 (2**bits,)
        By the stored bit pattern: with 12 bits signed, entry 4095 is the value -1.

    Raises
    ------
    ValueError
        When the range is empty or not finite (a slope of 0, absurd numbers).
    """
    stored = np.arange(2**bits, dtype=np.float64)
    if signed:
        stored[2 ** (bits - 1) :] -= 2**bits
    if isinstance(modality, Lut):
        values, low, high = _looked_up(stored, modality)
    else:
        slope, intercept = modality or Rescale()
        values = slope * stored + intercept
        low, high = float(values.min()), float(values.max())
    if isinstance(voi, Lut):
        values, low, high = _looked_up(values, voi)
    if isinstance(voi, Window):
        levels = _windowed(values, voi)
    else:
        levels = (values - low) * 256 / (high - low) if high > low else values * np.nan
    if not np.isfinite(levels).all():
        raise ValueError("the grey scale has no range")
    table = np.clip(np.floor(levels + _ROUNDING), 0, 255).astype(np.uint8)
    return 255 - table if inverted else table


def _looked_up(values: _Values, lut: Lut) -> tuple[_Values, float, float]:
    """Values through a LUT, and its declared range; inputs outside it take its first or last value."""
    index = np.clip(np.rint(values) - lut.first, 0, len(lut.values) - 1).astype(np.intp)
    return lut.values[index].astype(np.float64), 0.0, float(2**lut.bits - 1)


def _windowed(values: _Values, window: Window) -> _Values:
    """Values through a window, on a scale from 0 to 256 (C.11.2.1.2 and C.11.2.1.3)."""
    center, width, function = window
    if function == SIGMOID:
        steep = np.clip(-4 * (values - center) / width, -700, 700)
        return np.asarray(256 / (1 + np.exp(steep)))
    if function == LINEAR:
        center, width = center - 0.5, width - 1
        if width == 0:  # a threshold: C.11.2.1.2.1, note 3
            return np.where(values <= center, 0.0, 256.0)
    return np.asarray(np.clip((values - center + width / 2) * 256 / width, 0, 256))
