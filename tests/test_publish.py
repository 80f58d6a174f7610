"""Publishing: what counts as equal, what is removed from a notebook, which numbers are rendered."""

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from saeutils import publish


def table(**values):
    rows = [{"name": n, "value": v, "tolerance": t, "text": f"{v:g}"} for n, (v, t) in
            values.items()]
    return pd.DataFrame(rows, columns=["name", "value", "tolerance", "text"])


def test_a_value_counts_as_equal_within_its_tolerance():
    then = table(a=(1.0, 0.1), b=(2.0, 0.0), c=(3.0, 1.0)).set_index("name")
    now = table(a=(1.1, 0), b=(2.001, 0), d=(1, 0)).set_index("name")
    within = publish.compare(now, then)["within"]
    assert within.to_dict() == {"a": True, "b": False, "c": False, "d": False}


def test_check_counts_and_names_what_differs(tmp_path, capsys):
    (tmp_path / "run" / "results").mkdir(parents=True)
    (tmp_path / "published").mkdir()
    table(a=(1, 0), b=(5, 0)).to_csv(tmp_path / "run" / "results" / "headline.csv", index=False)
    table(a=(1, 0.1), b=(2, 0.1)).to_csv(tmp_path / "published" / "headline.csv", index=False)
    assert publish.check(tmp_path / "run", tmp_path / "published") == 1
    printed = capsys.readouterr().out
    assert "1 of 2 within tolerance" in printed and "differs: b is 5, published 2" in printed


def test_check_compares_what_does_not_belong_to_a_layer_when_another_one_was_chosen(
        tmp_path, capsys):
    values = {"run/results": table(n_clips=(9, 0), primary_layer=(5, 0), sae95_fvu=(7, 0)),
              "published": table(n_clips=(9, 0), primary_layer=(4, 0), sae95_fvu=(1, 0))}
    for folder, values_there in values.items():
        (tmp_path / folder).mkdir(parents=True)
        values_there.to_csv(tmp_path / folder / "headline.csv", index=False)
    assert publish.check(tmp_path / "run", tmp_path / "published") == 0
    printed = capsys.readouterr().out
    assert "another layer was chosen on the validation singers: 5, published 4" in printed
    assert "1 of 1 within tolerance" in printed
    table(n_clips=(8, 0), primary_layer=(5, 0), sae95_fvu=(7, 0)).to_csv(
        tmp_path / "run/results/headline.csv", index=False)
    assert publish.check(tmp_path / "run", tmp_path / "published") == 1


def test_check_tells_a_claim_that_is_answered_otherwise(tmp_path, capsys):
    texts = {"run/results": ("kept", "worse than from raw states", "5% against 3% and 10%"),
             "published": ("not shown to be kept (retention)", "worse than from raw states",
                           "6% against 3% and 10%")}
    for folder, verdicts in texts.items():
        (tmp_path / folder).mkdir(parents=True)
        table(a=(1, 0)).to_csv(tmp_path / folder / "headline.csv", index=False)
        pd.DataFrame({"name": ["claim1", "claim2", "claim2b"], "verdict": verdicts}).to_csv(
            tmp_path / folder / "claims.csv", index=False)
    assert publish.check(tmp_path / "run", tmp_path / "published") == 0  # the numbers decide
    printed = capsys.readouterr().out
    assert "claim1 is answered otherwise: 'kept', published 'not shown to be kept" in printed
    assert printed.count("answered otherwise") == 1


def test_check_of_a_profile_without_published_values_ends_well(tmp_path, capsys):
    """Own audio, a rehearsal, the paper: `make reproduce` must not end in an error."""
    path = tmp_path / "mine" / "results"
    path.mkdir(parents=True)
    table(a=(1, 0)).to_csv(path / "headline.csv", index=False)
    assert publish.check(tmp_path / "mine", tmp_path / "own.yaml") == 0
    printed = capsys.readouterr().out
    assert "run 'mine': its profile has no published values" in printed and "figures" in printed


def test_check_without_a_run_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="make reproduce"):
        publish.check(tmp_path, tmp_path)


def test_cleaning_keeps_code_and_results_and_drops_the_rest():
    kept = new_output("stream", name="stdout", text="result")
    noise = new_output("stream", name="stderr", text="warning")
    bar = new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}})
    cell = new_code_cell("x = 1", outputs=[noise, bar, kept], execution_count=9,
                         metadata={"papermill": {"duration": 1.2}, "tags": ["parameters"]})
    injected = new_code_cell("x = 2", metadata={"tags": ["injected-parameters"]})
    book = new_notebook(cells=[cell, injected], metadata={"papermill": {}, "kernelspec": {
        "name": "python3", "display_name": "Python 3"}})
    clean = publish.clean_notebook(book)
    assert len(clean.cells) == 1 and clean.cells[0].outputs == [kept]
    assert clean.cells[0].metadata == {"tags": ["parameters"]}
    assert clean.cells[0].execution_count == 1 and set(clean.metadata) == {"kernelspec"}
    nbformat.validate(clean)


def test_readme_numbers_come_from_the_table(tmp_path):
    path = tmp_path / "headline.csv"
    table(clips=(986, 0)).to_csv(path, index=False)
    assert publish.render("n = <!--v:clips-->7<!--/v-->.", path) == (
        "n = <!--v:clips-->986<!--/v-->.")
    with pytest.raises(ValueError, match="'singers'.*it has clips"):
        publish.render("<!--v:singers--><!--/v-->", path)


def test_outputs_move_to_edited_text_but_not_to_other_code():
    output = new_output("stream", name="stdout", text="result")
    ran = new_notebook(cells=[new_code_cell("x = 1", outputs=[output]),
                              new_code_cell("x = 2", metadata={"tags": ["injected-parameters"]})])
    kept = publish.with_outputs(new_notebook(cells=[new_code_cell("x = 1")]), ran)
    assert kept.cells[0].outputs == [output]
    with pytest.raises(ValueError, match="other code cells"):
        publish.with_outputs(new_notebook(cells=[new_code_cell("x = 3")]), ran)


def test_pictures_get_lighter_and_stay_the_same_to_the_eye():
    import base64
    import io

    import matplotlib.pyplot as plt
    import numpy as np
    from PIL import Image

    figure, axis = plt.subplots()
    axis.plot([0, 1, 4], color="#0072B2")
    held = io.BytesIO()
    figure.savefig(held, dpi=100)
    plt.close(figure)
    before = base64.b64encode(held.getvalue()).decode()
    after = publish.lighter_png(before)
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"), float)
                for text in (before, after)]
    assert len(after) < 0.8 * len(before)
    assert np.abs(pictures[0] - pictures[1]).mean() < 1
