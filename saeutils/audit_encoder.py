"""Audit entries that act while an encoder is asked: each switch turned on a sample of clips.

Stage 02 turns train mode (A06), WavLM's class (A07), the sampling rate (A08), padding in the mean
(A10) and the crop (A11) one at a time, from the released and from the corrected end, and writes how
far the pooled states move: columns `CELLS`, which stage 05 compares. Where the fault needs an
encoder or clips that are not here, the smallest case that has it takes their place and says so.
Shape letters: S sampled clips, L states, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from saeutils.activations import BATCHES_PER_SHARD, load_wave, resample
from saeutils.encoders import Encoder, pooled
from saeutils.encoders_forward import needs_equal_lengths
from saeutils.encoders_released import train_mode_pooled, wavlm_twice, wrong_rate_pooled
from saeutils.keys import file_digest

CELLS = ("entry", "end", "protocol", "layer", "quantity", "unit", "released", "corrected", "case",
         "note")
SMALLEST = "smallest case"
READ_HZ = 16_000  # at which the release reads everything unless told otherwise
SHORTEST_S, LONGEST_S = 0.5, 60.0  # room for the masks of train mode; a bound on the cost
SHIFT = "shift of the pooled state, in spreads between clips: "



def sampled(clips: pd.DataFrame, n: int, seed: int) -> np.ndarray:
    """Row numbers of up to `n` clips: singers take turns, those never trained on first.

    Clips below half a second are left out, since the masks of train mode do not fit in, and
    those above a minute.

    Examples
    --------
    >>> clips = pd.DataFrame({"singer": list("aab"), "split": ["train", "train", "test"],
    ...                       "duration_s": [1.0, 1.0, 1.0]})
    >>> sampled(clips, 2, 0)[0].item()
    2
    """
    table = clips.reset_index(drop=True)
    table = table.iloc[np.random.default_rng(seed).permutation(len(table))]
    table = table[table["duration_s"].between(SHORTEST_S, LONGEST_S)]
    order = pd.DataFrame({"turn": table.groupby("singer").cumcount(),
                          "trained": table["split"] != "test"})
    return order.sort_values(["turn", "trained"], kind="stable").index.to_numpy()[:n]


@dataclass
class Sample:
    """Sampled clips of one encoder, with the states that stage 02 has extracted for them.

    Attributes
    ----------
    encoder
        The encoder, in evaluation mode.
    waves
        Waveforms of the sampled clips at the encoder's rate.
    units
        Singer of each.
    states
        By pooling ("masked", "released"): [S, L, D], and ``spread``: [L], the root mean square
        distance of all clips from their mean.
    window_s, piece_s
        As in extraction.
    case
        What the table says of the data: ``synthetic singers``, ``VocalSet``.
    """

    encoder: Encoder
    waves: list[np.ndarray]
    units: Sequence[str]
    states: dict[str, np.ndarray]
    spread: dict[str, np.ndarray]
    window_s: float
    piece_s: float = 0.0
    case: str = "synthetic singers"
    cells: list[dict] = field(default_factory=list)

    @property
    def rate(self) -> int:
        """Hz."""
        return self.encoder.sampling_rate

    @property
    def longer(self) -> np.ndarray:
        """Which clips are longer than the window, bool [S]."""
        return np.array([len(wave) > round(self.window_s * self.rate) for wave in self.waves])

    def ask(self, waves: list[np.ndarray], how: Callable) -> np.ndarray:
        """`how` of a list of waveforms, in batches that the encoder allows: [S, L, D]."""
        size = 1 if needs_equal_lengths(self.encoder) else 8
        return np.concatenate([how(waves[i : i + size]) for i in range(0, len(waves), size)])

    def add(self, entry: str, end: str, moved_SLD, plain_SLD, rule: str, what: str, note: str = "",
            case: str = "", spread_L=None) -> None:
        """Note how far `moved_SLD` lies from `plain_SLD`, clip by clip and layer by layer."""
        spread_L = self.spread[rule] if spread_L is None else spread_L
        shift_SL = np.linalg.norm(moved_SLD - plain_SLD, axis=2) / spread_L
        turned = f"corrected-{entry}" if end == "corrected" else f"released+{entry}"
        self.cells += [
            {"entry": entry, "end": end, "protocol": turned, "layer": layer,
             "quantity": SHIFT + what, "unit": unit, "released": float(value), "corrected": 0.0,
             "case": case or self.case, "note": note}
            for layer in range(shift_SL.shape[1])
            for unit, value in zip(self.units, shift_SL[:, layer], strict=True)]


def turn_each(
    sample: Sample, encoders: Sequence[str], load: Callable[[str], Encoder], seed: int
) -> dict[str, Encoder | None]:
    """Turn every switch of this stage; the results are in ``sample.cells``.

    Parameters
    ----------
    encoders
        Names of the run's encoders. A fault of one of them is measured there and not stood in for
        elsewhere: A07 at ``wavlm``, A08 at ``mert``.
    load
        Loads a further encoder by name, for A07.

    Returns
    -------
    dict
        Entries that are this encoder's own faults, for `turned_states`, with the encoder that
        takes its place where there is one.
    """
    faults: dict[str, Encoder | None] = {}
    if train_mode(sample, seed):
        faults["A06"] = None
    own = sample.rate != READ_HZ
    if own or "mert" not in encoders:
        wrong_rate(sample, own)
    if own:
        faults["A08"] = None
    padding(sample)
    crop(sample)
    if sample.encoder.name == "wavlm":
        faults["A07"] = load("wavlm_as_released")
        other_class(sample, faults["A07"])
    elif "wavlm" not in encoders and sample.encoder.name == encoders[0]:
        small_wavlm(sample, seed)
    return faults


def spread_of(states_NLD: np.ndarray) -> np.ndarray:
    """Root mean square distance of the clips from their mean, by layer: [L]."""
    return np.sqrt(((states_NLD - states_NLD.mean(0)) ** 2).sum(2).mean(0))


def train_mode(sample: Sample, seed: int) -> bool:
    """A06: dropout, LayerDrop and masks act while states are taken. True if any of them does."""
    takes = {
        rule: np.concatenate([  # one by one: a block is dropped for a whole batch
            train_mode_pooled(sample.encoder, [wave], sample.rate, seed + i, pooling=rule,
                              window_s=sample.window_s) for i, wave in enumerate(sample.waves)])
        for rule in ("released", "masked")}
    for end, rule in (("released", "released"), ("corrected", "masked")):
        sample.add("A06", end, takes[rule], sample.states[rule], rule,
                   "train mode against eval mode")
    return float(np.median([cell["released"] for cell in sample.cells if cell["entry"] == "A06"
                            ])) > 0.01


def wrong_rate(sample: Sample, own: bool) -> None:
    """A08: audio of 16 kHz read into a model of another rate.

    Parameters
    ----------
    own
        The fault is this encoder's own (its rate is not 16 kHz); else it stands in for MERT and
        hears two thirds of its rate (within 5 cents; the exact ratio resamples slowly).
    """
    wrong = READ_HZ if own else 133 * sample.rate // 200
    note = "" if own else "In the place of MERT: the same ratio of rates."
    for end, rule in (("released", "released"), ("corrected", "masked")):
        moved = sample.ask(sample.waves, lambda waves, rule=rule: wrong_rate_pooled(
            sample.encoder, waves, sample.rate, wrong, pooling=rule, window_s=sample.window_s))
        sample.add("A08", end, moved, sample.states[rule], rule,
                   f"read at {wrong / sample.rate:.2g} of its rate", note,
                   "" if own else SMALLEST)


def padding(sample: Sample) -> None:
    """A10: padding in the mean, with the window held.

    For clips within the window neither the crop nor the end matters, and stage 02 has both states
    already. Longer ones are asked again: masked over the crop, and window by window with the last
    one padded.
    """
    far, what = sample.longer, "padding in the mean against the masked mean"
    if not far.any():
        sample.add("A10", "both", sample.states["released"], sample.states["masked"], "masked",
                   what)
        return
    window = round(sample.window_s * sample.rate)
    crop, padded = sample.states["masked"].copy(), sample.states["released"].copy()
    for row in np.flatnonzero(far):
        wave = sample.waves[row]
        crop[row] = pooled(sample.encoder, [wave[:window]], sample.rate, "masked")[0]
        pieces = [wave[i : i + window] for i in range(0, len(wave), window)]
        pieces = [piece for piece in pieces if np.any(piece)]
        padded[row] = pooled(sample.encoder, pieces, sample.rate, "released",
                             sample.window_s).mean(axis=0)
    sample.add("A10", "released", sample.states["released"], crop, "released", what)
    sample.add("A10", "corrected", padded, sample.states["masked"], "masked", what)


def crop(sample: Sample) -> None:
    """A11: first seconds against the whole file.

    Where no clip is longer than the window (the demo), the first 5 of 7 parts of each clip stand
    in: 5 s of VocalSet's 7 s.
    """
    if not sample.longer.any():
        moved = sample.ask([wave[: len(wave) * 5 // 7] for wave in sample.waves], lambda waves:
                           pooled(sample.encoder, waves, sample.rate, "masked"))
        sample.add("A11", "both", moved, sample.states["masked"], "masked",
                   "first part against the whole file", case=SMALLEST,
                   note="No clip here is longer than the window: 5 of 7 parts of each clip.")
        return
    window, whole = round(sample.window_s * sample.rate), []
    longest = round((sample.piece_s or LONGEST_S) * sample.rate)
    for wave in sample.waves:
        wave = wave[:longest]
        whole.append(pooled(sample.encoder, [wave], sample.rate, "released",
                            len(wave) / sample.rate)[0])
    cut = np.concatenate([pooled(sample.encoder, [wave[:window]], sample.rate, "masked")
                          for wave in sample.waves])
    what = f"first {sample.window_s:g} s against the whole file"
    sample.add("A11", "released", np.stack(whole), sample.states["released"], "released", what)
    sample.add("A11", "corrected", cut, sample.states["masked"], "masked", what)


def other_class(sample: Sample, other: Encoder) -> None:
    """A07: the same checkpoint without WavLM's gated position bias, as `other`."""
    for end, rule in (("released", "released"), ("corrected", "masked")):
        moved = np.concatenate([
            pooled(other, [wave], sample.rate, rule, sample.window_s, piece_s=sample.piece_s)
            for wave in sample.waves])
        sample.add("A07", end, moved, sample.states[rule], rule,
                   "without the gated position bias", " ".join(other.notes))


