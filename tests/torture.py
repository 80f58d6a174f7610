"""Kills, full disks, unwritable folders and rivals: what a run survives, counted.

    python tests/torture.py --kills 8 --chains 1 --faults --worlds

Stages and whole chains of profile smoke are started as a user starts them, ended by SIGKILL at
seeded random moments (`tree`: the process and all it started; `parent`: the process alone, so that
orphans live on) or as soon as a half-written file is on the disk (`write`), and then started
again, plainly. Every file a stage records must then equal that of a clean run byte for byte. Right
after a kill, a stage that counts as finished must be whole. `make torture` goes on until stopped.
`--faults` adds full disks and rivals, `--worlds` chains elsewhere in the world (tests/trials.py).
"""

import argparse
import csv
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import psutil

from saeutils import keys
from saeutils.profiles import ROOT

COLUMNS = ("date", "commit", "check", "target", "how", "seconds", "seed", "half_written", "files",
           "survived", "lost")
HOWS = ("tree", "write", "parent")
TABLE = ROOT / "benchmarks" / "reliability.csv"


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Environment of a run whose derived files go to `folder`."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return dict(os.environ) | {"SAEUTILS_DATA": str(folder), "PYTHONPATH": path} | more


def command(step: keys.Step | None, cores: int) -> list[str]:
    """The command of one stage, or of the whole chain."""
    if step is None:
        what = ["all", "--cores", str(cores)]
    else:
        what = [step.number, *(("-p", "encoder", step.encoder) if step.encoder else ())]
    return [sys.executable, "-m", "saeutils.run", *what, "--profile", "smoke"]


