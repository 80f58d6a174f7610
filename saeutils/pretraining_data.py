"""Sound and targets on which the demo encoder is pre-trained.

Three technique-blind sources (LF voice 60 %, eSpeak phrases re-pitched 20 %, tones and noise
20 %), augmentation, and two kinds of frame targets: MFCC with deltas, and a *source vector* of
pitch, periodicity, modulation and tilt, which MFCC units discard.
Source of two kinds of targets: Li et al. 2024 (MERT); of k-means units: Hsu et al. 2021.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from saeutils.lf_voice import SAMPLE_RATE, draw_voice

HOP = 320  # samples per frame of the encoder: 20 ms
KINDS = {"voice": 0.6, "speech": 0.2, "tones": 0.2}
SOURCE_NAMES = (
    "log2_f0", "periodicity", "am_2_5_hz", "am_5_9_hz", "am_9_16_hz", "am_16_40_hz",
    "f0_spread", "tilt",
)  # fmt: skip
_WORDS = (
    "river morning seven yellow garden over winter people music early stone paper window under"
    " little valley open summer silver moving away quiet number after eleven bird ocean always"
    " simple letter green begin mountain travel uncle evening hollow minor travel zero follow"
)
_ESPEAK = ["English (Great Britain)", "English (America)", "Italian", "German", "Spanish (Spain)"]
_ESPEAK_VOICES = ["Male1", "Male2", "Male3", "Female1", "Female2", "Female3"]


def frames_in(n_samples: int) -> int:
    """Frames the encoder makes of `n_samples` samples: 400 samples each, 320 apart.

    Examples
    --------
    >>> frames_in(16000)
    49
    """
    return max((n_samples - 400) // HOP + 1, 0)


def draw_speech(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """Praat's built-in eSpeak reads random words, moved to a random pitch, range and tract.

    Returns float32 of ``duration_s * 16000`` samples, peak 0.5; a short phrase is repeated.
    """
    import parselmouth
    from parselmouth.praat import call

    language, voice = rng.choice(_ESPEAK), rng.choice(_ESPEAK_VOICES)
    speaker = call("Create SpeechSynthesizer", str(language), str(voice))
    call(speaker, "Speech output settings", SAMPLE_RATE, 0.01, rng.uniform(0.5, 1.6),
         rng.uniform(0.2, 1.8), int(rng.integers(90, 190)), "IPA")  # fmt: skip
    text = " ".join(rng.choice(_WORDS.split(), int(duration_s * 2.5) + 1))
    sound = call(speaker, "To Sound", text, "no")
    sound = sound[0] if isinstance(sound, list) else sound
    median = 75 * 2 ** rng.uniform(0, 2.6)
    try:
        sound = call(sound, "Change gender", 60, 500, rng.uniform(0.85, 1.2), median,
                     rng.uniform(0.05, 2.0), rng.uniform(0.8, 1.8))  # fmt: skip
    except parselmouth.PraatError as reason:
        if "pitch" not in str(reason).lower():  # no voiced frame found: keep the phrase as it is
            raise
    wave = sound.values[0]
    wave = np.resize(wave, round(duration_s * SAMPLE_RATE))
    return (0.5 * wave / max(np.abs(wave).max(), 1e-9)).astype(np.float32)


def draw_tones(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """One to three layers of harmonic, FM or AM tones, or band noise, with random envelopes.

    Returns float32 of ``duration_s * 16000`` samples, peak 0.5.
    """
    from scipy.signal import butter, sosfilt

    n = round(duration_s * SAMPLE_RATE)
    t = np.arange(n) / SAMPLE_RATE
    out = np.zeros(n)
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.3:
            low = np.exp(rng.uniform(np.log(60), np.log(4000)))
            high = min(low * 2 ** rng.uniform(0.3, 4), 7800)
            layer = sosfilt(butter(2, [low, high], "band", fs=SAMPLE_RATE, output="sos"),
                            rng.standard_normal(n))  # fmt: skip
            layer /= layer.std() + 1e-9
        else:
            steps = np.sort(rng.uniform(0, duration_s, rng.integers(0, 7)))
            notes = 60 * 2 ** rng.uniform(0, 4, len(steps) + 1)
            f0 = notes[np.searchsorted(steps, t)]
            f0 = f0 * 2 ** (rng.uniform(0, 0.2) * (rng.random() < 0.5)
                            * np.sin(2 * np.pi * rng.uniform(1, 12) * t))  # fmt: skip
            phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
            slope, layer = rng.uniform(0, 2), np.zeros(n)
            for h in range(1, int(rng.integers(1, 13)) + 1):
                keep = h * f0 < 7600
                layer += rng.uniform(0.2, 1) * h**-slope * keep * np.sin(h * phase)
            layer /= layer.std() + 1e-9
        if rng.random() < 0.6:
            rate = np.exp(rng.uniform(np.log(0.5), np.log(40)))
            wave = 0.5 - 0.5 * np.cos(2 * np.pi * rate * t + rng.uniform(0, 6.28))
            layer = layer * (1 - rng.uniform(0, 1) * wave ** rng.uniform(0.5, 4))
        if rng.random() < 0.4:
            start = rng.uniform(0, duration_s)
            stop = rng.uniform(start, duration_s)
            layer = layer * np.clip(np.minimum(t - start, stop - t) / 0.02, 0, 1)
        out += 10 ** (rng.uniform(-20, 0) / 20) * layer
    return (0.5 * out / max(np.abs(out).max(), 1e-9)).astype(np.float32)


def draw_clip(rng: np.random.Generator, duration_s: float) -> np.ndarray:
    """One clip of a source drawn with the shares in `KINDS`."""
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    draw = {"voice": draw_voice, "speech": draw_speech, "tones": draw_tones}[str(kind)]
    return draw(rng, duration_s)


def augment(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Room, shelf of +-6 dB, noise at 10 to 60 dB SNR, gain of +-12 dB, polarity; float32.

    The gain leaves no trace in the encoder, which normalises its input; it is here for other
    settings of ``do_normalize``.
    """
    from scipy.signal import fftconvolve, lfilter

    out = wave.astype(np.float32)
    if rng.random() < 0.4:
        decay = rng.uniform(0.1, 0.5)  # seconds to fall by 60 dB
        tail = np.arange(int(decay * SAMPLE_RATE * 0.7)) / SAMPLE_RATE
        room = rng.standard_normal(len(tail)).astype(np.float32) * 10 ** (-3 * tail / decay)
        room *= 10 ** (rng.uniform(-25, -6) / 20) / np.sqrt((room**2).sum() + 1e-9)
        room[0] = 1.0
        out = fftconvolve(out, room.astype(np.float32))[: len(out)]
    if rng.random() < 0.7:
        gain, pole = 10 ** (rng.uniform(-6, 6) / 20), rng.uniform(0.3, 0.9)
        low = lfilter([1 - pole], [1, -pole], out).astype(np.float32)
        out = low + gain * (out - low)
    noise = rng.standard_normal(len(out), dtype=np.float32)
    if rng.random() < 0.5:
        noise = lfilter([1.0], [1, -rng.uniform(0.3, 0.98)], noise).astype(np.float32)
    level = np.sqrt((out**2).mean() + 1e-12) * 10 ** (-rng.uniform(10, 60) / 20)
    out = out + level / (noise.std() + 1e-9) * noise
    return (out * 10 ** (rng.uniform(-12, 12) / 20) * rng.choice([-1, 1])).astype(np.float32)


