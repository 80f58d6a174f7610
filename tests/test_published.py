"""What the repository shows is what the last published run gave."""

import re
import warnings

import nbformat
import pandas as pd
import pytest

from saeutils import keys, publish
from saeutils.claim_sentences import seeds_sentence
from saeutils.profiles import ROOT

PUBLISHED = ROOT / "figures" / "demo"
pytestmark = pytest.mark.skipif(not (PUBLISHED / "headline.csv").is_file(),
                                reason="no run has been published yet")


def test_numbers_of_the_readme_are_those_of_the_run():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = pd.read_csv(PUBLISHED / "headline.csv", dtype=str).set_index("name")["text"]
    found = [(m.group(2), m.group(3)) for m in publish.MARKED.finditer(text)]
    assert len(found) >= 10
    for name, value in found:
        if name in shown:
            assert value == shown[name], name
    costs = pd.read_csv(ROOT / "benchmarks" / "chain.csv").set_index("stage")
    runs = pd.read_csv(ROOT / "benchmarks" / "chain_runs.csv")
    assert costs.loc["all", "wall_seconds"] in runs["seconds"].tolist(), "a run without its row"
    assert dict(found)["chain_minutes"] == publish.chain_minutes(runs)


def test_other_seeds_were_measured_on_the_published_dictionaries():
    """The first ten seeds of the table are those that the published answer rests on."""
    seeds = pd.read_csv(ROOT / "benchmarks" / "claim_seeds.csv")
    first = seeds[seeds["seeds"] == seeds["seeds"].iloc[0]].set_index("contrast")
    told = pd.read_csv(PUBLISHED / "claims_in_numbers.csv").query("claim == '1'")
    told = told.set_index("contrast")
    assert {"retention", "readability"} <= set(told.index)
    for name in ("retention", "readability"):
        for column in ("value", "ci_low", "ci_high", "n_seeds"):
            assert first.loc[name, column] == pytest.approx(told.loc[name, column], abs=1e-5)
    claims = pd.read_csv(PUBLISHED / "claims.csv").set_index("name")
    assert first["verdict"].iloc[0] == claims.loc["claim1", "verdict"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = {m.group(2): m.group(3) for m in publish.MARKED.finditer(text)}
    assert found["claim1_seeds"] == seeds_sentence(seeds)


def test_every_figure_has_its_table_and_a_place_in_the_gallery():
    gallery = (ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    figures = sorted(PUBLISHED.glob("*.png"))
    assert len(figures) >= 8
    for figure in figures:
        assert figure.with_suffix(".csv").is_file()
        assert re.search(rf"!\[[^\]]{{30,}}\]\(demo/{figure.name}\)", gallery), figure.name


@pytest.mark.skipif(not (PUBLISHED / "report_card.csv").is_file(), reason="published without one")
def test_the_report_card_holds_every_published_value_and_judges_no_number_of_the_demo():
    card = pd.read_csv(PUBLISHED / "report_card.csv")
    reference = ROOT / "data" / "reference"
    published = [pd.read_csv(reference / f"{name}.csv")
                 for name in ("paper_reported_accuracy", "paper_figures_digitised")]
    numbers = card[card["kind"] == "number"]
    assert len(numbers) == sum(map(len, published))
    values = sorted([*published[0]["accuracy"], *published[1]["value"]])
    assert sorted(numbers["published"]) == pytest.approx(values)
    assert numbers["verdict"].unique().tolist() == ["not comparable: synthetic singers"]
    page = (PUBLISHED / "report_card.md").read_text(encoding="utf-8")
    for row in card[card["kind"] == "shape"].to_dict("records"):
        line = next(line for line in page.splitlines() if f"| {row['note']} |" in line)
        assert f"{row['value']:+.3f} ({row['share']:.0%})" in line and row["verdict"] in line
    drawn = pd.read_csv(PUBLISHED / "fig14_report_card.csv")
    assert drawn["value"].tolist() == pytest.approx(card["value"].tolist(), nan_ok=True)


@pytest.mark.skipif(not (PUBLISHED / "report_card.csv").is_file(), reason="published without one")
def test_headline_counts_are_those_of_the_tables():
    shown = pd.read_csv(PUBLISHED / "headline.csv").set_index("name")["value"]
    card = pd.read_csv(PUBLISHED / "report_card.csv").query("kind == 'shape'")
    for verdict in ("agrees", "differs", "undecided"):
        assert shown[f"shapes_{verdict}"] == (card["verdict"] == verdict).sum()
    audit = pd.read_csv(PUBLISHED / "audit.csv")
    assert shown["audit_entries"] == audit["entry"].nunique()
    changing = audit[(audit["verdict"] == "changes a conclusion") & (audit["sparsity"] == 95)]
    assert shown["audit_changes"] == changing["entry"].nunique()


def test_every_shared_number_of_a_figure_is_that_of_the_results():
    headline = pd.read_csv(PUBLISHED / "headline.csv").set_index("name")["value"]
    figure = pd.read_csv(PUBLISHED / "fig3_completeness_by_sparsity.csv")
    claims = pd.read_csv(PUBLISHED / "claims.csv").set_index("name")
    layer = claims.loc["claim1", "layer"]
    for kind in ("sae", "random"):
        own = figure[(figure["representation"] == kind) & (figure["encoder"] == "demo")
                     & (figure["layer"] == layer) & (figure["sparsity"] == 95)]
        assert own["value"].iloc[0] == pytest.approx(headline[f"{kind}95_completeness"], rel=1e-6)


def test_pictures_of_the_readme_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        assert (ROOT / path).is_file(), path


def test_committed_notebooks_carry_outputs_and_no_errors():
    for number in keys.STAGES:
        notebook = nbformat.read(keys.notebook_path(number), as_version=4)
        outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
        assert outputs, f"{number} was published without outputs"
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def test_published_results_are_of_this_code():
    then = pd.read_csv(PUBLISHED / "stage_keys.csv").set_index("stage")["key"].to_dict()
    now = {step.label: step.key for step in keys.chain("demo")}
    older = sorted(label for label in now if then.get(label) != now[label])
    if older:
        warnings.warn(f"published results are older than the code of {', '.join(older)}: "
                      "run `make reproduce` and `make publish`", stacklevel=1)
    assert set(then) == set(now), "the chain has other stages than the published run"


def test_no_line_of_the_readme_begins_with_a_mark():
    # GitHub takes such a line for HTML and shows its asterisks as they are
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [line for line in text.splitlines() if line.lstrip("-* ").startswith("<!--")]
