"""
Disease, or the scanner?
========================

Public collections often take their sick from one hospital and their normal patients from another. A model then learns
to tell hospitals apart, and its figures are splendid. ``audit`` asks, before anything is trained: do things that
disease cannot change, such as the borders of the image, tell sick from normal?
"""

import tempfile
from pathlib import Path

import cv2
import matplotlib.pyplot as plt

import histcxr
from histcxr.phantoms.studies import write_study

work = Path(tempfile.mkdtemp())
study = write_study(work / "study", n_patients=160, size=(96, 96), mask_size=(96, 96), repeats=0)
clean = histcxr.audit(study)
print(*clean.verdict, sep="\n")

# %%
# The same study, but the sick were digitised with a darker margin of two pixels. It lies far from the lungs, nobody
# would look at it, and it gives the class away.

table = histcxr.read_manifest(study)
for path in table.loc[table["label"] != "Normal", "image"]:
    image = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
    for edge in (image[:2], image[-2:], image[:, :2], image[:, -2:]):
        edge //= 2
    cv2.imwrite(path, image)
planted = histcxr.audit(study)
print(*planted.verdict, sep="\n")

# %%
# All questions of both audits, by the AUC with which they tell sick from normal (0.5: not at all), with 95 %
# intervals. The histograms of the lungs are no question but the purpose.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharex=True)
for ax, result, title in zip(axes, (clean, planted), ("clean", "with a margin"), strict=True):
    rows = [
        {"name": one.probe, "value": one.effect.value, "low": one.effect.low, "high": one.effect.high}
        for one in result.answers
    ]
    histcxr.plots.GroupsDisplay(rows, "AUC of sick against normal").plot(ax)
    ax.axvline(0.5, color="#595959", ls=":")
    ax.set(title=title, xlim=(0.3, 1.02))
