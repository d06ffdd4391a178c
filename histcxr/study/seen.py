"""Whom a model has seen: remembered as fingerprints and keyed identities, recognised, and left out."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from histcxr.data.fingerprints import FINGERPRINT_BYTES, equal_pixels, keyed_patients, recognised
from histcxr.exceptions import InputError
from histcxr.reports.tables import seen_text
from histcxr.store.judges import SavedModel
from histcxr.study.cohort import Cohort

#: Value of a network's ``held_out``: the validation part itself says when to stop, and can then certify nothing.
ON_VAL: Final = "val"

#: What is said of a model that cannot recognise anybody.
REMEMBERS_NOBODY = (
    "the model does not remember whom it was trained on in a way that can be recognised (it was made by an earlier "
    "version, or by hand)"
)


def remember(training: Mapping[str, Any], parts: Mapping[str, Cohort]) -> dict[str, Any]:
    """Return ``training`` with the images and patients of ``parts`` added to what it remembers.

    ``seen`` has the sorted fingerprints of a part in one base64 text, ``seen_patients`` the keyed identities of its
    patients, under a ``key`` that is the digest of the training images.
    """
    seen, patients = dict(training.get("seen", {})), dict(training.get("seen_patients", {}))
    key = patients.setdefault("key", str(training.get("fingerprint", "")))
    for part, cohort in parts.items():
        images = np.concatenate([_read(seen.get(part, "")), cohort.prints])
        seen[part] = base64.b64encode(np.unique(images, axis=0).tobytes()).decode()
        patients[part] = sorted({*patients.get(part, ()), *keyed_patients(_named(cohort), key)})
    return {**training, "seen": seen, "seen_patients": patients}


def remembers(model: SavedModel) -> bool:
    """Tell whether a model can recognise the images that it was trained on."""
    return all(isinstance(one.training.get("seen", {}).get("train"), str) for one in (model, *model.members))


def fitted_on(model: SavedModel) -> tuple[str, ...]:
    """Return the parts of the data that made a model's scores what they are."""
    on_val = model.training.get("settings", {}).get("held_out") == ON_VAL
    return ("train", "val") if on_val else ("train",)


def known_prints(model: SavedModel, parts: Sequence[str] = ("train", "val")) -> NDArray[np.uint8]:
    """Return the fingerprints (n, 72) of the images that a model has seen in ``parts``; none where it forgot."""
    seen = model.training.get("seen", {}) if remembers(model) else {}
    return np.concatenate([_read(seen.get(part, "")) for part in parts])


def leave_out_seen(
    cohort: Cohort, model: SavedModel, parts: Sequence[str] = ("train", "val")
) -> tuple[Cohort, dict[str, int]]:
    """Leave out every patient whom a model has seen in ``parts``: by any image of theirs, or by identity.

    Of a cascade, too, whom its two models were fitted to. Masks, file formats, sizes and names do not matter: images
    are recognised by decoded pixels, or as near-duplicates. The counts are of images left out: ``images`` in all; of
    them ``equal_pixels``, ``near_duplicates`` and ``same_patient`` (not recognised themselves). InputError: nothing is
    left, or what the model remembers is damaged.
    """
    if not remembers(model):
        return cohort, _counts(np.zeros((3, len(cohort)), np.bool_))
    before: Counter[str] = Counter()
    for member in model.members:
        cohort, left = leave_out_seen(cohort, member, fitted_on(member))
        before.update(left)
    patients, known = model.training.get("seen_patients", {}), known_prints(model, parts)
    equal = equal_pixels(cohort.prints, known)
    near = recognised(cohort.prints, known) & ~equal
    names = {name for part in parts for name in patients.get(part, ())}
    own = keyed_patients(cohort.patients, str(patients.get("key", "")))
    identified = np.isin(own, list(names)) & (cohort.table["patient_id"].astype(str) != "").to_numpy()
    out = np.isin(cohort.patients, cohort.patients[equal | near | identified])
    before.update(_counts(np.stack([equal, near, out & ~equal & ~near])))
    counts = dict(before)
    if out.all():
        raise InputError(
            f"data must hold radiographs that the model has not seen, got none ({counts['images']} were left out: "
            f"{seen_text(counts)})"
        )
    return cohort.part(~out), counts


def _counts(found: NDArray[np.bool_]) -> dict[str, int]:
    names = ("equal_pixels", "near_duplicates", "same_patient")
    return {
        "images": int(found.any(axis=0).sum()),
        **dict(zip(names, found.sum(axis=1).tolist(), strict=True)),
    }


def _named(cohort: Cohort) -> list[str]:
    """Return the patients whose identity the data tell; an image without one is no patient's name."""
    return sorted({str(patient) for patient in cohort.table["patient_id"]} - {""})


def _read(text: str) -> NDArray[np.uint8]:
    try:
        raw = base64.b64decode(text, validate=True)
        return np.frombuffer(raw, np.uint8).reshape(-1, FINGERPRINT_BYTES)
    except (ValueError, TypeError, binascii.Error) as error:
        raise InputError(f"what the model remembers of its training images is damaged ({error})") from error
