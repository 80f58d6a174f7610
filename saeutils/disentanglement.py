"""Attribute maps: how well, and by how many codes, an acoustic attribute is read off.

An *importance map* holds one Lasso weight per attribute and code. From it follow completeness (how
few codes serve an attribute), disentanglement (how few attributes a code serves) and R2. Every
number exists as released and as corrected; the audit entries A01 to A05, A22, A23 and A31 of
`saeutils.protocol` act here. Shape letters: N clips, F codes, A attributes, S singers.

Source: Eastwood & Williams (2018) for D, C and I; the paper, section on attribute maps.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from saeutils.lasso import lasso, standardise
from saeutils.protocol import CLUSTER_CUT, MIN_CLIPS, MIN_SINGERS
from saeutils.scores import jackknife_half

GAP = 1e-3  # a Lasso fit that ends further than this from its best says so

@dataclass(frozen=True)
class AttributeMap:
    """An importance map and its scores.

    Attributes
    ----------
    weights
        Signed Lasso weights in standardised units, shape [A, F]; codes left out have weight 0.
    r2
        Shape [A]: in sample (released) or on unseen singers (corrected).
    r2_within
        Shape [A]: singer and exercise means removed from target and prediction; NaN in sample.
    r2_low, r2_high
        95 % interval of ``r2`` over singers, shape [A]; NaN in sample or with < 2 singers.
    r2_without
        ``r2`` with each unseen singer left out in turn, shape [S, A]; no row in sample.
    used
        Codes that entered the fit, bool, shape [F].
    gap
        Duality gap of the fit, shape [A], in units of the attributes' variance: by so much at
        most could another map be better. A fit that stops above `GAP` warns.
    """

    weights: np.ndarray
    r2: np.ndarray
    r2_within: np.ndarray
    r2_low: np.ndarray
    r2_high: np.ndarray
    used: np.ndarray
    r2_without: np.ndarray
    gap: np.ndarray


def released_map(
    codes_NF: np.ndarray, attributes_NA: np.ndarray, alpha: float = 0.1
) -> AttributeMap:
    """The published map: Lasso on standardised codes and attributes, scored on the same clips.

    Parameters
    ----------
    codes_NF, attributes_NA
        Codes (or states) and attributes of the test clips, finite.
    alpha
        Lasso penalty.

    Returns
    -------
    AttributeMap
        ``r2`` is in sample (A01) and so above zero even for noise codes.
    """
    x, y = standardise(codes_NF)[0], standardise(attributes_NA)[0]
    weights, gap = _fit(x, y, alpha)
    nothing = np.full(y.shape[1], np.nan)
    r2 = r2_score(y, x @ weights.T)
    return AttributeMap(weights, r2, nothing, nothing, nothing, np.ones(x.shape[1], dtype=bool),
                        np.zeros((0, y.shape[1])), gap)


def _fit(x_NF: np.ndarray, y_NA: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Lasso weights [A, F] and duality gaps [A]; warns of fits that did not come to their end."""
    found = lasso(x_NF, y_NA, alpha)
    if found.gap.size and found.gap.max() > GAP:
        warnings.warn(f"{(found.gap > GAP).sum()} of {len(found.gap)} Lasso fits stopped at a "
                      f"duality gap up to {found.gap.max():.1e}: their weights may not be the best",
                      stacklevel=3)
    return found.weights, found.gap


def held_out_map(
    codes_NF: np.ndarray,
    attributes_NA: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    singers: np.ndarray,
    exercises: np.ndarray,
    alpha: float = 0.1,
    scores_NA: np.ndarray | None = None,
) -> AttributeMap:
    """The corrected map: fitted on training singers, scored on singers it has not met.

    Attributes are turned into normal scores of the training clips; codes that fire on fewer than
    10 training clips or 3 training singers are left out (A22); codes are standardised on training
    clips.

    Parameters
    ----------
    codes_NF, attributes_NA
        All clips.
    train, test
        Row indices; they must share no singer.
    singers, exercises
        Shape [N]; their means are removed for ``r2_within``.
    alpha
        Lasso penalty.
    scores_NA
        ``rank_normalise(attributes_NA, train)``, for those who make many maps of one table.

    Raises
    ------
    ValueError
        ``train`` and ``test`` share a singer.
    """
    check_unseen(singers, train, test)
    used = live_codes(codes_NF[train], singers[train])
    y = rank_normalise(attributes_NA, train) if scores_NA is None else scores_NA
    x_train, mean, scale = standardise(codes_NF[np.ix_(train, used)])
    y_train, y_mean, y_scale = standardise(y[train])
    weights = np.zeros((y.shape[1], codes_NF.shape[1]))
    weights[:, used], gap = _fit(x_train, y_train, alpha)
    x_test = standardise(codes_NF[np.ix_(test, used)], mean, scale)[0]
    y_test = (y[test] - y_mean) / y_scale
    prediction = x_test @ weights[:, used].T
    low, high, without = r2_interval(y_test, prediction, singers[test])
    return AttributeMap(
        weights,
        r2_score(y_test, prediction, reference=0.0),
        r2_within(y_test, prediction, singers[test], exercises[test]),
        low,
        high,
        used,
        without,
        gap,
    )


