"""Training: labelled radiographs in, a certified model out, its figures and what each threshold would mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from histcxr.app import shown
from histcxr.decision import plotted
from histcxr.decision.drawers import confusion
from histcxr.decision.intervals import patient_labels, patient_scores
from histcxr.exceptions import InputError
from histcxr.models.registry import CLASSIFIERS
from histcxr.networks.backend import import_neural
from histcxr.reference.architectures import ARCHITECTURES
from histcxr.reports.displays import ConfusionDisplay, HistoryDisplay
from histcxr.reports.page import figure_text
from histcxr.reports.pages.evaluation import displays
from histcxr.reports.tables import auc_text
from histcxr.store import save_model
from histcxr.study.certify import Promise
from histcxr.study.cohort import Reading
from histcxr.study.evaluate import Judged, evaluate
from histcxr.study.evidence import closer_look, operating_point
from histcxr.study.network_train import ReferenceSettings, train_reference
from histcxr.study.train import train

#: What can be counted: zones, and filtered images beside the intensity.
RECIPES: Final[Mapping[str, tuple[Any, Any]]] = {
    "each lung in thirds, bands that travel (what travels best)": (None, None),
    "each lung in thirds": (6, None),
    "both lungs as one": (1, None),
    "thirds and whole, all bands (the strongest at home)": ("1+6", "full"),
}
#: What a model can be measured by on its test patients.
METRICS: Final = ("AUC", "accuracy", "sensitivity at rule_out", "specificity at rule_out", "NPV of rule_out",
                  "PPV of rule_in", "specificity_at_95", "brier", "calibration_error")  # fmt: skip
_AT_THRESHOLD: Final = ("sensitivity", "specificity", "NPV", "net benefit")
_FOUND: Final = "trained"


def page() -> None:
    """Show the page."""
    st.title("Train")
    st.write(
        "Labelled radiographs in, a certified model out, measured on test patients that had no part in it."
    )
    data = st.text_input("Labelled radiographs: a folder or a list (CSV) on this computer").strip()
    left, right = st.columns(2)
    normal = left.text_input("The label that means normal", "Normal")
    promise = Promise(right.number_input("Sensitivity to promise", 0.5, 0.999, 0.95, 0.01))
    if left.radio("What judges", ["classifier", "network"], horizontal=True) == "classifier":
        zones, bands = RECIPES[right.selectbox("What is counted", list(RECIPES))]
        names = right.multiselect("Classifiers", list(CLASSIFIERS), ["stack"])
        how: dict[str, Any] = {"zones": zones, "bands": bands, "classifiers": names}
    else:
        small = [name for name, one in ARCHITECTURES.items() if not one.transfer]
        name = right.selectbox("Network", small)
        epochs = right.number_input(
            "Epochs at most", 1, 1000, ARCHITECTURES[name].epochs, key=f"epochs {name}"
        )
        how = {"settings": ReferenceSettings(name, epochs=epochs)}
    with shown.told():
        if st.button("Train", type="primary"):
            st.session_state.pop(_FOUND, None)
            if not data:
                raise InputError("the labelled radiographs must be named: a folder or a list")
            st.session_state[_FOUND] = _trained(data, normal, promise, how)
        if _FOUND in st.session_state:
            _show(**st.session_state[_FOUND])


def _trained(data: str, normal: str, promise: Promise, how: Mapping[str, Any]) -> dict[str, Any]:
    """Train and measure; return what :func:`_show` takes."""
    cache, judged = shown.own_folder("counts"), []
    model: Any
    reading: dict[str, Any] = {"normal": normal, "cache": cache, "n_jobs": 2}
    with shown.progress("reading, then fitting") as show:
        if "settings" in how:
            import_neural("keras", "to train a network")  # before minutes of reading
            told = _epochs(how["settings"].epochs, show)
            network = train_reference(
                data, how["settings"], promise, Reading(**reading, progress=show), on_epoch=told
            )
            model, report = network.model, network.report
        else:
            result = train(data, **how, **reading, sensitivity=promise.sensitivity, progress=show)
            model, report = result.best, result.report

    def look(one: Judged) -> Mapping[str, Any]:
        judged.append(one)
        return closer_look(one)

    with shown.progress("measuring on the test patients") as show:
        found = evaluate(model, data, **reading, lungs=report["lungs"], progress=show, look=look)
    cohort, scores = judged[0].cohort, judged[0].scores
    scores, sick = patient_scores(scores, cohort.patients), patient_labels(cohort.sick, cohort.patients)
    return {"model": model, "report": report, "found": found, "scores": scores, "sick": sick}


def _epochs(most: int, show: Callable[[int, int], None]) -> Callable[[dict[str, float]], None]:
    """Return what takes the values of every epoch, and lets the curves grow."""
    history: dict[str, list[float]] = {}
    place = st.empty()

    def on_epoch(values: dict[str, float]) -> None:
        for name, value in values.items():
            history.setdefault(name, []).append(value)
        show(len(history["epoch"]), most)
        with place.container():
            _curves(history)

    return on_epoch


def _curves(history: Mapping[str, Any], best: int | None = None) -> None:
    for column, name in zip(st.columns(2), ("loss", "accuracy"), strict=True):
        with column:
            shown.figure(HistoryDisplay(history, name, best), f"{name} by epoch")


def _show(
    model: Any,
    report: Mapping[str, Any],
    found: Mapping[str, Any],
    scores: NDArray[np.float64],
    sick: NDArray[np.bool_],
) -> None:
    st.header(f"{model.name} on {found['overall']['images']} test images".replace("_", r"\_"))
    for sentence in (model.rule_out.message, model.rule_in.message, *report["data"]["notes"]):
        shown.text(sentence)
    if "history" in report:
        _curves(report["history"], report["best_epoch"])
    _metrics(found["overall"], report.get("classifiers", {}))
    _threshold(scores, sick)
    _figures(displays(found))
    _save(model)


@st.fragment
def _metrics(overall: Mapping[str, Any], classifiers: Mapping[str, Any]) -> None:
    """Show the metrics of one's choice, with their intervals, and the AUC of each classifier."""
    decisions = overall["decisions"]
    found = {**overall, "AUC": None, "NPV of rule_out": decisions["npv"], "PPV of rule_in": decisions["ppv"]}
    found |= {f"{name} at rule_out": decisions[name] for name in ("sensitivity", "specificity")}
    values = {name: figure_text(found[name]) for name in METRICS} | {"AUC": auc_text(overall)}
    chosen = st.multiselect("Metrics", METRICS, METRICS[:5])
    shown.table([{"metric": name, "value": values[name]} for name in chosen])
    if len(classifiers) > 1:
        shown.table(
            [
                {
                    "classifier": name,
                    "AUC, cross-validated": one["cross_validated_auc"],
                    "AUC": auc_text(one["test"]),
                }
                for name, one in classifiers.items()
            ]
        )


