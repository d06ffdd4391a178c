"""What models are worth on patients whose truth is known: figures with intervals, as a whole, by group, by class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.fingerprints import keyed_patients
from histcxr.data.manifest import is_sick
from histcxr.data.progress import Progress
from histcxr.data.splits import patient_groups
from histcxr.decision.auc import compare as compare_scores
from histcxr.exceptions import InputError, Reason
from histcxr.store import ReferenceModel
from histcxr.store.judges import SavedModel
from histcxr.store.model import sick_score
from histcxr.study.certify import contradicted
from histcxr.study.cohort import (
    Cohort,
    Data,
    Reading,
    check_columns,
    group_columns,
    known_groups,
    labelled_manifest,
    normal_label,
    only_split,
    read_cohort,
    split_named,
)
from histcxr.study.figures import (
    MIN_CLASS,
    SUSPECTS,
    class_figures,
    class_numbers,
    enough,
    measure,
    within_groups,
)
from histcxr.study.seen import leave_out_seen, remembers


@dataclass(frozen=True)
class Judged:
    """A cohort as one model judged it: probabilities (n, k), the normal class first.

    ``seen`` counts images that were left out because the model was trained or certified on their patients, as
    :func:`~histcxr.study.seen.leave_out_seen` does. ``rest`` are images that could not be judged, as far as they are
    known; None of a part.
    """

    model: SavedModel
    cohort: Cohort
    probabilities: NDArray[np.float64]
    seen: Mapping[str, int] = field(default_factory=dict)
    rest: Cohort | None = None

    @classmethod
    def of(
        cls,
        model: SavedModel,
        cohort: Cohort,
        seen: Mapping[str, int] | None = None,
        unread: Cohort | None = None,
    ) -> Judged:
        """Score the images that the model does not refuse; these and the ``unread`` are the rest.

        InputError: it refuses all.
        """
        strange = model.unfamiliar(cohort.values)
        rest = _joined(cohort.part(strange), unread)
        if strange.any():
            unusable = {**cohort.unusable, Reason.UNLIKE_TRAINING.value: int(strange.sum())}
            cohort = replace(cohort.part(~strange), unusable=unusable)
        if not len(cohort):
            raise InputError(
                f"not one of {len(strange)} images has lungs like those that the model was trained on"
            )
        if not isinstance(model, ReferenceModel):
            scores = model.score(cohort.values)
            return cls(model, cohort, np.column_stack([1 - scores, scores]), seen or {}, rest)
        return cls(model, cohort, model.probabilities(cohort.values), seen or {}, rest)

    @classmethod
    def unseen(cls, model: SavedModel, manifest: pd.DataFrame, reading: Reading) -> Judged:
        """Read and score what a model has not seen. No two rows of the manifest share their index."""
        read = read_cohort(manifest, model, reading)
        cohort, seen = leave_out_seen(read, model)
        lost = manifest.loc[~manifest.index.isin(read.table.index)]
        unread = Cohort(lost, is_sick(lost["label"], read.normal), patient_groups(lost))
        return cls.of(model, cohort, seen, unread.part(~_known(model, unread, read, cohort)))

    def site(self) -> dict[str, Any] | None:
        """Test as a triage does whether these images come from the certified population."""
        reference = self.model.site
        if reference is None:
            return None
        sketch = reference.sketch()
        sketch.add(reference.project(self.model.site_numbers(self.cohort.values)))
        return reference.test(sketch).to_dict()

    @property
    def scores(self) -> NDArray[np.float64]:
        """The probability of being sick, shape (n,)."""
        return sick_score(self.probabilities)

    def part(self, keep: NDArray[np.bool_]) -> Judged:
        """Return the images where ``keep`` is true."""
        return replace(self, cohort=self.cohort.part(keep), probabilities=self.probabilities[keep], rest=None)

    def within(self, column: str, value: Any) -> Judged:
        """Return the images of one group, those that could not be judged among them."""
        rest = None if self.rest is None else self.rest.part(_in(self.rest, column, value))
        return replace(self.part(_in(self.cohort, column, value)), rest=rest)

    def figures(self, prevalence: float | None = None) -> dict[str, Any]:
        """Return what :func:`measure` does, and of a network ``classes`` as :func:`class_figures` does."""
        model, cohort = self.model, self.cohort
        drawers = model.drawers(self.scores, known_groups(model, cohort.table))
        found = measure(
            self.scores,
            cohort,
            model.rule_out,
            model.rule_in,
            drawers=drawers,
            prevalence=prevalence,
            rest=self.rest,
        )
        if isinstance(model, ReferenceModel):
            targets = class_numbers(cohort.table["label"], model.classes, cohort.normal)
            found["classes"] = class_figures(targets, self.probabilities, model.classes)
        return found

    def about(self) -> dict[str, Any]:
        """Name the model and the share of sick among the images that it was fitted on, ready for JSON."""
        learnt = self.model.training.get("train", {})
        trained = learnt["sick"] / learnt["images"] if learnt.get("images") else None
        name = {"name": self.model.name, "hash": self.model.hash, "trained_prevalence": trained}
        return {**name, **self.model.describe_input()}


def evaluate(
    model: SavedModel,
    data: Data,
    *,
    split: str | None = "test",
    by: Sequence[str] = (),
    prevalence: float | None = None,
    lungs: str = "either",
    normal: str | None = None,
    cache: str | PathLike[str] | None = None,
    n_jobs: int = 1,
    progress: Progress = False,
    look: Callable[[Judged], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Measure a model on labelled radiographs that it has not seen.

    Parameters
    ----------
    model : Model or ReferenceModel
    data : path or DataFrame
        A folder, a CSV, or a manifest. Images that trained the model or certified its thresholds are left
        out, with their patients.
    split : str or None
        The part of the data; None, "all", or data that name no split: all of it.
    by : sequence of str
        Manifest columns: measure also within each of their values, as within the groups that are certified.
    prevalence : float, optional
        As in :func:`measure`.
    lungs : {"either", "given", "found"}
        Whose lung masks; ``"either"`` does what triage does: the segmenter's where none is given.
    normal : str, optional
        The label that means normal; by default the one that did in training.
    cache, n_jobs, progress
        As in :func:`histcxr.train`.
    look : callable, optional
        Looks closer at what was judged, such as :func:`~histcxr.study.evidence.closer_look`; what it returns becomes
        ``closer``.

    Returns
    -------
    dict
        ``overall`` and ``groups[COLUMN][VALUE]`` as :meth:`Judged.figures` gives them (``among_all`` in each counts
        images that could not be judged as triage has them, in review), ``within`` as
        :func:`~histcxr.study.figures.within_groups` does (of view, source and age_group where the data have them, and
        of ``by``), ``unusable`` (images that could not be judged, by reason, those that the model has seen among
        them), ``refused`` (the share that could not be judged of those that it has not seen), ``seen`` (images
        left out, and how they were recognised), ``remembers`` (whether any could be),
        ``contradicted`` (as :func:`~histcxr.study.certify.contradicted` says), ``site`` (as
        :class:`~histcxr.decision.site.SiteTest` says, whether a triage would withhold its drawers here; None where the
        model has no reference), ``model``, ``split``, ``thresholds`` and
        ``certificates`` (within groups, or None); ready for JSON.

    Raises
    ------
    InputError
        No such part or column, a label that a network does not know, or nothing left to measure on.
    """
    manifest = only_split(labelled_manifest(data), split).reset_index(drop=True)
    check_columns(by, manifest)
    judged = Judged.unseen(model, manifest, Reading(lungs, normal, cache, n_jobs, progress))
    table = judged.cohort.table
    promised = sorted(group_columns(model) & set(manifest.columns))
    columns = list(dict.fromkeys([*by, *promised]))
    overall = judged.figures(prevalence)
    groups = _by_group(table, columns, lambda *group: judged.within(*group).figures(prevalence))
    suspects = [name for name in dict.fromkeys([*SUSPECTS, *by]) if name in table and name != "label"]
    return {
        "model": judged.about(),
        "split": split_named(manifest, split),
        "overall": overall,
        "groups": groups,
        "within": within_groups(judged.scores, judged.cohort, suspects),
        "contradicted": contradicted(model, overall, groups),
        "site": judged.site(),
        "unusable": dict(judged.cohort.unusable),
        "refused": 1 - overall["images"] / overall["among_all"]["images"],
        "seen": dict(judged.seen),
        "remembers": remembers(model),
        "thresholds": {"rule_out": model.rule_out.to_dict(), "rule_in": model.rule_in.to_dict()},
        "certificates": model.training.get("groups"),
        **({} if look is None else {"closer": dict(look(judged))}),
    }


