"""The Lasso's penalty, chosen by singers that were left out instead of taken as given.

The paper's maps use one penalty for all attributes. Here a whole path of penalties is fitted on
the training singers of each fold, every fit from the weights of the one before, and scored on the
singers left out. Shape letters: N clips, F codes, A attributes, P penalties.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from saeutils.disentanglement import check_unseen, live_codes, rank_normalise
from saeutils.lasso import LassoFit, lasso_path, standardise

PENALTIES = tuple(np.geomspace(0.5, 0.05, 10).round(4))


@dataclass(frozen=True)
class PenaltyPath:
    """What each penalty is worth, and the map at the best one.

    Attributes
    ----------
    alphas
        Shape [P], as given.
    r2
        Held-out R2 pooled over folds, shape [P, A]; NaN for attributes that never vary.
    best
        Penalty of highest R2 per attribute, shape [A]; of equals the largest, which keeps fewest
        codes. NaN where R2 is.
    weights
        Map of all given clips at the best penalty, shape [A, F], in standardised units; zero
        where ``best`` is NaN.
    gap
        Duality gap of that map, shape [A].
    """

    alphas: np.ndarray
    r2: np.ndarray
    best: np.ndarray
    weights: np.ndarray
    gap: np.ndarray


def penalty_path(
    codes_NF: np.ndarray,
    attributes_NA: np.ndarray,
    folds: list[tuple[np.ndarray, np.ndarray]],
    singers: np.ndarray,
    alphas: Iterable[float] = PENALTIES,
    tolerance: float = 1e-3,
) -> PenaltyPath:
    """Fit a path of penalties, score it on the singers that each fold leaves out.

    Normal scores, rare codes and scales are those of each fold's training clips, as in
    `saeutils.disentanglement.cross_validated_r2`, whose result for one penalty this is.

    Parameters
    ----------
    codes_NF, attributes_NA
        Clips of the singers among whom the choice is made; never those a result is scored on.
    folds
        Row numbers (train, test) that share no singer: `saeutils.statistics.grouped_folds`.
    singers
        Shape [N].
    alphas
        Penalties, positive, in any order.
    tolerance
        Of the duality gap in the folds, where penalties are only compared; the map itself is
        solved a hundred times tighter.

    Raises
    ------
    ValueError
        No fold or no penalty; a singer in both parts of a fold; and what `lasso_path` refuses.
    """
    alphas = np.array(list(alphas), dtype=float)
    if not len(alphas) or not len(folds):
        raise ValueError(f"{len(alphas)} penalties and {len(folds)} folds: give at least one each")
    error = np.zeros((len(alphas), attributes_NA.shape[1]))
    total = np.zeros(attributes_NA.shape[1])
    for train, test in folds:
        check_unseen(singers, train, test)
        fits, used, x, y = _path(codes_NF, attributes_NA, train, singers, alphas, tolerance)
        for p, fit in enumerate(fits):
            error[p] += ((y[test] - x[test] @ fit.weights.T) ** 2).sum(axis=0)
        total += (y[test] ** 2).sum(axis=0)
    r2 = 1 - error / np.where(total > 0, total, np.nan)
    fits, used, *_ = _path(codes_NF, attributes_NA, np.arange(len(codes_NF)), singers, alphas,
                           tolerance / 100)
    known = np.flatnonzero(np.isfinite(r2).all(axis=0))
    order = np.argsort(-alphas, kind="stable")  # of equals the largest penalty comes first
    chosen = order[np.argmax(r2[np.ix_(order, known)], axis=0)]
    best, gap = np.full(r2.shape[1], np.nan), np.zeros(r2.shape[1])
    weights = np.zeros((r2.shape[1], codes_NF.shape[1]))
    best[known] = alphas[chosen]
    for a, p in zip(known, chosen, strict=True):
        weights[a, used] = fits[p].weights[a]
        gap[a] = fits[p].gap[a]
    return PenaltyPath(alphas, r2, best, weights, gap)


def _path(
    codes_NF, attributes_NA, train, singers, alphas, tolerance
) -> tuple[list[LassoFit], np.ndarray, np.ndarray, np.ndarray]:
    """Fits of the training clips, codes used, and all clips in the units of the training ones."""
    used = live_codes(codes_NF[train], singers[train])
    y = rank_normalise(attributes_NA, train)
    _, mean, scale = standardise(codes_NF[np.ix_(train, used)])
    x = standardise(codes_NF[:, used], mean, scale)[0]
    _, mean, scale = standardise(y[train])
    y = standardise(y, mean, scale)[0]
    return lasso_path(x[train], y[train], alphas, tolerance), used, x, y
