import pytest

from histcxr.reports.tables import interval_text, markdown_table


def test_table_is_aligned_markdown_with_numbers_to_the_right():
    text = markdown_table([{"name": "svm", "auc": 0.91234}, {"name": "random-forest", "auc": 0.5}])
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith("-:|")
    assert "| svm           | 0.912 |" in lines


def test_cells_cannot_break_the_table():
    text = markdown_table([{"file": "a|b\nc"}])
    assert text.count("\n") == 2
    assert "a\\|b c" in text


@pytest.mark.parametrize("rows", [[], [{}]])
def test_empty_table_has_its_header(rows):
    assert markdown_table(rows, ["a", "b"]).startswith("| a ")


def test_missing_and_none_are_empty_cells():
    assert markdown_table([{"a": 1}, {"a": None}], ["a", "b"]).splitlines()[-1] == "|     |     |"


def test_interval_text():
    assert interval_text(0.9, 0.85, 0.949) == "0.900 (0.850-0.949)"
