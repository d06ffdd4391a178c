"""One search of Keras Tuner over reference networks. Import this module inside functions: it imports Keras Tuner.

Only Keras Tuner's oracle and its bookkeeping are used; a trial is a plain fit of the classifier. So no trial needs
TensorBoard, which Keras Tuner's own training imports.
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
from histcxr.reference.architectures import find_architecture
from histcxr.reference.classifier import ReferenceClassifier

__all__ = ["UNITS", "ReferenceTuner", "make_oracle"]

#: Hyperband's longest training in its own units; each is a ninth of the epochs. With its usual factor of 3
#: trainings are then of a ninth, a third or all of the epochs. Each begins anew, as a fit with its values will.
UNITS = 9

_OUTCOME = ("score", "val_loss", "epochs", "best_epoch", "seconds")

# So many trials may fail before any succeeds; then the fault is not in their values.
_HOPELESS = 3


def make_oracle(space: Callable[[Any], dict[str, Any]], *, n_trials: int, seed: int) -> Any:
    """Build the part of Keras Tuner that chooses values.

    Parameters
    ----------
    space : callable
        Declares the values on a ``keras_tuner.HyperParameters``.
    n_trials : int
    seed : int
        Above 0, since Keras Tuner takes 0 for "none".
    """
    values = keras_tuner.HyperParameters()
    space(values)
    oracle = oracles.HyperbandOracle(
        objective=keras_tuner.Objective("score", "max"),
        max_epochs=UNITS,
        hyperband_iterations=None,
        hyperparameters=values,
        seed=seed,
        # Failures are counted by ReferenceTuner, whose message says more.
        max_consecutive_failed_trials=n_trials + 1,
    )
    oracle.max_trials = n_trials
    return oracle


class ReferenceTuner(base_tuner.BaseTuner):
    """Runs trials until the oracle, the number of trials or the time ends the search.

    Parameters
    ----------
    oracle : keras_tuner.Oracle
    space : callable
        From a ``keras_tuner.HyperParameters`` to parameters of the classifier.
    base : ReferenceClassifier
        Gives the parameters that are not searched.
    images, labels : ndarray
        As :meth:`ReferenceClassifier.fit` takes them.
    held : ndarray of bool
        The images to judge by.
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
        base: ReferenceClassifier,
        images: NDArray[np.uint8],
        labels: NDArray[Any],
        held: NDArray[np.bool_],
        *,
        directory: Path,
        seed: int,
        seconds: float | None,
        on_trial: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self._space, self._base = space, base
        self._images, self._labels, self._held = images, labels, held
        self._seed, self._on_trial = seed, on_trial
        published = find_architecture(base.architecture).epochs
        self._epochs = published if base.epochs is None else base.epochs
        self._end = None if seconds is None else time.monotonic() + seconds
        with contextlib.redirect_stdout(io.StringIO()):  # Keras Tuner prints that it reloads.
            super().__init__(oracle=oracle, directory=str(directory), project_name="trials")
        oracle.verbose = 0

    def run_trial(self, trial: Any) -> dict[str, float]:
        """Train one network, for as many epochs as Hyperband grants it."""
        granted = trial.hyperparameters.values.get("tuner/epochs", UNITS)
        model = clone(self._base).set_params(**self._space(trial.hyperparameters))
        model.set_params(epochs=max(1, round(self._epochs * granted / UNITS)))
        try:
            result = self._outcome(model, int(trial.trial_id) + 1)
        except MissingDependencyError as error:
            raise errors.FatalRuntimeError(str(error)) from error
        (self._folder(trial.trial_id) / "result.json").write_text(json.dumps(result))
        return {"score": result["score"]}

    def train_base(self) -> dict[str, Any]:
        """Train the classifier as it came, as trial 0, or find that this was done; return its row."""
        path = Path(self.project_dir) / "base.json"
        if path.exists():
            result = json.loads(path.read_text())
        else:
            result = self._outcome(clone(self._base), 0)
            path.write_text(json.dumps(result))
        outcome = {name: result[name] for name in _OUTCOME}
        return {"trial": 0, "status": "ok", "error": "", **outcome, "repeats": ""}

    def _outcome(self, model: ReferenceClassifier, number: int) -> dict[str, Any]:
        started = time.perf_counter()
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]) >> 1
        model.set_params(random_state=seed).fit(self._images, self._labels, validation=self._held)
        return {
            "score": model.history_["val_auc"][model.best_epoch_],
            "val_loss": model.history_["val_loss"][model.best_epoch_],
            "epochs": len(model.history_["loss"]),
            "best_epoch": model.best_epoch_,
            "seconds": time.perf_counter() - started,
        }

    @property
    def time_is_over(self) -> bool:
        """Whether no further trial may begin."""
        return self._end is not None and time.monotonic() > self._end

    def pre_create_trial(self) -> None:
        """End the search when its time is over."""
        # Keras Tuner takes 0 for "any number", so this cannot keep the first trial from beginning.
        if self.time_is_over:
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
                f"the first {len(failed)} trials of the search failed, the last one with: {_last_line(trial.message)}"
            )

    def row(self, trial: Any) -> dict[str, Any]:
        """Return a trial as a row of the table: outcome first, then the values by name."""
        path = self._folder(trial.trial_id) / "result.json"
        result = json.loads(path.read_text()) if trial.status == "COMPLETED" else {}
        row: dict[str, Any] = {
            "trial": int(trial.trial_id) + 1,
            "status": {"COMPLETED": "ok", "FAILED": "failed"}.get(trial.status, "running"),
            "error": _last_line(trial.message),
        }
        for name in _OUTCOME:
            row[name] = result.get(name, float("nan"))
        repeated = trial.hyperparameters.values.get("tuner/trial_id", "")
        row["repeats"] = int(repeated) + 1 if repeated else ""
        values = trial.hyperparameters.values
        return row | {name: value for name, value in values.items() if not name.startswith("tuner/")}

    def _folder(self, trial_id: str) -> Path:
        return Path(self.get_trial_dir(trial_id))


def _last_line(message: str | None) -> str:
    """Return what a traceback ends with; nothing for none."""
    lines = (message or "").strip().splitlines()
    return lines[-1] if lines else ""
