"""Audio encoders: the shipped one, its untrained twin, the paper's four, and any other.

Everything is a class of `transformers` loaded strictly: a checkpoint with missing or unexpected
weights is an error that names them. States are those of the library: state 0 is the input of the
first block, state n the output of block n. Where blocks normalise their input (AST), the library's
last state is the one before the final layer norm.

Padding leaves no trace in masked states, with two exceptions that the architectures force. HuBERT,
WavLM and MERT of base size normalise their first convolution over time (group norm), and some
other families convolve over time behind it: there only clips of equal length share a batch. And
Whisper attends to all of its 30 s window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saeutils import encoders_hub, encoders_inputs, encoders_models
from saeutils.encoders_forward import (
    Encoder,
    blocks,
    hidden_states,
    needs_equal_lengths,
    waveform_tokens,
)
from saeutils.profiles import ROOT

if TYPE_CHECKING:
    import torch

DEMO_FOLDER = ROOT / "data" / "encoders" / "demo"
UNTRAINED_SEED = 4_051
POOLINGS = ("masked", "released")
DEVICES = ("cpu", "cuda", "mps", "auto")
PRECISIONS = ("float32", "bfloat16")
PIECES_AT_ONCE = 8  # windows of long clips that share a forward pass
ATTENTION_S2 = 60.0**2  # sum of squared seconds of a forward pass: WavLM then stays below 4 GB


def load_encoder(
    name: str | Path, seed: int = UNTRAINED_SEED, *, model_dir: str = "", hub_cache: str = "",
    device: str = "cpu", precision: str = "float32",
) -> Encoder:  # fmt: skip
    """Load an encoder by name, repository or folder.

    Parameters
    ----------
    name : str or pathlib.Path
        ``"demo"``; ``"untrained"`` (the demo's configuration, weights drawn from `seed`); and all
        that `encoders_hub.find` knows: the paper's four and WavLM as released, a repository of the
        model hub, a folder.
    seed : int
        Only for ``"untrained"``.
    model_dir, hub_cache : str
        As `encoders_hub.find`.
    device : str
        ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"`` (the fastest that is there).
    precision : str
        ``"float32"``, or ``"bfloat16"``: matrix products in 16 bits, about half the time; see
        `rounding_error` for what it costs.

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        If there is no such encoder, device or precision, a file is missing, the family is not
        supported, or the weights do not fit the class exactly (the message names them).
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: use {' or '.join(PRECISIONS)}")
    place = _device(device)
    if str(name) in ("demo", "untrained"):
        weights = DEMO_FOLDER / "model.safetensors"
        found = encoders_hub.Checkpoint(str(name), DEMO_FOLDER, weights, "shipped")
    else:
        found = encoders_hub.find(name, model_dir, hub_cache)
    loaded = encoders_models.load(found, seed if str(name) == "untrained" else None,
                                  as_released=str(name) == "wavlm_as_released")  # fmt: skip
    return replace(from_loaded(found, loaded), model=loaded.model.to(place), device=place,
                   precision=precision)  # fmt: skip


def from_loaded(found: encoders_hub.Checkpoint, loaded: encoders_models.Loaded) -> Encoder:
    """An `Encoder` on the CPU from a checkpoint and its loaded model."""
    notes = loaded.notes
    if loaded.left_over:
        notes += (f"{len(loaded.left_over)} weights left over on purpose (A07)",)
    return Encoder(
        name=found.name, model=loaded.model, sampling_rate=loaded.sampling_rate,
        n_layers=len(blocks(loaded.model)), width=loaded.model.config.hidden_size,
        do_normalize=loaded.do_normalize, fingerprint=loaded.fingerprint, kind=loaded.kind,
        extractor=loaded.extractor, source=found.source, notes=notes,
    )  # fmt: skip


def _device(name: str) -> str:
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(),
             "mps": torch.backends.mps.is_available()}  # fmt: skip
    if name == "auto":
        return next(d for d in ("cuda", "mps", "cpu") if there[d])
    if not there.get(name, False):
        have = ", ".join(d for d, yes in there.items() if yes)
        raise ValueError(f"device {name!r} is not here: this machine has {have} (or say auto)")
    return name


