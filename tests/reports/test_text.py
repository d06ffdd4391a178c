"""Reports and pictures: every figure on the page, nothing broken by what is missing."""

import copy

import cv2
import numpy as np
import pytest

from histcxr.reports.plots import plot_calls, plot_history
from histcxr.reports.text import (
    classes_report,
    comparison_report,
    explanation_report,
    interval_text,
    markdown_table,
    network_report,
)
from histcxr.study.evaluate import class_figures

ESTIMATE = {"value": 0.912, "low": 0.888, "high": 0.931}


@pytest.fixture
def report():
    rng = np.random.default_rng(0)
    figures = class_figures(np.arange(40) % 2, rng.dirichlet([1, 1], 40), ("normal", "sick"))
    part = {"images": 40, "patients": 31, "sick": 20}
    return {
        "architecture": "cnn3",
        "inputs": {"size": 224, "region": "hidden"},
        "parameters": 3_267_202,
        "history": {
            "loss": [0.7, 0.6],
            "accuracy": [0.5, 0.6],
            "val_loss": [0.7, 0.654],
            "val_accuracy": [0.5, 0.61],
        },
        "best_epoch": 2,
        "epochs": 2,
        "fit_seconds": 12.4,
        "learnt_from": {"normal": 20, "sick": 17},
        "test": {
            "accuracy": 0.875,
            "auc": 0.94,
            "auc_low": 0.92,
            "auc_high": 0.96,
            "specificity_at_95": ESTIMATE,
            "sensitivity": 0.951,
            "specificity": None,
            "classes": figures,
        },
        "threshold": {"message": "certified: something"},
        "rule_in_threshold": {"message": "not certified: something else"},
        "data": {"train": part, "val": part, "test": part, "unusable": {"blank": 2}, "notes": ["a note"]},
    }


def test_the_training_report_says_everything(report):
    text = network_report(report)
    for part in (
        "cnn3, 3,267,202 parameters, on everything but the lungs at 224 x 224 pixels",
        "test: 40 images, 31 patients, 20 sick",
        "Learnt from 20 normal, 17 sick in 12 s, 2 epochs; best epoch 2 with validation loss 0.654",
        "0.940 (0.920-0.960)",
        "0.912 (0.888-0.931)",
        " 0.951 |",
        "rule_out: certified: something",
        "Note: 2 images could not be used: blank.",
        "Note: a note.",
        "not a medical device",
    ):
        assert part in text
    without = copy.deepcopy(report)
    del without["history"]["val_loss"], without["history"]["val_accuracy"]
    without["test"]["specificity_at_95"] = None
    assert "nobody to count" in network_report(without)
    assert "none held out to stop early" in network_report(without)


def test_the_confusion_matrix_has_the_truth_in_rows(report):
    figures = report["test"]["classes"]
    lines = classes_report(figures).splitlines()
    assert lines[0].split("|")[-3:-1] == [" called normal ", " called sick "]
    normal = [cell.strip() for cell in lines[2].split("|")]
    assert [int(cell) for cell in normal[-3:-1]] == figures["matrix"][0]


def test_a_share_is_shown_beside_that_of_an_even_map():
    gap = {"inside": 0.5, "even": 0.25, "difference": 0.25, "low": 0.2, "high": 0.3}
    result = {
        "model": {"name": "cnn3", "inputs": {"region": "full"}},
        "layer": "conv3",
        "target": None,
        "shares": [
            {"label": "all", "images": 30, **gap},
            {"label": "", "images": 3, **gap, "low": None},
            {"label": "x", "images": 1, **dict.fromkeys(gap)},
        ],
        "output": "maps",
        "pictures": ["grid.png"],
    }
    text = explanation_report(result)
    assert "+0.250 (+0.200 to +0.300)" in text
    assert "no map inside known lungs" in text
    assert "unknown" in text
    assert "on the full image; for the predicted class" in text


def test_pictures_are_drawn_with_and_without_held_out_images(report, tmp_path):
    pictures = [
        plot_history(report, tmp_path / "h.png"),
        plot_calls(report["test"]["classes"], tmp_path / "c.png"),
    ]
    del report["history"]["val_loss"], report["history"]["val_accuracy"]
    pictures.append(plot_history(report, tmp_path / "n.png"))
    drawn = [cv2.imread(str(path)) for path in pictures]
    assert all(picture.std() > 1 for picture in drawn)
    assert not np.array_equal(drawn[0], drawn[2])


def test_table_is_aligned_markdown_with_numbers_to_the_right():
    text = markdown_table([{"name": "svm", "auc": 0.91234}, {"name": "random-forest", "auc": 0.5}])
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith("-:|")
    assert "| svm           | 0.912 |" in lines


def test_cells_cannot_break_the_table():
    text = markdown_table([{"file": "a|b\nc"}])
    assert text.count("\n") == 2
    assert "a\\|b c" in text


@pytest.mark.parametrize("rows", [[], [{}]])
def test_empty_table_has_its_header(rows):
    assert markdown_table(rows, ["a", "b"]).startswith("| a ")


def test_missing_and_none_are_empty_cells():
    assert markdown_table([{"a": 1}, {"a": None}], ["a", "b"]).splitlines()[-1] == "|     |     |"


def test_interval_text():
    assert interval_text(0.9, 0.85, 0.949) == "0.900 (0.850-0.949)"


def test_a_comparison_says_what_was_left_out():
    test = {
        "images": 80,
        "sick": 40,
        "accuracy": 0.9,
        "auc": None,
        "decisions": dict.fromkeys(("sensitivity", "specificity")),
    }
    pair = {"first": 0.71, "second": 0.65, "difference": {"value": 0.06, "low": -0.01, "high": 0.13}}
    figures = {"n_images": 80, "n_patients": 70, "sensitivity": 0.95, "auc": pair, "specificity": pair}
    result = {
        "models": [
            {"name": "stack", "overall": test, "seen": 3, "unusable": {"blank": 2}},
            {"name": "cnn3", "overall": test, "seen": 0, "unusable": {}},
        ],
        "split": "test",
        "left_out": 5,
        "overall": figures,
        "groups": {"view": {"AP": None, "": figures}},
    }
    text = comparison_report(result)
    for part in (
        "A: stack and B: cnn3 on the same 80 images of 70 patients, split test",
        "+0.060 (-0.010 to +0.130)",
        "reaches 95 % sensitivity on these images, 0.710 and 0.650",
        "view=unknown",
        "too few patients",
        "Left out of both: 5 images",
        "  A: stack: 3 seen, 2 blank",
        "  B: cnn3: 0 seen",
    ):
        assert part in text
