"""How fast SAEs train: steps against other people's code, and time to the released recipe's error.

    python benchmarks/bench_sae.py steps          -> benchmarks/sae_steps.csv
    python benchmarks/bench_sae.py fvu            -> benchmarks/sae_time_to_fvu.csv
    python benchmarks/bench_sae.py time           -> benchmarks/sae_equal_time.csv

All contenders of a table are timed in turn, round after round, in one process of one thread, and
medians are written: on a shared machine ratios carry over, seconds do not. Peers are used where
they are installed (an environment of their own, see benchmarks/README); one that is missing or
fails is a row that says so, never left out.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")

import argparse  # noqa: E402
import csv  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from dataclasses import replace  # noqa: E402
from datetime import date  # noqa: E402
from importlib.metadata import PackageNotFoundError, version  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import trajectories  # noqa: E402
from contenders import (  # noqa: E402
    CONTENDERS,
    FLOOR,
    LOOP,
    PEERS,
    Contender,
    floor_speed,
    why_not,
)

from saeutils import sae_metrics  # noqa: E402
from saeutils.sae import k_of_sparsity  # noqa: E402
from saeutils.sae_training import (  # noqa: E402
    CORRECTED,
    RELEASED,
    train_sae,
)

COLUMNS = ["data", "contender", "version", "sparsity", "k", "batch", "metric", "value", "unit",
           "rounds", "note", "machine", "date"]
SPARSITIES = (75, 80, 85, 90, 95, 99)
PATIENCE = 5  # times our seconds to the error: how long a peer is given to get there


def structured_rows(n: int, width: int = 768, atoms: int = 4096, active: int = 40, seed: int = 0):
    """Sums of about 40 of 4,096 random directions; power-law rates, exponential amounts.

    Noise of 15 % and a common offset of three standard deviations are added: pooled states of
    real encoders have both.
    """
    rng = np.random.default_rng(seed)
    directions = (rng.standard_normal((atoms, width)) / np.sqrt(width)).astype(np.float32)
    rates = (1.0 + np.arange(atoms)) ** -0.8
    rates = np.minimum(rates * active / rates.sum(), 0.9)
    rows = np.concatenate([
        ((rng.random((m, atoms)) < rates) * rng.exponential(1, (m, atoms))).astype(np.float32)
        @ directions for m in [1000] * (n // 1000)])
    spread = rows.std()
    rows += 0.15 * spread * rng.standard_normal(rows.shape, dtype=np.float32)
    return rows + 3 * spread * rng.standard_normal(width, dtype=np.float32)


def demo_rows(layer: int = 3):
    """Training, validation and test rows of the demo run's layer, corrected pooling."""
    import pandas as pd
    from safetensors.numpy import load_file

    run = HERE.parent / "data" / "demo"
    if not (run / "demo" / "activations.safetensors").exists():
        raise SystemExit("no demo activations: run `make reproduce` first")
    split = pd.read_parquet(run / "clips.parquet")["split"].to_numpy()
    acts = load_file(run / "demo" / "activations.safetensors")["masked"][:, layer]
    return [acts[split == name] for name in ("train", "validation", "test")]


def rows_of(data: str) -> list[np.ndarray]:
    """Training, validation and test rows, "demo" or "structured"."""
    if data == "demo":
        return demo_rows()
    rows = structured_rows(10_000)
    return [rows[:8000], rows[8000:9000], rows[9000:]]


def latents_of(rows_ND: np.ndarray) -> int:
    """How wide a dictionary of these rows is."""
    width = rows_ND.shape[1]
    return 2048 if width == 768 else 4 * width


