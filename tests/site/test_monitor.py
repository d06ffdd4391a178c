"""Worklists over the days: everything counts once, the share of sick is no alarm, and what goes wrong is one."""

import base64
import csv
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import histcxr
from histcxr.commands import main
from histcxr.decision.site import fit_site
from histcxr.decision.thresholds import DRAWERS, rule_in_threshold, rule_out_threshold
from histcxr.exceptions import InputError
from histcxr.features.recipe import Recipe
from histcxr.features.transformers import HistogramFeatures
from histcxr.site import monitor as module
from histcxr.site.monitor import monitor, watch_promise
from histcxr.site.worklists import Batch, Day
from histcxr.store import Model, save_model
from histcxr.worklist import audit_trail
from histcxr.worklist.audit_trail import AUDIT_SUFFIX, AuditTrail, row_of
from histcxr.worklist.rows import write_rows, writer_for

D = 24
NOW = "2026-01-01T00:00:00+00:00"
SICK = np.r_[2.0, 1.0, np.zeros(D - 2)]


def made_up(rng, n, share, shift=0.0, sensitivity=0.98):
    """Descriptions, scores and truth of patients; a score under .3 rules out, as often as the sensitivity says."""
    sick = rng.random(n) < share
    rows = sick[:, None] * SICK + rng.normal(size=(n, D)) + shift * np.r_[np.zeros(8), np.ones(D - 8)] / 4
    low = np.where(sick, rng.random(n) > sensitivity, rng.random(n) < 0.5)
    scores = np.where(low, rng.uniform(0, 0.3, n), rng.uniform(0.3, 1, n))
    return rows, scores, sick


@pytest.fixture(scope="module")
def site():
    rows, _, sick = made_up(np.random.default_rng(0), 1200, 0.5)
    return fit_site(rows, np.where(sick, "sick", "normal"), [f"feature {i}" for i in range(D)])


@pytest.fixture(scope="module")
def model(site):
    """A model whose numbers are never asked for: its hash, thresholds and site are."""
    counts = np.random.default_rng(1).poisson(5, (40, 1, 256))
    classifier = make_pipeline(HistogramFeatures(n_quantiles=8), StandardScaler(), LogisticRegression())
    classifier.fit(counts, np.arange(40) % 2)
    chosen = rule_out_threshold(np.full(100, 0.3)), rule_in_threshold(np.full(100, 0.999))
    return Model(
        "linear", classifier, Recipe(1), *chosen, training={"site": site.to_dict(), "normal": "Normal"}
    )


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    return save_model(model, tmp_path_factory.mktemp("model") / "m.histcxr")


@pytest.fixture(scope="module")
def digest(saved):
    return histcxr.load_model(saved).hash


def record(file, score, *, patient="", decision=None, reason="", site="", content=None):
    own = "review" if score is None or score >= 0.3 else "rule_out"
    return {
        "file": file, "mask": "", "sha256": content or f"content of {file}", "mask_sha256": "", "stat": None,
        "mask_stat": None, "patient": patient, "decision": decision or own, "score": score, "reason": reason,
        "detail": "", **({"own": own} if decision else {}), **({"site": site} if site else {}), "time": NOW,
    }  # fmt: skip


def packed(coordinates):
    return base64.b64encode(np.clip(np.round(coordinates * 16), -127, 127).astype(np.int8).tobytes()).decode()


def write_day(folder, number, records, digest):
    """Write a worklist and its trail, as triage does."""
    path = folder / f"day{number:03}.csv"
    begun = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)).isoformat()
    sites = max(len(base64.b64decode(one.get("site", ""))) for one in records)
    header = {
        "histcxr": histcxr.__version__, "packages": {}, "model": {"name": "knn", "hash": digest}, "segmenter": None,
        "thresholds": {"rule_out": {"threshold": 0.3}, "rule_in": {"threshold": None}}, "groups": None, "site": sites,
        "input": str(folder), "masks": None, "uids": False, "key": "", "options": {"batch_size": 4},
    }  # fmt: skip
    drawers = {drawer: sum(one["decision"] == drawer for one in records) for drawer in DRAWERS}
    unjudged = sum(one["score"] is None for one in records)
    with (
        patch.object(audit_trail, "_now", lambda: begun),
        AuditTrail(f"{path}{AUDIT_SUFFIX}", header) as trail,
    ):
        trail.append(records)
        counts = {"unjudged": unjudged, "resumed": 0, "site": None, "trust_site": False}
        trail.finish({"rows": len(records), **drawers, **counts})
    rows = [row_of(one, header, [0.3]) for one in records]
    with open(path, "wb") as file:
        write_rows(file, writer_for(str(path)), rows)
    return path


