from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from saeutils import audit_data
from saeutils.audit import (
    COLUMNS,
    above_zero,
    against_expectation,
    audit_row,
    audit_sentence,
    complete_audit,
    expectations,
    forest_rows,
    from_cells,
    peek,
    peek_by_singer,
    primary_rows,
    seed_values,
    singer_values,
)
from saeutils.protocol import ENTRIES


def test_seed_values_names_one_cell():
    table = pd.DataFrame({"seed": [1, 0, 0], "singer": ["", "", "s1"], "split": "test",
                          "value": [0.5, 0.4, 0.9]})
    assert seed_values(table, split="test").tolist() == [0.4, 0.5]
    with pytest.raises(ValueError, match="0 rows"):
        seed_values(table, split="unseen")
    with pytest.raises(ValueError, match="one row per seed"):
        seed_values(pd.concat([table, table]), split="test")


def test_singer_values_average_seeds_within_singer():
    table = pd.DataFrame({"seed": [0, 1, 0, 1, 0], "singer": ["b", "b", "a", "a", ""],
                          "value": [0.2, 0.4, 0.5, 0.7, 9.0]})
    assert singer_values(table).round(6).to_dict() == {"a": 0.6, "b": 0.3}
    with pytest.raises(ValueError, match="name one cell"):
        singer_values(pd.concat([table, table]))


def test_verdicts_by_hand():
    gain = audit_row("A24", "gap", "released", [0.1, 0.11, 0.09], [-0.1, -0.12, -0.11], above_zero)
    assert gain["verdict"] == "changes a conclusion" and tuple(gain) == COLUMNS
    unsure = audit_row("A24", "gap", "both", [0.1, 0.2], [0.0, 0.3], above_zero)
    assert unsure["verdict"] == "undecided"  # not having seen an effect is no evidence of none
    dust = audit_row("A01", "r2", "both", [0.1, 0.2], [0.1 + 1e-15, 0.2 + 2e-15])
    assert dust["verdict"] == "no effect here"  # rounding moves no number
    even = audit_row("A24", "gap", "both", [0.1, 0.3], [0.3, 0.1])
    assert even["difference"] == 0 and even["verdict"] == "undecided"
    assert audit_row("A20", "k", "both", 7, 8, over="exact")["verdict"] == "moves a number"
    assert audit_row("A24", "one seed", "both", 7, 8)["verdict"] == "undecided"
    assert audit_row("A14", "clips", "both", 0, 0, over="exact")["verdict"] == "no effect here"
    assert audit_row("A28", "named", "both", 15, 7, over="sample")["verdict"] == "moves a number"
    assert audit_row("A07", "accuracy", "both", np.nan, np.nan)["verdict"] == "not measured"
    small = audit_row("A07", "state", "both", [1, 2, 1.5], 0, above_zero, case="smallest case")
    assert small["verdict"] == "shown on the smallest case"
    assert small["difference"] == -1.5 and small["n"] == 3
    near = audit_row("A26", "accuracy", "both", [0.6, 0.61, 0.6], [0.61, 0.6, 0.6], margin=0.03)
    assert near["verdict"] == "within the margin"
    far = audit_row("A26", "accuracy", "both", [0.6, 0.7], [0.7, 0.6], margin=0.03)
    assert far["verdict"] == "undecided"
    sure = audit_row("A26", "accuracy", "both", [0.6, 0.61, 0.6], [0.61, 0.62, 0.61], margin=0.03)
    assert sure["verdict"] == "moves a number"  # small and certain is still an effect
    lone = audit_row("A26", "accuracy", "both", 0.6, 0.61, margin=0.03)
    assert lone["verdict"] == "undecided"


def test_rows_refuse_unknown_entries_and_values_that_do_not_pair():
    with pytest.raises(ValueError, match="unknown audit entry 'A40'"):
        audit_row("A40", "x", "both", 0, 1)
    with pytest.raises(ValueError, match="A01: 3 values released, 2 corrected"):
        audit_row("A01", "x", "both", [0, 1, 2], [1, 2])


@pytest.mark.parametrize("rows", [[], [audit_row("A20", "k", "both", 7, 8, over="exact")]])
def test_the_whole_audit_has_all_entries_and_hides_none(rows):
    table = complete_audit(rows, {"A03": "did not occur"})
    assert table["entry"].tolist() == [entry.id for entry in ENTRIES]
    assert list(table) == list(COLUMNS)
    left = table["case"] == "needs VocalSet"
    assert left.sum() == 32 - len(rows)
    assert (table.loc[left, "verdict"] == "not measured").all()
    assert table.set_index("entry")["note"].to_dict()["A03"] == "did not occur"


