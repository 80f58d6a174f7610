"""The release's ways with an encoder: train mode, the lost gated bias, the wrong sampling rate."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertModel, Wav2Vec2Model, WavLMConfig, WavLMModel

from saeutils import encoders, encoders_models
from saeutils import encoders_released as released
from saeutils.encoders import Encoder

torch.set_num_threads(1)
RATE = 16_000
SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
         "intermediate_size": 48, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 8,
         "num_conv_pos_embedding_groups": 2}  # fmt: skip
STILL = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
         "feat_proj_dropout": 0.0, "mask_time_prob": 0.0, "layerdrop": 0.0}  # fmt: skip


def noise(n, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def hubert(**changes):
    torch.manual_seed(0)
    model = HubertModel(HubertConfig(**SMALL | STILL | changes)).eval().requires_grad_(False)
    return Encoder("small", model, RATE, 4, 32, False, "")


@pytest.fixture()
def wavlm(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "wavlm"
    model = WavLMModel(WavLMConfig(**SMALL))
    with torch.no_grad():  # fresh weights hardly attend: give the bias something to act on
        for name, value in model.named_parameters():
            if "attention" in name and name.endswith("weight"):
                value.normal_(0, 2 if "rel_attn_embed" in name else 0.3)
    model.save_pretrained(folder)
    settings = {"sampling_rate": RATE, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_hooks_give_the_library_s_states_when_nothing_acts():
    encoder = hubert()
    waves = [noise(RATE), noise(2 * RATE, 1)]
    got = released.train_mode_pooled(encoder, waves, RATE, 0, window_s=1.0)
    assert np.array_equal(got, encoders.pooled(encoder, waves, RATE, "released", 1.0))


@pytest.mark.parametrize("changes", [{"hidden_dropout": 0.2}, {"mask_time_prob": 0.5},
                                     {"layerdrop": 0.5}])  # fmt: skip
def test_each_disturbance_acts_and_repeats_by_seed(changes):
    encoder = hubert(**changes)
    waves = [noise(RATE, i) for i in range(3)]
    calm = encoders.pooled(encoder, waves, RATE, "released", 1.0)
    draws = [released.train_mode_pooled(encoder, waves, RATE, s, window_s=1.0) for s in (1, 1, 3)]
    assert draws[0].shape == (3, 5, 32) and np.isfinite(draws[0]).all()
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    assert not np.allclose(draws[0][:, -1], calm[:, -1], atol=1e-4)
    assert not encoder.model.training
    assert np.array_equal(calm, encoders.pooled(encoder, waves, RATE, "released", 1.0))


def test_a_dropped_block_keeps_its_place():
    """By hand: with every block dropped, all states are the one that enters the first block."""
    encoder = hubert(layerdrop=1.1)
    got = released.train_mode_pooled(encoder, [noise(RATE)], RATE, 0, window_s=1.0)[0]
    calm = encoders.pooled(encoder, [noise(RATE)], RATE, "released", 1.0)[0]
    assert got.shape == calm.shape
    assert np.allclose(got, calm[0], atol=1e-6) and not np.allclose(calm[1], calm[0], atol=1e-3)


def test_some_blocks_dropped_repeat_the_state_before():
    encoder = hubert(layerdrop=0.5)
    draws = [released.train_mode_pooled(encoder, [noise(RATE)], RATE, seed, window_s=1.0)[0]
             for seed in range(8)]  # fmt: skip
    same = np.array([[np.array_equal(d[i], d[i + 1]) for i in range(4)] for d in draws])
    assert 0 < same.sum() < same.size and len(np.unique(same, axis=0)) > 2


def test_generators_are_left_as_they_were():
    encoder = hubert(hidden_dropout=0.1, mask_time_prob=0.5)
    torch.manual_seed(3)
    np.random.seed(3)
    want = torch.rand(2), np.random.rand(2)
    torch.manual_seed(3)
    np.random.seed(3)
    released.train_mode_pooled(encoder, [noise(RATE)], RATE, 9, window_s=1.0)
    assert torch.equal(want[0], torch.rand(2)) and np.array_equal(want[1], np.random.rand(2))


def test_wrong_rate_is_a_change_of_speed():
    """By hand: a tone of 400 Hz at 8 kHz, taken for 16 kHz, is a tone of 800 Hz of half length."""
    encoder = hubert()
    slow = np.sin(2 * np.pi * 400 * np.arange(2 * RATE) / RATE).astype(np.float32)
    fast = np.sin(2 * np.pi * 800 * np.arange(RATE) / RATE).astype(np.float32)
    got = released.wrong_rate_pooled(encoder, [slow], RATE, 8_000)
    want = encoders.pooled(encoder, [fast], RATE, "masked")
    true = encoders.pooled(encoder, [slow], RATE, "masked")
    assert np.abs(got - want).max() < 0.2 * np.abs(true - want).max()  # edges of the resampling
    short = released.wrong_rate_pooled(encoder, [slow], RATE, 8_000, pooling="released")
    padded = encoders.pooled(encoder, [np.pad(fast, (0, 24_000))], RATE, "released", 2.5)
    assert np.abs(short - padded).max() < 0.2 * np.abs(true - want).max()


def test_gated_bias_is_all_that_is_lost(wavlm):
    encoder, dropped = released.gated_bias_dropped(wavlm)
    assert isinstance(encoder.model, Wav2Vec2Model) and encoder.name == "wavlm_as_released"
    assert len(dropped) == 4 * 3 + 1
    assert all(name.endswith(encoders_models.GATED_BIAS) for name in dropped)
    kept = encoder.model.state_dict()
    ours = WavLMModel.from_pretrained(wavlm).state_dict()
    assert kept.keys() == ours.keys() - set(dropped)
    assert all(torch.equal(kept[name], ours[name]) for name in kept)
    whole = encoders.load_encoder(wavlm)
    a, b = (encoders.pooled(e, [noise(RATE)], RATE, "masked")[0] for e in (whole, encoder))
    assert np.allclose(a[0], b[0], atol=1e-5) and not np.allclose(a[-1], b[-1], atol=1e-2)
    assert whole.fingerprint != encoder.fingerprint


def test_refusals(wavlm, tmp_path):
    encoder = hubert()
    with pytest.raises(ValueError, match="no waveforms"):
        released.train_mode_pooled(encoder, [], RATE, 0)
    with pytest.raises(ValueError, match="wrong_rate = 16000 Hz.*another rate"):
        released.wrong_rate_pooled(encoder, [noise(RATE)], RATE, RATE)
    with pytest.raises(ValueError, match="'hubert'.*WavLM's alone"):
        released.gated_bias_dropped(encoders.DEMO_FOLDER)
    with pytest.raises(ValueError, match="lacks config.json"):
        released.gated_bias_dropped(tmp_path)
    weights = load_file(wavlm / "model.safetensors")
    save_file(weights | {"more": torch.zeros(1)}, wavlm / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="unexpected: more"):
        released.gated_bias_dropped(wavlm)
