"""What a run costs before it starts: clips, minutes, disk and memory per stage, with the sums.

Every time is work times a measured cost of that work, scaled by how fast one core of this machine
multiplies matrices beside the one that was measured. Good to a factor of two, enough to choose
between now, overnight and another machine.
"""

from __future__ import annotations

import csv
import os
import time
from dataclasses import dataclass
from pathlib import Path

from saeutils import keys
from saeutils.inputs import listed_paths
from saeutils.profiles import ROOT, Profile, encoder_slug, load_profile, place
from saeutils.protocol import PRIMARY_SPARSITY

REFERENCE_GFLOPS = 75.0  # one core of the measured machine, float32 matrices
CORE_SHARE = 0.8  # what each further core adds: processes share memory
GPU_TFLOPS = 10.0  # assumed of a GPU, float32, in the estimate for extraction.device: cuda
DOWNLOAD_MB_S = 10.0
# Work of one second of sound in 1e9 operations: 50 (MERT: 75) frames a second through 12 blocks of
# width 768, and the convolutions before them. AST always computes its window of 10.24 s.
GFLOP_PER_SECOND = {"hubert": 14.0, "wavlm": 14.0, "wavlm_as_released": 14.0, "mert": 21.0,
                    "demo": 0.75, "untrained": 0.75}
AST_GFLOP = 260.0
WEIGHTS_MB = {"ast": 346, "mert": 378, "demo": 12, "untrained": 12}
WIDTH = {"demo": 192, "untrained": 192}  # else 768
STATES = {"demo": 7, "untrained": 7}  # else 13
AUDIT_PASSES = 7  # of each clip of the audit's sample
# The seconds below lie between those of the two machines of benchmarks/chain_runs.csv.
KERNEL_S, KERNEL_GB = 30.0, 0.9  # a notebook's start, and the memory of its imports
ATTRIBUTES_S = 0.06  # openSMILE, per second of sound at 44.1 kHz
RENDER_S = 0.08  # one synthetic clip
STEPS_SHARE = 0.5  # of training's time; the rest validates, wakes latents, measures and saves
PRUNED = ".pruned"  # lies beside dictionaries of which only the best seed is left
# Seconds per cell, clip and latent at 768 latents, growing with the latents (Gram matrices): the
# demo's stages of benchmarks/chain.csv over their 532 cells, 1,010 clips and 768 latents. For 04
# times 1.7: what six folds and two scales added to its time between two published runs, beyond
# what the slower machine of the second added to stage 05, whose work stayed the same.
CODES_S = {"04": 6e-7, "05": 4e-7}


@dataclass(frozen=True)
class Cost:
    """One stage of one encoder."""

    stage: str
    minutes: float
    disk_gb: float
    memory_gb: float
    sums: str


@dataclass(frozen=True)
class Clips:
    """How many clips, how long, and how many of them train."""

    n: int
    n_train: int
    seconds: float
    known: str

    @property
    def hours(self) -> float:
        """All of them, in hours."""
        return self.n * self.seconds / 3600


def expected_clips(profile: Profile) -> Clips:
    """Clips of a profile, counted or, before the data are there, by their published counts."""
    data = profile.data
    if data.source == "vocalset":
        from saeutils.vocalset import PAPER_COUNTS

        n = sum(PAPER_COUNTS.values())
        return Clips(n, round(PAPER_COUNTS["training singers"] * 11 / 15), 7.0,
                     "by the paper's counts, 7 s a clip")
    if data.source in ("folder", "activations"):
        table = place(data.labels) if data.labels else None
        n = len(listed_paths(table)) if table else 0
        if data.source == "activations" and table and table.is_file():
            n = len(table.read_text(encoding="utf-8-sig").split("\n")) - 2
        train = round(n * (1 - data.test_share - data.validation_share))
        return Clips(n, train, 5.0 if data.source == "folder" else 0.0,
                     "lines of the label table, 5 s a clip assumed")
    per_singer = 16 * data.vowels_per_technique + 1 + data.crossed_per_singer
    n = data.n_singers * per_singer + data.n_extra_singers * data.extra_per_singer
    learn = data.n_singers - data.n_validation - data.n_test
    return Clips(n, learn * per_singer, data.clip_seconds, "by the design")


