"""Training of one 1-D LeNet: arrays in, weights and learning curves out, on any backend of Keras 3.

The data lie on the device once; a step moves row numbers, labels and weights only. One compiled step serves
any number of seeds: between them the variables are set anew, so nothing is traced twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from histcxr.exceptions import HistcxrError, InputError
from histcxr.models.lenet_graph import LeNetGraph, Weights, build_lenet, get_weights
from histcxr.networks.backend import import_neural

__all__ = ["LeNetTrainer", "TrainedNetwork", "TrainingOptions"]

# Rows judged at a time between epochs: bounds the memory for activations.
_JUDGED = 2048


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained.

    Parameters
    ----------
    epochs : int
        Passes through the training rows, at most; the learning rate falls to zero over them along a cosine.
    patience : int
        Epochs without a lower validation loss after which training stops.
    batch_size : int
    learning_rate : float
        Adam's, in the first epoch.
    weight_decay : float
        Decoupled from the gradient (AdamW; Loshchilov and Hutter, 2019); biases and norms are spared.
    label_smoothing : float
        Share of each label moved to one half.
    shift, gamma, contrast : float
        Half-widths of the augmentation; see :class:`~histcxr.models.lenet_layers.HistogramJitter`.
    exponent : float
        Of the representation, for the augmentation.

    Raises
    ------
    InputError
        When a number is out of its range.
    """

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    shift: float = 0.0
    gamma: float = 0.0
    contrast: float = 0.0
    exponent: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} must be an integer of at least 1; got {value!r}")
        for name in ("weight_decay", "shift", "gamma", "contrast"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be at least 0 and finite; got {getattr(self, name)!r}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be above 0 and finite; got {self.learning_rate!r}")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing must be at least 0 and below 1; got {self.label_smoothing!r}")


@dataclass(frozen=True)
class TrainedNetwork:
    """What training gives.

    Parameters
    ----------
    weights : dict of str to ndarray of float32
        Of the best epoch (the last one where nothing was held out).
    history : dict of str to list of float
        Learning curves, one value an epoch: ``loss`` (training, with augmentation, dropout and smoothing),
        ``val_loss`` and ``val_auc`` (absent where nothing was held out), ``learning_rate``.
    best_epoch : int
        The epoch whose weights were kept, from 0.
    """

    weights: Weights
    history: dict[str, list[float]]
    best_epoch: int


