"""Pre-training of the demo encoder: masked prediction in plain torch, one resumable loop.

Two kinds of targets, as in MERT's idea: 100 units of MFCC with deltas, read from the last layer,
and the source vector (64 units, plus the vector itself) read from a middle layer. MFCC units
discard pitch and modulation; the middle layer keeps them, the last one need not, so layers come to
differ. A small term keeps the states from collapsing to a few directions.
Sources: Hsu et al. 2021 (HuBERT); Li et al. 2024 (MERT); Bardes et al. 2022 (covariance term).
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from saeutils.encoders_forward import narrow_groups_in_float32
from saeutils.pretraining_data import HOP, augment

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Recipe:
    """Every number of a pre-training run.

    Attributes
    ----------
    steps, decay_steps, warmup : int
        Optimiser steps; the last `decay_steps` lower the rate linearly to zero.
    batch_s : float
        Seconds of sound per step; a step uses one crop length of `crops_s`, so nothing is padded.
    mask_prob, mask_length : float, int
        As ``mask_time_prob`` and ``mask_time_length`` of the HuBERT class (frames of 20 ms).
    unmasked_weight : float
        Weight of the loss on frames that were not masked (HuBERT: 0 to 1).
    source_layer : int
        State from which the source vector is predicted; the MFCC units come from the last.
    decorrelation, concentration : float
        Weights of the two losses of these names on every state's means of `block_frames` frames.
    pre_norm : bool
        Blocks normalise their input (learns faster, but every state keeps state 0 in it) or
        their output (as HuBERT base; states come to differ).
    """

    hours: float = 10.0
    steps: int = 3000
    decay_steps: int = 800
    warmup: int = 100
    batch_s: float = 16.0
    crops_s: tuple[float, ...] = (1.5, 2.0, 2.0, 3.0, 4.0)
    rate: float = 1e-3
    weight_decay: float = 0.01
    mask_prob: float = 0.5
    mask_length: int = 8
    unmasked_weight: float = 0.5
    source_layer: int = 4
    regression_weight: float = 1.0
    decorrelation: float = 0.0
    concentration: float = 0.15
    block_frames: int = 10
    pre_norm: bool = False
    n_mfcc_units: int = 100
    n_source_units: int = 64
    layers: int = 6
    width: int = 192
    heads: int = 4
    conv: tuple[int, ...] = (32, 64, 96, 128, 128, 128, 128)
    seed: int = 2509


def encoder_config(recipe: Recipe):
    """The `HubertConfig` of a recipe: layer-norm front end, 320 samples a frame, 16 kHz."""
    from transformers import HubertConfig

    return HubertConfig(
        hidden_size=recipe.width, num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads, intermediate_size=4 * recipe.width,
        conv_dim=list(recipe.conv), conv_kernel=[10, 3, 3, 3, 3, 2, 2],
        conv_stride=[5, 2, 2, 2, 2, 2, 2], feat_extract_norm="layer", conv_bias=True,
        do_stable_layer_norm=recipe.pre_norm,
        num_conv_pos_embeddings=64, num_conv_pos_embedding_groups=16, layerdrop=0.0,
        hidden_dropout=0.05, attention_dropout=0.05, activation_dropout=0.0,
        feat_proj_dropout=0.0, final_dropout=0.0, mask_time_prob=recipe.mask_prob,
        mask_time_length=recipe.mask_length, apply_spec_augment=True, vocab_size=32,
    )  # fmt: skip


class Pretrainer(nn.Module):
    """Encoder with three small heads; only the encoder is shipped."""

    def __init__(self, recipe: Recipe, n_source: int = 8) -> None:
        from transformers import HubertModel

        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.encoder = HubertModel(encoder_config(recipe))
        self.mfcc_units = nn.Linear(recipe.width, recipe.n_mfcc_units)
        self.source_units = nn.Linear(recipe.width, recipe.n_source_units)
        self.source_vector = nn.Linear(recipe.width, n_source)

    def forward(self, wave_BS, units_BT2, vector_BTQ, mask_BT) -> tuple[torch.Tensor, dict]:
        """Loss and its parts (plain floats, accuracy in per cent of masked frames)."""
        r = self.recipe
        out = self.encoder(wave_BS, mask_time_indices=mask_BT, output_hidden_states=True)
        middle, last = out.hidden_states[r.source_layer], out.last_hidden_state
        weight = torch.where(mask_BT, 1.0, r.unmasked_weight)
        weight = weight / weight.sum()
        logits = [self.mfcc_units(last).float(), self.source_units(middle).float()]
        losses, parts = [], {}
        for i, (name, z) in enumerate(zip(("mfcc", "source"), logits, strict=True)):
            target = units_BT2[..., i]
            ce = functional.cross_entropy(z.transpose(1, 2), target, reduction="none")
            losses.append((weight * ce).sum())
            right = (z.argmax(-1) == target)[mask_BT].float().mean()
            parts |= {f"ce_{name}": losses[-1].item(), f"acc_{name}": 100 * right.item()}
        error = (self.source_vector(middle).float() - vector_BTQ).pow(2).mean(-1)
        regression = (weight * error).sum()
        blocks = [block_means(state, r.block_frames) for state in out.hidden_states]
        alike, narrow = decorrelation_loss(blocks[1:]), concentration_loss(blocks)
        parts |= {"regression": regression.item(), "decorrelation": alike.item(),
                  "concentration": narrow.item()}  # fmt: skip
        extra = r.decorrelation * alike + r.concentration * narrow
        return sum(losses) + r.regression_weight * regression + extra, parts


def block_means(state_BTD: torch.Tensor, frames: int) -> torch.Tensor:
    """Means over whole blocks of `frames` frames, [batch * blocks, width], float32."""
    n = state_BTD.shape[1] // frames
    return state_BTD[:, : n * frames].unflatten(1, (n, frames)).mean(2).flatten(0, 1).float()


def decorrelation_loss(means: list[torch.Tensor]) -> torch.Tensor:
    """Mean over states [N, D] of the summed squared off-diagonal correlations, divided by D.

    Examples
    --------
    >>> x = torch.eye(4) - 0.25
    >>> round(decorrelation_loss([torch.cat([x, x], -1)]).item(), 3)
    1.665
    """
    zs = [(x - x.mean(0)) / (x.std(0, correction=0) + 1e-4) for x in means]
    corrs = [z.T @ z / len(z) for z in zs]
    return sum((c.pow(2).sum() - c.diagonal().pow(2).sum()) / len(c) for c in corrs) / len(corrs)


def concentration_loss(means: list[torch.Tensor]) -> torch.Tensor:
    """Mean over states [N, D] of log(D / participation ratio): 0 if all directions vary alike.

    Examples
    --------
    >>> x = torch.cat([torch.eye(2), -torch.eye(2)])
    >>> round(concentration_loss([x, x * torch.tensor([1.0, 0.0])]).item(), 4) == 0.3466
    True
    """
    centred = [x - x.mean(0) for x in means]
    covs = [x.T @ x for x in centred]
    ratios = [len(c) * c.pow(2).sum() / (c.trace() ** 2 + 1e-9) for c in covs]
    return torch.stack(ratios).log().mean()


class Corpus:
    """Crops of a corpus folder (see `pretraining_data.write_corpus` and `fit_units`)."""

    def __init__(self, folder: Path) -> None:
        names = sorted(folder.glob("audio_[0-9][0-9][0-9].npy"))
        if not names or not (folder / "units.json").exists():
            raise ValueError(f"{folder} holds no finished corpus: run write_corpus and fit_units")
        info = json.loads((folder / "units.json").read_text(encoding="utf-8"))
        self.mean, self.std = (np.array(info[k][39:], np.float32) for k in ("mean", "std"))
        kinds = ("audio", "frames", "units")
        self.shards = [
            [np.load(n.with_name(n.name.replace("audio", k)), mmap_mode="r") for k in kinds]
            for n in names
        ]
        self.clips = [(s, i) for s, shard in enumerate(self.shards) for i in range(len(shard[0]))]
        self.hours = sum(s[0].size for s in self.shards) / SAMPLE_RATE / 3600

    def batch(self, rng: np.random.Generator, crop_s: float, n: int) -> tuple[torch.Tensor, ...]:
        """`n` augmented crops of `crop_s` seconds: wave, units, standardised source vector."""
        m = round(crop_s * SAMPLE_RATE / HOP)
        waves, units, vectors = [], [], []
        for clip in rng.integers(0, len(self.clips), n):
            s, i = self.clips[clip]
            audio, frames, unit = self.shards[s]
            first = rng.integers(0, max(frames.shape[1] - m, 0) + 1)
            take = min(m, frames.shape[1] - first)
            wave = audio[i, first * HOP : first * HOP + take * HOP + 80].astype(np.float32)
            waves.append(normalise(augment(wave / 32768, rng)))
            units.append(unit[i, first : first + take].astype(np.int64))
            vector = frames[i, first : first + take, 39:].astype(np.float32)
            vectors.append(np.clip((vector - self.mean) / self.std, -4, 4))
        return tuple(torch.from_numpy(np.stack(x)) for x in (waves, units, vectors))


def normalise(wave: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance, as ``do_normalize`` of the feature extractor."""
    return ((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)).astype(np.float32)


