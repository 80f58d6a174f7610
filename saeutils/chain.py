"""The whole chain: Snakemake runs what is not finished; what stops it is said last, in one line.

A stage that the chain runs leaves its last words in a folder that SAEUTILS_TOLD names: one file,
empty while it works, gone when it is finished. So what a user sees at the end is the stage's own
error with the way out, and none of Snakemake's words about a command that failed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from saeutils import estimates, keys
from saeutils.files import atomic, one_at_a_time
from saeutils.plain_yaml import read_yaml
from saeutils.profiles import ROOT, Profile, load_profile

TOLD = "SAEUTILS_TOLD"
BUILT_IN = ("local", "dryrun", "touch")  # executors that come with Snakemake


def run_chain(
    profile: str, run_name: str = "", overrides: dict[str, Any] | None = None,
    cores: int | None = None, dry: bool = False, cluster: str = "", split: int = 1,
) -> int:
    """Let Snakemake run whatever is not finished; one chain at a time in a run's folder.

    `cluster` names a folder of profiles/cluster: stages are then jobs of that cluster. The
    extraction of each encoder is `split` jobs that stage 02 gathers; results do not depend on it.

    Raises
    ------
    ValueError
        The chain is running already, or there is no such cluster profile.
    """
    steps, loaded = keys.chain(profile, run_name, overrides), load_profile(profile, overrides)
    run_root = steps[0].run_root
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
        "--directory", str(ROOT), "--cores", str(cores or os.cpu_count() or 1),
        "--nolock", "--rerun-incomplete", "--rerun-triggers", "input",
        "--quiet", "host", "progress", "reason", "rules",
        "--config", sent(profile=profile, run_name=run_name, overrides=overrides or {},
                         cluster=cluster, split=split),
    ]
    command += ["--dry-run"] if dry else []
    command += ["--workflow-profile", str(_cluster(cluster))] if cluster else []
    if not dry:
        estimates.unprune(steps)
    late = keys.unfinished(steps)
    todo = [step.label for step in late]
    with one_at_a_time(run_root / ".locks" / "chain.lock", f"run {steps[0].run!r}"):
        print(f"{len(steps) - len(todo)} of {len(steps)} stages are finished"
              + (f"; to do: {', '.join(todo)}" if todo else ""), flush=True)
        if dry:
            print(estimates.report(profile, overrides, cores), flush=True)
        if not todo:
            if not dry:
                _prune(steps, loaded)  # what a kill after the last stage left undone
            return 0
        for step in late if not dry else ():  # finished before what it reads: it runs again
            step.marker.unlink(missing_ok=True)
        start = time.monotonic()
        with _place_for_words(run_root if cluster else None) as told:
            status = _snakemake(command, told, listen=not (dry or cluster))
            words = last_words(told)
        seconds = time.monotonic() - start
        if dry:
            print("nothing was run: without the dry run, the same command does it", flush=True)
            return status
        word = "done" if status == 0 else "stopped by an error"
        if status == 0:
            _prune(steps, loaded)
            with atomic(run_root / "chain.json") as part:
                part.write_text(json.dumps({"seconds": round(seconds), "ran": todo,
                                            "cores": cores or os.cpu_count()}) + "\n")
        print(f"run {steps[0].run!r}: {word} after {seconds:.0f} s; "
              f"files are in {shown(run_root)}", flush=True)
        if status:
            print("\n".join(f"error: {line}" for line in words), file=sys.stderr, flush=True)
    return status


def sent(**asked: Any) -> str:
    """What the Snakefile is asked, as one word after ``--config``.

    JSON as hexadecimal digits after an x: of any plainer value Snakemake would guess the type, and
    a run ``007`` would be the number 7.

    Examples
    --------
    >>> received(dict([sent(run_name="007").split("=")]))
    {'run_name': '007'}
    """
    return f"asked=x{json.dumps(asked).encode().hex()}"


def received(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `sent` was given, from the configuration of the Snakefile.

    Raises
    ------
    ValueError
        Other words stand after ``--config``.
    """
    if set(config) - {"asked"}:
        raise ValueError(f"--config {', '.join(sorted(config))}: profile, run and settings come "
                         "from `python -m saeutils.run all`; see its --help")
    return json.loads(bytes.fromhex(config.get("asked", "x7b7d")[1:]))