class LeNetTrainer:
    """A compiled network with its data, ready to be trained from any seed.

    Parameters
    ----------
    graph : LeNetGraph
    options : TrainingOptions
    X : ndarray of float32, shape (n, bins, channels)
    y : ndarray, shape (n,)
        1 for sick, 0 for normal.
    weight : ndarray, shape (n,), optional
        Of each row in the loss, training and validation alike.

    Raises
    ------
    MissingDependencyError
        When Keras or its backend is not installed.
    """

    def __init__(
        self,
        graph: LeNetGraph,
        options: TrainingOptions,
        X: NDArray[np.float32],
        y: NDArray[Any],
        weight: NDArray[Any] | None = None,
    ) -> None:
        keras = import_neural("keras", "to train a LeNet")
        from histcxr.models.lenet_layers import TakeRows

        self.graph, self.options = graph, options
        self._y = np.asarray(y, np.float32)
        self._weight = np.ones(len(y), np.float32) if weight is None else np.asarray(weight, np.float32)
        self._network = build_lenet(graph, seed=0)
        self._jitter = self._make_jitter(0)
        # An input that never changes, rather than a weight: TensorFlow does not give a weight's memory back.
        self._to_device = keras.ops.convert_to_tensor
        self._data = self._to_device(np.ascontiguousarray(X, np.float32))
        data = keras.Input(batch_shape=X.shape, name="data")
        rows = keras.Input((), dtype="int32", name="rows")
        logit = keras.Model(self._network.input, self._network.layers[-1].input, name="logit")
        x = TakeRows(name="take_rows")([data, rows])
        self._model = keras.Model([data, rows], logit(x if self._jitter is None else self._jitter(x)))
        self._optimizer = keras.optimizers.AdamW(options.learning_rate, weight_decay=options.weight_decay)
        self._optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self._model.compile(
            self._optimizer,
            keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=options.label_smoothing),
            jit_compile=_jit(keras),
        )
        self._optimizer.build(self._model.trainable_variables)

    @property
    def n_parameters(self) -> int:
        """Numbers in the network, learned ones and running statistics."""
        return int(self._network.count_params())

    def train(
        self,
        rows: NDArray[np.integer],
        validation: NDArray[np.integer] | None = None,
        *,
        seed: int,
    ) -> TrainedNetwork:
        """Train from new weights.

        Parameters
        ----------
        rows, validation : ndarray of int
            Rows of ``X`` to learn from and to judge by. Without the latter all epochs are run.
        seed : int
            Of the weights, the order of rows, dropout and augmentation. No global generator is touched.

        Raises
        ------
        HistcxrError
            When the loss is no longer a number.
        """
        epochs = self.options.epochs
        self._restart(seed)
        generator = np.random.default_rng([seed, 1])
        history: dict[str, list[float]] = {"loss": [], "learning_rate": []}
        if validation is not None:
            history |= {"val_loss": [], "val_auc": []}
        best_loss, best_epoch, best = math.inf, 0, None
        for epoch in range(epochs):
            rate = self.options.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
            self._optimizer.learning_rate.assign(rate)
            loss = self._epoch(rows, generator)
            if not math.isfinite(loss):
                raise HistcxrError(
                    f"the loss became {loss} in epoch {epoch + 1}; a lower learning_rate than "
                    f"{self.options.learning_rate:g} may help"
                )
            history["loss"].append(loss)
            history["learning_rate"].append(rate)
            if validation is None:
                continue
            val_loss, val_auc = self._judge(validation)
            history["val_loss"].append(val_loss)
            history["val_auc"].append(val_auc)
            if val_loss < best_loss:
                best_loss, best_epoch, best = val_loss, epoch, get_weights(self._network)
            elif epoch - best_epoch >= self.options.patience:
                break
        if best is None:
            best, best_epoch = get_weights(self._network), epochs - 1
        return TrainedNetwork(best, history, best_epoch)

    def logits(self, rows: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return the present network's logits of rows of ``X``, shape ``(n,)``."""
        parts = [
            self._model.predict_on_batch(self._inputs(rows[i : i + _JUDGED]))
            for i in range(0, len(rows), _JUDGED)
        ]
        return np.concatenate(parts).astype(np.float64)[:, 0]

    def _inputs(self, rows: NDArray[np.integer]) -> list[Any]:
        return [self._data, self._to_device(np.asarray(rows, np.int32))]

    def _make_jitter(self, seed: int) -> Any:
        from histcxr.models.lenet_layers import HistogramJitter

        options = self.options
        if not (options.shift or options.gamma or options.contrast):
            return None
        widths = (options.shift, options.gamma, options.contrast)
        return HistogramJitter(*widths, exponent=options.exponent, seed=seed)

    def _restart(self, seed: int) -> None:
        """Set all variables as if everything had been built anew from the seed."""
        fresh = build_lenet(self.graph, seed=seed).variables
        mine = self._network.variables
        jitter = self._make_jitter(int(np.random.SeedSequence([seed, 2]).generate_state(1)[0]) >> 1)
        if jitter is not None:
            fresh, mine = fresh + jitter.variables, mine + self._jitter.variables
        for variable, value in zip(mine, fresh, strict=True):
            variable.assign(value)
        for variable in self._optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))

    def _epoch(self, rows: NDArray[np.integer], generator: np.random.Generator) -> float:
        losses = [
            float(self._model.train_on_batch(self._inputs(batch), self._y[batch, None], self._weight[batch]))
            for batch in _batches(rows, self.options.batch_size, generator)
        ]
        return float(np.mean(losses))

    def _judge(self, rows: NDArray[np.integer]) -> tuple[float, float]:
        """Return weighted log loss and AUC on held-out rows."""
        z, y = self.logits(rows), self._y[rows]
        loss = np.average(np.logaddexp(0, z) - y * z, weights=self._weight[rows])
        auc = roc_auc_score(y, z) if 0 < y.mean() < 1 else math.nan
        return float(loss), float(auc)


def _batches(
    rows: NDArray[np.integer], size: int, generator: np.random.Generator
) -> Iterator[NDArray[np.int32]]:
    """Yield all rows once in random order, in batches of one size: some rows come twice to fill the last."""
    size = min(size, len(rows))
    rows = np.asarray(rows, np.int32)
    order = generator.permutation(rows)
    missing = -len(rows) % size
    order = np.concatenate([order, generator.permutation(rows)[:missing]])
    yield from order.reshape(-1, size)


def _jit(keras: Any) -> bool | str:
    """Say whether to compile with XLA: TensorFlow's own kernels are twice as fast on a CPU."""
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf  # The backend that runs already; only asked for its devices.

    return "auto" if tf.config.list_physical_devices("GPU") else False
