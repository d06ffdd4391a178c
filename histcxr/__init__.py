"""histcxr: fast, honest triage of chest radiographs from the intensity histograms of their lungs.

Research software, not a medical device. The public names below are loaded on first use, so that
``import histcxr`` stays free of heavy packages. Type checkers and editors read the imports below them, which never run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> module that defines it, with the name that it has there where that is another
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
    "TrainingResult": "histcxr.study.train",
    "tune": "histcxr.study.tune:search_settings",
    "calibrate": "histcxr.study.certify",
    "adapt": "histcxr.site.adapt",
    "evaluate": "histcxr.study.evaluate",
    "explore": "histcxr.study.explore",
    "audit": "histcxr.site.audit",
    "triage": "histcxr.worklist.engine",
    "segment": "histcxr.lungs.folder:segment_folder",
    "monitor": "histcxr.site.monitor",
    "plots": "histcxr.reports:displays",
    "plan": "histcxr.site.plan",
    "plan_auc": "histcxr.site.plan",
    "plan_scores": "histcxr.site.plan",
    "Aim": "histcxr.site.plan",
    "draw_labelling_list": "histcxr.site.labelling",
    "load_model": "histcxr.store",
    "save_model": "histcxr.store",
    "Model": "histcxr.store",
    "ReferenceModel": "histcxr.store",
    "Judgement": "histcxr.store.at_hand",
    "sample_study": "histcxr.phantoms.studies",
    "HistcxrError": "histcxr.exceptions",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:  # the same names; tests/test_layers.py compares
    from histcxr.data.manifest import read_manifest as read_manifest
    from histcxr.data.masks import read_mask as read_mask
    from histcxr.data.radiograph import Radiograph as Radiograph
    from histcxr.data.radiograph import read_radiograph as read_radiograph
    from histcxr.decision.thresholds import ThresholdChoice as ThresholdChoice
    from histcxr.decision.thresholds import rule_in_threshold as rule_in_threshold
    from histcxr.decision.thresholds import rule_out_threshold as rule_out_threshold
    from histcxr.exceptions import HistcxrError as HistcxrError
    from histcxr.features.extraction import Features as Features
    from histcxr.features.extraction import extract_features as extract_features
    from histcxr.features.histograms import masked_histogram as masked_histogram
    from histcxr.features.transformers import HistogramFeatures as HistogramFeatures
    from histcxr.lungs.folder import segment_folder as segment  # noqa: F401 - another name than there
    from histcxr.models.registry import make_classifier as make_classifier
    from histcxr.phantoms.studies import sample_study as sample_study
    from histcxr.reports import displays as plots  # noqa: F401 - another name than there
    from histcxr.site.adapt import adapt as adapt
    from histcxr.site.audit import audit as audit
    from histcxr.site.labelling import draw_labelling_list as draw_labelling_list
    from histcxr.site.monitor import monitor as monitor
    from histcxr.site.plan import Aim as Aim
    from histcxr.site.plan import plan as plan
    from histcxr.site.plan import plan_auc as plan_auc
    from histcxr.site.plan import plan_scores as plan_scores
    from histcxr.store import Model as Model
    from histcxr.store import ReferenceModel as ReferenceModel
    from histcxr.store import load_model as load_model
    from histcxr.store import save_model as save_model
    from histcxr.store.at_hand import Judgement as Judgement
    from histcxr.study.certify import calibrate as calibrate
    from histcxr.study.evaluate import evaluate as evaluate
    from histcxr.study.explore import explore as explore
    from histcxr.study.train import TrainingResult as TrainingResult
    from histcxr.study.train import train as train
    from histcxr.study.tune import search_settings as tune  # noqa: F401 - another name than there
    from histcxr.worklist.engine import triage as triage
else:  # unseen by checkers, or they would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Load a public name on first use (PEP 562)."""
        if name not in _PUBLIC:
            raise AttributeError(f"module 'histcxr' has no attribute {name!r}")
        module, _, original = _PUBLIC[name].partition(":")
        place = import_module(module)
        if not hasattr(place, original or name):  # a module that nobody has loaded yet
            import_module(f"{module}.{original}")
        value = getattr(place, original or name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
