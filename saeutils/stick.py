"""A folder for a USB stick: wheels, repository, finished results, install scripts.

``python -m saeutils.stick`` (``make stick``) builds it for the platform it runs on, and with
``--windows`` for Windows too. Installing from it needs no network. Everything is taken from
requirements.lock and checked by its hashes; packages that exist only as source are built first.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from saeutils import keys
from saeutils.profiles import ROOT
from saeutils.run import stopped_by_hand

FILES = Path(__file__).parent / "stick_files"
SYSTEMS = {"linux": "linux", "darwin": "macos", "win32": "windows"}
NEEDED_GB = {"linux": 8.0, "darwin": 3.0, "win32": 3.0}  # to build: wheels and room to unpack
INSTALLED_MB = {"linux": 7500, "darwin": 2500, "win32": 2500}
WINDOWS = {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt",
           "platform_machine": "AMD64"}
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m saeutils.stick``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m saeutils.stick",
                                     description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--target", default="stick", help="folder to build (default: stick)")
    parser.add_argument("--profile", default="demo", help="finished run to take along")
    parser.add_argument("--run-name", default="")
    parser.add_argument("--windows", action="store_true", help="wheels for Windows too")
    parser.add_argument("--requirements", default=str(ROOT / "requirements.lock"))
    options = parser.parse_args(arguments)
    try:
        target = Path(options.target).resolve()
        build(target, keys.chain(options.profile, options.run_name),
              Path(options.requirements), windows=options.windows)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return stopped_by_hand()
    return 0


def build(target: Path, steps: Sequence[keys.Step], lock: Path, windows: bool = False) -> None:
    """Build the folder; wheels that are there already are used again.

    Parameters
    ----------
    target
        Folder to make or to complete; a stick should be formatted as exFAT or NTFS.
    steps
        Every step of the run to take along (`saeutils.keys.chain`).
    lock
        Requirements with hashes.
    windows
        Add wheels for Windows on x86-64.

    Raises
    ------
    ValueError
        The run is not finished; the disk is short; there are uncommitted changes, or no git; a
        package can neither be had nor built.
    """
    check_finished(steps)
    check_committed()
    run_root = steps[0].run_root
    results_gb = sum(p.stat().st_size for p in _results(run_root)) / 1e9
    check_disk(target, NEEDED_GB.get(sys.platform, 8.0) + results_gb + (2.0 if windows else 0))
    target.mkdir(parents=True, exist_ok=True)
    print("1 of 4: wheels (on Linux 2.9 GB: PyTorch of the lock brings CUDA)", flush=True)
    own = SYSTEMS.get(sys.platform, sys.platform)
    systems = [own] + (["windows"] if windows and own != "windows" else [])
    fetch_wheels(target / "wheels" / own, lock)
    if "windows" in systems[1:]:
        fetch_windows_wheels(target / "wheels" / "windows", target / "wheels" / own, lock)
    print("2 of 4: repository", flush=True)
    copy_repository(target / "companion")
    print(f"3 of 4: finished run, {results_gb:.1f} GB", flush=True)
    for path in _results(run_root):
        copy = target / "companion" / "data" / run_root.name / path.relative_to(run_root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    print("4 of 4: install scripts and checksums", flush=True)
    write_scripts(target, systems, run_root.name)
    write_checksums(target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / 1e9
    print(f"{target}: {size:.1f} GB for {' and '.join(systems)}, Python {_python()}; "
          "install with `sh install.sh` or install.ps1")


def check_finished(steps: Iterable[keys.Step]) -> None:
    """Refuse a run of which a step is missing or outdated.

    Raises
    ------
    ValueError
        Names the steps and the command that makes them.
    """
    steps = list(steps)
    open_steps = [step.label for step in steps if not step.marker.exists()]
    if open_steps:
        command = keys.whole_run(steps[0].profile, steps[0].run)
        raise ValueError(f"data/{steps[0].run} is not finished ({', '.join(open_steps)} missing or "
                         f"outdated): run `{command}` first")


def check_committed() -> None:
    """Refuse uncommitted changes: the repository on the stick is that of the last commit.

    Raises
    ------
    ValueError
        Changed files, or no git repository.
    """
    state = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT,
                           capture_output=True, text=True, check=False)
    if state.returncode:
        raise ValueError("no git repository here: `make stick` takes its files from the last "
                         "commit; clone the repository instead of unpacking an archive")
    changed = [line[3:] for line in state.stdout.splitlines()]
    if changed:
        raise ValueError(f"uncommitted changes in {', '.join(changed[:3])}"
                         f"{' ...' if len(changed) > 3 else ''}: commit them, or the results on "
                         "the stick would not belong to its notebooks")


def check_disk(target: Path, needed_gb: float) -> None:
    """Refuse a disk without room.

    Raises
    ------
    ValueError
        Says how much is free and how much is needed, both in GB (10^9 bytes).
    """
    there = next(folder for folder in (target, *target.parents) if folder.exists())
    free_gb = shutil.disk_usage(there).free / 1e9
    if free_gb < needed_gb:
        raise ValueError(f"{target} has {free_gb:.1f} GB free, {needed_gb:.1f} GB are needed: "
                         "choose another disk with --target (make stick STICK=/path)")


def pinned(lock: str, environment: dict[str, str] | None = None) -> dict[str, str]:
    """Name and version of the packages of a lock that one system needs.

    Parameters
    ----------
    lock
        Text of the requirements file.
    environment
        Marker values of the system; those of the running interpreter where not given.

    Examples
    --------
    >>> pinned("a==1 ; sys_platform == 'win32' \\\\\\n", {"sys_platform": "win32"})
    {'a': '1'}
    >>> pinned("a==1 ; sys_platform == 'win32' \\\\\\n", {"sys_platform": "linux"})
    {}
    """
    from packaging.markers import Marker

    return {name: version for name, version, marker in PINNED.findall(lock)
            if not marker or Marker(marker).evaluate(environment or {})}


def fetch_wheels(folder: Path, lock: Path) -> None:
    """Wheels of every package of a lock for the running platform, sources built; then their list.

    Raises
    ------
    ValueError
        pip could not get or build a package; its last lines are shown.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        pip = pip_command(Path(scratch))
        _run([*pip, "wheel", "--no-deps", "--no-cache-dir", "--require-hashes", "--find-links",
              str(folder), "--wheel-dir", str(folder), "-r", str(lock)], "wheels")
    write_requirements(folder, pinned(lock.read_text(encoding="utf-8")))


