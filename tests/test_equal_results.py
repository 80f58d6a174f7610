"""Equal results: other processes, locale, time zone, file order, time stamps change no byte.

On one machine runs are compared bit for bit. Across machines the spread over seeds is the
tolerance (`make check`). All seeds come from `saeutils.keys.seed_for`.
"""

import ast
import json
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
import torture
import trials

from saeutils import keys
from saeutils.profiles import ROOT, Data


@pytest.mark.slow
@pytest.mark.timeout(4500)
def test_other_processes_locale_zone_and_time_stamps_change_no_byte(clean, tmp_path):
    """The clean run: two processes, this tree. The other: one process, three jobs an encoder, a
    copy with one time stamp, elsewhere in the world. `make torture` runs them one by one.
    """
    assert trials.other_world(clean, tmp_path, trials.TOGETHER)["files"] > 30


@pytest.mark.slow
@pytest.mark.timeout(4500)
def test_another_python_changes_no_byte(clean, tmp_path):
    pythons = trials.other_pythons()
    if not pythons:
        pytest.skip("no other python3.N on the PATH that can import what the chain needs")
    for python in pythons:
        line = trials.other_world(clean, tmp_path, trials.version(python), python)
        assert line["files"] > 30, python


def test_another_python_counts_if_it_can_run_the_chain(tmp_path, monkeypatch):
    ours, others = sys.version_info[1], [n for n in (12, 13, 14) if n != sys.version_info[1]]
    for minor, status in ((ours, 0), (others[0], 1), (others[1], 0)):
        (tmp_path / f"python3.{minor}").write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / f"python3.{minor}").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert trials.other_pythons() == [str(tmp_path / f"python3.{others[1]}")]


def keys_under(folder, code="pass", **more):
    """Keys of the demo as another process finds them; `code` goes first."""
    code = (f"import json; {code}; from saeutils import keys; "
            "print(json.dumps({s.label: s.key for s in keys.chain('demo')}))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          env=torture.environment(folder, **more), check=True)
    return json.loads(done.stdout)


def test_keys_know_no_zone_or_hash_seed(tmp_path):
    assert keys_under(tmp_path, PYTHONHASHSEED="1") == keys_under(
        tmp_path, PYTHONHASHSEED="2", TZ="Asia/Kathmandu")


def test_keys_know_no_locale(tmp_path):
    """In force, and built if need be: many machines have C and POSIX only, whatever is named."""
    turkish = trials.turkish(tmp_path / "locales")
    if not turkish:
        pytest.skip("no Turkish locale here, and no localedef that builds one")
    comma = ("import locale; locale.setlocale(locale.LC_ALL, ''); "
             "assert locale.str(1.5) == '1,5', locale.str(1.5)")
    assert keys_under(tmp_path) == keys_under(tmp_path, comma, **turkish)


def test_a_locale_that_is_only_named_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "in_force", lambda variables: False)
    monkeypatch.setattr(trials.shutil, "which", lambda name: None)
    assert trials.turkish(tmp_path) is None


