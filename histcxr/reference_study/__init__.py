"""Reference networks on labelled radiographs: training, certificate, measurement, explanation, and the saved model.

The same patients, the same split and the same certificate as for histograms (:mod:`histcxr.training`), so that what a
network adds and costs is one table.
"""
