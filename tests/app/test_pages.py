"""The pages as Streamlit's own simulation runs them: their figures are those of the functions below."""

import csv
import re
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("streamlit")

from sklearn.metrics import confusion_matrix, recall_score
from streamlit.testing.v1 import AppTest

import histcxr
from histcxr.app import shown
from histcxr.app.training import at_threshold
from histcxr.app.triaging import saved
from histcxr.data.discovery import find_inputs
from histcxr.decision.thresholds import DRAWERS
from histcxr.files.writing import encode_image
from histcxr.phantoms.dicom_files import encode_dicom
from histcxr.phantoms.studies import write_study


@pytest.fixture
def open_page(tmp_path, monkeypatch):
    monkeypatch.setenv("HISTCXR_APP_FOLDER", str(tmp_path / "written"))
    monkeypatch.delenv("HISTCXR_APP_MODEL", raising=False)

    def run(page):
        module, function = page.rsplit(".", 1)
        script = f"from histcxr.app.{module} import {function}\n{function}()"
        return AppTest.from_string(script, default_timeout=120).run()

    return run


def labelled(widgets, label):
    return next(one for one in widgets if one.label.startswith(label))


def press(app, label):
    return labelled(app.button, label).click().run()


def texts(app):
    return [one.value for one in app.text]


@pytest.fixture(scope="module")
def incoming(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("app") / "in", n_patients=3, layout="flat", masks=False)


