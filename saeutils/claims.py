"""The two claims as paired contrasts: one difference per singer, decided by rules fixed beforehand.

Rows of the tables produced here say how large a difference is, how sure that is over singers, how
much it moves with the seed, and, where a margin applies, whether the claim counts as kept. Claim 2
adds the k-curves of all representations: attributes count by cluster of near-copies, and only those
that at least one representation can read. Shape letters: K seeds, S singers, C contrasts, A
attributes.

Source: estimands and margins stand in `saeutils.protocol`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from saeutils.curves import allowed_k, area, cluster_weights, k90, k_curve
from saeutils.protocol import R2_FLOOR
from saeutils.statistics import (
    average_seeds,
    max_t_band,
    non_inferiority,
    sign_flip_p,
    t_interval,
)

CELL = ["representation", "sparsity", "seed"]
LINEAR = ("raw", "whitened_pca", "ica")


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
        value, ci_low, ci_high, n (singers), seed_sd (of the difference, see `seed_spread`),
        n_seeds, p_sign_flip, lower_bound, kept (1.0, 0.0, or NaN without margin or with fewer than
        two singers).

    Raises
    ------
    ValueError
        The two hold different singers.
    """
    singers = difference_singers(new_KS, reference_KS)
    difference = _per_singer(new_KS[singers]) - _per_singer(reference_KS[singers])
    interval = t_interval(difference)
    decision = non_inferiority(difference, margin if margin else 1.0)
    decided = margin is not None and decision.n >= 2
    return {
        "value": interval.mean,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "n": interval.n,
        "seed_sd": seed_spread(new_KS.mean(axis=1), reference_KS.mean(axis=1)),
        "n_seeds": len(new_KS),
        "p_sign_flip": sign_flip_p(difference),
        "lower_bound": decision.lower_bound,
        "kept": float(decision.kept) if decided else np.nan,
    }


def seed_spread(new_K: pd.Series, reference_K: pd.Series) -> float:
    """SD over seeds of new minus reference, seed by seed; of new alone where the other has one.

    Parameters
    ----------
    new_K, reference_K
        One score per seed, indexed by seed. Seeds that one side lacks are left out.

    Returns
    -------
    float
        NaN for fewer than two seeds.

    Examples
    --------
    >>> new = pd.Series([0.5, 0.7, 0.6])
    >>> round(seed_spread(new, pd.Series([0.4])), 6), round(seed_spread(new, new - 0.1), 6)
    (0.1, 0.0)
    """
    if len(reference_K) == 1:
        return float(new_K.std())
    return float((new_K - reference_K).std())


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


def k_curve_cell(codes_NF: np.ndarray, cell, names: list[str], **arguments) -> pd.DataFrame:
    """The k-curve of one representation as a long table.

    Parameters
    ----------
    names
        Attribute names.
    arguments
        Of `saeutils.curves.k_curve`: ``attributes_NA, train, test, singers, exercises, folds``.

    Returns
    -------
    DataFrame
        Columns split, attribute, singer, codes, metric, value. Metrics with ``codes`` > 0:
        r2_held_out, r2_within_singer, of all clips and of each singer
        (`saeutils.disentanglement.singer_r2`); with 0: ridge, ridge_inner, inner_area (of the
        linear bases that are chosen between, else NaN) and, with a singer, area and area_within
        (that singer's share of the area under the curve).

    Raises
    ------
    ValueError
        Too few training clips for a curve (`saeutils.curves.allowed_k`).
    """
    n_train = len(arguments["train"])
    k_values = allowed_k(n_train)
    if not k_values:
        raise ValueError(f"{n_train} training clips are too few for a k-curve: see allowed_k")
    # the best linear basis is chosen within training singers; SAE and twin are not chosen between
    found = k_curve(codes_NF, k_values=k_values, inner_curve=cell.representation in LINEAR,
                    **arguments)
    parts = []
    for metric, pooled, single, whole in (
            ("r2_held_out", found.r2, found.by_singer, "area"),
            ("r2_within_singer", found.r2_within, found.by_singer_within, "area_within")):
        parts += [_rows(metric, k_values, [""], names, pooled[:, None]),
                  _rows(metric, k_values, found.singers, names, single),
                  _rows(whole, [0], found.singers, names, area(single, k_values)[None])]
    parts += [_rows(metric, [0], [""], names, getattr(found, metric)[None, None])
              for metric in ("ridge", "ridge_inner", "inner_area")]
    return pd.concat(parts, ignore_index=True).assign(split="unseen")


def _rows(metric: str, codes, singers, names: list[str], values_KSA: np.ndarray) -> pd.DataFrame:
    n_codes, n_singers, n_names = values_KSA.shape
    return pd.DataFrame({
        "attribute": np.tile(names, n_codes * n_singers),
        "codes": np.repeat(np.asarray(codes, dtype=int), n_singers * n_names),
        "metric": metric, "value": values_KSA.ravel(),
        "singer": np.tile(np.repeat([str(name) for name in singers], n_names), n_codes)})


def readable(table: pd.DataFrame, names: list[str], floor: float = R2_FLOOR) -> np.ndarray:
    """Attributes that at least one representation predicts with an inner R2 of at least ``floor``.

    Decided by ridge regression cross-validated within the training singers, so neither the unseen
    singers nor the side that is compared decide it. Where none reaches the floor, the best-read
    one stands in. Returns bool [A].
    """
    inner = table[table["metric"] == "ridge_inner"].groupby("attribute")["value"].max()
    best = inner.reindex(names).to_numpy(dtype=float)
    if np.isnan(best).all():
        raise ValueError("no attribute varies on the training clips: nothing can be read")
    reached = best >= floor
    return reached if reached.any() else best == np.nanmax(best)


