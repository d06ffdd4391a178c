"""Weights for a network from a file."""

from __future__ import annotations

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

from histcxr.exceptions import InputError
from histcxr.reference.backbones import backbone_of, neutralise_normalisation

__all__ = ["load_weights"]


def load_weights(model: Any, path: str | os.PathLike[str]) -> None:
    """Put the weights of a file into a network.

    Only numbers are read; nothing in the file is run.

    Parameters
    ----------
    model : keras.Model
    path : path-like
        ``.keras`` or ``.weights.h5`` as Keras writes them, of the whole network or of its backbone alone; or the
        ``.h5`` file without top that Keras publishes for a backbone.

    Raises
    ------
    InputError
        When there is no such file, or it holds the weights of another network.
    """
    file, backbone = Path(path), backbone_of(model)
    if not file.is_file():
        raise InputError(f"weights must be None, 'imagenet' or a file; there is no file {file}")
    if not file.name.endswith((".keras", ".h5")):
        raise InputError(f"weights must be a .keras, .weights.h5 or .h5 file; got {file}")
    published = file.name.endswith(".h5") and not file.name.endswith(".weights.h5")
    if published and backbone is None:
        raise InputError(
            f"weights for {model.name} must be a .keras or .weights.h5 file; .h5 files are those that Keras "
            f"publishes for backbones; got {file}"
        )
    # The backbone first: what fits it holds nothing for the layers around it, and the other way round.
    problems = []
    for network in (backbone,) if published else (backbone, model):
        if network is None:
            continue
        try:
            with warnings.catch_warnings():
                # Keras warns of layers that the file does not hold, and leaves them as they are.
                warnings.filterwarnings("error", message="Skipping")
                network.load_weights(os.fspath(file))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, UserWarning) as error:
            problems.append(str(error).strip().split("\n")[0][:200])
        else:
            if network is backbone:  # our preprocessing stands in front of it
                neutralise_normalisation(network)
            return
    raise InputError(f"{file} does not hold the weights of {model.name}: {problems[-1]}")