@pytest.fixture(scope="module")
def stream(site, digest, tmp_path_factory):
    """Make days of patients, and their truth: a function of the settings of each day."""

    def make(days, seed=0):
        folder, rng = tmp_path_factory.mktemp("days"), np.random.default_rng(seed)
        paths, truth = [], []
        for number, settings in enumerate(days):
            rows, scores, sick = made_up(rng, **settings)
            where = site.project(rows)
            names = [f"{number}-{i}" for i in range(len(sick))]
            records = [
                record(f"{name}.png", float(score), patient=name, site=packed(one))
                for name, score, one in zip(names, scores, where, strict=True)
            ]
            paths.append(write_day(folder, number, records, digest))
            truth += [
                (name, "Pneumonia" if one else "Normal", float(score) < 0.3)
                for name, one, score in zip(names, sick, scores, strict=True)
            ]
        return SimpleNamespace(paths=paths, truth=truth, folder=folder)

    return make


@pytest.fixture(scope="module")
def quiet(stream):
    """Twenty days whose share of sick goes up and down."""
    rng = np.random.default_rng(7)
    return stream([{"n": int(rng.integers(50, 150)), "share": rng.uniform(0.05, 0.9)} for _ in range(20)])


def labels(made, chosen=lambda name, out: True):
    path = made.folder / "later.csv"
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["patient_id", "label"])
        table.writerows((name, label) for name, label, out in made.truth if chosen(name, out))
    return path


def by_name(result):
    return {watch.name: watch for watch in result.watches}


def test_another_share_of_sick_is_no_alarm(quiet, model):
    result = monitor(quiet.paths, model, labels=labels(quiet))
    assert not result.alarm
    assert result.exit_code == 0
    assert all(watch.tested for watch in result.watches)
    assert all(len(watch.evidence) == 20 for watch in result.watches)
    truth = [(label != "Normal", out) for _, label, out in quiet.truth]
    sick = [out for one, out in truth if one]
    assert result.labelled["sensitivity"]["patients"] == len(sick)
    assert result.labelled["sensitivity"]["estimate"] == pytest.approx(1 - np.mean(sick))
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["days"][3]["worklist"] == "day003.csv"


def test_evidence_so_far_does_not_depend_on_the_days_to_come(quiet, model):
    whole, part = monitor(quiet.paths, model), monitor(quiet.paths[:12], model)
    for first, second in zip(whole.watches, part.watches, strict=True):
        assert first.evidence[:12] == pytest.approx(second.evidence)


def test_a_new_scanner_is_an_alarm_and_more_sick_is_a_note(stream, model):
    days = [{"n": 120, "share": 0.1 if i < 16 else 0.6, "shift": 1.1 * (i >= 16)} for i in range(24)]
    changed = monitor(stream(days).paths, model)
    assert by_name(changed)["change"].alarm
    assert by_name(changed)["change"].since >= "day016.csv"
    more = monitor(stream([{"n": 120, "share": 0.1 if i < 16 else 0.9} for i in range(19)]).paths, model)
    assert not more.alarm
    assert any("the scores moved" in note for note in more.notes)


def test_another_site_is_an_alarm_from_the_first_days(stream, model):
    found = by_name(monitor(stream([{"n": 60, "share": 0.3, "shift": 3.0}] * 6).paths, model))
    assert found["site"].alarm
    assert not found["change"].alarm
    assert "distance" in found["site"].finding
    assert found["change"].finding == "too few new patients so far: it takes 500"


