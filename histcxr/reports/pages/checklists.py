"""What reporting guidelines ask for, and what an evaluation by itself can answer; the rest stays open.

CLAIM 2024: Tejani and others, Radiology: Artificial Intelligence 6, e240300 (2024). TRIPOD+AI: Collins and others, BMJ
385, e078378 (2024). STARD-AI: Sounderajah and others, Nature Medicine 31, 3283-3289 (2025), Table 2. Numbers were
compared with public copies, two of each checklist but for a third of CLAIM's items: the journals' own pages were not at
hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from histcxr.exceptions import counted
from histcxr.reports.tables import auc_text

_NUMBERS: Final = {
    "CLAIM 2024": " ".join(map(str, range(1, 45))),
    "TRIPOD+AI": "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 "
    "18a 18b 18c 18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c",
    "STARD-AI": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15a 15b 15c 15d 16a 16b 16c 17a 17b 18 19 20 21 22 23 24 25 26a 26b "
    "27 28 29 30 31 32 33 34 35 36 37 38 39 40a 40b",
}
_ITEMS: Final = {name: numbers.split() for name, numbers in _NUMBERS.items()}  # of each guideline, all
# what is asked for, in our words; the key of the answer; the items of each guideline that it answers, at least in part
_ANSWERED: Final = (
    ("The model", "model", "22", "22", "15a"),
    ("How images were prepared, and what is measured", "input", "9", "7 9b", "14"),
    ("Images without a result, and what was done about them", "unusable", "12", "11", "19 20"),
    ("How the data were divided", "split", "19", "12a", "15b"),
    ("Where the parts do not overlap", "seen", "20", "", ""),
    ("Software", "software", "23", "", "13"),
    ("Measures of performance", "measures", "28", "12e", "18"),
    ("Uncertainty of the measures", "intervals", "29", "", ""),
    ("Whether performance holds in groups of patients", "subgroups", "30", "23a", "21 23"),
    ("What drives the score", "drives", "31", "", ""),
    ("What the model returns, and its thresholds", "thresholds", "", "15", "15c"),
    ("How many took part, and who was left out", "flow", "35", "20a 21", "24"),
    ("Characteristics of those who took part", "groups", "36", "20b", "25"),
    ("Results of the test against the truth, counted", "confusion", "", "", "30"),
    ("Performance with its precision", "performance", "37 38", "23a", "31"),
    ("Analysis of errors", "errors", "39", "", "23"),
)


def checklist(result: Mapping[str, Any], software: str) -> dict[str, Any]:
    """Return ``rows``, what the run answers and which items that is, and ``open``, the other items by guideline."""
    known = _answers(result, software)
    rows = [
        {"asked for": text, "this run": known[key], **dict(zip(_ITEMS, items, strict=True))}
        for text, key, *items in _ANSWERED
        if known[key]
    ]
    answered = {name: {one for row in rows for one in row[name].split()} for name in _ITEMS}
    left = {
        name: ", ".join(one for one in items if one not in answered[name]) for name, items in _ITEMS.items()
    }
    return {"rows": rows, "open": left}


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _answers(result: Mapping[str, Any], software: str) -> dict[str, str]:
    """Say in a sentence each what the run knows."""
    overall, model, closer = result["overall"], result["model"], result["closer"]
    decisions = overall["decisions"]
    reasons = ", ".join(f"{count} {code}" for code, count in result["unusable"].items())
    inputs = next(name for name in ("recipe", "inputs", "cascade") if name in model)
    seen = result["seen"]["images"]
    flow = f"{counted(decisions['n_patients'], 'patient')}, {counted(decisions['n_images'], 'image')} judged"
    groups = dict.fromkeys(row["column"] for row in closer["subgroups"])
    certified = [kind for kind, choice in result["thresholds"].items() if choice["certified"]]
    return {
        "model": f"{model['name']}, hash {model['hash'][:12] or 'not saved'}",
        "input": "; ".join(f"{name}: {_listed(value)}" for name, value in model[inputs].items()),
        "unusable": f"not judged, sent to review: {reasons or 'none'}",
        "split": f"measured on split {result['split']}",
        "seen": "patients that the model remembers are left out" if result["remembers"] else "",
        "software": software,
        "measures": "AUC, sensitivity, specificity, NPV, PPV, Brier score, calibration, net benefit",
        "intervals": "95 %: Clopper-Pearson over patients; patient bootstrap for the ROC curve",
        "subgroups": f"by {', '.join(groups)}" if groups else "",
        "drives": "permutation of zones and channels" if closer["drives"]["permutation"] else "",
        "flow": f"{flow}; {reasons or 'none'} not judged; {seen} left out as seen",
        "groups": f"counted by {', '.join(groups)}" if groups else "",
        "performance": "" if overall["auc"] is None else f"AUC {auc_text(overall)}",
        "errors": "the worst errors are shown above",
        "thresholds": f"certified beforehand: {', '.join(certified)}" if certified else "",
        "confusion": "counted at three thresholds above",
    }
