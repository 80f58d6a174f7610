"""The paper's encoders and any other: pinned, strict, without remote code, network or threads."""

import json
import shutil
import socket
import threading

import numpy as np
import pytest
import stand_ins
import torch
from safetensors.torch import load_file, save_file

from saeutils import encoders, encoders_hub, encoders_models
from saeutils.encoder_costs import passes, release_passes, rounding_error
from saeutils.encoders import load_encoder, pooled
from saeutils.encoders_forward import narrow_groups_in_float32
from saeutils.profiles import data_folder, load_profile

torch.set_num_threads(1)
NAMES = ("ast", "hubert", "wavlm", "wavlm_as_released", "mert")
CLASSES = {"ast": "ASTModel", "hubert": "HubertModel", "wavlm": "WavLMModel",
           "wavlm_as_released": "Wav2Vec2Model", "mert": "HubertModel"}  # fmt: skip


def noise(seconds, rate=16_000, seed=0):
    n = round(seconds * rate)
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return stand_ins.build(tmp_path_factory.mktemp("hub"))


@pytest.fixture()
def hub(cache, monkeypatch):
    """A full cache and no network: any connection is an error."""
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return cache


def plain_forward(encoder, wave):
    """States of the library itself on its own feature extractor's output."""
    import transformers

    kinds = {"ast": "ASTFeatureExtractor", "waveform": "Wav2Vec2FeatureExtractor"}
    name = encoder.name.replace("_as_released", "")
    extractor = getattr(transformers, kinds[encoder.kind])(**{
        k: v for k, v in stand_ins.SETTINGS[name].items() if k != "feature_extractor_type"})
    given = extractor(wave, sampling_rate=encoder.sampling_rate, return_tensors="pt").input_values
    with torch.inference_mode():
        out = encoder.model(given, output_hidden_states=True).hidden_states
    return torch.stack(out, 1)[0].mean(1).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_states_are_the_library_s_and_nothing_is_left_running(name, hub):
    before = set(threading.enumerate())
    encoder = load_encoder(name)
    assert type(encoder.model).__name__ == CLASSES[name] and not encoder.model.training
    assert (encoder.n_layers, encoder.width) == (3, 48)
    assert encoder.sampling_rate == (24_000 if name == "mert" else 16_000)
    wave = noise(2.0, encoder.sampling_rate)
    want = plain_forward(encoder, wave)
    got = pooled(encoder, [wave], encoder.sampling_rate, "released", 2.0)[0]
    assert got.shape == (4, 48) and np.abs(got - want).max() < 1e-5
    assert set(threading.enumerate()) == before


def test_pickles_are_read_once(hub, monkeypatch):
    first = load_encoder("hubert")
    kept = list((data_folder() / "cache" / "encoders").glob("facebook--hubert*"))
    assert len(kept) == 1 and (kept[0] / "model.safetensors").is_file()
    assert not list(kept[0].glob(".part*")) and "pickle" in " ".join(first.notes)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was read again"))
    again = load_encoder("hubert")
    assert again.fingerprint == first.fingerprint
    a, b = (e.model.state_dict() for e in (first, again))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_other_weights_under_the_same_revision_are_not_mixed_up(hub, tmp_path, monkeypatch):
    """A rehearsal's stand-in has the real one's name and revision, and must never become it."""
    first = load_encoder("hubert")
    other = stand_ins.build(tmp_path / "other", ["hubert"], seed=5)
    monkeypatch.setenv("HF_HUB_CACHE", str(other))
    second = load_encoder("hubert")
    assert first.source == second.source and first.fingerprint != second.fingerprint
    assert load_encoder("hubert", hub_cache=str(hub)).fingerprint == first.fingerprint


def test_stand_ins_have_the_names_of_the_real_checkpoints(cache):
    """The hub's files have older names for some weights than the classes of today."""
    path = next(cache.glob("models--MIT*/snapshots/*/model.safetensors"))
    assert any("encoder.layer.0.attention.attention.query" in name for name in load_file(path))
    path = next(cache.glob("models--facebook*/snapshots/*/pytorch_model.bin"))
    names = torch.load(path, weights_only=True)
    assert "encoder.pos_conv_embed.conv.weight_g" in names


