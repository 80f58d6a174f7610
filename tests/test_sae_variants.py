"""BatchTopK, Matryoshka, JumpReLU and L1: sparse as asked, better than untrained, loadable."""

import numpy as np
import pytest
import torch

from saeutils import sae_metrics
from saeutils.sae import load_sae, save_sae
from saeutils.sae_starts import random_dictionary
from saeutils.sae_variants import VARIANTS, BatchTopK, _Step, train_variant

LATENTS, K = 32, 4


def rows(n, seed):
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(0).standard_normal((24, 10))
    amounts = rng.exponential(1, (n, 24)) * (rng.random((n, 24)) < 0.1)
    return (amounts @ directions + 0.05 * rng.standard_normal((n, 10)) + 2).astype(np.float32)


@pytest.fixture(scope="module")
def trained():
    return {name: train_variant(rows(320, 1), rows(100, 2), LATENTS, K, 0, name, epochs=120)
            for name in VARIANTS}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_is_as_sparse_as_asked_and_beats_its_start(trained, name, tmp_path):
    sae, history = trained[name]
    held = rows(200, 3)
    codes = sae.encode(held)
    assert 0.6 * K < sae_metrics.l0(codes) < 1.4 * K
    untrained = random_dictionary(rows(320, 1), LATENTS, K, 0)
    fvu = sae_metrics.fvu(held, sae.decode(codes))
    share = 1.0 if name == "l1" else 0.5  # what L1 finds it also shrinks
    assert fvu < share * sae_metrics.fvu(held, untrained.forward(held))
    assert np.allclose(np.linalg.norm(sae.W_dec_FD, axis=1), 1, atol=1e-5)
    assert np.array_equal(load_sae(save_sae(sae, tmp_path / "s")).encode(held), codes)
    assert len(history) == 120 and codes.min() >= 0


@pytest.mark.parametrize("name", VARIANTS)
def test_a_code_does_not_depend_on_the_rows_beside_it(trained, name):
    sae, held = trained[name][0], rows(50, 3)
    together, alone = sae.encode(held), np.concatenate([sae.encode(row[None]) for row in held])
    assert np.allclose(together, alone, atol=1e-4)


def test_training_again_gives_the_same_weights():
    two = [train_variant(rows(128, 1), rows(40, 2), LATENTS, K, 0, "batchtopk", epochs=2)[0]
           for _ in range(2)]
    assert np.array_equal(two[0].W_enc_DF, two[1].W_enc_DF)


def test_only_l1_shrinks(trained):
    held = rows(200, 3)
    short = {name: sae_metrics.shrinkage(held, sae.forward(held))
             for name, (sae, _) in trained.items()}
    assert short["l1"] == min(short.values())


def test_batchtopk_spends_more_on_hard_rows_by_hand():
    weights = {"W_enc_DF": torch.eye(2), "b_enc_F": torch.zeros(2), "W_dec_FD": torch.eye(2)}
    model = BatchTopK(weights, 1)
    codes = model.codes(torch.tensor([[3.0, 2.0], [1.0, 0.5]]))
    assert codes.tolist() == [[3, 2], [0, 0]]
    model.after_epoch(torch.tensor([[3.0, 2.0], [1.0, 0.5]]))
    assert model.threshold_F.tolist() == [1.5, 1.5]  # between the second and the third largest


def test_step_of_jumprelu_by_hand():
    pre = torch.tensor([[0.5, 0.105, 0.095]], requires_grad=True)
    threshold = torch.full((3,), 0.1, requires_grad=True)
    step = _Step.apply(pre, threshold)
    assert step.tolist() == [[1, 1, 0]]
    step.sum().backward()
    assert threshold.grad.tolist() == pytest.approx([0, -50, -50])  # 1 / (0.2 * 0.1), near it only


def test_matryoshka_rebuilds_more_with_its_first_latents(trained):
    held = rows(200, 3)

    def with_first_half(name):
        sae = trained[name][0]
        codes = sae.encode(held)
        codes[:, LATENTS // 2:] = 0
        return sae_metrics.fvu(held, sae.decode(codes))

    assert with_first_half("matryoshka") < with_first_half("batchtopk")


def test_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="unknown variant 'gated': batchtopk, matryoshka"):
        train_variant(rows(64, 1), rows(9, 2), LATENTS, K, 0, "gated")
    with pytest.raises(ValueError, match="fewer than the batch of 64"):
        train_variant(rows(20, 1), rows(9, 2), LATENTS, K, 0, "l1")
    with pytest.raises(ValueError, match="no validation rows"):
        train_variant(rows(64, 1), rows(0, 2), LATENTS, K, 0, "l1")
    with pytest.raises(ValueError, match="k = 31 of 32 latents.*smaller k, or batchtopk"):
        train_variant(rows(64, 1), rows(9, 2), LATENTS, 31, 0, "jumprelu")


def test_an_epoch_is_chosen_although_the_validation_rows_are_equal():
    held = np.repeat(rows(1, 2), 5, axis=0)
    _, history = train_variant(rows(128, 1), held, LATENTS, 16, 0, "batchtopk", epochs=8)
    assert sum(row["picked"] for row in history) > 1
    assert all(np.isnan(row["validation_fvu"]) for row in history)


def test_a_sparsity_that_is_never_reached_is_said():
    with pytest.warns(UserWarning, match="l1: no epoch came down to 1.25 active"):
        sae, history = train_variant(rows(128, 1), rows(40, 2), LATENTS, 1, 0, "l1", epochs=2)
    assert [row["picked"] for row in history] == [False, True]
    assert sae.info["epochs"] == 2
