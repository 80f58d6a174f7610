"""The Lasso for many targets at once: working sets on one Gram matrix, with a duality gap.

All attributes share the codes and so ``X'X``, of which an entry is computed, in single precision,
when the first target asks for it: most are never needed. Each target is solved on a small working
set of codes, which grows by those that want to enter. Within it, coordinate descent finds which
codes are used and with which sign; once these stand still, a Newton step solves for their weights
at once. Gradient and gap are then computed anew from the codes in double precision, and what is
left is solved for again, so that the Gram matrix decides how fast the minimum is reached and not
where it is. Shape letters: N clips, F codes, Q targets. Minimises, for each target y,

``||y - X w||^2 / (2 N) + alpha * sum |w|``

which is scikit-learn's objective. Source: Friedman, Hastie & Tibshirani (2010), "covariance
updates"; duality gap as in Kim et al. (2007).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from saeutils.lasso_kernels import descend, judge, residuals

_SHARE = 0.02  # of the gap: a working set need not be solved better than it is chosen


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
    codes = _Codes.of(x_FN)
    pull = y_QN.astype(np.float32) @ codes.single.T / len(x)  # only says where to begin
    state = _State(np.zeros(pull.shape), y_QN.copy(), pull.astype(np.float64))
    fits: dict[int, LassoFit] = {}
    for i in sorted(range(len(alphas)), key=lambda i: -alphas[i]):
        found = _fit(codes, state, y_QN, alphas[i], tolerance, max_sweeps)
        whole = np.zeros((len(y_QN), x.shape[1]))
        whole[:, alive] = state.weights
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


@dataclass(frozen=True)
class _Codes:
    """The living codes [F, N] in double and single precision, and what is known of ``X'X / N``."""

    double: np.ndarray
    single: np.ndarray
    gram: np.ndarray  # [F, F], the lower triangle alone; an entry is 0 until somebody needs it

    @classmethod
    def of(cls, x_FN: np.ndarray) -> _Codes:
        if (np.einsum("fn,fn->f", x_FN, x_FN) > np.finfo(np.float32).max).any():
            raise ValueError("codes are too large to be squared in single precision: standardise "
                             "them")
        return cls(x_FN, x_FN.astype(np.float32), np.zeros((len(x_FN),) * 2, np.float32))


@dataclass(frozen=True)
class _State:
    """Weights [Q, F] with their residual [Q, N] and gradient ``(y - Xw)'X / N`` [Q, F].

    The next penalty of a path begins with all three.
    """

    weights: np.ndarray
    rest: np.ndarray
    gradient: np.ndarray


def _fit(codes, state, y_QN, alpha, tolerance, max_sweeps):
    """Move the weights to the minimum, in place; returns objective, gap and sweeps, each [Q]."""
    n_targets, n = y_QN.shape
    limit = tolerance * (y_QN**2).mean(axis=1)
    objective, gap = np.full(n_targets, np.inf), np.full(n_targets, np.inf)
    sweeps = np.zeros(n_targets, dtype=np.int64)
    at = np.arange(n_targets)  # targets still to be solved
    while True:
        lower, closer = judge(y_QN, state.weights, state.rest, state.gradient, at, alpha)
        moving = (lower < objective[at]) | (closer < gap[at])  # else rounding is all that is left
        objective[at], gap[at] = lower, closer
        at = at[(closer > limit[at]) & (sweeps[at] < max_sweeps) & moving]
        if not len(at):
            return objective, gap, sweeps
        enough = np.maximum(0.25 * limit, _SHARE * gap)
        descend(codes.gram, codes.single, state.gradient, state.weights, at, alpha, enough, sweeps,
                 max_sweeps)
        state.rest[at] = residuals(y_QN, state.weights, at, codes.double)
        state.gradient[at] = state.rest[at] @ codes.double.T / n
