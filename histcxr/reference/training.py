"""Training of one reference network: images in, the best epoch's weights and the curves out.

On any backend of Keras 3. One epoch at a time, so that rate, patience and stages are plain code, and so that every
picture's augmentation follows from seed, epoch and row alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.exceptions import HistcxrError, InputError
from histcxr.networks.backend import import_neural
from histcxr.reference.augmentation import Augmentation, augmented_batch
from histcxr.reference.validation import judge

__all__ = [
    "SCHEDULES",
    "Stage",
    "Training",
    "TrainingData",
    "TrainingOptions",
    "train_network",
]

#: How the learning rate may fall; None keeps it.
SCHEDULES: Final = ("cosine", "plateau", None)

# A plateau lasts for half of the patience; then the rate falls to this share.
_PLATEAU_FACTOR = 0.3


@dataclass(frozen=True)
class TrainingOptions:
    """How a network is trained.

    Parameters
    ----------
    epochs : int
        Passes through the training images in each stage, at most.
    batch_size : int
        Images of a step. The last step of an epoch is filled up with images that come twice.
    patience : int or None
        Epochs without a lower validation loss after which a stage ends; None: it runs all its epochs.
    schedule : {"cosine", "plateau", None}
        ``"cosine"``: the rate falls to zero along a cosine over the epochs of the stage. ``"plateau"``: it falls
        to 0.3 of itself after every half patience without a lower validation loss. None: it stays.
    weight_decay : float, default=0
        Decoupled from the gradient (AdamW; Loshchilov and Hutter, 2019); biases and norms are spared. 0: Adam.
    augmentation : Augmentation, optional

    Raises
    ------
    InputError
        When a value is out of its range.
    """

    epochs: int
    batch_size: int
    patience: int | None = None
    schedule: str | None = None
    weight_decay: float = 0.0
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            if name == "patience" and value is None:
                continue
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} must be an integer of at least 1; got {value!r}")
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule must be 'cosine', 'plateau' or None; got {self.schedule!r}")
        if self.schedule == "plateau" and self.patience is None:
            raise InputError("schedule='plateau' takes a patience, of which half is the plateau")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay must be at least 0 and finite; got {self.weight_decay!r}")
        if not isinstance(self.augmentation, Augmentation | None):
            raise InputError(
                f"augmentation must be an Augmentation, 'published' or None; got {self.augmentation!r}"
            )


@dataclass(frozen=True)
class TrainingData:
    """What a network is trained on.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, height, width)
    targets : ndarray of int, shape (n,)
        The number of each image's class, from 0.
    rows : ndarray of int
        Images to learn from.
    held_out : ndarray of int or None
        Images to judge by; without any, all epochs are run.
    weights : ndarray of float, shape (n,), optional
        Of each image in the loss, training and validation alike.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.integer]
    rows: NDArray[np.intp]
    held_out: NDArray[np.intp] | None = None
    weights: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Stage:
    """A part of training with a learning rate of its own.

    Parameters
    ----------
    learning_rate : float
        Adam's, in the stage's first epoch.
    prepare : callable, optional
        Called with the model before the stage, e.g. to unfreeze layers.
    """

    learning_rate: float
    prepare: Callable[[Any], None] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate must be above 0 and finite; got {self.learning_rate!r}")


