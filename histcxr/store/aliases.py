"""Classes that were moved since models were saved."""

from __future__ import annotations

from typing import Final

__all__ = ["OLD_PATHS"]

#: Dotted path under which a saved model may know a class, and the path of that class today. Whoever moves a class
#: of the trust list (:data:`histcxr.store.weights.TRUSTED`) adds its old path here, and points older entries to the
#: new place, too: a path is looked up once.
OLD_PATHS: Final[dict[str, str]] = {
    "histcxr.features.band_densities.BandDensities": "histcxr.features.band_features.BandDensities",
    "histcxr.features.both_sides.BothSides": "histcxr.features.band_features.BothSides",
    "histcxr.models.calibrated.CalibratedClassifier": "histcxr.models.out_of_fold.CalibratedClassifier",
    "histcxr.models.gaussian_svc.GaussianSVC": "histcxr.models.pipelines.GaussianSVC",
    "histcxr.models.level.IntensityLevel": "histcxr.features.transformers.LungIntensity",
    "histcxr.models.stack.StackedClassifier": "histcxr.models.out_of_fold.StackedClassifier",
}
