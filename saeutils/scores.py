"""Scores of a classifier over clips, with the singer as the unit: tables from labels and guesses.

Shape letters: N clips, S singers, C classes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from saeutils.statistics import t_interval

COLUMNS = ("technique", "singer", "metric", "value", "ci_low", "ci_high", "n")


def score_table(
    labels: np.ndarray, guesses: np.ndarray, singers: np.ndarray, classes: np.ndarray
) -> pd.DataFrame:
    """Accuracy, balanced accuracy, macro F1 and recall per class, with intervals over singers.

    Parameters
    ----------
    labels, guesses, singers
        Shape [N]: true class, guessed class, singer.
    classes
        Class names for the recalls.

    Returns
    -------
    DataFrame
        Columns technique, singer, metric, value, ci_low, ci_high, n. ``accuracy`` and
        ``macro_f1`` are pooled over clips; ``balanced_accuracy`` is the mean over singers of each
        singer's own mean recall (over the techniques that the singer sings). Intervals are t
        intervals on singer scores: NaN for fewer than two singers and for ``macro_f1``; ``n``
        counts singers. Rows with a technique hold its recall, rows with a singer that singer's
        own scores; ``n`` then counts clips.

    Raises
    ------
    ValueError
        No clips, or a label that is not in ``classes``.
    """
    return pd.DataFrame(score_rows(labels, guesses, singers, classes), columns=list(COLUMNS))


def score_rows(labels, guesses, singers, classes, brief: bool = False) -> list[tuple]:
    """The rows of `score_table`; ``brief``: accuracy and balanced accuracy of all clips alone."""
    labels, guesses, singers = map(np.asarray, (labels, guesses, singers))
    classes = np.asarray(classes)
    if not len(labels):
        raise ValueError("no clips to score: the split is empty")
    if not np.isin(labels, classes).all():
        raise ValueError(f"labels {sorted(set(labels.tolist()))} are not all in {list(classes)}")
    names, singer = np.unique(singers, return_inverse=True)
    of_class = labels[:, None] == classes
    hits, total = np.zeros((len(names), len(classes))), np.zeros((len(names), len(classes)))
    np.add.at(total, singer, of_class)
    np.add.at(hits, singer, of_class & (labels == guesses)[:, None])
    recall = hits / np.where(total > 0, total, np.nan)
    accuracy = hits.sum(axis=1) / total.sum(axis=1)
    balanced = np.nanmean(recall, axis=1)
    plain, fair = t_interval(accuracy), t_interval(balanced)
    pooled = float(hits.sum() / total.sum())
    rows = [
        ("", "", "accuracy", pooled, plain.low, plain.high, len(names)),
        ("", "", "balanced_accuracy", fair.mean, fair.low, fair.high, len(names)),
    ]
    if brief:
        return rows
    rows.append(("", "", "macro_f1", macro_f1(labels, guesses), np.nan, np.nan, len(names)))
    for c in np.flatnonzero(total.sum(axis=0) > 0):
        band, count = t_interval(recall[:, c]), int(total[:, c].sum())
        value = float(hits[:, c].sum() / count)
        rows.append((str(classes[c]), "", "recall", value, band.low, band.high, count))
    for s, name in enumerate(names):
        count = int(total[s].sum())
        rows.append(("", str(name), "accuracy", accuracy[s], np.nan, np.nan, count))
        rows.append(("", str(name), "balanced_accuracy", balanced[s], np.nan, np.nan, count))
    return rows


def macro_f1(labels: np.ndarray, guesses: np.ndarray) -> float:
    """Mean F1 over the classes that occur in labels or guesses (as in scikit-learn).

    Examples
    --------
    >>> round(macro_f1(np.array(["a", "a", "b"]), np.array(["a", "b", "b"])), 4)
    0.6667
    """
    scores = []
    for name in np.union1d(labels, guesses):
        both = np.sum((labels == name) & (guesses == name))
        scores.append(2 * both / (np.sum(labels == name) + np.sum(guesses == name)))
    return float(np.mean(scores))


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: chance that a positive clip scores above a negative one.

    Ties count half; NaN when one side is empty.

    Examples
    --------
    >>> auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    from scipy.stats import rankdata

    positive = np.asarray(positive, dtype=bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    above = rankdata(scores)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def auc_without(scores: np.ndarray, positive: np.ndarray, singers: np.ndarray) -> np.ndarray:
    """`auc` with each singer left out in turn, shape [S], singers in sorted order.

    NaN where a side is empty without that singer.

    Examples
    --------
    >>> scores, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    >>> auc_without(scores, positive, np.array(["a", "b", "a", "b"])).tolist()
    [1.0, 1.0]
    """
    positive = np.asarray(positive, dtype=bool)
    names, index = np.unique(singers, return_inverse=True)
    high, low = np.asarray(scores)[positive], np.asarray(scores)[~positive]
    above = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    of_high, of_low = (np.eye(len(names))[index[side]] for side in (positive, ~positive))
    pairs = of_high.T @ above @ of_low  # by singer of the positive and of the negative clip
    won = pairs.sum() - pairs.sum(axis=0) - pairs.sum(axis=1) + np.diag(pairs)
    count = (len(high) - of_high.sum(axis=0)) * (len(low) - of_low.sum(axis=0))
    return won / np.where(count > 0, count, np.nan)


def jackknife_half(without_SC: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Half-width of a jackknife t interval, from a statistic with each singer left out in turn.

    For statistics that are no mean over singers, such as a pooled R2 or an area under a curve.

    Parameters
    ----------
    without_SC
        The statistic without each singer, shape [S] or [S, C].

    Returns
    -------
    ndarray
        Shape [] or [C]; NaN with fewer than two singers.

    Source: Tukey (1958); of a mean it is the t interval of `saeutils.statistics.t_interval`.

    Examples
    --------
    >>> values = np.array([1.0, 2.0, 3.0])
    >>> without = (values.sum() - values) / 2
    >>> float(jackknife_half(without).round(3))
    2.484
    """
    from scipy.special import stdtrit

    without = np.asarray(without_SC, dtype=float)
    n = len(without)
    if n < 2:
        return np.full(without.shape[1:], np.nan)
    spread = ((without - without.mean(axis=0)) ** 2).sum(axis=0) * (n - 1) / n
    return stdtrit(n - 1, (1 + confidence) / 2) * np.sqrt(spread)


def confusion(labels: np.ndarray, guesses: np.ndarray, classes: np.ndarray) -> pd.DataFrame:
    """Share of each true class (rows) guessed as each class (columns); absent classes are NaN."""
    counts = pd.crosstab(pd.Categorical(labels, classes), pd.Categorical(guesses, classes),
                         dropna=False).to_numpy(dtype=float)
    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.where(total > 0, total, np.nan)
    return pd.DataFrame(share, index=list(classes), columns=list(classes))


def chance_levels(train_labels: np.ndarray, test_labels: np.ndarray) -> dict[str, float]:
    """What a probe must beat: uniform guessing, and always the most frequent training class.

    Returns
    -------
    dict
        ``chance`` (1 / number of test classes), ``majority`` (share of test clips in the most
        frequent training class), both as accuracy; balanced accuracy of either is ``chance``.
    """
    names, counts = np.unique(train_labels, return_counts=True)
    most = names[np.argmax(counts)]
    return {
        "chance": 1 / len(np.unique(test_labels)),
        "majority": float(np.mean(np.asarray(test_labels) == most)),
    }
