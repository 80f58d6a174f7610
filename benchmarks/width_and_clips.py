"""What is left unexplained, by width of the dictionary and number of clips, beside the PCA bound.

    python benchmarks/width_and_clips.py        -> benchmarks/width_and_clips.csv

Corrected recipe on the demo run's middle layer, as many active latents at every width (5 % of four
times the states' width), training clips drawn at random, the same ones at every width. `pca` is
the error of the best k linear components of the same clips, the bound for any k directions that
all clips share.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np  # noqa: E402
from bench_sae import HERE, _record, demo_rows, write  # noqa: E402

from saeutils import sae_metrics  # noqa: E402
from saeutils.sae_training import train_sae  # noqa: E402

FACTORS, SHARES, SEEDS = (1, 2, 4, 8), (0.25, 0.5, 1.0), (0, 1, 2)


def main() -> None:
    train_ND, held_ND, test_ND = demo_rows()
    width = train_ND.shape[1]
    k = round(0.05 * 4 * width)
    order = np.random.default_rng(0).permutation(len(train_ND))
    records = []

    def add(name, package, n, latents, split, values):
        for metric, value in zip(("FVU", "SD over seeds"), (np.mean(values), np.std(values)),
                                 strict=True):
            records.append(_record(f"{n} clips, {latents} latents", name, package, 95, k, 16,
                                   f"{metric}, {split}", value, "", len(values), ""))

    for share in SHARES:
        part_ND = train_ND[np.sort(order[: round(share * len(train_ND))])]
        bounds = {split: sae_metrics.pca_bound(part_ND, rows_ND, k)
                  for split, rows_ND in (("train", part_ND), ("test", test_ND))}
        for factor in FACTORS:
            saes = [train_sae(part_ND, held_ND, factor * width, k, seed)[0] for seed in SEEDS]
            for split, rows_ND in (("train", part_ND), ("test", test_ND)):
                values = [sae_metrics.fvu(rows_ND, sae.forward(rows_ND)) for sae in saes]
                add("corrected", "numba", len(part_ND), factor * width, split, values)
                add("pca", "numpy", len(part_ND), factor * width, split, [bounds[split]])
                print(len(part_ND), factor * width, split, f"{np.mean(values):.4f}",
                      f"pca {bounds[split]:.4f}", flush=True)
    write(HERE / "width_and_clips.csv", records)


if __name__ == "__main__":
    main()
