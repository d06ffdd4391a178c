"""A whole manifest to counts, in parallel, and to files that other tools read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from numpy.typing import ArrayLike, NDArray

from histcxr.data.ahead import reading_ahead
from histcxr.data.blocks import DIED, work
from histcxr.data.fingerprints import FINGERPRINT_BYTES, fingerprint
from histcxr.data.progress import Progress, counting
from histcxr.exceptions import InputError, RadiographError, Reason, UnjudgeableError
from histcxr.features.cache import CountsCache, content_key
from histcxr.features.filters import Band
from histcxr.features.histograms import BINS, Zones
from histcxr.features.measuring import count_lungs, measure_batch
from histcxr.features.recipe import Recipe, as_recipe
from histcxr.files.apart import cautiously
from histcxr.files.cells import write_table
from histcxr.files.reading import read_file
from histcxr.files.writing import replacing
from histcxr.lungs.segmenter import Segmenter, load_segmenter

if TYPE_CHECKING:
    from distributed import Client

#: Whose lung masks are used: the manifest's, the network's for every image, or the network's where there is none.
LUNGS = ("given", "found", "either")

# Files that features can be written to.
_FORMATS: Final = (".parquet", ".csv", ".npz")

# Images a worker takes at a time: enough to hide the cost of handing over, few for a lively progress bar.
_CHUNK = 64
# Bytes of files held before they are decoded: bounds the memory of a worker that reads for the cache.
_HELD_BYTES = 1 << 24

_Path: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True)
class Features:
    """The counts of a manifest's images: int64 (n, n_zones * (1 + n_bands), 256), zeros where an image is not usable.

    ``table`` is the manifest, row for row, with ``reason`` (``""``, or the code why the image is not usable) and
    ``detail`` added; ``recipe`` says what was extracted; ``fingerprints`` are uint8 (n, 72), zeros where not usable,
    or None (:mod:`histcxr.data.fingerprints`).
    """

    counts: NDArray[np.int64]
    table: pd.DataFrame
    recipe: Recipe
    fingerprints: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        expected = (len(self.table), len(self.recipe.names), BINS)
        if self.counts.shape != expected:
            raise InputError(f"counts must have the shape {expected}; got {self.counts.shape}")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which images were counted; the others have a reason."""
        return (self.table["reason"] == "").to_numpy(bool)

    def select(self, rows: ArrayLike) -> Features:
        """Return some of the images: ``rows`` says which to keep (bool, shape (n,)), or their positions in order."""
        index = np.asarray(rows)
        if index.dtype == np.bool_ and index.shape != (len(self),):
            raise InputError(
                f"rows must be {len(self)} booleans, one for each image; got shape {index.shape}"
            )
        known = None if self.fingerprints is None else self.fingerprints[index]
        return replace(self, counts=self.counts[index], table=self.table.iloc[index], fingerprints=known)


