"""
What bands add
==============

A *band* is a filtered image whose values are counted like grey levels, inside the lungs alone. The histogram of
intensities knows how bright a lung is; a band knows how strongly brightness changes over a few pixels. Brightness
differs between scanners, edges and textures less so.
"""

import matplotlib.pyplot as plt
import numpy as np

import histcxr
from histcxr.features.filters import TRAVEL_BANDS, filtered_images
from histcxr.phantoms.anatomy import make_phantom

phantom = make_phantom(11, sick=True, severity=0.6)
filtered = filtered_images(phantom.image, phantom.mask, TRAVEL_BANDS)

# %%
# The three bands that travel, which ``train`` takes by default: the slope from left to right at a scale of two
# pixels, and structures about 8 to 16 and 16 to 32 pixels wide. Blue is negative, red is positive; no pixel outside the
# lungs is used, so the border of the mask leaves no edge.

titles = {
    "dx2": "dx2: slope to the right",
    "dog4": "dog4: 8 to 16 pixels wide",
    "dog8": "dog8: 16 to 32 pixels wide",
}
figure, axes = plt.subplots(1, 4, figsize=(10, 3), layout="constrained")
axes[0].imshow(phantom.image, cmap="gray", vmin=0, vmax=255)
axes[0].set_title("radiograph", fontsize="medium")
for ax, name, values in zip(axes[1:], TRAVEL_BANDS, filtered.values, strict=True):
    limit = np.abs(values).max()
    ax.imshow(np.where(filtered.mask, values, np.nan), cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set_title(titles.get(name, name), fontsize="medium")
for ax in axes:
    ax.set_axis_off()

# %%
# How much brightness matters to each
# -----------------------------------
# The same patient on a second scanner, whose grey levels are mapped by an exponent of 0.7. The intensity's histogram
# moves far to the right. A band's histogram hardly does.

curve = np.rint(255 * np.linspace(0, 1, 256) ** 0.7).astype(np.uint8)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for image, label in ((phantom.image, "scanner A"), (curve[phantom.image], "scanner B")):
    axes[0].stairs(histcxr.masked_histogram(image, phantom.mask)[0], np.arange(257), label=label)
    found = filtered_images(image, phantom.mask, ["dog4"])
    axes[1].stairs(*np.histogram(found.values[0][found.mask], 80, (-20, 20)), label=label)
axes[0].set(xlabel="grey level (0 to 255)", ylabel="pixels of the lungs")
axes[1].set(xlabel="dog4 (grey levels)", ylabel="pixels of the lungs")
axes[0].legend(frameon=False)
