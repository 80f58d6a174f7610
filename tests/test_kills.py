"""Kills, a full disk, an unwritable folder, rivals: nothing half-written is read, all is made good.

The counts of longer runs stand in benchmarks/reliability.md; `make torture` goes on until stopped.
"""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torture

from saeutils import files, keys
from saeutils.profiles import ROOT

KILLS, CHAINS = 22, 2  # with two idle cores: some ten minutes, and some ten more


def mounted(folder, size):
    """Mount a small disk in memory at `folder`; False where that is not permitted."""
    folder.mkdir(exist_ok=True)
    if os.geteuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_killed_stages_start_again_and_give_the_same_files(clean, tmp_path):
    lines = list(torture.kill_stages(clean, tmp_path, KILLS, seed=1))
    assert len(lines) == KILLS and all(line["survived"] for line in lines)
    assert any(line["half_written"] for line in lines), "no kill fell into a write"
    assert sum(line["files"] for line in lines) > KILLS


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_killed_chains_start_again_and_give_the_same_files(clean, tmp_path):
    usual = 150
    for i in range(CHAINS):
        line = torture.chain_kill(clean, tmp_path, torture.HOWS[i], 50 + i, usual, cores=2)
        assert line["survived"] and line["files"] > 30


def run_00(folder, **more):
    step = keys.find_step("00", "smoke")
    return step, torture.finish(folder, step, **more)


def said_in_one_line(done):
    """One `error:` line, no traceback, a status of failure."""
    text = done.stdout + done.stderr
    return done.returncode != 0 and text.count("error:") == 1 and "Traceback" not in text


@pytest.mark.slow
def test_a_full_disk_is_said_and_survived(tmp_path):
    """On a disk of 16 kB the stage fails with the system's words; given room, it runs."""
    disk = tmp_path / "disk"
    if mounted(disk, "16k"):
        try:
            _, full = run_00(disk)
            assert said_in_one_line(full) and "No space left" in full.stderr, full.stderr
            subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
            step, again = run_00(disk)
            assert again.returncode == 0 and torture.check_whole([step], disk) == 1
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        return
    step = keys.find_step("00", "smoke")
    limited = torture.start(disk, step, preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, (16_384, 16_384)))
    assert limited.wait(timeout=300) != 0
    assert torture.check_whole([step], disk) == 0
    assert run_00(disk)[1].returncode == 0 and torture.check_whole([step], disk) == 1


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


def test_an_unwritable_folder_is_said_in_one_line(tmp_path):
    folder = tmp_path / "disk"
    if mounted(folder, "1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    elif os.geteuid() == 0:
        pytest.skip("the superuser may write everywhere and may not mount here")
    else:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o555)
    try:
        step = keys.find_step("00", "smoke")
        done = subprocess.run(torture.command(step, 1), cwd=ROOT, capture_output=True, text=True,
                              env=torture.environment(folder))
        assert said_in_one_line(done), done.stderr
        assert "Read-only" in done.stderr or "Permission" in done.stderr
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(folder)], check=True)


def test_two_chains_in_one_folder_do_not_meet(tmp_path):
    """The second says in one line that the first is at work; the first goes on."""
    first = torture.start(tmp_path)
    try:
        lock = tmp_path / "smoke" / ".locks" / "chain.lock"
        end = time.monotonic() + 60
        while not lock.exists() and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        second = torture.finish(tmp_path)
        assert said_in_one_line(second)
        assert "being computed by another process" in second.stderr
        assert "--run-name" in second.stderr and first.poll() is None
    finally:
        torture.kill(first, "tree")
    assert torture.check_whole(torture.chain_steps(), tmp_path) == len(
        list((tmp_path / "smoke" / ".done").glob("*")) if (tmp_path / "smoke" / ".done").is_dir()
        else [])


@pytest.mark.slow
def test_two_runs_of_one_stage_do_not_meet(clean, tmp_path):
    step = next(s for s in torture.chain_steps() if s.label == "04_demo")
    folder = torture.before(step, clean, tmp_path)
    rivals = [torture.start(folder, step) for _ in range(2)]
    statuses = sorted(rival.wait(timeout=600) for rival in rivals)
    assert statuses == [0, 1]
    assert torture.compare([step], folder, clean) > 0


@pytest.mark.parametrize("step", [keys.find_step("00", "smoke"), None], ids=["stage", "chain"])
def test_stopping_by_hand_is_one_line(tmp_path, step):
    process = torture.start(tmp_path, step)
    log = tmp_path / "torture.log"
    end = time.monotonic() + 90
    while "started" not in log.read_text() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does on Ctrl-C
    assert process.wait(timeout=60) == 130
    text = log.read_text()
    assert "stopped by hand" in text and "Traceback" not in text, text
    assert torture.check_whole(torture.chain_steps(), tmp_path) == 0


def test_half_written_files_are_seen_by_nobody(tmp_path):
    """What a killed write leaves behind has a hidden name that no reader asks for."""
    with files.atomic(tmp_path / "t.csv") as part:
        part.write_text("a\n1\n")
        assert torture.half_written(tmp_path) == [part] and part.name.startswith(".")
        assert not list(tmp_path.glob("[!.]*"))
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]
