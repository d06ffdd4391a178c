"""A model at hand: pixels in memory take the way of files, and it shows itself shortly."""

import json

import numpy as np
import pytest

from histcxr.exceptions import InputError, Reason, UnjudgeableError
from histcxr.files.writing import write_image, write_mask
from histcxr.store import load_model
from histcxr.worklist.engine import triage


@pytest.fixture(scope="module")
def boxed():
    return load_model("boxed")


@pytest.mark.parametrize("masks", [True, False])
def test_pixels_are_judged_as_the_files_of_a_triage(boxed, phantoms, tmp_path, masks):
    chests = {f"{i}.png": phantoms(i, sick=i % 2 == 1, size=(256, 256)) for i in range(4)}
    pixels = {name: (one.image, one.mask if masks else None) for name, one in chests.items()}
    image = phantoms(0, size=(256, 256)).image
    strange = {
        "inverted.png": 255 - image,
        "turned.png": np.rot90(image),
        "blank.png": np.full_like(image, 90),
        "tiny.png": image[:20, :20],
        "deep.png": image.astype(np.uint16) * 256,
    }
    pixels |= {name: (one, None) for name, one in strange.items()}
    for name, (one, mask) in pixels.items():
        write_image(tmp_path / "in" / name, one)
        if mask is not None:
            write_mask(tmp_path / "in" / "masks" / name, mask)
    triage(tmp_path / "in", boxed, tmp_path / "w.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "w.jsonl.audit.jsonl").read_text().splitlines()]
    records = {line["file"]: line for line in lines if line["record"] == "image" and line.get("own") is None}
    assert len(records) == len(pixels)
    for name, (one, mask) in pixels.items():
        found, record = boxed.triage(one, mask), records[name]
        assert (found.reason or "") == record["reason"], name
        assert (found.score is None) == (record["score"] is None)
        if found.score is None:
            assert found.drawer == "review"
            assert found.explanation
            assert not found.notes  # which are about thresholds, and none was asked
            with pytest.raises(UnjudgeableError, match=found.reason.sentence[:20]):
                boxed.predict_proba(one, mask)
        else:
            assert found.drawer == record["decision"]
            assert found.score == pytest.approx(record["score"], abs=1e-9)
            assert boxed.predict_proba(one, mask).tolist() == [[1 - found.score, found.score]]
    assert {record["reason"] for record in records.values()} >= {"", Reason.POLARITY, Reason.TOO_SMALL}


def test_what_one_image_cannot_say_is_said(boxed, phantoms):
    one = phantoms(0, size=(256, 256))
    notes = " ".join(boxed.triage(one.image, one.mask).notes)
    assert "one image cannot show whether it comes from the hospitals" in notes
    assert "its age_group, view is not known, so the strictest threshold" in notes
    known = boxed.triage(one.image, one.mask, groups={"view": "PA", "age_group": "adult"}).notes
    assert "not known" not in " ".join(known)


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8)), np.zeros((2, 64, 64), np.uint8), np.zeros((0, 4), np.uint8), "chest.png"]
)
def test_what_is_no_picture_is_refused(boxed, wrong):
    with pytest.raises(InputError, match="pixels must be one picture of shape"):
        boxed.triage(wrong)
    with pytest.raises(InputError, match="mask must be one picture"):
        boxed.triage(np.zeros((64, 64), np.uint8), wrong)


def test_a_model_shows_itself_in_a_line_and_a_card(boxed, make_model):
    assert len(repr(boxed)) < 200
    assert repr(boxed).startswith(f"<Model {boxed.name} (hash {boxed.hash[:12]}, zones 1+6, bands 15, ")
    card = boxed._repr_html_()
    assert len(card) < 4000
    assert boxed.rule_out.message in card
    assert "not a medical device" in card
    assert load_model() is boxed
    # Its thresholds are those that decide where nothing but the image is known.
    deciding = {kind: float(getattr(boxed.groups, kind).limits({}, 1)[0]) for kind in ("rule_out", "rule_in")}
    assert deciding["rule_out"] < boxed.rule_out.threshold
    assert f"rule_out < {deciding['rule_out']:.4f}, rule_in > {deciding['rule_in']:.4f}" in repr(boxed)
    from sklearn.linear_model import LogisticRegression

    sly = make_model(LogisticRegression(), name="<script>alert(1)</script>")
    assert "<script>" not in sly._repr_html_()
    assert "hash not saved" in repr(sly)
