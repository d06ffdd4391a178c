"""Which radiographs to have read: patients drawn at random, or half of them by their score.

A certificate rests on patients who are drawn like those it will judge, so a random draw certifies as it is. Patients
drawn by score (equally many from each fifth of the scores) show a new model more of what is rare, but they are no
random sample: their scores decided. So half of the list is drawn at random first, whatever the scores, and it alone
certifies; the list says so in ``split``, which :func:`histcxr.calibrate` and training obey.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.checks import FloatArray, whole_number
from histcxr.data.splits import patient_groups
from histcxr.decision.intervals import patient_scores
from histcxr.decision.planning import chance_of_enough
from histcxr.decision.thresholds import patients_needed
from histcxr.exceptions import InputError, Reason
from histcxr.files.cells import write_table
from histcxr.site.plan import Aim
from histcxr.store.judges import SavedModel
from histcxr.study.certify import BY_SCORE
from histcxr.study.cohort import Reading, model_input, read_measured

#: How a patient came into the list, if not by score.
RANDOM: Final = "random"

#: Scores lie in [0, 1]; patients are drawn by score from so many equal parts of it.
_PARTS: Final = 5


@dataclass(frozen=True)
class LabellingList:
    """The images to have read, in an order that tells nothing.

    ``table`` has the manifest's columns, ``label`` empty to be filled in, and two more: ``drawn``, ``"random"`` or
    ``"by_score"``, and ``weight``, how many patients of the folder one stands for (1 / the chance to be drawn), for
    estimates such as the share of sick. ``split`` is ``""`` where all were drawn at random; otherwise ``"val"``
    (certifies) for the random ones, ``"train"`` for those drawn by score. The weight betrays the score's part to a
    reader who should not know it.

    ``patients`` and ``images`` count all that there was to draw from, ``certify`` the patients drawn at random,
    ``by_score`` the others, ``nameless`` the images without ``patient_id``, and ``unjudged`` the images by reason code
    that no model could score, so that nobody was drawn for them.

    ``needed`` are the least sick and normal patients that certify rule_out and rule_in, and ``chance``, where the
    prevalence is known, how probably so many are among the random ones.
    """

    table: pd.DataFrame
    patients: int
    images: int
    certify: int
    by_score: int
    nameless: int
    needed: Mapping[str, int]
    chance: Mapping[str, float] = field(default_factory=dict)
    unjudged: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, ready for JSON: those of the fields, ``drawn`` patients and ``listed`` images."""
        counted = ("patients", "images", "certify", "by_score", "nameless", "needed", "chance", "unjudged")
        counts = {name: getattr(self, name) for name in counted}
        return {**counts, "drawn": self.certify + self.by_score, "listed": len(self.table)}

    def write(self, path: str | PathLike[str]) -> None:
        """Write the list as CSV, which :func:`histcxr.read_manifest` reads.

        InputError: there is such a file, which may hold labels. OutputError: it cannot be written.
        """
        if os.path.lexists(path):
            raise InputError(
                f"output must be a new file: {os.fspath(path)} is there and may hold labels; choose another name"
            )
        write_table(self.table, path)


def draw_patients(
    n: int, wanted: int, scores: FloatArray | None, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.bool_], FloatArray]:
    """Draw ``wanted`` of ``n`` patients without replacement: positions, which are random, and weights, each (drawn,).

    With ``scores`` (n,) in [0, 1], one a patient, the larger half is drawn at random and the rest equally from each
    fifth of the scores, as far as it goes. Given how many of each fifth the random half holds, all sets of its members
    are as likely, so a patient's chance is the drawn share of his fifth.
    """
    order = rng.permutation(n)
    if scores is None:
        return order[:wanted], np.ones(wanted, np.bool_), np.full(wanted, n / wanted)
    random = wanted - wanted // 2
    part = np.clip((scores * _PARTS).astype(np.intp), 0, _PARTS - 1)
    waiting = [[place for place in order[random:].tolist() if part[place] == one] for one in range(_PARTS)]
    by_score: list[int] = []
    while len(by_score) < wanted // 2:  # one of each part in turn, those with the highest scores first
        for members in reversed(waiting):
            if members and len(by_score) < wanted // 2:
                by_score.append(members.pop())
    drawn = np.concatenate([order[:random], np.array(by_score, np.intp)])
    there, taken = (np.bincount(one, minlength=_PARTS) for one in (part, part[drawn]))
    weights = there[part[drawn]] / taken[part[drawn]]
    mixed = rng.permutation(wanted)
    return drawn[mixed], mixed < random, weights[mixed]


