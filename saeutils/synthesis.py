"""Synthetic singers in VocalSet's design, and counterfactual sets in which one factor moves.

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
    CONTROLS,
    FACTORS,
    TECHNIQUE_NAMES,
    VOWELS,
    add_shift,
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
IDENTITY = ("clip_id", "set", "singer", "sex", "split", "exercise", "technique", "vowel")
CF_FACTORS = (
    "tonic_st", "vibrato_extent_st", "vibrato_rate_hz", "am_depth", "am_rate_hz", "tilt_db",
    "aspiration_db", "jitter_percent", "formant_scale", "level_db",
)
RELEVANT = {  # a rate can act only where there is something to repeat
    "vibrato_rate_hz": ("vibrato_extent_st", 0.3),
    "am_rate_hz": ("am_depth", 0.15),
}
PLACEBO_GAINS_DB = (-6.0, -4.0, -2.0, 2.0)


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
    >>> draw_singers(4, 1, 1, 0, seed=0)["split"].value_counts().to_dict()
    {'train': 2, 'test': 1, 'validation': 1}
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
        Identity columns (`IDENTITY`), ``n_notes``, ``noise_key``, ``melody_key``,
        ``formant_tonic_st``, ``audio``, and one column per factor.
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
                "vowel": vowel, **_timing(exercise, clip_seconds, controls),
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


def population(plan: pd.DataFrame, factors=CF_FACTORS) -> pd.DataFrame:
    """SD and 10-90 % range of each factor over the clips on which it can act.

    Factors on a log scale are described by their logarithm.

    Returns
    -------
    DataFrame
        Index factor; columns unit, log, sd, low, high, n.
    """
    rows = {}
    for factor in factors:
        known = CONTROLS[factor]
        values = plan.loc[relevant(plan, factor), factor].to_numpy()
        values = np.log(values) if known.log else values
        low, high = np.quantile(values, (0.1, 0.9))
        rows[factor] = {"unit": known.unit, "log": known.log, "sd": values.std(),
                        "low": low, "high": high, "n": len(values)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("factor")


def relevant(plan: pd.DataFrame, factor: str) -> pd.Series:
    """Whether a factor can act on each clip: a rate needs an extent or a depth to repeat."""
    other, least = RELEVANT.get(factor, (factor, -np.inf))
    return plan[other] >= least


def counterfactual_plan(
    plan: pd.DataFrame, singers: pd.DataFrame, *, n_bases: int, n_steps: int, seconds: float,
    seed: int,
) -> pd.DataFrame:
    """Base clips of test singers, and for each factor the same clips with that factor moved.

    Steps are half a population SD (less where the 10-90 % range is narrower than the steps need),
    stay inside that range, and include 0, the base itself. Two placebos: new noise seeds, and new
    gains. A factor that cannot act on a base clip (`RELEVANT`) is left out there.

    Parameters
    ----------
    plan, singers
        From `plan_clips` and `draw_singers`: the population, and who may be a base.
    n_bases, n_steps, seconds
        Base clips, steps of each factor with the base counted, and length to aim at.
    seed
        Seed of the profile.

    Returns
    -------
    DataFrame
        Columns base_id, clip_id, factor, step (population SDs), value, audio, then the row of the
        clip as in `plan_clips`. ``factor == "base"`` is step 0 of every factor.
    """
    if n_steps < 3:
        raise ValueError(f"counterfactual steps = {n_steps}: at least 3, the base among them")
    known = population(plan)
    people = singers[singers["split"] == "test"].to_dict("records")
    rows = []
    for number in range(n_bases):
        base = _base_row(number, people[number % len(people)], known, seconds, seed)
        rows.append(_moved(base, "base", 0.0, np.nan, 0, {}))
        for factor in CF_FACTORS:
            if not relevant(pd.DataFrame([base]), factor).iloc[0]:
                continue
            for index, step in enumerate(_steps(base[factor], known.loc[factor], n_steps)):
                if step:
                    shift = step * known.loc[factor, "sd"]
                    shift = float(np.exp(shift)) if CONTROLS[factor].log else shift
                    value = add_shift(base[factor], shift, 1.0, factor)
                    rows.append(_moved(base, factor, step, value, index, {factor: value}))
        gain_sd = plan["gain_db"].std()
        for index in range(n_steps - 1):
            noise = {"noise_key": f"{base['noise_key']}/placebo{index}"}
            rows.append(_moved(base, "placebo_noise", float(index + 1), index + 1, index, noise))
            gain = PLACEBO_GAINS_DB[index % 4]
            rows.append(_moved(base, "placebo_gain", gain / gain_sd, base["gain_db"] + gain, index,
                               {"gain_db": base["gain_db"] + gain}))
    return pd.DataFrame(rows)


def render_shard(rows: list[dict], seed: int, root: str) -> pd.DataFrame:
    """Render rows into FLAC files (16 bit) below `root`; one line of record per file.

    Each row names its file in ``audio``. Returns clip_id, duration_s, peak, level_db (RMS, dB re
    full scale) and sha256 of the file. Files appear whole or not at all.
    """
    import soundfile

    from saeutils.keys import file_digest
    from saeutils.store import atomic

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


def _timing(exercise: str, seconds: float, controls: dict[str, float]) -> dict[str, float]:
    """Number of notes that fit, and the length of one; `note_s` arrives as the singer's tempo."""
    steps = len(PATTERNS[exercise])
    n_notes = int(np.clip(round(steps * seconds / 4), min(3, steps) if seconds > 2 else 1, steps))
    n_pauses = (n_notes - 1) // NOTES_PER_PHRASE[exercise]
    note_s = (seconds - 0.25 - n_pauses * PAUSE_S[exercise]) / n_notes
    return controls | {"n_notes": n_notes, "note_s": note_s * controls["note_s"]}