def test_a_pickle_with_another_checksum_is_refused(tmp_path, monkeypatch):
    cache = stand_ins.build(tmp_path, ["hubert"])
    link = next(cache.glob("models--*/snapshots/*/pytorch_model.bin"))
    link.resolve().write_bytes(link.resolve().read_bytes() + b"more")
    with pytest.raises(ValueError, match="pytorch_model.bin of encoder hubert has sha256.*fetch"):
        load_encoder("hubert", hub_cache=str(cache))


def test_safetensors_of_the_hub_are_compared_too(tmp_path):
    cache = stand_ins.build(tmp_path, ["ast"])
    blob = next(cache.glob("models--*/snapshots/*/model.safetensors")).resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1  # still safetensors, and finite
    blob.write_bytes(content)
    with pytest.raises(ValueError, match="model.safetensors of encoder ast has sha256.*fetch"):
        load_encoder("ast", hub_cache=str(cache))


def test_a_folder_s_weights_are_compared_only_where_a_checksum_is_kept(tmp_path):
    """SECURITY.md: a pickle in HuBERT's place has to be HuBERT's; others are taken as they are."""
    for name in ("hubert", "wavlm"):
        (tmp_path / name).mkdir()
        stand_ins.save(stand_ins.model_of(name), name, tmp_path / name)
    with pytest.raises(ValueError, match="pytorch_model.bin of encoder hubert has sha256"):
        load_encoder("hubert", model_dir=str(tmp_path))
    assert "compared with nothing" in " ".join(load_encoder(tmp_path / "hubert").notes)
    assert "compared with nothing" in " ".join(load_encoder("wavlm", model_dir=str(tmp_path)).notes)