@dataclass
class Training:
    """What training gives; the model itself holds the best epoch's weights.

    Attributes
    ----------
    history : dict of str to list
        One value an epoch, through all stages: ``stage`` (from 1), ``loss`` and ``accuracy`` (training, with
        augmentation and dropout), ``learning_rate``, ``seconds``, and, where images were held out, ``val_loss``,
        ``val_accuracy`` and ``val_auc`` (of more than two classes the mean of each against the rest).
    best_epoch : int
        The epoch whose weights were kept, from 0.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0


def train_network(
    model: Any,
    data: TrainingData,
    options: TrainingOptions,
    stages: Sequence[Stage],
    *,
    seed: int,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    verbose: int = 0,
) -> Training:
    """Train a network and leave the weights of its best epoch in it.

    Each stage starts from the best weights so far, so a second stage can only improve on the first.

    Parameters
    ----------
    model : keras.Model
        ``(n, height, width, 1)`` grey levels to ``(n, classes)`` probabilities, or ``(n, 1)`` for two classes.
    data : TrainingData
    options : TrainingOptions
    stages : sequence of Stage
    seed : int
        Of the order of images and of the augmentation. No global generator is touched.
    on_epoch : callable, optional
        Called with each epoch's values, e.g. to show progress.
    verbose : {0, 1, 2}
        What Keras itself prints.

    Returns
    -------
    Training

    Raises
    ------
    HistcxrError
        When the loss is no longer a number.
    """
    training = Training()
    best_loss, best = math.inf, None
    epoch = 0
    for number, stage in enumerate(stages, start=1):
        if best is not None:
            model.set_weights(best)
        if stage.prepare is not None:
            stage.prepare(model)
        _compile(model, stage.learning_rate, options)
        rate, waited = stage.learning_rate, 0
        for step in range(options.epochs):
            if options.schedule == "cosine":
                rate = stage.learning_rate * 0.5 * (1 + math.cos(math.pi * step / options.epochs))
            model.optimizer.learning_rate.assign(rate)
            values = {"stage": float(number), "learning_rate": rate}
            values |= _one_epoch(model, data, options, seed, epoch, verbose)
            _require_finite(values, epoch, stage.learning_rate)
            for name, value in values.items():
                training.history.setdefault(name, []).append(value)
            if on_epoch is not None:
                on_epoch({"epoch": epoch + 1, **values})
            epoch += 1
            if data.held_out is None:
                continue
            if values["val_loss"] < best_loss:
                best_loss, best, waited = values["val_loss"], model.get_weights(), 0
                training.best_epoch = epoch - 1
                continue
            waited += 1
            if options.patience is None:
                continue
            if waited >= options.patience:
                break
            if options.schedule == "plateau" and waited % max(1, options.patience // 2) == 0:
                rate *= _PLATEAU_FACTOR
    if best is None:
        training.best_epoch = epoch - 1
    else:
        model.set_weights(best)
    return training


def _compile(model: Any, learning_rate: float, options: TrainingOptions) -> None:
    keras = import_neural("keras", "to train a reference network")
    if options.weight_decay:
        optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=options.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    else:
        optimizer = keras.optimizers.Adam(learning_rate)
    loss: Any = "sparse_categorical_crossentropy"
    if model.output_shape[-1] == 1:
        # PyTorch's own refuses what is not a number, with words that help nobody.
        loss = _binary_loss(keras) if keras.backend.backend() == "torch" else "binary_crossentropy"
    model.compile(
        optimizer,
        loss=loss,
        metrics=["accuracy"],
        jit_compile=_jit(keras),
    )


def _binary_loss(keras: Any) -> Callable[[Any, Any], Any]:
    """Return the binary cross-entropy, as Keras clips it, in operations of any backend."""
    ops, least = keras.ops, keras.config.epsilon()

    def loss(truth: Any, probability: Any) -> Any:
        p = ops.clip(probability, least, 1 - least)
        return ops.mean(-(truth * ops.log(p) + (1 - truth) * ops.log(1 - p)), axis=-1)

    return loss


def _one_epoch(
    model: Any, data: TrainingData, options: TrainingOptions, seed: int, epoch: int, verbose: int
) -> dict[str, float]:
    """Train for one epoch and judge; return the epoch's values by name."""
    started = perf_counter()
    binary = model.output_shape[-1] == 1

    def make(rows: NDArray[np.intp]) -> tuple[NDArray[Any], ...]:
        return _make_batch(data, rows, options, seed, epoch, binary)

    batches = _batches_class()(make, _make_order(data.rows, options.batch_size, seed, epoch))
    try:
        # Keras would shuffle the batches by Python's global generator; their order is drawn already.
        logs = model.fit(
            batches, epochs=epoch + 1, initial_epoch=epoch, shuffle=False, verbose=verbose
        ).history
    finally:
        batches.release()
    values = {name: float(logs[name][0]) for name in ("loss", "accuracy")}
    if data.held_out is not None and math.isfinite(values["loss"]):
        values |= judge(model, data.images, data.targets, data.held_out, data.weights)
    return values | {"seconds": perf_counter() - started}


def _make_order(rows: NDArray[np.intp], batch_size: int, seed: int, epoch: int) -> NDArray[np.intp]:
    """Return one epoch's rows at random, shape (batches, size).

    All batches have one size: nothing is compiled twice, and no batch norm sees a remnant of one image.
    """
    size = min(batch_size, len(rows))
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(rows)
    order = np.concatenate([order, generator.permutation(rows)[: -len(order) % size]])
    return order.reshape(-1, size)


def _make_batch(
    data: TrainingData, rows: NDArray[np.intp], options: TrainingOptions, seed: int, epoch: int, binary: bool
) -> tuple[NDArray[Any], ...]:
    """Return images, classes and, where there are any, weights of some rows, as Keras takes them."""
    images = augmented_batch(data.images, rows, options.augmentation, seed=seed, epoch=epoch)
    targets = data.targets[rows]
    truth = targets.astype(np.float32)[:, None] if binary else targets.astype(np.int32)
    # Bytes, a quarter of the copying: the network turns them into float32 itself.
    if data.weights is None:
        return images[..., None], truth
    return images[..., None], truth, data.weights[rows].astype(np.float32)


@cache
def _batches_class() -> Any:
    """Return the kind of batches, made once: Keras is imported late, and classes are never given back."""
    keras: Any = import_neural("keras", "to train a reference network")

    class Batches(keras.utils.PyDataset):
        """One epoch's batches, made in a thread beside the network (TensorFlow), a few ahead at most."""

        def __init__(self, make: Callable[[NDArray[np.intp]], Any], order: NDArray[np.intp]) -> None:
            super().__init__(workers=1, use_multiprocessing=False, max_queue_size=8)
            self.make, self.order = make, order

        def __len__(self) -> int:
            return len(self.order)

        def __getitem__(self, step: int) -> Any:
            return self.make(self.order[step])

        def release(self) -> None:
            """Let go of the images: TensorFlow keeps every data set that it was ever given."""
            del self.make

    return Batches


def _require_finite(values: dict[str, float], epoch: int, learning_rate: float) -> None:
    for name in ("loss", "val_loss"):
        if not math.isfinite(values.get(name, 0.0)):
            raise HistcxrError(
                f"the {name} became {values[name]} in epoch {epoch + 1}; give a learning_rate below "
                f"{learning_rate:g}, or look for images that are all one value"
            )


def _jit(keras: Any) -> bool | str:
    """Say whether to compile with XLA: on a CPU TensorFlow's own kernels are faster and start at once."""
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf  # The backend that runs already; only asked for its devices.

    return "auto" if tf.config.list_physical_devices("GPU") else False
