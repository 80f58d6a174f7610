"""Is one code enough? SAP for known causes, and which codes of an SAE come back with another seed.

Shape letters: N clips, F codes, Q causes.

Source: SAP of Kumar, Sattigeri & Balakrishnan (2018), in its form for continuous factors.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from saeutils.lasso import standardise
from saeutils.protocol import PLACEBO_QUANTILE
from saeutils.stability import stability


def sap_scores(codes_NF: np.ndarray, causes_NQ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Separated attribute predictability: how far the best single code is ahead of the second.

    ``SAP = r2(best code) - r2(second best)``, where r2 is the squared correlation, the share of the
    cause's variance that one code predicts linearly. Two copies of one code score 0, however well
    they predict.

    Parameters
    ----------
    codes_NF, causes_NQ
        Codes and causes of the same clips, finite; at least two codes.

    Returns
    -------
    sap, best
        SAP and the squared correlation of the best code, both of shape [Q]; NaN for a constant
        cause.

    Raises
    ------
    ValueError
        Tables of different length, or fewer than two codes.

    Examples
    --------
    >>> cause = np.array([[1.0], [2.0], [3.0], [4.0]])
    >>> other = np.array([[1.0], [-1.0], [-1.0], [1.0]])
    >>> [float(part[0].round(6)) for part in sap_scores(np.hstack([cause, other]), cause)]
    [1.0, 1.0]
    """
    codes, causes = np.asarray(codes_NF, dtype=float), np.asarray(causes_NQ, dtype=float)
    if len(codes) != len(causes):
        raise ValueError(f"{len(codes)} rows of codes, {len(causes)} of causes: same clips, please")
    if codes.shape[1] < 2:
        raise ValueError(f"{codes.shape[1]} codes: SAP compares the best with the second best")
    squared_QF = (standardise(causes)[0].T @ standardise(codes)[0] / len(codes)) ** 2
    second, best = np.sort(squared_QF, axis=1)[:, -2:].T
    moves = np.ptp(causes, axis=0) > 0
    return np.where(moves, best - second, np.nan), np.where(moves, best, np.nan)


def stable_latents(
    decoders: list[np.ndarray], codes: list[np.ndarray],
    *nulls: tuple[list[np.ndarray], list[np.ndarray]],
) -> tuple[pd.DataFrame, list[int]]:
    """Which latents of the first seed are found again by the other seeds.

    A latent is stable if its matched decoder cosine *and* its matched code correlation lie above
    the 95th percentile of what every null reaches by luck: untrained dictionaries of equal width
    and k, and SAEs of permuted states.

    Parameters
    ----------
    decoders, codes
        Decoder matrices [F, D] and codes [N, F] of clips that no dictionary was trained on, one
        per seed.
    nulls
        The same two lists of each null; at least one null.

    Returns
    -------
    table, lucky
        One row per latent of the first seed: latent, decoder_cosine, code_correlation, stable
        (False where it never fires: nothing is known of it), and the two thresholds as columns
        cosine_by_luck, correlation_by_luck: the highest of all nulls. And how many latents of each
        null pass the same bars.

    Raises
    ------
    ValueError
        No null, or fewer than two seeds of a side.
    """
    if not nulls:
        raise ValueError("0 nulls: without one nothing says what luck reaches")
    found, luck = stability(decoders, codes), [stability(*null) for null in nulls]
    bars = {name: _bar([one[name] for one in luck]) for name in found}
    stable, *lucky = (np.logical_and.reduce([one[name] > bars[name] for name in bars])
                      for one in (found, *luck))
    return pd.DataFrame({
        "latent": np.arange(len(stable)), **found, "stable": stable,
        "cosine_by_luck": bars["decoder_cosine"],
        "correlation_by_luck": bars["code_correlation"]}), [int(part.sum()) for part in lucky]


def _bar(nulls: list[np.ndarray]) -> float:
    """The highest 95th percentile of all nulls; NaN where no latent of any null fires."""
    known = [values[np.isfinite(values)] for values in nulls]
    return max((float(np.quantile(values, PLACEBO_QUANTILE)) for values in known if len(values)),
               default=float("nan"))
