"""One clip's row of controls becomes sound: Praat's KlattGrid for the voice, numpy for all noise.

The voiced part is synthesised with peak scaling off, so that a control never moves the level of
another clip. Aspiration, room and floor are drawn here as functions of time from the clip's seed,
so that moving one control leaves the draws of all others where they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saeutils.synthesis_controls import generator
from saeutils.synthesis_filters import BANDWIDTHS, SAMPLE_RATE, colour, floor, room, tract

GRID_HZ = 1_000  # time grid of contours and of the draws for jitter and shimmer
REFERENCE_HZ = 27.5  # 0 semitones, as openSMILE counts
PATTERNS = {  # semitones above the tonic, note by note
    "scales": (0, 2, 4, 5, 7, 5, 4, 2, 0),
    "arpeggios": (0, 4, 7, 12, 7, 4, 0),
    "long_tones": (2, 12, -4),
    "excerpts": (4, 7, 5, 9, 7, 4, 5, 2, 4, 2, 0),
}
PAUSE_S = {"scales": 0.0, "arpeggios": 0.0, "long_tones": 0.35, "excerpts": 0.25}
NOTES_PER_PHRASE = {"scales": 99, "arpeggios": 99, "long_tones": 1, "excerpts": 4}
# Formants of an average man, Hz (after Hillenbrand et al. 1995, and a singer's lower F4 and F5).
FORMANTS = {
    "a": (720, 1240, 2500, 3100, 3700, 4700),
    "e": (480, 2050, 2600, 3200, 3750, 4700),
    "i": (330, 2250, 2950, 3350, 3800, 4700),
    "o": (490, 900, 2450, 3050, 3650, 4700),
    "u": (370, 950, 2300, 3050, 3650, 4700),
}
LIPS_HZ = (400, 1300)  # where F1 and F2 go while the lips flap
VOICING_DB = 85.0
LEVEL_DB = -14.5  # brings a straight tone to about the level of VocalSet's
ASPIRATION_DB = -72.0  # 4 dB below what matches Praat's aspiration by its effect on HNR


@dataclass(frozen=True)
class Contours:
    """The clip as functions of time on the grid of `GRID_HZ`, before any sound."""

    duration_s: float
    time: np.ndarray
    f0_hz: np.ndarray
    envelope: np.ndarray
    modulation: np.ndarray
    closure: np.ndarray
    pulsing: np.ndarray
    notes: tuple[tuple[float, float, float], ...]
    targets: np.ndarray  # [note, formant] in Hz


@dataclass(frozen=True)
class Stems:
    """Parts of one clip at `SAMPLE_RATE`: dry voice and aspiration, room, floor, and two factors.

    `level` applies to voice and aspiration, before the room; `gain` to everything.
    """

    voiced: np.ndarray
    aspiration: np.ndarray
    echo: np.ndarray
    floor: np.ndarray
    level: float
    gain: float

    @property
    def samples(self) -> np.ndarray:
        """float64 samples, within -1..1; a clip that would leave it is refused."""
        from scipy.signal import oaconvolve

        dry = self.level * (self.voiced + self.aspiration)
        mix = self.gain * (oaconvolve(dry, self.echo)[: len(dry)] + self.floor)
        peak = np.abs(mix).max()
        if peak >= 1:
            raise ValueError(f"peak {peak:.2f} would be cut off: lower level_db or gain_db")
        return mix


def melody(exercise: str, vowel: str, row: dict, rng: np.random.Generator):
    """Notes as (start s, end s, semitones) and the end of the clip in seconds.

    `row` holds `note_s` and `n_notes`; silence before and after, and small differences between
    notes, come from `rng`. Nothing here depends on the technique.
    """
    if exercise not in PATTERNS:
        raise ValueError(f"unknown exercise {exercise!r}: there are {', '.join(PATTERNS)}")
    steps = PATTERNS[exercise][: int(row["n_notes"])]
    stretch = rng.uniform(0.9, 1.1, len(PATTERNS[exercise]))
    shift = rng.uniform(-0.5, 0.5)
    start = rng.uniform(0.05, 0.2)
    notes = []
    for index, step in enumerate(steps):
        if index and index % NOTES_PER_PHRASE[exercise] == 0:
            start += PAUSE_S[exercise]
        end = start + row["note_s"] * stretch[index]
        notes.append((start, end, step + shift))
        start = end
    return tuple(notes), start + rng.uniform(0.08, 0.2)


def contours(row: dict, seed: int) -> Contours:
    """Pitch, envelope, modulation and formant targets of one clip as functions of time."""
    key = row["melody_key"]
    notes, duration = melody(row["exercise"], row["vowel"], row, generator(seed, key, "melody"))
    n = int(np.ceil(duration * GRID_HZ)) + 1
    time = np.arange(n) / GRID_HZ
    drift_rng = generator(seed, key, "drift")
    drift, slow_rate, slow_am, slow_extent, slow_pulsing = (
        _slow_noise(drift_rng, n) for _ in range(5))

    phrase_start, envelope = _envelope(notes, time, row["articulation"])
    low = min(step for _, _, step in notes)  # a smaller range misses the top, not the bottom
    steps = _glide(notes, time) - low
    vibrato = _vibrato(row, time, phrase_start, slow_rate, slow_extent)
    closure = _closure(row, time, slow_am)
    f0_st = (row["tonic_st"] + low + row["range_scale"] * steps - row["f0_drop_st"]
             + vibrato + 0.06 * drift - row["am_f0_dip_st"] * closure)
    f0_st -= row["articulation"] * 2.0 * (time - time.mean()) / max(time[-1], 1.0)
    f0_hz = REFERENCE_HZ * 2 ** (f0_st / 12)
    modulation = 1 - row["am_depth"] * closure
    modulation *= _breaks(row, time, generator(seed, key, "breaks"))
    targets = _targets(row, notes, generator(seed, key, "vowels"))
    pulsing = np.clip(row["double_pulsing"] * (1 + 1.2 * slow_pulsing), 0, 0.5)
    return Contours(
        duration, time, f0_hz, envelope, modulation, closure, pulsing, notes, targets)


def render_stems(row: dict, seed: int) -> Stems:
    """Synthesise one clip from its row.

    Parameters
    ----------
    row
        Every control of `saeutils.synthesis_controls.CONTROLS`, and `exercise`, `vowel`,
        `n_notes`, the keys `melody_key` and `noise_key` of its draws, and `formant_tonic_st`, the
        pitch that the rule F1 >= F0 follows.
    seed
        Seed of the profile.

    Returns
    -------
    Stems
        Voice, aspiration and floor, float64, and the clip's gain.
    """
    shape = contours(row, seed)
    n = int(round(shape.duration_s * SAMPLE_RATE))
    key = row["noise_key"]
    at = np.arange(n) / SAMPLE_RATE
    envelope = np.interp(at, shape.time, shape.envelope)
    voiced = _klatt(row, shape, generator(seed, key, "jitter"), generator(seed, key, "shimmer"))
    voiced = _fit(voiced, n) * envelope * np.interp(at, shape.time, shape.modulation)
    breath = generator(seed, key, "aspiration").standard_normal(n)
    breath = tract(np.diff(breath, prepend=0.0), row, shape.targets) * envelope
    breath *= 10 ** ((row["aspiration_db"] + ASPIRATION_DB) / 20)
    hiss = floor(n, generator(seed, key, "floor")) * 10 ** (row["floor_db"] / 20)
    echo = room(row, generator(seed, row["melody_key"], "room"))
    return Stems(
        colour(voiced, row), colour(breath, row), echo,
        hiss, 10 ** ((row["level_db"] + LEVEL_DB) / 20), 10 ** (row["gain_db"] / 20),
    )


def _envelope(notes, time, articulation):
    """Start of the phrase at each moment, and the amplitude of phrases, notes and syllables."""
    starts = [start for start, _, _ in notes]
    ends = [end for _, end, _ in notes]
    gaps = [i for i in range(1, len(notes)) if starts[i] - ends[i - 1] > 1e-9]
    firsts, lasts = [0, *gaps], [*(i - 1 for i in gaps), len(notes) - 1]
    envelope, phrase_start = np.zeros_like(time), np.zeros_like(time)
    for first, last in zip(firsts, lasts, strict=True):
        a, b = starts[first], ends[last]
        rise = np.clip((time - a) / 0.05, 0, 1)
        fall = np.clip((b - time) / 0.09, 0, 1)
        inside = np.sin(np.pi / 2 * rise) ** 2 * np.sin(np.pi / 2 * fall) ** 2
        arch = 0.8 + 0.2 * np.sin(np.pi * np.clip((time - a) / (b - a), 0, 1))
        envelope += inside * arch
        phrase_start[time >= a] = a
    dips = np.zeros_like(time)
    for index in set(range(1, len(notes))) - set(gaps):
        dips = np.maximum(dips, np.exp(-0.5 * ((time - starts[index]) / 0.02) ** 2))
    return phrase_start, envelope * (1 - np.clip(0.08 + 0.88 * articulation, 0, 0.97) * dips)


def _glide(notes, time):
    """Semitones over time, with glides of about 70 ms between notes."""
    steps = np.empty_like(time)
    steps[:] = notes[0][2]
    for start, _, step in notes:
        steps[time >= start] = step
    window = np.hanning(73)[1:-1]
    padded = np.pad(steps, 35, mode="edge")
    return np.convolve(padded, window / window.sum(), mode="valid")


def _slow_noise(rng, n):
    """Unit-variance noise below about 4 Hz, one value per grid point."""
    knots = rng.standard_normal(160)  # 8 a second, enough for 20 s
    return np.interp(np.arange(n) / GRID_HZ * 8, np.arange(160), knots)


def _vibrato(row, time, phrase_start, slow_rate, slow_extent):
    rate = row["vibrato_rate_hz"] * (1 + 0.04 * slow_rate)
    wave = np.sin(2 * np.pi * np.cumsum(rate) / GRID_HZ)
    drive = 0.05 + 3.0 * row["vibrato_squareness"]
    wave = np.tanh(drive * wave) / np.tanh(drive)
    onset = np.clip((time - phrase_start - 0.08) / 0.15, 0, 1)
    return row["vibrato_extent_st"] * onset * wave * (1 + 0.08 * slow_extent)


def _closure(row, time, slow_am):
    """0 open to 1 closed, at the rate of the amplitude modulation."""
    rate = row["am_rate_hz"] * (1 + 0.05 * slow_am)
    wave = np.cos(2 * np.pi * np.cumsum(rate) / GRID_HZ)
    return 0.5 - 0.5 * np.tanh(1.5 * wave) / np.tanh(1.5)


def _breaks(row, time, rng):
    """Gain of short voice breaks: each 50 ms cell draws once, whatever the rate is."""
    cell = 0.05
    draws, lengths = rng.random(400), rng.uniform(0.04, 0.12, 400)
    gain = np.ones_like(time)
    for index in np.flatnonzero(draws < row["breaks_per_s"] * cell):
        inside = np.abs(time - index * cell) / lengths[index]
        gain = np.minimum(gain, 0.02 + 0.98 * np.clip(2 * inside - 0.6, 0, 1))
    return gain


def _targets(row, notes, rng):
    """Formants per note, Hz: vowel, tract, lips, speech, and F1 at least 1.03 times the pitch."""
    vowel = np.array(FORMANTS[row["vowel"] if row["vowel"] in FORMANTS else "a"], float)
    others = np.array(list(FORMANTS.values()), float)[rng.integers(len(FORMANTS), size=len(notes))]
    speech = min(row["articulation"], 1.0)
    hz = vowel ** (1 - speech) * others**speech * row["formant_scale"]
    hz[:, 0] *= row["f1_scale"]
    low = min(step for _, _, step in notes)
    for index, (_, _, step) in enumerate(notes):
        f0_st = row["formant_tonic_st"] + low + row["range_scale"] * (step - low)
        hz[index, 0] = max(hz[index, 0], 1.03 * REFERENCE_HZ * 2 ** (f0_st / 12))
        hz[index, 1] = max(hz[index, 1], hz[index, 0] + 150)
    closed = row["lip_closure"]
    hz[:, :2] = hz[:, :2] ** (1 - closed) * np.array(LIPS_HZ) ** closed
    return hz


def _klatt(row, shape, jitter_rng, shimmer_rng):
    """The voiced part from Praat, every tier in one script."""
    import parselmouth

    time, f0 = shape.time, shape.f0_hz
    cycles = np.concatenate([[0.0], np.cumsum((f0[1:] + f0[:-1]) / 2 / GRID_HZ)])
    periods = np.interp(np.arange(1, int(cycles[-1])), cycles, time)
    cell = np.round(periods * GRID_HZ).astype(int)
    wobble = 1 + row["jitter_percent"] / 100 * jitter_rng.standard_normal(len(time))[cell]
    shimmer = row["shimmer_db"] * shimmer_rng.standard_normal(len(time))[cell]
    pitch = np.interp(periods, time, f0) * np.clip(wobble, 0.7, 1.3)
    lines = [f'Create KlattGrid: "v", 0, {shape.duration_s:.6f}, 6, 0, 0, 0, 0, 0, 0']
    for at, hz, db in zip(periods, pitch, VOICING_DB + shimmer, strict=True):
        lines.append(f"Add pitch point: {at:.7f}, {hz:.5f}")
        lines.append(f"Add voicing amplitude point: {at:.7f}, {db:.4f}")
    lines.append(f"Add open phase point: 0, {row['open_phase']:.5f}")
    if row["double_pulsing"] > 0.002:
        lines += [f"Add double pulsing point: {at:.3f}, {share:.5f}"
                  for at, share in zip(time[::50], shape.pulsing[::50], strict=True)]
    ticks = time[::4] if row["am_tilt_db"] > 0.2 else time[:1]
    tilts = row["tilt_db"] + row["am_tilt_db"] * shape.closure[:: 4][: len(ticks)]
    lines += [f"Add spectral tilt point: {at:.4f}, {db:.4f}"
              for at, db in zip(ticks, tilts, strict=True)]
    lines += _formant_lines(row, shape)
    lines.append('To Sound (special): 0, 0, 44100, "no", "yes", "no", "yes", "no", "yes", '
                 '"Powers in tiers", "yes", "no", "no", "Cascade", 1, 6, '
                 '1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, "no"')
    made = parselmouth.praat.run("\n".join(lines))
    sound = made[-1] if isinstance(made, list) else made
    return sound.values[0]


def _formant_lines(row, shape):
    lines = []
    still = np.allclose(shape.targets, shape.targets[0], rtol=1e-3)
    for number in range(shape.targets.shape[1]):
        width = BANDWIDTHS[number] * row["bandwidth_scale"]
        lines.append(f"Add oral formant bandwidth point: {number + 1}, 0, {width:.3f}")
        for (start, end, _), hz in zip(shape.notes, shape.targets[:, number], strict=True):
            for at in ((start + end) / 2,) if still else (start + 0.04, end - 0.03):
                lines.append(f"Add oral formant frequency point: {number + 1}, {at:.5f}, {hz:.3f}")
            if still:
                break
    return lines


def _fit(signal, n):
    return np.pad(signal, (0, max(0, n - len(signal))))[:n]
