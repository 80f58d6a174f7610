"""What an SAE keeps and how it spends its latents: pure functions on arrays.

Shape letters: N rows, D width, F latents. Sums run in float64, so that a large common offset of
the activations does not eat the digits.
"""

from __future__ import annotations

import numpy as np


def mse(acts_ND: np.ndarray, recon_ND: np.ndarray) -> float:
    """Mean squared error over all rows and dimensions: a mean over rows, not over batches.

    Examples
    --------
    >>> mse(np.array([[1., 2.]]), np.array([[1., 4.]]))
    2.0
    """
    acts_ND, recon_ND = _pair(acts_ND, recon_ND)
    return float(np.mean((acts_ND - recon_ND) ** 2))


def fvu(acts_ND: np.ndarray, recon_ND: np.ndarray) -> float:
    """Fraction of variance unexplained: 0 is perfect, 1 is no better than the mean row.

    ``sum((x - x_hat)^2) / sum((x - mean(x))^2)``, sums over rows and dimensions, the mean taken
    per dimension over these rows. NaN if the rows vary by no more than rounding. Source: the
    measure of Gao et al. 2024 (arXiv 2406.04093), with the variance of the rows in place of their
    power.

    Examples
    --------
    >>> rows = np.array([[1., 0.], [3., 0.]])
    >>> fvu(rows, rows), fvu(rows, np.array([[2., 0.], [2., 0.]]))
    (0.0, 1.0)
    """
    acts_ND, recon_ND = _pair(acts_ND, recon_ND)
    total = float(np.sum((acts_ND - acts_ND.mean(axis=0)) ** 2))
    if total <= 1e-28 * float(np.sum(acts_ND**2)):
        return float("nan")
    return float(np.sum((acts_ND - recon_ND) ** 2)) / total


def explained_variance(acts_ND: np.ndarray, recon_ND: np.ndarray) -> float:
    """``1 - fvu``: 1 is perfect, 0 is the mean row, negative is worse than the mean row."""
    return 1.0 - fvu(acts_ND, recon_ND)


def cosine(acts_ND: np.ndarray, recon_ND: np.ndarray) -> float:
    """Mean cosine between rows and reconstructions; rows of norm zero are left out.

    Examples
    --------
    >>> cosine(np.array([[1., 0.], [0., 2.]]), np.array([[3., 0.], [1., 0.]]))
    0.5
    """
    acts_ND, recon_ND = _pair(acts_ND, recon_ND)
    norms_N = np.linalg.norm(acts_ND, axis=1) * np.linalg.norm(recon_ND, axis=1)
    rows_N = norms_N > 0
    if not rows_N.any():
        return float("nan")
    return float(np.mean(np.sum(acts_ND * recon_ND, axis=1)[rows_N] / norms_N[rows_N]))


def shrinkage(acts_ND: np.ndarray, recon_ND: np.ndarray) -> float:
    """Norm of the reconstruction over norm of the row, both around the mean row; mean over rows.

    1 is none, below 1 the reconstruction is too short (as under an L1 penalty). Source: Wright
    and Sharkey 2024, "Addressing feature suppression in SAEs"; centring is ours, without it a
    common offset hides the effect.
    """
    acts_ND, recon_ND = _pair(acts_ND, recon_ND)
    mean_D = acts_ND.mean(axis=0)
    lengths_N = np.linalg.norm(acts_ND - mean_D, axis=1)
    rows_N = lengths_N > 0
    if not rows_N.any():
        return float("nan")
    return float(np.mean(np.linalg.norm(recon_ND - mean_D, axis=1)[rows_N] / lengths_N[rows_N]))


def l0(codes_NF: np.ndarray) -> float:
    """Mean number of latents above zero in a row.

    Examples
    --------
    >>> l0(np.array([[0., 1., 2.], [0., 0., 3.]]))
    1.5
    """
    codes_NF = _codes(codes_NF)
    return float(np.mean(np.count_nonzero(codes_NF, axis=1)))


def density(codes_NF: np.ndarray) -> np.ndarray:
    """Share of the rows in which each latent fires, [F], 0 to 1.

    Examples
    --------
    >>> density(np.array([[0., 1.], [0., 2.]]))
    array([0., 1.])
    """
    codes_NF = _codes(codes_NF)
    return np.count_nonzero(codes_NF, axis=0) / len(codes_NF)


def dead_fraction(codes_NF: np.ndarray) -> float:
    """Share of the latents that fire on none of these rows.

    It depends on the rows: N rows with k codes each can wake at most N*k latents.
    """
    return float(np.mean(density(codes_NF) == 0))


def dense_fraction(codes_NF: np.ndarray, above: float = 0.5) -> float:
    """Share of the latents that fire on more than `above` of the rows."""
    return float(np.mean(density(codes_NF) > above))


