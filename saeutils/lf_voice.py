"""A second singing voice, used only to pre-train the demo encoder.

A Liljencrants-Fant glottal source driven by Fant's single shape parameter Rd, read from a
band-limited wave table, followed by a cascade of moving formants. It shares no code with the
analysed synthesiser (Praat's KlattGrid), knows no technique, and draws every control
independently from a broad prior, so an encoder trained on it has seen neither the analysed voice
nor its labels.

Sources: Fant, Liljencrants and Lin 1985 (the LF model); Fant 1995 (Rd and its regressions).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SAMPLE_RATE = 16_000
RD_GRID = np.linspace(0.3, 3.0, 19)
_PHASES = 512
_MIP_F0 = 50.0 * 2.0 ** (np.arange(11) / 2)  # upper F0 in Hz of each band-limited table, less one

# F1, F2, F3 in Hz of ten broad vowel targets for a neutral tract (rounded textbook values).
VOWELS = np.array(
    [
        [750, 1250, 2600], [600, 1850, 2550], [450, 2100, 2700], [300, 2350, 3050],
        [480, 900, 2550], [350, 750, 2450], [520, 1500, 2500], [680, 1700, 2450],
        [640, 1050, 2600], [330, 1800, 2350],
    ],
    dtype=float,
)  # fmt: skip


def lf_pulse(rd: float, n_samples: int = _PHASES) -> np.ndarray:
    """One period of the LF model's flow derivative.

    Parameters
    ----------
    rd : float
        Fant's shape parameter, 0.3 (pressed) to 3.0 (breathy), without unit.
    n_samples : int
        Samples per period.

    Returns
    -------
    numpy.ndarray, shape (n_samples,), float64
        Flow derivative with its negative peak scaled to -1 and zero mean.

    Raises
    ------
    ValueError
        If `rd` lies outside [0.3, 3.0].

    Notes
    -----
    With Ra = (4.8 Rd - 1)/100, Rk = (11.8 Rd + 22.4)/100 and
    Rg = (Rk/4)(0.5 + 1.2 Rk)/(0.11 Rd - Ra (0.5 + 1.2 Rk)) the open phase is
    E0 exp(a t) sin(pi t / tp) up to te, the return phase an exponential; a follows from zero
    net flow. Source: Fant 1995. The opening is clipped to te <= 0.96 for very breathy pulses.

    Examples
    --------
    >>> pulse = lf_pulse(1.0)
    >>> bool(abs(pulse.mean()) < 1e-9), float(pulse.min())
    (True, -1.0)
    """
    from scipy.optimize import brentq

    if not RD_GRID[0] <= rd <= RD_GRID[-1]:
        raise ValueError(f"rd {rd} is outside {RD_GRID[0]} to {RD_GRID[-1]}: choose a value inside")
    ra, rk = (4.8 * rd - 1) / 100, (11.8 * rd + 22.4) / 100
    rg = (rk / 4) * (0.5 + 1.2 * rk) / (0.11 * rd - ra * (0.5 + 1.2 * rk))
    te = min((1 + rk) / (2 * rg), 0.96)
    tp = te / (1 + rk)
    ta = min(max(ra, 1e-3), 0.9 * (1 - te))
    rest = 1 - te
    eps = brentq(lambda e: e * ta - 1 + np.exp(-e * rest), 0.01 / ta, 2 / ta)
    t = (np.arange(n_samples * 4) + 0.5) / (n_samples * 4)
    omega = np.pi / tp
    decay = -(np.exp(-eps * (t - te)) - np.exp(-eps * rest)) / (eps * ta)

    def pulse(alpha: float) -> np.ndarray:
        rise = np.exp(alpha * (t - te)) * np.sin(omega * t) / abs(np.sin(omega * te))
        return np.where(t < te, rise, decay)

    alpha = brentq(lambda a: pulse(a).sum(), -60.0, 200.0)
    wave = pulse(alpha).reshape(n_samples, 4).mean(1)
    wave -= wave.mean()
    return wave / -wave.min()


@lru_cache(maxsize=2)
def pulse_tables(sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Band-limited LF pulses, shape (F0 band, Rd, phase), float32, first column repeated last.

    Band m serves F0 up to ``50 * 2**(m / 2)`` Hz and keeps harmonics below 0.47 of the sampling
    rate (Hz), so that reading it does not alias.
    """
    spectra = np.fft.rfft(np.stack([lf_pulse(rd) for rd in RD_GRID]), axis=1)
    bands = []
    for top in _MIP_F0 * 2**0.5:
        kept = spectra.copy()
        kept[:, int(0.47 * sample_rate / top) + 1 :] = 0
        bands.append(np.fft.irfft(kept, n=_PHASES, axis=1))
    tables = np.stack(bands)
    return np.concatenate([tables, tables[:, :, :1]], axis=2).astype(np.float32)