@pytest.fixture
def audit():
    return complete_audit([
        audit_row("A05", "mean", "released", [0.01, 0.01, 0.01], [0.5, 0.6, 0.55]),
        audit_row("A24", "gap", "released", [0.1, 0.11, 0.09], [-0.02, -0.02, -0.02], above_zero),
        audit_row("A24", "gap", "corrected", [0.1, 0.1, 0.2], [0.1, 0.2, 0.1], above_zero),
        audit_row("A24", "level", "released", [0.5, 0.6], [0.5, 0.6]),
        audit_row("A14", "clips", "both", 0, 0, over="exact"),
    ])


def test_forest_takes_one_quantity_per_entry_and_a_common_scale(audit):
    table = forest_rows(audit)
    assert table["entry"].tolist() == ["A24", "A24", "A05", "A14"]
    assert (table.loc[:1, "verdict"] == "changes a conclusion").all()  # both ends, one group
    assert table["value"].iloc[0] == pytest.approx(-1.2)  # the sign turns: below -1
    assert table["value"].between(-2, 2).all() and table["value"].iloc[-1] == 0


def test_only_the_primary_sparsity_is_drawn_and_told(audit):
    more = audit[audit["entry"] == "A05"].assign(verdict="undecided", difference=9.0, sparsity=75)
    both = pd.concat([audit.assign(sparsity=95), more])
    assert len(forest_rows(both)) == len(forest_rows(audit))
    assert audit_sentence(both) == audit_sentence(audit)


def test_a_quantity_measured_at_another_sparsity_alone_counts(audit):
    """Every row once said 95 % and the primary layer, whatever it was measured at."""
    rows = [audit_row("A20", "codes at 99 %", "both", 7, 8, over="exact") | {"sparsity": 99,
                                                                              "layer": 3},
            audit_row("A24", "gap", "both", [1, 2], [3, 5]) | {"sparsity": 95, "layer": None}]
    table = complete_audit(rows)
    assert table.set_index("entry").loc[["A20", "A24"], "sparsity"].tolist() == [99, 95]
    assert table.set_index("entry").loc["A20", "layer"] == 3
    assert {"A20", "A24"} <= set(primary_rows(table)["entry"]) >= {"A01"}
    assert "**moves a number**: A20" in audit_sentence(table)


def test_entries_whose_zero_is_built_in_are_marked_and_stand_last():
    table = forest_rows(complete_audit([
        audit_row("A06", "shift", "released", [0.8, 0.9], 0.0, over="singers"),
        audit_row("A20", "codes", "both", 7, 8, over="exact")]))
    assert table["entry"].tolist() == ["A20", "A06"]
    assert table["by_construction"].tolist() == [False, True] and table["value"].iloc[1] == -1


def test_the_sentence_names_each_entry_once(audit):
    text = audit_sentence(audit)
    assert "**changes a conclusion**: A24" in text and "**no effect here**: A14" in text
    assert all(text.count(entry.id) == 1 for entry in ENTRIES)


def test_notes_say_what_the_list_expected_and_what_was_measured():
    what = "pitch attributes among the chosen"
    rows = [audit_row("A21", what, "released", [2.0] * 3, [3.0] * 3),
            audit_row("A21", what, "corrected", [0.0] * 3, [9.0] * 3)]
    notes = against_expectation(rows)
    assert set(notes) == {"A21"} and notes["A21"].endswith("from 2 to 3.")
    assert complete_audit(rows, notes)["note"].str.contains("from 2 to 3").sum() == 2
    assert against_expectation([]) == {}


def cells(*rows):
    columns = ["entry", "end", "quantity", "unit", "layer", "released", "corrected", "case", "note"]
    return pd.DataFrame(rows, columns=columns)


def test_cells_of_other_stages_are_compared_over_singers_by_hand():
    table = cells(("A06", "released", "shift", "f1", 3, 0.4, 0.0, "demo", "n"),
                  ("A06", "released", "shift", "f1", 3, 0.6, 0.0, "demo", "n"),
                  ("A06", "released", "shift", "m1", 3, 0.52, 0.0, "demo", "n"),
                  ("A06", "released", "shift", "m1", 4, 9.0, 0.0, "demo", "n"))
    row, = from_cells(table, layer=3)
    assert (row["n"], row["over"], row["note"]) == (2, "singers", "n")
    assert row["released"] == pytest.approx(0.51) and row["verdict"] == "moves a number"
    exact, = from_cells(table.iloc[:1].drop(columns=["unit", "layer"]))
    assert exact["over"] == "exact" and exact["difference"] == pytest.approx(-0.4)
    counted, = from_cells(table.iloc[:1].assign(entry="A29").drop(columns=["unit", "layer"]))
    assert counted["over"] == "sample"  # other clips would give another count


