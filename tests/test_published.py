"""What the repository shows is what the last published run gave."""

import re
import warnings

import nbformat
import pandas as pd
import pytest

from saeutils import keys, publish
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
    minutes = f"{costs.loc['all', 'wall_seconds'] / 60:.0f} minutes"
    assert dict(found)["chain_minutes"] == minutes


def test_every_figure_has_its_table_and_a_place_in_the_gallery():
    gallery = (ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    figures = sorted(PUBLISHED.glob("*.png"))
    assert len(figures) >= 8
    for figure in figures:
        assert figure.with_suffix(".csv").is_file()
        assert re.search(rf"!\[[^\]]{{30,}}\]\(demo/{figure.name}\)", gallery), figure.name


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
