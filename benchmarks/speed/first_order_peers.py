"""First-order features by other libraries, for ``extraction_speed.py``.

Reads ``[[image, mask], ...]`` as JSON and writes, for each library that is installed, images a second by
the clock and by processor time. It runs in an environment that need not have histcxr. Everything is timed
that stands between files and features, and nothing else: no import, no set-up.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np


def pyradiomics() -> Callable[[str, str], object]:
    """First-order features of PyRadiomics, as its documentation has it for two-dimensional images."""
    import SimpleITK
    from radiomics import featureextractor, setVerbosity

    setVerbosity(logging.ERROR)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    extractor = featureextractor.RadiomicsFeatureExtractor(force2D=True, binCount=256)
    extractor.disableAllFeatures()
    extractor.enableFeatureClassByName("firstorder")

    def work(image: str, mask: str) -> object:
        pixels = SimpleITK.ReadImage(image, SimpleITK.sitkUInt8)
        lungs = SimpleITK.ReadImage(mask)
        if lungs.GetNumberOfComponentsPerPixel() > 1:
            lungs = SimpleITK.VectorIndexSelectionCast(lungs, 0)
        lungs = SimpleITK.Cast(lungs > 0, SimpleITK.sitkUInt8)
        if lungs.GetSize() != pixels.GetSize():
            spacing = [a / b for a, b in zip(pixels.GetSize(), lungs.GetSize(), strict=True)]
            lungs.SetSpacing(spacing)
            lungs.SetOrigin([(s - 1) / 2 for s in spacing])
            lungs = SimpleITK.Resample(lungs, pixels, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
        return extractor.execute(SimpleITK.JoinSeries(pixels), SimpleITK.JoinSeries(lungs), label=1)

    return work


def scikit_image() -> Callable[[str, str], object]:
    """Read with scikit-image, count with NumPy."""
    from skimage import io, transform

    def work(image: str, mask: str) -> object:
        pixels, lungs = io.imread(image), io.imread(mask)
        if lungs.ndim == 3:
            lungs = lungs[..., 0]
        if lungs.shape != pixels.shape:
            lungs = transform.resize(lungs, pixels.shape, order=0, preserve_range=True, anti_aliasing=False)
        return np.histogram(pixels[lungs > 0], bins=256, range=(0, 256))

    return work


PEERS = {
    "PyRadiomics first order": ("radiomics", pyradiomics),
    "scikit-image + numpy.histogram": ("skimage", scikit_image),
}


def rates(work: Callable[[str, str], object], pairs: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Return images a second by the clock and by processor time, after one image to warm up."""
    work(*pairs[0])
    clock, processor = time.perf_counter(), time.process_time()
    for image, mask in pairs:
        work(image, mask)
    return len(pairs) / (time.perf_counter() - clock), len(pairs) / (time.process_time() - processor)


def main() -> None:
    """Measure every peer that is installed."""
    pairs = json.load(sys.stdin)
    found = {
        name: rates(make(), pairs)
        for name, (module, make) in PEERS.items()
        if importlib.util.find_spec(module)
    }
    if not found:
        raise SystemExit("neither PyRadiomics (radiomics) nor scikit-image (skimage) is installed here")
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
