"""How many patients to read before a model is certified, and what the certificate will be worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from histcxr.checks import open_unit, scores_and_sick, whole_number
from histcxr.decision.auc import auc as area_of
from histcxr.decision.intervals import Record, patient_labels, patient_scores
from histcxr.decision.planning import (
    Expected,
    Worth,
    advised_patients,
    binormal_worth,
    expected_worth,
    readings_needed,
    worths_of_scores,
)
from histcxr.decision.site import LEAST_IMAGES, SiteReference
from histcxr.decision.thresholds import RULE_IN, RULE_OUT, Kind, patients_needed
from histcxr.exceptions import InputError, counted
from histcxr.store.judges import SavedModel
from histcxr.study.certify import Promise
from histcxr.study.cohort import Data, Reading, labelled_manifest, only_split, read_cohort
from histcxr.study.evaluate import Judged
from histcxr.study.seen import REMEMBERS_NOBODY, fitted_on, leave_out_seen, remembers

#: Squared distances of the site test that are told: other hospitals differ by 5 and more.
DISTANCES: Final = (2.5, 3.0, 5.0)

_SITE_SIZES: Final = (LEAST_IMAGES, 60, 80, 100, 150, 200, 400)


@dataclass(frozen=True)
class Aim:
    """What is wanted of the certificate.

    ``prevalence`` is the share of sick among the patients who will be read, None where it is unknown (of labelled
    data, theirs is taken). Advice is the fewest patients that lose at most ``within`` of the specificity (rule_out) or
    sensitivity (rule_in) that endless patients would give, in 95 % of all calibrations. ``sizes`` are told besides.
    """

    promise: Promise = field(default_factory=Promise)
    prevalence: float | None = None
    within: float = 0.15
    sizes: Sequence[int] = (100, 200, 500, 1000)

    def __post_init__(self) -> None:
        for name, value in [*asdict(self.promise).items(), ("within", self.within)]:
            open_unit(value, name)
        if self.prevalence is not None:
            open_unit(self.prevalence, "prevalence")
        for size in self.sizes:
            whole_number(size, "sizes", least=1)


@dataclass(frozen=True)
class DrawerPlan(Record):
    """How many patients the promise of one drawer takes: sick ones for rule_out, normal ones for rule_in.

    ``least`` certify at all, with less no promise is made; ``advice`` is as of :class:`Aim`, None where some thousands
    are too few; ``limit`` is the specificity (rule_out) or sensitivity (rule_in) that endless patients would give;
    ``rows`` say what so many patients are worth. ``readings`` has for each row how many patients to read at random
    until so many are among them, with 95 % confidence; it is empty where nobody knows the prevalence.
    """

    kind: Kind
    target: float
    confidence: float
    least: int
    advice: int | None
    limit: float
    rows: tuple[Expected, ...]
    readings: tuple[int, ...]


@dataclass(frozen=True)
class Plan(Record):
    """What to read, and what for.

    ``basis`` says what it rests on, ``auc`` is the model's there. ``site_test`` has the fewest images (no labels
    needed) that the site test judges at all, and by squared distance of the site how many find it in 80 % and 95 % of
    all folders.
    """

    basis: str
    auc: float
    prevalence: float | None
    within: float
    rule_out: DrawerPlan
    rule_in: DrawerPlan
    site_test: Mapping[str, Any]


def plan_auc(auc: float, aim: Aim | None = None, *, spread: float = 1.0) -> Plan:
    """Plan from an assumed AUC, with scores normally distributed in each class.

    ``auc`` lies above 0.5 and below 1; ``spread`` is the standard deviation of the normals' scores over that of the
    sick's, 1 where both are equal. InputError: numbers out of range.
    """
    if open_unit(auc, "auc") <= 0.5:
        raise InputError(f"auc must lie above 0.5, got {auc!r}")
    about = (
        "scores normally distributed in both classes, the normals' standard deviation "
        f"{spread:g} times that of the sick"
    )
    worths = {kind: [binormal_worth(auc, spread, kind)] for kind in (RULE_OUT, RULE_IN)}
    return _plan(f"an assumed AUC of {auc:g}, {about}", auc, worths, aim or Aim())


def plan(
    model: SavedModel,
    data: Data,
    aim: Aim | None = None,
    *,
    split: str | None = "all",
    reading: Reading | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Plan:
    """Plan from a model's scores of labelled radiographs, its own training patients left out.

    Parameters
    ----------
    model : Model or ReferenceModel
    data : path or DataFrame
        Labelled radiographs like those that will be judged. Images that triage would refuse are left out, as they are
        from a certificate.
    aim : Aim, optional
    split : str, optional
        The part of the data; "all" for all of it.
    reading : Reading, optional
        How images are read; by default the data's masks, found ones where there are none.
    draws : int
        How often what so few patients leave open is drawn; 0 takes them for the whole population.
    seed : int

    Raises
    ------
    InputError
        One class only, nobody that the model has not seen, or numbers out of range.
    """
    cohort = read_cohort(only_split(labelled_manifest(data), split), model, reading or Reading("either"))
    cohort, seen = leave_out_seen(cohort, model, fitted_on(model))
    judged = Judged.of(model, cohort)
    cohort = judged.cohort
    cohort.require_both_classes("the patients to plan from")
    left_out = (
        f"{counted(seen['images'], 'image')} left out that it has seen"
        if remembers(model)
        else f"too good where they trained it: {REMEMBERS_NOBODY}"
    )
    found = plan_scores(
        judged.scores, cohort.sick, cohort.patients, aim, site=model.site, draws=draws, seed=seed
    )
    return replace(found, basis=f"{model.name}'s {found.basis} ({left_out})")


def plan_scores(
    scores: ArrayLike,
    sick: ArrayLike,
    patient_ids: ArrayLike | None = None,
    aim: Aim | None = None,
    *,
    site: SiteReference | None = None,
    draws: int = 200,
    seed: int = 0,
) -> Plan:
    """Plan from scores (n,) of images, whoever gave them, e.g. a worklist's; as :func:`plan` otherwise.

    ``sick`` is bool (n,); ``patient_ids`` (n,), ``""`` or None makes an image its own patient; ``site`` is the model's
    reference for the site test.
    """
    values, truth = scores_and_sick(scores, sick)
    labels, highest = patient_labels(truth, patient_ids), patient_scores(values, patient_ids)
    worths = {
        kind: worths_of_scores(highest, labels, kind=kind, draws=draws, seed=seed)
        for kind in (RULE_OUT, RULE_IN)
    }
    basis = f"scores of {int(labels.sum())} sick and {int((~labels).sum())} normal patients"
    area = area_of(highest, labels).value
    return _plan(basis, area, worths, aim or Aim(), float(labels.mean()), site)


def _plan(
    basis: str,
    area: float,
    worths: Mapping[Kind, Sequence[Worth]],
    aim: Aim,
    share: float | None = None,
    site: SiteReference | None = None,
) -> Plan:
    prevalence = share if aim.prevalence is None else aim.prevalence
    drawers = {
        kind: _drawer(kind, target, worths[kind], aim, frequency)
        for kind, target, frequency in (
            (RULE_OUT, aim.promise.sensitivity, prevalence),
            (RULE_IN, aim.promise.specificity, None if prevalence is None else 1 - prevalence),
        )
    }
    return Plan(
        basis,
        area,
        prevalence,
        aim.within,
        drawers[RULE_OUT],
        drawers[RULE_IN],
        {"least": LEAST_IMAGES, "distances": [] if site is None else _site_rows(site)},
    )


def _site_rows(site: SiteReference) -> list[dict[str, Any]]:
    """Return for each distance the fewest images, of some sizes, with which the site test finds it."""
    rows = []
    for distance in DISTANCES:
        powers = {images: site.power(images, distance) for images in _SITE_SIZES}
        found = {
            f"images_{wanted}": next((n for n, power in powers.items() if power >= wanted / 100), None)
            for wanted in (80, 95)
        }
        rows.append({"distance": distance, **found})
    return rows


def _drawer(kind: Kind, target: float, worths: Sequence[Worth], aim: Aim, share: float | None) -> DrawerPlan:
    confidence = aim.promise.confidence
    least = patients_needed(target, confidence)
    advice = advised_patients(worths, target, confidence, aim.within)
    sizes = sorted(
        {least, *(size for size in aim.sizes if size > least), *([] if advice is None else [advice])}
    )
    return DrawerPlan(
        kind,
        target,
        confidence,
        least,
        advice,
        float(np.mean([worth(np.array([1 - target])) for worth in worths])),
        tuple(expected_worth(worths, n, target, confidence) for n in sizes),
        () if share is None else tuple(readings_needed(n, share) for n in sizes),
    )
