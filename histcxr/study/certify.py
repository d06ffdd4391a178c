"""What a model promises, certified on patients like those it will judge."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histcxr.data.progress import Progress
from histcxr.data.splits import split_patients
from histcxr.decision.drawers import evaluate_decisions
from histcxr.decision.groups import certify_groups
from histcxr.decision.site import LEAST_IMAGES, fit_site
from histcxr.decision.thresholds import Certificates, certify, errors_allowed, joint_confidence
from histcxr.exceptions import InputError
from histcxr.store import Cascade, ReferenceModel
from histcxr.store.judges import SavedModel
from histcxr.study.cohort import (
    Cohort,
    Data,
    Reading,
    check_columns,
    groups_of,
    known_groups,
    labelled_manifest,
    only_split,
    read_cohort,
)
from histcxr.study.seen import REMEMBERS_NOBODY, fitted_on, leave_out_seen, remember, remembers

if TYPE_CHECKING:
    from distributed import Client

#: Value of a labelling list's column ``drawn``: the patient is there for his score, so he can train but not certify.
BY_SCORE: Final = "by_score"

#: What a certified population is a mixture of, where the data say so.
_SITE_GROUPS: Final = ("label", "source", "view")


@dataclass(frozen=True)
class Promise:
    """What rule_out and rule_in promise: each a float in (0, 1)."""

    sensitivity: float = 0.95
    specificity: float = 0.95
    confidence: float = 0.95

    def nothing(self) -> Certificates:
        """Return both thresholds of a model that nobody certified yet."""
        return certify(np.empty(0), np.empty(0, np.bool_), None, **asdict(self))


def certified(
    model: SavedModel,
    cohort: Cohort,
    promise: Promise,
    by: Sequence[str] = (),
    *,
    also: Sequence[Cohort] = (),
    scores: NDArray[np.float64] | None = None,
) -> SavedModel:
    """Return the model with thresholds, groups and site as a cohort that it has not seen certifies them.

    Images that the model refuses are not scored in a triage, so they do not certify; ``training["certified"]`` says
    who did, how many were refused, how many could not be used (``unusable``, by reason), and the sensitivity and
    specificity at the thresholds among the judged and among all, where a refused image goes to review. With ``by``,
    every group of these columns is certified by itself; the thresholds over all patients then have their share of the
    confidence. ``also`` belongs to the same population, which is described (``training["site"]``) but certifies
    nothing. ``scores`` (n,) are the images' out of fold, where the model was fitted to this very cohort
    (:mod:`histcxr.decision.out_of_fold`); by default the model's own.
    InputError: ``by`` names a column that the data do not have, or the cohort holds patients whom a labelling list drew
    by score.
    """
    check_columns(by, cohort.table)
    _refuse_drawn_by_score(cohort.table)
    refused = model.unfamiliar(cohort.values)
    judged = cohort.part(~refused)
    own = model.score(judged.values) if scores is None else scores[~refused]
    scores = np.full(len(cohort), np.nan)
    scores[~refused] = own
    training = {key: value for key, value in model.training.items() if key not in ("groups", "site")}
    if by:
        columns = {column: groups_of(judged.table, column) for column in by}
        found = certify_groups(own, judged.sick, judged.patients, columns, **asdict(promise))
        training["groups"] = found.to_dict()
        rule_out, rule_in = (drawer.overall for drawer in found)
    else:
        rule_out, rule_in = certify(own, judged.sick, judged.patients, **asdict(promise))
    population = [*also, judged]
    if sum(map(len, population)) >= LEAST_IMAGES:
        table = pd.concat([part.table for part in population], ignore_index=True)
        kinds = [groups_of(table, name) for name in _SITE_GROUPS if name in table]
        names = [" ".join(filter(None, row)) for row in zip(*kinds, strict=True)]
        numbers = np.concatenate([model.site_numbers(part.values) for part in population])
        training["site"] = fit_site(numbers, names, model.site_names).to_dict()
    model = replace(model, rule_out=rule_out, rule_in=rule_in, training=training, metrics={})
    promises = [rule_out.to_dict(), rule_in.to_dict()]
    if model.groups is not None:
        promises += model.groups.further_promises()
    training["certified"] = {
        **judged.describe(),
        "refused": int(refused.sum()),
        "refused_sick": int(cohort.sick[refused].sum()),
        "unusable": dict(cohort.unusable),
        "among_judged": _worth(model, judged, own),
        "among_all": _worth(model, cohort, scores),
        "by": list(by),
        "joint_confidence": joint_confidence(promises),
    }
    return replace(model, training=training)


def _refuse_drawn_by_score(table: pd.DataFrame) -> None:
    """Raise :class:`InputError` where patients were drawn for their scores: they cannot certify."""
    drawn = table["drawn"].astype(str) == BY_SCORE if "drawn" in table else np.zeros(0)
    if drawn.any():
        raise InputError(
            f"data must hold patients drawn at random, but {int(drawn.sum())} images were drawn by score (column "
            "drawn), so they cannot certify: keep to --split val of the labelling list"
        )


def _worth(model: SavedModel, cohort: Cohort, scores: NDArray[np.float64]) -> dict[str, float | None]:
    """Return sensitivity of rule_out and specificity of rule_in by patient; they certified them, so no test figures."""
    if not len(cohort):
        return {"sensitivity": None, "rule_in_specificity": None}
    drawers = model.drawers(scores, known_groups(model, cohort.table))
    found = evaluate_decisions(
        scores, cohort.sick, cohort.patients, model.rule_out, model.rule_in, drawers=drawers
    )
    worth = {"sensitivity": found.sensitivity, "rule_in_specificity": found.rule_in_specificity}
    return {name: one.value if one else None for name, one in worth.items()}


def card_of_other_thresholds(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card without what was measured at the thresholds it came with."""
    return {key: value for key, value in card.items() if key not in ("groups", "promises", "taken_back")}


