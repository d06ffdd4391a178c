"""What reporting guidelines ask for, and what an evaluation by itself can answer; the rest stays open.

CLAIM 2024: Tejani and others, Radiology: Artificial Intelligence 6, e240300 (2024). TRIPOD+AI: Collins and others, BMJ
385, e078378 (2024). STARD-AI: Sounderajah and others, Nature Medicine 31, 3283-3289 (2025), Table 2. Numbers were
compared with public copies, two of each checklist but for a third of CLAIM's items: the journals' own pages were not at
hand.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from histcxr.exceptions import counted
from histcxr.reports.tables import auc_text

#: Every item of each guideline, then what is asked for, in our words: which answer of a run it takes, and which items
#: of each guideline that answers, at least in part.
_TABLE: Final = Path(__file__).parents[1] / "templates" / "checklists.csv"


def read_items() -> tuple[dict[str, list[str]], list[dict[str, str]]]:
    """Return all items of each guideline, and a row for each thing asked for."""
    with open(_TABLE, encoding="utf-8", newline="") as file:
        every, *rows = csv.DictReader(file)
    return {name: every[name].split() for name in every if name not in ("answer", "asked for")}, rows


def checklist(result: Mapping[str, Any], software: str) -> dict[str, Any]:
    """Return ``rows``, what the run answers and which items that is, and ``open``, the other items by guideline."""
    known = _answers(result, software)
    items, table = read_items()
    rows = [
        {"asked for": row["asked for"], "this run": answer, **{name: row[name] for name in items}}
        for row in table
        if (answer := known[row["answer"]])
    ]
    answered = {name: {one for row in rows for one in row[name].split()} for name in items}
    left = {name: ", ".join(one for one in own if one not in answered[name]) for name, own in items.items()}
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