def prepare(encoder: Encoder, waves: list[np.ndarray], sampling_rate: int) -> list[np.ndarray]:
    """Check waveforms and normalise each as the encoder wants it.

    Parameters
    ----------
    waves : list of numpy.ndarray, each shape (samples,)
    sampling_rate : int
        Hz of all of them.

    Returns
    -------
    list of numpy.ndarray, float32

    Raises
    ------
    ValueError
        On another sampling rate than the encoder's, NaN, infinity, silence throughout, or less
        than one frame (25 ms; AST's shortest piece is a patch of 175 ms).
    """
    if sampling_rate != encoder.sampling_rate:
        raise ValueError(
            f"waveforms at {sampling_rate} Hz, but encoder {encoder.name} expects "
            f"{encoder.sampling_rate} Hz: resample first"
        )
    out, shortest = [], encoders_inputs.shortest_samples(encoder)
    for i, wave in enumerate(waves):
        wave = np.asarray(wave, np.float32)
        if wave.ndim != 1 or len(wave) < shortest:
            least = 1000 * shortest / sampling_rate
            raise ValueError(f"waveform {i} has shape {wave.shape}: give mono, {least:.0f} ms or "
                             "more")
        if not np.isfinite(wave).all():
            raise ValueError(f"waveform {i} holds NaN or infinity: mend the file")
        if not np.any(wave):
            raise ValueError(f"waveform {i} is silent throughout: leave it out")
        if encoder.do_normalize:
            wide = wave.astype(np.float64)
            wave = ((wide - wide.mean()) / wide.std()).astype(np.float32)
        out.append(wave)
    return out


def states(
    encoder: Encoder, waves: list[np.ndarray], sampling_rate: int, train_mode: bool = False
) -> tuple[torch.Tensor, np.ndarray]:
    """Hidden states of a batch over time, padded to its longest waveform.

    For AST a frame is one column of patches (100 ms), averaged over frequency.

    Parameters
    ----------
    waves : list of numpy.ndarray
        As they are on disk; `prepare` is applied here, before padding.
    train_mode : bool
        Accept a model in train mode (audit A06 only). A block that LayerDrop leaves out then hands
        on its input, and so keeps its place in the list.

    Returns
    -------
    states_BLTD : torch.Tensor, float32
        Batch, states 0 to `n_layers`, frames, width. Padded frames hold no meaning.
    frames_B : numpy.ndarray, int
        Valid frames per waveform.

    Raises
    ------
    ValueError
        As `prepare`; in train mode (dropout, layer drop and masks would act); or for unequal
        lengths where the front end normalises over time, since padding would then leak.
    """
    states_BLTD, sound_BT = _tokens(encoder, waves, sampling_rate, False, train_mode)
    return encoders_inputs.over_time(encoder, states_BLTD, sound_BT)


def _tokens(
    encoder: Encoder, waves: list[np.ndarray], sampling_rate: int, plain: bool, train_mode: bool
) -> tuple[torch.Tensor, np.ndarray]:
    """States of every token [B, L, T, D] and which of them count [B, T]."""
    import torch

    if encoder.model.training and not train_mode:
        raise ValueError(f"encoder {encoder.name} is in train mode: call encoder.model.eval()")
    waves = prepare(encoder, waves, sampling_rate)
    with torch.inference_mode():
        if encoder.kind != "waveform":
            return encoders_inputs.tokens(
                encoder, waves, plain, lambda given, **more: hidden_states(encoder, given, **more))
        return waveform_tokens(encoder, waves)


