"""Training on more rows than memory holds: frame activations streamed from safetensors shards.

Shards are only ever read in chunks of a thousand rows. The shuffle has two levels: all chunks of
all shards are put in a new order in every pass, and the rows of a buffer of many chunks are
permuted before they are trained on. Memory is one buffer, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saeutils.sae import SparseAutoencoder, check_k, check_rows
from saeutils.sae_training import (
    CORRECTED,
    Recipe,
    Task,
    check_recipe,
    finish,
    make_steps,
    rate_at,
    start_weights,
)

CHUNK = 1_024  # rows read at once
BUFFER = 65_536  # rows shuffled together


@dataclass(frozen=True)
class Shard:
    """One safetensors file with a matrix of rows, [N, D]; nothing of it is held in memory."""

    path: Path
    name: str
    rows: int
    width: int

    def read(self, first: int, last: int) -> np.ndarray:
        """Rows `first` to `last` as float32; only these bytes are read.

        Raises
        ------
        ValueError
            On rows that are not finite; names the shard and the row.
        """
        from safetensors import safe_open

        with safe_open(self.path, framework="numpy") as tensors:
            rows_ND = np.asarray(tensors.get_slice(self.name)[first:last], dtype=np.float32)
        if not np.isfinite(rows_ND).all():
            bad = first + int(np.flatnonzero(~np.isfinite(rows_ND).all(axis=1))[0])
            raise ValueError(f"{self.path.name}: row {bad} of {self.name!r} is not finite; mend or "
                             "remove the clip it comes from")
        return rows_ND


def open_shards(paths: Iterable[Path | str], name: str = "frames") -> list[Shard]:
    """Read the headers of shards, sorted by path.

    Parameters
    ----------
    paths
        safetensors files.
    name
        The tensor of each that holds the rows, [N, D].

    Raises
    ------
    ValueError
        For no file, a file that is no safetensors file, a missing or empty tensor, one that is
        not a matrix of floats, and widths that differ; names the file.
    """
    from safetensors import SafetensorError, safe_open

    shards = []
    for path in sorted(map(Path, paths)):
        try:
            with safe_open(path, framework="numpy") as tensors:
                if name not in tensors.keys():  # noqa: SIM118 (not a dict)
                    raise ValueError(f"{path.name} has no tensor {name!r}: it has "
                                     f"{', '.join(sorted(tensors.keys()))}")
                part = tensors.get_slice(name)
                shape, kind = part.get_shape(), part.get_dtype()
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path.name} cannot be read as safetensors: {error}") from None
        if len(shape) != 2 or not shape[0] or kind not in ("F32", "F16", "F64"):
            raise ValueError(f"{path.name}: {name!r} is {kind} {shape}; rows must be a matrix "
                             "[rows, width] of float16, float32 or float64, with a row at least")
        shards.append(Shard(path, name, int(shape[0]), int(shape[1])))
    if not shards:
        raise ValueError("no shards: give at least one .safetensors file")
    widths = sorted({shard.width for shard in shards})
    if len(widths) > 1:
        odd = next(shard for shard in shards if shard.width != shards[0].width)
        raise ValueError(f"shards differ in width ({', '.join(map(str, widths))}): "
                         f"{odd.path.name} has {odd.width}, {shards[0].path.name} "
                         f"{shards[0].width}")
    return shards


def buffers(
    shards: list[Shard], rng: np.random.Generator, size: int = BUFFER, chunk: int = CHUNK
) -> Iterator[np.ndarray]:
    """One shuffled pass over all rows: matrices of about `size` rows, each row exactly once.

    The order depends on the generator, the shards and the two sizes, on nothing else.
    """
    if size < chunk or chunk < 1:
        raise ValueError(f"a buffer of {size} rows cannot hold chunks of {chunk}: the buffer must "
                         "be at least as large")
    pieces = [(shard, first, min(first + chunk, shard.rows))
              for shard in shards for first in range(0, shard.rows, chunk)]
    order = rng.permutation(len(pieces))
    start = 0
    while start < len(order):
        stop, count = start, 0
        while stop < len(order) and count + chunk <= size:
            count += pieces[order[stop]][2] - pieces[order[stop]][1]
            stop += 1
        rows_ND = np.empty((count, shards[0].width), np.float32)
        filled = 0
        for shard, first, last in (pieces[place] for place in order[start:stop]):
            rows_ND[filled : filled + last - first] = shard.read(first, last)
            filled += last - first
        rng.shuffle(rows_ND)
        yield rows_ND
        start = stop


def moments(shards: list[Shard], chunk: int = 16 * CHUNK) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and covariance [D, D] of all rows, float64, in one pass.

    Chunks are merged by the update of Chan, Golub and LeVeque (1983), which stays exact where the
    mean is large against the spread.
    """
    count, mean_D, scatter_DD = 0, 0.0, 0.0
    for shard in shards:
        for first in range(0, shard.rows, chunk):
            rows_ND = shard.read(first, min(first + chunk, shard.rows)).astype(np.float64)
            here_D, size = rows_ND.mean(axis=0), len(rows_ND)
            centred_ND, shift_D = rows_ND - here_D, here_D - mean_D
            weight = count * size / (count + size)
            scatter_DD = scatter_DD + centred_ND.T @ centred_ND
            scatter_DD = scatter_DD + weight * np.outer(shift_D, shift_D)
            mean_D = mean_D + shift_D * size / (count + size)
            count += size
    return mean_D, scatter_DD / count


