"""Encoders that take no waveform: what goes in, and which of the tokens that come out are sound.

AST sees 1024 log-mel frames (10.24 s) cut into patches of 16 x 16, behind two special tokens.
Whisper sees 3000 (30 s). Both fill up what a clip leaves empty. AST's attention can be told to
leave the filling out; Whisper's cannot, so there padding still acts on the sound's own frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from saeutils.encoders_forward import Encoder

SPECIAL_TOKENS = 2  # of AST: class and distillation token, before the patches


def window_samples(encoder: Encoder) -> int:
    """Longest piece the encoder takes at once, in samples; 0 for any length.

    AST's is the stretch whose frames fill its window exactly: neighbouring windows then share
    15 ms of sound and no frame is lost between them.
    """
    rate = encoder.sampling_rate
    if encoder.kind == "ast":
        return _frame(rate)[0] + (encoder.model.config.max_length - 1) * _frame(rate)[1]
    return encoder.extractor.n_samples if encoder.kind == "whisper" else 0


def shortest_samples(encoder: Encoder) -> int:
    """Shortest piece with a state of its own: one frame of 25 ms, for AST one patch."""
    if encoder.kind == "ast":
        window, shift = _frame(encoder.sampling_rate)
        return window + (encoder.model.config.patch_size - 1) * shift
    return encoder.sampling_rate // 40


def cut(encoder: Encoder, wave: np.ndarray, window_s: float = 0.0) -> list[np.ndarray]:
    """A waveform in pieces of `window_s` seconds (0: as long as the encoder takes).

    A rest too short for a state of its own is left out, and so are pieces of nothing but zeros
    beside others that hold sound.
    """
    longest = window_samples(encoder)
    size = round(window_s * encoder.sampling_rate) or longest or len(wave)
    size = min(size, longest or size)
    step = size
    if encoder.kind == "ast" and size == longest:
        step = encoder.model.config.max_length * _frame(encoder.sampling_rate)[1]
    pieces = [wave[start : start + size] for start in range(0, len(wave), step)]
    pieces = [p for i, p in enumerate(pieces) if not i or len(p) >= shortest_samples(encoder)]
    return [p for p in pieces if np.any(p)] or pieces[:1]


def tokens(
    encoder: Encoder, waves: list[np.ndarray], plain: bool, forward: Callable
) -> tuple[torch.Tensor, np.ndarray]:
    """States of all tokens, and which of them stand for sound.

    Parameters
    ----------
    encoder : Encoder
        Of kind ``"ast"``, ``"whisper"`` or ``"features"``.
    waves : list of numpy.ndarray
        Each no longer than `window_samples`.
    plain : bool
        The library's forward pass as it is: padding is attended to and every token counts.
    forward : callable
        ``forward(inputs, **more)`` gives the list of states.

    Returns
    -------
    states_BLTD : torch.Tensor
    sound_BT : numpy.ndarray of bool
    """
    import torch

    lengths = np.array([len(wave) for wave in waves])
    if encoder.kind == "features":
        return _one_by_one(encoder, waves, forward)
    given = encoder.extractor(list(waves), sampling_rate=encoder.sampling_rate, return_tensors="pt")
    if encoder.kind == "whisper":
        hidden = torch.stack(forward(given["input_features"]), 1)
        frames = lengths // encoder.extractor.hop_length
        sound = np.arange(hidden.shape[2])[None] < np.maximum((frames[:, None] + 1) // 2, 1)
        return hidden, np.ones_like(sound) if plain else sound
    high, wide = patch_grid(encoder)
    times = valid_patches(encoder, lengths)
    grid = np.broadcast_to(np.arange(wide) < times[:, None, None], (len(waves), high, wide))
    sound = np.concatenate([np.zeros((len(waves), SPECIAL_TOKENS), bool),
                            grid.reshape(len(waves), -1)], 1)  # fmt: skip
    attended = sound | (np.arange(sound.shape[1]) < SPECIAL_TOKENS)
    more = {} if plain or attended.all() else {"attention_mask": torch.from_numpy(attended).long()}
    hidden = torch.stack(forward(given["input_values"], **more), 1)
    return hidden, np.ones_like(sound) if plain else sound


def patch_grid(encoder: Encoder) -> tuple[int, int]:
    """AST's patches: rows of frequency, columns of time (12 and 101)."""
    c = encoder.model.config
    return ((c.num_mel_bins - c.patch_size) // c.frequency_stride + 1,
            (c.max_length - c.patch_size) // c.time_stride + 1)  # fmt: skip


def valid_patches(encoder: Encoder, lengths: np.ndarray) -> np.ndarray:
    """Columns of patches that hold sound throughout, for waveforms of these lengths."""
    c, (window, shift) = encoder.model.config, _frame(encoder.sampling_rate)
    frames = np.minimum((np.asarray(lengths) - window) // shift + 1, c.max_length)
    return np.maximum((frames - c.patch_size) // c.time_stride + 1, 1)


def over_time(encoder: Encoder, states_BLTD: torch.Tensor, sound_BT: np.ndarray) -> tuple:
    """States by time alone, for looking at: AST's columns of patches averaged over frequency."""
    if encoder.kind != "ast":
        return states_BLTD, sound_BT.sum(1)
    high, wide = patch_grid(encoder)
    grid = states_BLTD[:, :, SPECIAL_TOKENS:].unflatten(2, (high, wide)).mean(2)
    return grid, sound_BT[:, SPECIAL_TOKENS:].reshape(-1, high, wide)[:, 0].sum(1)


def _one_by_one(
    encoder: Encoder, waves: list[np.ndarray], forward: Callable
) -> tuple[torch.Tensor, np.ndarray]:  # fmt: skip
    import torch

    parts = []
    for wave in waves:
        given = encoder.extractor(wave, sampling_rate=encoder.sampling_rate, return_tensors="pt")
        features, mask = given["input_features"], given.get("attention_mask")
        if encoder.model.config.model_type == "parakeet_encoder":  # its last frame is padding
            features, mask = features[:, : int(mask.sum())], None
        parts.append(torch.stack(forward(features, attention_mask=mask), 1)[0])
    longest = max(part.shape[1] for part in parts)
    out = torch.zeros(len(parts), parts[0].shape[0], longest, parts[0].shape[2])
    sound = np.zeros((len(parts), longest), bool)
    for i, part in enumerate(parts):
        out[i, :, : part.shape[1]] = part
        sound[i, : part.shape[1]] = True
    return out, sound


def _frame(rate: int) -> tuple[int, int]:
    """Samples of AST's analysis window (25 ms) and of its step (10 ms)."""
    return int(rate * 0.025), int(rate * 0.010)
