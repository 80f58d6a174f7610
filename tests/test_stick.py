"""The stick: what it refuses, what it lists, and an install in a namespace without network."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saeutils import stick
from saeutils.keys import chain
from saeutils.profiles import ROOT

LOCK = """\
both==1.0 \\
    --hash=sha256:{0}
only-windows==2.0 ; sys_platform == 'win32' \\
    --hash=sha256:{0}
not_windows==3.0 ; sys_platform != 'win32' \\
    --hash=sha256:{0}
    # via both
""".format("0" * 64)


def test_packages_of_a_lock_by_system():
    linux = stick.pinned(LOCK, {"sys_platform": "linux"})
    assert linux == {"both": "1.0", "not_windows": "3.0"}
    assert stick.pinned(LOCK, stick.WINDOWS) == {"both": "1.0", "only-windows": "2.0"}


def test_the_project_s_own_lock_is_understood():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    windows, here = stick.pinned(text, stick.WINDOWS), stick.pinned(text)
    assert {"torch", "jupyterlab", "setuptools", "wheel"} <= set(windows) & set(here)
    assert "snakemake" not in windows and not [n for n in windows if n.startswith("nvidia")]
    assert text.count("==") > len(here) > 100


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*", fullmatch=True))
def test_names_compare_as_indexes_compare_them(name):
    once = stick.normal(name)
    assert stick.normal(once) == once == stick.normal(name.upper().replace("-", "_"))


def test_list_of_wheels_has_the_hashes_of_the_files_here(tmp_path):
    wheel = tmp_path / "Only_One-1.5-py3-none-any.whl"
    wheel.write_bytes(b"built here")
    stick.write_requirements(tmp_path, {"only-one": "1.5"})
    wanted = hashlib.sha256(b"built here").hexdigest()
    assert (tmp_path / "requirements.txt").read_text() == f"only-one==1.5 --hash=sha256:{wanted}\n"
    with pytest.raises(ValueError, match=r"no wheel of only-one 1\.6"):
        stick.write_requirements(tmp_path, {"only-one": "1.6"})


def test_an_unfinished_run_is_refused_in_words(capsys):
    assert stick.main(["--profile", "smoke"]) == 1
    said = capsys.readouterr().err
    assert "not finished" in said and "make reproduce" in said and "Traceback" not in said
    steps = chain("smoke")
    for step in steps:
        step.marker.parent.mkdir(parents=True, exist_ok=True)
        step.marker.touch()
    stick.check_finished(steps)
    steps[-1].marker.unlink()
    with pytest.raises(ValueError, match=steps[-1].label):
        stick.check_finished(steps)


def test_a_full_disk_is_refused_with_both_numbers(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(stick.shutil, "disk_usage", lambda _: usage(10e9, 9e9, 1e9))
    with pytest.raises(ValueError, match=r"1\.0 GB free, 8\.0 GB are needed.*STICK="):
        stick.check_disk(tmp_path / "not" / "yet", 8.0)
    stick.check_disk(tmp_path, 0.9)


def test_changes_that_are_not_committed_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(stick, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ValueError, match="no git repository"):
        stick.check_committed()
    (tmp_path / "a.txt").write_text("one")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "a.txt"], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    stick.check_committed()
    stick.copy_repository(tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["a.txt"]
    (tmp_path / "a.txt").write_text("two")
    with pytest.raises(ValueError, match="uncommitted changes in a.txt"):
        stick.check_committed()


def test_scripts_are_filled_in_and_ask_no_server(tmp_path):
    stick.write_scripts(tmp_path, ["linux", "windows"], "demo")
    texts = {path.name: path.read_bytes().decode() for path in tmp_path.iterdir()}
    assert set(texts) == {"install.sh", "install.ps1", "START_HERE.md"}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    for name, text in texts.items():
        assert python in text and not stick.re.search(r"@[A-Z_]+@", text), name
        assert "://" not in text
    installs = [line for line in texts["install.sh"].splitlines() if line.startswith("pip install")]
    assert len(installs) == 2 and all("--no-index" in line for line in installs)
    assert '"--no-index"' in texts["install.ps1"] and "\r\n" in texts["install.ps1"]
    assert "\r" not in texts["install.sh"]
    subprocess.run(["sh", "-n", str(tmp_path / "install.sh")], check=True)


def test_checksums_are_those_of_the_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("a")
    stick.write_checksums(tmp_path)
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path, check=True)


BACKEND = """\
import zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "saeutils-0.1.0-py3-none-any.whl"
    info = "saeutils-0.1.0.dist-info/"
    with zipfile.ZipFile(folder + "/" + name, "w") as z:
        z.writestr("saeutils_here.py", "import tiny")
        z.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: saeutils\\nVersion: 0.1.0\\n")
        z.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        z.writestr(info + "RECORD", "")
    return name
