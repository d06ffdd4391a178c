import sys

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from histcxr.exceptions import HistcxrError, HistcxrWarning, InputError, MissingDependencyError
from histcxr.networks.search import SearchOptions, best_epoch_outcome, search_networks

pytest.importorskip("keras")
pytest.importorskip("keras_tuner")


class Network(BaseEstimator):
    """Has the parameters of a network; never trained itself."""

    def __init__(self, rate=0.1, width=8):
        self.rate = rate
        self.width = width


def space(values):
    return {"rate": values.Float("rate", 0.1, 1), "width": values.Choice("width", [4, 8, 16])}


def failing_space(values):
    """Asks for a rate below 0 in about half of the trials."""
    return {"rate": values.Float("rate", -1, 1)}


class Training:
    """In place of a training: a score drawn from the seed, and a note of what was asked for."""

    def __init__(self, scores=None):
        self.asked = []
        self.scores = scores

    def __call__(self, model, share, seed):
        if model.rate < 0:
            raise ValueError(f"rate must be above 0; got {model.rate}")
        self.asked.append((model.rate, share, seed))
        score = np.random.default_rng(seed).random() if self.scores is None else self.scores(model)
        return {"score": score, "epochs": round(9 * share)}


def search(train, *, data="abc", space=space, base=None, **changes):
    settings = {
        "method": "random",
        "n_trials": 3,
        "seconds": None,
        "directory": None,
        "random_state": 0,
        "on_trial": None,
    }
    return search_networks(
        Network() if base is None else base,
        space,
        train,
        SearchOptions(**settings | changes),
        identity={"data": data},
        n_judged=20,
        purpose="to tune this",
    )


def test_hyperband_trains_the_better_ones_longer():
    train, rows = Training(), []
    found = search(train, method="hyperband", n_trials=13, on_trial=rows.append)
    table = found.table
    assert table.trial.tolist() == list(range(14))
    assert [row["trial"] for row in rows] == list(range(1, 14))
    assert table.columns.tolist() == [
        "trial", "status", "error", "score", "epochs", "seconds", "repeats", "rate", "width",
    ]  # fmt: skip
    assert table.epochs.tolist() == [9] + [1] * 9 + [3] * 3 + [9]
    for row in table[table.repeats != ""].itertuples():
        assert (row.rate, row.width) == (table.rate[row.repeats], table.width[row.repeats])
        assert row.epochs == 3 * table.epochs[row.repeats]
    assert table.score[table.repeats[10:13].astype(int)].min() >= table.score[1:10].nlargest(3).min()
    assert len({seed for _, _, seed in train.asked}) == 14
    assert found.n_judged == 20
    assert found.directory is None


def test_the_best_trial_is_given_back_unfitted():
    found = search(Training(lambda model: model.rate), base=Network(rate=0.01))
    assert found.best_score == found.table.score.max() == found.best_params["rate"]
    assert found.best_estimator.get_params() == found.best_params
    assert found.table.score[0] == 0.01


def test_the_base_competes():
    base = Network(rate=0.05)
    found = search(Training(lambda model: -model.rate), base=base)
    assert found.best_params == {}
    assert found.best_score == -0.05
    assert found.best_estimator.get_params() == base.get_params()
    assert found.best_estimator is not base


def test_random_search_follows_its_seed():
    one, same, other = (search(Training(), random_state=seed).table for seed in (1, 1, 2))
    assert one.drop(columns="seconds").equals(same.drop(columns="seconds"))
    assert not one[["rate", "width"]].equals(other[["rate", "width"]])


def test_bayesian_search_chooses_after_a_few_random_trials(monkeypatch):
    from sklearn.gaussian_process import GaussianProcessRegressor

    fitted_on = []
    fit = GaussianProcessRegressor.fit
    monkeypatch.setattr(
        GaussianProcessRegressor, "fit", lambda self, X, y: (fitted_on.append(len(y)), fit(self, X, y))[1]
    )
    found = search(Training(), method="bayesian", n_trials=7)
    assert fitted_on == [5, 6]
    assert found.table.status.tolist() == ["ok"] * 8


