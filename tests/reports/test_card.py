"""The card: what was promised beside what was measured, in words where the promise was not reached."""

from pathlib import Path

import numpy as np
import pytest

from histcxr.decision.groups import certify_groups
from histcxr.decision.thresholds import patients_needed
from histcxr.reports.card import card_file, model_card
from histcxr.reports.tables import Kept, thresholds_report
from histcxr.store import load_model


@pytest.fixture(scope="module")
def certificates():
    """Two views, of which LL has ten patients; sick ones of unknown view."""
    rng = np.random.default_rng(0)
    sick = np.arange(700) % 2 == 0
    view = np.where(sick, "", np.where(np.arange(700) < 20, "LL", "PA"))
    scores = np.clip(rng.normal(0.35 + 0.3 * sick, 0.1), 0, 1)
    return certify_groups(scores, sick, None, {"view": view, "age_group": np.full(700, "adult")}).to_dict()


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def description(certificates):
    fine, weak = estimate(0.98, 0.96, 0.99), estimate(0.935, 0.9, 0.96)
    broken = estimate(0.80, 0.75, 0.85)
    kept = {
        "sick": 250,
        "sensitivity": fine,
        "sensitivity_of_all": fine,
        "normal": 300,
        "rule_in_specificity": fine,
    }
    nobody = {"sick": 0, "sensitivity": None, "sensitivity_of_all": None, "normal": 90}
    return {
        "name": "stack",
        "hash": "",
        "recipe": {"input": "pixels", "bins": 256, "zones": 6},
        "thresholds": {kind: drawer["overall"] for kind, drawer in certificates.items()},
        "training": {
            "groups": certificates,
            "val": {"images": 700, "patients": 700, "sick": 350},
        },
        "metrics": {
            "test": {
                "images": 9,
                "sick": 4,
                "auc": None,
                "accuracy": 0.9,
                "sensitivity": 0.9,
                "specificity": 0.5,
            }
        },
        "card": {
            "promises": {
                "all": kept,
                "age_group adult": {**kept, "rule_in_specificity": weak},
                "view PA": {**nobody, "rule_in_specificity": broken},
                "view LL": {**nobody, "rule_in_specificity": broken},
            }
        },
        "versions": {},
    }


def rows(text):
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return {(row[0], row[1]): row[2:] for row in cells if len(row) == 8}


def test_every_promise_stands_beside_what_was_measured(description, certificates):
    text = model_card(description)
    table = rows(text)
    limit = certificates["rule_out"]["overall"]["threshold"]
    promised = ["350 sick", f"{limit:.4f}", "sensitivity 95 %", "250"]
    assert table["all", "rule_out"] == [*promised, "0.980 (0.960-0.990)", "0.980 (0.960-0.990)"]
    assert table["age_group=adult", "rule_in"][4] == "0.935 (0.900-0.960)"
    takes = {kind: drawer["overall"]["confidence"] for kind, drawer in certificates.items()}
    takes = {kind: patients_needed(0.95, confidence) for kind, confidence in takes.items()}
    assert table["view=LL", "rule_in"][:3] == [
        "10 normal",
        "",
        f"no promise: takes {takes['rule_in']} normal",
    ]
    # No sick patient of known view certified: that is said, too.
    assert table["view=PA", "rule_out"][:3] == ["0 sick", "", f"no promise: takes {takes['rule_out']} sick"]
    assert "hold together with a confidence of at least" in text


def test_a_promise_that_was_not_reached_is_said_in_words(description):
    text = model_card(description)
    assert (
        "NOT REACHED: rule_in promises a specificity of 95 % within age_group=adult, and it is 0.935" in text
    )
    assert "The interval includes the promise, so chance may be why" in text
    assert "CONTRADICTED: rule_in promises a specificity of 95 % within view=PA, and it is 0.800" in text
    assert "NO PROMISE: rule_in promises nothing within view=LL, and its specificity is 0.800" in text
    assert text.count("NOT REACHED") == text.count("CONTRADICTED") == text.count("NO PROMISE") == 1


def test_figures_of_other_thresholds_are_not_shown(description):
    """Who certifies anew drops the test's figures; what was measured of the promises goes with them."""
    text = model_card({**description, "metrics": {}})
    assert "0.935" not in text
    assert "NOT REACHED" not in text
    assert "no promise: takes" in text


def test_the_threshold_that_is_said_is_the_one_that_decides(certificates):
    """Where groups are certified, an image of which nothing is known falls under the strictest."""
    overall = {kind: drawer["overall"] for kind, drawer in certificates.items()}
    text = thresholds_report(overall, certificates)
    strictest = min(
        choice["threshold"]
        for values in [*certificates["rule_out"]["groups"].values(), {"": overall["rule_out"]}]
        for choice in values.values()
        if choice["certified"]
    )
    assert f"rule_out: score < {strictest:.4f} where nothing but the image is known" in text
    assert "NOT REACHED" not in text


def test_without_groups_the_promises_over_all_are_measured_alone(certificates):
    overall = {kind: drawer["overall"] for kind, drawer in certificates.items()}
    kept = Kept(40, estimate(0.9, 0.8, 0.97), None)
    text = thresholds_report(overall, None, lambda column, value, kind: kept if kind == "rule_out" else None)
    assert rows(text)["all", "rule_in"][-2] == "not measured"
    assert "NOT REACHED: rule_out promises a sensitivity of 95 %, and it is 0.900" in text


def test_the_card_in_the_docs_is_what_the_command_writes():
    kept = Path(__file__).parents[2] / "docs" / "boxed_model_card.md"
    assert kept.read_text(encoding="utf-8") == card_file(load_model().describe()), (
        "histcxr models boxed --card docs/boxed_model_card.md"
    )


def test_the_head_of_the_card_is_yaml_with_hugging_faces_keys(description):
    yaml = pytest.importorskip("yaml")
    boxed = load_model().describe()
    _, head, body = card_file(boxed).split("---\n", 2)
    found, test = yaml.safe_load(head), boxed["metrics"]["test"]
    assert body.strip() == model_card(boxed)
    assert (found["license"], found["library_name"]) == ("other", "histcxr")
    ((result,),) = (one["results"] for one in found["model-index"])
    assert {"task", "dataset", "metrics"} == set(result)
    assert {"type", "name", "split"} == set(result["dataset"])
    figures = {one["type"]: one["value"] for one in result["metrics"]}
    assert figures["roc_auc"] == pytest.approx(test["auc"], abs=1e-4)
    assert figures["recall"] == pytest.approx(test["sensitivity"], abs=1e-4)
    # Whose data nobody named, his licence nobody can tell; a name cannot break out of its line.
    sly = card_file({**description, "name": "a: b\n---\nlicense: mit"})
    assert "license" not in yaml.safe_load(sly.split("\n---\n")[0])
    bare = yaml.safe_load(card_file({**description, "metrics": {}}).split("---\n")[1])
    assert "model-index" not in bare


def test_paragraphs_of_the_card_stay_apart():
    lines = model_card(load_model().describe()).splitlines()
    for above, below in zip(lines, lines[1:], strict=False):
        assert not above or not below or above[0] == below[0] in "|-", (above, below)
