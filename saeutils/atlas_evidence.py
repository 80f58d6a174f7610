"""What a latent goes along with, and what moves it: weights, responses and pairs to hear.

A weight is a correlation on training singers; beside it stands what the latent alone predicts on
unseen ones. A response is a change after one cause was moved and all else held. Shape letters:
N clips, F latents, A attributes, M moved clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from saeutils.disentanglement import rank_normalise
from saeutils.lasso import standardise


def alone_r2(
    codes_NF: np.ndarray, values_NA: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Held-out R2 of a straight line from one code to one attribute, shape [A, F].

    Attributes become normal scores of the training clips, the line is fitted there, and 0 is the
    score of the training mean. A code that is silent in training scores 0 or less.

    Examples
    --------
    >>> codes = np.arange(8.0)[:, None]
    >>> alone_r2(codes, codes, np.arange(0, 8, 2), np.arange(1, 7, 2)).round(1).tolist()
    [[1.0]]
    """
    targets = rank_normalise(values_NA, train)
    y, mean, scale = standardise(targets[train])
    x, x_mean, x_scale = standardise(codes_NF[train])
    slope_AF = y.T @ x / len(x)
    held = (targets[test] - mean) / scale
    held_x = standardise(codes_NF[test], x_mean, x_scale)[0]
    cross_AF = held.T @ held_x
    error = (held**2).sum(axis=0)[:, None] - 2 * slope_AF * cross_AF \
        + slope_AF**2 * (held_x**2).sum(axis=0)
    total = (held**2).sum(axis=0)[:, None]
    return 1 - error / np.where(total > 0, total, np.nan)


def long_weights(
    names: Sequence[str], kind: str, weights_AF: np.ndarray, alone_AF: np.ndarray,
    held_out_A: np.ndarray, latents: Sequence[int], n: int,
) -> pd.DataFrame:
    """Weights of the chosen latents as a table.

    Returns
    -------
    DataFrame
        Columns attribute, kind (attribute or factor), metric, value, n, latent. Metrics: ``weight``
        (signed, standardised), ``r2_alone`` (this latent by itself, unseen singers) and
        ``r2_all`` (the whole code; the same for every latent).
    """
    records = []
    for a, name in enumerate(names):
        for f in latents:
            values = (("weight", weights_AF[a, f]), ("r2_alone", alone_AF[a, f]),
                      ("r2_all", held_out_A[a]))
            records += [(name, kind, metric, float(value), n, f) for metric, value in values]
    return pd.DataFrame(records, columns=["attribute", "kind", "metric", "value", "n", "latent"])


def long_responses(found, latents: Sequence[int]) -> pd.DataFrame:
    """`saeutils.interventions.responses` of the chosen latents as a table.

    Returns columns factor, metric (power, specificity, exceeds, trend), value, n (base clips),
    latent.
    """
    parts = {"power": found.power, "specificity": found.specificity, "exceeds": found.exceeds,
             "trend": found.trend}
    records = [(name, metric, float(values[q, f]), int(found.n_bases[q]), f)
               for q, name in enumerate(found.factors) for f in latents
               for metric, values in parts.items()]
    return pd.DataFrame(records, columns=["factor", "metric", "value", "n", "latent"])


def response_steps(
    codes_MF: np.ndarray, sets: pd.DataFrame, unit_F: np.ndarray, latents: Sequence[int],
    width: float = 0.5,
) -> pd.DataFrame:
    """Mean change of each chosen latent against the base clip, by factor and size of the step.

    Steps differ between base clips; they are gathered in bins of `width` population SDs.

    Returns
    -------
    DataFrame
        Columns factor, step (mean of the bin), metric (``change``, SDs of the code over training
        clips), value, n (pairs), latent.
    """
    latents = list(latents)
    unit = np.where(unit_F[latents] > 0, unit_F[latents], np.inf)
    codes = np.asarray(codes_MF, dtype=float)[:, latents] / unit
    sets = sets.reset_index(drop=True)
    base = sets.index[sets["factor"] == "base"]
    home = pd.Series(base, index=sets.loc[base, "base_id"])
    moved = sets[sets["factor"] != "base"]
    change = codes[moved.index] - codes[home[moved["base_id"]].to_numpy()]
    keys = [moved["factor"].to_numpy(), np.round(moved["step"].to_numpy() / width)]
    table = pd.DataFrame(change, columns=latents).assign(factor=keys[0], bin=keys[1],
                                                         step=moved["step"].to_numpy())
    mean = table.groupby(["factor", "bin"]).mean()
    count = table.groupby(["factor", "bin"]).size()
    records = [(factor, float(row["step"]), "change", float(row[f]), int(count[factor, size]), f)
               for (factor, size), row in mean.iterrows() for f in latents]
    return pd.DataFrame(records, columns=["factor", "step", "metric", "value", "n", "latent"])


def pairs_to_hear(
    responses: pd.DataFrame, codes_MF: np.ndarray, sets: pd.DataFrame, latents: Sequence[int]
) -> pd.DataFrame:
    """For each latent that answers to a cause, the pair of clips to listen to.

    The cause is the one that owns most of the latent's response, among those above the placebo;
    the pair is the one with the largest change: the best case, to be announced as such.

    Parameters
    ----------
    responses
        From `long_responses`.
    codes_MF, sets
        Codes of the rows of ``sets``, and ``sets``.

    Returns
    -------
    DataFrame
        Columns latent, factor, step, place (before, after), clip_id, metric (``code``), value; two
        rows per latent, none for a latent that answers to nothing.
    """
    wide = responses.pivot(index=["latent", "factor"], columns="metric", values="value")
    wide = wide[(wide["exceeds"] > 0) & wide["specificity"].notna()].reset_index()
    records = []
    for f in latents:
        own = wide[wide["latent"] == f]
        if len(own):
            factor = own.loc[own["specificity"].idxmax(), "factor"]
            for place, row in zip(("before", "after"), largest_pair(codes_MF, sets, factor, f),
                                  strict=True):
                records.append((f, factor, float(sets["step"].iloc[row]), place,
                                sets["clip_id"].iloc[row], "code", float(codes_MF[row, f])))
    return pd.DataFrame(records, columns=["latent", "factor", "step", "place", "clip_id", "metric",
                                          "value"])


def largest_pair(
    codes_MF: np.ndarray, sets: pd.DataFrame, factor: str, latent: int
) -> tuple[int, int]:
    """Rows of ``sets`` of the base clip and the moved clip between which the code changes most."""
    sets = sets.reset_index(drop=True)
    moved = sets.index[sets["factor"] == factor]
    if not len(moved):
        raise ValueError(f"no clip with {factor!r} moved: there are "
                         f"{', '.join(sorted(sets['factor'].unique()))}")
    base = sets[sets["factor"] == "base"].reset_index().set_index("base_id")["index"]
    homes = base[sets.loc[moved, "base_id"]].to_numpy()
    codes = np.asarray(codes_MF, dtype=float)[:, latent]
    best = int(np.argmax(np.abs(codes[moved] - codes[homes])))
    return int(homes[best]), int(moved[best])
