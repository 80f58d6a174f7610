"""The Lasso for many targets at once: working sets on one Gram matrix, with a duality gap.

All attributes share the codes, so ``X'X`` is computed once, in single precision. Each target is
solved on a small working set of codes, which grows by those that want to enter. Within it,
coordinate descent finds which codes are used and with which sign; once these stand still, a Newton
step solves for their weights at once. Gradient and gap are then computed anew from the codes in
double precision, and what is left is solved for again, so that the Gram matrix decides how fast
the minimum is reached and not where it is. Shape letters: N clips, F codes, Q targets. Minimises,
for each target y,

``||y - X w||^2 / (2 N) + alpha * sum |w|``

which is scikit-learn's objective. Source: Friedman, Hastie & Tibshirani (2010), "covariance
updates"; duality gap as in Kim et al. (2007).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numba import njit

_STILL = 3  # sweeps without a change of sign before a Newton step
_ROOM = 64  # codes that may enter a working set at once, at least
_PASSES = 200  # sweeps before gradient and working set are renewed
_SUMS = {"reassoc", "contract", "arcp", "nsz"}  # sums may be reordered


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
    return lasso_path(codes_NF, targets_NQ, [alpha], tolerance, max_sweeps)[0]


def lasso_path(
    codes_NF: np.ndarray,
    targets_NQ: np.ndarray,
    alphas: Iterable[float],
    tolerance: float = 1e-5,
    max_sweeps: int = 10_000,
) -> list[LassoFit]:
    """As `lasso` for several penalties, the largest first, each from the weights of the last.

    Returns
    -------
    list of LassoFit
        In the order of ``alphas``.

    Examples
    --------
    >>> x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> [fit.weights[0, 0].round(6).item() for fit in lasso_path(x, x[:, :1], [0.25, 0.5])]
    [0.75, 0.5]
    """
    alphas = [float(alpha) for alpha in alphas]
    for alpha in alphas:
        if not (alpha > 0 and np.isfinite(alpha)):
            raise ValueError(f"alpha {alpha} must be positive; for no penalty use least squares")
    x = np.asarray(codes_NF, dtype=np.float64)
    y = np.asarray(targets_NQ, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or not len(x):
        raise ValueError(f"codes {x.shape} and targets {y.shape} must be [N, F] and [N, Q], N > 0")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("codes or targets hold NaN or infinity: leave those columns or clips out")
    alive = np.flatnonzero(np.any(x != 0, axis=0))  # a dead code's weight is 0: leave it out
    x_FN, y_QN = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    x_FN = x_FN if len(alive) == len(x_FN) else x_FN[alive]
    gram, weights = _gram(x_FN), np.zeros((len(y_QN), len(alive)))
    fits: dict[int, LassoFit] = {}
    for i in sorted(range(len(alphas)), key=lambda i: -alphas[i]):
        found = _fit(gram, x_FN, y_QN, weights, alphas[i], tolerance, max_sweeps)
        whole = np.zeros((len(y_QN), x.shape[1]))
        whole[:, alive] = weights
        fits[i] = LassoFit(whole, *found)
    return [fits[i] for i in range(len(alphas))]


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


def _gram(x_FN: np.ndarray) -> np.ndarray:
    """``X'X / N`` in float32, the lower triangle alone (half the work)."""
    from scipy.linalg.blas import ssyrk

    if not len(x_FN):
        return np.zeros((0, 0), np.float32)
    gram = ssyrk(1 / x_FN.shape[1], x_FN.astype(np.float32).T, trans=1).T
    if not np.isfinite(np.diagonal(gram)).all():
        raise ValueError("codes are too large to be squared in single precision: standardise them")
    return gram


def _fit(gram, x_FN, y_QN, weights, alpha, tolerance, max_sweeps):
    """Move `weights` to the minimum, in place; returns objective, gap and sweeps, each [Q]."""
    n_targets, n = y_QN.shape
    limit = tolerance * (y_QN**2).mean(axis=1)
    objective, gap = np.full(n_targets, np.inf), np.full(n_targets, np.inf)
    sweeps = np.zeros(n_targets, dtype=np.int64)
    at = np.arange(n_targets)  # targets still to be solved
    while True:
        rest = _residuals(y_QN, weights, at, x_FN)
        gradient = rest @ x_FN.T / n
        power, along = (rest**2).mean(axis=1), (rest * y_QN[at]).mean(axis=1)
        # the residual, shrunk until no code pulls more than alpha, is a point of the dual
        shrink = alpha / np.maximum(np.abs(gradient).max(axis=1, initial=0.0), alpha)
        lower = 0.5 * power + alpha * np.abs(weights[at]).sum(axis=1)
        closer = lower - shrink * along + 0.5 * shrink**2 * power
        moving = (lower < objective[at]) | (closer < gap[at])  # else rounding is all that is left
        objective[at], gap[at] = lower, closer
        again = (gap[at] > limit[at]) & (sweeps[at] < max_sweeps) & moving
        at, gradient = at[again], gradient[again]
        if not len(at):
            return objective, gap, sweeps
        _descend(gram, gradient, weights, at, alpha, limit, sweeps, max_sweeps)


