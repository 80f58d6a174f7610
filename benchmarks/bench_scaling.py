"""Whether cost grows as it should: time and peak memory at 1x, 2x, 4x, 8x clips and frames.

    python benchmarks/bench_scaling.py                 -> benchmarks/scaling.csv
    python benchmarks/bench_scaling.py --part frames   only the training on frames
    python benchmarks/bench_scaling.py --part rows     ten million narrow rows from the disk

Clips: the smoke chain with more singers, stage by stage on one core, in a folder of its own.
Frames: one dictionary trained on shards of made-up frames (768 wide), one pass, each size in a
fresh process. Rows: the same with a hundred thousand, a million and ten million rows of width 64
(2.6 GB on the disk), for the memory. The measure is processor time (user and system, of a stage
and all it starts), which other work on the machine hardly changes. Every row holds the ratio to 1x.
`exponent`: from the last two steps alone, as log2 of (cost at 8x - at 4x) / (at 4x - at 2x): 1 is
linear, and what a stage costs before its first clip cancels out; empty where a step adds less than
half a second, which is noise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from saeutils import keys
from saeutils.profiles import ROOT

HERE = Path(__file__).resolve().parent
SCALES = (1, 2, 4, 8)
FRAMES, WIDTH, LATENTS, K = 16_384, 768, 2_048, 102
ROWS, NARROW, ROW_SCALES = 100_000, 64, (1, 10, 100)
SINGERS = 4
COLUMNS = ["part", "stage", "scale", "size", "cpu_seconds", "peak_memory_mb",
           "cpu_ratio", "memory_ratio", "exponent", "machine"]
LEAST_S = 0.5  # a doubling that adds less says nothing about growth


def frames_once(n: int, folder: str, width: int = WIDTH, latents: int = LATENTS,
                k: int = K) -> dict[str, float]:
    """Train on `n` frames in shards; time and peak memory of this process."""
    from safetensors.numpy import save_file

    from saeutils.machine import peak_memory_mb
    from saeutils.sae_stream import open_shards, train_stream
    from saeutils.sae_training import CORRECTED, Recipe

    rng = np.random.default_rng(0)
    directions = rng.standard_normal((64, width)).astype(np.float32)
    for number, first in enumerate(range(0, n, 8_192)):
        rows = min(8_192, n - first)
        amounts = rng.exponential(1, (rows, 64)).astype(np.float32)
        noise = 0.05 * rng.standard_normal((rows, width)).astype(np.float32)
        save_file({"frames": amounts @ directions + noise}, f"{folder}/{number:05d}.safetensors")
    shards = open_shards(Path(folder).glob("*.safetensors"))
    recipe = Recipe(**{**CORRECTED.__dict__, "epochs": 1})
    held = shards[0].read(0, 256)
    train_stream(shards[:1], held, latents, k, 0, recipe, buffer=8_192)  # compile, fill caches
    used = time.process_time()
    train_stream(shards, held, latents, k, 0, recipe, buffer=8_192)
    return {"cpu_seconds": time.process_time() - used,
            "peak_memory_mb": peak_memory_mb()}


def frames(scales: tuple[int, ...]) -> list[dict]:
    """One row for each number of frames."""
    return [streamed("frames", scale, FRAMES, WIDTH, LATENTS, K) for scale in scales]


def narrow_rows() -> list[dict]:
    """One row for each number of narrow rows, up to ten million."""
    return [streamed("rows", scale, ROWS, NARROW, 4 * NARROW, NARROW // 5) for scale in ROW_SCALES]


def streamed(part: str, scale: int, least: int, *shape: int) -> dict:
    """Training on ``scale * least`` rows of this width, latents and k, in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        code = ("import json, sys; sys.path.insert(0, sys.argv[1]); import bench_scaling as b;"
                "print(json.dumps(b.frames_once(int(sys.argv[3]), sys.argv[2],"
                " *map(int, sys.argv[4:]))))")
        done = subprocess.run(
            [sys.executable, "-c", code, str(HERE), folder, *map(str, (scale * least, *shape))],
            check=True, capture_output=True, text=True, env=_environment(folder))
    cost = json.loads(done.stdout.strip().splitlines()[-1])
    row = {"part": part, "stage": "sae_stream", "scale": scale, "size": scale * least, **cost}
    print(row, flush=True)
    return row