def lf_source(f0_hz: np.ndarray, rd: np.ndarray, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Read the wave tables along a F0 contour.

    Parameters
    ----------
    f0_hz : numpy.ndarray, shape (S,)
        Fundamental frequency in Hz per sample, 30 to 1800.
    rd : numpy.ndarray, shape (S,)
        Shape parameter per sample, clipped to 0.3 to 3.0.
    sample_rate : int
        In Hz.

    Returns
    -------
    numpy.ndarray, shape (S,), float32
        Flow derivative, peaks near -1.

    Raises
    ------
    ValueError
        If F0 is not finite or not positive, or the lengths differ.

    Examples
    --------
    >>> lf_source(np.full(160, 200.0), np.full(160, 1.0)).shape
    (160,)
    """
    if f0_hz.shape != rd.shape:
        raise ValueError(f"f0 has shape {f0_hz.shape}, rd {rd.shape}: they must be equal")
    if not (np.isfinite(f0_hz).all() and (f0_hz > 0).all()):
        raise ValueError("f0 must be finite and above 0 Hz in every sample: mute by amplitude")
    tables = pulse_tables(sample_rate)
    phase = np.cumsum(f0_hz / sample_rate)
    position = (phase % 1.0) * _PHASES
    left = np.minimum(position.astype(np.int64), _PHASES - 1)
    share = (position - left).astype(np.float32)
    band = np.clip(np.ceil(2 * np.log2(f0_hz / 50.0)), 0, len(_MIP_F0) - 1).astype(np.int64)
    shape = np.clip((rd - RD_GRID[0]) / (RD_GRID[1] - RD_GRID[0]), 0, len(RD_GRID) - 1.001)
    low = shape.astype(np.int64)
    mix = (shape - low).astype(np.float32)
    width = _PHASES + 1
    flat, base = tables.ravel(), (band * len(RD_GRID) + low) * width + left
    lower = flat[base] * (1 - share) + flat[base + 1] * share
    upper = flat[base + width] * (1 - share) + flat[base + width + 1] * share
    return lower * (1 - mix) + upper * mix


def formant_filter(
    source: np.ndarray, formants_hz: np.ndarray, bandwidths_hz: np.ndarray, block: int = 160,
    sample_rate: int = SAMPLE_RATE,
) -> np.ndarray:  # fmt: skip
    """Cascade of resonators whose centres move from block to block.

    Parameters
    ----------
    source : numpy.ndarray, shape (S,)
    formants_hz, bandwidths_hz : numpy.ndarray, shape (blocks, formants)
        Hz; one row per `block` samples, at least ``ceil(S / block)`` rows.
    block : int
        Samples with constant coefficients.
    sample_rate : int
        In Hz.

    Returns
    -------
    numpy.ndarray, shape (S,), float64
        Each resonator has gain 1 at 0 Hz (Klatt 1980).

    Raises
    ------
    ValueError
        If there are too few rows.
    """
    from scipy.signal import sosfilt

    n_blocks = -(-len(source) // block)
    if len(formants_hz) < n_blocks:
        raise ValueError(f"{len(formants_hz)} formant rows for {n_blocks} blocks: give one each")
    radius = np.exp(-np.pi * bandwidths_hz / sample_rate)
    a1 = -2 * radius * np.cos(2 * np.pi * formants_hz / sample_rate)
    a2 = radius**2
    sos = np.zeros((*formants_hz.shape, 6))
    sos[..., 0], sos[..., 3], sos[..., 4], sos[..., 5] = 1 + a1 + a2, 1, a1, a2
    state, out = np.zeros((formants_hz.shape[1], 2)), np.empty(len(source))
    for b in range(n_blocks):
        cut = slice(b * block, (b + 1) * block)
        out[cut], state = sosfilt(sos[b], source[cut], zi=state)
    return out


def _smooth_steps(rng: np.random.Generator, values: np.ndarray, n: int, glide: float) -> np.ndarray:
    """Hold `values` for random lengths over `n` points, joined by glides of share `glide`."""
    edges = np.sort(rng.uniform(0, n, len(values) - 1))
    centre = np.concatenate([[0], edges, [n]])
    half = glide * np.diff(centre) / 2
    x, y = [], []
    for i, value in enumerate(values):
        x += [centre[i] + half[i], centre[i + 1] - half[i]]
        y += [value, value]
    return np.interp(np.arange(n), x, y)


def _wander(rng: np.random.Generator, n: int, points_per_s: float, rate: float) -> np.ndarray:
    """Piecewise linear noise of unit variance, `points_per_s` knots a second, `n` at `rate` Hz."""
    knots = max(int(n / rate * points_per_s) + 2, 2)
    return np.interp(np.linspace(0, knots - 1, n), np.arange(knots), rng.standard_normal(knots))


def draw_voice(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Draw one clip of LF singing from technique-blind, independent priors.

    Pitch 65 to 900 Hz in steps and glides; vibrato 3 to 9 Hz up to 2 semitones; amplitude
    modulation 2 to 35 Hz up to full depth; jitter to 6 %, shimmer to 2 dB, period doubling;
    Rd .3 to 3; aspiration; spectral tilt; moving vowels; pauses. Each present with a probability
    of its own, none depending on another.

    Parameters
    ----------
    rng : numpy.random.Generator
    duration_s : float
        Seconds, above 0.05.

    Returns
    -------
    numpy.ndarray, shape (duration_s * 16000,), float32
        Peak 0.5.

    Raises
    ------
    ValueError
        If the duration is too short.
    """
    from scipy.signal import lfilter

    if duration_s <= 0.05:
        raise ValueError(f"duration {duration_s} s is too short: ask for more than 0.05 s")
    n, rate = round(duration_s * SAMPLE_RATE), 800  # controls are drawn at 800 Hz
    m = -(-n // 20) + 1
    t = np.arange(m) / rate

    def chance(p: float) -> bool:
        return bool(rng.random() < p)

    # pitch in semitones re 65 Hz
    moves = rng.normal(0, rng.choice([0.3, 2.5, 5]), rng.integers(1, 13))
    notes = rng.uniform(0, 45) + np.cumsum(moves)
    semis = _smooth_steps(rng, np.clip(notes, 0, 45.5), m, rng.uniform(0.02, 0.9))
    semis += rng.uniform(0, 0.25) * _wander(rng, m, 4, rate)
    wobble_rate = rng.uniform(3, 9) * (1 + 0.06 * _wander(rng, m, 1.5, rate))
    wobble = np.sin(2 * np.pi * np.cumsum(wobble_rate) / rate + rng.uniform(0, 6.28))
    if chance(0.3):
        wobble = np.tanh(rng.uniform(1, 4) * wobble)  # towards a square trill
    onset = np.clip((t - rng.uniform(-0.5, 0.6)) / rng.uniform(0.05, 0.6), 0, 1)
    semis += (chance(0.6) * rng.uniform(0.05, 2.0)) * onset * wobble
    # level: tremolo, flutter, pauses, drift, in dB
    am_rate = np.exp(rng.uniform(np.log(2), np.log(35))) * (1 + 0.08 * _wander(rng, m, 3, rate))
    am = 0.5 - 0.5 * np.cos(2 * np.pi * np.cumsum(am_rate) / rate)
    am = am ** rng.uniform(0.5, 3)
    depth = (chance(0.5) * rng.uniform(0.05, 0.97)) * onset
    level = (1 - depth * am) * 10 ** (rng.uniform(0, 5) * _wander(rng, m, 1, rate) / 20)
    semis -= chance(0.3) * rng.uniform(0, 1) * depth * am
    for _ in range(rng.poisson(0.5)):
        start, long = rng.uniform(0, t[-1]), rng.uniform(0.03, 0.6)
        level *= np.clip(np.maximum(start - t, t - start - long) / 0.015, 0, 1)
    rd = rng.uniform(0.3, 2.8) + rng.uniform(0, 0.4) * _wander(rng, m, 2, rate)
    # per-period perturbation: one draw per period, held
    f0 = 65.0 * 2 ** (semis / 12)
    period = np.floor(np.cumsum(f0) / rate).astype(int)
    jitter = chance(0.6) * np.exp(rng.uniform(np.log(0.001), np.log(0.06)))
    shimmer = chance(0.6) * rng.uniform(0.05, 2)
    f0 *= np.clip(1 + jitter * rng.standard_normal(period[-1] + 1)[period], 0.6, 1.6)
    level *= 10 ** (shimmer * rng.standard_normal(period[-1] + 1)[period] / 20)
    if chance(0.12):  # period doubling
        odd, strength = (period % 2), rng.uniform(0.03, 0.4)
        f0, level = f0 * (1 - strength * (odd - 0.5)), level * (1 - strength * odd)
    up = np.linspace(0, m - 1, n)
    grid = np.arange(m)
    f0_s, level_s = np.interp(up, grid, f0), np.interp(up, grid, level)
    source = lf_source(np.clip(f0_s, 30, 1700), np.interp(up, grid, rd)) * level_s
    breath = lfilter([1, -rng.uniform(0, 0.95)], [1], rng.standard_normal(n))
    gated = level_s if chance(0.7) else 1.0
    source = source + 10 ** (rng.uniform(-55, -8) / 20) * breath * gated * rng.uniform(0.3, 1)
    pole = rng.uniform(0, 0.9) if chance(0.6) else 0.0
    source = lfilter([1 - pole], [1, -pole], source)
    # vowels
    blocks = -(-n // 160)
    path = VOWELS[rng.integers(0, len(VOWELS), rng.integers(1, 8))]
    path = path * rng.uniform(0.82, 1.25) * rng.normal(1, 0.06, path.shape)
    glide = rng.uniform(0.1, 1.0)
    seed = rng.integers(2**32)  # the same turning points for F1, F2 and F3
    tracks = [
        _smooth_steps(np.random.default_rng(seed), path[:, i], blocks, glide) for i in range(3)
    ]
    high = np.array([rng.uniform(3000, 4000), rng.uniform(3900, 5200), rng.uniform(5600, 7200)])
    formants = np.column_stack([*tracks, *np.tile(high, (blocks, 1)).T])
    f0_blocks = np.interp(np.arange(blocks) * 160, np.arange(n), f0_s)
    if chance(0.7):  # keep the first resonance above the fundamental, as singers do
        formants[:, 0] = np.maximum(formants[:, 0], rng.uniform(0.95, 1.2) * f0_blocks)
    width = np.array([70, 90, 130, 200, 280, 400]) * rng.uniform(0.6, 2.2)
    voice = formant_filter(source, np.clip(formants, 150, 7600), np.tile(width, (blocks, 1)))
    return (0.5 * voice / max(np.abs(voice).max(), 1e-9)).astype(np.float32)