def train_stream(
    shards: list[Shard],
    validation_ND: np.ndarray,
    latents: int,
    k: int,
    seed: int,
    recipe: Recipe = CORRECTED,
    backend: str = "sparse",
    device: str = "cpu",
    buffer: int = BUFFER,
    progress: bool = False,
) -> tuple[SparseAutoencoder, list[dict[str, float]]]:
    """Train one TopK SAE on shards; memory does not grow with their rows.

    The recipe is that of `saeutils.sae_training.train_sae`, with three words changed: the start
    is fitted on one shuffled buffer, not on all rows; `dead_after` counts passes over as many rows
    as a buffer holds, or over all where that is less, so that ten million rows do not wait for the
    end of a pass; the jitter is left out, which fades with many rows anyway. Validation rows are
    held in memory and choose the epoch.

    Parameters
    ----------
    shards
        From `open_shards`.
    buffer
        Rows shuffled together; a buffer, its permuted copy and the chunks it comes from are what
        memory must hold.

    Returns
    -------
    sae, history
        As `train_sae`; ``train_mse`` in units of the scaled rows.

    Raises
    ------
    ValueError
        Before any training, as `train_sae` does; for rows that are not finite; and for what needs
        all rows at once or a flaw of the release (centre "geometric_median", pick "last_batch").
    """
    from tqdm.auto import tqdm

    check_recipe(recipe)
    check_k(k, latents)
    validation_ND = check_rows(validation_ND, shards[0].width)
    total = sum(shard.rows for shard in shards)
    if total < recipe.batch:
        raise ValueError(f"{total} training rows are fewer than the batch of {recipe.batch}")
    if not len(validation_ND):
        raise ValueError("no validation rows: at least one is needed to choose the epoch")
    if recipe.centre == "geometric_median":
        raise ValueError("centre = 'geometric_median' needs all rows at once: stream with 'mean'")
    if recipe.pick == "last_batch":
        raise ValueError("pick = 'last_batch' judges an epoch by its last few rows, as the release "
                         "does: stream with pick = 'validation'")
    frame = _Frame.of(shards, recipe)
    held_ND = frame.inward(validation_ND)
    rng = np.random.default_rng([seed, 2])
    first_ND = frame.inward(next(buffers(shards, np.random.default_rng([seed, 3]), buffer)))
    start = start_weights(first_ND, latents, k, seed, recipe, frame.power_D)
    steps = make_steps(start, k, recipe, backend, device)
    task = Task(first_ND[:0], held_ND, start, frame.centre_D, frame.scale, frame.axes_DD, k, seed,
                recipe)
    del first_ND
    best, lowest, history = steps.snapshot(), np.inf, []
    silent_F = np.zeros(latents, np.int64)  # rows since a latent fired
    # no buffer but the last of a pass is smaller, and that one may hold a handful of rows
    dead_rows = recipe.dead_after * min(total, buffer - CHUNK + 1)
    variation = float(np.sum((held_ND - held_ND.mean(axis=0, dtype=np.float64)) ** 2))
    bar = tqdm(total=recipe.epochs * total, unit="row", unit_scale=True, disable=not progress)
    for epoch in range(recipe.epochs):
        rate = rate_at(epoch, recipe, shards[0].width)
        fired_F, error = np.zeros(latents, np.int64), 0.0
        for rows_ND in buffers(shards, rng, buffer):
            rows_ND = frame.inward(rows_ND)
            dead_F = (silent_F >= dead_rows) & (dead_rows > 0)
            here_F, mse = steps.epoch(rows_ND, np.arange(len(rows_ND)), rate, dead_F)
            fired_F += here_F
            error += mse * len(rows_ND) / total
            silent_F = np.where(here_F > 0, 0, silent_F + len(rows_ND))
            if dead_rows and recipe.wake and (silent_F >= dead_rows).any():
                margins_F = steps.margins(rows_ND[: 16 * CHUNK])
                steps.lift(np.where(silent_F >= dead_rows, np.maximum(1.01 * margins_F, 0), 0))
                silent_F[silent_F >= dead_rows] = 0  # awake until it is silent as long again
            bar.update(len(rows_ND))
        errors_N = steps.errors(held_ND)
        score = float(errors_N.mean())
        better = score < lowest
        if better:
            best, lowest = steps.snapshot(), score
        fvu = float(errors_N.sum()) / variation if variation else float("nan")
        history.append({"epoch": epoch + 1, "train_mse": error, "validation_fvu": fvu,
                        "dead_fraction": float(np.mean(fired_F == 0)), "picked": better})
        bar.set_postfix(fvu=f"{fvu:.3f}", dead=f"{history[-1]['dead_fraction']:.0%}")
        if recipe.patience and not any(row["picked"] for row in history[-recipe.patience:]):
            break
    bar.close()
    sae, history = finish(task, best, history, backend)
    sae.info["rows"] = total
    return sae, history


