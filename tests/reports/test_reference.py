"""The reports of reference networks: every figure on the page, nothing broken by what is missing."""

import copy

import cv2
import numpy as np
import pytest

from histcxr.reports.reference import classes_report, explanation_report, trained_report
from histcxr.reports.reference_plots import plot_calls, plot_history
from histcxr.study.class_figures import class_figures

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
            "confusion_at_rule_out": {"tp": 19, "fp": 6, "fn": 1, "tn": 14},
            "auc": 0.94,
            "auc_low": 0.92,
            "auc_high": 0.96,
            "specificity_at_95": ESTIMATE,
            "decisions": {"sensitivity": ESTIMATE, "specificity": None},
            "classes": figures,
        },
        "threshold": {"message": "certified: something"},
        "rule_in_threshold": {"message": "not certified: something else"},
        "data": {"train": part, "val": part, "test": part, "unusable": {"blank": 2}, "notes": ["a note"]},
    }


def test_the_training_report_says_everything(report):
    text = trained_report(report)
    for part in (
        "cnn3, 3,267,202 parameters, on everything but the lungs at 224 x 224 pixels",
        "test: 40 images, 31 patients, 20 sick",
        "Learnt from 20 normal, 17 sick in 12 s, 2 epochs; best epoch 2 with validation loss 0.654",
        "0.940 (0.920-0.960)",
        "0.825 (19 sick and 14 normal right)",
        "0.912 (0.888-0.931)",
        "too few patients",
        "rule_out: certified: something",
        "Note: 2 images could not be used: blank.",
        "Note: a note.",
        "not a medical device",
    ):
        assert part in text
    without = copy.deepcopy(report)
    del without["history"]["val_loss"], without["history"]["val_accuracy"]
    without["test"]["confusion_at_rule_out"] = None
    assert "no threshold" in trained_report(without)
    assert "none held out to stop early" in trained_report(without)


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
