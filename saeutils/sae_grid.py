"""Training a whole grid of SAEs: layers x protocols x sparsities x seeds, one process per core.

A finished SAE is a folder that carries the key of everything it was made from. A grid that was
killed goes on where it stopped; an SAE of other data, settings or code is refused or replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from saeutils import sae_metrics
from saeutils.machine import end_with_parent
from saeutils.sae import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_k,
    check_rows,
    k_of_sparsity,
    load_sae,
    read_config,
    sae_folder,
    save_sae,
)
from saeutils.sae_starts import random_dictionary
from saeutils.sae_training import RECIPES, Recipe, check_recipe, check_training_rows, train_sae

Rows = Mapping[str, np.ndarray]  # split -> activations [N, D]; "train" and "validation" are needed


@dataclass(frozen=True)
class Cell:
    """One SAE of a grid: where it stands, what TopK keeps, and the seed it is drawn from."""

    layer: int
    protocol: str
    sparsity: float
    seed: int
    k: int
    random_seed: int
    variant: str = "topk"

    @property
    def folder(self) -> str:
        """Where it lies below the folder of the SAEs."""
        return sae_folder(self.protocol, self.layer, self.sparsity, self.seed, self.variant)


def make_cells(
    layers: Iterable[int], sparsities: Iterable[float], seeds: Iterable[int], latents: int,
    seed_of, protocols: Iterable[str] = ("released", "corrected"), variant: str = "topk",
) -> list[Cell]:
    """Every cell of a grid.

    Parameters
    ----------
    seed_of
        ``seed_of(layer, seed_number)`` gives the random seed. Sparsities and protocols share it,
        so that they start alike and see the same batches.
    variant
        "topk", or one of `saeutils.sae_variants.VARIANTS`, which are corrected ones: give
        ``protocols=["corrected"]``.

    Examples
    --------
    >>> [c.k for c in make_cells([1], [75, 99], [0], 768, lambda layer, s: s, ["released"])]
    [192, 7]
    """
    seeds, sparsities = list(seeds), list(sparsities)
    return [
        Cell(int(layer), protocol, sparsity, int(seed),
             k_of_sparsity(sparsity, latents, protocol), int(seed_of(layer, seed)), variant)
        for protocol in protocols for layer in layers for sparsity in sparsities for seed in seeds
    ]


def train_grid(
    cells: list[Cell],
    rows: Mapping[tuple[str, int], Rows],
    latents: int,
    folder: Path | str,
    *,
    recipes: Mapping[str, Recipe] = RECIPES,
    workers: int = 1,
    version: str = "",
    on_other: str = "refuse",
    progress: bool = True,
    device: str = "cpu",
) -> dict[str, int]:
    """Train the cells that are not yet finished and save each as a SAELens folder.

    Parameters
    ----------
    rows
        ``rows[protocol, layer][split]``: activations. "train" trains, "validation" chooses the
        epoch, every split is measured.
    folder
        Below it lie ``<protocol>/layer_LL/sparsity_SS/seed_S``.
    workers
        Processes of one thread each; the result does not depend on it.
    version
        Part of each key: pass the key of the code, and other code trains anew.
    device
        "cpu": one by one with the sparse step, which is the faster there. "cuda" or "mps": all
        cells of a protocol and layer side by side in stacked steps (`saeutils.sae_stacked`).
        Cells of another variant than TopK are trained one by one on the CPU
        (`saeutils.sae_variants`); of their recipe they take the epochs.
    on_other
        What to do with an SAE that lies in a cell's folder under another key: "refuse" or
        "replace".

    Returns
    -------
    dict
        How many cells were "trained", and how many were found "finished".

    Raises
    ------
    ValueError
        Before any training: what `train_sae` refuses, rows that a cell needs and does not find,
        a split without rows, k outside 1 to `latents` in any cell, a protocol without a recipe or
        an untrained twin, an unknown variant, or an SAE of another grid in the folder.
    """
    folder = Path(folder)
    _check_cells(cells, latents, recipes, device)
    keys = _keys(cells, rows, latents, recipes, version)
    todo = _unfinished(cells, keys, folder, on_other)
    todo.sort(key=lambda cell: (-cell.k, cell.protocol, cell.layer, cell.seed))
    jobs = [(cell, latents, recipes[cell.protocol], keys[cell], str(folder)) for cell in todo]
    bar = _bar(len(cells), len(cells) - len(jobs), progress)
    with bar:
        stacked = [job for job in jobs if device != "cpu" and job[0].variant == "topk"]
        alone = [job for job in jobs if job not in stacked]
        for info in chain(_run(alone, rows, min(workers, len(alone))),
                          _run_stacked(stacked, rows, device)):
            held = info["metrics"]["validation"]
            bar.set_postfix(fvu=f"{held['fvu']:.3f}", l0=f"{held['l0']:.0f}",
                            dead=f"{info['metrics']['train']['dead_fraction']:.0%}")
            bar.update()
    return {"trained": len(jobs), "finished": len(cells) - len(jobs)}


def grid_table(cells: list[Cell], folder: Path | str, encoder: str):
    """The tidy table of a grid: results/sae_training.csv.

    One row per SAE, split and metric, and the same for its untrained twin (representation
    "random": equal width, k and seed, nothing learned).
    """
    import pandas as pd

    records = []
    for cell in cells:
        info = read_config(Path(folder) / cell.folder)["metadata"]
        for representation, name in (("sae", "metrics"), ("random", "untrained_metrics")):
            for split, values in info[name].items():
                records += [
                    {"encoder": encoder, "layer": cell.layer, "representation": representation,
                     "variant": cell.variant, "sparsity": cell.sparsity, "k": cell.k,
                     "seed": cell.seed, "protocol": cell.protocol, "split": split,
                     "metric": metric, "value": value} for metric, value in values.items()]
    return pd.DataFrame.from_records(records)


def load_cell(folder: Path | str, cell: Cell):
    """The SAE of a cell."""
    return load_sae(Path(folder) / cell.folder)


def remove_sae(folder: Path) -> bool:
    """Remove the folder of an SAE; returns whether there was one.

    It goes under a hidden name first, so that a kill in between leaves nothing that looks like an
    SAE; what such a kill left goes with the next call.
    """
    hidden = folder.with_name(f".{folder.name}.gone.part")
    shutil.rmtree(hidden, ignore_errors=True)
    is_there = folder.is_dir()
    if is_there:
        os.replace(folder, hidden)
        shutil.rmtree(hidden, ignore_errors=True)
    return is_there


def _check_cells(cells, latents, recipes, device) -> None:
    for cell in cells:
        try:
            check_k(cell.k, latents)
        except ValueError as error:
            raise ValueError(f"{cell.folder}: {error}") from None
        if cell.protocol not in recipes or cell.protocol not in ("released", "corrected"):
            raise ValueError(f"{cell.folder}: no recipe for protocol {cell.protocol!r}: a grid "
                             f"trains released and corrected, recipes are {', '.join(recipes)}")
        if cell.variant != "topk":
            from saeutils.sae_variants import check_variant  # with torch, a second to import

            check_variant(cell.variant, cell.protocol)
    for protocol in sorted({cell.protocol for cell in cells}):
        if check_recipe(recipes[protocol]).aux_k and device != "cpu":
            raise ValueError(f"aux_k of {protocol}: stacked training has no auxiliary loss; train "
                             "it on the CPU")


def _keys(cells, rows, latents, recipes, version) -> dict[Cell, str]:
    digests = {}
    for protocol, layer in sorted({(cell.protocol, cell.layer) for cell in cells}):
        if (protocol, layer) not in rows:
            raise ValueError(f"no rows for protocol {protocol!r}, layer {layer}: there are "
                             f"{', '.join(f'{p} {n}' for p, n in rows)}")
        splits = rows[protocol, layer]
        missing = {"train", "validation"} - set(splits)
        if missing:
            raise ValueError(f"layer {layer} ({protocol}) has no {', '.join(sorted(missing))} rows")
        batch = recipes[protocol].batch
        if any(cell.variant != "topk" and (cell.protocol, cell.layer) == (protocol, layer)
               for cell in cells):
            from saeutils.sae_variants import BATCH

            batch = max(batch, BATCH)
        width = check_training_rows(splits["train"], batch).shape[1]
        total = hashlib.sha256()
        for split in sorted(splits):
            if not len(splits[split]):
                raise ValueError(f"layer {layer} ({protocol}) has no {split} rows: leave the "
                                 "split out, or give it at least one")
            rows_ND = np.ascontiguousarray(check_rows(splits[split], width))
            total.update(f"{split} {rows_ND.shape}".encode())
            total.update(rows_ND)
        digests[protocol, layer] = total.hexdigest()
    keys = {}
    for cell in cells:
        parts = [asdict(cell), latents, asdict(recipes[cell.protocol]), version,
                 digests[cell.protocol, cell.layer]]
        keys[cell] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return keys


def _unfinished(cells, keys, folder: Path, on_other: str) -> list[Cell]:
    if on_other not in ("refuse", "replace"):
        raise ValueError(f"on_other = {on_other!r}: refuse or replace")
    todo = []
    for cell in cells:
        place = folder / cell.folder
        if not ((place / CONFIG_FILE).exists() and (place / WEIGHTS_FILE).exists()):
            todo.append(cell)  # not there, or what a kill left: saving replaces the folder
            continue
        found = read_config(place).get("metadata", {}).get("key")
        if found == keys[cell]:
            continue
        if on_other == "refuse":
            raise ValueError(f"{cell.folder} holds an SAE of another grid (key {str(found)[:8]}, "
                             f"expected {keys[cell][:8]}): its data, settings or code differ. "
                             "Choose another folder, or pass on_other='replace'")
        remove_sae(place)
        todo.append(cell)
    return todo


def _bar(total: int, done: int, progress: bool):
    from tqdm.auto import tqdm

    return tqdm(total=total, initial=done, desc="SAEs", unit="SAE", disable=not progress)


_ROWS: Mapping[tuple[str, int], Rows] = {}


def _run(jobs, rows, workers: int):
    if workers <= 1:
        for job in jobs:
            yield _train_cell(job, rows)
        return
    _train_nothing()  # compiles the kernels once; the workers find them in the cache
    held = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"),
                                 initializer=_receive, initargs=(dict(rows),)) as pool:
            waiting = [pool.submit(_train_cell, job) for job in jobs]
            for future in as_completed(waiting):
                yield future.result()
    finally:
        for name, value in held.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                             "NUMBA_NUM_THREADS"), "1")


def _receive(rows) -> None:
    global _ROWS
    end_with_parent()
    _ROWS = rows


def _train_cell(job, rows=None) -> dict[str, Any]:
    from threadpoolctl import threadpool_limits

    cell, latents, recipe, _, _ = job
    splits = (_ROWS if rows is None else rows)[cell.protocol, cell.layer]
    own = splits["train"], splits["validation"], latents, cell.k, cell.random_seed
    with threadpool_limits(1):
        if cell.variant == "topk":
            sae, history = train_sae(*own, recipe)
        else:
            from saeutils.sae_variants import train_variant

            sae, history = train_variant(*own, cell.variant, epochs=recipe.epochs)
        return _measure_and_save(job, splits, sae, history)


def _run_stacked(jobs, rows, device: str):
    from saeutils.sae_stacked import train_stack

    groups: dict[tuple[str, int], list] = {}
    for job in jobs:
        groups.setdefault((job[0].protocol, job[0].layer), []).append(job)
    for place, group in groups.items():
        splits, (_, latents, recipe, _, _) = rows[place], group[0]
        stack = [(splits["train"], splits["validation"], cell.k, cell.random_seed)
                 for cell, *_ in group]
        for job, (sae, history) in zip(group, train_stack(stack, latents, recipe, device),
                                       strict=True):
            yield _measure_and_save(job, splits, sae, history)


def _measure_and_save(job, splits, sae, history) -> dict[str, Any]:
    cell, latents, _, key, folder = job
    twin = random_dictionary(splits["train"], latents, cell.k, cell.random_seed, cell.protocol)
    metrics, untrained = ({split: sae_metrics.summary(one, acts_ND)
                           for split, acts_ND in splits.items()} for one in (sae, twin))
    best = max(row["epoch"] for row in history if row["picked"])
    metrics["train"] |= {"epochs": len(history), "best_epoch": best}
    # "seed" stays the random seed, from which the untrained twin is drawn
    sae.info.update(layer=cell.layer, sparsity=cell.sparsity, seed_number=cell.seed, key=key,
                    metrics=metrics, untrained_metrics=untrained, history=history)
    save_sae(sae, Path(folder) / cell.folder)
    return sae.info


def _train_nothing() -> None:
    rows_ND = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    train_sae(rows_ND, rows_ND, 8, 2, 0, Recipe("warm", epochs=1))
