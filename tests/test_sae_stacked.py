"""Stacked training: the same SAE as alone, whatever it is stacked with."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saeutils import sae_metrics
from saeutils.sae_stacked import top_each, train_stack
from saeutils.sae_training import CORRECTED, RELEASED, train_sae

LATENTS = 32
AUXILIARY = replace(CORRECTED, name="auxiliary", wake=False, aux_k=8, aux_weight=1 / 32)


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(7).standard_normal((16, 10)).astype(np.float32)
    amounts = rng.exponential(1, (n, 16)) * (rng.random((n, 16)) < 0.2)
    noise = 0.05 * rng.standard_normal((n, 10))
    return (amounts @ directions + noise).astype(np.float32)


def test_top_each_keeps_its_own_number():
    kept = top_each(torch.rand(3, 50, 20) + 0.1, torch.tensor([1, 5, 20]), 20)
    assert [(part > 0).sum(1).unique().tolist() for part in kept] == [[1], [5], [20]]


@pytest.mark.parametrize("recipe", [replace(RELEASED, epochs=3), replace(CORRECTED, epochs=3)])
def test_a_stacked_sae_is_the_one_trained_alone(recipe):
    train, held, other = rows(320), rows(60, 1), rows(320, 2)
    jobs = [(train, held, 3, 0), (other, held, 8, 1), (train, held, 1, 2)]
    stacked = train_stack(jobs, LATENTS, recipe)
    for (sae, history), (train_ND, held_ND, k, seed) in zip(stacked, jobs, strict=True):
        alone, told = train_sae(train_ND, held_ND, LATENTS, k, seed, recipe, backend="dense")
        apart = np.linalg.norm(sae.forward(held_ND) - alone.forward(held_ND))
        assert apart < 1e-5 * np.linalg.norm(alone.forward(held_ND))  # after 60 steps
        assert history[0]["validation_fvu"] == pytest.approx(told[0]["validation_fvu"], rel=1e-3)
        assert sae.k == k and sae.info["backend"] == "stacked"


def test_company_changes_nothing():
    train, held, recipe = rows(160), rows(40, 1), replace(CORRECTED, epochs=2)
    alone = train_stack([(train, held, 3, 0)], LATENTS, recipe)[0][0]
    among = train_stack([(train, held, 5, 9), (train, held, 3, 0)], LATENTS, recipe)[1][0]
    assert np.abs(alone.W_enc_DF - among.W_enc_DF).max() < 1e-5


def test_one_that_stops_early_keeps_its_best():
    train, held = rows(160), rows(40, 1)
    recipe = replace(RELEASED, epochs=12, rate=0.05, pick="validation", patience=1)
    stacked = train_stack([(train, held, 3, s) for s in range(4)], LATENTS, recipe)
    lengths = [len(history) for _, history in stacked]
    assert len(set(lengths)) > 1
    for sae, history in stacked:
        best = min(row["validation_fvu"] for row in history)
        assert sae_metrics.fvu(held, sae.forward(held)) == pytest.approx(best, rel=1e-3)


def test_bfloat16_differs_a_little_and_not_more():
    train, held, recipe = rows(320), rows(60, 1), replace(CORRECTED, epochs=8)
    job = [(train, held, 4, 0)]
    exact, rough = (train_stack(job, LATENTS, recipe, autocast=kind)[0][0]
                    for kind in (None, torch.bfloat16))
    errors = [sae_metrics.fvu(held, sae.forward(held)) for sae in (exact, rough)]
    assert not np.array_equal(exact.W_dec_FD, rough.W_dec_FD)
    assert errors[1] == pytest.approx(errors[0], abs=0.05)


class NoFloat64(TorchDispatchMode):
    """Stands in for MPS, which has no float64: any tensor of it is an error."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves((made, args)):
            if isinstance(one, torch.Tensor) and one.dtype == torch.float64:
                raise TypeError(f"{func}: Cannot convert a MPS Tensor to float64 dtype")
        return made


def test_the_stand_in_for_mps_refuses_float64():
    with NoFloat64():
        torch.zeros(2)
        for make in (lambda: torch.zeros(2, dtype=torch.float64), lambda: torch.ones(2).double(),
                     lambda: torch.tensor(np.zeros(2)), lambda: torch.as_tensor(np.ones(2)) + 1):
            with pytest.raises(TypeError, match="float64"):
                make()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("recipe", [RELEASED, CORRECTED, AUXILIARY], ids=lambda one: one.name)
def test_no_float64_tensor_is_made_in_training(recipe, fused, monkeypatch):
    """MPS has none; alone and stacked training made them for their sums of errors."""
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *a, **k: adam(*a, **(k | {"fused": fused})))
    train, held, recipe = rows(48), rows(20, 1), replace(recipe, epochs=3)
    with NoFloat64():
        sae, history = train_sae(train, held, LATENTS, 3, 0, recipe, backend="dense")
        if not recipe.aux_k:
            train_stack([(train, held, 3, 0), (train, held, 5, 1)], LATENTS, recipe)
    expected = np.mean(np.square(sae.forward(held) - held)) * held.size
    left = history[sae.info["best_epoch"] - 1]["validation_fvu"] * np.sum((held - held.mean(0))**2)
    assert left == pytest.approx(expected, rel=1e-3)


class Asked(TorchDispatchMode):
    """Counts how often the host asks a device for a number, and so waits for it."""

    times = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.times += "_local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def test_no_batch_waits_for_the_device():
    def asked(n_rows):
        with Asked() as mode:
            train_stack([(rows(n_rows), rows(40, 1), 3, 0)], LATENTS, replace(RELEASED, epochs=1))
        return mode.times

    with Asked() as mode:
        int(torch.ones(1).max())
    assert mode.times == 1
    assert asked(32) == asked(320)


def test_what_cannot_be_stacked_is_said():
    with pytest.raises(ValueError, match="cannot be stacked"):
        train_stack([(rows(160), rows(40), 3, 0), (rows(176), rows(40), 3, 0)], LATENTS)
    with pytest.raises(ValueError, match="one by one"):
        train_stack([(rows(160), rows(40), 3, 0)], LATENTS, replace(CORRECTED, aux_k=4))
