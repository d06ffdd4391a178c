"""The page of a triage: what the worklist says, hostile names as text, pictures of some rows, a table that sorts."""

import csv
import json
import re
import shutil
from html import unescape

import numpy as np
import pytest
from click.testing import CliRunner

import histcxr
from histcxr.commands import main
from histcxr.features.curves import site_numbers
from histcxr.lungs.segmenter import load_segmenter
from histcxr.worklist.pages import normal_band, write_triage_page

from .conftest import write_pair

HOSTILE = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("incoming")
    for seed in range(24):
        write_pair(place, f"{seed:02d}.png", seed, sick=seed % 2 == 1)
    shutil.copy(place / "00.png", place / HOSTILE)
    shutil.copy(place / "masks" / "00.png", place / "masks" / HOSTILE)
    (place / "broken.png").write_bytes(b"no image")
    return place


@pytest.fixture(scope="module")
def triaged(folder, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    summary = histcxr.triage(folder, model, out / "worklist.csv", sort="urgency")
    figures = write_triage_page(summary, model, out / "page.html", segmenter=load_segmenter())
    with open(out / "worklist.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return summary, figures, rows, (out / "page.html").read_text()


def rows_of(page):
    body = page[page.index("<tbody>", page.index('class="sortable"')) :]
    return re.findall(r"<tr>.*?</tr>", body, re.DOTALL)


def test_the_page_has_the_rows_of_the_worklist_in_its_order(triaged):
    summary, _, rows, page = triaged
    shown = rows_of(page)
    assert len(shown) == len(rows) == summary.total == 26
    for row, html in zip(rows, shown, strict=True):
        assert f'data-key="{row["score"]}"' in html
        assert f"{row['decision']}</span>" in html
        assert row["file"] in unescape(html)
        assert row["reason"] in unescape(html)


def test_its_figures_are_those_of_the_summary(triaged):
    summary, figures, rows, page = triaged
    json.dumps(figures, allow_nan=False)
    scored = [row for row in rows if row["score"]]
    assert sum(figures["scores"]["judged images"]) == len(scored)
    assert figures["groups"]["rule_in"] == summary.drawers["rule_in"]
    assert figures["groups"]["rule_out"] == summary.drawers["rule_out"]
    assert figures["groups"]["review"] + figures["groups"]["not judged"] == summary.drawers["review"]
    for drawer, count in summary.drawers.items():
        assert re.search(rf'{drawer}</span></td><td class="n">{count}</td>', page)
    for kind, count in summary.skipped.items():
        assert f"Skipped: {count} {kind}" in page
    limit = figures["thresholds"]["rule_out"]["threshold"]
    assert f"left:{100 * limit:.1f}%" in page


def test_hostile_names_show_as_text_and_nothing_is_fetched(triaged):
    page = triaged[3]
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "default-src 'none'" in page


def test_of_many_rows_the_most_urgent_have_pictures(triaged, model, tmp_path):
    summary = triaged[0]
    figures = write_triage_page(summary, model, tmp_path / "few.html", pictures=8)
    page = (tmp_path / "few.html").read_text()
    assert figures["pictured"] == page.count("<img") == 8 - 1  # of the broken file there is none
    drawers = [re.search(r"tag (\w+)", row)[1] for row in rows_of(page) if "<img" in row]
    assert set(drawers) == {row["decision"] for row in triaged[2] if row["score"]}
    assert len(page) < 0.6 * len(triaged[3])


def test_the_normal_band_is_that_of_the_certified_normals():
    model = histcxr.load_model()
    band = normal_band(model)
    assert band["levels"] == [0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98]
    middle = np.array([band["low"], band["high"]]).mean(axis=0)
    assert middle == pytest.approx(band["mean"], abs=0.01)
    assert (np.diff([band["low"], band["mean"], band["high"]], axis=1) > 0).all()


def test_the_normal_band_is_recovered_from_what_a_site_keeps(model, monkeypatch):
    from dataclasses import replace

    from histcxr.decision.site import fit_site

    rng = np.random.default_rng(2)
    sick = np.arange(600) % 2 == 1
    centre = np.where(sick, 150, 90) + rng.normal(0, 12, 600)
    grey = np.arange(256)
    counts = (500 * np.exp(-(((grey - centre[:, None]) / 18) ** 2) / 2)).astype(np.int64)[:, None]
    numbers = site_numbers(counts, model.recipe)
    names = np.where(sick, "Sick rsna", "Normal rsna")
    site = fit_site(numbers, names, model.site_names).to_dict()
    band = normal_band(replace(model, training={"site": site, "normal": "Normal"}))
    quantiles = numbers[~sick][:, :7]
    assert band["mean"] == pytest.approx(quantiles.mean(axis=0), abs=1.5)
    low, high = np.quantile(quantiles, [0.05, 0.95], axis=0)
    assert band["low"] == pytest.approx(low, abs=4)
    assert band["high"] == pytest.approx(high, abs=4)
    assert normal_band(model) is None  # it keeps nothing


def test_the_command_writes_page_and_figures(folder, saved_model, tmp_path):
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    command = ["triage", str(folder), "-m", str(saved_model), "-o", str(tmp_path / "w.csv"), "--no-segment"]
    done = CliRunner().invoke(main, [*command, "--report", str(page), "--json", str(figures)])
    assert done.exit_code == 3, done.output
    assert json.loads(figures.read_text())["report"]["pictured"] == 25
    assert page.read_text().count("<img") == 25
    wrong = CliRunner().invoke(main, [*command, "--report", str(tmp_path / "no" / "page.html")])
    assert wrong.exit_code == 2


def test_a_click_sorts_the_rows_and_no_name_runs(triaged, tmp_path):
    browser = pytest.importorskip("playwright.sync_api", reason="no browser driver is installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed")
    (tmp_path / "page.html").write_text(triaged[3])
    with browser.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = chromium.new_page()
        said, asked = [], []
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{tmp_path / 'page.html'}")
        keys = "[...document.querySelectorAll('table.sortable tbody tr')].map(r => r.cells[5].dataset.key)"
        page.get_by_role("button", name="score").click()
        rising = [float(key) for key in page.evaluate(keys) if key]
        page.get_by_role("button", name="score").click()
        falling = [float(key) for key in page.evaluate(keys) if key]
        assert rising == sorted(rising)
        assert falling == sorted(rising, reverse=True)
        assert page.evaluate(keys)[-1] == ""  # what was not judged stays last
        assert said == []
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        chromium.close()
