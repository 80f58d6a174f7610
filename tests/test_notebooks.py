"""Static rules of the notebooks: a reader finds the same parts in each, and no cell is a wall."""

import ast

import nbformat
import pytest

from saeutils.keys import STAGES, notebook_path
from saeutils.profiles import ROOT

NUMBERS = list(STAGES)
LONGEST_CELL = 25


@pytest.fixture(params=NUMBERS)
def book(request):
    return request.param, nbformat.read(notebook_path(request.param), as_version=4)


def cells(notebook, kind):
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def test_valid_and_in_the_project_kernel(book):
    nbformat.validate(book[1])
    assert book[1].metadata.kernelspec.name == "python3"


def test_header_asks_a_question_and_says_what_is_read_and_written(book):
    header = book[1].cells[0].source
    assert header.startswith("# ") and "?" in header
    for word in ("After this", "read", "writ", "paper"):
        assert word.lower() in header.lower(), f"the header says nothing of {word!r}"


def test_imports_parameters_and_settings_come_first_and_once(book):
    number, notebook = book
    code = cells(notebook, "code")
    assert "import" in code[0].source and code[1].metadata.get("tags") == ["parameters"]
    assert f'open_stage("{number}"' in code[2].source
    assert sum("parameters" in c.metadata.get("tags", []) for c in code) == 1
    for cell in code[1:]:
        assert not any(isinstance(node, (ast.Import, ast.ImportFrom))
                       for node in ast.walk(ast.parse(_plain(cell.source)))), cell.source


def test_parameters_are_literals_with_a_comment_each(book):
    source = cells(book[1], "code")[1].source
    tree = ast.parse(source)
    assert all(isinstance(node, ast.Assign) for node in tree.body)
    assert len(source.splitlines()) == len(tree.body)
    for line, node in zip(source.splitlines(), tree.body, strict=True):
        ast.literal_eval(node.value)
        assert "#" in line


def test_cells_are_short_and_text_outnumbers_code(book):
    code, text = cells(book[1], "code"), cells(book[1], "markdown")
    longest = max(code, key=lambda c: len(c.source.splitlines()))
    assert len(longest.source.splitlines()) <= LONGEST_CELL, longest.source
    assert len(text) >= len(code) - 3, f"{len(text)} text cells for {len(code)} code cells"
    assert max(len(line) for c in code for line in c.source.splitlines()) <= 100


def test_checks_then_save_then_a_closing_text(book):
    number, notebook = book
    code = cells(notebook, "code")
    assert any(line.startswith("assert ") for c in code for line in c.source.splitlines())
    assert "stage.finish()" in code[-1].source
    close = notebook.cells[-1]
    assert close.cell_type == "markdown" and "not show" in close.source.lower()
    if number != NUMBERS[-1]:
        assert "Next" in close.source


def test_nothing_of_this_machine_in_a_notebook(book):
    text = nbformat.writes(book[1])
    assert str(ROOT) not in text
    assert len(text) < 1.5e6


def _plain(source):
    return "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line
                     for line in source.splitlines())
