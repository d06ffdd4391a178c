"""What models are worth on patients whose truth is known: figures with intervals, as a whole, by group, by class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import (
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from histcxr.data.manifest import is_sick
from histcxr.decision.auc import auc
from histcxr.decision.auc import compare as compare_scores
from histcxr.decision.curves import brier_score, expected_calibration_error, specificity_at_sensitivity
from histcxr.decision.drawers import confusion, evaluate_decisions
from histcxr.decision.thresholds import RULE_OUT, ThresholdChoice, decide
from histcxr.exceptions import InputError, Reason
from histcxr.store import Model
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
)
from histcxr.study.seen import leave_out_seen, remembers

#: An AUC of fewer images than this of either class is noise.
MIN_CLASS: Final = 10

#: Points of a ROC curve that are kept: more than a plot can show.
_POINTS: Final = 200


def measure(
    scores: NDArray[np.float64],
    cohort: Cohort,
    rule_out: ThresholdChoice,
    rule_in: ThresholdChoice,
    *,
    drawers: NDArray[np.str_] | None = None,
    prevalence: float | None = None,
) -> dict[str, Any]:
    """Return all figures of the scores (n,) of a cohort's images, ready for JSON.

    ``drawers`` (n,) are the images', where groups have thresholds of their own; by default as the two thresholds say.
    ``prevalence`` is the share of sick patients where NPV and PPV should hold; by default as in the cohort.

    The figures: ``accuracy`` (calls at 0.5, by image), ``auc`` with ``auc_low`` and ``auc_high`` (95 % interval that
    knows patients; None with fewer than 10 sick or normal images), ``sensitivity`` and ``specificity`` at the rule-out
    threshold (by patient), ``specificity_at_95`` (by image, where these images reach 95 % sensitivity, with its
    interval; to compare models, it promises nothing), ``confusion`` at 0.5, ``confusion_at_rule_out`` (by image, sick
    from the certified threshold on; None without one), ``brier``, ``calibration_error``, ``decisions`` with every
    figure of the drawers and its interval, and the ``prevalence`` at which NPV and PPV hold.
    """
    sick, area, point = cohort.sick, None, None
    if _enough(sick):
        area = auc(scores, sick, patient_ids=cohort.patients)
        found = specificity_at_sensitivity(scores, sick, sensitivity=0.95, patient_ids=cohort.patients)
        point = {name: getattr(found.specificity, name) for name in ("value", "low", "high")}
    if drawers is None:
        drawers = decide(scores, rule_out, rule_in)
    decisions = evaluate_decisions(
        scores, sick, cohort.patients, rule_out, rule_in, drawers=drawers, prevalence=prevalence
    )
    called = confusion(drawers != RULE_OUT, sick).to_dict() if rule_out.certified else None
    return {
        "images": len(cohort),
        "sick": int(sick.sum()),
        "accuracy": float(np.mean((scores >= 0.5) == sick)),
        "auc": area.value if area else None,
        "auc_low": area.low if area else None,
        "auc_high": area.high if area else None,
        "sensitivity": decisions.sensitivity.value if decisions.sensitivity else None,
        "specificity": decisions.specificity.value if decisions.specificity else None,
        "specificity_at_95": point,
        "confusion": confusion(scores >= 0.5, sick).to_dict(),
        "confusion_at_rule_out": called,
        "brier": brier_score(scores, sick),
        "calibration_error": expected_calibration_error(scores, sick),
        "decisions": decisions.to_dict(),
        "prevalence": decisions.n_sick / decisions.n_patients if prevalence is None else prevalence,
    }


def class_numbers(labels: pd.Series[Any], classes: Sequence[str], normal: str) -> NDArray[np.int64]:
    """Turn labels into the numbers of a network's classes, of which the first is normal.

    InputError: a network of several classes does not know a label.
    """
    sick = is_sick(labels, normal)
    if len(classes) == 2:
        return sick.astype(np.int64)
    numbers = {name: number for number, name in enumerate(classes)}
    names = labels.astype(str).str.strip().where(sick, classes[0])
    unknown = sorted(set(names) - set(numbers))
    if unknown:
        raise InputError(
            f"label must be one of the network's classes {', '.join(classes)}; got also {', '.join(unknown)}"
        )
    return np.array([numbers[name] for name in names], np.int64)


def class_figures(
    targets: NDArray[np.integer], probabilities: NDArray[np.float64], names: Sequence[str]
) -> dict[str, Any]:
    """Count calls of the most probable of k classes: targets are numbers (n,), probabilities (n, k).

    Ready for JSON: ``names``, ``accuracy``, ``balanced_accuracy`` (mean recall of the classes there are),
    ``macro_f1``, ``loss`` (mean negative log likelihood), ``matrix`` (rows: truth, columns: calls), ``classes`` (per
    class ``images, precision, recall, f1, auc``, the last against the rest, None where it does not exist) and ``roc``
    (per class ``fpr`` and ``tpr``; of two classes the second one alone). A precision without any call is 0.
    """
    numbers = np.arange(len(names))
    calls = probabilities.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, calls, labels=numbers, zero_division=0
    )
    there = np.unique(targets)
    counted = {"images": support, "precision": precision, "recall": recall, "f1": f1}
    classes: list[dict[str, Any]] = []
    curves = {}
    for number, name in enumerate(names):
        own = targets == number
        defined = 0 < own.sum() < len(own)
        area = float(roc_auc_score(own, probabilities[:, number])) if defined else None
        figures = {key: values[number].item() for key, values in counted.items()}
        classes.append({"class": name, **figures, "auc": area})
        if defined and (len(names) > 2 or number == 1):
            fpr, tpr, _ = roc_curve(own, probabilities[:, number])
            kept = np.unique(np.linspace(0, len(fpr) - 1, min(_POINTS, len(fpr))).round().astype(int))
            curves[name] = {"fpr": np.round(fpr[kept], 5).tolist(), "tpr": np.round(tpr[kept], 5).tolist()}
    return {
        "names": list(names),
        "accuracy": float(np.mean(calls == targets)),
        "balanced_accuracy": float(np.mean(recall[there])),
        "macro_f1": float(np.mean(f1[there])),
        "loss": float(log_loss(targets, probabilities, labels=numbers)),
        "matrix": confusion_matrix(targets, calls, labels=numbers).tolist(),
        "classes": classes,
        "roc": curves,
    }


@dataclass(frozen=True)
class Judged:
    """A cohort as one model judged it: probabilities (n, k), the normal class first.

    ``seen`` counts images that were left out because the model was trained or certified on their patients, as
    :func:`~histcxr.study.seen.leave_out_seen` does.
    """

    model: SavedModel
    cohort: Cohort
    probabilities: NDArray[np.float64]
    seen: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, model: SavedModel, cohort: Cohort, seen: Mapping[str, int] | None = None) -> Judged:
        """Score the images that the model does not refuse; the rest is unusable. InputError: it refuses all."""
        strange = model.unfamiliar(cohort.values)
        if strange.any():
            unusable = {**cohort.unusable, Reason.UNLIKE_TRAINING.value: int(strange.sum())}
            cohort = replace(cohort.part(~strange), unusable=unusable)
        if not len(cohort):
            raise InputError(
                f"not one of {len(strange)} images has lungs like those that the model was trained on"
            )
        if isinstance(model, Model):
            scores = model.score(cohort.values)
            return cls(model, cohort, np.column_stack([1 - scores, scores]), seen or {})
        return cls(model, cohort, model.probabilities(cohort.values), seen or {})

    @classmethod
    def unseen(cls, model: SavedModel, manifest: pd.DataFrame, reading: Reading) -> Judged:
        """Read and score what a model has not seen."""
        return cls.of(model, *leave_out_seen(read_cohort(manifest, model, reading), model))

    @property
    def scores(self) -> NDArray[np.float64]:
        """The probability of being sick, shape (n,)."""
        return sick_score(self.probabilities)

    def part(self, keep: NDArray[np.bool_]) -> Judged:
        """Return the images where ``keep`` is true."""
        return replace(self, cohort=self.cohort.part(keep), probabilities=self.probabilities[keep])

    def figures(self, prevalence: float | None = None) -> dict[str, Any]:
        """Return what :func:`measure` does, and of a network ``classes`` as :func:`class_figures` does."""
        model, cohort = self.model, self.cohort
        drawers = model.drawers(self.scores, known_groups(model, cohort.table))
        found = measure(
            self.scores, cohort, model.rule_out, model.rule_in, drawers=drawers, prevalence=prevalence
        )
        if not isinstance(model, Model):
            targets = class_numbers(cohort.table["label"], model.classes, cohort.normal)
            found["classes"] = class_figures(targets, self.probabilities, model.classes)
        return found

    def about(self) -> dict[str, Any]:
        """Name the model, ready for JSON."""
        return {"name": self.model.name, "hash": self.model.hash, **self.model.describe_input()}


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
    progress: bool = False,
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
        ``overall`` and ``groups[COLUMN][VALUE]`` as :meth:`Judged.figures` gives them, ``unusable`` (images that
        could not be judged, by reason: in a triage they go to review), ``refused`` (their share), ``seen`` (images
        left out, and how they were recognised), ``remembers`` (whether any could be),
        ``contradicted`` (as :func:`~histcxr.study.certify.contradicted` says), ``model``, ``split``, ``thresholds`` and
        ``certificates`` (within groups, or None); ready for JSON.

    Raises
    ------
    InputError
        No such part or column, a label that a network does not know, or nothing left to measure on.
    """
    manifest = only_split(labelled_manifest(data), split)
    check_columns(by, manifest)
    judged = Judged.unseen(model, manifest, Reading(lungs, normal, cache, n_jobs, progress))
    unusable = dict(judged.cohort.unusable)
    promised = sorted(group_columns(model) & set(manifest.columns))
    columns = list(dict.fromkeys([*by, *promised]))
    overall = judged.figures(prevalence)
    groups = _by_group(judged.cohort.table, columns, lambda keep: judged.part(keep).figures(prevalence))
    return {
        "model": judged.about(),
        "split": split or "all",
        "overall": overall,
        "groups": groups,
        "contradicted": contradicted(model, overall, groups),
        "unusable": unusable,
        "refused": sum(unusable.values()) / (sum(unusable.values()) + len(judged.cohort)),
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
    of fewer than 10 sick or normal images).

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
    if not _enough(first.cohort.sick):
        raise InputError(
            f"the models must have at least {MIN_CLASS} sick and {MIN_CLASS} normal images in common that neither has "
            f"seen or refuses, got {int(first.cohort.sick.sum())} sick of {len(common)}"
        )

    def difference(keep: NDArray[np.bool_]) -> dict[str, Any] | None:
        part = first.cohort.part(keep)
        return _difference(first.scores[keep], second.scores[keep], part, sensitivity)

    return {
        "models": [_one_of_two(*pair, prevalence) for pair in zip((first, second), both, strict=True)],
        "split": split or "all",
        "left_out": len(manifest) - len(common),
        "overall": difference(np.ones(len(common), bool)),
        "groups": _by_group(first.cohort.table, by, difference),
    }


def _one_of_two(part: Judged, whole: Judged, prevalence: float | None) -> dict[str, Any]:
    overall = part.figures(prevalence)
    said = {"seen": dict(whole.seen), "remembers": remembers(whole.model), "unusable": whole.cohort.unusable}
    return {**part.about(), "overall": overall, "contradicted": contradicted(part.model, overall, {}), **said}


def _difference(
    first: NDArray[np.float64], second: NDArray[np.float64], cohort: Cohort, sensitivity: float
) -> dict[str, Any] | None:
    """Compare two sets of scores (n,) of one cohort; None of too few."""
    if not _enough(cohort.sick):
        return None
    return compare_scores(first, second, cohort.sick, cohort.patients, sensitivity=sensitivity).to_dict()


def _by_group(
    table: pd.DataFrame, by: Sequence[str], figures: Callable[[NDArray[np.bool_]], Any]
) -> dict[str, dict[str, Any]]:
    groups = {column: sorted(table[column].unique(), key=str) for column in by}
    return {
        column: {str(value): figures((table[column] == value).to_numpy()) for value in values}
        for column, values in groups.items()
    }


def _enough(sick: NDArray[np.bool_]) -> bool:
    return min(int(sick.sum()), int((~sick).sum())) >= MIN_CLASS