def cross_validated_r2(
    codes_NF: np.ndarray,
    attributes_NA: np.ndarray,
    folds: list[tuple[np.ndarray, np.ndarray]],
    singers: np.ndarray,
    alpha: float = 0.1,
) -> np.ndarray:
    """R2 of predictions pooled over singer-grouped folds, shape [A] (corrected A01).

    Each fold normalises, leaves out rare codes and fits on its own training part. With pure noise
    the result is at most about zero.
    """
    error, total = np.zeros(attributes_NA.shape[1]), np.zeros(attributes_NA.shape[1])
    for train, test in folds:
        check_unseen(singers, train, test)
        used = live_codes(codes_NF[train], singers[train])
        x_train, mean, scale = standardise(codes_NF[np.ix_(train, used)])
        y = rank_normalise(attributes_NA, train)
        y_train, y_mean, y_scale = standardise(y[train])
        fit = lasso(x_train, y_train, alpha)
        y_test = (y[test] - y_mean) / y_scale
        x_test = standardise(codes_NF[np.ix_(test, used)], mean, scale)[0]
        error += ((y_test - x_test @ fit.weights.T) ** 2).sum(axis=0)
        total += (y_test**2).sum(axis=0)
    return 1 - error / np.where(total > 0, total, np.nan)


def check_unseen(singers: np.ndarray, train: np.ndarray, test: np.ndarray) -> None:
    """Refuse a split that shares a singer."""
    shared = np.intersect1d(singers[train], singers[test])
    if len(shared):
        raise ValueError(
            f"singer {str(shared[0])!r} is in training and in test: split by singer "
            "(saeutils.statistics.grouped_folds does)"
        )


def live_codes(
    codes_NF: np.ndarray,
    singers: np.ndarray,
    min_clips: int = MIN_CLIPS,
    min_singers: int = MIN_SINGERS,
) -> np.ndarray:
    """Codes that fire often enough to be judged, bool, shape [F].

    A code that fires on one clip, standardised, is a one-hot of z = 20 and fits any outlier. A
    code that never changes (constant offset) is left out too. When the sample itself has fewer
    clips or singers than asked for, all of them are asked for.

    Examples
    --------
    >>> codes = np.array([[1.0, 0.0, 2.0], [2.0, 0.0, 2.0], [1.5, 3.0, 2.0]])
    >>> live_codes(codes, np.array(["a", "b", "c"]), min_clips=2, min_singers=2).tolist()
    [True, False, False]
    """
    fires = np.asarray(codes_NF) != 0
    names, index = np.unique(singers, return_inverse=True)
    clips_SF = sum_by(fires.astype(np.float32), index, len(names))
    return (
        (clips_SF.sum(axis=0) >= min(min_clips, len(fires)))
        & ((clips_SF > 0).sum(axis=0) >= min(min_singers, len(names)))
        & (np.ptp(codes_NF, axis=0) > 0)
    )


def sum_by(values_NC: np.ndarray, index: np.ndarray, n_groups: int) -> np.ndarray:
    """Sum of the rows of each group, shape [n_groups, C]; ``index`` is each row's group.

    Examples
    --------
    >>> sum_by(np.array([[1.0], [2.0], [4.0]]), np.array([0, 1, 0]), 2).tolist()
    [[5.0], [2.0]]
    """
    values = np.asarray(values_NC)
    member = np.zeros((n_groups, len(values)), dtype=values.dtype)
    member[index, np.arange(len(values))] = 1
    return member @ values


