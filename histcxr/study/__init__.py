"""Labelled patients: cohorts, training, certificates, evaluation. One road for every kind of model."""
