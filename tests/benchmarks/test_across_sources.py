"""Training on one hospital and testing on the other, as a whole on phantoms."""

import json

import numpy as np
import pandas as pd

from benchmarks.quality import across_sources
from histcxr.data.manifest import read_manifest
from histcxr.data.radiograph import read_radiograph
from histcxr.phantoms.studies import write_study


def test_every_home_meets_every_source(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(across_sources, "MIN_CLASS", 5)
    top = write_study(
        tmp_path / "study", n_patients=500, size=(64, 64), mask_size=(64, 64), repeats=0, seed=2
    )
    table = pd.read_csv(top / "manifest.csv", keep_default_na=False)
    number = pd.factorize(table["patient_id"])[0]
    only_sick = (table["label"] != "Normal") & (number % 5 == 4)
    table["source"] = np.where(only_sick, "c", np.where(number % 2 == 0, "a", "b"))
    table.to_csv(top / "manifest.csv", index=False)
    arguments = ["--data", str(top), "--zones", "1", "--classifier", "knn", "--trials", "0"]
    across_sources.main([*arguments, "--json", str(tmp_path / "across.json")])
    rows = json.loads((tmp_path / "across.json").read_text())["rows"]
    pairs = {(row["trained on"], row["tested on"]) for row in rows}
    tested = ("a", "b", "c against a normals", "c against b normals")
    assert pairs == {(home, place) for home in ("a", "b") for place in tested}
    assert all(row["auc_low"] <= row["auc"] <= row["auc_high"] for row in rows if row["auc"] is not None)
    assert capsys.readouterr().out.count("| knn ") == 8


def test_shrunk_copies_take_the_place_of_the_images(phantoms, tmp_path):
    manifest = read_manifest(phantoms.study()).head(3)
    found = across_sources.shrunk(manifest, 32, tmp_path)
    pd.testing.assert_frame_equal(found.drop(columns="image"), manifest.drop(columns="image"))
    for before, after in zip(manifest["image"], found["image"], strict=True):
        expected = read_radiograph(before, side=32).pixels
        assert max(expected.shape) == 32
        np.testing.assert_array_equal(read_radiograph(after).pixels, expected)
