"""The validation error of SAEs under training, looked at often and at no cost to their time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from contenders import CONTENDERS, LOOP

from saeutils import sae_metrics
from saeutils.sae_training import RELEASED, make_steps, prepare, training

LOOKS = 16  # an epoch: how often a training is judged


@dataclass(frozen=True)
class Look:
    """How far a training is: passes over the rows, seconds (`once` of them before the first step),
    and its error on the validation rows."""

    epochs: float
    seconds: float
    once: float
    fvu: float


def ours(train_ND, held_ND, latents, k, recipe) -> Iterator[Look]:
    """A recipe of ours, to its end.

    Everything before the first step is timed too, and so is the validation that the recipe does
    itself after each epoch; the looks are not.
    """
    begin = time.perf_counter()
    task = prepare(train_ND, held_ND, latents, k, 0, recipe)
    steps = make_steps(task.start, k, recipe, "sparse", "cpu")
    run = training(steps, task)
    wanted = next(run)
    seen, spent = 0, time.perf_counter() - begin
    once = spent
    variation = float(np.sum((task.held_ND - task.held_ND.mean(axis=0)) ** 2))
    n_batches = -(-len(train_ND) // recipe.batch)
    ends = [recipe.batch * part[0] for part in np.array_split(np.arange(n_batches), LOOKS)][1:]

    def look():
        return Look(seen / len(train_ND), spent, once,
                    float(steps.errors(task.held_ND).sum()) / variation)

    yield look()
    while True:
        rows_ND, order_N, rate, dead_F, jitter, *pairs = wanted
        fired_F, error = 0, 0.0
        for part, *others in zip(*(np.split(one, ends) for one in (order_N, *pairs)), strict=True):
            begin = time.perf_counter()
            fired, wrong = steps.epoch(rows_ND, part, rate, dead_F, jitter, *others)
            spent += time.perf_counter() - begin
            seen += len(part)
            fired_F, error = fired_F + fired, error + wrong * len(part) / len(order_N)
            yield look()
        begin = time.perf_counter()
        try:
            wanted = run.send((fired_F, error))
        except StopIteration:
            return
        spent += time.perf_counter() - begin


def peer(name, train_ND, held_ND, latents, k) -> Iterator[Look]:
    """Another library's SAE, or the release's loop, without end.

    It gets rows about their mean and at one scale, as such libraries advise (the loop gets them as
    they are), in whole batches (one library divides by the variance of a batch).
    """
    import torch

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    if name != LOOP:
        mean_D, scale = train_ND.mean(axis=0), train_ND.std(axis=0).mean()
        train_ND, held_ND = ((rows - mean_D) / scale for rows in (train_ND, held_ND))
    one = CONTENDERS[name][0](train_ND.shape[1], latents, k, RELEASED.batch)
    n_batches, spent, seen = len(train_ND) // RELEASED.batch, 0.0, 0
    yield Look(0.0, 0.0, 0.0, sae_metrics.fvu(held_ND, one.rebuild(held_ND)))
    while True:
        order = rng.permutation(len(train_ND))[: n_batches * RELEASED.batch]
        for part in np.array_split(order.reshape(n_batches, RELEASED.batch), LOOKS):
            rows = train_ND[part.ravel()]
            begin = time.perf_counter()
            one.train(rows)
            spent += time.perf_counter() - begin
            seen += len(rows)
            yield Look(seen / len(train_ND), spent, 0.0,
                       sae_metrics.fvu(held_ND, one.rebuild(held_ND)))
