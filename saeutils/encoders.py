"""Audio encoders: the shipped demo encoder, its untrained twin, and local checkpoints.

Everything is a class of `transformers` loaded strictly: a checkpoint with missing or unexpected
weights is an error that names them. States are those of the library: state 0 is the input of the
first block, state n the output of block n. Where blocks normalise their input (AST), the library's
last state is the one before the final layer norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from saeutils.files import array_shapes, read_json
from saeutils.profiles import ROOT

if TYPE_CHECKING:
    import torch

DEMO_FOLDER = ROOT / "data" / "encoders" / "demo"
UNTRAINED_SEED = 4_051
POOLINGS = ("masked", "released")
PAD_TO = 8_000  # samples; batches are padded to a multiple and masked

# Families whose input is a waveform and whose states are one vector per 20 ms frame. A family with
# another input (a spectrogram, special tokens) gets a loader of its own beside `_load_waveform`.
WAVEFORM_FAMILIES = ("hubert", "wavlm", "wav2vec2")


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder, ready to be asked for states.

    Attributes
    ----------
    name : str
        ``"demo"``, ``"untrained"`` or the folder's name.
    model : torch.nn.Module
        In evaluation mode, float32, on the CPU.
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
    """

    name: str
    model: torch.nn.Module
    sampling_rate: int
    n_layers: int
    width: int
    do_normalize: bool
    fingerprint: str


def load_encoder(name: str | Path, seed: int = UNTRAINED_SEED) -> Encoder:
    """Load ``"demo"``, ``"untrained"`` (the same configuration, weights drawn from `seed`) or a
    folder with ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``.

    Parameters
    ----------
    name : str or pathlib.Path
    seed : int
        Only for ``"untrained"``.

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        If the name is neither, a file is missing, the family is not supported, or the weights
        do not fit the class exactly (the message names them).
    """
    if str(name) in ("demo", "untrained"):
        folder = DEMO_FOLDER
    elif Path(name).is_dir():
        folder = Path(name)
    else:
        raise ValueError(f"unknown encoder {str(name)!r}: use demo, untrained or a folder")
    untrained = str(name) == "untrained"
    needed = ["config.json", "preprocessor_config.json"]
    needed += [] if untrained else ["model.safetensors"]
    missing = [file for file in needed if not (folder / file).is_file()]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}: complete the folder")
    return _load_waveform(folder, folder.name if folder != DEMO_FOLDER else str(name),
                          seed if untrained else None)  # fmt: skip


def _load_waveform(folder: Path, name: str, seed: int | None) -> Encoder:
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModel

    settings = _plain_settings(folder, name)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            AutoModel.from_config(config)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError,
            StrictDataclassError) as error:  # fmt: skip
        why = " ".join(str(error).split())[:300]
        raise ValueError(f"config.json of encoder {name} describes no model ({why}): use the "
                         "checkpoint's own") from None
    if seed is None:
        _refuse_other_weights(folder, name, config)
        model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        broken = [k for k, v in model.state_dict().items() if not torch.isfinite(v).all()]
        if broken:
            raise ValueError(f"weights of encoder {name} hold NaN or infinity ({broken[0]}): get "
                             "the file again")
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModel.from_config(config)
    return Encoder(
        name=name, model=model.eval().requires_grad_(False),
        sampling_rate=settings["sampling_rate"], n_layers=config.num_hidden_layers,
        width=config.hidden_size, do_normalize=settings["do_normalize"],
        fingerprint=_digest(folder, seed),
    )  # fmt: skip


def _plain_settings(folder: Path, name: str) -> dict:
    """The preprocessor's settings, after a look at both files that runs nothing.

    A configuration that names code of its own would make the library ask whether to run it.
    """
    config = read_json(folder / "config.json")
    if "auto_map" in config:
        raise ValueError(f"config.json of encoder {name} names code of its own (auto_map = "
                         f"{config['auto_map']!r:.80}): only classes of transformers are run; use "
                         "a checkpoint of one")
    if config.get("model_type") not in WAVEFORM_FAMILIES:
        raise ValueError(f"encoder {name} is of family {config.get('model_type')!r}: supported "
                         f"are {', '.join(WAVEFORM_FAMILIES)}")
    settings = read_json(folder / "preprocessor_config.json")
    rate = settings.get("sampling_rate")
    if not isinstance(rate, int) or not 1_000 <= rate <= 384_000:
        raise ValueError(f"sampling_rate of encoder {name} is {rate!r}: preprocessor_config.json "
                         "must name it in Hz, 1000 to 384000")
    if not isinstance(settings.get("do_normalize"), bool):
        raise ValueError(f"do_normalize of encoder {name} is {settings.get('do_normalize')!r}: "
                         "preprocessor_config.json must say true or false")
    return settings


