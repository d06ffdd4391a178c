"""Triage of radiographs without masks: their lungs are found, masks that are given win, and doubts go to review."""

import csv
import json

import numpy as np
import pytest

from histcxr.features.extraction import extract_features
from histcxr.features.measuring import measure_image
from histcxr.files.writing import write_image, write_mask
from histcxr.lungs.segmenter import load_segmenter
from histcxr.phantoms.anatomy import make_phantom
from histcxr.phantoms.not_chests import KINDS, draw_not_chest
from histcxr.worklist.engine import triage


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Eight phantoms without masks."""
    folder = tmp_path_factory.mktemp("bare")
    for i in range(8):
        write_image(folder / f"{i}.png", make_phantom(70 + i, sick=i % 2 == 0).image)
    return folder


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_lungs_are_found_where_there_is_no_mask(bare, model, tmp_path):
    summary = triage(bare, model, tmp_path / "w.csv", batch_size=3)
    assert summary.unjudged == 0
    for name, row in rows(tmp_path / "w.csv").items():
        image = str(bare / name)
        counts, _ = measure_image(image, "", model.measure, segmenter=load_segmenter())
        assert float(row["score"]) == pytest.approx(model.score(counts[None])[0], rel=1e-5)
    assert any("found by a network" in note for note in summary.notes)
    header = json.loads((tmp_path / "w.csv.audit.jsonl").read_text().splitlines()[0])
    assert header["segmenter"] == load_segmenter().digest


def test_without_the_network_they_go_to_review(bare, model, tmp_path):
    summary = triage(bare, model, tmp_path / "w.csv", segment=False)
    assert summary.reasons == {"mask_missing": 8}
    assert not any("network" in note for note in summary.notes)


def test_a_mask_that_is_given_wins(model, tmp_path):
    phantom = make_phantom(5)
    write_image(tmp_path / "in" / "a.png", phantom.image)
    half = phantom.mask.copy()
    half[:, : half.shape[1] // 2] = False
    write_mask(tmp_path / "in" / "masks" / "a.png", half)
    triage(tmp_path / "in", model, tmp_path / "w.csv")
    triage(tmp_path / "in", model, tmp_path / "v.csv", segment=False)
    assert rows(tmp_path / "w.csv")["a.png"]["score"] == rows(tmp_path / "v.csv")["a.png"]["score"] != ""


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_chest_is_not_judged(kind, model, tmp_path):
    rng = np.random.default_rng(9)
    for i in range(6):
        picture = draw_not_chest(kind, rng)
        write_image(tmp_path / "in" / f"{i}.png", picture)
    summary = triage(tmp_path / "in", model, tmp_path / "w.csv")
    assert summary.unjudged >= 5
    assert summary.drawers["rule_out"] == 0


def test_extraction_takes_either_and_keeps_them_apart(bare, tmp_path):
    import pandas as pd

    phantom = make_phantom(70, sick=True)
    write_mask(tmp_path / "mask.png", phantom.mask)
    images = [str(bare / "0.png"), str(bare / "1.png")]
    manifest = pd.DataFrame({"image": images, "mask": [str(tmp_path / "mask.png"), ""]})
    cache = tmp_path / "cache"
    counts = {
        lungs: extract_features(manifest, 6, lungs=lungs, cache=cache).counts
        for lungs in ("given", "found", "either", "found")
    }
    np.testing.assert_array_equal(counts["either"][0], counts["given"][0])
    np.testing.assert_array_equal(counts["either"][1], counts["found"][1])
    assert not counts["given"][1].any()
    assert (counts["found"][0] != counts["given"][0]).any()
    fresh = extract_features(manifest, 6, lungs="found")
    np.testing.assert_array_equal(counts["found"], fresh.counts)