def extract_features(
    manifest: pd.DataFrame,
    zones: Zones | Recipe = 1,
    n_jobs: int = 1,
    *,
    bands: bool | str | Iterable[str | Band] = (),
    lungs: str = "given",
    segmenter: Segmenter | None = None,
    cache: _Path | None = None,
    client: Client | None = None,
    progress: Progress = False,
) -> Features:
    """Count every image of a manifest; one that cannot be counted keeps its row, with the reason.

    The manifest has the columns ``image`` and ``mask``, paths of files (a mask may be ``""``); the others are kept.
    ``zones`` and ``bands`` are a :class:`~histcxr.features.recipe.Recipe`'s, or one is given. ``lungs`` says whose
    masks: ``"given"`` those of the manifest, ``"found"`` the segmenter's for every image, ``"either"`` the segmenter's
    where the manifest has none; the default segmenter comes with histcxr. ``n_jobs`` counts threads, -1 for one a
    core; the workers of a ``client``, which see the same files, count instead where one is given. The folder ``cache``
    keeps counts, so a killed run goes on where it was; ``progress``: ``Progress`` (:mod:`histcxr.data.progress`).

    InputError: no such columns, unknown zones or lungs, or a cache that cannot be used.
    """
    recipe = as_recipe(zones, bands)
    missing = [column for column in ("image", "mask") if column not in manifest.columns]
    if missing:
        raise InputError(f"manifest must have the columns image and mask; missing: {', '.join(missing)}")
    images = _paths(manifest["image"])
    masks, segmenter = _lungs(_paths(manifest["mask"]), lungs, segmenter)
    n = len(manifest)
    counts = np.zeros((n, len(recipe.names), BINS), np.int64)
    fingerprints = np.zeros((n, FINGERPRINT_BYTES), np.uint8)
    reasons, details = [""] * n, [""] * n
    sources = [_Source(row, *files) for row, files in enumerate(zip(images, masks, strict=True))]
    rows: Sequence[int] = range(n)
    with (
        counting(n, progress, "extracting") as count,
        contextlib.nullcontext() if cache is None else CountsCache(cache, recipe) as kept,
    ):
        while rows:
            found: list[tuple[int, bytes]] = []
            job = _Counting(recipe, segmenter, None if kept is None else kept.keys())
            for done in work(job, _blocks(sources, rows, n_jobs), n_jobs, client):
                fresh = [one for one in done if one.counts is not None]
                for one in fresh:
                    counts[one.row], fingerprints[one.row] = one.counts, one.fingerprint
                if kept is not None:
                    kept.add(
                        *([getattr(one, name) for one in fresh] for name in ("key", "counts", "fingerprint"))
                    )
                known = [(one.row, one.key) for one in done if one.counts is None and not one.reason]
                for one in done:
                    reasons[one.row], details[one.row] = one.reason, one.detail
                found += known
                count(len(done) - len(known))
            # What the cache lost in the meantime is counted in a second round.
            rows = () if kept is None else kept.fill(found, counts, fingerprints)
            count(len(found) - len(rows))
    return Features(counts, manifest.assign(reason=reasons, detail=details), recipe, fingerprints)


