"""What needs no encoder: log-mel mean and SD with a modulation spectrum, as a null for probes.

An encoder that reads singing technique no better than these has not been shown to hear more than
energy per band and its movement. Shape letters: T frames, B bands, M bands of modulation.

Source: mel scale of O'Shaughnessy (1987); modulation bands after Dau, Kollmeier & Kohlrausch (1997)
in the simplest form, power of the level's Fourier transform in octaves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.fft import next_fast_len, rfft

BANDS, LOW_HZ, HIGH_HZ = 40, 60.0, 7_600.0
FRAME_S, HOP_S = 0.046, 0.01
MODULATIONS_HZ = (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)
GROUPS = 8  # groups of mel bands whose movement is described


def mel_statistics(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Mean and SD of the level in each mel band, and how fast groups of bands move.

    Parameters
    ----------
    wave
        Mono samples.
    rate_hz
        Their rate; bands above half of it are empty.

    Returns
    -------
    ndarray
        Length 2 * `BANDS` + `GROUPS` * 8: mean (dB), SD (dB), and log10 of the power of each
        group's level in each band of `MODULATIONS_HZ`, relative to the group's total. Levels are
        relative to the clip's loudest frame and end 80 dB below it, so a gain changes nothing and
        silence is a constant.

    Raises
    ------
    ValueError
        Shorter than two frames, or not finite.
    """
    size, hop = round(FRAME_S * rate_hz), round(HOP_S * rate_hz)
    wave = np.asarray(wave, dtype=np.float32)
    if len(wave) < size + hop or not np.isfinite(wave).all():
        raise ValueError(f"clip of {len(wave) / rate_hz:.3f} s, finite or not: at least "
                         f"{(size + hop) / rate_hz:.3f} s of finite samples are needed")
    frames_TS = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop]
    points = next_fast_len(size, real=True)  # zeros behind each frame: a transform of good size
    power_TK = np.abs(rfft(frames_TS * np.hanning(size).astype(np.float32), points, axis=1)) ** 2
    mel_TB = power_TK @ mel_bands(points, rate_hz).T
    top = float(mel_TB.max())
    level_TB = 10 * np.log10(np.maximum(mel_TB / top if top > 0 else mel_TB, 1e-8))
    groups_TG = level_TB.reshape(len(level_TB), GROUPS, -1).mean(axis=2)
    moving_FG = np.abs(np.fft.rfft(groups_TG - groups_TG.mean(axis=0), axis=0)) ** 2
    hertz_F = np.fft.rfftfreq(len(groups_TG), hop / rate_hz)
    octave = np.digitize(hertz_F, MODULATIONS_HZ)
    total_G = moving_FG[1:].sum(axis=0)
    parts = [moving_FG[octave == i].sum(axis=0) / np.maximum(total_G, 1e-12)
             for i in range(1, len(MODULATIONS_HZ))]
    modulation = np.log10(np.stack(parts, axis=1) + 1e-4)
    return np.concatenate([level_TB.mean(axis=0), level_TB.std(axis=0), modulation.ravel()])


def mel_bands(size: int, rate_hz: int) -> np.ndarray:
    """Triangular weights [BANDS, bins] on a mel scale, each summing to one where it has bins."""
    mel = np.linspace(*(2595 * np.log10(1 + np.array([LOW_HZ, HIGH_HZ]) / 700)), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hertz = np.fft.rfftfreq(size, 1 / rate_hz)
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights = np.minimum((hertz - left) / (middle - left), (right - hertz) / (right - middle))
    weights = np.clip(weights, 0, None)
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)


def mel_table(paths: list[Path], workers: int = 1) -> np.ndarray:
    """`mel_statistics` of sound files, one row each, in processes of one thread."""
    from joblib import Parallel, delayed

    return np.stack(Parallel(n_jobs=workers, batch_size=16)(
        delayed(_of_file)(str(path)) for path in paths))


def _of_file(path: str) -> np.ndarray:
    from saeutils.datasets import read_audio

    return mel_statistics(*read_audio(Path(path)))