def test_a_length_that_can_be_read_is_a_conclusion():
    what = "R² of a clip's length, read off its state"
    table = cells(*(("A10", "both", what, s, 0, 0.8 + 0.01 * i, 0.1, "demo", "")
                    for i, s in enumerate("abc")))
    assert from_cells(table)[0]["verdict"] == "changes a conclusion"


def test_what_was_expected_otherwise_is_told():
    rows = [audit_row("A21", "pitch attributes", "released", [2.0] * 3, [3.0] * 3)]
    told = expectations(complete_audit(rows, against_expectation(rows)))
    assert told.startswith("- **A21** (tilt counted as pitch). Expected beforehand")
    assert expectations(complete_audit([])) == ""


def test_what_a_first_trial_said_of_conditioning_is_told():
    rows = [audit_row("A25", "accuracy of raw states", "released", [0.64, 0.63], [0.64, 0.62])]
    told = expectations(complete_audit(rows, against_expectation(rows)))
    assert "seven points" in told and told.endswith("goes from 0.635 to 0.63.")


def test_choosing_on_the_reported_singers_flatters_by_hand():
    """A15: three layers, four singers, every pair of singers chooses once."""
    rng = np.random.default_rng(1)
    scores = rng.random((3, 4))
    told, true = [], []
    for pair in combinations(range(4), 2):
        rest = [i for i in range(4) if i not in pair]
        best = scores[:, list(pair)].mean(axis=1).argmax()
        told.append(scores[best, list(pair)].mean())
        true.append(scores[best, rest].mean())
    assert peek(scores, 2) == pytest.approx((np.mean(told), np.mean(true)))
    assert np.allclose([v.mean() for v in peek_by_singer(scores, 2)], peek(scores, 2))
    one_layer = peek_by_singer(scores[:1], 2)  # nothing to choose, nothing to flatter
    assert np.allclose(one_layer[0], one_layer[1]) and np.allclose(one_layer[0], scores[0])
    drawn = peek(rng.random((3, 40)), 5, draws=3000)
    assert drawn[0] > drawn[1]
    for few in (0, 4):
        with pytest.raises(ValueError, match="of 4 singers choose"):
            peek(scores, few)


def test_a_count_gets_its_interval_from_a_bootstrap_over_singers():
    row = audit_row("A28", "named", "both", 15, 7, over="sample", interval=(-10, -6, 20))
    assert (row["over"], row["n"], row["ci_low"], row["ci_high"]) == ("singers", 20, -10, -6)
    assert row["difference"] == -8 and row["verdict"] == "moves a number"
    unsure = audit_row("A28", "named", "both", 15, 7, over="sample", interval=(-17, 1, 20))
    assert unsure["verdict"] == "undecided"  # it hangs on who sang


def test_a_stage_hands_its_interval_on_in_its_cells():
    counted = audit_data.cell("A29", "count", 5, 0, "demo", interval=(-7, -3, 4))
    exact = audit_data.cell("A13", "share", 0.5, 0, "demo")
    rows = from_cells(pd.DataFrame([counted, exact], columns=audit_data.CELLS))
    assert (rows[0]["ci_low"], rows[0]["ci_high"], rows[0]["n"]) == (-7, -3, 4)
    assert (rows[0]["over"], rows[1]["over"]) == ("singers", "exact")
    assert np.isnan(rows[1]["ci_low"])


def test_bootstrap_samples_hold_whole_singers():
    singers = np.array(["a", "b", "b", "c", "c", "c"])
    size = {"a": 1, "b": 2, "c": 3}
    samples = audit_data.resampled(singers)
    assert len(samples) == 200 and audit_data.resampled(singers[:1]) == []
    for rows in samples:
        counts = pd.Series(singers[rows]).value_counts()
        times = {name: count / size[name] for name, count in counts.items()}
        assert sum(times.values()) == 3 and all(t == int(t) for t in times.values())
    assert len({tuple(rows) for rows in samples}) > 5
