"""The saved model, of either kind: input, weights, thresholds and card, in files that cannot run code.

A model is a folder ``NAME.histcxr``:

========================  ==========================================================================
``manifest.json``         what the model is: kind (histogram, network or cascade), what it reads, thresholds,
                          training data, metrics, card, versions, and the size and SHA-256 of every other file
``manifest.sha256``       the SHA-256 of ``manifest.json``, as ``sha256sum -c`` reads it
``manifest.sig``          where somebody vouches for the model: an Ed25519 signature of ``manifest.json``
``estimator.skops``       the scikit-learn estimator, a network too, loaded through a short list of known types
``booster-N.json.gz``     each XGBoost booster, in XGBoost's own JSON
``first-…``, ``then-…``   of a cascade: the files of the two models that it is made of
========================  ==========================================================================

:mod:`~histcxr.store.model` says what a model is, :mod:`~histcxr.store.cascade` how two are one,
:mod:`~histcxr.store.judges` what all of them can do;
:mod:`~histcxr.store.at_hand` what they do with pixels in memory; :mod:`~histcxr.store.folder` writes and reads the
folder, :mod:`~histcxr.store.signing` signs it, :mod:`~histcxr.store.weights` turns an estimator into bytes and back,
scored
by :mod:`~histcxr.store.plain`, and :mod:`~histcxr.store.structure` checks what the bytes contain.
"""

from histcxr.store.cascade import Cascade
from histcxr.store.folder import (
    BOXED,
    check_place,
    load_model,
    model_hash,
    pack_model,
    save_model,
    sign_model,
    unpack_model,
    verify_model,
)
from histcxr.store.judges import Judge, SavedModel
from histcxr.store.model import Model, ReferenceModel
from histcxr.store.versions import installed_versions

__all__ = [
    "BOXED",
    "Cascade",
    "Judge",
    "Model",
    "ReferenceModel",
    "SavedModel",
    "check_place",
    "installed_versions",
    "load_model",
    "model_hash",
    "pack_model",
    "save_model",
    "sign_model",
    "unpack_model",
    "verify_model",
]