@dataclass(frozen=True)
class _Frame:
    """The coordinates of training: centre, one scale and, if the recipe says so, principal axes."""

    centre_D: np.ndarray
    scale: float
    axes_DD: np.ndarray | None
    power_D: np.ndarray | None  # variances along the axes

    @classmethod
    def of(cls, shards: list[Shard], recipe: Recipe) -> _Frame:
        mean_D, covariance_DD = moments(shards)
        if not np.diag(covariance_DD).min() > 0:
            first = int(np.flatnonzero(~(np.diag(covariance_DD) > 0))[0])
            raise ValueError(f"column {first} never varies: leave constant columns out")
        axes_DD = power_D = None
        if recipe.centre == "none":
            covariance_DD = covariance_DD + np.outer(mean_D, mean_D)
            mean_D = np.zeros_like(mean_D)
            scale = 1.0
        else:
            scale = float(np.sqrt(np.diag(covariance_DD).mean()))
        if recipe.principal_axes:
            power_D, axes_DD = np.linalg.eigh(covariance_DD)
            power_D, axes_DD = power_D[::-1] / scale**2, axes_DD[:, ::-1].astype(np.float32)
        return cls(mean_D.astype(np.float32), scale, axes_DD, power_D)

    def inward(self, rows_ND: np.ndarray) -> np.ndarray:
        rows_ND = (rows_ND - self.centre_D) / np.float32(self.scale)
        rows_ND = rows_ND if self.axes_DD is None else rows_ND @ self.axes_DD
        return np.ascontiguousarray(rows_ND, dtype=np.float32)
