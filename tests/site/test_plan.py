"""Plans from a model's scores, and what the command says of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import histcxr
from histcxr.commands import main
from histcxr.decision.planning import expected_worth, worths_of_scores
from histcxr.exceptions import InputError
from histcxr.site.plan import Aim, plan, plan_auc, plan_scores
from histcxr.study.certify import Promise
from histcxr.study.cohort import Reading, read_cohort
from histcxr.study.seen import leave_out_seen
from histcxr.study.train import train


@pytest.fixture(scope="module")
def data(phantoms):
    return histcxr.read_manifest(phantoms.study(n_patients=90, size=(64, 64), mask_size=(80, 80)))


@pytest.fixture(scope="module")
def model(data):
    return train(data, classifiers=["knn"], zones=1, trials=0).best


AIM = Aim(Promise(0.8, 0.7, 0.8), sizes=(3, 20, 50))


def test_a_plan_rests_on_patients_that_the_model_has_not_seen(model, data):
    found = plan(model, data, AIM, draws=0)
    cohort, seen = leave_out_seen(read_cohort(data, model, Reading("either")), model, ("train",))
    assert 0 < seen["images"] == len(data) - len(cohort)
    assert f"({seen['images']} images left out that it has seen)" in found.basis
    scores = model.score(cohort.values)
    worths = worths_of_scores(scores, cohort.sick, cohort.patients, draws=0)
    rows = {row.n: row for row in found.rule_out.rows}
    assert rows[50] == expected_worth(worths, 50, 0.8, 0.8)
    assert set(rows) == {8, 20, 50, found.rule_out.advice} - {None}
    assert found.rule_out.least == 8  # 0.8 ** 8 <= 0.2
    assert found.rule_in.least == 5
    assert found.prevalence == pytest.approx(len({*cohort.patients[cohort.sick]}) / len({*cohort.patients}))
    with pytest.raises(InputError, match="must hold sick and normal radiographs, got"):
        plan(model, data, split="train")


def test_few_patients_say_little_and_equal_seeds_say_the_same(model, data):
    wide, plain = plan(model, data, AIM, draws=50), plan(model, data, AIM, draws=0)
    assert wide == plan(model, data, AIM, draws=50)
    assert wide != plan(model, data, AIM, draws=50, seed=1)
    spans = [row.high - row.low for row in wide.rule_out.rows]
    assert np.mean(spans) > np.mean([row.high - row.low for row in plain.rule_out.rows])


def test_an_assumed_auc():
    found = plan_auc(0.9, Aim(prevalence=0.1))
    assert [row.n for row in found.rule_out.rows] == sorted({59, 100, 200, 500, 1000, found.rule_out.advice})
    assert found.rule_out.limit == pytest.approx(0.5665, abs=1e-3)
    assert found.rule_out.readings[0] > 590 > found.rule_in.readings[0]
    assert plan_auc(0.9).rule_out.readings == ()
    # Scores of sick that spread more have a longer lower tail.
    assert (
        plan_auc(0.9, spread=0.5).rule_out.limit
        < found.rule_out.limit
        < plan_auc(0.9, spread=2).rule_out.limit
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plan_auc(0.5), "auc must lie above 0.5, got 0.5"),
        (lambda: plan_auc(90), "auc must be a number strictly between 0 and 1, got 90"),
        (lambda: plan_auc(0.9, spread=0.0), "spread must be a number above 0, got 0.0"),
        (lambda: Aim(prevalence=0.0), "prevalence must be a number strictly between 0 and 1"),
        (lambda: Aim(within=1.0), "within must be a number strictly between 0 and 1"),
        (lambda: Aim(sizes=(0,)), "sizes must be a whole number of at least 1"),
        (lambda: Aim(Promise(sensitivity=95)), "sensitivity must be a number strictly between 0 and 1"),
    ],
)
def test_wrong_numbers_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_command_says_and_draws_what_the_plan_holds(tmp_path):
    pytest.importorskip("matplotlib")
    picture, saved = tmp_path / "plan.png", tmp_path / "plan.json"
    done = CliRunner().invoke(
        main, ["plan", "--auc", "0.9", "--prevalence", "0.2", "--plot", str(picture), "--json", str(saved)]
    )
    assert done.exit_code == 0, done.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(saved.read_text())
    assert found == json.loads(json.dumps(plan_auc(0.9, Aim(prevalence=0.2)).to_dict()))
    for row in found["rule_out"]["rows"]:
        assert f"| {row['median']:.2f} " in done.output
        assert f"{row['low']:.2f}-{row['high']:.2f}" in done.output
    assert "takes at least 59 sick patients" in done.output


def test_the_command_plans_from_data(model, phantoms, tmp_path):
    saved = histcxr.save_model(model, tmp_path / "model.histcxr")
    study = phantoms.study(n_patients=90, size=(64, 64), mask_size=(80, 80))
    done = CliRunner().invoke(
        main, ["plan", str(study), "-m", str(saved), "--split", "test", "--sensitivity", "0.8", "-j", "1"]
    )
    assert done.exit_code == 0, done.output
    assert "Planned from knn's scores of" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give DATA, radiographs to plan from, or --auc"),
        (["--auc", "0.9", "-o", "x"], "--output needs --draw"),
        ([".", "--draw", "5", "--within", "0.1"], "--within does not go with --draw"),
        ([".", "--draw", "5"], "--draw needs --output"),
        (
            [".", "--draw", "5", "-o", "../x", "-m", "."],
            "--model goes with --draw only where --by-score does",
        ),
        ([".", "--auc", "0.9"], "give DATA or --auc, not both"),
        (["--auc", "0.9", "--plot", "x.gif"], "must end in .png, .pdf or .svg, got 'x.gif'"),
    ],
)
def test_options_that_do_not_belong_together(arguments, message):
    done = CliRunner().invoke(main, ["plan", *arguments])
    assert done.exit_code == 2
    assert message in done.output


def test_scores_from_elsewhere_and_a_model_that_forgot(model, data):
    part = data[data["split"] == "test"].reset_index(drop=True)
    cohort = read_cohort(part, model, Reading("either"))
    forgot = replace(model, training={})
    found = plan(forgot, part, AIM)
    assert "does not remember whom it was trained on" in found.basis
    scores = plan_scores(model.score(cohort.values), cohort.sick, cohort.patients, AIM)
    assert (scores.rule_out, scores.rule_in, scores.auc) == (found.rule_out, found.rule_in, found.auc)


def test_the_site_test_s_images_are_those_of_the_models_reference(model, data):
    found = plan(model, data, AIM, draws=0).site_test
    assert found["least"] == 40
    assert plan_auc(0.9).site_test == {"least": 40, "distances": []}
    for row in found["distances"]:
        for power in (80, 95):
            n = row[f"images_{power}"]
            assert n is None or model.site.power(n, row["distance"]) >= power / 100
    eighty = [row["images_80"] or 1000 for row in found["distances"]]
    assert eighty == sorted(eighty, reverse=True)