def in_shards(folder, suffix, change=None):
    """A small HuBERT whose weights lie in two files and an index; `change` acts on the second."""
    folder.mkdir(exist_ok=True)
    stand_ins.save(stand_ins.model_of("hubert"), "hubert", folder)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    stem, names = "model" if suffix == "safetensors" else "pytorch_model", sorted(weights)
    table = {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"{stem}-{i:05d}-of-00002.{suffix}"
        held = {name: weights[name].clone() for name in part}
        if change and i == 2:
            change(held)
        if suffix == "bin":
            torch.save(held, folder / file)
        else:
            save_file(held, folder / file, {"format": "pt"})
        table |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": table}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return folder


def louder(held):
    held["encoder.layers.1.attention.k_proj.weight"] += 1.0


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_other_weights_in_a_shard_are_another_encoder(suffix, tmp_path):
    """Under the same index: no state of the one may be taken for the other's."""
    folder = tmp_path / "mine"
    first, again = (load_encoder(in_shards(folder, suffix)) for _ in range(2))
    other = load_encoder(in_shards(folder, suffix, louder))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    name = "encoder.layers.1.attention.k_proj.weight"
    gap = other.model.state_dict()[name] - first.model.state_dict()[name]
    assert torch.allclose(gap, torch.ones_like(gap), atol=1e-6)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_every_shard_of_the_hub_is_compared(suffix, tmp_path):
    pinned = encoders_hub.PINNED["hubert"]
    folder = in_shards(tmp_path / "files", suffix)
    stand_ins.into_cache(tmp_path, pinned.repository, pinned.revision, folder)
    assert load_encoder("hubert", hub_cache=str(tmp_path)).n_layers == 3
    second = next(tmp_path.glob(f"models--*/snapshots/*/*-00002-of-00002.{suffix}")).resolve()
    second.write_bytes(next(in_shards(tmp_path / "other", suffix, louder).glob(
        f"*-00002-of-00002.{suffix}")).read_bytes())
    with pytest.raises(ValueError, match=f"-00002-of-00002.{suffix} of encoder hubert has sha256"):
        load_encoder("hubert", hub_cache=str(tmp_path))


@pytest.mark.parametrize("index, words", [
    ("{", "is no JSON"), ("[]", r"holds \[\]"), ("{}", "metadata of .* is None"),
    ('{"metadata": 3, "weight_map": {"a": "b.bin"}}', "metadata of .* is 3"),
    ('{"metadata": {}, "weight_map": []}', r"weight_map of .* is \[\]"),
    ('{"metadata": {}, "weight_map": {}}', "weight_map of .* names no file"),
    ('{"metadata": {}, "weight_map": {"a": 5}}', "names 5, no file beside it"),
    ('{"metadata": {}, "weight_map": {"a": ["b.bin"]}}', "no file beside it"),
    ('{"metadata": {}, "weight_map": {"a": "../b.bin"}}', "names '../b.bin', no file beside it"),
    ('{"metadata": {}, "weight_map": {"a": "b.bin"}}', "lacks b.bin"),
])
def test_an_index_that_names_no_files_is_refused(index, words, tmp_path):
    stand_ins.save(stand_ins.model_of("hubert"), "hubert", tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=words) as caught:
        load_encoder(tmp_path)
    assert "\n" not in str(caught.value) and (
        "model.safetensors.index.json" in str(caught.value) or "lacks" in words)


def small_settings(family):
    """Configuration and preprocessor settings of a model of one block."""
    import transformers as t

    heads = {"d_model": 48, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 100,
             "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8,
             "decoder_ffn_dim": 8} | dict.fromkeys(
                 ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    config = {"hubert": lambda: t.HubertConfig(**stand_ins.SMALL | stand_ins.SMALL_FRONT
                                               | {"num_hidden_layers": 1}),
              "ast": lambda: t.ASTConfig(**stand_ins.SMALL | {"num_hidden_layers": 1}),
              "whisper": lambda: t.WhisperConfig(**heads)}[family]()
    whisper = {"feature_size": 80, "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400,
               "chunk_length": 30, "padding_value": 0.0}
    return (json.loads(config.to_json_string(use_diff=False)),
            whisper if family == "whisper" else stand_ins.SETTINGS[family])


def described(raw, settings):
    """What `load` does before and after it has read the weights."""
    with encoders_models._quietly():
        raw, _ = encoders_models._known_family(raw, "own")
        class_name, kind = encoders_models.FAMILIES[raw["model_type"]]
        encoders_models._plain_settings(raw, settings, kind, "own")
        config, _ = encoders_models._configured(raw, class_name, "own", as_released=False)
        encoders_models._extractor(settings, kind, config, "own")


OF_MODEL, OF_INPUT = "config.json of encoder own", "preprocessor_config.json of encoder own"
WRONG_SETTINGS = [
    ("hubert", "model_type", [], OF_MODEL), ("hubert", "architectures", 5, OF_MODEL),
    ("hubert", "architectures", [5], OF_MODEL), ("hubert", "num_attention_heads", 0, OF_MODEL),
    ("hubert", "conv_dim", [], OF_MODEL), ("hubert", "conv_kernel", [], OF_MODEL),
    ("hubert", "num_hidden_layers", 10**30, OF_MODEL), ("ast", "time_stride", 0, OF_MODEL),
    ("whisper", "encoder_attention_heads", 0, OF_MODEL),
    ("whisper", "hop_length", 0, OF_INPUT), ("whisper", "hop_length", 320, OF_INPUT),
    ("whisper", "n_fft", 0, OF_INPUT), ("whisper", "feature_size", 128, "its " + OF_INPUT[:24]),
    ("ast", "std", 0.0, OF_INPUT), ("ast", "mean", "loud", OF_INPUT),
]


@pytest.mark.parametrize("family, key, value, file", WRONG_SETTINGS)
def test_a_setting_that_describes_nothing_is_named_with_its_file(family, key, value, file):
    raw, settings = small_settings(family)
    described(raw, settings)
    given = settings if file != OF_MODEL else raw
    with pytest.raises(ValueError) as caught:
        described(*((raw | {key: value}, settings) if given is raw else
                    (raw, settings | {key: value})))
    message = str(caught.value)
    assert file in message and key in message and "\n" not in message and len(message) < 600


@pytest.mark.parametrize("family", ["hubert", "ast", "whisper"])
def test_settings_of_any_kind_are_taken_or_refused_in_one_line(family):
    from test_bad_inputs import survive

    values = (None, [], {}, [[]], "x", 0, -1, 0.5, True, 10**30)
    raw, settings = small_settings(family)
    rng = np.random.default_rng(len(family))
    of_model = [(raw | {key: value}, settings) for key in raw for value in values]
    of_input = [(raw, settings | {key: value}) for key in settings for value in values]
    drawn = [pairs[i] for pairs in (of_model, of_input)
             for i in rng.choice(len(pairs), 10, replace=False)]
    assert 0 < survive(lambda pair: described(*pair), drawn) < len(drawn)


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    import pickle

    class Bad:
        def __reduce__(self):
            return print, ("run",)

    folder = tmp_path / "bad"
    folder.mkdir()
    stand_ins.save(stand_ins.model_of("hubert"), "hubert", folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Bad()}))
    with pytest.raises(ValueError, match="weights of encoder bad cannot be read"):
        load_encoder(folder)


