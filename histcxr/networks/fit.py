"""Training and judging of every network here: Keras' own ``fit``, on any backend of Keras 3.

All batches have one size, so that nothing is compiled twice and no batch norm sees a remnant of one row: the last one
is filled up with rows that come twice. Order and augmentation follow from seed and epoch alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.checks import positive_number, whole_number
from histcxr.exceptions import HistcxrError, InputError
from histcxr.networks.backend import import_neural

#: Weights of a network by layer and variable, such as ``"conv1/kernel"``.
Weights = dict[str, NDArray[np.float32]]

#: How the learning rate may change; None keeps it.
SCHEDULES: Final = ("cosine", "warmup", "plateau", None)

# A plateau lasts for half of the patience; then the rate falls to this share.
_PLATEAU_FACTOR = 0.3

# Values and rows judged at a time: bounds the memory for activations, which grow with them.
_JUDGED_VALUES = 1 << 21
_JUDGED_ROWS = 256
# A batch is filled up to so many times its rows at most, unless it is small.
_FILLED, _SMALL = 1.25, 8


@dataclass(frozen=True)
class FitOptions:
    """How a network is trained: passes through the rows at most, rows a step, and Adam's highest rate.

    - ``patience``: epochs without a lower validation loss after which training stops; None: all epochs are run
    - ``schedule``: ``"cosine"``: the rate falls to zero along a cosine, once an epoch; ``"warmup"``: it rises through
      the first epoch from a twentieth, then falls so with every step; ``"plateau"``: it falls to 0.3 of itself after
      every half patience without a lower validation loss; None: it stays
    - ``weight_decay``: decoupled from the gradient (AdamW; Loshchilov and Hutter, 2019); biases and norms are spared
    - ``averaged``: gradients are cut to a norm of 1, weights judged and kept as their exponential moving average
    - ``verbose``: 0, 1 or 2, what Keras itself prints
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int | None = None
    schedule: str | None = None
    weight_decay: float = 0.0
    averaged: bool = False
    verbose: int = 0

    def __post_init__(self) -> None:
        whole_number(self.epochs, "epochs", least=1)
        whole_number(self.batch_size, "batch_size", least=1)
        if self.patience is not None:
            whole_number(self.patience, "patience", least=1)
        positive_number(self.learning_rate, "learning_rate")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay must be at least 0 and finite; got {self.weight_decay!r}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule must be 'cosine', 'warmup', 'plateau' or None; got {self.schedule!r}")
        if self.schedule == "plateau" and self.patience is None:
            raise InputError("schedule='plateau' takes a patience, of which half is the plateau")


@dataclass(frozen=True)
class Fitted:
    """What training gives; the model itself holds the weights of ``best_epoch``, from 0; see :func:`fit_network`.

    ``history``: one value an epoch of ``loss`` (training, with augmentation and dropout), the metrics asked for,
    ``learning_rate`` (at its begin), ``seconds``, and what judging gave.
    """

    history: dict[str, list[float]]
    best_epoch: int

    @property
    def best_loss(self) -> float:
        """The lowest ``val_loss``; infinite where nothing was held out."""
        return min(self.history.get("val_loss", [math.inf]))


