"""Scores of an importance map: completeness, effective codes, disentanglement.

All take weights of shape [A, F] (A attributes, F codes) and look at absolute values. "released"
settings repeat the published arithmetic, its traps included, so that their size can be measured.

Source: Eastwood & Williams (2018); the paper, section on disentanglement; audit A02, A03, A05, A23.
"""

from __future__ import annotations

import numpy as np


def completeness(
    weights_AF: np.ndarray, released: bool = True, n_codes: int | None = None
) -> np.ndarray:
    """``1 - H(weights over codes) / log(number of codes)`` per attribute, shape [A].

    Parameters
    ----------
    weights_AF
        Importance map, signed or absolute.
    released
        True: an attribute without any weight scores 1 (A03). False: it is NaN.
    n_codes
        Normaliser; the number of columns when not given (A02). Give one common number to compare
        representations of different width.

    Raises
    ------
    ValueError
        Fewer than two codes: the logarithm would be zero.

    Examples
    --------
    >>> completeness(np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])).tolist()
    [1.0, 0.0]
    """
    n_codes = np.shape(weights_AF)[1] if n_codes is None else n_codes
    if n_codes < 2:
        raise ValueError(f"completeness over {n_codes} codes is undefined: give at least 2")
    score = 1 - entropy(weights_AF) / np.log(n_codes)
    return np.where(np.isnan(score), 1.0, score) if released else score


def effective_codes(weights_AF: np.ndarray) -> np.ndarray:
    """``exp(H)``: the number of equally used codes with the same entropy, shape [A].

    Does not depend on the width of the representation. NaN for an attribute without weights.

    Examples
    --------
    >>> effective_codes(np.array([[2.0, 2.0, 0.0], [0.0, 0.0, 0.0]])).round(6).tolist()
    [2.0, nan]
    """
    return np.exp(entropy(weights_AF))


def disentanglement(weights_AF: np.ndarray) -> np.ndarray:
    """``1 - H(weights over attributes) / log(A)`` per code, shape [F]; NaN for unused codes."""
    n_attributes = np.shape(weights_AF)[0]
    if n_attributes < 2:
        raise ValueError(f"disentanglement over {n_attributes} attributes is undefined")
    return 1 - entropy(np.asarray(weights_AF).T) / np.log(n_attributes)


def average_disentanglement(weights_AF: np.ndarray, released: bool = False) -> float:
    """Disentanglement of the whole map: codes weighted by their share of all weights.

    Parameters
    ----------
    weights_AF
        Importance map.
    released
        True: the *mean* of importance times score is taken instead of the sum (A05), which
        divides the result by the number of codes.

    Examples
    --------
    >>> average_disentanglement(np.eye(4)), average_disentanglement(np.eye(4), released=True)
    (1.0, 0.25)
    """
    size = np.abs(np.asarray(weights_AF, dtype=float))
    if size.sum() == 0:
        return float("nan")
    share = size.sum(axis=0) / size.sum()
    parts = share * np.nan_to_num(disentanglement(size))
    return float(parts.mean() if released else parts.sum())


def entropy(weights: np.ndarray) -> np.ndarray:
    """Entropy in nats of each row's absolute weights, normalised to sum 1; NaN for an empty row."""
    size = np.abs(np.asarray(weights, dtype=float))
    total = size.sum(axis=1, keepdims=True)
    share = size / np.where(total > 0, total, np.nan)
    logs = np.log(np.where(share > 0, share, 1.0))
    result = -(np.where(share > 0, share, 0.0) * logs).sum(axis=1)
    return np.where(total[:, 0] > 0, np.clip(result, 0.0, None), np.nan)


def histogram_entropy(values_NA: np.ndarray, bins: int = 10) -> np.ndarray:
    """Entropy in bits of each attribute over equal-width bins, shape [A] (the paper's x axis, A23).

    A single outlier stretches the range, leaves all other clips in one bin and lowers the entropy:
    the axis measures tails. Constant attributes score 0.

    Examples
    --------
    >>> histogram_entropy(np.array([[0.0], [1.0], [0.0], [1.0]])).tolist()
    [1.0]
    """
    values = np.asarray(values_NA, dtype=float)
    result = np.zeros(values.shape[1])
    for column in range(values.shape[1]):
        if np.ptp(values[:, column]) > 0:
            count, _ = np.histogram(values[:, column], bins=bins)
            result[column] = entropy(count[None, :])[0] / np.log(2)
    return result


def top_attributes(r2: np.ndarray, n_top: int = 10) -> np.ndarray:
    """Indices of the attributes of highest R2, best first; ties by position, NaN last (A04)."""
    return np.argsort(-np.where(np.isnan(r2), -np.inf, r2), kind="stable")[:n_top]


def group_counts(
    names: list[str], groups: dict[str, str], chosen: np.ndarray
) -> dict[str, tuple[int, float]]:
    """How many chosen attributes fall in each group, beside the count expected by group size.

    Parameters
    ----------
    names
        Attribute names, length A.
    groups
        Group of each attribute name.
    chosen
        Indices into `names`.

    Returns
    -------
    dict
        Group -> (count, expected count under a random choice). Formants are 18 of 88 attributes
        and rhythm 5: bare counts favour large groups.

    Examples
    --------
    >>> group_counts(["f0", "hnr"], {"f0": "pitch", "hnr": "voice"}, np.array([0]))
    {'pitch': (1, 0.5), 'voice': (0, 0.5)}
    """
    missing = [name for name in names if name not in groups]
    if missing:
        raise ValueError(f"attribute {missing[0]!r} has no group; see saeutils.attributes")
    hits = [groups[names[index]] for index in chosen]
    members = [groups[name] for name in names]
    return {
        group: (hits.count(group), len(hits) * members.count(group) / len(names))
        for group in dict.fromkeys(members)
    }