def _digest(folder: Path, other: int | str | None = None) -> str:
    """sha256 over configuration and settings, then the weights or, as text, what stands for them.

    A string is a class other than the configuration's own and enters beside the weights.
    """
    digest = sha256((folder / "config.json").read_bytes())
    digest.update((folder / "preprocessor_config.json").read_bytes())
    if not isinstance(other, int):
        digest.update((folder / "model.safetensors").read_bytes())
    if other is not None:
        digest.update(str(other).encode())
    return digest.hexdigest()


def _refuse_other_weights(folder: Path, name: str, config) -> None:
    """Compare names and shapes in the file with those of the class, before loading."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        weights = AutoModel.from_config(config).state_dict()
    expected = {k: tuple(v.shape) for k, v in weights.items()}
    found = array_shapes(folder / "model.safetensors")
    # checkpoints name the two halves of a weight norm in either of two ways
    halves = {"weight_g": "parametrizations.weight.original0",
              "weight_v": "parametrizations.weight.original1"}  # fmt: skip
    for old, new in halves.items():
        found = {k.replace(f".{old}", f".{new}") if k.endswith(old) else k: v
                 for k, v in found.items()}  # fmt: skip
    problems = [("missing", sorted(expected.keys() - found.keys()))]
    problems.append(("unexpected", sorted(found.keys() - expected.keys())))
    both = expected.keys() & found.keys()
    problems.append(("wrong shape", sorted(k for k in both if expected[k] != found[k])))
    text = "; ".join(f"{what}: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}"
                     for what, names in problems if names)  # fmt: skip
    if text:
        raise ValueError(
            f"weights of encoder {name} do not fit {config.model_type} ({text}): "
            "use the checkpoint of this very class"
        )


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
        than one frame (25 ms).
    """
    if sampling_rate != encoder.sampling_rate:
        raise ValueError(
            f"waveforms at {sampling_rate} Hz, but encoder {encoder.name} expects "
            f"{encoder.sampling_rate} Hz: resample first"
        )
    out = []
    for i, wave in enumerate(waves):
        wave = np.asarray(wave, np.float32)
        if wave.ndim != 1 or len(wave) < sampling_rate // 40:
            raise ValueError(f"waveform {i} has shape {wave.shape}: give mono, 25 ms or more")
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
    """Hidden states of a batch, padded to its longest waveform.

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
    import torch

    if encoder.model.training and not train_mode:
        raise ValueError(f"encoder {encoder.name} is in train mode: call encoder.model.eval()")
    waves = prepare(encoder, waves, sampling_rate)
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
    with torch.inference_mode():
        hidden = _hidden_states(encoder.model, batch, attention_mask=mask)
    frames = encoder.model._get_feat_extract_output_lengths(lengths)
    return torch.stack(hidden, 1)[:, :, : int(frames.max())], frames.numpy()


def _hidden_states(model: torch.nn.Module, batch: torch.Tensor, **more) -> list[torch.Tensor]:
    """All states, one per place: the library leaves out blocks that LayerDrop skipped."""
    if not model.training:
        return list(model(batch, output_hidden_states=True, **more).hidden_states)
    seen: dict[int, tuple] = {}
    hooks = [
        block.register_forward_hook(lambda _, given, out, i=i: seen.update({i: (given[0], out)}))
        for i, block in enumerate(_blocks(model))
    ]
    try:
        last = model(batch, **more).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    states = [seen[min(seen)][0] if seen else last]
    for i in range(len(hooks)):
        out = seen[i][1] if i in seen else states[-1]
        states.append(out[0] if isinstance(out, tuple) else out)
    return states


def _blocks(model: torch.nn.Module) -> torch.nn.ModuleList:
    return getattr(model, "encoder", model).layers


def needs_equal_lengths(encoder: Encoder) -> bool:
    """Whether the front end has a group norm over time, through which padding would leak."""
    return encoder.model.config.feat_extract_norm == "group"


def pooled(
    encoder: Encoder, waves: list[np.ndarray], sampling_rate: int, pooling: str,
    window_s: float = 5.0, train_mode: bool = False,
) -> np.ndarray:  # fmt: skip
    """Time-averaged states, float32 [batch, n_layers + 1, width].

    ``"masked"`` takes whole clips and leaves padding out everywhere: input normalisation,
    attention and mean. ``"released"`` follows the paper's release: the first `window_s` seconds,
    zero-padded to `window_s` before normalisation, mean over all frames.

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
    states_BLTD, frames = states(encoder, waves, sampling_rate, train_mode)
    means = [s[:, :n].mean(1) for s, n in zip(states_BLTD, frames, strict=True)]
    return np.stack([m.numpy() for m in means]).astype(np.float32)