def clips(scales: tuple[int, ...]) -> list[dict]:
    """One row for each stage and number of singers, and one for the whole chain."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SAEUTILS_DATA"] = folder
        for scale in scales:
            name, own = f"x{scale}", Path(folder) / f"x{scale}.yaml"
            own.write_text(json.dumps({  # JSON is YAML
                "extends": "smoke", "name": name, "encoders": ["demo"],
                "data": {"n_singers": SINGERS * scale, "n_test": scale, "n_validation": scale},
            }), encoding="utf-8")
            found = [stage_once(step, str(own), folder) for step in keys.chain(str(own), name)]
            size = len(pd.read_parquet(Path(folder) / name / "clips.parquet"))
            total = sum(row["cpu_seconds"] for row in found)
            peak = max(row["peak_memory_mb"] for row in found)
            found.append({"stage": "all", "cpu_seconds": total, "peak_memory_mb": peak})
            rows += [{"part": "clips", "scale": scale, "size": size, **row} for row in found]
            print(f"{scale}x, {size} clips: {total:.0f} s", flush=True)
    return rows


def stage_once(step: keys.Step, profile: str, folder: str) -> dict:
    """Run one stage as a user would; its time and that of everything it started."""
    command = [sys.executable, "-m", "saeutils.run", step.number, "--profile", profile,
               "--run-name", step.run, *(("-p", "encoder", step.encoder) if step.encoder else ())]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=ROOT, env=_environment(folder),
                   stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = json.loads(step.record.read_text(encoding="utf-8"))
    return {"stage": step.label,
            "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "peak_memory_mb": record["peak_memory_mb"]}


def finished(rows: list[dict]) -> pd.DataFrame:
    """The table with ratios to the smallest size and the exponent of the last doublings."""
    parts = []
    for _, part in pd.DataFrame(rows).groupby(["part", "stage"], sort=False):
        part = part.sort_values("scale").copy()
        part["cpu_ratio"] = (part["cpu_seconds"] / part["cpu_seconds"].iloc[0]).round(2)
        part["memory_ratio"] = (part["peak_memory_mb"] / part["peak_memory_mb"].iloc[0]).round(2)
        growth = exponent(part["cpu_seconds"].to_numpy(), part["scale"].to_numpy())
        parts.append(part.assign(exponent=growth,
                                 machine=platform.machine()))
    table = pd.concat(parts, ignore_index=True)[COLUMNS]
    return table.round({"cpu_seconds": 2, "peak_memory_mb": 1})


def exponent(costs: np.ndarray, scales: np.ndarray) -> float:
    """Growth over the last two steps, what costs nothing per clip left out; NaN in noise.

    >>> exponent(np.array([7.0, 9.0, 13.0]), np.array([2, 4, 8]))
    1.0
    """
    added = np.diff(costs[-3:])
    if len(added) < 2 or added.min() < LEAST_S:
        return float("nan")
    return round(float(np.log(added[1] / added[0]) / np.log(scales[-1] / scales[-2])), 2)


def _environment(folder: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
    return dict(os.environ) | threads | {"PYTHONPATH": path, "SAEUTILS_DATA": folder,
                                         "SAEUTILS_WORKERS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["all", "clips", "frames", "rows"], default="all")
    parser.add_argument("--scales", type=int, nargs="+", default=list(SCALES))
    parser.add_argument("--out", type=Path, default=HERE / "scaling.csv")
    options = parser.parse_args()
    wanted = {"all": ("frames", "rows", "clips")}.get(options.part, (options.part,))
    rows = frames(tuple(options.scales)) if "frames" in wanted else []
    rows += narrow_rows() if "rows" in wanted else []
    rows += clips(tuple(options.scales)) if "clips" in wanted else []
    table = finished(rows)
    if options.part != "all" and options.out.is_file():
        kept = pd.read_csv(options.out)
        table = pd.concat([kept[kept["part"] != options.part], table], ignore_index=True)
    table.to_csv(options.out, index=False, lineterminator="\n")
    print(table.to_string())


if __name__ == "__main__":
    main()
