"""The chain as SLURM jobs gives the files of the local chain.

`tests/slurm.sh` starts a controller and a node on this machine and stops them after. Where that is
not possible the tests are skipped, with the reason. The plug-in is no part of the lock:
``pip install 'snakemake-executor-plugin-slurm>=2.8'``.
"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest
import torture
import trials
import yaml

from saeutils import chain, keys, run
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


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """A project whose cluster `mine` has the configuration that the function is given."""
    monkeypatch.setattr(chain, "ROOT", tmp_path)
    folder = tmp_path / "profiles" / "cluster" / "mine"
    folder.mkdir(parents=True)

    def write(text):
        (folder / "config.yaml").write_text(text, encoding="utf-8")
        return folder

    return write


def test_a_cluster_needs_the_plug_in_of_its_own_executor_only(cluster, monkeypatch):
    """A folder for Kubernetes was refused for want of SLURM's plug-in."""
    have = {"snakemake_executor_plugin_cluster_generic"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in have else None)
    for text in ("executor: cluster-generic\njobs: 4\n", "executor: local\n"):
        assert cluster(text) == chain._cluster("mine")
    cluster("executor: kubernetes\n")
    with pytest.raises(ValueError, match="pip install 'snakemake-executor-plugin-kubernetes'"):
        chain._cluster("mine")


@pytest.mark.parametrize("text, says", [("jobs: 4\n", "executor = None"), ("", "executor = None"),
                                        ("executor: 7\n", "executor = 7"),
                                        ("executor: [\n", "is not valid YAML")])
def test_a_cluster_without_an_executor_is_refused(cluster, text, says):
    cluster(text)
    with pytest.raises(ValueError, match=f"profiles/cluster/mine/config.yaml.*{says}"):
        chain._cluster("mine")


@pytest.mark.parametrize("name", ["0", "123", "2026_11_27", "007", "1e3", "no", "null"])
def test_a_run_reaches_the_snakefile_under_the_name_it_was_given(name, monkeypatch):
    """A run 0 once wrote over the profile's own results; 007 became 7; 123 stopped."""
    from snakemake.cli import parse_config

    commands = []
    monkeypatch.setattr(chain, "_snakemake", lambda command, *_, **__: commands.append(command))
    run.main(["all", "--profile", "smoke", "--run-name", name, "--dry-run"])
    (command,) = commands
    asked = chain.received(parse_config(command[command.index("--config") + 1:][:1]))
    assert (asked["run_name"], asked["profile"], asked["split"]) == (name, "smoke", 1)


