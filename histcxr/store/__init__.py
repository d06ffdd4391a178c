"""The saved model: recipe, weights, thresholds and card, in files that cannot run code.

A model is a folder ``NAME.histcxr`` with four kinds of file:

========================  ==========================================================================
``manifest.json``         what the model is: recipe, thresholds, training data, metrics, versions, and
                          the size and SHA-256 of every other file
``manifest.sha256``       the SHA-256 of ``manifest.json``, as ``sha256sum -c`` reads it
``estimator.skops``       the scikit-learn pipeline, loaded through a short list of known types
``booster-N.ubj``         each XGBoost booster, in XGBoost's own UBJSON
========================  ==========================================================================

:mod:`~histcxr.store.model` says what a model is, :mod:`~histcxr.store.folder` writes and reads
the folder, :mod:`~histcxr.store.weights` turns a pipeline into bytes and back, and
:mod:`~histcxr.store.structure` checks what the bytes contain before it is used.

A network that sees the image itself is saved by :mod:`~histcxr.store.network`, which is not loaded from here;
:mod:`~histcxr.store.judges` is what triage needs of either kind.

Another minor version of scikit-learn or XGBoost than the one that saved a model gives a warning, and only as long as
the model still scores a fixed probe as it did; another major version is refused.
"""

from histcxr.store.folder import holds_network, load_model, model_hash, save_model
from histcxr.store.judges import Judge, load_judge
from histcxr.store.model import Model, installed_versions

__all__ = [
    "Judge",
    "Model",
    "holds_network",
    "installed_versions",
    "load_judge",
    "load_model",
    "model_hash",
    "save_model",
]
