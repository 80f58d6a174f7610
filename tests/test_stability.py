import numpy as np
import pytest

from saeutils.stability import (
    code_correlation,
    decoder_cosine,
    duplicate_share,
    match_latents,
    stability,
)


def test_a_permuted_copy_is_found_again():
    rng = np.random.default_rng(0)
    decoder, codes, order = rng.normal(size=(12, 5)), rng.random((40, 12)), rng.permutation(12)
    found = stability([decoder, decoder[order]], [codes, codes[:, order]])
    assert np.allclose(found["decoder_cosine"], 1) and np.allclose(found["code_correlation"], 1)
    partner, _ = match_latents(decoder_cosine(decoder, decoder[order]))
    assert (order[partner] == np.arange(12)).all()


def test_random_dictionaries_do_not_match_at_zero():
    """The null: the best partner among many random directions is well above zero, below one."""
    rng = np.random.default_rng(0)
    _, value = match_latents(decoder_cosine(rng.normal(size=(200, 16)), rng.normal(size=(200, 16))))
    assert 0.3 < value.mean() < 0.9


def test_the_match_is_the_best_of_all_orders():
    from itertools import permutations

    similarity = np.random.default_rng(3).normal(size=(5, 5))
    _, value = match_latents(similarity)
    best = max(sum(similarity[i, order[i]] for i in range(5)) for order in permutations(range(5)))
    assert value.sum() == pytest.approx(best, abs=1e-12)


def test_matching_by_hand_and_with_unequal_numbers():
    partner, value = match_latents(np.array([[0.2], [0.9]]))
    assert partner.tolist() == [-1, 0] and np.isnan(value[0]) and value[1] == 0.9
    with pytest.raises(ValueError, match="finite"):
        match_latents(np.array([[np.nan]]))


def test_correlation_equals_numpy_and_is_zero_for_constant_codes():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(30, 3)), rng.normal(size=(30, 4))
    assert np.allclose(code_correlation(first, second), np.corrcoef(first.T, second.T)[:3, 3:])
    first[:, 0] = 2
    assert (code_correlation(first, second)[0] == 0).all()
    with pytest.raises(ValueError, match="share their clips"):
        code_correlation(first[:5], second)


def test_dead_latents_are_unknown_and_duplicates_counted():
    rng = np.random.default_rng(0)
    decoder, codes = rng.normal(size=(6, 5)), rng.random((20, 6))
    codes[:, 2] = 0
    found = stability([decoder, decoder], [codes, codes])
    assert np.isnan(found["decoder_cosine"][2]) and np.isfinite(found["decoder_cosine"][0])
    assert duplicate_share(np.eye(4)) == 0 and duplicate_share(np.ones((3, 2))) == 1
    with pytest.raises(ValueError, match="2 or more"):
        stability([decoder], [codes])
