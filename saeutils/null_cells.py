"""The nulls of stage 05, cell by cell: maps of shuffled attributes, SAEs of permuted states.

Both answer what a number is when there is nothing to find; `saeutils.nulls` draws them. Shape
letters: N clips, F codes, D width of the states, A attributes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from saeutils.completeness import completeness, top_attributes
from saeutils.disentanglement import held_out_map, released_map
from saeutils.machine import side_by_side
from saeutils.nulls import permute_columns, shuffle_within
from saeutils.representations import Representation
from saeutils.sae_training import CORRECTED, train_sae


def shuffled_orders(
    parts: dict[str, np.ndarray], singers: np.ndarray, exercises: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Which clip's attributes each clip gets: its own, one of the same singer and exercise, any.

    Parameters
    ----------
    parts
        Row numbers of the splits; attributes never leave their split.
    singers, exercises
        Of all clips, shape [N].
    seed
        Of the draws.

    Returns
    -------
    dict
        "as measured", "within singer and exercise", "freely": row numbers, shape [N].

    Examples
    --------
    >>> orders = shuffled_orders({"train": np.arange(2)}, np.array(["a", "b"]), ["x", "x"], 1)
    >>> orders["within singer and exercise"].tolist(), sorted(orders["freely"].tolist())
    ([0, 1], [0, 1])
    """
    keys = np.array([f"{s}|{e}" for s, e in zip(singers, exercises, strict=True)])
    own = np.arange(len(keys))
    within, free = own.copy(), own.copy()
    for rows in parts.values():
        within[rows] = shuffle_within(rows, keys[rows], seed)
        free[rows] = np.random.default_rng(seed).permutation(rows)
    return {"as measured": own, "within singer and exercise": within, "freely": free}


def shuffled_cell(
    codes_NF: np.ndarray, cell, attributes_NA: np.ndarray, names: list[str],
    orders: dict[str, np.ndarray], train: np.ndarray, test: np.ndarray, in_sample: np.ndarray,
    singers: np.ndarray, exercises: np.ndarray, alpha: float, common: list[str], n_top: int,
) -> pd.DataFrame:
    """The same maps of attributes as measured and shuffled: in sample and on unseen singers.

    Parameters
    ----------
    orders
        From `shuffled_orders`.
    train, test, in_sample
        Rows of the held-out map, and those of the map that is scored on its own clips.
    common, n_top
        Attributes averaged on unseen singers, and how many of the best in sample.

    Returns
    -------
    DataFrame
        Columns attributes (name of the order), split, metric, value, n (clips). Metrics:
        r2_in_sample_top_mean and completeness_top_mean (of the ``n_top`` best, as released),
        r2_held_out_common_mean and r2_within_singer_common_mean.
    """
    records, pick = [], [names.index(name) for name in common]
    for name, order in orders.items():
        moved = attributes_NA[order]
        inside = released_map(codes_NF[in_sample], moved[in_sample], alpha)
        best = top_attributes(inside.r2, n_top)
        apart = held_out_map(codes_NF, moved, train, test, singers, exercises, alpha)
        records += [
            (name, "test", "r2_in_sample_top_mean", inside.r2[best].mean(), len(in_sample)),
            (name, "test", "completeness_top_mean", completeness(inside.weights)[best].mean(),
             len(in_sample)),
            (name, "unseen", "r2_held_out_common_mean", np.nanmean(apart.r2[pick]), len(test)),
            (name, "unseen", "r2_within_singer_common_mean", _mean(apart.r2_within[pick]),
             len(test))]
    return pd.DataFrame(records, columns=["attributes", "split", "metric", "value", "n"])


def permuted_cells(
    like: list[Representation], train_ND: np.ndarray, validation_ND: np.ndarray, *, epochs: int,
    batch: int, seed: int, workers: int = 1,
) -> list[Representation]:
    """An SAE of permuted states for each SAE: same width, k and training seed, corrected recipe.

    The training states are permuted column by column (`saeutils.nulls.permute_columns`), the same
    way for all, as the seeds of a real SAE share their rows.

    Parameters
    ----------
    like
        Representations of SAEs of one layer.
    train_ND, validation_ND
        States of that layer; the validation rows choose the epoch and are permuted as well.
    epochs, batch
        Of the corrected recipe, as the SAEs were trained.
    seed
        Of the permutation.
    workers
        Processes of one thread; the result does not depend on it.

    Returns
    -------
    list of Representation
        In the order of ``like``, with representation "permuted".
    """
    recipe = replace(CORRECTED, epochs=epochs, batch=min(batch, len(train_ND)))
    rows = [permute_columns(part, seed + number)
            for number, part in enumerate((train_ND, validation_ND))]
    jobs = [(*rows, cell.dictionary.latents, cell.k,
             cell.dictionary.info.get("seed", cell.seed), recipe) for cell in like]
    found = side_by_side(train_sae, jobs, workers)
    return [replace(cell, representation="permuted", dictionary=sae)
            for cell, (sae, _) in zip(like, found, strict=True)]


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
