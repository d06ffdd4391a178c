"""The model card: what a saved model is, what it promises, and what it must not be used for.

The headings follow Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from histcxr.exceptions import ModelError, counted
from histcxr.reports.tables import (
    PROMISED,
    Kept,
    Measured,
    auc_text,
    certified_lines,
    markdown_table,
    thresholds_report,
)
from histcxr.reports.text import REGIONS, classes_report


def model_card(description: Mapping[str, Any]) -> str:
    """Write the card of a model of either kind, from what its ``describe`` returns, as Markdown.

    :class:`~histcxr.exceptions.ModelError` where its papers are not such as histcxr writes.
    """
    return _of_papers(_card, description)


def card_file(description: Mapping[str, Any]) -> str:
    """Write the card as a file for others: :func:`model_card` below a YAML head with the keys of Hugging Face's cards.

    https://github.com/huggingface/hub-docs/blob/main/modelcard.md names the keys. The licence is named where the card
    says of which data the model was made; nobody else's can be guessed.
    """
    return _of_papers(
        lambda papers: f"---\n{''.join(_yaml(_head(papers)))}---\n\n{_card(papers)}\n", description
    )


def _of_papers(write: Callable[[Mapping[str, Any]], str], description: Mapping[str, Any]) -> str:
    try:
        return write(description)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(
            f"the papers of this model are not such as histcxr writes ({type(error).__name__}: {error}); get the "
            "model again from where it came"
        ) from error


def _card(description: Mapping[str, Any]) -> str:
    training, card = description["training"], description.get("card", {})
    names = [part for part in ("train", "val", "test") if part in training]
    rows = [{"part": name, **_flat(training[name])} for name in names]
    # Figures of other thresholds are no figures of these: whoever certifies anew drops the test's.
    tested = description["metrics"].get("test")
    kept = _measured(card["promises"]) if tested and "promises" in card else None
    lines = [
        f"# {description['name']}",
        "",
        f"Hash `{description['hash'] or 'not saved'}`; {_input_text(description)}",
        "",
        "## Intended use",
        "Research on the triage of frontal chest radiographs, sick against normal. Not a medical device. The score "
        "says nothing about which disease, and the thresholds promise nothing about patients unlike those below: "
        "certify them on your own with `histcxr calibrate` first.",
        "",
        "## Promises",
        thresholds_report(description["thresholds"], training.get("groups"), kept),
        *(["", "Measured on the test patients, each judged by the image alone."] if kept else []),
        *(f"- {note}" for note in card.get("taken_back", ())),
        *(["", *certified_lines(training["certified"])] if "certified" in training else []),
        "",
        "## Data",
        markdown_table(rows, list(dict.fromkeys(key for row in rows for key in row)))
        if rows
        else "Not recorded.",
    ]
    if "fingerprint" in training:
        lines += ["", f"Fingerprint of the training data: `{training['fingerprint']}`."]
    lines += [f"- {note}" for note in training.get("notes", ())]
    lines += ["", "## Figures", _figures_text(tested)]
    if groups := card.get("groups"):
        rows = [
            {
                "group": name,
                "images": figures["images"],
                "AUC (95 % interval)": auc_text(figures),
                "sensitivity": _value(figures["sensitivity"]),
                "specificity": _value(figures["specificity"]),
                "not judged": "" if figures["refused"] is None else f"{100 * figures['refused']:.1f} %",
            }
            for name, figures in groups.items()
        ]
        lines += ["", "By group, at the rule-out threshold:", "", markdown_table(rows)]
    if sources := card.get("sources"):
        lines += ["", "## Sources"]
        lines += [f"- {one['name']}: {one['what']}. {one['licence']}." for one in sources]
    lines += [
        "",
        "## Limits",
        *(f"- {limit}" for limit in card.get("limits", ())),
        "Masks decide what is seen: consolidated lung that a mask leaves out is invisible here. Public sets "
        "entangle disease with hospital, view and age, so figures on other hospitals' radiographs can be far lower.",
        "",
        "## Made with",
        ", ".join(f"{name} {version}" for name, version in description["versions"].items()),
    ]
    return "\n".join(_apart("\n".join(lines).split("\n")))


def _apart(lines: Iterable[str]) -> Iterator[str]:
    """Put an empty line between paragraphs that follow each other: Markdown would make one of them."""
    above = ""
    for line in lines:
        kind, before = (one[0] if one[:1] in ("|", "-") else "text" for one in (line, above))
        if above and line and (kind != before or kind == "text"):
            yield ""
        yield line
        above = line


def _head(description: Mapping[str, Any]) -> dict[str, Any]:
    test = description["metrics"].get("test")
    head: dict[str, Any] = {}
    if description.get("card", {}).get("sources"):
        head |= {"license": "other", "license_name": "research-use-only"}
    head |= {
        "library_name": "histcxr",
        "pipeline_tag": "image-classification",
        "tags": ["chest-x-ray", "radiology", "triage", "conformal-prediction", "not-a-medical-device"],
    }
    if not test:
        return head
    figures = [
        ("roc_auc", test["auc"], f"AUC {auc_text(test)}"),
        ("accuracy", test["accuracy"], "accuracy at a score of 0.5"),
        ("recall", test["sensitivity"], "sensitivity at the rule-out threshold"),
        ("specificity", test["specificity"], "specificity at the rule-out threshold"),
    ]
    metrics = [
        {"type": kind, "value": round(value, 4), "name": name}
        for kind, value, name in figures
        if value is not None
    ]
    result = {
        "task": {"type": "image-classification", "name": "sick against normal, frontal chest radiographs"},
        "dataset": {
            "type": "custom",
            "name": f"{counted(test['images'], 'test image')} ({test['sick']} sick), none of patients learnt from",
            "split": "test",
        },
        "metrics": metrics,
    }
    name = f"{description['name']} {description['hash'][:12]}".strip()
    return head | {
        "metrics": [one["type"] for one in metrics],
        "model-index": [{"name": name, "results": [result]}],
    }


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Write mappings and lists as YAML in lines, their texts and numbers as JSON, which is YAML, too."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, inner in items:
        start = f"{key}:" if isinstance(value, Mapping) else "-"
        if isinstance(inner, Mapping | list):
            yield f"{indent}{start}\n"
            yield from _yaml(inner, f"{indent}  ")
        else:
            yield f"{indent}{start} {json.dumps(inner, ensure_ascii=False)}\n"


def _measured(promises: Mapping[str, Mapping[str, Any]]) -> Measured:
    """Look a promise up among those that were measured, by group: ``all``, or column and value."""

    def find(column: str, value: str, kind: str) -> Kept | None:
        figures = promises.get(f"{column} {value}" if column else "all")
        if figures is None:
            return None
        figure, _, whose = PROMISED[kind]
        return Kept(figures[whose], figures[figure], figures.get(f"{figure}_of_all"))

    return find


def _input_text(description: Mapping[str, Any]) -> str:
    if "inputs" in description:
        inputs = description["inputs"]
        return (
            f"input: {REGIONS[inputs['region']]} at {inputs['size']} x {inputs['size']} pixels; classes "
            f"{', '.join(description['classes'])}."
        )
    if "cascade" in description:
        first, then, low, high = (description["cascade"][name] for name in ("first", "then", "low", "high"))
        return (
            f"two models as one: {first['name']} by histograms of zones {first['recipe']['zones']}, and where that is "
            f"from {low:.4f} to {high:.4f} {then['name']}, which sees {REGIONS[then['inputs']['region']]} at "
            f"{then['inputs']['size']} pixels."
        )
    recipe = description["recipe"]
    bands = f", bands {', '.join(recipe['bands'])}." if recipe.get("bands") else "."
    return f"input: {recipe['input']}, {recipe['bins']} bins, zones {recipe['zones']}{bands}"


def _figures_text(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return "None for these thresholds; measure them with `histcxr evaluate`."
    text = (
        f"On {counted(test['images'], 'test image')} ({test['sick']} sick): AUC {auc_text(test)}, accuracy "
        f"{test['accuracy']:.3f} at a score of 0.5; at the rule-out threshold sensitivity "
        f"{test['sensitivity']:.3f} and specificity {test['specificity']:.3f}."
    )
    return f"{text}\n\n{classes_report(test['classes'])}" if "classes" in test else text


def _value(value: float | None) -> str:
    return "nobody to count" if value is None else f"{value:.3f}"


def _flat(about: Mapping[str, Any]) -> dict[str, object]:
    return {
        key: ", ".join(f"{name} {count}" for name, count in value.items())
        if isinstance(value, Mapping)
        else value
        for key, value in about.items()
        if key not in ("fingerprint", "left_out")
    }
