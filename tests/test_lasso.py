"""The Lasso where it is hard (copies, few clips), its path, and the choice of the penalty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saeutils.disentanglement import cross_validated_r2
from saeutils.lasso import lasso, lasso_path, standardise
from saeutils.penalties import penalty_path
from saeutils.statistics import grouped_folds


def objective(x, y, weights, alpha):
    return ((y - x @ weights.T) ** 2).mean(axis=0) / 2 + alpha * np.abs(weights).sum(axis=1)


def material(n=60, width=150, targets=5, seed=0):
    """Half of the codes are silent on a clip; one is dead, one a copy, one nearly so (r = .999)."""
    rng = np.random.default_rng(seed)
    codes = np.maximum(rng.normal(size=(n, width)), 0)
    codes[:, 0], codes[:, 2] = 0, codes[:, 1]
    codes[:, 3] = codes[:, 4] * (1 + 0.03 * rng.normal(size=n))
    x = standardise(codes)[0]
    return x, standardise(x[:, 1:6] @ rng.normal(size=(5, targets))
                          + rng.normal(size=(n, targets)))[0]


@pytest.mark.parametrize("alpha", [0.3, 0.1, 0.02])
@pytest.mark.parametrize("width", [20, 150, 400])
def test_the_gap_is_closed_and_scikit_learn_finds_nothing_better(width, alpha):
    from sklearn.linear_model import Lasso

    x, y = material(width=width)
    fit = lasso(x, y, alpha, tolerance=1e-9)
    assert (fit.gap <= 1e-9).all() and (fit.gap > -1e-12).all()
    theirs = Lasso(alpha=alpha, fit_intercept=False, tol=1e-7, max_iter=50_000).fit(x, y).coef_
    ours = objective(x, y, fit.weights, alpha)
    assert (ours <= objective(x, y, theirs, alpha) * (1 + 1e-8)).all()
    assert np.allclose(fit.objective, ours, rtol=1e-12)


def test_optimality_by_hand():
    """At the minimum every used code pulls with exactly the penalty, every other with less."""
    x, y = material()
    fit = lasso(x, y, 0.1, tolerance=1e-12)
    pull = (y - x @ fit.weights.T).T @ x / len(x)
    used = fit.weights != 0
    assert np.allclose(pull[used], 0.1 * np.sign(fit.weights[used]), atol=1e-6)
    assert (np.abs(pull[~used]) <= 0.1 + 1e-6).all()


def test_single_precision_of_the_gram_matrix_does_not_limit_the_result():
    """Columns whose squares differ by 1e8: the minimum is still that of the codes themselves."""
    x, y = material(n=80, width=30)
    x[:, 5:10] *= 1e4
    fit = lasso(x, y, 0.05, tolerance=1e-11)
    assert (fit.gap <= 1e-11).all()


def test_two_codes_that_differ_by_a_thousandth_cost_precision_which_the_gap_says():
    """Sweeps move weight from one to the other by a hair each time, as in any such solver."""
    x, y = material()
    x[:, 3] = standardise(x[:, [4]] + 1e-3 * np.random.default_rng(1).normal(size=(60, 1)))[0][:, 0]
    fit = lasso(x, y, 0.1)
    assert (fit.gap < 1e-4).all() and (fit.gap > -1e-12).all()
    longer = lasso(x, y, 0.1, max_sweeps=100_000)
    assert (fit.objective - longer.objective <= fit.gap + 1e-12).all()


def test_who_asks_first_for_an_entry_of_the_gram_matrix_changes_nothing():
    """Targets in another order, or one alone, find the entries that others left or did not."""
    x, y = material()
    fit, other = lasso(x, y, 0.05, tolerance=1e-10), lasso(x, y[:, ::-1], 0.05, tolerance=1e-10)
    assert np.allclose(fit.objective, other.objective[::-1], rtol=1e-9)
    assert np.allclose(fit.objective[2], lasso(x, y[:, 2:3], 0.05, tolerance=1e-10).objective[0],
                       rtol=1e-9)


def test_what_could_not_be_solved_is_said_by_the_gap():
    x, y = material()
    few = lasso(x, y, 0.01, tolerance=1e-12, max_sweeps=3)
    exact = lasso(x, y, 0.01, tolerance=1e-12)
    assert (few.sweeps <= 3).all() and few.gap.max() > 1e-6
    assert (few.objective - exact.objective <= few.gap + 1e-12).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_path_is_its_single_fits_in_the_order_asked_for(seed):
    x, y = material(40, 60, 3, seed)
    alphas = [0.1, 0.4, 0.05]
    path = lasso_path(x, y, alphas, tolerance=1e-9)
    for alpha, fit in zip(alphas, path, strict=True):
        alone = lasso(x, y, alpha, tolerance=1e-9)
        assert np.allclose(fit.objective, alone.objective, rtol=1e-8)
        assert np.allclose(fit.objective, objective(x, y, fit.weights, alpha), rtol=1e-12)
    used = [np.abs(fit.weights).sum() for fit in path]
    assert used[1] <= used[0] <= used[2]


def test_nothing_to_fit():
    assert lasso(np.zeros((5, 3)), np.ones((5, 2)), 0.1).weights.tolist() == [[0, 0, 0]] * 2
    assert lasso(np.zeros((5, 0)), np.ones((5, 2)), 0.1).weights.shape == (2, 0)
    assert lasso(np.eye(5), np.ones((5, 0)), 0.1).weights.shape == (0, 5)
    assert lasso_path(np.eye(5), np.ones((5, 1)), []) == []


def test_what_is_refused():
    x, y = material(10, 8, 2)
    with pytest.raises(ValueError, match="alpha -1"):
        lasso_path(x, y, [0.1, -1])
    with pytest.raises(ValueError, match="NaN or infinity"):
        lasso(x, np.where(y == y[0, 0], np.nan, y))
    with pytest.raises(ValueError, match="standardise"):
        lasso(x * 1e25, y)


# The penalty, chosen by singers -----------------------------------------------------------------


def singers_and_codes(seed=0, n_singers=8, per_singer=15, width=40):
    """Attribute 0 is code 1, attribute 1 is noise, attribute 2 never varies."""
    rng = np.random.default_rng(seed)
    singers = np.repeat([f"s{i}" for i in range(n_singers)], per_singer)
    codes = np.maximum(rng.normal(size=(len(singers), width)), 0)
    attributes = np.stack([codes[:, 1] + 0.3 * rng.normal(size=len(codes)),
                           rng.normal(size=len(codes)), np.full(len(codes), 7.0)], axis=1)
    return codes, attributes, singers, grouped_folds(singers, np.repeat("F", len(singers)), 4, seed)


def test_a_readable_attribute_gets_a_small_penalty_and_noise_a_large_one():
    codes, attributes, singers, folds = singers_and_codes()
    found = penalty_path(codes, attributes, folds, singers, [0.6, 0.2, 0.05])
    assert found.best[0] == 0.05 and found.best[1] > 0.1 and np.isnan(found.best[2])
    assert found.r2.shape == (3, 3) and found.r2[2, 0] > 0.5 and np.nanmax(found.r2[:, 1]) < 0.05
    assert np.argmax(np.abs(found.weights[0])) == 1 and not found.weights[2].any()
    assert (found.gap <= 1e-5).all()


def test_one_penalty_is_the_cross_validated_map():
    codes, attributes, singers, folds = singers_and_codes(1)
    found = penalty_path(codes, attributes[:, :2], folds, singers, [0.1], tolerance=1e-5)
    known = cross_validated_r2(codes, attributes[:, :2], folds, singers, 0.1)
    assert np.allclose(found.r2[0], known, atol=1e-9)


def test_a_shared_singer_and_an_empty_path_are_refused():
    codes, attributes, singers, _ = singers_and_codes()
    half = np.arange(len(codes)) % 2 == 0
    with pytest.raises(ValueError, match="in training and in test"):
        penalty_path(codes, attributes, [(np.flatnonzero(half), np.flatnonzero(~half))], singers)
    with pytest.raises(ValueError, match="0 penalties"):
        penalty_path(codes, attributes, [], singers, [])
