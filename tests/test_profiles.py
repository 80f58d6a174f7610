"""Profiles: what is refused, and that each committed one is valid."""

import pytest

from saeutils.profiles import available, load_profile


@pytest.mark.parametrize("name", available())
def test_every_committed_profile_is_valid(name):
    assert load_profile(name).name == name


def test_extends_keeps_what_is_not_named():
    demo, smoke = load_profile("demo"), load_profile("smoke")
    assert smoke.seed == demo.seed and smoke.sae.width_factor == demo.sae.width_factor
    assert smoke.sae.n_seeds == 1 < demo.sae.n_seeds


def test_overrides_change_one_key_only():
    changed = load_profile("demo", {"sae.n_seeds": 1})
    assert changed.sae.n_seeds == 1
    same = changed.model_dump() | {"sae": load_profile("demo").sae.model_dump()}
    assert same == load_profile("demo").model_dump()


@pytest.mark.parametrize("name, overrides, words", [
    ("demoo", None, ["unknown profile 'demoo'", "did you mean demo?"]),
    ("demo", {"sae.n_seed": 1}, ["unknown key 'sae.n_seed'", "did you mean n_seeds?"]),
    ("demo", {"sae.sparsities": [101]}, ["sae.sparsities.0 = 101", "less than 100"]),
    ("demo", {"sae.sparsities": [-5]}, ["sae.sparsities.0 = -5", "greater than 0"]),
    ("demo", {"sae.n_seeds": 0}, ["sae.n_seeds = 0"]),
    ("demo", {"sae.n_seeds": "many"}, ["sae.n_seeds = 'many'", "integer"]),
    ("demo", {"sae.sparsities": [75, 90]}, ["sae.sparsities lacks 95", "primary cell"]),
    ("demo", {"sae.sparsities": [95]}, ["lacks 75", "probing.concept_sparsities"]),
    ("demo", {"nothing.here": 1}, ["unknown key 'nothing'"]),
    ("demo", {"seed.x": 1}, ["'seed' holds a value"]),
])
def test_refusals_name_the_value_and_what_is_allowed(name, overrides, words):
    with pytest.raises(ValueError) as caught:
        load_profile(name, overrides)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("text, words", [
    ("a: [1", "is not valid YAML"), ("- 1", "must hold keys and values"),
    ("extends: nothing", "unknown profile 'nothing'"),
])
def test_broken_files_are_refused(tmp_path, text, words):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        load_profile(str(path))


def test_own_profile_of_a_few_lines(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("extends: demo\nsae: {n_seeds: 1}\n")
    assert load_profile(str(path)).name == "own"
