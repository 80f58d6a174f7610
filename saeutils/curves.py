"""Held-out k-curves: how well k codes, and no more, read an attribute of singers never met.

Completeness confuses few codes with a poor prediction. Here the number of codes is fixed and R2 is
compared: codes are chosen and fitted on training singers by orthogonal matching pursuit, the
prediction is scored on unseen singers. Summaries are the area under R2 against log k, and K90, the
smallest k that reaches 90 % of a ceiling common to all representations. Shape letters: N clips, F
codes, A attributes, S singers, P numbers of codes tried.

Source: Pati, Rezaiifar & Krishnaprasad (1993) for the pursuit; estimands in `saeutils.protocol`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saeutils.disentanglement import (
    centre_within,
    check_unseen,
    live_codes,
    r2_score,
    r2_within,
    rank_normalise,
    singer_r2,
)
from saeutils.lasso import standardise
from saeutils.protocol import CLIPS_PER_CODE, FEWEST_K, K90_SHARE, K_VALUES

RIDGE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # beside a mean squared error


@dataclass(frozen=True)
class KCurve:
    """R2 of the best k codes for each attribute, on unseen singers.

    Attributes
    ----------
    k_values
        Numbers of codes, shape [P].
    r2, r2_within
        Shape [P, A]: total (0 = mean of the training clips), and with the mean of each singer and
        exercise removed.
    by_singer, by_singer_within
        Shape [P, S, A]: `saeutils.disentanglement.singer_r2`, total and within.
    singers
        Names of the unseen singers, shape [S].
    ridge, ridge_inner
        Shape [A]: R2 of ridge regression on all codes on unseen singers, and its inner
        cross-validated R2 on training singers, by which representations are compared without
        touching the unseen ones.
    inner_area
        Inner cross-validated area under the curve, shape [A]; NaN where not asked for.
    """

    k_values: np.ndarray
    r2: np.ndarray
    r2_within: np.ndarray
    by_singer: np.ndarray
    by_singer_within: np.ndarray
    singers: np.ndarray
    ridge: np.ndarray
    ridge_inner: np.ndarray
    inner_area: np.ndarray


def k_curve(
    codes_NF: np.ndarray,
    attributes_NA: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    singers: np.ndarray,
    exercises: np.ndarray,
    folds: list[tuple[np.ndarray, np.ndarray]],
    k_values: tuple[int, ...] = K_VALUES,
    inner_curve: bool = True,
) -> KCurve:
    """Choose and fit on training singers, score on unseen ones.

    Parameters
    ----------
    codes_NF, attributes_NA
        All clips; attributes become normal scores of the training clips, rare codes are left out.
    train, test
        Row numbers; they share no singer.
    folds
        Inner folds over the training rows (positions within ``train``), grouped by singer.
    k_values
        Numbers of codes. Where fewer codes are left, the curve stays at the last one.
    inner_curve
        Whether to find ``inner_area``, most of the work: only those need it that are chosen
        between on the training singers.
    """
    check_unseen(singers, train, test)
    y, x_train, x_test = _prepare(codes_NF, attributes_NA, train, test, singers)
    guesses = [x_test @ w for w in pursuit(x_train, y[train], k_values)]
    own, exercise = singers[test], exercises[test]
    per_singer = [singer_r2(y[test], guess, own) for guess in guesses]
    inside = centre_within(y[test], own, exercise)
    inside[:, (inside**2).sum(axis=0) <= 1e-12] = 0  # nothing varies within: no score
    per_singer_within = [singer_r2(inside, centre_within(guess, own, exercise), own)[1]
                         for guess in guesses]
    inner = [
        _inner_scores(codes_NF, attributes_NA, train[a], train[b], singers,
                      k_values if inner_curve else ())
        for a, b in folds
    ]
    penalty_scores = np.mean([ridge for _, ridge in inner], axis=0)
    best = np.argmax(penalty_scores, axis=0)
    weights = ridge_path(x_train, y[train], RIDGE_PENALTIES)
    chosen = weights[best, :, np.arange(y.shape[1])].T
    return KCurve(
        np.asarray(k_values),
        np.stack([r2_score(y[test], guess, 0.0) for guess in guesses]),
        np.stack([r2_within(y[test], guess, own, exercise) for guess in guesses]),
        np.stack([scores for _, scores in per_singer]),
        np.stack(per_singer_within),
        per_singer[0][0],
        r2_score(y[test], x_test @ chosen, 0.0),
        penalty_scores.max(axis=0),
        np.mean([area(curve, k_values) for curve, _ in inner], axis=0) if inner_curve
        else np.full(y.shape[1], np.nan),
    )


def allowed_k(n_train: int, k_values: tuple[int, ...] = K_VALUES) -> tuple[int, ...]:
    """Numbers of codes that so many training clips can carry: five clips for each code.

    A readout of k codes has k weights, chosen among hundreds. With fewer than five clips a weight
    it fits what those clips have by chance, in any representation, and the curve compares how
    badly each of them guesses. Where fewer than three values are left there is no curve.

    Parameters
    ----------
    n_train
        Training clips.
    k_values
        Numbers of codes asked for, ascending.

    Returns
    -------
    tuple
        The allowed ones; empty where the clips are too few to decide anything.

    Examples
    --------
    >>> allowed_k(372), allowed_k(40), allowed_k(24)
    ((1, 2, 5, 10, 20, 50), (1, 2, 5), ())
    """
    kept = tuple(k for k in k_values if CLIPS_PER_CODE * k <= n_train)
    return kept if len(kept) >= FEWEST_K else ()


def pursuit(x_NF: np.ndarray, y_NA: np.ndarray, k_values: tuple[int, ...]) -> np.ndarray:
    """Orthogonal matching pursuit for all targets at once: weights of the best k codes.

    At every step each target takes the code that correlates most with its residual, and the
    residual is made orthogonal to all codes taken.

    Parameters
    ----------
    x_NF
        Columns of mean zero and equal scale.
    y_NA
        Targets of mean zero.
    k_values
        Numbers of codes, ascending; each is reduced to what clips and columns allow.

    Returns
    -------
    ndarray
        Shape [P, F, A]: least-squares weights on the k codes chosen first. A target that is
        exhausted (no code correlates with its residual) keeps the codes it has.

    Examples
    --------
    >>> x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> pursuit(x, x @ np.array([[2.0], [0.5]]), (1, 2))[:, :, 0].round(6).tolist()
    [[2.0, 0.0], [2.0, 0.5]]
    """
    (n_clips, n_codes), n_targets = x_NF.shape, y_NA.shape[1]
    steps = min(max(k_values), n_codes, max(n_clips - 1, 1))
    chosen = np.full((steps, n_targets), -1)
    basis = np.zeros((n_targets, steps, n_clips))
    residual = np.array(y_NA, dtype=float)
    power = np.linalg.norm(x_NF, axis=0).max(initial=0.0)
    floor = 1e-8 * power * np.linalg.norm(residual, axis=0)
    taken = np.zeros((n_codes, n_targets), dtype=bool)
    every = np.arange(n_targets)
    for step in range(steps):
        pull = np.where(taken, 0.0, np.abs(x_NF.T @ residual))
        best = pull.argmax(axis=0)
        going = pull[best, every] > floor
        new = x_NF[:, best].T.copy()
        for _ in range(2):  # twice is enough
            inside = np.matmul(basis[:, :step], new[:, :, None])
            new -= np.matmul(inside.transpose(0, 2, 1), basis[:, :step])[:, 0]
        size = np.linalg.norm(new, axis=1)
        going &= size > 1e-6 * power
        basis[going, step] = new[going] / size[going, None]
        chosen[step, going] = best[going]
        taken[best, every] |= going
        along = np.einsum("an,na->a", basis[:, step], residual)
        residual -= basis[:, step].T * along
    weights = np.zeros((len(k_values), n_codes, n_targets))
    for p, k in enumerate(k_values):
        for a in range(n_targets):
            own = chosen[:k, a]
            own = own[own >= 0]
            if len(own):
                square = x_NF[:, own].T @ x_NF[:, own]
                weights[p, own, a] = np.linalg.solve(square, x_NF[:, own].T @ y_NA[:, a])
    return weights


def ridge_path(x_NF: np.ndarray, y_NA: np.ndarray, penalties: tuple[float, ...]) -> np.ndarray:
    """Ridge weights for several penalties by one eigendecomposition, shape [penalties, F, A].

    Minimises ``||y - x w||^2 / N + penalty * ||w||^2``.
    """
    n_clips, n_codes = x_NF.shape
    if n_clips < n_codes:
        square, axes = np.linalg.eigh(x_NF @ x_NF.T / n_clips)
        inside = axes.T @ y_NA / n_clips
        return np.stack([x_NF.T @ (axes @ (inside / (square + p)[:, None])) for p in penalties])
    square, axes = np.linalg.eigh(x_NF.T @ x_NF / n_clips)
    inside = axes.T @ (x_NF.T @ y_NA / n_clips)
    return np.stack([axes @ (inside / (square + p)[:, None]) for p in penalties])


def area(curve_PA: np.ndarray, k_values: tuple[int, ...] | np.ndarray = K_VALUES) -> np.ndarray:
    """Mean height of a curve over log k (trapezoids), in units of R2; works on axis 0.

    Examples
    --------
    >>> float(area(np.array([0.0, 1.0, 1.0]), (1, 10, 100)))
    0.75
    """
    logs = np.log(np.asarray(k_values, dtype=float))
    curve = np.asarray(curve_PA, dtype=float)
    if len(logs) == 1:
        return curve[0]
    width = np.diff(logs).reshape(-1, *([1] * (curve.ndim - 1)))
    return (width * (curve[1:] + curve[:-1]) / 2).sum(axis=0) / (logs[-1] - logs[0])


def k90(
    curve_PA: np.ndarray, ceiling_A: np.ndarray, k_values: tuple[int, ...] | np.ndarray = K_VALUES,
    share: float = K90_SHARE,
) -> np.ndarray:
    """Smallest k whose R2 reaches ``share`` of the ceiling; inf if none does (censored).

    NaN where the ceiling is NaN or not positive.

    Examples
    --------
    >>> k90(np.array([[0.1, 0.1], [0.5, 0.2]]), np.array([0.5, 0.5]), (1, 5)).tolist()
    [5.0, inf]
    """
    reached = np.asarray(curve_PA) >= share * np.asarray(ceiling_A)
    first = np.where(reached.any(axis=0), np.asarray(k_values, dtype=float)[reached.argmax(axis=0)],
                     np.inf)
    return np.where(np.asarray(ceiling_A) > 0, first, np.nan)


def cluster_weights(clusters: np.ndarray, use: np.ndarray | None = None) -> np.ndarray:
    """Weights of attributes so that every cluster of near-copies counts once; they sum to 1.

    Parameters
    ----------
    clusters
        Cluster number of each attribute, shape [A].
    use
        Attributes that count, bool [A]; all when not given.

    Examples
    --------
    >>> cluster_weights(np.array([0, 0, 1])).tolist()
    [0.25, 0.25, 0.5]
    """
    use = np.ones(len(clusters), dtype=bool) if use is None else np.asarray(use, dtype=bool)
    _, index = np.unique(clusters, return_inverse=True)
    size = np.bincount(index, weights=use)[index]
    weights = np.where(use, 1 / np.where(size > 0, size, 1), 0.0)
    if weights.sum() == 0:
        raise ValueError("no attribute is left to average: lower the floor of R2")
    return weights / weights.sum()


def _prepare(codes_NF, attributes_NA, train, test, singers):
    used = live_codes(codes_NF[train], singers[train])
    y = rank_normalise(attributes_NA, train)
    _, mean, scale = standardise(y[train])
    y = (y - mean) / scale
    x_train, mean, scale = standardise(codes_NF[np.ix_(train, used)])
    return y, x_train, standardise(codes_NF[np.ix_(test, used)], mean, scale)[0]


def _inner_scores(codes_NF, attributes_NA, train, test, singers, k_values):
    y, x_train, x_test = _prepare(codes_NF, attributes_NA, train, test, singers)
    paths = pursuit(x_train, y[train], k_values) if k_values else ()
    curve = [r2_score(y[test], x_test @ w, 0.0) for w in paths]
    weights = ridge_path(x_train, y[train], RIDGE_PENALTIES)
    return curve, np.stack([r2_score(y[test], x_test @ w, 0.0) for w in weights])

