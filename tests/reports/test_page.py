"""The base of all pages: what is put in shows as text, plots take the page's colours, numbers read well."""

import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from histcxr.exceptions import InputError, MissingDependencyError
from histcxr.reports.displays import GroupsDisplay, ImportanceDisplay
from histcxr.reports.page import check_page, embedded, figure_text, percent_text, polyline, require_page, svg

HOSTILE = "</text><script>alert(1)</script>"


def test_a_plot_is_sound_svg_whatever_its_names():
    rows = [{"name": HOSTILE, "value": 0.2}, {"name": "a & $b$", "value": -0.1, "spread": 0.05}]
    text = str(svg(ImportanceDisplay(rows, "AUC lost"), f'what "{HOSTILE}" is'))
    ElementTree.fromstring(text)
    assert "<script>" not in text
    assert "currentColor" in text
    assert "#010203" not in text


def test_two_plots_on_a_page_share_no_identifier():
    rows = [{"name": "one", "value": 0.5, "low": 0.4, "high": 0.6}]
    first, second = (str(svg(GroupsDisplay(rows, label), "groups")) for label in ("AUC", "sensitivity"))
    ids = [set(re.findall(r'id="([^"]+)"', text)) for text in (first, second)]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'href="#([^"]+)"', first)) <= ids[0]
    assert first == str(svg(GroupsDisplay(rows, "AUC"), "groups"))  # the same page for the same figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.12345, "0.123"),
        (12345, "12,345"),
        ({"value": 0.5, "low": 0.4, "high": 0.6}, "0.500 (0.400-0.600)"),
    ],
)
def test_numbers_as_people_write_them(value, text):
    assert figure_text(value) == text


def test_shares_as_percentages():
    assert percent_text(0.1234) == "12.3 %"
    assert percent_text(None) == "–"


def test_pictures_are_small_and_lines_stay_inside():
    big = np.zeros((2000, 1500), np.uint8)
    assert len(embedded(big, 128)) < 2000
    points = [tuple(map(float, pair.split(","))) for pair in polyline(np.array([0.0, 5.0, 20.0]), 10).split()]
    assert points == [(0, 48), (64, 24), (128, 0)]


def test_a_page_must_have_a_place(tmp_path):
    check_page(tmp_path / "page.html")
    for wrong in ("page.pdf", "no/page.html"):
        with pytest.raises(InputError):
            check_page(tmp_path / wrong)


def test_without_jinja_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[report\]'"):
        require_page()
