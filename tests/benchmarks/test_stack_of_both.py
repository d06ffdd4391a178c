import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from benchmarks.quality.stack_of_both import logits, main, stack
from histcxr.exceptions import InputError


def test_the_stack_weighs_what_each_knows():
    rng = np.random.default_rng(0)
    sick = np.arange(4000) % 2 == 1
    found = expit(rng.normal(np.where(sick, 1.0, -1.0)[:, None], [1.5, 3.0, 1e9], (4000, 3)))
    weights = stack(found[:2000], sick[:2000])
    own = weights.coef_[0]
    assert own[0] > own[1] > 0
    assert abs(own[2]) < 0.05  # noise is worth nothing
    both = weights.predict_proba(logits(found[2000:]))[:, 1]
    areas = [roc_auc_score(sick[2000:], one) for one in (both, *found[2000:].T)]
    assert areas[0] == max(areas)


def test_logits_are_finite_and_keep_the_order():
    ordered = np.array([0, 1e-12, 1e-7, 0.5, 1 - 1e-7, 1])
    assert np.isfinite(logits(ordered)).all()
    assert (np.diff(logits(ordered)) > 0).all()


def test_it_takes_two_models(tmp_path):
    with pytest.raises(InputError, match="give two models, got 1"):
        main(["--data", str(tmp_path), "-m", "boxed"])
