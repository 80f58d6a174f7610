"""An encoder by id or folder in a run: names of folders and tables, keys, refusals."""

import pytest

from saeutils import keys
from saeutils.profiles import encoder_slug, load_profile


@pytest.mark.parametrize("name, slug", [
    ("hubert", "hubert"), ("org/name", "org--name"), ("org/name@v1.0", "org--name"),
    ("/some/where/my model/", "my-model"), ("~/models/x.y", "x.y"),
    ("./results", "encoder-results"),
])
def test_short_names_are_folder_names(name, slug):
    assert encoder_slug(name) == slug


def test_an_encoder_beside_those_of_the_profile():
    source = "facebook/wav2vec2-base@main"
    step = keys.find_step("03", "smoke", encoder=source)
    assert step.encoder == "facebook--wav2vec2-base" and step.source == source
    assert step.label == "03_facebook--wav2vec2-base" and step.root.name == step.encoder
    assert {need.label for need in step.needs} == {"01", "02_facebook--wav2vec2-base"}
    other = keys.find_step("02", "smoke", encoder="facebook/wav2vec2-base@v2")
    assert other.key != keys.find_step("02", "smoke", encoder="facebook/wav2vec2-base@main").key
    assert keys.find_step("02", "smoke", encoder="hubert").encoder == "hubert"
    with pytest.raises(ValueError, match="unknown encoder 'huber'.*demo, untrained"):
        keys.find_step("02", "smoke", encoder="huber")


def test_a_folder_s_files_are_part_of_the_key(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"a")
    first = keys.find_step("02", "smoke", encoder=str(tmp_path)).key
    (tmp_path / "model.safetensors").write_bytes(b"b")
    assert keys.find_step("02", "smoke", encoder=str(tmp_path)).key != first


def test_own_states_are_part_of_the_key_and_one_encoder_s(tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"a")
    changes = {"extraction.activations": str(path), "encoders": ["mine"]}
    first = keys.find_step("02", "demo", encoder="mine", run_name="x", overrides=changes).key
    path.write_bytes(b"b")
    second = keys.find_step("02", "demo", encoder="mine", run_name="x", overrides=changes).key
    assert first != second
    with pytest.raises(ValueError, match="states of one encoder.*demo, untrained"):
        load_profile("demo", {"extraction.activations": str(path)})


def test_the_place_of_downloaded_models_is_no_part_of_the_key():
    a, b = (keys.find_step("02", "demo", encoder="demo", run_name="x",
                           overrides={"extraction.hub_cache": place}).key for place in "ab")
    assert a == b


@pytest.mark.parametrize("names, words", [
    (["org/a", "org--a"], "twice"), (["a'b"], "no encoder's name"), (["$(x)/y"], "no encoder's"),
    ([".."], "no encoder's name"),
])
def test_names_that_cannot_be_told_apart_or_run_something_are_refused(names, words):
    with pytest.raises(ValueError, match=words):
        load_profile("demo", {"encoders": names})


@pytest.mark.parametrize("name", ["own_encoder", "own_activations"])
def test_examples_are_ten_lines_and_valid(name):
    path = keys.ROOT / "profiles" / f"{name}.example.yaml"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 10
    assert load_profile(str(path)).name == name
