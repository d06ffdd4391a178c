"""Guards on numbers."""

import numpy as np
import pytest

from histcxr.checks import whole_number
from histcxr.exceptions import InputError


def test_whole_numbers_within_their_range():
    assert [whole_number(value, "n", least=1, most=3) for value in (1, np.int64(3))] == [1, 3]
    assert whole_number(10**9, "n") == 10**9


@pytest.mark.parametrize("value", [0, 4, 2.0, True, np.bool_(True), "2", None])
def test_other_numbers_are_refused(value):
    with pytest.raises(InputError, match="n must be a whole number from 1 to 3, got"):
        whole_number(value, "n", least=1, most=3)
    with pytest.raises(InputError, match="n must be a whole number of at least 5, got"):
        whole_number(value, "n", least=5)
