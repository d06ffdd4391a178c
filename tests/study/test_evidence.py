"""The closer look against scikit-learn on the same worklist, a planted driver, and a page that shows the figures."""

import json
import re
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, recall_score, roc_auc_score, roc_curve

import histcxr
from histcxr.commands import main
from histcxr.data.manifest import is_sick
from histcxr.decision.thresholds import certify
from histcxr.features.recipe import Recipe
from histcxr.reports.pages.evaluation import displays, write_evaluation
from histcxr.store import Model, save_model
from histcxr.study.cohort import Cohort
from histcxr.study.evaluate import Judged
from histcxr.study.evidence import closer_look, drivers
from histcxr.worklist.reading import FinishedTriage

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def tested(manifest):
    rows = manifest[manifest["split"] == "test"].drop_duplicates("patient_id").reset_index(drop=True)
    view = np.where(np.arange(len(rows)) < 5, HOSTILE, "PA")
    return rows.assign(view=view)


@pytest.fixture(scope="module")
def evaluated(result, tested):
    return histcxr.evaluate(result.models["svm"], tested, look=partial(closer_look, by=["view"]))


@pytest.fixture(scope="module")
def worklist(result, tested, tmp_path_factory):
    """Truth, scores and drawers of the judged images, as a triage of the same files lists them."""
    folder = tmp_path_factory.mktemp("triage")
    tested[["image", "mask", "patient_id"]].to_csv(folder / "list.csv", index=False)
    histcxr.triage(folder / "list.csv", result.models["svm"], folder / "worklist.csv", trust_site=True)
    audit = folder / "worklist.csv.audit.jsonl"  # with scores in full
    with FinishedTriage(folder / "worklist.csv", audit) as finished:
        rows = [(record["score"], record["decision"]) for record in finished]
    judged = np.array([score is not None for score, _ in rows])
    scores = np.array([score for score, _ in rows if score is not None])
    drawers = np.array([drawer for _, drawer in rows])[judged]
    return is_sick(tested["label"])[judged], scores, drawers


def test_roc_and_calibration_are_scikit_learns(evaluated, worklist):
    sick, scores, _ = worklist
    closer = evaluated["closer"]
    fpr, tpr, thresholds = roc_curve(sick, scores)
    for name, values in (("fpr", fpr), ("tpr", tpr), ("thresholds", thresholds[1:])):
        assert closer["roc"][name] == pytest.approx(values.tolist())
    assert closer["roc"]["auc"] == pytest.approx(roc_auc_score(sick, scores))
    assert evaluated["overall"]["auc"] == closer["roc"]["auc"]
    observed, predicted = calibration_curve(sick, scores, n_bins=10)
    assert [row["observed"] for row in closer["calibration"]] == pytest.approx(observed.tolist())
    assert [row["predicted"] for row in closer["calibration"]] == pytest.approx(predicted.tolist(), abs=1e-5)
    assert sum(closer["scores"]["sick"]) == sick.sum()


@pytest.mark.parametrize("kind", ["rule_out", "rule_in", "0.5"])
def test_sensitivity_and_specificity_are_scikit_learns(evaluated, worklist, kind):
    sick, scores, drawers = worklist
    called = {"rule_out": drawers != "rule_out", "rule_in": drawers == "rule_in", "0.5": scores >= 0.5}[kind]
    point = evaluated["closer"]["operating"][kind]
    assert point["sensitivity"]["value"] == pytest.approx(recall_score(sick, called))
    assert point["specificity"]["value"] == pytest.approx(recall_score(~sick, ~called))
    tn, fp, fn, tp = confusion_matrix(sick, called).ravel()
    assert (point["tn"], point["fp"], point["fn"], point["tp"]) == (tn, fp, fn, tp)


def test_operating_points_and_decisions_say_the_same(evaluated):
    decisions, operating = evaluated["overall"]["decisions"], evaluated["closer"]["operating"]
    assert operating["rule_out"]["sensitivity"] == decisions["sensitivity"]
    assert operating["rule_in"]["specificity"] == decisions["rule_in_specificity"]
    for kind in ("npv", "ppv"):
        curve = evaluated["closer"][kind]
        assert (curve is None) == (decisions[kind] is None)
        if curve is None:
            continue
        assert np.interp(curve["here"], curve["prevalence"], curve["value"]) == pytest.approx(
            decisions[kind]["value"], abs=5e-3
        )


def test_a_small_group_is_told_in_a_sentence(evaluated):
    rows = {row["value"]: row for row in evaluated["closer"]["subgroups"] if row["column"] == "view"}
    assert "too few" in rows[HOSTILE]["sentence"]
    assert rows[HOSTILE]["auc"] is None
    assert rows["PA"]["sentence"] == ""
    one_class = {row["value"]: row for row in evaluated["closer"]["subgroups"] if row["column"] == "label"}
    assert "Nobody here is sick" in one_class["Normal"]["sentence"]