def dry_run(folder, **asked):
    """The Snakefile's own dry run: the lines of each rule."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
         "--directory", str(folder), "--cores", "1", "--dry-run", "--printshellcmds",
         "--config", chain.sent(**asked)],
        cwd=ROOT, env=torture.environment(folder), capture_output=True, text=True)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    rules = re.split(r"^(?:local)?rule (stage_\w+):$", text, flags=re.MULTILINE)
    return dict(zip(rules[1::2], rules[2::2], strict=True))


def test_a_profile_s_path_and_a_run_s_name_are_what_was_typed(tmp_path):
    """A path was cut off at " #", and one with ": " was a dict."""
    profile = tmp_path / "mine # it's: new.yaml"
    profile.write_text("extends: smoke\n", encoding="utf-8")
    rules = dry_run(tmp_path, profile=str(profile), run_name="007")
    assert len(rules) == len(keys.chain("smoke"))
    for name, lines in rules.items():
        assert f"{tmp_path}/007/.done/{name.removeprefix('stage_')}_" in lines
        assert "mine # it" in lines and "--run-name 007 " in lines


def test_words_that_the_snakefile_does_not_know_are_refused():
    with pytest.raises(ValueError, match=r"--config profile: .*saeutils.run all"):
        chain.received({"profile": "smoke"})


def test_each_stage_asks_for_memory_and_minutes(tmp_path):
    """What the Snakefile asks a cluster for, from its own dry run in words for machines."""
    asked = dry_run(tmp_path, profile="smoke")
    assert len(asked) >= 11
    for lines in asked.values():
        assert "mem_mb=" in lines and "runtime=" in lines and "gpu=0" in lines, lines


@pytest.mark.parametrize("device, numbers", [({"extraction.device": "auto"}, {"02", "07"}),
                                             ({"sae.device": "cuda"}, {"03"})])
def test_each_stage_that_computes_on_a_gpu_asks_for_one(tmp_path, device, numbers):
    """Only extraction on "cuda" did: training landed on a node without, and stopped."""
    asked = dry_run(tmp_path, profile="smoke", overrides=device)
    assert {name[6:8] for name, lines in asked.items() if "gpu=1" in lines} == numbers


SLEEP = "sleep 60 >/dev/null 2>&1 </dev/null & echo $! >$SLURM_SH_AT/run/"
TOOLS = {  # stand-ins for what tests/slurm.sh calls: daemons that sleep and leave their number
    "id": "echo 0", "chown": ":", "sinfo": "echo idle", "sbatch": ":", "munge": "exit $MUNGE",
    "runuser": 'while [ "$1" != -- ]; do shift; done; shift; "$@"',
    "munged": SLEEP + "munge/munged.pid", "slurmctld": SLEEP + "slurmctld-test.pid",
    "slurmd": "exit $SLURMD",
}


@pytest.fixture
def stand_ins(tmp_path):
    """tests/slurm.sh in a root folder of its own, where nothing of a true SLURM is called."""
    tools, root = tmp_path / "tools", tmp_path / "root"
    tools.mkdir()
    (root / "run" / "munge").mkdir(parents=True)
    for name, text in TOOLS.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)

    def run_script(word, munge="1", slurmd="0"):
        return subprocess.run(
            ["bash", str(ROOT / "tests" / "slurm.sh"), word], capture_output=True, text=True,
            env=dict(os.environ) | {"PATH": f"{tools}:{os.environ['PATH']}", "MUNGE": munge,
                                    "SLURMD": slurmd, "SLURM_SH_AT": str(root)})

    def lives(name):
        pid = int((root / "run" / name).read_text())
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

    yield run_script, lives, root
    for path in root.rglob("*.pid"):
        with suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGKILL)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_a_start_of_slurm_that_fails_half_way_stops_what_it_started(stand_ins):
    """Its daemons and /etc/slurm/slurm.conf stayed."""
    run_script, lives, root = stand_ins
    assert run_script("start", slurmd="1").returncode == 1
    assert not lives("slurmctld-test.pid") and not lives("munge/munged.pid")
    assert not (root / "etc" / "slurm" / "slurm.conf").exists()


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_stopping_slurm_leaves_a_munged_and_a_cluster_that_are_not_its_own(stand_ins):
    run_script, lives, root = stand_ins
    before = subprocess.Popen(["sleep", "60"])
    (root / "run" / "munge" / "munged.pid").write_text(str(before.pid))
    try:
        assert run_script("start", munge="0").returncode == 0 and lives("slurmctld-test.pid")
        again = run_script("start", munge="0")
        assert again.returncode == 3 and "runs already" in again.stdout
        assert lives("slurmctld-test.pid"), "a second start stopped the first"
        assert run_script("stop").returncode == 0 and not lives("slurmctld-test.pid")
        assert lives("munge/munged.pid"), "it ran before"
    finally:
        before.kill()
        before.wait()


def test_a_start_of_slurm_that_hangs_is_stopped(monkeypatch):
    words = []

    def hangs(command, **how):
        words.append(command[-1])
        if command[-1] == "start":
            raise subprocess.TimeoutExpired(command, 120)

    monkeypatch.setattr(trials.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(trials.subprocess, "run", hangs)
    with trials.slurm() as why_not:
        assert "did not start" in why_not
    assert words == ["start", "stop"]


@pytest.mark.slow
@pytest.mark.timeout(4500)
def test_the_chain_through_slurm_equals_the_local_one(clean, tmp_path):
    """As a user would: ``--cluster slurm``, and the extraction of each encoder as two jobs."""
    with trials.slurm() as why_not:
        if why_not:
            pytest.skip(why_not)
        assert trials.through_slurm(clean, tmp_path)["files"] > 30