def one_core_gflops(seconds: float = 0.2) -> float:
    """Float32 matrix products of one thread of this machine, in 1e9 operations a second."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    size = 512
    left = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    with threadpool_limits(1):
        left @ left  # warm
        start, rounds = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            left @ left
            rounds += 1
        return 2 * size**3 * rounds / (time.perf_counter() - start) / 1e9


def rows_per_second(name: str = "768 -> 2048") -> float:
    """Training rows a second of the sparse SAE step, measured: benchmarks/sae_steps.csv."""
    speeds = []
    path = ROOT / "benchmarks" / "sae_steps.csv"
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as handle:
            speeds = [float(row["value"]) for row in csv.DictReader(handle)
                      if row["data"] == name and row["contender"] == "ours, sparse (numba)"
                      and row["metric"] == "speed"]
    return len(speeds) / sum(1 / s for s in speeds) if speeds else 1500.0


def costs(profile: Profile, gflops: float = REFERENCE_GFLOPS) -> list[Cost]:
    """Every stage of a run, on one core of `gflops`.

    Raises
    ------
    ValueError
        A profile without clips: its label table is missing or empty.
    """
    clips = expected_clips(profile)
    if clips.n < 1:
        raise ValueError(f"no clips to estimate: data.labels = {profile.data.labels!r} lists none")
    slow = REFERENCE_GFLOPS / gflops
    found = [_data(profile, clips, slow)]
    for name in profile.encoders:
        found += _encoder(profile, encoder_slug(name), clips, slow, gflops)
    figures = 0.5 + 0.2 * len(profile.encoders)
    return [*found, Cost("06", figures * slow, 0.02, 1.0, "tables and figures")]


def costs_or_none(profile: Profile) -> list[Cost]:
    """As `costs`, of the measured core; none where a profile has no clips to count."""
    try:
        return costs(profile)
    except (ValueError, OSError):
        return []


def _data(profile: Profile, clips: Clips, slow: float) -> Cost:
    data, hours = profile.data, clips.hours
    seconds, disk = KERNEL_S * slow, 0.0
    sums = f"{clips.n:,} clips ({clips.known}), {hours:.1f} h of sound"
    if data.source == "activations":
        return Cost("01", seconds / 60, 0.001, KERNEL_GB, sums)
    if data.source == "vocalset" and not data.vocalset_dir:
        from saeutils.vocalset import RELEASES

        release = RELEASES[data.vocalset_version]
        disk += release.n_bytes / 1e9 + release.hours * 3600 * 88_200 / 1e9
        seconds += release.n_bytes / 1e6 / DOWNLOAD_MB_S
        sums += (f"; download {release.n_bytes / 1e9:.1f} GB at {DOWNLOAD_MB_S:.0f} MB/s, "
                 f"unpacked {release.hours * 3600 * 88_200 / 1e9:.1f} GB")
    if not data.attributes:
        seconds += hours * 3600 * ATTRIBUTES_S * slow
        sums += f"; attributes {ATTRIBUTES_S} s per s"
    if data.source == "synthetic":
        moved = data.n_bases * data.n_steps * 12
        seconds += (clips.n + 0.4 * moved) * RENDER_S * slow
        disk += (hours * 3600 + moved * data.base_seconds) * 32_000 / 1e9
        sums += f"; {clips.n + moved:,} clips sung, {RENDER_S} s each"
    return Cost("01", seconds / 60, disk, KERNEL_GB + 0.2, sums)


def _encoder(
    profile: Profile, name: str, clips: Clips, slow: float, gflops: float
) -> list[Cost]:
    width, states = WIDTH.get(name, 768), STATES.get(name, 13)
    sae, window = profile.sae, profile.extraction.released_window_seconds
    if profile.extraction.activations:
        heard, work = 0.0, 0.0
    elif name == "ast":
        windows = 1 + max(1.0, clips.seconds / 10.24)
        heard, work = clips.n * windows * 10.24, clips.n * windows * AST_GFLOP
    else:
        heard = clips.n * (clips.seconds + window)
        work = heard * GFLOP_PER_SECOND.get(name, 14.0)
    if work:  # the audit of stage 02: some seven passes of a sample, and whole sets where asked
        passes = AUDIT_PASSES * min(profile.extraction.audit_clips, clips.n)
        if profile.extraction.audit_all and name != "ast":
            passes += clips.n_train + (clips.n if name in ("wavlm", "mert") else 0)
        heard += passes * (10.24 if name == "ast" else window)
        work += passes * (AST_GFLOP if name == "ast" else window * GFLOP_PER_SECOND.get(name, 14.0))
    on_gpu = profile.extraction.device in ("cuda", "auto") and _has_gpu(profile)
    speed = GPU_TFLOPS * 1000 if on_gpu else gflops
    weights = WEIGHTS_MB.get(name, 378) / 1000
    batch = profile.extraction.batch_seconds
    two = Cost(f"02_{name}", (KERNEL_S * slow + work / speed) / 60,
               clips.n * states * width * 4 * 2 / 1e9 + 2 * weights,
               KERNEL_GB + 2 * weights + batch * 20e-3 * (1 if width == 768 else 0.4),
               f"{heard / 3600:.1f} h through the encoder, {work / 1e3:,.0f} Tera-operations at "
               f"{speed:,.0f} G/s{' on a GPU (assumed)' if on_gpu else ''}")
    latents = sae.latents or sae.width_factor * width
    chosen = sae.layers.get(name, "all")
    layers = states if chosen == "all" else len(chosen)
    n_each = layers * len(sae.sparsities) * sae.n_seeds
    further = layers * _further_seeds(profile)
    n_saes = 2 * n_each + further
    rows = (n_each * sae.epochs + (n_each + further) * sae.corrected_epochs) * clips.n_train
    pace = rows_per_second() * (768 * 2048) / (width * latents) / slow
    each = 2 * width * latents * 4 / 1e9
    kept = n_saes if sae.keep_saes == "all" else 2 * layers * len(sae.sparsities)
    three = Cost(f"03_{name}", (KERNEL_S * slow + rows / pace / STEPS_SHARE) / 60, n_saes * each,
                 KERNEL_GB + 6 * each + clips.n * layers * width * 4 * 2 / 1e9,
                 f"{n_saes} dictionaries, {rows:,} rows at {pace * STEPS_SHARE:,.0f} rows/s; "
                 f"{each * 1000:.1f} MB each, {kept * each:.1f} GB stay (sae.keep_saes: "
                 f"{sae.keep_saes})")
    cells = 4 * n_each + 2 * _further_seeds(profile) + 4 * states
    more = []
    for stage, share in CODES_S.items():
        seconds = cells * clips.n * latents * share * (latents / 768) * slow
        more.append(Cost(f"{stage}_{name}", (KERNEL_S * slow + seconds) / 60, 0.02,
                         KERNEL_GB + 0.3 + 12 * clips.n * latents * 8 / 1e9,
                         f"{cells} cells x {clips.n:,} clips x {latents:,} latents at "
                         f"{share * latents / 768:.1e} s"))
    shown = profile.atlas.encoders
    if not shown or name in shown:
        sound = profile.atlas.frame_clips * clips.seconds
        atlas = sound * GFLOP_PER_SECOND.get(name, 26.0) / gflops
        more.append(Cost(f"07_{name}", (2 * KERNEL_S * slow + atlas) / 60, 0.03, KERNEL_GB + 0.8,
                         f"{profile.atlas.n_latents} latents, frames of "
                         f"{profile.atlas.frame_clips} clips"))
    else:
        more.append(Cost(f"07_{name}", KERNEL_S * slow / 60, 0.0, KERNEL_GB, "no atlas asked for"))
    return [two, three, *more]


def _has_gpu(profile: Profile) -> bool:
    return profile.extraction.device == "cuda" or any(
        Path(path).exists() for path in ("/dev/nvidia0", "/proc/driver/nvidia"))


def report(
    profile: str, overrides: dict | None = None, cores: int | None = None,
    gflops: float | None = None,
) -> str:
    """The estimate as text: one line a stage, then the total for this machine.

    Parameters
    ----------
    profile, overrides
        As in `saeutils.profiles.load_profile`.
    cores
        Processes of one thread at a time; default all cores.
    gflops
        Speed of one core; default measures it, which takes a moment.
    """
    loaded = load_profile(profile, overrides)
    cores = cores or os.cpu_count() or 1
    speed = gflops or one_core_gflops()
    rows = costs(loaded, speed)
    lines = [f"Estimate for profile {loaded.name}, one core of {speed:.0f} GFLOP/s (measured now; "
             f"costs are those of a core of {REFERENCE_GFLOPS:.0f}), good to a factor of two:",
             f"  {'stage':<22}{'min':>7}{'disk GB':>9}{'mem GB':>8}  how"]
    lines += [f"  {row.stage:<22}{row.minutes:>7.1f}{row.disk_gb:>9.2f}{row.memory_gb:>8.1f}  "
              f"{row.sums}" for row in rows]
    minutes = sum(row.minutes for row in rows)
    together = minutes / (1 + CORE_SHARE * (cores - 1))
    after = sum(row.disk_gb for row in rows)
    freed = sum(_freed(loaded, row) for row in rows)
    lines += [
        f"  {'all, one core':<22}{minutes:>7.0f}{after:>9.1f}"
        f"{max(row.memory_gb for row in rows):>8.1f}",
        f"  {cores} cores: {minutes:.0f} min / (1 + {CORE_SHARE} x {cores - 1}) = "
        f"{_spoken(together)}; up to {cores} stages at once, so memory up to "
        f"{sum(sorted((r.memory_gb for r in rows), reverse=True)[:cores]):.0f} GB"]
    if freed:
        lines.append(f"  disk after the run: {after - freed:.1f} GB, since sae.keep_saes: best "
                     "keeps one seed")
    if loaded.extraction.device == "cpu" and any(n not in WIDTH for n in loaded.encoders):
        work = sum(row.minutes - KERNEL_S * REFERENCE_GFLOPS / speed / 60 for row in rows
                   if row.stage.startswith("02"))
        gpu = work * speed / (GPU_TFLOPS * 1000)
        lines.append(f"  with one GPU (extraction.device: cuda, {GPU_TFLOPS:.0f} TFLOP/s assumed): "
                     f"{work:.0f} min of stage 02 become {gpu:.1f}; all then takes "
                     f"{_spoken((minutes - work + gpu) / (1 + CORE_SHARE * (cores - 1)))}, beside "
                     f"16 cores {_spoken((minutes - work + gpu) / (1 + CORE_SHARE * 15))}")
    lines.append("  every stage is resumable: a run that is killed goes on where it stopped")
    return "\n".join(lines)


def _freed(profile: Profile, row: Cost) -> float:
    if profile.sae.keep_saes == "all" or not row.stage.startswith("03"):
        return 0.0
    cells = 2 * len(profile.sae.sparsities)
    return row.disk_gb * (1 - cells / (cells * profile.sae.n_seeds + _further_seeds(profile)))


def _further_seeds(profile: Profile) -> int:
    """Seeds that one layer gets at the primary sparsity beyond those of every cell."""
    if PRIMARY_SPARSITY not in profile.sae.sparsities:
        return 0
    return max(0, profile.sae.primary_seeds - profile.sae.n_seeds)


def _spoken(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def prune(steps: list[keys.Step], profile: Profile) -> int:
    """After a whole run with ``sae.keep_saes: best``: remove all seeds of a cell but the best.

    The best is the one of lowest validation loss in ``results/sae_training.csv``. Returns how many
    were removed. `unprune` trains the others again when a stage needs them: the flag that tells it
    so comes before the first removal, and what a kill left undone the next call does.
    """
    from saeutils.files import read_table
    from saeutils.sae_grid import remove_sae

    removed = 0
    for step in (s for s in steps if s.number == "03" and s.marker.exists()):
        table = read_table(step.root / "results" / "sae_training.csv")
        part = table[(table["representation"] == "sae") & (table["metric"] == "fvu")
                     & (table["split"] == "validation")]
        best = part.loc[part.groupby(["layer", "protocol", "sparsity"])["value"].idxmin()]
        keep = {(row.protocol, row.layer, f"{row.sparsity:g}", row.seed)
                for row in best.itertuples()}
        (step.root / "saes" / PRUNED).touch()
        for row in part.itertuples():
            if (row.protocol, row.layer, f"{row.sparsity:g}", row.seed) not in keep:
                folder = (step.root / "saes" / row.protocol / f"layer_{row.layer:02d}"
                          / f"sparsity_{row.sparsity:g}" / f"seed_{row.seed}")
                removed += remove_sae(folder)
    return removed


def unprune(steps: list[keys.Step]) -> list[str]:
    """Let stage 03 run again where dictionaries were removed and a stage that reads them is due.

    Stage 03 then trains only what is missing. Returns the labels of the stages that will run.
    """
    again = []
    for step in (s for s in steps if s.number == "03" and s.marker.exists()):
        flag = step.root / "saes" / PRUNED
        due = [s for s in steps if step in s.needs and s.encoder and not s.marker.exists()]
        if flag.exists() and due:
            step.marker.unlink()
            flag.unlink()
            again.append(step.label)
    return again