def fetch_windows_wheels(folder: Path, own: Path, lock: Path) -> None:
    """Wheels for Windows; packages built here from source are taken along if they fit everywhere.

    Raises
    ------
    ValueError
        pip could not get a package.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = lock.read_text(encoding="utf-8")
    wanted = pinned(text, WINDOWS)
    blocks = {normal(block.split("==")[0]): block for block in
              re.split(r"^(?=[A-Za-z0-9._-]+==)", text, flags=re.MULTILINE)[1:]}
    asked = []
    for name, version in wanted.items():
        built = [p for p in own.glob("*-none-any.whl") if wheel_of(p) == (normal(name), version)
                 and file_hash(p) not in blocks[normal(name)]]
        if built:
            shutil.copy2(built[0], folder / built[0].name)
        else:
            hashes = re.findall(r"--hash=sha256:[0-9a-f]{64}", blocks[normal(name)])
            asked.append(f"{name}=={version} " + " ".join(hashes))
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch) / "windows.txt"
        listed.write_text("\n".join(asked), encoding="utf-8")
        _run([*pip_command(Path(scratch)), "download", "--no-deps", "--no-cache-dir",
              "--only-binary=:all:", "--platform", "win_amd64", "--python-version", _python(),
              "--find-links", str(folder), "--dest", str(folder), "-r", str(listed)],
             "wheels for Windows")
    write_requirements(folder, wanted)


def write_requirements(folder: Path, wanted: dict[str, str]) -> None:
    """List the wheels of a folder with their hashes, as ``pip install --require-hashes`` reads it.

    Hashes are those of the files here: a wheel built from source has none in the lock.

    Raises
    ------
    ValueError
        A wanted package has no wheel in the folder.
    """
    have = {wheel_of(path): path for path in sorted(folder.glob("*.whl"))}
    lines = []
    for name, version in sorted(wanted.items()):
        path = have.get((normal(name), version))
        if path is None:
            raise ValueError(f"no wheel of {name} {version} in {folder}: remove the folder and "
                             "build again")
        lines.append(f"{name}=={version} --hash=sha256:{file_hash(path)}")
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def normal(name: str) -> str:
    """A package's name as indexes compare it.

    Examples
    --------
    >>> normal("Praat_Parselmouth")
    'praat-parselmouth'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def wheel_of(path: Path) -> tuple[str, str]:
    """Package and version in a wheel's file name."""
    name, version = path.name.split("-")[:2]
    return normal(name), version


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    return keys.file_digest(path)


def copy_repository(folder: Path) -> None:
    """The files of the last commit, without git."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "repository.tar"
        _run(["git", "-C", str(ROOT), "archive", "-o", str(archive), "HEAD"], "git archive")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")


def write_scripts(target: Path, systems: Sequence[str], run: str) -> None:
    """install.sh, install.ps1 and START_HERE.md with versions and sizes filled in."""
    values = {"PYTHON": _python(), "RUN": run, "SYSTEMS": " and ".join(systems),
              "NEEDED_MB": str(INSTALLED_MB.get(sys.platform, 7500)),
              "NEEDED_WINDOWS_MB": str(INSTALLED_MB["win32"])}
    for source in sorted(FILES.iterdir()):
        text = source.read_text(encoding="utf-8")
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        ending = "\r\n" if source.suffix == ".ps1" else "\n"
        (target / source.name).write_bytes(text.replace("\n", ending).encode("utf-8"))


def write_checksums(target: Path) -> None:
    """SHA256SUMS of every file of the folder."""
    lines = [f"{file_hash(path)}  {path.relative_to(target).as_posix()}"
             for path in sorted(target.rglob("*")) if path.is_file() and path.name != "SHA256SUMS"]
    (target / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")


def pip_command(scratch: Path) -> list[str]:
    """A pip to call: that of this environment, of a fresh one, or of one that uv makes.

    Raises
    ------
    ValueError
        None of the three works.
    """
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    place = scratch / "pip"
    ways = [[sys.executable, "-m", "venv", str(place)],
            ["uv", "venv", "--quiet", "--seed", "--python", sys.executable, str(place)]]
    inside = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    for way in ways:
        if shutil.which(way[0]) and not subprocess.run(way, capture_output=True,
                                                       check=False).returncode:
            return [str(inside), "-m", "pip"]
    raise ValueError("no pip: install python3-venv (Debian, Ubuntu) or uv")


def _results(run_root: Path) -> list[Path]:
    """Files of a run, without the pieces that only shorten its computation."""
    return [path for path in sorted(run_root.rglob("*")) if path.is_file()
            and not {".cache", ".locks"} & set(path.relative_to(run_root).parts)]


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ValueError(f"{what}: {command[0]} stopped; its last lines:\n  "
                         + "\n  ".join(lines[-6:]))


if __name__ == "__main__":
    sys.exit(main())
