"""The overview: its rows are those of the single figures, its sentences those of the claims."""

import numpy as np
import pandas as pd
import pytest

from saeutils import plots_overview

CLAIM = pd.DataFrame(
    [("demo", 6, 95.0, "retention", -0.02, -0.06, 0.02, 19),
     ("demo", 6, 95.0, "readability", -0.10, -0.16, -0.04, 19),
     ("demo", 6, 95.0, "learned", 0.03, -0.02, 0.08, 19),
     ("untrained", 3, 95.0, "readability", 0.5, 0.4, 0.6, 19)],
    columns=["encoder", "layer", "sparsity", "contrast", "value", "ci_low", "ci_high", "n"])
ACCURACY = pd.DataFrame({"encoder": ["demo", "untrained"], "layer": [6, 3], "representation": "raw",
                         "sparsity": np.nan, "value": [0.66, 0.20], "n": 19})
NULLS = pd.DataFrame(
    [("published", "published ast 6", 95.0, 0.70), ("published", "published ast 12", 95.0, 0.80),
     ("sae", "sae demo 6", 95.0, 0.65), ("sae", "sae demo 3", 95.0, 0.1),
     ("random", "random demo 6", 95.0, 0.72), ("noise", "noise demo -1", 95.0, 0.79),
     ("raw", "raw demo 6", np.nan, 0.58)],
    columns=["representation", "series", "sparsity", "value"])
CURVES = pd.DataFrame({"representation": ["raw", "sae", "ica"], "codes": [1, 1, 1],
                       "value": [0.26, 0.14, 0.04]})
SENTENCES = pd.DataFrame({
    "name": ["claim1", "claim2"], "sparsity": 95.0,
    "text": ["Information about technique is **not shown to be kept (retention)**: retention "
             "-2.0 [-6.0, 2.0] points of balanced accuracy; means over 10 seeds, which "
             "differ by 3.4 (SD) (layer 6, 95 %, 19 singers).",
             "Read **worse** (area under R²(k) -0.081 [-0.097, -0.064]) (layer 6)."]})


def rows(**changes):
    given = {"claim": CLAIM, "accuracy": ACCURACY, "nulls": NULLS, "curves": CURVES} | changes
    return plots_overview.overview_rows(**given, encoder="demo", layer=6, margin=0.03, chance=0.1)


def value(table, panel, kind):
    part = table[(table["panel"] == panel) & (table["representation"] == kind)]
    return part[["value", "ci_low", "ci_high"]].to_numpy().squeeze()


def test_differences_become_levels_around_raw():
    table = rows()
    assert value(table, "kept", "sae") == pytest.approx([0.56, 0.50, 0.62])
    assert value(table, "kept", "sae_rebuilt") == pytest.approx([0.64, 0.60, 0.68])
    assert value(table, "kept", "random")[0] == pytest.approx(0.66 - 0.10 - 0.03)
    assert value(table, "kept", "margin")[0] == pytest.approx(0.63)


def test_only_the_layer_of_the_cell_counts_and_published_values_keep_their_range():
    table = rows()
    assert value(table, "published", "sae")[0] == pytest.approx(0.65)
    assert value(table, "published", "published") == pytest.approx([0.75, 0.70, 0.80])
    assert "ica" not in set(table["representation"])


def said(figure):
    return " ".join(" ".join(text.get_text().split()) for text in figure.texts)


def test_the_page_says_what_the_claims_say_whose_singers_and_how_many():
    figure = plots_overview.overview(rows(), SENTENCES, ["clips", "state", "code", "null"],
                                     note="synthetic singers")
    text = said(figure)
    for part in ("Technique is not shown to be kept: rebuilt states −2.0 points at 95 %.",
                 "Read worse.", "SAEs lie 0.07 below a dictionary that was never trained",
                 "synthetic singers", "19 unseen singers"):
        assert part in text, part
    assert sum(axis.has_data() and bool(axis.get_xlabel()) for axis in figure.axes) == 3


def test_a_kept_claim_says_in_three_lines_what_an_untrained_dictionary_does():
    text = ("Information about technique is **kept, but not shown to be read better than from an "
            "untrained dictionary**: retention -0.3 [-2.6, 2.1], readability +0.9 [-3.3, 5.1], SAE "
            "minus untrained dictionary +2.4 [-0.4, 5.2] points of balanced accuracy; codes are "
            "the mean of 10 seeds, which differ by 2.2 (SD) (layer 5, 95 %, 19 singers).")
    sentences = SENTENCES.assign(text=[text, SENTENCES["text"][1]])
    figure = plots_overview.overview(rows(), sentences, ["a", "b", "c", "d"])
    here = next(t for t in figure.texts if t.get_text().startswith("Technique"))
    assert len(here.get_text().splitlines()) <= 3
    assert said(figure).count("Technique is kept: rebuilt states −0.3, codes +0.9; not shown to "
                              "beat an untrained dictionary (+2.4 points).") == 1


def test_a_panel_without_rows_is_left_out_and_a_missing_step_is_refused():
    figure = plots_overview.overview(rows(curves=CURVES[:0]), SENTENCES, ["a", "b", "c", "d"])
    assert sum(bool(axis.get_xlabel()) for axis in figure.axes) == 2
    with pytest.raises(ValueError, match="4 steps: got 3"):
        plots_overview.overview(rows(), SENTENCES, ["a", "b", "c"])


def test_the_gallery_begins_with_the_whole(tmp_path):
    from saeutils import publish

    (tmp_path / "results").mkdir()
    table = tmp_path / "results" / "gallery.csv"
    names = ["fig10_last", "fig1c_third", "fig1a_first", "overview", "fig2_next"]
    pd.DataFrame({"figure": names, "alt": names}).to_csv(table)
    page = publish.gallery(table, "demo")
    titles = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert titles == ["Overview", "Figure 1a · first", "Figure 1c · third", "Figure 2 · next",
                      "Figure 10 · last"]
