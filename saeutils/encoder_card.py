"""Acceptance of a pre-trained encoder: measured on technique data, written as its model card.

Training singers fit, validation singers choose the layer, test singers are reported and choose
nothing. Every bar stands beside its measured value, misses included.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from saeutils.activations import linear_cka, participation_ratio
from saeutils.profiles import ROOT

CARD_TEMPLATE = ROOT / "data" / "encoders" / "card_template.md"

CAUSES = {  # factor: on which clips it can act
    "tonic_st": None, "tilt_db": None, "am_rate_hz": ("am_depth", 0.15), "vibrato_extent_st": None,
}  # fmt: skip
SEED = 11


def logmel_statistics(wave: np.ndarray, sample_rate: int = 16_000) -> np.ndarray:
    """A hand-made description of a clip: 64 log-mel means, 64 SDs, and a modulation spectrum.

    The modulation spectrum is the log power of 8 mel regions' envelopes in six bands from 1 to
    40 Hz, so that vibrato, trillo and lip trill are within its reach.

    Parameters
    ----------
    wave : numpy.ndarray, shape (samples,)
    sample_rate : int
        In Hz.

    Returns
    -------
    numpy.ndarray, shape (176,)
        Level does not matter: the clip's mean log energy is taken out of the means.
    """
    import torch
    from torchaudio.transforms import MelSpectrogram

    mel = MelSpectrogram(sample_rate, n_fft=512, hop_length=160, n_mels=64, f_min=40.0)
    power = mel(torch.from_numpy(np.asarray(wave, np.float32))[None])[0].numpy()
    log = np.log(power + 1e-6 * power.mean() + 1e-12)
    envelopes = log.reshape(8, 8, -1).mean(1)
    centred = (envelopes - envelopes.mean(1, keepdims=True)) * np.hanning(log.shape[1])
    spectrum = np.abs(np.fft.rfft(centred, axis=1)) ** 2 / log.shape[1] ** 2
    rate = np.fft.rfftfreq(log.shape[1], 0.01)
    edges = [1, 3, 5, 7, 10, 18, 40]
    bands = [
        np.log(spectrum[:, (rate >= a) & (rate < b)].sum(1) + 1e-6)
        for a, b in zip(edges, edges[1:], strict=False)
    ]
    return np.concatenate([log.mean(1) - log.mean(), log.std(1), *bands])


def technique_scores(
    values_NF: np.ndarray, clips: pd.DataFrame, splits: Sequence[str]
) -> dict[str, float]:
    """Balanced accuracy (%) of the tuned probe, by split; fitted on VocalSet-shaped training rows.

    Columns compete standardised and whitened, penalty and scale chosen in three folds of the
    training singers: the probe that the committed card was measured with.
    """
    from saeutils.probe_cells import split_rows, training_folds
    from saeutils.probing import balanced_accuracy, tuned_probe

    rows, labels = split_rows(clips), clips["technique"].to_numpy()
    train, folds = rows["train"], training_folds(clips, 3, SEED)
    probe = tuned_probe(values_NF[train].astype(np.float64), labels[train], folds,
                        np.unique(labels), scales=("every column standardised", "whitened"))
    return {
        split: 100 * balanced_accuracy(labels[rows[split]], probe.predict(values_NF[rows[split]]))
        for split in splits if split in rows
    }  # fmt: skip


def cause_r2(values_NF: np.ndarray, clips: pd.DataFrame, factors: pd.DataFrame, split: str) -> dict:
    """R2 of each recorded cause, by ridge from all training singers to those of `split`.

    Clips on which a cause cannot act (a rate without depth) are left out. The penalty is chosen
    by generalised cross-validation on the training rows.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    out = {}
    for name, gate in CAUSES.items():
        acts = np.ones(len(clips), bool) if gate is None else factors[gate[0]] > gate[1]
        fit, held = (np.flatnonzero(acts & (clips["split"] == s)) for s in ("train", split))
        target = factors[name].to_numpy()
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))
        guess = ridge.fit(values_NF[fit], target[fit]).predict(values_NF[held])
        spread = ((target[held] - target[fit].mean()) ** 2).sum()
        out[name] = float(1 - ((target[held] - guess) ** 2).sum() / spread)
    return out


def dictionary_fvu(acts_ND: np.ndarray, clips: pd.DataFrame, split: str) -> dict[str, float]:
    """Unexplained variance of SAEs (4 x width, corrected recipe) at 75 and 99 %, on `split`."""
    from saeutils.sae import k_of_sparsity
    from saeutils.sae_metrics import fvu
    from saeutils.sae_training import train_sae

    train, valid, held = (
        acts_ND[(clips["split"] == s).to_numpy()].astype(np.float32)
        for s in ("train", "validation", split)
    )
    latents, out = 4 * acts_ND.shape[1], {}
    for sparsity in (75, 99):
        sae, _ = train_sae(train, valid, latents, k_of_sparsity(sparsity, latents), SEED)
        out[str(sparsity)] = float(fvu(held, sae.forward(held)))
    return out


