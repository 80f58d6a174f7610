"""Bad inputs, one by one from a table and by the thousand from mutations: never a traceback."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys

import bad_inputs
import numpy as np
import pytest
import soundfile
from bad_inputs import COMMANDS, RATE, ROWS, TONE
from hypothesis import given, settings
from hypothesis import strategies as st

from saeutils import files, keys, labels, plain_yaml, profiles, publish, run, sae
from saeutils.datasets import read_audio
from saeutils.profiles import ROOT
from saeutils.store import StageError

MUTATIONS = 600


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.area}: {row.what}")
def test_a_bad_input_is_refused_in_one_line_with_the_way_out(row, tmp_path):
    with pytest.raises(ValueError) as caught:
        getattr(bad_inputs, row.verb)(*row.make(tmp_path))
    assert caught.type in (ValueError, StageError)  # of others, run.py shows a traceback
    message = str(caught.value)
    assert re.search(row.says, message, re.DOTALL), message
    assert "\n" not in message and len(message) < 1500


def test_the_table_is_as_wide_as_it_claims():
    assert len({(row.area, row.what) for row in ROWS}) == len(ROWS) >= 100
    assert {row.area for row in ROWS} == {"audio", "tables", "profiles", "encoders", "SAE folders",
                                          "downloads", "archives"}


@pytest.mark.parametrize("what, arguments, says", COMMANDS, ids=[c[0] for c in COMMANDS])
def test_a_bad_command_is_one_error_and_no_traceback(what, arguments, says, capsys):
    try:
        status = run.main(arguments)
    except SystemExit as stop:  # argparse prints its usage and leaves
        status = stop.code
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if "error:" in line]
    assert status != 0 and len(lines) == 1 and "Traceback" not in error
    assert re.search(says, error, re.DOTALL), error


def test_publishing_what_was_not_run_is_one_error(capsys):
    assert publish.main(["check", "--profile", "smoke"]) == 1
    assert publish.main(["all", "--profile", "smoke"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 2 == error.count("error:") and "make reproduce" in error


def test_no_bad_archive_writes_outside_its_folder(tmp_path):
    for i, row in enumerate(row for row in ROWS if row.area == "archives"):
        home = tmp_path / "deep" / str(i)
        home.mkdir(parents=True)
        with pytest.raises(ValueError):
            bad_inputs.unpack(*row.make(home))
        assert {p.name for p in home.iterdir()} <= {"VocalSet.zip", "unpacked"}
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]


def test_a_checkpoint_that_names_code_runs_none_of_it(tmp_path):
    """transformers asks on the terminal whether to run such code: it must not come to that."""
    (folder,) = bad_inputs.encoder_folder(bad_inputs.settings(
        "config.json", model_type="own", auto_map={"AutoConfig": "own.Config"}))(tmp_path)
    (folder / "own.py").write_text("open(__file__ + '.ran', 'w').write('x')\nclass Config: pass\n")
    code = f"from saeutils.encoders import load_encoder; load_encoder({str(folder)!r})"
    done = subprocess.run([sys.executable, "-c", code], input="y\n", capture_output=True, text=True)
    assert done.returncode != 0 and "code of its own" in done.stderr
    assert "Do you wish" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.ran"))


def test_a_pickle_runs_nothing(tmp_path):
    (folder,) = bad_inputs.encoder_folder(bad_inputs.evil_pickle)(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        bad_inputs.encoder(folder)
    assert not (folder / "ran").exists()


# --- what is odd and must work ---------------------------------------------------------------
GOOD = [
    ("8 bit", dict(subtype="PCM_U8"), 0.008), ("24 bit", dict(subtype="PCM_24"), 1e-6),
    ("32 bit", dict(subtype="PCM_32"), 1e-6), ("float32", dict(subtype="FLOAT"), 1e-7),
    ("float64", dict(subtype="DOUBLE"), 1e-7), ("mu-law", dict(subtype="ULAW"), 0.01),
    ("big endian", dict(endian="BIG"), 1e-4), ("96 kHz", dict(samplerate=96_000), 1e-4),
    ("8 kHz", dict(samplerate=8_000), 1e-4), ("stereo", dict(channels=2), 1e-4),
    ("six channels", dict(channels=6), 1e-4), ("spaces", dict(name="a b (1).wav"), 1e-4),
    ("unicode", dict(name="ä ö ł 歌 🎤.wav"), 1e-4), ("upper case", dict(name="A.WAV"), 1e-4),
    ("FLAC named .wav", dict(name="a.wav", format="FLAC"), 1e-4),
    ("WAV named .flac", dict(name="a.flac", format="WAV"), 1e-4),
]


@pytest.mark.parametrize("what, how, tolerance", GOOD, ids=[g[0] for g in GOOD])
def test_odd_but_good_audio_is_read_as_it_is(what, how, tolerance, tmp_path):
    how = dict(how)
    path, rate = tmp_path / how.pop("name", "a.wav"), how.pop("samplerate", RATE)
    samples = np.repeat(TONE[:, None], how.pop("channels", 1), axis=1)
    soundfile.write(path, samples, rate, **how)
    read, read_rate = read_audio(path)
    assert read_rate == rate and read.shape == TONE.shape and read.dtype == np.float32
    assert np.abs(read - TONE).max() <= tolerance


def test_clipped_audio_is_read_and_its_peak_is_full_scale(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.clip(TONE * 100, -1, 1), RATE, subtype="PCM_24")
    assert np.abs(read_audio(tmp_path / "a.wav")[0]).max() == pytest.approx(1, abs=1e-6)


def test_an_hour_of_audio_is_read(tmp_path):
    """More than two are refused (the table); one is long, and fits."""
    long = np.tile(TONE[:800:100], 3600 * 125)
    soundfile.write(tmp_path / "a.wav", long, 1000, subtype="PCM_U8")
    samples, rate = read_audio(tmp_path / "a.wav")
    assert len(samples) == 3600 * rate == 3_600_000 and np.isfinite(samples).all()


# --- any text at all -------------------------------------------------------------------------
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                      lambda inner: st.lists(inner, max_size=3)
                      | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6)


@given(st.text(max_size=40))
def test_any_text_is_yaml_or_refused_in_one_line(text):
    survive(lambda content: plain_yaml.read_yaml(content), [text])


@given(st.sampled_from(["seed", "encoders", "sae.sparsities", "sae.layers", "data.clip_seconds",
                        "data.note", "extraction.device", "probing.penalties"]), VALUES)
@settings(max_examples=60, deadline=None)
def test_any_value_of_a_setting_is_taken_or_refused_in_one_line(key, value):
    survive(lambda content: profiles.load_profile("smoke", {key: content}), [value])


@given(st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_two_words_are_a_parameter_or_refused_in_one_line(name, value):
    survive(lambda content: run._parameters([content]), [(name, value)])


# --- mutations -------------------------------------------------------------------------------
def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Up to six edits: a byte changed, a run cut out, doubled, or replaced by a nasty token."""
    tokens = (b"", b"\x00", b"\xff\xfe", b"..", b"/", b"'", b'"', b"{", b"[", b"]", b"&a ", b"*a",
              b"!!python/object:os.x ", b"\n", b"\t", b": ", b",", b"NaN", b"-1", b"1e999",
              b"9" * 30, b"null", b"true", b"~", b"%", "é".encode(), b"<html>", b"\r\n", b"- ")
    out = bytearray(content)
    for _ in range(rng.integers(1, 7)):
        start = int(rng.integers(0, len(out) + 1))
        stop = min(len(out), start + int(rng.integers(0, 12)))
        kind = rng.integers(0, 4)
        if kind == 0 and start < len(out):
            out[start] = int(rng.integers(0, 256))
        elif kind == 1:
            del out[start:stop]
        elif kind == 2:
            out[start:start] = out[start:stop]
        else:
            out[start:stop] = tokens[rng.integers(0, len(tokens))]
    return bytes(out)


