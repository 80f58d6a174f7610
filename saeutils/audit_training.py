"""Audit entries that act in training (A12, A19), each turned alone from both ends.

The epoch that is kept does not change the training that it is kept from, so one run serves both
settings of A12: `kept_both_ways` watches it and keeps two sets of weights.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from saeutils.machine import side_by_side
from saeutils.sae import SparseAutoencoder
from saeutils.sae_metrics import summary
from saeutils.sae_training import Recipe, drive, finish, make_steps, prepare, train_sae, training

TREATED = {"centre": "mean", "unit_norm": True, "dead_after": 1, "wake": True}
UNTREATED = {"centre": "none", "unit_norm": False, "dead_after": 0, "wake": False}
SEEDS_A12 = 8  # the effect is small beside the spread over seeds
COLUMNS = ("protocol", "seed", "split", "metric", "value")


class _Watched:
    """Steps of a training that also keep the weights of lowest loss on the last batch alone."""

    def __init__(self, steps, batch: int):
        self.steps, self.batch = steps, batch
        self.best, self.lowest, self.picked = steps.snapshot(), np.inf, []

    def __getattr__(self, name: str):
        return getattr(self.steps, name)

    def errors(self, held_ND: np.ndarray) -> np.ndarray:
        """Errors of the validation rows, as asked for after every epoch."""
        errors_N = self.steps.errors(held_ND)
        start = len(errors_N) - 1 - (len(errors_N) - 1) % self.batch
        score = float(errors_N[start:].mean())
        self.picked.append(score < self.lowest)
        if self.picked[-1]:
            self.best, self.lowest = self.steps.snapshot(), score
        return errors_N


def kept_both_ways(
    train_ND: np.ndarray, validation_ND: np.ndarray, latents: int, k: int, seed: int,
    recipe: Recipe,
) -> tuple[SparseAutoencoder, SparseAutoencoder]:  # fmt: skip
    """One training, its epoch kept by the last validation batch and by all validation rows (A12).

    Returns
    -------
    by_last_batch, by_all
        Exactly what `sae_training.train_sae` gives with either setting of ``recipe.pick``.

    Raises
    ------
    ValueError
        As `train_sae`; for a recipe that stops early, since the two would then stop apart.
    """
    if recipe.patience:
        raise ValueError(f"recipe {recipe.name} stops after {recipe.patience} epochs without a "
                         "better one: which one is better depends on the setting, so set patience "
                         "to 0")
    task = prepare(train_ND, validation_ND, latents, k, seed, replace(recipe, pick="validation"))
    steps = _Watched(make_steps(task.start, k, recipe, "sparse", "cpu"), recipe.batch)
    best, history = drive(training(steps, task), steps)
    by_last = [row | {"picked": picked} for row, picked in zip(history, steps.picked, strict=True)]
    return (finish(task, steps.best, by_last, "sparse")[0],
            finish(task, best, history, "sparse")[0])


def turn_each(
    rows: dict[str, dict[str, np.ndarray]], recipes: dict[str, Recipe], k_of: dict[str, int],
    latents: int, seeds: dict[int, int], n_grid: int, workers: int = 1,
) -> pd.DataFrame:  # fmt: skip
    """A12 and A19 turned alone from the released and from the corrected end.

    Parameters
    ----------
    rows
        By end ("released", "corrected"), then by split: activations of one layer.
    recipes, k_of
        Recipe and k of each end.
    seeds
        Random seed of the start by seed number. A12 takes all of them, A19 the first ``n_grid``,
        which the grid of dictionaries has too.
    workers
        Processes of one thread; the result does not depend on it.

    Returns
    -------
    DataFrame
        `COLUMNS`. Protocols ``released+A12``, ``released+A19``, ``corrected-A12``,
        ``corrected-A19``; beside the two A12 ones, ``released`` and ``corrected`` of the very same
        trainings.
    """
    jobs = []
    for end, recipe in recipes.items():
        own = (rows[end], latents, k_of[end])
        jobs += [(_a12, end, number, *own, seed, recipe) for number, seed in seeds.items()]
        other = replace(recipe, **(TREATED if end == "released" else UNTREATED))
        jobs += [(_a19, end, number, *own, seed, other)
                 for number, seed in list(seeds.items())[:n_grid]]
    found = side_by_side(_turned, jobs, workers)
    return pd.DataFrame([row for part in found for row in part], columns=list(COLUMNS))


def _turned(turn, *job) -> list[tuple]:
    return turn(*job)


def _a12(end, number, rows, latents, k, seed, recipe) -> list[tuple]:
    by_last, by_all = kept_both_ways(rows["train"], rows["validation"], latents, k, seed, recipe)
    turned, base = ((by_all, by_last) if end == "released" else (by_last, by_all))
    name = "released+A12" if end == "released" else "corrected-A12"
    return _scores(name, number, turned, rows) + _scores(end, number, base, rows)


def _a19(end, number, rows, latents, k, seed, recipe) -> list[tuple]:
    sae, _ = train_sae(rows["train"], rows["validation"], latents, k, seed, recipe)
    name = "released+A19" if end == "released" else "corrected-A19"
    return _scores(name, number, sae, rows)


def _scores(name, number, sae, rows) -> list[tuple]:
    return [(name, number, split, metric, value) for split, acts in rows.items()
            for metric, value in summary(sae, acts).items()]
