"""Frames on disk and back: whole clips, one pass of the encoder each, pooled as by hand."""

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from saeutils import activations, frames
from saeutils.encoders import load_encoder
from saeutils.files import write_arrays
from saeutils.sae_starts import random_dictionary
from saeutils.sae_stream import open_shards


@pytest.fixture(scope="module")
def demo():
    return load_encoder("demo")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder, rng, paths = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0), []
    for number, seconds in enumerate((0.5, 0.3, 0.8)):
        paths.append(folder / f"{number}.wav")
        wave = 0.1 * rng.standard_normal(int(seconds * 16_000)).cumsum() / 40
        soundfile.write(paths[-1], np.clip(wave, -0.9, 0.9), 16_000)
    return paths


def shards_of(folder, *clips):
    """Shards of two clips each, from frames by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(0, len(clips), 2):
        part = [np.asarray(clip, np.float32) for clip in clips[number : number + 2]]
        write_arrays({"frames": np.concatenate(part).astype(np.float16),
                      "counts": np.array([len(clip) for clip in part])},
                     folder / f"frames_{number:04d}_x.safetensors")
    return open_shards(folder.glob("*.safetensors"))


def test_mean_and_sd_of_each_clip_by_hand(tmp_path):
    shards = shards_of(tmp_path, [[0, 1], [2, 1]], [[3, 3]], [[1, 0], [1, 0], [4, 0]])
    mean, sd = frames.pool(shards)
    assert mean.tolist() == [[1, 1], [3, 3], [2, 0]]
    assert np.allclose(sd, [[1, 0], [0, 0], [np.sqrt(2), 0]])
    twice, _ = frames.pool(shards, lambda frames_TD: frames_TD**2)  # codes first, then the mean
    assert twice.tolist() == [[2, 1], [9, 9], [6, 0]]


def test_codes_pooled_are_not_codes_of_the_mean(tmp_path):
    rng = np.random.default_rng(1)
    clips = [rng.standard_normal((30, 6)) for _ in range(4)]
    shards = shards_of(tmp_path, *clips)
    sae = random_dictionary(np.concatenate(clips).astype(np.float32), 24, 3, 0)
    pooled, _ = frames.pool(shards, sae.encode)
    of_mean = sae.encode(frames.pool(shards)[0])
    assert (of_mean > 0).sum(axis=1).max() <= 3 < (pooled > 0).sum(axis=1).min()


def test_frames_average_to_the_states_of_stage_02_and_are_made_once(demo, sounds, tmp_path,
                                                                    monkeypatch):
    monkeypatch.setattr(frames, "CLIPS_PER_SHARD", 2)
    shards = frames.write_frames(demo, sounds, 3, tmp_path)
    assert len(shards) == 2 and {shard.width for shard in shards} == {demo.width}
    mean, _ = frames.pool(shards)
    wanted = activations.extract(demo, sounds, ["masked"])["masked"][:, 3]
    assert np.allclose(mean, wanted, atol=2e-3 * np.abs(wanted).max())  # float16 on disk

    def never(*_, **__):
        raise AssertionError("a finished shard was made again")

    with monkeypatch.context() as patch:
        patch.setattr("saeutils.atlas_sound.frame_states", never)
        assert frames.write_frames(demo, sounds, 3, tmp_path) == shards
    other = frames.write_frames(demo, sounds, 4, tmp_path)
    assert not set(shards) & set(other)
    assert sorted(tmp_path.iterdir()) == [shard.path for shard in other], "old shards stay"


@given(st.integers(1, 40), st.integers(0, 2**31))
def test_a_sample_holds_each_frame_at_most_once(n, seed):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        rows = np.arange(24, dtype=np.float32).reshape(-1, 1)
        shards = shards_of(Path(folder), rows[:5], rows[5:12], rows[12:])
        found = frames.sample(shards, n, seed)[:, 0].tolist()
    assert len(found) == min(n, 24) == len(set(found)) and set(found) <= set(range(24))


def test_refusals(demo, sounds, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no sound files"):
        frames.write_frames(demo, [], 3, tmp_path)
    with pytest.raises(ValueError, match=r"unknown layer 9: demo has 0\.\.6"):
        frames.write_frames(demo, sounds, 9, tmp_path)
    monkeypatch.setattr("saeutils.atlas_sound.frame_states",
                        lambda *_, **__: [np.full((2, 4), 1e6, np.float32)] * 3)
    with pytest.raises(ValueError, match=r"states of layer 3 reach 1e\+06, beyond float16"):
        frames.write_frames(demo, sounds, 3, tmp_path)
    assert not list(tmp_path.iterdir()), "a refused shard left a file"
