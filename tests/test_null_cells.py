"""Nulls of stage 05: shuffled attributes and SAEs of permuted states."""

import numpy as np
import pytest

from saeutils import null_cells, nulls
from saeutils.representations import Representation
from saeutils.sae_starts import random_dictionary


@pytest.fixture(scope="module")
def world():
    """Sixteen singers of twenty clips; attributes are the first four dimensions and the singer."""
    rng = np.random.default_rng(0)
    singers = np.repeat(np.arange(16), 20)
    exercises = np.tile(["x", "y"], 160)
    states = rng.normal(size=(320, 6)) + 1.5 * rng.normal(size=(16, 6))[singers]
    attributes = states[:, :4] + 0.3 * rng.normal(size=(320, 4))
    return states, attributes, singers, exercises


def test_shuffles_stay_where_they_should(world):
    _, _, singers, exercises = world
    parts = {"train": np.arange(200), "unseen": np.arange(200, 320)}
    orders = null_cells.shuffled_orders(parts, singers, exercises, 3)
    within, free = orders["within singer and exercise"], orders["freely"]
    assert (singers[within] == singers).all() and (exercises[within] == exercises).all()
    assert (within != np.arange(320)).mean() > 0.5
    assert (singers[free] != singers).mean() > 0.5
    for rows in parts.values():
        assert sorted(free[rows]) == sorted(within[rows]) == rows.tolist()


def test_nothing_to_find_looks_like_something_in_sample_only(world):
    """The optimism: many codes, few clips. On unseen singers it is gone; and what the singer
    carries survives a shuffle within the singer."""
    states, attributes, singers, exercises = world
    rng = np.random.default_rng(1)
    codes = np.hstack([states, rng.normal(size=(320, 120))])
    train, test = np.arange(200), np.arange(200, 320)
    orders = null_cells.shuffled_orders({"train": train, "unseen": test}, singers, exercises, 3)
    cell = Representation("demo", 0, "sae", "", 95.0, 3, 0, "corrected")
    names = list("abcd")
    table = null_cells.shuffled_cell(
        codes, cell, attributes, names, orders, train, test, test[:80], singers, exercises, 0.1,
        names, 4).set_index(["attributes", "metric"])["value"]
    free, own = table["freely"], table["as measured"]
    assert free["r2_in_sample_top_mean"] > 0.2 and free["r2_held_out_common_mean"] < 0.05
    assert own["r2_held_out_common_mean"] > 0.7
    within = table["within singer and exercise"]
    assert 0.2 < within["r2_held_out_common_mean"] < own["r2_held_out_common_mean"]
    assert within["r2_within_singer_common_mean"] < 0.05


def test_permuted_columns_keep_marginals_and_lose_what_they_share(world):
    states = world[0] @ np.random.default_rng(2).normal(size=(6, 6))
    moved = nulls.permute_columns(states, 0)
    assert np.array_equal(np.sort(moved, axis=0), np.sort(states, axis=0))
    def shared(x):
        return np.abs(np.corrcoef(x.T) - np.eye(6)).max()
    assert shared(states) > 0.3 > 0.2 > shared(moved)
    assert np.array_equal(moved, nulls.permute_columns(states, 0))
    assert not np.array_equal(moved, nulls.permute_columns(states, 1))


def test_saes_of_permuted_states_do_not_depend_on_workers(world):
    states = world[0].astype(np.float32)
    like = []
    for seed in (0, 1):
        sae = random_dictionary(states[:200], 24, 3, 50 + seed, "corrected")
        like.append(Representation("demo", 2, "sae", "topk", 87.5, 3, seed, "corrected", sae))
    one, two = (null_cells.permuted_cells(like, states[:200], states[200:], epochs=2, batch=16,
                                          seed=7, workers=workers) for workers in (1, 2))
    for cell, other, real in zip(one, two, like, strict=True):
        assert cell.representation == "permuted" and (cell.seed, cell.k) == (real.seed, real.k)
        assert cell.dictionary.latents == real.dictionary.latents
        assert np.array_equal(cell.dictionary.W_dec_FD, other.dictionary.W_dec_FD)
    assert not np.array_equal(one[0].dictionary.W_dec_FD, one[1].dictionary.W_dec_FD)
