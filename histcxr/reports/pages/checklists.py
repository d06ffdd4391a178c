"""What reporting guidelines ask for, and what an evaluation by itself can answer; the rest stays open.

CLAIM: Tejani and others, Radiology: Artificial Intelligence 6 (2024). TRIPOD+AI: Collins and others, BMJ 385 (2024).
STARD-AI: Sounderajah and others, Nature Medicine (2025), which builds on STARD 2015 (Bossuyt and others), whose numbers
are given here. The items are in our own words and not all there are: read the guidelines before you publish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_CLAIM, _TRIPOD, _STARD = "CLAIM 2024", "TRIPOD+AI", "STARD 2015 / STARD-AI"

# guideline, item, what it asks for, and the answer: a key of what the run knows, or "" for open
_ITEMS: Final = (
    (_CLAIM, "1", "Say that the study is about artificial intelligence, and of which kind", "model"),
    (_CLAIM, "5", "Prospective or retrospective", ""),
    (_CLAIM, "7", "Where the data come from", "data"),
    (_CLAIM, "8", "Who was included and left out", "excluded"),
    (_CLAIM, "9", "How images were prepared", "input"),
    (_CLAIM, "11", "How data were de-identified", ""),
    (_CLAIM, "12", "What was done about missing data", "unusable"),
    (_CLAIM, "14-18", "The reference standard: what it is, who read, how they agreed", ""),
    (_CLAIM, "19", "How data were divided into parts", "split"),
    (_CLAIM, "20", "At which level the parts do not overlap", "seen"),
    (_CLAIM, "21", "How the sample size was chosen", ""),
    (_CLAIM, "22", "The model in detail", "model"),
    (_CLAIM, "23", "Software", "software"),
    (_CLAIM, "28", "Measures of performance", "measures"),
    (_CLAIM, "29", "Uncertainty of the measures", "intervals"),
    (_CLAIM, "30", "Robustness", "subgroups"),
    (_CLAIM, "31", "Explainability", "drives"),
    (_CLAIM, "35", "Patients and images, with those left out", "flow"),
    (_CLAIM, "36", "Demographic and clinical characteristics", "groups"),
    (_CLAIM, "37, 38", "Performance with its precision", "performance"),
    (_CLAIM, "39", "Analysis of failures", "errors"),
    (_CLAIM, "40, 41", "Limits, and what follows for practice", ""),
    (_CLAIM, "42-44", "Protocol, availability of software and data, funding", ""),
    (_TRIPOD, "3, 4", "Context, intended patients and objectives", ""),
    (_TRIPOD, "5, 6", "Data, dates, setting and eligibility", ""),
    (_TRIPOD, "7", "Preparation of the data", "input"),
    (_TRIPOD, "8", "The outcome, how and by whom it was told", ""),
    (_TRIPOD, "9", "Predictors", "input"),
    (_TRIPOD, "10", "Sample size", ""),
    (_TRIPOD, "11", "Missing data", "unusable"),
    (_TRIPOD, "12", "How performance was measured", "measures"),
    (_TRIPOD, "14", "Fairness: performance in groups of patients", "subgroups"),
    (_TRIPOD, "15", "What the model returns, and its thresholds", "thresholds"),
    (_TRIPOD, "17-19", "Ethics, open science, involvement of patients", ""),
    (_TRIPOD, "20", "Flow and characteristics of the participants", "flow"),
    (_TRIPOD, "23", "Performance with intervals, also in key groups", "performance"),
    (_TRIPOD, "25-27", "Interpretation, limits, how it can be used", ""),
    (_STARD, "6-9", "Who was eligible, where, when, and how they were found", ""),
    (_STARD, "10a", "The index test", "model"),
    (_STARD, "10b, 11", "The reference standard, and why this one", ""),
    (_STARD, "12a", "Thresholds of the index test, set beforehand or not", "thresholds"),
    (_STARD, "13", "Whether readers knew the other result", ""),
    (_STARD, "14", "How accuracy was estimated", "measures"),
    (_STARD, "15, 16", "What was done about results that are missing or cannot be told", "unusable"),
    (_STARD, "19", "Flow of the participants", "flow"),
    (_STARD, "20, 21", "Characteristics, and how severe and which diseases they were", "groups"),
    (_STARD, "23", "Results of the test against the truth, counted", "confusion"),
    (_STARD, "24", "Accuracy with its precision", "performance"),
    (_STARD, "26-30", "Limits, use in practice, registration, protocol, funding", ""),
    (_STARD, "AI", "Errors, and differences between groups of patients", "subgroups"),
)


def checklist(result: Mapping[str, Any], software: str) -> list[dict[str, Any]]:
    """Return the items: ``guideline, item, asks for, status`` ("from this run" or "open") and the ``answer``."""
    known = _answers(result, software)
    return [
        {
            "guideline": guideline,
            "item": item,
            "asks for": text,
            "status": "from this run" if known.get(key) else "open",
            "answer": known.get(key, "") or "for the authors",
        }
        for guideline, item, text, key in _ITEMS
    ]


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _answers(result: Mapping[str, Any], software: str) -> dict[str, str]:
    """Say in a sentence each what the run knows."""
    overall, model, closer = result["overall"], result["model"], result["closer"]
    decisions = overall["decisions"]
    reasons = ", ".join(f"{count} {code}" for code, count in result["unusable"].items())
    inputs = next(name for name in ("recipe", "inputs", "cascade") if name in model)
    seen = result["seen"]["images"]
    flow = f"{decisions['n_patients']} patients, {decisions['n_images']} images judged"
    area = (
        ""
        if overall["auc"] is None
        else f"AUC {overall['auc']:.3f} ({overall['auc_low']:.3f}-{overall['auc_high']:.3f})"
    )
    groups = dict.fromkeys(row["column"] for row in closer["subgroups"])
    certified = [kind for kind, choice in result["thresholds"].items() if choice["certified"]]
    return {
        "model": f"{model['name']}, hash {model['hash'][:12] or 'not saved'}",
        "data": "",
        "excluded": f"{seen} images left out, whose patients the model was trained or certified on",
        "input": "; ".join(f"{name}: {_listed(value)}" for name, value in model[inputs].items()),
        "unusable": f"not judged, sent to review: {reasons or 'none'}",
        "split": f"split {result['split']}",
        "seen": "patients that the model remembers are left out" if result["remembers"] else "",
        "software": software,
        "measures": "AUC, sensitivity, specificity, NPV, PPV, Brier score, calibration, net benefit",
        "intervals": "95 %: Clopper-Pearson over patients; patient bootstrap for the ROC curve",
        "subgroups": f"by {', '.join(groups)}" if groups else "",
        "drives": "permutation of zones and channels" if closer["drives"]["permutation"] else "",
        "flow": f"{flow}; {reasons or 'none'} not judged; {seen} left out as seen",
        "groups": f"counted by {', '.join(groups)}" if groups else "",
        "performance": area,
        "errors": "the worst errors are shown above",
        "thresholds": f"certified beforehand: {', '.join(certified)}" if certified else "",
        "confusion": "counted at three thresholds above",
    }