@pytest.mark.parametrize("method", ["hyperband", "random"])
def test_a_search_is_gone_on_with_and_no_other_in_its_place(method, tmp_path):
    folder = tmp_path / "search"
    whole = search(Training(), method=method, n_trials=11).table
    train = Training()
    search(train, method=method, n_trials=2, directory=folder)
    found = search(train, method=method, n_trials=11, directory=folder)
    assert len(train.asked) == 12  # nothing is trained twice
    assert found.directory == folder
    assert found.table.drop(columns="seconds").equals(whole.drop(columns="seconds"))
    for change, name in (
        ({"data": "abd"}, "data"),
        ({"random_state": 1}, "random_state"),
        ({"base": Network(width=16)}, "estimator"),
        ({"space": failing_space}, "space"),
    ):
        with pytest.raises(InputError, match=f"with other {name}$"):
            search(train, method=method, directory=folder, **change)


def test_a_broken_off_trial_is_run_again(tmp_path):
    train, calls = Training(), []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*arguments)

    with pytest.raises(KeyboardInterrupt):
        search(interrupted, directory=tmp_path / "search")
    table = search(interrupted, directory=tmp_path / "search").table
    assert len(calls) == 5  # two before, the broken one, its repetition, the last
    assert table.drop(columns="seconds").equals(search(train).table.drop(columns="seconds"))


def test_failed_trials_are_reported():
    rows = []
    with pytest.warns(HistcxrWarning, match=r"of 6 trials failed, the last one with: .*rate must be") as seen:
        table = search(Training(), space=failing_space, n_trials=6, on_trial=rows.append).table
    [told] = [warning for warning in seen if warning.category is HistcxrWarning]
    assert told.filename == __file__
    failed = table[table.rate < 0]
    assert 0 < len(failed) < 6
    assert set(failed.status) == {"failed"}
    assert failed.error.str.contains("ValueError: rate must be above 0; got -").all()
    assert failed.score.isna().all()
    assert all("score" in row for row in rows)
    assert set(table.status[table.rate > 0]) == {"ok"}


def test_a_search_in_which_nothing_works_is_given_up():
    rows = []
    with pytest.raises(HistcxrError, match="the first 3 trials of the search failed, .*rate must be above 0"):
        search(
            Training(),
            space=lambda values: {"rate": -values.Float("rate", 1, 2)},
            n_trials=9,
            on_trial=rows.append,
        )
    assert len(rows) == 3


@pytest.mark.parametrize("method", ["hyperband", "random", "bayesian"])
def test_no_trial_begins_when_time_is_over(method):
    """None at all, too, where the base took all of it: a limit of 0 trials is none to Keras Tuner."""
    found = search(Training(), method=method, n_trials=50, seconds=1e-9)
    assert found.table.trial.tolist() == [0]
    assert found.best_params == {}


def test_time_ends_a_search_between_trials(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("histcxr.networks.trials.time.monotonic", lambda: now[0])

    def train(model, share, seed):
        now[0] += 10
        return {"score": 0.5}

    assert search(train, n_trials=50, seconds=35).table.trial.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "grid"}, "method must be one of hyperband, random, bayesian; got 'grid'"),
        ({"n_trials": 0}, "n_trials must be an integer of at least 1; got 0"),
        ({"n_trials": True}, "n_trials must be an integer of at least 1; got True"),
        ({"random_state": -1}, "random_state must be an integer of at least 0; got -1"),
        ({"seconds": 0}, "seconds must be above 0 or None; got 0"),
        (
            {"space": lambda values: {"colour": 1}},
            "space must return parameters of Network; it has no colour",
        ),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(change, message):
    with pytest.raises(InputError, match=message):
        search(lambda *arguments: pytest.fail("ran"), **change)


def test_an_oracle_takes_at_least_one_trial():
    from histcxr.networks.trials import make_oracle

    for method in ("hyperband", "random", "bayesian"):
        with pytest.raises(InputError, match="n_trials must be an integer of at least 1; got 0"):
            make_oracle(method, space, n_trials=0, seed=1)
        assert make_oracle(method, space, n_trials=1, seed=1).max_trials == 1


def test_a_missing_keras_tuner_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    with pytest.raises(MissingDependencyError, match=r"keras_tuner is needed to tune this.*pip install"):
        search(Training())


def test_what_counts_is_the_epoch_whose_weights_are_kept():
    history = {"loss": [0.7, 0.5, 0.4], "val_loss": [0.6, 0.4, 0.5], "val_auc": [0.6, 0.8, 0.9]}
    assert best_epoch_outcome(history, 1) == {"score": 0.8, "val_loss": 0.4, "epochs": 3, "best_epoch": 1}
