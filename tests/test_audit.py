import numpy as np
import pandas as pd
import pytest

from saeutils.audit import (
    Material,
    audit_row,
    claim_holds,
    complete_audit,
    fit_map,
    instrument_check,
    map_numbers,
    seed_values,
    turn_each,
)
from saeutils.disentanglement import held_out_map, released_map
from saeutils.map_cells import released_map_cell
from saeutils.protocol import CORRECTED, ENTRIES, RELEASED, parse_protocol


@pytest.fixture(scope="module")
def material():
    rng = np.random.default_rng(0)
    singers = np.repeat(np.arange(14), 20)
    states = rng.normal(size=(280, 8))
    attributes = states @ rng.normal(size=(8, 14)) + 0.5 * rng.normal(size=(280, 14))
    attributes[:, 1] = attributes[:, 0] + 0.01 * rng.normal(size=280)
    attributes[200, 2] = 1e3
    names = [f"logRelF0-{i}" if i < 2 else f"a{i}" for i in range(14)]
    old = {name: "pitch" if "F0" in name else "other" for name in names}
    new = dict.fromkeys(names, "voice quality")
    clusters = np.array([0, 0, *range(1, 13)])
    rows = [np.flatnonzero(mask) for mask in (singers < 8, (singers >= 8) & (singers < 12),
                                              singers >= 8)]
    codes = {
        "raw": states, "sae": np.maximum(states @ rng.normal(size=(8, 40)), 0),
        "random": np.maximum(states @ rng.normal(size=(8, 40)), 0),
        "noise": np.maximum(rng.normal(size=(280, 40)), 0),
    }
    return Material(attributes, names, old, new, *rows, singers, (singers % 2).astype(str),
                    clusters, width=40, n_top=4), codes


def test_both_ends_equal_the_maps_of_stage_05(material):
    known, codes = material
    weights, r2 = fit_map(codes["sae"], RELEASED, known)
    plain = released_map(codes["sae"][known.test], known.attributes[known.test])
    assert np.allclose(weights, plain.weights) and np.allclose(r2, plain.r2)
    weights, r2 = fit_map(codes["sae"], parse_protocol("corrected-A17"), known)
    held = held_out_map(codes["sae"], known.attributes, known.train, known.unseen, known.singers,
                        np.zeros(280))
    assert np.allclose(weights, held.weights) and np.allclose(r2, held.r2)


def test_numbers_under_the_released_protocol_are_the_papers(material):
    known, codes = material
    numbers = map_numbers(RELEASED, **codes, material=known)
    table = released_map_cell(codes["sae"], None, known.attributes, known.names, known.test, 0.1)
    wide = table[table["attribute"] != ""].pivot(index="attribute", columns="metric",
                                                 values="value")
    top = wide.nlargest(4, "r2_in_sample")
    assert numbers["r2"] == pytest.approx(top["r2_in_sample"].mean())
    assert numbers["completeness"] == pytest.approx(top["completeness"].mean())
    own = table.loc[table["metric"] == "disentanglement_released", "value"].item()
    assert numbers["disentanglement"] == pytest.approx(own)


def test_each_switch_moves_what_it_is_about(material):
    known, codes = material
    base = map_numbers(RELEASED, **codes, material=known)

    def turned(entry):
        return map_numbers(RELEASED.flip(entry), **codes, material=known)

    assert turned("A01")["r2"] < base["r2"]
    assert turned("A05")["disentanglement"] == pytest.approx(40 * base["disentanglement"])
    assert turned("A21")["pitch_among_top"] == 0
    assert turned("A31")["clusters_among_top"] == 4
    assert turned("A02")["completeness_gap"] < base["completeness_gap"]  # 8 raw against 40 codes
    random = turned("A24")
    assert random["completeness"] == base["completeness"]
    assert random["completeness_gap"] != base["completeness_gap"]


def test_turning_one_entry_leaves_the_numbers_of_others(material):
    known, codes = material
    base = map_numbers(RELEASED, **codes, material=known)
    turned = map_numbers(RELEASED.flip("A05"), **codes, material=known)
    assert {k for k in base if turned[k] != base[k]} == {"disentanglement"}


def test_turn_each_names_both_ends_and_signs_corrected_minus_released(material):
    known, codes = material
    entries = {"A05": "disentanglement", "A01": "r2"}
    for base in (RELEASED, CORRECTED):
        rows = turn_each(base, [codes, codes], known, entries, workers=1)
        assert [row["entry"] for row in rows] == ["A05", "A01"]
        assert all(row["end"] == base.name and row["n"] == 2 for row in rows)
        assert rows[0]["value"] > 0  # the sum is larger than the mean, from either end
        assert rows[0]["value"] == pytest.approx(rows[0]["corrected"] - rows[0]["released"])


def test_seeds_do_not_share_their_maps(material):
    known, codes = material
    other = codes | {"sae": codes["random"], "random": codes["sae"]}
    row = turn_each(RELEASED, [codes, other], known, {"A24": "completeness_gap"})[0]
    assert row["ci_low"] < row["value"] < row["ci_high"]


def test_seed_values_names_one_cell():
    table = pd.DataFrame({"seed": [1, 0, 0], "singer": ["", "", "s1"], "split": "test",
                          "value": [0.5, 0.4, 0.9]})
    assert seed_values(table, split="test").tolist() == [0.4, 0.5]
    with pytest.raises(ValueError, match="0 rows"):
        seed_values(table, split="unseen")
    with pytest.raises(ValueError, match="one row per seed"):
        seed_values(pd.concat([table, table]), split="test")


def test_verdicts_by_hand():
    gain = audit_row("A24", "gap", "released", [0.1, 0.11, 0.09], [-0.1, -0.12, -0.11], claim_holds)
    assert gain["verdict"] == "changes a conclusion"
    assert audit_row("A24", "gap", "both", [0.1, 0.2], [0.0, 0.3])["verdict"] == "no effect shown"
    assert audit_row("A20", "k", "both", 7, 8)["verdict"] == "moves the number"
    assert audit_row("A14", "clips", "both", 0, 0)["verdict"] == "no effect shown"
    assert audit_row("A07", "accuracy", "both", np.nan, np.nan)["verdict"] == "not measured"
    with pytest.raises(ValueError, match="unknown audit entry 'A40'"):
        audit_row("A40", "x", "both", 0, 1)


def test_the_whole_audit_has_all_entries_and_hides_none():
    table = complete_audit([audit_row("A20", "k", "both", 7, 8)])
    assert table["entry"].tolist() == [entry.id for entry in ENTRIES]
    assert (table["case"] == "paper profile").sum() == 31
    assert (table.loc[table["case"] == "paper profile", "verdict"] == "not measured").all()


def test_instrument_check_equals_scipy_and_ignores_the_singer():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    causes = pd.DataFrame({"tilt": rng.normal(size=60), "pitch": rng.normal(size=60)})
    attributes = pd.DataFrame({"a": causes["tilt"] + rng.normal(size=60)})
    one = instrument_check(attributes, causes, np.zeros(60)).set_index("factor")["value"]
    assert one["tilt"] == pytest.approx(spearmanr(attributes["a"], causes["tilt"]).statistic)
    singers = np.repeat(np.arange(6), 10)
    voice = pd.DataFrame({"a": singers * 1.0, "b": rng.normal(size=60)})
    voiced = instrument_check(voice, causes, singers).set_index(["attribute", "factor"])["value"]
    assert voiced["a", "tilt"] == 0
