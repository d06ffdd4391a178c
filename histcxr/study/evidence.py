"""A closer look at what a model did on labelled radiographs: curves, errors, subgroups, and what drives the score.

All of it ready for JSON, so that a page and its plots show the very numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline

from histcxr.decision import plotted
from histcxr.decision.auc import auc
from histcxr.decision.curves import reliability_table
from histcxr.decision.drawers import Confusion, confusion, patient_drawers
from histcxr.decision.intervals import patient_labels, patient_scores, proportion
from histcxr.decision.thresholds import RULE_IN, RULE_OUT
from histcxr.exceptions import counted
from histcxr.features.histograms import zone_names
from histcxr.features.recipe import Recipe
from histcxr.store import Model
from histcxr.study.cohort import groups_of, known_groups
from histcxr.study.evaluate import MIN_CLASS, Judged
from histcxr.study.figures import enough

#: Columns whose groups are looked at where the data have them.
COLUMNS: Final = ("label", "source", "view", "age_group", "sex")

_ERRORS: Final = 8  # of either kind
_DRAWN: Final = 100  # images of either class for what drives the score
_REPEATS: Final = 3


def closer_look(
    judged: Judged, *, by: Sequence[str] = (), prevalence: float | None = None, seed: int = 0
) -> dict[str, Any]:
    """Look closer at a cohort as a model judged it.

    Returns ``roc, scores, calibration, decision_curve, npv, ppv`` (:mod:`histcxr.decision.plotted`; None where a class
    or a call is missing; NPV and PPV by patient, the others by image), ``operating`` (by patient, at rule_out, rule_in
    and a score of 0.5: counts, sensitivity and specificity with intervals), ``errors`` (the sick with the lowest and
    the normal with the highest scores), ``subgroups`` and ``drives`` (:func:`drivers`).
    """
    scores, cohort = judged.scores, judged.cohort
    sick, patients = cohort.sick, cohort.patients
    drawers = judged.model.drawers(scores, known_groups(judged.model, cohort.table))
    both = bool(sick.any() and not sick.all())
    by_patient, truth = patient_drawers(drawers, patients), patient_labels(sick, patients)
    calls = {"npv": by_patient != RULE_OUT, "ppv": by_patient == RULE_IN}
    defined = both and truth.any() and not truth.all()
    called = {"npv": (~calls["npv"]).any(), "ppv": calls["ppv"].any()}
    return {
        "roc": plotted.roc(scores, sick, patient_ids=patients, seed=seed) if enough(cohort) else None,
        "scores": plotted.score_spread(scores, sick),
        "calibration": reliability_table(scores, sick).to_dict("records"),
        "decision_curve": plotted.decision_curve(scores, sick, prevalence=prevalence) if both else None,
        **{
            kind: plotted.predictive_values(calls[kind], truth, kind=kind)
            if defined and called[kind]
            else None
            for kind in ("npv", "ppv")
        },
        "operating": {
            RULE_OUT: operating_point(calls["npv"], truth),
            RULE_IN: operating_point(calls["ppv"], truth),
            "0.5": operating_point(patient_scores(scores, patients) >= 0.5, truth),
        },
        "errors": _errors(judged, drawers),
        "subgroups": subgroups(judged, drawers, [*COLUMNS, *(one for one in by if one not in COLUMNS)]),
        "drives": drivers(judged, seed=seed),
    }


def operating_point(called: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, Any]:
    """Count calls (n,) against the truth (n,): ``tp, fp, fn, tn``, sensitivity and specificity with intervals."""
    counts: Confusion = confusion(called, truth)
    sick, normal = counts.tp + counts.fn, counts.tn + counts.fp
    return {
        **counts.to_dict(),
        "sensitivity": proportion(counts.tp, sick).to_dict() if sick else None,
        "specificity": proportion(counts.tn, normal).to_dict() if normal else None,
    }


def subgroups(judged: Judged, drawers: NDArray[np.str_], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Measure within each value of some columns, by patient at the rule-out threshold.

    Rows have ``column, value, patients, sick``, ``sensitivity`` and ``specificity`` (None: nobody to count), ``auc``
    with its interval (None: too few) and ``sentence``, "" or what cannot be told.
    """
    rows = []
    table, scores, cohort = judged.cohort.table, judged.scores, judged.cohort
    for column in columns:
        names = groups_of(table, column) if column in table else np.array([], object)
        values = sorted(set(names.tolist()))
        for value in values if len(values) > 1 else ():
            keep = names == value
            part = cohort.part(keep)
            ids, truth = part.patients, patient_labels(part.sick, part.patients)
            called = patient_drawers(drawers[keep], ids) != RULE_OUT
            n_sick, n_normal = int(truth.sum()), int((~truth).sum())
            point = operating_point(called, truth)
            area = auc(scores[keep], part.sick, patient_ids=ids) if enough(part) else None
            rows.append(
                {
                    "column": column,
                    "value": value or "unknown",
                    "patients": n_sick + n_normal,
                    "sick": n_sick,
                    **{name: point[name] for name in ("sensitivity", "specificity")},
                    "auc": area and {"value": area.value, "low": area.low, "high": area.high},
                    "sentence": _too_few(n_sick, n_normal),
                }
            )
    return rows


