"""One attribute map of one representation, as tables: the work of stage 05, cell by cell.

Long tables hold one row per attribute and metric; `summarise` condenses them to one row per cell
and metric as the paper reports it and as corrected. Shape letters: N clips, F codes, A attributes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from saeutils.completeness import (
    average_disentanglement,
    completeness,
    effective_codes,
    group_counts,
    top_attributes,
)
from saeutils.disentanglement import (
    AttributeMap,
    check_unseen,
    held_out_map,
    live_codes,
    rank_normalise,
    released_map,
)
from saeutils.machine import side_by_side
from saeutils.protocol import R2_FLOOR
from saeutils.representations import ID_COLUMNS
from saeutils.scores import jackknife_half
from saeutils.stability import stability

COLUMNS = ("split", "attribute", "metric", "value", "ci_low", "ci_high", "n")


def released_map_cell(
    codes_NF: np.ndarray, cell, attributes_NA: np.ndarray, names: list[str], rows: np.ndarray,
    alpha: float,
) -> pd.DataFrame:
    """The published map on the test clips, scored in sample.

    Returns columns split, attribute, metric, value, ci_low, ci_high, n (clips). Metrics per
    attribute: r2_in_sample, completeness (empty attributes score 1), effective_codes. Metrics of
    the cell (attribute ""): disentanglement as released and as corrected, empty_attributes.
    """
    found = released_map(codes_NF[rows], attributes_NA[rows], alpha)
    per_attribute = {
        "r2_in_sample": found.r2,
        "completeness": completeness(found.weights, released=True),
        "effective_codes": effective_codes(found.weights),
    }
    return _long(found, per_attribute, names, "test", len(rows))


def held_out_map_cell(
    codes_NF: np.ndarray, cell, attributes_NA: np.ndarray, names: list[str],
    train: np.ndarray, test: np.ndarray, singers: np.ndarray, exercises: np.ndarray, alpha: float,
    common_codes: int, scores_NA: np.ndarray | None = None,
    common: dict[int, list[str]] | None = None,
) -> pd.DataFrame:
    """The corrected map: fitted on training singers, scored on unseen ones.

    Parameters
    ----------
    common
        Attributes of each layer whose mean R2 gets an interval over singers (jackknife).

    Columns as `released_map_cell`. Metrics per attribute: r2_held_out (interval over singers),
    r2_within_singer, completeness (normalised by ``log(common_codes)`` for every representation;
    NaN when empty), effective_codes. Metrics of the cell: disentanglement, empty_attributes,
    live_codes and, of the common attributes, r2_held_out_common_mean (n: singers).
    """
    found = held_out_map(codes_NF, attributes_NA, train, test, singers, exercises, alpha, scores_NA)
    per_attribute = {
        "r2_held_out": found.r2,
        "r2_within_singer": found.r2_within,
        "completeness": completeness(found.weights, released=False, n_codes=common_codes),
        "effective_codes": effective_codes(found.weights),
    }
    table = _long(found, per_attribute, names, "unseen", len(test))
    if not common:
        return table
    pick = [names.index(name) for name in common[cell.layer]]
    mean, half = found.r2[pick].mean(), jackknife_half(found.r2_without[:, pick].mean(axis=1))
    own = ("unseen", "", "r2_held_out_common_mean", mean, mean - half, mean + half,
           len(found.r2_without))
    return pd.concat([table, pd.DataFrame([own], columns=list(COLUMNS))], ignore_index=True)


def causes_cell(
    codes_NF: np.ndarray, cell, causes: pd.DataFrame, masks: pd.DataFrame, rows: np.ndarray,
    folds: list, singers: np.ndarray, alpha: float,
) -> pd.DataFrame:
    """Recorded causes in place of attributes: cross-validated by singer, within each cause's clips.

    Parameters
    ----------
    causes, masks
        Values of every factor, and whether it can act on the clip (a vibrato rate needs a
        vibrato); all clips, same columns.
    rows, folds
        Clips used, and singer-grouped folds over them (row numbers within ``rows``).

    Returns
    -------
    DataFrame
        Columns split, factor, metric (r2_held_out, effective_codes), value, n (clips).
    """
    from saeutils.lasso import lasso, standardise

    records = []
    for usable, names in _by_mask(masks.iloc[rows]).items():
        mask = np.frombuffer(usable, dtype=bool)
        error, total = np.zeros(len(names)), np.zeros(len(names))
        size = np.zeros(len(names))
        for train, test in folds:
            train, test = rows[train[mask[train]]], rows[test[mask[test]]]
            if not len(train) or not len(test):
                continue
            check_unseen(singers, train, test)
            used = live_codes(codes_NF[train], singers[train])
            x_train, mean, scale = standardise(codes_NF[np.ix_(train, used)])
            y = rank_normalise(causes[names].to_numpy(), train)
            y_train, y_mean, y_scale = standardise(y[train])
            fit = lasso(x_train, y_train, alpha)
            y_test = (y[test] - y_mean) / y_scale
            guess = standardise(codes_NF[np.ix_(test, used)], mean, scale)[0] @ fit.weights.T
            error += ((y_test - guess) ** 2).sum(axis=0)
            total += (y_test**2).sum(axis=0)
            size += np.nan_to_num(effective_codes(fit.weights)) / len(folds)
        r2 = 1 - error / np.where(total > 0, total, np.nan)
        for name, value, number in zip(names, r2, size, strict=True):
            records.append(("crossed", name, "r2_held_out", value, int(mask.sum())))
            records.append(("crossed", name, "effective_codes", number, int(mask.sum())))
    order = {name: position for position, name in enumerate(causes)}
    table = pd.DataFrame(records, columns=["split", "factor", "metric", "value", "n"])
    return table.sort_values("factor", key=lambda s: s.map(order), kind="stable")


def summarise(
    table: pd.DataFrame, groups: dict[str, str], n_top: int = 10, common: list[str] | None = None
) -> pd.DataFrame:
    """One row per cell and metric.

    Parameters
    ----------
    table
        Labelled rows of `released_map_cell` or `held_out_map_cell`, of one protocol.
    groups
        Group of each attribute.
    n_top
        Attributes averaged as the paper does: those of highest R2 in the same cell (A04).
    common
        Attributes averaged in every cell; none: this average is left out.

    Returns
    -------
    DataFrame
        Id columns, split, group, metric, value, ci_low, ci_high, n. Metrics: ``<score>_top_mean``
        and ``_top_sd``, ``<score>_common_mean``, ``top_count`` and ``top_count_expected`` by group,
        and the cell's own metrics as they are, with their interval where they have one.
    """
    ids = [name for name in ID_COLUMNS if name in table]
    parts = []
    for key, part in table.groupby(ids, dropna=False, sort=False):
        own = part[part["attribute"] == ""]
        wide = part[part["attribute"] != ""].pivot(
            index="attribute", columns="metric", values="value"
        ).reindex(list(groups))
        score = "r2_in_sample" if "r2_in_sample" in wide else "r2_held_out"
        top = wide.index[top_attributes(wide[score].to_numpy(), n_top)]
        rows = []
        for metric in wide:
            best = wide.loc[top, metric]
            rows.append(("", f"{metric}_top_mean", best.mean(), len(best)))
            rows.append(("", f"{metric}_top_sd", best.std(ddof=0), len(best)))
            if common and f"{metric}_common_mean" not in set(own["metric"]):
                rows.append(("", f"{metric}_common_mean", wide.loc[common, metric].mean(),
                             len(common)))
        chosen = wide.index.get_indexer(top)
        for group, (count, expected) in group_counts(list(wide.index), groups, chosen).items():
            rows.append((group, "top_count", count, len(top)))
            rows.append((group, "top_count_expected", expected, len(top)))
        columns = ["metric", "value", *(c for c in ("ci_low", "ci_high", "n") if c in own)]
        kept = own[columns].assign(group="")
        if "n" in own:  # of clips, unless an interval over singers stands beside it
            kept["n"] = own["n"].where(own["ci_low"].notna())
        summary = pd.concat([
            kept, pd.DataFrame(rows, columns=["group", "metric", "value", "n"])],
            ignore_index=True).reindex(
                columns=["group", "metric", "value", "ci_low", "ci_high", "n"])
        for position, name in enumerate(ids):
            summary.insert(position, name, key[position])
        summary.insert(len(ids), "split", part["split"].iloc[0])
        parts.append(summary)
    return pd.concat(parts, ignore_index=True)


def common_attributes(r2: np.ndarray, names: list[str], floor: float = R2_FLOOR) -> list[str]:
    """Attributes that are compared in every cell of a layer: R2 of the raw states >= the floor.

    Where none reaches it, the best-read one stands in, so that a small table has a row too.

    Examples
    --------
    >>> common_attributes(np.array([0.5, 0.1]), ["a", "b"]), common_attributes(
    ...     np.array([np.nan, 0.1]), ["a", "b"])
    (['a'], ['b'])
    """
    r2 = np.asarray(r2, dtype=float)
    if np.isnan(r2).all():
        raise ValueError("no attribute varies on the training clips: nothing can be mapped")
    reached = np.flatnonzero(r2 >= floor)
    chosen = reached if len(reached) else [int(np.nanargmax(r2))]
    return [names[position] for position in chosen]


def _by_mask(masks: pd.DataFrame) -> dict[bytes, list[str]]:
    groups: dict[bytes, list[str]] = {}
    for name in masks:
        groups.setdefault(masks[name].to_numpy(dtype=bool).tobytes(), []).append(name)
    return groups


def _long(
    found: AttributeMap, per_attribute: dict[str, np.ndarray], names: list[str], split: str, n: int
) -> pd.DataFrame:
    nothing = np.full(len(names), np.nan)
    tables = [
        pd.DataFrame({
            "split": split, "attribute": names, "metric": metric, "value": values,
            "ci_low": found.r2_low if metric.startswith("r2_held") else nothing,
            "ci_high": found.r2_high if metric.startswith("r2_held") else nothing, "n": n,
        })
        for metric, values in per_attribute.items()
    ]
    empty = float((np.abs(found.weights).sum(axis=1) == 0).sum())
    own = {
        "disentanglement_released": average_disentanglement(found.weights, released=True),
        "disentanglement_corrected": average_disentanglement(found.weights),
        "empty_attributes": empty,
        "live_codes": float(found.used.sum()),
    }
    cell = [(split, "", metric, value, np.nan, np.nan, n) for metric, value in own.items()]
    return pd.concat([*tables, pd.DataFrame(cell, columns=list(COLUMNS))], ignore_index=True)


def stability_cells(
    cells: list, states_NLD: np.ndarray, rows: np.ndarray, workers: int = 1
) -> pd.DataFrame:
    """How well codes of different seeds match, per layer, sparsity and representation.

    Parameters
    ----------
    cells
        Representations of one protocol; those without a dictionary are passed over.
    states_NLD, rows
        States of all clips, and the clips of singers that no dictionary was trained on.
    workers
        Processes of one thread; the result does not depend on it.

    Returns
    -------
    DataFrame
        Id columns (seed is that of the first), split, metric (decoder_cosine, code_correlation:
        means over codes that fire), value, n (codes). Empty with fewer than two seeds.
    """
    families: dict[tuple, list] = {}
    for cell in cells:
        if cell.dictionary is not None:
            key = (cell.layer, cell.sparsity, cell.representation)
            families.setdefault(key, []).append(cell)
    jobs = [(family, states_NLD[rows, layer]) for (layer, _, _), family in families.items()
            if len(family) > 1]
    tables = side_by_side(_match, jobs, workers)
    columns = [*ID_COLUMNS, "split", "metric", "value", "n"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _match(family: list, states_ND: np.ndarray) -> pd.DataFrame:
    found = stability([cell.dictionary.W_dec_FD for cell in family],
                      [cell.encode(states_ND) for cell in family])
    return family[0].label(pd.DataFrame({
        "split": "unseen", "metric": list(found),
        "value": [float(np.nanmean(score)) for score in found.values()],
        "n": [int(np.isfinite(score).sum()) for score in found.values()],
    }))