def rate_at(step: int, recipe: Recipe) -> float:
    """Learning rate of a step: linear rise, plateau, linear fall to zero.

    Examples
    --------
    >>> r = Recipe(steps=100, decay_steps=50, warmup=10, rate=1.0)
    >>> [rate_at(s, r) for s in (0, 9, 40, 75, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.02]
    """
    up = min((step + 1) / max(recipe.warmup, 1), 1.0)
    return recipe.rate * min(up, (recipe.steps - step) / max(recipe.decay_steps, 1))


def pretrain(corpus: Path, out: Path, recipe: Recipe, *, save_every: int = 250,
             stop_at: int | None = None, start: Path | None = None,
             bfloat16: bool = True) -> dict:  # fmt: skip
    """Train to `recipe.steps` (or `stop_at`), going on from the checkpoint in `out` if any.

    Step s draws its batch, mask and dropout from (seed, s) alone, so a resumed run sees what an
    unbroken one would. Writes ``checkpoint.safetensors`` (weights and Adam moments),
    ``progress.json`` and ``log.csv`` into `out`, and returns the record. With `start`, the folder
    of another run, a fresh run begins with its weights (not with its Adam moments).

    Raises
    ------
    ValueError
        If the checkpoint was made by another recipe (steps and decay may differ until decay
        began).
    """
    from transformers.models.hubert.modeling_hubert import _compute_mask_indices

    out.mkdir(parents=True, exist_ok=True)
    data, model = Corpus(corpus), Pretrainer(recipe)
    decays = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decays, "weight_decay": recipe.weight_decay},
              {"params": plain, "weight_decay": 0.0}]  # fmt: skip
    optimiser = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), fused=True)
    step, seconds = _resume(out, model, optimiser, recipe)
    earlier = None
    if start is not None:
        earlier = json.loads((start / "progress.json").read_text(encoding="utf-8"))
        if step == 0:
            model.load_state_dict(_read(start / "checkpoint.safetensors")[1])
    stop, model = min(stop_at or recipe.steps, recipe.steps), model.train()
    began, sums, count = time.time() - seconds, {}, 0
    while step < stop:
        rng = np.random.default_rng([recipe.seed, 1, step])
        torch.manual_seed(int(rng.integers(2**31)))
        crop = float(rng.choice(recipe.crops_s))
        wave, units, vector = data.batch(rng, crop, max(round(recipe.batch_s / crop), 2))
        np.random.seed(int(rng.integers(2**31)))  # the library's masks use the global state
        mask = _compute_mask_indices(units.shape[:2], recipe.mask_prob, recipe.mask_length,
                                     min_masks=2)  # fmt: skip
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, recipe)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16), (
                narrow_groups_in_float32(model)):
            loss, parts = model(wave, units, vector, torch.from_numpy(mask))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step, count = step + 1, count + 1
        sums = {k: sums.get(k, 0.0) + v for k, v in parts.items()}
        if step % save_every == 0 or step == stop:
            row = {"step": step, **{k: round(v / count, 4) for k, v in sums.items()}}
            row["seconds"] = round(time.time() - began, 1)
            _save(out, model, optimiser, recipe, row, earlier)
            sums, count = {}, 0
    return json.loads((out / "progress.json").read_text(encoding="utf-8"))


