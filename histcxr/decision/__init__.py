"""Scores and labels in, decisions out: certified thresholds and drawers, and figures with their intervals.

Nothing here knows an estimator or an image. A score is a float, higher is sicker; the positive class is "sick";
a call of sick is ``score >= threshold``, so that a negative call at the rule-out threshold is the rule-out drawer.
"""
