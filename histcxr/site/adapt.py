"""A model adapted to a hospital's own labelled patients, and certified on all of them.

Few patients go far: at a hospital that the model in the box never saw, whose tuberculosis it tells with AUC .76, 60
labelled patients give .80, 100 .83, 200 .86 and 300 .87 (``benchmarks/robustness/adapt_curves.py``). How it is learnt
and certified stands in :mod:`histcxr.models.adapted` and :mod:`histcxr.decision.out_of_fold`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from histcxr.data.progress import Progress
from histcxr.data.splits import patient_folds
from histcxr.decision.auc import auc
from histcxr.decision.intervals import Estimate, patient_codes
from histcxr.decision.out_of_fold import (
    FOLDS,
    Offer,
    log_losses,
    mixture_weights,
    offer,
    within_standard_error,
)
from histcxr.exceptions import InputError, counted
from histcxr.lungs.segmenter import load_segmenter
from histcxr.models.adapted import (
    LOCAL,
    MIXTURE,
    RECALIBRATED,
    AdaptedClassifier,
    Linear,
    cross_fit,
    fit_linear,
    mean_of,
)
from histcxr.site.adapt_report import not_shown
from histcxr.store import Cascade, Model, ReferenceModel, SavedModel
from histcxr.study.certify import Promise, card_of_other_thresholds, certified, unseen
from histcxr.study.cohort import Cohort, Data, Reading, check_columns, labelled_manifest
from histcxr.study.seen import remember

AS_IS: Final = "as it is"
BLEND: Final = "blend"
OUT_OF_FOLD, SPLIT = "out-of-fold", "split"

#: Fewest patients of either class: below, five folds teach and tell too little.
LEAST_OF_A_CLASS: Final = 20

_EDGE = 1e-6


@dataclass(frozen=True)
class Candidate:
    """One way to score, by patients whom its fit had not seen; ``log_loss`` is by patient."""

    name: str
    auc: Estimate
    log_loss: float


@dataclass(frozen=True)
class Adaptation:
    """What :func:`adapt` found.

    ``model`` is ready to save; ``chosen`` says how it scores, ``weights`` what share each candidate has in a blend.
    ``offers`` are the certificates by kind, ``"out-of-fold"`` and ``"split"``, of which ``deployed`` names the model's.
    ``not_shown`` says in sentences what the local patients could not show. ``patients`` are sick and normal.
    """

    model: SavedModel
    chosen: str
    weights: Mapping[str, float]
    candidates: tuple[Candidate, ...]
    offers: Mapping[str, Offer]
    deployed: str
    not_shown: tuple[str, ...]
    patients: tuple[int, int]

    @property
    def certified(self) -> bool:
        """Whether both thresholds of the model are certified."""
        return bool(self.model.rule_out.certified and self.model.rule_in.certified)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the model, ready for JSON."""
        return {
            "chosen": self.chosen,
            "weights": dict(self.weights),
            "candidates": [asdict(one) for one in self.candidates],
            "offers": {kind: one.to_dict() for kind, one in self.offers.items()},
            "deployed": self.deployed,
            "not_shown": list(self.not_shown),
            "sick": self.patients[0],
            "normal": self.patients[1],
            "certified": self.model.training["certified"],
        }


@dataclass(frozen=True, eq=False)
class Choice:
    """How to score a hospital's patients: what goes on top of the model (None: nothing).

    ``chosen`` and ``weights`` are as of :class:`Adaptation`; ``scores`` (n,) are the logits that certify it, ``logits``
    those of every candidate out of fold.
    """

    part: Linear | None
    chosen: str
    weights: Mapping[str, float]
    scores: NDArray[np.float64]
    logits: Mapping[str, NDArray[np.float64]]


def choose(
    features: NDArray[np.floating] | None,
    logits: NDArray[np.float64],
    sick: NDArray[np.bool_],
    patients: NDArray[Any],
    seed: int = 0,
) -> Choice:
    """Fit all candidates by cross-validation over patients, and choose; arrays have one row an image.

    ``features`` (n, p) and ``logits`` (n,) are the model's; without features it can only be recalibrated.
    """
    folds = patient_folds(sick, patients, FOLDS, seed)
    kinds = (RECALIBRATED,) if features is None else (RECALIBRATED, MIXTURE, LOCAL)
    few = np.zeros((len(sick), 0)) if features is None else features
    apart, fitted = cross_fit(few, logits, sick, folds, kinds)
    apart = {AS_IS: logits, **apart}
    names = list(fitted)
    weights = mixture_weights([apart[name] for name in names], sick, patients)
    if weights[0] < 1:
        apart[BLEND] = weights @ np.stack([apart[name] for name in names])
        shares = {name: float(share) for name, share in zip(names, weights, strict=True) if share}
        return Choice(
            mean_of([fitted[name] for name in names], weights.tolist()), BLEND, shares, apart[BLEND], apart
        )
    # The order of patients stays, so what certifies is exact; a slope below 0 would turn it over.
    simple = fit_linear(few, logits, sick, RECALIBRATED)
    if simple.slope <= 0 or within_standard_error(logits, apart[RECALIBRATED], sick, patients):
        return Choice(None, AS_IS, {}, logits, apart)
    return Choice(simple, RECALIBRATED, {}, simple(few, logits), apart)


