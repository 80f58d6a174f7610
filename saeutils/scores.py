"""Scores of a classifier over clips, with the singer as the unit: tables from labels and guesses.

Shape letters: N clips, S singers, C classes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from saeutils.statistics import t_interval


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
        Columns technique (empty but for recalls), metric, value, ci_low, ci_high, n. ``accuracy``
        and ``macro_f1`` are pooled over clips; ``balanced_accuracy`` is the mean over singers of
        each singer's own mean recall. Intervals are t intervals on singer scores: NaN for fewer
        than two singers and for ``macro_f1``. ``n`` counts singers (clips for a recall).

    Raises
    ------
    ValueError
        No clips.
    """
    labels, guesses, singers = map(np.asarray, (labels, guesses, singers))
    if not len(labels):
        raise ValueError("no clips to score: the split is empty")
    per_singer = singer_scores(labels, guesses, singers)
    n_singers = len(per_singer)
    plain = t_interval(per_singer["accuracy"].to_numpy())
    fair = t_interval(per_singer["balanced_accuracy"].to_numpy())
    rows = [
        ("", "accuracy", float((labels == guesses).mean()), plain.low, plain.high, n_singers),
        ("", "balanced_accuracy", fair.mean, fair.low, fair.high, n_singers),
        ("", "macro_f1", macro_f1(labels, guesses), np.nan, np.nan, n_singers),
    ]
    for name in np.asarray(classes).tolist():
        own = labels == name
        if own.any():
            hits = pd.Series(guesses[own] == name).groupby(singers[own]).mean()
            band = t_interval(hits.to_numpy())
            value = float((guesses[own] == name).mean())
            rows.append((name, "recall", value, band.low, band.high, int(own.sum())))
    return pd.DataFrame(rows, columns=["technique", "metric", "value", "ci_low", "ci_high", "n"])


def singer_scores(labels: np.ndarray, guesses: np.ndarray, singers: np.ndarray) -> pd.DataFrame:
    """One accuracy and one balanced accuracy per singer (columns singer, accuracy, ...), sorted.

    Balanced accuracy of a singer is the mean recall over the techniques that the singer sings.
    """
    table = pd.DataFrame({"singer": singers, "label": labels, "hit": labels == guesses})
    recall = table.groupby(["singer", "label"], sort=True)["hit"].mean()
    return pd.DataFrame(
        {
            "accuracy": table.groupby("singer")["hit"].mean(),
            "balanced_accuracy": recall.groupby("singer").mean(),
            "n": table.groupby("singer")["hit"].size(),
        }
    ).reset_index()


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
