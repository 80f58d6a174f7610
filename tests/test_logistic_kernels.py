"""The compiled L-BFGS against scipy's and scikit-learn's, on problems of a probe's size."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from saeutils.logistic_kernels import logistic_objective, minimise_logistic
from saeutils.probing import fit_logistic, logistic_loss


def problem(seed=0, n=120, width=30, classes=5, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, width)) * np.geomspace(1, 0.05, width)
    y = (x[:, :classes] * 3 + rng.standard_normal((n, classes))).argmax(axis=1)
    x = np.concatenate([x, np.ones((n, 1))], axis=1)
    return np.ascontiguousarray(x, dtype=dtype), y, np.geomspace(1, 4, width + 1).astype(dtype)


def objective(x, y, penalty, stretch, point):
    gradient, classes = np.empty_like(point), point.size // x.shape[1]
    room = np.empty((x.shape[1], classes), x.dtype), np.empty((len(x), classes), x.dtype)
    value = logistic_objective(x, y, x.dtype.type(penalty), stretch, point, gradient, *room)
    return value, gradient


def test_gradient_is_that_of_finite_differences():
    x, y, stretch = problem(n=20, width=6)
    point = np.random.default_rng(1).standard_normal(35)
    value, gradient = objective(x, y, 0.3, stretch, point)
    weights = point.reshape(7, 5) * stretch[:, None]
    assert value == pytest.approx(logistic_loss(weights, x[:, :-1], y, 0.3), rel=1e-12)
    step = 1e-6
    for i in range(35):
        moved = [objective(x, y, 0.3, stretch, point + side * step * np.eye(35)[i])[0]
                 for side in (1, -1)]
        assert gradient[i] == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("penalty", [1e-3, 1e-1, 10.0])
def test_the_minimum_is_that_of_scipy(penalty):
    x, y, stretch = problem()
    point = np.zeros(x.shape[1] * 5)
    steps = minimise_logistic(x, y, penalty, stretch, point, 1e-14, 1e-9, 2000)
    theirs = minimize(lambda p: objective(x, y, penalty, stretch, p), np.zeros_like(point),
                      jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9,
                                                            "maxiter": 5000})
    assert 0 < steps < 500
    assert objective(x, y, penalty, stretch, point)[0] == pytest.approx(theirs.fun, rel=1e-10)
    assert np.abs(objective(x, y, penalty, stretch, point)[1]).max() < 1e-5


@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_the_fit_is_that_of_scikit_learn(penalty):
    """Their C is 1 / (penalty x clips); both leave the bias free."""
    x, y, _ = problem(seed=2)
    ours = fit_logistic(x[:, :-1], y, 5, penalty)
    theirs = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=10_000)
    theirs.fit(x[:, :-1], y)
    same = np.concatenate([theirs.coef_.T, theirs.intercept_[None]])
    losses = [logistic_loss(w, x[:, :-1], y, penalty) for w in (ours, same)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-8)
    assert np.allclose(ours[:-1], same[:-1], atol=1e-3)


def test_single_precision_comes_as_near_as_its_rounding():
    exact = problem()
    short = problem(dtype=np.float32)
    found = []
    for x, y, stretch in (exact, short):
        point = np.zeros(x.shape[1] * 5, x.dtype)
        minimise_logistic(x, y, x.dtype.type(0.01), stretch, point, 1e-7, 1e-6, 2000)
        found.append(logistic_loss(point.reshape(-1, 5) * stretch[:, None], exact[0][:, :-1],
                                   exact[1], 0.01))
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_at_the_minimum_it_stands_still():
    x, y, stretch = problem()
    point = np.zeros(x.shape[1] * 5)
    minimise_logistic(x, y, 1.0, stretch, point, 1e-15, 1e-9, 2000)
    before = point.copy()
    assert minimise_logistic(x, y, 1.0, stretch, point, 1e-5, 1e-6, 2000) == 0
    assert np.array_equal(point, before)


def test_classes_that_can_be_told_apart_and_one_that_is_absent_do_not_run_away():
    x = np.concatenate([np.eye(4).repeat(5, axis=0), np.ones((20, 1))], axis=1)
    y = np.repeat(np.arange(4), 5)
    point = np.zeros(5 * 5)
    minimise_logistic(x, y, 1e-6, np.ones(5), point, 1e-12, 1e-8, 2000)
    weights = point.reshape(5, 5)
    assert np.isfinite(weights).all()
    assert ((x @ weights).argmax(axis=1) == y).all()
