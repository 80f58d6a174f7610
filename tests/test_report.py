"""Tables behind the figures: seeds averaged first, baselines kept apart, nothing invented."""

import numpy as np
import pandas as pd
import pytest

from saeutils import report
from saeutils.claim_sentences import claim_sentences
from saeutils.profiles import ROOT

DIGITISED = pd.read_csv(ROOT / "data" / "reference" / "paper_figures_digitised.csv")


def rows(**columns):
    base = {"encoder": "demo", "layer": 1, "representation": "sae", "sparsity": 75.0,
            "metric": "accuracy", "split": "test", "ci_low": 0.1, "ci_high": 0.9, "n": 5}
    return pd.DataFrame([base | dict(zip(columns, values, strict=True))
                         for values in zip(*columns.values(), strict=True)])


def test_seeds_are_averaged_and_their_spread_kept():
    table = rows(seed=[0, 1, 2], value=[0.4, 0.5, 0.6])
    one = report.cells(table, metric="accuracy", split="test")
    assert len(one) == 1 and one["value"][0] == pytest.approx(0.5)
    assert one["seed_sd"][0] == pytest.approx(0.1) and one["n_seeds"][0] == 3


def test_per_technique_rows_do_not_enter_the_mean():
    table = rows(technique=["", "belt"], value=[0.4, 1.0])
    assert report.cells(table, metric="accuracy")["value"].tolist() == [0.4]


def test_raw_states_have_no_sparsity():
    table = rows(representation=["raw"], value=[0.4], sparsity=[0.0])
    assert np.isnan(report.cells(table, metric="accuracy")["sparsity"][0])


def test_missing_rows_are_named():
    with pytest.raises(ValueError, match="'recall'.*accuracy"):
        report.cells(rows(value=[0.4]), metric="recall")


def test_published_values_are_those_of_the_reference_file():
    table = report.published(DIGITISED, "completeness")
    assert len(table) == 8 * 7 and set(table["encoder"]) == {"ast", "hubert", "wavlm", "mert"}
    spread = report.published_range(DIGITISED, "completeness")
    assert (spread["ci_low"] <= spread["value"]).all() and spread["n"].tolist() == [8] * 6
    with pytest.raises(ValueError, match="'recall'"):
        report.published(DIGITISED, "recall")


def test_headline_refuses_twins_and_gaps():
    entry = {"name": "a", "value": 1.0, "tolerance": 0.0}
    with pytest.raises(ValueError, match="twice: a"):
        report.headline([entry, entry])
    with pytest.raises(ValueError, match="not finite: a"):
        report.headline([entry | {"value": np.nan}])


def test_headline_tolerance_follows_the_seeds():
    table = report.cells(rows(seed=[0, 1], value=[0.4, 0.6]), metric="accuracy")
    entry = report.headline_rows("sae{sparsity:g}", table)[0]
    assert entry["name"] == "sae75"
    assert entry["tolerance"] == pytest.approx(4 * np.sqrt(0.02), abs=1e-6)  # SD .1414, two seeds


def test_headline_tolerance_is_pooled_over_the_rows_of_a_representation():
    """Three seeds that happen to agree give no narrow tolerance beside three that do not."""
    close = rows(seed=[0, 1], value=[0.5, 0.5], sparsity=[75.0, 75.0])
    wide = rows(seed=[0, 1], value=[0.4, 0.6], sparsity=[95.0, 95.0])
    table = report.cells(pd.concat([close, wide]), metric="accuracy")
    one, other = report.headline_rows("sae{sparsity:g}", table)
    assert one["tolerance"] == other["tolerance"] == pytest.approx(4 * 0.1, abs=1e-6)


def claim_tables(*, low, own_low, kept=1.0, null_kept=1.0):
    base = {"encoder": "demo", "layer": 3, "primary": True, "n": 19, "ci_high": 0.1}
    information = pd.DataFrame([
        base | {"contrast": name, "value": 0.01, "ci_low": ci, "kept": kept}
        for name, ci in (("retention", -0.01), ("readability", -0.01), ("learned", own_low))]
        + [base | {"contrast": f"{name}_untrained", "value": 0.0, "ci_low": -0.02,
                   "kept": null_kept} for name in ("retention", "readability")])
    reading = pd.DataFrame([
        base | {"contrast": name, "value": 0.01, "ci_low": ci, "reference": "ica"}
        for name, ci in (("against_linear", low), ("learned", own_low))])
    effects = pd.DataFrame([{"encoder": "demo", "metric": "confirmed", "sparsity": s, "value": v,
                             "representation": r, "seed": 0, "n": 40}
                            for r, s, v in (("sae", 95, 0.5), ("random", 95, 0.25),
                                            ("raw", np.nan, 0.75), ("sae", 75, 0.0))])
    return information, reading, effects, "demo", 95