def calibrate(
    model: SavedModel,
    data: Data,
    *,
    then: ReferenceModel | None = None,
    sensitivity: float = 0.95,
    specificity: float = 0.95,
    confidence: float = 0.95,
    split: str | None = None,
    by: Sequence[str] = (),
    views: int | None = None,
    lungs: str = "either",
    normal: str | None = None,
    cache: Any = None,
    n_jobs: int = 1,
    client: Client | None = None,
    progress: Progress = False,
) -> SavedModel:
    """Certify a model's thresholds anew, on patients like those it will judge.

    Parameters
    ----------
    model : Model or ReferenceModel
    data : path or DataFrame
        Labelled radiographs. Images that the model was trained on are left out, with their patients.
    then : ReferenceModel, optional
        A network that judges what ``model``, then one of histograms, leaves open: both are certified as one
        (:mod:`histcxr.store.cascade`). A quarter of the patients says what is left open, and certifies nothing.
    sensitivity, specificity, confidence : float in (0, 1)
        What rule_out and rule_in promise.
    split : str, optional
        The part of the data; "all": all of it. By default ``val`` where the data name one, otherwise all.
    by : sequence of str
        Columns, ``label`` among them if wanted: certify within each of their groups, too; see :func:`certified`.
    views : int, optional
        Networks only: how often an image is to be seen from now on; see
        :class:`~histcxr.reference.classifier.ReferenceClassifier`. None: as before.
    lungs, normal, cache, n_jobs, progress
        As in :func:`histcxr.evaluate`.
    client : distributed.Client, optional
        Of a Dask cluster whose workers count histograms.

    Returns
    -------
    Model or ReferenceModel
        The same with new thresholds. Its test figures are gone: they belonged to the old ones.

    Raises
    ------
    InputError
        No such part, nobody that the model has not seen, one class only, too few patients for any certificate (the
        message says how many), or views of a histogram model.
    """
    if then is not None:
        model = Cascade.of(model, then)
    training = dict(model.training)
    if views is not None:
        if not isinstance(model, ReferenceModel):
            raise InputError(f"views are for networks; {model.name} counts each image once")
        classifier = copy.copy(model.classifier)
        classifier.set_params(views=views)
        model = replace(model, classifier=classifier)
        training["settings"] = {**training.get("settings", {}), "views": views}
    manifest = labelled_manifest(data)
    if split is None:
        split = "val" if (manifest["split"].astype(str) == "val").any() else "all"
    reading = Reading(lungs, normal, cache, n_jobs, progress, client)
    cohort, about = unseen(model, only_split(manifest, split), reading)
    cohort.require_both_classes(f"the calibration patients (split {split})")
    promise = Promise(sensitivity, specificity, confidence)
    training["val"] = about
    if isinstance(model, Cascade):
        training["lungs"] = cohort.lungs
        if then is not None:
            model, used, cohort = _placed(model, cohort, promise)
            training = remember({**training, "fingerprint": used.digest()}, {"train": used})
    training = remember(training, {"val": cohort})
    found = certified(
        replace(model, training=training, card=card_of_other_thresholds(model.card)), cohort, promise, by
    )
    if not found.rule_out.certified and not found.rule_in.certified:
        raise InputError(f"{found.rule_out.message}; {found.rule_in.message}")
    return found


