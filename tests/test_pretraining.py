"""Pre-training: targets on known signals, exact resumption, a loss that falls, export."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from saeutils import pretraining, pretraining_data
from saeutils.encoders import load_encoder

torch.set_num_threads(1)
TINY = pretraining.Recipe(
    hours=0.02, steps=6, decay_steps=2, warmup=2, batch_s=6.0, crops_s=(1.0, 1.5), layers=2,
    source_layer=1, width=32, heads=2, conv=(8,) * 7, n_mfcc_units=8, n_source_units=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    pretraining_data.write_corpus(folder, TINY.hours, seed=3, clip_s=2.0, shard=20)
    pretraining_data.fit_units(folder, 8, 6, seed=3)
    return folder


def tone(f0=220.0, extent=0.0, am_rate=0.0, depth=0.0, seconds=2.0):
    t = np.arange(int(16000 * seconds)) / 16000
    phase = 2 * np.pi * np.cumsum(f0 * 2 ** (extent * np.sin(2 * np.pi * 6 * t))) / 16000
    wave = sum(np.sin(h * phase) / h for h in range(1, 8))
    return (0.1 * wave * (1 - depth * (0.5 + 0.5 * np.sin(2 * np.pi * am_rate * t)))).astype("f")


def column(wave, name):
    frames = pretraining_data.source_frames(wave)[25:-25]
    return frames[:, pretraining_data.SOURCE_NAMES.index(name)]


@pytest.mark.parametrize("f0", [110.0, 220.0, 440.0, 880.0])
def test_source_frames_read_pitch_and_periodicity(f0):
    """Whole-sample lags: at 880 Hz a lag of 18.2 samples reads up to 3 % wrong."""
    assert np.median(column(tone(f0), "log2_f0")) == pytest.approx(np.log2(f0 / 220), abs=0.05)
    assert column(tone(f0), "periodicity").min() > 0.95


def test_noise_is_not_periodic_and_has_no_pitch():
    noise = np.random.default_rng(0).standard_normal(32000).astype("f") * 0.1
    assert column(noise, "periodicity").mean() < 0.5
    assert np.median(column(noise, "log2_f0")) == 0


@pytest.mark.parametrize(("rate", "band"), [(3.5, 0), (7, 1), (12, 2), (25, 3)])
def test_modulation_falls_into_its_band(rate, band):
    wave = tone(am_rate=rate, depth=0.6)
    bands = [column(wave, name).mean() for name in pretraining_data.SOURCE_NAMES[2:6]]
    assert int(np.argmax(bands)) == band


def test_vibrato_shows_in_the_spread_and_level_in_nothing():
    assert column(tone(extent=0.08), "f0_spread").mean() > column(tone(), "f0_spread").mean() + 0.5
    loud, soft = tone(am_rate=5, depth=0.3), 0.25 * tone(am_rate=5, depth=0.3)
    difference = pretraining_data.source_frames(loud) - pretraining_data.source_frames(soft)
    assert np.abs(difference).max() < 0.02  # the floors of 1e-6 are the only absolute numbers


def test_frames_agree_with_the_encoder(corpus):
    for n in (400, 719, 720, 16000, 32001):
        wave = np.random.default_rng(n).standard_normal(n).astype("f")
        count = pretraining_data.frames_in(n)
        assert len(pretraining_data.source_frames(wave)) == count
        assert len(pretraining_data.mfcc_frames(wave)) == count
        model = pretraining.Pretrainer(TINY).encoder
        assert int(model._get_feat_extract_output_lengths(n)) == count


def test_clips_depend_on_seed_and_number_alone(corpus, tmp_path):
    """A corpus cut into other shards holds the same clips."""
    pretraining_data.write_corpus(tmp_path, 4 * 2 / 3600, seed=3, clip_s=2.0, shard=3)
    parts = [np.load(f) for f in sorted(tmp_path.glob("audio_*.npy"))]
    assert np.array_equal(np.concatenate(parts), np.load(corpus / "audio_000.npy")[:4])


def test_augmentation_keeps_length_and_is_repeatable():
    wave = tone()
    first, again = (pretraining_data.augment(wave, np.random.default_rng(7)) for _ in range(2))
    assert first.shape == wave.shape and np.array_equal(first, again)
    assert not np.allclose(first, wave)


@pytest.mark.parametrize("seed", range(3))
def test_speech_is_drawn_without_network(seed):
    wave = pretraining_data.draw_speech(np.random.default_rng(seed), 1.5)
    assert wave.shape == (24000,) and np.isfinite(wave).all() and wave.std() > 0.01


def test_a_resumed_run_equals_an_unbroken_one(corpus, tmp_path):
    whole = pretraining.pretrain(corpus, tmp_path / "a", TINY, save_every=2)
    pretraining.pretrain(corpus, tmp_path / "b", TINY, save_every=2, stop_at=2)
    broken = pretraining.pretrain(corpus, tmp_path / "b", TINY, save_every=2)
    for record in (whole, broken):
        record["last"].pop("seconds")
    assert whole == broken
    from safetensors.numpy import load_file

    a, b = (load_file(tmp_path / x / "checkpoint.safetensors") for x in "ab")
    assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_learning_lowers_the_loss(corpus, tmp_path):
    longer = pretraining.Recipe(**{**TINY.__dict__, "steps": 60, "decay_steps": 10})
    pretraining.pretrain(corpus, tmp_path, longer, save_every=10)
    log = pd.read_csv(tmp_path / "log.csv")
    loss = log.ce_mfcc + log.ce_source + log.regression
    assert loss.iloc[-1] < loss.iloc[0] - 0.25  # from 5.05 to 4.51 when written


def test_export_loads_strictly_and_equals_the_trained_encoder(corpus, tmp_path):
    pretraining.pretrain(corpus, tmp_path / "run", TINY, save_every=6)
    pretraining.export(tmp_path / "run" / "checkpoint.safetensors", tmp_path / "tiny")
    encoder = load_encoder(tmp_path / "tiny")
    assert (encoder.n_layers, encoder.width, encoder.sampling_rate) == (2, 32, 16000)
    record = json.loads((tmp_path / "run" / "progress.json").read_text())
    assert record["last"]["step"] == 6


def test_decorrelation_sees_duplicates_only():
    x = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    alone = pretraining.decorrelation_loss([x * torch.arange(1, 7)])
    twice = pretraining.decorrelation_loss([torch.cat([x, x], -1)])
    assert alone < 0.01 and twice == pytest.approx(1.0, abs=0.02)  # one twin per dimension


def test_concentration_is_the_log_of_the_participation_ratio():
    from saeutils.activations import participation_ratio

    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 9)
    ratio = participation_ratio(x.numpy())
    assert pretraining.concentration_loss([x]).item() == pytest.approx(np.log(8 / ratio), abs=1e-4)
    means = pretraining.block_means(x[None], 100)
    assert torch.allclose(means, x.reshape(5, 100, 8).mean(1), atol=1e-5)


@pytest.mark.chain
def test_the_appendix_runs_in_its_tiny_setting(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    from saeutils.profiles import ROOT

    monkeypatch.setenv("SAEUTILS_DATA", str(tmp_path))
    book = nbformat.read(ROOT / "notebooks" / "appendix_pretraining.ipynb", as_version=4)
    where = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(book, timeout=300, kernel_name="python3", resources=where).execute()
    assert (tmp_path / "pretraining" / "tiny" / "encoder" / "model.safetensors").is_file()


def test_refusals(corpus, tmp_path):
    with pytest.raises(ValueError, match="no finished corpus"):
        pretraining.Corpus(tmp_path)
    pretraining.pretrain(corpus, tmp_path / "run", TINY, save_every=2, stop_at=2)
    other = pretraining.Recipe(**{**TINY.__dict__, "rate": 1e-4})
    with pytest.raises(ValueError, match="other rate"):
        pretraining.pretrain(corpus, tmp_path / "run", other)