@pytest.mark.parametrize("settings, first, second", [
    ({"low": 0.001, "own_low": 0.001}, "kept", "better than from independent components"),
    ({"low": -0.01, "own_low": -0.01}, "kept, as by an untrained dictionary", "neither"),
    ({"low": -0.01, "own_low": -0.01, "null_kept": 0.0},
     "kept, but not shown to be read better than from an untrained", "neither"),
    ({"low": -0.01, "own_low": 0.01, "kept": 0.0}, "not shown to be kept (retention",
     "neither"),
])
def test_sentences_follow_the_intervals(settings, first, second):
    table = claim_sentences(*claim_tables(**settings)).set_index("name")
    assert table.loc["claim1", "verdict"].startswith(first)
    assert table.loc["claim2", "verdict"].startswith(second)
    assert table.loc["claim2b", "verdict"] == "50% against 25% and 75%"
    assert "layer 3, 95 %, 19 singers" in table.loc["claim1", "text"]
    assert "layer 3, 95 %, 40 base clips" in table.loc["claim2b", "text"]


def test_too_few_singers_decide_nothing():
    tables = claim_tables(low=np.nan, own_low=np.nan, kept=np.nan)
    table = claim_sentences(*tables).set_index("name")
    assert "too few singers" in table.loc["claim1", "verdict"]
    assert "for lack of singers" in table.loc["claim2", "verdict"]


def test_seeds_are_averaged_within_singer_before_the_interval():
    """Two seeds that differ by a shift of each singer: the mean has a narrower interval."""
    from scipy import stats

    by_singer = {"a": (0.2, 0.8), "b": (0.5, 0.6), "c": (0.9, 0.1)}
    ids = {"encoder": "demo", "layer": 3, "representation": "sae", "sparsity": 95.0,
           "metric": "accuracy", "split": "unseen", "technique": ""}
    rows = [ids | {"seed": seed, "singer": name, "value": values[seed], "n": 4}
            for name, values in by_singer.items() for seed in (0, 1)]
    rows += [ids | {"seed": seed, "singer": "", "value": np.mean([v[seed] for v in
             by_singer.values()]), "ci_low": 0.0, "ci_high": 1.0, "n": 3} for seed in (0, 1)]
    rows += [row | {"layer": 4, "ci_low": 0.3, "ci_high": 0.4} for row in rows[-2:]]  # no singers
    table = report.seeds_averaged(pd.DataFrame(rows), "accuracy", "unseen").set_index("layer")
    means = np.array([np.mean(values) for values in by_singer.values()])
    low, high = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
    assert table.loc[3, "value"] == pytest.approx(means.mean())
    assert table.loc[3, ["ci_low", "ci_high"]].tolist() == pytest.approx([low, high])
    assert table.loc[4, ["ci_low", "ci_high"]].tolist() == [0.3, 0.4]


def test_raw_states_without_a_sparsity_get_their_intervals():
    ids = {"encoder": "demo", "layer": 1, "representation": "raw", "sparsity": np.nan}
    cells = pd.DataFrame([ids | {"value": 0.5, "ci_low": 0.0, "ci_high": 1.0, "n": 2}])
    singles = pd.DataFrame([ids | {"singer": s, "seed": 0, "value": v}
                            for s, v in (("a", 0.4), ("b", 0.6))])
    found = report.with_intervals(cells, singles)
    assert found["ci_low"].iloc[0] < -0.7 and found["n"].iloc[0] == 2
    assert report.with_intervals(cells, singles[:0]).equals(cells)


def test_holdings_tell_bounded_tables_from_full_ones():
    wide = pd.DataFrame([{"encoder": "demo", "representation": kind, "layer": layer, "seed": seed,
                          "sparsity": s, "protocol": "corrected"}
                         for kind, sparsities in (("sae", (75, 95)), ("raw", (np.nan,)))
                         for layer in range(7) for seed in range(3) for s in sparsities])
    narrow = wide[wide["layer"] == 4].drop(columns=["representation", "protocol"])
    table = report.holdings({"wide": wide, "narrow": narrow}).set_index(["table", "representation"])
    assert table.loc[("wide", "sae"), "layers"] == "0-6"
    assert table.loc[("wide", "raw"), "sparsities"] == ""
    assert table.loc[("narrow", "sae"), "layers"] == "4"
    assert table["rows"].sum() == len(wide) + len(narrow)
    assert report.holdings({}).empty