def _prune(steps: list[keys.Step], loaded: Profile) -> None:
    if loaded.sae.keep_saes == "best" and (gone := estimates.prune(steps, loaded)):
        print(f"sae.keep_saes: best: {gone} dictionaries of other seeds removed", flush=True)


@contextmanager
def _place_for_words(shared: Path | None) -> Iterator[Path]:
    """A folder for the stages' last words: where jobs run on other machines, on the shared disk."""
    folder = shared / ".locks" if shared else None
    with tempfile.TemporaryDirectory(prefix="saeutils-told-", dir=folder) as told:
        yield Path(told)


def _snakemake(command: Sequence[str], told: Path, listen: bool) -> int:
    """Run it; with `listen`, its own words are shown only if no stage has left any.

    What stages print goes straight to the screen: the Snakefile sends all of it to stdout.
    """
    words = told / ".snakemake"
    with open(words, "w+", encoding="utf-8", errors="replace") as heard:
        status = subprocess.run(command, check=False, stderr=heard if listen else None,
                                env=quiet_environment() | {TOLD: str(told)}).returncode
        if status and listen and not list(told.glob("[!.]*")):
            heard.seek(0)
            print(heard.read(), file=sys.stderr, flush=True)
    return status


def last_words(told: Path) -> list[str]:
    """One line for each stage that did not finish, and one for a chain that no stage stopped."""
    lines = []
    for path in sorted(told.glob("[!.]*")):
        text = path.read_text(encoding="utf-8")
        lines.append(f"{path.name} stopped: {text}. The same command goes on from there"
                     if text else
                     f"{path.name} ended without a word, as a process does that the system ends "
                     "(out of memory? a time limit?): the same command starts it again")
    return lines or ["Snakemake stopped, and no stage did: its own words stand above"]


@contextmanager
def telling(label: str) -> Iterator[None]:
    """Around a stage: its last words go to the chain that runs it, if one does."""
    path = Path(os.environ[TOLD], label) if TOLD in os.environ else None
    _write(path, "")
    try:
        yield
    except Exception as error:
        end = str(error).rsplit("\n\n", 1)[-1]  # the error itself, below the cell and the calls
        _write(path, ". ".join(line.strip().rstrip(".") for line in end.splitlines()))
        raise
    if path:
        path.unlink(missing_ok=True)


def _write(path: Path | None, words: str) -> None:
    if path:
        with suppress(OSError):  # a full disk is told on the screen all the same
            path.write_text(words, encoding="utf-8")


def shown(path: Path) -> str:
    """A path below the project as the user would type it there."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _cluster(name: str) -> Path:
    home = ROOT / "profiles" / "cluster"
    have = sorted(path.parent.name for path in home.glob("*/config.yaml"))
    if name not in have:
        raise ValueError(f"unknown cluster {name!r}: profiles/cluster has {', '.join(have)}")
    file = f"profiles/cluster/{name}/config.yaml"
    try:
        settings = read_yaml((home / name / "config.yaml").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid YAML ({error})") from None
    executor = settings.get("executor") if isinstance(settings, dict) else None
    if not isinstance(executor, str):
        raise ValueError(f"{file}: executor = {executor!r}: name one, as in `executor: slurm`")
    module = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    if executor not in BUILT_IN and importlib.util.find_spec(module) is None:
        raise ValueError(f"cluster {name!r} needs a plug-in of Snakemake's: pip install "
                         f"'{module.replace('_', '-')}' (see {file})")
    return home / name


def quiet_environment() -> dict[str, str]:
    """Environment of kernels and of Snakemake: one thread each, nothing fetched unasked."""
    variables = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS",
                                        "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
    variables |= {"PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false",
                  "PYDEVD_DISABLE_FILE_VALIDATION": "1", "TQDM_MININTERVAL": "1",
                  # a kernel that ends takes its worker pool with it: nothing to warn about
                  "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning"}
    return dict(os.environ) | variables
