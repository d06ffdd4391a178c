"""
How a threshold is certified
============================

The usual threshold has "95 % sensitivity on the validation set". On new patients about half of such thresholds miss
more than 5 % of the sick. histcxr certifies: it chooses a threshold so low that, whichever patients were drawn to
calibrate it, at most 5 % *of all such draws* end with a threshold that misses more than 5 % of the sick.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

import histcxr
from histcxr.decision.thresholds import errors_allowed, patients_needed

# %%
# The rule
# --------
# Sort the scores of the n sick calibration patients. Let k be the largest number with BinomCDF(k; n, 1 - sensitivity)
# at most 1 - confidence; the threshold is the (k+1)-th smallest score, and a score below it is ruled out. Of 200 sick
# patients 4 may lie below; of 58 no threshold can be certified at all.

print("fewest sick patients for 95 % at 95 %:", patients_needed(0.95, 0.95))
for n in (58, 59, 100, 200, 500):
    print(f"{n:4} sick patients: k = {errors_allowed(n, 0.95, 0.95)}")

# %%
# The promise, tried 2,000 times
# ------------------------------
# Scores of sick patients follow a known distribution here, so the true sensitivity of any threshold is known. 2,000
# times 200 sick patients are drawn, and a threshold is chosen: the plain way (the 5 % quantile of their scores), and
# the certified way.

rng = np.random.default_rng(0)
population = stats.beta(4, 1.5)
plain, certified = [], []
for _ in range(2000):
    scores = population.rvs(200, random_state=rng)
    plain.append(population.sf(np.quantile(scores, 0.05)))
    certified.append(population.sf(histcxr.rule_out_threshold(scores).threshold))

figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
for values, name, colour in ((plain, "plain quantile", "#D55E00"), (certified, "certified", "#0072B2")):
    under = np.mean(np.array(values) < 0.95)
    ax.hist(values, np.arange(0.88, 1.0005, 0.0025), histtype="stepfilled", alpha=0.5, color=colour)
    ax.hist([], color=colour, alpha=0.5, label=f"{name}: under 95 % in {under:.1%} of the draws")
ax.axvline(0.95, color="#595959", ls="--")
ax.set(xlabel="true sensitivity on new patients", ylabel="draws", xlim=(0.88, 1))
ax.legend(frameon=False, loc="upper left")

# %%
# The price is specificity
# ------------------------
# Safety costs, and fewer patients cost more: with few sick patients the threshold must be very low. The same two
# populations, sick and normal, and calibration sets of growing size; the band holds nine of ten draws.

normal = stats.beta(1.5, 4)
sizes = np.array([59, 80, 120, 200, 400, 800, 1600])
found = np.array(
    [
        [
            normal.cdf(histcxr.rule_out_threshold(population.rvs(n, random_state=rng)).threshold)
            for _ in range(200)
        ]
        for n in sizes
    ]
)
figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
ax.fill_between(sizes, *np.quantile(found, [0.05, 0.95], axis=1), alpha=0.25, lw=0, label="nine of ten draws")
ax.plot(sizes, np.median(found, axis=1), "o-", ms=4, label="median")
ax.axhline(normal.cdf(population.ppf(0.05)), color="#595959", ls=":", label="endless patients")
ax.set(xscale="log", xlabel="sick calibration patients", ylabel="normal patients ruled out", ylim=(0, 1))
ax.set_xticks(sizes, [str(n) for n in sizes])
ax.minorticks_off()
ax.legend(frameon=False, fontsize="small", loc="lower right")

# %%
# ``histcxr plan`` and :func:`histcxr.plan_auc` answer the same for your own AUC and number of patients.

plan = histcxr.plan_auc(0.95, histcxr.Aim(prevalence=0.5))
for row in plan.rule_out.rows:
    print(f"{row.n:5} sick patients: {row.low:.0%} to {row.high:.0%} of the normal patients ruled out")
