"""Kills, a full disk, an unwritable folder, rivals: nothing half-written is read, all is made good.

The counts of longer runs stand in benchmarks/reliability.md; `make torture` goes on until stopped.
"""

import json
import subprocess
import sys

import pandas as pd
import pytest
import reliability
import torture
import trials

from saeutils import files, keys
from saeutils.profiles import ROOT

KILLS = 24  # each stage three times; twice more in test_kills_more.py


@pytest.mark.slow
@pytest.mark.timeout(4500)
def test_killed_stages_start_again_and_give_the_same_files(clean, tmp_path):
    trials.check_kills(list(torture.kill_stages(clean, tmp_path, KILLS, seed=1)), KILLS)


def test_a_trial_that_loses_something_is_a_line_that_says_so(tmp_path, monkeypatch):
    """Each line once said 1, whatever befell: a loss left no line at all."""
    table = tmp_path / "counted.csv"
    monkeypatch.setenv("SAEUTILS_COUNT", str(table))
    with torture.trial("kill of a stage", "01", "tree", seed=7) as line:
        line |= {"files": 3, "half_written": 1}
    with pytest.raises(AssertionError), torture.trial("full disk", "all", "disk of 1m") as line:
        line["files"] = 2
        raise AssertionError("02_demo:\nstates.safetensors differ from the clean run")
    kept, lost = pd.read_csv(table, keep_default_na=False).to_dict("records")
    assert (kept["survived"], kept["lost"], kept["files"], kept["seed"]) == (1, "", 3, 7)
    assert (lost["survived"], lost["files"]) == (0, 2)
    assert lost["lost"] == "02_demo: states.safetensors differ from the clean run"
    reliability.report(table, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| full disk | the disk fills up, then there is room, and the same command again | 1 " \
           "| 0 |" in page
    assert "Lost: full disk (all, disk of 1m): 02_demo: states.safetensors differ" in page


def test_a_file_that_differs_from_the_clean_run_is_a_loss(tmp_path):
    """The comparison of all trials: it finds one changed byte, and a stage that is not whole."""
    (step,) = [step for step in torture.chain_steps() if step.label == "00"]
    for name, value in (("clean", "1"), ("same", "1"), ("other", "2"), ("torn", "1")):
        root = tmp_path / name / "smoke"
        record = tmp_path / name / step.record.relative_to(step.run_root.parent)
        for path in (root / "t.csv", record, root / ".done" / step.marker.name):
            path.parent.mkdir(parents=True, exist_ok=True)
        (root / "t.csv").write_text(value)
        record.write_text(json.dumps(
            {"outputs": {"t.csv": {"sha256": keys.file_digest(root / "t.csv")}}}))
        (root / ".done" / step.marker.name).write_text("")
    (tmp_path / "torn" / "smoke" / "t.csv").write_text("")
    assert torture.compare([step], tmp_path / "same", tmp_path / "clean") == 1
    for name, says in (("other", "differ from the clean run"), ("torn", "counts as finished, but")):
        with pytest.raises(AssertionError, match=says):
            torture.compare([step], tmp_path / name, tmp_path / "clean")


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".safetensors"])
def test_a_write_that_meets_the_limit_leaves_the_older_file(tmp_path, ending):
    """The same below the notebooks: an atomic write either happens or leaves what was there."""
    path = tmp_path / f"t{ending}"
    code = f"""
import resource, signal, numpy as np, pandas as pd
from pathlib import Path
from saeutils import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, rng = Path({str(path)!r}), np.random.default_rng(0)
def write(n):
    with files.atomic(path) as part:
        if path.suffix == ".safetensors":
            files.write_arrays({{"x": rng.standard_normal(n)}}, part)
        else:
            table = pd.DataFrame({{"x": rng.standard_normal(n)}})
            (files.write_csv if path.suffix == ".csv" else files.write_parquet)(table, part)
write(10)
before = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write(100_000)
except Exception as error:
    assert path.read_bytes() == before, "the older file is gone"
    assert [p.name for p in path.parent.iterdir()] == [path.name], "litter"
    print("kept")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "kept", done.stdout + done.stderr


@pytest.mark.parametrize("step", [keys.find_step("00", "smoke"), None], ids=["stage", "chain"])
def test_an_unwritable_folder_is_said_in_one_line(tmp_path, step):
    if trials.unwritable(tmp_path, step) is None:
        pytest.skip("the superuser may write everywhere and may not mount here")


def test_two_chains_in_one_folder_do_not_meet(tmp_path):
    """The second says in one line that the first is at work; the first goes on."""
    trials.two_chains(tmp_path)


@pytest.mark.parametrize("step", [keys.find_step("00", "smoke"), None], ids=["stage", "chain"])
def test_stopping_by_hand_is_one_line(tmp_path, step):
    trials.stopped_by_hand(tmp_path, step)


def test_half_written_files_are_seen_by_nobody(tmp_path):
    """What a killed write leaves behind has a hidden name that no reader asks for."""
    with files.atomic(tmp_path / "t.csv") as part:
        part.write_text("a\n1\n")
        assert torture.half_written(tmp_path) == [part] and part.name.startswith(".")
        assert not list(tmp_path.glob("[!.]*"))
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