def mfcc_frames(wave: np.ndarray) -> np.ndarray:
    """13 MFCC with first and second differences, float32 [frames, 39], at the encoder's frames.

    The mean of coefficient 0 over the clip is removed, so level does not matter.
    """
    import torch
    from torchaudio.compliance.kaldi import mfcc
    from torchaudio.functional import compute_deltas

    base = mfcc(torch.from_numpy(np.asarray(wave, np.float32))[None], frame_shift=20.0,
                sample_frequency=SAMPLE_RATE, dither=0.0, low_freq=40.0)  # fmt: skip
    base[:, 0] -= base[:, 0].mean()
    first = compute_deltas(base.T[None])
    return torch.cat([base.T[None], first, compute_deltas(first)], 1)[0].T.numpy()


def source_frames(wave: np.ndarray) -> np.ndarray:
    """The source vector, float32 [frames, 8], columns `SOURCE_NAMES`; free of level.

    log2(F0 / 220 Hz), 0 where periodicity < .5; periodicity (largest normalised autocorrelation
    for 60 to 1000 Hz in 64 ms); log power of the envelope's modulation in four bands within
    0.4 s, relative to its mean; log spread of F0 (octaves) within 0.4 s; log10 of the energy
    above over below 1 kHz. Silence gives zeros or the floor, never NaN.
    """
    wave = np.asarray(wave, np.float32)
    n = frames_in(len(wave))
    padded = np.pad(wave, (400, 1024)) + np.float32(1e-7)
    start = np.arange(n) * HOP + 88  # 1,024 samples centred on the frame's 400
    view = np.lib.stride_tricks.sliding_window_view(padded, 1024)[start] * np.hanning(1024)
    spectrum = np.abs(np.fft.rfft(view.astype(np.float32), 2048)) ** 2
    corr = np.fft.irfft(spectrum)[:, :270]
    bias = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(1024), 2048)) ** 2)[:270]
    corr = corr / (corr[:, :1] + 1e-6) / (bias / bias[0])
    lags = np.arange(16, 267)
    search = corr[:, lags] - 0.0004 * lags  # a slight preference for the shorter of two periods
    best = lags[search.argmax(1)]
    periodicity = np.clip(corr[np.arange(n), best], 0, 1)
    voiced = periodicity >= 0.5
    log_f0 = np.where(voiced, np.log2(SAMPLE_RATE / best / 220), 0.0)
    hop = 80  # envelope at 200 Hz
    cells = np.pad(wave, (0, -len(wave) % hop)).reshape(-1, hop)
    envelope = np.pad(np.sqrt((cells**2).mean(1) + 1e-10), (40, 120), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(envelope, 80)[np.arange(n) * 4 + 2]
    around = around / around.mean(1, keepdims=True) - 1
    power = np.abs(np.fft.rfft(around * np.hanning(80), 160)) ** 2 / 160
    edges = np.searchsorted(np.fft.rfftfreq(160, 1 / 200), [2, 5, 9, 16, 40])
    bands = [np.log10(power[:, a:b].sum(1) + 1e-3) for a, b in zip(edges, edges[1:], strict=False)]
    pitch = np.pad(log_f0, 10, mode="edge")
    weight = np.pad(voiced.astype(float), 10, mode="edge")
    w = np.lib.stride_tricks.sliding_window_view(weight, 21) + 1e-6
    p = np.lib.stride_tricks.sliding_window_view(pitch, 21)
    mean = (w * p).sum(1) / w.sum(1)
    spread = np.sqrt((w * (p - mean[:, None]) ** 2).sum(1) / w.sum(1))
    cut = 128  # 1 kHz
    tilt = np.log10((spectrum[:, cut:640].sum(1) + 1e-6) / (spectrum[:, 5:cut].sum(1) + 1e-6))
    out = [log_f0, periodicity, *bands, np.log10(spread + 3e-3), np.clip(tilt, -5, 2)]
    return np.stack(out, 1).astype(np.float32)


def write_corpus(folder: Path, hours: float, seed: int, clip_s: float = 6.0, shard: int = 240):
    """Draw `hours` of clips into shards below `folder`; finished shards are kept.

    A shard is ``audio_NNN.npy`` (int16 [clips, samples]) and ``frames_NNN.npy`` (float16
    [clips, frames, 47]: MFCC, then source vector). Clip i depends on (seed, i) alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n_clips = max(round(hours * 3600 / clip_s), 1)
    for number, first in enumerate(range(0, n_clips, shard)):
        done = folder / f"frames_{number:03d}.npy"
        if done.exists():
            continue
        audio, frames = [], []
        for index in range(first, min(first + shard, n_clips)):
            wave = draw_clip(np.random.default_rng([seed, index]), clip_s)
            audio.append(np.round(wave * 32767).astype(np.int16))
            frames.append(np.concatenate([mfcc_frames(wave), source_frames(wave)], 1))
        np.save(folder / f"audio_{number:03d}.npy", np.stack(audio))
        part = folder / f"frames_{number:03d}.part.npy"
        np.save(part, np.stack(frames).astype(np.float16))
        part.replace(done)
    record = {"hours": n_clips * clip_s / 3600, "seed": seed, "clip_s": clip_s, "shares": KINDS}
    (folder / "corpus.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return record


def fit_units(folder: Path, n_mfcc: int, n_source: int, seed: int) -> None:
    """k-means units of both frame vectors for every shard: ``units_NNN.npy``, uint8, last axis 2.

    Columns are standardised over the fitting frames (one clip in `step`, at most about 150,000
    frames). Also writes ``units.json`` with means and SDs.
    """
    from sklearn.cluster import MiniBatchKMeans

    files = sorted(folder.glob("frames_[0-9][0-9][0-9].npy"))
    shards = [np.load(f, mmap_mode="r") for f in files]
    step = max(sum(len(s) for s in shards) // 500, 1)
    sample = np.concatenate([s[::step].reshape(-1, s.shape[-1]) for s in shards]).astype(np.float32)
    mean, std = sample.mean(0), sample.std(0) + 1e-6
    sample = (sample - mean) / std
    models = []
    for columns, k in ((slice(0, 39), n_mfcc), (slice(39, 47), n_source)):
        fit = MiniBatchKMeans(k, batch_size=4096, n_init=3, random_state=seed, max_iter=60)
        models.append((columns, fit.fit(sample[:, columns])))
    for file, frames in zip(files, shards, strict=True):
        flat = (frames.reshape(-1, frames.shape[-1]).astype(np.float32) - mean) / std
        units = [m.predict(np.ascontiguousarray(flat[:, c])) for c, m in models]
        out = np.stack(units, 1).astype(np.uint8).reshape(*frames.shape[:2], 2)
        np.save(file.with_name(file.name.replace("frames", "units")), out)
    record = {"mean": mean.tolist(), "std": std.tolist(), "n_units": [n_mfcc, n_source]}
    (folder / "units.json").write_text(json.dumps(record), encoding="utf-8")