@njit(cache=True)
def _residuals(y_QN, weights, at, x_FN):
    """``y - X w`` of the targets `at`; most weights are zero."""
    rest = y_QN[at]
    for row in range(at.size):
        for j in np.flatnonzero(weights[at[row]]):
            for n in range(rest.shape[1]):
                rest[row, n] -= weights[at[row], j] * x_FN[j, n]
    return rest


@njit(cache=True)
def _descend(gram, gradients, weights, at, alpha, limits, sweeps, max_sweeps):
    """Solve each of the targets `at` on its working set."""
    for row in range(at.size):
        q = at[row]
        w, gradient = weights[q], gradients[row]
        chosen = _working_set(gradient, w, alpha)
        small = np.empty((chosen.size, chosen.size), np.float32)
        for i in range(chosen.size):
            for e in range(i + 1):
                small[i, e] = small[e, i] = gram[chosen[i], chosen[e]]
        part = w[chosen]
        sweeps[q] += _solve_small(small, gradient[chosen], part, alpha, 0.25 * limits[q],
                                  min(_PASSES, max_sweeps - sweeps[q]))
        w[chosen] = part


@njit(cache=True)
def _working_set(gradient, w, alpha):
    """The codes in use, and of those that want to enter as many, `_ROOM` at least."""
    pull = np.abs(gradient)
    used = w != 0.0
    wanting = pull[(pull > alpha) & ~used]
    room = max(_ROOM, used.sum())
    spare = wanting.size - room
    least = np.partition(wanting, spare)[spare] if spare > 0 else alpha
    return np.flatnonzero(used | (pull > alpha) & (pull >= least))


@njit(cache=True, fastmath=_SUMS)
def _solve_small(small, rest, w, alpha, limit, max_passes):
    """Solve for the chosen codes alone, in place; returns the number of sweeps.

    `rest` is their gradient and follows the weights. Every move lowers the objective.
    """
    n, still = w.size, 0
    for count in range(max_passes):
        turned = False
        for i in range(n):
            own = small[i, i]
            if own <= 0.0:
                continue
            pull = rest[i] + own * w[i]
            new = max(abs(pull) - alpha, 0.0) / own
            new = -new if pull < 0 else new
            if new != w[i]:
                turned = turned or new * w[i] <= 0.0
                _move(small, rest, w, i, new)
        steepest, size, gap = alpha, 0.0, 0.0
        for i in range(n):
            steepest = max(steepest, abs(rest[i]))
            size += abs(w[i])
            gap += alpha * abs(w[i]) - rest[i] * w[i]
        if gap + (steepest - alpha) * size <= limit:
            return count + 1
        still = 0 if turned else still + 1
        if still == _STILL:
            _newton(small, rest, w, alpha)
            still = 0
    return max_passes


@njit(cache=True, fastmath=_SUMS)
def _move(small, rest, w, i, new):
    change = new - w[i]
    w[i] = new
    for e in range(w.size):
        rest[e] -= small[i, e] * change


@njit(cache=True, fastmath=_SUMS)
def _newton(small, rest, w, alpha):
    """Solve for the codes in use as if their signs were fixed, up to the first that turns.

    By Cholesky's factors of their Gram matrix. A code that the ones before it make up (a copy, or
    one code more than there are clips) has no pivot and stays where it is.
    """
    room = np.count_nonzero(w)
    used, factor, step = np.empty(room, np.int64), np.empty((room, room)), np.empty(room)
    n = 0
    for i in np.flatnonzero(w):
        left = np.float64(small[i, i])
        for e in range(n):
            value = np.float64(small[i, used[e]])
            for c in range(e):
                value -= factor[n, c] * factor[e, c]
            factor[n, e] = value / factor[e, e]
            left -= factor[n, e] ** 2
        if left > 1e-5 * small[i, i]:
            used[n], factor[n, n] = i, np.sqrt(left)
            n += 1
    for i in range(n):
        step[i] = rest[used[i]] - (alpha if w[used[i]] > 0 else -alpha)
        for c in range(i):
            step[i] -= factor[i, c] * step[c]
        step[i] /= factor[i, i]
    for i in range(n - 1, -1, -1):
        step[i] /= factor[i, i]
        for c in range(i):
            step[c] -= factor[i, c] * step[i]
    share, first = 1.0, -1
    for i in range(n):
        if w[used[i]] * (w[used[i]] + share * step[i]) < 0:
            share, first = -w[used[i]] / step[i], i
    for i in range(n):
        new = 0.0 if i == first else w[used[i]] + share * step[i]
        _move(small, rest, w, used[i], new)
