"""
A first notebook
================

What a newcomer writes in the first half hour: load a folder, look, train, choose a threshold, plot, triage.
"""

import tempfile

import matplotlib.pyplot as plt
import pandas as pd

import histcxr

folder = histcxr.sample_study(tempfile.mkdtemp() + "/study")  # your own folder in its place

# %%
# Load and look.

study = histcxr.read_manifest(folder)
print(study.groupby(["label", "split"]).size())
look = histcxr.explore(study)
look.write(folder.parent / "look")  # a page: look/index.html

# %%
# Train. The result holds every figure; the best model shows itself as a card.

result = histcxr.train(study, seed=0)
model = result.best
model

# %%
# Choose a threshold of your own: 98 % sensitivity at 90 % confidence, certified on the validation patients.

val = study[study["split"] == "val"].reset_index(drop=True)
counts = histcxr.extract_features(val, zones=model.recipe).counts
val["score"], val["sick"] = model.score(counts), val["label"] != "Normal"
patients = val.groupby("patient_id").agg(score=("score", "max"), sick=("sick", "max"))
choice = histcxr.rule_out_threshold(patients["score"][patients["sick"]], sensitivity=0.98, confidence=0.9)
print(choice.message)

# %%
# That was refused: it takes more sick patients. What the model promises already, on the same patients:

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
histcxr.plots.RocDisplay.from_predictions(val["sick"], val["score"], patient_ids=val["patient_id"], ax=left)
histcxr.plots.ScoreDisplay.from_predictions(
    val["sick"], val["score"], rule_out=model.rule_out, rule_in=model.rule_in, ax=right
)

# %%
# Triage the folder of the test patients' images, and look at the most urgent ones.

study[study["split"] == "test"].drop(columns="label").to_csv(folder.parent / "test.csv", index=False)
summary = histcxr.triage(folder.parent / "test.csv", model, folder.parent / "worklist.csv", sort="urgency")
print(summary.drawers)
pd.read_csv(summary.output)[["file", "decision", "score"]].head()