def pooled(
    encoder: Encoder, waves: list[np.ndarray], sampling_rate: int, pooling: str,
    window_s: float = 5.0, train_mode: bool = False, piece_s: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Time-averaged states, float32 [batch, n_layers + 1, width].

    ``"masked"`` takes whole clips and leaves padding and special tokens out everywhere: input
    normalisation, attention and mean. Clips longer than `piece_s` seconds, or than the encoder's
    own window (AST 10.24 s, Whisper 30 s), are cut into pieces whose means are weighted by their
    valid frames, so that all of a long file counts. ``"released"`` follows the paper's release:
    the first `window_s` seconds, zero-padded to `window_s` before normalisation, mean over all
    tokens (AST: also those of the padding to 10.24 s, and the two special ones).

    Parameters
    ----------
    window_s, piece_s : float
        In seconds; a `piece_s` of 0 takes the whole clip, or the encoder's own window.
    train_mode : bool
        As `states`.

    Raises
    ------
    ValueError
        On an unknown pooling, and as `states`.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"unknown pooling {pooling!r}: use {' or '.join(POOLINGS)}")
    if pooling == "released":
        n = round(window_s * sampling_rate)
        waves = [np.pad(np.asarray(w, np.float32)[:n], (0, max(n - len(w), 0))) for w in waves]
        if encoder.kind == "whisper":
            waves = [w[: encoders_inputs.window_samples(encoder)] for w in waves]
        return _means(encoder, waves, sampling_rate, True, train_mode)[0]
    pieces = [encoders_inputs.cut(encoder, np.asarray(w), piece_s) for w in waves]
    if all(len(of_clip) == 1 for of_clip in pieces):
        return _means(encoder, [p[0] for p in pieces], sampling_rate, False, train_mode)[0]
    total = np.zeros((len(waves), encoder.n_layers + 1, encoder.width))
    weight = np.zeros(len(waves))
    flat = [(row, piece) for row, of_clip in enumerate(pieces) for piece in of_clip]
    flat.sort(key=lambda item: len(item[1]))
    for start, stop in _runs([len(p) for _, p in flat], needs_equal_lengths(encoder)):
        rows = [row for row, _ in flat[start:stop]]
        batch = [piece for _, piece in flat[start:stop]]
        means, counts = _means(encoder, batch, sampling_rate, False, train_mode)
        for row, mean, count in zip(rows, means, counts, strict=True):
            total[row] += count * mean
            weight[row] += count
    return (total / weight[:, None, None]).astype(np.float32)


def _runs(lengths: list[int], equal: bool) -> Iterator[tuple[int, int]]:
    start = 0
    for i in range(1, len(lengths) + 1):
        full = i - start == PIECES_AT_ONCE
        if i == len(lengths) or full or (equal and lengths[i] != lengths[start]):
            yield start, i
            start = i


def _means(
    encoder: Encoder, waves: list[np.ndarray], sampling_rate: int, plain: bool, train_mode: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the tokens that count [B, L, D], and their number [B]."""
    import torch

    longest = max(1, *map(len, waves)) / sampling_rate
    fit = max(1, int(ATTENTION_S2 / longest**2))  # attention's memory grows with the square
    if len(waves) > fit:
        parts = [_means(encoder, waves[i : i + fit], sampling_rate, plain, train_mode)
                 for i in range(0, len(waves), fit)]
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    states_BLTD, sound_BT = _tokens(encoder, waves, sampling_rate, plain, train_mode)
    if encoder.kind == "waveform" or plain:
        counts = sound_BT.sum(1)
        means = [s[:, :n].mean(1) for s, n in zip(states_BLTD, counts, strict=True)]
        return np.stack([m.numpy() for m in means]).astype(np.float32), counts
    means = [s[:, torch.from_numpy(m)].mean(1) for s, m in zip(states_BLTD, sound_BT, strict=True)]
    return np.stack([m.numpy() for m in means]).astype(np.float32), sound_BT.sum(1)