def compare(
    models: Sequence[SavedModel],
    data: Data,
    reading: Reading | None = None,
    *,
    split: str | None = "test",
    by: Sequence[str] = (),
    prevalence: float | None = None,
    sensitivity: float = 0.95,
) -> dict[str, Any]:
    """Compare two models of any kind on the same patients: those that neither has seen and neither refuses.

    Specificities are compared where each model's threshold is the highest that reaches ``sensitivity`` on these
    images. Ready for JSON: ``models`` (of each ``name``, ``hash``, its input, its figures on these patients in
    ``overall``, and its own ``seen`` and ``unusable``), ``split``, ``left_out`` (images that one of the two has seen
    or refuses), ``overall`` and ``groups[COLUMN][VALUE]``: ``n_images``, ``n_patients``, ``sensitivity``, ``auc`` and
    ``specificity`` (each ``first``, ``second``, their ``difference`` with its paired interval, and ``p_value``; None
    of fewer than 10 sick or normal patients).

    InputError: not two models, as :func:`evaluate`, or too few images in common.
    """
    if len(models) != 2:
        raise InputError(f"models must be two to compare, got {len(models)}")
    manifest = only_split(labelled_manifest(data), split).reset_index(drop=True)
    check_columns(by, manifest)
    how = reading or Reading("either")
    how = replace(how, normal=how.normal or normal_label(models[0]))
    both = [Judged.unseen(model, manifest, how) for model in models]
    common = both[0].cohort.table.index.intersection(both[1].cohort.table.index)
    first, second = (judged.part(judged.cohort.table.index.isin(common)) for judged in both)
    if not enough(first.cohort):
        raise InputError(
            f"the models must have at least {MIN_CLASS} sick and {MIN_CLASS} normal patients in common that neither "
            f"has seen or refuses, got {int(first.cohort.sick.sum())} sick images of {len(common)}"
        )

    def difference(keep: NDArray[np.bool_]) -> dict[str, Any] | None:
        part = first.cohort.part(keep)
        return _difference(first.scores[keep], second.scores[keep], part, sensitivity)

    def within(column: str, value: Any) -> dict[str, Any] | None:
        return difference(_in(first.cohort, column, value))

    return {
        "models": [_one_of_two(*pair, prevalence) for pair in zip((first, second), both, strict=True)],
        "split": split_named(manifest, split),
        "left_out": len(manifest) - len(common),
        "overall": difference(np.ones(len(common), bool)),
        "groups": _by_group(first.cohort.table, by, within),
    }


