"""Keys: what changes them, what does not, and that seeds are stable and unrelated."""

import hashlib
import json
import os
import shutil
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saeutils import inputs, keys
from saeutils.profiles import Data, Extraction, data_folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project's code and notebooks that a test may edit."""
    for name in ("saeutils", "notebooks", "profiles"):
        ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(keys.ROOT / name, tmp_path / name, ignore=ignore)
    (tmp_path / "data" / "reference").mkdir(parents=True)
    (tmp_path / "data" / "encoders" / "demo").mkdir(parents=True)
    (tmp_path / "data" / "encoders" / "demo" / "config.json").write_text("{}")
    (tmp_path / "data" / "encoders" / "demo" / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(keys, "ROOT", tmp_path)
    return tmp_path


def all_keys(overrides=None, run_name="test"):
    for cache in (keys.code_digests, keys._room_tree, keys._room_text, keys._rooms_below):
        cache.cache_clear()
    return {s.label: s.key for s in keys.chain("demo", run_name, overrides)}


def edit_notebook(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_seed_is_a_fixed_function_of_its_names():
    text = b'[1, "03", "sae", "2"]'
    by_hand = int(hashlib.sha256(text).hexdigest()[:8], 16) // 2
    assert keys.seed_for(1, "03", "sae", 2) == keys.seed_for(1, "03", "sae", "2") == by_hand


@given(st.integers(0, 2**31 - 1), st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_seeds_differ_between_stages_and_fit_31_bits(seed, names):
    one, two = keys.seed_for(seed, "03", *names), keys.seed_for(seed, "04", *names)
    assert 0 <= one < 2**31 and one != two


def test_saving_a_notebook_with_outputs_changes_no_key(project):
    before = all_keys()

    def save(content):
        for cell in content["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["hello"]}]
                cell["execution_count"] = 7
            else:
                cell["source"] = ["other words"]
        content["metadata"]["widgets"] = {}

    for path in (project / "notebooks").glob("0*.ipynb"):
        edit_notebook(path, save)
    assert all_keys() == before


def test_a_code_cell_changes_its_stage_and_those_after_it(project):
    before = all_keys()
    path = next((project / "notebooks").glob("03_*.ipynb"))
    edit_notebook(path, lambda c: c["cells"].append(
        {"cell_type": "code", "metadata": {}, "source": ["extra = 1"], "outputs": [],
         "execution_count": None, "id": "x"}))
    changed = {label for label, key in all_keys().items() if key != before[label]}
    assert changed == {f"{n}_{e}" for n in ("03", "04", "05") for e in ("demo", "untrained")} | {
        "06"} | ({"07_demo", "07_untrained"} & set(before))


def test_one_parameter_changes_its_stage_and_those_after_it(project):
    before, after = all_keys(), all_keys({"sae.n_seeds": 1})
    changed = {label[:2] for label in before if before[label] != after[label]}
    assert changed == {"03", "04", "05", "06"} | ({"07"} & {label[:2] for label in before})


def test_comments_and_docstrings_change_nothing_but_code_does(project):
    path = project / "saeutils" / "sae.py"
    text = path.read_text()
    before = all_keys()
    path.write_text('"""Another docstring."""\n' + text.split('"""', 2)[2] + "\n# a comment\n")
    assert all_keys() == before
    path.write_text(text + "\nADDED = 1\n")
    changed = {label[:2] for label, key in all_keys().items() if key != before[label]}
    assert "03" in changed and not {"00", "01", "02"} & changed


def test_other_weights_change_the_encoder_that_holds_them_only(project):
    before = all_keys()
    (project / "data" / "encoders" / "demo" / "model.safetensors").write_bytes(b"others")
    changed = {label for label, key in all_keys().items() if key != before[label]}
    assert "02_demo" in changed and "02_untrained" not in changed and "01" not in changed


def test_time_stamps_count_for_nothing(project):
    before = all_keys()
    for path in project.rglob("*"):
        path.touch()
    assert all_keys() == before


@pytest.mark.parametrize("arguments, words", [
    (("09", "demo"), "unknown stage '09'"),
    (("03", "demo"), "unknown encoder None"),
])
def test_unknown_steps_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        keys.find_step(*arguments)


def test_overrides_need_a_run_of_their_own():
    with pytest.raises(ValueError, match="sae.n_seeds.*--run-name"):
        keys.chain("demo", "", {"sae.n_seeds": 1})
    assert keys.chain("demo", "mine", {"sae.n_seeds": 1})[0].run == "mine"


@pytest.mark.parametrize("name", ["a/b", "..", "reference", "encoders", "a b"])
def test_a_run_name_is_a_folder_name(name):
    with pytest.raises(ValueError, match="run name"):
        keys.chain("demo", name)


def test_what_is_yet_to_run_includes_all_that_reads_it():
    steps = keys.chain("smoke")
    assert keys.unfinished(steps) == steps
    for step in steps:
        step.marker.parent.mkdir(parents=True, exist_ok=True)
        step.marker.write_text("")
    assert keys.unfinished(steps) == []
    next(s for s in steps if s.label == "03_demo").marker.unlink()
    assert [s.label for s in keys.unfinished(steps)] == ["03_demo", "04_demo", "05_demo", "06",
                                                         "07_demo"]


def test_only_an_extraction_of_several_jobs_has_parts():
    steps = {step.label: step for step in keys.chain("smoke")}
    assert steps["02_demo"].part_markers(1) == steps["03_demo"].part_markers(3) == []
    names = [path.name for path in steps["02_demo"].part_markers(2)]
    assert [name[-7:] for name in names] == ["_1_of_2", "_2_of_2"]
    assert steps["02_demo"].key[:16] in names[0]


# --- own files, remembered ------------------------------------------------------------------
@pytest.fixture
def own(tmp_path, monkeypatch):
    """A sound, an encoder's weights and a label table of one line; all count as settled."""
    monkeypatch.setattr(inputs, "SETTLED_S", -1e9)
    for name in ("a.wav", "model.safetensors"):
        (tmp_path / name).write_bytes(bytes(300_000))
    (tmp_path / "labels.csv").write_text("path,label,group\na.wav,x,y\n")
    return tmp_path


def own_digests(folder):
    data = Data(source="folder", audio_dir=str(folder), labels=str(folder / "labels.csv"))
    return (inputs.material_digests(data)["audio"],
            inputs.encoder_digests(str(folder), Extraction())["encoder model.safetensors"],
            inputs.tree_digest(folder))


def test_an_edit_in_the_middle_changes_the_checksum_though_size_and_time_stay(own):
    before = own_digests(own)
    for name in ("a.wav", "model.safetensors"):
        stamps = (own / name).stat()
        with open(own / name, "r+b") as handle:
            handle.seek(150_000)
            handle.write(b"click")
        os.utime(own / name, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    assert not set(own_digests(own)) & set(before)


def test_a_second_question_reads_nothing(own, monkeypatch):
    before = own_digests(own)
    monkeypatch.setattr(inputs.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert own_digests(own) == before
    (own / "a.wav").touch()
    with pytest.raises(pytest.fail.Exception, match="read again"):
        own_digests(own)


def test_a_file_changed_just_now_is_read_again(own, monkeypatch):
    monkeypatch.setattr(inputs, "SETTLED_S", 3.0)
    own_digests(own)
    monkeypatch.setattr(inputs.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    with pytest.raises(pytest.fail.Exception, match="read again"):
        own_digests(own)


@pytest.mark.parametrize("what", ["missing", "damaged", "a folder", "a file above", "read-only",
                                  "locked"])
def test_without_a_memory_the_checksums_are_the_same(own, what, monkeypatch):
    memory, held = data_folder() / "cache" / "checksums.sqlite", None
    before = own_digests(own)
    if what == "missing":
        memory.unlink()
    elif what == "damaged":
        memory.write_bytes(b"no database " * 500)
    elif what == "a folder":
        memory.unlink()
        memory.mkdir()
    elif what == "a file above":
        shutil.rmtree(memory.parent)
        memory.parent.write_text("")
    elif what == "read-only":
        sqlite3.connect(memory).execute("DELETE FROM files").connection.commit()
        opened = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda path, **_: opened(
            f"file:{path}?mode=ro", uri=True))
    else:
        held = sqlite3.connect(memory)
        held.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(inputs, "WAIT_S", 0.1)
    assert own_digests(own) == before
    if what == "damaged":  # the next command has a memory again
        assert memory.read_bytes().startswith(b"SQLite")
    if held:
        held.close()


def test_a_synthetic_run_remembers_nothing():
    keys.chain("demo")
    assert not (data_folder() / "cache").exists()
