import numpy as np
import pandas as pd
import pytest

from saeutils.claims import contrast, contrast_table, singer_matrix


def matrix(values):
    return pd.DataFrame(values, columns=[f"s{i}" for i in range(np.shape(values)[1])])


def test_contrast_by_hand_with_unequal_numbers_of_seeds():
    new = matrix([[0.6, 0.8, 0.7], [0.8, 0.8, 0.7]])
    raw = matrix([[0.7, 0.7, 0.7]])
    row = contrast(new, raw, margin=0.03)
    assert row["value"] == pytest.approx(np.mean([0.0, 0.1, 0.0]))
    assert row["n"] == 3 and row["n_seeds"] == 2
    assert row["seed_sd"] == pytest.approx(np.std([2.1 / 3, 2.3 / 3], ddof=1))
    assert row["ci_low"] < row["value"] < row["ci_high"]


def test_the_spread_over_seeds_is_that_of_the_difference():
    """It was that of the SAE alone, also where the untrained dictionary has seeds of its own."""
    new, twin = matrix([[0.6, 0.8], [0.7, 0.9], [0.5, 0.9]]), matrix([[0.4, 0.6], [0.5, 0.7],
                                                                      [0.5, 0.7]])
    each = [0.7 - 0.5, 0.8 - 0.6, 0.7 - 0.6]  # seed by seed
    assert contrast(new, twin)["seed_sd"] == pytest.approx(np.std(each, ddof=1))
    assert contrast(new, new - 0.1)["seed_sd"] == pytest.approx(0, abs=1e-12)


def test_a_constant_loss_beyond_the_margin_is_not_kept_and_within_it_is():
    raw = matrix(np.random.default_rng(0).uniform(0.5, 0.9, (1, 12)))
    assert contrast(raw - 0.02, raw, 0.03)["kept"] == 1.0
    assert contrast(raw - 0.04, raw, 0.03)["kept"] == 0.0
    assert np.isnan(contrast(raw, raw)["kept"])
    assert np.isnan(contrast(raw[["s0"]], raw[["s0"]], 0.03)["kept"])


def test_order_of_singers_does_not_matter():
    new, raw = matrix([[0.1, 0.5, 0.9]]), matrix([[0.2, 0.5, 0.7]])
    table = contrast_table({75: (new, raw), 95: (new[["s2", "s0", "s1"]], raw[["s1", "s2", "s0"]])})
    for column in ("value", "ci_low", "band_low", "band_high"):
        assert table[column].iloc[0] == pytest.approx(table[column].iloc[1])
    assert (table["band_low"] <= table["value"]).all()


def test_refusals():
    with pytest.raises(ValueError, match="'s1' has a score on one side"):
        contrast(matrix([[0.1, 0.2]]), matrix([[0.1]]))
    scores = pd.DataFrame({"seed": [0, 0], "singer": ["a", "a"], "value": [1, 2], "k": [1, 2]})
    assert singer_matrix(scores, k=2).loc[0, "a"] == 2
    with pytest.raises(ValueError, match="several scores"):
        singer_matrix(scores)
    with pytest.raises(ValueError, match="no scores"):
        singer_matrix(scores, k=3)