def draw_labelling_list(
    manifest: pd.DataFrame,
    patients: int,
    *,
    by_score: SavedModel | None = None,
    aim: Aim | None = None,
    reading: Reading | None = None,
    seed: int = 0,
) -> LabellingList:
    """Draw which patients of a manifest to have read, with all their images.

    Parameters
    ----------
    manifest : DataFrame
        As of :func:`histcxr.read_manifest`; labels are not used. An image without ``patient_id`` is its own patient.
    patients : int
        How many to draw.
    by_score : Model or ReferenceModel, optional
        Half of them by the scores of this model (a patient's is the highest of their images), which reads every
        image. By default all are drawn at random, and no image is opened.
    aim : Aim, optional
        The promise that they shall certify, and the prevalence where it is known.
    reading : Reading, optional
        How images are read for their scores.
    seed : int
        Equal seeds draw equal patients.

    Raises
    ------
    InputError
        More patients are wanted than there are (that can be judged).
    """
    wanted = whole_number(patients, "patients", least=2)
    groups = patient_groups(manifest)
    scores, unjudged = None, {}
    judged = np.ones(len(manifest), np.bool_)
    if by_score is not None:
        found, reasons = _scores(manifest, by_score, reading or Reading("either"))
        judged = reasons == ""
        unjudged = dict(sorted(Counter(reasons[~judged].tolist()).items()))
        scores = patient_scores(found[judged], groups[judged])
    names = pd.unique(pd.Series(groups[judged], dtype=object))
    if wanted > len(names):
        able = " whom the model can judge" if by_score is not None else ""
        raise InputError(f"patients must be at most {len(names)}, all{able} that there are, got {wanted}")
    drawn, random, weights = draw_patients(len(names), wanted, scores, np.random.default_rng(seed))
    place = pd.Series(np.arange(wanted), index=pd.Index(names[drawn], dtype=object))
    rank = place.reindex(groups).to_numpy(dtype=float, na_value=np.nan)
    rows = np.flatnonzero(np.isfinite(rank) & judged)
    rows = rows[np.argsort(rank[rows], kind="stable")]
    own = rank[rows].astype(np.intp)
    split = "" if by_score is None else np.where(random[own], "val", "train")
    how = np.where(random[own], RANDOM, BY_SCORE)
    table = manifest.iloc[rows].assign(label="", split=split, drawn=how, weight=np.round(weights[own], 4))
    certify, hope = int(random.sum()), aim or Aim()
    promise = hope.promise
    needed = {
        "sick": patients_needed(promise.sensitivity, promise.confidence),
        "normal": patients_needed(promise.specificity, promise.confidence),
    }
    shares = {} if (p := hope.prevalence) is None else {"sick": p, "normal": 1 - p}
    return LabellingList(
        table.reset_index(drop=True),
        len(pd.unique(pd.Series(groups, dtype=object))),
        len(manifest),
        certify,
        int((~random).sum()),
        int((manifest["patient_id"] == "").sum()),
        needed,
        {name: chance_of_enough(certify, needed[name], share) for name, share in shares.items()},
        unjudged,
    )


def _scores(
    manifest: pd.DataFrame, model: SavedModel, how: Reading
) -> tuple[FloatArray, NDArray[np.object_]]:
    """Return score and reason of each image, (n,): NaN and a code where triage would not judge it."""
    values, read, _ = read_measured(manifest, model_input(model), replace(how, lungs=how.lungs or "either"))
    reasons = read.table["reason"].to_numpy(dtype=object).copy()
    usable = np.flatnonzero(reasons == "")
    strange = model.unfamiliar(values[usable])
    reasons[usable[strange]] = Reason.UNLIKE_TRAINING.value
    usable = usable[~strange]
    scores = np.full(len(manifest), np.nan)
    scores[usable] = model.score(values[usable])
    broken = usable[~((scores[usable] >= 0) & (scores[usable] <= 1))]
    reasons[broken] = Reason.SCORE_INVALID.value
    return scores, reasons
