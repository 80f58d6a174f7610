"""Statistics for few singers: intervals, tests and folds whose unit is the singer, never the clip.

Clips of one singer resemble each other, so a thousand clips of five singers are five observations.
Every function here takes one number per singer, or makes it. Shape letters: N clips, S singers,
C cells (layers, sparsities, attributes ...), K seeds.

Source: over 5 singers a 95 % percentile bootstrap covers 83 %, a t interval on singer means 95 %
(4,000 simulations with normal singer effects), hence t intervals throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_EXACT_SINGERS = 13  # 2**13 = 8,192 sign patterns: below the 10,000 draws used beyond


@dataclass(frozen=True)
class Interval:
    """A mean over singers with its two-sided t interval, all in the unit of the values."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Decision:
    """A non-inferiority decision: ``kept`` is true when ``lower_bound`` lies above ``-margin``."""

    mean: float
    lower_bound: float
    margin: float
    n: int
    kept: bool


def singer_means(values: np.ndarray, singers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average clip values within each singer.

    Parameters
    ----------
    values
        Clip values, shape [N] or [N, C]; NaN is left out of its own mean.
    singers
        Singer of each clip, shape [N].

    Returns
    -------
    names, means
        Singer names in sorted order, shape [S], and their means, shape [S] or [S, C]. A singer
        without any finite value gets NaN.

    Raises
    ------
    ValueError
        ``values`` and ``singers`` differ in length.

    Examples
    --------
    >>> names, means = singer_means(np.array([1.0, 3.0, 5.0]), np.array(["b", "b", "a"]))
    >>> [str(name) for name in names], means.tolist()
    (['a', 'b'], [5.0, 2.0])
    """
    values = np.asarray(values, dtype=float)
    singers = np.asarray(singers)
    if len(values) != len(singers):
        raise ValueError(
            f"{len(values)} values but {len(singers)} singers: give one singer per clip"
        )
    names, index = np.unique(singers, return_inverse=True)
    finite = np.isfinite(values)
    total = np.zeros((len(names), *values.shape[1:]))
    count = np.zeros_like(total)
    np.add.at(total, index, np.where(finite, values, 0.0))
    np.add.at(count, index, finite)
    with np.errstate(invalid="ignore"):
        return names, total / np.where(count > 0, count, np.nan)


def t_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Two-sided t interval for the mean of singer values.

    Parameters
    ----------
    values
        One value per singer, shape [S]; NaN entries (singers without the class) are left out.
    confidence
        Coverage, between 0 and 1.

    Returns
    -------
    Interval
        ``mean +- t(S - 1) * SD / sqrt(S)``. With fewer than two singers the bounds are NaN: one
        singer carries no information about other singers.

    Raises
    ------
    ValueError
        ``confidence`` outside (0, 1).

    Examples
    --------
    >>> interval = t_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(interval.mean, 3), round(interval.low, 3), interval.n
    (2.0, -0.484, 3)
    """
    _check_confidence(confidence)
    values = np.asarray(values, dtype=float).ravel()
    values = values[np.isfinite(values)]
    n = len(values)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    mean = float(values.mean())
    if n < 2:
        return Interval(mean, np.nan, np.nan, n)
    half = _t_quantile((1 + confidence) / 2, n - 1) * float(values.std(ddof=1)) / n**0.5
    return Interval(mean, mean - half, mean + half, n)


def sign_flip_p(differences: np.ndarray, n_draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided sign-flip p value of a mean paired difference.

    Under the null a singer's difference is as likely to be ``d`` as ``-d``. With up to 13 singers
    all ``2**S`` patterns are counted, beyond that ``n_draws`` random ones (plus the observed one).

    Parameters
    ----------
    differences
        One paired difference per singer, shape [S]; NaN is left out.
    n_draws, seed
        Random patterns and their seed; not used when the count is exact.

    Returns
    -------
    float
        Share of patterns whose absolute mean is at least the observed one; NaN below 2 singers.

    Examples
    --------
    >>> sign_flip_p(np.array([1.0, 2.0, 1.5, 0.5, 1.0]))  # smallest value five singers can give
    0.0625
    """
    values = np.asarray(differences, dtype=float).ravel()
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan")
    signs, exact = _sign_patterns(len(values), n_draws, seed)
    observed = abs(values.mean())
    reached = np.abs(signs @ values) / len(values) >= observed - 1e-12 * max(observed, 1.0)
    return float(reached.mean() if exact else (reached.sum() + 1) / (len(signs) + 1))


def max_t_band(
    differences: np.ndarray, confidence: float = 0.95, n_draws: int = 10_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simultaneous bands for many paired differences that share their singers.

    All cells of a singer flip sign together, so the correlation between cells (layers, sparsities,
    attributes) is kept and no Bonferroni factor over the grid is paid.

    Parameters
    ----------
    differences
        Paired differences, shape [S, C], finite.
    confidence, n_draws, seed
        Coverage of the whole family; number and seed of the random sign patterns.

    Returns
    -------
    mean, low, high
        Each of shape [C]: ``mean +- q * SE`` where q is the quantile of the largest absolute t over
        cells under sign flips. A cell without spread over singers has a band of width zero; with
        fewer than two singers the bands are NaN.

    Raises
    ------
    ValueError
        Not a finite table of two axes.

    Source: Westfall & Young (1993), single-step max-T; Nichols & Holmes (2002) for sign flips.
    """
    _check_confidence(confidence)
    table = np.asarray(differences, dtype=float)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(
            f"differences of shape {table.shape} must be a finite [singers, cells] table; "
            "leave out cells that a singer lacks"
        )
    n = len(table)
    mean = table.mean(axis=0) if n else np.full(table.shape[1], np.nan)
    if n < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    signs, _ = _sign_patterns(n, n_draws, seed)
    flipped = signs @ table / n
    square = (table**2).mean(axis=0)
    variance = np.clip(square - flipped**2, 1e-30, None) * n / (n - 1)
    live = square > 0
    largest = (
        np.max(np.abs(flipped[:, live]) / np.sqrt(variance[:, live] / n), axis=1)
        if live.any()
        else np.zeros(1)
    )
    half = np.quantile(largest, confidence, method="higher") * table.std(axis=0, ddof=1)
    half = half / np.sqrt(n)
    return mean, mean - half, mean + half


def non_inferiority(
    differences: np.ndarray, margin: float, confidence: float = 0.95
) -> Decision:
    """Is a quantity kept, up to a margin fixed beforehand?

    "No significant difference" is not evidence that nothing was lost. The claim is kept only if
    the lower one-sided bound of the mean difference lies above ``-margin``.

    Parameters
    ----------
    differences
        New minus reference, one per singer, shape [S]; NaN is left out.
    margin
        Largest loss that counts as none, in the unit of the differences, positive.
    confidence
        One-sided confidence of the bound.

    Raises
    ------
    ValueError
        ``margin`` not positive.

    Examples
    --------
    >>> non_inferiority(np.array([0.01, -0.01, 0.0, 0.005]), margin=0.03).kept
    True
    """
    _check_confidence(confidence)
    if not margin > 0:
        raise ValueError(f"margin {margin} must be positive, in the unit of the differences")
    values = np.asarray(differences, dtype=float).ravel()
    values = values[np.isfinite(values)]
    n = len(values)
    if n < 2:
        mean = float(values.mean()) if n else float("nan")
        return Decision(mean, float("nan"), margin, n, False)
    mean = float(values.mean())
    bound = mean - _t_quantile(confidence, n - 1) * float(values.std(ddof=1)) / n**0.5
    return Decision(mean, bound, margin, n, bool(bound > -margin))


def average_seeds(scores: np.ndarray) -> tuple[np.ndarray, float]:
    """Average over SAE seeds within singer, and report the spread over seeds apart.

    Singer x seed is not a sample: the seeds of one singer share everything but the draw.

    Parameters
    ----------
    scores
        Shape [K, S]: one score per seed and singer.

    Returns
    -------
    per_singer, seed_sd
        Mean over seeds, shape [S], and the SD over seeds of the mean over singers (NaN for one
        seed).

    Examples
    --------
    >>> per_singer, spread = average_seeds(np.array([[0.5, 0.7], [0.7, 0.9]]))
    >>> per_singer.round(3).tolist(), round(spread, 4)
    ([0.6, 0.8], 0.1414)
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 2:
        raise ValueError(f"scores of shape {scores.shape} must be [seeds, singers]")
    over_singers = np.nanmean(scores, axis=1)
    spread = float(over_singers.std(ddof=1)) if len(scores) > 1 else float("nan")
    return np.nanmean(scores, axis=0), spread


def grouped_folds(
    singers: np.ndarray, sexes: np.ndarray, n_folds: int = 5, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cross-validation folds that keep every singer whole and balance the sexes.

    Parameters
    ----------
    singers, sexes
        Singer and sex of each clip, shape [N].
    n_folds
        Number of folds; reduced to the number of singers when there are fewer.
    seed
        Draws which singers go together.

    Returns
    -------
    list of (train, test)
        Row indices, sorted. Every row is in exactly one test part.

    Raises
    ------
    ValueError
        Fewer than two singers, fewer than two folds, or a singer of two sexes.

    Examples
    --------
    >>> folds = grouped_folds(np.array(["a", "a", "b", "c"]), np.array(["F", "F", "M", "F"]), 2)
    >>> sorted(np.concatenate([test for _, test in folds]).tolist())
    [0, 1, 2, 3]
    """
    singers, sexes = np.asarray(singers), np.asarray(sexes)
    names, first = np.unique(singers, return_index=True)
    if len(names) < 2 or n_folds < 2:
        raise ValueError(
            f"{len(names)} singers in {n_folds} folds: grouped folds need at least 2 of each"
        )
    pairs = np.unique(np.stack([singers.astype(str), sexes.astype(str)], axis=1), axis=0)
    if len(pairs) != len(names):
        raise ValueError("a singer occurs with two sexes: mend the clip table")
    n_folds = min(n_folds, len(names))
    rng = np.random.default_rng(seed)
    order = [
        name
        for sex in np.unique(sexes)
        for name in rng.permutation(names[sexes[first] == sex]).tolist()
    ]
    fold_of = {name: position % n_folds for position, name in enumerate(order)}
    fold = np.array([fold_of[name] for name in singers.tolist()])
    return [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(n_folds)]


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} must lie between 0 and 1, such as 0.95")


def _t_quantile(probability: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def _sign_patterns(n: int, n_draws: int, seed: int) -> tuple[np.ndarray, bool]:
    if n <= MAX_EXACT_SINGERS:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return 1.0 - 2.0 * bits, True
    draws = np.random.default_rng(seed).integers(0, 2, size=(n_draws, n))
    return 1.0 - 2.0 * draws, False
