"""On a GPU: the paper-sized grid of SAEs and 100,000 frames, with the share of the floor.

    python benchmarks/bench_gpu.py                  -> benchmarks/gpu.csv
    python benchmarks/bench_gpu.py --device cpu --small     a try without a GPU, written nowhere

Grid: one layer of the paper's, 6 sparsities x 5 seeds side by side in stacked steps, 1,000 rows of
768 and 2,048 latents, the released recipe; eight layers are eight times that. Frames: one
dictionary of the same shape on 100,000 rows, one pass, batches of 4,096. The floor is the larger
of what arithmetic and memory allow: five matrix products a step at the speed of such a product, or
weights, gradients and two moments read and written at the speed of a copy, both measured in the
same run.
Nothing in the project needs a GPU.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from bench_sae import HERE, SPARSITIES, _record, structured_rows, write
from contenders import FLOOR

from saeutils.sae import k_of_sparsity
from saeutils.sae_stacked import train_stack
from saeutils.sae_training import CORRECTED, RELEASED, train_sae

LAYERS, SEEDS, ROUNDS = 8, 5, 5


def waited(device: str) -> float:
    """The time, once the device has done all it was asked for."""
    if device != "cpu":
        getattr(torch, device).synchronize()
    return time.perf_counter()


def best_of(work, device: str, times: int = 20) -> float:
    """Seconds of one call of `work`, over many."""
    work()
    begin = waited(device)
    for _ in range(times):
        work()
    return (waited(device) - begin) / times


def floor_seconds(device: str, stack: int, batch: int, width: int, latents: int) -> float:
    """Seconds that one step of `stack` dictionaries must take on this device."""
    rows = torch.ones(stack, batch, width, device=device)
    weights = torch.ones(stack, width, latents, device=device)
    product = best_of(lambda: torch.bmm(rows, weights), device)
    source, target = (torch.ones(2**26, device=device) for _ in range(2))
    rate = 2 * source.nbytes / best_of(lambda: target.copy_(source), device)
    # encoder and decoder: each with gradient and two moments, read and written
    return max(5 * product, 2 * weights.nbytes * 4 * 2 / rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a try: small sizes, nothing written")
    options = parser.parse_args()
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU that torch can use (cuda): nothing was run. The CPU's benchmarks "
                         "are bench_sae.py and bench_grid.py")
    width, latents, n_rows, epochs, n_frames, rounds = 768, 2048, 1000, 100, 100_000, ROUNDS
    if options.small:
        width, latents, n_rows, epochs, n_frames, rounds = 64, 128, 1000, 2, 8192, 1
    rows = structured_rows(n_frames // 1000 * 1000 + 1000, width)
    train, held = rows[:n_rows], rows[-1000:]
    ks = [k_of_sparsity(sparsity, latents, "released") for sparsity in SPARSITIES]
    jobs = [(train, held, k, seed) for k in ks for seed in range(SEEDS)]
    released = replace(RELEASED, epochs=epochs)
    frames = replace(CORRECTED, epochs=1, decay=0.0, jitter=0.0, batch=min(4096, n_frames // 4))
    steps = {"grid": -(-n_rows // released.batch) * epochs, "frames": n_frames // frames.batch}
    shapes = {"grid": (len(jobs), released.batch), "frames": (1, frames.batch)}
    works = {"grid": lambda: train_stack(jobs, latents, released, device),
             "frames": lambda: train_sae(rows[:-1000], held, latents, ks[4], 0, frames, "dense",
                                         device)}
    names = {"grid": f"{len(jobs)} SAEs of one layer, {n_rows} rows, {epochs} epochs",
             "frames": f"{len(rows) - 1000} frames, one pass"}
    records = []
    for what, work in works.items():
        seconds, floors = [], []
        for number in range(rounds + 1):  # the first compiles and loads
            begin = waited(device)
            work()
            taken = waited(device) - begin
            if number:
                seconds.append(taken)
                floors.append(steps[what] * floor_seconds(device, *shapes[what], width, latents))
        for name, values in (("ours", seconds), (FLOOR, floors)):
            records.append(_record(names[what], name, "torch", float("nan"), 0, shapes[what][1],
                                   "time", np.median(values), "s", rounds, ""))
        middle, floor = np.median(seconds), np.median(floors)
        print(f"{names[what]}: {middle:.2f} s, floor {floor:.2f} s, share {floor / middle:.0%}",
              f"({LAYERS} layers: {LAYERS * middle:.0f} s)" if what == "grid" else "", flush=True)
    if not options.small:
        card = torch.cuda.get_device_name() if device == "cuda" else device
        write(HERE / "gpu.csv", [record | {"machine": card} for record in records])


if __name__ == "__main__":
    main()
