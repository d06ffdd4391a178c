"""
In a picture
============

What happens to a radiograph: its lungs are outlined, their grey levels are counted, the counts become a score, and
the score falls into a drawer. Everything here is made up: the radiographs are phantoms, drawn from a seed.
"""

# sphinx_gallery_thumbnail_number = 1
import sys
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import histcxr

folder = histcxr.sample_study(tempfile.mkdtemp() + "/study", n_patients=400)
model = histcxr.train(folder).best

# %%
# The model has never seen the test patients. Of them the most normal and the sickest are shown.

table = histcxr.read_manifest(folder).query("split == 'test'").reset_index(drop=True)
seen = histcxr.extract_features(table, zones=model.recipe.zones, bands=model.recipe.bands)
table["score"] = model.score(seen.counts)
lungs = (
    histcxr.extract_features(table, zones=1).counts[:, 0].reshape(-1, 64, 4).sum(axis=2)
)  # four levels a bin
share = 100 * lungs / lungs.sum(axis=1, keepdims=True)
normal = (table["label"] == "Normal").to_numpy()
low, high = model.rule_out.threshold, model.rule_in.threshold
shown = [table["score"].where(normal).idxmin(), table["score"].where(~normal).idxmax()]

# %%
# Left to right: the radiograph, the lungs in thirds, their grey levels against those of 80 % of the
# normal images, and the score between the two certified thresholds, among those of all test images.

BLUE, RED, GREY = (
    "#0072B2",
    "#D55E00",
    "#595959",
)  # Okabe's and Ito's colours, which colour-blind readers tell apart
levels = np.arange(2, 256, 4)
usual = np.quantile(share[normal], [0.1, 0.9], axis=0)
drawers = (("rule out", 0, low, BLUE), ("review", low, high, GREY), ("rule in", high, 1, RED))
plt.rcParams.update({"font.size": 11})
figure, axes = plt.subplots(2, 4, figsize=(10, 4.7), width_ratios=(1, 1, 1.3, 1.7), layout="constrained")
for (plain, outlined, chart, scores), at, colour in zip(axes, shown, (BLUE, RED), strict=True):
    pixels = histcxr.read_radiograph(table["image"][at]).pixels
    plain.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    plain.set_axis_off()
    histcxr.plots.LungsDisplay.from_mask(
        pixels, histcxr.read_mask(table["mask"][at], pixels.shape), ax=outlined
    )

    chart.fill_between(levels, *usual, color=BLUE, alpha=0.25, lw=0, label="normal lungs")
    chart.plot(levels, share[at], color=colour, label="these lungs")
    chart.set(xlim=(0, 255), ylim=(0, 12), yticks=[], xticks=[0, 128, 255])
    chart.legend(frameon=False, fontsize="small", loc="upper right", borderaxespad=0)

    for height, part in enumerate((~normal, normal)):
        scores.plot(
            table["score"][part], [height] * part.sum(), "|", color=(RED, BLUE)[height], ms=11, alpha=0.6
        )
    for name, left, right, shade in drawers:
        scores.axvspan(left, right, color=shade, alpha=0.12, lw=0)
        scores.text((left + right) / 2, 2.35, name, ha="center", va="bottom", color=shade, clip_on=False)
    scores.annotate(
        "this image",
        (table["score"][at], 1.35),
        (0.5, 1.9),
        ha="center",
        va="center",
        arrowprops={"arrowstyle": "->"},
    )
    scores.set(
        xlim=(0, 1), ylim=(-0.6, 2.3), xticks=[0, 0.5, 1], yticks=[0, 1], yticklabels=["sick", "normal"]
    )
    scores.tick_params(left=False)
    for ax in (chart, scores):
        ax.spines[["left", "right", "top"]].set_visible(False)
for ax, title in zip(
    axes[0], ("radiograph", "lungs", "their grey levels", "score, and its drawer\n"), strict=True
):
    ax.set_title(title, fontsize=12)
# %%
# ``python docs/gallery/plot_1_in_a_picture.py docs/images/readme.png`` draws the README's picture.

if len(sys.argv) == 2:
    figure.savefig(sys.argv[1], dpi=150, facecolor="white")
    with Image.open(sys.argv[1]) as drawn:  # fewer levels make a file of half the size
        small = drawn.convert("RGB").point(lambda level: min(255, round(level / 8) * 8))
    small.save(sys.argv[1], optimize=True)
