"""The chain as SLURM jobs gives the files of the local chain.

`tests/slurm.sh` starts a controller and a node on this machine and stops them after. Where that is
not possible the tests are skipped, with the reason. The plug-in is no part of the lock:
``pip install 'snakemake-executor-plugin-slurm>=2.8'``.
"""

import importlib.util
import shutil
import subprocess
import sys

import pytest
import torture
import yaml

from saeutils import run
from saeutils.profiles import ROOT

PROFILE = ROOT / "profiles" / "cluster" / "slurm" / "config.yaml"


def test_the_cluster_profile_names_what_the_plug_in_knows():
    settings = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    assert settings["executor"] == "slurm" and settings["jobs"] >= 1
    plugin = importlib.util.find_spec("snakemake_executor_plugin_slurm")
    if plugin:
        from snakemake_executor_plugin_slurm import ExecutorSettings

        known = {f"slurm-{name.replace('_', '-')}" for name in
                 ExecutorSettings.__dataclass_fields__}
        assert {key for key in settings if key.startswith("slurm")} <= known


def test_a_cluster_without_its_plug_in_is_refused_with_the_way_out(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run.main(["all", "--profile", "smoke", "--cluster", "slurm"]) == 1
    assert "pip install 'snakemake-executor-plugin-slurm" in capsys.readouterr().err


def test_each_stage_asks_for_memory_and_minutes(tmp_path):
    """What the Snakefile asks a cluster for, from its own dry run in words for machines."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
         "--directory", str(tmp_path), "--cores", "1", "--dry-run", "--printshellcmds",
         "--config", "profile=smoke"],
        cwd=ROOT, env=torture.environment(tmp_path), capture_output=True, text=True)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    asked = [line for line in text.splitlines() if line.strip().startswith("resources:")]
    assert len(asked) >= 11
    for line in asked[:-1]:
        assert "mem_mb=" in line and "runtime=" in line, line


@pytest.fixture(scope="module")
def slurm():
    """A running SLURM of one node."""
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        pytest.skip("Snakemake's plug-in for SLURM is not installed")
    if not shutil.which("bash"):
        pytest.skip("no bash")
    started = subprocess.run(["bash", str(ROOT / "tests" / "slurm.sh"), "start"],
                             capture_output=True, text=True, timeout=120)
    if started.returncode:
        pytest.skip((started.stdout + started.stderr).strip().splitlines()[-1])
    yield
    subprocess.run(["bash", str(ROOT / "tests" / "slurm.sh"), "stop"], timeout=60, check=True)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_chain_through_slurm_equals_the_local_one(slurm, clean, tmp_path):
    folder = tmp_path / "cluster"
    folder.mkdir()
    command = [*torture.command(None, 2), "--cluster", "slurm", "--split", "2"]
    done = subprocess.run(command, cwd=ROOT, env=torture.environment(folder), capture_output=True,
                          text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "SLURM jobid" in done.stdout + done.stderr
    assert torture.compare(torture.chain_steps(), folder, clean) > 30
