"""Acoustic attributes: the 88 eGeMAPS functionals of openSMILE, their groups and true meanings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from saeutils.datasets import read_audio

GROUPS = ("pitch", "formants", "voice quality", "MFCC", "spectral", "rhythm", "loudness")
RATE_HZ = 44_100

# What openSMILE computes under a name that promises something else (measured on known signals).
MEANINGS = {
    "logRelF0-H1-H2": "2nd minus 3rd harmonic, dB: openSMILE counts from H0 = F0, so the first "
                      "harmonic does not enter",
    "logRelF0-H1-A3": "2nd harmonic minus the strongest near F3, dB",
    "HNRdBACF": "harmonics to noise, dB, with a ceiling set by pitch: 5 at 80 Hz, 17 at 330 Hz, "
                "25 at 880 Hz",
    "jitterLocal": "period-to-period change, share; a floor of its own below 44.1 kHz",
    "shimmerLocaldB": "period-to-period level change, dB; floor .1 dB at 44.1 kHz",
    "F0semitoneFrom27.5Hz": "pitch, semitones above 27.5 Hz, for 55 to 1000 Hz only: lower "
                            "pulses count as unvoiced",
    "F1amplitude": "level at F1 re F0, dB, -201 in unvoiced frames: mostly a share of voicing",
    "F2amplitude": "level at F2 re F0, dB, -201 in unvoiced frames: mostly a share of voicing",
    "F3amplitude": "level at F3 re F0, dB, -201 in unvoiced frames: mostly a share of voicing",
    "F1frequency": "formant tracker, Hz, silence averaged in; follows harmonics when pitch is high",
    "F2frequency": "formant tracker, Hz, silence averaged in; follows harmonics when pitch is high",
    "F3frequency": "formant tracker, Hz, silence averaged in; follows harmonics when pitch is high",
    "loudnessPeaksPerSec": "loudness maxima per second; follows modulation up to 25 Hz, then "
                           "aliases",
}
# The same in the few words that fit a label.
LABELS = {
    "logRelF0-H1-H2": "“H1-H2” (2nd minus 3rd harmonic)",
    "logRelF0-H1-A3": "“H1-A3” (2nd harmonic minus F3)",
    "HNRdBACF": "HNR (ceiling set by pitch)",
    "jitterLocal": "jitter",
    "shimmerLocaldB": "shimmer",
    "F0semitoneFrom27.5Hz": "F0 (55 to 1000 Hz)",
    **{f"F{i}amplitudeLogRelF0": f"F{i} level (-201 where unvoiced)" for i in (1, 2, 3)},
    **{f"F{i}frequency": f"F{i} frequency (silence averaged in)" for i in (1, 2, 3)},
    **{f"F{i}bandwidth": f"F{i} bandwidth" for i in (1, 2, 3)},
    "loudnessPeaksPerSec": "loudness peaks/s (aliases above 25 Hz)",
    "equivalentSoundLevel_dBp": "sound level", "loudness": "loudness",
    "alphaRatioV": "alpha ratio, voiced", "alphaRatioUV": "alpha ratio, unvoiced",
    "hammarbergIndexV": "Hammarberg index, voiced",
    "hammarbergIndexUV": "Hammarberg index, unvoiced", "spectralFlux": "spectral flux",
    "spectralFluxV": "spectral flux, voiced", "spectralFluxUV": "spectral flux, unvoiced",
}
FUNCTIONALS = {
    "amean": "", "stddevNorm": "SD / mean", "percentile20.0": "20 %", "percentile50.0": "median",
    "percentile80.0": "80 %", "pctlrange0-2": "20-80 % range",
    "meanRisingSlope": "rising slope", "stddevRisingSlope": "rising slope SD",
    "meanFallingSlope": "falling slope", "stddevFallingSlope": "falling slope SD",
}
SIGNED = ("mfcc", "slope", "alphaRatio", "logRelF0", "amplitudeLogRelF0")


def attribute_names() -> list[str]:
    """The 88 names of eGeMAPSv02 functionals, in openSMILE's order."""
    return list(_smile().feature_names)


def extract_attributes(
    samples: np.ndarray, sample_rate: int, *, any_rate: bool = False
) -> np.ndarray:
    """eGeMAPSv02 functionals of one clip.

    Parameters
    ----------
    samples
        Mono float samples within -1..1; openSMILE turns them into 16-bit integers.
    sample_rate
        Hz; must be 44,100, below which jitter and shimmer have floors above real values.
    any_rate
        True lets other rates pass, to measure what they do.

    Returns
    -------
    ndarray
        88 values, float64, in the order of `attribute_names`; names carry the units.

    Raises
    ------
    ValueError
        Another rate; samples that are not finite or leave -1..1; less than 0.1 s.
    """
    if sample_rate != RATE_HZ and not any_rate:
        raise ValueError(f"attributes at {sample_rate} Hz: only {RATE_HZ} Hz, resample first")
    samples = np.asarray(samples, dtype=np.float32)
    if len(samples) < sample_rate // 10:
        raise ValueError(f"clip of {len(samples) / sample_rate:.3f} s: attributes need 0.1 s")
    if not np.isfinite(samples).all() or np.abs(samples).max() > 1:
        raise ValueError("samples must be finite and within -1..1: openSMILE wraps others around")
    return _smile().process_signal(samples, sample_rate).to_numpy(dtype=float)[0]