@st.fragment
def _figures(plots: Mapping[str, Any]) -> None:
    words = {name: plot[1] for name, plot in plots.items()}
    usual = [name for name in ("roc", "scores") if name in plots]
    names = st.multiselect("Figures", list(words), usual, format_func=words.__getitem__)
    shown.figures([plots[name] for name in names])


@st.fragment
def _save(model: Any) -> None:
    place = st.text_input("Save the model as (NAME.histcxr)").strip()
    with shown.told():
        if st.button("Save") and place:
            shown.text(f"Saved to {save_model(model, place)}")


def at_threshold(scores: NDArray[np.float64], sick: NDArray[np.bool_], percent: int) -> dict[str, Any]:
    """Return what a threshold, in whole % of the score, means for patients: counts, and figures as text.

    ``tp, fp, fn, tn`` of those called sick from the threshold on; ``sensitivity, specificity, NPV`` with their 95 %
    intervals at the share of sick of these patients; ``net benefit`` as
    :func:`~histcxr.decision.plotted.decision_curve` has it there.
    """
    called = scores >= percent / 100
    point, counts = operating_point(called, sick), confusion(called, sick)
    npv = counts.npv().to_dict() if counts.tn + counts.fn else None
    figures = {"sensitivity": point["sensitivity"], "specificity": point["specificity"], "NPV": npv}
    benefit = plotted.decision_curve(scores, sick)["model"][percent - 1]
    texts = {name: figure_text(one) for name, one in figures.items()}
    return {**counts.to_dict(), **texts, "net benefit": f"{benefit:.4f}"}


@st.fragment
def _threshold(scores: NDArray[np.float64], sick: NDArray[np.bool_]) -> None:
    """Show a threshold to move, and what it would mean."""
    st.subheader("What a threshold means")
    found = at_threshold(scores, sick, st.slider("Called sick from a score of (%)", 1, 99, 50))
    left, right = st.columns(2)
    with left:
        matrix = ((found["tn"], found["fp"]), (found["fn"], found["tp"]))
        words = "{tn} normal called normal, {fp} normal called sick, {fn} sick called normal, {tp} sick called sick"
        display = ConfusionDisplay(matrix, ("normal", "sick"))
        shown.figure(display, words.format(**found), (3.4, 2.6))
    with right:
        shown.table([{"of patients": name, "value": found[name]} for name in _AT_THRESHOLD])
    st.caption(
        "By patient, with 95 % intervals; the net benefit is in true positives a patient. These are test patients: a "
        "threshold chosen by looking at them promises nothing."
    )
