"""The order of rows against a plain sort."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from histcxr.worklist.summary import Order

SCORES = st.floats(0, 1, width=16)
ROWS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["rule_in", "review", "rule_out"]), SCORES, st.just("")),
        st.tuples(st.just("review"), st.none(), st.sampled_from(["damaged", "mask_empty"])),
    ),
    max_size=30,
)


@given(ROWS)
def test_urgency_agrees_with_a_plain_sort(rows):
    order = Order()
    for i, row in enumerate(rows):
        order.add(10 * i, *row)

    def urgency(i):
        decision, score, reason = rows[i]
        group = {"rule_in": 0, "review": 1 if reason else 2, "rule_out": 3}[decision]
        return group, -(score or 0), i

    expected = [10 * i for i in sorted(range(len(rows)), key=urgency)]
    assert order.by_urgency().tolist() == expected
    assert order.by_input().tolist() == [10 * i for i in range(len(rows))]
    assert sum(order.drawers.values()) == len(order) == len(rows)
    assert sum(order.reasons.values()) == sum(1 for row in rows if row[2])


def test_counts():
    order = Order()
    for decision, score, reason in [
        ("rule_in", 0.9, ""),
        ("review", None, "damaged"),
        ("review", None, "blank"),
        ("review", None, "blank"),
        ("review", 0.5, ""),
        ("rule_out", 0.1, ""),
    ]:
        order.add(0, decision, score, reason)
    assert order.drawers == {"rule_in": 1, "review": 4, "rule_out": 1}
    assert list(order.reasons.items()) == [("blank", 2), ("damaged", 1)]


def test_offsets_beyond_four_gigabytes():
    order = Order()
    order.add(1 << 40, "review", 0.5, "")
    assert order.by_urgency().tolist() == [1 << 40]
    assert order.by_urgency().dtype == np.uint64
