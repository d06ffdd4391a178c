"""Does a folder come from the certified population? A test of the whole folder, whatever its share of sick.

A scanner or a hospital that differs shifts all images a little, which no check of single images sees. The mean of a
folder sees it. The certification patients are described by the mean of each of their groups (normal, and each
disease; by view where it is known). A folder of the same hospitals is some mixture of these groups, so its mean lies in
the polytope of theirs, whatever the shares; what is left over is the site.

Distances are Mahalanobis distances within the groups, by a shrunken covariance (Ledoit and Wolf, 2004), in its leading
axes. No two months of one hospital are alike, so a distance up to :data:`TOLERANCE` is no alarm: the test rejects
only where the difference is larger with :data:`LEVEL` error (a test for a relevant difference, as in bioequivalence).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from histcxr.exceptions import InputError

#: Fewest judged images that are tested.
LEAST_IMAGES: Final = 40

#: Largest share of false alarms on folders within the tolerance.
LEVEL: Final = 0.05

#: Squared distance that is no alarm. Women alone, or another year of one hospital, differ by about 1; other
#: hospitals by 5 and more (``benchmarks/README.md``, "The site test").
TOLERANCE: Final = 1.5

_AXES = 45  # leading axes of the within-group covariance
_LEAST_GROUP = 20  # smaller groups are joined to one
_DRAWS = 4000
_HEAVY = 1000.0  # weight of "shares add up to 1" among the equations of a mixture

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SiteTest:
    """What a folder's test found.

    ``tested`` is False with fewer than :data:`LEAST_IMAGES` images; ``distance`` (squared; :data:`TOLERANCE` is the
    limit) and ``p_value`` (of a distance within the tolerance) are then NaN. ``shares`` is the mixture of certified
    groups that comes closest; ``differences`` maps features to their largest differences from it, in standard
    deviations of the certified patients.
    """

    images: int
    tested: bool
    differs: bool
    distance: float
    p_value: float
    shares: Mapping[str, float]
    differences: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        untested = {} if self.tested else {"distance": None, "p_value": None}
        return {**asdict(self), **untested, "tolerance": TOLERANCE}


class SiteSketch:
    """A folder in a few numbers: count, sum and sum of squares of its images' descriptions, in constant memory."""

    def __init__(self, width: int) -> None:
        self.images = 0
        self._sum = np.zeros(width)
        self._squares = np.zeros(width)

    def add(self, descriptions: ArrayLike) -> None:
        """Add images, float ``(n, width)``."""
        rows = np.asarray(descriptions, dtype=np.float64).reshape(-1, len(self._sum))
        self.images += len(rows)
        self._sum += rows.sum(axis=0)
        self._squares += np.square(rows).sum(axis=0)

    def moments(self) -> tuple[_Floats, _Floats]:
        """Return mean and variance of each number, both ``(width,)``."""
        mean = self._sum / self.images
        variance = np.maximum(self._squares / self.images - mean**2, 0.0)
        return mean, variance * self.images / max(1, self.images - 1)


