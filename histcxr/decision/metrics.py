"""The figures of a binary score in one place.

"Positive" is a call of sick: ``score >= threshold``, so that at the rule-out threshold a negative call is
exactly the rule-out drawer. Proportions carry Clopper-Pearson intervals, which want independent patients:
reduce images to patients first (:mod:`histcxr.decision.patients`), or use the patient bootstrap.

==============================  ======================================================================
from                            come
==============================  ======================================================================
:mod:`.proportions`             sensitivity, specificity, PPV, NPV, accuracy, the confusion matrix
:mod:`.auc`                     the area under the ROC curve, and the comparison of two
:mod:`.tables`                  the ROC curve, the table of thresholds, specificity at a sensitivity
:mod:`.bootstrap`               any other statistic, or a difference of two, by whole patients
==============================  ======================================================================
"""

from __future__ import annotations

from histcxr.decision.auc import auc, compare_auc, roc_auc
from histcxr.decision.bootstrap import paired_bootstrap, patient_bootstrap
from histcxr.decision.intervals import Comparison, Estimate, clopper_pearson, proportion
from histcxr.decision.proportions import (
    Confusion,
    accuracy,
    confusion,
    npv,
    ppv,
    sensitivity,
    specificity,
)
from histcxr.decision.tables import OperatingPoint, roc_table, specificity_at_sensitivity, threshold_table

__all__ = [
    "Comparison",
    "Confusion",
    "Estimate",
    "OperatingPoint",
    "accuracy",
    "auc",
    "clopper_pearson",
    "compare_auc",
    "confusion",
    "npv",
    "paired_bootstrap",
    "patient_bootstrap",
    "ppv",
    "proportion",
    "roc_auc",
    "roc_table",
    "sensitivity",
    "specificity",
    "specificity_at_sensitivity",
    "threshold_table",
]
