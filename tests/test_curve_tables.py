"""Claim 2 in detail: curves over singers, attributes one by one, and tables too small to decide."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from saeutils import claims, curve_tables
from saeutils.claim_sentences import claim_sentences
from saeutils.curves import allowed_k, area
from saeutils.representations import Representation
from saeutils.statistics import grouped_folds

NAMES = [f"a{i}" for i in range(4)]
CLUSTERS = np.array([0, 0, 1, 2])


def make_tables(n_singers=13, n_clips=20, n_train=5, seed=0):
    """Four causes; the SAE holds the first two alone, raw holds all four, the twin holds noise."""
    rng = np.random.default_rng(seed)
    singers = np.repeat(np.arange(n_singers), n_clips)
    causes = rng.normal(size=(len(singers), 4))
    arguments = {
        "attributes_NA": causes + 0.2 * rng.normal(size=causes.shape),
        "train": np.flatnonzero(singers < n_train), "test": np.flatnonzero(singers >= n_train),
        "singers": singers, "exercises": np.tile(["x", "y"], len(singers) // 2)}
    train = arguments["train"]
    arguments["folds"] = grouped_folds(singers[train], (singers[train] % 2).astype(str), 2)
    half = np.hstack([causes[:, :2], rng.normal(size=(len(singers), 4))])
    kinds = [("raw", np.nan, 0, causes), ("sae", 95.0, 0, half), ("sae", 95.0, 1, half[:, ::-1]),
             ("random", 95.0, 0, rng.normal(size=(len(singers), 6))),
             ("random", 95.0, 1, rng.normal(size=(len(singers), 6)))]
    parts = []
    for kind, sparsity, number, codes in kinds:
        cell = Representation("demo", 0, kind, "", sparsity, 3, number, "corrected")
        parts.append(cell.label(claims.k_curve_cell(codes, cell, NAMES, **arguments)))
    return pd.concat(parts, ignore_index=True), arguments


@pytest.fixture(scope="module")
def table():
    return make_tables()[0]


def test_few_clips_cap_the_codes_and_very_few_leave_no_curve():
    assert allowed_k(250)[-1] == 50 and allowed_k(249)[-1] == 20
    for n in range(1, 400):
        kept = allowed_k(n)
        assert kept == () or (kept[-1] * 5 <= n and len(kept) >= 3)
    assert allowed_k(24) == () and allowed_k(25) == (1, 2, 5)


def test_a_tiny_table_is_read_with_few_codes_and_says_so():
    """Found on own audio: 50 codes were fitted on a few dozen clips, and the claim was nonsense."""
    table, arguments = make_tables(n_singers=6, n_clips=10, n_train=4)
    assert len(arguments["train"]) == 40
    assert sorted(set(table.loc[table["metric"] == "r2_held_out", "codes"])) == [1, 2, 5]
    use = claims.readable(table, NAMES)
    reading = claims.reading_contrasts(table, NAMES, CLUSTERS, use)
    assert (reading["k_max"] == 5).all()
    reading = reading.assign(encoder="demo", layer=0, primary=True, n_train=40)
    text = _sentence(reading)
    assert "up to k = 5, for few clips" in text


def test_too_few_clips_refuse_a_curve_and_decide_nothing():
    with pytest.raises(ValueError, match="20 training clips are too few"):
        make_tables(n_singers=4, n_clips=10, n_train=2)
    reading = curve_tables.undecided_reading(20, 2, 95).assign(
        encoder="demo", layer=0, primary=True)
    assert "too few clips to decide** (20 training clips)" in _sentence(reading)


def _sentence(reading):
    one = {"encoder": "demo", "layer": 0, "primary": True, "n": 4, "value": 0.0, "ci_low": -0.1,
           "ci_high": 0.1, "kept": 0.0}
    information = pd.DataFrame([one | {"contrast": name} for name in
                                ("retention", "readability", "learned")])
    found = claim_sentences(information, reading, pd.DataFrame(), "demo", 95)
    return found.set_index("name").loc["claim2", "text"]


def test_the_curve_s_area_is_the_number_that_the_claim_compares(table):
    use = claims.readable(table, NAMES)
    curves = curve_tables.curves_over_singers(table, NAMES, CLUSTERS, use)
    part = curves[curves["metric"] == "r2_held_out"]
    assert (part["n"] == 8).all() and (part["ci_low"] < part["value"]).all()
    areas = {kind: area(own.sort_values("codes")["value"].to_numpy(), sorted(set(own["codes"])))
             for kind, own in part.groupby("representation")}
    reading = claims.reading_contrasts(table, NAMES, CLUSTERS, use).set_index("contrast")["value"]
    assert reading["learned"] == pytest.approx(areas["sae"] - areas["random"])
    assert reading["against_linear"] == pytest.approx(areas["sae"] - areas["raw"])
    seeds = part.set_index("representation")["n_seeds"]
    assert seeds["sae"].eq(2).all() and seeds["raw"].eq(1).all()


def test_what_the_sae_holds_is_told_apart_from_what_it_lacks(table):
    each = curve_tables.attribute_contrasts(table, NAMES, CLUSTERS, np.ones(4, bool), 95)
    verdict = each.set_index(["contrast", "attribute"])["verdict"]
    assert verdict["learned", "a0"] == verdict["learned", "a1"] == "better"
    assert verdict["against_linear", "a2"] == verdict["against_linear", "a3"] == "worse"
    value = each.set_index(["contrast", "attribute"])["value"]
    assert abs(value["against_linear", "a0"]) < 0.05 < -value["against_linear", "a2"]
    counts = curve_tables.verdict_counts(each)
    assert counts.loc["learned", "better"] == 2 and (counts["clusters"] == 3).all()
    assert (counts[["better", "worse", "undecided"]].sum(axis=1) == counts["attributes"]).all()
    sentence = curve_tables.verdict_sentence(each)
    assert "against an untrained dictionary **2 better, 0 worse**" in sentence
    assert "8 unseen singers" in sentence


def test_bands_of_attributes_equal_a_naive_max_t(table):
    """All sign patterns of eight singers, one by one; agreement to rounding."""
    part = table[table["metric"] == "area"]
    mean = part.groupby(["representation", "singer", "attribute"])["value"].mean().unstack()
    difference = (mean.loc["sae"] - mean.loc["random"]).to_numpy()
    n, largest = len(difference), []
    for signs in product((1, -1), repeat=n):
        flipped = difference * np.array(signs)[:, None]
        error = flipped.std(axis=0, ddof=1) / np.sqrt(n)
        largest.append(np.max(np.abs(flipped.mean(axis=0)) / error))
    q = np.quantile(largest, 0.95, method="higher")
    half = q * difference.std(axis=0, ddof=1) / np.sqrt(n)
    each = curve_tables.attribute_contrasts(table, NAMES, CLUSTERS, np.ones(4, bool), 95)
    own = each[each["contrast"] == "learned"]
    assert np.allclose(own["value"], difference.mean(axis=0), atol=1e-12)
    assert np.allclose(own["band_high"] - own["value"], half, atol=1e-9)
    assert (own["band_high"] >= own["ci_high"] - 1e-12).all()


def test_the_spread_of_an_attribute_is_that_of_the_difference(table):
    part = table[table["metric"] == "area"]
    mean = part.groupby(["representation", "seed", "attribute"])["value"].mean().unstack()
    each = curve_tables.attribute_contrasts(table, NAMES, CLUSTERS, np.ones(4, bool), 95)
    spread = each.pivot(index="contrast", columns="attribute", values="seed_sd")
    assert np.allclose(spread.loc["learned"], (mean.loc["sae"] - mean.loc["random"]).std())
    assert np.allclose(spread.loc["against_linear"], mean.loc["sae"].std())


def test_five_singers_decide_no_attribute():
    """Signs of five singers have 32 patterns: the smallest two-sided p is .0625. A band that ended
    at zero but for rounding once said "worse"."""
    few, _ = make_tables(n_singers=10)
    each = curve_tables.attribute_contrasts(few, NAMES, CLUSTERS, np.ones(4, bool), 95)
    assert (each["n"] == 5).all() and each["verdict"].eq("undecided").all()


def test_one_unseen_singer_decides_no_attribute():
    table, _ = make_tables(n_singers=6, n_clips=20, n_train=5)
    each = curve_tables.attribute_contrasts(table, NAMES, CLUSTERS, np.ones(4, bool), 95)
    assert each["verdict"].eq("undecided").all() and each["band_low"].isna().all()
    assert "none is decided" in curve_tables.verdict_sentence(each)
    with pytest.raises(ValueError, match="'sae' at 75 %"):
        curve_tables.attribute_contrasts(table, NAMES, CLUSTERS, np.ones(4, bool), 75)
