import sys

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from histcxr.exceptions import HistcxrError, HistcxrWarning, InputError, MissingDependencyError, OutputError
from histcxr.networks.search import FIRST_COLUMNS, SearchOptions, claim_folder, search_networks

pytest.importorskip("keras")
pytest.importorskip("keras_tuner")

PATIENTS = np.repeat(np.arange(20), 2)
SICK = PATIENTS % 2
X = np.random.default_rng(0).random((40, 3))
HELD_OUT = np.flatnonzero(PATIENTS >= 12)


class Network(BaseEstimator):
    """Learns nothing: its AUC is its width over 100, its seed decides in between. Notes every fit."""

    fits = []

    def __init__(self, rate=0.1, width=8, epochs=9, random_state=0):
        self.rate = rate
        self.width = width
        self.epochs = epochs
        self.random_state = random_state

    def fit(self, X, y, *, groups=None):
        if self.rate < 0:
            raise ValueError(f"rate must be above 0; got {self.rate}\nand more")
        self.fits.append((self.get_params(), len(X), groups))
        return self

    def predict_proba(self, X):
        noise = np.random.default_rng(self.random_state).random(len(X))
        positive = noise + self.width / 32 * SICK[HELD_OUT]
        return np.column_stack([1 - positive, positive])


def space(values):
    return {"rate": values.Float("rate", 0.1, 1), "width": values.Choice("width", [4, 8, 16])}


def failing_space(values):
    """Asks for a rate below 0 in about half of the trials."""
    return {"rate": values.Float("rate", -1, 1)}


@pytest.fixture(autouse=True)
def fits(monkeypatch):
    monkeypatch.setattr(Network, "fits", [])
    return Network.fits


def search(*, data=X, space=space, base=None, groups=PATIENTS, **changes):
    options = SearchOptions(**{"n_trials": 3, "method": "random", **changes})
    return search_networks("net", base or Network(), space, data, SICK, groups, HELD_OUT, options)


def no_seconds(found):
    return found.trials.drop(columns="seconds")


def test_hyperband_trains_the_better_ones_longer(fits):
    table = search(method="hyperband", n_trials=13).trials
    assert table.trial.tolist() == list(range(14))
    assert table.columns.tolist() == [*FIRST_COLUMNS, "epochs", "repeats", "rate", "width"]
    assert table.epochs.tolist() == [9] + [1] * 9 + [3] * 3 + [9]
    assert [params["epochs"] for params, *_ in fits] == table.epochs.tolist()
    for row in table[table.repeats != ""].itertuples():
        assert (row.rate, row.width) == (table.rate[row.repeats], table.width[row.repeats])
        assert row.epochs == 3 * table.epochs[row.repeats]
    assert table.score[table.repeats[10:13].astype(int)].min() >= table.score[1:10].nlargest(3).min()
    assert len({params["random_state"] for params, *_ in fits}) == 14


def test_trials_learn_from_one_part_and_are_judged_on_the_other(fits):
    found = search()
    assert [n for _, n, _ in fits] == [24] * 4
    assert not set(fits[0][2]) & set(PATIENTS[HELD_OUT])
    assert found.trials.images.tolist() == [16] * 4
    assert search(groups=None).score == found.score
    assert fits[-1][2] is None


def test_the_best_trial_is_given_back_unfitted():
    found = search(base=Network(width=-32))
    best = found.trials.loc[found.trials.score.idxmax()]
    assert best.trial > 0
    assert found.score == best.score > found.trials.score[0]
    assert found.parameters == {"rate": best.rate, "width": best.width}
    assert found.estimator.get_params() == Network(**found.parameters).get_params()
    assert (found.name, found.measure, found.not_tried) == ("net", "AUC of held-out patients", 0)


def test_the_base_competes():
    base = Network(width=640)
    found = search(base=base)
    assert found.parameters == {}
    assert found.score == 1
    assert found.estimator.get_params() == base.get_params()
    assert found.estimator is not base


def test_random_search_follows_its_seed():
    one, same, other = (no_seconds(search(random_state=seed)) for seed in (1, 1, 2))
    assert one.equals(same)
    assert not one[["rate", "width"]].equals(other[["rate", "width"]])


def test_bayesian_search_chooses_after_a_few_random_trials(monkeypatch):
    from sklearn.gaussian_process import GaussianProcessRegressor

    fitted_on = []
    fit = GaussianProcessRegressor.fit
    monkeypatch.setattr(
        GaussianProcessRegressor, "fit", lambda self, X, y: (fitted_on.append(len(y)), fit(self, X, y))[1]
    )
    found = search(method="bayesian", n_trials=7)
    assert fitted_on == [5, 6]
    assert found.trials.status.tolist() == ["ok"] * 8


