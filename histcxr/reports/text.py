"""The reports that commands print: tables that are Markdown too, figures with their intervals, what they do not say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from histcxr.exceptions import counted
from histcxr.reports.tables import (
    PROMISED,
    Kept,
    Measured,
    auc_text,
    certified_lines,
    contradiction_lines,
    counts_text,
    estimate_text,
    markdown_table,
    seen_lines,
    site_lines,
    thresholds_report,
)

if TYPE_CHECKING:
    from histcxr.networks.search import TuningResult

_BEST_TRIALS = 10
REGIONS = {"lungs": "the lungs only", "hidden": "everything but the lungs", "full": "the full image"}

_TEST_ROW_MEANS = (
    "Accuracy calls sick at a score of 0.5; sensitivity and specificity are at the rule-out threshold, the next",
    "column is the specificity where the test images themselves reach 95 % sensitivity.",
)

DISCLAIMER = "Research software, not a medical device."


def training_report(report: Mapping[str, Any]) -> str:
    """Lay out the report of :func:`histcxr.train`: one row a classifier, then the promises and the notes."""
    data = report["data"]
    rows = [
        {
            **_test_row(name, figures["test"]),
            "cross-validated AUC": figures["cross_validated_auc"],
            "fit seconds": f"{figures['fit_seconds']:.1f}",
        }
        for name, figures in report["classifiers"].items()
    ]
    bands = f", bands {', '.join(report['bands'])}. " if report["bands"] else ". "
    lines = [
        f"Lungs in zones {report['zones']}{bands}{_parts_text(data)}",
        *([f"Learnt from {counts_text(report['learnt_from'])}."] if "learnt_from" in report else []),
        "",
        markdown_table(rows),
        "",
        *_TEST_ROW_MEANS,
        f"Best by cross-validation: {report['best']}.",
        *_promises(report["classifiers"][report["best"]]),
    ]
    failed = {name: figures["failed_trials"] for name, figures in report["classifiers"].items()}
    lines += [f"Note: {counted(count, 'trial')} of {name} failed." for name, count in failed.items() if count]
    if "refused" in report:
        lines.append(
            f"Lungs unlike the training ones are refused: {100 * report['refused']['val']:.1f} % of the validation "
            f"images, {100 * report['refused']['test']:.1f} % of the test images."
        )
    return _closed([*lines, *_data_notes(data)])


def network_report(report: Mapping[str, Any]) -> str:
    """Lay out the report of :func:`histcxr.study.network_train.train_reference`."""
    test, inputs, history = report["test"], report["inputs"], report["history"]
    best = report["best_epoch"] - 1
    stopped = (
        f"best epoch {report['best_epoch']} with validation loss {history['val_loss'][best]:.3f} and accuracy "
        f"{history['val_accuracy'][best]:.3f}"
        if "val_loss" in history
        else "none held out to stop early"
    )
    lines = [
        f"{report['architecture']}, {report['parameters']:,} parameters, on {REGIONS[inputs['region']]} at "
        f"{inputs['size']} x {inputs['size']} pixels",
        _parts_text(report["data"]),
        f"Learnt from {counts_text(report['learnt_from'])} in {report['fit_seconds']:.0f} s, {report['epochs']} "
        f"epochs; {stopped}.",
        "",
        markdown_table([_test_row(report["architecture"], test)]),
        "",
        *_TEST_ROW_MEANS,
        "",
        classes_report(test["classes"]),
        "",
        *_promises(report),
    ]
    return _closed([*lines, *_data_notes(report["data"])])


def search_report(result: TuningResult) -> str:
    """Lay out what a search found: its best trials, the failed ones, and the settings to use."""
    table = result.trials
    fine = table[table["status"] == "ok"].sort_values(["images", "score"], ascending=False, kind="stable")
    failed = table[table["status"] == "failed"]
    rows = [
        {
            **{key: row[key] for key in ("classifier", "trial")},
            "AUC": float(row["score"]),
            "images": int(row["images"]),
            "seconds": f"{row['seconds']:.1f}",
        }
        for _, row in fine.head(_BEST_TRIALS).iterrows()
    ]
    lines = [
        f"{counted(len(table), 'trial')} in {result.seconds:.0f} s"
        + (f"; the best {len(rows)}:" if len(table) > len(rows) else ":"),
        "",
        markdown_table(rows),
        "",
        f"{result.name}: {result.measure} {result.score:.4f}"
        + (" with" if result.parameters else " with the defaults, which no trial beat"),
        *(f"  {k.removeprefix('classifier__estimator__')} = {v}" for k, v in result.parameters.items()),
    ]
    lines += [
        f"Failed: {row['classifier']} trial {row['trial']}: {row['error']}" for _, row in failed.iterrows()
    ]
    if result.not_tried:
        lines.append(
            f"Note: time ended before {counted(result.not_tried, 'trial')}; the same command goes on there."
        )
    return "\n".join(lines)


def evaluation_report(result: Mapping[str, Any]) -> str:
    """Lay out the result of :func:`histcxr.evaluate`, for a network with its figures by class."""
    overall = result["overall"]
    decisions = overall["decisions"]
    drawers = [
        {
            "drawer": drawer,
            "share of patients": estimate_text(share),
            "images": decisions["images"][drawer],
        }
        for drawer, share in decisions["shares"].items()
    ]
    named = {"all": overall, **_by_name(result["groups"])}
    where = f" where {100 * overall['prevalence']:.3g} % of the patients are sick"
    lines = [
        f"{result['model']['name']} on {counted(overall['images'], 'image')} ({overall['sick']} sick), "
        f"split {result['split']}",
        "",
        markdown_table([_figures_row("patients", name, figures) for name, figures in named.items()]),
        "",
        "Sensitivity: the sick who are not ruled out. Specificity: the normal who are ruled out. Both by patient, "
        "among the judged; accuracy at a score of 0.5, by image.",
        *within_lines(result.get("within", {}), overall),
        *calibration_lines(result),
        "",
        markdown_table(drawers),
        "",
        f"Ruled out although sick: {decisions['missed']} of {decisions['n_sick']} sick patients. "
        f"NPV {estimate_text(decisions['npv'])}: the share of normal among the ruled out{where}.",
        f"Ruled in although normal: {decisions['false_alarms']} of {decisions['n_normal']} normal patients. "
        f"PPV {estimate_text(decisions['ppv'])}: the share of sick among the ruled in{where}.",
        "Where another share of your patients is sick, give it with --prevalence: NPV and PPV change with it.",
        "",
        thresholds_report(result["thresholds"], result.get("certificates"), measured_promises(result)),
        "",
        *site_lines(result.get("site")),
        _refused_text(result),
        *seen_lines(result),
    ]
    for name, figures in named.items():
        # Of two classes, the table above says of the groups what there is to say.
        if "classes" in figures and (name == "all" or len(figures["classes"]["names"]) > 2):
            lines += ["", *([] if name == "all" else [name, ""]), classes_report(figures["classes"])]
    return _closed(lines)


def measured_promises(result: Mapping[str, Any]) -> Measured:
    """Look up what became of a promise in the result of an evaluation."""

    def find(column: str, value: str, kind: str) -> Kept | None:
        figures = result["groups"].get(column, {}).get(value) if column else result["overall"]
        if figures is None:
            return None
        figure, _, whose = PROMISED[kind]
        judged, everybody = figures["among_judged"], figures["among_all"]
        return Kept(judged[whose], judged[figure], everybody[figure] if everybody else None)

    return find


def _refused_text(result: Mapping[str, Any]) -> str:
    """Say how many images could not be judged, and what a triage makes of them."""
    judged, everybody = result["overall"]["images"], result["overall"]["among_all"]["images"]
    if judged == everybody:
        return "Every image could be judged."
    reasons, lost = result["unusable"], everybody - judged
    seen = "" if sum(reasons.values()) == lost else ", counted with those that the model has seen"
    return (
        f"Not judged: {lost} of {counted(everybody, 'image')} ({100 * result['refused']:.1f} %). A triage sends "
        f"them to review, and so they count among all. By reason{seen}: {counts_text(reasons)}."
    )


def calibration_lines(result: Mapping[str, Any]) -> list[str]:
    """Say where a score may be read as a probability, and how far off it is here."""
    found, trained = result["overall"]["calibration"], result["model"]["trained_prevalence"]
    if found is None:
        return []
    where = "" if trained is None else f"It was fitted where {100 * trained:.3g} % of the images are sick. "
    return [
        f"A score is no probability for your patients. {where}Here {100 * found['observed']:.3g} % are, and the "
        f"mean score is {found['predicted']:.3f}: in the large {found['in_the_large']:+.2f} to add to the log "
        f"odds (0 is right), slope {found['slope']:.2f} (1 is right, less is too extreme), mean distance "
        f"{result['overall']['calibration_error']:.3f}."
    ]


def within_lines(within: Mapping[str, Mapping[str, Any]], overall: Mapping[str, Any]) -> list[str]:
    """Say where the AUC is partly, or may be wholly, that of a view or a source."""
    lines = []
    for column, found in within.items():
        if found["verdict"] == "part":
            each = ", ".join(f"{one['auc']:.3f} ({value})" for value, one in found["groups"].items())
            lines.append(
                f"CONFOUNDED: within each {column} the AUC is {each}, {found['auc']:.3f} on average: part of the "
                f"overall {found['overall']:.3f} is the {column}, not the disease."
            )
        elif found["verdict"] == "unknown":
            lines.append(
                f"CANNOT TELL: no {column} has 10 sick and 10 normal patients here, so how much of the AUC of "
                f"{overall['auc']:.3f} is the {column}, not the disease, nobody can say from these data."
            )
    return lines


def comparison_report(result: Mapping[str, Any]) -> str:
    """Lay out the result of :func:`histcxr.study.evaluate.compare`."""
    models, overall = result["models"], result["overall"]
    names = [f"{letter}: {model['name']}" for letter, model in zip("AB", models, strict=True)]
    rows = [
        {
            "patients": name,
            "images": figures["n_images"],
            "AUC, A - B (95 % interval)": _gap_text(figures["auc"]["difference"]),
            "specificity, A - B (95 % interval)": _gap_text(figures["specificity"]["difference"]),
        }
        if figures
        else {"patients": name, "AUC, A - B (95 % interval)": "too few patients"}
        for name, figures in {"all": overall, **_by_name(result["groups"])}.items()
    ]
    lines = [
        f"{names[0]} and {names[1]} on the same {counted(overall['n_images'], 'image')} of "
        f"{counted(overall['n_patients'], 'patient')}, "
        f"split {result['split']}",
        "",
        markdown_table(
            [_figures_row("model", name, model["overall"]) for name, model in zip(names, models, strict=True)]
        ),
        "",
        "Sensitivity and specificity are at each model's own rule-out threshold, by patient.",
        "",
        markdown_table(rows, list(rows[0])),
        "",
        f"Specificity: where each model reaches {100 * overall['sensitivity']:g} % sensitivity on these images, "
        f"{overall['specificity']['first']:.3f} and {overall['specificity']['second']:.3f}. Intervals are paired, by "
        "patient.",
        f"Left out of both: {counted(result['left_out'], 'image')} that one of the two has seen or refuses.",
    ]
    for name, model in zip(names, models, strict=True):
        reasons = [f"{count} {code}" for code, count in model["unusable"].items()]
        lines.append(f"  {name}: " + ", ".join([f"{model['seen']['images']} seen", *reasons]))
        lines += [*seen_lines(model), *contradiction_lines(model.get("contradicted", ()))]
    return _closed(lines)


def triage_report(summary: Mapping[str, Any]) -> str:
    """Say what a triage did: drawers, what needs attention, where the files are."""
    total = summary["total"]
    lines = [f"{total} inputs, each with one row in {summary['output']}"]
    for drawer in ("rule_out", "review", "rule_in"):
        count = summary["drawers"][drawer]
        share = f"{100 * count / total:5.1f} %" if total else ""
        lines.append(f"  {drawer:<9} {count:>7}  {share}")
    by_patient = ", ".join(f"{count} {drawer}" for drawer, count in summary["patients"].items())
    lines.append(f"Patients: {sum(summary['patients'].values())}, of them {by_patient}")
    if summary["unjudged"]:
        lines.append(f"Could not be judged, so in review: {summary['unjudged']}")
        lines += [f"  {count:>5}  {code}" for code, count in summary["reasons"].items()]
    lines += skipped_lines(summary["skipped"])
    if summary["resumed"]:
        lines.append(f"{counted(summary['resumed'], 'row')} already there from an earlier run")
    return _closed([*lines, *map(str, summary.get("notes", ())), f"Audit trail: {summary['audit']}"])


def skipped_lines(skipped: Mapping[str, int]) -> list[str]:
    """Say how many files were passed over, by extension or by what they are."""
    said = "{} file, which is no image", "{} files, which are not images"
    return [
        "Skipped: "
        + (f"{n} {ext}" if " " in ext else counted(n, *(one.format(ext or "other") for one in said)))
        for ext, n in skipped.items()
    ]


def classes_report(figures: Mapping[str, Any]) -> str:
    """Lay out figures by class and the confusion matrix, one row a class."""
    rows = [
        {**about, **{f"called {name}": n for name, n in zip(figures["names"], calls, strict=True)}}
        for about, calls in zip(figures["classes"], figures["matrix"], strict=True)
    ]
    return (
        f"{markdown_table(rows)}\nBy class: accuracy {figures['accuracy']:.3f}, balanced accuracy "
        f"{figures['balanced_accuracy']:.3f}, macro F1 {figures['macro_f1']:.3f}, loss {figures['loss']:.3f}."
    )


def explanation_report(result: Mapping[str, Any]) -> str:
    """Lay out where a network looks: the share of its maps inside the lungs beside that of an even map."""
    rows = [
        {
            "label": row["label"] or "unknown",
            "images": row["images"],
            "share inside the lungs": row["inside"],
            "of an even map": row["even"],
            "difference (95 % interval)": _gap_text({**row, "value": row["difference"]}),
        }
        for row in result["shares"]
    ]
    head = (
        f"Grad-CAM of {result['model']['name']}, layer {result['layer']}, on "
        f"{REGIONS[result['model']['inputs']['region']]}; for {result['target'] or 'the predicted class'}"
    )
    pictures = f"Pictures in {result['output']}: {', '.join(result['pictures'])}."
    return _closed([head, "", markdown_table(rows), "", pictures])


def _gap_text(gap: Mapping[str, Any]) -> str:
    """Write a difference with its interval, where they exist."""
    if gap["value"] is None:
        return "no map inside known lungs"
    interval = "" if gap["low"] is None else f" ({gap['low']:+.3f} to {gap['high']:+.3f})"
    return f"{gap['value']:+.3f}{interval}"


def _by_name(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{column}={value or 'unknown'}": figures
        for column, values in groups.items()
        for value, figures in values.items()
    }


def _figures_row(title: str, name: str, figures: Mapping[str, Any]) -> dict[str, object]:
    everybody = figures.get("among_all")
    return {
        title: name,
        "images": figures["images"],
        **({"not judged": everybody["images"] - figures["images"]} if everybody else {}),
        "sick": figures["sick"],
        "accuracy": figures["accuracy"],
        "AUC (95 % interval)": auc_text(figures),
        "sensitivity": estimate_text(figures["decisions"]["sensitivity"]),
        "specificity": estimate_text(figures["decisions"]["specificity"]),
    }


def _test_row(name: str, test: Mapping[str, Any]) -> dict[str, object]:
    return {
        "classifier": name,
        "test accuracy": test["accuracy"],
        "AUC (95 % interval)": auc_text(test),
        "sensitivity": test["sensitivity"],
        "specificity": test["specificity"],
        "at 95 % sensitivity": estimate_text(test["specificity_at_95"]),
    }


def _promises(figures: Mapping[str, Any]) -> list[str]:
    thresholds = {"rule_out": figures["threshold"], "rule_in": figures["rule_in_threshold"]}
    return [thresholds_report(thresholds, figures["groups"]), *certified_lines(figures["certified"])]


def _data_notes(data: Mapping[str, Any]) -> list[str]:
    unusable = (f"{counted(n, 'image')} could not be used: {code}" for code, n in data["unusable"].items())
    return [f"Note: {note}." for note in (*unusable, *data["notes"])]


def _parts_text(data: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{part}: {counted(data[part]['images'], 'image')}, {counted(data[part]['patients'], 'patient')}, "
        f"{data[part]['sick']} sick"
        for part in ("train", "val", "test")
    )


def _closed(lines: Iterable[str]) -> str:
    return "\n".join([*lines, DISCLAIMER])
