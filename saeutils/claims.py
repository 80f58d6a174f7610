"""The two claims as paired contrasts: one difference per singer, decided by rules fixed beforehand.

Rows of the tables produced here say how large a difference is, how sure that is over singers, how
much it moves with the seed, and, where a margin applies, whether the claim counts as kept. Shape
letters: K seeds, S singers, C contrasts.

Source: estimands and margins stand in `saeutils.protocol`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from saeutils.statistics import (
    average_seeds,
    max_t_band,
    non_inferiority,
    sign_flip_p,
    t_interval,
)


def singer_matrix(scores: pd.DataFrame, **where: object) -> pd.DataFrame:
    """Scores as a table of seeds (rows) by singers (columns).

    Parameters
    ----------
    scores
        Columns seed, singer, value and those named in ``where``; one row per seed and singer.
    where
        Values that select one cell, such as ``representation="sae", sparsity=95``.

    Raises
    ------
    ValueError
        Nothing is left, or a seed has two scores for a singer.

    Examples
    --------
    >>> table = pd.DataFrame({"seed": [0, 0], "singer": ["a", "b"], "value": [0.5, 0.7]})
    >>> singer_matrix(table).to_numpy().tolist()
    [[0.5, 0.7]]
    """
    part = scores
    for name, value in where.items():
        part = part[part[name] == value]
    if not len(part):
        raise ValueError(f"no scores with {where}: check layer, sparsity and split")
    if part.duplicated(["seed", "singer"]).any():
        raise ValueError(f"{where} selects several scores per seed and singer: name one cell")
    return part.pivot(index="seed", columns="singer", values="value")


def contrast(
    new_KS: pd.DataFrame, reference_KS: pd.DataFrame, margin: float | None = None
) -> dict[str, float]:
    """New minus reference: seeds averaged within singer, then an interval over singers.

    Parameters
    ----------
    new_KS, reference_KS
        From `singer_matrix`; they must name the same singers. Numbers of seeds may differ (raw
        states have one).
    margin
        Non-inferiority margin, in the unit of the scores; None: no decision.

    Returns
    -------
    dict
        value, ci_low, ci_high, n (singers), seed_sd, n_seeds, p_sign_flip, lower_bound, kept
        (1.0, 0.0, or NaN without margin or with fewer than two singers).

    Raises
    ------
    ValueError
        The two hold different singers.
    """
    singers = difference_singers(new_KS, reference_KS)
    difference = _per_singer(new_KS[singers]) - _per_singer(reference_KS[singers])
    interval = t_interval(difference)
    _, seed_sd = average_seeds(new_KS[singers].to_numpy())
    decision = non_inferiority(difference, margin if margin else 1.0)
    decided = margin is not None and decision.n >= 2
    return {
        "value": interval.mean,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "n": interval.n,
        "seed_sd": seed_sd,
        "n_seeds": len(new_KS),
        "p_sign_flip": sign_flip_p(difference),
        "lower_bound": decision.lower_bound,
        "kept": float(decision.kept) if decided else np.nan,
    }


def contrast_table(
    pairs: dict[float, tuple[pd.DataFrame, pd.DataFrame]], margin: float | None = None
) -> pd.DataFrame:
    """One `contrast` per entry (keyed by sparsity), with a simultaneous band over all of them.

    ``band_low`` and ``band_high`` cover all rows together (max-T over sign flips of singers): use
    them for anything but the one primary cell.
    """
    rows = [{"sparsity": key} | contrast(*pair, margin) for key, pair in pairs.items()]
    differences = np.stack([
        _per_singer(new[difference_singers(new, old)]) - _per_singer(old[sorted(old)])
        for new, old in pairs.values()
    ], axis=1)
    _, low, high = max_t_band(differences)
    return pd.DataFrame(rows).assign(band_low=low, band_high=high)


def difference_singers(new_KS: pd.DataFrame, reference_KS: pd.DataFrame) -> list[str]:
    """Singers of both tables, sorted; refused when they differ."""
    odd = set(new_KS).symmetric_difference(reference_KS)
    if odd:
        raise ValueError(f"singer {sorted(odd)[0]!r} has a score on one side only")
    return sorted(new_KS)


def _per_singer(scores_KS: pd.DataFrame) -> np.ndarray:
    return average_seeds(scores_KS.to_numpy())[0]
