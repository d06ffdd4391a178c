"""The worklist's formats: safe in a spreadsheet, exact for a script."""

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histcxr.exceptions import InputError
from histcxr.files.cells import guarded, printable, unguarded
from histcxr.worklist.rows import (
    COLUMNS,
    PARQUET_BATCH,
    Row,
    shown_score,
    write_rows,
    writer_for,
)

NASTY = [
    "=1+1.png",
    "+1.png",
    "-1.png",
    "@SUM(A1).png",
    "\t=1.png",
    "\r=1.png",
    "\n=1.png",
    "＝1+1.png",
    "'quoted.png",
    "''=1.png",
    'say "hi".png',
    "a,b.png",
    "a;=1+1.png",
    "a|=1+1.png",
    "two\nlines.png",
    " space .png",
    "ß€漢字🫁.png",
    "",
    "-",
]
REASON = "the file is broken; copy it again (=cmd|' /C calc'!A1; =1+1)"


def rows_of(names):
    return [
        Row(
            name,
            "=p1",
            "review",
            None if i % 2 else i / 7,
            REASON if i % 2 else "",
            "damaged" if i % 2 else "",
            "m 1a",
        )
        for i, name in enumerate(names)
    ]


def written(suffix, rows) -> bytes:
    out = io.BytesIO()
    write_rows(out, writer_for("x" + suffix), rows)
    return out.getvalue()


def read_csv(content: bytes):
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def test_columns_and_values():
    lines = written(".csv", rows_of(["a.png", "b.png"])).decode().split("\n")
    assert lines[0] == "file,patient_id,decision,score,reason,reason_code,model"
    assert lines[1] == "a.png,'=p1,review,0.0,,,m 1a"
    assert lines[2].startswith("b.png,'=p1,review,,\"the file is broken")


@pytest.mark.parametrize("name", NASTY)
def test_no_cell_of_a_csv_starts_like_a_formula(name):
    for row in read_csv(written(".csv", rows_of([name, name]))):
        assert unguarded(row["file"]) == name
        for cell in row.values():
            assert not cell.startswith(tuple("=+-@\t\r\n＝＋－＠"))


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_no_formula_appears_when_a_spreadsheet_assumes_another_separator(delimiter):
    content = written(".csv", rows_of([name for name in NASTY for _ in "xy"])).decode()
    for line in csv.reader(io.StringIO(content, newline=""), delimiter=delimiter):
        for cell in line:
            assert not cell.lstrip(" ").startswith(tuple("=+@＝＋－＠")), cell


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_names_survive_every_format(names):
    rows = rows_of(names)
    found = read_csv(written(".csv", rows))
    assert [unguarded(row["file"]) for row in found] == names
    assert [row["score"] for row in found] == ["" if row.score is None else repr(row.score) for row in rows]
    # Only "\n" ends a line of JSON Lines: other line ends of Unicode may stand inside a name.
    lines = written(".jsonl", rows).decode().split("\n")[:-1]
    assert [Row(**json.loads(line)) for line in lines] == rows


@given(st.text(), st.text())
def test_guarding_is_reversible(first, second):
    assert unguarded(guarded(first)) == first
    assert (guarded(first) == guarded(second)) == (first == second)


@given(
    st.floats(0, 1),
    st.lists(
        st.floats(0, 1) | st.sampled_from([-np.inf, np.inf, 0.1 + 0.2, 0.123456, 0.12345649999]), max_size=4
    ),
    st.booleans(),
)
def test_rounding_never_moves_a_score_over_a_threshold(score, limits, beside):
    if beside:  # as near to a threshold as can be
        limits = [*limits, np.nextafter(score, 0), np.nextafter(score, 1)]
    shown = shown_score(score, limits)
    assert [(shown < t, shown > t) for t in limits] == [(score < t, score > t) for t in limits]
    assert shown == pytest.approx(score, rel=5.1e-6)
    if not limits:
        assert shown == float(f"{score:.6g}")


def test_few_digits_are_enough_far_from_thresholds():
    assert shown_score(0.12345678901234567, [0.5, -np.inf]) == 0.123457
    assert shown_score(0.12345678901234567, [0.123457]) == 0.1234568
    assert shown_score(None, [0.5]) is None


def test_pandas_reads_the_csv():
    names = [name for name in NASTY if "\r" not in name]
    table = pd.read_csv(io.BytesIO(written(".csv", rows_of(names))), keep_default_na=False)
    assert [unguarded(name) for name in table["file"]] == names


def test_parquet_carries_the_text_as_it_is():
    rows = rows_of(NASTY)
    table = pd.read_parquet(io.BytesIO(written(".parquet", rows)))
    assert table.columns.tolist() == list(COLUMNS)
    assert table["file"].tolist() == NASTY
    assert table["score"].dtype == float
    assert table["score"].isna().tolist() == [row.score is None for row in rows]
    assert pd.read_parquet(io.BytesIO(written(".parquet", []))).columns.tolist() == list(COLUMNS)


def test_parquet_is_written_in_groups():
    rows = rows_of([f"{i}.png" for i in range(2 * PARQUET_BATCH + 1)])
    table = pd.read_parquet(io.BytesIO(written(".parquet", rows)))
    assert table["file"].tolist() == [row.file for row in rows]


def test_foreign_bytes_become_visible():
    name = b"scan \xff\xfe 1.png".decode("utf-8", "surrogateescape")
    assert printable(name) == r"scan \xff\xfe 1.png"
    assert printable("a\ud800.png") == r"a\ud800.png"
    assert printable("normal é 漢.png") == "normal é 漢.png"
    printable(name).encode()


@pytest.mark.parametrize("name", ["w.csv", "w.CSV", "w.jsonl", "w.ndjson", "w.parquet"])
def test_the_name_decides_the_format(name):
    assert callable(writer_for(name))


@pytest.mark.parametrize("name", ["w.xlsx", "w", "w.png", ".csv", "w.csv.gz"])
def test_other_names_are_refused(name):
    with pytest.raises(InputError, match=r"output must end in one of \.csv, \.jsonl, \.ndjson, \.parquet"):
        writer_for(name)
