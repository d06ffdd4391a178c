"""
How a foreign hospital is noticed
=================================

A certificate is a promise about patients like those who certified it. So every folder of 40 or more judged images is
tested: could it come from there? The test knows the mean of each certified group (normal, each disease). A folder of
the same hospital is *some* mixture of these groups, whatever its share of sick; what no mixture explains is the site.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import histcxr
from histcxr.decision.site import TOLERANCE
from histcxr.phantoms.studies import write_study

work = Path(tempfile.mkdtemp())
# One classifier with its defaults makes this page quick.
model = histcxr.train(histcxr.sample_study(work / "home"), classifiers="svm", trials=0).best

# %%
# Folders of 60 images each, from scanners that map grey levels by different exponents (gamma). With 1.0 it is the
# scanner of the training; two folders there have hardly any sick patients, or hardly any normal ones.


def folder_of(name, gamma, keep="Normal|Lung_Opacity", n_patients=60, seed=3):
    """Write a folder, and a list of the images of some classes."""
    folder = write_study(work / name, n_patients=n_patients, gamma=gamma, seed=seed, repeats=0)
    table = histcxr.read_manifest(folder)
    table = table[table["label"].str.fullmatch(keep)].drop(columns="label").head(60)
    table.to_csv(work / f"{name}.csv", index=False)
    return work / f"{name}.csv"


gammas = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)
folders = {f"gamma {gamma}": folder_of(f"gamma-{gamma}", gamma) for gamma in gammas}
folders["home, all normal"] = folder_of("normal", 1.0, "Normal", n_patients=120)
folders["home, all sick"] = folder_of("sick", 1.0, "Lung_Opacity", n_patients=120)

found = {name: histcxr.triage(path, model, f"{path}.worklist.csv") for name, path in folders.items()}
for name, summary in found.items():
    print(f"{name:17} distance {summary.site['distance']:5.1f} {'  WITHHELD' * summary.withheld}")

# %%
# Up to 1.5 (squared standard deviations of the certified patients) is no alarm, as no two months of one hospital are
# alike; an alarm is what 60 images show to be *more* than that, with at most 5 % error. The share of sick alone is no
# alarm either. Where the folder differs, everything becomes ``review``, and what would have been
# ruled out or in has the reason ``uncertified_site``.

figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
names = list(found)[::-1]
for place, name in enumerate(names):
    summary = found[name]
    ax.barh(place, summary.site["distance"], color="#D55E00" if summary.withheld else "#0072B2", height=0.65)
ax.set_yticks(range(len(names)), names)
ax.axvline(TOLERANCE, color="#595959", ls="--")
ax.set(xlabel="squared distance from the certified patients (orange: drawers withheld)")

# %%
# The folder's summary says what differs, in standard deviations:

for feature, difference in found["gamma 0.7"].site["differences"].items():
    print(f"{feature:40} {difference:+.1f}")
