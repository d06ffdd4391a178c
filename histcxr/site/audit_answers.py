"""One question of an audit: can a classifier tell two groups apart by some numbers, and could chance do as well?

The classifier is a ridge regression on ranks and on a Nyström sketch of their Gaussian kernel (Williams and Seeger,
2001). It learns hundreds of shuffled targets at once, so the p-value is that of a permutation test with all fits
repeated (Ojala and Garriga, JMLR 11, 2010): targets are shuffled within the folds, whose shares of both groups are
fixed. This is exact where each row is a patient of its own. On 398 public radiographs with and without tuberculosis it
tells them by outline, surroundings, borders and corners with AUC .82, .74, .78 and .73, boosted trees with .79, .70,
.76 and .73, a forest with .80, .70, .76 and .74, and it needs a fifth of their time with 199 shuffles included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import QuantileTransformer

from histcxr.decision.auc import areas, auc, compare_auc
from histcxr.decision.intervals import Estimate, Record

#: Fewest patients of either group that are asked about.
LEAST_PATIENTS: Final = 20

#: Largest chance that anything at all is found in clean data.
LEVEL: Final = 0.02

#: A finding is at least so large: areas below it would not carry a model, whatever their p-value.
LEAST_AUC: Final = 0.6

#: So much AUC must be lost at a source that a model did not learn from.
LEAST_LOSS: Final = 0.05

_FOLDS: Final = 5
_MOST_PATIENTS: Final = 3000  # of one question: more would find nothing that matters
_FIRST: Final = 199  # shuffles; more only where these leave the answer open
_PENALTY: Final = 0.3
_WIDTH: Final = 0.3
_LANDMARKS: Final = 300
_BLOCK: Final = 500

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Answer(Record):
    """One question and its answer.

    ``probe`` tells ``target`` (e.g. "sick from normal") among the radiographs ``within`` ("" is all); ``patients``
    counts those of the target and the others. ``effect`` is an AUC, or for the probe "transfer" the AUC lost.
    ``p_value`` is by itself, ``adjusted`` allows for all questions (Benjamini and Hochberg). ``chance`` is the spread
    (standard deviation) of the effect under shuffled labels, ``detectable`` the effect that would have been found nine
    times of ten. ``strongest`` names what is higher or lower in the target by itself.
    ``association`` is Cramér's V of a column and the label. ``explained``: disease, or the segmenter, may do this, too.
    """

    probe: str
    target: str
    within: str
    patients: tuple[int, int]
    effect: Estimate
    p_value: float
    chance: float
    strongest: tuple[str, ...] = ()
    association: float | None = None
    explained: bool = False
    limit: float = LEAST_AUC
    adjusted: float = 1.0
    detectable: float = 1.0
    found: bool = False


@dataclass(frozen=True)
class Prediction:
    """Scores (n,) of rows that the classifier had not learnt from, with the p-value and what chance gives."""

    scores: _Floats
    p_value: float
    chance: tuple[float, float]  # mean and standard deviation of the AUC under shuffled targets


def adjusted_answers(answers: Sequence[Answer]) -> list[Answer]:
    """Decide all questions together."""
    if not answers:
        return []
    corrected = stats.false_discovery_control([one.p_value for one in answers], method="bh")
    reach = stats.norm.isf(LEVEL / len(answers)) + stats.norm.isf(0.1)
    decided = []
    for one, p_value in zip(answers, corrected.tolist(), strict=True):
        nothing = 0.0 if one.probe == "transfer" else 0.5
        large = one.effect.value >= one.limit and one.effect.low > nothing
        limit = one.limit + stats.norm.isf(0.1) * one.chance
        found = bool(p_value <= LEVEL and large)
        detectable = min(1.0, max(limit, nothing + float(reach) * one.chance))
        decided.append(replace(one, adjusted=p_value, detectable=detectable, found=found))
    return decided


def few(rows: _Bools, seed: int) -> _Bools:
    """Keep at most 3,000 of the rows (n,), drawn at random."""
    chosen = np.flatnonzero(rows)
    if len(chosen) <= _MOST_PATIENTS:
        return rows
    kept = np.zeros_like(rows)
    kept[np.random.default_rng(seed).choice(chosen, _MOST_PATIENTS, replace=False)] = True
    return kept


def predict(numbers: pd.DataFrame, target: _Bools, *, shuffles: int, seed: int = 0) -> Prediction:
    """Tell the target (n,) by numbers (n, d), in five folds, and as often with shuffled targets."""
    rng = np.random.default_rng(seed)
    values = _spread(numbers, seed)
    folds = list(StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(values, target))
    chance: list[_Floats] = []
    scores, observed = np.zeros(0), 0.0
    for wanted in (_FIRST, shuffles - _FIRST):
        for start in range(0, wanted, _BLOCK):
            targets = np.empty((len(target), 1 + min(_BLOCK, wanted - start)))
            for _, part in folds:
                targets[part] = rng.permuted(np.repeat(target[part, None], targets.shape[1], axis=1), axis=0)
            targets[:, 0] = target
            predicted = np.empty_like(targets)
            for learnt, judged in folds:
                predicted[judged] = (
                    Ridge(_PENALTY).fit(values[learnt], targets[learnt]).predict(values[judged])
                )
            found = areas(predicted, targets)
            scores, observed = predicted[:, 0], float(found[0])
            chance.append(found[1:])
        together = np.concatenate(chance)
        p_value = float((1 + (together >= observed).sum()) / (1 + together.size))
        if p_value > LEVEL:
            break
    return Prediction(scores, p_value, (float(together.mean()), float(together.std())))


def ask(numbers: pd.DataFrame, target: _Bools, *, shuffles: int, seed: int = 0) -> Prediction | None:
    """Do as :func:`predict`, or return None where all rows are alike."""
    varied = numbers.loc[:, numbers.nunique() > 1]
    return predict(varied, target, shuffles=shuffles, seed=seed) if varied.shape[1] else None


def strongest(numbers: pd.DataFrame, target: _Bools, most: int = 2) -> tuple[str, ...]:
    """Name the numbers that tell the target best by themselves, one of each place, with the direction and the AUC."""
    varied = numbers.loc[:, numbers.nunique() > 1]
    found = areas(varied.to_numpy(np.float64), np.repeat(target[:, None], varied.shape[1], axis=1))
    named: dict[str, str] = {}
    for i in np.argsort(-np.abs(found - 0.5), kind="stable"):
        place = " ".join(str(varied.columns[i]).split()[-3:])  # e.g. "upper left corner"
        how = "higher" if found[i] > 0.5 else "lower"
        named.setdefault(place, f"{varied.columns[i]} ({how}, AUC {max(found[i], 1 - found[i]):.2f})")
    return tuple(named.values())[:most]


def transfer(
    numbers: pd.DataFrame, target: _Bools, inside: _Bools, *, seed: int = 0
) -> tuple[Estimate, Estimate, Estimate, float]:
    """Compare classifiers that did and did not learn at a source, on its own patients, ``inside`` (n,).

    Returns the AUC by cross-validation within it, that of a classifier that learnt from all others, the difference, and
    the one-sided p-value of no loss.
    """
    home = predict(numbers.loc[inside], target[inside], shuffles=_FIRST, seed=seed).scores
    values = _spread(numbers, seed)
    away = Ridge(_PENALTY).fit(values[~inside], target[~inside].astype(float)).predict(values[inside])
    found = compare_auc(home, away, target[inside])
    p_value = found.p_value / 2 if found.difference.value > 0 else 1 - found.p_value / 2
    return auc(home, target[inside]), auc(away, target[inside]), found.difference, p_value


def _spread(numbers: pd.DataFrame, seed: int) -> _Floats:
    """Return ranks from -1 to 1, and the sketch of their kernel."""
    n, d = numbers.shape
    ranks = QuantileTransformer(n_quantiles=min(n, 200), random_state=seed).fit_transform(
        numbers.to_numpy(np.float64)
    )
    ranks = 2 * ranks - 1
    sketch = Nystroem(gamma=_WIDTH / d, n_components=min(n, _LANDMARKS), random_state=seed)
    return np.hstack([ranks / np.sqrt(d), sketch.fit_transform(ranks)])
