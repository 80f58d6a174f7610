"""Audit entries that need a real encoder or the real VocalSet, on the smallest case with the fault.

Each function makes its own material in memory (a few synthetic clips, a small random model, a table
of six rows), turns the switch, and returns `saeutils.audit.audit_row`s marked ``smallest case``.
They show that the fault is one and how it acts; how large it is in the published numbers only the
real material can say.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from saeutils.audit import SMALLEST, audit_row

RATE_HZ, ENCODER_HZ, CROP_S = 44_100, 16_000, 5.0
N_STATES = 6  # clips that go through encoders: they cost the most
SMALL = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
         "intermediate_size": 96, "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16,
         "num_conv_pos_embedding_groups": 4}


def sung_clips(n: int, seconds: float, seed: int) -> list[np.ndarray]:
    """Synthetic clips of different singers and techniques, float64 at 44.1 kHz.

    Raises
    ------
    ValueError
        Less than one clip asked for.
    """
    from saeutils.synthesis import draw_singers, plan_clips, render

    if n < 1:
        raise ValueError(f"{n} clips asked for: at least 1")
    singers = draw_singers(max(4, -(-n // 8)), 1, 1, 0, seed)
    plan = plan_clips(singers, vowels_per_technique=1, extra_per_singer=1, crossed_per_singer=0,
                      clip_seconds=seconds, seed=seed)
    # one clip in so many, so that singers and techniques change from clip to clip
    rows = plan.iloc[np.linspace(0, len(plan) - 1, n).astype(int)].to_dict("records")
    return [render(row, seed) for row in rows]


def shift(moved_ND: np.ndarray, plain_ND: np.ndarray) -> np.ndarray:
    """How far each row has moved, in units of the mean distance between two rows, shape [N].

    Examples
    --------
    >>> shift(np.array([[1.0, 0.0], [4.0, 0.0]]), np.array([[0.0, 0.0], [4.0, 0.0]])).tolist()
    [0.25, 0.0]
    """
    apart = np.linalg.norm(plain_ND[:, None] - plain_ND[None], axis=2)
    mean = apart.sum() / (len(plain_ND) * (len(plain_ND) - 1))
    return np.linalg.norm(moved_ND - plain_ND, axis=1) / mean


def encoder_cases(clips: list[np.ndarray], seed: int) -> list[dict]:
    """A06, A07, A08 and A11 on states: how far a pooled vector moves for no good reason.

    Parameters
    ----------
    clips
        Clips at 44.1 kHz, some longer than 5 s; the first `N_STATES` are encoded.
    seed
        Of the small models and of train mode.
    """
    from saeutils.activations import resample
    from saeutils.encoders import load_encoder, pooled
    from saeutils.encoders_released import train_mode_pooled, wrong_rate_pooled

    waves = [resample(clip, RATE_HZ, ENCODER_HZ) for clip in clips[:N_STATES]]
    text = "shift of the pooled state, in distances between two clips: "
    rows = []

    def add(entry, moved_ND, plain_ND, what, note):
        rows.append(audit_row(entry, text + what, "both", shift(moved_ND, plain_ND), 0.0,
                              over="clips", case=SMALLEST, note=note))

    small = _small_hubert(seed)
    plain = pooled(small, waves, ENCODER_HZ, "released", CROP_S)[:, -1]
    moved = train_mode_pooled(small, waves, ENCODER_HZ, seed, window_s=CROP_S)[:, -1]
    add("A06", moved, plain, "train mode against eval mode", "A random HuBERT of four blocks with "
        "the published dropout, LayerDrop and masking; a trained one may move more or less.")
    right, wrong, lost = _wavlm_twice(seed)
    plain, moved = (
        np.concatenate([pooled(e, [wave], ENCODER_HZ, "masked")[:, -1] for wave in waves])
        for e in (right, wrong))  # one by one: these normalise over time
    add("A07", moved, plain, "without the gated position bias", f"A random WavLM of four blocks: "
        f"{len(lost)} weights fall away without an error. The dip of the published layers 6 to 8 "
        "needs the real weights.")
    demo = load_encoder("demo")
    middle = demo.n_layers // 2
    plain = pooled(demo, waves, ENCODER_HZ, "masked")[:, middle]
    low = 133 * ENCODER_HZ // 200  # as 16 kHz is to 24 kHz within 5 cents; 2 / 3 resamples slowly
    moved = wrong_rate_pooled(demo, waves, ENCODER_HZ, low)[:, middle]
    add("A08", moved, plain, "read at two thirds of its rate", "The shipped encoder in the place "
        "of MERT, the same ratio of rates.")
    crop = round(CROP_S * ENCODER_HZ)
    moved = pooled(demo, [wave[:crop] for wave in waves], ENCODER_HZ, "masked")[:, middle]
    add("A11", moved, plain, f"first {CROP_S:g} s against the whole file",
        f"Synthetic clips of {np.mean([len(w) for w in waves]) / ENCODER_HZ:.1f} s on average.")
    return rows


def attribute_cases(clips: list[np.ndarray], cut: float = 0.9) -> list[dict]:
    """A29 and A11 on attributes: how many of the 88 change their order of the clips.

    Counts attributes whose rank correlation over the clips with those of the whole clip at 44.1
    kHz is below ``cut``: at the encoders' rate (A29), and of the first 5 s (A11).
    """
    from scipy.stats import spearmanr

    from saeutils.activations import resample
    from saeutils.attributes import extract_attributes

    if len(clips) < 3:
        raise ValueError(f"{len(clips)} clips have no rank correlation worth the name: give 3")
    crop = round(CROP_S * RATE_HZ)
    whole = np.stack([extract_attributes(clip, RATE_HZ) for clip in clips])
    low = np.stack([extract_attributes(np.clip(resample(clip, RATE_HZ, ENCODER_HZ), -1, 1),
                                       ENCODER_HZ, any_rate=True) for clip in clips])
    first = np.stack([extract_attributes(clip[:crop], RATE_HZ) for clip in clips])

    def reordered(other: np.ndarray) -> int:
        pairs = [(a, b) for a, b in zip(whole.T, other.T, strict=True) if np.ptp(a) and np.ptp(b)]
        return sum(spearmanr(a, b).statistic < cut for a, b in pairs)

    text = f"attributes of 88 with rank correlation below {cut:g}: "
    note = f"{len(clips)} synthetic clips."
    return [
        audit_row("A29", text + "44.1 against 16 kHz", "both", reordered(low), 0, over="exact",
                  case=SMALLEST, note=note),
        audit_row("A11", text + "whole file against 5 s", "both", reordered(first), 0,
                  over="exact", case=SMALLEST, note=note),
    ]


def table_cases(clip_ids: list[str], seed: int = 42) -> list[dict]:
    """A13 and A14: what a listing's order and a label repair do to a table of clips.

    Parameters
    ----------
    clip_ids
        Names of the training clips, for the order of a listing.
    seed
        Of the shuffle, 42 in the release.
    """
    names = sorted(clip_ids)
    listing = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    sides = [_training_side(order, seed) for order in (names, listing)]
    changed = len(sides[0] ^ sides[1]) / 2 / max(len(names) - len(sides[0]), 1)
    before, overwritten, renamed = _vibrado()
    return [
        audit_row("A13", "share of the validation clips that another listing order replaces",
                  "both", changed, 0.0, over="exact", case=SMALLEST,
                  note="Same names, same seed, two orders of the listing."),
        audit_row("A14", f"clips of {before} lost by mending “vibrado”", "both",
                  before - overwritten, before - renamed, over="exact", case=SMALLEST,
                  note="Rows lose their vowel and the vowel filter drops them. The audit list "
                       "expected no effect on the ten techniques; by its names VocalSet loses five "
                       "test clips (the paper has 400, the design 405)."),
    ]


def _training_side(names: list[str], seed: int) -> set[str]:
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[i] for i in order[: int(0.8 * len(names))]}


def _vibrado() -> tuple[int, int, int]:
    """Clips before a repair, after one that overwrites rows, after one that renames."""
    techniques = ["vibrato", "vibrado", "straight", "belt", "vibrado", "belt"]
    table = pd.DataFrame({"technique": techniques, "vowel": list("aeioua")})
    vowels = set("aeiou")
    wrong = table["technique"] == "vibrado"
    overwritten, renamed = table.copy(), table.copy()
    overwritten.loc[wrong] = "vibrato"
    renamed.loc[wrong, "technique"] = "vibrato"
    return tuple(int(part["vowel"].isin(vowels).sum()) for part in (table, overwritten, renamed))


def _small_hubert(seed: int):
    import torch
    from transformers import HubertConfig, HubertModel

    from saeutils.encoders import Encoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HubertModel(HubertConfig(**SMALL))
    return Encoder("small", model.eval().requires_grad_(False), ENCODER_HZ,
                   SMALL["num_hidden_layers"], SMALL["hidden_size"], True, "")


def _wavlm_twice(seed: int):
    """A small random WavLM in its own class and in that of wav2vec 2.0, and what was lost."""
    import torch
    from transformers import WavLMConfig, WavLMModel
    from transformers.utils import logging

    from saeutils.encoders import load_encoder
    from saeutils.encoders_released import gated_bias_dropped

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
        settings = {"sampling_rate": ENCODER_HZ, "do_normalize": True}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return load_encoder(folder), *gated_bias_dropped(folder)
