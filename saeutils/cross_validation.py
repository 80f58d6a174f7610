"""Claim 1 by cross-validation over all singers: for material without test-only singers.

Five test singers carry little. Here every singer is a test singer once: in each fold the
dictionary is trained again on three fifths of the singers, its epoch is chosen on another fifth,
and probes fitted on the three fifths read the last fifth. The encoder has seen none of them. Fold
scores share training data, so intervals over singers are approximate. Shape letters: N clips,
D width of the states.

Source: estimands of `saeutils.protocol`; Bengio & Grandvalet (2004) on the variance of folds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from saeutils.claims import contrast, singer_matrix
from saeutils.machine import side_by_side
from saeutils.probing import tuned_probe
from saeutils.protocol import MARGIN
from saeutils.sae_starts import untrained_twin
from saeutils.sae_training import CORRECTED, Recipe, train_sae
from saeutils.scores import score_table
from saeutils.statistics import grouped_folds

FEWEST_SINGERS = 5


def possible(clips: pd.DataFrame, n_folds: int = 5) -> str:
    """Why folds over all singers cannot be made; "" when they can.

    Examples
    --------
    >>> possible(pd.DataFrame({"singer": ["a", "b"], "technique": ["x", "y"]}))
    '2 singers or groups: fewer than 5'
    """
    singers = clips["singer"].nunique()
    if singers < max(FEWEST_SINGERS, n_folds):
        return f"{singers} singers or groups: fewer than {max(FEWEST_SINGERS, n_folds)}"
    alone = clips.groupby("technique")["singer"].nunique()
    if (alone < 2).any():
        return f"{alone.idxmin()!r} is sung by one singer only"
    return ""


def fold_scores(
    states_ND: np.ndarray, clips: pd.DataFrame, *, latents: int, k: int, seeds: list[int],
    penalties: tuple[float, ...], recipe: Recipe = CORRECTED, n_folds: int = 5,
    inner_folds: int = 4, seed: int = 0, workers: int = 1,
) -> pd.DataFrame:
    """Balanced accuracy of every singer, each read by dictionaries and probes that never met it.

    Parameters
    ----------
    states_ND, clips
        States of one layer and the clip table (columns singer, sex, technique), same rows.
    latents, k
        Width of the dictionary and latents kept per row.
    seeds
        One start of a dictionary and one draw of the inner folds each; numbered 0, 1, ... in the
        result.
    penalties, inner_folds
        Of `saeutils.probing.tuned_probe`; the folds lie within the training singers.
    recipe, n_folds, seed
        Training recipe, folds over singers, and what draws them.
    workers
        Processes of one thread; the result does not depend on it.

    Returns
    -------
    DataFrame
        Columns representation (raw, reconstruction, sae, random), seed, fold, singer, value.

    Raises
    ------
    ValueError
        Too few singers (`possible`).
    """
    why = possible(clips, n_folds)
    if why:
        raise ValueError(f"no cross-validation over singers: {why}")
    singers, sexes = clips["singer"].to_numpy(), clips["sex"].to_numpy()
    tests = [test for _, test in grouped_folds(singers, sexes, n_folds, seed)]
    shared = (states_ND, clips["technique"].to_numpy(), singers, sexes, latents, k, seeds,
              penalties, recipe, inner_folds)
    jobs = [(fold, tests[fold], tests[(fold + 1) % len(tests)]) for fold in range(len(tests))]
    tables = side_by_side(_one_fold, [(*job, *shared) for job in jobs], workers)
    return pd.concat(tables, ignore_index=True)


def _one_fold(fold, test, validation, states_ND, labels, singers, sexes, latents, k, seeds,
              penalties, recipe, inner_folds) -> pd.DataFrame:
    train = np.setdiff1d(np.arange(len(labels)), np.concatenate([test, validation]))
    recipe = replace(recipe, batch=min(recipe.batch, len(train)))
    classes = np.unique(labels)

    def fitted(values_NF, whiten, inner):
        return tuned_probe(values_NF[train], labels[train], inner, classes, whiten, penalties)

    def scored(probe, values_NF, representation, number):
        table = score_table(labels[test], probe.predict(values_NF[test]), singers[test], classes)
        own = table[(table["singer"] != "") & (table["metric"] == "balanced_accuracy")]
        return own[["singer", "value"]].assign(representation=representation, seed=number,
                                               fold=fold)

    parts = []
    for number, start in enumerate(seeds):  # a seed draws the start of the SAE and the inner folds
        inner = grouped_folds(singers[train], sexes[train], inner_folds, start)
        raw = fitted(states_ND, True, inner)
        parts.append(scored(raw, states_ND, "raw", number))
        sae, _ = train_sae(states_ND[train], states_ND[validation], latents, k, start, recipe)
        parts.append(scored(raw, sae.forward(states_ND), "reconstruction", number))
        for name, one in (("sae", sae), ("random", untrained_twin(sae, states_ND[train]))):
            codes = one.encode(states_ND)
            parts.append(scored(fitted(codes, False, inner), codes, name, number))
    return pd.concat(parts, ignore_index=True)[
        ["representation", "seed", "fold", "singer", "value"]]


def claim_contrasts(scores: pd.DataFrame) -> pd.DataFrame:
    """Retention, readability and learned over all singers (rows as `saeutils.claims.contrast`).

    Parameters
    ----------
    scores
        From `fold_scores`.
    """
    raw = singer_matrix(scores, representation="raw")
    sae, twin, rebuilt = (singer_matrix(scores, representation=name)
                          for name in ("sae", "random", "reconstruction"))
    rows = [{"contrast": "retention"} | contrast(rebuilt, raw, MARGIN),
            {"contrast": "readability"} | contrast(sae, raw, MARGIN),
            {"contrast": "learned"} | contrast(sae, twin)]
    return pd.DataFrame(rows)
