"""The frozen part of a backbone, run once: every epoch then costs the trained part alone.

A frozen layer gives the same maps of an image in every epoch, its batch normalisation uses the means it came with. So
a network is cut at the last place that all of its maps pass before the first trained layer. What comes out there is
kept as float16 numbers in a file that the system maps into memory; where training changes its images, also of
:data:`COPIES` changed copies, which the epochs take in turns. Both halves share their layers
with the network, so that training one trains the other.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from histcxr.exceptions import InputError
from histcxr.features.cache import ArrayCache
from histcxr.networks.backend import import_neural
from histcxr.networks.fit import outputs
from histcxr.networks.training import TrainingData
from histcxr.reference.augmentation import Augmentation, augmented_batch
from histcxr.reference.backbones import PREPROCESSED, backbone_of

#: Most bytes that are kept of a training's images; where it would be more, the frozen part is run in every epoch.
MAX_BYTES: Final = 16 << 30

#: So many changed copies of an image are kept; an epoch takes the next.
COPIES: Final = 4

# Three decimal digits; how far that moves a score is tested beside float32.
_TYPE: Any = np.float16
_LARGEST: Final = float(np.finfo(np.float16).max)
# Images that the frozen part sees before their maps are put away.
_CHUNK: Final = 256


class Halves:
    """A model with a backbone, cut before its first trained layer; ``back`` shares the model's layers.

    ``front``: from grey levels (n, size, size, 1) to the maps at the cut, (n, ...); ``back``: from these to scores.
    """

    def __init__(self, model: Any) -> None:
        keras = import_neural("keras", "to train a network")
        backbone: Any
        backbone, pool = backbone_of(model), model.get_layer("pool")
        logits, self.size = model.get_layer("logits").output, model.input_shape[1]
        trained = [place for place, layer in enumerate(backbone.layers) if layer.trainable and layer.weights]
        if trained:
            cut = _narrow_place(backbone, trained[0])
            inside = keras.Model(backbone.inputs[0], cut)
            front = inside(model.get_layer(PREPROCESSED).output)
            ends = [keras.Model(cut, backbone.output), keras.Model(pool.input, logits)]
        else:
            front = cut = pool.output
            ends = [keras.Model(pool.output, logits)]
        self.front = keras.Model(model.inputs[0], front)
        # On a CPU TensorFlow's own kernels start at once, and XLA's are not faster.
        self.front.compile(jit_compile=False)
        x = inputs = keras.Input(cut.shape[1:])
        for end in ends:
            x = end(x)
        score = keras.layers.Activation(model.layers[-1].activation, name="score")(x)
        self.back = keras.Model(inputs, score, name=model.name)
        self.shape: tuple[int, ...] = tuple(cut.shape[1:])
        self.place = f"{backbone.name}/{cut.name}" if trained else "pool"

    def identity(self) -> dict[str, Any]:
        """Return what the maps depend on beside the image."""
        keras = import_neural("keras", "to train a network")
        digest = hashlib.sha256()
        for array in self.front.get_weights():
            digest.update(np.ascontiguousarray(array).tobytes())
        about = {"frozen": self.place, "size": self.size, "weights": digest.hexdigest()}
        return {**about, "keras": keras.__version__, "backend": keras.backend.backend()}

    def run_front(
        self,
        images: NDArray[np.uint8],
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> NDArray[np.float16]:
        """Return the maps of images (n, size, size), shape (n, ...).

        They lie in a file without a name where temporary files do; numbers beyond float16 become its largest. In the
        folder ``cache`` they are kept, too, by the content of the square and all that they depend on. InputError:
        there is no room for them.
        """
        found = _mapped((len(images), *self.shape))
        kept = None
        keys, missing = [b""] * len(images), list(range(len(images)))
        if cache is not None:
            kept = ArrayCache(cache, self.identity(), {"maps": (_TYPE, int(np.prod(self.shape)))})
            keys, there = [hashlib.sha256(one.tobytes()).digest() for one in images], kept.keys()
            missing = kept.fill([pair for pair in enumerate(keys) if pair[1] in there], found)
            missing += [row for row, key in enumerate(keys) if key not in there]
        starts = range(0, len(missing), _CHUNK)
        for start in tqdm(starts, "frozen layers", unit="batch", disable=not progress, leave=False):
            rows = missing[start : start + _CHUNK]
            found[rows] = outputs(self.front, images[rows][..., None]).clip(-_LARGEST, _LARGEST)
            if kept is not None:
                kept.add([keys[row] for row in rows], list(found[rows]))
        if kept is not None:
            kept.flush()
        return found


def on_kept_maps(
    model: Any,
    data: TrainingData,
    augmentation: Augmentation | None,
    *,
    seed: int,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[Any, TrainingData]:
    """Return what trains of a model, and the data as its frozen part gives them; it trains as the whole would.

    With an ``augmentation`` (drawn from ``seed``) it trains on the changed images of the first :data:`COPIES` epochs
    again and again. Both are returned as they are where nothing is frozen, where pictures are blended, or where the
    maps would take more than :data:`MAX_BYTES`. ``data.inputs``: squares (n, size, size, 1). Dropout inside a frozen
    part (EfficientNet's) drops nothing here.
    """
    if backbone_of(model) is None or data.mixup:
        return model, data
    halves, squares = Halves(model), data.inputs[..., 0]
    turns = 1 if augmentation is None else 1 + COPIES
    size = turns * len(squares) * int(np.prod(halves.shape)) * np.dtype(_TYPE).itemsize
    if not halves.front.weights or size > MAX_BYTES:
        return model, data
    maps = _mapped((turns, len(squares), *halves.shape))
    maps[0] = halves.run_front(squares, cache=cache)
    for epoch in range(turns - 1):
        changed = augmented_batch(squares, data.rows, augmentation, seed=seed, epoch=epoch)
        maps[1 + epoch, data.rows] = halves.run_front(changed)

    def augment(rows: NDArray[np.intp], epoch: int) -> NDArray[np.float16]:
        return np.asarray(maps[1 + epoch % COPIES if turns > 1 else 0, rows])

    return halves.back, replace(data, inputs=maps[0], augment=augment)


def _mapped(shape: tuple[int, ...]) -> NDArray[np.float16]:
    size = int(np.prod(shape)) * np.dtype(_TYPE).itemsize
    try:
        with tempfile.TemporaryFile() as file:
            file.truncate(max(1, size))
            if hasattr(os, "posix_fallocate"):  # a full disk is no crash in the middle of training
                os.posix_fallocate(file.fileno(), 0, max(1, size))
            return np.memmap(file, _TYPE, "r+", shape=shape)
    except OSError as error:
        raise InputError(
            f"what frozen layers make of the images takes {size >> 20} MiB, for which {tempfile.gettempdir()} has no "
            f"room ({error.strerror}): set TMPDIR, give a smaller size, or unfreeze fewer layers"
        ) from error


def _narrow_place(backbone: Any, first: int) -> Any:
    """Return the last tensor before layer number ``first`` that everything after it depends on alone.

    Shortcuts and concatenations carry several tensors past most layers; between blocks there is one.
    """
    layers = backbone.layers
    maker = {id(tensor): place for place, layer in enumerate(layers) for tensor in _tensors(layer.output)}
    # The last layer that takes in what each layer gives; layers stand in an order in which nothing flows back.
    used = list(range(len(layers)))
    for place, layer in enumerate(layers[1:], start=1):
        for tensor in _tensors(layer.input):
            used[maker[id(tensor)]] = place
    for place in range(first - 1, 0, -1):
        if max(used[:place], default=0) <= place:
            return layers[place].output
    return layers[0].output


def _tensors(found: Any) -> list[Any]:
    return list(found) if isinstance(found, list | tuple) else [found]