def test_missing_models_tell_both_ways(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError) as caught:
        load_encoder("mert", hub_cache=str(tmp_path))
    for word in ("m-a-p/MERT-v1-95M", "12af15fef9d0", "378 MB", "HF_HUB_OFFLINE is set",
                 "run once with network", "extraction.model_dir"):
        assert word in str(caught.value)


def test_no_network_tells_the_same(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def cut(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", cut)
    with pytest.raises(ValueError, match="no route to host.*Two ways"):
        load_encoder("ast", hub_cache=str(tmp_path))


def test_downloads_take_what_is_needed_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    from huggingface_hub.errors import EntryNotFoundError

    full, asked = stand_ins.build(tmp_path / "full", ["wavlm"]), []

    def fetch(repository, name, revision, cache_dir):
        asked.append(name)
        found = full / f"models--{repository.replace('/', '--')}" / "snapshots" / revision / name
        if not found.exists():
            raise EntryNotFoundError(name)
        if name.endswith(".bin"):
            shutil.copytree(full, cache_dir, symlinks=True, dirs_exist_ok=True)
        return str(found)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    assert load_encoder("wavlm", hub_cache=str(tmp_path / "new")).n_layers == 3
    assert asked == [*encoders_hub.SETTINGS, *encoders_hub.SAFE, "pytorch_model.bin"]


def test_model_dir_takes_the_place_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for folder in ("wavlm", "MERT-v1-95M", "facebook--wav2vec2-x"):
        (tmp_path / folder).mkdir()
        name = {"wavlm": "wavlm", "MERT-v1-95M": "mert"}.get(folder, "hubert")
        stand_ins.save(stand_ins.model_of(name), name, tmp_path / folder)
    names = ("wavlm", "wavlm_as_released", "mert", "facebook/wav2vec2-x@v1")
    loaded = [load_encoder(name, model_dir=str(tmp_path)) for name in names]
    assert [e.name for e in loaded] == ["wavlm", "wavlm_as_released", "mert",
                                       "facebook--wav2vec2-x"]
    assert all("local folder" in e.source and str(tmp_path) not in e.source for e in loaded)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE.*"):
        load_encoder("ast", model_dir=str(tmp_path), hub_cache=str(tmp_path))
    with pytest.raises(ValueError, match="no folder /nowhere"):
        load_encoder("ast", model_dir="/nowhere")


@pytest.mark.parametrize("key, value", [("feature_extractor_cqt", True), ("deepnorm", True),
                                        ("attention_relax", 32.0)])
def test_a_mert_that_is_no_hubert_is_refused(tmp_path, key, value):
    stand_ins.save(stand_ins.model_of("mert"), "mert", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=f"no HuBERT.*{key} = {value}"):
        load_encoder(tmp_path)


def test_contradicting_files_are_refused(tmp_path):
    stand_ins.save(stand_ins.model_of("mert"), "mert", tmp_path)
    settings = stand_ins.SETTINGS["mert"] | {"sampling_rate": 16000}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="says 24000 Hz.*16000 Hz"):
        load_encoder(tmp_path)
    folder = tmp_path / "ast"
    folder.mkdir()
    stand_ins.save(stand_ins.model_of("ast"), "ast", folder)
    settings = stand_ins.SETTINGS["ast"] | {"num_mel_bins": 64}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="num_mel_bins of encoder ast is 64.*128"):
        load_encoder(folder)