def small_wavlm(sample: Sample, seed: int) -> None:
    """A07 on the smallest case: a random WavLM of four blocks, which hears the sampled clips."""
    right, wrong, lost = wavlm_twice(seed)
    waves = [resample(wave, sample.rate, READ_HZ) for wave in sample.waves]
    plain, moved = (np.concatenate([pooled(e, [wave], READ_HZ, "masked")[:, -1:]
                                    for wave in waves]) for e in (right, wrong))
    spread = np.sqrt(((plain - plain.mean(0)) ** 2).sum(2).mean(0))
    layers = sample.states["masked"].shape[1]  # one number: the same in every layer's table
    sample.add("A07", "both", np.repeat(moved, layers, 1), np.repeat(plain, layers, 1), "masked",
               "without the gated position bias", f"A random WavLM of four blocks: {len(lost)} "
               "weights fall away without an error. The dip of the published layers 6 to 8 needs "
               "the real weights.", SMALLEST, spread)


def length_read(states_NLD: dict[str, np.ndarray], clips: pd.DataFrame, window_s: float,
                case: str) -> list[dict]:
    """A10: how well the length of a clip is read off its state, on singers never trained on.

    Ridge regression from the standardised state of each layer, on clips that fit into the window,
    where padding is all that differs between the two rules. One value per singer: 1 minus its mean
    squared error over the variance of length, so that the mean over singers is an R².

    Parameters
    ----------
    states_NLD
        By pooling, "masked" and "released": [N, L, D] of all clips.
    clips
        Columns singer, split, duration_s.

    Returns
    -------
    list of dict
        `CELLS`; none where there are too few clips or all are of one length.
    """
    length = clips["duration_s"].to_numpy()
    fits = length <= window_s
    train = fits & (clips["split"] == "train").to_numpy()
    test = fits & (clips["split"] == "test").to_numpy()
    if train.sum() < 10 or test.sum() < 3 or np.ptp(length[train]) < 0.01:
        return []
    target = length - length[train].mean()
    singers = clips["singer"].to_numpy()[test]
    units = np.unique(singers)
    size = np.mean([np.mean(target[test][singers == unit] ** 2) for unit in units])
    found = {}
    for rule, states in states_NLD.items():
        for layer in range(states.shape[1]):
            x = states[:, layer].astype(np.float64)
            x = (x - x[train].mean(0)) / np.maximum(x[train].std(0), 1e-9)
            gram = x[train].T @ x[train] + 0.1 * train.sum() * np.eye(x.shape[1])
            error = target[test] - x[test] @ np.linalg.solve(gram, x[train].T @ target[train])
            found[rule, layer] = [1 - np.mean(error[singers == unit] ** 2) / size
                                  for unit in units]
    return [{"entry": "A10", "end": "both", "protocol": "released+A10", "layer": layer,
             "quantity": "R² of a clip's length, read off its state", "unit": unit,
             "released": float(old), "corrected": float(new), "case": case,
             "note": "Clips within the window alone: only padding differs between the rules."}
            for (rule, layer), values in found.items() if rule == "released"
            for unit, old, new in zip(units, values, found["masked", layer], strict=True)]