def assess(
    acts_NLD: np.ndarray, twin_NLD: np.ndarray, clips: pd.DataFrame, factors: pd.DataFrame,
    attributes_NF: np.ndarray, logmel_NF: np.ndarray, repeat_NLD: np.ndarray | None = None,
) -> dict:  # fmt: skip
    """Everything the card reports, as plain numbers.

    Parameters
    ----------
    acts_NLD, twin_NLD : numpy.ndarray
        Masked states of the encoder and of its untrained twin, rows as in `clips`.
    clips, factors : pandas.DataFrame
        Tables of notebook 01, equal rows.
    attributes_NF, logmel_NF : numpy.ndarray
        eGeMAPS (rank-normalised here) and `logmel_statistics` of the same clips.
    repeat_NLD : numpy.ndarray, optional
        States of an encoder that was pre-trained by the same recipe from another seed.

    Returns
    -------
    dict
        By layer: accuracy on validation and test singers, cause R2, participation ratio; the
        layer chosen on validation singers; baselines; SAE FVU; and ``bars``, a list of
        [criterion, bar, measured, met].

    Raises
    ------
    ValueError
        If rows differ in number.
    """
    from sklearn.preprocessing import QuantileTransformer

    given = [acts_NLD, twin_NLD, clips, factors, attributes_NF, logmel_NF]
    sizes = {len(x) for x in given + ([] if repeat_NLD is None else [repeat_NLD])}
    if len(sizes) != 1:
        raise ValueError(f"rows differ ({sorted(sizes)}): give the same clips to all arguments")
    splits = ("validation", "test", "unseen")
    layers = range(acts_NLD.shape[1])
    by_layer = [
        {
            "layer": i,
            **{f"accuracy_{k}": v
               for k, v in technique_scores(acts_NLD[:, i], clips, splits).items()},
            **{f"r2_{k}": v for k, v in cause_r2(acts_NLD[:, i], clips, factors, "test").items()},
            **{f"r2val_{k}": v
               for k, v in cause_r2(acts_NLD[:, i], clips, factors, "validation").items()},
            "participation_ratio": participation_ratio(acts_NLD[:, i].astype(np.float64)),
            "cka_first": linear_cka(acts_NLD[:, 0].astype(float), acts_NLD[:, i].astype(float)),
        }
        for i in layers
    ]  # fmt: skip
    best = int(np.argmax([row["accuracy_validation"] for row in by_layer]))
    twin = [technique_scores(twin_NLD[:, i], clips, splits) for i in layers]
    twin_best = int(np.argmax([row["validation"] for row in twin]))
    train = (clips["split"] == "train").to_numpy()
    ranks = QuantileTransformer(output_distribution="normal", n_quantiles=min(200, train.sum()))
    egemaps = ranks.fit(attributes_NF[train]).transform(attributes_NF)
    out = {
        "layers": by_layer, "best_layer": best, "twin": twin, "twin_best_layer": twin_best,
        "egemaps": technique_scores(egemaps, clips, splits),
        "logmel": technique_scores(logmel_NF, clips, splits),
        "fvu": dictionary_fvu(acts_NLD[:, best], clips, "test"),
        "n_clips": len(clips), "n_singers": int(clips["singer"].nunique()),
    }  # fmt: skip
    if repeat_NLD is not None:
        out["repeat"] = [technique_scores(repeat_NLD[:, i], clips, splits) for i in layers]
    out["bars"] = _bars(out)
    return out


def _bars(m: dict) -> list[list]:
    """Criterion, bar, measured value as text, met: on unseen singers (test and extra)."""
    from scipy.stats import spearmanr

    rows, best = m["layers"], m["layers"][m["best_layer"]]
    score = "accuracy_unseen" if "accuracy_unseen" in best else "accuracy_test"
    split = score.removeprefix("accuracy_")
    lead = best[score] - rows[-1][score]
    peaks = {c: int(np.argmax([row[f"r2_{c}"] for row in rows])) for c in CAUSES}
    ratio, cka = best["participation_ratio"], rows[-1]["cka_first"]
    over_twin = best[score] - m["twin"][m["twin_best_layer"]][split]
    over_mel, over_egemaps = (best[score] - m[name][split] for name in ("logmel", "egemaps"))
    fvu = m["fvu"]
    repeated = ["not measured", False]
    if "repeat" in m:
        rho = spearmanr([row[score] for row in rows], [row[split] for row in m["repeat"]])[0]
        repeated = [f"{rho:.2f}", bool(rho >= 0.7)]
    return [
        ["linear CKA, first and last state", "<= .6", f"{cka:.2f}", cka <= 0.6],
        ["best minus last state, technique", ">= 5 points", f"{lead:+.1f}", lead >= 5],
        ["causes do not all peak in one state", "2 or more states",
         ", ".join(f"{c} {p}" for c, p in peaks.items()), len(set(peaks.values())) > 1],
        ["participation ratio, best state", ">= 10", f"{ratio:.1f}", ratio >= 10],
        ["SAE FVU at 99 %, held out", ">= .05", f"{fvu['99']:.3f}", fvu["99"] >= 0.05],
        ["SAE FVU at 75 %, held out", "<= .05", f"{fvu['75']:.3f}", fvu["75"] <= 0.05],
        ["best state over untrained twin", ">= 15 points", f"{over_twin:+.1f}", over_twin >= 15],
        ["best state over log-mel statistics", ">= 0 points", f"{over_mel:+.1f}", over_mel >= 0],
        ["best state over eGeMAPS", ">= -10 points", f"{over_egemaps:+.1f}", over_egemaps >= -10],
        ["profile repeats over two pre-training seeds", "rank corr. >= .7", *repeated],
    ]  # fmt: skip


