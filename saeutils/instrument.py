"""Instrument check: what do the eGeMAPS attributes answer to, whatever they are called?

Where causes are known (the crossed clips, in which every control varies by itself) each attribute
is correlated with each cause; on perfect tones, where the answer is known without any clip, the
floors and ceilings of the instrument itself are read off. Audit entry A28.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from saeutils.audit_data import resampled
from saeutils.lasso import standardise

# Attributes named after a cause, and the recorded causes that would deserve the name.
NAMED_AFTER = {
    "F0semitoneFrom27.5Hz_sma3nz_amean": ("tonic_st",),
    "jitterLocal_sma3nz_amean": ("jitter_percent",),
    "shimmerLocaldB_sma3nz_amean": ("shimmer_db",),
    "HNRdBACF_sma3nz_amean": ("aspiration_db",),
    "logRelF0-H1-H2_sma3nz_amean": ("open_phase",),
    "logRelF0-H1-A3_sma3nz_amean": ("tilt_db",),
    "alphaRatioV_sma3nz_amean": ("tilt_db",),
    "hammarbergIndexV_sma3nz_amean": ("tilt_db",),
    "F1frequency_sma3nz_amean": ("f1_scale", "formant_scale"),
    "F2frequency_sma3nz_amean": ("formant_scale",),
    "F1bandwidth_sma3nz_amean": ("bandwidth_scale",),
    "F1amplitudeLogRelF0_sma3nz_amean": ("f1_scale", "bandwidth_scale"),
    "loudness_sma3_amean": ("level_db", "gain_db"),
    "equivalentSoundLevel_dBp": ("level_db", "gain_db"),
    "loudnessPeaksPerSec": ("am_rate_hz",),
}
TONES_HZ = (80.0, 220.0, 440.0, 880.0)
RATES_HZ = (44_100, 16_000)


def instrument_check(
    attributes: pd.DataFrame, causes: pd.DataFrame, singers: np.ndarray
) -> pd.DataFrame:
    """What each attribute answers to: rank correlation with every recorded cause within singers.

    Parameters
    ----------
    attributes, causes
        One row per clip, of clips in which the causes vary independently.
    singers
        Shape [N].

    Returns
    -------
    DataFrame
        Columns attribute, factor, metric, value, n (clips). Metric ``rank_correlation``: the
        singer's mean rank is removed from both sides, so that a voice's pitch does not pass for a
        cause. Metric ``slope``: change of the attribute, in its own SDs, per SD of the cause.

    Raises
    ------
    ValueError
        Tables of different length.
    """
    from scipy.stats import rankdata

    if not len(attributes) == len(causes) == len(singers):
        raise ValueError(f"{len(attributes)} rows of attributes, {len(causes)} of causes, "
                         f"{len(singers)} singers: give one row per clip")

    def inner(values: np.ndarray) -> np.ndarray:
        table = pd.DataFrame(values)
        return (table - table.groupby(np.asarray(singers)).transform("mean")).to_numpy()

    raw = [table.to_numpy(dtype=float) for table in (attributes, causes)]
    ranks = [standardise(inner(rankdata(values, axis=0)))[0] for values in raw]
    sizes = [inner(standardise(values)[0]) for values in raw]
    power = (sizes[1] ** 2).mean(axis=0)
    both = {
        "rank_correlation": ranks[0].T @ ranks[1] / len(attributes),
        "slope": sizes[0].T @ sizes[1] / len(attributes) / np.where(power > 0, power, np.nan),
    }
    tables = []
    for metric, matrix in both.items():
        wide = pd.DataFrame(matrix, index=list(attributes), columns=list(causes))
        long = wide.rename_axis("attribute").reset_index().melt("attribute", var_name="factor")
        tables.append(long.assign(metric=metric, n=len(attributes)))
    return pd.concat(tables, ignore_index=True)


def named_after(checked: pd.DataFrame) -> pd.DataFrame:
    """For each attribute of `NAMED_AFTER`: does the cause in its name move it most?

    Parameters
    ----------
    checked
        From `instrument_check`.

    Returns
    -------
    DataFrame
        Columns attribute, named (the cause, the strongest of those that fit), r_named, strongest,
        r_strongest, true_to_name. Attributes and causes that are not in the table are left out.
    """
    table = checked[checked["metric"] == "rank_correlation"]
    wide = table.pivot(index="attribute", columns="factor", values="value")
    rows = []
    for attribute, causes in NAMED_AFTER.items():
        known = [cause for cause in causes if cause in wide]
        if attribute not in wide.index or not known:
            continue
        own = wide.loc[attribute]
        name, strongest = own[known].abs().idxmax(), own.abs().idxmax()
        rows.append((attribute, name, own[name], strongest, own[strongest], strongest in known))
    return pd.DataFrame(rows, columns=["attribute", "named", "r_named", "strongest",
                                       "r_strongest", "true_to_name"])


def names_kept(
    attributes: pd.DataFrame, causes: pd.DataFrame, singers: np.ndarray
) -> tuple[int, np.ndarray]:
    """How many attributes are moved most by the cause in their name, and so in bootstrap samples.

    Parameters as `instrument_check`.

    Returns
    -------
    int, ndarray
        The count, and the counts in samples of whole singers (`saeutils.audit_data.resampled`).
    """
    def count(rows: np.ndarray) -> int:
        checked = instrument_check(own.iloc[rows], causes.iloc[rows], singers[rows])
        return int(named_after(checked)["true_to_name"].sum())

    singers = np.asarray(singers)
    own = attributes[[name for name in attributes if name in NAMED_AFTER]]
    return count(np.arange(len(singers))), np.array([count(rows) for rows in resampled(singers)])


def harmonic_tone(
    f0_hz: float, rate_hz: int, seconds: float = 1.5, silent: float = 0.0
) -> np.ndarray:
    """A perfectly periodic tone: harmonics falling by 6 dB an octave up to 7 kHz, peak .5.

    Parameters
    ----------
    silent
        Share of `seconds` at the end that is silence.
    """
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    numbers = np.arange(1, int(7_000 // f0_hz) + 1)
    phases = np.pi * numbers**2 / len(numbers)  # keeps the peak low
    wave = sum(np.cos(2 * np.pi * f0_hz * h * time + p) / h
               for h, p in zip(numbers, phases, strict=True))
    wave = 0.5 * wave / np.abs(wave).max()
    wave[round((1 - silent) * len(wave)):] = 0
    return wave.astype(np.float32)


def perfect_tones(
    f0s_hz: tuple[float, ...] = TONES_HZ, rates_hz: tuple[int, ...] = RATES_HZ
) -> pd.DataFrame:
    """What openSMILE says of tones without noise, jitter or shimmer: its own floors and ceilings.

    Returns
    -------
    DataFrame
        Columns f0_hz, rate_hz, silent (share of silence), attribute, value. With silence only for
        the first pitch at the first rate.
    """
    from saeutils.attributes import attribute_names, extract_attributes

    asked = ["HNRdBACF_sma3nz_amean", "jitterLocal_sma3nz_amean", "shimmerLocaldB_sma3nz_amean",
             "F1amplitudeLogRelF0_sma3nz_amean", "F0semitoneFrom27.5Hz_sma3nz_amean"]
    cells = [(f0, rate, 0.0) for f0 in f0s_hz for rate in rates_hz]
    cells.append((f0s_hz[0], rates_hz[0], 0.25))
    rows = []
    for f0, rate, silent in cells:
        tone = harmonic_tone(f0, rate, silent=silent)
        values = dict(zip(attribute_names(), extract_attributes(tone, rate, any_rate=True),
                          strict=True))
        rows += [(f0, rate, silent, name, values[name]) for name in asked]
    return pd.DataFrame(rows, columns=["f0_hz", "rate_hz", "silent", "attribute", "value"])