def turned_states(
    encoder: Encoder, entry: str, paths: Sequence[Path], *, window_s: float, seed: int,
    other: Encoder | None = None, batch_size: int = 16, cached: Callable | None = None,
) -> np.ndarray:  # fmt: skip
    """Released states of many clips with one entry as in the release, [S, L, D].

    Parameters
    ----------
    entry
        "A06" (one take in train mode, batches of 16 as there), "A07" (`other` in the encoder's
        place) or "A08" (read at 16 kHz).
    cached
        ``Stage.cached``: keeps finished shards, so that a killed stage goes on where it stopped.
    """
    ask = {
        "A06": lambda waves, number: train_mode_pooled(
            encoder, waves, encoder.sampling_rate, seed + number, window_s=window_s),
        "A07": lambda waves, _: pooled(other, waves, encoder.sampling_rate, "released", window_s),
        "A08": lambda waves, _: wrong_rate_pooled(encoder, waves, encoder.sampling_rate, READ_HZ,
                                                  pooling="released", window_s=window_s),
    }[entry]
    step, found = batch_size * BATCHES_PER_SHARD, []
    for start in range(0, len(paths), step):

        def compute(start=start):
            parts = []
            for first in range(start, min(start + step, len(paths)), batch_size):
                batch = paths[first : min(first + batch_size, start + step)]
                waves = [load_wave(path, encoder.sampling_rate) for path in batch]
                parts.append(ask(waves, first // batch_size))
            return {"states": np.concatenate(parts)}

        parts = {"encoder": encoder.fingerprint, "window_s": window_s, "seed": seed,
                 "computed": [encoder.device, encoder.precision],
                 "rows": [file_digest(Path(path)) for path in paths[start : start + step]]}
        found.append((cached(f"{entry}_{start:05d}", parts, compute) if cached
                      else compute())["states"])
    return np.concatenate(found)
