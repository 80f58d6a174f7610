"""Equal results: other processes, locale, time zone, file order, time stamps change no byte.

On one machine runs are compared bit for bit. Across machines the spread over seeds is the
tolerance (`make check`). All seeds come from `saeutils.keys.seed_for`.
"""

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


def turkish_and_german():
    return {"LC_ALL": "tr_TR.UTF-8", "LANG": "de_DE.UTF-8", "TZ": "Asia/Kathmandu"}


def test_keys_know_no_locale_zone_or_hash_seed(tmp_path):
    code = ("import json; from saeutils import keys; "
            "print(json.dumps({s.label: s.key for s in keys.chain('demo')}))")

    def found(**more):
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True,
                              text=True, env=torture.environment(tmp_path, **more), check=True)
        return json.loads(done.stdout)

    assert found(PYTHONHASHSEED="1") == found(PYTHONHASHSEED="2", **turkish_and_german())


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


def test_seeds_have_one_source():
    """No room or notebook of the chain draws without a seed that is handed to it."""
    import ast

    def draws(text):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                if call.endswith("default_rng") and not node.args and not node.keywords:
                    yield call
                if re.fullmatch(r"(np|numpy)\.random\.(randn?|randint|shuffle|permutation|"
                                r"choice)|random\.(random|shuffle|choice|sample)", call):
                    yield call

    found = {}
    for path in sorted((ROOT / "saeutils").glob("*.py")):
        if path.stem not in ("run", "publish", "estimates"):
            found[path.name] = list(draws(path.read_text(encoding="utf-8")))
    for path in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found[path.name] = [call for cell in cells if cell["cell_type"] == "code"
                            for call in draws("".join(cell["source"]).replace("%", "#"))]
    assert not {name: calls for name, calls in found.items() if calls}
