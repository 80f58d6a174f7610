"""A tree in VocalSet's form, with the real set's defects planted, made of synthetic singers.

Used by the tests of the loader and by the rehearsal of the paper's profile. File names of the
defects are those of the real set (read in public code that mends them); the sound is ours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from saeutils.vocalset import DESIGN, VOWELS

RATE = 44_100
TEST = ("female2", "female8", "male3", "male5", "male10")
SHORT = {"long_tones": "long"}


def tone(seed: int, seconds: float, hz: float) -> np.ndarray:
    """A harmonic tone with vibrato and noise, different for every seed.

    Two of three tones of .4 s or more have two gaps of breath of unlike lengths, so that no
    attribute of pauses is constant.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    depth, rate = rng.uniform(0, 0.5), rng.uniform(4, 7)
    f0 = hz * 2 ** (depth / 12 * np.sin(2 * np.pi * rate * t))
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    tilt = rng.uniform(1.0, 2.2)
    wave = sum(np.sin(h * phase) / h**tilt for h in range(1, 11))
    wave = wave / np.abs(wave).max() + rng.uniform(0.001, 0.1) * rng.standard_normal(len(t))
    if seconds >= 0.4 and seed % 3:
        for low in (0.15, 0.55):
            start = int(rng.uniform(low, low + 0.1) * len(t))
            n = int(rng.uniform(0.1, 0.28) * len(t))
            wave[start:start + n] = rng.uniform(0.01, 0.1) * rng.standard_normal(n)
    return 0.4 * wave / np.abs(wave).max()


def tidy_names(singers: tuple[str, ...]) -> list[str]:
    """What the design asks of each singer, named without any defect."""
    names = []
    for singer in singers:
        short = singer.replace("female", "f").replace("male", "m")
        for exercise, techniques in DESIGN.items():
            for technique in techniques:
                endings = VOWELS if technique != "spoken" else ("spoken",)
                for vowel in endings:
                    stem = (f"{short}_row_spoken" if technique == "spoken" else
                            f"{short}_{SHORT.get(exercise, exercise)}_{technique}_{vowel}")
                    names.append(f"{singer}/{exercise}/{technique}/{stem}.wav")
    return names


def planted(name: str) -> str | None:
    """The defective name of a tidy one; None where the real set has no such file."""
    singer, exercise, technique, file = name.split("/")
    if singer == "female2" and exercise == "arpeggios" and technique == "vibrato":
        return name.replace("/vibrato/", "/vibrado/")
    if singer == "female4" and technique == "straight" and exercise in ("scales", "arpeggios"):
        return name.replace("/f4_", "/")
    if name.endswith("m1_scales_straight_u.wav"):
        return name.replace("m1_scales_straight_u", "m1_straight_tone_scales_u")
    if singer == "female7" and technique == "trillo" and file.endswith("_a.wav"):
        return name.replace("f7_long", "f7_ long")
    if singer == "male9" and technique == "trill":
        return None  # one singer without trills
    if singer == "male7" and technique == "vocal_fry" and exercise == "scales" and (
            file[-5] in "eio"):
        return None  # three vowels of one singer
    return name


def extra_names(singers: tuple[str, ...]) -> dict[str, str]:
    """Files that do not belong into the clip table, and a word of the reason expected."""
    extras = {
        "female2/arpeggios/lip_trill/lip_trill_arps.wav": "uncut",
        "female2/arpeggios/vibrado/slow_vibrato_arps.wav": "uncut",
        "female2/scales/vocal_fry/scales_vocal_fry.wav": "uncut",
        "female2/scales/straight/f2_scales_straight_u(1).wav": "copy of",
        "female2/scales/vibrato/f2_scales_vibrato_a(1).wav": "copy of",
        "male3/scales/lip_trill/scales_lip_trill.wav": "uncut",
        "male8/excerpts/vibrato/m9_caro_vibrato.wav": "sung excerpt",
        "male8/excerpts/straight/row_straight.wav": "sung excerpt",
        "female1/scales/fast_forte/f1_scales_c_fast_forte_a.wav": "none of the ten",
        "female1/long_tones/messa/f1_long_messa_a.wav": "none of the ten",
        "female1/long_tones/pp/f1_long_pp_a.wav": "none of the ten",
    }
    return {name: why for name, why in extras.items() if name.split("/")[0] in singers}


STRAY = (".DS_Store", "female1/.DS_Store")


def all_singers() -> tuple[str, ...]:
    """The twenty names."""
    return tuple([f"female{i}" for i in range(1, 10)] + [f"male{i}" for i in range(1, 12)])


def build_tree(
    folder: Path, *, singers: tuple[str, ...] = all_singers(), seconds: float = 0.3,
    vowels: str = "aeiou",
) -> Path:
    """Write ``folder/FULL`` and ``folder/__MACOSX``; returns `folder`.

    Parameters
    ----------
    folder
        Where to.
    singers
        A subset of the twenty.
    seconds
        Length of a clip; excerpts differ a little.
    vowels
        Those to write, all or a few.
    """
    for i, name in enumerate(tidy_names(singers)):
        target = planted(name)
        if target is None or name[-5] not in vowels + "n":
            continue
        path = folder / "FULL" / target
        path.parent.mkdir(parents=True, exist_ok=True)
        low = name.startswith("male")
        soundfile.write(path, tone(i, seconds * (1 + 0.1 * (i % 3)), 140 if low else 260), RATE)
    for j, name in enumerate(extra_names(singers)):
        path = folder / "FULL" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(10_000 + j, seconds, 220), RATE)
    for name in STRAY:
        path = folder / "FULL" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\0\0\1Bud1")
    shadow = folder / "__MACOSX" / "FULL" / "female1" / "._f1_scales_belt_a.wav"
    shadow.parent.mkdir(parents=True, exist_ok=True)
    shadow.write_bytes(b"\0\5\26\7")
    return folder
