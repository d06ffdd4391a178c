"""First-order features by PyRadiomics, for ``extraction_speed.py``.

Reads ``[[image, mask], ...]`` as JSON and writes images a second, by the clock and by processor time. It runs in an
environment that need not have histcxr. What stands between files and features is timed, no import and no set-up.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


def first_order(extractor: Any, image: str, mask: str) -> None:
    """First-order features of PyRadiomics, as its documentation has it for two-dimensional images."""
    import SimpleITK

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
    extractor.execute(SimpleITK.JoinSeries(pixels), SimpleITK.JoinSeries(lungs), label=1)


def main() -> None:
    """Measure, after one image to warm up."""
    try:
        import SimpleITK
        from radiomics import featureextractor, setVerbosity
    except ImportError as error:
        sys.exit(f"PyRadiomics cannot be imported by {sys.executable}: {error}")
    setVerbosity(logging.ERROR)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    extractor = featureextractor.RadiomicsFeatureExtractor(force2D=True, binCount=256)
    extractor.disableAllFeatures()
    extractor.enableFeatureClassByName("firstorder")
    pairs = json.load(sys.stdin)
    first_order(extractor, *pairs[0])
    clock, processor = time.perf_counter(), time.process_time()
    for image, mask in pairs:
        first_order(extractor, image, mask)
    seconds = time.perf_counter() - clock, time.process_time() - processor
    json.dump([len(pairs) / taken for taken in seconds], sys.stdout)


if __name__ == "__main__":
    main()
