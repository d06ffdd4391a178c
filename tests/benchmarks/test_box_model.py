import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from histcxr.decision.thresholds import certify
from histcxr.features.recipe import Recipe
from histcxr.store import Model

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def box():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        import box_certificates
        import box_model

        yield box_model, box_certificates
    for name in ("box_model", "box_certificates"):
        sys.modules.pop(name, None)


def rows(origin, *patients):
    """One image of each patient, given as name, label and split."""
    table = pd.DataFrame(patients, columns=["patient_id", "label", "split"])
    return table.assign(image=[f"{origin}/{i}.png" for i in range(len(table))], mask="mask.png", source="")


def test_who_is_certified_trains_nothing_and_is_seen_whole(box, monkeypatch):
    model, _ = box
    tables = {
        "radiography": rows(
            "radiography",
            ("tested", "Normal", "train"),
            ("certified", "Normal", "train"),
            ("lungs", "Normal", "val"),
            ("learnt", "COVID", "test"),
        ),
        "covid_full": rows(
            "covid_full",
            ("tested", "Normal", "test"),
            ("certified", "Normal", "val"),
            ("certified", "Normal", "train"),
            ("learnt", "COVID", "train"),
        ),
        "chest_xray": rows("chest_xray", ("child", "NORMAL", "train"), ("other", "PNEUMONIA", "val")),
    }
    monkeypatch.setattr(model, "read_manifest", lambda path, **_: tables[Path(path).name].copy())
    joined = model.joined_manifest("data")
    parts = {part: set(group["patient_id"]) for part, group in joined.groupby("split")}
    assert parts == {"train": {"lungs", "child"}, "val": {"certified", "other"}, "test": {"tested", "learnt"}}
    assert set(joined.loc[joined["split"] == "val", "origin"]) == {"covid_full", "chest_xray"}
    assert "NORMAL" not in set(joined["label"])
    assert (joined.loc[joined["origin"] != "radiography", "mask"] == "").all()


def test_as_many_sick_as_normal_train_and_surplus_covid_certifies(box):
    model, _ = box
    sick = [(f"c{i}", "COVID", "train") for i in range(8)]
    normal = [(f"n{i}", "Normal", "train") for i in range(5)]
    table = pd.concat(
        [
            rows("covid_full", *sick, *normal).assign(origin="covid_full"),
            rows("chest_xray", *[(f"k{i}", "PNEUMONIA", "train") for i in range(4)]).assign(
                origin="chest_xray"
            ),
            rows("chest_xray", ("k9", "Normal", "train")).assign(origin="chest_xray"),
            rows("radiography", *sick, *[(f"r{i}", "Normal", "train") for i in range(8)]).assign(
                origin="radiography"
            ),
        ],
        ignore_index=True,
    )
    found = model.balanced(table)
    train, val = (found[found["split"] == part] for part in ("train", "val"))
    assert train.groupby("origin")["label"].value_counts()["covid_full"].to_dict() == {
        "COVID": 5,
        "Normal": 5,
    }
    assert (train["origin"] == "chest_xray").sum() == 2
    assert set(val["origin"]) == {"covid_full"}
    assert len(val) == 3
    assert not set(val["patient_id"]) & set(train["patient_id"])


def judged(certificates):
    """Twelve hundred patients with two images each, half of them sick, sicker the higher the score."""
    rng = np.random.default_rng(0)
    sick = np.arange(1200) % 2 == 0
    scores = np.clip(rng.normal(0.35 + 0.3 * np.repeat(sick, 2), 0.1), 0, 1)
    table = pd.DataFrame(
        {
            "patient_id": np.repeat([f"p{i}" for i in range(1200)], 2),
            "label": np.repeat(np.where(sick, np.where(np.arange(1200) % 4, "COVID", "TB"), "Normal"), 2),
            "age_group": "adult",
            "view": np.repeat(np.where(np.arange(1200) % 3, "AP", ""), 2),
            "origin": "covid_full",
            "source": "",
            "sex": "",
        }
    )
    counts = rng.integers(0, 9, (len(table), 6, 256))
    return certificates.Judged(table, counts, scores, table.iloc[:3].assign(reason="lungs_not_found"))


def test_promises_are_kept_where_they_were_made_and_refused_ones_are_not_ruled_out(box):
    _, certificates = box
    val = judged(certificates)
    groups = certificates.certify_within_groups(val)
    assert set(groups.rule_out.groups["label"]) == {"COVID", "TB"}
    figures = certificates.promises(val, groups)
    for name in ("all", "label COVID", "label TB", "view AP"):
        assert figures[name]["sensitivity"]["value"] >= 0.95
        assert (
            figures[name]["rule_in_specificity"] is None
            or figures[name]["rule_in_specificity"]["value"] > 0.95
        )
    assert figures["all"]["specificity"]["value"] > 0.5
    assert figures["all"]["sick"] == 600
    assert figures["all"]["refused"] == 0  # both patients have another image, which was judged
    unseen = val.refused.assign(patient_id=["x", "x", "y"], label="TB")
    worse = certificates.promises(certificates.Judged(val.table, val.counts, val.scores, unseen), groups)
    assert worse["label TB"]["refused"] == 2
    assert worse["label TB"]["sensitivity"] == figures["label TB"]["sensitivity"]
    assert worse["label TB"]["sensitivity_of_all"]["value"] > worse["label TB"]["sensitivity"]["value"]
    assert "label COVID" in certificates.promises_table(worse)


def test_a_site_knows_its_own_patients(box):
    _, certificates = box
    val = judged(certificates)
    thresholds = certify(val.scores, val.sick, None)
    scorer = Model("none", DummyClassifier(), Recipe(6), *thresholds)
    site = certificates.site_reference(scorer, val)
    assert "covid_full / COVID / AP" in site.groups
    values = scorer.site_numbers(val.counts)
    for rows_, differs in ((values, False), (values + 1, True)):
        folder = site.sketch()
        folder.add(site.project(rows_))
        assert site.test(folder).differs is differs


def test_a_promise_that_test_patients_do_not_confirm_is_taken_back(box):
    _, certificates = box
    rng = np.random.default_rng(0)
    n = 400
    labels = np.where(np.arange(n) % 2 == 0, "COVID", "Normal")
    ages = np.where(np.arange(n) < n // 2, "adult", "child")
    table = pd.DataFrame(
        {"label": labels, "age_group": ages, "view": "", "patient_id": np.arange(n).astype(str)}
    )
    scores = np.where(labels == "COVID", 0.7, 0.3) + rng.normal(0, 0.1, n)
    val = certificates.Judged(table, np.empty(0), scores, table[:0])
    groups = certificates.certify_within_groups(val)
    same, notes = certificates.withdrawn(groups, val)
    assert notes == []
    assert same.to_dict() == groups.to_dict()
    moved = scores + 0.25 * ((labels == "Normal") & (ages == "child"))
    kept, notes = certificates.withdrawn(groups, certificates.Judged(table, np.empty(0), moved, table[:0]))
    assert {"child" in note or "label Normal" in note for note in notes} == {True}
    assert not kept.rule_in.groups["age_group"]["child"].certified
    assert kept.rule_in.groups["age_group"]["adult"] == groups.rule_in.groups["age_group"]["adult"]
    assert kept.rule_out == groups.rule_out
    assert (kept.decide([0.99], {"age_group": ["child"]}) == "review").all()
