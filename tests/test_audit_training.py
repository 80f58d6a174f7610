"""A12 and A19: one training watched from two sides equals two trainings."""

from dataclasses import replace

import numpy as np
import pytest

from saeutils import audit_training as audit
from saeutils.sae_metrics import fvu
from saeutils.sae_training import CORRECTED, RELEASED, train_sae

RNG = np.random.default_rng(0)
CAUSES = RNG.normal(size=(10, 6))
ROWS = {name: (RNG.exponential(size=(n, 10)) * (RNG.random((n, 10)) < 0.3) @ CAUSES + 0.05 *
               RNG.normal(size=(n, 6))).astype(np.float32)
        for name, n in (("train", 96), ("validation", 37), ("test", 30))}
RECIPES = {"released": replace(RELEASED, epochs=25), "corrected": replace(CORRECTED, epochs=12)}


@pytest.mark.parametrize("end", RECIPES)
def test_one_run_keeps_what_two_runs_would(end):
    both = audit.kept_both_ways(ROWS["train"], ROWS["validation"], 16, 3, 5, RECIPES[end])
    for sae, pick in zip(both, ("last_batch", "validation"), strict=True):
        alone, _ = train_sae(ROWS["train"], ROWS["validation"], 16, 3, 5,
                             replace(RECIPES[end], pick=pick))
        assert np.array_equal(sae.W_dec_FD, alone.W_dec_FD)
        assert np.array_equal(sae.b_enc_F, alone.b_enc_F)
        assert sae.info["best_epoch"] == alone.info["best_epoch"]


def test_the_two_ways_differ_where_the_last_batch_misleads():
    """By hand: the last batch is one outlier row, so that its best epoch is not everybody's."""
    held = ROWS["validation"][:33].copy()
    held[-1] *= 6
    recipe = replace(RECIPES["released"], epochs=40, rate=2e-2)
    last, every = audit.kept_both_ways(ROWS["train"], held, 16, 3, 5, recipe)
    assert last.info["best_epoch"] != every.info["best_epoch"]
    error = [((held - sae.forward(held)) ** 2).sum() for sae in (last, every)]
    assert error[1] < error[0]


def test_recipes_that_stop_early_are_refused():
    with pytest.raises(ValueError, match="patience to 0"):
        audit.kept_both_ways(ROWS["train"], ROWS["validation"], 16, 3, 5,
                             replace(RELEASED, patience=3))


def test_each_switch_is_turned_from_both_ends_and_pairs_by_seed():
    rows = {"released": ROWS, "corrected": ROWS}
    table = audit.turn_each(rows, RECIPES, {"released": 3, "corrected": 3}, 16,
                            {0: 5, 1: 6, 2: 7}, n_grid=2)
    seeds = table.groupby("protocol")["seed"].unique().map(list).to_dict()
    assert seeds == {"released": [0, 1, 2], "corrected": [0, 1, 2], "released+A12": [0, 1, 2],
                     "corrected-A12": [0, 1, 2], "released+A19": [0, 1], "corrected-A19": [0, 1]}
    value = table[(table["split"] == "test") & (table["seed"] == 0)].set_index(
        ["protocol", "metric"])["value"]
    for name, recipe in (("released", RECIPES["released"]), ("corrected", RECIPES["corrected"]),
                         ("corrected-A19", replace(RECIPES["corrected"], **audit.UNTREATED))):
        sae, _ = train_sae(ROWS["train"], ROWS["validation"], 16, 3, 5, recipe)
        assert value[name, "fvu"] == pytest.approx(fvu(ROWS["test"], sae.forward(ROWS["test"])))
    assert value["corrected-A19", "fvu"] != value["corrected", "fvu"]
