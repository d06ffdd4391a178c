"""
What a histogram of lungs is
============================

A radiograph of 224 x 224 pixels has 50,176 grey levels. histcxr keeps 256 numbers of it, or some thousand: how many
pixels *inside the lungs* have each grey level. Air is dark, so healthy lungs are dark; what fills the air spaces
(inflammation, fluid) makes pixels brighter, and moves them to the right in the histogram.
"""

import matplotlib.pyplot as plt
import numpy as np

import histcxr
from histcxr.features.histograms import zone_names
from histcxr.phantoms.anatomy import make_phantom

normal, sick = make_phantom(4), make_phantom(4, sick=True, severity=0.7)

# %%
# The same made-up patient, healthy and with an opacity. Only pixels inside the mask are counted; the two histograms
# have equally many.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), width_ratios=(1, 1, 1.5), layout="constrained")
for ax, phantom, name in zip(axes, (normal, sick), ("healthy", "with an opacity"), strict=False):
    histcxr.plots.LungsDisplay.from_mask(phantom.image, phantom.mask, zones=1, name=name, ax=ax)
    counts = histcxr.masked_histogram(phantom.image, phantom.mask)  # int64 (1, 256)
    axes[2].stairs(counts[0], np.arange(257), label=name, fill=True, alpha=0.55)
axes[2].set(xlim=(0, 255), xlabel="grey level (0 to 255)", ylabel="pixels of the lungs")
axes[2].legend(frameon=False)

# %%
# Where is lost, unless one divides
# ---------------------------------
# A histogram knows how much is bright, not where. Six zones, each lung in thirds, bring some of the place back: six
# histograms instead of one. In the benchmarks that is the largest step of all: an AUC of 0.945 instead of 0.895.

figure, axes = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(1, 1.6), layout="constrained")
histcxr.plots.LungsDisplay.from_mask(sick.image, sick.mask, zones=6, ax=axes[0])
for name, row in zip(zone_names(6), histcxr.masked_histogram(sick.image, sick.mask, zones=6), strict=True):
    smooth = row.reshape(64, 4).sum(axis=1) / row.sum()
    axes[1].plot(np.arange(2, 256, 4), 100 * smooth, label=name.replace("_", " "))
axes[1].set(xlim=(0, 255), xlabel="grey level (0 to 255)", ylabel="% of the zone's pixels, in fours")
axes[1].legend(frameon=False, fontsize="small")

# %%
# What a classifier sees
# ----------------------
# Counts depend on how large the lungs are, so nobody learns from them directly.
# :class:`histcxr.HistogramFeatures` makes densities, cumulative curves or quantiles of them. Quantiles are the usual
# ones: the grey level under which a given share of the lung lies.

counts = np.stack([histcxr.masked_histogram(one.image, one.mask) for one in (normal, sick)])
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for ax, kind in zip(axes, ("density", "cumulative", "quantile"), strict=True):
    features = histcxr.HistogramFeatures(kind).fit_transform(counts)
    for row, name in zip(features, ("healthy", "with an opacity"), strict=True):
        ax.plot(row, label=name)
    ax.set(title=kind, xlabel=f"feature (of {features.shape[1]})", ylabel="value")
axes[0].legend(frameon=False, fontsize="small")
