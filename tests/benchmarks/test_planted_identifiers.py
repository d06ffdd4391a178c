"""The search for planted identifiers in little: nothing is found, and it finds what is there."""

import base64
import zipfile

import numpy as np
import pandas as pd
import pytest

from benchmarks.robustness import planted_identifiers

pytest.importorskip("pydicom")

LITTLE = [line for line in planted_identifiers.COMMANDS if line.split()[0] in ("segment", "triage", "report")]


def test_no_output_names_a_patient(tmp_path):
    pytest.importorskip("highdicom")
    pytest.importorskip("streamlit")
    more = "extract DATA -o OUT/h.csv --anonymous-names KEYS --dicom-tags"
    figures = planted_identifiers.experiment(16, 0, tmp_path, [*LITTLE, more], [""])
    assert figures["failed"] == []
    assert figures["found"] == {}
    assert not any(row["found in what it said"] for row in figures["commands"])
    assert sum(figures["planted"].values()) > 500
    assert figures["in reports"] > 0
    assert figures["in a worklist with its own names"] > 0
    assert figures["app"]["names that the user gave"] > 0


def test_the_search_looks_into_everything(tmp_path):
    word = planted_identifiers.Plants(0).word("here")
    (tmp_path / f"{word}.txt").write_text("")
    (tmp_path / "a.html").write_bytes(b"base64," + base64.b64encode(b"...." + word.encode()))
    (tmp_path / "a.json").write_text(
        f'{{"born": "1907-03-11", "uid": "2.25.7707700001", "name": "{word.lower()}"}}'
    )
    pd.DataFrame({"file": [word] * 2}).to_parquet(tmp_path / "a.parquet")
    np.savez_compressed(tmp_path / "a.npz", names=np.array([word]))
    with zipfile.ZipFile(tmp_path / "a.skops", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", word)
    (tmp_path / "clean.json").write_text('{"score": 0.19070311, "count": 119070311}')
    found = planted_identifiers.search(sorted(tmp_path.iterdir()), tmp_path)
    assert set(found) == {path.name for path in tmp_path.iterdir()} - {"clean.json"}
    assert found["a.json"] == 3
    known = {word.upper().encode()}
    assert planted_identifiers.search([tmp_path / "a.json"], tmp_path, known) == {"a.json": 2}