def test_the_page_shows_the_figures_of_the_json(evaluated, tmp_path):
    write_evaluation(evaluated, tmp_path / "page.html", HOSTILE)
    page = (tmp_path / "page.html").read_text()
    json.dumps(evaluated, allow_nan=False)
    assert HOSTILE not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    for point in evaluated["closer"]["operating"].values():
        for name in ("sensitivity", "specificity"):
            assert f"{point[name]['value']:.3f} ({point[name]['low']:.3f}-{point[name]['high']:.3f})" in page
    assert page.count('<svg role="img"') == len(displays(evaluated))
    left = re.findall(r"<li>(CLAIM 2024|TRIPOD\+AI|STARD-AI): ([^<]+)", page)
    assert [name for name, _ in left] == ["CLAIM 2024", "TRIPOD+AI", "STARD-AI"]
    assert all(items.count(",") > 10 for _, items in left)  # nobody pretends to know what only authors do


def test_plots_draw_the_figures_of_the_json(evaluated):
    shown = displays(evaluated)
    from matplotlib.figure import Figure

    ax = shown["roc"][0].plot(Figure().subplots()).ax_
    line = next(one for one in ax.lines if "AUC" in str(one.get_label()))
    assert line.get_ydata().tolist() == evaluated["closer"]["roc"]["tpr"]
    assert f"{evaluated['overall']['auc']:.3f}" in line.get_label()
    ax = shown["scores"][0].plot(Figure().subplots()).ax_
    limits = {line.get_xdata()[0] for line in ax.lines}
    assert limits == {evaluated["overall"]["decisions"][kind] for kind in ("rule_out", "rule_in")} - {None}


@pytest.mark.parametrize("name", ["xgboost", "knn"])
def test_what_was_planted_drives_the_score(name):
    rng = np.random.default_rng(0)
    sick = np.arange(160) % 2 == 1
    grey = np.arange(256)
    counts = np.empty((160, 6, 256), np.int64)
    for row in range(160):
        for zone in range(6):
            centre = 100 + rng.normal(0, 4) + (25 if zone == 4 and sick[row] else 0)
            counts[row, zone] = 300 * np.exp(-(((grey - centre) / 20) ** 2))
    estimator = histcxr.make_classifier(name, zones=6)
    if name == "xgboost":
        estimator.set_params(classifier__estimator__n_estimators=40)
    estimator.fit(counts, sick)
    chosen = certify(
        estimator.predict_proba(counts)[:, 1], sick, None, sensitivity=0.9, specificity=0.9, confidence=0.9
    )
    model = Model(name, estimator, Recipe(6), *chosen)
    table = {"image": "", "mask": "", "label": np.where(sick, "Sick", "Normal")}
    import pandas as pd

    cohort = Cohort(pd.DataFrame(table), sick, np.arange(160).astype(object), counts)
    found = drivers(Judged.of(model, cohort))
    assert found["permutation"]["zones"][0]["name"] == "left_middle"
    assert found["permutation"]["zones"][0]["value"] > 0.2
    if name == "xgboost":
        assert found["contributions"]["zones"][0]["name"] == "left_middle"
    else:
        assert found["contributions"] is None
        assert "boosted trees" in found["note"]


def test_the_command_writes_page_and_json(result, tested, tmp_path):
    save_model(result.models["svm"], tmp_path / "model.histcxr")
    tested.to_csv(tmp_path / "data.csv", index=False)
    base = ["evaluate", str(tmp_path / "data.csv"), "-m", str(tmp_path / "model.histcxr")]
    done = CliRunner().invoke(
        main, [*base, "--report", str(tmp_path / "page.html"), "--json", str(tmp_path / "result.json")]
    )
    assert done.exit_code in (0, 3), done.output
    closer = json.loads((tmp_path / "result.json").read_text())["closer"]
    assert f"AUC {closer['roc']['auc']:.3f}" in (tmp_path / "page.html").read_text()
    wrong = CliRunner().invoke(main, [*base, "--report", str(tmp_path / "page.txt")])
    assert wrong.exit_code == 2
    assert "ends in .html" in wrong.output


def test_a_network_has_a_page_too(network, phantoms, tmp_path):
    seen = histcxr.evaluate(network, phantoms.study(n_patients=40, seed=9), split="all", look=closer_look)
    assert "histcxr explain" in seen["closer"]["drives"]["note"]
    write_evaluation(seen, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "A network sees the image itself" in page
    assert "contributions" not in str(displays(seen))
