"""Metrics with known answers, and the traps that other libraries fell into."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saeutils import sae_metrics as metrics
from saeutils.sae_starts import random_dictionary

ROWS = np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 4.0], [2.0, -4.0]])


def test_fvu_of_the_mean_is_one_and_of_the_rows_zero():
    mean = np.broadcast_to(ROWS.mean(axis=0), ROWS.shape)
    assert metrics.fvu(ROWS, mean) == 1
    assert metrics.fvu(ROWS, ROWS) == 0
    assert metrics.explained_variance(ROWS, mean) == 0
    assert metrics.fvu(ROWS, -ROWS + 2 * mean) == 4  # twice as far as the mean, squared


def test_fvu_by_hand():
    # total variation 2 + 32 = 34; one entry off by one
    recon = ROWS.copy()
    recon[0, 1] = 1
    assert metrics.fvu(ROWS, recon) == pytest.approx(1 / 34)


def test_fvu_does_not_feel_a_large_offset():
    rng = np.random.default_rng(0)
    acts = rng.standard_normal((200, 8)).astype(np.float32)
    recon = acts + 0.1 * rng.standard_normal((200, 8)).astype(np.float32)
    offset = 1000.0
    shifted = metrics.fvu(acts.astype(float) + offset, recon.astype(float) + offset)
    assert shifted == pytest.approx(metrics.fvu(acts, recon), rel=1e-9)
    # float32 rows at that offset carry an error of 6e-5 each: the measure adds nothing to it
    rounded = metrics.fvu(acts + np.float32(offset), recon + np.float32(offset))
    assert rounded == pytest.approx(metrics.fvu(acts, recon), rel=1e-2)


def test_fvu_of_rows_that_do_not_vary_is_undefined():
    assert np.isnan(metrics.fvu(np.ones((3, 2)), np.zeros((3, 2))))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 40), batch=st.integers(1, 40), seed=st.integers(0, 99))
def test_mse_is_a_mean_over_rows_whatever_the_batches(n, batch, seed):
    rng = np.random.default_rng(seed)
    acts, recon = rng.standard_normal((2, n, 3))
    parts = [(metrics.mse(acts[i:i + batch], recon[i:i + batch]), len(acts[i:i + batch]))
             for i in range(0, n, batch)]
    weighted = sum(value * size for value, size in parts) / n
    assert metrics.mse(acts, recon) == pytest.approx(weighted)


def test_cosine_and_shrinkage_by_hand():
    assert metrics.cosine(ROWS, 3 * ROWS) == pytest.approx(1)
    assert metrics.cosine(np.array([[1.0, 0], [0, 0]]), np.array([[0, 1.0], [1, 0]])) == 0
    assert np.isnan(metrics.cosine(np.zeros((2, 2)), ROWS[:2]))
    mean = ROWS.mean(axis=0)
    assert metrics.shrinkage(ROWS, mean + 0.7 * (ROWS - mean)) == pytest.approx(0.7)
    assert np.isnan(metrics.shrinkage(np.ones((3, 2)), np.ones((3, 2))))


CODES = np.array([[1.0, 0, 0, 2], [0, 0, 3, 4], [0, 0, 0, 5], [0, 0, 0, 6]])


def test_counts_of_codes_by_hand():
    assert metrics.l0(CODES) == 1.5
    assert metrics.density(CODES).tolist() == [0.25, 0, 0.25, 1]
    assert metrics.dead_fraction(CODES) == 0.25
    assert metrics.dense_fraction(CODES) == 0.25
    shares = np.array([1, 1, 4]) / 6
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert metrics.effective_latents(CODES) == pytest.approx(expected)
    assert metrics.effective_latents(np.zeros((2, 3))) == 0
    counts, edges = metrics.density_histogram(CODES, bins=2)
    assert counts.tolist() == [2, 1] and edges[0] <= np.log10(0.25) and edges[-1] == 0


def test_a_metric_of_codes_does_not_feel_their_order():
    order = np.random.default_rng(0).permutation(4)
    for measure in (metrics.l0, metrics.dead_fraction, metrics.effective_latents):
        assert measure(CODES[order][:, order]) == pytest.approx(measure(CODES))


def test_coherence_and_duplicates_by_hand():
    directions = np.array([[2.0, 0], [1, 1], [0, 0], [-3, -3]])
    coherence = metrics.decoder_coherence(directions)
    assert coherence[[0, 1, 3]] == pytest.approx([np.sqrt(0.5), 1, 1])
    assert np.isnan(coherence[2])
    assert metrics.near_duplicates(directions) == pytest.approx(2 / 3)
    assert np.isnan(metrics.near_duplicates(np.zeros((2, 2))))


def test_pca_bound_is_the_share_of_the_small_components():
    rng = np.random.default_rng(0)
    acts = rng.standard_normal((500, 5)) * [5, 4, 3, 2, 1] + 100
    values = np.sort(np.linalg.eigvalsh(np.cov(acts.T)))[::-1]
    for k in (1, 2, 5, 9):
        bound = metrics.pca_bound(acts, acts, k)
        assert bound == pytest.approx(values[k:].sum() / values.sum(), abs=1e-9), k
    with pytest.raises(ValueError, match="0 components"):
        metrics.pca_bound(acts, acts, 0)


def test_summary_is_the_single_metrics():
    acts = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    sae = random_dictionary(acts, 8, 3, 0)
    values = metrics.summary(sae, acts)
    codes = sae.encode(acts)
    assert values["fvu"] == metrics.fvu(acts, sae.decode(codes))
    assert values["l0"] == metrics.l0(codes)
    assert values["dead_fraction"] == metrics.dead_fraction(codes)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: metrics.fvu(ROWS, ROWS[:2]), "shapes"),
    (lambda: metrics.mse(np.zeros((0, 2)), np.zeros((0, 2))), "no rows"),
    (lambda: metrics.l0(np.zeros((0, 3))), "N at least 1"),
    (lambda: metrics.density(np.zeros(3)), "expected"),
])
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rows_that_vary_by_rounding_alone_have_no_unexplained_share():
    constant = np.full((3, 2), 0.1)  # their float64 mean is not quite 0.1
    assert np.isnan(metrics.fvu(constant, np.zeros((3, 2))))
    assert metrics.fvu(constant + np.array([[0], [1e-9], [2e-9]]), constant + 1e-9) < 1.1