def effective_latents(codes_NF: np.ndarray) -> float:
    """exp(entropy) of the latents' shares of all firings: how many are used, counted evenly.

    Examples
    --------
    >>> round(effective_latents(np.eye(4)), 6)
    4.0
    """
    shares_F = density(codes_NF)
    if not shares_F.any():
        return 0.0
    shares_F = shares_F[shares_F > 0] / shares_F.sum()
    return float(np.exp(-np.sum(shares_F * np.log(shares_F))))


def density_histogram(codes_NF: np.ndarray, bins: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Latents by log10 of their density.

    Returns
    -------
    counts, edges
        `bins` equal bins from log10(1/N) to 0. Dead latents are in no bin: the counts sum to
        the living ones.
    """
    shares_F = density(codes_NF)
    lowest = np.log10(1 / max(2, len(codes_NF)))
    return np.histogram(np.log10(shares_F[shares_F > 0]), bins=bins, range=(lowest - 1e-9, 0.0))


def decoder_coherence(dict_FD: np.ndarray) -> np.ndarray:
    """Largest absolute cosine of each direction with any other one, [F]; NaN for zero rows.

    Examples
    --------
    >>> decoder_coherence(np.array([[1., 0.], [0., 2.], [0., -1.]]))
    array([0., 1., 1.])
    """
    dict_FD = np.asarray(dict_FD, dtype=np.float64)
    norms_F = np.linalg.norm(dict_FD, axis=1)
    alive_F = norms_F > 0
    unit_AD = dict_FD[alive_F] / norms_F[alive_F, None]
    overlap_AA = np.abs(unit_AD @ unit_AD.T)
    np.fill_diagonal(overlap_AA, 0)
    largest_F = np.full(len(dict_FD), np.nan)
    largest_F[alive_F] = np.minimum(overlap_AA.max(axis=1, initial=0), 1)
    return largest_F


def near_duplicates(dict_FD: np.ndarray, above: float = 0.9) -> float:
    """Share of the directions whose cosine with another one exceeds `above` in absolute value."""
    coherence_F = decoder_coherence(dict_FD)
    coherence_F = coherence_F[np.isfinite(coherence_F)]
    return float(np.mean(coherence_F > above)) if coherence_F.size else float("nan")


def pca_bound(train_ND: np.ndarray, acts_ND: np.ndarray, components: int) -> float:
    """FVU of the best linear code with this many components, fitted on `train_ND`.

    An SAE with k active latents chooses k directions per row, PCA the same ones for all rows:
    an SAE above this line has learned less than a linear map of equal size knows.

    Raises
    ------
    ValueError
        Fewer than one component.
    """
    if components < 1:
        raise ValueError(f"{components} components: at least 1")
    train_ND = np.asarray(train_ND, dtype=np.float64)
    acts_ND = np.asarray(acts_ND, dtype=np.float64)
    mean_D = train_ND.mean(axis=0)
    _, axes_DD = np.linalg.eigh((train_ND - mean_D).T @ (train_ND - mean_D))
    basis_DK = axes_DD[:, ::-1][:, :components]
    return fvu(acts_ND, (acts_ND - mean_D) @ basis_DK @ basis_DK.T + mean_D)


def summary(sae, acts_ND: np.ndarray) -> dict[str, float]:
    """All numbers of one SAE on some rows: the metrics of results/sae_training.csv."""
    codes_NF = sae.encode(acts_ND)
    recon_ND = sae.decode(codes_NF)
    return {
        "fvu": fvu(acts_ND, recon_ND), "mse": mse(acts_ND, recon_ND), "l0": l0(codes_NF),
        "dead_fraction": dead_fraction(codes_NF), "dense_fraction": dense_fraction(codes_NF),
        "effective_latents": effective_latents(codes_NF), "cosine": cosine(acts_ND, recon_ND),
        "shrinkage": shrinkage(acts_ND, recon_ND),
    }


def _pair(acts_ND: np.ndarray, recon_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    acts_ND, recon_ND = np.asarray(acts_ND, np.float64), np.asarray(recon_ND, np.float64)
    if acts_ND.shape != recon_ND.shape or acts_ND.ndim != 2:
        raise ValueError(f"rows and reconstructions have shapes {acts_ND.shape} and "
                         f"{recon_ND.shape}: both must be [N, D]")
    if not len(acts_ND):
        raise ValueError("no rows: a metric needs at least one")
    return acts_ND, recon_ND


def _codes(codes_NF: np.ndarray) -> np.ndarray:
    codes_NF = np.asarray(codes_NF)
    if codes_NF.ndim != 2 or not len(codes_NF):
        raise ValueError(f"codes have shape {codes_NF.shape}: expected [N, F] with N at least 1")
    return codes_NF
