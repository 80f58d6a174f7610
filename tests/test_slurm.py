"""The chain as SLURM jobs gives the files of the local chain.

`tests/slurm.sh` starts a controller and a node on this machine and stops them after. Where that is
not possible the tests are skipped, with the reason. The plug-in is no part of the lock:
``pip install 'snakemake-executor-plugin-slurm>=2.8'``.
"""

import importlib.util
import subprocess
import sys

import pytest
import torture
import trials
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


@pytest.mark.slow
@pytest.mark.timeout(4500)
def test_the_chain_through_slurm_equals_the_local_one(clean, tmp_path):
    """As a user would: ``--cluster slurm``, and the extraction of each encoder as two jobs."""
    with trials.slurm() as why_not:
        if why_not:
            pytest.skip(why_not)
        assert trials.through_slurm(clean, tmp_path)["files"] > 30
