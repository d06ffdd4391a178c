"""One search of Keras Tuner over LeNets. Import this module inside functions: it imports Keras Tuner.

Only Keras Tuner's oracles and its bookkeeping are used; a trial is trained by
:class:`~histcxr.models.lenet_training.LeNetTrainer`. So no trial needs TensorBoard, which Keras Tuner's own
training imports in every trial and without which all of them fail in silence.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner import errors, oracles
from keras_tuner.engine import base_tuner
from numpy.typing import NDArray
from sklearn.base import clone

from histcxr.exceptions import HistcxrError, MissingDependencyError
from histcxr.models.lenet import LeNetClassifier
from histcxr.models.lenet_training import LeNetTrainer

__all__ = ["UNITS", "LeNetTuner", "make_oracle"]

#: Hyperband's longest training in its own units; each is a ninth of the epochs. With its usual factor of 3
#: trainings are then of a ninth, a third or all of the epochs: shorter ones tell nothing about a LeNet. Each
#: begins anew and lets its learning rate fall to zero, as a fit with these parameters will.
UNITS = 9

_OUTCOME = ("score", "val_loss", "epochs", "best_epoch", "parameters", "seconds")

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
    seed : int
        Above 0, since Keras Tuner takes 0 for "none".
    """
    values = keras_tuner.HyperParameters()
    space(values)
    common = {
        "objective": keras_tuner.Objective("score", "max"),
        "hyperparameters": values,
        "seed": seed,
        # Failures are counted by LeNetTuner, whose message says more.
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


class LeNetTuner(base_tuner.BaseTuner):
    """Runs trials until the oracle, the number of trials or the time ends the search.

    Parameters
    ----------
    oracle : keras_tuner.Oracle
    space : callable
        From a ``keras_tuner.HyperParameters`` to parameters of the classifier.
    base : LeNetClassifier
        Gives the parameters that are not searched.
    X, y : ndarray
        Counts and labels, as :meth:`LeNetClassifier.fit` takes them.
    rows, validation : ndarray of int
        Rows to learn from and rows to judge by.
    directory : Path
        Where trials are kept; a search found there is gone on with.
    seed : int
    seconds : float or None
        No trial begins later than this after the search.
    on_trial : callable or None
        Called with each finished trial's number and result.
    """

    def __init__(
        self,
        oracle: Any,
        space: Callable[[Any], dict[str, Any]],
        base: LeNetClassifier,
        X: NDArray[Any],
        y: NDArray[Any],
        rows: NDArray[np.intp],
        validation: NDArray[np.intp],
        *,
        directory: Path,
        seed: int,
        seconds: float | None,
        on_trial: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self._space, self._base, self._X, self._y = space, base, X, y
        self._rows, self._validation, self._seed = rows, validation, seed
        self._on_trial = on_trial
        self._end = None if seconds is None else time.monotonic() + seconds
        with contextlib.redirect_stdout(io.StringIO()):  # Keras Tuner prints that it reloads.
            super().__init__(oracle=oracle, directory=str(directory), project_name="trials")
        oracle.verbose = 0

    def run_trial(self, trial: Any) -> dict[str, float]:
        """Train one network, for as many epochs as Hyperband grants it."""
        started = time.perf_counter()
        values = trial.hyperparameters.values
        model = clone(self._base).set_params(**self._space(trial.hyperparameters))
        model.set_params(epochs=max(1, round(model.epochs * values.get("tuner/epochs", UNITS) / UNITS)))
        try:
            trainer, _ = model.make_trainer(self._X, self._y)
        except MissingDependencyError as error:
            raise errors.FatalRuntimeError(str(error)) from error
        result = self._outcome(trainer, int(trial.trial_id) + 1, started)
        (self._folder(trial.trial_id) / "result.json").write_text(json.dumps(result))
        return {"score": result["score"]}

    def train_base(self) -> dict[str, Any]:
        """Train the classifier as it came, as trial 0, or find that this was done; return its row."""
        path = Path(self.project_dir) / "base.json"
        if path.exists():
            result = json.loads(path.read_text())
        else:
            started = time.perf_counter()
            trainer, _ = clone(self._base).make_trainer(self._X, self._y)
            result = self._outcome(trainer, 0, started)
            path.write_text(json.dumps(result))
        return {
            "trial": 0,
            "status": "ok",
            "error": "",
            **{name: result[name] for name in _OUTCOME},
            "repeats": "",
        }

    def _outcome(self, trainer: LeNetTrainer, number: int, started: float) -> dict[str, Any]:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]) >> 1
        network = trainer.train(self._rows, self._validation, seed=seed)
        return {
            "score": network.history["val_auc"][network.best_epoch],
            "val_loss": network.history["val_loss"][network.best_epoch],
            "epochs": len(network.history["loss"]),
            "best_epoch": network.best_epoch,
            "parameters": trainer.n_parameters,
            "seconds": time.perf_counter() - started,
        }

    def pre_create_trial(self) -> None:
        """End the search when its time is over."""
        if self._end is not None and time.monotonic() > self._end:
            self.oracle.max_trials = len(self.oracle.trials)

    def on_trial_end(self, trial: Any) -> None:
        """Keep the trial, tell the caller, and give up when nothing has worked from the first."""
        super().on_trial_end(trial)
        trials = list(self.oracle.trials.values())
        if self._on_trial is not None:
            self._on_trial(self.row(trial))
        failed = [t for t in trials if t.status == "FAILED"]
        if len(failed) >= _HOPELESS and not any(t.status == "COMPLETED" for t in trials):
            raise HistcxrError(
                f"the first {len(failed)} trials of the search failed, the last one with: {last_line(trial.message)}"
            )

    def row(self, trial: Any) -> dict[str, Any]:
        """Return a trial as a row of the table: outcome first, then the values by name."""
        path = self._folder(trial.trial_id) / "result.json"
        result = json.loads(path.read_text()) if trial.status == "COMPLETED" else {}
        row: dict[str, Any] = {
            "trial": int(trial.trial_id) + 1,
            "status": {"COMPLETED": "ok", "FAILED": "failed"}.get(trial.status, "running"),
            "error": last_line(trial.message),
        }
        for name in _OUTCOME:
            row[name] = result.get(name, float("nan"))
        repeated = trial.hyperparameters.values.get("tuner/trial_id", "")
        row["repeats"] = int(repeated) + 1 if repeated else ""
        values = trial.hyperparameters.values
        return row | {name: value for name, value in values.items() if not name.startswith("tuner/")}

    def _folder(self, trial_id: str) -> Path:
        return Path(self.get_trial_dir(trial_id))


def last_line(message: str | None) -> str:
    """Return what a traceback ends with; nothing for none."""
    lines = (message or "").strip().splitlines()
    return lines[-1] if lines else ""
