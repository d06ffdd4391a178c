"""Text that somebody else chose: safe in a spreadsheet, shown on a terminal, and got back exactly."""

import csv
import io

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from histcxr.commands import main
from histcxr.data.manifest import read_manifest
from histcxr.files.cells import csv_line, guarded, shown, unguarded, write_table
from histcxr.files.writing import encode_image
from histcxr.phantoms.anatomy import make_phantom

NASTY = ["=1+1", "+1", "-1", "@x", "\tx", "'x", "''=1", "＝1", 'a"b;=1', "a|b", "x\ny", " x", "plain", ""]
_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"))


@given(st.lists(st.one_of(_text, st.sampled_from(NASTY)), min_size=1))
def test_a_line_comes_back_and_starts_no_formula(texts):
    (row,) = csv.reader(io.StringIO(csv_line([*texts, "end"]), newline=""))
    assert [unguarded(cell) for cell in row] == [*texts, "end"]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "＝")) for cell in row)


def test_numbers_stay_numbers():
    assert csv_line([0.25, 3, None, "'tis"]) == "0.25,3,,''tis\n"
    assert unguarded("'tis") == "'tis"


def test_a_table_is_guarded_and_read_back(tmp_path):
    names = [name for name in NASTY if name and name == name.strip()]
    table = pd.DataFrame({"image": names, "=note": names, "n": range(len(names)), "share": 0.5})
    before = table.copy()
    write_table(table, tmp_path / "list.csv")
    with open(tmp_path / "list.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image", "'=note", "n", "share"]
    assert [row[1] for row in rows[1:]] == [guarded(name) for name in names]
    found = read_manifest(tmp_path / "list.csv")
    assert found["=note"].tolist() == names
    assert found["image"].tolist() == [str(tmp_path / name) for name in names]
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("\u2066x\u2069\u200f\x9b1m\x7f", r"\u2066x\u2069\u200f\x9b1m\x7f"),
        ("\udcff \ud800", r"\xff \ud800"),
        ("two\nlines\tand é 漢", "two\nlines\tand é 漢"),
        ("one\rother", r"one\x0dother"),
    ],
)
def test_a_terminal_is_sent_nothing_that_it_obeys(text, said):
    assert shown(text) == said
    assert shown(said) == said


EVIL = "\x1b]0;gone\x07\u202egnp"


def test_no_command_sends_what_a_name_holds(tmp_path):
    """Neither in reports, nor in warnings, errors of values, and errors of wrong use."""
    top = tmp_path / f"in{EVIL}"
    (top / "MASK").mkdir(parents=True)
    for name in ("a", f"{EVIL}b"):
        (top / f"{name}.png").write_bytes(encode_image(make_phantom(1, size=(96, 96)).image))
    (top / "MASK" / f"{EVIL}.png").write_bytes(b"")
    calls = [
        ["triage", str(top), "-o", str(tmp_path / "w.csv"), "--no-segment"],
        ["segment", str(top), "-o", str(tmp_path / f"out{EVIL}")],
        ["explore", str(top), "-o", str(tmp_path / "look")],
        ["triage", str(top / "nothing")],
        ["triage", str(top), "-o", str(top / "w.txt")],
        ["models", str(top)],
        [f"mod{EVIL}"],
        ["extract", str(top), "--where", f"{EVIL}=1", "-o", str(tmp_path / "h.csv")],
        ["report", str(tmp_path / "w.csv"), "-o", str(tmp_path / "reports")],
    ]
    for call in calls:
        said = CliRunner().invoke(main, call).output
        assert said
        assert not set(said) & {"\x1b", "\x07", "\u202e"}, (call, said)
    for table in ("w.csv", f"out{EVIL}/segmentation.csv", "reports/reports.csv"):
        assert (tmp_path / table).exists()


def test_every_table_of_every_command_is_guarded(tmp_path):
    """A name like a formula, wherever a CSV holds it; and a run of segment goes on from such a table."""
    top = tmp_path / "in"
    top.mkdir()
    for number, name in enumerate(("=1+1", "@x", "'y")):
        picture = make_phantom(number, size=(96, 96)).image
        (top / f"{name}.png").write_bytes(encode_image(picture))
    out = {"triage": "w.csv", "segment": "lungs", "extract": "h.csv"}
    for command, place in out.items():
        assert CliRunner().invoke(main, [command, str(top), "-o", str(tmp_path / place)]).exit_code in (0, 3)
    CliRunner().invoke(main, ["report", str(tmp_path / "w.csv"), "-o", str(tmp_path / "reports")])
    again = CliRunner().invoke(main, ["segment", str(top), "-o", str(tmp_path / "lungs")])
    tables = [path for path in tmp_path.rglob("*.csv") if path.parent != top]
    assert {path.name for path in tables} == {"w.csv", "h.csv", "segmentation.csv", "reports.csv"}
    for path in tables:
        with open(path, newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "@", "'y"))], path
    with open(tmp_path / "lungs" / "segmentation.csv", newline="") as file:
        made = sum(bool(row["mask"]) for row in csv.DictReader(file))
    assert (f"{made} masks were already there" in again.output) == bool(made)
