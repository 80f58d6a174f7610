"""What the release did to its encoders, on purpose: for measuring the effect, never for results.

Three of the audit's rows concern the encoder itself: it is left in train mode while states are
taken (A06), WavLM's weights are loaded into the class of wav2vec 2.0 (A07), and audio of one rate
is read into a model of another (A08). Each is one function here; all else goes the usual way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saeutils.encoders import Encoder, pooled

if TYPE_CHECKING:
    import torch

GATED_BIAS = ("gru_rel_pos_const", "gru_rel_pos_linear.weight", "gru_rel_pos_linear.bias",
              "rel_attn_embed.weight")  # fmt: skip


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
        With ``config.json`` (of a WavLM), ``preprocessor_config.json``, ``model.safetensors``.

    Returns
    -------
    encoder : Encoder
        Named after the folder with ``_as_released`` behind it.
    dropped : list of str
        Names of the weights left over, sorted.

    Raises
    ------
    ValueError
        If a file is missing, the folder is no WavLM, or the weights differ from the class by more
        than the gated bias.

    Source: the release's feature extraction; `microsoft/wavlm-base-plus`.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    folder = Path(model_folder)
    needed = ("config.json", "preprocessor_config.json", "model.safetensors")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}: give the folder of a WavLM")
    config, settings = (json.loads((folder / n).read_text(encoding="utf-8")) for n in needed[:2])
    if config.get("model_type") != "wavlm":
        raise ValueError(f"{folder.name} is of family {config.get('model_type')!r}: "
                         "the gated bias is WavLM's alone")  # fmt: skip
    from saeutils.encoders import _digest

    fields = Wav2Vec2Config().to_dict().keys() - {"model_type", "transformers_version"}
    model = Wav2Vec2Model(Wav2Vec2Config(**{k: v for k, v in config.items() if k in fields}))
    weights = _plain_names(load_file(folder / "model.safetensors"), model)
    outcome = model.load_state_dict(weights, strict=False)
    dropped = sorted(name for name in outcome.unexpected_keys if name.endswith(GATED_BIAS))
    others = sorted(set(outcome.unexpected_keys) - set(dropped))
    if others or outcome.missing_keys or not dropped:
        raise ValueError(
            f"{folder.name} differs from wav2vec 2.0 by more or less than the gated bias (left "
            f"over: {', '.join(others[:6]) or 'none'}; missing: "
            f"{', '.join(outcome.missing_keys[:6]) or 'none'}; bias weights: {len(dropped)}): "
            "give a WavLM without head"
        )
    encoder = Encoder(
        name=f"{folder.name}_as_released",
        model=model.to(torch.float32).eval().requires_grad_(False),
        sampling_rate=int(settings["sampling_rate"]), n_layers=model.config.num_hidden_layers,
        width=model.config.hidden_size, do_normalize=bool(settings["do_normalize"]),
        fingerprint=_digest(folder, "Wav2Vec2Model"),
    )  # fmt: skip
    return encoder, dropped


def _plain_names(weights: dict, model: torch.nn.Module) -> dict:
    """Weights under the names of `model`: the halves of a weight norm have two spellings."""
    ours = model.state_dict().keys()
    halves = {"weight_g": "parametrizations.weight.original0",
              "weight_v": "parametrizations.weight.original1"}  # fmt: skip
    out = {}
    for name, value in weights.items():
        stem, _, last = name.rpartition(".")
        other = f"{stem}.{halves.get(last, last)}"
        out[other if name not in ours and other in ours else name] = value
    return out
