"""What bfloat16 products cost in accuracy: the corrected recipe in stacked steps, both ways.

    python benchmarks/bfloat16.py        -> benchmarks/bfloat16.csv

Two seeds at three sparsities on the demo run's middle layer, the same starts and batches; the
unexplained variance of unseen singers, and how far the two precisions and the two seeds differ.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench_sae import HERE, _record, demo_rows, write  # noqa: E402

from saeutils import sae_metrics  # noqa: E402
from saeutils.sae_stacked import train_stack  # noqa: E402


def main() -> None:
    torch.set_num_threads(1)
    train_ND, held_ND, test_ND = demo_rows()
    latents = 4 * train_ND.shape[1]
    cells = [(sparsity, round((1 - sparsity / 100) * latents), seed)
             for sparsity in (75, 95, 99) for seed in (0, 1)]
    jobs = [(train_ND, held_ND, k, seed) for _, k, seed in cells]
    records = []
    for name, kind in (("float32", None), ("bfloat16", torch.bfloat16)):
        saes = [sae for sae, _ in train_stack(jobs, latents, autocast=kind)]
        for (sparsity, k, seed), sae in zip(cells, saes, strict=True):
            value = sae_metrics.fvu(test_ND, sae.forward(test_ND))
            records.append(_record("demo", name, "torch", sparsity, k, 16, f"FVU, seed {seed}",
                                   value, "", 1, ""))
            print(name, sparsity, seed, f"{value:.5f}", flush=True)
    for sparsity in np.unique([one[0] for one in cells]):
        values = {(one["contender"], one["metric"]): float(one["value"]) for one in records
                  if one["sparsity"] == f"{sparsity:g}" and one["metric"].startswith("FVU")}
        k = next(k for s, k, _ in cells if s == sparsity)
        change = max(abs(values["bfloat16", f"FVU, seed {s}"] - values["float32", f"FVU, seed {s}"])
                     for s in (0, 1))
        apart = abs(values["float32", "FVU, seed 0"] - values["float32", "FVU, seed 1"])
        records += [_record("demo", "bfloat16", "torch", sparsity, k, 16, metric, value, "", 1, "")
                    for metric, value in (("change", change), ("between seeds", apart))]
    write(HERE / "bfloat16.csv", records)


if __name__ == "__main__":
    main()