def test_saving_every_notebook_changes_no_key(tmp_path, monkeypatch):
    """As JupyterLab saves: through nbformat, with outputs, counts and other metadata."""
    for name in ("saeutils", "notebooks", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name,
                        ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("reference", "encoders"):
        shutil.copytree(ROOT / "data" / name, tmp_path / "data" / name)
    monkeypatch.setattr(keys, "ROOT", tmp_path)

    def all_keys():
        for cache in (keys.code_digests, keys._room_tree, keys._room_text, keys._rooms_below):
            cache.cache_clear()
        return {step.label: step.key for step in keys.chain("demo", "test")}

    before = all_keys()
    for path in sorted((tmp_path / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for i, cell in enumerate(notebook.cells):
            cell.metadata["scrolled"] = True
            if cell.cell_type == "code":
                cell.execution_count = i
                cell.outputs = [nbformat.v4.new_output("stream", text=f"run {i}")]
        notebook.metadata["language_info"] = {"name": "python", "version": "9.9"}
        nbformat.write(notebook, path, version=4)
    try:
        assert all_keys() == before
    finally:
        monkeypatch.undo()
        all_keys()


@pytest.fixture
def recordings(tmp_path):
    """Twelve files of four singers, and the function that reads them, files made in any order."""
    rng = np.random.default_rng(0)
    sounds = {f"s{i}/Ä {j} İ.wav": 0.2 * rng.standard_normal(8000) for i in range(4)
              for j in range(3)}

    def read(order, name, workers=1):
        from saeutils.recordings import gather

        folder = tmp_path / name
        for path in order(list(sounds)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / path, sounds[path], 16_000)
        lines = [f"{path},{'xy'[i % 2]},{path[:2]}" for i, path in enumerate(sorted(sounds))]
        (folder / "labels.csv").write_text("path,label,group\n" + "\n".join(order(lines)) + "\n",
                                           encoding="utf-8")
        data = Data(source="folder", audio_dir=str(folder), labels=str(folder / "labels.csv"))
        found = gather(data, seed=3, cached=lambda name, parts, compute: compute(),
                       workers=workers)
        return found.clips.drop(columns="audio"), found.sound

    return read


def test_the_order_of_files_and_of_lines_changes_nothing(recordings):
    def shuffled(seed):
        return lambda names: [names[i] for i in np.random.default_rng(seed).permutation(len(names))]

    first = recordings(sorted, "first")
    for name, order in (("back", lambda n: sorted(n, reverse=True)), ("mixed", shuffled(5))):
        for ours, theirs in zip(recordings(order, name), first, strict=True):
            pd.testing.assert_frame_equal(ours, theirs)


# Makers of a source of their own, from a seed that they must be given.
SOURCES = re.compile(r"(.*\.)?(default_rng|Random|Generator\(\)\.manual_seed|SeedSequence)")
# Draws from, and seeds of, the state that a whole process shares.
SHARED = re.compile(r"(np|numpy)\.random\.(?!default_rng|Generator|SeedSequence|PCG64)\w+|"
                    r"random\.(?!Random$)\w+|torch\.random\.(?!fork_rng)\w+|torch\.(cuda\.)?"
                    r"(manual_seed\w*|seed)")
TORCH = re.compile(r"torch\.(rand\w*|normal|bernoulli|multinomial|poisson)")  # need generator=
# What does not come from `seed_for`, and why.
EXCEPTIONS = {
    ("audit.py", "np.random.default_rng(0)"): "which singers choose, of too many sets to try all",
    ("audit_data.py", "np.random.default_rng(0)"): "an order that stands for the unsorted listing",
    ("audit_data.py", "resampled(seed=0)"): "bootstrap samples of singers, the same in every run",
    ("sae_starts.py", "np.random.default_rng(0)"): "which of more than enough rows give the axes",
    ("audit_data.py", "replaced(seed=42)"): "the release's own number",
    ("vocalset.py", "released_selection(seed=42)"): "the release's own number",
    ("encoders.py", "UNTRAINED_SEED = 4051"): "the untrained twin is one encoder in all runs",
    ("encoder_card.py", "SEED = 11"): "the card of the shipped encoder, beside the chain",
    ("pretraining.py", "seed = 2509"): "pre-training of the shipped encoder, beside the chain",
    ("pretraining.py", "torch.manual_seed(recipe.seed)"): "as above",
    ("pretraining.py", "torch.manual_seed(int(rng.integers(2 ** 31)))"): "from a seeded source",
    ("pretraining.py", "np.random.seed(int(rng.integers(2 ** 31)))"): "from a seeded source",
    ("encoders_models.py", "torch.manual_seed(seed)"): "inside fork_rng: initial weights",
    ("encoders_released.py", "torch.manual_seed(seed)"): "inside fork_rng: the release's dropout",
    ("encoders_released.py", "np.random.seed(seed % 2 ** 32)"): "the release's masks; put back",
    ("encoders_released.py", "np.random.get_state()"): "put back after it",
    ("encoders_released.py", "np.random.set_state(kept)"): "puts it back",
    ("encoders_released.py", "value.normal_(0, 2 if 'rel_attn_embed' in name else 0.3)"):
        "inside fork_rng: random weights for a comparison of two loaders",
    ("exercises.py", "np.random.default_rng(1)"): "checks of an answer, no result",
    ("exercises.py", "np.random.default_rng(4)"): "checks of an answer, no result",
    ("exercises.py", "np.random.default_rng(5)"): "checks of an answer, no result",
    ("sae_grid.py", "np.random.default_rng(0)"): "rows that warm the compiler, never kept",
    ("01_data_preparation.ipynb", "technique_criteria(seed=0)"): "the folds of a check of the data",
}
EXCEPTIONS |= {(room, f"{name}(seed=0)"): "folds or random signs, the same in every run unless a "
               "seed is handed over" for room, name in (
    ("cross_validation.py", "fold_scores"), ("realism.py", "grouped_accuracy"),
    ("realism.py", "technique_criteria"), ("statistics.py", "sign_flip_p"),
    ("statistics.py", "max_t_band"), ("statistics.py", "grouped_folds"))}


def is_number(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def draws(text):
    """What in a text draws from a shared source, or from one whose seed is a plain number."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            call, given = ast.unparse(node.func), [*node.args, *(k.value for k in node.keywords)]
            if SHARED.fullmatch(call):
                yield ast.unparse(node)
            if TORCH.fullmatch(call) and "generator" not in {k.arg for k in node.keywords}:
                yield ast.unparse(node)
            if call.split(".")[-1] in ("normal_", "uniform_", "bernoulli_", "random_"):
                yield ast.unparse(node)
            if SOURCES.fullmatch(call) and all(map(is_number, given)):
                yield ast.unparse(node)
            for word in node.keywords if not call.endswith(".assign") else ():  # a table's column
                if word.arg in ("seed", "random_state") and is_number(word.value):
                    yield f"{call.removeprefix('realism.')}({word.arg}={ast.unparse(word.value)})"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            plain = node.args.posonlyargs + node.args.args
            pairs = [*zip(plain[::-1], node.args.defaults[::-1], strict=False),
                     *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
            for argument, default in pairs:
                if argument.arg in ("seed", "random_state") and is_number(default):
                    yield f"{node.name}({argument.arg}={ast.unparse(default)})"
        elif isinstance(node, ast.Assign | ast.AnnAssign) and is_number(node.value):
            for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
                name = ast.unparse(target)
                if re.fullmatch(r"(\w+_)?seed", name, re.IGNORECASE):
                    yield f"{name} = {ast.unparse(node.value)}"


def test_seeds_have_one_source():
    """No room or notebook of the chain draws but from `seed_for`, with named exceptions."""
    found = set()
    for path in sorted((ROOT / "saeutils").glob("*.py")):
        if path.stem not in ("run", "publish", "estimates", "profiles"):
            found |= {(path.name, call) for call in draws(path.read_text(encoding="utf-8"))}
    for path in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found |= {(path.name, call) for cell in cells if cell["cell_type"] == "code"
                  for call in draws("".join(cell["source"]).replace("%", "#"))}
    assert not found - set(EXCEPTIONS)
    assert not set(EXCEPTIONS) - found, "an exception that is none any more"


@pytest.mark.parametrize("text", [
    "np.random.normal(0, 1, 5)", "np.random.uniform()", "np.random.seed(3)", "numpy.random.rand()",
    "torch.randn(3)", "torch.manual_seed(seed)", "torch.cuda.manual_seed_all(0)", "torch.rand(2)",
    "torch.randperm(9)", "random.uniform(0, 1)", "random.seed(1)", "w.data.normal_(0, 2)",
    "np.random.default_rng()", "np.random.default_rng(0)", "default_rng(seed=7)",
    "random.Random(3)",
    "torch.Generator().manual_seed(5)", "split(rows, random_state=42)", "MY_SEED = 4",
    "def f(x, seed=0): pass", "def f(*, seed: int = 1): pass"])
def test_a_draw_beside_seed_for_is_seen(text):
    assert list(draws(text))


@pytest.mark.parametrize("text", [
    "np.random.default_rng(stage.seed('a'))", "np.random.default_rng([seed, 2])",
    "rng.normal(0, 1)", "torch.randn(3, generator=rng)", "random.Random(seed)",
    "torch.Generator().manual_seed(stage.seed('toy'))", "f(seed=stage.seed('b'))", "n_seeds = 3"])
def test_a_draw_from_a_seed_that_was_handed_over_is_none(text):
    assert not list(draws(text))
