"""The trials of one search with Keras Tuner. Import this module inside functions: it imports Keras Tuner.

Only Keras Tuner's oracles and its bookkeeping are used; a trial is trained by a function. So no trial needs
TensorBoard, which Keras Tuner's own training imports in every trial and without which all of them fail in silence.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner import errors, oracles
from keras_tuner.engine import base_tuner
from sklearn.base import clone

from histcxr.exceptions import HistcxrError, InputError, MissingDependencyError

__all__ = ["UNITS", "TrialTuner", "last_line", "make_oracle"]

#: Hyperband's longest training in its own units; each is a ninth of the epochs. With its usual factor of 3
#: trainings are then of a ninth, a third or all of the epochs: shorter ones tell nothing about a network. Each
#: begins anew, as a fit with its values will.
UNITS = 9

# So many trials may fail before any succeeds; then the fault is not in their values.
_HOPELESS = 3


def make_oracle(method: str, space: Callable[[Any], dict[str, Any]], *, n_trials: int, seed: int) -> Any:
    """Build the part of Keras Tuner that chooses values.

    Parameters
    ----------
    method : {"hyperband", "random", "bayesian"}
    space : callable
        Declares the values on a ``keras_tuner.HyperParameters``.
    n_trials : int
        At least 1.
    seed : int
        Above 0, since Keras Tuner takes 0 for "none".

    Raises
    ------
    InputError
        When ``n_trials`` is below 1: Keras Tuner takes 0 for "any number".
    """
    if n_trials < 1:
        raise InputError(f"n_trials must be an integer of at least 1; got {n_trials!r}")
    values = keras_tuner.HyperParameters()
    space(values)
    common = {
        "objective": keras_tuner.Objective("score", "max"),
        "hyperparameters": values,
        "seed": seed,
        # Failures are counted by TrialTuner, whose message says more.
        "max_consecutive_failed_trials": n_trials + 1,
    }
    if method == "random":
        return oracles.RandomSearchOracle(max_trials=n_trials, **common)
    if method == "bayesian":
        # Keras Tuner's default, three times the number of values, would leave no trial to be chosen.
        first = max(5, n_trials // 3)
        return oracles.BayesianOptimizationOracle(max_trials=n_trials, num_initial_points=first, **common)
    oracle = oracles.HyperbandOracle(max_epochs=UNITS, hyperband_iterations=None, **common)
    oracle.max_trials = n_trials
    return oracle


class TrialTuner(base_tuner.BaseTuner):
    """Runs trials until the oracle, the number of trials or the time ends the search.

    Parameters
    ----------
    oracle : keras_tuner.Oracle
    space : callable
        From a ``keras_tuner.HyperParameters`` to parameters of the classifier.
    base : classifier
        Gives the parameters that are not searched.
    train : callable
        ``train(classifier, share, seed)`` trains an unfitted classifier for a share of its epochs, above 0 and up to
        1, and returns what came of it by name, ready for JSON; the higher its ``score``, the better.
    directory : Path
        Where trials are kept; a search found there is gone on with.
    seed : int
    seconds : float or None
        No trial begins later than this.
    on_trial : callable or None
        Called with each finished trial's row.
    """

    def __init__(
        self,
        oracle: Any,
        space: Callable[[Any], dict[str, Any]],
        base: Any,
        train: Callable[[Any, float, int], Mapping[str, Any]],
        *,
        directory: Path,
        seed: int,
        seconds: float | None,
        on_trial: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self._space, self._base, self._train = space, base, train
        self._seed, self._on_trial = seed, on_trial
        self._outcome: tuple[str, ...] = ()
        self._end = None if seconds is None else time.monotonic() + seconds
        with contextlib.redirect_stdout(io.StringIO()):  # Keras Tuner prints that it reloads.
            super().__init__(oracle=oracle, directory=str(directory), project_name="trials")
        oracle.verbose = 0

    def run(self) -> list[dict[str, Any]]:
        """Train the classifier as it came, then search; return a row for it and for each trial, in their order."""
        first = self._base_row()
        # Asked here, too: Keras Tuner takes 0 trials for "any number", so pre_create_trial cannot stop the first.
        if not self._time_is_over():
            self.search()
        return [first, *(self._row(trial) for trial in self.trials())]

    def trials(self) -> list[Any]:
        """Return the trials in their order, Keras Tuner's own records of them."""
        return sorted(self.oracle.trials.values(), key=lambda trial: int(trial.trial_id))

    def run_trial(self, trial: Any) -> dict[str, float]:
        """Train one network, for as many epochs as Hyperband grants it."""
        model = clone(self._base).set_params(**self._space(trial.hyperparameters))
        share = trial.hyperparameters.values.get("tuner/epochs", UNITS) / UNITS
        try:
            result = self._result(model, share, int(trial.trial_id) + 1)
        except MissingDependencyError as error:
            raise errors.FatalRuntimeError(str(error)) from error
        self._trial_file(trial).write_text(json.dumps(result))
        return {"score": result["score"]}

    def pre_create_trial(self) -> None:
        """End the search when its time is over."""
        if self._time_is_over():
            self.oracle.max_trials = len(self.oracle.trials)

    def on_trial_end(self, trial: Any) -> None:
        """Keep the trial, tell the caller, and give up when nothing has worked from the first."""
        super().on_trial_end(trial)
        trials = list(self.oracle.trials.values())
        if self._on_trial is not None:
            self._on_trial(self._row(trial))
        failed = [t for t in trials if t.status == "FAILED"]
        if len(failed) >= _HOPELESS and not any(t.status == "COMPLETED" for t in trials):
            raise HistcxrError(
                f"the first {len(failed)} trials of the search failed, the last one with: {last_line(trial.message)}"
            )

    def _time_is_over(self) -> bool:
        return self._end is not None and time.monotonic() > self._end

    def _result(self, model: Any, share: float, number: int) -> dict[str, Any]:
        """Train a network with a seed of its own; return what came of it, and the seconds it took."""
        started = time.perf_counter()
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]) >> 1
        return {**self._train(model, share, seed), "seconds": time.perf_counter() - started}

    def _base_row(self) -> dict[str, Any]:
        """Train the classifier as it came, as trial 0, or find that this was done; return its row."""
        path = Path(self.project_dir) / "base.json"
        if path.exists():
            result = json.loads(path.read_text())
        else:
            result = self._result(clone(self._base), 1.0, 0)
            path.write_text(json.dumps(result))
        self._outcome = tuple(result)
        return {"trial": 0, "status": "ok", "error": "", **result, "repeats": ""}

    def _row(self, trial: Any) -> dict[str, Any]:
        """Return a trial as a row of the table: outcome first, then the values by name."""
        result = json.loads(self._trial_file(trial).read_text()) if trial.status == "COMPLETED" else {}
        row: dict[str, Any] = {
            "trial": int(trial.trial_id) + 1,
            "status": {"COMPLETED": "ok", "FAILED": "failed"}.get(trial.status, "running"),
            "error": last_line(trial.message),
        }
        for name in self._outcome:
            row[name] = result.get(name, float("nan"))
        values = trial.hyperparameters.values
        repeated = values.get("tuner/trial_id", "")
        row["repeats"] = int(repeated) + 1 if repeated else ""
        return row | {name: value for name, value in values.items() if not name.startswith("tuner/")}

    def _trial_file(self, trial: Any) -> Path:
        return Path(self.get_trial_dir(trial.trial_id)) / "result.json"


def last_line(message: str | None) -> str:
    """Return what a traceback ends with; nothing for none."""
    lines = (message or "").strip().splitlines()
    return lines[-1] if lines else ""
