"""What else may befall a run: full and locked disks, rivals in one folder, other worlds.

Each trial takes a clean run as the yardstick, raises AssertionError when something is lost, and
returns its line of the table. `torture.trial` counts them; the slow tests run the same ones.
"""

import importlib.util
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torture

from saeutils import keys
from saeutils.profiles import ROOT

# Environment and command line of chains that must give what a plain chain gives.
WORLDS = {
    "again": (1, {}, ()),
    "two processes": (2, {}, ()),
    "three jobs an encoder": (1, {}, ("--split", "3")),
    "Turkish, Chatham Islands, other hash seed": (1, {
        "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "Pacific/Chatham",
        "PYTHONHASHSEED": "7"}, ()),
}
SLURM = "two jobs an encoder"
TOGETHER = "all of it at once, from a copy with one time stamp"


@contextmanager
def disk(folder: Path, size: str):
    """A small disk in memory at `folder`; yields whether this machine permits one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    is_there = (os.geteuid() == 0 and bool(shutil.which("mount"))
                and subprocess.run(command, capture_output=True).returncode == 0)
    try:
        yield is_there
    finally:
        if is_there:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    """Another size or right for a disk of `disk`."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def said_in_one_line(done: subprocess.CompletedProcess) -> bool:
    """One ``error:`` line of ours, no traceback, a status of failure."""
    text = done.stdout + done.stderr
    ours = [line for line in text.splitlines() if line.startswith("error:")]
    return done.returncode != 0 and len(ours) == 1 and "Traceback" not in text


def full_disk(clean: Path, home: Path, step: keys.Step | None, size: str) -> dict:
    """A stage, or the chain, on a disk that fills up: said, and made good once there is room."""
    folder, steps = home / "full", [step] if step else torture.chain_steps()
    with disk(folder, size) as is_there, torture.trial(
            "full disk", step.label if step else "all",
            f"disk of {size}" if is_there else "files of 16 kB at most") as line:
        if is_there:
            full = torture.finish(folder, step)
        else:  # a limit on the length of a file does as well
            full = subprocess.run(
                torture.command(step, 1), cwd=ROOT, env=torture.environment(folder),
                capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(
                    resource.RLIMIT_FSIZE, (16_384, 16_384)))
        told = full.stdout + full.stderr
        if not full.returncode or not ("No space left" in told or "File too large" in told):
            raise AssertionError(f"a full disk was not said:\n{told}")
        if not said_in_one_line(full):
            raise AssertionError(f"a full disk was not said in one line:\n{told}")
        line["half_written"] = len(torture.half_written(folder))
        torture.check_whole(torture.chain_steps(), folder)
        if is_there:
            remount(folder, "size=2g")
        again = torture.finish(folder, step)
        if again.returncode:
            raise AssertionError(f"does not run once there is room:\n{again.stderr}")
        line["files"] = torture.compare(steps, folder, clean)
    return line


def unwritable(home: Path, step: keys.Step | None) -> dict | None:
    """A folder that nobody may write to: one line, and it stays empty; None if not to be made."""
    folder = home / "locked"
    with disk(folder, "1m") as is_there:
        if is_there:
            remount(folder, "ro")
        elif os.geteuid() == 0:
            return None
        else:
            folder.chmod(0o555)
        with torture.trial("unwritable folder", step.label if step else "all", "read-only") as line:
            done = subprocess.run(torture.command(step, 1), cwd=ROOT, capture_output=True,
                                  text=True, env=torture.environment(folder))
            text = done.stdout + done.stderr
            if not said_in_one_line(done) or not ("Read-only" in text or "Permission" in text):
                raise AssertionError(f"an unwritable folder was not said in one line:\n{text}")
            if list(folder.iterdir()):
                raise AssertionError("something was written all the same")
    return line


