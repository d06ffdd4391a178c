"""Is it disease or the scanner? Silent on clean data, and what is planted is named."""

import json
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats

import histcxr
from benchmarks.robustness.audit_confounds import PLANTED, made_up, named
from histcxr.commands import main
from histcxr.decision.intervals import Estimate
from histcxr.exceptions import InputError
from histcxr.features.recipe import Recipe
from histcxr.phantoms.anatomy import make_phantom
from histcxr.site.audit import audit
from histcxr.site.audit_answers import Answer, adjusted_answers, few, predict, strongest, transfer
from histcxr.site.audit_features import _file_numbers, around_lungs
from histcxr.study.cohort import Reading

RECIPE = Recipe(6)  # quicker than bands


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("studies"), {}

    def study(kind):
        if kind not in made:
            made[kind] = made_up(0, kind, folder, n_patients=140)
        return made[kind].copy()

    return study


@pytest.fixture(scope="module")
def clean(studies):
    return audit(studies("clean"), recipe=RECIPE)


def test_where_nothing_was_asked_nothing_is_said_to_be_clean(studies):
    few_of_each = audit(studies("clean").groupby("label").head(10).reset_index(drop=True), recipe=RECIPE)
    assert few_of_each.verdict[0] == "NOTHING WAS ASKED, so nothing can be said of these data."
    assert not few_of_each.found


def test_clean_data_are_silent(clean):
    assert (clean.found, clean.exit_code) == (False, 0)
    assert not clean.findings
    assert clean.verdict[0] == "Nothing found."
    assert "would have been found nine times of ten" in clean.text()
    assert len(clean.answers) > 20
    assert all(one.chance > 0 for one in clean.answers)
    control = clean.lungs[0]
    assert control["shuffled"] == pytest.approx(0.5, abs=0.03)
    assert control["auc"]["value"] > 0.7  # disease itself is no finding
    json.dumps(clean.to_dict(), allow_nan=False)


@pytest.mark.parametrize("kind", [kind for kind in PLANTED if kind != "clean"])
def test_what_is_planted_is_named(studies, kind):
    result = audit(studies(kind), recipe=RECIPE)
    assert named(result, kind)
    assert result.found
    assert result.verdict[0].startswith("FOUND")


