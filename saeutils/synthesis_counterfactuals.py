"""Counterfactual sets: the same clip again, with one factor moved and all else held.

A base clip is a row as any other. Its siblings are copies of that row with one number changed;
noise, gain, room and melody stay, so that a response has one cause. Two placebos move nothing that
matters: new noise seeds (the floor of any response) and new gains.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from saeutils.synthesis import EXERCISES, clip_timing
from saeutils.synthesis_controls import (
    CONTROLS,
    FACTORS,
    TECHNIQUE_NAMES,
    VOWELS,
    add_shift,
    draw_controls,
    generator,
)

MOVED_FACTORS = (
    "tonic_st", "vibrato_extent_st", "vibrato_rate_hz", "am_depth", "am_rate_hz", "tilt_db",
    "aspiration_db", "jitter_percent", "formant_scale", "level_db",
)
RELEVANT = {  # a rate can act only where there is something to repeat
    "vibrato_rate_hz": ("vibrato_extent_st", 0.3),
    "am_rate_hz": ("am_depth", 0.15),
}
PLACEBO_GAINS_DB = (-6.0, -4.0, -2.0, 2.0)


def population(plan: pd.DataFrame, factors=MOVED_FACTORS) -> pd.DataFrame:
    """SD and 10-90 % range of each factor over the clips on which it can act.

    Factors on a log scale are described by their logarithm.

    Returns
    -------
    DataFrame
        Index factor; columns unit, log, sd, low, high, n.

    Raises
    ------
    ValueError
        A factor that can act on fewer than two clips has no spread to step in.
    """
    rows = {}
    for factor in factors:
        known = CONTROLS[factor]
        values = plan.loc[relevant(plan, factor), factor].to_numpy()
        if len(values) < 2:
            raise ValueError(f"{factor} can act on {len(values)} clips: plan more, so that it has "
                             "a spread to step in")
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
        for factor in MOVED_FACTORS:
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
        "vowel": VOWELS[number % 5], **clip_timing(exercise, seconds, row),
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