"""


@pytest.fixture
def without_network():
    """Command prefix for a namespace without network."""
    prefix = ["unshare", "-rn"]
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], check=False,
                                                     capture_output=True).returncode:
        pytest.skip("network namespaces are not permitted here")
    code = ("import socket, sys\ntry: socket.create_connection(('192.0.2.1', 80), 2)\n"
            "except OSError as error: sys.exit('unreachable' not in str(error))\n"
            "sys.exit(1)")
    subprocess.run([*prefix, sys.executable, "-c", code], check=True)
    return prefix


def tiny_stick(folder, monkeypatch):
    """A stick with one small wheel and a companion that builds by itself."""
    monkeypatch.setattr(stick, "INSTALLED_MB", dict.fromkeys(stick.INSTALLED_MB, 5))
    wheels = folder / "wheels" / stick.SYSTEMS[sys.platform]
    wheels.mkdir(parents=True)
    with zipfile.ZipFile(wheels / "tiny-1.0-py3-none-any.whl", "w") as archive:
        info = "tiny-1.0.dist-info/"
        archive.writestr("tiny.py", "answer = 42")
        archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(info + "WHEEL",
                         "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(info + "RECORD", "")
    stick.write_requirements(wheels, {"tiny": "1.0"})
    companion = folder / "companion"
    companion.mkdir()
    (companion / "backend.py").write_text(BACKEND)
    (companion / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "saeutils"\nversion = "0.1.0"\n')
    stick.write_scripts(folder, [stick.SYSTEMS[sys.platform]], "demo")


@pytest.mark.skipif(sys.platform == "win32", reason="install.sh is for Linux and macOS")
def test_install_without_network(tmp_path, monkeypatch, without_network):
    tiny_stick(tmp_path / "stick", monkeypatch)
    monkeypatch.setenv("PYTHON", sys.executable)
    target = tmp_path / "a folder" / "with spaces"
    install = [*without_network, "sh", str(tmp_path / "stick" / "install.sh"), str(target)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "jupyterlab" in done.stdout.splitlines()[-1]
    python = target / ".venv" / "bin" / "python"
    answer = subprocess.run([python, "-c", "import saeutils_here, tiny; print(tiny.answer)"],
                            capture_output=True, text=True, check=True)
    assert answer.stdout == "42\n"
    settings = target / ".venv" / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    asked = json.loads(settings.read_text(encoding="utf-8"))
    assert asked["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    again = subprocess.run(install, capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "is there already" in again.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="install.sh is for Linux and macOS")
def test_install_says_what_is_missing(tmp_path, monkeypatch):
    tiny_stick(tmp_path / "stick", monkeypatch)
    script = tmp_path / "stick" / "install.sh"
    full = script.read_text()

    def refused(text, **environment):
        script.write_text(text)
        done = subprocess.run(["sh", str(script), str(tmp_path / "new")], capture_output=True,
                              text=True, check=False, env=dict(stick_environment, **environment))
        assert done.returncode == 1 and not (tmp_path / "new").exists()
        return done.stderr

    stick_environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert "Python 9.9 not found" in refused(full.replace(f'"{python}"', '"9.9"'))
    room = full.replace("$(( 5 * 1024 ))", "$(( 999999999 * 1024 ))")
    assert "MB free" in refused(room, PYTHON=sys.executable)
    tampered = next((tmp_path / "stick" / "wheels").rglob("*.whl"))
    tampered.rename(tampered.with_suffix(".gone"))
    shutil.move(tampered.parent, tampered.parent.with_name("elsewhere"))
    assert "built for elsewhere" in refused(full, PYTHON=sys.executable)


@pytest.mark.slow
def test_the_real_stick_installs_without_network(tmp_path, without_network):
    script = ROOT / "stick" / "install.sh"
    if not script.is_file():
        pytest.skip("no stick/ here: `make stick` builds it (2.9 GB to download on Linux)")
    target = tmp_path / "companion"
    subprocess.run([*without_network, "sh", str(script), str(target)], check=True)
    code = ("import torch, transformers, opensmile, parselmouth, jupyterlab, saeutils.keys as k;"
            "print(sum(s.marker.exists() for s in k.chain('demo')), len(k.chain('demo')))")
    done = subprocess.run([*without_network, str(target / ".venv" / "bin" / "python"), "-c", code],
                          capture_output=True, text=True, check=True, cwd=target,
                          env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})
    finished, steps = done.stdout.split()
    assert finished == steps
