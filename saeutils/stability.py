"""Do two SAEs that differ in their seed find the same latents?

Latents are matched one to one (Hungarian) by the cosine of their decoder directions or by the
correlation of their codes on clips that neither was trained on. The null is a pair of untrained
dictionaries matched the same way: with hundreds of candidates the best match of a random direction
is far from zero. Shape letters: N clips, D width of the states, F latents.

Source: Fel et al. (2025) for Hungarian-matched decoder cosine; Munkres (1957).
"""

from __future__ import annotations

import numpy as np


def match_latents(similarity_FG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match rows to columns one to one so that the summed similarity is largest.

    Parameters
    ----------
    similarity_FG
        Similarity of each latent of one SAE with each of another, finite.

    Returns
    -------
    partner, value
        For each row its column (-1 where there are fewer columns than rows) and the similarity
        (NaN there).

    Examples
    --------
    >>> partner, value = match_latents(np.array([[0.9, 0.8], [0.85, 0.1]]))
    >>> partner.tolist(), value.tolist()
    ([1, 0], [0.8, 0.85])
    """
    from scipy.optimize import linear_sum_assignment

    similarity = np.asarray(similarity_FG, dtype=float)
    if similarity.ndim != 2 or not np.isfinite(similarity).all():
        raise ValueError(f"similarity of shape {similarity.shape} must be a finite matrix")
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    partner = np.full(len(similarity), -1)
    value = np.full(len(similarity), np.nan)
    partner[rows], value[rows] = columns, similarity[rows, columns]
    return partner, value


def decoder_cosine(first_FD: np.ndarray, second_FD: np.ndarray) -> np.ndarray:
    """Cosine of every decoder direction with every other, shape [F, G]; 0 for a zero direction.

    Examples
    --------
    >>> decoder_cosine(np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 3.0]])).tolist()
    [[1.0, 0.0]]
    """
    return _unit(first_FD) @ _unit(second_FD).T


def code_correlation(first_NF: np.ndarray, second_NG: np.ndarray) -> np.ndarray:
    """Pearson correlation of codes over clips, shape [F, G]; 0 for a code that never changes.

    Use clips on which neither SAE was trained.
    """
    first, second = np.asarray(first_NF, dtype=float), np.asarray(second_NG, dtype=float)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} clips: codes must share their clips")
    return _unit((first - first.mean(axis=0)).T) @ _unit((second - second.mean(axis=0)).T).T


def stability(
    decoders: list[np.ndarray], codes: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Mean matched similarity of each latent of the first SAE with all other seeds.

    Parameters
    ----------
    decoders
        Decoder matrices [F, D], one per seed (at least two).
    codes
        Codes [N, F] of the same held-out clips, one per seed.

    Returns
    -------
    dict
        ``decoder_cosine`` and ``code_correlation``, each of shape [F]; latents of the first seed
        that never fire on the clips are NaN in both: nothing is known of them.
    """
    if len(decoders) < 2 or len(decoders) != len(codes):
        raise ValueError(f"{len(decoders)} decoders and {len(codes)} codes: 2 or more of each")
    fires = (np.asarray(codes[0]) != 0).any(axis=0)
    result = {}
    for name, function, parts in (
        ("decoder_cosine", decoder_cosine, decoders),
        ("code_correlation", code_correlation, codes),
    ):
        values = [match_latents(function(parts[0], other))[1] for other in parts[1:]]
        result[name] = np.where(fires, np.mean(values, axis=0), np.nan)
    return result


def duplicate_share(decoder_FD: np.ndarray, cut: float = 0.9) -> float:
    """Share of latents with a decoder cosine above ``cut`` to another latent of the same SAE.

    Examples
    --------
    >>> duplicate_share(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]]))
    0.5
    """
    cosine = decoder_cosine(decoder_FD, decoder_FD)
    np.fill_diagonal(cosine, -1.0)
    return float((cosine.max(axis=1) > cut).mean())


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=float)
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(size > 1e-12, size, np.inf)
