"""What the release did to its encoders, on purpose: for measuring the effect, never for results.

Three of the audit's rows concern the encoder itself: it is left in train mode while states are
taken (A06), WavLM's weights are loaded into the class of wav2vec 2.0 (A07), and audio of one rate
is read into a model of another (A08). Each is one function here; all else goes the usual way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from saeutils import encoders, encoders_hub, encoders_models
from saeutils.encoders import Encoder, from_loaded, pooled

if TYPE_CHECKING:
    import torch

SMALL = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
         "intermediate_size": 96, "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16,
         "num_conv_pos_embedding_groups": 4}


def train_mode_pooled(
    encoder: Encoder, waves: list[np.ndarray], rate: int, seed: int, *,
    pooling: str = "released", window_s: float = 5.0, batch_size: int = 16,
) -> np.ndarray:  # fmt: skip
    """Time-averaged states in train mode, as the release takes its training states (A06).

    Dropout, LayerDrop and SpecAugment act with the strengths of the encoder's own configuration;
    one call is one epoch of the release, so call it with several seeds. Where LayerDrop leaves
    a block out, the state behind it equals the one before it, as in the library that the release
    used (transformers 4). Without any of the three (AST) the result is that of `encoders.pooled`.

    Parameters
    ----------
    encoder : Encoder
        In evaluation mode, and left so.
    waves : list of numpy.ndarray, each shape (samples,)
    rate : int
        Hz of `waves`; the encoder's own.
    seed : int
        Of all draws. The generators of torch and numpy are left as they were.
    pooling, window_s
        As `encoders.pooled`.
    batch_size : int
        Clips per forward pass, in the order of `waves`: a block is dropped for a whole batch. The
        release has 16.

    Returns
    -------
    numpy.ndarray, float32 [clip, state, width]

    Raises
    ------
    ValueError
        As `encoders.pooled`; if there is no clip.
    """
    if not waves:
        raise ValueError("no waveforms given: give one or more")
    parts = []
    with _train_mode(encoder.model, seed):
        for start in range(0, len(waves), batch_size):
            batch = waves[start : start + batch_size]
            parts.append(pooled(encoder, batch, rate, pooling, window_s, train_mode=True))
    return np.concatenate(parts)


@contextmanager
def _train_mode(model: torch.nn.Module, seed: int) -> Iterator[None]:
    """Train mode with seeded draws; SpecAugment of transformers draws from numpy's global state."""
    import torch

    kept = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        model.train()
        try:
            yield
        finally:
            model.eval()
            np.random.set_state(kept)


def wrong_rate_pooled(
    encoder: Encoder, waves: list[np.ndarray], rate: int, wrong_rate: int, *,
    pooling: str = "masked", window_s: float = 5.0,
) -> np.ndarray:  # fmt: skip
    """Time-averaged states of audio at `wrong_rate` that the encoder takes for its own rate (A08).

    The waveforms are resampled to `wrong_rate` and handed over as they are, so the encoder hears
    every frequency and every tempo changed by the factor ``encoder.sampling_rate / wrong_rate``:
    16 kHz audio in a model of 24 kHz sounds a fifth higher and is over in two thirds of the time.

    Parameters
    ----------
    encoder : Encoder
    waves : list of numpy.ndarray, each shape (samples,)
    rate : int
        True rate of `waves` in Hz.
    wrong_rate : int
        Rate in Hz at which the audio is read, other than the encoder's.
    pooling : str
        As `encoders.pooled`; ``"released"`` cuts and pads to `window_s` seconds of real time.

    Returns
    -------
    numpy.ndarray, float32 [clip, state, width]

    Raises
    ------
    ValueError
        If `wrong_rate` is the encoder's own rate or not positive; as `encoders.pooled`.
    """
    from saeutils.activations import resample

    if wrong_rate == encoder.sampling_rate or wrong_rate < 1:
        raise ValueError(f"wrong_rate = {wrong_rate} Hz: give another rate than the "
                         f"{encoder.sampling_rate} Hz of encoder {encoder.name}")  # fmt: skip
    waves = [resample(wave, rate, wrong_rate) for wave in waves]
    seconds = window_s * wrong_rate / encoder.sampling_rate  # what the encoder takes them for
    return pooled(encoder, waves, encoder.sampling_rate, pooling, seconds)


def gated_bias_dropped(model_folder: str | Path) -> tuple[Encoder, list[str]]:
    """A WavLM checkpoint in the class of wav2vec 2.0, and the names of the weights lost (A07).

    WavLM adds to its attention a bias by relative position, gated by the content. `Wav2Vec2Model`
    has no place for it: loaded there, the weights of bias and gate fall away without an error, and
    every block runs without them. This is the one loader that accepts left-over weights, and only
    those.

    Parameters
    ----------
    model_folder : str or pathlib.Path
        Any WavLM that `encoders_hub.find` knows: a folder, ``"wavlm"``, a repository.

    Returns
    -------
    encoder : Encoder
        Named after the checkpoint with ``_as_released`` behind it.
    dropped : list of str
        Names of the weights left over, sorted.

    Raises
    ------
    ValueError
        If a file is missing, the checkpoint is no WavLM, or its weights differ from the class by
        more than the gated bias.

    Source: the release's feature extraction; `microsoft/wavlm-base-plus`.
    """
    found = encoders_hub.find(model_folder)
    loaded = encoders_models.load(found, as_released=True)
    encoder = replace(from_loaded(found, loaded), name=f"{found.name}_as_released")
    return encoder, list(loaded.left_over)


def wavlm_twice(seed: int) -> tuple[Encoder, Encoder, list[str]]:
    """A small random WavLM in its own class and in that of wav2vec 2.0, and the weights lost (A07).

    The smallest case of `gated_bias_dropped`: 16 kHz, four blocks of width 48.
    """
    import torch
    from transformers import WavLMConfig, WavLMModel
    from transformers.utils import logging

    with TemporaryDirectory() as place, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WavLMModel(WavLMConfig(**SMALL))
        with torch.no_grad():  # fresh weights hardly attend: give the bias something to act on
            for name, value in model.named_parameters():
                if "attention" in name and name.endswith("weight"):
                    value.normal_(0, 2 if "rel_attn_embed" in name else 0.3)
        folder = Path(place) / "small_wavlm"
        logging.disable_progress_bar()
        model.save_pretrained(folder)
        logging.enable_progress_bar()
        settings = {"sampling_rate": 16_000, "do_normalize": True}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return encoders.load_encoder(folder), *gated_bias_dropped(folder)