def test_triage_of_a_folder_shows_its_worklist(open_page, incoming, tmp_path):
    app = open_page("triaging.page")
    labelled(app.text_input, "Or a folder").input(str(incoming))
    app = press(app, "Judge")
    assert not app.exception
    histcxr.triage(incoming, histcxr.load_model(), tmp_path / "w.csv", sort="urgency")
    with open(tmp_path / "w.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    table = app.dataframe[0].value
    assert table["file"].tolist() == [row["file"] for row in rows]
    assert table["drawer"].tolist() == [row["decision"] for row in rows]
    assert [repr(score) for score in table["score"]] == [row["score"] for row in rows]
    counted = Counter(row["decision"] for row in rows)
    assert {one.label: int(one.value) for one in app.metric if one.label in DRAWERS} == {
        drawer: counted[drawer] for drawer in DRAWERS
    }
    assert "patient" not in " ".join(table.columns)
    assert app.subheader[0].value.replace("\\_", "_") == f"{rows[0]['decision']}, score {rows[0]['score']}"
    app = app.selectbox[0].select_index(1).run()
    assert texts(app)[0] == rows[1]["file"]
    assert sorted(path.name for path in (tmp_path / "written").iterdir())[0].startswith("triage-")


def test_dropped_files_keep_their_names_and_what_is_no_image_its_reason(
    open_page, phantoms, hostile, tmp_path
):
    good = bytes(encode_image(np.array(phantoms(1).image)))
    dicom = encode_dicom(
        np.array(phantoms(2).image), tags={"PatientName": "Secret^Name", "PatientID": "S3cret"}
    )
    app = open_page("triaging.page")
    files = {hostile[0]: good, "b.png": b"no image", "c.dcm": dicom}
    app.file_uploader[0].set_value([(name, content, "image/png") for name, content in files.items()])
    app = press(app, "Judge")
    assert not app.exception
    table = app.dataframe[0].value.set_index("file")
    assert set(table.index) == set(files)
    assert table.loc["b.png", "reason"]
    assert np.isnan(table.loc["b.png", "score"])
    assert "Could not be judged, so in review: 1" in [one.value for one in app.warning]
    assert hostile[0] not in " ".join(one.value for one in (*app.markdown, *app.caption))
    written = [path.read_text() for path in (tmp_path / "written").rglob("worklist.*")]
    assert len(written) == 3
    assert not re.search("secret|s3cret", f"{app}{written}", re.IGNORECASE)


def test_a_network_shows_where_it_looks(open_page, incoming, network, tmp_path, monkeypatch):
    histcxr.save_model(network, tmp_path / "n.histcxr")
    app = open_page("triaging.page")
    labelled(app.text_input, "Or a folder").input(str(incoming))
    labelled(app.text_input, "Model").input(str(tmp_path / "n.histcxr"))
    app = press(app, "Judge")
    assert not app.exception
    assert any("Grad-CAM" in image.alt for one in app.get("image") for image in one.proto.imgs)
    monkeypatch.setitem(sys.modules, "keras", None)
    app = app.selectbox[0].select_index(1).run()
    assert any("Grad-CAM" in one.value for one in app.info)
    assert any("pip install" in one for one in texts(app))


def test_a_refusal_is_a_sentence(open_page, tmp_path):
    app = open_page("triaging.page")
    app = press(app, "Judge")
    assert "dropped or a place named" in texts(app)[0]
    name = str(tmp_path / "<b>**nowhere**.histcxr")
    labelled(app.text_input, "Or a folder").input(str(tmp_path))
    labelled(app.text_input, "Model").input(name)
    app = press(app, "Judge")
    assert [one.value for one in app.error] == ["This cannot be done:"]
    assert texts(app)[0].startswith(name)


def test_names_on_disk_lead_nowhere_else(tmp_path, hostile):
    names = [*hostile, "../../evil.png", "..\\..\\evil.png", "/etc/passwd", "", "..", ".hidden.png", "manifest.csv",
             "MANIFEST.csv", "DICOMDIR", "a\x00b.png", "ä" * 200 + ".png", "b.png", "b.png"]  # fmt: skip
    files = [
        SimpleNamespace(name=name, getbuffer=lambda n=n: str(n).encode()) for n, name in enumerate(names)
    ]
    saved(files, tmp_path / "images")
    found = sorted(tmp_path.rglob("*"))
    assert sorted(path.parent for path in found) == sorted([tmp_path, *[tmp_path / "images"] * len(names)])
    contents = {path.read_bytes() for path in found if path.is_file()}
    assert contents == {str(n).encode() for n in range(len(names))}
    listed = {entry.relative for entry in find_inputs(tmp_path / "images")}
    assert {"evil.png", "b.png", hostile[0]} <= listed


def test_every_character_of_a_foreign_text_is_seen(hostile):
    assert [shown.plain(name) for name in hostile[:3]] == list(hostile[:3])
    assert shown.plain(hostile[3]) == r"\x1b[31mred\x1b[0m.png"
    assert shown.plain(hostile[4]) == r"\u202egnp.exe.png"
    assert shown.plain("a\udcff.png") == "a\\xff.png"


@pytest.fixture(scope="module")
def study(phantoms):
    return phantoms.study(n_patients=100, size=(64, 64), mask_size=(64, 64), repeats=0)


def test_training_measures_and_the_slider_moves_every_figure(open_page, study, tmp_path):
    app = open_page("training.page")
    labelled(app.text_input, "Labelled").input(str(study))
    labelled(app.selectbox, "What is counted").select("each lung in thirds")
    labelled(app.multiselect, "Classifiers").set_value(["svm"])
    app = press(app, "Train")
    assert not app.exception
    result = app.session_state["trained"]
    table = app.dataframe[0].value.set_index("metric")["value"]
    assert table["AUC"].startswith(f"{result['found']['overall']['auc']:.3f} (")
    shown_at = {}
    for percent in (10, 90):
        app = app.slider[0].set_value(percent).run()
        shown_at[percent] = app.dataframe[1].value.set_index("of patients")["value"].to_dict()
        found = at_threshold(result["scores"], result["sick"], percent)
        assert shown_at[percent] == {name: found[name] for name in shown_at[percent]}
    assert shown_at[10] != shown_at[90]
    labelled(app.text_input, "Save the model").input(str(tmp_path / "m.histcxr"))
    app = press(app, "Save")
    assert histcxr.load_model(tmp_path / "m.histcxr").name == "svm"
    app = press(app, "Save")
    assert "This cannot be done:" in [one.value for one in app.error]


def test_a_threshold_means_what_scikit_learn_says():
    rng = np.random.default_rng(0)
    sick = rng.random(200) < 0.4
    scores = np.clip(rng.normal(0.4 + 0.2 * sick, 0.2), 0, 1).round(2)
    for percent in (1, 37, 50, 99):
        called = scores >= percent / 100
        found = at_threshold(scores, sick, percent)
        (tn, fp), (fn, tp) = confusion_matrix(sick, called)
        assert [found[name] for name in ("tn", "fp", "fn", "tp")] == [tn, fp, fn, tp]
        assert found["sensitivity"].startswith(f"{recall_score(sick, called):.3f}")
        assert found["specificity"].startswith(f"{recall_score(~sick, ~called):.3f}")
        assert found["NPV"].startswith(f"{tn / (tn + fn):.3f}" if tn + fn else "–")
        odds = percent / (100 - percent)
        assert found["net benefit"] == f"{(tp - fp * odds) / 200:.4f}"


def test_a_network_without_keras_says_what_to_install(open_page, study, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    app = open_page("training.page")
    labelled(app.text_input, "Labelled").input(str(study))
    app = labelled(app.radio, "What judges").set_value("network").run()
    app = press(app, "Train")
    assert "pip install" in texts(app)[0]


def test_explore_and_audit_show_what_the_functions_say(open_page, study):
    app = open_page("looking.explore_page")
    labelled(app.text_input, "Radiographs").input(str(study))
    app = press(app, "Explore")
    assert not app.exception
    figures = histcxr.explore(study).to_dict()
    assert {one.label: int(one.value) for one in app.metric} == {
        name: figures[name] for name in ("images", "usable", "patients")
    }
    assert set(figures["notes"]) <= set(texts(app))
    assert app.dataframe[0].value["images"].sum() == figures["images"]
    app = open_page("looking.audit_page")
    labelled(app.text_input, "Radiographs").input(str(study))
    app = press(app, "Audit")
    found = histcxr.audit(study)
    assert texts(app)[: len(found.verdict)] == list(found.verdict)
    assert len(texts(app)[-1].splitlines()) == len(found.not_asked)
    assert app.dataframe[0].value.astype(str).to_dict("records") == [
        {key: str(value) for key, value in row.items()} for row in found.rows()
    ]


@pytest.mark.filterwarnings("error:Glyph")
def test_hostile_labels_and_sources_are_cells(open_page, hostile, hostile_list):
    app = open_page("looking.explore_page")
    labelled(app.text_input, "Radiographs").input(str(hostile_list))
    app = press(app, "Explore")
    assert not app.exception
    assert set(app.dataframe[0].value["class"]) == {*hostile[:2]}
    said = " ".join(one.value for one in (*app.markdown, *app.caption, *app.header, *app.subheader))
    assert not any(name in said for name in hostile)