@pytest.mark.parametrize("audited", [1, 5])
def test_a_promise_that_broke_is_an_alarm(stream, model, audited):
    """All patients are read, or every fifth of those ruled out and all others."""
    made = stream([{"n": 150, "share": 0.4, "sensitivity": 0.98 if i < 5 else 0.7} for i in range(20)])
    later = labels(made, lambda name, out: not out or int(name.split("-")[1]) % audited == 0)
    result = monitor(made.paths, model, labels=later)
    assert by_name(result)["sensitivity"].alarm
    assert by_name(result)["sensitivity"].since >= "day005.csv"
    assert not by_name(result)["change"].alarm
    sick = [out for _, label, out in made.truth if label != "Normal"]
    assert result.labelled["sensitivity"]["estimate"] == pytest.approx(1 - np.mean(sick), abs=0.06)
    assert (result.labelled["sensitivity"]["interval"] is None) == (audited > 1)


@pytest.mark.parametrize(("taken", "alarms"), [(0.05, False), (0.2, True)])
def test_drawers_that_are_read_in_different_shares_are_no_evidence(taken, alarms):
    """Of the normal ones many are ruled out, of whom every tenth is read; all others are."""
    rng = np.random.default_rng(11)
    choice = rule_in_threshold(np.zeros(100))
    for stream in range(6):
        batches, truths = [], {}
        for number in range(40):
            names = [f"{stream}-{number}-{i}" for i in range(100)]
            drawers = rng.choice(["rule_in", "rule_out", "review"], 100, p=[taken, 0.6, 0.4 - taken]).tolist()
            day = Day(str(number), "", 100, 0, {}, {}, 0, 100, 0.5, False)
            batches.append(Batch(day, dict(zip(names, drawers, strict=True)), [0.5] * 100, [None] * 100))
            truths |= {
                name: False
                for name, drawer in zip(names, drawers, strict=True)
                if drawer != "rule_out" or rng.random() < 0.1
            }
        watch, figures = watch_promise(batches, truths, choice, sick=False)
        assert watch.alarm == alarms
        assert figures["estimate"] == pytest.approx(1 - taken, abs=0.03)


def test_labels_of_one_side_alone_say_nothing(quiet, model):
    for side in (True, False):
        result = monitor(quiet.paths, model, labels=labels(quiet, lambda name, out, side=side: out == side))
        assert not by_name(result)["sensitivity"].tested
        assert "not read at all" in by_name(result)["sensitivity"].finding


def test_everything_counts_once(tmp_path, model, digest):
    first = [
        record("a.png", 0.1, patient="p", decision="review", reason="other_image"),
        record("b.png", 0.8, patient="p", content="same"),
        record("broken.png", None, reason="truncated"),
        record("c.png", 0.2),
    ]
    second = [
        record("copy.png", 0.8, content="same"),
        record("d.png", 0.1, patient="p"),
        record("c.png", 0.5, content="x"),
    ]
    paths = [write_day(tmp_path, i, one, digest) for i, one in enumerate((first, second))]
    result = monitor(paths, model)
    one, two = result.days
    assert (one.images, one.unjudged, one.reasons, one.patients) == (4, 1, {"truncated": 1}, 2)
    assert one.drawers == {"rule_out": 1, "review": 3, "rule_in": 0}
    assert (two.images, two.repeated, two.patients, two.mean_score) == (2, 1, 1, 0.5)
    assert any("1 image was in a worklist before" in note for note in result.notes)
    assert any("2 judged images name no patient" in note for note in result.notes)
    later = tmp_path / "later.csv"
    later.write_text("image,label\nb.png,COVID\ncopy.png,COVID\nbroken.png,COVID\nnobody.png,COVID\nd.png,\n")
    found = monitor(paths, model, labels=later).labelled
    assert (found["labels"], found["unmatched"], found["patients"], found["sick"]) == (4, 2, 1, 1)
    later.write_text("image,label\nc.png,Normal\n")
    with pytest.raises(InputError, match=r"'c.png' is in several worklists"):
        monitor(paths, model, labels=later)
    later.write_text("image,worklist,label\nc.png,day001.csv,Normal\n")
    assert monitor(paths, model, labels=later).labelled["patients"] == 1


