"""Sound for the atlas: frame by frame what a latent does, and clips as small pictures and files.

A clip-level dictionary reads the mean of a clip's frames. Its encoder is linear before ReLU, so a
latent's value on the clip is the mean of its values on the frames: the curve over time adds up to
the code. Shape letters: T frames, D width of the states, F latents, C curves.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from saeutils.sae import SparseAutoencoder, check_rows
from saeutils.sae_training import CORRECTED, train_sae

RATE_HZ = 16_000
MEL_BANDS, MEL_HOP, MEL_LOW_HZ, MEL_HIGH_HZ = 96, 256, 60.0, 7_600.0
MEL_RANGE_DB = 65.0


def frame_states(
    encoder, waves: Sequence[np.ndarray], layer: int, batch_size: int = 8, piece_s: float = 0.0
) -> list[np.ndarray]:
    """States of one layer frame by frame, one float32 array [T, D] per waveform.

    Parameters
    ----------
    encoder
        From `saeutils.encoders.load_encoder`.
    waves
        Waveforms at the encoder's sampling rate.
    layer
        Number of the state.
    piece_s
        Longer waveforms are cut into pieces of so many seconds, as in stage 02; 0: the encoder's
        own window.

    Raises
    ------
    ValueError
        A layer that the encoder lacks, and as `saeutils.encoders.states`.
    """
    from saeutils.activations import plan_batches
    from saeutils.encoders import needs_equal_lengths, states
    from saeutils.encoders_inputs import cut

    if not 0 <= layer <= encoder.n_layers:
        raise ValueError(f"unknown layer {layer}: {encoder.name} has 0..{encoder.n_layers}")
    pieces = [(i, piece) for i, wave in enumerate(waves) for piece in cut(encoder, wave, piece_s)]
    found: list[np.ndarray] = [np.empty(0)] * len(pieces)
    lengths = [len(piece) for _, piece in pieces]
    for rows in plan_batches(lengths, batch_size, equal=needs_equal_lengths(encoder)):
        batch, frames = states(encoder, [pieces[row][1] for row in rows], encoder.sampling_rate)
        for row, state, n in zip(rows, batch, frames, strict=True):
            found[row] = state[layer, :n].float().cpu().numpy()
    owners = np.array([i for i, _ in pieces])
    return [np.concatenate([found[p] for p in np.flatnonzero(owners == i)])
            for i in range(len(waves))]


def before_topk(sae: SparseAutoencoder, acts_ND: np.ndarray) -> np.ndarray:
    """What the encoder computes before ReLU and TopK, shape [N, F]: linear in the states.

    Hence its mean over the frames of a clip is its value on the clip's mean state.
    """
    acts_ND = check_rows(acts_ND, sae.width)
    inputs = acts_ND - sae.b_dec_D if sae.centred else acts_ND
    return inputs @ sae.W_enc_DF + sae.b_enc_F


def train_frame_sae(
    frames_TD: np.ndarray, like: SparseAutoencoder, seed: int, epochs: int
) -> SparseAutoencoder:
    """A dictionary of single frames, with the width and k of a clip-level one.

    Parameters
    ----------
    frames_TD
        Frames of training singers, clip after clip; the last tenth chooses the epoch.
    like
        The clip-level SAE; a TopK one.
    seed, epochs
        Start and order of the rows; passes over the frames.

    Raises
    ------
    ValueError
        As `saeutils.sae_training.train_sae`.
    """
    last = len(frames_TD) - max(len(frames_TD) // 10, 1)
    k = like.k or max(1, like.latents // 20)
    recipe = replace(CORRECTED, epochs=epochs, batch=min(64, last))  # few short clips of AST's
    return train_sae(frames_TD[:last], frames_TD[last:], like.latents, k, seed, recipe)[0]


def match_frame_latents(
    curves_TC: np.ndarray, codes_TF: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each curve the frame-level latent that follows it best.

    Parameters
    ----------
    curves_TC
        Positive parts of clip-level latents on some frames.
    codes_TF
        Codes of a frame-level dictionary on the same frames.

    Returns
    -------
    partner, r
        Number of the latent and Pearson correlation, each of shape [C].

    Examples
    --------
    >>> curves, codes = np.array([[0.0], [1.0], [2.0]]), np.array([[1.0, 0], [0, 1], [0, 2]])
    >>> partner, r = match_frame_latents(curves, codes)
    >>> partner.tolist(), r.round(3).tolist()
    ([1], [1.0])
    """
    r = _unit(curves_TC).T @ _unit(codes_TF)
    partner = r.argmax(axis=1)
    return partner, r[np.arange(len(r)), partner]


def curve_correlation(first_TC: np.ndarray, second_TC: np.ndarray) -> np.ndarray:
    """Pearson correlation column by column, shape [C]; 0 where one of the two never changes."""
    return (_unit(first_TC) * _unit(second_TC)).sum(axis=0)


def mp3(wave: np.ndarray, rate_hz: int = RATE_HZ) -> bytes:
    """A mono MP3 at 16 kHz, peak at -6 dB: the level is set for listening only.

    Raises
    ------
    ValueError
        No samples, or samples that are not finite.
    """
    import soundfile
    from scipy.signal import resample_poly

    wave = np.asarray(wave, dtype=float)
    if not len(wave) or not np.isfinite(wave).all():
        raise ValueError(f"{len(wave)} samples, finite ones wanted: nothing to listen to")
    wave = resample_poly(wave, RATE_HZ, rate_hz) if rate_hz != RATE_HZ else wave
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.5 * wave / max(np.abs(wave).max(), 1e-9), RATE_HZ, format="MP3",
                    compression_level=0.5, bitrate_mode="VARIABLE")
    return buffer.getvalue()


def mel_levels(wave_16k: np.ndarray) -> np.ndarray:
    """Mel spectrogram of a 16 kHz waveform as levels 0 to 1, shape [bands, frames].

    Low bands come first. 1 is the loudest point of the clip, 0 is 65 dB or more below it; 96 bands
    from 60 Hz to 7.6 kHz, one column every 16 ms.
    """
    import torch
    from torchaudio.functional import melscale_fbanks

    wave = torch.from_numpy(np.ascontiguousarray(wave_16k, dtype=np.float32))
    window = torch.hann_window(640)
    with torch.inference_mode():
        spectrum = torch.stft(wave, 1024, MEL_HOP, 640, window, return_complex=True).abs() ** 2
        bank = melscale_fbanks(513, MEL_LOW_HZ, MEL_HIGH_HZ, MEL_BANDS, RATE_HZ)
        level = 10 * torch.log10(bank.T @ spectrum + 1e-12)
    level = (level - level.max() + MEL_RANGE_DB) / MEL_RANGE_DB
    return level.clamp(0, 1).numpy()


def mel_picture(levels: np.ndarray, quality: int = 68) -> bytes:
    """The spectrogram as a grey WebP picture, ink on white, high frequencies on top."""
    from PIL import Image

    grey = (255 * (1 - np.asarray(levels)[::-1] ** 1.15)).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _unit(columns: np.ndarray) -> np.ndarray:
    columns = np.asarray(columns, dtype=float) - np.mean(columns, axis=0)
    size = np.linalg.norm(columns, axis=0)
    return columns / np.where(size > 1e-12, size, np.inf)
