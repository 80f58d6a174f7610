"""How long the demo's whole grid of SAEs takes, and the released half against a plain loop.

    python benchmarks/bench_grid.py        -> benchmarks/sae_grid.csv

All layers x six sparsities x three seeds, released and corrected, on the activations of the demo
run, trained by `sae_grid.train_grid` in two processes of one thread and saved as folders, as in
notebook 03. Before, between and after the two halves the release's loop (modules, autograd, torch's
Adam; training steps alone, without its validation passes) trains one SAE of each sparsity for some
epochs, in two such processes side by side; its whole grid is that time, scaled. The kernels are
compiled once more into an empty folder, which a fresh machine pays once.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import csv  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402
from multiprocessing import get_context  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from bench_sae import HERE, SPARSITIES, _record, write  # noqa: E402
from contenders import LOOP, release_loop  # noqa: E402

WARM = "from saeutils.sae_grid import _train_nothing; _train_nothing()"


def demo_grid():
    """Rows of the demo run as notebook 03 cuts them: ``rows[protocol, layer][split]``."""
    import pandas as pd
    from safetensors.numpy import load_file

    run = HERE.parent / "data" / "demo"
    if not (run / "demo" / "activations.safetensors").exists():
        raise SystemExit("no demo activations: run `make reproduce` first")
    split = pd.read_parquet(run / "clips.parquet")["split"].to_numpy()
    states = load_file(run / "demo" / "activations.safetensors")
    pooling = {"released": "released", "corrected": "masked"}
    return {(protocol, layer): {name: states[pool][split == name, layer]
                                for name in ("train", "validation", "test")}
            for protocol, pool in pooling.items() for layer in range(states[pool].shape[1])}


def plain_sample(rows_ND: np.ndarray, latents: int, epochs: int) -> float:
    """Seconds of the release's loop for one SAE of each sparsity, `epochs` epochs each."""
    import torch

    torch.set_num_threads(1)
    rows_ND = np.ascontiguousarray(rows_ND)
    seconds = 0.0
    for sparsity in SPARSITIES:
        k = int((1 - sparsity / 100) * latents)
        train = release_loop(rows_ND.shape[1], latents, k, 16).train
        train(rows_ND[:64])
        begin = time.perf_counter()
        for _ in range(epochs):
            train(rows_ND)
        seconds += time.perf_counter() - begin
    return seconds


def compile_seconds() -> float:
    """Seconds that compiling the kernels adds to a process, on a machine that has none yet."""
    taken = []
    with tempfile.TemporaryDirectory() as empty:
        for _ in range(2):  # the second finds what the first compiled
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", WARM], check=True, cwd=HERE.parent,
                           env=os.environ | {"NUMBA_CACHE_DIR": empty})
            taken.append(time.perf_counter() - begin)
    return taken[0] - taken[1]


def main() -> None:
    from saeutils.sae_grid import make_cells, train_grid
    from saeutils.sae_training import RECIPES

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plain-epochs", type=int, default=4)
    options = parser.parse_args()
    rows = demo_grid()
    layers = sorted({layer for _, layer in rows})
    train_ND = rows["released", layers[len(layers) // 2]]["train"]
    width, epochs = train_ND.shape[1], RECIPES["released"].epochs
    latents = 4 * width
    halves = {protocol: make_cells(layers, SPARSITIES, range(options.seeds), latents,
                                   lambda layer, seed: 1000 * layer + seed, [protocol])
              for protocol in RECIPES}
    compiled = compile_seconds()
    per_epoch, seconds = [], {}

    def sample(pool):
        jobs = [pool.submit(plain_sample, train_ND, latents, options.plain_epochs)
                for _ in range(options.workers)]
        per_epoch.extend(job.result() / options.plain_epochs for job in jobs)

    with (ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool,
          tempfile.TemporaryDirectory() as folder):
        sample(pool)
        for protocol, cells in halves.items():
            begin = time.perf_counter()
            train_grid(cells, rows, latents, Path(folder), workers=options.workers, progress=False)
            seconds[protocol] = time.perf_counter() - begin
            sample(pool)
    n_cells = len(halves["released"])
    plain = np.median(per_epoch) * epochs * n_cells / len(SPARSITIES) / options.workers
    data = (f"{len(layers)} layers x {len(SPARSITIES)} sparsities x {options.seeds} seeds, "
            f"{len(train_ND)} rows of {width}, {latents} latents")
    table = [("released", "numba", seconds["released"], n_cells, "train_grid"),
             ("corrected", "numba", seconds["corrected"], n_cells, "train_grid"),
             ("both", "numba", sum(seconds.values()), 2 * n_cells, "train_grid"),
             (LOOP, "torch", plain, n_cells, f"{len(per_epoch)} samples of "
              f"{options.plain_epochs} of {epochs} epochs at each sparsity, scaled"),
             ("compilation", "numba", compiled, 0, "once on a machine")]
    records = []
    for name, package, value, count, note in table:
        record = _record(data, name, package, float("nan"), 0, 16, "time", value, "s", 1, note)
        record["machine"] = record["machine"].replace(
            "one thread", f"{options.workers} processes of one thread")
        records.append(record)
        print(f"{name:16s} {count:4d} SAEs {value:8.1f} s  {note}", flush=True)
    path = HERE / "sae_grid.csv"
    with path.open(newline="", encoding="utf-8") as handle:  # one row of the report a day
        earlier = [one for one in csv.DictReader(handle) if one["date"] != records[0]["date"]]
    write(path, earlier + records)


if __name__ == "__main__":
    main()
