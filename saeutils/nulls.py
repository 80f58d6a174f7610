"""Nulls: what the numbers are when there is nothing to find. Each answers one question.

Untrained dictionaries ("is it learned?") stand in `saeutils.representations`. Here: pure-noise
codes ("what does the score do by itself?"), attributes shuffled within singer and exercise ("is
there a map of clips, beyond singer and exercise?") or freely ("what does a score in sample reach
when there is nothing to find?"), and states permuted column by column ("would seeds agree without
any structure?"). Shape letters: N clips, F codes, D width of the states.
"""

from __future__ import annotations

import numpy as np


def noise_codes(n_clips: int, width: int, k: int | None, seed: int) -> np.ndarray:
    """Codes without any relation to the clips, with uneven firing rates as SAE codes have.

    Parameters
    ----------
    n_clips, width
        Shape of the result.
    k
        Latents kept per clip; None: dense normal noise, as a stand-in for raw states.
    seed
        Of the draw.

    Returns
    -------
    ndarray
        float32 [N, F], non-negative and at most k per row unless dense.

    Raises
    ------
    ValueError
        ``k`` below 1 or above ``width``.

    Examples
    --------
    >>> codes = noise_codes(50, 40, 4, seed=0)
    >>> int((codes > 0).sum(axis=1).max()), bool((codes >= 0).all())
    (4, True)
    """
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n_clips, width)).astype(np.float32)
    if k is None:
        return values
    if not 1 <= k <= width:
        raise ValueError(f"k = {k}: TopK of {width} latents keeps 1 to {width}")
    values += rng.standard_normal(width).astype(np.float32)
    from saeutils.sae import keep_largest

    return keep_largest(np.maximum(values, 0), k)


def shuffle_within(rows: np.ndarray, keys: np.ndarray, seed: int) -> np.ndarray:
    """A permutation that moves entries only among equal keys, for rows of clips.

    Parameters
    ----------
    rows
        Row numbers to permute, shape [M].
    keys
        Key of each row (singer and exercise), shape [M].
    seed
        Of the draw.

    Returns
    -------
    ndarray
        ``rows`` with entries of equal key exchanged, shape [M].

    Examples
    --------
    >>> shuffle_within(np.array([5, 6, 7]), np.array(["a", "b", "a"]), 0)[1]
    np.int64(6)
    """
    rows, keys = np.asarray(rows), np.asarray(keys)
    if len(rows) != len(keys):
        raise ValueError(f"{len(rows)} rows but {len(keys)} keys: give one key per row")
    rng = np.random.default_rng(seed)
    result = rows.copy()
    for key in np.unique(keys):
        own = np.flatnonzero(keys == key)
        result[own] = rows[rng.permutation(own)]
    return result


def permute_columns(states_ND: np.ndarray, seed: int) -> np.ndarray:
    """Each column permuted over the clips by itself: the same marginals, no structure.

    Every value keeps its place among the values of its dimension; what two dimensions have in
    common, and so every direction that a dictionary could find, is gone.

    Parameters
    ----------
    states_ND
        States of clips.
    seed
        Of the draw.

    Examples
    --------
    >>> moved = permute_columns(np.arange(6.0).reshape(3, 2), 0)
    >>> np.sort(moved, axis=0).tolist()
    [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    """
    return np.random.default_rng(seed).permuted(np.asarray(states_ND), axis=0)
