import json

import pytest

from benchmarks.robustness import hostile_corpus, hostile_files
from histcxr.data.radiograph import decode_radiograph
from histcxr.exceptions import RadiographError, Reason
from histcxr.files.budget import BUDGET

pytest.importorskip("pydicom")
pytest.importorskip("imagecodecs")

COSTLY, DAMAGED, LARGE = Reason.TOO_COSTLY, Reason.DAMAGED, Reason.TOO_LARGE
EXPECTED = {
    "jpeg 2000, tiny precincts, 100 layers.dcm": COSTLY,
    "20,000 scans.jpg": COSTLY,
    "20,000 scans.dcm": COSTLY,
    "a million segments.jpg": COSTLY,
    "a million chunks.png": COSTLY,
    "declares 65,535 pixels.jpg": LARGE,
    "declares 4 thousand million pixels.png": LARGE,
    "declares 2 thousand million rows.bmp": LARGE,
    "strips share one stream.tif": DAMAGED,
    "directory leads to itself.tif": COSTLY,
    "100,000 directories.tif": COSTLY,
    "6 million empty items.dcm": COSTLY,
    "backslashes in character sets.dcm": COSTLY,
    "backslashes in nested character sets.dcm": COSTLY,
    "100,000 nested sequences.dcm": DAMAGED,
    "a million fragments.dcm": COSTLY,
    "fragments without an end.dcm": COSTLY,
    "RLE that does nothing.dcm": Reason.TRUNCATED,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_small_files_that_ask_for_much_are_refused(name):
    with pytest.raises(RadiographError) as caught:
        decode_radiograph(hostile_files.COSTLY[name](), name)
    assert caught.value.reason is EXPECTED[name]


@pytest.mark.parametrize("name", ["backslashes in a text.dcm", "backslashes in place of a sequence.dcm"])
def test_what_costs_nothing_is_no_reason(name):
    assert decode_radiograph(hostile_files.COSTLY[name]()).pixels.shape == (64, 64)


def test_packets_are_counted_as_the_standard_does():
    from histcxr.dicom.codestream import _packets

    # A resolution of 8192 pixels in precincts of 256 has 32 x 32 of them, the next 16 x 16 and so on, 100 layers each.
    style = bytes([1, 0, 0, 100, 0, 2, 4, 4, 0, 1, 0x88, 0x88, 0x88])
    assert _packets(style, 8192, 8192, 8192, 8192, 1) == 100 * (8 * 8 + 16 * 16 + 32 * 32)
    assert _packets(bytes([0, 0, 0, 1, 0, 5, 4, 4, 0, 1]), 4000, 3000, 1000, 1000, 3) == 6 * 12 * 3
    assert _packets(style, 8192, 8192, 8192, 8192, 10) > BUDGET.packets


def test_attacks_are_run_and_told_in_one_table(tmp_path, capsys):
    pytest.importorskip("highdicom")
    names = ["corrupt", "nested sequences", "declares", "two files of one", "stray", "over a radiograph"]
    arguments = ["--copies", "1", "--scratch", str(tmp_path), "--json", str(tmp_path / "figures.json")]
    status = hostile_corpus.main([*arguments, "--names", *names])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {row["part"] for row in figures["table"]} == {1, 2, 4, 7, 8}
    assert len(figures["table"]) == 8 + 4 + 3
    assert all(one["ended"] == "judged" and one["seconds"] > 0 for one in figures["found"])
    assert status == bool(figures["problems"])
    assert not [one for one in figures["problems"] if "ruled out" not in one]
    assert "13 files, 13 rows in one triage of all" in capsys.readouterr().out


def test_what_must_not_be_is_told():
    file = {"file": "x", "kind": "damaged", "ended": "judged", "decision": "review", "reason": "damaged"}
    file |= {"processor": 1.0, "seconds": 9.0, "bytes": 2**20, "detail": ""}
    fate = {"attack": "a stray manifest.csv", "ended": "came to", "detail": "1 rows: judged; told"}
    fate |= {"processor": 1.0, "seconds": 9.0, "bytes": 2**20}
    for fine, wrong in (
        (file, {"decision": "rule_out"}),
        (file, {"kind": "costly", "reason": "unexpected"}),
        (fate, {"detail": "1 rows: judged; silence"}),
        (fate, {"ended": "traceback"}),
        *((one, {"processor": 5.1}) for one in (file, fate)),
        *((one, {"bytes": 2**31}) for one in (file, fate)),
        *((one, {"ended": "signal"}) for one in (file, fate)),
    ):
        assert hostile_corpus.problems_of(fine) == []
        assert len(hostile_corpus.problems_of(fine | wrong)) == 1
