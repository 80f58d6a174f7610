"""Training one SAE, as released or corrected: the recipe says which, the loop is one for both.

The release trains each SAE alone, for 100 epochs, and picks the epoch on the last validation
batch. Here each of these choices is a field of `Recipe`. An SAE's start and its batches come from
its own seed alone. Whole grids are trained by `saeutils.sae_grid`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saeutils.sae import SparseAutoencoder, check_k, check_rows
from saeutils.sae_starts import linear_start, principal_axes, shaped_start


@dataclass(frozen=True)
class Recipe:
    """Every choice of a training run that is not data, width, k or seed.

    Attributes
    ----------
    epochs, batch, rate
        Passes over the rows at most, rows per step, Adam's step size.
    rate_width
        The width that `rate` is meant for: for wider rows it is times sqrt(rate_width / width),
        as the entries of directions of norm one are. 0 takes `rate` at any width.
    start
        "linear": as two fresh torch Linear layers; "shaped": `saeutils.sae_starts.shaped_start`,
        unit directions in the data's shape, encoder = their transpose times a fitted gain.
    centre
        Decoder bias: "none", "mean" or "geometric_median" of the training rows. It is subtracted
        from the input and added to the output; with it the rows are also scaled to unit variance,
        and the scale is folded into the weights afterwards.
    principal_axes
        Train in the coordinates of the rows' principal axes and turn the weights back afterwards.
        The loss does not notice, Adam does: its step sizes are per coordinate, and a coordinate
        that mixes large and small components gets the large one's.
    unit_norm
        Keep decoder directions at norm one, with gradients tangent to the sphere.
    decay
        Share of the epochs, at the end, over which the step size falls linearly to zero.
    jitter
        Each row is trained on as row + s (row' - row'') with two others drawn anew in each epoch,
        s = jitter * sqrt(1/2) * min(1, latents / rows). With about as many latents as rows a
        dictionary learns the rows by heart; this gives it new ones of the same covariance. It
        fades as rows become plenty.
    dead_after
        A latent that no training row uses after so many epochs in a row is dead; 0 leaves the
        dead alone.
    wake
        Dead latents are woken: their bias is raised until each is kept on the one row where it
        misses TopK least (the "conscience" of DeSieno 1988 in its smallest dose).
    aux_k, aux_weight
        The auxiliary loss of Gao et al. 2024 instead of or beside it: `aux_k` dead latents per
        row rebuild the residual. 0 switches it off.
    pick
        Which epoch is kept: lowest loss on all validation rows ("validation"), or on the last
        validation batch alone, as the release does ("last_batch", audit A12).
    patience
        Stop after so many epochs without a better one; 0 never stops early.
    """

    name: str
    epochs: int = 100
    batch: int = 16
    rate: float = 1e-3
    rate_width: int = 0
    start: str = "linear"
    centre: str = "none"
    principal_axes: bool = False
    unit_norm: bool = False
    decay: float = 0.0
    jitter: float = 0.0
    dead_after: int = 0
    wake: bool = False
    aux_k: int = 0
    aux_weight: float = 0.0
    pick: str = "validation"
    patience: int = 0


RELEASED = Recipe("released", pick="last_batch")
CORRECTED = Recipe(
    "corrected", epochs=40, rate=3e-3, rate_width=192, start="shaped", centre="mean",
    principal_axes=True, unit_norm=True, decay=0.8, jitter=0.45, dead_after=1, wake=True,
)
RECIPES = {recipe.name: recipe for recipe in (RELEASED, CORRECTED)}


def train_sae(
    train_ND: np.ndarray,
    validation_ND: np.ndarray,
    latents: int,
    k: int,
    seed: int,
    recipe: Recipe = CORRECTED,
    backend: str = "sparse",
    device: str = "cpu",
) -> tuple[SparseAutoencoder, list[dict[str, float]]]:
    """Train one TopK SAE.

    Parameters
    ----------
    train_ND, validation_ND
        Activations; the validation rows choose the epoch and nothing else.
    latents, k
        Width of the dictionary and latents kept per row.
    seed
        Gives the start and the order of the rows.
    backend
        "sparse" (numba, CPU) or "dense" (torch, any `device`). The first 50 steps agree to 1e-5.

    Returns
    -------
    sae, history
        The SAE in units of the activations, and one dict per epoch: epoch, train_mse (in the
        scaled units of training, so that recipes cannot be compared by it), validation_fvu,
        dead_fraction (latents that did not fire in that epoch), picked.

    Raises
    ------
    ValueError
        Before any training: NaN or infinite rows, constant columns, fewer rows than a batch, k
        outside 1 to `latents`, no epoch, an unknown backend. After it: if no epoch's validation
        error is finite.
    """
    task = prepare(train_ND, validation_ND, latents, k, seed, recipe)
    steps = make_steps(task.start, k, recipe, backend, device)
    best, history = drive(training(steps, task), steps)
    return finish(task, best, history, backend)


@dataclass(frozen=True)
class Task:
    """One training, checked, in the coordinates in which it runs."""

    rows_ND: np.ndarray
    held_ND: np.ndarray
    start: dict[str, np.ndarray]
    centre_D: np.ndarray
    scale: float
    axes_DD: np.ndarray | None
    k: int
    seed: int
    recipe: Recipe


def check_recipe(recipe: Recipe) -> Recipe:
    """The recipe itself, or ValueError for a word that it may not hold."""
    for name, allowed in (("start", ("linear", "shaped")), ("pick", ("validation", "last_batch")),
                          ("centre", ("none", "mean", "geometric_median"))):
        if getattr(recipe, name) not in allowed:
            raise ValueError(f"unknown {name} {getattr(recipe, name)!r} of the recipe "
                             f"{recipe.name!r}: {', '.join(allowed)}")
    if recipe.epochs < 1:
        raise ValueError(f"epochs = {recipe.epochs} of the recipe {recipe.name!r}: at least 1")
    return recipe


def prepare(train_ND, validation_ND, latents: int, k: int, seed: int, recipe: Recipe) -> Task:
    """Check, centre, scale and turn the rows, and draw the start; raises as `train_sae`."""
    check_recipe(recipe)
    check_k(k, latents)
    train_ND = check_training_rows(train_ND, recipe.batch)
    validation_ND = check_rows(validation_ND, train_ND.shape[1])
    if not len(validation_ND):
        raise ValueError("no validation rows: at least one is needed to choose the epoch")
    centre_D, scale = centre_and_scale(train_ND, recipe.centre)
    rows_ND, held_ND = (np.ascontiguousarray((acts_ND - centre_D) / scale, dtype=np.float32)
                        for acts_ND in (train_ND, validation_ND))
    axes_DD = power_D = None
    if recipe.principal_axes:
        power_D, axes_DD = principal_axes(rows_ND)
        rows_ND, held_ND = rows_ND @ axes_DD, held_ND @ axes_DD
    start = start_weights(rows_ND, latents, k, seed, recipe, power_D)
    return Task(rows_ND, held_ND, start, centre_D, scale, axes_DD, k, seed, recipe)


def finish(task: Task, best: dict[str, np.ndarray], history: list[dict[str, float]],
           backend: str) -> tuple[SparseAutoencoder, list[dict[str, float]]]:
    """The trained weights as an SAE in units of the activations."""
    if task.axes_DD is not None:
        best = _turn(best, task.axes_DD.T)
    # ReLU and TopK do not change when all pre-activations are scaled: the codes take the units
    best["b_enc_F"] = (best["b_enc_F"] * task.scale).astype(np.float32)
    best["b_dec_D"] = task.centre_D
    picked = next((row for row in reversed(history) if row["picked"]), None)
    if picked is None:
        raise ValueError(f"recipe {task.recipe.name!r}: no epoch's validation error is finite; the "
                         "rows may be too large for float32 (scale them) or the rate too high")
    info = {"protocol": task.recipe.name, "seed": int(task.seed), "scale": float(task.scale),
            "epochs": len(history), "best_epoch": picked["epoch"],
            "unused_fraction": picked["dead_fraction"], "backend": backend}
    sae = SparseAutoencoder(**best, k=task.k, centred=task.recipe.centre != "none", info=info)
    return sae, history


def drive(run, steps):
    """Let a `training` have its epochs, one after the other; returns best weights and history."""
    wanted = next(run)
    while True:
        try:
            wanted = run.send(steps.epoch(*wanted))
        except StopIteration as end:
            return end.value


def _turn(weights: dict[str, np.ndarray], axes_DD: np.ndarray) -> dict[str, np.ndarray]:
    return weights | {"W_enc_DF": np.ascontiguousarray(axes_DD.T @ weights["W_enc_DF"]),
                      "W_dec_FD": np.ascontiguousarray(weights["W_dec_FD"] @ axes_DD)}


def start_weights(rows_ND, latents: int, k: int, seed: int, recipe: Recipe, power_D=None):
    """The weights that a recipe starts from, for rows in the coordinates of training.

    `power_D` holds their variances if those coordinates are principal axes.
    """
    if recipe.start == "shaped":
        return shaped_start(rows_ND, latents, k, seed, power_D)
    if recipe.start == "linear":
        return linear_start(rows_ND.shape[1], latents, seed)
    raise ValueError(f"unknown start {recipe.start!r}: linear or shaped")


def make_steps(start, k: int, recipe: Recipe, backend: str, device: str):
    """The weights under training, as the backend moves them."""
    settings = {"k": k, "batch": recipe.batch, "unit_norm": recipe.unit_norm,
                "k_dead": recipe.aux_k, "aux_weight": recipe.aux_weight}
    if backend == "sparse":
        from saeutils.sae_sparse import SparseSteps

        return SparseSteps(start, **settings)
    if backend == "dense":
        from saeutils.sae_torch import DenseSteps

        return DenseSteps(start, **settings, device=device)
    raise ValueError(f"unknown backend {backend!r}: sparse (numba) or dense (torch)")


def training(steps, task: Task):
    """The loop over epochs, which asks for each: yields the arguments of ``steps.epoch``.

    Whoever drives it may run that epoch alone or together with those of other SAEs; what an SAE
    sees does not depend on it.
    """
    rows_ND, held_ND, recipe = task.rows_ND, task.held_ND, task.recipe
    latents = len(task.start["b_enc_F"])
    rng = np.random.default_rng([task.seed, 1])
    silent_F = np.zeros(latents, np.int64)
    variation = float(np.sum((held_ND - held_ND.mean(axis=0, dtype=np.float64)) ** 2))
    last_batch = len(held_ND) - 1 - (len(held_ND) - 1) % recipe.batch
    jitter = recipe.jitter * np.sqrt(0.5) * min(1.0, latents / len(rows_ND))
    best, lowest, history = steps.snapshot(), np.inf, []
    for epoch in range(recipe.epochs):
        rate = rate_at(epoch, recipe, rows_ND.shape[1])
        dead_F = (silent_F >= recipe.dead_after) & (recipe.dead_after > 0)
        orders = [rng.permutation(len(rows_ND)) for _ in range(3 if jitter else 1)]
        fired_F, error = yield rows_ND, orders[0], rate, dead_F, jitter, *orders[1:]
        if recipe.dead_after:
            margins_F = steps.margins(rows_ND)
            silent_F = np.where(margins_F <= 0, 0, silent_F + 1)
            if recipe.wake:  # a little more than the margin, so that rounding cannot undo it
                steps.lift(np.where(silent_F >= recipe.dead_after, 1.01 * margins_F, 0))
        errors_N = steps.errors(held_ND)
        score = float(errors_N[last_batch:].mean() if recipe.pick == "last_batch"
                      else errors_N.mean())
        better = score < lowest
        if better:
            best, lowest = steps.snapshot(), score
        history.append({
            "epoch": epoch + 1, "train_mse": error,
            "validation_fvu": float(errors_N.sum()) / variation if variation else float("nan"),
            "dead_fraction": float(np.mean(fired_F == 0)), "picked": better,
        })
        if recipe.patience and not any(row["picked"] for row in history[-recipe.patience:]):
            break
    return best, history


def rate_at(epoch: int, recipe: Recipe, width: int) -> float:
    """Adam's step size in an epoch (counted from 0) on rows of this width."""
    falling = recipe.decay * recipe.epochs
    share = min(1.0, (recipe.epochs - epoch) / falling) if falling >= 1 else 1.0
    scale = np.sqrt(min(1.0, recipe.rate_width / width)) if recipe.rate_width else 1.0
    return float(recipe.rate * scale * share)


def check_training_rows(acts_ND: np.ndarray, batch: int) -> np.ndarray:
    """The rows as float32, or ValueError: not finite, constant columns, fewer rows than a batch."""
    acts_ND = check_rows(acts_ND)
    if len(acts_ND) < batch:
        raise ValueError(f"{len(acts_ND)} training rows are fewer than the batch of {batch}; "
                         "take a smaller batch or more clips")
    constant = np.flatnonzero(np.ptp(acts_ND, axis=0) == 0)
    if constant.size:
        raise ValueError(f"{constant.size} columns never vary (first: {constant[0]}): a dead "
                         "encoder or repeated rows; leave these columns out")
    return acts_ND


def centre_and_scale(acts_ND: np.ndarray, centre: str) -> tuple[np.ndarray, float]:
    """Centre [D] (float32 values) and one scale: root mean square of the centred entries.

    "none" gives zeros and scale 1. The geometric median (Weiszfeld's iteration) is the point of
    least summed distance; outlying rows pull it less than the mean.
    """
    acts_ND = np.asarray(acts_ND, np.float64)
    if centre == "none":
        return np.zeros(acts_ND.shape[1], np.float32), 1.0
    centre_D = acts_ND.mean(axis=0)
    if centre == "geometric_median":
        for _ in range(100):
            distance_N = np.linalg.norm(acts_ND - centre_D, axis=1)
            weights_N = 1 / np.maximum(distance_N, 1e-9)
            moved_D = weights_N @ acts_ND / weights_N.sum()
            shift, centre_D = np.linalg.norm(moved_D - centre_D), moved_D
            if shift < 1e-7 * distance_N.mean():
                break
    elif centre != "mean":
        raise ValueError(f"unknown centre {centre!r}: none, mean or geometric_median")
    centre_D = centre_D.astype(np.float32)
    return centre_D, float(np.sqrt(np.mean((acts_ND - centre_D) ** 2)))
