"""Extraction: batches cut once, workers and shards that change nothing, statistics by hand."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from saeutils import activations
from saeutils.encoders import load_encoder

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    paths = []
    for i, seconds in enumerate((0.9, 0.4, 1.3, 0.6, 0.4)):
        paths.append(folder / f"{i}.flac")
        soundfile.write(paths[-1], 0.1 * rng.standard_normal(int(44100 * seconds)), 44100)
    return paths


@pytest.fixture(scope="module")
def twin():
    return load_encoder("untrained")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 7), st.booleans())
def test_batches_hold_every_row_once_and_similar_lengths(lengths, size, equal):
    batches = activations.plan_batches(lengths, size, equal)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert max(map(len, batches)) <= size
    flat = [lengths[row] for batch in batches for row in batch]
    assert flat == sorted(flat)
    if equal:
        assert all(len({lengths[row] for row in batch}) == 1 for batch in batches)


def test_workers_and_shards_change_nothing(sounds, twin, monkeypatch):
    one = activations.extract(twin, sounds, batch_size=2)
    two = activations.extract(twin, sounds, batch_size=2, workers=2)
    monkeypatch.setattr(activations, "BATCHES_PER_SHARD", 1)
    cut = activations.extract(twin, sounds, batch_size=2)
    for pooling in ("masked", "released"):
        assert one[pooling].shape == (5, 7, 192) and one[pooling].dtype == np.float32
        assert np.array_equal(one[pooling], two[pooling])
        assert np.array_equal(one[pooling], cut[pooling])


def test_rows_follow_the_paths(sounds, twin):
    forward = activations.extract(twin, sounds, ("masked",), batch_size=1)["masked"]
    backward = activations.extract(twin, sounds[::-1], ("masked",), batch_size=1)["masked"]
    assert np.array_equal(forward, backward[::-1])


def test_finished_shards_are_taken_from_the_cache(sounds, twin):
    kept = {}

    def cached(name, parts, compute):
        key = (name, str(parts))
        if key not in kept:
            kept[key] = compute()
        return kept[key]

    first = activations.extract(twin, sounds, ("masked",), cached=cached)
    kept = {key: {"masked": value["masked"] + 1} for key, value in kept.items()}
    again = activations.extract(twin, sounds, ("masked",), cached=cached)
    assert np.array_equal(first["masked"] + 1, again["masked"])
    other = activations.extract(twin, sounds[:2], ("masked",), cached=cached)
    assert len(kept) == 2 and np.isfinite(other["masked"]).all()


def test_resampling_keeps_a_tone_and_removes_what_16_khz_cannot_hold():
    t = np.arange(44100) / 44100
    low = activations.resample(np.sin(2 * np.pi * 440 * t), 44100, 16000)
    want = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(low - want)[200:-200].max() < 1e-3
    high = activations.resample(np.sin(2 * np.pi * 11000 * t), 44100, 16000)
    assert np.abs(high)[200:-200].max() < 0.01


def test_stereo_is_averaged(tmp_path):
    left = 0.1 * np.ones(1600)
    soundfile.write(tmp_path / "s.wav", np.stack([left, -left], 1), 16000)
    assert np.abs(activations.load_wave(tmp_path / "s.wav", 16000)).max() < 1e-4


def test_files_that_cannot_serve_are_named(tmp_path, twin):
    (tmp_path / "broken.flac").write_bytes(b"fLaC, but no more")
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 16000)
    with pytest.raises(ValueError, match="broken.flac"):
        activations.load_wave(tmp_path / "broken.flac", 16000)
    with pytest.raises(ValueError, match="silent.wav silent"):
        activations.extract(twin, [tmp_path / "silent.wav"])
    with pytest.raises(ValueError, match="1 sound files are missing.*gone.wav"):
        activations.extract(twin, [tmp_path / "gone.wav"])
    with pytest.raises(ValueError, match="batches of 0"):
        activations.plan_batches([1], 0)


def test_what_cannot_be_read_or_resampled_stops_before_the_work(tmp_path, sounds, twin):
    def cached(name, parts, compute):
        raise AssertionError("a shard was begun")

    (tmp_path / "broken.flac").write_bytes(b"fLaC, but no more")
    with pytest.raises(ValueError, match="broken.flac cannot be read as sound") as caught:
        activations.extract(twin, [*sounds, tmp_path / "broken.flac"], cached=cached)
    assert caught.type is ValueError and "\n" not in str(caught.value)
    soundfile.write(tmp_path / "odd.wav", 0.1 * np.ones(9000), 44_099)
    with pytest.raises(ValueError, match="odd.wav has 44,099 Hz.*resample it to 44,100 Hz"):
        activations.extract(twin, [*sounds, tmp_path / "odd.wav"], cached=cached)
    with pytest.raises(ValueError, match="odd.wav has 44,099 Hz"):
        activations.load_wave(tmp_path / "odd.wav", 16_000)
    assert len(activations.load_wave(tmp_path / "odd.wav", 44_099)) == 9000


def test_participation_ratio_counts_directions():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 3))
    assert activations.participation_ratio(x) == pytest.approx(3, abs=0.02)
    wide = x @ rng.standard_normal((3, 50))
    assert activations.participation_ratio(wide) <= 3.001
    assert activations.participation_ratio(x[:20] + 5) == pytest.approx(
        activations.participation_ratio(x[:20])
    )
    assert np.isnan(activations.participation_ratio(np.ones((5, 2))))


def test_cka_knows_rotation_and_independence():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((3000, 8)), rng.standard_normal((3000, 8))
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    assert activations.linear_cka(x, 2 * x @ turn + 1) == pytest.approx(1)
    assert activations.linear_cka(x, y) < 0.02
    with pytest.raises(ValueError, match="same clips"):
        activations.linear_cka(x, y[:5])


def test_statistics_table_by_hand():
    rng = np.random.default_rng(2)
    base = rng.standard_normal((500, 1, 4))
    acts = np.concatenate([base, base + 3], 1)
    acts[:, 1, 3] = 2 * acts[:, 1, 2]  # a duplicate of twice the size, in state 1
    table = activations.encoder_statistics(acts, "toy")
    value = table.set_index(["layer", "metric"])["value"]
    assert value[0, "duplicate_dims"] == 0 and value[1, "duplicate_dims"] == 1
    assert value[0, "mean_share"] < 0.02 < 0.8 < value[1, "mean_share"]
    assert value[0, "cka_first"] == pytest.approx(1) == value[1, "cka_last"]
    assert value[1, "largest_over_median"] == pytest.approx(2, rel=0.15)
    assert abs(value[0, "kurtosis"]) < 0.5
    acts[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        activations.encoder_statistics(acts, "toy")


def test_batches_hold_at_most_so_many_seconds(sounds, twin):
    """By hand: of lengths 1 to 4, no batch may hold more than 6 samples with its padding."""
    assert activations.plan_batches([4, 1, 3, 2, 9], 8, limit=6) == [[1, 3], [2], [0], [4]]
    whole = activations.extract(twin, sounds, ("masked",))["masked"]
    short = activations.extract(twin, sounds, ("masked",), batch_s=1.0)["masked"]
    assert np.abs(whole - short).max() < 2e-5


def test_files_of_several_rates_share_an_encoder_that_wants_equal_lengths(tmp_path):
    import stand_ins

    cache = stand_ins.build(tmp_path / "hub", ["hubert"])
    paths = []
    for i, (rate, n) in enumerate([(44100, 44100), (22050, 44100), (22050, 22050)]):
        paths.append(tmp_path / f"{i}.wav")
        soundfile.write(paths[-1], 0.1 * np.random.default_rng(i).standard_normal(n), rate)
    encoder = load_encoder("hubert", hub_cache=str(cache))
    got = activations.extract(encoder, paths, ("masked",))["masked"]
    for path, states in zip(paths, got, strict=True):
        alone = activations.extract(encoder, [path], ("masked",))["masked"][0]
        assert np.abs(states - alone).max() < 2e-5
