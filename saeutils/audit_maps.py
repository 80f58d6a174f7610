"""The audit's map switches, each turned alone from the released and from the corrected end.

`map_numbers` computes what the paper reports of one SAE under any setting of the switches that act
on maps; `turn_each` turns them one at a time. Shape letters: N clips, F codes, A attributes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from saeutils.audit import HERE, above_zero, audit_row
from saeutils.completeness import (
    average_disentanglement,
    completeness,
    group_counts,
    histogram_entropy,
    top_attributes,
)
from saeutils.disentanglement import live_codes, r2_score, rank_normalise
from saeutils.lasso import lasso, lasso_path, standardise
from saeutils.machine import side_by_side
from saeutils.protocol import R2_FLOOR, Protocol
from saeutils.statistics import grouped_folds


@dataclass(frozen=True)
class Quantity:
    """A number that map switches move: its name in tables, and when its conclusion holds."""

    text: str
    holds: object = None


def below_zero(value: float) -> bool:
    """The published reading of the entropy axis: the slope is negative."""
    return bool(value < 0)


def well_read(value: float) -> bool:
    """R² at or above the floor that all comparisons here ask for."""
    return bool(value >= R2_FLOOR)


MEANING = {
    "r2": Quantity("R² of the SAE's chosen attributes"),
    "noise_r2": Quantity("R² of pure-noise codes: do they predict attributes?", well_read),
    "completeness": Quantity("completeness of the SAE"),
    "completeness_gap": Quantity("completeness, SAE minus its reference", above_zero),
    "noise_gap": Quantity("completeness, pure-noise codes minus raw states", above_zero),
    "disentanglement": Quantity("average disentanglement of the SAE"),
    "pitch_excess": Quantity("pitch attributes among the chosen, beyond their share", above_zero),
    "clusters": Quantity("different clusters among the chosen attributes"),
    "entropy_slope": Quantity("rank correlation of completeness and entropy, net of what is "
                              "shown beside", below_zero),
}
# The numbers that each switch is there to move, the entry's own first.
QUANTITIES = {
    "A01": ("r2", "noise_r2", "completeness_gap"), "A02": ("completeness_gap",),
    "A03": ("completeness", "completeness_gap"), "A04": ("completeness_gap",),
    "A05": ("disentanglement",), "A17": ("r2", "completeness_gap"), "A21": ("pitch_excess",),
    "A22": ("completeness", "noise_gap", "completeness_gap"), "A23": ("entropy_slope",),
    "A24": ("completeness_gap",), "A31": ("clusters", "completeness_gap"),
}
# A29, where there are attributes of what the encoder heard.
SCOPE = {"A29": ("r2", "completeness", "completeness_gap")}
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
    heard
        Attributes at the rate that the encoder hears, shape [N, A], or None (A29 then moves
        nothing); rows that no map uses may be NaN.
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
    heard: np.ndarray | None = None

    def with_heard(self, heard: np.ndarray) -> Material:
        """The same material with the attributes of what the encoder heard."""
        return replace(self, heard=heard)

    def described(self, protocol: Protocol) -> np.ndarray:
        """The attributes of one protocol, shape [N, A] (A29)."""
        return self.heard if protocol.corrects("A29") and self.heard is not None \
            else self.attributes


def fit_map(codes_NF: np.ndarray, protocol: Protocol, material: Material):
    """Weights [A, F] and R2 [A] of one representation, under A01, A17, A22 and A29."""
    held_out = protocol.corrects("A01")
    rows = material.train if held_out else material.test
    scored = material.unseen if held_out else material.test
    used, y = np.ones(codes_NF.shape[1], dtype=bool), material.described(protocol)
    if protocol.corrects("A22"):
        used = live_codes(codes_NF[rows], material.singers[rows])
        y = rank_normalise(y, material.train)
    x, mean, scale = standardise(codes_NF[np.ix_(rows, used)])
    target, y_mean, y_scale = standardise(y[rows])
    alpha = material.alpha
    if protocol.corrects("A17"):
        _, one_each = np.unique(material.clusters, return_index=True)  # near-copies vote once
        alpha = _choose_alpha(x, target[:, one_each], material.singers[rows], material.sexes[rows])
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
        maps[name] = _fitted(name, codes, protocol, material, cache)
    chosen = {
        name: _choose(maps["raw" if protocol.corrects("A04") else name][1], protocol, material)
        for name in maps
    }
    scores = {name: _completeness(weights, protocol, material)
              for name, (weights, _) in maps.items()}
    mean = {name: _mean(scores[name][chosen[name]]) for name in maps}
    reference = "random" if protocol.corrects("A24") else "raw"
    axis = histogram_entropy(material.described(protocol)[material.test])
    slope = _rank_correlation(scores["sae"], axis)
    if protocol.corrects("A23"):
        slope -= _rank_correlation(scores["noise"], axis)
    groups = material.groups_corrected if protocol.corrects("A21") else material.groups_released
    count, expected = group_counts(material.names, groups, chosen["sae"]).get("pitch", (0, 0.0))
    return {
        "r2": _mean(maps["sae"][1][chosen["sae"]]),
        "noise_r2": _mean(maps["noise"][1][chosen["noise"]]),
        "completeness": mean["sae"],
        "completeness_gap": mean["sae"] - mean[reference],
        "noise_gap": mean["noise"] - mean["raw"],
        "disentanglement": average_disentanglement(maps["sae"][0], not protocol.corrects("A05")),
        "pitch_excess": count - expected,
        "clusters": float(len(set(material.clusters[chosen["sae"]].tolist()))),
        "entropy_slope": slope,
    }


def turn_each(
    base: Protocol, per_seed: list[dict[str, np.ndarray]], material: Material,
    entries: dict[str, tuple[str, ...]] | None = None, workers: int = 1, case: str = HERE,
) -> list[dict]:
    """Turn every map switch alone, starting from ``base``.

    Parameters
    ----------
    base
        RELEASED or CORRECTED.
    per_seed
        One dict raw, sae, random, noise per seed: arguments of `map_numbers`.
    entries
        Entry -> quantities; `QUANTITIES` when not given.
    workers
        Processes of one thread; the result does not depend on it.
    case
        Passed on to `saeutils.audit.audit_row`.

    Returns
    -------
    list of dict
        One `saeutils.audit.audit_row` per entry and quantity.
    """
    entries = QUANTITIES if entries is None else entries
    known: dict = {}  # maps of raw states: the same for every seed
    if all(codes["raw"] is per_seed[0]["raw"] for codes in per_seed):
        for protocol in (base, *(base.flip(entry) for entry in entries)):
            _fitted("raw", per_seed[0]["raw"], protocol, material, known)
    values = side_by_side(_turn_one, [(base, codes, material, tuple(entries), known)
                                      for codes in per_seed], workers)
    rows = []
    for entry, quantities in entries.items():
        for name in quantities:
            here, there = ([v[side][name] for v in values] for side in ("", entry))
            released, corrected = (here, there) if base.name == "released" else (there, here)
            meaning = MEANING[name]
            unfit = not np.isfinite(np.subtract(corrected, released)).any()
            rows.append(audit_row(entry, meaning.text, base.name, released, corrected,
                                  meaning.holds, case=case,
                                  note="Undefined: no code has a weight." if unfit else ""))
    return rows


def _fitted(name, codes, protocol, material, cache):
    key = (name, *(protocol.corrects(entry) for entry in ("A01", "A17", "A22", "A29")))
    if key not in cache:
        cache[key] = fit_map(codes, protocol, material)
    return cache[key]


def _turn_one(base, codes, material, entries, known) -> dict[str, dict[str, float]]:
    cache = dict(known)
    found = {"": map_numbers(base, **codes, material=material, cache=cache)}
    for entry in entries:
        found[entry] = map_numbers(base.flip(entry), **codes, material=material, cache=cache)
    return found


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


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
        # three digits decide between penalties three times apart
        for i, fit in enumerate(lasso_path(x[train], y[train], ALPHAS, tolerance=1e-3)):
            scores[i] += np.nanmedian(r2_score(y[test], x[test] @ fit.weights.T, 0.0))
    return ALPHAS[int(np.argmax(scores))]


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    both = np.isfinite(first) & np.isfinite(second)
    pair = pd.DataFrame({"first": first[both], "second": second[both]})
    if (pair.nunique() < 2).any():  # codes without a weight draw no slope
        return float("nan")
    return float(pair["first"].corr(pair["second"], method="spearman"))