def two_chains(home: Path) -> dict:
    """Two chains in one folder: the second says in one line that the first is at work."""
    folder = home / "rivals"
    folder.mkdir(parents=True)
    with torture.trial("two chains in one folder", "all", "at once") as line:
        first = torture.start(folder)
        try:
            lock, end = folder / "smoke" / ".locks" / "chain.lock", time.monotonic() + 60
            while not lock.exists() and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(0.5)
            second = torture.finish(folder)
            told = second.stdout + second.stderr
            if not said_in_one_line(second) or "--run-name" not in told:
                raise AssertionError(f"the second chain was not refused in one line:\n{told}")
            if "being computed by another process" not in told or first.poll() is not None:
                raise AssertionError(f"the first chain did not go on:\n{told}")
        finally:
            torture.kill(first, "tree")
        markers = folder / "smoke" / ".done"
        if torture.check_whole(torture.chain_steps(), folder) != len(list(markers.glob("*_*"))):
            raise AssertionError("a marker without its stage")
    return line


def two_runs_of_a_stage(clean: Path, home: Path, step: keys.Step) -> dict:
    """Two runs of one stage in one folder: one is refused, the other's files are whole."""
    with torture.trial("two runs of one stage", step.label, "at once") as line:
        folder = torture.before(step, clean, home)
        rivals = [torture.start(folder, step) for _ in range(2)]
        statuses = sorted(rival.wait(timeout=900) for rival in rivals)
        if statuses != [0, 1]:
            raise AssertionError(f"two runs of {step.label} ended with {statuses}")
        line["files"] = torture.compare([step], folder, clean)
    return line


def stopped_by_hand(home: Path, step: keys.Step | None) -> dict:
    """Ctrl-C, as the terminal sends it: one line, and no stage counts as finished."""
    folder = home / "stopped"
    folder.mkdir(parents=True)
    with torture.trial("stopped by Ctrl-C", step.label if step else "all", "SIGINT") as line:
        process, log = torture.start(folder, step), folder / "torture.log"
        end = time.monotonic() + 90
        while "started" not in log.read_text() and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(2)
        os.killpg(process.pid, signal.SIGINT)
        status, text = process.wait(timeout=60), log.read_text()
        if status != 130 or "stopped by hand" not in text or "Traceback" in text:
            raise AssertionError(f"status {status}: {text}")
        if torture.check_whole(torture.chain_steps(), folder):
            raise AssertionError("a stage that was stopped counts as finished")
    return line


def archive(folder: Path) -> Path:
    """The committed tree and what is changed in it, all files with one time stamp, as in a ZIP."""
    told = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    for name in filter(None, told.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
            os.utime(target, (1_600_000_000, 1_600_000_000))
    return folder


def turkish(folder: Path) -> dict[str, str] | None:
    """Variables that put a Turkish locale in force, built in `folder` where the system has none.

    None where that is not possible: a locale that is only named changes nothing.
    """
    variables = {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"}
    if not in_force(variables) and shutil.which("localedef"):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["localedef", "--no-archive", "-i", "tr_TR", "-f", "UTF-8",
                        str(folder / "tr_TR.UTF-8")], capture_output=True)
        variables["LOCPATH"] = str(folder)
    return variables if in_force(variables) else None


def in_force(variables: dict[str, str]) -> bool:
    """Whether a process with these variables writes numbers and dates as they ask."""
    code = "import locale; locale.setlocale(locale.LC_ALL, '')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True,
                          env=dict(os.environ) | variables).returncode == 0


def other_pythons() -> list[str]:
    """Other versions of Python on the PATH that can import what the chain needs."""
    code = "import numba, papermill, snakemake, torch; from saeutils import run"
    ours, path = f"python{sys.version_info[0]}.{sys.version_info[1]}", {"PYTHONPATH": str(ROOT)}
    found = [shutil.which(f"python3.{minor}") for minor in range(11, 20)
             if f"python3.{minor}" != ours]
    return [python for python in found if python and subprocess.run(
        [python, "-c", code], capture_output=True, cwd=ROOT, env=dict(os.environ) | path,
    ).returncode == 0]


def version(python: str) -> str:
    """``Python 3.12.1``, in the words of the interpreter itself."""
    told = subprocess.run([python, "--version"], capture_output=True, text=True, check=True)
    return told.stdout.strip()


