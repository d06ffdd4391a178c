"""What an audit found: the answers, the copies, and the verdict in plain words above the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from histcxr.exceptions import counted
from histcxr.reports.tables import estimate_text, markdown_table
from histcxr.site.audit_answers import LEAST_AUC, LEAST_LOSS, LEAST_PATIENTS, LEVEL, Answer

#: What most questions ask to tell.
SICK: Final = "sick from normal"

#: Probes that disease may explain.
EXPLAINED: Final = ("mask shape", "sex", "age_group", "age")

_SHOWS: Final = ("lungs", "transfer")  # probes of the scanner itself

_WORDS: Final = {
    "file properties": "The files of sick and normal were not made alike",
    "mask files": "The mask files of sick and normal were not made alike",
    "borders": "The borders of the images tell sick from normal",
    "corners": "The corners of the images tell sick from normal (markers, collimation, posture)",
    "outside the lungs": "What lies outside the lungs tells sick from normal (exposure, view, posture, devices)",
    "source": "Sick and normal come from different sources",
    "view": "Sick and normal were taken in different views",
    "laterality": "Sick and normal differ in laterality",
    "modality": "Sick and normal differ in modality",
    "mask shape": "The outline of the lungs alone tells sick from normal; this may be disease, or the segmenter",
    "sex": "Sick and normal differ in sex; this may be disease, or who was collected",
    "age_group": "Sick and normal differ in age group; this may be disease, or who was collected",
    "age": "Sick and normal differ in age; this may be disease, or who was collected",
    "transfer": "A model loses much at a source that it did not learn from",
    "lungs": "The lungs' histograms tell within one label what disease cannot: the scanner shows in them",
}


@dataclass(frozen=True)
class Copies:
    """Radiographs that are near-duplicates though their patients differ, and patients in several splits.

    ``pairs`` counts all pairs of such twins, of which some stand in different splits or under different classes;
    ``patients`` counts those whose images stand in several splits. ``examples`` are pairs of paths, the gravest first.
    """

    pairs: int
    across_splits: int
    across_classes: int
    patients: int
    splits: bool
    examples: tuple[tuple[str, str], ...] = ()

    @property
    def found(self) -> bool:
        """Whether they spoil a measurement: any twin where the data name no split, else those across splits."""
        return bool(
            self.across_splits or self.across_classes or self.patients or (self.pairs and not self.splits)
        )


@dataclass(frozen=True)
class Audit:
    """What :func:`audit` found.

    ``answers`` are all questions asked, ``not_asked`` those that the data cannot answer, with the reason. ``lungs``
    are figures beside them: how well the lungs' own histograms tell sick from normal, over all and within groups, and
    under shuffled labels.
    """

    images: int
    sick: int
    patients: int
    unusable: Mapping[str, int]
    answers: tuple[Answer, ...]
    copies: Copies
    lungs: tuple[Mapping[str, Any], ...]
    not_asked: tuple[Mapping[str, str], ...]

    @property
    def findings(self) -> tuple[Answer, ...]:
        """The answers that are findings, the largest first; those that disease may explain come last."""
        found = [one for one in self.answers if one.found]
        return tuple(sorted(found, key=lambda one: (one.explained, -one.effect.value)))

    @property
    def found(self) -> bool:
        """Whether anything needs attention."""
        return bool(self.findings) or self.copies.found

    @property
    def exit_code(self) -> int:
        """3 where something was found, or nothing could be asked; else 0."""
        return 3 if self.found or not self.answers else 0

    @property
    def verdict(self) -> tuple[str, ...]:
        """The result in plain sentences."""
        return tuple(_verdict(self))

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {"found": self.found, "verdict": list(self.verdict), **asdict(self)}

    def text(self) -> str:
        """Return the verdict, and under it the numbers."""
        return "\n".join([*self.verdict, "", *_numbers(self)])


def _verdict(result: Audit) -> Iterator[str]:
    """Say what was found, one sentence a probe."""
    probes = {one.probe for one in result.findings}
    if probes - {*EXPLAINED, *_SHOWS}:
        yield "FOUND: more than disease tells sick from normal here. A model may learn this instead of disease."
    elif probes & {*_SHOWS}:
        yield "FOUND: the scanner shows in the lungs, and a model may see it."
    elif probes:
        yield "FOUND: sick and normal differ by what may be disease, or may not."
    elif result.copies.found:
        yield "FOUND: the parts of the data are not apart."
    else:
        yield (
            "Nothing found." if result.answers else "NOTHING WAS ASKED, so nothing can be said of these data."
        )
    for probe in dict.fromkeys(one.probe for one in result.findings):
        yield (
            f"- {_WORDS[probe]}: "
            + "; ".join(_finding(one) for one in result.findings if one.probe == probe)
            + "."
        )
    yield from _copies_text(result.copies)
    asked = [one for one in result.answers if one.probe != "transfer"]
    if asked:
        best, worst = (pick(one.detectable for one in asked) for pick in (min, max))
        yield (
            f"{len(result.answers)} questions were asked, with a chance of at most {LEVEL:.0%} that clean data show "
            f"anything. What would have been found nine times of ten: an AUC from {best:.2f} (the sharpest question) "
            f"to {worst:.2f} (the bluntest). No finding: an AUC below {LEAST_AUC:g}, or less than {LEAST_LOSS:g} of it "
            "lost at a source."
        )
    else:
        yield f"No question could be asked: it takes {LEAST_PATIENTS} patients of either class."


def _finding(one: Answer) -> str:
    where = f"within {one.within} " if one.within else ""
    linked = "" if one.association is None else f", Cramér's V {one.association:.2f}"
    effect = estimate_text(one.effect.to_dict())
    if one.probe == "transfer":
        return f"{where}AUC {effect} less"
    what = f"{one.target}, " if one.target != SICK else ""
    most = f", most by {' and '.join(one.strongest)}" if one.strongest and one.association is None else ""
    return f"{where}{what}AUC {effect}{linked}{most}"


def _copies_text(copies: Copies) -> Iterator[str]:
    if copies.pairs:
        where = (
            f"{copies.across_splits} of them in different splits"
            if copies.splits
            else "the data name no split"
        )
        pair = " and ".join(copies.examples[0])
        yield (
            f"- Near-duplicates among the images of different patients: {counted(copies.pairs, 'pair')}, {where}, "
            f"{copies.across_classes} of different classes; e.g. {pair}."
        )
    if copies.patients:
        yield f"- Images in several splits: those of {counted(copies.patients, 'patient')}."


def _numbers(result: Audit) -> Iterator[str]:
    """Lay out all figures."""
    unusable = sum(result.unusable.values())
    yield (
        f"{counted(result.images, 'radiograph')} ({result.sick} sick) of {counted(result.patients, 'patient')}; "
        f"{unusable} more could not "
        "be used. One image of each patient was asked about."
    )
    if result.answers:
        yield ""
        yield markdown_table([_row(one) for one in result.answers])
    if result.lungs:
        yield "\nHow well the lungs' own histograms tell sick from normal:\n"
        yield markdown_table([_lungs_row(one) for one in result.lungs])
    if result.not_asked:
        yield "\nNot asked:"
        yield from (f"- {one['question']}: {one['reason']}" for one in result.not_asked)


def _row(one: Answer) -> dict[str, object]:
    effect = estimate_text(one.effect.to_dict())
    return {
        "by": one.probe,
        "tells": one.target,
        "within": one.within or "all",
        "patients": " + ".join(map(str, one.patients)),
        "AUC": f"{effect} lost" if one.probe == "transfer" else effect,
        "p, adjusted": f"{one.adjusted:.3f}",
        "would find": f"{one.detectable:.2f}",
        "found": ("may be disease" if one.explained else "yes") if one.found else "",
    }


def _lungs_row(one: Mapping[str, Any]) -> dict[str, object]:
    return {
        "within": one["within"] or "all",
        "AUC": estimate_text(one["auc"]),
        "learnt at other sources": estimate_text(one["learnt_elsewhere"], ""),
        "labels shuffled": f"{one['shuffled']:.3f} ± {one['shuffled_spread']:.3f}",
    }