def at_rate(samples: np.ndarray, sample_rate: int) -> tuple[np.ndarray, int]:
    """Samples at 44,100 Hz, as `extract_attributes` wants them, within -1..1.

    Other rates are converted (polyphase filter); overshoots of lossy formats are cut at full
    scale. Samples at 44,100 Hz within full scale come back as they are.

    Examples
    --------
    >>> at_rate(np.zeros(160), 16_000)[0].shape
    (441,)
    """
    from math import gcd

    if sample_rate != RATE_HZ:
        from scipy.signal import resample_poly

        common = gcd(RATE_HZ, sample_rate)
        samples = resample_poly(samples, RATE_HZ // common, sample_rate // common)
    if np.abs(samples).max(initial=0) > 1:
        samples = np.clip(samples, -1, 1)
    return samples, RATE_HZ


def attribute_shard(rows: list[dict], root: str) -> pd.DataFrame:
    """clip_id and 88 attributes of clips given as rows with clip_id and audio (below `root`)."""
    values = [extract_attributes(*at_rate(*read_audio(Path(root) / row["audio"]))) for row in rows]
    table = pd.DataFrame(values, columns=attribute_names())
    table.insert(0, "clip_id", [row["clip_id"] for row in rows])
    return table


def attribute_group(name: str, *, corrected: bool = True) -> str:
    """One of the seven `GROUPS` of an attribute.

    Parameters
    ----------
    name
        An eGeMAPS name.
    corrected
        False counts by letters as the release does: ``logRelF0-H1-H2`` has an F0 in its name and
        counts as pitch (A21). True counts it as voice quality, which it describes.

    Raises
    ------
    ValueError
        For a name of no group.

    Examples
    --------
    >>> attribute_group("logRelF0-H1-A3_sma3nz_amean")
    'voice quality'
    >>> attribute_group("logRelF0-H1-A3_sma3nz_amean", corrected=False)
    'pitch'
    """
    if name.startswith("logRelF0"):
        return "voice quality" if corrected else "pitch"
    for start, group in (
        ("F0semitone", "pitch"), ("F1", "formants"), ("F2", "formants"), ("F3", "formants"),
        ("jitter", "voice quality"), ("shimmer", "voice quality"), ("HNR", "voice quality"),
        ("mfcc", "MFCC"), ("loudnessPeaks", "rhythm"), ("loudness", "loudness"),
        ("equivalentSoundLevel", "loudness"), ("spectralFlux", "spectral"), ("slope", "spectral"),
        ("alphaRatio", "spectral"), ("hammarberg", "spectral"), ("Voiced", "rhythm"),
        ("MeanVoiced", "rhythm"), ("StddevVoiced", "rhythm"), ("MeanUnvoiced", "rhythm"),
        ("StddevUnvoiced", "rhythm"),
    ):
        if name.startswith(start):
            return group
    raise ValueError(f"attribute {name!r} belongs to none of {', '.join(GROUPS)}")


def attribute_meaning(name: str) -> str:
    """What an attribute really measures, where its name promises something else; else ``""``.

    Examples
    --------
    >>> attribute_meaning("HNRdBACF_sma3nz_amean")[:18]
    'harmonics to noise'
    >>> attribute_meaning("mfcc1_sma3_stddevNorm")
    'SD divided by the mean of a signed quantity: heavy tails'
    """
    if name.endswith("stddevNorm") and any(part in name for part in SIGNED):
        return "SD divided by the mean of a signed quantity: heavy tails"
    return next((text for start, text in MEANINGS.items() if name.startswith(start)), "")


def attribute_label(name: str) -> str:
    """A label that says what is measured, not what the name promises; the name where it is true.

    Examples
    --------
    >>> attribute_label("logRelF0-H1-H2_sma3nz_amean")
    '“H1-H2” (2nd minus 3rd harmonic)'
    >>> attribute_label("F0semitoneFrom27.5Hz_sma3nz_percentile80.0")
    'F0 (55 to 1000 Hz), 80 %'
    """
    descriptor, _, rest = name.partition("_sma3")
    text = LABELS.get(descriptor, descriptor)
    part = FUNCTIONALS.get(rest.removeprefix("nz").strip("_"), rest.strip("_"))
    return f"{text}, {part}" if part else text


def attribute_table(names: list[str]) -> pd.DataFrame:
    """Columns attribute, group, group_released, meaning; one line per name."""
    return pd.DataFrame({
        "attribute": names,
        "group": [attribute_group(name) for name in names],
        "group_released": [attribute_group(name, corrected=False) for name in names],
        "meaning": [attribute_meaning(name) for name in names],
    })


_SMILE = []


def _smile():
    """openSMILE, loaded once per process."""
    if not _SMILE:
        import opensmile

        _SMILE.append(opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02,
                                      feature_level=opensmile.FeatureLevel.Functionals))
    return _SMILE[0]
