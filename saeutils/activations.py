"""From clips to time-averaged states, and statistics that describe an encoder's states.

Batches are cut once from the whole clip table (by length, then by row), so no result depends on
how many workers share the work or on where a killed run stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from saeutils.encoders import Encoder

BATCHES_PER_SHARD = 16


def load_wave(path: Path, sampling_rate: int) -> np.ndarray:
    """Read a sound file as mono float32 at `sampling_rate` Hz.

    Raises
    ------
    ValueError
        If the file cannot be read, is empty, holds NaN, or has a rate that
        `saeutils.datasets.check_rate` refuses; the message names it.
    """
    import soundfile

    from saeutils.datasets import check_rate

    try:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as reason:
        raise ValueError(f"{path} cannot be read as sound ({reason}): mend or remove it") from None
    if not len(wave) or not np.isfinite(wave).all():
        raise ValueError(f"{path} is empty or holds NaN: mend or remove it")
    check_rate(str(path), rate, sampling_rate)
    return resample(wave.mean(1), rate, sampling_rate)


def resample(wave: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Band-limited resampling (windowed sinc of torchaudio), float32.

    Examples
    --------
    >>> resample(np.zeros(441, np.float32), 44100, 16000).shape
    (160,)
    """
    import torch

    wave = np.ascontiguousarray(wave, np.float32)
    if from_hz == to_hz:
        return wave
    with torch.inference_mode():
        return _converter(from_hz, to_hz)(torch.from_numpy(wave)).numpy()


@cache
def _converter(from_hz: int, to_hz: int):
    """Its filter is made once: for short clips that takes longer than to apply it."""
    from torchaudio.transforms import Resample

    return Resample(from_hz, to_hz)


def plan_batches(
    lengths: Sequence[int], batch_size: int, equal: bool = False, limit: float = np.inf
) -> list[list[int]]:
    """Rows of each batch: sorted by length (ties by row), cut into runs of `batch_size`.

    Parameters
    ----------
    lengths : sequence of int
        Samples per clip.
    equal : bool
        Let no batch mix lengths.
    limit : float
        Samples of a batch, padding counted, at most; a longer clip goes alone.

    Raises
    ------
    ValueError
        If there is no clip, or `batch_size` is below 1.

    Examples
    --------
    >>> plan_batches([5, 3, 5, 4], 2), plan_batches([5, 3, 5, 4], 2, equal=True)
    ([[1, 3], [0, 2]], [[1], [3], [0, 2]])
    """
    if not len(lengths) or batch_size < 1:
        raise ValueError(f"{len(lengths)} clips in batches of {batch_size}: both must be 1 or more")
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    batches: list[list[int]] = []
    for row in order:
        last = batches[-1] if batches else []
        fits = len(last) + 1 <= batch_size and (len(last) + 1) * lengths[row] <= limit
        if last and fits and not (equal and lengths[last[0]] != lengths[row]):
            last.append(row)
        else:
            batches.append([row])
    return batches


def extract(
    encoder: Encoder, paths: Sequence[Path], poolings: Sequence[str] = ("masked", "released"), *,
    batch_size: int = 16, window_s: float = 5.0, piece_s: float = 0.0,
    batch_s: float = np.inf, workers: int = 1, cached: Callable | None = None,
    name: str = "states", progress: bool = False, part: tuple[int, int] = (1, 1),
) -> dict[str, np.ndarray]:  # fmt: skip
    """Time-averaged states of sound files, rows in the order of `paths`.

    Parameters
    ----------
    encoder : Encoder
    paths : sequence of pathlib.Path
        Sound files of any sampling rate.
    poolings : sequence of str
        See `encoders.pooled`.
    batch_size, window_s : int, float
        Clips per forward pass; seconds of the released window.
    piece_s : float
        Longer clips are cut into pieces of these seconds (masked rule); see `encoders.pooled`.
    batch_s : float
        Seconds of sound in one batch, at most.
    workers : int
        Threads of one core each; the result does not depend on it.
    cached : callable, optional
        ``Stage.cached``: keeps finished shards of `BATCHES_PER_SHARD` batches, so that a killed
        stage goes on where it stopped.
    name : str
        Prefix of the shards' names.
    part : tuple of int
        ``(i, n)``: only every `n`-th shard, from the `i`-th (from 1); rows of others stay NaN.

    Returns
    -------
    dict of numpy.ndarray
        Per pooling, float32 [clip, state, width].

    Raises
    ------
    ValueError
        As `load_wave` and `encoders.pooled`.
    """
    from tqdm.auto import tqdm

    from saeutils.encoders import needs_equal_lengths
    from saeutils.keys import file_digest

    paths = [Path(path) for path in paths]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"{len(missing)} sound files are missing, first {missing[0]}")
    lengths, rate = _lengths([_info(path, encoder.sampling_rate) for path in paths],
                            encoder.sampling_rate)
    batches = plan_batches(lengths, batch_size, needs_equal_lengths(encoder), batch_s * rate)
    shards = [batches[i : i + BATCHES_PER_SHARD] for i in range(0, len(batches), BATCHES_PER_SHARD)]
    shape = (len(paths), encoder.n_layers + 1, encoder.width)
    out = {pooling: np.full(shape, np.nan, np.float32) for pooling in poolings}
    bar = tqdm(total=len(paths), unit="clip", desc=name, disable=not progress)
    with ThreadPoolExecutor(workers, initializer=_one_thread) as pool:
        for number, shard in list(enumerate(shards))[part[0] - 1 :: part[1]]:

            def compute(shard=shard):
                jobs = [[paths[row] for row in batch] for batch in shard]
                states = partial(_batch, encoder, poolings, window_s, piece_s)
                done = list(pool.map(states, jobs))
                return {p: np.concatenate([part[p] for part in done]) for p in poolings}

            rows = [row for batch in shard for row in batch]
            parts = {
                "encoder": encoder.fingerprint, "poolings": list(poolings), "window_s": window_s,
                "piece_s": piece_s, "computed": [encoder.device, encoder.precision],
                "rows": [[file_digest(paths[row]) for row in batch] for batch in shard],
            }  # fmt: skip
            result = cached(f"{name}_{number:03d}", parts, compute) if cached else compute()
            for pooling in poolings:
                out[pooling][rows] = result[pooling]
            bar.update(len(rows))
    bar.close()
    return out


