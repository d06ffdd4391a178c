"""Classifiers of histograms: built by name, calibrated, stacked and tuned by patient-wise cross-validation."""
