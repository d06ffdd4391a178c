"""histcxr: fast, honest triage of chest radiographs from the intensity histograms of their lungs.

Research software, not a medical device. The public names below are loaded on first use, so that
``import histcxr`` stays free of heavy packages.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# name -> module that defines it
_PUBLIC = {
    "read_manifest": "histcxr.data.manifest",
    "read_radiograph": "histcxr.data.radiograph",
    "Radiograph": "histcxr.data.radiograph",
    "read_mask": "histcxr.data.masks",
    "masked_histogram": "histcxr.features.histograms",
    "extract_features": "histcxr.features.extraction",
    "Features": "histcxr.features.extraction",
    "HistogramFeatures": "histcxr.features.transformers",
    "make_classifier": "histcxr.models.registry",
    "rule_out_threshold": "histcxr.decision.thresholds",
    "rule_in_threshold": "histcxr.decision.thresholds",
    "ThresholdChoice": "histcxr.decision.thresholds",
    "train": "histcxr.study.train",
    "calibrate": "histcxr.study.certify",
    "evaluate": "histcxr.study.evaluate",
    "explore": "histcxr.study.explore",
    "audit": "histcxr.site.audit",
    "triage": "histcxr.worklist.engine",
    "plan": "histcxr.site.plan",
    "plan_auc": "histcxr.site.plan",
    "plan_scores": "histcxr.site.plan",
    "Aim": "histcxr.site.plan",
    "draw_labelling_list": "histcxr.site.labelling",
    "load_model": "histcxr.store",
    "save_model": "histcxr.store",
    "HistcxrError": "histcxr.exceptions",
}

# name -> the module itself
_MODULES = {"plots": "histcxr.reports.displays"}

__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _PUBLIC:
        raise AttributeError(f"module 'histcxr' has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
