"""The arithmetic of 10,000 hours of audio and frame-level SAEs: benchmarks/large.md.

    python benchmarks/large.py [--hours 10000]

Every minute is work times a cost measured in a CSV beside this file or in `saeutils.estimates`; the
sums stand in the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from saeutils import estimates

HERE = Path(__file__).resolve().parent
FRAMES_PER_S, WIDTH, STATES, LATENTS, SPARSITY = 50, 768, 13, 2_048, 95
DISK_MB_S = 500.0  # assumed of a shared disk


def speed(sparsity: int = SPARSITY) -> float:
    """Rows a second and core of the sparse step, 768 -> 2048, measured."""
    rows = pd.read_csv(HERE / "sae_steps.csv")
    chosen = rows[(rows["data"] == "768 -> 2048") & (rows["sparsity"] == sparsity)
                  & (rows["contender"] == "ours, sparse (numba)") & (rows["metric"] == "speed")]
    return float(chosen["value"].median())


def table(hours: float) -> list[tuple[str, str, str, str]]:
    """Rows stage, bytes, core hours, how."""
    seconds = hours * 3600
    frames = seconds * FRAMES_PER_S
    gflop = estimates.GFLOP_PER_SECOND["hubert"]
    core = seconds * gflop / estimates.REFERENCE_GFLOPS / 3600
    gpu = seconds * gflop / (estimates.GPU_TFLOPS * 1000) / 3600
    wav, one = seconds * 16_000 * 2, frames * WIDTH * 4
    clips = seconds / 10
    rate = speed()
    train = frames / rate / 3600
    return [
        ("audio, 16 kHz FLAC", f"{wav * 0.6 / 1e12:.2f} TB", "",
         f"{seconds:,.0f} s x 32,000 B x 0.6"),
        ("attributes (one row for 10 s)", f"{clips * 88 * 8 / 1e9:.1f} GB",
         f"{seconds * estimates.ATTRIBUTES_S / 3600:,.0f}",
         f"{seconds:,.0f} s x {estimates.ATTRIBUTES_S} s"),
        ("extraction, time-averaged (10 s)", f"{clips * STATES * WIDTH * 4 / 1e9:.0f} GB",
         f"{core:,.0f} (GPU: {gpu:,.0f})",
         f"{seconds:,.0f} s x {gflop:.0f} GFLOP / {estimates.REFERENCE_GFLOPS:.0f} GFLOP/s; GPU "
         f"assumed {estimates.GPU_TFLOPS:.0f} TFLOP/s"),
        ("frames of one layer", f"{one / 1e12:.1f} TB",
         f"{one / DISK_MB_S / 1e6 / 3600:.1f} to read once",
         f"{frames:,.0f} frames x {WIDTH} x 4 B; disk assumed {DISK_MB_S:.0f} MB/s"),
        (f"frames of all {STATES} states", f"{STATES * one / 1e12:.0f} TB", "",
         f"{STATES} x the row above"),
        (f"one SAE, one pass ({SPARSITY} %)", f"{2 * WIDTH * LATENTS * 4 / 1e6:.0f} MB",
         f"{train:,.0f}", f"{frames:,.0f} frames / {rate:,.0f} rows/s (sae_steps.csv)"),
        ("probes and maps", f"{clips * LATENTS * 4 / 1e9:.0f} GB of codes", "see below",
         f"{clips:,.0f} rows of 10 s x {LATENTS} codes x 4 B, in memory"),
    ]


def text(hours: float) -> str:
    """The page."""
    rows = table(hours)
    frames = hours * 3600 * FRAMES_PER_S
    page = [f"# {hours:,.0f} hours of audio, and SAEs of single frames", "",
            "Arithmetic, nothing here was run: made by `python benchmarks/large.py` from measured "
            "costs (sae_steps.csv; `saeutils.estimates`), one core of the measured machine, good "
            "to a factor of two. A model of HuBERT's base size, 2,048 latents.", "",
            "| what | size | core hours | how |", "|---|---|---|---|"]
    page += [f"| {a} | {b} | {c} | {d} |" for a, b, c, d in rows]
    page += [
        "", "What breaks first, in this order:", "",
        f"1. **The disk for frames.** All {STATES} states of every frame do not belong on a disk: "
        "extract one layer at a time into shards, train, remove the shards. "
        "`saeutils.sae_stream` reads shards in chunks and keeps one buffer, whatever their "
        "number. (The frames come from `encoders.states`; the loop that writes them is yours.)",
        "2. **Extraction without GPUs.** Clips are cut into shards of whole batches, and results "
        "do not depend on who computes which: `--split N` makes one encoder N jobs, which the "
        "notebook of stage 02 gathers, and `extraction.device: cuda` asks for one GPU a job.",
        f"3. **One pass over {frames:,.0f} frames.** Dictionaries of this width are commonly "
        "trained on far fewer: a random tenth of the shards is the first thing to try.",
        "4. **Probes and maps in memory.** They hold the codes of all clips at once. A sample of "
        "some ten thousand clips by group gives the same intervals as all of them, since groups, "
        "not clips, are the unit.", "",
        "Clusters: `python -m saeutils.run all --profile P --cluster slurm` "
        "([profile](../profiles/cluster/slurm/config.yaml)) makes each stage of each encoder a "
        "job, and `--split N` its extraction N jobs. Snakemake's other executors take the same "
        "Snakefile: Kubernetes, AWS Batch, Google Batch, LSF, HTCondor and a generic one for any "
        "command that submits; each is a plug-in and a folder beside the one of SLURM. A "
        "site without any of them runs stages by hand: "
        "`python -m saeutils.run 02 --profile P -p encoder E --part 3/8` on each machine, then the "
        "same without `--part`, needs only a shared folder.", ""]
    return "\n".join(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=10_000)
    options = parser.parse_args()
    (HERE / "large.md").write_text(text(options.hours), encoding="utf-8")
    print(text(options.hours))


if __name__ == "__main__":
    main()
