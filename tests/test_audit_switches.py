"""Every audit entry has a test that turns it and sees a number move, on data made by hand."""

import ast
from dataclasses import replace

import numpy as np
import pytest
from test_audit_maps import material  # noqa: F401  (its small world of codes and attributes)

from saeutils import sae_metrics
from saeutils.audit import audit_row
from saeutils.audit_maps import map_numbers
from saeutils.probing import balanced_accuracy, released_probe, tuned_probe
from saeutils.profiles import ROOT
from saeutils.protocol import CORRECTED, ENTRIES, RELEASED
from saeutils.sae_training import RELEASED as RECIPE
from saeutils.sae_training import train_sae
from saeutils.statistics import t_interval

MAPS = "test_audit_maps.py::test_each_switch_moves_what_it_is_about"
SWITCHES = {
    "A01": MAPS, "A02": MAPS, "A03": "test_audit_switches.py::test_a03", "A05": MAPS,
    "A04": "test_audit_switches.py::test_a04_a17_a23",
    "A06": "test_audit_encoder.py::test_train_mode_moves_states_and_stillness_is_told",
    "A07": "test_audit_encoder.py::test_the_lost_bias_moves_states_in_a_random_wavlm",
    "A08": "test_audit_encoder.py::test_a_wrong_rate_moves_states_and_says_whose_fault_it_is",
    "A09": "test_audit_switches.py::test_a09",
    "A10": "test_audit_encoder.py::test_length_is_read_off_states_that_hold_it_and_off_no_others",
    "A11": "test_audit_encoder.py::"
           "test_longer_clips_take_both_ends_and_are_cut_where_the_release_cuts",
    "A12": "test_audit_training.py::test_the_two_ways_differ_where_the_last_batch_misleads",
    "A13": "test_audit_data.py::test_another_listing_moves_clips_and_a_sorted_one_none",
    "A14": "test_audit_data.py::test_overwriting_a_row_loses_its_vowel_and_renaming_does_not",
    "A15": "test_audit.py::test_choosing_on_the_reported_singers_flatters_by_hand",
    "A16": "test_audit_switches.py::test_a16", "A17": "test_audit_switches.py::test_a04_a17_a23",
    "A18": "test_audit_switches.py::test_a18",
    "A19": "test_audit_training.py::test_each_switch_is_turned_from_both_ends_and_pairs_by_seed",
    "A20": "test_sae.py::test_k_truncation_of_the_release_and_rounding", "A21": MAPS, "A22": MAPS,
    "A23": "test_audit_switches.py::test_a04_a17_a23", "A24": MAPS,
    "A25": "test_audit_switches.py::test_a25", "A26": "test_audit_switches.py::test_a26",
    "A27": "test_cells.py::test_given_the_exercise_only_its_techniques_are_guessed",
    "A28": "test_instrument.py::test_named_after_says_who_answers_to_another_cause",
    "A29": "test_audit_maps.py::test_attributes_of_what_the_encoder_heard_move_the_released_map",
    "A30": "test_encoders.py::test_level_leaves_no_trace", "A31": MAPS,
    "A32": "test_audit_switches.py::test_a32",
}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_every_entry_names_a_test_that_is_there(entry):
    name, _, function = SWITCHES[entry.id].partition("::")
    tree = ast.parse((ROOT / "tests" / name).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_a03(material):  # noqa: F811
    """With a penalty that empties most rows, the released mean counts the empty ones as perfect."""
    known, codes = material
    strict = replace(known, alpha=0.9, n_top=14)
    base, turned = (map_numbers(p, **codes, material=strict)["completeness"]
                    for p in (RELEASED, RELEASED.flip("A03")))
    assert base > 0.9 and not turned >= base
    back = map_numbers(CORRECTED.flip("A03").flip("A17"), **codes, material=strict)
    assert back["completeness"] > 0.9


def test_a04_a17_a23(material):  # noqa: F811
    """A common attribute set, a chosen penalty, and the noise slope each move their number."""
    known, codes = material
    for end in (RELEASED, CORRECTED):
        base = map_numbers(end, **codes, material=known)
        moved = {entry: map_numbers(end.flip(entry), **codes, material=known)
                 for entry in ("A04", "A17", "A23")}
        assert moved["A17"]["r2"] != base["r2"]
        if end is RELEASED:
            assert moved["A04"]["completeness_gap"] != base["completeness_gap"]
            assert moved["A23"]["entropy_slope"] != base["entropy_slope"]


def test_a09():
    """Another cell's number in its place: by hand, and undone it leaves no trace."""
    right, wrong = np.array([0.5, 0.52, 0.48]), np.array([0.6, 0.61, 0.6])
    assert audit_row("A09", "accuracy", "released", wrong, right)["difference"] == pytest.approx(
        np.mean(right - wrong))
    assert audit_row("A09", "accuracy", "released", right, right)["verdict"] == "no effect here"


def test_a16():
    """Five singers: a gap of two points that holds without an interval does not hold with one."""
    gaps = np.array([0.08, -0.03, 0.02, -0.01, 0.04])
    interval = t_interval(gaps)
    half = interval.high - interval.mean
    row = audit_row("A16", "half-width", "released", 0.0, half, lambda h: h < gaps.mean(),
                    over="exact")
    assert row["verdict"] == "changes a conclusion" and half == pytest.approx(0.054, abs=0.001)


def test_a18():
    """Rows ten times as large and rebuilt twice as well: raw error says worse, the share better."""
    rng = np.random.default_rng(0)
    small = rng.normal(size=(400, 6))
    large = 10 * small
    rebuilt_small, rebuilt_large = 0.6 * small, 0.8 * large
    mse = [np.mean((x - y) ** 2) for x, y in ((large, rebuilt_large), (small, rebuilt_small))]
    fvu = [sae_metrics.fvu(x, y) for x, y in ((large, rebuilt_large), (small, rebuilt_small))]
    assert mse[0] / mse[1] == pytest.approx(25) and fvu[0] / fvu[1] == pytest.approx(0.25, abs=0.01)


def test_a25():
    """The technique lies in a direction of small variance: a hundred Adam steps do not reach it."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["belt", "breathy"], 60)
    signal = np.where(labels == "belt", 1.0, -1.0) + 0.3 * rng.normal(size=120)
    x = np.column_stack([0.01 * signal, 5 * rng.normal(size=(120, 3))])
    order = rng.permutation(120)
    train, test = order[:80], order[80:]
    classes = np.unique(labels)
    adam = released_probe(x[train], labels[train], x[train], labels[train], classes, 0, epochs=20)
    folds = [(np.arange(40), np.arange(40, 80)), (np.arange(40, 80), np.arange(40))]
    tuned = tuned_probe(x[train], labels[train], folds, classes, True, (1e-2, 1.0))
    hits = [np.mean(probe.predict(x[test]) == labels[test]) for probe in (adam, tuned)]
    assert hits[0] < 0.75 and hits[1] > 0.95


def test_a26():
    """Nine straight clips right, one trill wrong: 90 % of clips, half of the techniques."""
    labels = np.array(["straight"] * 9 + ["trill"])
    guesses = np.array(["straight"] * 10)
    assert np.mean(labels == guesses) == 0.9
    assert balanced_accuracy(labels, guesses) == 0.5


def test_a32():
    """As many latents as rows: the trained rows are learned by heart, other rows are not."""
    rng = np.random.default_rng(0)
    train, held = (rng.normal(size=(64, 16)).astype(np.float32) for _ in range(2))
    sae, _ = train_sae(train, train, 64, 4, 0, replace(RECIPE, epochs=150, rate=5e-3))
    errors = [sae_metrics.fvu(x, sae.forward(x)) for x in (train, held)]
    assert errors[1] > 1.5 * errors[0]