def check_kills(lines: list[dict], n: int) -> None:
    """All stages were met, what they left was compared, and some kill fell into a write."""
    assert len(lines) == n and {line["target"][:2] for line in lines} == set(keys.STAGES)
    assert all(line["files"] for line in lines if "01" <= line["target"][:2] <= "06")
    assert any(line["half_written"] for line in lines), "no kill fell into a write"


def other_world(clean: Path, home: Path, name: str, python: str = sys.executable,
                check: str = "equal results", says: str = "0 of ") -> dict:
    """A whole chain under other circumstances: every file equals that of the clean run.

    `name` is a key of `WORLDS`, or TOGETHER: their environments and words at once. What the run
    prints must contain `says`.
    """
    with torture.trial(check, "all", name) as line:
        line["files"] = _other_world(clean, home, name, python, says, line)
    return line


def _other_world(clean, home, name, python, says, line) -> int:
    project = ROOT
    folder = home / "world"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    cores, variables, words = WORLDS.get(name, (1, {}, ()))
    if name == SLURM:
        cores, words = 2, ("--cluster", "slurm", "--split", "2")
    if name == TOGETHER:
        project = archive(home / "a copy")
        for _, more, further in WORLDS.values():
            variables, words = variables | more, (*words, *further)
    if "LC_ALL" in variables:
        locale = turkish(home / "locales")
        variables = variables | (locale or {})
        line["how"] += "" if locale else " (without Turkish: no such locale here)"
    command = [python, *torture.command(None, cores)[1:], *words]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=3600,
                          env=torture.environment(folder, **variables)
                          | {"PYTHONPATH": str(project)})
    if done.returncode or says not in done.stdout + done.stderr:
        raise AssertionError(f"{name}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    files = torture.compare(torture.chain_steps(), folder, clean)
    tables = [path.relative_to(clean) for path in clean.rglob("results/*.csv")]
    differ = [str(path) for path in tables
              if (folder / path).read_bytes() != (clean / path).read_bytes()]
    if differ or not tables:
        raise AssertionError(f"{name}: {', '.join(differ)} differ")
    shutil.rmtree(folder)
    return files


@contextmanager
def slurm():
    """A running SLURM of one node; yields "", or the reason why there is none."""
    script, why = str(ROOT / "tests" / "slurm.sh"), ""
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        why = "Snakemake's plug-in for SLURM is not installed"
    elif not shutil.which("bash"):
        why = "no bash"
    else:
        try:
            started = subprocess.run(["bash", script, "start"], capture_output=True, text=True,
                                     timeout=120)
            if started.returncode:  # what it had started it has stopped itself
                said = (started.stdout + started.stderr).strip() or "slurm.sh failed"
                why = said.splitlines()[-1]
        except subprocess.TimeoutExpired:
            subprocess.run(["bash", script, "stop"], timeout=60, check=True)
            why = "SLURM did not start within two minutes"
    try:
        yield why
    finally:
        if not why:
            subprocess.run(["bash", script, "stop"], timeout=60, check=True)


def through_slurm(clean: Path, home: Path) -> dict:
    """The chain as jobs of a running SLURM, two an extraction, as the README's command has it."""
    return other_world(clean, home, SLURM, check="chain through SLURM", says="SLURM jobid")


def faults(clean: Path, home: Path):
    """Yield the lines of every trial but the chains of other worlds."""
    steps = {step.label: step for step in torture.chain_steps()}
    yield full_disk(clean, home / "a", steps["00"], "16k")
    yield full_disk(clean, home / "b", steps["01"], "5m")
    yield full_disk(clean, home / "c", None, "24m")
    for place, step in (("d", steps["00"]), ("e", None)):
        line = unwritable(home / place, step)
        if line:
            yield line
    yield two_chains(home / "f")
    yield two_runs_of_a_stage(clean, home / "g", steps["04_demo"])
    yield stopped_by_hand(home / "h", steps["00"])
    yield stopped_by_hand(home / "i", None)
