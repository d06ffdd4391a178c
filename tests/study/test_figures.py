"""Figures of scores against scikit-learn, and the AUC within groups against planted confounds."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, classification_report, log_loss, roc_auc_score

from histcxr.decision.thresholds import certify
from histcxr.exceptions import InputError
from histcxr.study.cohort import Cohort
from histcxr.study.figures import among, class_figures, class_numbers, measure, within_groups


def patients(rng, n, in_score, with_disease):
    """Scores of n patients; the view is worth ``in_score`` in them, and AP is likelier for the sick."""
    sick = rng.random(n) < 0.5
    view = np.where(rng.random(n) < np.where(sick, 0.5 + with_disease, 0.5 - with_disease), "AP", "PA")
    scores = rng.normal(size=n) + 1.8 * sick + in_score * (view == "AP")
    table = pd.DataFrame({"view": view, "source": "one"})
    return scores, Cohort(table, sick, np.arange(n).astype(str).astype(object))


def test_a_view_that_makes_part_of_the_auc_is_found():
    rng = np.random.default_rng(0)
    scores, cohort = patients(rng, 600, in_score=1.5, with_disease=0.35)
    found = within_groups(scores, cohort, ["view", "source"])
    assert set(found) == {"view"}  # of one source there is nothing to tell
    view = found["view"]
    assert view["verdict"] == "part"
    assert view["overall"] == pytest.approx(roc_auc_score(cohort.sick, scores))
    own = cohort.table["view"] == "AP"
    assert view["groups"]["AP"]["auc"] == pytest.approx(roc_auc_score(cohort.sick[own], scores[own]))
    assert view["overall"] - view["loss"] == pytest.approx(view["auc"])
    assert min(one["auc"] for one in view["groups"].values()) <= view["auc"] < view["overall"] - 0.02
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(("in_score", "with_disease"), [(0, 0), (1.5, 0), (0, 0.35)])
def test_a_view_that_adds_nothing_is_no_alarm(in_score, with_disease):
    """Neither a view that only shifts scores, nor one that only goes with the disease, nor none."""
    rng = np.random.default_rng(1)
    verdicts = [
        within_groups(*patients(rng, 300, in_score, with_disease), ["view"])["view"]["verdict"]
        for _ in range(10)
    ]
    assert verdicts.count("part") <= 1


def test_a_group_that_a_draw_of_patients_may_miss_is_no_error():
    """Ten normal patients of the only view that has both classes, among a thousand."""
    sick = np.arange(1200) < 200
    view = np.where(sick | (np.arange(1200) >= 1190), "AP", "PA")
    scores = np.random.default_rng(3).normal(size=1200) + sick + 2 * (view == "AP")
    names = np.arange(1200).astype(str).astype(object)
    found = within_groups(scores, Cohort(pd.DataFrame({"view": view}), sick, names), ["view"])["view"]
    assert list(found["groups"]) == ["AP"]
    assert found["verdict"] in ("part", "none")


def test_images_of_unknown_view_are_not_compared():
    rng = np.random.default_rng(2)
    scores, cohort = patients(rng, 600, in_score=0, with_disease=0)
    easy = np.arange(600) < 300
    cohort.table.loc[easy, "view"] = ""
    scores[easy] += 10 * cohort.sick[easy]
    found = within_groups(scores, cohort, ["view"])["view"]
    assert found["overall"] == pytest.approx(roc_auc_score(cohort.sick[~easy], scores[~easy]))
    assert found["verdict"] == "none"


def test_a_patient_with_an_unjudged_image_is_in_review():
    table = pd.DataFrame({"view": [""] * 3})
    judged = Cohort(table, np.array([True, True, False]), np.array(["a", "b", "c"], object))
    rest = Cohort(table.iloc[:2], np.array([True, False]), np.array(["a", "d"], object))
    drawers = np.array(["rule_out", "rule_out", "rule_in"])
    alone, everybody = among(judged, drawers), among(judged, drawers, rest)
    assert (alone["sensitivity"]["value"], everybody["sensitivity"]["value"]) == (0, 0.5)
    assert (alone["rule_in_specificity"]["value"], everybody["rule_in_specificity"]["value"]) == (0, 0.5)
    assert (everybody["images"], everybody["patients"], everybody["normal"]) == (5, 4, 2)


def test_figures_agree_with_scikit_learn():
    rng = np.random.default_rng(1)
    targets, probabilities = rng.integers(0, 3, 200), rng.dirichlet([1, 1, 1], 200)
    found = class_figures(targets, probabilities, ("a", "b", "c"))
    calls = probabilities.argmax(axis=1)
    oracle = classification_report(targets, calls, target_names=["a", "b", "c"], output_dict=True)
    for row in found["classes"]:
        for ours, theirs in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score"), ("images", "support")):
            assert row[ours] == pytest.approx(oracle[row["class"]][theirs])
    assert found["accuracy"] == pytest.approx(oracle["accuracy"])
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(targets, calls))
    assert found["loss"] == pytest.approx(log_loss(targets, probabilities))
    assert set(found["roc"]) == {"a", "b", "c"}


def test_figures_of_one_class_alone_have_no_area():
    found = class_figures(np.zeros(4, int), np.array([[0.6, 0.4]] * 3 + [[0.2, 0.8]]), ("normal", "sick"))
    assert [row["auc"] for row in found["classes"]] == [None, None]
    assert found["balanced_accuracy"] == found["accuracy"] == 0.75
    json.dumps(found, allow_nan=False)


def test_labels_become_the_numbers_that_the_network_learnt():
    labels = pd.Series(["Normal", "B", "no finding", "A"])
    assert class_numbers(labels, ("normal", "sick"), "Normal").tolist() == [0, 1, 0, 1]
    assert class_numbers(labels, ("Normal", "A", "B"), "Normal").tolist() == [0, 2, 0, 1]
    with pytest.raises(InputError, match="got also B"):
        class_numbers(labels, ("Normal", "A", "C"), "Normal")


def test_many_images_of_one_sick_patient_give_no_auc():
    sick = np.arange(60) < 20
    ids = np.where(sick, "one", np.arange(60).astype(str)).astype(object)
    scores = np.random.default_rng(4).random(60)
    found = measure(scores, Cohort(pd.DataFrame(index=range(60)), sick, ids), *certify(scores, sick, ids))
    assert found["auc"] is None
    assert (found["images"], found["decisions"]["n_sick"]) == (60, 1)
