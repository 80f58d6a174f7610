"""Which latents of a dictionary are worth a page, and every number that stands on it.

Latents are chosen, named and ordered on training singers. The numbers shown beside that name are
measured on singers the dictionary has not met, so that the choice cannot flatter them (winner's
curse). Shape letters: N clips, F latents, T techniques, A attributes, M moved clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from saeutils.disentanglement import live_codes
from saeutils.lasso import standardise
from saeutils.protocol import MIN_CLIPS
from saeutils.statistics import singer_means, t_interval

GROUPINGS = ("technique", "vowel", "singer")
LOWER_QUANTILES = (0.9, 0.5, 0.1)


def alive(codes_NF: np.ndarray, singers: np.ndarray) -> np.ndarray:
    """Latents that fire often enough on some clips to be judged, bool, shape [F].

    As `saeutils.disentanglement.live_codes`; of fewer than 100 clips a tenth suffices, 3 at least.

    Examples
    --------
    >>> alive(np.array([[1.0, 0], [2, 0], [0, 0], [3, 1]]), np.array(["a", "b", "a", "c"])).tolist()
    [True, False]
    """
    return live_codes(codes_NF, singers, min(MIN_CLIPS, max(3, len(codes_NF) // 10)))


def technique_auc(codes_NF: np.ndarray, labels: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """How well each code alone ranks the clips of one technique above all others.

    The area under the ROC curve: the chance that a random clip of the technique has the larger
    code; ties (two silent clips) count one half.

    Returns
    -------
    names, auc_TF
        Techniques, sorted, and areas of shape [T, F]; NaN for a technique that is all clips.

    Examples
    --------
    >>> names, auc = technique_auc(np.array([[2.0], [0.0], [0.0]]), ["trill", "belt", "belt"])
    >>> names, auc.ravel().tolist()
    (['belt', 'trill'], [0.0, 1.0])
    """
    from scipy.stats import rankdata

    labels = np.asarray(labels)
    ranks = rankdata(codes_NF, axis=0)
    names, areas = sorted(set(labels.tolist())), []
    for name in names:
        own = labels == name
        pairs = own.sum() * (~own).sum()
        wins = ranks[own].sum(axis=0) - own.sum() * (own.sum() + 1) / 2
        areas.append(wins / pairs if pairs else np.full(codes_NF.shape[1], np.nan))
    return names, np.stack(areas)


def rank_correlation(codes_NF: np.ndarray, values_NA: np.ndarray) -> np.ndarray:
    """Spearman correlation of every attribute with every code, shape [A, F]; constants give 0.

    Examples
    --------
    >>> codes, values = np.array([[0.0], [1.0], [5.0]]), np.array([[9.0], [4.0], [1.0]])
    >>> rank_correlation(codes, values).round(6).tolist()
    [[-1.0]]
    """
    from scipy.stats import rankdata

    values, codes = (standardise(rankdata(part, axis=0))[0] for part in (values_NA, codes_NF))
    return values.T @ codes / len(codes)


def choose_latents(
    codes_NF: np.ndarray, clips: pd.DataFrame, measured: pd.DataFrame, train: np.ndarray,
    n_latents: int,
) -> pd.DataFrame:
    """The latents of the atlas, best first, chosen on training singers alone.

    Techniques and measured properties take turns: each technique gives the latent that ranks it
    best, then as many properties give the latent of largest rank correlation, and again, until
    there are enough; within a turn the best come first. A latent is taken once. Codes that fire on
    few clips or singers are left out (`alive`).

    Parameters
    ----------
    codes_NF, clips
        Codes of all clips, and their table (columns singer, technique).
    measured
        Attributes and recorded factors of all clips, one column each.
    train
        Rows of the training singers.
    n_latents
        Latents wanted; fewer come back when fewer are alive.

    Returns
    -------
    DataFrame
        Columns latent, order (from 1), chosen_for, technique and attribute (the one it was chosen
        for, else the one it follows best), direction ("+" or "-" of that attribute).

    Raises
    ------
    ValueError
        No code is alive on the training clips.
    """
    singers = clips["singer"].to_numpy()[train]
    able = np.flatnonzero(alive(codes_NF[train], singers))
    if not len(able):
        raise ValueError("no latent fires on enough training clips: take a lower sparsity")
    codes = codes_NF[np.ix_(train, able)]
    techniques, auc = technique_auc(codes, clips["technique"].to_numpy()[train])
    if len(techniques) < 2:  # material without labels: properties alone choose
        techniques, auc = [""], np.zeros((1, len(able)))
    rank = rank_correlation(codes, measured.to_numpy(dtype=float)[train])
    score = {name: np.nan_to_num(row).max() for name, row in zip(techniques, auc, strict=True)}
    by_name = {name: np.argsort(-row, kind="stable")
               for name, row in zip(techniques, np.nan_to_num(auc), strict=True)}
    by_name |= {name: np.argsort(-np.abs(row), kind="stable")
                for name, row in zip(measured, rank, strict=True)}
    strongest = np.argsort(-np.abs(rank).max(axis=1), kind="stable")
    waiting = [measured.columns[i] for i in strongest]
    rows, taken = [], set()
    wanted, many = min(n_latents, len(able)), max(len(techniques), 4)
    while len(rows) < wanted:
        turn = sorted(filter(None, techniques), key=lambda name: -score[name]) + waiting[:many]
        waiting = waiting[many:]
        if not turn:  # no labels, and every property has had its turn
            break
        for name in turn:
            place = next((int(p) for p in by_name[name] if int(p) not in taken), None)
            if place is None or len(rows) == wanted:
                break
            taken.add(place)
            best = list(measured).index(name) if name in measured else \
                int(np.argmax(np.abs(rank[:, place])))
            technique = name if name in techniques else \
                techniques[int(np.argmax(np.nan_to_num(auc[:, place])))]
            rows.append((int(able[place]), len(rows) + 1, name, technique,
                         measured.columns[best], "+" if rank[best, place] >= 0 else "-"))
    columns = ["latent", "order", "chosen_for", "technique", "attribute", "direction"]
    return pd.DataFrame(rows, columns=columns)


def latent_numbers(
    codes_NF: np.ndarray, clips: pd.DataFrame, measured: pd.DataFrame,
    rows: dict[str, np.ndarray], chosen: pd.DataFrame,
) -> pd.DataFrame:
    """Numbers of each chosen latent, on each split.

    Parameters
    ----------
    rows
        Name of a split and its rows, such as train and unseen.
    chosen
        From `choose_latents`.

    Returns
    -------
    DataFrame
        Columns split, attribute, technique, metric, value, ci_low, ci_high, n (clips), latent.
        Metrics: ``auc`` of the latent's technique, ``auc_singers`` (mean of the areas within each
        singer, t interval, n singers), ``rank_correlation`` with its attribute, ``fires`` (share
        of clips), ``mean_code``, ``largest_code``.
    """
    records = []
    for split, own in rows.items():
        part, labels = codes_NF[own], clips["technique"].to_numpy()[own]
        names, auc = technique_auc(part, labels)
        singers = clips["singer"].to_numpy()[own]
        within = {s: technique_auc(part[singers == s], labels[singers == s])
                  for s in np.unique(singers)}
        for row in chosen.itertuples():
            f, n = row.latent, len(own)
            if row.technique in names:
                area = float(auc[names.index(row.technique), f])
                records.append((split, "", row.technique, "auc", area, np.nan, np.nan, n, f))
                each = [a[t.index(row.technique), f] for t, a in within.values()
                        if row.technique in t]
                mean = t_interval(np.array(each, dtype=float))
                if mean.n:
                    records.append((split, "", row.technique, "auc_singers", mean.mean, mean.low,
                                    mean.high, mean.n, f))
            values = measured[row.attribute].to_numpy(dtype=float)[own]
            rho = float(rank_correlation(part[:, [f]], values[:, None])[0, 0])
            for attribute, metric, value in (
                    (row.attribute, "rank_correlation", rho),
                    ("", "fires", (part[:, f] > 0).mean()), ("", "mean_code", part[:, f].mean()),
                    ("", "largest_code", part[:, f].max())):
                records.append((split, attribute, "", metric, float(value), np.nan, np.nan, n, f))
    return pd.DataFrame(records, columns=["split", "attribute", "technique", "metric", "value",
                                          "ci_low", "ci_high", "n", "latent"])


def group_means(
    codes_NF: np.ndarray, clips: pd.DataFrame, rows: dict[str, np.ndarray],
    latents: Sequence[int], unit_F: np.ndarray,
) -> pd.DataFrame:
    """Mean code of the clips of each technique, vowel and singer, in SDs over training clips.

    Returns
    -------
    DataFrame
        Columns split, grouping, name, metric (``mean_code_sd``), value, ci_low, ci_high, n (clips),
        latent. The interval is over singers; NaN for singers themselves and for a single one.
    """
    latents = list(latents)
    unit = np.where(unit_F[latents] > 0, unit_F[latents], np.inf)
    records = []
    for split, own in rows.items():
        part, table = codes_NF[np.ix_(own, latents)] / unit, clips.iloc[own]
        singers = table["singer"].to_numpy()
        for grouping in GROUPINGS:
            labels = table[grouping].to_numpy()
            for name in sorted(set(labels)):
                inside = labels == name
                per_singer = singer_means(part[inside], singers[inside])[1]
                for j, f in enumerate(latents):
                    spread = t_interval(per_singer[:, j])
                    records.append((split, grouping, name, "mean_code_sd",
                                    float(part[inside, j].mean()), spread.low, spread.high,
                                    int(inside.sum()), f))
    return pd.DataFrame(records, columns=["split", "grouping", "name", "metric", "value", "ci_low",
                                          "ci_high", "n", "latent"])


def shown_clips(
    codes_NF: np.ndarray, before_NF: np.ndarray, rows: np.ndarray, latents: Sequence[int],
    n_top: int = 6, quantiles: Sequence[float] = LOWER_QUANTILES,
) -> pd.DataFrame:
    """The clips that excite each latent most, and some at lower quantiles.

    Where a clip within a fiftieth of the wanted rank is on the page already, it is taken: fewer
    clips to hear again, to draw and to carry.

    Parameters
    ----------
    codes_NF, before_NF
        Codes, and the same before ReLU and TopK: they order the clips on which the code is silent.
    rows
        Clips to choose from.

    Returns
    -------
    DataFrame
        Columns latent, row (of `codes_NF`), place (``top 1`` ..., ``q90`` ...), value (code). No
        clip occurs twice for one latent.
    """
    orders = {f: rows[np.lexsort((before_NF[rows, f], codes_NF[rows, f]))[::-1]] for f in latents}
    near, last = len(rows) // 50, len(rows) - 1
    page = {int(row) for order in orders.values() for row in order[:n_top]}
    records = []
    for f, order in orders.items():
        places = {f"top {i + 1}": i for i in range(min(n_top, len(order)))}
        for q in quantiles:
            wanted = round((1 - q) * last)
            ranks = sorted(range(max(wanted - near, 0), min(wanted + near, last) + 1),
                           key=lambda i, wanted=wanted: (abs(i - wanted), i))
            free = [i for i in ranks if i not in places.values()]
            if free:
                places[f"q{round(100 * q)}"] = next(
                    (i for i in free if int(order[i]) in page), free[0])
        page |= {int(order[i]) for i in places.values()}
        records += [(f, int(order[i]), place, float(codes_NF[order[i], f]))
                    for place, i in places.items()]
    return pd.DataFrame(records, columns=["latent", "row", "place", "value"])
