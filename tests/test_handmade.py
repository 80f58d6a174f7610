import numpy as np
import pytest

from saeutils.handmade import (
    BANDS,
    GROUPS,
    HIGH_HZ,
    LOW_HZ,
    MODULATIONS_HZ,
    mel_bands,
    mel_statistics,
    mel_table,
)

RATE = 16_000


def tone(hz, seconds=2.0, am_hz=0.0):
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hz * time) * (1 + 0.9 * np.sin(2 * np.pi * am_hz * time))
            ).astype(np.float32)


def test_a_tone_is_loudest_in_its_own_band():
    mel = 2595 * np.log10(1 + np.array([LOW_HZ, 1_000.0, HIGH_HZ]) / 700)
    expected = (mel[1] - mel[0]) / (mel[2] - mel[0]) * (BANDS + 1) - 1
    assert abs(mel_statistics(tone(1_000.0), RATE)[:BANDS].argmax() - expected) <= 1


def test_modulation_stands_at_its_own_rate():
    found = mel_statistics(tone(1_000.0, am_hz=5.0), RATE)[2 * BANDS:]
    octaves = found.reshape(GROUPS, len(MODULATIONS_HZ) - 1)
    own = next(i for i, low in enumerate(MODULATIONS_HZ) if low <= 5.0 < MODULATIONS_HZ[i + 1])
    group = mel_statistics(tone(1_000.0), RATE)[:BANDS].argmax() // (BANDS // GROUPS)
    assert octaves[group].argmax() == own


def test_gain_changes_nothing_and_silence_is_finite():
    wave = tone(440.0, am_hz=6.0)
    assert np.allclose(mel_statistics(wave, RATE), mel_statistics(0.1 * wave, RATE), atol=1e-3)
    assert np.isfinite(mel_statistics(np.zeros(RATE), RATE)).all()


def test_bands_sum_to_one_and_too_short_clips_are_refused():
    assert np.allclose(mel_bands(736, RATE).sum(axis=1), 1)
    with pytest.raises(ValueError, match="clip of 0.010 s"):
        mel_statistics(np.zeros(160), RATE)


def test_the_table_reads_files_in_their_order(tmp_path):
    import soundfile

    paths = []
    for hz in (300.0, 1_000.0):
        paths.append(tmp_path / f"{hz:g}.flac")
        soundfile.write(paths[-1], tone(hz), RATE)
    table = mel_table(paths)
    assert table.shape == (2, 2 * BANDS + GROUPS * (len(MODULATIONS_HZ) - 1))
    assert np.allclose(table[1], mel_statistics(tone(1_000.0), RATE), atol=0.5)
