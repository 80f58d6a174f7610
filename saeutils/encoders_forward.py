"""One batch through a model of `transformers`: padding, masks, precision, and all its states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

PAD_TO = 8_000  # samples; batches are padded to a multiple and masked
NARROW = 16  # channels a group

# Families whose layers behind the front end convolve over time, padding included.
CONVOLVING = ("sew", "sew-d", "wav2vec2-conformer", "data2vec-audio")


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder, ready to be asked for states.

    Attributes
    ----------
    name : str
        Short name, safe as a folder's name: ``"demo"``, ``"hubert"``, ``"org--name"``.
    model : torch.nn.Module
        In evaluation mode, float32.
    sampling_rate : int
        Hz of the waveforms it expects.
    n_layers : int
        Blocks; states are numbered 0 to `n_layers`.
    width : int
        Dimensions of a state.
    do_normalize : bool
        Whether each waveform is brought to zero mean and unit variance.
    fingerprint : str
        sha256 over configuration, settings and weights (or the seed): part of cache keys.
    kind : str
        ``"waveform"``, ``"ast"``, ``"whisper"`` or ``"features"``: what the model takes.
    extractor : object or None
        Feature extractor of `transformers`, unless the model takes the waveform.
    device, precision : str
        Where and how the model computes; states come back as float32 on the CPU.
    source : str
        Repository and revision, or the folder's name.
    notes : tuple of str
        What a reader should know about the loading.
    """

    name: str
    model: torch.nn.Module
    sampling_rate: int
    n_layers: int
    width: int
    do_normalize: bool
    fingerprint: str
    kind: str = "waveform"
    extractor: Any = None
    device: str = "cpu"
    precision: str = "float32"
    source: str = ""
    notes: tuple[str, ...] = ()


def waveform_tokens(
    encoder: Encoder, waves: list[np.ndarray]
) -> tuple[torch.Tensor, np.ndarray]:  # fmt: skip
    """States of a batch of waveforms [B, L, T, D], padded and masked, and the valid frames [B, T].

    Raises
    ------
    ValueError
        For unequal lengths where padding would leak.
    """
    import torch

    lengths = torch.tensor([len(wave) for wave in waves])
    equal = bool((lengths == lengths[0]).all())
    if needs_equal_lengths(encoder) and not equal:
        raise ValueError(f"encoder {encoder.name} normalises over time: batch equal lengths only")
    longest = int(lengths.max())
    if not needs_equal_lengths(encoder):  # few shapes: each new one costs the library memory
        longest = -(-longest // PAD_TO) * PAD_TO
    batch = torch.zeros(len(waves), longest)
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    mask = None
    if not equal or longest > int(lengths[0]):
        mask = (torch.arange(batch.shape[1])[None] < lengths[:, None]).long()
    hidden = hidden_states(encoder, batch, attention_mask=mask)
    frames = encoder.model._get_feat_extract_output_lengths(lengths)
    frames = frames // getattr(encoder.model.config, "squeeze_factor", 1)
    states_BLTD = torch.stack(hidden, 1)[:, :, : int(frames.max())]
    return states_BLTD, np.arange(states_BLTD.shape[2])[None] < frames.numpy()[:, None]


@contextmanager
def _computing(encoder: Encoder) -> Iterator[None]:
    """bfloat16 for matrix products, if the encoder asks for it."""
    import torch

    if encoder.precision != "bfloat16":
        yield
        return
    with torch.autocast(encoder.device, torch.bfloat16), narrow_groups_in_float32(encoder.model):
        yield


@contextmanager
def narrow_groups_in_float32(model: Any) -> Iterator[None]:
    """Convolutions of fewer than `NARROW` channels a group stay in float32 under autocast.

    On processors with matrix units for bfloat16 (AMX), oneDNN of torch 2.11 returns numbers that
    have nothing to do with such a convolution: a relative error above 1.
    """
    import torch

    def exact(forward):
        def in_float32(given, *more):
            with torch.autocast(given.device.type, enabled=False):
                return forward(given.float(), *more)
        return in_float32

    narrow = [module for module in model.modules()
              if isinstance(module, torch.nn.Conv1d | torch.nn.Conv2d)
              and module.groups > 1 and module.in_channels // module.groups < NARROW]
    for module in narrow:
        module.forward = exact(module.forward)
    try:
        yield
    finally:
        for module in narrow:
            del module.forward  # what the class has


def hidden_states(encoder: Encoder, given: torch.Tensor, **more) -> list[torch.Tensor]:
    """All states, one per place: the library leaves out blocks that LayerDrop skipped."""
    model = encoder.model
    given = given.to(encoder.device)
    more = {k: v if v is None else v.to(encoder.device) for k, v in more.items()}
    if not model.training:
        with _computing(encoder):
            found = model(given, output_hidden_states=True, **more).hidden_states
        return [state.float().cpu() for state in found]
    seen: dict[int, tuple] = {}
    hooks = [
        block.register_forward_hook(lambda _, given, out, i=i: seen.update({i: (given[0], out)}))
        for i, block in enumerate(blocks(model))
    ]
    try:
        with _computing(encoder):
            last = model(given, **more).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    states = [seen[min(seen)][0] if seen else last]
    for i in range(len(hooks)):
        out = seen[i][1] if i in seen else states[-1]
        states.append(out[0] if isinstance(out, tuple) else out)
    return [state.float().cpu() for state in states]


def blocks(model: torch.nn.Module) -> torch.nn.ModuleList:
    """The blocks of an encoder, first to last."""
    inner = model
    while not hasattr(inner, "layers") and hasattr(inner, "encoder"):
        inner = inner.encoder
    return inner.layers if hasattr(inner, "layers") else inner.layer


def keep_channels_last(model: torch.nn.Module) -> torch.nn.Module:
    """Let a front end with layer norms compute without turning its arrays around, in place.

    The library goes to and fro between [B, C, T], which it convolves, and [B, T, C], which the
    norm wants: two copies a layer, a sixth of a small encoder's time on a CPU. The same
    convolution reads channels last. Equal up to rounding; other front ends stay as they are.
    """
    from types import MethodType

    from torch.nn import LayerNorm

    front = getattr(model, "feature_extractor", None)
    for layer in list(getattr(front, "conv_layers", ()))[1:]:  # the first has a single channel
        if isinstance(getattr(layer, "layer_norm", None), LayerNorm):
            layer.forward = MethodType(_channels_last, layer)
    return model


def _channels_last(layer: torch.nn.Module, given_BCT: torch.Tensor) -> torch.Tensor:
    import torch

    if given_BCT.device.type != "cpu":
        return type(layer).forward(layer, given_BCT)
    weight = layer.conv.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    out_BTC = torch.nn.functional.conv2d(
        given_BCT.unsqueeze(2), weight, layer.conv.bias, (1, layer.conv.stride[0])
    ).squeeze(2).transpose(1, 2)  # fmt: skip
    return layer.activation(layer.layer_norm(out_BTC).transpose(1, 2))


def needs_equal_lengths(encoder: Encoder) -> bool:
    """Whether padding would leak: a group norm over time, or convolutions behind the front end."""
    config = encoder.model.config
    by_group = getattr(config, "feat_extract_norm", "layer") == "group"
    return encoder.kind == "waveform" and (by_group or config.model_type in CONVOLVING)
