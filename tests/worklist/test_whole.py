"""What the whole folder says: patients with several images, and whether the folder is of a certified site."""

import contextlib
import csv
import dataclasses
import json
import tracemalloc

import numpy as np
import pytest

from histcxr.decision.site import fit_site
from histcxr.decision.thresholds import certify
from histcxr.exceptions import UnjudgeableError
from histcxr.features.measuring import count_lungs
from histcxr.reports.text import triage_report
from histcxr.worklist.engine import triage
from histcxr.worklist.whole import WholeFolder, patient_of

from .conftest import lungs, write_dicom_pair, write_pair


def rows_of(path):
    with open(path, newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def counts_of(model, seeds, change=lambda image: image, sick=lambda seed: seed % 2 == 0):
    """Counts of the pictures that can be judged, and whether they are sick."""
    found, truth = [], []
    for seed in seeds:
        image, mask = lungs(seed, sick(seed))
        with contextlib.suppress(UnjudgeableError):
            found.append(count_lungs(change(image), mask > 0, recipe=model.recipe))
            truth.append("sick" if sick(seed) else "normal")
    return np.stack(found), truth


@pytest.fixture(scope="module")
def certified(model):
    """The model with a reference of its site: the same pictures as in the folders here."""
    counts, groups = counts_of(model, range(1000, 1300))
    site = fit_site(model.site_numbers(counts), groups, model.site_names)
    return dataclasses.replace(model, training={"site": site.to_dict()})


def write_folder(folder, n, change=lambda image: image, sick=lambda seed: seed % 2 == 0):
    import cv2

    for seed in range(n):
        path = write_pair(folder, f"{seed:03}.png", seed, sick(seed))
        path.write_bytes(cv2.imencode(".png", change(lungs(seed, sick(seed))[0]))[1].tobytes())
    return folder


def other_scanner(image):
    """Detail lost and contrast changed: each picture still looks sound."""
    return np.clip(image.astype(np.float64) * 0.55 + 60, 1, 254).astype(np.uint8)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_folder_of_the_certified_site_keeps_its_drawers(certified, tmp_path, share):
    write_folder(tmp_path / "in", 60, sick=lambda seed: seed < 60 * share)
    summary = triage(tmp_path / "in", certified, tmp_path / "w.csv")
    assert summary.site["tested"]
    assert not summary.withheld
    assert summary.drawers["rule_out"] > 0


def test_a_folder_of_another_site_is_withheld_whatever_its_share_of_sick(certified, tmp_path):
    for share in (0.1, 0.9):
        write_folder(tmp_path / f"in{share}", 60, other_scanner, lambda seed, share=share: seed < 60 * share)
        summary = triage(tmp_path / f"in{share}", certified, tmp_path / f"w{share}.csv")
        assert summary.withheld
        assert summary.drawers["rule_out"] == summary.drawers["rule_in"] == 0
        assert summary.exit_code == 3
        assert summary.unjudged == 0  # they were judged: the promise is what is missing
        report = triage_report(summary.to_dict())
        assert "UNCERTIFIED SITE" in report
        assert "p below 0.001" in report
        assert "histcxr adapt or calibrate" in report
        codes = [row["reason_code"] for row in rows_of(tmp_path / f"w{share}.csv").values()]
        assert "uncertified_site" in codes


def test_a_trusted_site_keeps_its_drawers_and_the_trail_says_so(certified, tmp_path):
    write_folder(tmp_path / "in", 60, other_scanner)
    summary = triage(tmp_path / "in", certified, tmp_path / "w.csv", trust_site=True)
    assert summary.drawers["rule_out"] + summary.drawers["rule_in"] > 0
    assert summary.site["differs"]
    last = json.loads((tmp_path / "w.csv.audit.jsonl").read_text().splitlines()[-1])
    assert last["trust_site"] is True
    assert last["site"]["differs"] is True
    # The same folder without trust: nothing is measured anew, and the drawers are taken back.
    again = triage(tmp_path / "in", certified, tmp_path / "w.csv")
    assert again.resumed == 60
    assert again.withheld
    back = triage(tmp_path / "in", certified, tmp_path / "w.csv", trust_site=True)
    assert back.drawers == summary.drawers


def test_a_small_folder_is_not_tested_and_that_is_said(certified, model, study, tmp_path):
    summary = triage(study, certified, tmp_path / "w.csv")
    assert not summary.site["tested"]
    assert any("too few to test" in note for note in summary.notes)
    bare = triage(study, model, tmp_path / "v.csv")
    assert bare.site is None
    assert any("could not be tested" in note for note in bare.notes)


@pytest.mark.parametrize("numbers", ["fail", "nan", "fail for some"])
def test_a_folder_that_cannot_be_tested_is_withheld_and_said_to_be(certified, tmp_path, monkeypatch, numbers):
    """Numbers that fail are no reason to let drawers stand, and no small folder either."""
    write_folder(tmp_path / "in", 60)
    real, calls = type(certified).site_numbers, []

    def broken(self, counts):
        calls.append(len(counts))
        if numbers == "nan":
            return np.full((len(counts), len(certified.site.features)), np.nan)
        if numbers == "fail for some" and len(calls) > 1:
            return real(self, counts)
        raise ZeroDivisionError("in the numbers")

    monkeypatch.setattr(type(certified), "site_numbers", broken)
    summary = triage(tmp_path / "in", certified, tmp_path / "w.csv", batch_size=10)
    assert summary.withheld
    assert summary.exit_code == 3
    assert summary.unjudged == 0
    assert summary.drawers == {"rule_in": 0, "review": 60, "rule_out": 0}
    assert "UNTESTED SITE" in triage_report(summary.to_dict())
    assert "too few" not in triage_report(summary.to_dict())
    codes = {row["reason_code"] for row in rows_of(tmp_path / "w.csv").values()}
    assert codes <= {"", "untested_site"}
    assert "untested_site" in codes
    trusted = triage(tmp_path / "in", certified, tmp_path / "w.csv", batch_size=10, trust_site=True)
    assert trusted.drawers["rule_out"] > 0
    assert any("trusted as asked" in note for note in trusted.notes)


def test_a_small_folder_is_too_small_whether_its_numbers_fail_or_not(certified, tmp_path, monkeypatch):
    monkeypatch.setattr(type(certified), "site_numbers", lambda *_: np.empty(0))
    write_folder(tmp_path / "in", 12)
    summary = triage(tmp_path / "in", certified, tmp_path / "w.csv")
    assert not summary.withheld
    assert any(note.startswith("12 judged images are too few to test") for note in summary.notes)


def test_patients_cost_a_few_bytes_a_row():
    whole = WholeFolder(None, trusted=False)
    record = {"decision": "rule_out", "score": 0.1, "reason": ""}
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for row in range(10_000):
        whole.add(row, {**record, "patient": f"patient {row}"})
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < 25 * 10_000
    assert whole.patients() == {"rule_in": 0, "review": 0, "rule_out": 10_000}


def test_a_patient_is_ruled_out_only_when_every_image_is(model, tmp_path):
    lines = ["image,mask,patient_id"]
    for seed in range(12):
        write_pair(tmp_path / "in", f"{seed:03}.png", seed, sick=seed == 5)
        lines.append(f"{seed:03}.png,masks/{seed:03}.png,p{seed // 3}")
    (tmp_path / "in" / "manifest.csv").write_text("\n".join(lines))
    summary = triage(tmp_path / "in", model, tmp_path / "w.csv")
    rows = rows_of(tmp_path / "w.csv")
    alone = triage_alone(model, tmp_path)
    assert {row["patient_id"] for row in rows.values()} == {"p0", "p1", "p2", "p3"}
    for patient in ("p0", "p1", "p2", "p3"):
        mine = [name for name, row in rows.items() if row["patient_id"] == patient]
        all_out = all(alone[name]["decision"] == "rule_out" for name in mine)
        for name in mine:
            assert (rows[name]["decision"] == "rule_out") == all_out
            if alone[name]["decision"] == "rule_out" and not all_out:
                assert rows[name]["reason_code"] == "other_image"
    assert any(row["reason_code"] == "other_image" for row in rows.values())
    assert sum(summary.patients.values()) == 4
    assert summary.unjudged == 0
    # Row by row and by patient the worklist says the same.
    out = {row["patient_id"] for row in rows.values() if row["decision"] == "rule_out"}
    assert len(out) == summary.patients["rule_out"]


def triage_alone(model, tmp_path):
    """The same images without patients."""
    text = (tmp_path / "in" / "manifest.csv").read_text()
    (tmp_path / "alone.csv").write_text(
        "\n".join(
            [
                "image,mask",
                *(f"in/{a},in/{b}" for a, b, _ in (line.split(",") for line in text.split("\n")[1:])),
            ]
        )
    )
    triage(tmp_path / "alone.csv", model, tmp_path / "alone_w.csv")
    return {name.removeprefix("in/"): row for name, row in rows_of(tmp_path / "alone_w.csv").items()}


def test_a_resumed_run_revises_as_a_whole_one(model, tmp_path):
    """An image that comes later takes back the rule_out of a patient's earlier one."""
    write_folder(tmp_path / "search", 12, sick=lambda _: False)
    triage(tmp_path / "search", model, tmp_path / "search.csv")
    normal = [name for name, row in rows_of(tmp_path / "search.csv").items() if row["decision"] == "rule_out"]
    for place, seed, sick in ((0, int(normal[0][:3]), False), (1, int(normal[1][:3]), False), (2, 2, True)):
        write_pair(tmp_path / "in", f"{place}.png", seed, sick=sick)
    first = "image,mask,patient_id\n0.png,masks/0.png,p\n1.png,masks/1.png,q\n"
    (tmp_path / "in" / "manifest.csv").write_text(first)
    triage(tmp_path / "in", model, tmp_path / "w.csv")
    before = rows_of(tmp_path / "w.csv")
    assert before["0.png"]["decision"] == "rule_out"
    (tmp_path / "in" / "manifest.csv").write_text(first + "2.png,masks/2.png,p\n")
    summary = triage(tmp_path / "in", model, tmp_path / "w.csv")
    assert summary.resumed == 2
    after = rows_of(tmp_path / "w.csv")
    assert after["2.png"]["decision"] != "rule_out"
    assert (after["0.png"]["decision"], after["0.png"]["reason_code"]) == ("review", "other_image")
    assert after["1.png"] == before["1.png"]


def test_images_of_one_dicom_study_are_one_patient(model, tmp_path):
    for seed in range(4):
        write_dicom_pair(tmp_path / "in", f"{seed}.dcm", seed, sick=seed == 1, study=f"1.2.840.{seed // 2}")
    triage(tmp_path / "in", model, tmp_path / "w.csv")
    rows = rows_of(tmp_path / "w.csv")
    patients = [rows[f"{seed}.dcm"]["patient_id"] for seed in range(4)]
    assert patients[0] == patients[1] != patients[2] == patients[3]
    assert all(name.startswith("study-") for name in patients)
    assert "1.2.840" not in (tmp_path / "w.csv").read_text()
    assert "1.2.840" not in (tmp_path / "w.csv.audit.jsonl").read_text()
    triage(tmp_path / "in", model, tmp_path / "again.csv")
    assert rows_of(tmp_path / "again.csv") == rows  # runs of one folder can be compared
    (tmp_path / "in").rename(tmp_path / "other")
    triage(tmp_path / "other", model, tmp_path / "other.csv")
    assert rows_of(tmp_path / "other.csv")["0.dcm"]["patient_id"] != patients[0]  # of two folders not


def test_images_without_patients_are_said(model, study, tmp_path):
    summary = triage(study, model, tmp_path / "w.csv")
    assert sum(summary.patients.values()) == 23
    assert any("name no patient" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("n_images", "correlation"), [(1, 0.5), (2, 0.5), (3, 0.5), (6, 0.5), (3, 0.8), (6, 0.8)]
)
def test_the_promise_to_patients_is_kept_for_rows(n_images, correlation):
    """Simulated patients with correlated images, certified by their highest: rows keep 95 % at 95 % confidence."""
    rng = np.random.default_rng(n_images)

    def patients(n):
        own = rng.normal(size=(n, 1)) * np.sqrt(correlation)
        logits = 1.5 + own + rng.normal(size=(n, n_images)) * np.sqrt(1 - correlation)
        return 1 / (1 + np.exp(-logits))

    broken = 0
    for _ in range(200):
        scores = patients(300)
        names = np.repeat(np.arange(300), n_images)
        chosen = certify(scores.ravel(), np.ones(names.size, bool), names)
        fresh = patients(2000)
        whole = WholeFolder(None, trusted=False)
        low = fresh < chosen.rule_out.threshold
        missed = low.all(axis=1).mean()  # what is left of rule_out after the revision
        for row, out in enumerate(low[:50].ravel()):
            decision = "rule_out" if out else "review"
            whole.add(
                row, {"decision": decision, "patient": f"p{row // n_images}", "score": 0.5, "reason": ""}
            )
        kept = low[:50].ravel().copy()
        kept[whole.demoted(kept.size)] = False
        np.testing.assert_array_equal(kept.reshape(-1, n_images).any(axis=1), low[:50].all(axis=1))
        broken += missed > 0.05
    assert broken <= 20  # 5 % of 200, and its chance (P < 0.002)


def test_patients_are_named_by_the_list_before_the_study():
    assert patient_of({"patient_id": "p"}, "1.2.3", "key") == "p"
    assert (
        patient_of({}, "1.2.3", "key") == patient_of({}, "1.2.3", "key") != patient_of({}, "1.2.3", "other")
    )
    assert patient_of({}, "", "key") == ""