def fit_network(
    model: Any,
    batches: Any,
    options: FitOptions,
    *,
    loss: Any,
    metrics: Any = None,
    judge: Callable[[], Mapping[str, float]] | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    first_epoch: int = 0,
) -> Fitted:
    """Compile and train a Keras model, and leave the weights of the best epoch in it.

    ``batches``: from :func:`make_batches`; ``loss, metrics``: as ``keras.Model.compile`` takes them; ``judge``: called
    after every epoch, its values join the history, and the epoch of the lowest ``val_loss``, which must be among them,
    is kept unless weights are averaged; ``on_epoch``: called with each epoch's values and ``epoch``, from 1;
    ``first_epoch``: its number, where training goes on. HistcxrError when the loss is no longer a number.
    """
    keras = import_neural("keras", "to train a network")
    # On a CPU TensorFlow's own kernels are faster than XLA's and start at once.
    own = keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu")
    optimizer = _optimizer(keras, model, options, len(batches))
    model.compile(optimizer, loss=loss, metrics=metrics, jit_compile=False if own else "auto")
    started: dict[str, float] = {}

    def begin(epoch: int, _: Any) -> None:
        batches.begin(epoch)
        rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        started.update(clock=perf_counter(), learning_rate=rate)

    def end(epoch: int, logs: dict[str, float]) -> None:  # Keras hands this table on to its own callbacks
        logs["learning_rate"] = started["learning_rate"]
        _require_finite(logs, "loss", epoch, options)
        if options.averaged:
            # JAX gives away the memory of what it judges by, which may be the average's, too.
            for variable in model.trainable_variables:
                variable.assign(np.array(keras.ops.convert_to_numpy(variable)))
        if judge is not None:
            logs.update(judge())
            _require_finite(logs, "val_loss", epoch, options)
        logs["seconds"] = perf_counter() - started["clock"]
        if on_epoch is not None:
            on_epoch({"epoch": epoch + 1, **logs})

    def cosine(epoch: int, _: float) -> float:
        share = (epoch - first_epoch) / options.epochs
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * share))

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end)]
    if options.schedule == "cosine":
        callbacks.insert(0, keras.callbacks.LearningRateScheduler(cosine))
    if options.averaged:  # before judging
        callbacks.insert(0, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    if options.schedule == "plateau":
        half = max(1, (options.patience or 0) // 2)
        plateau = {"factor": _PLATEAU_FACTOR, "patience": half, "mode": "min", "min_delta": 0.0}
        callbacks.append(keras.callbacks.ReduceLROnPlateau("val_loss", **plateau))
    stopping = keras.callbacks.EarlyStopping(
        "val_loss", patience=options.patience or options.epochs, mode="min", restore_best_weights=True
    )
    picked = judge is not None and not options.averaged
    if picked:
        callbacks.append(stopping)
    try:
        history = model.fit(
            batches,
            initial_epoch=first_epoch,
            epochs=first_epoch + options.epochs,
            shuffle=False,  # Keras would take Python's global generator; the order is drawn already
            verbose=options.verbose,
            callbacks=callbacks,
        ).history
    finally:
        batches.release()
    curves = {name: [float(value) for value in values] for name, values in history.items()}
    last = first_epoch + len(curves["loss"]) - 1
    return Fitted(curves, stopping.best_epoch if picked else last)


def _optimizer(keras: Any, model: Any, options: FitOptions, steps: int) -> Any:
    rate: Any = options.learning_rate
    total = steps * options.epochs
    if options.schedule == "warmup":
        rate = keras.optimizers.schedules.CosineDecay(
            rate / 20, max(1, total - steps), warmup_target=rate, warmup_steps=steps
        )
    optimizer = keras.optimizers.Adam(
        rate,
        weight_decay=options.weight_decay or None,
        clipnorm=1.0 if options.averaged else None,
        use_ema=options.averaged,
        ema_momentum=min(0.995, 1 - 8 / (total + 8)),  # a short training must not keep its begin
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(model.trainable_variables)  # or TensorFlow traces the first step twice
    return optimizer


def _require_finite(values: Mapping[str, float], name: str, epoch: int, options: FitOptions) -> None:
    if not math.isfinite(values.get(name, 0.0)):
        raise HistcxrError(
            f"the {name} became {values[name]} in epoch {epoch + 1}; give a learning_rate below "
            f"{options.learning_rate:g}, or look for inputs that are all one value"
        )


def make_batches(
    make: Callable[[NDArray[np.intp], int, int], tuple[NDArray[Any], ...]],
    rows: NDArray[np.integer],
    batch_size: int,
    *,
    seed: int,
    first_epoch: int = 0,
    shares: NDArray[np.floating] | None = None,
) -> Any:
    """Return a ``keras.utils.PyDataset`` for :func:`fit_network`: batches made when asked for, a few ahead at most.

    ``make(rows, epoch, step)`` returns inputs, targets and perhaps weights of some ``rows`` (int), in a thread of
    TensorFlow's; ``batch_size``: all rows, if fewer; ``seed``: of the order, with the epoch; ``shares``, (len(rows),),
    adding up to 1: how likely each is drawn, with replacement (None: each once an epoch).
    """
    size = min(batch_size, len(rows))

    def order(epoch: int) -> NDArray[np.intp]:
        generator = np.random.default_rng([seed, epoch])
        drawn = generator.permutation(rows) if shares is None else generator.choice(rows, len(rows), p=shares)
        filled = np.concatenate([drawn, generator.permutation(rows)[: -len(rows) % size]])
        return filled.reshape(-1, size).astype(np.intp)

    return _batches_class()(make, order, first_epoch)


@cache
def _batches_class() -> Any:
    """Return the kind of batches, made once: Keras is imported late, and classes are never given back."""
    keras: Any = import_neural("keras", "to train a network")

    class Batches(keras.utils.PyDataset):
        def __init__(self, make: Any, order: Any, epoch: int) -> None:
            super().__init__(workers=1, use_multiprocessing=False, max_queue_size=8)
            self.make, self.draw = make, order
            self.begin(epoch)

        def __len__(self) -> int:
            return len(self.order)

        def __getitem__(self, step: int) -> Any:
            return self.make(self.order[step], self.epoch, step)

        def begin(self, epoch: int) -> None:
            """Draw an epoch's order. (Keras calls its ``on_epoch_end`` before the first epoch, too.)"""
            self.epoch, self.order = epoch, self.draw(epoch)

        def release(self) -> None:
            """Let go of the data: TensorFlow keeps every data set that it was ever given."""
            del self.make

    return Batches


def outputs(model: Any, inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return what a model gives for each row of ``inputs``, (n, ...), in batches that bound the memory.

    It depends on neighbours only by the rounding of 32-bit sums, ordered by the size of the batch.
    """
    values = int(np.prod(inputs.shape[1:]))
    largest = _power_of_two(min(_JUDGED_VALUES // values, _JUDGED_ROWS))
    parts, start = [], 0
    while start < len(inputs):
        left = min(len(inputs) - start, largest)
        # Powers of two only: a backend may compile the network anew for every size of batch that it meets.
        size = _power_of_two(2 * left - 1)
        if size > _FILLED * left and size > _SMALL:
            size //= 2  # the rest comes by itself, cheaper than so many rows of nothing
        batch = inputs[start : start + size]
        full = np.zeros((size, *inputs.shape[1:]), inputs.dtype)
        full[: len(batch)] = batch
        parts.append(np.asarray(model.predict_on_batch(full), np.float64)[: len(batch)])
        start += size
    return np.concatenate(parts)


def get_weights(model: Any) -> Weights:
    """Return a model's weights as float32 arrays by layer and variable, such as ``"conv1/kernel"``."""
    return {
        f"{layer.name}/{variable.name}": np.array(value, dtype=np.float32)
        for layer in model.layers
        for variable, value in zip(layer.weights, layer.get_weights(), strict=True)
    }


def set_weights(model: Any, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Put weights by name into a model of the same layers; InputError where one is missing."""
    names = [[f"{layer.name}/{variable.name}" for variable in layer.weights] for layer in model.layers]
    missing = [name for layer in names for name in layer if name not in weights]
    if missing:
        raise InputError(f"weights must hold {', '.join(missing)} for this graph; they are missing")
    for layer, wanted in zip(model.layers, names, strict=True):
        layer.set_weights([weights[name] for name in wanted])


def _power_of_two(largest: int) -> int:
    """Return the largest power of two that is not above a number; 1 at least."""
    return 1 << (max(1, largest).bit_length() - 1)