@pytest.mark.parametrize("name, change, words", [
    ("ast", "classifier.dense.weight", "missing: classifier.dense.weight"),
    ("wavlm", "encoder.layers.1.attention.gru_rel_pos_const", "missing: encoder.layers.1"),
])
def test_every_weight_is_accounted_for(tmp_path, name, change, words):
    stand_ins.save(stand_ins.model_of(name), name, tmp_path)
    path = tmp_path / "model.safetensors"
    if name != "ast":
        save_file(stand_ins.model_of(name).state_dict(), path)
    weights = load_file(path)
    whole = dict(weights)
    del weights[change]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match=words):
        load_encoder(tmp_path)
    save_file(whole | {"left.over": torch.zeros(1)}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="unexpected: left.over"):
        load_encoder(tmp_path)


def test_the_mask_vector_alone_may_be_missing(tmp_path):
    """wav2vec 2.0 checkpoints come without it; it acts in training only."""
    model = stand_ins.model_of("hubert")
    stand_ins.save(model, "hubert", tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    weights = {k: v for k, v in model.state_dict().items() if k != "masked_spec_embed"}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    encoder = load_encoder(tmp_path)
    assert "masked_spec_embed is not in the checkpoint" in encoder.notes[0]
    assert not encoder.model.masked_spec_embed.any()


def test_wavlm_as_released_loses_the_gated_bias_and_says_so(hub):
    whole, cut = load_encoder("wavlm"), load_encoder("wavlm_as_released")
    assert "10 weights left over on purpose" in " ".join(cut.notes)
    a, b = (pooled(e, [noise(1.0)], 16_000, "masked")[0] for e in (whole, cut))
    assert np.allclose(a[0], b[0], atol=1e-5) and not np.allclose(a[1:], b[1:], atol=1e-3)
    with pytest.raises(ValueError, match="'hubert'.*WavLM's alone"):
        encoders_models.load(encoders_hub.find("hubert"), as_released=True)


def test_ast_masks_padding_and_special_tokens(hub):
    """What fills the window up leaves no trace in masked states; it does in released ones."""
    encoder = load_encoder("ast")
    wave, rest = noise(2.0), noise(3.0, seed=1)
    alone = pooled(encoder, [wave], 16_000, "masked")
    together = pooled(encoder, [wave, rest], 16_000, "masked")
    assert np.abs(alone[0] - together[0]).max() < 2e-5
    settings = encoder.extractor
    kept, settings.padding_value = settings.padding_value, 0.0
    mean, std = settings.mean, settings.std
    filled = pooled(encoder, [wave], 16_000, "released", 2.0)
    assert np.abs(alone - filled).max() > 1e-2
    assert (kept, mean, std) == (settings.padding_value, settings.mean, settings.std)
    states, frames = encoders.states(encoder, [wave], 16_000)
    assert states.shape == (1, 4, 101, 48) and frames[0] == (198 - 16) // 10 + 1
    assert np.allclose(states[0, :, : frames[0]].mean(1).numpy(), alone[0], atol=1e-5)


def test_ast_s_mask_hides_whatever_stands_in_the_padding(hub):
    encoder = load_encoder("ast")
    inner, given = encoder.extractor, []

    class Noisy:
        def __call__(self, waves, **more):
            out = inner(waves, **more)
            frames = (len(waves[0]) - 400) // 160 + 1
            patches = (frames - 16) // 10 + 1
            out["input_values"][:, 10 * (patches - 1) + 16 :] = torch.randn(128)
            given.append(out["input_values"])
            return out

    noisy = encoders.replace(encoder, extractor=Noisy())
    wave = noise(2.0)
    a, b = (pooled(e, [wave], 16_000, "masked") for e in (encoder, noisy))
    assert given and np.abs(a - b).max() < 2e-5


def test_long_files_count_throughout(hub):
    """By hand: two full windows of AST are the mean of each window's mean."""
    encoder = load_encoder("ast")
    long = noise((400 + 2047 * 160) / 16_000)
    parts = [long[:164_080], long[163_840 : 163_840 + 164_080]]
    means = [pooled(encoder, [part], 16_000, "masked")[0] for part in parts]
    got = pooled(encoder, [long], 16_000, "masked")[0]
    assert np.allclose(got, np.mean(means, 0), atol=1e-5)
    assert np.allclose(means[0], pooled(encoder, [long], 16_000, "released", 10.24)[0], atol=5)
    assert passes(encoder, [len(long) / 16_000, 1.0]) == 3 + 2
    silent = np.concatenate([parts[0], np.zeros(200_000, np.float32)])
    assert np.isfinite(pooled(encoder, [silent], 16_000, "masked")).all()


def test_long_clips_share_a_forward_pass_only_as_far_as_memory_goes(hub, monkeypatch):
    """Attention grows with the square of the seconds: two of 2 s each where 9 are allowed."""
    encoder, seen, inner = load_encoder("wavlm"), [], encoders._tokens
    waves = [noise(2.0, seed=i) for i in range(5)]
    at_once = pooled(encoder, waves, 16_000, "masked")

    def counted(encoder, given, *more):
        seen.append(len(given))
        return inner(encoder, given, *more)

    monkeypatch.setattr(encoders, "_tokens", counted)
    monkeypatch.setattr(encoders, "ATTENTION_S2", 9.0)
    assert np.abs(pooled(encoder, waves, 16_000, "masked") - at_once).max() < 1e-5
    assert seen == [2, 2, 1]
    monkeypatch.setattr(encoders, "ATTENTION_S2", 1.0)
    pooled(encoder, waves[:1], 16_000, "released", 2.0)
    assert seen[3:] == [1]
    assert 0 < load_profile("paper").extraction.piece_seconds ** 2 <= 60.0**2


def test_pieces_are_weighted_by_their_frames(hub):
    encoder = load_encoder("hubert")
    wave = noise(2.5)
    got = pooled(encoder, [wave, noise(1.0, seed=2)], 16_000, "masked", piece_s=1.0)
    parts = [pooled(encoder, [wave[i : i + 16_000]], 16_000, "masked")[0].astype(float)
             for i in (0, 16_000, 32_000)]
    frames = [49, 49, 24]
    want = sum(n * p for n, p in zip(frames, parts, strict=True)) / sum(frames)
    assert np.abs(got[0] - want).max() < 1e-5
    assert passes(encoder, [2.5, 1.0], piece_s=1.0) == 4 + 2


def test_group_norm_keeps_lengths_apart_and_layer_norm_does_not_need_to(hub, tmp_path):
    """Where padding would leak it is refused; the gap it would make is of the states' own size."""
    encoder = load_encoder("mert")
    assert encoders.needs_equal_lengths(encoder)
    with pytest.raises(ValueError, match="equal lengths"):
        pooled(encoder, [noise(1, 24_000), noise(2, 24_000)], 24_000, "masked")
    assert not encoders.needs_equal_lengths(load_encoder("untrained"))
    wave = noise(1.0)
    hubert = load_encoder("hubert")
    padded = torch.zeros(1, 32_000)
    padded[0, :16_000] = torch.from_numpy((wave - wave.mean()) / wave.std())
    mask = (torch.arange(32_000) < 16_000).long()[None]
    with torch.inference_mode():
        out = hubert.model(padded, attention_mask=mask, output_hidden_states=True).hidden_states
    leaked = torch.stack(out, 1)[0, :, :49].mean(1).numpy()
    alone = pooled(hubert, [wave], 16_000, "masked")[0]
    assert np.abs(leaked - alone).max() > 0.05


@pytest.mark.parametrize("name", ["ast", "hubert", "wavlm"])
def test_bfloat16_is_on_request_and_its_error_is_measured(hub, name):
    encoder = load_encoder(name, precision="bfloat16")
    states = pooled(encoder, [noise(1.0)], 16_000, "masked")
    assert states.dtype == np.float32
    assert 1e-5 < rounding_error(encoder, [noise(1.0)], 16_000) < 0.05
    assert rounding_error(load_encoder(name), [noise(1.0)], 16_000) == 0.0


@pytest.mark.parametrize("per_group", [1, 4, 12, 16])
def test_bfloat16_is_right_for_convolutions_of_narrow_groups(per_group):
    """Where a processor gets them wrong they are taken in float32; the module is left as it was."""
    conv = torch.nn.Conv1d(16 * per_group, 16 * per_group, 128, padding=64, groups=16).eval()
    model = torch.nn.Sequential(conv)
    given = torch.randn(1, 16 * per_group, 50)
    with torch.inference_mode():
        exact = model(given)
        with torch.autocast("cpu", torch.bfloat16), narrow_groups_in_float32(model):
            half = model(given).float()
    assert float((half - exact).norm() / exact.norm()) < 0.01
    assert "forward" not in vars(conv)


OTHERS = {
    "wav2vec2": ("Wav2Vec2ForCTC", "Wav2Vec2Config", {}),
    "data2vec-audio": ("Data2VecAudioModel", "Data2VecAudioConfig", {}),
    "unispeech": ("UniSpeechModel", "UniSpeechConfig", {}),
    "unispeech-sat": ("UniSpeechSatModel", "UniSpeechSatConfig", {}),
    "sew": ("SEWModel", "SEWConfig", {"conv_dim": (24,) * 13}),
    "sew-d": ("SEWDModel", "SEWDConfig", {"conv_dim": (24,) * 13}),
    "wav2vec2-conformer": ("Wav2Vec2ConformerModel", "Wav2Vec2ConformerConfig", {}),
}


@pytest.mark.parametrize("family", OTHERS)
def test_other_families_by_folder(family, tmp_path):
    import transformers

    cls, config, more = OTHERS[family]
    folder = tmp_path / "my encoder"
    torch.manual_seed(0)
    sizes = stand_ins.SMALL | stand_ins.SMALL_FRONT | more
    getattr(transformers, cls)(getattr(transformers, config)(**sizes)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(stand_ins.SETTINGS["hubert"]))
    encoder = load_encoder(folder)
    assert encoder.name == "my-encoder" and (encoder.n_layers, encoder.width) == (3, 48)
    waves = [noise(1.0), noise(1.0, seed=1)]
    got = pooled(encoder, waves, 16_000, "masked")
    assert got.shape == (2, 4, 48) and np.abs(got[0] - got[1]).max() > 1e-4
    alone = pooled(encoder, waves[:1], 16_000, "masked")
    assert np.abs(got[:1] - alone).max() < 2e-5


def test_whisper_s_encoder_alone(tmp_path):
    import transformers

    config = transformers.WhisperConfig(d_model=48, encoder_layers=3, decoder_layers=1,
                                        encoder_attention_heads=4, decoder_attention_heads=4,
                                        encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=100,
                                        pad_token_id=0, bos_token_id=1, eos_token_id=2,
                                        decoder_start_token_id=1)
    torch.manual_seed(0)
    transformers.WhisperForConditionalGeneration(config).save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor().save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    assert type(encoder.model).__name__ == "WhisperEncoder" and encoder.kind == "whisper"
    short, long = noise(1.0), noise(31.0)
    states, frames = encoders.states(encoder, [short], 16_000)
    assert states.shape == (1, 4, 1500, 48) and frames[0] == 50
    got = pooled(encoder, [short, long], 16_000, "masked")
    assert np.allclose(got[0], states[0, :, :50].mean(1), atol=1e-5)
    assert passes(encoder, [1.0, 31.0], ("masked",)) == 3


def test_wav2vec2_bert_one_clip_at_a_time(tmp_path):
    import transformers

    config = transformers.Wav2Vec2BertConfig(**stand_ins.SMALL)
    torch.manual_seed(0)
    transformers.Wav2Vec2BertModel(config).save_pretrained(tmp_path)
    transformers.SeamlessM4TFeatureExtractor(feature_size=80).save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    waves = [noise(1.0), noise(2.0, seed=1)]
    together = pooled(encoder, waves, 16_000, "masked")
    alone = np.concatenate([pooled(encoder, [w], 16_000, "masked") for w in waves])
    assert together.shape == (2, 4, 48) and np.abs(together - alone).max() < 1e-5


@pytest.mark.parametrize("saved_from", ["ParakeetForCTC", "ParakeetEncoder"])
def test_parakeet_s_encoder_one_clip_at_a_time(saved_from, tmp_path):
    """Its states are the library's, its head is left aside, its padding frame does not count."""
    import transformers

    sizes = stand_ins.SMALL | {"subsampling_conv_channels": 16}
    inner = transformers.ParakeetEncoderConfig(**sizes)
    config = inner if saved_from == "ParakeetEncoder" else transformers.ParakeetCTCConfig(
        encoder_config=inner, vocab_size=20, pad_token_id=19)
    torch.manual_seed(0)
    whole = getattr(transformers, saved_from)(config).eval()
    whole.save_pretrained(tmp_path)
    extractor = transformers.ParakeetFeatureExtractor()
    extractor.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    assert type(encoder.model).__name__ == "ParakeetEncoder"
    assert (encoder.n_layers, encoder.width, encoder.sampling_rate) == (3, 48, 16_000)
    waves = [noise(1.0), noise(2.03, seed=1)]
    got = pooled(encoder, waves, 16_000, "masked")
    for wave, states in zip(waves, got, strict=True):
        given = extractor(wave, sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            out = getattr(whole, "encoder", whole)(**given, output_hidden_states=True)
        n = int(out.attention_mask.sum())
        want = torch.stack(out.hidden_states, 1)[0, :, :n].mean(1).numpy()
        assert states.shape == (4, 48) and np.abs(states - want).max() < 1e-4


def test_families_without_states_are_named(tmp_path):
    for config, words in (({"model_type": "encodec"}, "'encodec': supported are hubert, wavlm"),
                          ({"model_type": "x", "auto_map": {"AutoModel": "x.Y"}}, "code of its")):
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(stand_ins.SETTINGS["ast"]))
        save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=words):
            load_encoder(tmp_path)


