"""Kills, a full disk, an unwritable folder, rivals: nothing half-written is read, all is made good.

The counts of longer runs stand in benchmarks/reliability.md; `make torture` goes on until stopped.
"""

import subprocess
import sys

import pytest
import torture
import trials

from saeutils import files, keys
from saeutils.profiles import ROOT

KILLS = 40  # each stage five times


@pytest.mark.slow
@pytest.mark.timeout(4500)
def test_killed_stages_start_again_and_give_the_same_files(clean, tmp_path):
    lines = list(torture.kill_stages(clean, tmp_path, KILLS, seed=1))
    assert len(lines) == KILLS and all(line["survived"] for line in lines)
    assert any(line["half_written"] for line in lines), "no kill fell into a write"
    assert sum(line["files"] for line in lines) > KILLS


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
    assert trials.two_chains(tmp_path)["survived"]


@pytest.mark.parametrize("step", [keys.find_step("00", "smoke"), None], ids=["stage", "chain"])
def test_stopping_by_hand_is_one_line(tmp_path, step):
    assert trials.stopped_by_hand(tmp_path, step)["survived"]


def test_half_written_files_are_seen_by_nobody(tmp_path):
    """What a killed write leaves behind has a hidden name that no reader asks for."""
    with files.atomic(tmp_path / "t.csv") as part:
        part.write_text("a\n1\n")
        assert torture.half_written(tmp_path) == [part] and part.name.startswith(".")
        assert not list(tmp_path.glob("[!.]*"))
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