def survive(parse, contents):
    """Number of refusals; anything but success or a ValueError of one line fails the test."""
    refused = 0
    for content in contents:
        try:
            parse(content)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error), content
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise AssertionError(f"{what} for {content[:300]!r}") from error
    return refused


def mutations(content: bytes, seed: int, n: int = MUTATIONS):
    rng = np.random.default_rng(seed)
    return [mutated(content, rng) for _ in range(n)]


def test_mutated_profiles_are_read_or_refused(tmp_path):
    path = tmp_path / "own.yaml"

    def parse(content):
        path.write_bytes(content)
        loaded = profiles.load_profile(str(path))
        assert loaded.sae.n_seeds >= 1 and all(0 < s < 100 for s in loaded.sae.sparsities)

    original = (b"extends: demo\nseed: 3\nencoders: [demo, untrained]\nsae:\n  n_seeds: 2\n"
                b"  sparsities: [75, 95]\n  layers: {demo: [0, 3]}\n"
                b"data: {clip_seconds: 2.0, note: ''}\n")
    refused = survive(parse, mutations(original, 1))
    assert MUTATIONS / 4 < refused < MUTATIONS


def test_mutated_overrides_and_names_are_read_or_refused():
    def parse(content):
        name, _, value = content.decode("utf-8", "replace").partition("=")
        encoder, overrides = run._parameters([(name, value)])
        step = keys.find_step("03", "smoke", encoder=encoder or "demo", run_name="own",
                              overrides=overrides)
        assert step.root.parent == step.run_root == profiles.data_folder() / "own"

    starts = (b"sae.n_seeds=3", b"sae.sparsities=[75, 95]", b"encoder=demo", b"data.note='x'",
              b"sae.layers={demo: [0, 3]}")
    contents = [c for i, s in enumerate(starts) for c in mutations(s, i, MUTATIONS // 5)]
    assert 0 < survive(parse, contents) <= len(contents)


def test_mutated_run_names_never_leave_the_data_folder():
    def parse(content):
        name = content.decode("utf-8", "replace")
        root = keys.chain("smoke", name, upto="00")[0].run_root
        assert root.parent == profiles.data_folder() and root.name == (name or "smoke")

    assert survive(parse, mutations(b"my-run_2", 2)) > MUTATIONS / 4


def test_mutated_sae_settings_are_read_or_refused(tmp_path):
    (folder,) = bad_inputs.sae_folder(lambda folder: None)(tmp_path)
    original = (folder / "cfg.json").read_bytes()

    def parse(content):
        (folder / "cfg.json").write_bytes(content)
        found = sae.load_sae(folder)
        assert found.encode(np.ones((1, 8), np.float32)).shape == (1, 16)

    assert MUTATIONS / 4 < survive(parse, mutations(original, 3)) < MUTATIONS


def test_mutated_safetensors_headers_are_read_or_refused(tmp_path):
    (folder,) = bad_inputs.sae_folder(lambda folder: None)(tmp_path)
    path = folder / "sae_weights.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]

    def parse(header):
        path.write_bytes(header + content[8 + length:])
        sae.load_sae(folder)
        files.array_shapes(path)

    rng = np.random.default_rng(4)
    headers = []
    for i in range(MUTATIONS):
        header = mutated(content[8:8 + length], rng)
        claimed = len(header) if i % 2 else int(rng.integers(0, 2**63))
        headers.append(struct.pack("<Q", claimed) + header)
    assert survive(parse, headers) > MUTATIONS / 2


def test_mutated_encoder_settings_are_read_or_refused(tmp_path):
    from saeutils.encoders_models import FAMILIES, _known_family, _plain_settings

    (folder,) = bad_inputs.encoder_folder(lambda folder: None)(tmp_path)
    for name, seed in (("config.json", 5), ("preprocessor_config.json", 6)):
        original = (folder / name).read_bytes()

        def parse(content, name=name):
            (folder / name).write_bytes(content)
            raw, read = (files.read_json(folder / f) for f in
                         ("config.json", "preprocessor_config.json"))
            raw, _ = _known_family(raw, "own")
            kind = FAMILIES[raw["model_type"]][1]
            assert _plain_settings(raw, read, kind, "own")[0] >= 1000

        assert 0 < survive(parse, mutations(original, seed)) < MUTATIONS
        (folder / name).write_bytes(original)


def test_mutated_tables_are_read_or_refused(tmp_path):
    path = tmp_path / "own.csv"

    def parse(content):
        path.write_bytes(content)
        files.read_table(path)

    def parse_labels(content):
        path.write_bytes(content)
        table = labels.read_labels(path, ("path", "label"))
        assert len(table) and not (table["label"] == "").any()

    original = b"path,label,group\na.wav,x,one\n\"b, c.wav\",y,two\nd.wav,x,two\n"
    assert 0 < survive(parse, mutations(original, 7)) < MUTATIONS
    assert 0 < survive(parse_labels, mutations(original, 8)) < MUTATIONS


def test_mutated_audio_is_read_or_refused(tmp_path):
    for name, seed in (("a.wav", 9), ("a.flac", 10)):
        path = tmp_path / name
        soundfile.write(path, TONE[:2000], RATE)
        original = path.read_bytes()
        head = original[:80]

        def parse(content, path=path):
            path.write_bytes(content)
            samples, rate = read_audio(path)
            assert len(samples) and np.isfinite(samples).all() and rate > 0

        contents = [c + original[80:] for c in mutations(head, seed, MUTATIONS // 2)]
        assert survive(parse, contents) > 0


def test_settings_files_round_trip(tmp_path):
    """The parsers do refuse out of need: what the project itself writes is read."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": [1, 2, {"b": None}]}))
    assert files.read_json(path) == {"a": [1, 2, {"b": None}]}


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
@pytest.mark.parametrize("words, says", [
    (("reproduce", "PROFILE=nonsense"), "error: unknown profile 'nonsense'"),
    (("reproduce", "PROFILE=a b"), "error: unknown profile 'a b'"),
    (("reproduce", "PROFILE=smoke", "RUN=../x"), "error: run name '../x'"),
    (("reproduce", "PROFILE=smoke", "RUN=a b; ls"), "error: run name 'a b; ls'"),
    (("reproduce", "PROFILE=smoke", "CORES=0"), "error: argument --cores: '0' is no such number"),
    (("check", "PROFILE=smoke"), "run `make reproduce PROFILE=smoke` first"),
    (("publish", "PROFILE=smoke", "RUN=mine"), "run `make reproduce PROFILE=smoke RUN=mine` first"),
    (("site", "PROFILE=nonsense"), "error: unknown profile 'nonsense'"),
    (("stick", "PROFILE=smoke", "STICK=/proc/x"), "run `make reproduce PROFILE=smoke` first"),
])
def test_a_bad_word_for_make_is_one_error(words, says, tmp_path):
    """The Makefile's own lines, with this Python in the place of the one it would set up.

    A `make test` around this test hands down its words and its level: a user's shell has neither.
    """
    shell = {name: value for name, value in os.environ.items()
             if name not in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL")}
    made = subprocess.run(
        ["make", "--no-print-directory", *words, f"PY={sys.executable}", "READY="], cwd=ROOT,
        capture_output=True, text=True, env=shell | {"SAEUTILS_DATA": str(tmp_path),
                                                     "PYTHONPATH": str(ROOT)})
    lines = [line for line in made.stderr.splitlines() if "error:" in line]
    assert made.returncode and len(lines) == 1 and says in lines[0], made.stderr
    assert made.stderr.splitlines()[-1].startswith("make: *** ")
    assert "Traceback" not in made.stderr and not list(tmp_path.iterdir())
