"""Search for the settings of a network with Keras Tuner: Hyperband, random or Bayesian, in a folder that remembers.

Keras Tuner chooses the settings and keeps the records; a network is trained by its own ``fit``. Keras Tuner's own
training imports TensorBoard in every trial, and fails in every trial without it.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import roc_auc_score

from histcxr.checks import whole_number
from histcxr.exceptions import HistcxrError, HistcxrWarning, InputError, MissingDependencyError
from histcxr.files.writing import replacing, write_error
from histcxr.networks.backend import import_neural

#: The ways to search there are.
METHODS = ("hyperband", "random", "bayesian")

#: What every table of trials begins with.
FIRST_COLUMNS = ("classifier", "trial", "status", "error", "score", "score_std", "images", "seconds")

#: From a ``keras_tuner.HyperParameters``, asked for each value by name, to parameters of a classifier.
Space = Callable[[Any], dict[str, Any]]

# Hyperband's longest training in its own units; each is a ninth of the epochs. With its factor of 3 trainings are then
# of a ninth, a third or all of the epochs: shorter ones tell nothing about a network.
_UNITS = 9

# So many trials may fail before any succeeds; then the fault is not in their settings.
_HOPELESS = 3


@dataclass(frozen=True)
class SearchOptions:
    """How to search, and for how long.

    - ``n_trials``: settings to try besides the defaults, a longer training anew counting as another; None: as usual
    - ``method``: for networks ``"hyperband"`` (Li et al., 2018: many for a ninth of the epochs, the better ones anew
      for a third, the best for all), ``"random"`` or ``"bayesian"`` (all in full); None: the first
    - ``seconds``: for networks: no trial begins later than this, except the defaults'
    - ``directory``: where the search is kept; the same one goes on there, a larger ``n_trials`` extends it; None:
      nowhere
    """

    n_trials: int | None = None
    method: str | None = None
    seconds: float | None = None
    directory: str | Path | None = None
    random_state: int = 0

    def __post_init__(self) -> None:
        whole_number(0 if self.n_trials is None else self.n_trials, "n_trials")
        whole_number(self.random_state, "random_state")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"seconds must be above 0, or None; got {self.seconds!r}")


@dataclass(frozen=True)
class TuningResult:
    """What a search found: the ``estimator`` with the best settings, and the wall time in ``seconds``.

    - ``parameters``: what was set, empty where the defaults won; of a stack as ``MEMBER__PARAMETER``
    - ``score``: the AUC, as the highest of several too high for new data; ``measure``: what it is
    - ``trials``: one row a trial: ``classifier, trial`` (0: the defaults), ``status`` ("ok" or "failed"), ``error``,
      ``score, score_std`` (over the folds; a network's on one part), ``images`` (that the score rests on), ``seconds``;
      for networks ``epochs`` (at most) and ``repeats`` (the shorter trial of these settings); then the settings
    - ``not_tried``: trials that the time limit left out
    """

    name: str
    estimator: Any
    parameters: dict[str, Any]
    score: float
    trials: pd.DataFrame
    not_tried: int = 0
    seconds: float = 0.0
    measure: str = "cross-validated AUC"


def search_networks(
    name: str,
    base: BaseEstimator,
    space: Space,
    X: NDArray[Any],
    y: NDArray[Any],
    groups: NDArray[Any] | None,
    held_out: NDArray[np.intp],
    options: SearchOptions,
) -> TuningResult:
    """Train networks on one part of the images and keep the settings with the highest AUC on the other.

    ``base``: not fitted, with ``epochs`` (of the longest training) and ``random_state``; it is trained first and
    competes. ``X, y, groups``: images or counts (n, ...), two classes and patients (n,); ``held_out``: int rows to
    judge by, of patients who have no other row.

    InputError, HistcxrError: an argument does not fit, the directory holds another search, or the first three trials
    fail (a warning when only some do). MissingDependencyError: no Keras, backend or Keras Tuner.
    """
    started = time.monotonic()
    check_method(options.method, METHODS, name)
    n_trials = whole_number(options.n_trials or 0, "n_trials", least=1)  # 0 is "any number" to Keras Tuner
    import_neural("keras", f"to search for the settings of {name}")
    keras_tuner = import_neural("keras_tuner", f"to search for the settings of {name}")
    from keras_tuner.engine.base_tuner import BaseTuner

    values = keras_tuner.HyperParameters()
    unknown = sorted(set(space(values)) - set(base.get_params()))
    if unknown:
        raise InputError(f"space must return parameters of {name!r}; it has no {', '.join(unknown)}")
    learnt = np.setdiff1d(np.arange(len(y)), held_out)
    images, truth, patients = X[learnt], y[learnt], None if groups is None else groups[learnt]
    judged, judged_truth = X[held_out], y[held_out]

    def train(parameters: dict[str, Any], share: float, number: int) -> dict[str, float]:
        """Train a network for a share of its epochs, with a seed of its own: no start is shared, good or bad."""
        begun = time.perf_counter()
        seed = int(np.random.SeedSequence([options.random_state, number]).generate_state(1)[0]) >> 1
        network = clone(base).set_params(**parameters)
        epochs = max(1, round(network.epochs * share))
        network.set_params(epochs=epochs, random_state=seed).fit(images, truth, groups=patients)
        score = float(roc_auc_score(judged_truth, network.predict_proba(judged)[:, 1]))
        return {"score": score, "seconds": time.perf_counter() - begun, "epochs": epochs}

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.directory or temporary)
        about = {"space": values.get_config()["space"], "method": options.method or METHODS[0]}
        claim_folder(folder, base, options.random_state, (X, y, groups, held_out), about)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it goes on
            oracle = _make_oracle(keras_tuner.oracles, values, n_trials, options)
            tuner = BaseTuner(oracle, directory=str(folder), project_name="trials")
        first = folder / "first.json"
        if not first.exists():
            with replacing(first) as unfinished:
                unfinished.write_text(json.dumps(train({}, 1.0, 0)))
        outcome = json.loads(first.read_text())
        in_time = _run_trials(tuner, space, train, started + (options.seconds or math.inf))

    score, parameters, rows = outcome["score"], {}, [{"trial": 0, "error": "", **outcome, "repeats": ""}]
    for trial in sorted(oracle.trials.values(), key=lambda trial: int(trial.trial_id)):
        if trial.status not in ("COMPLETED", "FAILED"):
            continue  # broken off, and no time to go on with it
        found = {key: trial.metrics.get_last_value(key) for key in trial.metrics.metrics}
        settings = trial.hyperparameters.values
        shorter = settings.get("tuner/trial_id", "")
        rows.append({"trial": int(trial.trial_id) + 1, "error": trial.message or "", **found})
        rows[-1]["repeats"] = int(shorter) + 1 if shorter else ""
        rows[-1] |= {key: value for key, value in settings.items() if not key.startswith("tuner/")}
        if found and found["score"] > score:
            score, parameters = float(found["score"]), space(trial.hyperparameters.copy())
    table = pd.DataFrame(rows).assign(classifier=name, score_std=np.nan, images=len(held_out))
    table["status"] = np.where(table["error"] == "", "ok", "failed")
    table = table[[*FIRST_COLUMNS, *(column for column in table if column not in FIRST_COLUMNS)]]
    report_failures(name, table)
    estimator, not_tried = clone(base).set_params(**parameters), 0 if in_time else n_trials + 1 - len(table)
    taken = time.monotonic() - started
    return TuningResult(
        name, estimator, parameters, score, table, not_tried, taken, "AUC of held-out patients"
    )


def _run_trials(
    tuner: Any, space: Space, train: Callable[[dict[str, Any], float, int], dict[str, float]], until: float
) -> bool:
    """Train one network after the other; return whether there was time for all."""
    oracle = tuner.oracle
    while time.monotonic() <= until:
        trial = oracle.create_trial("search")
        if trial.status == "STOPPED":
            return True
        tuner.save()
        share = trial.hyperparameters.values.get("tuner/epochs", _UNITS) / _UNITS
        try:
            outcome = train(space(trial.hyperparameters), share, int(trial.trial_id) + 1)
            oracle.update_trial(trial.trial_id, outcome)
            trial.status = "COMPLETED"
        except MissingDependencyError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the table shows it
            trial.status, trial.message = "FAILED", error_line(error)
        oracle.end_trial(trial)
        tuner.save()
        ended = oracle.trials.values()
        if len(ended) >= _HOPELESS and all(one.status == "FAILED" for one in ended):
            raise HistcxrError(
                f"the first {len(ended)} trials of the search failed, the last one with: {trial.message}"
            )
    return len(oracle.trials) >= oracle.max_trials


def _make_oracle(oracles: Any, values: Any, n_trials: int, options: SearchOptions) -> Any:
    from keras_tuner import Objective

    common = {
        "objective": Objective("score", "max"),
        "hyperparameters": values,
        "seed": options.random_state + 1,  # it takes 0 for "none"
        "max_consecutive_failed_trials": n_trials + 1,  # _run_trials counts them, and says more
    }
    if options.method == "random":
        oracle = oracles.RandomSearchOracle(**common)
    elif options.method == "bayesian":
        # Keras Tuner's default, three times the number of settings, would leave no trial to be chosen.
        oracle = oracles.BayesianOptimizationOracle(num_initial_points=max(5, n_trials // 3), **common)
    else:
        oracle = oracles.HyperbandOracle(max_epochs=_UNITS, hyperband_iterations=None, **common)
    oracle.max_trials, oracle.verbose = n_trials, 0
    return oracle


def check_method(method: str | None, known: tuple[str, ...], name: str) -> None:
    """Refuse a way to search that is not among those known for a classifier; None is."""
    if method is not None and method not in known:
        raise InputError(f"search must be one of {', '.join(known)} for {name!r}; got {method!r}")


def report_failures(name: str, trials: pd.DataFrame) -> None:
    """Warn of the failed trials of a table; raise :class:`HistcxrError` when all of them failed."""
    errors = trials["error"][trials["status"] == "failed"]
    if len(errors) == len(trials):
        raise HistcxrError(f"{name}: each of {len(trials)} trials failed; the first with: {errors.iloc[0]}")
    if len(errors):
        text = f"{name}: {len(errors)} of {len(trials)} trials failed; the first with: {errors.iloc[0]}"
        warnings.warn(text, HistcxrWarning, stacklevel=3)


def error_line(error: BaseException) -> str:
    """Return the kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def claim_folder(
    folder: Path, estimator: BaseEstimator, random_state: int, data: object, more: Mapping[str, Any]
) -> None:
    """Note in a folder whose search it holds; InputError where it holds another, OutputError where that fails.

    Searches are the same with equal parameters of the estimator, seed, data (arrays), and whatever ``more`` names.
    """
    parameters = sorted((key, str(value)) for key, value in estimator.get_params().items())
    search = {"estimator": repr(parameters), "random_state": int(random_state), "data": joblib.hash(data)}
    search |= {key: repr(value) for key, value in more.items()}
    path = folder / "search.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            if any(folder.iterdir()):
                raise InputError(
                    f"directory must be new, empty or hold the same search; {folder} holds other files"
                )
            path.write_text(json.dumps(search, indent=2), encoding="utf-8")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise write_error(folder, error) from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged ({error}); delete the folder, or name another") from error
    differs = [name for name in search if found.get(name) != search[name]]
    if differs:
        raise InputError(
            f"directory must be new or hold the same search; {folder} holds one with other {', '.join(differs)}"
        )
