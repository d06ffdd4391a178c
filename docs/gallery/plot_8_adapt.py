"""
What adapt does
===============

A model that was certified elsewhere promises nothing here. With some labelled patients of one's own, ``adapt`` fits
what is needed and certifies it on the same patients. No patient is scored by a fit that has seen him: the patients
are cut into folds, and each fold is scored by what the others gave.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import histcxr
from histcxr.phantoms.studies import write_study

work = Path(tempfile.mkdtemp())
home = histcxr.train(histcxr.sample_study(work / "home"), classifiers="svm", trials=0).best
patients = write_study(work / "hospital", n_patients=240, seed=1, gamma=0.7, repeats=0)

# %%
# The hospital's scanner maps grey levels by an exponent of 0.7, so normal lungs look bright to the model from home.

ours = histcxr.adapt(home, patients)
print(f"chosen: {ours.chosen}", {name: round(share, 2) for name, share in ours.weights.items()})
for one in ours.candidates:
    auc = one.auc
    print(f"{one.name:14} AUC {auc.value:.3f} ({auc.low:.3f}-{auc.high:.3f})  log loss {one.log_loss:.3f}")

# %%
# Both models on new patients of that hospital: scores of sick and normal, and the thresholds. The model from home has
# thresholds, too, but they were certified for other patients: here they mean nothing, and a triage withholds them.

new = histcxr.read_manifest(write_study(work / "new", n_patients=200, seed=2, gamma=0.7, repeats=0))
counts = histcxr.extract_features(new, zones=home.recipe).counts
sick = (new["label"] != "Normal").to_numpy()
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", sharey=True)
for ax, model, name in zip(axes, (home, ours.model), ("from home", "adapted"), strict=True):
    histcxr.plots.ScoreDisplay.from_predictions(
        sick, model.score(counts), rule_out=model.rule_out, rule_in=model.rule_in, ax=ax
    )
    ax.set_xlabel(f"score of the model {name}")

# %%
# What the adapted model promises, and how much it sorts out:

for kind in ("rule_out", "rule_in"):
    print(getattr(ours.model, kind).message)
scores = ours.model.score(counts)
drawers = ours.model.drawers(scores, {})
for drawer in ("rule_out", "review", "rule_in"):
    normal, ill = (np.mean(drawers[part] == drawer) for part in (~sick, sick))
    print(f"{drawer:9} {normal:5.0%} of the normal, {ill:5.0%} of the sick")
