"""From scores to probabilities: calibrators that are a few numbers, kept in JSON rather than in a pickle.

==========  ========================================================  ===================================
method      probability of a score s                                  source
==========  ========================================================  ===================================
identity    s
sigmoid     1 / (1 + exp(-(a s + b)))                                 Platt, 1999
beta        1 / (1 + exp(-(a ln s - b ln(1 - s) + c))), s in [0, 1]   Kull, Silva Filho and Flach, 2017
isotonic    rising steps joined by lines (pool adjacent violators)    Zadrozny and Elkan, 2002
==========  ========================================================  ===================================

None ever falls: a calibrated score orders patients as the score did (isotonic merges some). Certify the
thresholds on the scores that the drawers are decided on: both calibrated, or neither.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special
from sklearn.isotonic import IsotonicRegression

from histcxr.checks import BoolArray, FloatArray, real_vector, scores_and_sick
from histcxr.exceptions import HistcxrError, HistcxrWarning, InputError

CalibrationMethod = Literal["identity", "sigmoid", "beta", "isotonic"]
_CLIP = 1e-6  # beta: scores nearer to 0 or 1 than this have their logarithm taken here
_SIZES = {"identity": 0, "sigmoid": 2, "beta": 3, "isotonic": 0}


@dataclass(frozen=True)
class Calibrator:
    """A fitted map from scores to probabilities.

    Attributes
    ----------
    method : {"identity", "sigmoid", "beta", "isotonic"}
    coefficients : tuple of float
        sigmoid: (a, b), beta: (a, b, c), of the module's table; else empty.
    knots : tuple of (float, float)
        isotonic: (score, probability), both rising; else empty.
    """

    method: CalibrationMethod
    coefficients: tuple[float, ...] = ()
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.method not in _SIZES:
            raise InputError(f"method must be one of {list(_SIZES)}, got {self.method!r}")
        if len(self.coefficients) != _SIZES[self.method] or not np.isfinite(self.coefficients).all():
            raise InputError(
                f"coefficients must be {_SIZES[self.method]} finite numbers for {self.method}, "
                f"got {self.coefficients}"
            )
        if min(self.coefficients[: _SIZES[self.method] - 1], default=0) < 0:
            raise InputError(f"coefficients must not be negative but for the last, got {self.coefficients}")
        if (self.method == "isotonic") != bool(self.knots):
            raise InputError(f"knots must be given for isotonic and for nothing else, got {len(self.knots)}")
        if self.knots:
            points = np.asarray(self.knots, np.float64)
            if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
                raise InputError("knots must be pairs of finite numbers")
            rising = (np.diff(points[:, 0]) > 0).all() and (np.diff(points[:, 1]) >= 0).all()
            if not rising or points[0, 1] < 0 or points[-1, 1] > 1:
                raise InputError("knots must rise, with probabilities from 0 to 1")

    def apply(self, scores: ArrayLike) -> FloatArray:
        """Return the probability of each score.

        Parameters
        ----------
        scores : array_like of float, shape (n,)
            In [0, 1] for identity and beta. NaN and infinite scores give NaN, which decides as review.

        Returns
        -------
        ndarray of float64, shape (n,)

        Raises
        ------
        InputError
            Not 1-D, not real, or outside [0, 1] where the method wants that.
        """
        values = real_vector(scores, finite=False)
        values[~np.isfinite(values)] = np.nan
        if self.method == "sigmoid":
            a, b = self.coefficients
            return np.asarray(special.expit(a * values + b), np.float64)
        if self.method == "isotonic":
            return np.interp(values, *np.asarray(self.knots, np.float64).T)
        _check_unit(values)
        if self.method == "identity":
            return values
        a, b, c = self.coefficients
        logs = _logarithms(values)
        return np.asarray(special.expit(logs @ [a, b] + c), np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, tuples as lists. Floats survive exactly."""
        fields = asdict(self)
        return {**fields, "coefficients": list(self.coefficients), "knots": [list(k) for k in self.knots]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibrator:
        """Rebuild a calibrator from :meth:`to_dict`.

        Raises
        ------
        InputError
            Fields missing or unknown, or values that no fit gives.
        """
        names = sorted(cls.__dataclass_fields__)
        if not isinstance(fields, Mapping) or sorted(map(str, fields)) != names:
            raise InputError(f"fields must be a mapping with exactly the keys {names}, got {fields!r}")
        coefficients, knots = fields["coefficients"], fields["knots"]
        if not _floats(coefficients) or not isinstance(knots, (list, tuple)):
            raise InputError("coefficients must be a list of floats and knots a list")
        if not all(_floats(knot) and len(knot) == 2 for knot in knots):
            raise InputError("knots must be pairs of floats")
        return cls(fields["method"], tuple(coefficients), tuple((knot[0], knot[1]) for knot in knots))


def _floats(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, float) for value in values)