def _info(path: Path, sampling_rate: int) -> Any:
    """A sound file's header; refused before the work is what cannot be read or resampled."""
    import soundfile

    from saeutils.datasets import check_rate

    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as reason:
        raise ValueError(f"{path} cannot be read as sound ({reason}): mend or remove it") from None
    check_rate(str(path), info.samplerate, sampling_rate)
    return info


def _lengths(infos: list, rate: int) -> tuple[list[int], int]:
    """Lengths in samples of one common rate, and that rate: the files' own, or the encoder's."""
    rates = {info.samplerate for info in infos}
    if len(rates) == 1:
        return [info.frames for info in infos], rates.pop()
    return [-(-info.frames * rate // info.samplerate) for info in infos], rate


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _batch(
    encoder: Encoder, poolings: Sequence[str], window_s: float, piece_s: float, paths: list[Path]
) -> dict:
    from saeutils.encoders import pooled

    rate = encoder.sampling_rate
    waves = [load_wave(path, rate) for path in paths]
    silent = [path.name for path, wave in zip(paths, waves, strict=True) if not np.any(wave)]
    if silent:
        raise ValueError(f"{', '.join(silent)} silent throughout: leave out of the clip table")
    return {p: pooled(encoder, waves, rate, p, window_s, piece_s=piece_s) for p in poolings}


def participation_ratio(acts_ND: np.ndarray) -> float:
    """(sum of eigenvalues)^2 / (sum of their squares) of the covariance: 1 to D.

    NaN if nothing varies.

    Examples
    --------
    >>> float(participation_ratio(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])))
    2.0
    """
    centred = acts_ND - acts_ND.mean(0)
    gram = centred.T @ centred if centred.shape[0] >= centred.shape[1] else centred @ centred.T
    total = np.trace(gram)
    return float(total**2 / np.sum(gram**2)) if total > 0 else float("nan")


def linear_cka(x_ND: np.ndarray, y_NE: np.ndarray) -> float:
    """Linear centred kernel alignment of two representations of the same rows, 0 to 1.

    ``|X'Y|^2 / (|X'X| |Y'Y|)`` in Frobenius norms, columns centred. Source: Kornblith et al. 2019.

    Raises
    ------
    ValueError
        If the numbers of rows differ.

    Examples
    --------
    >>> x = np.array([[1.0, 2], [3, 1], [0, 5]])
    >>> round(linear_cka(x, 3 * x[:, ::-1] + 7), 6)
    1.0
    """
    if len(x_ND) != len(y_NE):
        raise ValueError(f"{len(x_ND)} and {len(y_NE)} rows: compare the same clips")
    x, y = x_ND - x_ND.mean(0), y_NE - y_NE.mean(0)
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / scale) if scale > 0 else float("nan")


def encoder_statistics(acts_NLD: np.ndarray, encoder: str) -> pd.DataFrame:
    """Numbers that tell one encoder's states from another's, layer by layer.

    Parameters
    ----------
    acts_NLD : numpy.ndarray, shape (clips, states, width)
    encoder : str
        Name for the table.

    Returns
    -------
    pandas.DataFrame
        Columns encoder, layer, representation, metric, value, n. Metrics: `participation_ratio`;
        `mean_share` (squared norm of the mean over the mean squared norm); `kurtosis` (median
        excess kurtosis over dimensions); `largest_over_median` (SD of the most variable
        dimension over the median SD); `duplicate_dims` (dimensions with abs r > .99 to an earlier
        one); `cka_first`, `cka_last` (linear CKA with the first and last state).

    Raises
    ------
    ValueError
        On NaN, or fewer than 3 clips.
    """
    import pandas as pd

    if acts_NLD.ndim != 3 or len(acts_NLD) < 3:
        raise ValueError(f"states have shape {acts_NLD.shape}: give [3 or more clips, states, D]")
    if not np.isfinite(acts_NLD).all():
        raise ValueError("states hold NaN or infinity: extract them again")
    acts = acts_NLD.astype(np.float64)
    rows = []
    for layer in range(acts.shape[1]):
        x = acts[:, layer]
        mean, std = x.mean(0), x.std(0)
        live = std > 1e-12
        z = (x[:, live] - mean[live]) / std[live]
        corr = np.abs(np.triu(z.T @ z / len(z), 1))
        values = {
            "participation_ratio": participation_ratio(x),
            "mean_share": float((mean**2).sum() / (x**2).sum(1).mean()),
            "kurtosis": float(np.median((z**4).mean(0) - 3)),
            "largest_over_median": float(std.max() / np.median(std)),
            "duplicate_dims": int((corr > 0.99).any(0).sum()),
            "cka_first": linear_cka(acts[:, 0], x),
            "cka_last": linear_cka(acts[:, -1], x),
        }
        rows += [(encoder, layer, "raw", m, v, len(x)) for m, v in values.items()]
    columns = ["encoder", "layer", "representation", "metric", "value", "n"]
    return pd.DataFrame(rows, columns=columns)