def _save(out: Path, model, optimiser, recipe: Recipe, row: dict, earlier: dict | None) -> None:
    from safetensors.torch import save_file

    tensors = {f"model.{k}": v.contiguous().clone() for k, v in model.state_dict().items()}
    for i, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{k}": v.clone() for k, v in moments.items()}
    meta = {"step": str(row["step"]), "seconds": str(row["seconds"])}
    meta["recipe"] = json.dumps(asdict(recipe))
    part = out / "checkpoint.part"
    save_file(tensors, part, metadata=meta)
    part.replace(out / "checkpoint.safetensors")
    log = out / "log.csv"
    line = ",".join(map(str, row.values())) + "\n"
    head = "" if log.exists() else ",".join(row) + "\n"
    with log.open("a", encoding="utf-8") as handle:
        handle.write(head + line)
    record = {"recipe": asdict(recipe), "last": row, "torch": torch.__version__}
    record |= {"start": earlier} if earlier else {}
    (out / "progress.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def _read(path: Path) -> tuple[dict, dict, dict]:
    """Metadata, weights and Adam moments of a checkpoint."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a dict)
        meta = file.metadata()
    weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    return meta, weights, {k[5:]: v for k, v in tensors.items() if k.startswith("adam.")}


def _resume(out: Path, model, optimiser, recipe: Recipe) -> tuple[int, float]:
    path = out / "checkpoint.safetensors"
    if not path.exists():
        return 0, 0.0
    meta, weights, moments = _read(path)
    step, old = int(meta["step"]), json.loads(meta["recipe"])
    new = json.loads(json.dumps(asdict(recipe)))
    changed = sorted(k for k in new if k in old and new[k] != old[k])
    began = min(r["steps"] - r["decay_steps"] for r in (old, new))
    if set(changed) - {"steps", "decay_steps"} or (changed and step > began):
        raise ValueError(f"{path} was made with other {', '.join(changed)}: use another folder")
    model.load_state_dict(weights)
    state: dict = {}
    for name, value in moments.items():
        i, moment = name.split(".")
        state.setdefault(int(i), {})[moment] = value
    full = optimiser.state_dict()
    optimiser.load_state_dict({"state": state, "param_groups": full["param_groups"]})
    return step, float(meta["seconds"])


def export(checkpoint: Path, folder: Path) -> Path:
    """Write the encoder of a checkpoint as float32 ``config.json`` + ``model.safetensors`` +
    ``preprocessor_config.json``, the form every loader of `transformers` reads.

    Returns the path of the weights.
    """
    from transformers import HubertModel, Wav2Vec2FeatureExtractor

    meta, weights, _ = _read(checkpoint)
    recipe = json.loads(meta["recipe"])
    weights = {k[8:]: v for k, v in weights.items() if k.startswith("encoder.")}
    recipe = Recipe(**{k: tuple(v) if isinstance(v, list) else v for k, v in recipe.items()})
    model = HubertModel(encoder_config(recipe))
    model.load_state_dict(weights, strict=True)
    model.save_pretrained(folder, safe_serialization=True)
    Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=SAMPLE_RATE, padding_value=0.0, do_normalize=True,
        return_attention_mask=True,
    ).save_pretrained(folder)  # fmt: skip
    return folder / "model.safetensors"
