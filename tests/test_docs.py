"""The documentation without building it: links and anchors lead somewhere, every command and public name has a page."""

import functools
import importlib
import re
import runpy
from pathlib import Path

import click
import pytest

import histcxr
from histcxr.commands import COMMANDS
from histcxr.exceptions import Reason

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    + [page for page in DOCS.rglob("*.md") if not {"_build", "_generated", "auto_gallery"} & set(page.parts)]
)


def prose(page):
    """Return a page's text without code, and with what it includes."""
    text = page.read_text(encoding="utf-8")
    for included in re.findall(r"^```\{include\} (\S+)", text, re.MULTILINE):
        text += (page.parent / included).read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and the site name them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def dead_links(page):
    """Return the links of a page that lead to no file or heading of ours."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        place = page.parent / name if name else page
        script = re.fullmatch(r"(?:.*/)?auto_gallery/(\w+)\.rst", name)
        if "_generated/" in name:  # its content has a test of its own
            continue
        if script:  # made of a script when the site is built
            place = DOCS / "gallery" / ("GALLERY_HEADER.rst" if script[1] == "index" else f"{script[1]}.py")
        if not place.exists() or (anchor and anchor not in anchors(place)):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    own = page.read_text(encoding="utf-8").startswith("```{include}")
    assert own or dead_links(page) == []


def test_dead_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, here\n[a](nowhere.md) [b](#a-title) [c](#a-title-here) `[d](code)` [e](https://x.y)"
    )
    assert dead_links(page) == ["nowhere.md", "#a-title"]


def test_figures_of_pages_are_drawn_by_a_script():
    named = [
        name for page in PAGES for name in re.findall(r"sphx_glr_(plot_\w+?)_\d+\.png", page.read_text())
    ]
    assert len(named) > 5
    assert all((DOCS / "gallery" / f"{name}.py").exists() for name in named)


def test_every_command_plot_and_reason_has_a_page(tmp_path):
    site = runpy.run_path(str(DOCS / "conf.py"))
    site["_write_pages"].__globals__["DOCS"] = tmp_path
    site["_write_pages"](None, None)
    for name in COMMANDS:
        page = (tmp_path / "_generated" / "commands" / f"{name}.rst").read_text()
        module, function = re.search(r"click:: (\S+):(\S+)", page).groups()
        assert isinstance(getattr(importlib.import_module(module), function), click.Command)
        assert f":prog: histcxr {name}\n" in page
    reasons = (tmp_path / "_generated" / "reasons.md").read_text()
    assert all(f"| `{reason.value}` | {reason.sentence} |" in reasons for reason in Reason)
    plots = (tmp_path / "_generated" / "plots.rst").read_text()
    assert re.findall(r"^   ([A-Z]\w+)$", plots, re.MULTILINE) == histcxr.plots.__all__


def test_every_public_name_has_a_page():
    listed = re.findall(r"^   (\w+)$", (DOCS / "api" / "index.rst").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted({*histcxr._PUBLIC, "modules"} - {"plots"})


def test_every_room_is_listed():
    listed = re.findall(r"^   (\w+)$", (DOCS / "api" / "modules.rst").read_text(), re.MULTILINE)
    rooms = {place.stem for place in (ROOT / "histcxr").iterdir() if place.is_dir() or place.suffix == ".py"}
    assert set(listed) == {room for room in rooms if not room.startswith("__")} - {"app", "commands", "plots"}


def test_the_first_notebook_runs(monkeypatch, capsys):
    pytest.importorskip("matplotlib").use("agg")
    script = DOCS / "gallery" / "plot_3_first_notebook.py"
    code = script.read_text().split('"""', 2)[2]
    assert sum(bool(line.strip()) and not line.startswith("#") for line in code.splitlines()) <= 35
    small = {
        "sample_study": {"size": (96, 96), "n_patients": 300},
        "train": {"classifiers": "svm", "trials": 0},
    }
    for name, options in small.items():
        monkeypatch.setattr(histcxr, name, functools.partial(getattr(histcxr, name), **options))
    found = runpy.run_path(str(script))
    assert "takes at least 114 sick calibration patients, got 70" in capsys.readouterr().out
    assert found["summary"].total == (found["study"]["split"] == "test").sum()
    assert found["summary"].drawers["rule_out"] > 0
