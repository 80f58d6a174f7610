"""Names of attributes and factors in words, for people who read a page and not a manual."""

from __future__ import annotations

import re

_UNITS = {"st": "semitones", "hz": "Hz", "db": "dB", "percent": "%", "s": "s"}
_BASES = {
    "F0semitoneFrom27.5Hz": "pitch", "spectralFlux": "spectral flux", "jitterLocal": "jitter",
    "shimmerLocaldB": "shimmer", "HNRdBACF": "harmonics to noise", "logRelF0-H1-H2": "H1–H2",
    "logRelF0-H1-A3": "H1–A3", "alphaRatio": "alpha ratio", "hammarbergIndex": "Hammarberg index",
    "F1amplitudeLogRelF0": "F1 level", "F2amplitudeLogRelF0": "F2 level",
    "F3amplitudeLogRelF0": "F3 level", "slope": "spectral slope",
    "loudnessPeaksPerSec": "loudness peaks per second",
    "VoicedSegmentsPerSec": "voiced segments per second",
    "MeanVoicedSegmentLengthSec": "voiced segments, mean length",
    "StddevVoicedSegmentLengthSec": "voiced segments, variation of length",
    "MeanUnvoicedSegmentLength": "unvoiced segments, mean length",
    "StddevUnvoicedSegmentLength": "unvoiced segments, variation of length",
    "equivalentSoundLevel_dBp": "equivalent sound level",
}
_FUNCTIONALS = {
    "amean": "mean", "stddevNorm": "variation", "percentile20.0": "20th percentile",
    "percentile50.0": "median", "percentile80.0": "80th percentile", "pctlrange0-2": "range",
    "meanRisingSlope": "rising slope", "stddevRisingSlope": "rising slope, variation",
    "meanFallingSlope": "falling slope", "stddevFallingSlope": "falling slope, variation",
}


def readable(name: str) -> str:
    """An attribute's or factor's name in words.

    Examples
    --------
    >>> readable("F0semitoneFrom27.5Hz_sma3nz_stddevNorm"), readable("vibrato_extent_st")
    ('pitch, variation', 'vibrato extent (semitones)')
    >>> readable("slopeUV0-500_sma3nz_amean"), readable("mfcc2V_sma3nz_amean")
    ('spectral slope 0–500 Hz, unvoiced, mean', 'MFCC 2, voiced, mean')
    """
    if name in _BASES:
        return _BASES[name]
    found = re.fullmatch(r"(.+?)(UV|V)?(\d+-\d+)?_sma3(?:nz)?_(.+)", name)
    if found:
        base, voiced, band, functional = found.groups()
        base = _BASES.get(base, re.sub(r"^mfcc(\d)", r"MFCC \1", base))
        base = re.sub(r"^(F[123])(?=[a-z])", r"\1 ", base)
        base += f" {band.replace('-', '–')} Hz" if band else ""
        voice = {"V": "voiced", "UV": "unvoiced"}.get(voiced or "")
        return ", ".join(part for part in (base, voice, _FUNCTIONALS.get(functional, functional))
                         if part)
    name = re.sub(r"^(am|f0|f1)(?=_)", lambda found: found[1].upper(), name)
    if name.endswith("_per_s"):
        return name.removesuffix("_per_s").replace("_", " ") + " (per second)"
    stem, _, unit = name.rpartition("_")
    if stem and unit in _UNITS:
        return f"{stem.replace('_', ' ')} ({_UNITS[unit]})"
    return name.replace("_", " ")
