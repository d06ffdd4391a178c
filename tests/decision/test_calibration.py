import json
import warnings

import numpy as np
import pytest
from scipy import optimize, special
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression

from histcxr.decision.calibration import Calibrator, fit_calibrator
from histcxr.decision.metrics import roc_auc
from histcxr.decision.reliability import brier_score, log_loss
from histcxr.exceptions import HistcxrWarning, InputError

METHODS = ["identity", "sigmoid", "beta", "isotonic"]


def study(seed=0, n=2000, sharpen=3.0):
    """Scores that are too extreme: the true logit is that of the score divided by ``sharpen``."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n)
    return special.expit(sharpen * logit), rng.random(n) < special.expit(logit)


class ScoreAsDecision(ClassifierMixin, BaseEstimator):
    """Hands its one feature on as the decision value, so that scikit-learn calibrates a bare score."""

    classes_ = np.array([0, 1])
    n_features_in_ = 1

    def fit(self, X, y):
        return self

    def decision_function(self, X):
        return np.asarray(X)[:, 0]

    def predict(self, X):
        return (self.decision_function(X) > 0.5).astype(int)

    def __sklearn_is_fitted__(self):
        return True


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
@pytest.mark.parametrize("n", [20, 500])
def test_sigmoid_and_isotonic_are_scikit_learn_s(method, n):
    scores, sick = study(n, n)
    wrapped = CalibratedClassifierCV(FrozenEstimator(ScoreAsDecision()), method=method)
    theirs = wrapped.fit(scores[:, np.newaxis], sick.astype(int)).predict_proba(scores[:, np.newaxis])[:, 1]
    ours = fit_calibrator(scores, sick, method=method).apply(scores)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert np.ptp(theirs) > 0.3


def test_isotonic_is_clipped_and_joined_by_lines():
    scores, sick = study(1, 300)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(scores, sick)
    points = np.linspace(-0.5, 1.5, 401)
    ours = fit_calibrator(scores, sick, method="isotonic").apply(points)
    np.testing.assert_allclose(ours, theirs.predict(points), atol=1e-12)


def test_beta_is_the_maximum_of_its_likelihood():
    scores, sick = study(2, 1500)
    a, b, c = fit_calibrator(scores, sick, method="beta").coefficients
    n1, n0 = sick.sum(), (~sick).sum()
    targets = np.where(sick, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))

    def loss(w):
        z = w[0] * np.log(scores) - w[1] * np.log1p(-scores) + w[2]
        return (np.logaddexp(0, z) - targets * z).mean()

    best = optimize.minimize(
        loss, [1.0, 1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14}
    )
    assert loss([a, b, c]) <= best.fun + 1e-12
    assert (a, b) == pytest.approx((1 / 3, 1 / 3), abs=0.08)  # the study's own sharpening, undone


@pytest.mark.parametrize("method", ["sigmoid", "beta", "isotonic"])
def test_calibration_helps_on_new_patients_and_keeps_the_order(method):
    scores, sick = study(3)
    fresh, truth = study(4)
    calibrator = fit_calibrator(scores, sick, method=method)
    probabilities = calibrator.apply(fresh)
    assert brier_score(probabilities, truth) < brier_score(fresh, truth) - 0.01
    assert log_loss(probabilities, truth) < log_loss(fresh, truth) - 0.05
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert (np.diff(calibrator.apply(np.sort(fresh))) >= 0).all()
    if method != "isotonic":
        assert roc_auc(probabilities, truth) == roc_auc(fresh, truth)


def test_identity_changes_nothing():
    scores, sick = study(5, 50)
    np.testing.assert_array_equal(fit_calibrator(scores, sick, method="identity").apply(scores), scores)


@pytest.mark.parametrize("method", METHODS)
def test_json_round_trip_is_exact(method):
    scores, sick = study(6, 200)
    calibrator = fit_calibrator(scores, sick, method=method)
    again = Calibrator.from_dict(json.loads(json.dumps(calibrator.to_dict(), allow_nan=False)))
    assert again == calibrator
    np.testing.assert_array_equal(again.apply(scores), calibrator.apply(scores))


@pytest.mark.parametrize("method", METHODS)
def test_no_score_stays_no_score(method):
    scores, sick = study(7, 100)
    got = fit_calibrator(scores, sick, method=method).apply([0.5, np.nan, np.inf, -np.inf])
    assert np.isfinite(got).tolist() == [True, False, False, False]


@pytest.mark.parametrize("method", ["sigmoid", "beta", "isotonic"])
def test_classes_that_separate_perfectly_still_fit(method):
    scores, sick = np.linspace(0, 1, 40), np.arange(40) >= 25
    probabilities = fit_calibrator(scores, sick, method=method).apply(scores)
    assert np.isfinite(probabilities).all()
    assert probabilities[sick].min() > probabilities[~sick].max()


@pytest.mark.parametrize("method", ["sigmoid", "beta", "isotonic"])
def test_scores_that_fall_with_sickness_are_never_turned_round(method):
    scores, sick = study(8, 500)
    with pytest.warns(HistcxrWarning, match="scores do not rise with sickness"):
        calibrator = fit_calibrator(1 - scores, sick, method=method)
    probabilities = calibrator.apply(scores)
    assert np.ptp(probabilities) == 0
    assert probabilities[0] == pytest.approx(sick.mean(), abs=0.01)


@pytest.mark.parametrize("method", ["sigmoid", "beta", "isotonic"])
def test_equal_scores_give_the_base_rate(method):
    with pytest.warns(HistcxrWarning, match="do not rise"):
        calibrator = fit_calibrator(np.full(200, 0.5), np.arange(200) < 50, method=method)
    assert calibrator.apply([0.5])[0] == pytest.approx(0.25, abs=0.01)


def test_beta_holds_a_slope_at_zero_where_only_one_end_tells():
    rng = np.random.default_rng(9)
    scores = rng.random(3000)
    sick = rng.random(3000) < special.expit(-1 - 1.5 * np.log1p(-scores) - 0.4 * np.log(scores))
    a, b, _ = fit_calibrator(scores, sick, method="beta").coefficients
    assert a == 0
    assert b > 1


def test_sigmoid_takes_scores_of_any_range():
    scores, sick = study(10, 500)
    far = 1e6 + 1e-3 * scores
    np.testing.assert_allclose(
        fit_calibrator(far, sick).apply(far), fit_calibrator(scores, sick).apply(scores), atol=1e-4
    )


def test_fit_arguments_are_checked():
    scores, sick = study(11, 50)
    with pytest.raises(InputError, match="method must be one of .*, got 'platt'"):
        fit_calibrator(scores, sick, method="platt")
    for method in ("beta", "identity"):
        with pytest.raises(InputError, match=r"scores must lie in \[0, 1\] for this method, got 50 outside"):
            fit_calibrator(scores + 2, sick, method=method)
        with pytest.raises(InputError, match="got 1 outside"):
            fit_calibrator(scores, sick, method=method).apply([1.5, np.nan])
    with pytest.raises(InputError, match="both classes"):
        fit_calibrator(scores, np.ones(50, bool))
    with pytest.raises(InputError, match="scores must be finite"):
        fit_calibrator([0.1, np.nan], [True, False])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "sigmoid", "coefficients": [1.0], "knots": []}, "coefficients must be 2 finite numbers"),
        ({"method": "sigmoid", "coefficients": [-1.0, 0.0], "knots": []}, "must not be negative"),
        ({"method": "sigmoid", "coefficients": [float("nan"), 0.0], "knots": []}, "2 finite numbers"),
        ({"method": "beta", "coefficients": [1.0, -0.1, 0.0], "knots": []}, "must not be negative"),
        ({"method": "beta", "coefficients": ["1", "1", "0"], "knots": []}, "list of floats"),
        ({"method": "sigmoid", "coefficients": None, "knots": []}, "list of floats"),
        ({"method": "platt", "coefficients": [], "knots": []}, "method must be one of"),
        (
            {"method": "identity", "coefficients": [], "knots": [[0.0, 0.0]]},
            "knots must be given for isotonic",
        ),
        ({"method": "isotonic", "coefficients": [], "knots": []}, "knots must be given for isotonic"),
        ({"method": "isotonic", "coefficients": [], "knots": [[0.0, 0.5], [1.0, 0.4]]}, "knots must rise"),
        ({"method": "isotonic", "coefficients": [], "knots": [[0.5, 0.1], [0.5, 0.4]]}, "knots must rise"),
        ({"method": "isotonic", "coefficients": [], "knots": [[0.0, 0.5], [1.0, 1.4]]}, "from 0 to 1"),
        ({"method": "isotonic", "coefficients": [], "knots": [[0.0]]}, "knots must be pairs of floats"),
        ({"method": "isotonic", "coefficients": [], "knots": [1.0]}, "knots must be pairs of floats"),
        ({"method": "isotonic", "coefficients": [], "knots": 1}, "knots a list"),
        ({"method": "identity", "coefficients": []}, "exactly the keys"),
        ([], "exactly the keys"),
    ],
)
def test_fields_that_no_fit_gives_are_refused(fields, message):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=message):
            Calibrator.from_dict(fields)