def _blocks(sources: Sequence[_Source], rows: Sequence[int], n_jobs: int) -> Iterator[list[_Source]]:
    """Divide rows into blocks, small enough that all who work have some."""
    size = min(_CHUNK, max(1, len(rows) // (4 * effective_n_jobs(n_jobs))))
    return ([sources[row] for row in rows[start : start + size]] for start in range(0, len(rows), size))


def _lungs(masks: list[str], lungs: str, segmenter: Segmenter | None) -> tuple[list[str], Segmenter | None]:
    """Return the masks to use, and what finds the lungs of those that are ``""``."""
    if lungs not in LUNGS:
        raise InputError(f"lungs must be one of {', '.join(LUNGS)}; got {lungs!r}")
    if lungs == "found":
        masks = [""] * len(masks)
    if lungs == "given" or "" not in masks:
        return masks, None
    return masks, segmenter or load_segmenter()


def _paths(column: pd.Series) -> list[str]:
    """Return a column of paths as plain strings, ``""`` where one is missing."""
    return ["" if path is None or path != path else os.fspath(path) for path in column]


class _Source(NamedTuple):
    """A row to be counted; image and mask as names, or as the content of their files, of which ``key`` is one."""

    row: int
    name: str
    mask: bytes | str  # "": the segmenter finds the lungs
    image: bytes | str = ""
    key: bytes = b""


class _Counted(NamedTuple):
    """What became of a row: its counts, or a reason; neither where the cache knows its key."""

    row: int
    key: bytes = b""
    counts: NDArray[np.unsignedinteger[Any]] | None = None
    fingerprint: NDArray[np.uint8] | None = None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True)
class _Counting:
    """A job: rows are counted; those that the cache ``known`` has are told by their keys. None: there is no cache."""

    recipe: Recipe
    segmenter: Segmenter | None
    known: frozenset[bytes] | None

    def __call__(self, items: Sequence[_Source], careful: bool = False) -> list[_Counted]:
        """Count a block."""
        with reading_ahead(name for source in items for name in (source.name, source.mask)):
            return self._read_and_count(items, careful)

    def _read_and_count(self, items: Sequence[_Source], careful: bool) -> list[_Counted]:
        count = cautiously(self._count) if careful else self._count
        if self.known is None:
            return count([source._replace(image=source.name) for source in items])
        done: list[_Counted] = []
        waiting: list[_Source] = []
        held = 0
        for source in items:
            bare = self.segmenter is not None and not source.mask
            try:
                image, mask = read_file(source.name), b"" if bare else read_file(str(source.mask))
            except RadiographError:
                # Left by their names, for the readers to put the reason into words.
                waiting.append(source._replace(image=source.name))
                continue
            # Masks that one network makes of one image are equal, so its digest may stand for them.
            maker = self.segmenter.digest.encode() if self.segmenter is not None and bare else mask
            key = content_key(image, maker)
            if key in self.known:
                done.append(_Counted(source.row, key))
                continue
            waiting.append(source._replace(key=key, image=image, mask="" if bare else mask))
            held += len(image) + len(mask)
            if held >= _HELD_BYTES:
                done += count(waiting)
                waiting, held = [], 0
        return done + count(waiting)

    def lost(self, item: _Source) -> _Counted:
        """Say that a row cannot be used."""
        return _Counted(item.row, reason=Reason.UNEXPECTED.value, detail=DIED)

    def _count(self, sources: Sequence[_Source]) -> list[_Counted]:
        results = measure_batch(
            [source.image for source in sources],
            [source.mask for source in sources],
            lambda pixels, *of: (count_lungs(pixels, *of, recipe=self.recipe), pixels),
            segmenter=self.segmenter,
            paths=[source.name for source in sources],
        )
        return [_counted(source, result) for source, result in zip(sources, results, strict=True)]


def _counted(source: _Source, result: Any) -> _Counted:
    if isinstance(result, UnjudgeableError):
        return _Counted(source.row, reason=result.reason.value, detail=result.detail)
    counts, pixels = result[0]
    # Few bytes for the way from a worker: a working image has fewer pixels than 16 bits count.
    counts = counts.astype(np.min_scalar_type(counts.max()))
    # Here, one after the other, not after each count: what it multiplies by stays in the processor's cache.
    return _Counted(source.row, source.key, counts, fingerprint(pixels))


def feature_frame(features: Features) -> pd.DataFrame:
    """Lay out histograms as a table: the manifest's columns, then one column (int64) a bin, as ``right_upper_017``.

    File names that are not UTF-8 are shown with backslash escapes.
    """
    bins = [f"{zone}_{k:03d}" for zone in features.recipe.names for k in range(BINS)]
    counts = pd.DataFrame(features.counts.reshape(len(features), -1), columns=bins)
    table = features.table.reset_index(drop=True)
    for column in table.columns[[dtype.kind == "O" for dtype in table.dtypes]]:
        table[column] = table[column].map(_writable)
    return pd.concat([table, counts], axis="columns")


def check_format(path: str | os.PathLike[str]) -> str:
    """Return the suffix of a table's path, or raise InputError where it is none of the formats."""
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise InputError(f"output must end in {', '.join(_FORMATS)}, got {os.fspath(path)!r}")
    return suffix


def write_features(features: Features, path: str | os.PathLike[str]) -> None:
    """Write histograms as Parquet, CSV or npz, by the path's suffix.

    An npz file, without pickle, holds ``counts`` (int64, ``(n, rows, 256)``), ``zones`` (names of the rows) and text
    for each manifest column. InputError for another suffix, OutputError when the file cannot be written.
    """
    suffix = check_format(path)
    if suffix == ".csv":
        write_table(feature_frame(features), path)
        return
    with replacing(path) as unfinished:
        if suffix == ".npz":
            arrays = {str(c): features.table[c].map(_writable).to_numpy(str) for c in features.table}
            arrays |= {"counts": features.counts, "zones": np.array(features.recipe.names)}
            np.savez_compressed(unfinished, allow_pickle=False, **arrays)
        else:
            feature_frame(features).to_parquet(unfinished, index=False)


def _writable(value: object) -> str:
    return "" if value is None else str(value).encode("utf-8", "backslashreplace").decode("utf-8")
