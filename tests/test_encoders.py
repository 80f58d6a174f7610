"""Encoders: strictness, padding that leaves no trace, level-blindness, the library's own states."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from saeutils import encoders

torch.set_num_threads(1)
RATE = 16_000
# float32 sums over up to 100 frames of states of size about 2: differences of some 1e-6 remain
TOLERANCE = 2e-5


def noise(n, seed=0, scale=0.1):
    return (scale * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


@pytest.fixture(scope="module", params=["demo", "untrained"])
def encoder(request):
    return encoders.load_encoder(request.param)


@pytest.fixture()
def folder(tmp_path):
    return shutil.copytree(encoders.DEMO_FOLDER, tmp_path / "copy")


def test_masked_pooling_excludes_padding_exactly(encoder):
    waves = [noise(n, n) for n in (8000, 12345, 32017)]
    together = encoders.pooled(encoder, waves, RATE, "masked")
    alone = np.concatenate([encoders.pooled(encoder, [w], RATE, "masked") for w in waves])
    assert np.abs(together - alone).max() < TOLERANCE
    assert np.abs(together[0] - together[1]).max() > 100 * TOLERANCE  # the clips do differ


def test_a_front_end_that_keeps_channels_last_computes_what_the_library_does(encoder):
    layers = list(encoder.model.feature_extractor.conv_layers)[1:]
    assert all("forward" in vars(layer) for layer in layers)
    given = torch.from_numpy(noise(2 * 6400, scale=1.0)).reshape(2, 1, -1)
    with torch.inference_mode():
        given = encoder.model.feature_extractor.conv_layers[0](given)
        for layer in layers:
            theirs = type(layer).forward(layer, given)
            assert layer(given).shape == theirs.shape
            assert torch.allclose(layer(given), theirs, atol=TOLERANCE)
            given = theirs


def test_level_leaves_no_trace(encoder):
    """Known answer: input normalisation removes gain, so a gain of 30 dB moves nothing."""
    wave = noise(16000)
    states = encoders.pooled(encoder, [wave, 31.6 * wave, 0.01 * wave], RATE, "masked")
    assert np.abs(states - states[0]).max() < TOLERANCE


def test_states_equal_the_library(encoder):
    wave = noise(20000)
    normal = torch.from_numpy((wave - wave.mean()) / wave.std())[None]
    with torch.inference_mode():
        want = encoder.model(normal, output_hidden_states=True)
    states, frames = encoders.states(encoder, [wave], RATE)
    assert states.shape == (1, encoder.n_layers + 1, int(frames[0]), encoder.width)
    assert np.allclose(states[0], torch.stack(want.hidden_states, 1)[0], atol=1e-5)
    assert np.allclose(states[0, -1], want.last_hidden_state[0], atol=1e-5)


def test_input_normalisation_equals_the_feature_extractor(encoder):
    from transformers import AutoFeatureExtractor

    extractor = AutoFeatureExtractor.from_pretrained(encoders.DEMO_FOLDER)
    wave = noise(16000)
    want = extractor(wave, sampling_rate=RATE, return_tensors="np")["input_values"][0]
    got = encoders.prepare(encoder, [wave], RATE)[0]
    # the extractor adds 1e-7 to the variance (0.01 here), which would let level through
    assert np.abs(got - want).max() < 1e-4


def test_released_pooling_is_five_seconds_with_the_padding(encoder):
    short = noise(16000)
    padded = np.pad(short, (0, 4 * 16000))
    want = encoders.states(encoder, [padded], RATE)[0].mean(2)[0].numpy()
    got = encoders.pooled(encoder, [short], RATE, "released")[0]
    assert np.allclose(got, want, atol=1e-5)
    masked = encoders.pooled(encoder, [short], RATE, "masked")[0]
    assert np.abs(got - masked).max() > 0.01
    long = noise(7 * 16000)
    a, b = (encoders.pooled(encoder, [x], RATE, "released") for x in (long, long[: 5 * RATE]))
    assert np.array_equal(a, b)


def test_untrained_twin_is_repeatable_and_not_the_demo():
    first, again = (encoders.load_encoder("untrained") for _ in range(2))
    other = encoders.load_encoder("untrained", seed=1)
    weights = [dict(e.model.named_parameters()) for e in (first, again, other)]
    name = "encoder.layers.0.attention.k_proj.weight"
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_loading_draws_nothing_from_the_global_generator():
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    encoders.load_encoder("untrained")
    assert torch.equal(want, torch.rand(3))


def test_shipped_weights_are_small_and_complete():
    assert (encoders.DEMO_FOLDER / "model.safetensors").stat().st_size < 15e6


@pytest.mark.parametrize("change", ["missing", "unexpected", "wrong shape"])
def test_weights_that_do_not_fit_are_named(folder, change):
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layers.2.attention.q_proj.weight"
    if change == "missing":
        del weights[name]
    elif change == "unexpected":
        name = "encoder.layers.0.attention.rel_attn_embed.weight"
        weights[name] = torch.zeros(2)
    else:
        weights[name] = torch.zeros(2, 2)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"{change}: {name}"):
        encoders.load_encoder(folder)


def test_other_class_is_refused(folder):
    """A WavLM read as a HuBERT drops the relative position bias: the release's error A07."""
    text = (folder / "config.json").read_text().replace('"hubert"', '"wavlm"')
    (folder / "config.json").write_text(text.replace("HubertModel", "WavLMModel"))
    with pytest.raises(ValueError, match="missing: .*gru_rel_pos"):
        encoders.load_encoder(folder)


def test_refusals(folder):
    encoder = encoders.load_encoder("untrained")
    with pytest.raises(ValueError, match="44100 Hz.*16000 Hz"):
        encoders.states(encoder, [noise(8000)], 44_100)
    for wave, why in ((np.zeros(8000), "silent"), (np.full(8000, np.nan), "NaN"),
                      (noise(100), "25 ms"), (np.ones((2, 8000)), "mono")):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            encoders.prepare(encoder, [wave], RATE)
    with pytest.raises(ValueError, match="unknown pooling 'max'"):
        encoders.pooled(encoder, [noise(8000)], RATE, "max")
    encoder.model.train()
    with pytest.raises(ValueError, match="train mode"):
        encoders.states(encoder, [noise(8000)], RATE)
    with pytest.raises(ValueError, match="unknown encoder 'huber'"):
        encoders.load_encoder("huber")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks model.safetensors"):
        encoders.load_encoder(folder)
