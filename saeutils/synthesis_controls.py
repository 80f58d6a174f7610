"""Singers and techniques as distributions over the controls of a voice.

A control is one number of a clip: a tilt in dB, a rate in Hz. `CONTROLS` lists them all with unit
and range; together they are the *recorded factors* of a clip. A technique is never a value but a
range of shifts from the singer's own straight tone (`TECHNIQUES`), scaled by a drawn intensity.
Ranges follow the literature (see data/README.md), moved where paired contrasts to straight tone
of VocalSet's training singers asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saeutils.keys import seed_for

STAGE = "01"
TECHNIQUE_NAMES = (
    "belt", "breathy", "inhaled", "lip_trill", "spoken", "straight", "trill", "trillo",
    "vibrato", "vocal_fry",
)
VOWELS = ("a", "e", "i", "o", "u")


@dataclass(frozen=True)
class Control:
    """One recorded factor: its unit, its bounds, and whether it is shifted on a log scale."""

    unit: str
    low: float
    high: float
    log: bool = False


CONTROLS = {
    "intensity": Control("share of the full technique", 0.0, 1.3),
    "tonic_st": Control("semitones above 27.5 Hz", 24.0, 48.0),
    "f0_drop_st": Control("semitones", 0.0, 36.0),
    "range_scale": Control("times the written intervals", 0.2, 1.2, log=True),
    "vibrato_extent_st": Control("semitones, half extent", 0.0, 2.5),
    "vibrato_rate_hz": Control("Hz", 3.5, 8.5),
    "vibrato_squareness": Control("0 sine to 1 trapezoid", 0.0, 1.0),
    "am_depth": Control("share of the amplitude", 0.0, 0.97),
    "am_rate_hz": Control("Hz", 3.0, 36.0),
    "am_tilt_db": Control("dB at 3 kHz in the closure", 0.0, 12.0),
    "am_f0_dip_st": Control("semitones in the closure", 0.0, 3.0),
    "tilt_db": Control("dB at 3 kHz", 0.0, 34.0),
    "open_phase": Control("share of the period", 0.3, 0.75),
    "double_pulsing": Control("share of the period", 0.0, 0.4),
    "jitter_percent": Control("SD per period, %", 0.01, 6.0, log=True),
    "shimmer_db": Control("SD per period, dB", 0.03, 3.0, log=True),
    "aspiration_db": Control("dB", 15.0, 62.0),
    "breaks_per_s": Control("per second", 0.0, 2.0),
    "articulation": Control("0 one vowel to 1 speech", 0.0, 1.3),
    "formant_scale": Control("times an average man", 0.85, 1.25, log=True),
    "f1_scale": Control("times", 0.7, 1.3, log=True),
    "lip_closure": Control("0 open to 1 lips touch", 0.0, 1.0),
    "bandwidth_scale": Control("times", 0.6, 2.6, log=True),
    "cluster_db": Control("dB at 3 kHz", -3.0, 16.0),
    "level_db": Control("dB", -30.0, 12.0),
    "gain_db": Control("dB", -8.0, 8.0),
    "shelf_db": Control("dB above 4 kHz", -8.0, 8.0),
    "room_db": Control("dB, reverberant to direct", -30.0, -6.0),
    "room_s": Control("s, reverberation time", 0.1, 0.6),
    "floor_db": Control("dB re full scale", -85.0, -55.0),
    "note_s": Control("s", 0.1, 6.0),
}
FACTORS = tuple(CONTROLS)

# Shifts from the singer's straight tone at intensity 1, drawn between two ends; for controls on a
# log scale the ends are ratios. Rates (RATES) are values, not shifts.
TECHNIQUES: dict[str, dict[str, tuple[float, float]]] = {
    "straight": {},
    "vibrato": {
        "vibrato_extent_st": (0.8, 1.4), "vibrato_rate_hz": (5.0, 6.4), "am_depth": (0.1, 0.35),
        "am_rate_hz": (5.0, 6.4), "tilt_db": (-5.0, -2.0), "level_db": (2.0, 6.0),
        "jitter_percent": (1.5, 4.0),
    },
    "trill": {
        "vibrato_extent_st": (1.3, 2.1), "vibrato_rate_hz": (4.8, 6.6),
        "vibrato_squareness": (0.3, 0.9), "am_depth": (0.3, 0.65), "am_rate_hz": (4.8, 6.6),
        "level_db": (2.0, 6.0), "jitter_percent": (1.5, 4.0),
    },
    "trillo": {
        "am_depth": (0.7, 0.97), "am_rate_hz": (3.5, 7.5), "am_f0_dip_st": (1.0, 2.8),
        "tilt_db": (0.0, 3.0), "level_db": (2.0, 7.0), "jitter_percent": (5.0, 15.0),
        "breaks_per_s": (0.0, 0.3),
    },
    "lip_trill": {
        "am_depth": (0.75, 0.97), "am_rate_hz": (18.0, 33.0), "am_tilt_db": (3.0, 9.0),
        "lip_closure": (0.7, 1.0), "jitter_percent": (80.0, 300.0), "shimmer_db": (2.0, 6.0),
        "level_db": (-4.0, 2.0), "breaks_per_s": (0.0, 0.4),
    },
    "breathy": {
        "tilt_db": (8.0, 19.0), "aspiration_db": (6.0, 13.0), "bandwidth_scale": (1.2, 1.6),
        "level_db": (-8.0, -2.0), "jitter_percent": (1.0, 3.0),
    },
    "belt": {
        "open_phase": (-0.18, -0.08), "tilt_db": (-12.0, -6.0), "f1_scale": (1.03, 1.18),
        "cluster_db": (2.0, 8.0), "vibrato_extent_st": (0.2, 0.9), "jitter_percent": (2.0, 8.0),
        "am_depth": (0.0, 0.15), "level_db": (2.0, 6.0),
    },
    "inhaled": {
        "tilt_db": (8.0, 20.0), "aspiration_db": (7.0, 15.0), "jitter_percent": (20.0, 70.0),
        "shimmer_db": (3.0, 9.0), "breaks_per_s": (0.3, 1.1), "range_scale": (0.4, 0.9),
        "level_db": (-13.0, -4.0),
    },
    "vocal_fry": {  # plus one of FRY_HABITS, by singer
        "jitter_percent": (15.0, 70.0), "shimmer_db": (2.5, 9.0), "aspiration_db": (0.0, 8.0),
        "tilt_db": (-2.0, 4.0), "level_db": (-15.0, -6.0), "breaks_per_s": (0.1, 0.6),
    },
    "spoken": {
        "f0_drop_st": (8.0, 12.0), "range_scale": (0.3, 0.6), "articulation": (0.7, 1.1),
        "jitter_percent": (8.0, 40.0), "shimmer_db": (2.0, 5.0), "tilt_db": (-6.0, 1.0),
        "aspiration_db": (3.0, 12.0), "level_db": (-14.0, -6.0),
    },
}
FRY_HABITS = (  # probability, then the shifts of this habit
    (0.60, {"double_pulsing": (0.06, 0.25)}),
    (0.28, {"f0_drop_st": (7.0, 13.0), "double_pulsing": (0.0, 0.15)}),
    (0.12, {"f0_drop_st": (22.0, 32.0)}),
)
# The controls that make a technique what it is; the crossed set draws all others independently.
DEFINING: dict[str, tuple[str, ...]] = {
    "straight": ("vibrato_extent_st", "am_depth", "double_pulsing", "breaks_per_s"),
    "vibrato": ("vibrato_extent_st", "vibrato_rate_hz"),
    "trill": ("vibrato_extent_st", "vibrato_rate_hz", "vibrato_squareness"),
    "trillo": ("am_depth", "am_rate_hz", "am_f0_dip_st"),
    "lip_trill": ("am_depth", "am_rate_hz", "am_tilt_db", "lip_closure"),
    "breathy": ("tilt_db", "aspiration_db"),
    "belt": ("open_phase", "tilt_db", "cluster_db"),
    "inhaled": ("aspiration_db", "breaks_per_s", "jitter_percent"),
    "vocal_fry": ("double_pulsing", "f0_drop_st", "jitter_percent"),
    "spoken": ("articulation", "f0_drop_st", "range_scale"),
}
RATES = ("vibrato_rate_hz", "am_rate_hz")
# Spread that is the same for every technique: per singer and technique, and per clip.
HABIT_SD = {"tilt_db": 2.5, "level_db": 2.5, "jitter_percent": 0.4, "shimmer_db": 0.25,
            "aspiration_db": 3.0, "cluster_db": 1.5}
CLIP_SD = {"tilt_db": 0.8, "level_db": 0.8, "jitter_percent": 0.2, "shimmer_db": 0.15,
           "aspiration_db": 1.0, "vibrato_rate_hz": 0.2, "open_phase": 0.01}
BORROW_CHANCE = 0.8  # share of clips that carry a trace of another technique
BORROW_WEIGHT = 0.5  # its largest intensity


def generator(seed: int, *names: object) -> np.random.Generator:
    """Random numbers for one purpose; the names are the purpose, never the technique.

    Examples
    --------
    >>> bool(generator(0, "a").random() == generator(0, "a").random())
    True
    """
    return np.random.default_rng(seed_for(seed, STAGE, *names))


def draw_singer(seed: int, name: str, sex: str) -> dict[str, float]:
    """The straight tone of one singer: a value for every control.

    Parameters
    ----------
    seed
        Seed of the profile.
    name
        The singer's name, which keys the draw.
    sex
        ``"F"`` or ``"M"``: sets the ranges of pitch, tract, jitter and cluster.

    Raises
    ------
    ValueError
        For another sex.
    """
    if sex not in ("F", "M"):
        raise ValueError(f"sex {sex!r} of {name}: 'F' or 'M', for which there are ranges")
    rng = generator(seed, "singer", name)
    woman = sex == "F"
    draw = rng.uniform
    return {
        "intensity": 0.0,
        "tonic_st": draw(39.5, 44.0) if woman else draw(28.2, 34.4),
        "f0_drop_st": 0.0,
        "range_scale": draw(0.97, 1.0),
        "vibrato_extent_st": draw(0.03, 0.2),
        "vibrato_rate_hz": draw(4.8, 6.4),
        "vibrato_squareness": draw(0.0, 0.25),
        "am_depth": draw(0.0, 0.08),
        "am_rate_hz": draw(4.5, 7.0),
        "am_tilt_db": 0.0,
        "am_f0_dip_st": 0.0,
        "tilt_db": draw(4.0, 11.0),
        "open_phase": draw(0.52, 0.64),
        "double_pulsing": 0.0,
        "jitter_percent": np.exp(draw(*np.log((0.03, 0.1) if woman else (0.06, 0.3)))),
        "shimmer_db": np.exp(draw(*np.log((0.06, 0.16)))),
        "aspiration_db": draw(25.0, 34.0),
        "breaks_per_s": 0.0,
        "articulation": draw(0.0, 0.1),
        "formant_scale": draw(1.05, 1.16) if woman else draw(0.90, 1.02),
        "f1_scale": draw(0.95, 1.05),
        "lip_closure": draw(0.0, 0.1),
        "bandwidth_scale": draw(0.8, 1.6),
        "cluster_db": draw(1.0, 7.0) if woman else draw(3.0, 10.0),
        "level_db": draw(-1.5, 1.5),
        "gain_db": draw(-4.0, 4.0),
        "shelf_db": draw(-4.0, 4.0),
        "room_db": draw(-24.0, -14.0),
        "room_s": draw(0.15, 0.35),
        "floor_db": draw(-76.0, -64.0),
        "note_s": draw(0.92, 1.08),
    }


def add_shift(straight: float, shift: float, weight: float, control: str) -> float:
    """Move a control by `weight` times `shift` on its own scale, held within its bounds.

    Examples
    --------
    >>> add_shift(10.0, 4.0, 0.5, "tilt_db"), add_shift(0.1, 4.0, 0.5, "jitter_percent")
    (12.0, 0.2)
    """
    known = CONTROLS[control]
    moved = straight * shift**weight if known.log else straight + weight * shift
    return float(np.clip(moved, known.low, known.high))


def _habit(seed: int, singer: str, technique: str) -> tuple[float, dict, dict]:
    """Intensity, full shifts and offsets of one singer in one technique."""
    rng = generator(seed, "habit", singer, TECHNIQUE_NAMES.index(technique))
    intensity = float(rng.normal(0.75, 0.3))
    offsets = {name: rng.normal(0, sd) for name, sd in HABIT_SD.items()}
    ranges = dict(TECHNIQUES[technique])
    if technique == "vocal_fry":
        shares = np.array([share for share, _ in FRY_HABITS])
        ranges |= FRY_HABITS[rng.choice(len(shares), p=shares / shares.sum())][1]
    shifts = {}
    for control, (low, high) in ranges.items():
        if CONTROLS[control].log:
            shifts[control] = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        else:
            shifts[control] = float(rng.uniform(low, high))
    return intensity, shifts, offsets


def draw_controls(
    seed: int, key: str, singer: str, straight: dict[str, float], technique: str
) -> dict[str, float]:
    """Every control of one clip: the singer's straight tone, moved as far as intensity says.

    Parameters
    ----------
    seed, key
        Profile's seed and the clip's own key, which does not name the technique.
    singer
        Name, for the habits this singer has in each technique.
    straight
        The singer's straight tone, from `draw_singer`.
    technique
        One of `TECHNIQUE_NAMES`.

    Raises
    ------
    ValueError
        For an unknown technique.
    """
    if technique not in TECHNIQUES:
        raise ValueError(f"unknown technique {technique!r}: there are {', '.join(TECHNIQUE_NAMES)}")
    rng = generator(seed, "controls", key)
    intensity, shifts, offsets = _habit(seed, singer, technique)
    intensity = float(np.clip(intensity + rng.uniform(-0.15, 0.15), 0.1, 1.3))
    other = TECHNIQUE_NAMES[rng.integers(len(TECHNIQUE_NAMES))]
    borrowed = rng.uniform(0, BORROW_WEIGHT) * (rng.random() < BORROW_CHANCE)
    clip_offsets = {name: rng.normal(0, sd) for name, sd in CLIP_SD.items()}
    values = dict(straight)
    for weight, moves in ((intensity, shifts), (borrowed, _habit(seed, singer, other)[1])):
        for control, shift in moves.items():
            if control not in RATES:
                values[control] = add_shift(values[control], shift, weight, control)
            elif moves is shifts:
                values[control] = shift
    for moves in (offsets, clip_offsets):
        for control, offset in moves.items():
            shift = float(np.exp(offset)) if CONTROLS[control].log else offset
            values[control] = add_shift(values[control], shift, 1.0, control)
    values["intensity"] = intensity
    return {name: float(values[name]) for name in FACTORS}


def draw_crossed(seed: int, key: str, technique: str) -> dict[str, float]:
    """Every control of one crossed clip: only what defines the technique depends on it.

    Each other control comes from a draw of its own: a random singer of either sex in a random
    technique. So a tilt says nothing about an aspiration, a level nothing about a rate.
    """
    defining = DEFINING[technique]
    rng = generator(seed, "crossed", key)
    values = {}
    for control in ("defining", *FACTORS):
        sex = "FM"[rng.integers(2)]
        label = TECHNIQUE_NAMES[rng.integers(len(TECHNIQUE_NAMES))]
        name = f"{key}/{control}"
        wanted = technique if control == "defining" else label
        drawn = draw_controls(seed, name, name, draw_singer(seed, name, sex), wanted)
        if control == "defining":
            values = {part: drawn[part] for part in ("intensity", *defining)}
        else:
            values.setdefault(control, drawn[control])
    return {name: values[name] for name in FACTORS}
