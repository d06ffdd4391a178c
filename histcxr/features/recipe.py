"""What is extracted from an image: one frozen description, in every cache key and with every model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from histcxr.exceptions import InputError
from histcxr.features.bands import BANDS_VERSION, Band, as_bands
from histcxr.features.histograms import HISTOGRAM_VERSION, Zones, check_zones, zone_names

__all__ = ["EXTRACTION_VERSION", "Recipe", "as_recipe"]

#: Raised whenever the same files may give other counts than before, by reading, checking or counting
#: differently.
EXTRACTION_VERSION: Final = 2


@dataclass(frozen=True)
class Recipe:
    """What is extracted from each image.

    Parameters
    ----------
    zones : {1, 2, 6, "1+2", "1+6"}
        The zones that are counted apart; see :mod:`histcxr.features.histograms`.
    bands : bool, str, or iterable of str or Band, default=()
        Filtered images that are counted beside the intensity; see :mod:`histcxr.features.bands`. ``True`` means
        those that travel best. Kept as a tuple of names.

    Raises
    ------
    InputError
        When a setting is unknown.
    """

    zones: Zones = 1
    bands: bool | str | Iterable[str | Band] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "zones", check_zones(self.zones))
        object.__setattr__(self, "bands", tuple(band.name for band in as_bands(self.bands)))

    @property
    def band_names(self) -> tuple[str, ...]:
        """The bands by name."""
        return tuple(band.name for band in as_bands(self.bands))

    @property
    def names(self) -> tuple[str, ...]:
        """What the rows of the counts stand for: the zones, then those of each band, as ``dog4_right_upper``."""
        zones = zone_names(self.zones)
        return (*zones, *(f"{band.name}_{zone}" for band in as_bands(self.bands) for zone in zones))

    def to_dict(self) -> dict[str, Any]:
        """Return settings and versions in types that JSON knows."""
        settings: dict[str, Any] = {
            "zones": self.zones,
            "histogram": HISTOGRAM_VERSION,
            "extraction": EXTRACTION_VERSION,
        }
        if self.bands:
            settings |= {"bands": [band.name for band in as_bands(self.bands)], "filtering": BANDS_VERSION}
        return settings

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Recipe:
        """Rebuild a recipe from :meth:`to_dict`.

        Raises
        ------
        InputError
            When keys are missing or unknown, or the recipe was written for another version of the
            extraction: this version would give other counts.
        """
        bands = settings.get("bands", [])
        if not isinstance(bands, list):
            raise InputError(f"a recipe's bands must be a list of names; got {bands!r}")
        current = cls(1, bands).to_dict()
        if set(settings) != set(current):
            raise InputError(f"a recipe must have the keys {sorted(current)}; got {sorted(settings)}")
        for key in ("histogram", "extraction", "filtering"):
            if settings.get(key) != current.get(key):
                raise InputError(
                    f"a recipe's {key} version must be this program's, {current[key]}; got {settings[key]!r}"
                )
        return cls(settings["zones"], bands)


def as_recipe(zones: Zones | Recipe, bands: bool | str | Iterable[str | Band] = ()) -> Recipe:
    """Return a recipe for zones and bands; a recipe given for zones is returned as it is.

    Raises
    ------
    InputError
        When a setting is unknown, or bands are given beside a recipe, which has its own.
    """
    if not isinstance(zones, Recipe):
        return Recipe(zones, bands)
    if as_bands(bands):
        raise InputError("bands must not be given beside a Recipe, which has its own")
    return zones