def _base_row(number: int, person: dict, known: pd.DataFrame, seconds: float, seed: int) -> dict:
    rng = generator(seed, "counterfactual", number)
    technique = TECHNIQUE_NAMES[number % len(TECHNIQUE_NAMES)]
    exercise = EXERCISES[rng.integers(3)]
    key = f"counterfactual/{number:03d}"
    straight = {name: person[name] for name in FACTORS}
    row = draw_controls(seed, key, person["singer"], straight, technique)
    row["f0_drop_st"] = min(row["f0_drop_st"], 6.0)
    if rng.random() < 0.6:
        row["vibrato_extent_st"] = max(row["vibrato_extent_st"], rng.uniform(0.3, 1.0))
    if rng.random() < 0.6:
        row["am_depth"] = max(row["am_depth"], rng.uniform(0.15, 0.5))
    for factor, line in known.iterrows():
        value = np.log(row[factor]) if line["log"] else row[factor]
        value = float(np.clip(value, line["low"], line["high"]))
        row[factor] = float(np.exp(value)) if line["log"] else value
    row["gain_db"] = min(row["gain_db"], 2.0)
    return {
        "base_id": f"base{number:03d}", "singer": person["singer"], "sex": person["sex"],
        "split": "test", "exercise": exercise, "technique": technique,
        "vowel": VOWELS[number % 5], **_timing(exercise, seconds, row),
        "noise_key": key, "melody_key": key,
        "formant_tonic_st": row["tonic_st"],
    }


def _steps(value: float, line: pd.Series, n_steps: int) -> list[float]:
    """Steps in SDs around a base value, inside the 10-90 % range, 0 among them."""
    value = np.log(value) if line["log"] else value
    below, above = (value - line["low"]) / line["sd"], (line["high"] - value) / line["sd"]
    size = min(0.5, (below + above) / n_steps)  # then n_steps always fit, 0 among them
    below, above = int(below / size + 1e-9), int(above / size + 1e-9)
    first = -min(below, max((n_steps - 1) // 2, n_steps - 1 - above))
    return [size * (first + i) for i in range(n_steps)]


def _moved(base: dict, factor: str, step: float, value: float, index: int, change: dict) -> dict:
    clip = base["base_id"] if factor == "base" else f"{base['base_id']}_{factor}_{index}"
    return {"base_id": base["base_id"], "clip_id": clip, "factor": factor, "step": step,
            "value": value, "audio": f"counterfactuals/audio/{base['base_id']}/{clip}.flac",
            **{k: v for k, v in base.items() if k != "base_id"}, **change}