def _too_few(sick: int, normal: int) -> str:
    """Say in sentences what a group is too small for."""
    said = []
    for n, who, figure in ((sick, "sick", "sensitivity"), (normal, "normal", "specificity")):
        if not n:
            said.append(f"Nobody here is {who}: there is no {figure} and no AUC.")
        elif n < MIN_CLASS:
            said.append(f"{counted(n, 'patient is', 'patients are')} too few to tell the {figure}.")
    return " ".join(said)


def _errors(judged: Judged, drawers: NDArray[np.str_]) -> dict[str, list[dict[str, Any]]]:
    """List the worst errors: the sick with the lowest scores, the normal with the highest."""
    scores, sick, table = judged.scores, judged.cohort.sick, judged.cohort.table
    order = np.argsort(scores, kind="stable")
    chosen = {"missed": order[sick[order]][:_ERRORS], "alarms": order[~sick[order]][::-1][:_ERRORS]}
    return {
        kind: [
            {
                "image": str(table["image"].iloc[row]),
                "mask": str(table["mask"].iloc[row]) if judged.cohort.lungs != "found" else "",
                "label": str(table["label"].iloc[row]),
                "score": float(scores[row]),
                "drawer": str(drawers[row]),
            }
            for row in rows.tolist()
        ]
        for kind, rows in chosen.items()
    }


def drivers(judged: Judged, *, seed: int = 0) -> dict[str, Any]:
    """Say what drives a histogram model's score.

    ``permutation``: how much AUC is lost when what a zone (``zones``) or a channel (``bands``; "intensity" are the grey
    levels themselves) holds is exchanged among images, mean and spread of three draws (Breiman, Machine Learning 45,
    2001). ``contributions``: where boosted trees take part, the mean absolute SHAP value by zone, by channel and by the
    part of the pixels (``levels``: the darker, middle or brighter third), in log-odds. ``images``: on how many, as many
    sick as normal. ``note`` says in a sentence what is missing.
    """
    empty: dict[str, Any] = {"permutation": None, "contributions": None, "images": 0, "note": ""}
    model, sick = judged.model, judged.cohort.sick
    if not isinstance(model, Model):
        whose = "A network sees" if not model.members else "Its network sees"
        return {**empty, "note": f"{whose} the image itself: histcxr explain draws where a network looks."}
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(sick == own) for own in (True, False)]
    if min(map(len, members)) < MIN_CLASS:
        return {
            **empty,
            "note": f"It takes {MIN_CLASS} sick and {MIN_CLASS} normal images to say what drives the score.",
        }
    size = min(_DRAWN, *map(len, members))
    rows = np.concatenate([rng.permutation(one)[:size] for one in members])
    counts, truth = judged.cohort.values[rows], sick[rows]
    estimator = model.estimator
    if isinstance(estimator, Pipeline) and "features" in estimator.named_steps:
        values = np.asarray(estimator[0].transform(counts))
        places = [_place(str(name), model.recipe) for name in estimator[0].get_feature_names_out()]
        rest = estimator[1:]
    else:
        values, rest = counts, estimator
        places = [_place(name, model.recipe) for name in model.recipe.names]
    found = {**empty, "images": len(rows)}
    found["permutation"] = _permutation(values, places, truth, rest, model.recipe, rng)
    found["contributions"] = _contributions(values, places, estimator)
    if found["contributions"] is None:
        found["note"] = (
            "Contributions of single features are told of boosted trees, of which this model has none."
        )
    return found


