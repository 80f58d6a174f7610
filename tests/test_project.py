"""The project as a whole: one set of requirements, floors that hold, nothing that may not ship."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from saeutils.profiles import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", LOCK, flags=re.MULTILINE))
ASKED = [Requirement(line) for line in PROJECT["dependencies"]
         + PROJECT["optional-dependencies"]["test"]]

# A room imports only from rooms below it; rooms of one floor may use each other downwards.
FLOORS = [
    {"profiles", "plain_code", "plain_yaml", "files", "inputs", "keys", "machine", "store",
     "protocol"},
    {"datasets", "downloads", "vocalset", "labels", "recordings", "attributes", "synthesis",
     "synthesis_controls", "synthesis_voice", "synthesis_filters", "synthesis_counterfactuals",
     "lf_voice", "handmade", "audit_data"},
    {"encoders", "encoders_hub", "encoders_inputs", "encoders_models", "encoders_forward",
     "encoder_costs", "encoders_released", "own_activations", "audit_encoder",
     "activations", "parts", "pretraining", "pretraining_data", "sae",
     "sae_starts", "sae_metrics", "sae_kernels", "sae_sparse", "sae_torch", "sae_training",
     "sae_grid", "sae_variants", "sae_stream", "sae_stacked", "audit_training"},
    {"statistics", "scores", "lasso", "lasso_kernels", "probe_kernels", "logistic_kernels",
     "probing", "probe_cells", "representations",
     "completeness", "disentanglement", "penalties", "map_cells", "stability", "realism",
     "report", "claim_sentences", "curves", "interventions", "audit", "audit_maps", "instrument",
     "single_codes", "claims", "claim_numbers", "curve_tables", "nulls", "null_cells",
     "cross_validation", "material", "report_card", "atlas_latents", "atlas_evidence"},
    {"plots", "plots_evidence", "plots_report", "plots_overview", "plots_atlas", "plots_tour",
     "atlas", "atlas_names", "atlas_sound", "frames", "recorder", "publish", "run", "chain",
     "estimates", "encoder_card",
     "exercise_judge", "exercises", "stick", "site"},
]


@pytest.mark.parametrize("requirement", ASKED, ids=lambda r: r.name)
def test_the_lock_holds_what_the_project_asks_for(requirement):
    assert requirement.name in PINNED, "compile the lock again: make lock"
    assert requirement.specifier.contains(PINNED[requirement.name])


def test_every_dependency_has_its_reason():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("## Dependencies, and why")[1].split("\n## ")[0]
    reasons = set(re.findall(r"[a-z][a-z0-9-]+", " ".join(
        line.split("|")[1] for line in table.splitlines() if line.startswith("| "))))
    missing = {Requirement(line).name for line in PROJECT["dependencies"]} - reasons
    assert not missing


def test_conda_users_get_the_same_lock_and_python():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    parts = environment["dependencies"]
    pip = next(part["pip"] for part in parts if isinstance(part, dict))
    assert pip == ["-r requirements.lock"]
    python = next(p for p in parts if isinstance(p, str) and p.startswith("python"))
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])


def test_every_lock_line_has_hashes_and_no_address():
    blocks = re.split(r"^(?=[A-Za-z0-9._-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(PINNED) and all("--hash=sha256:" in block for block in blocks)
    assert "://" not in LOCK and "--index" not in LOCK and "--find-links" not in LOCK


def rooms():
    return {path.stem: ast.parse(path.read_text(encoding="utf-8"))
            for path in (ROOT / "saeutils").glob("*.py") if path.stem != "__init__"}


def imported_rooms(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "saeutils":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("saeutils."):
            yield node.module.split(".")[1]


def test_every_room_stands_on_a_floor():
    assert set(rooms()) <= set().union(*FLOORS)


def test_no_room_imports_from_a_floor_above():
    floor = {room: i for i, names in enumerate(FLOORS) for room in names}
    wrong = [f"{room} imports {lower}" for room, tree in rooms().items()
             for lower in imported_rooms(tree) if floor[lower] > floor[room]]
    assert not wrong


def test_analysis_rooms_know_no_paths_profiles_or_plots():
    for room, tree in rooms().items():
        if room in FLOORS[3]:
            names = set(imported_rooms(tree))
            above_or_on_disk = {"profiles", "files", "store", "keys", "plots", "plots_evidence",
                                "plots_report", "plots_overview", "plots_tour"}
            assert not names & above_or_on_disk, room


def test_only_plots_and_atlas_draw():
    for room, tree in rooms().items():
        if room not in ("plots", "plots_evidence", "plots_report", "plots_overview",
                        "plots_atlas", "plots_tour"):
            text = ast.unparse(tree)
            assert "matplotlib" not in text and "seaborn" not in text, room


def test_importing_the_package_loads_nothing():
    code = ("import sys, saeutils; heavy = {'torch', 'numpy', 'pandas', 'transformers'} "
            "& set(sys.modules); assert not heavy, heavy")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keys_are_computed_without_heavy_imports():
    code = ("import sys; from saeutils.keys import chain; chain('demo'); "
            "heavy = {'torch', 'pandas', 'transformers'} & set(sys.modules); assert not heavy")
    subprocess.run([sys.executable, "-c", code], check=True)


def tracked():
    result = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True,
                            check=False)
    if result.returncode:  # an unpacked archive has no git: look at the files themselves
        skip = (".venv", ".snakemake", ".git")
        return [p for p in ROOT.rglob("*") if p.is_file() and not set(skip) & set(p.parts)]
    return [ROOT / name for name in result.stdout.split("\0") if name and (ROOT / name).exists()]


def test_no_pickles_and_no_large_files():
    files = tracked()
    assert not [p for p in files if p.suffix in (".pkl", ".pickle", ".pt", ".pth", ".joblib")]
    large = [p.name for p in files if p.stat().st_size > 5e6 and p.suffix != ".safetensors"]
    weights = [p.name for p in files if p.suffix == ".safetensors" and p.stat().st_size > 20e6]
    assert not large and not weights
    assert sum(p.stat().st_size for p in files) < 60e6


def test_nothing_is_unpickled_and_no_remote_code_runs():
    for room, tree in rooms().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                assert call not in ("torch.load", "pickle.load", "pickle.loads", "eval", "exec"), (
                    f"{room}: {call}")
                assert not any(k.arg == "trust_remote_code" for k in node.keywords), room
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{room}: bare except"


def test_modules_stay_readable():
    long = {path.name: count for path in (ROOT / "saeutils").glob("*.py")
            if (count := len(path.read_text(encoding="utf-8").splitlines())) > 400}
    assert not long
