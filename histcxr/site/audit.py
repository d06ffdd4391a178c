"""Is it disease or the scanner? What else than the lungs tells sick from normal in a labelled data set.

A model learns whatever tells the classes apart: a scanner, a marker in a corner, a view, a twin in the other split. An
audit asks simple classifiers about each of these, by patient-wise cross-validation, over all and within each source.
It finds what chance does not explain (shuffled labels, all questions together at 2 %) and what is large enough to
carry a model (an AUC of at least .6). Questions are asked of one image of each patient, near-duplicates counted as one
patient, so that shuffling is exact.

Some of what it finds may be disease: sick lungs have other outlines, and sick patients another age. These are worded
so. Files, borders, corners, sources and views are not disease.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import contingency

from histcxr.checks import whole_number
from histcxr.data.manifest import is_sick
from histcxr.data.splits import patient_groups
from histcxr.decision.auc import auc
from histcxr.features.recipe import Recipe
from histcxr.site.audit_answers import (
    LEAST_LOSS,
    LEAST_PATIENTS,
    LEVEL,
    Answer,
    adjusted_answers,
    ask,
    few,
    strongest,
    transfer,
)
from histcxr.site.audit_features import Probes, read_probes
from histcxr.site.audit_result import EXPLAINED, SICK, Audit, Copies
from histcxr.study.cohort import Data, Reading, check_normal, groups_of, labelled_manifest
from histcxr.study.train import usual_recipe

_FACTS: Final = ("source", "view", "laterality", "modality", "sex", "age_group", "age")
_TECHNIQUE: Final = ("source", "view")  # what should not be seen in lungs
_MOST_VALUES: Final = 6  # of a column: the commonest
_SHUFFLES: Final = 999
_EXAMPLES: Final = 10

_Bools = NDArray[np.bool_]


def audit(
    data: Data, reading: Reading | None = None, *, recipe: Recipe | None = None, seed: int = 0
) -> Audit:
    """Ask whether sick and normal differ by more than disease in labelled radiographs.

    ``recipe`` says which histograms of the lungs stand for a model's features, by default those that ``train`` takes;
    the reading's ``cache`` is not used. Groups of fewer than 20 patients are not asked about. Equal seeds give equal
    results. InputError: an image without a label, none with the reading's ``normal``, or not one usable radiograph.
    """
    how = reading or Reading()
    whole_number(seed, "seed")
    manifest = labelled_manifest(data)
    check_normal(manifest, how.normal)
    probes = read_probes(manifest, recipe or Recipe(*usual_recipe()), how)
    table = probes.table
    patients, sick = patient_groups(table), is_sick(table["label"], how.normal or "Normal")
    asking = _Asking(probes, sick, _one_each(patients, probes.twins, seed), seed, [])
    questions = list(asking.questions())
    lungs, losses = asking.lungs()
    shuffles = max(_SHUFFLES, math.ceil((len(questions) + len(losses)) / LEVEL))  # so that one alone can pass
    answers = [one for question in questions if (one := asking.answer(question, shuffles)) is not None]
    return Audit(
        images=len(table),
        sick=int(sick.sum()),
        patients=len(set(patients)),
        unusable=probes.unusable,
        answers=tuple(adjusted_answers([*answers, *losses])),
        copies=_copies(table, sick, patients, probes.twins),
        lungs=tuple(lungs),
        not_asked=tuple(asking.not_asked),
    )


@dataclass(frozen=True)
class _Question:
    probe: str
    numbers: pd.DataFrame
    target: _Bools
    inside: _Bools
    words: str
    within: str
    association: float | None = None


@dataclass(frozen=True)
class _Asking:
    """The questions of one data set; ``rows`` are one image of each patient."""

    probes: Probes
    sick: _Bools
    rows: _Bools
    seed: int
    not_asked: list[dict[str, str]]

    def questions(self) -> Iterator[_Question]:
        """Make the questions that the data can answer, and write down the others."""
        table = self.probes.table
        everybody = np.ones(len(table), bool)
        groups: dict[str, _Bools] = {"": everybody}
        sources = self._values("source", everybody)
        if len(sources) > 1:
            groups |= {f"source={value}": one for value, one in sources.items()}
        else:
            self._pass("within and across sources", "the data name fewer than two sources")
        images = {name: one for name, one in self.probes.numbers.items() if name != "lungs"}
        for within, inside in groups.items():
            if not self._enough(self.sick, inside, f"{SICK}, {within or 'all'}"):
                continue
            for probe, numbers in images.items():
                yield _Question(probe, numbers, self.sick, inside, SICK, within)
            for column in _FACTS:
                yield from self._of_fact(column, inside, within)
        for column in _TECHNIQUE:
            yield from self._of_technique(column)

    def _of_fact(self, column: str, inside: _Bools, within: str) -> Iterator[_Question]:
        """Ask whether a column of the manifest tells the classes, where it is known."""
        known = inside & self._known(column)
        if (column == "source" and within) or not known.any():
            if not within and column in ("source", "view", "sex", "age"):
                self._pass(f"{SICK} by {column}", "the data do not tell it")
            return
        if within and not (self._known(column) & ~inside & self.rows).any():
            return  # known within this source alone, so asked over all
        if not self._enough(self.sick, known, f"{SICK} by {column}, {within or 'all'}"):
            return
        values = self.probes.table[column]
        if column == "age" and pd.api.types.is_numeric_dtype(values):
            yield _Question(column, values.to_frame("age").fillna(0), self.sick, known, SICK, within)
            return
        groups = groups_of(self.probes.table, column)
        kept = pd.Series(groups[known]).value_counts().index[:20]
        numbers = pd.DataFrame({f"{column}={value}": (groups == value).astype(float) for value in kept})
        labels = groups_of(self.probes.table, "label")
        both = pd.crosstab(groups[known & self.rows], labels[known & self.rows])
        linked = float(contingency.association(both, method="cramer")) if min(both.shape) > 1 else None
        yield _Question(column, numbers, self.sick, known, SICK, within, linked)

    def _of_technique(self, column: str) -> Iterator[_Question]:
        """Ask whether the lungs tell sources or views within one label."""
        labels = groups_of(self.probes.table, "label")
        for label in sorted(set(labels)):
            here = (labels == label) & self._known(column)
            values = self._values(column, here)
            if len(values) < 2:
                if column == "source" or here.any():
                    self._pass(f"{column} within label={label}", f"fewer than two values of {column}")
                continue
            for value, one in list(values.items())[: None if len(values) > 2 else 1]:
                other = next(iter(set(values) - {value})) if len(values) == 2 else "the others"
                words = f"{column} {value} from {other}"
                if self._enough(one, here, f"{words}, label={label}"):
                    yield _Question("lungs", self.probes.numbers["lungs"], one, here, words, f"label={label}")

    def answer(self, question: _Question, shuffles: int) -> Answer | None:
        """Ask one question; None where all images are alike in it."""
        rows = few(question.inside & self.rows, self.seed)
        numbers, target = question.numbers.loc[rows], question.target[rows]
        found = ask(numbers, target, shuffles=shuffles, seed=self.seed)
        if found is None:
            where = question.within or "all"
            self._pass(f"{question.words} by {question.probe}, {where}", "all images are alike in it")
            return None
        return Answer(
            probe=question.probe,
            target=question.words,
            within=question.within,
            patients=(int(target.sum()), int((~target).sum())),
            effect=auc(found.scores, target),
            p_value=found.p_value,
            chance=found.chance[1],
            strongest=strongest(numbers, target),
            association=question.association,
            explained=question.probe in EXPLAINED,
        )

    def lungs(self) -> tuple[list[dict[str, Any]], list[Answer]]:
        """Return how well the lungs tell the classes, over all and within groups, and what is lost across sources."""
        numbers, figures, losses = self.probes.numbers["lungs"], [], []
        everybody = np.ones(len(self.sick), bool)
        groups = {"": everybody}
        for column in _TECHNIQUE:
            values = self._values(column, everybody)
            groups |= {f"{column}={value}": one for value, one in values.items() if len(values) > 1}
        for within, inside in groups.items():
            rows = few(inside & self.rows, self.seed)
            if not _both(self.sick[rows]):
                continue
            found = ask(numbers.loc[rows], self.sick[rows], shuffles=199, seed=self.seed)
            if found is None:
                continue
            figure: dict[str, Any] = {
                "within": within,
                "auc": asdict(auc(found.scores, self.sick[rows])),
                "shuffled": found.chance[0],
                "shuffled_spread": found.chance[1],
                "learnt_elsewhere": None,
            }
            figures.append(figure)
            if not within.startswith("source=") or not _both(self.sick[~inside & self.rows]):
                continue
            rows |= few(~inside & self.rows, self.seed)
            home, away, lost, p_value = transfer(
                numbers.loc[rows], self.sick[rows], inside[rows], seed=self.seed
            )
            figure["auc"], figure["learnt_elsewhere"] = asdict(home), asdict(away)
            spread = (lost.high - lost.low) / 3.92
            counts = int(self.sick[inside & rows].sum()), int((~self.sick)[inside & rows].sum())
            losses.append(
                Answer("transfer", SICK, within, counts, lost, p_value, spread, limit=LEAST_LOSS)
            )  # fmt: skip
        return figures, losses

    def _known(self, column: str) -> _Bools:
        """Tell of which images (n,) a column is known."""
        if column not in self.probes.table:
            return np.zeros(len(self.sick), bool)
        known: _Bools = groups_of(self.probes.table, column) != ""
        return known

    def _values(self, column: str, inside: _Bools) -> dict[str, _Bools]:
        """Return the commonest values of a column, those of too few patients apart."""
        if column not in self.probes.table:
            return {}
        groups = groups_of(self.probes.table, column)
        counts = pd.Series(groups[inside & self.rows & (groups != "")]).value_counts()
        kept = sorted(counts[counts >= LEAST_PATIENTS].index[:_MOST_VALUES])
        return {str(value): inside & (groups == value) for value in kept}

    def _enough(self, target: _Bools, inside: _Bools, question: str) -> bool:
        members = target[inside & self.rows]
        if not _both(members):
            counts = f"{int(members.sum())} against {int((~members).sum())} patients"
            self._pass(question, f"{counts}; it takes {LEAST_PATIENTS} of either")
            return False
        return True

    def _pass(self, question: str, reason: str) -> None:
        self.not_asked.append({"question": question, "reason": reason})


def _both(target: _Bools) -> bool:
    """Tell whether either group has enough patients."""
    return min(int(target.sum()), int((~target).sum())) >= LEAST_PATIENTS


def _one_each(patients: NDArray[np.object_], twins: NDArray[np.intp], seed: int) -> _Bools:
    """Draw one image (n,) of each patient, or of patients who share a near-duplicate."""
    codes, names = pd.factorize(patients)
    links = codes[twins]
    graph = coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(len(names), len(names)))
    group = connected_components(graph, directed=False)[1][codes]
    order = np.random.default_rng(seed).permutation(len(group))
    chosen = np.zeros(len(group), bool)
    chosen[order[np.unique(group[order], return_index=True)[1]]] = True
    return chosen


def _copies(
    table: pd.DataFrame, sick: _Bools, patients: NDArray[np.object_], twins: NDArray[np.intp]
) -> Copies:
    """Count twins and patients that no split may part."""
    split, images = groups_of(table, "split"), groups_of(table, "image")
    first, second = twins[patients[twins[:, 0]] != patients[twins[:, 1]]].T
    splits, classes = split[first] != split[second], sick[first] != sick[second]
    gravest = np.argsort(-(splits.astype(int) + classes), kind="stable")[:_EXAMPLES]
    return Copies(
        pairs=len(first),
        across_splits=int(splits.sum()),
        across_classes=int(classes.sum()),
        patients=int((pd.Series(split).groupby(patients).nunique() > 1).sum()),
        splits=bool((split != "").any()),
        examples=tuple((str(images[first[i]]), str(images[second[i]])) for i in gravest),
    )