def adapt(
    model: SavedModel,
    data: Data,
    *,
    certificate: str = OUT_OF_FOLD,
    sensitivity: float = 0.95,
    specificity: float = 0.95,
    confidence: float = 0.95,
    by: Sequence[str] = (),
    lungs: str = "either",
    normal: str | None = None,
    cache: Any = None,
    seed: int = 0,
    n_jobs: int = 1,
    progress: Progress = False,
) -> Adaptation:
    """Adapt a model to labelled patients of one hospital, and certify it on the same patients.

    The candidates: the model as it is; recalibrated (a logistic regression on its logit); a local refit (on the
    features of its own recipe); their mixture (logit and features). The score is the blend of the last three that has
    the least cross-validated log loss, patient by patient: a proper score, steadier than the AUC on few patients. Where
    only the recalibrated model is left in the blend, the model is recalibrated, or left as it is where that is no worse
    than by one standard error. A network has no features here: it is recalibrated or left.

    Parameters
    ----------
    model : Model or ReferenceModel
    data : path or DataFrame
        Labelled radiographs, all of which are used, but those of a split named ``test``. Patients whom the model was
        trained on are left out.
    certificate : {"out-of-fold", "split"}
        Whether all patients fit and certify, or one half fits and the other half certifies (proven without simulation).
        Both are worked out and told; this one is the model's.
    sensitivity, specificity, confidence, by, lungs, normal, cache, n_jobs, progress
        As in :func:`histcxr.calibrate`.
    seed : int
        Of the folds.

    Returns
    -------
    Adaptation
        With fewer patients than a promise takes the model is adapted all the same and promises nothing.

    Raises
    ------
    InputError
        Fewer than 20 patients of a class, nobody whom the model has not seen, or an argument that does not fit.
    """
    if certificate not in (OUT_OF_FOLD, SPLIT):
        raise InputError(f"certificate must be {OUT_OF_FOLD!r} or {SPLIT!r}, got {certificate!r}")
    if isinstance(model, Cascade):
        raise InputError(
            f"{model.name} is two models as one: adapt each, then certify both: histcxr calibrate --then"
        )
    promise = Promise(sensitivity, specificity, confidence)
    manifest = labelled_manifest(data)
    own = manifest.loc[(manifest["split"].astype(str) != "test").to_numpy()].reset_index(drop=True)
    if not len(own):
        raise InputError("data must hold radiographs outside the split 'test', got none")
    cohort, about = unseen(model, own, Reading(lungs, normal, cache, n_jobs, progress))
    check_columns(by, cohort.table)
    refused = model.unfamiliar(cohort.values)
    judged = cohort.part(~refused)
    counted = _count(judged)
    if min(counted) < LEAST_OF_A_CLASS:
        raise InputError(
            f"data must hold at least {LEAST_OF_A_CLASS} sick and as many normal patients that the model can judge, "
            f"got {counted[0]} and {counted[1]}; is {cohort.normal!r} the label of the normal ones?"
        )
    features, logits, wrapped = _inputs(model, judged)
    whole = choose(features, logits, judged.sick, judged.patients, seed)
    first = np.zeros(len(judged), np.bool_)
    first[patient_folds(judged.sick, judged.patients, 2, seed)[0][0]] = True
    half_features = None if features is None else features[first]
    half = choose(half_features, logits[first], judged.sick[first], judged.patients[first], seed)
    adapted, halved = (_with(model, wrapped, one) for one in (whole, half))
    certifying = (
        expit(whole.scores) if whole.chosen == BLEND else _score(adapted, whole, judged, features, logits)
    )
    other = judged.part(~first)
    untouched = _score(halved, half, other, None if features is None else features[~first], logits[~first])
    offers = {
        OUT_OF_FOLD: offer(certifying, judged.sick, judged.patients, **asdict(promise)),
        SPLIT: offer(untouched, other.sick, other.patients, **asdict(promise)),
    }
    scores = np.full(len(cohort), np.nan)
    if certificate == OUT_OF_FOLD:
        fit, mine, learnt = whole, np.ones(len(cohort), np.bool_), judged
        scores[~refused] = certifying
    else:
        fit, adapted, learnt = half, halved, judged.part(first)
        mine = ~np.isin(cohort.patients, judged.patients[first])
        scores[~refused & mine] = untouched
    card = card_of_other_thresholds(model.card)
    ready = replace(adapted, training=_papers(model, cohort, about, fit, certificate), card=card)
    return Adaptation(
        model=certified(ready, cohort.part(mine), promise, by, scores=scores[mine]),
        chosen=fit.chosen,
        weights=fit.weights,
        candidates=_candidates(fit, learnt),
        offers=offers,
        deployed=certificate,
        not_shown=tuple(not_shown(model.training, judged)),
        patients=counted,
    )