def test_unknown_names_devices_and_precisions_say_what_there_is():
    with pytest.raises(ValueError, match="unknown encoder 'huber'.*hubert.*facebook/wav2vec2"):
        load_encoder("huber")
    with pytest.raises(ValueError, match="device 'tpu' is not here: this machine has cpu"):
        load_encoder("demo", device="tpu")
    with pytest.raises(ValueError, match="precision 'int8'"):
        load_encoder("demo", precision="int8")


def test_the_release_s_passes_by_hand():
    """6 sparsities x 100 epochs for the SAEs, (13 + 2 x 6) probes x 120 epochs."""
    assert release_passes(10, 13) == 10 * (600 + 25 * 120)


OTHER_CLASS = {"ast": "hubert", "hubert": "wavlm", "wavlm": "hubert", "mert": "wavlm"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_true_size(name, tmp_path, monkeypatch):
    """13 states of width 768, equal to the library's own forward pass; the rest as at small size.

    No socket, no thread left, a pickle read once, the weights refused by another class.
    """
    of_hub = name.replace("_as_released", "")
    cache = stand_ins.build(tmp_path / "hub", [of_hub], true_size=True)

    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    for call in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, call, refuse)
    before = set(threading.enumerate())
    encoder = load_encoder(name, hub_cache=str(cache))
    assert type(encoder.model).__name__ == CLASSES[name]
    wave = noise(2.0, encoder.sampling_rate)
    got = pooled(encoder, [wave], encoder.sampling_rate, "released", 2.0)[0]
    assert got.shape == (13, 768) and got.dtype == np.float32
    assert np.abs(got - plain_forward(encoder, wave)).max() < 1e-5
    assert set(threading.enumerate()) == before
    converted = list((data_folder() / "cache" / "encoders").glob("*/model.safetensors"))
    assert len(converted) == (name != "ast")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was read again"))
    again = load_encoder(name, hub_cache=str(cache))
    assert again.fingerprint == encoder.fingerprint
    assert np.array_equal(pooled(again, [wave], encoder.sampling_rate, "released", 2.0)[0], got)
    del again
    folder, other = tmp_path / "other class", OTHER_CLASS[of_hub]
    folder.mkdir()
    stand_ins.save(stand_ins.model_of(other, true_size=True), other, folder)
    weights = converted[0] if converted else next(cache.glob("*/snapshots/*/model.safetensors"))
    for file in ("model.safetensors", "pytorch_model.bin"):
        (folder / file).unlink(missing_ok=True)
    (folder / "model.safetensors").symlink_to(weights.resolve())
    with pytest.raises(ValueError, match="do not fit.*(missing|unexpected|wrong shape)"):
        load_encoder(folder)
    shutil.rmtree(tmp_path)  # two gigabytes