@dataclass(frozen=True, eq=False)
class SiteReference:
    """The certified population, as :func:`fit_site` describes it by d named ``features``.

    ``centre`` and ``scale`` are (d,); ``axes``, (d, k), lead from standardised numbers to coordinates whose
    within-group covariance is 1; ``means`` are (groups, k), ``sizes`` int (groups,).
    """

    features: tuple[str, ...]
    centre: _Floats
    scale: _Floats
    axes: _Floats
    groups: tuple[str, ...]
    means: _Floats
    sizes: NDArray[np.int64]

    def __post_init__(self) -> None:
        d, k, g = len(self.features), self.axes.shape[-1], len(self.groups)
        shapes = {"centre": (d,), "scale": (d,), "axes": (d, k), "means": (g, k), "sizes": (g,)}
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise InputError(f"{name} must be finite numbers of shape {shape}, got shape {array.shape}")
        if not g or not (self.scale > 0).all() or not (self.sizes > 0).all():
            raise InputError("a site's reference must have groups of patients, and scales above 0")

    def project(self, descriptions: ArrayLike) -> _Floats:
        """Bring descriptions of images ``(n, d)`` to the coordinates of the test ``(n, k)``."""
        rows = np.asarray(descriptions, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != len(self.features):
            raise InputError(f"descriptions must have shape (n, {len(self.features)}), got {rows.shape}")
        coordinates: _Floats = (rows - self.centre) / self.scale @ self.axes
        return coordinates

    def sketch(self) -> SiteSketch:
        """Return an empty sketch of a folder, to which projected images are added."""
        return SiteSketch(self.means.shape[1])

    def test(self, folder: SiteSketch, *, seed: int = 0) -> SiteTest:
        """Test whether a folder, brought through :meth:`project`, is a mixture of the certified groups."""
        if folder.images < LEAST_IMAGES:
            return SiteTest(folder.images, False, False, float("nan"), float("nan"), {}, {})
        mean, variance = folder.moments()
        shares = self._closest(mean)
        left = mean - shares @ self.means
        # What chance adds: the folder's own mean, and the means of the groups it is compared with.
        noise = variance / folder.images + (shares**2 / self.sizes).sum()
        distance = float(left @ left - noise.sum())
        p_value = float((_null(noise, seed) >= left @ left).mean())
        raw = np.linalg.lstsq(self.axes.T, left, rcond=None)[0]  # in standard deviations, for words only
        largest = np.argsort(-np.abs(raw))[:5]
        return SiteTest(
            images=folder.images,
            tested=True,
            differs=p_value < LEVEL,
            distance=max(0.0, distance),
            p_value=p_value,
            shares={name: round(float(share), 3) for name, share in zip(self.groups, shares, strict=True)},
            differences={self.features[i]: round(float(raw[i]), 2) for i in largest},
        )

    def power(self, images: int, distance: float, *, draws: int = 400, seed: int = 0) -> float:
        """Return how probably :meth:`test` finds a folder of so many ``images``, by simulation.

        It lies at a squared ``distance`` from the closest mixture of the certified groups, in a direction drawn at
        random among those that no mixture explains; its shares of the groups are the certified ones.
        """
        if images < LEAST_IMAGES:
            return 0.0
        rng, shares = np.random.default_rng(seed), self.sizes / self.sizes.sum()
        off = self.means - shares @ self.means
        towards = rng.normal(size=(draws, off.shape[1]))
        towards -= towards @ np.linalg.pinv(off) @ off
        towards *= np.sqrt(distance / np.square(towards).sum(axis=1, keepdims=True))
        counted = rng.multinomial(images, shares, size=draws) / images
        error = np.sqrt(1 / images + (counted**2 / self.sizes).sum(axis=1, keepdims=True))
        folders = counted @ self.means + towards + error * rng.normal(size=towards.shape)
        noise = (1 + shares @ off**2) / images + (shares**2 / self.sizes).sum()
        limit = np.quantile(_null(noise, seed), 1 - LEVEL)
        left = np.stack([folder - self._closest(folder) @ self.means for folder in folders])
        return float((np.square(left).sum(axis=1) > limit).mean())

    def _closest(self, mean: _Floats) -> _Floats:
        """Return the shares, at least 0 and adding up to 1, whose mixture lies closest to a mean."""
        from scipy.optimize import nnls

        equations = np.vstack([self.means.T, np.full(len(self.means), _HEAVY)])
        shares, _ = nnls(equations, np.append(mean, _HEAVY))
        found: _Floats = shares / shares.sum()
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON, in six digits."""
        rounded = np.vectorize(lambda value: float(f"{value:.6g}"), otypes=[float])
        short = {name: rounded(getattr(self, name)).tolist() for name in ("centre", "scale", "axes", "means")}
        return {
            "features": list(self.features),
            "groups": list(self.groups),
            "sizes": self.sizes.tolist(),
            **short,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> SiteReference:
        """Read what :meth:`to_dict` gave; InputError when it is damaged."""
        try:
            return cls(
                features=tuple(map(str, stored["features"])),
                groups=tuple(map(str, stored["groups"])),
                sizes=np.array(stored["sizes"], dtype=np.int64),
                **{
                    name: np.array(stored[name], dtype=np.float64)
                    for name in ("centre", "scale", "axes", "means")
                },
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the reference of the site is damaged ({error})") from error


def fit_site(
    descriptions: ArrayLike, groups: ArrayLike, features: tuple[str, ...] | list[str]
) -> SiteReference:
    """Describe the population that certifies a model by the numbers (n, d) of its images, named ``features``.

    ``groups``, str (n,), are what it is a mixture of, at least the classes; those of fewer than 20 images are joined.
    InputError: shapes do not fit, or fewer than 40 images.
    """
    from sklearn.covariance import ledoit_wolf

    rows = np.asarray(descriptions, dtype=np.float64)
    names = np.asarray(groups, dtype=object).astype(str)
    if rows.ndim != 2 or names.shape != (len(rows),) or rows.shape[1] != len(features):
        raise InputError(
            f"descriptions must have shape (n, {len(features)}) and groups (n,), got {rows.shape}, {names.shape}"
        )
    if len(rows) < LEAST_IMAGES:
        raise InputError(
            f"a site's reference takes at least {LEAST_IMAGES} certification images, got {len(rows)}"
        )
    kept, counts = np.unique(names, return_counts=True)
    small = set(kept[counts < _LEAST_GROUP])
    names = np.array(["other" if name in small else name for name in names])
    kept, place, counts = np.unique(names, return_inverse=True, return_counts=True)
    centre, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    standard = (rows - centre) / scale
    means = np.stack([standard[place == number].mean(axis=0) for number in range(len(kept))])
    covariance, _ = ledoit_wolf(standard - means[place], assume_centered=True)
    variances, axes = np.linalg.eigh(covariance)
    leading = np.argsort(variances)[::-1][: min(_AXES, len(variances))]
    axes = axes[:, leading] / np.sqrt(np.maximum(variances[leading], 1e-6))
    return SiteReference(tuple(features), centre, scale, axes, tuple(kept.tolist()), means @ axes, counts)


def _null(noise: _Floats, seed: int) -> _Floats:
    """Draw squared lengths of a difference at the edge of the tolerance, plus noise."""
    rng = np.random.default_rng(seed)
    draws = rng.normal(size=(_DRAWS, len(noise))) * np.sqrt(noise)
    draws[:, int(np.argmax(noise))] += np.sqrt(TOLERANCE)  # where noise is largest, chance reaches farthest
    lengths: _Floats = np.square(draws).sum(axis=1)
    return lengths
