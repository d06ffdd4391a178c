"""Scores and labels in, decisions out: certified thresholds, metrics with intervals, calibration.

Nothing here knows an estimator or an image. A score is a float, higher is sicker; the positive class is
"sick".

================  ====================================================================================
module            what it holds
================  ====================================================================================
``thresholds``    the certified rule-out and rule-in thresholds, and the three drawers they make
``drawers``       how the drawers fared on patients whose truth is known
``binomial``      the counts behind a certificate: errors allowed, patients needed
``patients``      many images, one patient: scores, labels and codes per patient
``metrics``       the figures of a binary score in one place: the four modules below
``proportions``   sensitivity, specificity, PPV, NPV, accuracy
``tables``        ROC and threshold tables, specificity at a wanted sensitivity
``auc``           area under the ROC curve, DeLong and bootstrap intervals, comparison of two
``bootstrap``     resampling of whole patients, for any statistic and for differences
``intervals``     :class:`~histcxr.decision.intervals.Estimate` and the Clopper-Pearson interval
``calibration``   scores to probabilities; ``reliability``: how good those probabilities are
================  ====================================================================================
"""
