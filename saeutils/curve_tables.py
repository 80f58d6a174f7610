"""Claim 2 in detail: k-curves with intervals over singers, and each attribute on its own.

The claim itself is one number per cell (`saeutils.claims`). Here stands what it is made of: the
curves, and for every attribute whether the SAE reads it better than its rivals, with bands that
hold for all attributes together. Shape letters: K seeds, S singers, A attributes.

Source: estimands stand in `saeutils.protocol`; bands as in `saeutils.statistics.max_t_band`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from saeutils.claims import (
    best_linear,
    scored_weights,
    seed_spread,
    singer_matrix,
    weighted_scores,
)
from saeutils.statistics import average_seeds, max_t_band, t_interval

CONTRASTS = ("against_linear", "learned")


def curves_over_singers(
    table: pd.DataFrame, names: list[str], clusters: np.ndarray, use: np.ndarray
) -> pd.DataFrame:
    """R2 by number of codes: one curve per singer, seeds averaged first, then a t interval.

    Parameters
    ----------
    table
        Labelled rows of `saeutils.claims.k_curve_cell`.
    names, clusters, use
        Attributes, their clusters, and those that count (`saeutils.claims.readable`).

    Returns
    -------
    DataFrame
        Columns representation, sparsity, codes, metric (r2_held_out, r2_within_singer), value,
        ci_low, ci_high, n (singers), seed_sd, n_seeds. Every singer counts once, so that the area
        under a curve is the number that claim 2 compares.
    """
    rows = []
    for metric in ("r2_held_out", "r2_within_singer"):
        part = table[(table["metric"] == metric) & (table["singer"] != "")]
        weights = scored_weights(part, names, clusters, use)
        cell = ["representation", "sparsity", "codes"]
        scores = weighted_scores(part, names, weights, [*cell, "seed", "singer"])
        for key, own in scores.groupby(cell, dropna=False, sort=False):
            singers, seed_sd = average_seeds(singer_matrix(own).to_numpy())
            interval = t_interval(singers)
            rows.append((*key, metric, interval.mean, interval.low, interval.high, interval.n,
                         seed_sd, own["seed"].nunique()))
    return pd.DataFrame(rows, columns=[*cell, "metric", "value", "ci_low", "ci_high", "n",
                                       "seed_sd", "n_seeds"])


def attribute_contrasts(
    table: pd.DataFrame, names: list[str], clusters: np.ndarray, use: np.ndarray, sparsity: float,
    metric: str = "area",
) -> pd.DataFrame:
    """Each readable attribute on its own: the SAE's area under R2(k) minus that of its rivals.

    Parameters
    ----------
    table, names, clusters, use
        As in `curves_over_singers`.
    sparsity
        The cell.
    metric
        "area" or "area_within".

    Returns
    -------
    DataFrame
        One row per attribute and contrast (against_linear: the basis of raw states, whitened PCA
        and ICA that the training singers prefer, the same for all attributes; learned: the
        untrained dictionary), with attribute, cluster, contrast, reference, value, ci_low,
        ci_high (t interval of this row alone), band_low, band_high (max-T over sign flips of
        singers, for all attributes of a contrast together), n (singers), seed_sd (of the
        difference, as `saeutils.claims.seed_spread`), n_seeds, verdict: better, worse or undecided,
        by the band.

    Raises
    ------
    ValueError
        No scores of this sparsity.
    """
    part = table[table["metric"] == metric]
    linear = best_linear(table, names, scored_weights(part, names, clusters, use))
    keep = np.asarray(use) & part.groupby("attribute")["value"].agg(
        lambda scores: scores.notna().all()).reindex(names, fill_value=False).to_numpy(dtype=bool)
    kept, cluster = np.array(names)[keep], np.asarray(clusters)[keep]
    parts = []
    for contrast, reference in zip(CONTRASTS, (linear, "random"), strict=True):
        sae, sae_KA = _by_attribute(part, kept, "sae", sparsity)
        rival, rival_KA = _by_attribute(part, kept, reference,
                                        np.nan if contrast == CONTRASTS[0] else sparsity)
        difference_SA = sae - rival
        seed_sd = [seed_spread(sae_KA[name], rival_KA[name]) for name in kept]
        mean, low, high = max_t_band(difference_SA)
        alone = [t_interval(column) for column in difference_SA.T]
        edge = 1e-9 * (high - low)  # a band that ends at zero but for rounding decides nothing
        parts.append(pd.DataFrame({
            "attribute": kept, "cluster": cluster, "contrast": contrast, "reference": reference,
            "value": mean, "ci_low": [one.low for one in alone],
            "ci_high": [one.high for one in alone], "band_low": low, "band_high": high,
            "n": len(difference_SA), "seed_sd": seed_sd, "n_seeds": len(sae_KA),
            "verdict": np.select([low > edge, high < -edge], ["better", "worse"], "undecided")}))
    return pd.concat(parts, ignore_index=True).assign(sparsity=sparsity, k_max=table["codes"].max())


def _by_attribute(part, names, representation, sparsity) -> tuple[np.ndarray, pd.DataFrame]:
    """Scores averaged over seeds, [S, A], and averaged over singers, by seed and attribute."""
    own = part[part["representation"] == representation]
    own = own[own["sparsity"].isna() if np.isnan(sparsity) else own["sparsity"] == sparsity]
    if own.empty:
        raise ValueError(f"no scores of {representation!r} at {sparsity:g} %")
    wide = own.pivot(index=["seed", "singer"], columns="attribute", values="value")[list(names)]
    n_seeds = own["seed"].nunique()
    scores_KSA = wide.sort_index().to_numpy().reshape(n_seeds, -1, len(names))
    each = [average_seeds(scores_KSA[:, :, a])[0] for a in range(len(names))]
    return np.stack(each, axis=1), wide.groupby(level="seed").mean()


def verdict_counts(contrasts: pd.DataFrame) -> pd.DataFrame:
    """How many attributes, and in how many clusters, are better, worse, undecided.

    Parameters
    ----------
    contrasts
        From `attribute_contrasts`.

    Returns
    -------
    DataFrame
        Index contrast; columns reference, better, worse, undecided (attributes), attributes,
        clusters.
    """
    rows = []
    for name, part in contrasts.groupby("contrast", sort=False):
        count = part["verdict"].value_counts()
        rows.append({"contrast": name, "reference": part["reference"].iloc[0]}
                    | {word: int(count.get(word, 0)) for word in ("better", "worse", "undecided")}
                    | {"attributes": len(part), "clusters": part["cluster"].nunique()})
    return pd.DataFrame(rows).set_index("contrast")


def verdict_sentence(contrasts: pd.DataFrame) -> str:
    """`verdict_counts` in a sentence."""
    from saeutils.claim_sentences import LINEAR

    said = LINEAR | {"random": "an untrained dictionary"}
    counts = verdict_counts(contrasts)
    parts = [f"against {said.get(row.reference, row.reference)} **{row.better} better, "
             f"{row.worse} worse** ({row.undecided} undecided)" for row in counts.itertuples()]
    first, n = counts.iloc[0], contrasts["n"].iloc[0]
    if n < 2:
        return f"{first['attributes']} readable attributes, {n} unseen singer: none is decided."
    return (f"SAE codes at {contrasts['sparsity'].iloc[0]:g} % read, of {first['attributes']} "
            f"readable attributes in {first['clusters']} clusters, " + ", and ".join(parts)
            + f"; {n} unseen singers, bands for all attributes of a comparison together.")


def undecided_reading(n_train: int, n: int, sparsity: float) -> pd.DataFrame:
    """Claim 2 where training clips are too few for any k-curve: rows without a value.

    Parameters
    ----------
    n_train, n
        Training clips, and unseen singers.
    sparsity
        The cell.

    Returns
    -------
    DataFrame
        The columns of `saeutils.claims.reading_contrasts`, one row per contrast, with k_max 0.

    Examples
    --------
    >>> undecided_reading(12, 3, 95)[["contrast", "n_train", "k_max"]].values.tolist()
    [['against_linear', 12, 0], ['learned', 12, 0]]
    """
    nothing = dict.fromkeys(("value", "ci_low", "ci_high", "seed_sd", "p_sign_flip", "lower_bound",
                             "kept", "band_low", "band_high"), np.nan)
    return pd.DataFrame([{"sparsity": sparsity, **nothing, "n": n, "n_seeds": 0, "contrast": name,
                          "reference": reference, "k_max": 0, "n_train": n_train}
                         for name, reference in zip(CONTRASTS, ("raw", "random"), strict=True)])