def _count(cohort: Cohort) -> tuple[int, int]:
    """Count sick and normal patients."""
    sick = len(set(cohort.patients[cohort.sick]))
    return sick, len(set(cohort.patients)) - sick


def _inputs(
    model: SavedModel, cohort: Cohort
) -> tuple[NDArray[np.floating] | None, NDArray[np.float64], AdaptedClassifier | None]:
    """Return features (n, p) and logits (n,), and what makes them; a network has logits alone."""
    if isinstance(model, Model):
        wrapped = AdaptedClassifier.around(model.estimator, model.recipe, cohort.values)
        return (*wrapped.inputs(cohort.values), wrapped)
    return None, logit(np.clip(model.score(cohort.values), _EDGE, 1 - _EDGE)), None


def _with(model: Model | ReferenceModel, wrapped: AdaptedClassifier | None, choice: Choice) -> SavedModel:
    """Return the model with what was chosen on top."""
    if choice.part is None:
        return model
    if isinstance(model, ReferenceModel):
        network = copy.copy(model.classifier)
        slope, intercept = network.recalibration_ or (1.0, 0.0)
        network.recalibration_ = (
            choice.part.slope * slope,
            choice.part.slope * intercept + choice.part.intercept,
        )
        return replace(model, classifier=network)
    made = copy.copy(wrapped or AdaptedClassifier(model.estimator)).set_linear(choice.part)
    return replace(model, name=f"{model.name.removesuffix('-adapted')}-adapted", estimator=made)


def _score(
    adapted: SavedModel,
    choice: Choice,
    cohort: Cohort,
    features: NDArray[np.floating] | None,
    logits: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return what the adapted model gives to a cohort, from what is known of it where that will do."""
    if choice.part is None or features is None:
        return adapted.score(cohort.values)
    return np.asarray(expit(choice.part(features, logits)))


def _papers(
    model: SavedModel, cohort: Cohort, about: Mapping[str, Any], fit: Choice, certificate: str
) -> dict[str, Any]:
    """Return what the adapted model says of its training, its local patients remembered."""
    shares = ", ".join(f"{share:.0%} {name}" for name, share in fit.weights.items())
    how = f"a blend ({shares})" if shares else fit.chosen
    by = "on the half that fitted nothing" if certificate == SPLIT else "out of fold, on all of them"
    note = (
        f"adapted to {counted(about['patients'], 'patient')} of one hospital "
        f"({counted(about['sick'], 'sick image')} of "
        f"{about['images']}): {how}; certified {by}"
    )
    training = dict(model.training)
    training["val"] = dict(about)
    training["adapted"] = {"chosen": fit.chosen, "weights": dict(fit.weights), "certificate": certificate}
    old = [one for one in training.get("notes", ()) if not one.startswith("thresholds were certified")]
    training["notes"] = [*old, note]
    training["lungs"] = cohort.lungs
    if cohort.lungs != "given":
        training["segmenter"] = load_segmenter().digest
    return remember(training, {"val" if fit.chosen == AS_IS else "train": cohort})


def _candidates(fit: Choice, cohort: Cohort) -> tuple[Candidate, ...]:
    codes = patient_codes(cohort.patients, len(cohort))
    found = []
    for name, logits in fit.logits.items():
        losses = np.bincount(codes, log_losses(logits, cohort.sick)) / np.bincount(codes)
        area = auc(logits, cohort.sick, patient_ids=cohort.patients)
        found.append(Candidate(name, area, float(losses.mean())))
    return tuple(found)