def start(folder: Path, step: keys.Step | None = None, cores: int = 1) -> subprocess.Popen:
    """Start a stage or the chain in a process group of its own, as a terminal would.

    A shell starts what it puts in the background deaf to Ctrl-C, and so are all its children.
    """
    with open(folder / "torture.log", "ab") as log:
        return subprocess.Popen(
            command(step, cores), cwd=ROOT, env=environment(folder), stdout=log, stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def finish(folder: Path, step: keys.Step | None = None, cores: int = 1,
           **more: str) -> subprocess.CompletedProcess:
    """Run a stage or the chain to its end."""
    return subprocess.run(command(step, cores), cwd=ROOT, env=environment(folder, **more),
                          capture_output=True, text=True, timeout=3600)


def signal_all(process: subprocess.Popen, number: int, children: bool = True) -> None:
    """Send a signal to the process's group and, if asked, to everything that it started."""
    victims = psutil.Process(process.pid).children(recursive=True) if children else []
    os.killpg(process.pid, number)
    for victim in victims:
        try:
            victim.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def kill(process: subprocess.Popen, how: str) -> None:
    """SIGKILL for the process alone, or for its group and everything that it started."""
    signal_all(process, signal.SIGKILL, children=how != "parent")
    process.wait()


def half_written(folder: Path) -> list[Path]:
    """Files and folders that a write has begun and not finished."""
    return [path for path in folder.rglob(".*.part")]


def folders(folder: Path) -> list[str]:
    """Every folder below `folder`."""
    return [place for place, _, _ in os.walk(folder)]


def has_part(places: list[str]) -> bool:
    """Whether one of the folders holds a half-written file, seen fast enough to meet one."""
    for place in places:
        try:
            if any(name.endswith(".part") for name in os.listdir(place)):
                return True
        except FileNotFoundError:
            continue
    return False


def wait_for_moment(process: subprocess.Popen, folder: Path, how: str, seconds: float) -> bool:
    """Wait `seconds`, then (for `write`) for a half-written file; False if the process ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            return False
        time.sleep(0.01)
    places, looked = folders(folder), time.monotonic()
    while how == "write" and process.poll() is None:
        if time.monotonic() > looked + 0.3:
            places, looked = folders(folder), time.monotonic()
        if has_part(places):
            signal_all(process, signal.SIGSTOP)  # hold still: is it still there?
            if half_written(folder):
                return True
            signal_all(process, signal.SIGCONT)
        time.sleep(0.0002)
    return process.poll() is None


def recorded(step: keys.Step, folder: Path) -> dict[str, str]:
    """Checksums that a stage recorded of its files, below `folder`."""
    record = folder / step.record.relative_to(step.run_root.parent)
    outputs = json.loads(record.read_text(encoding="utf-8"))["outputs"]
    return {name: entry["sha256"] for name, entry in outputs.items()}


def check_whole(steps: list[keys.Step], folder: Path) -> int:
    """Stages that count as finished; each must have its record and every file as recorded."""
    count = 0
    for step in steps:
        marker = folder / step.marker.relative_to(step.run_root.parent)
        if not marker.exists():
            continue
        root = folder / step.root.relative_to(step.run_root.parent)
        for name, digest in recorded(step, folder).items():
            if keys.file_digest(root / name) != digest:
                raise AssertionError(f"{step.label} counts as finished, but {name} differs")
        count += 1
    return count


def compare(steps: list[keys.Step], folder: Path, clean: Path) -> int:
    """Number of files that equal those of the clean run; a difference is an error.

    Images (PNG) count for nothing.
    """
    check_whole(steps, folder)
    count = 0
    for step in steps:
        ours, theirs = recorded(step, folder), recorded(step, clean)
        texts = {name for name in theirs if not name.endswith(".png")}
        if {name for name in ours if not name.endswith(".png")} != texts:
            raise AssertionError(f"{step.label}: other files than in the clean run")
        differ = sorted(name for name in texts if ours[name] != theirs[name])
        if differ:
            raise AssertionError(f"{step.label}: {', '.join(differ)} differ from the clean run")
        count += len(texts)
        if step.number == "01":
            count += compare_audio(folder / step.run_root.name, clean / step.run_root.name)
    return count


def audio(root: Path) -> dict[str, Path]:
    """Sound files of a run, by their path below it."""
    return {path.relative_to(root).as_posix(): path for path in root.rglob("*.flac")
            if not path.name.startswith(".")}


def compare_audio(root: Path, clean: Path) -> int:
    """Number of sound files that equal those of the clean run; a difference is an error."""
    ours, theirs = audio(root), audio(clean)
    if ours.keys() != theirs.keys():
        raise AssertionError("01: other sound files than in the clean run")
    differ = [name for name in theirs if digest_of(ours[name]) != digest_of(theirs[name])]
    if differ:
        raise AssertionError(f"01: {', '.join(differ[:5])} differ from the clean run")
    return len(theirs)


def chain_steps() -> list[keys.Step]:
    return keys.chain("smoke")


def clean_run(folder: Path, cores: int = 1) -> Path:
    """A chain that nobody disturbs: the yardstick of all others."""
    folder.mkdir(parents=True, exist_ok=True)
    done = finish(folder, cores=cores)
    if done.returncode:
        raise AssertionError(f"the clean run failed:\n{done.stdout}{done.stderr}")
    return folder


def before(step: keys.Step, clean: Path, home: Path) -> Path:
    """A copy of the clean run in which this stage, and those that read it, are yet to be made."""
    folder = home / f"before_{step.label}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(clean, folder, copy_function=os.link,  # cheap: writes replace, none changes
                    ignore=shutil.ignore_patterns(".locks", "torture.log"))
    run_root = folder / step.run_root.name
    todo = [s for s in chain_steps() if s.label == step.label or step in s.needs]
    for late in todo:
        for marker in (run_root / ".done").glob(f"{late.label}_*"):
            marker.unlink()
    for path in (run_root / (step.encoder or "") / ".cache").glob(f"{step.number}_*"):
        path.unlink()
    shutil.rmtree(folder / step.record.parent.relative_to(step.run_root.parent))
    for name in recorded(step, clean):
        (folder / step.root.relative_to(step.run_root.parent) / name).unlink(missing_ok=True)
    if step.number == "01":
        for path in audio(run_root).values():
            path.unlink()
    return folder


def killed(folder: Path, step: keys.Step | None, how: str, moment: float, cores: int = 1) -> bool:
    """Start a stage or the chain and kill it; False if it ended before that."""
    process = start(folder, step, cores)
    hit = wait_for_moment(process, folder, how, moment / (2 if how == "write" else 1))
    if hit:
        kill(process, how)
    return hit


def made_good(folder: Path, step: keys.Step | None, how: str, cores: int = 1) -> None:
    """The same command once more; an orphan may hold on for a second or two."""
    done = finish(folder, step, cores)
    if done.returncode and how == "parent":
        time.sleep(3)
        done = finish(folder, step, cores)
    if done.returncode:
        raise AssertionError(f"does not run after the kill:\n{done.stdout}{done.stderr}")


def stage_kill(step: keys.Step, clean: Path, home: Path, how: str, seed: int, usual: float) -> dict:
    """Kill one stage once, start it again, compare its files."""
    moment = float(np.random.default_rng(seed).uniform(0.5, max(usual, 1.0)))
    with trial("kill of a stage", step.label, how, seed) as line:
        folder = before(step, clean, home)
        while not killed(folder, step, how, moment):  # it was faster than that
            moment, folder = moment / 2, before(step, clean, home)
        line |= {"seconds": round(moment, 1), "half_written": len(half_written(folder))}
        check_whole(chain_steps(), folder)
        made_good(folder, step, how)
        line["files"] = compare([step], folder, clean)
        shutil.rmtree(folder)
    return line


def chain_kill(clean: Path, home: Path, how: str, seed: int, usual: float, cores: int) -> dict:
    """Kill a whole chain once, start it again, compare every file of every stage."""
    moment, hit = 2 * float(np.random.default_rng(seed).uniform(5, usual)), False
    with trial("kill of a chain", "all", how, seed) as line:
        while not hit:
            folder, moment = home / f"chain_{seed}", moment / 2
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            hit = killed(folder, None, how, moment, cores)
        line |= {"seconds": round(moment, 1), "half_written": len(half_written(folder))}
        check_whole(chain_steps(), folder)
        made_good(folder, None, how, cores)
        line["files"] = compare(chain_steps(), folder, clean)
        shutil.rmtree(folder)
    return line


@contextmanager
def trial(check: str, target: str, how: str, seed: int = 0):
    """One line of the table, which the block fills with what it measures.

    A block that ends has survived. One that raises is a line too, with 0 and what it said, and the
    exception goes on. The line goes to the table that SAEUTILS_COUNT names, if it names one.
    """
    values = (date.today().isoformat(), commit(), check, target, how, 0, seed, 0, 0, 0, "")
    line = dict(zip(COLUMNS, values, strict=True))
    try:
        yield line
    except Exception as error:
        count(line | {"lost": " ".join(str(error).split())[:300] or type(error).__name__})
        raise
    line["survived"] = 1
    count(line)


def count(line: dict) -> None:
    """Add a line to the table that SAEUTILS_COUNT names, if it names one."""
    if os.environ.get("SAEUTILS_COUNT"):
        append(Path(os.environ["SAEUTILS_COUNT"]), line)


@functools.cache
def commit() -> str:
    """The commit that is tried, with a + if files were changed since; empty without git."""
    told = subprocess.run(["git", "describe", "--always", "--abbrev=10", "--dirty=+",
                           "--exclude=*"],
                          cwd=ROOT, capture_output=True, text=True)
    return told.stdout.strip()


def append(path: Path, line: dict) -> None:
    """Add a line to the table; the heading when it is new."""
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(line)


def kill_stages(clean: Path, home: Path, n: int, seed: int, only: str = ""):
    """Yield a line for each of `n` kills: all stages in turn, their encoders in turn."""
    steps = [step for step in chain_steps() if not only or step.label in only.split(",")]
    numbers = sorted({step.number for step in steps})
    for i in range(n):
        turn, place = divmod(i, len(numbers))
        same = [step for step in steps if step.number == numbers[place]]
        step = same[turn % len(same)]
        record = clean / step.record.relative_to(step.run_root.parent)
        usual = json.loads(record.read_text(encoding="utf-8"))["wall_seconds"] + 4
        how = HOWS[(turn + place) % len(HOWS)]  # each stage meets each kind
        yield stage_kill(step, clean, home, how, seed + i, usual)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="of single stages")
    parser.add_argument("--chains", type=int, default=4, help="kills of whole chains")
    parser.add_argument("--only", default="", help="stages to kill, such as 03_demo,04_demo")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", action="store_true", help="full disks, rivals, Ctrl-C")
    parser.add_argument("--worlds", nargs="*", default=None, metavar="PYTHON",
                        help="chains in other worlds, and under these other interpreters")
    parser.add_argument("--slurm", action="store_true", help="a chain through SLURM")
    parser.add_argument("--forever", action="store_true", help="go on until stopped")
    parser.add_argument("--clean", type=Path, default=None, help="data folder of a clean smoke run")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--report", action="store_true", help="only write the page of the table")
    options = parser.parse_args()
    if not options.report:
        os.environ["SAEUTILS_COUNT"] = str(options.out.resolve())
        with tempfile.TemporaryDirectory(prefix="torture-") as folder:
            home = Path(folder)
            clean = options.clean or clean_run(home / "clean", options.cores)
            check_whole(chain_steps(), clean)
            for line in trials_of(options, clean, home):
                print(*line.values(), flush=True)
            check_whole(chain_steps(), clean)  # no trial wrote into the yardstick
    from reliability import report

    report(options.out, options.out.with_suffix(".md"))
    return 0


def trials_of(options: argparse.Namespace, clean: Path, home: Path):
    """Yield the lines of all that was asked for, again and again if asked."""
    import trials

    usual = sum(json.loads((clean / s.record.relative_to(s.run_root.parent)).read_text(
        encoding="utf-8"))["wall_seconds"] + 5 for s in chain_steps()) / options.cores
    if options.faults:
        yield from trials.faults(clean, home)
    for name in trials.WORLDS if options.worlds is not None else ():
        yield trials.other_world(clean, home, name)
    for python in options.worlds or ():
        yield trials.other_world(clean, home, trials.version(python), python)
    if options.slurm:
        with trials.slurm() as why_not:
            if why_not:
                raise SystemExit(f"error: {why_not}")
            yield trials.through_slurm(clean, home)
    for turn in range(1_000_000 if options.forever else 1):
        seed = options.seed + turn * options.kills
        yield from kill_stages(clean, home, options.kills, seed, options.only)
        for i in range(options.chains):
            yield chain_kill(clean, home, HOWS[i % 3], seed + 10_000 + i, usual, options.cores)


if __name__ == "__main__":
    sys.exit(main())