def rank_normalise(values_NA: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Normal scores by the ranks of the training clips (A22).

    Parameters
    ----------
    values_NA
        Attributes of all clips, finite.
    train
        Rows whose distribution defines the ranks. Other rows are placed between them by linear
        interpolation; beyond the extremes they get the extreme score.

    Returns
    -------
    ndarray
        Same shape; ties share their mean rank, a constant attribute becomes 0.

    Examples
    --------
    >>> rank_normalise(np.array([[1.0], [2.0], [1000.0]]), np.arange(3)).round(2).ravel().tolist()
    [-0.97, 0.0, 0.97]
    """
    from scipy.special import ndtri

    values = np.asarray(values_NA, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("attributes hold NaN or infinity: leave those clips or attributes out")
    scores = np.empty_like(values)
    for column in range(values.shape[1]):
        known, count = np.unique(values[train, column], return_counts=True)
        middle = (np.cumsum(count) - count / 2) / len(train)
        scores[:, column] = ndtri(np.interp(values[:, column], known, middle))
    return scores


def r2_score(
    targets: np.ndarray, predictions: np.ndarray, reference: np.ndarray | float | None = None
) -> np.ndarray:
    """Share of variance explained per column, ``1 - SSE / SST``; NaN for a constant target.

    Parameters
    ----------
    targets, predictions
        Shape [N, A].
    reference
        The prediction that scores 0: the targets' own mean when not given (as in scikit-learn);
        held out, the mean of the training clips.

    Examples
    --------
    >>> r2_score(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]])).tolist()
    [0.5]
    """
    reference = targets.mean(axis=0) if reference is None else reference
    total = ((targets - reference) ** 2).sum(axis=0)
    error = ((targets - predictions) ** 2).sum(axis=0)
    return 1 - error / np.where(total > 0, total, np.nan)


def r2_within(
    targets: np.ndarray, predictions: np.ndarray, singers: np.ndarray, exercises: np.ndarray
) -> np.ndarray:
    """R2 after the mean of each singer and exercise is removed from target and prediction.

    More than half of the variance of mean F0 is the singer: a latent for "male" reads it off
    without hearing any clip. This R2 gives no credit for that. NaN where nothing varies within.
    """
    inner = centre_within(targets, singers, exercises)
    total = (inner**2).sum(axis=0)
    error = ((inner - centre_within(predictions, singers, exercises)) ** 2).sum(axis=0)
    return 1 - error / np.where(total > 1e-12, total, np.nan)


def centre_within(
    values_NA: np.ndarray, singers: np.ndarray, exercises: np.ndarray
) -> np.ndarray:
    """Values without the mean of their singer and exercise, shape [N, A].

    Examples
    --------
    >>> centre_within(np.array([[1.0], [3.0], [7.0]]), ["a", "a", "b"], ["x"] * 3).tolist()
    [[-1.0], [1.0], [0.0]]
    """
    values = np.asarray(values_NA, dtype=float)
    keys = np.array([f"{s}|{e}" for s, e in zip(singers, exercises, strict=True)])
    _, index, count = np.unique(keys, return_inverse=True, return_counts=True)
    return values - (sum_by(values, index, len(count)) / count[:, None])[index]


def singer_r2(
    targets: np.ndarray, predictions: np.ndarray, singers: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """R2 split into one score per singer: ``1 - MSE of the singer / mean square of all clips``.

    The common denominator keeps singers with little variation from dominating. The clip-weighted
    mean over singers is the pooled R2 against the training mean (0 in standardised units).

    Returns
    -------
    names, scores
        Shapes [S] and [S, A].
    """
    from saeutils.statistics import singer_means

    total = (targets**2).mean(axis=0)
    names, mse = singer_means((targets - predictions) ** 2, singers)
    return names, 1 - mse / np.where(total > 0, total, np.nan)


def r2_interval(
    targets: np.ndarray, predictions: np.ndarray, singers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """95 % interval of the held-out R2: jackknife over singers with a t quantile.

    Returns low and high, [A], NaN with fewer than two singers, and the R2 without each singer,
    [S, A]. Targets are relative to the training mean.
    """
    names, index = np.unique(singers, return_inverse=True)
    error = sum_by((targets - predictions) ** 2, index, len(names))
    total = sum_by(targets**2, index, len(names))
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = 1 - error.sum(axis=0) / total.sum(axis=0)
        without = 1 - (error.sum(axis=0) - error) / (total.sum(axis=0) - total)
    half = jackknife_half(without)
    return r2 - half, r2 + half, without


def attribute_clusters(values_NA: np.ndarray, cut: float = CLUSTER_CUT) -> np.ndarray:
    """Cluster number of each attribute, shape [A], from 0: near-copies share one (A31).

    Average linkage on ``1 - |rank correlation|``, cut where the correlation falls below ``cut``.
    Constant attributes stand alone. Numbers follow the first attribute of each cluster.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform
    from scipy.stats import rankdata

    ranks = standardise(rankdata(values_NA, axis=0))[0]
    distance = 1 - np.abs(ranks.T @ ranks / len(ranks))
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(np.clip(distance, 0, None), checks=False), "average")
    labels = fcluster(tree, 1 - cut, criterion="distance")
    _, first = np.unique(labels, return_index=True)
    order = {labels[position]: number for number, position in enumerate(np.sort(first))}
    return np.array([order[label] for label in labels])
