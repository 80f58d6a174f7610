"""What SECURITY.md promises: no pickles, no strange code, TLS, checksums, hashed packages."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement

from saeutils.profiles import ROOT
from saeutils.vocalset import RELEASES

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# By the names of their modules, however a text calls them.
FORBIDDEN = {"torch.load", "torch.serialization.load", "torch.hub.load", "torch.jit.load",
             "joblib.load", "pandas.read_pickle", "pandas.io.pickle.read_pickle", "eval", "exec",
             "builtins.eval", "builtins.exec", "__import__", "yaml.unsafe_load", "yaml.full_load",
             "yaml.unsafe_load_all", "yaml.full_load_all", "os.system", "os.popen"}
PICKLING = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
FORBIDDEN_KEYWORDS = ("allow_pickle", "trust_remote_code")
USUAL = {"np": "numpy", "pd": "pandas"}
NETWORK = {"urllib", "urllib3", "http", "socket", "ssl", "ftplib", "requests", "httpx", "aiohttp",
           "pooch", "huggingface_hub"}
MAY_USE_NETWORK = {"saeutils/downloads.py", "saeutils/encoders_hub.py"}


def sources():
    """Every Python text of the project: rooms, benchmarks, code cells of notebooks."""
    for folder in ("saeutils", "benchmarks"):
        for path in sorted((ROOT / folder).glob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" in path.parts:
            continue
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        yield path.relative_to(ROOT).as_posix(), text.replace("\n%", "\n# %")


def imports(tree):
    """Line, whole name, and the name in the text, of everything that a text imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                yield node.lineno, alias.name, *((alias.asname, alias.name) if alias.asname else
                                                 (top, top))
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node.lineno, whole, alias.asname or alias.name, whole


def faults(name, text):
    """What in a text reads pickles or runs code that was not written here."""
    tree = ast.parse(text)
    known = dict(USUAL)
    for line, whole, here, stands_for in imports(tree):
        known[here] = stands_for
        if whole.split(".")[0] in PICKLING:
            yield f"{name}:{line} imports {whole}"
        if whole in FORBIDDEN:
            yield f"{name}:{line} imports {whole}"
        if whole.endswith(".*"):
            yield f"{name}:{line} imports names that are not seen here"

    def resolved(node):
        first, dot, rest = ast.unparse(node).partition(".")
        return known.get(first, first) + dot + rest

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            used = resolved(node)
            if used in FORBIDDEN or used.endswith(".read_pickle"):
                yield f"{name}:{node.lineno} uses {used}"
        if isinstance(node, ast.Call):
            call = resolved(node.func)
            if call == "importlib.import_module" and not isinstance(node.args[0], ast.Constant):
                yield f"{name}:{node.lineno} imports what it is given"
            for keyword in node.keywords:
                is_off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in FORBIDDEN_KEYWORDS and not is_off:
                    yield f"{name}:{node.lineno} passes {keyword.arg}"
                if keyword.arg == "weights_only" and ast.unparse(keyword.value) != "True":
                    yield f"{name}:{node.lineno} turns weights_only off"
                if keyword.arg == "shell" and not is_off:
                    yield f"{name}:{node.lineno} runs a shell"
                if keyword.arg == "verify" and is_off:
                    yield f"{name}:{node.lineno} does not verify TLS"
            if call in ("yaml.load", "yaml.load_all"):
                given = [*node.args[1:], *(k.value for k in node.keywords if k.arg == "Loader")]
                if [ast.unparse(loader) for loader in given] not in (["_Once"],
                                                                     ["yaml.SafeLoader"]):
                    yield f"{name}:{node.lineno} loads YAML with tags"


def test_nothing_reads_pickles_or_runs_strange_code():
    assert not [fault for name, text in sources() for fault in faults(name, text)]


@pytest.mark.parametrize("text", [
    "import pickle\npickle.load(f)", "from pickle import loads", "import torch\ntorch.load('x')",
    "np.load('x', allow_pickle=True)", "m.from_pretrained('x', trust_remote_code=True)",
    "eval('1')", "subprocess.run('ls', shell=True)", "yaml.load(t, yaml.Loader)",
    "m.from_pretrained('x', weights_only=False)", "requests.get(u, verify=False)",
    "import pickle as p\np.load(f)", "import pickle", "from _pickle import loads", "import dill",
    "from torch import load", "from torch import load as read\nread('x')",
    "import torch as t\nt.load('x')", "import torch\nread = torch.load\nread('x')",
    "import torch\nmap(torch.load, files)", "import torch.serialization as s\ns.load('x')",
    "import pandas\npandas.read_pickle('x')", "from pandas import read_pickle", "pd.read_pickle(x)",
    "import joblib as j\nj.load('x')", "from joblib import Parallel, load", "import shelve",
    "from torch import *", "import os as o\no.system('ls')", "__import__('pickle').load(f)",
    "import importlib\nimportlib.import_module(name)", "yaml.load(t)", "exec(text)",
    "yaml.load(t, Loader=yaml.Loader)", "from yaml import load\nload(t, FullLoader)",
])
def test_the_scan_sees_what_it_looks_for(text):
    assert list(faults("x.py", text))


def test_the_scan_lets_plain_code_through():
    text = ("import json, yaml\nfrom joblib import Parallel\nnp.load('x', allow_pickle=False)\n"
            "json.loads('1')\nyaml.load(t, Loader=yaml.SafeLoader)\nmodel.eval()\nself.load(x)")
    assert not list(faults("x.py", text))


