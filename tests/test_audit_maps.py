import numpy as np
import pytest

from saeutils.audit_maps import (
    MEANING,
    QUANTITIES,
    SCOPE,
    Material,
    fit_map,
    map_numbers,
    turn_each,
)
from saeutils.disentanglement import held_out_map, released_map
from saeutils.map_cells import released_map_cell
from saeutils.protocol import CORRECTED, RELEASED, parse_protocol


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


def test_the_penalty_is_the_one_that_exact_fits_choose(material):
    from saeutils import audit_maps
    from saeutils.disentanglement import r2_score
    from saeutils.lasso import lasso, standardise
    from saeutils.statistics import grouped_folds

    known, codes = material
    rows = known.train
    x, y = standardise(codes["sae"][rows])[0], standardise(known.attributes[rows])[0]
    singers, sexes = known.singers[rows], known.sexes[rows]
    scores = [sum(np.nanmedian(r2_score(y[b], x[b] @ lasso(x[a], y[a], alpha).weights.T, 0.0))
                  for a, b in grouped_folds(singers, sexes, 3)) for alpha in audit_maps.ALPHAS]
    assert audit_maps._choose_alpha(x, y, singers, sexes) == audit_maps.ALPHAS[np.argmax(scores)]
    assert len(set(np.round(scores, 6))) == 3  # the penalties can be told apart here


def test_raw_maps_once_for_all_seeds_change_nothing(material):
    known, codes = material
    twice = [codes, codes | {"sae": codes["random"]}]
    shared = turn_each(RELEASED, twice, known)
    apart = turn_each(RELEASED, [twice[0], twice[1] | {"raw": codes["raw"].copy()}], known)
    assert shared == apart


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

    assert turned("A01")["r2"] < base["r2"] and turned("A01")["noise_r2"] < base["noise_r2"]
    assert turned("A05")["disentanglement"] == pytest.approx(40 * base["disentanglement"])
    assert turned("A21")["pitch_excess"] == 0
    assert turned("A31")["clusters"] == 4
    assert turned("A02")["completeness_gap"] < base["completeness_gap"]  # 8 raw against 40 codes
    random = turned("A24")
    assert random["completeness"] == base["completeness"]
    assert random["completeness_gap"] != base["completeness_gap"]
    assert turned("A22")["completeness"] != base["completeness"]  # there is one outlier clip


def test_turning_one_entry_leaves_the_numbers_of_others(material):
    known, codes = material
    base = map_numbers(RELEASED, **codes, material=known)
    turned = map_numbers(RELEASED.flip("A05"), **codes, material=known)
    assert set(base) == set(MEANING)
    assert {k for k in base if turned[k] != base[k]} == {"disentanglement"}


def test_every_quantity_has_its_meaning_and_pitch_counts_beyond_its_share(material):
    assert {name for names in QUANTITIES.values() for name in names} == set(MEANING)
    known, codes = material
    top = np.argsort(-fit_map(codes["sae"], RELEASED, known)[1], kind="stable")[:4]
    hits = sum(name.startswith("logRelF0") for name in np.array(known.names)[top])
    found = map_numbers(RELEASED, **codes, material=known)["pitch_excess"]
    assert found == pytest.approx(hits - 4 * 2 / 14)


def test_turn_each_names_both_ends_and_signs_corrected_minus_released(material):
    known, codes = material
    entries = {"A05": ("disentanglement",), "A01": ("r2", "noise_r2")}
    for base in (RELEASED, CORRECTED):
        rows = turn_each(base, [codes, codes], known, entries, workers=1)
        assert [row["entry"] for row in rows] == ["A05", "A01", "A01"]
        assert all(row["end"] == base.name and row["n"] == 2 for row in rows)
        assert rows[0]["difference"] > 0  # the sum is larger than the mean, from either end
        difference = rows[0]["corrected"] - rows[0]["released"]
        assert rows[0]["difference"] == pytest.approx(difference)


def test_seeds_do_not_share_their_maps(material):
    known, codes = material
    other = codes | {"sae": codes["random"], "random": codes["sae"]}
    row = turn_each(RELEASED, [codes, other], known, {"A24": ("completeness_gap",)})[0]
    assert row["ci_low"] < row["difference"] < row["ci_high"]


def test_unknown_entries_are_refused(material):
    known, codes = material
    with pytest.raises(ValueError, match="unknown audit entry 'A99'"):
        turn_each(RELEASED, [codes], known, {"A99": ("r2",)})


def test_attributes_of_what_the_encoder_heard_move_the_released_map(material):
    """A29: on the released test rows alone; without them the switch moves nothing."""
    known, codes = material
    assert map_numbers(RELEASED.flip("A29"), **codes, material=known) == map_numbers(
        RELEASED, **codes, material=known)
    heard = np.full_like(known.attributes, np.nan)
    heard[known.test] = np.random.default_rng(5).normal(size=(len(known.test), 14))
    rows = turn_each(RELEASED, [codes, codes], known.with_heard(heard), QUANTITIES | SCOPE)
    r2 = next(row for row in rows if row["entry"] == "A29" and row["quantity"].startswith("R²"))
    assert r2["released"] > r2["corrected"] + 0.05  # noise in the place of what states hold
    untouched = turn_each(RELEASED, [codes, codes], known, QUANTITIES)
    assert [r for r in rows if r["entry"] != "A29"] == untouched


def test_noise_without_a_weight_draws_no_slope_and_no_effect(material):
    """Bug: from the corrected end A23 was said to have no effect, where noise codes had no map."""
    known, codes = material
    silent = codes | {"noise": np.zeros((280, 40))}
    row, = turn_each(CORRECTED, [silent, silent], known, {"A23": ("entropy_slope",)})
    assert row["verdict"] == "not measured" and row["note"] == "Undefined: no code has a weight."
    row, = turn_each(RELEASED, [codes, codes], known, {"A23": ("entropy_slope",)})
    assert np.isfinite(row["difference"]) and row["note"] == ""