def test_views_and_sources_that_go_with_disease_and_show_in_the_lungs(studies, tmp_path):
    table = studies("clean")
    sick = table["label"] != "Normal"
    table["view"] = np.where(sick ^ (np.arange(len(table)) % 10 == 0), "AP", "PA")
    for row in table.index[table["source"] == "other"]:
        place = str(tmp_path / f"{row}.png")
        cv2.imwrite(
            place, cv2.LUT(cv2.imread(table["image"][row], 0), np.arange(256).astype(np.uint8) // 2 + 60)
        )
        table.loc[row, "image"] = place
    result = audit(table, recipe=RECIPE)
    views = [one for one in result.findings if one.probe == "view" and not one.within]
    assert views[0].effect.value == pytest.approx(0.9, abs=0.05)
    assert views[0].association == pytest.approx(0.8, abs=0.1)
    told = [one for one in result.findings if one.probe == "lungs" and one.within == "label=Normal"]
    assert told[0].target == "source one from other"
    assert told[0].effect.value > 0.9
    assert "the scanner shows in them" in result.text()


def test_patients_in_several_splits_are_counted(studies, clean):
    table = studies("clean")
    twice = table["patient_id"][table["patient_id"].duplicated()].iloc[0]
    rows = table.index[table["patient_id"] == twice]
    table.loc[rows, "split"] = ["train", "test"]
    result = audit(table, recipe=RECIPE)
    assert result.copies.patients == 1
    assert result.found
    assert result.answers == clean.answers  # and all the rest repeats
    assert "Images in several splits: those of 1 patient." in result.text()


def test_what_cannot_be_asked_is_said(studies):
    table = studies("clean").drop(columns=["view", "age", "sex"]).assign(source="one")
    normal = table[table["label"] == "Normal"].head(30)
    result = audit(normal, recipe=RECIPE)
    assert not result.answers
    reasons = {one["question"]: one["reason"] for one in result.not_asked}
    assert reasons["within and across sources"] == "the data name fewer than two sources"
    assert "0 against" in reasons["sick from normal, all"]
    assert result.verdict[0].startswith("NOTHING WAS ASKED")
    assert (result.found, result.exit_code) == (False, 3)
    assert "No question could be asked" in result.text()
    with pytest.raises(InputError, match="normal must be a label of the data"):
        audit(normal, Reading(normal="healthy"))
    with pytest.raises(InputError, match="label"):
        audit(normal.assign(label=""))


def test_the_command_says_by_its_exit_code_whether_something_was_found(studies, tmp_path):
    codes = []
    for table in (studies("clean").head(30), studies("twins")):
        table.to_csv(tmp_path / "list.csv", index=False)
        run = CliRunner().invoke(
            main, ["audit", str(tmp_path / "list.csv"), "--json", str(tmp_path / "a.json"), "--overwrite"]
        )
        codes.append(run.exit_code)
        assert json.loads((tmp_path / "a.json").read_text())["verdict"][0] in run.output
    assert codes == [3, 3]  # thirty patients leave nothing to ask
    assert histcxr.audit is audit


def test_disease_moves_no_number_but_those_of_the_lungs():
    for seed in range(5):
        phantom = make_phantom(seed, size=(96, 110))
        ill = phantom.image.copy()
        ill[phantom.mask] = np.random.default_rng(seed).integers(0, 256, phantom.mask.sum())
        before, after = (around_lungs(image, phantom.mask) for image in (phantom.image, ill))
        assert before == after
        other = np.where(phantom.mask, phantom.image, np.uint8(255) - phantom.image)
        assert around_lungs(other, phantom.mask)["corners"] != before["corners"]
        assert around_lungs(other, phantom.mask)["mask shape"] == before["mask shape"]


def test_a_bar_is_a_bar_and_not_the_edge_of_lungs_cut_out():
    phantom = make_phantom(1, size=(200, 200))
    cut = np.where(phantom.mask, phantom.image, np.uint8(0))
    for side in ("upper", "lower", "left", "right"):
        assert around_lungs(cut, phantom.mask)["borders"][f"bar at the {side} border"] == 0
    barred = phantom.image.copy()
    barred[:10] = 0
    assert around_lungs(barred, phantom.mask)["borders"]["bar at the upper border"] == pytest.approx(0.05)


def test_files_are_told_by_their_making_and_not_by_what_they_show():
    def encoded(kind, quality, seed):
        return cv2.imencode(kind, make_phantom(seed).image, quality)[1].tobytes()

    coarse, fine = ([cv2.IMWRITE_JPEG_QUALITY, quality] for quality in (50, 95))
    assert _file_numbers(encoded(".jpg", fine, 1)) == _file_numbers(encoded(".jpg", fine, 2))
    named = "JPEG quantisation"
    assert (
        _file_numbers(encoded(".jpg", coarse, 1))[named] > 2 * _file_numbers(encoded(".jpg", fine, 1))[named]
    )
    png = encoded(".png", [], 1)
    assert _file_numbers(png)["PNG files"] == 1
    assert _file_numbers(png)["bytes of notes"] == 0
    note = b"tEXtA\0bcd"
    chunk = (5).to_bytes(4, "big") + note + zlib.crc32(note).to_bytes(4, "big")
    assert _file_numbers(png[:33] + chunk + png[33:])["bytes of notes"] == 5


def test_p_values_of_chance_are_uniform():
    rng = np.random.default_rng(0)
    drawn = [
        predict(pd.DataFrame(rng.normal(size=(50, 3))), rng.permutation(50) < 20, shuffles=199, seed=seed)
        for seed in range(60)
    ]
    low = sum(one.p_value <= 0.1 for one in drawn)
    assert stats.binomtest(low, len(drawn), 0.1).pvalue > 0.01
    assert np.mean([one.chance[0] for one in drawn]) == pytest.approx(0.5, abs=0.02)


def test_bent_relations_are_found():
    rng = np.random.default_rng(1)
    numbers = pd.DataFrame(rng.normal(size=(300, 4)), columns=list("abcd"))
    target = (np.abs(numbers["b"]) > 0.7).to_numpy()
    found = predict(numbers, target, shuffles=999)
    assert found.p_value == 1 / 1000
    pairs = target.sum() * (~target).sum()
    assert stats.mannwhitneyu(found.scores[target], found.scores[~target]).statistic > 0.9 * pairs
    assert strongest(numbers.assign(c=target), target)[0] == "c (higher, AUC 1.00)"


def test_all_questions_are_decided_together():
    def answer(p_value, value, probe="corners", limit=0.6):
        effect = Estimate(value, value - 0.05, value + 0.05)
        return Answer(probe, "", "", (50, 50), effect, p_value, 0.04, limit=limit)

    p_values = (0.001, 0.001, 0.01, 0.9, 0.016)
    answers = adjusted_answers(
        [answer(p, value) for p, value in zip(p_values, (0.7, 0.58, 0.7, 0.7, 0.7), strict=True)]
    )
    assert [one.adjusted for one in answers] == pytest.approx([0.0025, 0.0025, 0.05 / 3, 0.9, 0.02])
    assert [one.found for one in answers] == [True, False, True, False, True]
    assert adjusted_answers([answer(0.001, 0.02, "transfer", 0.05)])[0].found is False
    assert adjusted_answers([answer(0.001, 0.08, "transfer", 0.05)])[0].found is True
    assert adjusted_answers([]) == []
    more = adjusted_answers([answer(1.0, 0.5)] * 40)
    assert more[0].detectable > adjusted_answers([answer(1.0, 0.5)])[0].detectable > 0.6


def test_what_was_learnt_elsewhere_may_fail_here():
    rng = np.random.default_rng(2)
    target, inside = rng.random(300) < 0.5, np.arange(300) < 120
    turned = np.where(inside, -1, 1) * (target * 2 - 1)
    numbers = pd.DataFrame({"a": turned + rng.normal(size=300) / 2, "b": rng.normal(size=300)})
    home, away, lost, p_value = transfer(numbers, target, inside)
    assert home.value > 0.9
    assert away.value < 0.3
    assert lost.low > 0.5
    assert p_value < 0.001


def test_large_questions_are_drawn_from():
    rows = np.arange(10_000) % 2 == 0
    kept = few(rows, 0)
    assert kept.sum() == 3000
    assert not (kept & ~rows).any()
    assert (few(rows[:100], 0) == rows[:100]).all()
