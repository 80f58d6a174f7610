"""Loader and clip table: names, quirks of files, splits, shards."""

import io

import numpy as np
import pandas as pd
import pytest
import soundfile

from saeutils import datasets

TONE = 0.1 * np.sin(2 * np.pi * 220 * np.arange(4410) / 44_100)


def make_tree(root, names, samples=TONE, rate=44_100):
    for name in names:
        path = root / "FULL" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate)
    return root


def test_index_reads_singer_exercise_technique_vowel(tmp_path):
    make_tree(tmp_path, ["male11/long_tones/trill/m11_long_trill_a.wav",
                         "female1/excerpts/spoken/f1_spoken.flac"])
    table = datasets.index_vocalset(tmp_path, {"male11": "test", "female1": "train"})
    assert list(table.columns) == list(datasets.CLIP_COLUMNS)
    assert table["clip_id"].tolist() == ["vocalset_f1_spoken", "vocalset_m11_long_trill_a"]
    trill = table.iloc[1]
    assert (trill.singer, trill.sex, trill.split, trill.exercise, trill.technique, trill.vowel) == (
        "male11", "M", "test", "long_tones", "trill", "a")
    assert trill.duration_s == pytest.approx(0.1) and trill.sample_rate == 44_100
    assert trill.audio == "FULL/male11/long_tones/trill/m11_long_trill_a.wav"


def test_index_passes_over_what_is_no_clip(tmp_path):
    make_tree(tmp_path, ["male1/scales/belt/m1_scales_belt_a.wav"])
    (tmp_path / "FULL" / ".DS_Store").write_text("x")
    (tmp_path / "FULL" / "male1" / "readme.txt").write_text("x")
    junk = tmp_path / "FULL" / "__MACOSX" / "male1"
    junk.mkdir(parents=True)
    (junk / "._m1_scales_belt_a.wav").write_bytes(b"x")
    assert len(datasets.index_vocalset(tmp_path, {"male1": "train"})) == 1


@pytest.mark.parametrize(("name", "splits", "message"), [
    ("male1/scales/belt/m1_scales_belt_a.wav", {"male2": "train"}, "'male1'.*no split"),
    ("male1/opera/belt/m1_opera_belt_a.wav", {"male1": "train"}, "unknown exercise 'opera'"),
    ("male1/scales/growl/m1_scales_growl_a.wav", {"male1": "train"}, "unknown technique 'growl'"),
    ("male1/scales/m1_scales_belt_a.wav", {"male1": "train"}, "is not <singer>"),
])
def test_index_refuses(tmp_path, name, splits, message):
    make_tree(tmp_path, [name])
    with pytest.raises(ValueError, match=message):
        datasets.index_vocalset(tmp_path, splits)


def test_index_needs_full_folder_and_audio(tmp_path):
    with pytest.raises(ValueError, match="no folder FULL"):
        datasets.index_vocalset(tmp_path, {})
    (tmp_path / "FULL").mkdir()
    with pytest.raises(ValueError, match="no audio"):
        datasets.index_vocalset(tmp_path, {})


def test_read_audio_averages_channels_and_reads_8_bit(tmp_path):
    soundfile.write(tmp_path / "two.wav", np.stack([TONE, -0.5 * TONE], axis=1), 44_100)
    samples, rate = datasets.read_audio(tmp_path / "two.wav")
    assert rate == 44_100 and samples.dtype == np.float32 and samples.ndim == 1
    np.testing.assert_allclose(samples, 0.25 * TONE, atol=2 / 32768)  # two 16-bit steps
    soundfile.write(tmp_path / "eight.wav", TONE, 44_100, subtype="PCM_U8")
    np.testing.assert_allclose(datasets.read_audio(tmp_path / "eight.wav")[0], TONE, atol=2 / 128)


@pytest.mark.parametrize(("samples", "message"), [
    (np.zeros(0), "is empty"),
    (np.zeros(4410), "is silent"),
    (np.full(4410, np.nan), "NaN or infinite"),
])
def test_read_audio_refuses(tmp_path, samples, message):
    soundfile.write(tmp_path / "bad.wav", samples, 44_100, subtype="FLOAT")
    with pytest.raises(ValueError, match=f"bad.wav .*{message}"):
        datasets.read_audio(tmp_path / "bad.wav")


@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000, 16_000, 22_050, 22_255, 24_000, 32_000,
                                  37_800, 44_056, 44_100, 47_952, 48_000, 88_200, 96_000, 192_000])
def test_every_rate_that_recorders_have_is_read(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", TONE, rate)
    assert datasets.read_audio(tmp_path / "a.wav")[1] == rate
    datasets.check_rate("a.wav", rate, 24_000)


def test_the_size_of_a_file_counts_its_channels(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "LARGEST_BYTES", 8 * len(TONE))
    for channels in (1, 2, 3):
        soundfile.write(tmp_path / f"{channels}.wav", np.stack(channels * [TONE], axis=1), 44_100)
    assert len(datasets.read_audio(tmp_path / "2.wav")[0]) == len(TONE)
    with pytest.raises(ValueError, match=r"3\.wav holds .* of 3 channels at 44,100 Hz"):
        datasets.read_audio(tmp_path / "3.wav")


def test_read_audio_refuses_corrupt_truncated_and_missing(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match=r"cannot read text\.wav"):
        datasets.read_audio(tmp_path / "text.wav")
    with pytest.raises(ValueError, match=r"cannot read none\.wav"):
        datasets.read_audio(tmp_path / "none.wav")
    soundfile.write(tmp_path / "cut.flac", np.tile(TONE, 20), 44_100)
    whole = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(ValueError, match=r"cut\.flac"):
        datasets.read_audio(tmp_path / "cut.flac")


def test_player_is_mp3():
    player = datasets.listen(np.tile(TONE, 10), 44_100)
    assert player.mimetype == "audio/mpeg" and 500 < len(player.data) < 20_000
    samples, rate = soundfile.read(io.BytesIO(player.data))
    assert rate == 16_000 and samples.ndim == 1


def test_singer_in_two_splits_is_refused():
    table = pd.DataFrame({"singer": ["a", "a", "b"], "split": ["train", "test", "test"]})
    with pytest.raises(ValueError, match="'a' is in test and train"):
        datasets.check_splits(table)


def double(rows, factor):
    """For the test below: processes import it by name."""
    return pd.DataFrame([{"x": row["x"] * factor} for row in rows])


def test_shards_keep_order_and_use_the_cache_and_ignore_workers():
    rows = [{"x": i} for i in range(7)]
    seen = []

    def cached(name, parts, compute):
        seen.append(len(parts["rows"]))
        return compute()

    one = datasets.in_shards("t", rows, double, (2,), cached, workers=1, size=3)
    two = datasets.in_shards("t", rows, double, (2,), cached, workers=2, size=3)
    assert one["x"].tolist() == [0, 2, 4, 6, 8, 10, 12]
    pd.testing.assert_frame_equal(one, two)
    assert sorted(seen) == [1, 1, 3, 3, 3, 3]
    kept = datasets.in_shards("t", rows, double, (2,), lambda *_: pd.DataFrame({"x": [5]}), size=4)
    assert kept["x"].tolist() == [5, 5]