def bench_steps(rounds: int, sparsities, shapes) -> list[dict]:
    """Rows per second of one SAE under training: forward, backward, optimiser."""
    import torch

    torch.set_num_threads(1)
    records = []
    for data, width, latents, batch in shapes:
        rows = structured_rows(1000, width)[: 16 * batch]
        rows /= rows.std()
        for sparsity in sparsities:
            k = int((1 - sparsity / 100) * latents)
            ready, failed = {}, {}
            for name, (make, _) in CONTENDERS.items():
                torch.manual_seed(0)
                try:
                    ready[name] = make(width, latents, k, batch).train
                    ready[name](rows[: 2 * batch])
                except Exception as error:  # a peer may fail in any way: it becomes a row
                    ready.pop(name, None)
                    failed[name] = why_not(error)
            seconds = {name: [] for name in ready}
            floors = []
            for _ in range(rounds):
                for name, train in ready.items():
                    begin = time.perf_counter()
                    train(rows)
                    seconds[name].append(time.perf_counter() - begin)
                floors.append(floor_speed(width, latents, k, batch))
            records.append(_record(data, FLOOR, "numpy", sparsity, k, batch, "speed",
                                   np.median(floors), "rows/s", rounds, ""))
            for name, (_, package) in CONTENDERS.items():
                value = len(rows) / np.median(seconds[name]) if name in ready else float("nan")
                records.append(_record(data, name, package, sparsity, k, batch, "speed", value,
                                       "rows/s", rounds, failed.get(name, "")))
                print(f"{data} {sparsity:g} % {name:24s} {value:8.0f} rows/s",
                      failed.get(name, ""), flush=True)
    return records


def bench_fvu(rounds: int, sparsities, data: str, epochs: int) -> list[dict]:
    """Seconds until the validation error that the released recipe ends at, and what is left then.

    The target comes from one whole training of the released recipe. The corrected recipe and the
    peers are then trained until they are there, judged alike: before the first step and `LOOKS`
    times an epoch, at no cost; peers for `PATIENCE` times our seconds at most. The release's loop
    and the released recipe in our steps take the same steps from the same kind of start, so their
    seconds are the epochs that it needs times the seconds of an epoch; on the small demo rows the
    loop is trained out as well, and its own error written. What is short is timed in turn, round
    after round.
    """
    import torch

    torch.set_num_threads(1)
    train, held, test = rows_of(data)
    latents, records = latents_of(train), []
    for sparsity in sparsities:
        records += _fvu_cell(train, held, test, latents, sparsity, data, epochs, rounds)
    return records


def _fvu_cell(train_ND, held, test, latents, sparsity, data, epochs, rounds) -> list[dict]:
    k = k_of_sparsity(sparsity, latents, "released")
    # the epoch of the lowest validation error, not the last batch: in the released recipe's favour
    recipes = {"released": replace(RELEASED, epochs=epochs, pick="validation"),
               "corrected": CORRECTED}
    trained = {name: train_sae(train_ND, held, latents, k, 0, recipe)
               for name, recipe in recipes.items()}
    lowest = {name: min(row["validation_fvu"] for row in history)
              for name, (_, history) in trained.items()}
    target = lowest["released"]
    needed = next(row["epoch"] for row in trained["released"][1]
                  if row["validation_fvu"] <= target)
    there, costs = _in_turn(train_ND, held, latents, k, recipes, target, rounds)
    reached = {LOOP: (needed, costs[LOOP] * needed),
               "ours, released": (needed, costs["ours, released"] * needed),
               "ours, corrected": there}
    records = []

    def keep(name: str, values: dict, note: str = "") -> None:
        package = CONTENDERS.get(name, (0, "numba"))[1]
        records.extend(_record(data, name, package, sparsity, k, RELEASED.batch, metric, value,
                               unit, rounds, note) for metric, (value, unit) in values.items())
        print(f"{data} {sparsity:g} % {name:19s} " + ", ".join(
            f"{metric} {value:.4g}" for metric, (value, _) in values.items()), note, flush=True)

    for name, (n_epochs, seconds) in reached.items():
        sae, history = trained["corrected" if name.endswith("corrected") else "released"]
        values = {"time to released FVU": (seconds, "s"),
                  "epochs to released FVU": (n_epochs, "epochs"),
                  "time of an epoch": (costs[name], "s"), "epochs": (len(history), "epochs")}
        if name == LOOP and data == "demo":
            loop = _trained_out(train_ND, latents, k, epochs)
            values |= _what_is_left(loop.rebuild(test), loop.codes(train_ND), test)
        elif name != LOOP:
            values["lowest FVU over the target"] = lowest[name.split()[-1]] / target, ""
            values |= _what_is_left(sae.forward(test), sae.encode(train_ND), test)
        keep(name, values)
    ours = max(1.0, min(seconds for _, seconds in list(reached.values())[1:]
                        if np.isfinite(seconds)))
    for name in PEERS:
        try:
            values = _until(name, train_ND, held, latents, k, target, PATIENCE * ours)
        except Exception as error:  # a peer may fail in any way: it becomes a row
            keep(name, {"time to released FVU": (float("nan"), "s")}, why_not(error))
        else:
            keep(name, values)
    return records


