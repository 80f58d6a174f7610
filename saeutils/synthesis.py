"""Synthetic singers in VocalSet's design: who sings what, and each clip as sound.

A clip is a flat row: who sings what (singer, exercise, technique, vowel), every recorded factor,
and the key of its noise. `render` turns a row into samples; a counterfactual is the same row with
one factor moved. All draws come from the profile's seed through named child seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from saeutils.datasets import in_shards
from saeutils.synthesis_controls import (
    FACTORS,
    TECHNIQUE_NAMES,
    VOWELS,
    draw_controls,
    draw_crossed,
    draw_singer,
    generator,
)
from saeutils.synthesis_voice import NOTES_PER_PHRASE, PATTERNS, PAUSE_S, SAMPLE_RATE, render_stems

SYNTHESIS_VERSION = "1.0"  # frozen: a change of sound raises it
DESIGN = {  # technique by exercise, as in VocalSet
    "scales": ("straight", "belt", "breathy", "lip_trill", "vibrato", "vocal_fry"),
    "arpeggios": ("straight", "belt", "breathy", "lip_trill", "vibrato", "vocal_fry"),
    "long_tones": ("straight", "inhaled", "trill", "trillo"),
    "excerpts": ("spoken",),
}
EXERCISES = tuple(DESIGN)


def draw_singers(
    n: int, n_validation: int, n_test: int, n_extra: int, seed: int
) -> pd.DataFrame:
    """Names, sexes and splits of the singers, and the straight tone of each.

    Parameters
    ----------
    n, n_validation, n_test
        VocalSet-shaped singers and how many of them validate and test; the rest train.
    n_extra
        Further singers that are only tested on.
    seed
        Seed of the profile.

    Returns
    -------
    DataFrame
        Columns set, singer, sex, split and one per control; sexes alternate.

    Raises
    ------
    ValueError
        When nobody is left to train on.

    Examples
    --------
    >>> sorted(draw_singers(4, 1, 1, 0, seed=0)["split"])
    ['test', 'train', 'train', 'validation']
    """
    if n - n_validation - n_test < 1:
        raise ValueError(f"{n} singers less {n_validation} for validation and {n_test} for test "
                         "leave none to train on: raise data.n_singers")
    people = [(("female", "F"), ("male", "M"))[i % 2] + (i // 2 + 1,) for i in range(n + n_extra)]
    order = {sex: list(generator(seed, "splits", sex).permutation(
        [i for i in range(n) if people[i][1] == sex])) for sex in "FM"}
    split = dict.fromkeys(range(n), "train") | dict.fromkeys(range(n, n + n_extra), "test")
    for name, count, first in (("test", n_test, "MF"), ("validation", n_validation, "FM")):
        for i in range(count):
            sex = first[i % 2] if order[first[i % 2]] else first[1 - i % 2]
            split[int(order[sex].pop())] = name
    rows = []
    for i, (word, sex, number) in enumerate(people):
        name = f"{word}{number}"
        rows.append({"set": "vocalset" if i < n else "extra", "singer": name, "sex": sex,
                     "split": split[i], **draw_singer(seed, name, sex)})
    return pd.DataFrame(rows)


def plan_clips(
    singers: pd.DataFrame, *, vowels_per_technique: int, extra_per_singer: int,
    crossed_per_singer: int, clip_seconds: float, seed: int,
) -> pd.DataFrame:
    """Every clip of the three sets as one row each, sorted by clip_id.

    Parameters
    ----------
    singers
        From `draw_singers`.
    vowels_per_technique
        Vowels a VocalSet-shaped singer sings each technique of each exercise on (1 to 5).
    extra_per_singer, crossed_per_singer
        Clips of each test-only singer, and crossed clips of each VocalSet-shaped one.
    clip_seconds
        Length to aim at; the same distribution for every technique of an exercise.
    seed
        Seed of the profile.

    Returns
    -------
    DataFrame
        clip_id, set, singer, sex, split, exercise, technique, vowel, ``n_notes``,
        ``noise_key``, ``melody_key``, ``formant_tonic_st``, ``audio``, and one column per factor.
    """
    rows = []
    for index, person in enumerate(singers.to_dict("records")):
        straight = {name: person[name] for name in FACTORS}
        cells = []
        if person["set"] == "vocalset":
            for exercise, techniques in DESIGN.items():
                vowels = [VOWELS[(index + 2 * i) % 5] for i in range(vowels_per_technique)]
                if exercise == "excerpts":
                    vowels = ["spoken"]
                cells += [("vocalset", exercise, t, v) for t in techniques for v in vowels]
            for i in range(crossed_per_singer):
                number = (i + index) % len(TECHNIQUE_NAMES)
                technique = TECHNIQUE_NAMES[number]
                exercise = EXERCISES[(number + index // 2) % 4]
                cells.append(("crossed", exercise, technique, VOWELS[(i + 3 * index) % 5]))
        else:
            usual = ("scales", "arpeggios")[index // 2 % 2]
            for i in range(extra_per_singer):
                technique = TECHNIQUE_NAMES[i % len(TECHNIQUE_NAMES)]
                homes = [e for e, names in DESIGN.items() if technique in names]
                exercise = usual if usual in homes else homes[0]
                vowel = "spoken" if exercise == "excerpts" else VOWELS[(index + i // 10) % 5]
                cells.append(("extra", exercise, technique, vowel))
        for number, (which, exercise, technique, vowel) in enumerate(cells):
            key = f"{person['singer']}/{number:03d}"
            if which == "crossed":
                controls = draw_crossed(seed, key, technique)
            else:
                controls = draw_controls(seed, key, person["singer"], straight, technique)
            who = {"set": which, "singer": person["singer"], "exercise": exercise,
                   "technique": technique, "vowel": vowel}
            rows.append({
                "clip_id": f"{which}_{Path(audio_name(who)).stem}",
                "set": which, "singer": person["singer"], "sex": person["sex"],
                "split": person["split"], "exercise": exercise, "technique": technique,
                "vowel": vowel, **clip_timing(exercise, clip_seconds, controls),
                "noise_key": key, "melody_key": key, "formant_tonic_st": controls["tonic_st"],
                "audio": audio_name(who),
            })
    plan = pd.DataFrame(rows).sort_values("clip_id", ignore_index=True)
    if not plan["clip_id"].is_unique:
        twice = plan.loc[plan["clip_id"].duplicated(), "clip_id"].iloc[0]
        raise ValueError(f"clip {twice} is planned twice: at most 10 crossed and 10 extra clips "
                         "a singer and 5 vowels")
    return plan


def audio_name(row: Mapping) -> str:
    """Path of a clip below the run's folder, in VocalSet's folders and naming.

    Examples
    --------
    >>> audio_name({"set": "extra", "singer": "male3", "exercise": "long_tones",
    ...             "technique": "trill", "vowel": "a"})
    'audio/extra/FULL/male3/long_tones/trill/m3_long_tones_trill_a.flac'
    """
    singer, exercise, technique = row["singer"], row["exercise"], row["technique"]
    number = "".join(letter for letter in singer if letter.isdigit())
    name = f"{singer[0]}{number}_{exercise}_{technique}_{row['vowel']}.flac"
    return f"audio/{row['set']}/FULL/{singer}/{exercise}/{technique}/{name}"


def render(row: Mapping, seed: int) -> np.ndarray:
    """Samples of one clip: float64, mono, within -1..1, at `SAMPLE_RATE`.

    The same row and seed give the same samples; nothing is normalised.

    Raises
    ------
    ValueError
        Unknown exercise, or a row so loud that samples would leave -1..1.
    """
    return render_stems(dict(row), seed).samples


def render_shard(rows: list[dict], seed: int, root: str) -> pd.DataFrame:
    """Render rows into FLAC files (16 bit) below `root`; one line of record per file.

    Each row names its file in ``audio``. Returns clip_id, duration_s, peak, level_db (RMS, dB re
    full scale) and sha256 of the file. Files appear whole or not at all.
    """
    import soundfile

    from saeutils.files import atomic
    from saeutils.keys import file_digest

    records = []
    for row in rows:
        samples = render(row, seed)
        path = Path(root) / row["audio"]
        with atomic(path) as part:
            soundfile.write(part, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        records.append({
            "clip_id": row["clip_id"], "duration_s": len(samples) / SAMPLE_RATE,
            "peak": float(np.abs(samples).max()),
            "rms_db": float(10 * np.log10(np.mean(samples**2))), "sha256": file_digest(path),
        })
    return pd.DataFrame(records)


def render_clips(
    plan: pd.DataFrame, seed: int, root: str | Path, cached: Callable, *, workers: int = 1,
    name: str = "audio",
) -> pd.DataFrame:
    """Render every row of a plan to files below `root`, in processes, as `render_shard`.

    Shards that were finished before are not rendered again, unless a file is missing or differs
    from what was written. Audio of an older plan in the same folders is removed.
    """
    from saeutils.keys import file_digest

    wanted = set(plan["audio"])
    for top in {Path(name).parts[:2] for name in wanted}:
        for path in Path(root).joinpath(*top).rglob("*.flac"):
            if path.relative_to(root).as_posix() not in wanted:
                path.unlink()
    rows = plan.to_dict("records")
    done = in_shards(name, rows, render_shard, (seed, str(root)), cached, workers=workers)
    same = [path.is_file() and file_digest(path) == wanted for path, wanted in zip(
        (Path(root) / row["audio"] for row in rows), done["sha256"], strict=True)]
    if not all(same):
        again = [row for row, fine in zip(rows, same, strict=True) if not fine]
        in_shards(f"{name}_again", again, render_shard, (seed, str(root)),
                  lambda _name, _parts, compute: compute(), workers=workers)
    return done


def clip_timing(exercise: str, seconds: float, controls: dict[str, float]) -> dict[str, float]:
    """Controls with the number of notes that fit into `seconds`, and the length of one in s.

    The ``note_s`` that comes in is the singer's tempo, a ratio around 1. Short clips sing the
    first notes of the exercise; technique has no part in it.
    """
    steps = len(PATTERNS[exercise])
    n_notes = int(np.clip(round(steps * seconds / 4), min(3, steps) if seconds > 2 else 1, steps))
    n_pauses = (n_notes - 1) // NOTES_PER_PHRASE[exercise]
    note_s = (seconds - 0.25 - n_pauses * PAUSE_S[exercise]) / n_notes
    return controls | {"n_notes": n_notes, "note_s": note_s * controls["note_s"]}
