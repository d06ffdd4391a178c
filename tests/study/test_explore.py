"""Looking at data: figures against an oracle, planted contradictions, and a page that shows what the figures say."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import histcxr
from histcxr.commands import main
from histcxr.data.masks import read_mask
from histcxr.exceptions import InputError
from histcxr.study.explore import FIGURES, PAGE


@pytest.fixture(scope="module")
def study(phantoms, tmp_path_factory):
    """A study with a hostile label, a wrong column, a twin in another split and a patient in two."""
    folder = tmp_path_factory.mktemp("looked") / "study"
    shutil.copytree(phantoms.study(), folder)
    table = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    table["width"] = "96"
    table.loc[0, "width"] = "256"
    table.loc[table["label"] != "Normal", "label"] = "<script>alert(1)</script>"
    table.loc[table.index[table["label"] == "Normal"][-1], "label"] = "<script>alert(1)</script>"
    train, test = (table.index[table["split"] == part][0] for part in ("train", "test"))
    shutil.copy(folder / table.loc[train, "image"], folder / "twin.png")
    shutil.copy(folder / table.loc[train, "mask"], folder / "twin-mask.png")
    twin = {
        **table.loc[test],
        "image": "twin.png",
        "mask": "twin-mask.png",
        "label": table.loc[train, "label"],
    }
    gone = {**table.loc[test], "image": "gone.png", "mask": "", "patient_id": table.loc[train, "patient_id"]}
    table = pd.concat([table, pd.DataFrame([twin, gone])], ignore_index=True)
    table.to_csv(folder / "manifest.csv", index=False)
    shutil.copy(folder / table.loc[2, "image"], folder / "unlisted<b>.png")
    return folder


@pytest.fixture(scope="module")
def found(study):
    return histcxr.explore(study, examples=2)


def test_figures_are_those_of_the_images(study, found):
    table = histcxr.read_manifest(study)
    table = table[~table["image"].str.endswith("gone.png")]
    pixels = [histcxr.read_radiograph(path).pixels for path in table["image"]]
    masks = [read_mask(mask, one.shape) for mask, one in zip(table["mask"], pixels, strict=True)]
    inside = [one[mask].astype(float) for one, mask in zip(pixels, masks, strict=True)]
    numbers = pd.DataFrame(
        {
            "label": table["label"],
            "mean": [one.mean() for one in inside],
            "deviation": [one.std() for one in inside],
            "share": [mask.mean() for mask in masks],
        }
    )
    for row in found.figures["intensity"]:
        own = numbers[numbers["label"] == row["class"]]
        assert row["images"] == len(own)
        for name in ("mean", "deviation"):
            assert row[name] == pytest.approx(own[name].mean())
            assert row[f"{name}_spread"] == pytest.approx(own[name].std(ddof=0))
        share = found.figures["mask_share"]["classes"][row["class"]]
        assert share["mean"] == pytest.approx(own["share"].mean())
        assert sum(share["shares"]) == pytest.approx(1, abs=1e-4)
        whole = found.figures["histograms"]["lungs"][row["class"]]
        assert sum(whole["mean"]) * 4 == pytest.approx(100, abs=1e-2)
        mean = np.mean(
            [one for one, label in zip(pixels, table["label"], strict=True) if label == row["class"]]
        )
        assert found.means[row["class"]].mean() == pytest.approx(mean, abs=1)
    assert next(iter(found.figures["classes"])) == "Normal"


def test_contradictions_are_found(found):
    said = {one["what"]: one for one in found.figures["disagreements"]}
    assert said["column width"]["images"] == 1
    assert said["missing file"]["examples"][0].endswith("gone.png")
    assert said["not listed"]["images"] == 1
    assert said["label"]["images"] == 1
    twins = found.figures["twins"]
    assert twins["across_splits"] >= 1
    assert twins["across_patients"] >= 1
    assert any(
        {"twin.png"} & {row[k].split("/")[-1] for k in ("first", "second")} for row in twins["examples"]
    )
    assert found.figures["patients_across"]["patients"] == 1
    assert found.figures["unusable"] == {"not_found": 1}


def test_a_clean_study_contradicts_nothing(phantoms):
    clean = histcxr.explore(phantoms.study(), examples=0).figures
    assert {one["what"] for one in clean["disagreements"]} == {"mask size"}
    assert clean["patients_across"]["patients"] == 0
    assert clean["unusable"] == {}


def test_the_page_shows_the_figures_and_no_more(found, tmp_path):
    names = found.write(tmp_path / "look")
    assert all((tmp_path / "look" / name).stat().st_size for name in names)
    assert json.loads((tmp_path / "look" / FIGURES).read_text()) == found.to_dict()
    page = (tmp_path / "look" / PAGE).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "unlisted<b>" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)  # nothing is fetched
    for row in found.figures["intensity"]:
        assert f"{row['mean']:.1f} ± {row['mean_spread']:.1f}" in page
        assert f"{row['deviation']:.1f} ± {row['deviation_spread']:.1f}" in page
    assert page.count("<svg role") == 9 + 1  # two of balance, one of the mask, seven zones


def test_nothing_to_look_at_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="at least one usable"):
        histcxr.explore(tmp_path)


def test_the_command_writes_a_page_once(study, tmp_path):
    out = str(tmp_path / "look")
    command = ["explore", str(study), "-o", out, "--examples", "1", "--json", str(tmp_path / "figures.json")]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    assert "1 of 26 images cannot be used" in first.output
    assert json.loads((tmp_path / "figures.json").read_text()) == json.loads(
        (tmp_path / "look" / FIGURES).read_text()
    )
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 2
    assert "holds an earlier result" in again.output


def test_a_bare_table_will_do_and_an_unnamed_source_is_called_so(study):
    table = histcxr.read_manifest(study).head(20)
    bare = table[["image", "mask"]].assign(label=table["label"].where(table["label"] == "Normal"))
    figures = histcxr.explore(bare, examples=0).figures
    assert set(figures["classes"]) == {"Normal", "no label"}
    assert (figures["patients"], figures["no_patient"], figures["patients_across"]["patients"]) == (0, 20, 0)
    normal = table["label"] == "Normal"
    sources = np.where(normal, "one", np.where(np.arange(20) % 2, "two", ""))
    notes = histcxr.explore(table.assign(source=sources), examples=0).figures["notes"]
    assert any("comes from no named source, two, where" in note for note in notes)
