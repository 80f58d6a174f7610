"""The report card: numbers where they are comparable, shapes elsewhere, never a mix-up."""

import numpy as np
import pandas as pd
import pytest

from saeutils import plots_report, report_card
from saeutils.files import reference_table

PUBLISHED = report_card.published_values(
    reference_table("paper_reported_accuracy"), reference_table("paper_figures_digitised"))


def like_the_paper(shift=0.0, seed_sd=0.01):
    """Our values equal to the published ones plus `shift`, the untrained dictionary at zero."""
    one = PUBLISHED.rename(columns={"published": "value"}).drop_duplicates(report_card.KEYS)
    one = one.assign(value=one["value"] + shift, seed_sd=seed_sd, n_seeds=5,
                     ci_low=one["value"] - 0.3, ci_high=one["value"] + 0.3, n=5)
    null = one[one["representation"] == "sae"].assign(representation="random", value=0.1)
    return pd.concat([one, null], ignore_index=True)


PRIMARY = {"ast": 12, "wavlm": 1, "hubert": 3, "mert": 7}


def test_every_published_value_is_there_with_its_reading_error():
    assert len(PUBLISHED) == len(reference_table("paper_reported_accuracy")) + len(
        reference_table("paper_figures_digitised"))
    one = PUBLISHED.query("quantity == 'reconstruction_mse'").iloc[0]
    assert one["reading_error"] == pytest.approx(0.05 * one["published"])
    assert (PUBLISHED.loc[PUBLISHED["note"].str.startswith("printed"), "reading_error"] == 0).all()


def test_numbers_equal_to_the_paper_agree_and_the_ambiguous_cell_is_not_judged():
    table = report_card.numbers(PUBLISHED, like_the_paper(), PRIMARY)
    unknown = table["verdict"].str.contains("unknown")
    assert unknown.sum() == 2 and set(table.loc[unknown, "encoder"]) == {"hubert"}
    assert (table.loc[~unknown, "verdict"] == "agrees").all()
    assert (table["encoder"] == table["our_encoder"]).all()


@pytest.mark.parametrize("shift, seed_sd, verdict", [
    (0.015, 0.01, "agrees"), (0.03, 0.01, "differs"), (0.03, 0.02, "agrees"),
    (0.009, 0.0, "agrees"), (0.011, 0.0, "differs")])
def test_a_printed_accuracy_is_judged_by_seeds_with_a_floor(shift, seed_sd, verdict):
    table = report_card.numbers(PUBLISHED, like_the_paper(shift, seed_sd), PRIMARY)
    row = table[(table["encoder"] == "ast") & (table["layer"] == 12) & (table["sparsity"] == 95)
                & (table["name"] == "probing_accuracy")].iloc[0]
    assert row["verdict"] == verdict
    assert row["tolerance"] == pytest.approx(max(2 * seed_sd, 0.01))
    assert ("inside our interval" in row["note"]) == (verdict == "differs")


def test_a_missing_layer_is_not_compared_in_the_paper_s_profile():
    ours = like_the_paper()
    ours = ours[~((ours["encoder"] == "mert") & (ours["quantity"] == "r2_top10_mean"))]
    table = report_card.numbers(PUBLISHED, ours, PRIMARY)
    mert = table[(table["encoder"] == "mert") & (table["name"] == "r2_top10_mean")]
    assert (mert["verdict"] == "not comparable: not measured in this run").all()


def test_the_published_wavlm_is_held_against_the_one_with_the_same_fault():
    ours = like_the_paper()
    faulty = ours[ours["encoder"] == "wavlm"].assign(encoder="wavlm_as_released")
    right = ours.assign(value=ours["value"].where(ours["encoder"] != "wavlm", 0.0))
    primary = PRIMARY | {"wavlm_as_released": 1}
    table = report_card.numbers(PUBLISHED, pd.concat([right, faulty]), primary)
    wavlm = table[table["encoder"] == "wavlm"]
    assert set(wavlm["our_encoder"]) == {"wavlm_as_released"}
    assert set(wavlm["verdict"]) == {"agrees"}
    shape = report_card.shapes(PUBLISHED, pd.concat([right, faulty]), primary)
    assert "wavlm_as_released" in shape["our_encoder"].iloc[0].split()
    assert "wavlm" not in shape["our_encoder"].iloc[0].split()


def test_the_demo_s_numbers_stand_beside_and_are_never_judged():
    ours = like_the_paper().query("encoder == 'ast'").assign(encoder="demo")
    table = report_card.numbers(PUBLISHED, ours, {"demo": 6}, "synthetic singers")
    assert set(table["verdict"]) == {"not comparable: synthetic singers"}
    assert set(table["our_encoder"]) == {"demo"}
    deepest = table[(table["name"] == "probing_accuracy") & (table["representation"] == "raw")
                    & (table["layer"] == 12)]
    assert set(deepest["our_layer"]) == {12}


def test_shapes_of_the_paper_s_own_values_agree_with_themselves():
    table = report_card.shapes(PUBLISHED, like_the_paper(seed_sd=0.0), PRIMARY).set_index("name")
    assert set(table["verdict"]) == {"agrees"}
    np.testing.assert_allclose(table["value"], table["published"], atol=1e-12)
    assert table.loc["completeness_rises_99", "published"] > 0
    assert table.loc["accuracy_falls_99", "published"] < 0
    assert table.loc["accuracy_falls_99", "untrained"] == 0