def _in_turn(train_ND, held, latents, k, recipes, target, rounds):
    """The corrected recipe's epochs and seconds to the target, and everyone's seconds an epoch."""
    loop = CONTENDERS[LOOP][0](train_ND.shape[1], latents, k, RELEASED.batch)
    sample = train_ND[:1600]
    seconds = {LOOP: [], "ours, released": []}
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        loop.train(sample)
        seconds[LOOP].append((time.perf_counter() - begin) * len(train_ND) / len(sample))
        one, five = (_timed(lambda n=n: train_sae(
            sample, held[:320], latents, k, 0, replace(recipes["released"], epochs=n)))
            for n in (1, 5))  # from the difference: an epoch without what is paid once
        seconds["ours, released"].append((five - one) / 4 * len(train_ND) / len(sample))
        found.append(_ours_until(train_ND, held, latents, k, recipes["corrected"], target))
    costs = {name: float(np.median(values)) for name, values in seconds.items()}
    costs["ours, corrected"] = float(np.median([per_epoch for *_, per_epoch in found]))
    n_epochs, spent = found[0][0], float(np.median([spent for _, spent, _ in found]))
    return (n_epochs, spent), costs


def _timed(work) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _ours_until(train_ND, held, latents, k, recipe, target) -> tuple[float, float, float]:
    """Train a recipe until its validation error is `target`: epochs, seconds (NaN: never), seconds
    of an epoch. Where the start is there already, the seconds are those of making it."""
    for look in trajectories.ours(train_ND, held, latents, k, recipe):
        if look.fvu <= target:
            break
    per_epoch = (look.seconds - look.once) / look.epochs if look.epochs else float("nan")
    there = look.fvu <= target
    return (look.epochs if there else float("nan"), look.seconds if there else float("nan"),
            per_epoch)


def _what_is_left(rebuilt, codes, test) -> dict:
    return {"final FVU, unseen rows": (sae_metrics.fvu(test, rebuilt), ""),
            "dead fraction": (sae_metrics.dead_fraction(codes), "")}


def _trained_out(train_ND, latents, k, epochs) -> Contender:
    """The release's loop after all its epochs."""
    import torch

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    loop = CONTENDERS[LOOP][0](train_ND.shape[1], latents, k, RELEASED.batch)
    for _ in range(epochs):
        loop.train(train_ND[rng.permutation(len(train_ND))])
    return loop


def _until(name, train_ND, held, latents, k, target, given) -> dict:
    """Train a peer until its validation error is `target`, `given` seconds at most."""
    lowest = np.inf
    for look in trajectories.peer(name, train_ND, held, latents, k):
        lowest = min(lowest, look.fvu)
        if look.seconds >= given or lowest <= target:
            break
    there = lowest <= target
    return {"time to released FVU": (look.seconds if there else float("nan"), "s"),
            "epochs to released FVU": (look.epochs if there else float("nan"), "epochs"),
            "time of an epoch": (look.seconds / look.epochs if look.epochs else float("nan"), "s"),
            "time given": (look.seconds, "s"),
            "lowest FVU over the target": (lowest / target, "")}


