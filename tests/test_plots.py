"""What a figure says of its data, and the rule that no notebook forgets it."""

import ast

import nbformat
import numpy as np
import pandas as pd
import pytest

from saeutils import plots, plots_atlas, plots_report, plots_tour
from saeutils.keys import STAGES, notebook_path


@pytest.fixture(autouse=True)
def usual_note():
    yield
    plots.use_note("synthetic singers")


def said(figure):
    label = figure.get_supxlabel()
    return [text.get_text() for text in figure.texts] + [label]


def test_a_figure_carries_the_run_s_note_unless_it_has_its_own():
    plots.use_note("rehearsal: not a result")
    figure, _ = plots.new_figure()
    assert "rehearsal: not a result" in said(figure)
    table = pd.DataFrame({"panel": "a", "representation": "sae", "sparsity": [75, 95],
                          "value": [0.1, 0.2]})
    assert any("(rehearsal: not a result)" in text
               for text in said(plots.over_sparsity(table, metric="accuracy")))
    own = said(plots.over_sparsity(table, metric="accuracy", note="VocalSet"))
    assert not any("rehearsal" in text for text in own) and any("VocalSet" in t for t in own)
    assert not any(said(plots.new_figure(note="")[0]))


@pytest.mark.parametrize("number", [n for n in STAGES if n >= "03"])
def test_every_notebook_that_draws_passes_the_note_on(number):
    code = "\n".join(cell.source for cell in nbformat.read(notebook_path(number), 4).cells
                     if cell.cell_type == "code")
    calls = {ast.unparse(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
    draws = any(call.startswith(("plots.", "plots_")) for call in calls)
    assert not draws or calls & {"plots.use_note(stage.profile.data.face)", "plots.use_note(note)"}


def test_a_figure_with_intervals_says_over_how_many_singers():
    table = pd.DataFrame({"value": [0.5, 0.6], "ci_low": [0.4, np.nan], "n": [19.0, 7.0]})
    assert plots.over_singers(table, "VocalSet") == "VocalSet; bars: 95 % over 19 singers"
    both = table.assign(ci_low=0.4)
    assert plots.over_singers(both, "") == "bars: 95 % over 7 to 19 singers"
    range_of_layers = both.assign(representation="published")
    for bare in (range_of_layers, table.drop(columns="n"), table.drop(columns="ci_low"),
                 both.assign(ci_low=np.nan)):
        assert plots.over_singers(bare, "VocalSet") == "VocalSet"


def test_the_tours_picture_draws_the_state_the_latents_that_fire_and_the_rebuilt_state():
    state, code = [1.0, -2.0, 0.5], [0.0, 3.0, 0.0, 1.0]
    figure = plots_tour.one_clip(state, code, [0.9, -1.8, 0.6])
    left, middle, right = figure.axes
    assert [bar.get_height() for bar in left.patches] == state
    assert [text.get_text() for text in middle.texts] == ["latent 1", "latent 3"]
    assert "2 of 4 latents fire" in middle.get_title(loc="left")
    assert [bar.get_height() for bar in right.patches] == [0.9, -1.8, 0.6]
    assert left.get_ylim() == right.get_ylim() and "toy data" in said(figure)


def test_spectrograms_take_one_rate_or_one_for_each_clip():
    waves = {"low": np.sin(np.arange(8000) / 5), "high": np.sin(np.arange(16000) / 5)}
    figure = plots_atlas.spectrograms(waves, {"low": 8000, "high": 16000})
    ends = [axis.get_xlim()[1] for axis in figure.axes]
    assert ends == pytest.approx([1.0, 1.0], abs=0.1)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["low", "high"]


def test_a_line_to_compare_with_is_named_in_the_legend_and_not_on_the_bars():
    table = pd.DataFrame({"panel": "a", "representation": "sae", "sparsity": [75, 95],
                          "value": [0.1, 0.2]})
    figure = plots.over_sparsity(table, metric="accuracy",
                                 references={"margin": -0.03, "majority": 0.2})
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert names == ["margin", "majority class", "SAE"]
    assert not figure.axes[0].texts


def test_a_zero_carries_no_minus():
    shown = plots_report.in_words(pd.DataFrame({"a": [-0.0, 0.5], "b": [-0.0, np.nan]}))
    assert not np.signbit(shown["a"].iloc[0]) and shown["b"].iloc[0] == "0"


def test_sentences_in_a_table_start_at_the_left_and_numbers_do_not():
    told = "Same names, same seed, two orders: a < b."
    table = pd.DataFrame({"value": [1, 2], "note": [told, ""], "case": "toy"}, index=["A", "B"])
    page = plots_report.in_words(table)._repr_html_()
    left = '<td style="text-align: left">'
    assert page.count(left) == 2 and f"{left}Same names" in page and "<td>toy</td>" in page
    assert '<th style="text-align: left">note</th>' in page and "<th>case</th>" in page
