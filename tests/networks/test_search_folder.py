import numpy as np
import pytest

from histcxr.exceptions import InputError, OutputError
from histcxr.networks.search_folder import claim_folder, fingerprint


def test_a_folder_holds_one_search(tmp_path):
    folder = tmp_path / "deep" / "search"
    search = {"seed": 0, "data": "abc"}
    claim_folder(folder, search)
    claim_folder(folder, search)
    with pytest.raises(InputError, match="holds one with other data"):
        claim_folder(folder, search | {"data": "abd"})
    with pytest.raises(InputError, match="holds one with other seed, method"):
        claim_folder(folder, {"seed": 1, "data": "abc", "method": "random"})


def test_what_is_no_search_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        claim_folder(tmp_path, {})
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        claim_folder(tmp_path, {})
    with pytest.raises(OutputError, match="cannot keep the search here"):
        claim_folder(tmp_path / "notes.txt" / "search", {})


def test_a_fingerprint_knows_values_shapes_and_dtypes():
    values = np.arange(12)
    texts = np.array(["a", "b"])
    arrays = [
        (values,),
        (values + 1,),
        (values.astype(np.int32),),
        (values.reshape(3, 4),),
        (values, None),
        (values, values),
        (values > 3,),
        (texts,),
        (texts.astype(object),),
        (texts[::-1].astype(object),),
    ]
    prints = [fingerprint(*some) for some in arrays]
    assert len(set(prints)) == len(prints)
    assert fingerprint(np.arange(24).reshape(3, 8)[:, ::2]) == fingerprint(np.arange(0, 24, 2).reshape(3, 4))
