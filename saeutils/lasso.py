"""The Lasso for many targets at once: coordinate descent on one Gram matrix, with a duality gap.

All attributes share the codes, so ``X'X`` is computed once. Each target is solved on a small
working set of codes, which grows by those that want to enter, until the gap over all codes is
closed. Shape letters: N clips, F codes, Q targets. Minimises, for each target y,

``||y - X w||^2 / (2 N) + alpha * sum |w|``

which is scikit-learn's objective. Source: Friedman, Hastie & Tibshirani (2010), "covariance
updates"; duality gap as in Kim et al. (2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass(frozen=True)
class LassoFit:
    """Weights and how well they are solved.

    Attributes
    ----------
    weights
        Shape [Q, F], float64.
    objective, gap
        Value of the objective and duality gap per target, shape [Q]; the objective of the true
        minimiser lies within ``gap`` below.
    sweeps
        Passes of coordinate descent over the working set per target, shape [Q].
    """

    weights: np.ndarray
    objective: np.ndarray
    gap: np.ndarray
    sweeps: np.ndarray


def lasso(
    codes_NF: np.ndarray,
    targets_NQ: np.ndarray,
    alpha: float = 0.1,
    tolerance: float = 1e-5,
    max_sweeps: int = 10_000,
) -> LassoFit:
    """Fit all targets on the same codes.

    Parameters
    ----------
    codes_NF, targets_NQ
        Columns of mean zero (use `standardise`); no intercept is fitted. Columns that are all zero
        keep the weight 0, duplicated columns share a minimiser that is not unique.
    alpha
        Penalty, positive.
    tolerance
        Stop when the duality gap is below ``tolerance * ||y||^2 / N`` (scikit-learn's scale, whose
        default is 1e-4).
    max_sweeps
        Passes per target; the gap says whether they sufficed.

    Raises
    ------
    ValueError
        Shapes that do not match, non-finite numbers, ``alpha`` not positive.

    Examples
    --------
    >>> x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> lasso(x, x[:, :1], alpha=0.25).weights.round(6).tolist()
    [[0.75, 0.0]]
    """
    x = np.asarray(codes_NF, dtype=np.float64)
    y = np.asarray(targets_NQ, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise ValueError(f"codes {x.shape} and targets {y.shape} must be [N, F] and [N, Q], N > 0")
    alive = np.flatnonzero(np.any(x != 0, axis=0))  # a dead code's weight is 0: leave it out
    part = x[:, alive]
    fit = lasso_gram(part.T @ part / len(x), part.T @ y / len(x), (y**2).mean(axis=0), alpha,
                     tolerance, max_sweeps)
    weights = np.zeros((y.shape[1], x.shape[1]))
    weights[:, alive] = fit.weights
    return LassoFit(weights, fit.objective, fit.gap, fit.sweeps)


def lasso_gram(
    gram_FF: np.ndarray,
    cross_FQ: np.ndarray,
    power_Q: np.ndarray,
    alpha: float,
    tolerance: float = 1e-5,
    max_sweeps: int = 10_000,
) -> LassoFit:
    """As `lasso`, from ``X'X / N``, ``X'Y / N`` and the mean squares of the targets."""
    if not alpha > 0:
        raise ValueError(f"alpha {alpha} must be positive; for no penalty use least squares")
    if not (np.isfinite(gram_FF).all() and np.isfinite(cross_FQ).all()):
        raise ValueError("codes or targets hold NaN or infinity: leave those columns or clips out")
    gram = np.ascontiguousarray(gram_FF, dtype=np.float64)
    cross_QF = np.ascontiguousarray(np.asarray(cross_FQ, dtype=np.float64).T)
    power = np.ascontiguousarray(power_Q, dtype=np.float64)
    return LassoFit(*_descend(gram, cross_QF, power, float(alpha), float(tolerance), max_sweeps))


def standardise(
    values: np.ndarray, mean: np.ndarray | None = None, scale: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns of mean 0 and population SD 1; constant columns become zero (as in scikit-learn).

    Parameters
    ----------
    values
        Shape [N, C].
    mean, scale
        Given: use these of the training clips, shape [C]. Not given: computed here.

    Returns
    -------
    scaled, mean, scale
        float64; ``scale`` is 1 for constant columns.

    Examples
    --------
    >>> standardise(np.array([[1.0, 5.0], [3.0, 5.0]]))[0].tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    values = np.asarray(values, dtype=np.float64)
    if mean is None:
        mean = values.mean(axis=0)
    if scale is None:
        scale = values.std(axis=0)
        floor = 10 * np.finfo(np.float64).eps * np.abs(mean)
        scale = np.where(scale > floor, scale, 1.0)
    return (values - mean) / scale, mean, scale


@njit(cache=True, fastmath=False)
def _descend(gram, cross_QF, power, alpha, tolerance, max_sweeps):
    n_targets, n_codes = cross_QF.shape
    weights = np.zeros((n_targets, n_codes))
    objective, gaps = np.zeros(n_targets), np.zeros(n_targets)
    sweeps = np.zeros(n_targets, dtype=np.int64)
    gradient = np.empty(n_codes)  # X'(y - Xw) / N over all codes
    for q in range(n_targets):
        w, cross = weights[q], cross_QF[q]
        gradient[:] = cross
        limit = tolerance * power[q]
        done = 0
        while True:
            # The gap of the present point, from the gradient alone.
            steepest, size, along_cross, along_gradient, used = 0.0, 0.0, 0.0, 0.0, 0
            for j in range(n_codes):
                steepest = max(steepest, abs(gradient[j]))
                if w[j] != 0.0:
                    used += 1
                    size += abs(w[j])
                    along_cross += w[j] * cross[j]
                    along_gradient += w[j] * gradient[j]
            residual = power[q] - along_cross - along_gradient  # ||y - Xw||^2 / N
            shrink = 1.0 if steepest <= alpha else alpha / steepest
            primal = 0.5 * residual + alpha * size
            dual = shrink * (power[q] - along_cross) - 0.5 * shrink * shrink * residual
            objective[q], gaps[q], sweeps[q] = primal, primal - dual, done
            if primal - dual <= limit or done >= max_sweeps:
                break
            chosen = _working_set(gradient, w, alpha, max(32, 2 * used))
            done += _solve_small(gram, gradient, w, chosen, alpha, 0.01 * limit,
                                 min(1000, max_sweeps - done))
            gradient[:] = cross
            for j in chosen:
                if w[j] != 0.0:
                    for f in range(n_codes):
                        gradient[f] -= gram[j, f] * w[j]
    return weights, objective, gaps, sweeps


@njit(cache=True)
def _working_set(gradient, w, alpha, room):
    """The codes in use, and of those that want to enter the `room` that want it most."""
    wanting = np.flatnonzero((w == 0.0) & (np.abs(gradient) > alpha))
    if wanting.size > room:
        pull = np.abs(gradient[wanting])
        wanting = wanting[np.argsort(-pull, kind="mergesort")[:room]]
    return np.sort(np.concatenate((np.flatnonzero(w != 0.0), wanting)))


@njit(cache=True)
def _solve_small(gram, gradient, w, chosen, alpha, limit, max_passes):
    """Coordinate descent on the chosen codes, in place; returns the number of passes.

    `gradient` is exact for the chosen codes on entry and left as it is.
    """
    n = chosen.size
    small = np.empty((n, n))
    rest = np.empty(n)
    for i in range(n):
        rest[i] = gradient[chosen[i]]
        for e in range(n):
            small[i, e] = gram[chosen[i], chosen[e]]
    for count in range(max_passes):
        largest = 0.0
        for i in range(n):
            own = small[i, i]
            if own <= 0.0:
                continue
            old = w[chosen[i]]
            pull = rest[i] + own * old
            new = max(abs(pull) - alpha, 0.0) / own
            new = -new if pull < 0 else new
            change = new - old
            if change != 0.0:
                w[chosen[i]] = new
                for e in range(n):
                    rest[e] -= small[i, e] * change
                largest = max(largest, change * change * own)
        if largest <= limit:
            return count + 1
    return max_passes
