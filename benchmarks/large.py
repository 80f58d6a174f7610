"""The arithmetic of 10,000 hours of audio and frame-level SAEs: benchmarks/large.md.

    python benchmarks/large.py [--hours 10000]

Every minute is work times a cost measured in a CSV beside this file or in `saeutils.estimates`, or
assumed below and called so; the sums stand in the page.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from saeutils import estimates
from saeutils.profiles import load_profile

HERE = Path(__file__).resolve().parent
FRAMES_PER_S, WIDTH, STATES, LATENTS, SPARSITY = 50, 768, 13, 2_048, 95
CLIP_S, POOLINGS = 10, 2
DISK_MB_S = 500.0  # assumed of a shared disk
LOOK_S = 2e-4  # assumed of a shared disk: to ask for a file's size and time stamps
DATA_WORKERS = 2  # of stage 01, in the Snakefile
JOBS = 100  # of a split extraction, as an example


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
    clips = seconds / CLIP_S
    states = clips * STATES * WIDTH * 4
    rate = speed()
    train = frames / rate / 3600
    return [
        ("audio, 16 kHz FLAC", f"{wav * 0.6 / 1e12:.2f} TB", "",
         f"{seconds:,.0f} s x 32,000 B x 0.6"),
        ("checksums of all files", f"{clips * 184 / 1e9:.1f} GB",
         f"{wav * 0.6 / DISK_MB_S / 1e6 / 3600:.1f} to read once",
         f"disk assumed {DISK_MB_S:.0f} MB/s; 184 B remembered for each of {clips:,.0f} files"),
        ("attributes (one row for 10 s)", f"{clips * 88 * 8 / 1e9:.1f} GB",
         f"{seconds * estimates.ATTRIBUTES_S / 3600:,.0f}",
         f"{seconds:,.0f} s x {estimates.ATTRIBUTES_S} s"),
        ("extraction, time-averaged (10 s)", f"{states / 1e9:.0f} GB each of {POOLINGS} poolings",
         f"{core:,.0f} (GPU: {gpu:,.0f})",
         f"{seconds:,.0f} s x {gflop:.0f} GFLOP / {estimates.REFERENCE_GFLOPS:.0f} GFLOP/s; GPU "
         f"assumed {estimates.GPU_TFLOPS:.0f} TFLOP/s"),
        ("memory of one extraction job", f"{POOLINGS * states / 1e9:.0f} GB", "",
         f"{clips:,.0f} clips x {STATES} x {WIDTH} x 4 B x {POOLINGS} poolings, `--split` or not"),
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
    clips = hours * 3600 / CLIP_S
    states = clips * STATES * WIDTH * 4
    looks = clips * LOOK_S / 3600
    attributes = hours * estimates.ATTRIBUTES_S
    asked = next(cost.memory_gb for cost in estimates.costs(load_profile("paper"))
                 if cost.stage == "02_hubert")
    page = [f"# {hours:,.0f} hours of audio, and SAEs of single frames", "",
            "Arithmetic, nothing here was run: made by `python benchmarks/large.py` from measured "
            "costs (sae_steps.csv; `saeutils.estimates`), one core of the measured machine, good "
            "to a factor of two. A model of HuBERT's base size, 2,048 latents.", "",
            "| what | size | core hours | how |", "|---|---|---|---|"]
    page += [f"| {a} | {b} | {c} | {d} |" for a, b, c, d in rows]
    page += [
        "", "What breaks first, in this order:", "",
        "1. **A look at every file, again and again.** Whether anything is to be done depends on "
        "all audio. It is read once for its checksums, which are remembered; then every command, "
        f"job and kernel asks the disk for the size and time stamps of {clips:,.0f} files: "
        f"{clips:,.0f} x {1000 * LOOK_S:.1f} ms (assumed) = {60 * looks:.0f} min. A job on a "
        "cluster does so up to three times (Snakemake, the command, its kernel): "
        f"{3 * looks:.1f} h each, {3 * JOBS * looks:.0f} h in sum for {JOBS} jobs. Fewer, longer "
        "clips help; so does a corpus in several runs.",
        f"2. **Stage 01 is one job.** It cannot be split. The Snakefile gives it {DATA_WORKERS} "
        f"workers: {attributes:,.0f} core hours / {DATA_WORKERS} = "
        f"{attributes / DATA_WORKERS / 24:.0f} days. By hand it takes the cores of one machine, "
        "`SAEUTILS_WORKERS=64 python -m saeutils.run 01 --profile P`: "
        f"{attributes / 64:.0f} h, and goes on where it stopped. `data.attributes` takes a table "
        "that was computed elsewhere.",
        "3. **The memory of extraction.** Each job makes room for the states of all clips, "
        f"{POOLINGS * states / 1e9:.0f} GB, whatever its part of them, and opens the header of "
        f"every file. The estimate of stage 02 counts model and batch alone ({asked:.1f} GB), and "
        "a cluster is asked for 1.5 times that: the jobs are killed. `--split` does not help "
        "today; a run for each part of the corpus does: "
        f"{clips / 20:,.0f} clips need {POOLINGS * states / 20e9:.0f} GB. Stage 03 reads all of it "
        "back into memory.",
        "4. **Extraction without GPUs.** Clips are cut into shards of whole batches, and results "
        "do not depend on who computes which: `--split N` makes one encoder N jobs, which the "
        "notebook of stage 02 gathers, and `extraction.device: cuda` asks for one GPU a job; so "
        "does `sae.device: cuda` for training.",
        f"5. **The disk for frames.** All {STATES} states of every frame do not belong on a disk: "
        "extract one layer at a time into shards, train, remove the shards. "
        "`saeutils.sae_stream` reads shards in chunks and keeps one buffer, whatever their "
        "number. (The frames come from `encoders.states`; the loop that writes them is yours.)",
        f"6. **One pass over {frames:,.0f} frames.** Dictionaries of this width are commonly "
        "trained on far fewer: a random tenth of the shards is the first thing to try.",
        "7. **Probes and maps in memory.** They hold the codes of all clips at once. A sample of "
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