_Place = tuple[str, str, str]  # zone, channel, part of the pixels


def _place(name: str, recipe: Recipe) -> _Place:
    """Tell from a feature's name the zone of the image, the channel and the part of the pixels that it speaks of."""
    zones = [zone for zone in zone_names(recipe.zones) if re.search(rf"(^|_){zone}(_|$)", name)]
    zone = max(zones, key=len, default="lungs")
    bands = [band for band in recipe.bands if re.search(rf"(^|_){re.escape(band)}_", name)]
    if name.startswith("mirrored_"):  # the mirror image's right lung is the image's left one
        other = {"right": "left", "left": "right"}
        side, line, third = zone.partition("_")
        zone = f"{other.get(side, side)}{line}{third}"
    level = re.search(r"quantile_(0?\.\d+)$", name)
    thirds = ("darker third", "middle third", "brighter third")
    part = "" if level is None else thirds[min(2, int(float(level[1]) * 3))]
    return zone, max(bands, key=len, default="intensity"), part


def _permutation(
    values: NDArray[Any],
    places: Sequence[_Place],
    truth: NDArray[np.bool_],
    estimator: Any,
    recipe: Recipe,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Exchange groups of features, or of rows of counts, among images, and measure what AUC is lost."""

    def area(changed: NDArray[Any]) -> float:
        return float(roc_auc_score(truth, estimator.predict_proba(changed)[:, 1]))

    whole = area(values)
    found: dict[str, Any] = {"auc": whole}
    wanted = {"zones": zone_names(recipe.zones), "bands": ("intensity", *recipe.bands)}
    for position, (kind, names) in enumerate(wanted.items()):
        rows = []
        for name in names:
            columns = [i for i, place in enumerate(places) if place[position] == name]
            lost = []
            for _ in range(_REPEATS if columns else 0):
                changed = values.copy()
                changed[:, columns] = values[rng.permutation(len(values))][:, columns]
                lost.append(whole - area(changed))
            if lost:
                rows.append({"name": name, "value": float(np.mean(lost)), "spread": float(np.std(lost))})
        found[kind] = sorted(rows, key=lambda row: -row["value"])
    return found


def _contributions(
    values: NDArray[Any], places: Sequence[_Place], estimator: Any
) -> dict[str, list[dict[str, Any]]] | None:
    """Sum the SHAP values of boosted trees by zone, channel and part of the pixels; None without such trees."""
    trees = next(_trees(estimator), None)
    if trees is None or values.ndim != 2 or values.shape[1] % trees.n_features_in_:
        return None
    from xgboost import DMatrix

    views = np.split(values, values.shape[1] // trees.n_features_in_, axis=1)
    booster = trees.get_booster()
    each = [booster.predict(DMatrix(np.ascontiguousarray(one)), pred_contribs=True)[:, :-1] for one in views]
    shap = np.hstack(each) / len(views)
    found = {}
    for position, kind in enumerate(("zones", "bands", "levels")):
        names = sorted({place[position] for place in places} - {""})
        rows: list[dict[str, Any]] = []
        for name in names:
            own = shap[:, [place[position] == name for place in places]].sum(axis=1)
            rows.append({"name": name, "value": float(np.abs(own).mean())})
        found[kind] = sorted(rows, key=lambda row: -row["value"])
    return found


def _trees(estimator: Any) -> Iterator[Any]:
    """Yield the fitted boosted trees inside an estimator."""
    if hasattr(estimator, "get_booster"):
        yield estimator
        return
    inside = getattr(estimator, "estimators_", None)
    if inside is None and isinstance(estimator, Pipeline):
        inside = [step for _, step in estimator.steps]
    for one in inside if isinstance(inside, list) else ():
        yield from _trees(one)
