"""Interventions: what a code does when one cause is moved and everything else is held.

A map weight is a correlation. Here the same clip is encoded twice, once with one factor moved by a
known number of population SDs, and the change of each code is the response. Placebos (a new noise
seed, a new gain) say how much of it is not the factor. In VocalSet, clips of one singer, vowel and
exercise sung straight and otherwise are such pairs made by nature (`matched_pairs`). Shape letters:
N clips, F codes, M moved clips, Q factors.

Source: estimands and thresholds in `saeutils.protocol`; Kendall's tau (1938) for monotonicity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from saeutils.disentanglement import live_codes, rank_normalise
from saeutils.lasso import lasso, standardise
from saeutils.protocol import PLACEBO_QUANTILE, SPECIFICITY_FLOOR

PLACEBO = "placebo_noise"
PLACEBOS = (PLACEBO, "placebo_gain", "placebo_vowel")  # the last one for pairs made by nature


@dataclass(frozen=True)
class Responses:
    """Response of every code to every factor, codes in units of their SD over training clips.

    Attributes
    ----------
    factors
        Factor names, length Q, placebos last.
    power
        Mean squared change per squared SD of the factor, net of the noise placebo's, floored at 0,
        shape [Q, F].
    specificity
        Share of a code's summed power that one (non-placebo) factor owns, shape [Q, F]; NaN for
        codes that respond to nothing and for placebos.
    exceeds
        Whether the mean absolute change exceeds the placebo's 95th percentile, bool [Q, F].
    trend
        Kendall's tau of code and step, averaged over base clips, -1 to 1, shape [Q, F].
    n_bases, n_singers
        Base clips and singers behind each factor, shape [Q].
    live
        Codes that vary over training clips, bool [F]; all when not given.
    """

    factors: list[str]
    power: np.ndarray
    specificity: np.ndarray
    exceeds: np.ndarray
    trend: np.ndarray
    n_bases: np.ndarray
    n_singers: np.ndarray
    live: np.ndarray | None = None


def responses(
    codes_MF: np.ndarray, sets: pd.DataFrame, scale_F: np.ndarray, placebo: str = ""
) -> Responses:
    """Compare each moved clip with its base clip.

    Parameters
    ----------
    codes_MF
        Codes of the rows of ``sets``.
    sets
        Columns base_id, factor ("base" for the base clip itself), step (population SDs), singer.
    scale_F
        SD of each code over training clips; codes with 0 get response 0.
    placebo
        Factor whose pairs are the floor; empty: the first of `PLACEBOS` that occurs.

    Raises
    ------
    ValueError
        A moved clip without base clip, no placebo pairs, or tables of different length.
    """
    if len(codes_MF) != len(sets):
        raise ValueError(f"{len(codes_MF)} rows of codes for {len(sets)} clips")
    sets = sets.reset_index(drop=True)
    base_row = pd.Series(sets.index[sets["factor"] == "base"],
                         index=sets.loc[sets["factor"] == "base", "base_id"])
    moved = sets[sets["factor"] != "base"]
    lost = sorted(set(moved["base_id"]) - set(base_row.index))
    if lost:
        raise ValueError(f"moved clips of {lost[0]!r} have no base clip in the table")
    present = [name for name in PLACEBOS if name in set(moved["factor"])]
    placebo = placebo or (present or [PLACEBO])[0]
    if placebo not in set(moved["factor"]):
        raise ValueError(f"no pairs of {placebo!r}: without placebo no response can be judged")
    codes = np.asarray(codes_MF, dtype=float) / np.where(scale_F > 0, scale_F, np.inf)
    change = codes[moved.index] - codes[base_row[moved["base_id"]].to_numpy()]
    step = moved["step"].to_numpy(dtype=float)
    names = sorted(set(moved["factor"]) - set(PLACEBOS)) \
        + [name for name in PLACEBOS if name in set(moved["factor"])]
    floor = change[(moved["factor"] == placebo).to_numpy()]
    floor_power = (floor**2).mean(axis=0)
    limit = np.quantile(np.abs(floor), PLACEBO_QUANTILE, axis=0)
    power, exceeds, trend, bases, singers = [], [], [], [], []
    for name in names:
        own = (moved["factor"] == name).to_numpy()
        size = 1.0 if name in PLACEBOS else float((step[own] ** 2).mean())
        net = (change[own] ** 2).mean(axis=0) - (0 if name == placebo else floor_power)
        power.append(np.maximum(net, 0) / size)
        exceeds.append((np.abs(change[own]).mean(axis=0) > limit) & (net > 0))
        trend.append(_trend(codes, base_row, moved[own]))
        bases.append(moved.loc[own, "base_id"].nunique())
        singers.append(moved.loc[own, "singer"].nunique())
    power = np.stack(power)
    real = np.array([name not in PLACEBOS for name in names])
    total = power[real].sum(axis=0)
    share = np.where(real[:, None], power / np.where(total > 0, total, np.nan), np.nan)
    return Responses(names, power, share, np.stack(exceeds), np.stack(trend),
                     np.array(bases), np.array(singers), np.asarray(scale_F) > 0)


def factor_maps(
    codes_NF: np.ndarray, causes: pd.DataFrame, masks: pd.DataFrame, rows: np.ndarray,
    singers: np.ndarray, alpha: float,
) -> np.ndarray:
    """Lasso weights of each recorded cause on the codes, shape [Q, F]: the correlational map.

    Each cause is fitted on the clips on which it can act (``masks``), as normal scores; rare codes
    are left out, as in `saeutils.disentanglement.held_out_map`.
    """
    weights = np.zeros((causes.shape[1], codes_NF.shape[1]))
    for q, name in enumerate(causes):
        own = rows[masks[name].to_numpy()[rows]]
        used = live_codes(codes_NF[own], singers[own])
        x = standardise(codes_NF[np.ix_(own, used)])[0]
        y = standardise(rank_normalise(causes[[name]].to_numpy(), own)[own])[0]
        weights[q, used] = lasso(x, y, alpha).weights[0]
    return weights


def verdicts(
    weights_QF: np.ndarray, found: Responses, causes: list[str], n_top: int = 5
) -> pd.DataFrame:
    """Does the intervention confirm the map? One row per cause and metric.

    Returns
    -------
    DataFrame
        Columns factor, metric, value, n (base clips). Metrics: ``confirmed`` (of the ``n_top``
        codes of largest weight, the share that exceeds the placebo and owes half of its response
        to this cause), ``agreement`` (rank correlation of absolute weight and response over all
        live codes, those with neither included: leaving them out would make it negative by
        itself), ``best_specificity`` (over codes that exceed the placebo), ``trend``
        (absolute tau of the top codes), ``responding`` (number of codes above the placebo).
    """
    from scipy.stats import rankdata

    rows = []
    for q, name in enumerate(causes):
        if name not in found.factors:
            continue
        f = found.factors.index(name)
        size = np.abs(weights_QF[q])
        top = np.argsort(-size, kind="stable")[:n_top]
        top = top[size[top] > 0]
        specific = np.nan_to_num(found.specificity[f]) >= SPECIFICITY_FLOOR
        good = found.exceeds[f] & specific
        live = np.ones(len(size), dtype=bool) if found.live is None else found.live
        agreement = np.nan
        if live.sum() > 2:
            ranks = [rankdata(part[live]) for part in (size, found.power[f])]
            if min(np.ptp(part) for part in ranks) > 0:
                agreement = float(np.corrcoef(ranks)[0, 1])
        above = np.nan_to_num(found.specificity[f])[found.exceeds[f]]
        values = {
            "confirmed": good[top].sum() / n_top,
            "agreement": agreement,
            "best_specificity": float(above.max()) if len(above) else 0.0,
            "trend": float(np.abs(found.trend[f, top]).mean()) if len(top) else np.nan,
            "responding": float(found.exceeds[f].sum()),
        }
        rows += [(name, metric, value, int(found.n_bases[f])) for metric, value in values.items()]
    return pd.DataFrame(rows, columns=["factor", "metric", "value", "n"])


def interventions_cell(
    codes_NF: np.ndarray, cell, sets: pd.DataFrame, causes: pd.DataFrame, masks: pd.DataFrame,
    rows: np.ndarray, singers: np.ndarray, alpha: float,
) -> pd.DataFrame:
    """`verdicts` of one representation; the last rows of ``codes_NF`` are the clips of ``sets``.

    Adds ``placebo_gain`` as a factor with metric ``power_over_noise``: the power of a pure gain
    change over that of a new noise seed; an encoder that normalises its input should give about 0.
    """
    n_clips = len(codes_NF) - len(sets)
    clips, moved = codes_NF[:n_clips], codes_NF[n_clips:]
    scale = clips[rows].std(axis=0) * live_codes(clips[rows], singers[rows])
    found = responses(moved, sets, scale)
    table = verdicts(factor_maps(clips, causes, masks, rows, singers, alpha), found, list(causes))
    if {PLACEBO, "placebo_gain"} <= set(found.factors):
        gain, noise = (found.power[found.factors.index(name)]
                       for name in ("placebo_gain", PLACEBO))
        raw_gain = _raw_power(moved, sets, scale, "placebo_gain")
        ratio = float(raw_gain.sum() / noise.sum()) if noise.sum() > 0 else np.nan
        bases = int(found.n_bases[found.factors.index("placebo_gain")])
        table.loc[len(table)] = ["placebo_gain", "power_over_noise", ratio, bases]
        table.loc[len(table)] = ["placebo_gain", "responding", float((gain > 0).sum()), bases]
    return table.assign(split="counterfactual")


def matched_pairs(clips: pd.DataFrame, reference: str = "straight") -> pd.DataFrame:
    """Pairs made by nature: each clip with the straight clip of its singer, vowel and exercise.

    Returns
    -------
    DataFrame
        Columns base_id, row (number in ``clips``), factor (technique, or "base"), step (1),
        singer. Clips without a straight sibling are left out; of several siblings the first in
        the order of the table is the base.

    Raises
    ------
    ValueError
        No pair at all.
    """
    keys = ["singer", "vowel", "exercise"]
    table = clips.reset_index(drop=True).reset_index(names="row")
    straight = table[table["technique"] == reference].drop_duplicates(keys)
    straight = straight.assign(base_id=straight[keys].agg("|".join, axis=1))
    others = table[table["technique"] != reference].merge(straight[[*keys, "base_id"]], on=keys)
    if not len(others):
        raise ValueError(f"no clip shares singer, vowel and exercise with a {reference!r} one")
    base = straight[straight["base_id"].isin(others["base_id"])].assign(factor="base", step=0.0)
    pairs = others.assign(factor=others["technique"], step=1.0)
    columns = ["base_id", "row", "factor", "step", "singer"]
    return pd.concat([base, pairs])[columns].sort_values(["base_id", "step"], ignore_index=True)


def _trend(codes_MF: np.ndarray, base_row: pd.Series, moved: pd.DataFrame) -> np.ndarray:
    total = np.zeros(codes_MF.shape[1])
    for base_id, part in moved.groupby("base_id"):
        rows = np.append(part.index.to_numpy(), base_row[base_id])
        steps = np.append(part["step"].to_numpy(dtype=float), 0.0)
        first, second = np.triu_indices(len(rows), 1)
        direction = np.sign(steps[second] - steps[first])[:, None]
        total += (direction * np.sign(codes_MF[rows[second]] - codes_MF[rows[first]])).mean(axis=0)
    return total / max(moved["base_id"].nunique(), 1)


def _raw_power(codes_MF, sets, scale_F, name: str) -> np.ndarray:
    sets = sets.reset_index(drop=True)
    codes = np.asarray(codes_MF, dtype=float) / np.where(scale_F > 0, scale_F, np.inf)
    base = sets[sets["factor"] == "base"].reset_index().set_index("base_id")["index"]
    own = sets[sets["factor"] == name]
    return ((codes[own.index] - codes[base[own["base_id"]].to_numpy()]) ** 2).mean(axis=0)


def split_responses(
    codes_MF: np.ndarray, sets: pd.DataFrame, scale_F: np.ndarray
) -> tuple[Responses, Responses]:
    """`responses` on every other base clip, and on the rest: to choose codes, and to show them.

    Where a factor was moved in one half alone, both are the responses to all clips, which then
    flatter what is chosen on them.
    """
    place = {base: i for i, base in enumerate(sorted(set(sets["base_id"])))}
    half = sets["base_id"].map(place).to_numpy() % 2 == 0
    if set(sets["factor"][half]) != set(sets["factor"][~half]):
        whole = responses(codes_MF, sets, scale_F)
        return whole, whole
    return (responses(codes_MF[half], sets[half], scale_F),
            responses(codes_MF[~half], sets[~half], scale_F))


def code_matrix(
    found: Responses, shown: Responses | None = None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """For each cause the code that answers most and most specifically to it, and what it does.

    Parameters
    ----------
    found
        Responses that the codes are chosen on: of those above the placebo, the one whose power
        times specificity is largest.
    shown
        Responses to other base clips, which fill the table. Without them the table shows the
        clips that the codes were chosen on, and flatters.

    Returns
    -------
    table, best
        A table with columns code (label), factor, value, confirmed, one row per code and factor:
        for causes the share of the code's response, for placebos their power over the code's
        largest one (at most 1). And the code chosen for each cause.

    Raises
    ------
    ValueError
        Both do not hold the same factors.
    """
    shown = found if shown is None else shown
    if shown.factors != found.factors:
        raise ValueError(f"chosen on {', '.join(found.factors)}, shown on "
                         f"{', '.join(shown.factors)}: the factors must be the same")
    causes = [name for name in found.factors if name not in PLACEBOS]
    rows, best = [], {}
    for q, name in enumerate(causes):
        score = np.nan_to_num(found.specificity[q]) * found.power[q]
        code = best[name] = int(np.argmax(np.where(found.exceeds[q], score, -1.0)))
        peak = max(float(shown.power[:, code].max()), 1e-30)
        for f, factor in enumerate(shown.factors):
            placebo = factor in PLACEBOS
            value = min(shown.power[f, code] / peak, 1.0) if placebo \
                else float(np.nan_to_num(shown.specificity[f, code]))
            sure = not placebo and bool(shown.exceeds[f, code]) and value >= SPECIFICITY_FLOOR
            rows.append((f"{name}: code {code}", factor, value, sure))
    return pd.DataFrame(rows, columns=["code", "factor", "value", "confirmed"]), best


def code_changes(
    codes_MF: np.ndarray, sets: pd.DataFrame, scale_F: np.ndarray, factor: str, code: int
) -> pd.DataFrame:
    """Change of one code against its base clip as one factor moves (columns base_id, step, value).

    In SDs of the code over training clips; step 0, the base itself, is included.
    """
    sets = sets.reset_index(drop=True)
    own = sets[sets["factor"].isin([factor, "base"])].copy()
    own = own[own["base_id"].isin(sets.loc[sets["factor"] == factor, "base_id"])]
    if not len(own):
        raise ValueError(f"no clip with {factor!r} moved: there are "
                         f"{', '.join(sorted(sets['factor'].unique()))}")
    unit = scale_F[code] if scale_F[code] > 0 else np.inf
    own["value"] = np.asarray(codes_MF, dtype=float)[own.index, code] / unit
    start = own[own["factor"] == "base"].set_index("base_id")["value"]
    own["value"] -= own["base_id"].map(start)
    return own[["base_id", "step", "value"]].sort_values(["base_id", "step"], ignore_index=True)
