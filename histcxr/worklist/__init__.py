"""Triage: a stream of files becomes a worklist and an audit trail.

:mod:`~histcxr.worklist.engine` runs it, :mod:`~histcxr.worklist.judging` judges one image and one batch,
:mod:`~histcxr.worklist.audit_trail` keeps the journal, :mod:`~histcxr.worklist.rows` writes the worklist.
:mod:`~histcxr.worklist.reading` reads a finished one back, :mod:`~histcxr.worklist.study_reports` makes DICOM
Structured Reports of it.
"""
