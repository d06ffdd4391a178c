"""
Tutorial: from a folder to a worklist
=====================================

Ten minutes, on made-up radiographs, with every step that a real study has. Whoever prefers the command line finds the
equal command under each step. You need ``pip install '.[report]'`` and nothing else: no images, no GPU.

Words in this tutorial: a *worklist* is a table with one row for each image; each row is in one of three *drawers*,
``rule_out`` (normal), ``rule_in`` (sick) or ``review`` (a person decides). The :doc:`/glossary` has all others.
"""

import json
import tempfile
from pathlib import Path

import pandas as pd

import histcxr
from histcxr.phantoms.studies import write_study

# %%
# A study
# -------
# :func:`histcxr.sample_study` writes radiographs of 400 made-up patients, half of them sick, with lung masks beside
# the images. Each patient is in one *split*: ``train`` (a model learns from them), ``val`` (they certify the
# thresholds) or ``test`` (they are scored once, at the end).

work = Path(tempfile.mkdtemp())
study = histcxr.sample_study(work / "study")
print(*sorted(str(path.relative_to(study)) for path in study.glob("*/*")), sep="\n")

# %%
# A folder like this one can have several layouts; :func:`histcxr.read_manifest` reads them all, and CSV lists.

table = histcxr.read_manifest(study)
table.groupby(["label", "split"])["patient_id"].nunique().unstack()

# %%
# Look first
# ----------
# Nobody should trust a score before seeing where it comes from. :func:`histcxr.explore` looks at classes, sources,
# file types, masks and near-duplicates, and says in sentences what stands out.
#
# On the command line: ``histcxr explore study -o look``, and open ``look/index.html``.

look = histcxr.explore(study)
look

# %%
# The lung histograms of both classes, with the middle half of the images as a band:

histcxr.plots.HistogramDisplay(look.figures["histograms"]["lungs"]).plot()

# %%
# Train and certify
# -----------------
# One call fits, certifies and measures. Without further arguments it takes the recipe that travels best between
# hospitals.
#
# On the command line: ``histcxr train study -o model.histcxr``.

result = histcxr.train(study)
model = result.best
model

# %%
# The card says what is promised: at most 5 % of sick patients like the validation patients have a score under the
# ``rule_out`` threshold, and that holds with 95 % confidence. :doc:`plot_6_certificate` shows what it means.
#
# The test patients, whom neither training nor thresholds have seen:

test = result.report["classifiers"][model.name]["test"]
print(f"AUC {test['auc']:.3f} ({test['auc_low']:.3f}-{test['auc_high']:.3f}) on {test['images']} images")
for name in ("sensitivity", "specificity"):
    found = test["decisions"][name]
    print(f"{name} at the rule_out threshold: {found['value']:.3f} ({found['low']:.3f}-{found['high']:.3f})")

# %%
# The intervals are wide: 40 sick test patients do not say more.
#
# Save it. A model is a folder of JSON and arrays, never pickles, and everything in it is checked when it is loaded.

path = histcxr.save_model(model, work / "model.histcxr")
print(*sorted(file.name for file in path.iterdir()), sep="\n")

# %%
# Triage
# ------
# New images of the same hospital arrive, without labels; some of the files are broken.
#
# On the command line: ``histcxr triage incoming -m model.histcxr -o worklist.csv``.

incoming = write_study(work / "incoming", n_patients=60, seed=7, layout="flat", repeats=0)
(incoming / "truncated.png").write_bytes((incoming / "phantom-00001.png").read_bytes()[:2000])
(incoming / "empty.png").write_bytes(b"")

summary = histcxr.triage(incoming, path, work / "worklist.csv")
print(summary.drawers, summary.reasons, f"exit code {summary.exit_code}")

# %%
# Every input has exactly one row, and what could not be judged is in ``review`` with a sentence that says what to do.
# The exit code 3 says that something needs attention.

worklist = pd.read_csv(work / "worklist.csv", keep_default_na=False)
worklist[["file", "decision", "score", "reason_code"]].tail(5)

# %%

print(worklist.query("reason != ''")[["file", "reason"]].to_string(index=False))

# %%
# One image in memory
# -------------------
# The same checks, without files. The notes are what a careful reader must know: of one image nobody can tell which
# hospital it comes from.

image = histcxr.read_radiograph(incoming / "phantom-00002.png").pixels
judged = model.triage(image)
print(judged.drawer, judged.score)
print(*judged.notes, sep="\n")

# %%
# Another hospital
# ----------------
# A scanner that maps grey levels differently, here by an exponent of 0.7. The folder is tested against the patients
# who certified the model; it differs, so nobody is ruled out or in.

foreign = write_study(work / "foreign", n_patients=60, seed=8, gamma=0.7, layout="flat", repeats=0)
summary = histcxr.triage(foreign, path, work / "foreign.csv")
print(summary.drawers, "withheld:", summary.withheld)
site = summary.site
print(f"squared distance {site['distance']:.1f}; up to {site['tolerance']} is like the certified patients")

# %%
# What then? :doc:`/new_hospital` shows the way: read some patients of that hospital, adapt the model to them and
# certify it there, and watch over it afterwards.
#
# Where it stands
# ---------------
# All that a program needs is in small objects: ``summary.to_dict()``, ``result.report``, ``look.to_dict()`` are ready
# for JSON.

print(json.dumps({name: summary.to_dict()[name] for name in ("total", "drawers", "withheld")}))