def _one_of_two(part: Judged, whole: Judged, prevalence: float | None) -> dict[str, Any]:
    overall = part.figures(prevalence)
    said = {"seen": dict(whole.seen), "remembers": remembers(whole.model), "unusable": whole.cohort.unusable}
    return {**part.about(), "overall": overall, "contradicted": contradicted(part.model, overall, {}), **said}


def _difference(
    first: NDArray[np.float64], second: NDArray[np.float64], cohort: Cohort, sensitivity: float
) -> dict[str, Any] | None:
    """Compare two sets of scores (n,) of one cohort; None of too few."""
    if not enough(cohort):
        return None
    return compare_scores(first, second, cohort.sick, cohort.patients, sensitivity=sensitivity).to_dict()


def _by_group(
    table: pd.DataFrame, by: Sequence[str], figures: Callable[[str, Any], Any]
) -> dict[str, dict[str, Any]]:
    groups = {column: sorted(table[column].unique(), key=str) for column in by}
    return {
        column: {str(value): figures(column, value) for value in values} for column, values in groups.items()
    }


def _in(cohort: Cohort, column: str, value: Any) -> NDArray[np.bool_]:
    return (cohort.table[column] == value).to_numpy()


def _joined(refused: Cohort, unread: Cohort | None) -> Cohort:
    """Put images together that could not be judged: rows, truth and patients."""
    both = [refused] if unread is None else [refused, unread]
    return Cohort(
        pd.concat([one.table for one in both]),
        np.concatenate([one.sick for one in both]),
        np.concatenate([one.patients for one in both]),
    )


def _known(model: SavedModel, unread: Cohort, read: Cohort, unseen: Cohort) -> NDArray[np.bool_]:
    """Tell whose images (n,) a model has seen, of those that could not be read: by other images, or by identity."""
    remembered = model.training.get("seen_patients", {})
    names = {name for part in ("train", "val") for name in remembered.get(part, ())}
    named = (unread.table["patient_id"].astype(str) != "").to_numpy()
    own = keyed_patients(unread.patients, str(remembered.get("key", "")))
    gone = set(read.patients) - set(unseen.patients)
    return np.isin(unread.patients, list(gone)) | (np.isin(own, list(names)) & named)