def test_two_rooms_know_the_network():
    """The rest of the project imports nothing that opens a connection."""
    users = {name for name, text in sources() for _, whole, *_ in imports(ast.parse(text))
             if whole.split(".")[0] in NETWORK}
    assert users == MAY_USE_NETWORK


def test_downloads_go_over_tls_and_by_checksum():
    for name, text in sources():
        plain = [u for u in re.findall(r"http://[^\s\"')]+", text)
                 if not u.startswith(("http://localhost", "http://127.0.0.1", "http://www.w3.org"))]
        assert not plain, f"{name}: {plain}"
    for release in RELEASES.values():
        assert release.url.startswith("https://")
        kind, _, digest = release.checksum.partition(":")
        assert len(digest) == {"sha256": 64, "md5": 32}[kind] and int(digest, 16)


def test_every_lock_line_is_hashed_and_from_an_index():
    blocks = re.split(r"^(?=[A-Za-z0-9._-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) > 100
    for block in blocks:
        name = block.split("==")[0]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), name
        assert not re.search(r"--hash=(?!sha256)", block), name
    assert " @ " not in LOCK and "git+" not in LOCK and "://" not in LOCK and "-e " not in LOCK


def test_nothing_is_asked_for_by_url():
    asked = PROJECT["dependencies"] + sum(PROJECT["optional-dependencies"].values(), [])
    assert not [r.name for r in map(Requirement, asked) if r.url]
    environment = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "://" not in environment and "git+" not in environment


def test_the_set_up_installs_by_hash_alone():
    for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines():
        if "pip install" in line and "-r " in line:
            assert "--require-hashes" in line, line
        elif "pip install" in line and line.startswith("\t"):
            assert "--no-deps" in line and "--no-build-isolation" in line, line


def test_each_direct_dependency_has_one_reason():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("## Dependencies, and why")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")][1:]
    named = [name.strip() for row in rows for name in row[0].split(",")]
    asked = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert asked == set(named) and len(named) == len(set(named))
    assert all(row[1].strip() for row in rows)


def test_every_import_is_declared_or_named():
    """A package that is imported stands in the table, or below it with the one that brings it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    below = readme.split("What these bring along")[1].split("\n\n")[0]
    brought = dict(re.findall(r"([a-z-]+)\s\(([a-z-]+)\)", below))
    asked = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert set(brought.values()) <= asked
    homes = metadata.packages_distributions()
    homes["parselmouth"] = ["praat-parselmouth"]  # one compiled file, which that list lacks
    for name, text in sources():
        if not name.startswith("saeutils/"):
            continue
        for node in ast.walk(ast.parse(text)):
            modules = ([alias.name for alias in node.names] if isinstance(node, ast.Import) else
                       [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            for module in {module.split(".")[0] for module in modules}:
                if module in sys.stdlib_module_names or module == "saeutils":
                    continue
                known = {re.sub("[-_.]+", "-", home).lower() for home in homes.get(module, [])}
                assert known & (asked | set(brought)), f"{name} imports {module}"


def test_workflows_pin_their_actions_and_ask_for_little():
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert content.get("permissions") == {"contents": "read"}, f"{path.name}: permissions"
        for job in content["jobs"].values():
            for step in job["steps"]:
                if "uses" in step:
                    owner, _, version = step["uses"].partition("@")
                    assert owner.startswith("actions/"), f"{path.name}: {owner} is of others"
                    assert re.fullmatch(r"[0-9a-f]{40}", version), f"{step['uses']}: no commit"


def test_the_audit_that_cannot_ask_says_so_and_fails(monkeypatch, capsys):
    import audit_lock

    monkeypatch.setattr(audit_lock, "tool", lambda: None)
    assert audit_lock.main() == 2 and "not checked" in capsys.readouterr().err
    monkeypatch.setattr(audit_lock, "tool", lambda: [sys.executable, "-c", "raise SystemExit(1)"])
    assert audit_lock.main() == 2 and "not checked" in capsys.readouterr().err
    known = "import sys; sys.stderr.write('Found 1 known vulnerability in 1 package'); sys.exit(1)"
    monkeypatch.setattr(audit_lock, "tool", lambda: [sys.executable, "-c", known])
    assert audit_lock.main() == 1 and "not checked" not in capsys.readouterr().err


def test_smoke_and_demo_open_no_connection(tmp_path):
    """The chain's keys, the shipped encoder and its twin loaded, and stage 02's way with a clip."""
    code = """
import socket, sys
def refuse(*a, **k): raise SystemExit("a connection was opened")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.create_connection = socket.getaddrinfo = refuse
from pathlib import Path
import numpy, soundfile
from saeutils import activations, keys
from saeutils.encoders import load_encoder
soundfile.write(sys.argv[1], numpy.sin(numpy.arange(16000) / 5), 16000)
for profile in ("smoke", "demo"):
    for step in keys.chain(profile):
        if step.number == "02":
            encoder = load_encoder(step.source)
            states = activations.extract(encoder, [Path(sys.argv[1])])
            print(profile, step.encoder, *states["masked"].shape)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.wav")], cwd=ROOT,
                          capture_output=True, text=True)
    lines = done.stdout.split("\n")
    for profile in ("smoke", "demo"):
        for encoder in ("demo", "untrained"):
            assert f"{profile} {encoder} 1 7 192" in lines, done.stdout + done.stderr


def test_what_is_promised_is_written_down():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for word in ("What is promised", "Reporting", "weights-only", "make audit", "not checked"):
        assert word in text