def _placed(model: Cascade, cohort: Cohort, promise: Promise) -> tuple[Cascade, Cohort, Cohort]:
    """Let a quarter of the patients say what the first model leaves open; return them, and the others, who certify.

    The first model may make half of the errors that those who certify may show, the network has the other half. (On
    one data set's validation patients a tenth to a half gave the best specificity, a half the fewest images to see.)
    """
    mine = split_patients(cohort.table, (0.25, 0.75, 0.0)) == "train"
    placing, rest = cohort.part(mine), cohort.part(~mine)
    rest.require_both_classes("the calibration patients without the quarter that places the network")
    placing.require_both_classes("the quarter of the calibration patients that places the network")
    counts, _ = model.unpack(placing.values)
    scores = model.first.score(counts)
    sick, normal = (len(set(rest.patients[which])) for which in (rest.sick, ~rest.sick))
    missed = max(0, errors_allowed(sick, promise.sensitivity, promise.confidence)) / sick / 2
    alarmed = max(0, errors_allowed(normal, promise.specificity, promise.confidence)) / normal / 2
    low = np.quantile(scores[placing.sick], missed, method="lower")
    high = np.quantile(scores[~placing.sick], 1 - alarmed, method="higher")
    return replace(model, low=float(min(low, high)), high=float(max(low, high))), placing, rest


def unseen(model: SavedModel, data: Data, reading: Reading) -> tuple[Cohort, dict[str, Any]]:
    """Read labelled radiographs without those that a model was fitted to, and describe them, ready for JSON.

    InputError: nobody is left, or the model cannot tell whom it has seen.
    """
    if not remembers(model):
        raise InputError(
            f"{REMEMBERS_NOBODY}, so none of them could be left out, and nothing can be certified: train it anew"
        )
    cohort, seen = leave_out_seen(read_cohort(data, model, reading), model, fitted_on(model))
    return cohort, {**cohort.describe(), "left_out": seen, "fingerprint": cohort.digest()}


def contradicted(
    model: SavedModel, overall: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """List the certified promises that figures contradict: the whole interval lies under the target.

    The figures are as :func:`histcxr.evaluate` returns them; groups by column and value. Each promise has ``promise``,
    ``column`` and ``value`` ("" over all patients), ``figure``, ``target``, ``measured``, ``low``, ``high``.
    """
    found = []
    for kind, figure in (("rule_out", "sensitivity"), ("rule_in", "rule_in_specificity")):
        promises = [("", "", getattr(model, kind), overall)]
        if model.groups is not None:
            promises += [
                (column, value, choice, groups[column][value])
                for column, values in getattr(model.groups, kind).groups.items()
                for value, choice in values.items()
                if value in groups.get(column, {})
            ]
        for column, value, choice, figures in promises:
            measured = figures["decisions"][figure]
            if choice.certified and measured and measured["high"] < choice.target:
                limits = {"measured": measured["value"], "low": measured["low"], "high": measured["high"]}
                about = {"promise": kind, "column": column, "value": value, "figure": figure}
                found.append({**about, "target": choice.target, **limits})
    return found