def bench_time(sparsities, data: str) -> list[dict]:
    """What the release's loop and the peers reach in the time of our whole training.

    And the seconds in which ours had come as far: the released error is poor on some rows, and
    there a race to it says little about where a training ends. All train once, one after the other.
    """
    import torch

    torch.set_num_threads(1)
    train, held, _ = rows_of(data)
    latents, records = latents_of(train), []
    for sparsity in sparsities:
        k = k_of_sparsity(sparsity, latents, "released")
        train_sae(train[:64], held[:64], latents, k, 0, replace(CORRECTED, epochs=1))  # compiles
        path = list(trajectories.ours(train, held, latents, k, CORRECTED))
        seconds = path[-1].seconds
        for name in ("ours, corrected", LOOP, *PEERS):
            note, values = "", {}
            try:
                lowest = min(look.fvu for look in path) if name.startswith("ours") else \
                    _lowest_in(trajectories.peer(name, train, held, latents, k), seconds)
            except Exception as error:  # a peer may fail in any way: it becomes a row
                lowest, note = float("nan"), why_not(error)
            values["lowest FVU in our time"] = lowest, ""
            values["our time to it"] = next((look.seconds for look in path if look.fvu <= lowest),
                                            float("nan")), "s"
            values["time given"] = seconds, "s"
            package = CONTENDERS.get(name, (0, "numba"))[1]
            records += [_record(data, name, package, sparsity, k, RELEASED.batch, metric, value,
                                unit, 1, note) for metric, (value, unit) in values.items()]
            print(f"{data} {sparsity:g} % {name:19s}", values, note, flush=True)
    return records


def _lowest_in(looks, seconds: float) -> float:
    lowest = np.inf
    for look in looks:
        lowest = min(lowest, look.fvu)
        if look.seconds >= seconds:
            return lowest
    raise AssertionError("a peer's training has no end")


def processor() -> str:
    """The processor by its name where the system says it, else its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()}{f' ({named[0]})' if named else ''}"


def _record(data, name, package, sparsity, k, batch, metric, value, unit, rounds, note) -> dict:
    try:
        found = version(package)
    except PackageNotFoundError:
        found = ""
    machine = f"{processor()}, {os.cpu_count()} cores, one thread"
    return dict(zip(COLUMNS, [data, name, f"{package} {found}".strip(), f"{sparsity:g}", k, batch,
                              metric, f"{value:.6g}", unit, rounds, note, machine,
                              date.today().isoformat()], strict=True))


def write(path: Path, records: list[dict]) -> None:
    """One CSV per benchmark, replaced as a whole."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def update(path: Path, records: list[dict]) -> None:
    """As `write`, but rows of data and sparsities that were not measured now stay."""
    kept = []
    if path.exists():
        measured = {(one["data"], one["sparsity"]) for one in records}
        with path.open(newline="", encoding="utf-8") as handle:
            kept = [one for one in csv.DictReader(handle)
                    if (one["data"], one["sparsity"]) not in measured]
    names = list(dict.fromkeys(one["data"] for one in [*records, *kept]))
    write(path, sorted([*records, *kept], key=lambda one: (names.index(one["data"]),
                                                           float(one["sparsity"]))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("steps", "fvu", "time"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--data", nargs="+", default=["demo", "structured"])
    parser.add_argument("--epochs", type=int, default=100, help="of the released recipe")
    options = parser.parse_args()
    if options.what == "steps":
        shapes = {"structured": ("768 -> 2048", 768, 2048, 16),
                  "demo": ("192 -> 768", 192, 768, 16)}
        records = bench_steps(options.rounds, options.sparsities,
                              [shapes[name] for name in options.data])
        update(HERE / "sae_steps.csv", records)
    elif options.what == "time":
        for name in options.data:
            for sparsity in options.sparsities:
                update(HERE / "sae_equal_time.csv", bench_time([sparsity], name))
    else:
        for name in options.data:
            for sparsity in options.sparsities:
                update(HERE / "sae_time_to_fvu.csv",
                       bench_fvu(options.rounds, [sparsity], name, options.epochs))


if __name__ == "__main__":
    main()
