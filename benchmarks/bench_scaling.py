"""Whether cost grows as it should: time and peak memory at 1x, 2x, 4x, 8x clips and frames.

    python benchmarks/bench_scaling.py                 -> benchmarks/scaling.csv
    python benchmarks/bench_scaling.py --part frames   only the training on frames

Clips: the smoke chain with more singers, stage by stage, in a folder of its own. Frames: one
dictionary trained on shards of made-up frames (768 wide), one pass, each size in a fresh process.
Every row holds the ratio to 1x; `exponent` is the slope of log cost over log size: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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
SINGERS = 4
COLUMNS = ["part", "stage", "scale", "size", "seconds", "peak_memory_mb", "seconds_ratio",
           "memory_ratio", "exponent", "cores", "machine"]


def frames_once(n: int, folder: str) -> dict[str, float]:
    """Train on `n` frames in shards; seconds and peak memory of this process."""
    from safetensors.numpy import save_file

    from saeutils.machine import peak_memory_mb
    from saeutils.sae_stream import open_shards, train_stream
    from saeutils.sae_training import CORRECTED, Recipe

    rng = np.random.default_rng(0)
    directions = rng.standard_normal((64, WIDTH)).astype(np.float32)
    for number, first in enumerate(range(0, n, 8_192)):
        rows = min(8_192, n - first)
        amounts = rng.exponential(1, (rows, 64)).astype(np.float32)
        noise = 0.05 * rng.standard_normal((rows, WIDTH)).astype(np.float32)
        save_file({"frames": amounts @ directions + noise}, f"{folder}/{number:04d}.safetensors")
    shards = open_shards(Path(folder).glob("*.safetensors"))
    recipe = Recipe(**{**CORRECTED.__dict__, "epochs": 1})
    held = shards[0].read(0, 256)
    train_stream(shards[:1], held, LATENTS, K, 0, recipe, buffer=8_192)  # compile, fill caches
    start = time.perf_counter()
    train_stream(shards, held, LATENTS, K, 0, recipe, buffer=8_192)
    return {"seconds": time.perf_counter() - start, "peak_memory_mb": peak_memory_mb()}


def frames(scales: tuple[int, ...]) -> list[dict]:
    """One row for each number of frames."""
    rows = []
    for scale in scales:
        with tempfile.TemporaryDirectory() as folder:
            code = ("import json, sys; sys.path.insert(0, sys.argv[1]); import bench_scaling as b;"
                    "print(json.dumps(b.frames_once(int(sys.argv[2]), sys.argv[3])))")
            done = subprocess.run(
                [sys.executable, "-c", code, str(HERE), str(scale * FRAMES), folder], check=True,
                capture_output=True, text=True, env=_environment(folder))
        cost = json.loads(done.stdout.strip().splitlines()[-1])
        rows.append({"part": "frames", "stage": "sae_stream", "scale": scale,
                     "size": scale * FRAMES, **cost})
        print(rows[-1], flush=True)
    return rows


def clips(scales: tuple[int, ...], cores: int) -> list[dict]:
    """One row for each stage and number of singers, from the stages' own records."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SAEUTILS_DATA"] = folder
        for scale in scales:
            more = {"data.n_singers": SINGERS * scale, "data.n_test": scale,
                    "data.n_validation": scale, "encoders": ["demo"]}
            name = f"x{scale}"
            command = [sys.executable, "-m", "saeutils.run", "all", "--profile", "smoke",
                       "--run-name", name, "--cores", str(cores)]
            own = Path(folder) / f"{name}.yaml"
            own.write_text(json.dumps({
                "extends": "smoke", "name": name, "encoders": ["demo"],
                "data": {key.split(".")[1]: value for key, value in more.items()
                         if key.startswith("data.")}}), encoding="utf-8")  # JSON is YAML
            command[command.index("smoke")] = str(own)
            subprocess.run(command, check=True, cwd=ROOT, env=_environment(folder))
            for step in keys.chain(str(own), name):
                record = json.loads(step.record.read_text(encoding="utf-8"))
                rows.append({"part": "clips", "stage": step.label, "scale": scale,
                             "size": len(pd.read_parquet(step.run_root / "clips.parquet")),
                             "seconds": record["wall_seconds"],
                             "peak_memory_mb": record["peak_memory_mb"]})
            print(f"{scale}x: {sum(r['seconds'] for r in rows if r['scale'] == scale):.0f} s of "
                  "stages", flush=True)
    return rows


def finished(rows: list[dict], cores: int) -> pd.DataFrame:
    """The table with ratios to the smallest size and the slope of time over size."""
    table = pd.DataFrame(rows)
    parts = []
    for _, part in table.groupby(["part", "stage"], sort=False):
        part = part.sort_values("scale").copy()
        part["seconds_ratio"] = (part["seconds"] / part["seconds"].iloc[0]).round(2)
        part["memory_ratio"] = (part["peak_memory_mb"] / part["peak_memory_mb"].iloc[0]).round(2)
        slope = (np.polyfit(np.log(part["size"]), np.log(part["seconds"]), 1)[0]
                 if len(part) > 1 else np.nan)
        parts.append(part.assign(exponent=round(float(slope), 2), cores=cores,
                                 machine=platform.machine()))
    return pd.concat(parts, ignore_index=True)[COLUMNS].round({"seconds": 2})


def _environment(folder: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
    return dict(os.environ) | threads | {"PYTHONPATH": path, "SAEUTILS_DATA": folder}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["all", "clips", "frames"], default="all")
    parser.add_argument("--scales", type=int, nargs="+", default=list(SCALES))
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=HERE / "scaling.csv")
    options = parser.parse_args()
    rows = frames(tuple(options.scales)) if options.part != "clips" else []
    rows += clips(tuple(options.scales), options.cores) if options.part != "frames" else []
    table = finished(rows, options.cores)
    if options.part != "all" and options.out.is_file():
        kept = pd.read_csv(options.out)
        table = pd.concat([kept[kept["part"] != options.part], table], ignore_index=True)
    table.to_csv(options.out, index=False, lineterminator="\n")
    print(table.to_string())


if __name__ == "__main__":
    main()
