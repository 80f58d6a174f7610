"""The numpy half of a clip: noise through the tract, the singer's colour, room and floor."""

from __future__ import annotations

import numpy as np

SAMPLE_RATE = 44_100
BANDWIDTHS = (70, 90, 130, 180, 230, 300)  # of the six formants, Hz


def tract(noise, row, targets):
    """Noise through the clip's mean formants, as a cascade of resonators with gain 1 at 0 Hz."""
    from scipy.signal import sosfilt

    hz = targets.mean(axis=0)
    width = np.array(BANDWIDTHS) * row["bandwidth_scale"]
    c = -np.exp(-2 * np.pi * width / SAMPLE_RATE)
    b = 2 * np.exp(-np.pi * width / SAMPLE_RATE) * np.cos(2 * np.pi * hz / SAMPLE_RATE)
    zero, one = np.zeros_like(b), np.ones_like(b)
    return sosfilt(np.stack([1 - b - c, zero, zero, one, -b, -c], axis=1), noise)


def colour(signal, row):
    """Singer's formant cluster (a peak at 2.9 kHz) and the microphone's shelf above 4 kHz."""
    from scipy.signal import sosfilt

    hz = min(2900 * row["formant_scale"], 3300)
    peak = _biquad("peak", hz, row["cluster_db"])
    shelf = _biquad("shelf", 4000, row["shelf_db"])
    return sosfilt(np.stack([peak, shelf]), signal)


def _biquad(kind, hz, gain_db, quality=1.4):
    """Coefficients of a peaking or high-shelf filter (Bristow-Johnson's formulas)."""
    a = 10 ** (gain_db / 40)
    w = 2 * np.pi * hz / SAMPLE_RATE
    cos = np.cos(w)
    if kind == "peak":
        alpha = np.sin(w) / (2 * quality)
        top = (1 + alpha * a, -2 * cos, 1 - alpha * a)
        bottom = (1 + alpha / a, -2 * cos, 1 - alpha / a)
    else:
        alpha, root = np.sin(w) / np.sqrt(2), np.sqrt(a)
        top = (a * (a + 1 + (a - 1) * cos + 2 * root * alpha), -2 * a * (a - 1 + (a + 1) * cos),
               a * (a + 1 + (a - 1) * cos - 2 * root * alpha))
        bottom = (a + 1 - (a - 1) * cos + 2 * root * alpha, 2 * (a - 1 - (a + 1) * cos),
                  a + 1 - (a - 1) * cos - 2 * root * alpha)
    return np.array([*top, *bottom]) / bottom[0]


def room(row, rng):
    """Impulse response: the direct sound, then noise that decays by 60 dB in `room_s`."""
    n = int(0.3 * SAMPLE_RATE)
    at = np.arange(n) / SAMPLE_RATE
    tail = rng.standard_normal(n) * 10 ** (-3 * at / row["room_s"]) * (at > 0.008)
    tail *= 10 ** (row["room_db"] / 20) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return tail


def floor(n, rng):
    """Unit-variance noise that falls by 3 dB an octave or so, as of a quiet room."""
    from scipy.signal import lfilter

    noise = lfilter([1.0], [1.0, -0.97], rng.standard_normal(n)) + rng.standard_normal(n)
    return noise / 4.2