def _check_unit(values: FloatArray) -> None:
    outside = int(((values < 0) | (values > 1)).sum())
    if outside:
        raise InputError(f"scores must lie in [0, 1] for this method, got {outside} outside")


def _logarithms(values: FloatArray) -> FloatArray:
    clipped = np.clip(values, _CLIP, 1 - _CLIP)
    return np.column_stack([np.log(clipped), -np.log1p(-clipped)])


def _rising_logistic(features: FloatArray, sick: BoolArray) -> tuple[float, ...]:
    """Fit a logistic curve whose slopes are not negative; return the slopes and the intercept.

    The targets are Platt's, a little inside 0 and 1, so that the fit exists even where the classes separate.
    """
    n_sick, n_normal = int(sick.sum()), int((~sick).sum())
    targets = np.where(sick, (n_sick + 1) / (n_sick + 2), 1 / (n_normal + 2))
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = 1
    design = np.column_stack([(features - centre) / spread, np.ones(sick.size)])

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        logits = design @ weights
        slope = design.T @ (special.expit(logits) - targets) / sick.size
        return float((np.logaddexp(0, logits) - targets * logits).mean()), slope

    start = np.zeros(design.shape[1])
    start[-1] = special.logit(targets.mean())
    bounds = [(0, None)] * features.shape[1] + [(None, None)]
    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    fit = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    gradient = loss(fit.x)[1]
    if np.abs(np.where((fit.x <= 0) & (np.arange(fit.x.size) < fit.x.size - 1), 0, gradient)).max() > 1e-5:
        raise HistcxrError(f"the calibration did not converge: {fit.message}")
    slopes = fit.x[:-1] / spread
    return (*(float(slope) for slope in slopes), float(fit.x[-1] - slopes @ centre))


def fit_calibrator(
    scores: ArrayLike, sick: ArrayLike, *, method: CalibrationMethod = "sigmoid"
) -> Calibrator:
    """Fit a calibrator on scores that the model was not trained on.

    Parameters
    ----------
    scores : array_like of float, shape (n,)
        In [0, 1] for identity and beta.
    sick : array_like of bool, shape (n,)
    method : {"identity", "sigmoid", "beta", "isotonic"}

    Returns
    -------
    Calibrator

    Raises
    ------
    InputError
        Shapes, types or values are wrong, a class is missing, or the method is unknown.
    HistcxrError
        The fit did not converge.

    Warns
    -----
    HistcxrWarning
        The scores do not rise with sickness, so the best rising map is a constant.
    """
    values, truth = scores_and_sick(scores, sick)
    if method not in get_args(CalibrationMethod):
        raise InputError(f"method must be one of {list(get_args(CalibrationMethod))}, got {method!r}")
    if method == "identity":
        _check_unit(values)
        return Calibrator("identity")
    if method == "isotonic":
        fit = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, truth)
        knots = zip(fit.X_thresholds_.tolist(), fit.y_thresholds_.tolist(), strict=True)
        calibrator = Calibrator("isotonic", knots=tuple(knots))
        constant = calibrator.knots[0][1] == calibrator.knots[-1][1]
    else:
        if method == "beta":
            _check_unit(values)
        features = _logarithms(values) if method == "beta" else values[:, np.newaxis]
        calibrator = Calibrator(method, _rising_logistic(features, truth))
        constant = not any(calibrator.coefficients[:-1])
    if constant:
        warnings.warn(
            "scores do not rise with sickness: every calibrated probability is the same",
            HistcxrWarning,
            stacklevel=2,
        )
    return calibrator
