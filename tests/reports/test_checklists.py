"""The items of reporting guidelines: each is answered or open, never both, never forgotten."""

import pytest

from histcxr.reports.pages.checklists import checklist, read_items

ITEMS, ASKED = read_items()


def result(auc=0.9, columns=("view",)):
    return {
        "overall": {
            "auc": auc,
            "auc_low": 0.85,
            "auc_high": 0.95,
            "decisions": {"n_patients": 1, "n_images": 2},
        },
        "model": {"name": "stack", "hash": "", "recipe": {"zones": 6, "bands": ["dog1", "dx1"]}},
        "closer": {
            "subgroups": [{"column": column} for column in columns],
            "drives": {"permutation": None},
        },
        "unusable": {"blank": 3},
        "seen": {"images": 0},
        "split": "test",
        "remembers": True,
        "thresholds": {"rule_out": {"certified": True}, "rule_in": {"certified": False}},
    }


def test_the_guidelines_have_as_many_items_as_their_papers_say():
    main = {name: {item.rstrip("abcdefg") for item in items} for name, items in ITEMS.items()}
    assert {name: len(items) for name, items in main.items()} == {
        "CLAIM 2024": 44,
        "TRIPOD+AI": 27,
        "STARD-AI": 40,
    }
    assert len(ITEMS["TRIPOD+AI"]) == 52
    for row in ASKED:
        for name in ITEMS:
            assert set(row[name].split()) <= set(ITEMS[name])


@pytest.mark.parametrize("known", [True, False])
def test_each_item_is_answered_or_open(known):
    found = checklist(result() if known else result(auc=None, columns=()), "histcxr 9")
    for name, items in ITEMS.items():
        answered = {one for row in found["rows"] for one in row[name].split()}
        left = found["open"][name].split(", ")
        assert answered.isdisjoint(left)
        assert answered | set(left) == set(items)
    # What was not measured is open: accuracy, explanations, groups.
    assert ("37" in found["open"]["CLAIM 2024"].split(", ")) is not known
    assert "31" in found["open"]["CLAIM 2024"].split(", ")
    assert ("25" in found["open"]["STARD-AI"].split(", ")) is not known


def test_answers_are_those_of_the_run():
    rows = {row["asked for"]: row["this run"] for row in checklist(result(), "histcxr 9")["rows"]}
    assert rows["Performance with its precision"] == "AUC 0.900 (0.850-0.950)"
    assert rows["How many took part, and who was left out"].startswith("1 patient, 2 images judged; 3 blank")
    assert rows["What the model returns, and its thresholds"] == "certified beforehand: rule_out"
