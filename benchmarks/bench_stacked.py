"""On a CPU: SAEs one by one in sparse steps, or side by side in stacked steps, by width.

    python benchmarks/bench_stacked.py        -> benchmarks/stacked.csv

Eight SAEs of the corrected recipe on made-up rows, one thread, both ways in turn. A whole training
of few epochs less one of a single epoch, so that what is paid once cancels out. The answer decides
`saeutils.sae_grid.train_grid`: one by one on a CPU, stacked on a GPU.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import time  # noqa: E402
from dataclasses import replace  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench_sae import HERE, _record, write  # noqa: E402

from saeutils.sae_stacked import train_stack  # noqa: E402
from saeutils.sae_training import CORRECTED, train_sae  # noqa: E402

SHAPES = ((8, 16), (16, 64), (32, 128), (64, 256), (192, 768), (768, 2048))
SAES, ROWS, EPOCHS, ROUNDS, SPARSITIES = 8, 512, 4, 5, (75, 95)


def seconds(train, epochs: int) -> float:
    """Processor time of a training of so many epochs."""
    begin = time.process_time()
    train(replace(CORRECTED, epochs=epochs, decay=0.0))
    return time.process_time() - begin


def main() -> None:
    torch.set_num_threads(1)
    rng, records = np.random.default_rng(0), []
    for width, latents in SHAPES:
        rows_ND = rng.standard_normal((ROWS + 64, width)).astype(np.float32)
        rows_ND = np.maximum(rows_ND @ rng.standard_normal((width, width)), 0).astype(np.float32)
        for sparsity in SPARSITIES:
            k = max(1, round((1 - sparsity / 100) * latents))
            jobs = [(rows_ND[:ROWS], rows_ND[ROWS:], k, seed) for seed in range(SAES)]

            def alone(recipe, jobs=jobs, latents=latents):
                for train_ND, held_ND, k, seed in jobs:
                    train_sae(train_ND, held_ND, latents, k, seed, recipe)

            def stacked(recipe, jobs=jobs, latents=latents):
                train_stack(jobs, latents, recipe)

            ways = {"one by one, sparse": alone, "stacked": stacked}
            taken = {name: [] for name in ways}
            for number in range(ROUNDS + 1):  # the first compiles
                for name, way in ways.items():
                    each = (seconds(way, EPOCHS) - seconds(way, 1)) / (EPOCHS - 1)
                    taken[name] += [each] if number else []
            for name, values in taken.items():
                speed = SAES * ROWS / np.median(values)
                records.append(_record(f"{width} -> {latents}", name, "torch" if name == "stacked"
                                       else "numba", sparsity, k, CORRECTED.batch,
                                       "rows per second", speed, "rows/s", ROUNDS, ""))
                print(width, latents, sparsity, name, f"{speed:,.0f} rows/s", flush=True)
    write(HERE / "stacked.csv", records)


if __name__ == "__main__":
    main()