def test_a_shape_by_hand_a_reversal_and_a_doubt():
    def ours(at_95, at_99, sd):
        base = {"quantity": "completeness_top10_mean", "encoder": "demo", "seed_sd": sd,
                "n_seeds": 4}
        rows = [base | {"layer": layer, "representation": kind, "sparsity": s, "value": v}
                for layer in (1, 2) for kind in ("sae", "random")
                for s, v in ((95, at_95), (99, at_99))]
        return pd.DataFrame(rows)

    def verdict(*values):
        table = report_card.shapes(PUBLISHED, ours(*values), {"demo": 1}).set_index("name")
        return table.loc["completeness_rises_99"]

    rises = verdict(0.5, 0.6, 0.0)
    assert rises["verdict"] == "agrees" and rises["value"] == pytest.approx(0.1)
    assert rises["untrained_share"] == 1.0 and rises["n"] == 2
    assert verdict(0.6, 0.5, 0.0)["verdict"] == "differs"
    # two layers, each difference with variance (.1² + .1²) / 4: two standard errors are .1
    doubt = verdict(0.5, 0.59, 0.1)
    assert doubt["tolerance"] == pytest.approx(0.1) and doubt["verdict"] == "undecided"


def test_one_seed_borrows_its_spread_from_layers_with_several():
    base = {"quantity": "completeness_top10_mean", "encoder": "demo"}
    rows = [base | {"layer": layer, "representation": kind, "sparsity": s, "value": v,
                    "seed_sd": sd, "n_seeds": n}
            for layer, sd, n in ((1, 0.1, 4), (2, np.nan, 1)) for kind in ("sae", "random")
            for s, v in ((95, 0.5), (99, 0.6))]
    table = report_card.shapes(PUBLISHED, pd.DataFrame(rows), {"demo": 1}).set_index("name")
    # variances of the two differences: (.1² + .1²) / 4 and, from one seed each, .1² + .1²
    expected = 2 * np.sqrt(0.005 + 0.02) / 2
    assert table.loc["completeness_rises_99", "tolerance"] == pytest.approx(expected)


def test_a_rehearsal_is_compared_in_nothing():
    why = "rehearsal: not a result"
    both = pd.concat([report_card.shapes(PUBLISHED, like_the_paper(), PRIMARY, why),
                      report_card.numbers(PUBLISHED, like_the_paper(), PRIMARY, why)])
    assert set(both["verdict"]) == {f"not comparable: {why}"}


def test_the_page_and_the_figure_show_every_shape_and_every_number_that_differs():
    card = pd.concat([
        report_card.shapes(PUBLISHED, like_the_paper(), PRIMARY),
        report_card.numbers(PUBLISHED, like_the_paper(0.05), PRIMARY)], ignore_index=True)
    page = report_card.markdown(card, "VocalSet")
    assert all(shape.text in page for shape in report_card.SHAPES)
    part = card.assign(ci_low=card["quantity"].map({"probing_accuracy": 0.1}))
    told = report_card.markdown(part, "VocalSet")
    assert "over singers (`report_card.csv`): accuracy. Without one" in told
    bare = report_card.markdown(card.assign(ci_low=np.nan), "VocalSet")
    assert "over singers (`report_card.csv`): none. Without one" in bare
    differs = (card["kind"] == "number") & (card["verdict"] == "differs")
    assert differs.sum() > 50 and page.count("| ast |") == (differs & (card.encoder == "ast")).sum()
    assert {shape.name for shape in report_card.SHAPES} == set(plots_report.LABELS)
    figure = plots_report.report_card(card, note="VocalSet")
    assert len(figure.axes) == 2
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert drawn == card.loc[card["kind"] == "shape", "verdict"].tolist()
    alone = plots_report.report_card(card[card["kind"] == "shape"], note="VocalSet")
    assert len(alone.axes) == 1


def test_tables_that_a_reader_sees_have_words_for_names_and_no_nan():
    table = pd.DataFrame({"representation": ["ica", "sae"], "sparsity": [np.nan, 95.0],
                          "am_depth": [0.25, np.nan], "found": ["tonic_st", None]})
    shown = plots_report.in_words(table.set_index(["representation", "sparsity"]))
    assert shown.index.tolist() == [("ICA", "–"), ("SAE", "95")]
    assert shown.columns.tolist() == ["AM depth", "found"]
    assert shown["found"].tolist() == ["tonic (semitones)", ""]
    assert shown["AM depth"].tolist() == ["0.25", ""]
    assert "nan" not in shown.to_html().lower() and table["am_depth"].isna().sum() == 1


def test_a_column_with_gaps_keeps_its_decimals_and_a_truth_is_yes_or_no():
    table = pd.DataFrame({"r2": [0.5, 0.125, np.nan], "dead_fraction": [0.5, 0.25, 0.0],
                          "true_to_name": [True, False, True]}, index=["fvu", "sae", "l0"])
    shown = plots_report.in_words(table)
    assert shown["R²"].tolist() == ["0.500", "0.125", ""]
    assert shown["dead fraction"].tolist() == [0.5, 0.25, 0.0]
    assert shown["true to name"].tolist() == ["yes", "no", "yes"]
    assert shown.index.tolist() == ["FVU", "SAE", "L0"]


def test_long_texts_of_a_shown_table_are_not_cut_and_the_table_is_left_as_it_was():
    long = "accuracy of the chosen layer, on the singers that it was chosen on, by fold"
    table = pd.DataFrame({"quantity": [long], "fvu": [0.5]})
    shown = plots_report.in_words(table)
    assert long in shown._repr_html_() and long in shown.round(1)._repr_html_()
    assert table.columns.tolist() == ["quantity", "fvu"] and type(table) is pd.DataFrame
