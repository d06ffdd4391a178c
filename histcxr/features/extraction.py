"""A whole manifest to counts, in parallel, and to files that other tools read."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import ArrayLike, NDArray

from histcxr.data.fingerprints import FINGERPRINT_BYTES, fingerprint
from histcxr.data.progress import Progress, counting
from histcxr.exceptions import InputError, RadiographError, UnjudgeableError
from histcxr.features.cache import CountsCache, content_key
from histcxr.features.filters import Band
from histcxr.features.histograms import BINS, Zones
from histcxr.features.measuring import count_lungs, measure_batch
from histcxr.features.recipe import Recipe, as_recipe
from histcxr.files.cells import write_table
from histcxr.files.reading import read_file
from histcxr.files.writing import replacing
from histcxr.lungs.segmenter import Segmenter, load_segmenter

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
    progress: Progress = False,
) -> Features:
    """Count every image of a manifest; one that cannot be counted keeps its row, with the reason.

    The manifest has the columns ``image`` and ``mask``, paths of files (a mask may be ``""``); the others are kept.
    ``zones`` and ``bands`` are a :class:`~histcxr.features.recipe.Recipe`'s, or one is given. ``lungs`` says whose
    masks: ``"given"`` those of the manifest, ``"found"`` the segmenter's for every image, ``"either"`` the segmenter's
    where the manifest has none; the default segmenter comes with histcxr. ``n_jobs`` counts threads, -1 for one a
    core. The folder ``cache`` keeps counts, so a killed run goes on where it was; ``progress``:
    ``Progress`` (:mod:`histcxr.data.progress`).

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
    work = _Work(images, masks, recipe, segmenter)
    rows: Sequence[int] = range(n)
    with (
        counting(n, progress, "extracting") as count,
        contextlib.nullcontext() if cache is None else CountsCache(cache, recipe) as kept,
    ):
        while rows:
            found: list[tuple[int, bytes]] = []
            for done in _in_chunks(work, rows, n_jobs, None if kept is None else kept.keys()):
                done.store(counts, fingerprints, reasons, details)
                if kept is not None:
                    kept.add(done.keys, done.counts, done.fingerprints)
                found += done.known
                count(len(done.rows) - len(done.known))
            # What the cache lost in the meantime is counted in a second round.
            rows = () if kept is None else kept.fill(found, counts, fingerprints)
            count(len(found) - len(rows))
    return Features(counts, manifest.assign(reason=reasons, detail=details), recipe, fingerprints)


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


@dataclass(frozen=True)
class _Work:
    """What to count, row by row; a mask is ``""`` where the segmenter is to find the lungs."""

    images: list[str]
    masks: list[str]
    recipe: Recipe
    segmenter: Segmenter | None


@dataclass
class _Chunk:
    """What a worker hands back about its rows: what was counted, what failed, and what the cache knows."""

    rows: Sequence[int]
    counted: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    fingerprints: list[NDArray[np.uint8]] = field(default_factory=list)
    failed: list[tuple[int, UnjudgeableError]] = field(default_factory=list)
    known: list[tuple[int, bytes]] = field(default_factory=list)

    def store(
        self,
        counts: NDArray[np.int64],
        fingerprints: NDArray[np.uint8],
        reasons: list[str],
        details: list[str],
    ) -> None:
        for row, found, known in zip(self.counted, self.counts, self.fingerprints, strict=True):
            counts[row], fingerprints[row] = found, known
        for row, error in self.failed:
            reasons[row], details[row] = error.reason.value, error.detail


class _Source(NamedTuple):
    """A row that waits to be counted; image and mask as names, or as the content of their files."""

    row: int
    key: bytes
    name: str
    image: bytes | str
    mask: bytes | str


def _in_chunks(
    work: _Work, rows: Sequence[int], n_jobs: int, known: frozenset[bytes] | None
) -> Iterator[_Chunk]:
    """Count rows in parallel, in order; only a few chunks are in flight, whatever the number of rows."""
    size = min(_CHUNK, max(1, len(rows) // (4 * effective_n_jobs(n_jobs))))
    results = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
        delayed(_count_chunk)(work, rows[start : start + size], known) for start in range(0, len(rows), size)
    )
    try:
        # Not "yield from": that would close the results before they can be closed in silence.
        for done in results:  # noqa: UP028
            yield done
    finally:
        with warnings.catch_warnings():
            # After an error or Ctrl-C: that the rest was not used is no news.
            warnings.filterwarnings("ignore", ".*tasks (have been|which were)", UserWarning)
            results.close()


def _count_chunk(work: _Work, rows: Sequence[int], known: frozenset[bytes] | None) -> _Chunk:
    chunk = _Chunk(rows)
    sources = [_Source(row, b"", work.images[row], work.images[row], work.masks[row]) for row in rows]
    if known is None:
        _count(chunk, sources, work)
        return chunk
    waiting: list[_Source] = []
    held = 0
    for source in sources:
        bare = work.segmenter is not None and not source.mask
        try:
            image, mask = read_file(source.name), b"" if bare else read_file(work.masks[source.row])
        except RadiographError:
            # Left by their names, for the readers to put the reason into words.
            waiting.append(source)
            continue
        # Masks that one network makes of one image are equal, so its digest may stand for them.
        key = content_key(
            image, work.segmenter.digest.encode() if work.segmenter is not None and bare else mask
        )
        if key in known:
            chunk.known.append((source.row, key))
            continue
        waiting.append(source._replace(key=key, image=image, mask="" if bare else mask))
        held += len(image) + len(mask)
        if held >= _HELD_BYTES:
            _count(chunk, waiting, work)
            waiting, held = [], 0
    _count(chunk, waiting, work)
    return chunk


def _count(chunk: _Chunk, sources: Sequence[_Source], work: _Work) -> None:
    results = measure_batch(
        [source.image for source in sources],
        [source.mask for source in sources],
        lambda pixels, *of: (count_lungs(pixels, *of, recipe=work.recipe), pixels),
        segmenter=work.segmenter,
        paths=[source.name for source in sources],
    )
    for source, result in zip(sources, results, strict=True):
        if isinstance(result, UnjudgeableError):
            chunk.failed.append((source.row, result))
        else:
            chunk.counted.append(source.row)
            chunk.counts.append(result[0][0])
            # Here, one after the other, not after each count: what it multiplies by stays in the processor's cache.
            chunk.fingerprints.append(fingerprint(result[0][1]))
            chunk.keys.append(source.key)


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
