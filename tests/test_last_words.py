"""What stops a chain is said last, in one line: no words of Snakemake's stand below it."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from saeutils import chain
from saeutils.profiles import ROOT

QUICK = """from saeutils.store import open_stage
stage = open_stage({!r}, profile, run_name=run_name, overrides=overrides)
import os, time
{}
stage.finish()"""


@pytest.fixture
def project(tmp_path):
    """A copy of the project in which 00 and 01 are one cell each; run it, see what it prints."""
    for name in ("saeutils", "notebooks", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("reference", "encoders"):
        shutil.copytree(ROOT / "data" / name, tmp_path / "data" / name)
    shutil.copyfile(ROOT / "Snakefile", tmp_path / "Snakefile")

    def go(code_00="", code_01="", cores=3):  # two for 01, one for 00 beside it
        for name, code in (("00_tour", code_00), ("01_data_preparation", code_01)):
            path = tmp_path / "notebooks" / f"{name}.ipynb"
            book = json.loads(path.read_text(encoding="utf-8"))
            given = [c for c in book["cells"] if "parameters" in c["metadata"].get("tags", [])]
            cell = {"cell_type": "code", "id": "x", "metadata": {}, "outputs": [],
                    "execution_count": None, "source": QUICK.format(name[:2], code)}
            path.write_text(json.dumps(book | {"cells": [*given, cell]}), encoding="utf-8")
        environment = {key: value for key, value in os.environ.items() if key != chain.TOLD}
        return subprocess.run(
            [sys.executable, "-m", "saeutils.run", "all", "--profile", "smoke", "--cores",
             str(cores)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment | {"PYTHONPATH": str(tmp_path), "SAEUTILS_DATA": str(tmp_path / "d")})

    return go


def errors(done):
    """The error lines; nothing but them may end the text, and no words of Snakemake's be in it."""
    lines = done.stdout.strip().splitlines()
    found = [line for line in lines if line.startswith("error:")]
    assert done.returncode == 1 and found and lines[-len(found):] == found, done.stdout
    for word in ("Traceback", "RuleException", "CalledProcessError", "non-zero", ".snakemake"):
        assert word not in done.stdout, done.stdout
    return found


def test_a_stage_that_fails_beside_another_is_the_last_line(project):
    """01 fails while 00 is at work: 00 is let finish, and 01's word comes last."""
    done = project("time.sleep(6)", "raise ValueError('no clips in x/: put some there')")
    (line,) = errors(done)
    assert line.startswith("error: 01 stopped: ValueError: no clips in x/: put some there. ")
    assert "01_data_preparation.failed.ipynb" in line and line.endswith("goes on from there")
    assert "00: started" in done.stdout and "00: finished in" in done.stdout
    assert "stopped early: 01_data_preparation.ipynb stopped in cell" in done.stdout


def test_two_stages_that_fail_at_once_have_a_line_each(project):
    done = project("time.sleep(4); raise ValueError('first')", "raise ValueError('second')")
    first, second = errors(done)
    assert "error: 00 stopped: ValueError: first" in first
    assert "error: 01 stopped: ValueError: second" in second


def test_a_stage_that_is_killed_is_named(project):
    done = project("", "os.kill(os.getppid(), 9)", cores=1)
    (line,) = errors(done)
    assert line.startswith("error: 01 ended without a word") and "out of memory?" in line


def test_words_of_snakemake_are_shown_where_no_stage_has_any(project, tmp_path):
    (tmp_path / "Snakefile").write_text("rule all:\n    input: 'nowhere.txt'\n")
    done = project()
    assert done.returncode == 1 and "nowhere.txt" in done.stdout
    assert done.stdout.strip().splitlines()[-1].startswith("error: Snakemake stopped, and no stage")


def test_a_stage_alone_keeps_its_own_word(monkeypatch, capsys):
    monkeypatch.delenv(chain.TOLD, raising=False)
    with pytest.raises(ValueError, match="alone"), chain.telling("00"):
        raise ValueError("alone")


def test_words_that_cannot_be_left_stop_nothing(monkeypatch, tmp_path):
    """The chain that ran this stage was killed and its folder is gone, or the disk is full."""
    monkeypatch.setenv(chain.TOLD, str(tmp_path / "gone"))
    with chain.telling("00"):
        pass
    with pytest.raises(OSError, match="its own"), chain.telling("00"):
        raise OSError("its own")