@pytest.mark.parametrize("method", ["hyperband", "random"])
def test_a_search_is_gone_on_with_and_no_other_in_its_place(method, fits, tmp_path):
    folder = tmp_path / "search"
    whole = search(method=method, n_trials=11)
    fits.clear()
    search(method=method, n_trials=2, directory=folder)
    found = search(method=method, n_trials=11, directory=folder)
    assert len(fits) == 12  # nothing is trained twice
    assert no_seconds(found).equals(no_seconds(whole))
    for change, name in (
        ({"data": X + 1}, "data"),
        ({"groups": PATIENTS[::-1]}, "data"),
        ({"random_state": 1}, "random_state"),
        ({"base": Network(width=16)}, "estimator"),
        ({"space": failing_space}, "space"),
        ({"method": "bayesian"}, "method"),
    ):
        with pytest.raises(InputError, match=f"with other {name}$"):
            search(**{"method": method, "directory": folder, **change})


def test_a_broken_off_trial_is_run_again(fits, monkeypatch, tmp_path):
    fit, calls = Network.fit, []

    def interrupted(self, X, y, *, groups=None):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fit(self, X, y, groups=groups)

    monkeypatch.setattr(Network, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(directory=tmp_path / "search")
    short = search(directory=tmp_path / "search", seconds=1e-9)
    assert short.trials.trial.tolist() == [0, 1]  # the broken one has no score yet
    assert short.not_tried == 2
    found = search(directory=tmp_path / "search")
    assert len(calls) == 5  # two before, the broken one, its repetition, the last
    assert no_seconds(found).equals(no_seconds(search()))


def test_failed_trials_are_reported():
    with pytest.warns(HistcxrWarning, match=r"of 6 trials failed; the first with: ValueError: rate must be"):
        table = search(space=failing_space, n_trials=5).trials
    failed = table[table.rate < 0]
    assert 0 < len(failed) < 5
    assert set(failed.status) == {"failed"}
    assert failed.error.str.fullmatch("ValueError: rate must be above 0; got -[^\n]*").all()
    assert failed.score.isna().all()
    assert set(table.status[~(table.rate < 0)]) == {"ok"}


def test_a_search_in_which_nothing_works_is_given_up():
    with pytest.raises(
        HistcxrError, match=r"the first 3 trials of the search failed, .*rate must be above 0"
    ):
        search(space=lambda values: {"rate": -values.Float("rate", 1, 2)}, n_trials=9)


@pytest.mark.parametrize("method", ["hyperband", "random", "bayesian"])
def test_no_trial_begins_when_time_is_over(method):
    found = search(method=method, n_trials=50, seconds=1e-9)
    assert found.trials.trial.tolist() == [0]
    assert found.parameters == {}
    assert found.not_tried == 50


def test_time_ends_a_search_between_trials(monkeypatch):
    now, fit = [0.0], Network.fit

    def slow(self, X, y, *, groups=None):
        now[0] += 10
        return fit(self, X, y, groups=groups)

    monkeypatch.setattr(Network, "fit", slow)
    monkeypatch.setattr("histcxr.networks.search.time.monotonic", lambda: now[0])
    found = search(n_trials=50, seconds=35)
    assert found.trials.trial.tolist() == [0, 1, 2, 3]
    assert found.not_tried == 47


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "grid"}, "must be one of hyperband, random, bayesian for 'net'; got 'grid'"),
        ({"n_trials": 0}, "n_trials must be a whole number of at least 1, got 0"),
        ({"n_trials": True}, "n_trials must be a whole number of at least 0, got True"),
        ({"random_state": -1}, "random_state must be a whole number of at least 0, got -1"),
        ({"seconds": 0}, "seconds must be above 0, or None; got 0"),
        ({"space": lambda values: {"colour": 1}}, "space must return parameters of 'net'; it has no colour"),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(change, message, fits):
    with pytest.raises(InputError, match=message):
        search(**change)
    assert not fits


def test_a_missing_keras_tuner_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    with pytest.raises(
        MissingDependencyError, match=r"keras_tuner is needed to search for .* net .*pip install"
    ):
        search()


def test_no_trial_needs_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # Keras Tuner's own trials would fail without it
    assert (search().trials.status == "ok").all()


def test_what_is_no_search_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        claim_folder(tmp_path, Network(), 0, X, {})
    (tmp_path / "search.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        claim_folder(tmp_path, Network(), 0, X, {})
    with pytest.raises(OutputError, match="cannot be written"):
        claim_folder(tmp_path / "notes.txt" / "search", Network(), 0, X, {})


def test_a_folder_knows_values_shapes_and_dtypes(tmp_path):
    texts = np.array(["p1", "p2"], dtype=object)
    data = (np.arange(12), texts)
    claim_folder(tmp_path / "search", Network(), 0, data, {})
    same = (np.arange(12), np.array(["p" + str(n) for n in (1, 2)], dtype=object))
    claim_folder(tmp_path / "search", Network(), 0, same, {})
    for other in (
        (data[0] + 1, texts),
        (data[0].astype(np.int32), texts),
        (data[0].reshape(3, 4), texts),
        (data[0], texts[::-1]),
        (data[0], None),
    ):
        with pytest.raises(InputError, match="holds one with other data"):
            claim_folder(tmp_path / "search", Network(), 0, other, {})
