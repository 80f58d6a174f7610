"""The audit measured: each switch turned alone, from the released and from the corrected end.

`map_numbers` computes what the paper reports under any setting of the switches that act on maps;
`turn_each` turns them one at a time. `audit_row` is the one form in which every stage records an
effect, and `complete_audit` makes sure that all 32 entries are there, measured or not. Shape
letters: N clips, F codes, A attributes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from saeutils.completeness import (
    average_disentanglement,
    completeness,
    histogram_entropy,
    top_attributes,
)
from saeutils.disentanglement import live_codes, r2_score, rank_normalise
from saeutils.lasso import lasso, standardise
from saeutils.protocol import ENTRIES, Protocol, find_entry
from saeutils.statistics import grouped_folds, t_interval

# The number that each map switch is there to move.
QUANTITIES = {
    "A01": "r2", "A02": "completeness_gap", "A03": "completeness", "A04": "completeness_gap",
    "A05": "disentanglement", "A17": "r2", "A21": "pitch_among_top", "A22": "completeness",
    "A23": "entropy_slope", "A24": "completeness_gap", "A31": "clusters_among_top",
}
MEANING = {
    "r2": "R² of the SAE's chosen attributes", "completeness": "completeness of the SAE",
    "completeness_gap": "completeness of the SAE minus that of its reference",
    "disentanglement": "average disentanglement of the SAE",
    "pitch_among_top": "attributes counted as pitch among the chosen",
    "clusters_among_top": "different clusters among the chosen attributes",
    "entropy_slope": "rank correlation of completeness and entropy, net of what is shown beside",
}
ALPHAS = (0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Material:
    """What the map switches need: clips, attributes and who was heard where.

    Attributes
    ----------
    attributes
        Shape [N, A], with ``names``, and their groups as released and as corrected.
    train, test, unseen
        Row numbers: training singers, the released test clips, all unseen singers.
    singers, sexes
        Shape [N].
    clusters
        Cluster number of each attribute (`saeutils.disentanglement.attribute_clusters`).
    width
        Common normaliser of completeness.
    alpha, n_top
        Released penalty and number of attributes averaged.
    """

    attributes: np.ndarray
    names: list[str]
    groups_released: dict[str, str]
    groups_corrected: dict[str, str]
    train: np.ndarray
    test: np.ndarray
    unseen: np.ndarray
    singers: np.ndarray
    sexes: np.ndarray
    clusters: np.ndarray
    width: int
    alpha: float = 0.1
    n_top: int = 10


def fit_map(codes_NF: np.ndarray, protocol: Protocol, material: Material):
    """Weights [A, F] and R2 [A] of one representation, under A01, A17 and A22."""
    held_out = protocol.corrects("A01")
    rows = material.train if held_out else material.test
    scored = material.unseen if held_out else material.test
    used, y = np.ones(codes_NF.shape[1], dtype=bool), material.attributes
    if protocol.corrects("A22"):
        used = live_codes(codes_NF[rows], material.singers[rows])
        y = rank_normalise(y, material.train)
    x, mean, scale = standardise(codes_NF[np.ix_(rows, used)])
    target, y_mean, y_scale = standardise(y[rows])
    alpha = material.alpha
    if protocol.corrects("A17"):
        alpha = _choose_alpha(x, target, material.singers[rows], material.sexes[rows])
    weights = np.zeros((target.shape[1], codes_NF.shape[1]))
    weights[:, used] = lasso(x, target, alpha).weights
    x_scored = standardise(codes_NF[np.ix_(scored, used)], mean, scale)[0]
    guess = x_scored @ weights[:, used].T
    reference = 0.0 if held_out else None
    return weights, r2_score((y[scored] - y_mean) / y_scale, guess, reference)


def map_numbers(
    protocol: Protocol, raw: np.ndarray, sae: np.ndarray, random: np.ndarray, noise: np.ndarray,
    material: Material, cache: dict | None = None,
) -> dict[str, float]:
    """The reported numbers of one SAE under one setting of the switches (keys of `MEANING`).

    Parameters
    ----------
    raw, sae, random, noise
        Codes of all clips: raw states, SAE, untrained twin, pure noise of the SAE's width and k.
    cache
        Maps already fitted on these very codes; filled here.
    """
    cache = {} if cache is None else cache
    maps = {}
    for name, codes in (("raw", raw), ("sae", sae), ("random", random), ("noise", noise)):
        key = (name, *(protocol.corrects(entry) for entry in ("A01", "A17", "A22")))
        if key not in cache:
            cache[key] = fit_map(codes, protocol, material)
        maps[name] = cache[key]
    reference = "random" if protocol.corrects("A24") else "raw"
    chosen = {}
    for name in ("sae", reference):
        score = maps["raw" if protocol.corrects("A04") else name][1]
        chosen[name] = _choose(score, protocol, material)
    scores = {name: _completeness(weights, protocol, material)
              for name, (weights, _) in maps.items()}
    with np.errstate(invalid="ignore"):
        mean = {name: float(np.nanmean(scores[name][rows])) for name, rows in chosen.items()}
    axis = histogram_entropy(material.attributes[material.test])
    slope = _rank_correlation(scores["sae"], axis)
    if protocol.corrects("A23"):
        slope -= _rank_correlation(scores["noise"], axis)
    groups = material.groups_corrected if protocol.corrects("A21") else material.groups_released
    top = [material.names[i] for i in chosen["sae"]]
    return {
        "r2": float(np.mean(maps["sae"][1][chosen["sae"]])),
        "completeness": mean["sae"],
        "completeness_gap": mean["sae"] - mean[reference],
        "disentanglement": average_disentanglement(maps["sae"][0], not protocol.corrects("A05")),
        "pitch_among_top": float(sum(groups[name] == "pitch" for name in top)),
        "clusters_among_top": float(len(set(material.clusters[chosen["sae"]].tolist()))),
        "entropy_slope": slope,
    }


def turn_each(
    base: Protocol, per_seed: list[dict[str, np.ndarray]], material: Material,
    entries: dict[str, str] | None = None, workers: int = 1,
) -> list[dict]:
    """Turn every map switch alone, starting from ``base``; one `audit_row` per entry.

    Parameters
    ----------
    base
        RELEASED or CORRECTED.
    per_seed
        One dict raw, sae, random, noise per seed: arguments of `map_numbers`.
    entries
        Entry -> quantity; `QUANTITIES` when not given.
    workers
        Processes of one thread; the result does not depend on it.
    """
    from joblib import Parallel, delayed, parallel_config

    entries = QUANTITIES if entries is None else entries
    with parallel_config("loky", inner_max_num_threads=1):
        values = Parallel(n_jobs=min(workers, len(per_seed)))(
            delayed(_turn_one)(base, codes, material, entries) for codes in per_seed)
    rows = []
    for entry, quantity in entries.items():
        here, there = (list(side) for side in zip(*(v[entry] for v in values), strict=True))
        released, corrected = (here, there) if base.name == "released" else (there, here)
        rows.append(audit_row(entry, MEANING[quantity], base.name, released, corrected,
                              claim_holds if quantity.endswith("gap") else None))
    return rows


def _turn_one(base, codes, material, entries) -> dict[str, tuple[float, float]]:
    cache: dict = {}
    here = map_numbers(base, **codes, material=material, cache=cache)
    return {
        entry: (here[quantity], map_numbers(base.flip(entry), **codes, material=material,
                                            cache=cache)[quantity])
        for entry, quantity in entries.items()
    }


def audit_row(
    entry: str, quantity: str, end: str, released, corrected, holds=None, case: str = "measured",
    over: str = "seeds",
) -> dict:
    """One measured effect.

    Parameters
    ----------
    entry
        Id of the audit entry.
    quantity
        What is moved, in words.
    end
        ``released`` or ``corrected``: the end from which the switch was turned alone; ``both``
        when other settings cannot matter.
    released, corrected
        Values at both settings, one per seed or per singer.
    holds
        Function value -> bool: does the conclusion drawn from this quantity hold? With it the
        verdict can be "changes a conclusion".
    case
        ``measured``, ``whole recipe`` (several switches together), ``smallest case`` or ``paper
        profile`` (needs a real encoder or the real VocalSet: not measured here).
    over
        What the interval is over: ``seeds`` or ``singers``.
    """
    found = find_entry(entry)
    released, corrected = np.atleast_1d(released).astype(float), np.atleast_1d(corrected)
    difference = corrected.astype(float) - released
    interval = t_interval(difference)
    row = {
        "entry": found.id, "name": found.name, "stage": found.stage, "quantity": quantity,
        "end": end, "released": float(np.mean(released)), "corrected": float(np.mean(corrected)),
        "value": interval.mean, "ci_low": interval.low, "ci_high": interval.high, "n": interval.n,
        "over": over, "case": case,
    }
    changes = holds is not None and holds(row["released"]) != holds(row["corrected"])
    sure = interval.n < 2 or interval.low > 0 or interval.high < 0
    row["verdict"] = (
        "not measured" if not np.isfinite(interval.mean)
        else "changes a conclusion" if changes and sure
        else "moves the number" if sure and interval.mean != 0 else "no effect shown"
    )
    return row


def claim_holds(value: float) -> bool:
    """The published reading of a gap: codes are better than what they are compared with."""
    return bool(value > 0)


def complete_audit(rows: list[dict]) -> pd.DataFrame:
    """All 32 entries in order; those without a row are marked as left to the paper profile."""
    table = pd.DataFrame(rows)
    there = set(table["entry"]) if len(table) else set()
    missing = [
        audit_row(entry.id, entry.sentence, "both", np.nan, np.nan, case="paper profile")
        for entry in ENTRIES if entry.id not in there
    ]
    whole = pd.concat([table, pd.DataFrame(missing)], ignore_index=True)
    return whole.sort_values(["entry", "end"], ignore_index=True, kind="stable")


def seed_values(table: pd.DataFrame, **where: object) -> np.ndarray:
    """Values of one cell in the order of its seeds: pooled rows of a probe or training table.

    Parameters
    ----------
    where
        Column = value; rows of single techniques and singers are left out where those columns
        exist.

    Raises
    ------
    ValueError
        No row, or several rows per seed.
    """
    for column in ("technique", "singer"):
        if column in table and column not in where:
            table = table[table[column].fillna("") == ""]
    for column, value in where.items():
        table = table[table[column] == value]
    if not len(table) or table["seed"].duplicated().any():
        raise ValueError(f"{len(table)} rows with {where}: name one cell, with one row per seed")
    return table.sort_values("seed")["value"].to_numpy(dtype=float)


def instrument_check(
    attributes: pd.DataFrame, causes: pd.DataFrame, singers: np.ndarray
) -> pd.DataFrame:
    """What each attribute answers to: rank correlation with every recorded cause within singers.

    Returns
    -------
    DataFrame
        Columns attribute, factor, metric (rank_correlation), value, n (clips). The singer's mean
        rank is removed from both sides, so that a voice's pitch does not pass for a cause.
    """
    from scipy.stats import rankdata

    def ranks(table: pd.DataFrame) -> np.ndarray:
        values = pd.DataFrame(rankdata(table.to_numpy(dtype=float), axis=0))
        return standardise((values - values.groupby(np.asarray(singers)).transform("mean"))
                           .to_numpy())[0]

    matrix = ranks(attributes).T @ ranks(causes) / len(attributes)
    table = pd.DataFrame(matrix, index=list(attributes), columns=list(causes))
    long = table.rename_axis("attribute").reset_index().melt("attribute", var_name="factor")
    return long.assign(metric="rank_correlation", n=len(attributes))


def _completeness(weights, protocol, material) -> np.ndarray:
    n_codes = material.width if protocol.corrects("A02") else None
    return completeness(weights, not protocol.corrects("A03"), n_codes)


def _choose(score: np.ndarray, protocol: Protocol, material: Material) -> np.ndarray:
    order = top_attributes(score, len(score))
    if not protocol.corrects("A31"):
        return order[: material.n_top]
    first = {}
    for index in order:
        first.setdefault(int(material.clusters[index]), index)
    return np.array(list(first.values())[: material.n_top])


def _choose_alpha(x, y, singers, sexes) -> float:
    if len(np.unique(singers)) < 2:
        return ALPHAS[1]
    scores = np.zeros(len(ALPHAS))
    for train, test in grouped_folds(singers, sexes, 3):
        for i, alpha in enumerate(ALPHAS):
            fit = lasso(x[train], y[train], alpha, tolerance=1e-4)
            scores[i] += np.nanmedian(r2_score(y[test], x[test] @ fit.weights.T, 0.0))
    return ALPHAS[int(np.argmax(scores))]


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    both = np.isfinite(first) & np.isfinite(second)
    pair = pd.DataFrame({"first": first[both], "second": second[both]})
    if (pair.nunique() < 2).any():
        return 0.0
    return float(pair["first"].corr(pair["second"], method="spearman"))