def render_card(card: dict) -> str:
    """The model card as Markdown, from the content of ``card.json`` alone."""
    m, stages = card["acceptance"], card["stages"]
    recipe, last = stages[-1]["recipe"], stages[-1]["last"]
    told = [f"{len(stages)} stages of {', '.join(str(s['last']['step']) for s in stages)} steps"]
    for number, stage in enumerate(stages[:-1], 1):
        other = [f"{k} {v}" for k, v in stage["recipe"].items() if v != recipe[k]]
        told.append(f"stage {number} with {', '.join(other)}")
    told.append("the last with " + ", ".join(f"{k} {v}" for k, v in recipe.items()))
    split = "unseen" if "accuracy_unseen" in m["layers"][0] else "test"
    met = sum(bool(row[3]) for row in m["bars"])
    bars = "\n".join(
        f"| {name} | {bar} | {value} | {'met' if ok else '**missed**'} |"
        for name, bar, value, ok in m["bars"]
    )
    heads = ["state", "technique, validation %", f"technique, {split} %", *CAUSES,
             "participation ratio", "CKA with state 0"]  # fmt: skip
    body = "\n".join(
        f"| {r['layer']} | {r['accuracy_validation']:.1f} | {r['accuracy_' + split]:.1f} | "
        + " | ".join(f"{r['r2_' + c]:.2f}" for c in CAUSES)
        + f" | {r['participation_ratio']:.1f} | {r['cka_first']:.2f} |"
        for r in m["layers"]
    )
    twin = m["twin"][m["twin_best_layer"]][split]
    repeat = "One pre-training seed."
    if "repeat" in m:
        repeat = ("One pre-training seed is shipped. The same recipe from another seed reaches "
                  + ", ".join(f"{row[split]:.1f}" for row in m["repeat"])
                  + f" % in states 0 to {len(m['repeat']) - 1}.")
    text = CARD_TEMPLATE.read_text(encoding="utf-8")
    return text.format(
        parameters=card["parameters"] / 1e6, megabytes=card["bytes"] / 1e6, met=met,
        of=len(m["bars"]), bars=bars, heads=" | ".join(heads), rule="|".join(["---"] * len(heads)),
        body=body, split=split, best_layer=m["best_layer"], n_clips=m["n_clips"], twin=twin,
        n_singers=m["n_singers"], egemaps=m["egemaps"][split], logmel=m["logmel"][split],
        synthesis=card["synthesis_version"], sha256=card["sha256"], hours=card["hours"],
        seen=card["hours_heard"], minutes=card["minutes"],
        ce_mfcc=last["ce_mfcc"], ce_source=last["ce_source"], acc_mfcc=last["acc_mfcc"],
        acc_source=last["acc_source"], regression=last["regression"],
        recipe="; ".join(told), torch=card["torch"], repeat=repeat,
    )  # fmt: skip


def reassess(folder: Path, acceptance: dict, synthesis_version: str) -> dict:
    """Replace what a card says was measured; how the weights were made stays. Returns the card."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    card |= {"acceptance": acceptance, "synthesis_version": synthesis_version}
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(render_card(card), encoding="utf-8")
    return card


def write_card(folder: Path, acceptance: dict, progress: dict, synthesis_version: str) -> dict:
    """Write ``card.json`` and ``README.md`` beside the weights in `folder`; returns the card.

    `progress` is the record of `pretraining.pretrain`.
    """
    from hashlib import sha256

    from safetensors import safe_open

    weights = folder / "model.safetensors"
    with safe_open(weights, "np") as file:
        shapes = [file.get_slice(k).get_shape() for k in file.keys()]  # noqa: SIM118
    stages = [progress]
    while "start" in stages[0]:
        stages.insert(0, stages[0]["start"])
    stages = [{"recipe": s["recipe"], "last": s["last"]} for s in stages]
    heard = sum(s["recipe"]["batch_s"] * s["last"]["step"] for s in stages)
    card = {
        "sha256": sha256(weights.read_bytes()).hexdigest(), "bytes": weights.stat().st_size,
        "parameters": int(sum(np.prod(s) for s in shapes)), "synthesis_version": synthesis_version,
        "hours": progress["recipe"]["hours"], "hours_heard": heard / 3600,
        "minutes": sum(s["last"]["seconds"] for s in stages) / 60, "torch": progress["torch"],
        "stages": stages, "acceptance": acceptance,
    }  # fmt: skip
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(render_card(card), encoding="utf-8")
    return card
