"""The SAE as arrays: rules of TopK, starts, untrained dictionaries, folders."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saeutils.sae import (
    SparseAutoencoder,
    check_rows,
    k_of_sparsity,
    keep_largest,
    load_sae,
    save_sae,
)
from saeutils.sae_starts import linear_start, random_dictionary, shaped_start, untrained_twin


def rows(n=60, width=6, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((width, width))
    return (rng.standard_normal((n, width)) @ mixing + 3).astype(np.float32)


def hand_made(**changes):
    parts = {
        "W_enc_DF": np.array([[1, 0, 1], [0, 1, 1]], np.float32),
        "b_enc_F": np.array([0, 0, -1], np.float32),
        "W_dec_FD": np.array([[1, 0], [0, 1], [1, 1]], np.float32),
        "b_dec_D": np.zeros(2, np.float32), "k": 1,
    }
    return SparseAutoencoder(**(parts | changes))


def test_topk_by_hand():
    sae = hand_made()
    # pre-activations of (2, 3): 2, 3, 4; of (-1, 0.5): -1, 0.5, -1.5
    codes = sae.encode(np.array([[2, 3], [-1, 0.5]]))
    assert codes.tolist() == [[0, 0, 4], [0, 0.5, 0]]
    assert sae.decode(codes).tolist() == [[4, 4], [0, 0.5]]


def test_relu_comes_before_topk_so_l0_may_be_below_k():
    codes = hand_made(k=3).encode(np.array([[-1.0, 0.5]]))
    assert np.count_nonzero(codes) == 1


def test_centred_subtracts_the_decoder_bias():
    bias = np.array([10, -10], np.float32)
    acts = np.array([[2.0, 3.0]], np.float32)
    centred = hand_made(b_dec_D=bias, centred=True)
    assert np.array_equal(centred.encode(acts + bias), hand_made().encode(acts))
    assert np.array_equal(centred.forward(acts + bias), hand_made().forward(acts) + bias)


def test_other_architectures_by_hand():
    acts = np.array([[2.0, 3.0]])
    assert hand_made(architecture="standard", k=None).encode(acts).tolist() == [[2, 3, 4]]
    threshold = np.array([2.0, 0, 5], np.float32)
    jump = hand_made(architecture="jumprelu", k=None, threshold_F=threshold)
    assert jump.encode(acts).tolist() == [[0, 3, 0]]


@settings(max_examples=25, deadline=None)
@given(k=st.integers(1, 8), seed=st.integers(0, 1000))
def test_at_most_k_non_negative_and_forward_is_decode_of_encode(k, seed):
    acts = rows(20, 5, seed)
    sae = random_dictionary(acts, 8, k, seed)
    codes = sae.encode(acts)
    assert codes.min() >= 0 and (codes > 0).sum(axis=1).max() <= k
    assert np.array_equal(sae.forward(acts), sae.decode(codes))


@settings(max_examples=25, deadline=None)
@given(k=st.integers(1, 12), seed=st.integers(0, 1000))
def test_keep_largest_keeps_the_largest(k, seed):
    values = np.random.default_rng(seed).random((4, 12)).astype(np.float32)
    kept = keep_largest(values, k)
    expected = -np.sort(-values, axis=1)[:, :k]
    assert np.array_equal(-np.sort(-kept, axis=1)[:, :k], expected)
    assert np.array_equal(kept[kept > 0], values[kept > 0])


@pytest.mark.parametrize("digits", [0, 1, 7])
@pytest.mark.parametrize("k", [1, 5, 11])
def test_keep_largest_keeps_exactly_k_whatever_is_tied(digits, k):
    values = np.maximum(np.random.default_rng(k).standard_normal((200, 12)), 0).round(digits)
    kept = keep_largest(values, k)
    positive = np.count_nonzero(values, axis=1)
    assert np.array_equal(np.count_nonzero(kept, axis=1), np.minimum(positive, k))
    assert np.array_equal(np.sort(kept)[:, -k:], np.sort(values)[:, -k:])
    assert np.array_equal(kept[kept > 0], values[kept > 0])


def test_no_rows_give_no_codes():
    assert hand_made().encode(np.zeros((0, 2))).shape == (0, 3)


@pytest.mark.parametrize(("acts", "message"), [
    (np.ones((2, 3)), r"shape \(2, 3\): expected \[rows, 2\]"),
    (np.array([[0, 1], [np.nan, 1]]), "1 rows hold NaN or infinite.*row 1"),
    (np.array([[np.inf, 1], [0, 1]]), "first: row 0"),
])
def test_bad_rows_are_refused(acts, message):
    with pytest.raises(ValueError, match=message):
        hand_made().encode(acts)


@pytest.mark.parametrize(("changes", "message"), [
    ({"k": 4}, "k = 4: TopK keeps 1 to 3"),
    ({"k": None}, "k = None"),
    ({"architecture": "gated"}, "'gated'.*topk, jumprelu, standard"),
    ({"b_enc_F": np.zeros(2, np.float32)}, "shapes do not fit"),
    ({"architecture": "jumprelu"}, "one threshold for each of the 3"),
])
def test_impossible_autoencoders_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        hand_made(**changes)


def test_k_truncation_of_the_release_and_rounding():
    released = [k_of_sparsity(s, 2048, "released") for s in (75, 80, 85, 90, 95, 99)]
    assert released == [512, 409, 307, 204, 102, 20]
    assert k_of_sparsity(90, 1000, "released") == 99  # audit A20
    assert k_of_sparsity(90, 1000, "corrected") == 100
    with pytest.raises(ValueError, match="sparsity 100 %"):
        k_of_sparsity(100, 768)
    with pytest.raises(ValueError, match="keeps 1 to 10"):
        k_of_sparsity(99, 10)
    with pytest.raises(ValueError, match="unknown protocol 'other'"):
        k_of_sparsity(75, 768, "other")


def test_linear_start_has_the_bounds_of_torch_linear():
    start = linear_start(100, 400, 0)
    for name, bound in (("W_enc_DF", 0.1), ("b_enc_F", 0.1), ("W_dec_FD", 0.05)):
        largest = np.abs(start[name]).max()
        assert 0.95 * bound < largest <= bound, name
        assert np.isclose(start[name].std(), bound / np.sqrt(3), rtol=0.1), name
    assert not start["b_dec_D"].any()


def test_shaped_start_is_unit_norm_tied_and_has_the_best_gain():
    acts = rows(200, 6)
    centred = acts - acts.mean(axis=0)
    start = shaped_start(centred, 30, 5, 0)
    assert np.allclose(np.linalg.norm(start["W_dec_FD"], axis=1), 1, atol=1e-6)
    gains = np.linalg.norm(start["W_enc_DF"], axis=0)
    assert np.allclose(gains, gains[0], rtol=1e-5)
    assert np.allclose(start["W_enc_DF"], gains[0] * start["W_dec_FD"].T, atol=1e-6)

    def error(factor):
        sae = SparseAutoencoder(**{**start, "W_enc_DF": start["W_enc_DF"] * factor}, k=5)
        return np.sum((sae.forward(centred) - centred) ** 2)

    assert error(np.float32(1)) < min(error(np.float32(0.9)), error(np.float32(1.1)))


def test_starts_depend_on_the_seed_alone():
    acts = rows() - rows().mean(axis=0)
    assert np.array_equal(linear_start(6, 9, 3)["W_enc_DF"], linear_start(6, 9, 3)["W_enc_DF"])
    assert not np.array_equal(linear_start(6, 9, 3)["W_enc_DF"], linear_start(6, 9, 4)["W_enc_DF"])
    same = [shaped_start(acts, 9, 2, 3)["W_dec_FD"] for _ in range(2)]
    assert np.array_equal(*same)


@pytest.mark.parametrize("protocol", ["released", "corrected"])
def test_untrained_dictionary_has_the_least_squares_gain(protocol):
    acts = rows(80)
    sae = random_dictionary(acts, 24, 6, 0, protocol)
    codes = sae.encode(acts)

    def error(factor):
        return np.sum((acts - sae.b_dec_D - factor * (codes @ sae.W_dec_FD)) ** 2)

    assert error(1.0) <= min(error(0.98), error(1.02))
    assert sae.centred == (protocol == "corrected") == bool(sae.b_dec_D.any())
    with pytest.raises(ValueError, match="unknown protocol"):
        random_dictionary(acts, 24, 6, 0, "other")


def test_untrained_twin_shares_width_k_and_seed():
    acts = rows(80)
    sae = hand_made(info={"protocol": "corrected", "seed": 7})
    twin = untrained_twin(sae, acts[:, :2])
    again = random_dictionary(acts[:, :2], 3, 1, 7, "corrected")
    assert (twin.latents, twin.k) == (3, 1)
    assert np.array_equal(twin.W_enc_DF, again.W_enc_DF)


# folders ---------------------------------------------------------------------------------------
def test_folder_round_trip(tmp_path):
    acts = rows()
    sae = random_dictionary(acts, 12, 3, 0)
    back = load_sae(save_sae(sae, tmp_path / "a" / "seed_0"))
    for name in ("W_enc_DF", "b_enc_F", "W_dec_FD", "b_dec_D"):
        assert np.array_equal(getattr(sae, name), getattr(back, name)), name
    assert (back.k, back.centred, back.info) == (3, True, sae.info)
    assert np.array_equal(back.encode(acts), sae.encode(acts))
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["seed_0"]


def test_saving_again_replaces_the_folder_and_leaves_the_same_bytes(tmp_path):
    sae = random_dictionary(rows(), 12, 3, 0)
    files = [{p.name: p.read_bytes() for p in save_sae(sae, tmp_path / "s").iterdir()}
             for _ in range(2)]
    assert files[0] == files[1]


@pytest.mark.parametrize(("changes", "message"), [
    ({"normalize_activations": "layer_norm"}, "normalize_activations = 'layer_norm'"),
    ({"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm"),
    ({"architecture": "gated"}, "unknown architecture 'gated'"),
    ({"architecture": "jumprelu"}, "expected .*threshold"),
])
def test_folders_that_cannot_be_computed_are_refused(tmp_path, changes, message):
    folder = save_sae(random_dictionary(rows(), 12, 3, 0), tmp_path / "s")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=message):
        load_sae(folder)


def test_a_half_written_folder_is_no_sae(tmp_path):
    folder = save_sae(random_dictionary(rows(), 12, 3, 0), tmp_path / "s")
    (folder / "sae_weights.safetensors").unlink()
    with pytest.raises(ValueError, match="no SAE in 's'"):
        load_sae(folder)


def test_check_rows_casts_to_float32():
    assert check_rows([[1, 2]]).dtype == np.float32


@pytest.mark.filterwarnings("ignore:l1")  # its sparsity is not asked here
@pytest.mark.parametrize("kind", ["released", "corrected", "trained", "batchtopk", "matryoshka",
                                  "jumprelu", "l1"])
def test_saelens_computes_the_same_codes(tmp_path, kind):
    """Round trip through SAELens itself; runs where it is installed (extra environment)."""
    sae_lens = pytest.importorskip("sae_lens", reason="optional: pip install -e .[interop]")
    import torch

    from saeutils.sae_training import CORRECTED, train_sae
    from saeutils.sae_variants import VARIANTS, train_variant

    acts, held = rows(64), rows(20, seed=1)
    if kind in VARIANTS:
        ours, _ = train_variant(acts, held, 12, 3, 0, kind, epochs=40)
    elif kind == "trained":
        ours, _ = train_sae(acts, held, 12, 3, 0, CORRECTED)
    else:
        ours = random_dictionary(acts, 12, 3, 0, kind)
    folder = save_sae(ours, tmp_path / "s")
    theirs = sae_lens.SAE.load_from_disk(str(folder), device="cpu")
    codes = theirs.encode(torch.tensor(acts)).detach().numpy()
    assert np.abs(codes - ours.encode(acts)).max() < 1e-6 * np.abs(codes).max()
    theirs.save_model(str(tmp_path / "back"))
    assert np.array_equal(load_sae(tmp_path / "back").encode(acts), ours.encode(acts))
