"""The papermill step is strict: each way a notebook can fail is a failure here."""

import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from saeutils import keys, publish, run, site, stick

PARAMETERS = 'profile = "demo"\nrun_name = ""\noverrides = {}'
OPEN = ("from saeutils.store import open_stage\n"
        'stage = open_stage("00", profile, run_name=run_name, overrides=overrides)')


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Write a notebook 00 of the given cells and return a function that runs it."""
    path = tmp_path / "00_tour.ipynb"
    monkeypatch.setattr(keys, "notebook_path", lambda number: path)

    def execute(*cells, parameters=PARAMETERS, timeout=60):
        content = new_notebook(metadata={"kernelspec": {"name": "python3", "language": "python",
                                                        "display_name": "Python 3"}})
        content.cells = [new_markdown_cell("# Tour")]
        if parameters:
            cell = new_code_cell(parameters)
            cell.metadata["tags"] = ["parameters"]
            content.cells.append(cell)
        content.cells += [new_code_cell(source) for source in cells]
        nbformat.write(content, path)
        keys.code_digests.cache_clear()
        step = keys.find_step("00", "smoke")
        # The kernel computes the key of the project's own notebook; this one is a stand-in.
        marker = f"from pathlib import Path\nstep_marker = Path({str(step.marker)!r})"
        content.cells.insert(2, new_code_cell(marker))
        nbformat.write(content, path)
        return step, run.run_notebook(step, {}, timeout=timeout)

    yield execute
    keys.code_digests.cache_clear()


FINISH = "step_marker.parent.mkdir(parents=True, exist_ok=True)\nstep_marker.write_text('done')"


def test_a_good_notebook_arrives_with_outputs_and_parameters(notebook):
    step, target = notebook("print('profile is', profile)", FINISH)
    content = nbformat.read(target, as_version=4)
    printed = "".join(o.get("text", "") for c in content.cells for o in c.get("outputs", []))
    assert "profile is smoke" in printed
    assert not list(target.parent.glob("*.failed.ipynb"))


def test_a_failing_cell_is_shown_with_its_source(notebook):
    with pytest.raises(run.NotebookFailure) as caught:
        notebook("ratio = 1 / 0")
    assert "ratio = 1 / 0" in str(caught.value) and "ZeroDivisionError" in str(caught.value)


def test_an_error_of_ours_comes_without_a_traceback(notebook):
    with pytest.raises(run.NotebookFailure) as caught:
        notebook("raise ValueError('unknown layer 13: demo has 0..6')")
    assert "unknown layer 13: demo has 0..6" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("write", [
    "open(folder + '/x', 'wb').write(b'0' * 10**6)",
    "import numpy as np; from safetensors.numpy import save_file\n"
    "save_file({'x': np.zeros(10**6)}, folder + '/x')",
], ids=["Python", "safetensors"])
def test_a_disk_s_refusal_in_any_library_comes_without_a_traceback(notebook, tmp_path, write):
    """safetensors has errors of its own, and the system's words stand at their end."""
    limit = ("import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
             f"folder = {str(tmp_path)!r}\n"
             "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n")
    with pytest.raises(run.NotebookFailure) as caught:
        notebook(limit + write)
    assert "File too large" in str(caught.value) and "Traceback" not in str(caught.value)


def test_an_early_exit_is_no_success(notebook):
    with pytest.raises(run.NotebookFailure):
        notebook("import sys\nsys.exit(0)", FINISH)


def test_a_notebook_that_forgets_to_finish_is_no_success(notebook):
    with pytest.raises(run.NotebookFailure, match="ended before stage.finish"):
        notebook("x = 1")


def test_a_stage_that_ends_early_on_purpose_is_a_success_and_says_why(notebook, capsys):
    end = "from saeutils.store import StageDone\nraise StageDone('no labels in the clip table')"
    _, target = notebook(FINISH, end, "x = 1 / 0")
    content = nbformat.read(target, as_version=4)
    tags = [tag for cell in content.cells for tag in cell.metadata.get("tags", [])]
    assert "papermill-error-cell-tag" not in tags and content.cells[-1].execution_count is None
    assert "ends early: no labels in the clip table" in capsys.readouterr().out
    shown = [line for cell in content.cells for o in cell.get("outputs", [])
             for line in o.get("traceback", [])]
    assert len(shown) == 1 and "left out: no labels" in shown[0]


def test_a_stage_that_ends_early_without_finishing_is_none(notebook):
    end = "from saeutils.store import StageDone\nraise StageDone('no labels')"
    with pytest.raises(run.NotebookFailure, match="ended before stage.finish"):
        notebook(end)


def test_a_dead_kernel_is_reported(notebook):
    with pytest.raises(run.NotebookFailure, match="DeadKernel"):
        notebook("import os\nos._exit(1)")


def test_a_cell_that_takes_too_long_is_stopped(notebook):
    with pytest.raises(run.NotebookFailure, match="(?i)timeout|timed out"):
        notebook("import time\ntime.sleep(60)", timeout=2)


def test_no_parameters_cell_is_refused(notebook):
    with pytest.raises(ValueError, match="0 cells tagged 'parameters'"):
        notebook("x = 1", parameters="")


def test_a_parameter_the_notebook_lacks_is_refused(notebook):
    with pytest.raises(ValueError, match="has no parameter overrides"):
        notebook("x = 1", parameters='profile = "demo"\nrun_name = ""')


@pytest.mark.parametrize("arguments, words", [
    (["00", "--profile", "demoo"], "unknown profile 'demoo'"),
    (["9"], "unknown stage '09'"),
    (["03", "-p", "encoder", "whisper"], "unknown encoder 'whisper'"),
    (["03", "-p", "epochs", "3"], "unknown parameter 'epochs'"),
    (["03", "-p", "sae.n_seed", "3"], "did you mean n_seeds"),
    (["03", "-p", "sae.n_seeds", "3"], "--run-name"),
    (["all", "-p", "encoder", "demo"], "belongs to one stage"),
    (["00", "--run-name", "../x"], "run name"),
    (["00", "-p", "sae.n_seeds", "[1"], "not valid YAML"),
])
def test_bad_arguments_are_one_line_and_no_traceback(capsys, arguments, words):
    assert run.main(arguments) == 1
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1 and "Traceback" not in error


def test_help_explains(capsys):
    with pytest.raises(SystemExit) as caught:
        run.main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0 and "--run-name" in text and "examples:" in text


@pytest.mark.parametrize("command, arguments", [
    (run, ["keys"]), (publish, ["check"]), (publish, ["all"]), (site, []), (stick, []),
], ids=lambda value: getattr(value, "__name__", ""))
def test_ctrl_c_is_one_line_in_every_command(command, arguments, monkeypatch, capsys):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.delenv(run.TOLD, raising=False)
    monkeypatch.setattr(keys, "chain", pressed)
    assert command.main(arguments) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: stopped by hand; what is finished is kept")


def test_a_kernel_that_dies_of_the_same_ctrl_c_leaves_no_traceback():
    """Its task fails while nobody waits for it; asyncio would tell so at the end."""
    code = """
import asyncio, sys
from saeutils import run

async def dies():
    raise RuntimeError("Kernel died")

def stopped(*_):
    global left
    loop = asyncio.new_event_loop()
    left = loop.create_task(dies())
    loop.run_until_complete(asyncio.sleep(0))
    raise KeyboardInterrupt

run.run_notebook = stopped
status = run.main(["00", "--profile", "smoke"])
del left
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=keys.ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 130
    assert done.stderr.splitlines() == [
        "error: stopped by hand; what is finished is kept, the same command goes on from there"]
