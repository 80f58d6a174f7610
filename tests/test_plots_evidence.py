"""The figures of the evidence take their tables; what they show is tested where it is computed."""

import numpy as np
import pandas as pd
import pytest

from saeutils import plots_evidence


def labels(figure):
    return {text.get_text() for axis in figure.axes for text in axis.get_yticklabels()}


def test_every_figure_takes_its_table_and_names_the_singers():
    curves = pd.DataFrame({"panel": "codes 95 % sparse", "codes": [1, 5, 1, 5],
                           "representation": ["sae", "sae", "raw", "raw"],
                           "value": [0.1, 0.3, 0.1, 0.2]})
    contrasts = pd.DataFrame({"contrast": ["retention", "readability", "learned"] * 2,
                              "sparsity": [75] * 3 + [95] * 3, "value": 0.01, "ci_low": np.nan,
                              "ci_high": np.nan})
    change = pd.DataFrame({"base_id": ["b"] * 3, "step": [-1, 0, 1], "value": [-1.0, 0.0, 1.0]})
    for figure in (
        plots_evidence.k_curves(curves),
        plots_evidence.claim_figure(contrasts, curves, 0.03),
        plots_evidence.response_curve(change, x="tilt_db"),
    ):
        below = figure._supxlabel.get_text() if figure._supxlabel else ""
        assert any("synthetic singers" in text for text in
                   [below, *(text.get_text() for text in figure.texts)])
        assert all(axis.get_xlabel() or figure._supxlabel for axis in figure.axes)


def test_what_untrained_dictionaries_keep_is_drawn_beside_the_claim():
    """The figure of claim 1 had their rows in its table and did not draw them."""
    names = ["retention", "readability", "learned", "retention_untrained", "readability_untrained"]
    contrasts = pd.DataFrame({"contrast": names, "sparsity": 95, "value": [0, 0, 0, -0.2, -0.07],
                              "ci_low": np.nan, "ci_high": np.nan})
    figure = plots_evidence.claim_figure(contrasts, pd.DataFrame(), 0.03)
    drawn = {line.get_label(): line.get_ydata()[0] for line in figure.axes[0].lines}
    assert drawn["retention, untrained dictionary"] == -20
    assert drawn["readability, untrained dictionary"] == pytest.approx(-7)


def test_rows_whose_zero_is_built_in_get_a_cross():
    table = pd.DataFrame({
        "entry": ["A20", "A06"], "label": ["k", "shift"], "end": "both", "value": [0.1, -1.0],
        "ci_low": np.nan, "ci_high": np.nan, "verdict": "moves a number",
        "by_construction": [False, True]})
    figure = plots_evidence.audit_forest(table)
    crosses = [line.get_xdata()[0] for line in figure.axes[0].lines
               if line.get_marker() == "x" and len(line.get_xdata())]
    assert crosses == [-1.0]


def test_rows_of_matrix_and_forest_keep_their_order():
    matrix = pd.DataFrame({"code": ["b", "b", "a", "a"], "factor": ["f", "g"] * 2,
                           "value": [1.0, 0.0, 0.2, 0.8], "confirmed": [True, False] * 2})
    figure = plots_evidence.response_matrix(matrix)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["b", "a"]
    table = pd.DataFrame({
        "entry": ["A01", "A01", "A02"], "label": ["A01 r", "A01 r", "A02 w"],
        "end": ["released", "corrected", "both"], "value": [0.5, 0.4, 0.1], "ci_low": np.nan,
        "ci_high": np.nan, "verdict": ["changes a conclusion"] * 2 + ["moves a number"]})
    figure = plots_evidence.audit_forest(table)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["A01 r", "A02 w"]
    names = [text.get_text() for text in figure.axes[0].texts]
    assert names == ["changes a conclusion", "moves a number"]
    checked = pd.DataFrame([[0.9, -0.1]], index=["HNR"], columns=["tonic_st", "tilt_db"])
    figure = plots_evidence.instrument_matrix(checked)
    assert labels(figure) >= {"HNR"}
    assert [text.get_text() for text in figure.axes[0].texts] == ["+.9"]


def test_attributes_told_apart_are_counted_and_named():
    table = pd.DataFrame({
        "attribute": ["F0semitoneFrom27.5Hz_sma3nz_amean", "b", "c"] * 2,
        "contrast": ["against_linear"] * 3 + ["learned"] * 3, "n": 19,
        "reference": ["raw"] * 3 + ["random"] * 3, "value": [-0.2, 0.0, 0.1] * 2,
        "band_low": [-0.3, -0.1, -0.1] * 2, "band_high": [-0.1, 0.1, 0.3] * 2,
        "verdict": ["worse", "undecided", "undecided"] * 2})
    figure = plots_evidence.attribute_contrasts(table)
    assert "for all attributes together, over 19 singers" in figure._supxlabel.get_text()
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["worst: F0 (55 to 1000 Hz)"]
        said = [text.get_text() for text in axis.get_legend().get_texts()]
        assert said == ["0 better", "2 undecided", "1 worse"]


def test_a_claim_without_curves_says_why():
    contrasts = pd.DataFrame({"contrast": ["retention", "readability", "learned"], "sparsity": 95,
                              "value": 0.01, "ci_low": np.nan, "ci_high": np.nan})
    empty = pd.DataFrame(columns=["representation", "codes", "value"])
    figure = plots_evidence.claim_figure(contrasts, empty, 0.03)
    assert "too few training clips" in figure.axes[1].texts[0].get_text()


def test_confusions_write_shares_and_codes_found_again_carry_a_star():
    table = pd.DataFrame([[0.95, 0.05], [0.4, 0.6]], index=["belt", "lip_trill"],
                         columns=["belt", "lip_trill"])
    figure = plots_evidence.confusions({"raw": table, "sae": table})
    for axis in figure.axes[:2]:
        assert [text.get_text() for text in axis.texts] == ["95", "40", "60"]
    matrix = pd.DataFrame({"code": ["f: code 3"] * 2 + ["g: code 5"] * 2,
                           "factor": ["f", "g"] * 2, "value": 0.5, "confirmed": False,
                           "stable": [True, True, False, False]})
    drawn = plots_evidence.response_matrix(matrix).axes[0]
    assert [text.get_text() for text in drawn.get_yticklabels()] == ["f: code 3 ★", "g: code 5"]