def ceiling(table: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Common ceiling of R2 per attribute, [A]: ridge on all codes of the representation that the
    training singers prefer, scored on unseen singers."""
    wide = table[table["metric"].isin(["ridge", "ridge_inner"])].copy()
    wide["cell"] = wide[CELL].astype(str).agg("|".join, axis=1)
    inner, unseen = (
        wide[wide["metric"] == metric].pivot(index="cell", columns="attribute", values="value")
        for metric in ("ridge_inner", "ridge")
    )
    best = inner[names].fillna(-np.inf).to_numpy().argmax(axis=0)
    return unseen[names].to_numpy()[best, np.arange(len(names))]


def summarise_curves(
    table: pd.DataFrame, names: list[str], clusters: np.ndarray, use: np.ndarray
) -> pd.DataFrame:
    """Curve, area and K90 per cell, averaged over clusters of readable attributes.

    Returns
    -------
    DataFrame
        Columns of `CELL`, codes, metric, value, n (clusters). Metrics: r2_held_out and
        r2_within_singer by number of codes, area, ridge, k90 (median over clusters; inf when most
        clusters never reach the ceiling), k90_censored (share of clusters that do not).
    """
    weights = cluster_weights(clusters, use)
    top = ceiling(table, names)
    n = len(np.unique(np.asarray(clusters)[use]))
    rows = []
    for key, part in table[table["singer"] == ""].groupby(CELL, dropna=False, sort=False):
        for metric in ("r2_held_out", "r2_within_singer"):
            curve = part[part["metric"] == metric].pivot(
                index="codes", columns="attribute", values="value")[names]
            values = np.nan_to_num(curve.to_numpy()) @ weights
            rows += [(*key, int(k), metric, v) for k, v in zip(curve.index, values, strict=True)]
            if metric == "r2_held_out":
                rows.append((*key, 0, "area", area(values, curve.index)))
                reach = k90(curve.to_numpy(), top, curve.index)
                rows.append((*key, 0, "k90", weighted_median(reach[use], weights[use])))
                lost = weights[use & ~np.isfinite(reach)].sum()
                rows.append((*key, 0, "k90_censored", lost))
        ridge = part[part["metric"] == "ridge"].set_index("attribute")["value"].reindex(names)
        rows.append((*key, 0, "ridge", np.nan_to_num(ridge.to_numpy()) @ weights))
    return pd.DataFrame(rows, columns=[*CELL, "codes", "metric", "value"]).assign(n=n)


def best_linear(table: pd.DataFrame, names: list[str], weights: np.ndarray) -> str:
    """Which of raw, whitened PCA and ICA reads best within the training singers (inner area)."""
    part = table[(table["metric"] == "inner_area") & table["representation"].isin(LINEAR)]
    wide = part.pivot_table(index="representation", columns="attribute", values="value")
    wide = wide.reindex(columns=names)  # an attribute that never varies has no score
    return str((wide.fillna(0) @ weights).idxmax())


def reading_contrasts(
    table: pd.DataFrame, names: list[str], clusters: np.ndarray, use: np.ndarray,
    metric: str = "area",
) -> pd.DataFrame:
    """Area under R2(k), one per singer: SAE minus the best linear basis, and minus its twin.

    `metric` is "area" or, without credit for knowing who sings which exercise, "area_within"
    (of those attributes that vary within singer and exercise).

    Returns
    -------
    DataFrame
        As `contrast_table`, with columns contrast (against_linear, learned), reference (the
        representation subtracted) and k_max (codes that a curve may use at most).
    """
    part = table[table["metric"] == metric]
    weights = scored_weights(part, names, clusters, use)
    scores = weighted_scores(part, names, weights, [*CELL, "singer"])
    linear = best_linear(table, names, weights)
    base = singer_matrix(scores, representation=linear)
    steps = sorted(scores.loc[scores["representation"] == "sae", "sparsity"].unique())
    tables = []
    for name in ("against_linear", "learned"):
        pairs = {
            s: (singer_matrix(scores, representation="sae", sparsity=s),
                base if name == "against_linear"
                else singer_matrix(scores, representation="random", sparsity=s))
            for s in steps
        }
        reference = linear if name == "against_linear" else "random"
        tables.append(contrast_table(pairs).assign(contrast=name, reference=reference))
    return pd.concat(tables, ignore_index=True).assign(k_max=int(table["codes"].max()))


def scored_weights(
    part: pd.DataFrame, names: list[str], clusters: np.ndarray, use: np.ndarray
) -> np.ndarray:
    """`saeutils.curves.cluster_weights` of those used attributes that have a score in ``part``."""
    scored = part.groupby("attribute")["value"].count()
    return cluster_weights(clusters, use & (scored.reindex(names).to_numpy() > 0))


def weighted_scores(
    part: pd.DataFrame, names: list[str], weights: np.ndarray, by: list[str]
) -> pd.DataFrame:
    """Weighted mean over attributes of the column value, one row per combination of ``by``."""
    weight = part["attribute"].map(dict(zip(names, weights, strict=True)))
    part = part[weight > 0].assign(value=part["value"] * weight)
    return part.groupby(by, dropna=False, as_index=False)["value"].sum()


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Smallest value at which half of the weight is reached; NaN entries are left out.

    Examples
    --------
    >>> weighted_median(np.array([1.0, 5.0, np.inf]), np.array([0.2, 0.4, 0.4]))
    5.0
    """
    known = ~np.isnan(values)
    if not known.any():
        return float("nan")
    order = np.argsort(values[known])
    total = np.cumsum(weights[known][order])
    return float(values[known][order][np.searchsorted(total, total[-1] / 2)])