def test_a_withheld_day_says_nothing_about_the_promise(tmp_path, model, digest):
    records = [
        record(f"{i}.png", 0.1, patient=f"{i}", decision="review", reason="uncertified_site")
        for i in range(30)
    ]
    path = write_day(tmp_path, 0, records, digest)
    later = tmp_path / "later.csv"
    later.write_text("patient_id,label\n" + "".join(f"{i},COVID\n" for i in range(30)))
    result = monitor([path], model, labels=later)
    assert result.days[0].withheld
    assert not by_name(result)["sensitivity"].tested
    assert any("say nothing about the promises" in note for note in result.notes)


def test_what_does_not_belong_is_refused(quiet, model, tmp_path, digest):
    path = write_day(tmp_path, 0, [record("a.png", 0.1)], "0" * 64)
    with pytest.raises(
        InputError, match="worklists must be of the given model .* another model or other thresholds"
    ):
        monitor([quiet.paths[0], path], model)
    alone = tmp_path / "alone.csv"
    shutil.copy(path, alone)
    with pytest.raises(InputError, match=r"alone.csv.audit.jsonl is missing"):
        monitor([alone], model)
    with pytest.raises(InputError, match="at least one worklist"):
        monitor([], model)
    wrong = tmp_path / "labels.csv"
    wrong.write_text("name,label\na,b\n")
    with pytest.raises(InputError, match="columns label, and patient_id or image"):
        monitor(quiet.paths[:1], model, labels=wrong)


def test_without_a_site_the_promises_are_watched_alone(quiet, model, monkeypatch):
    monkeypatch.setattr(module, "model_hash", lambda _: quiet_hash(quiet))
    bare = replace(model, training={})
    found = by_name(monitor(quiet.paths, bare, labels=labels(quiet)))
    assert [watch.tested for watch in found.values()] == [False, False, True, True]
    assert "histcxr calibrate" in found["site"].finding


def quiet_hash(made):
    first = made.paths[0].with_name(made.paths[0].name + AUDIT_SUFFIX).read_text().splitlines()[0]
    return json.loads(first)["model"]["hash"]


def test_the_command_draws_writes_and_alarms(stream, saved, tmp_path):
    pytest.importorskip("matplotlib")
    made = stream([{"n": 150, "share": 0.4, "sensitivity": 0.6}] * 6)
    arguments = [*map(str, made.paths), "-m", str(saved), "--labels", str(labels(made))]
    outputs = ["--json", str(tmp_path / "found.json"), "--plot", str(tmp_path / "days.png")]
    result = CliRunner().invoke(main, ["monitor", *arguments, *outputs])
    assert result.exit_code == 3, result.output
    assert "THE PROMISE OF RULE_OUT IS IN DOUBT" in result.output
    assert "| day005.csv" in result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["alarm"]
    assert found["exit_code"] == 3
    assert (tmp_path / "days.png").stat().st_size > 10_000
    result = CliRunner().invoke(main, ["monitor", *arguments, "--plot", "days.xyz"])
    assert (result.exit_code, "must end in .png, .pdf or .svg" in result.output) == (2, True)
    assert "worklists of" not in result.output  # refused before the work


def test_it_reads_what_triage_wrote(phantoms, tmp_path):
    """From pixels: two folders of phantoms, a few of them broken, by the model that comes with histcxr."""
    study = tmp_path / "study"
    shutil.copytree(phantoms.study(layout="flat", n_patients=6), study)
    (study / "broken.png").write_bytes(b"\x89PNG")
    paths = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for path in paths:
        histcxr.triage(study, "boxed", path)
    result = histcxr.monitor(paths, "boxed")
    one, two = result.days
    assert one.unjudged >= 1
    assert one.images == sum(one.drawers.values())
    assert two.repeated == one.images
    assert two.patients == 0
    assert not result.alarm
