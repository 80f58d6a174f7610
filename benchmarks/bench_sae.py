"""How fast SAEs train: steps against other people's code, and time to the released recipe's error.

    python benchmarks/bench_sae.py steps          -> benchmarks/sae_steps.csv
    python benchmarks/bench_sae.py fvu            -> benchmarks/sae_time_to_fvu.csv
    python benchmarks/bench_sae.py report         -> benchmarks/sae.md, from the two tables

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

from saeutils.sae import linear_start  # noqa: E402
from saeutils.sae_sparse import SparseSteps  # noqa: E402
from saeutils.sae_torch import DenseSteps  # noqa: E402
from saeutils.sae_training import CORRECTED, RELEASED, train_sae  # noqa: E402

COLUMNS = ["data", "contender", "version", "sparsity", "k", "batch", "metric", "value", "unit",
           "rounds", "note", "machine", "date"]
SPARSITIES = (75, 80, 85, 90, 95, 99)


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


# contenders: each is made once and then given matrices of whole batches ------------------------
def release_loop(width, latents, k, batch):
    """The release's loop as its paper describes it: modules, autograd, Adam as torch has it."""
    import torch

    encoder = torch.nn.Linear(width, latents)
    decoder = torch.nn.Linear(latents, width, bias=False)
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

    def train(rows):
        for x in torch.from_numpy(rows).split(batch):
            pre = torch.relu(encoder(x))
            values, places = pre.topk(k, dim=1)
            codes = torch.zeros_like(pre).scatter(1, places, values)
            loss = torch.nn.functional.mse_loss(decoder(codes), x)
            adam.zero_grad()
            loss.backward()
            adam.step()
            loss.item()

    return train


def _ours(steps_class):
    def make(width, latents, k, batch):
        steps = steps_class(linear_start(width, latents, 0), k, batch, False)
        nobody = np.zeros(latents, bool)
        return lambda rows: steps.epoch(rows, np.arange(len(rows)), 1e-3, nobody)

    return make


def sae_lens(width, latents, k, batch):
    import torch
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=width, d_sae=latents, k=k))
    adam = torch.optim.Adam(sae.parameters(), lr=1e-3)

    def train(rows):
        for x in torch.from_numpy(rows).split(batch):
            out = sae.training_forward_pass(TrainStepInput(x, {}, None, 1, False))
            adam.zero_grad()
            out.loss.backward()
            adam.step()

    return train


def dictionary_learning(width, latents, k, batch):
    import torch
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(steps=10**6, activation_dim=width, dict_size=latents, k=k, layer=0,
                          lm_name="none", lr=1e-3, device="cpu")
    count = [0]

    def train(rows):
        for x in torch.from_numpy(rows).split(batch):
            trainer.update(count[0], x)
            count[0] += 1

    return train


def sparsify(width, latents, k, batch):
    import torch
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(width, SparseCoderConfig(num_latents=latents, k=k), device="cpu")
    adam = torch.optim.Adam(coder.parameters(), lr=1e-3)

    def train(rows):
        for x in torch.from_numpy(rows).split(batch):
            loss = coder(x).fvu
            adam.zero_grad()
            loss.backward()
            coder.remove_gradient_parallel_to_decoder_directions()
            adam.step()
            coder.set_decoder_norm_to_unit_norm()

    return train


def overcomplete(width, latents, k, batch):
    import matplotlib
    import torch

    matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap  # overcomplete 0.3 asks for the old name
    from overcomplete.sae import TopKSAE

    sae = TopKSAE(width, nb_concepts=latents, top_k=k, device="cpu")
    adam = torch.optim.Adam(sae.parameters(), lr=1e-3)

    def train(rows):
        for x in torch.from_numpy(rows).split(batch):
            _, codes = sae.encode(x)
            loss = torch.nn.functional.mse_loss(sae.decode(codes), x)
            adam.zero_grad()
            loss.backward()
            adam.step()

    return train


CONTENDERS = {
    "release's loop": (release_loop, "torch"), "ours, dense (torch)": (_ours(DenseSteps), "torch"),
    "ours, sparse (numba)": (_ours(SparseSteps), "numba"), "sae-lens": (sae_lens, "sae-lens"),
    "dictionary_learning": (dictionary_learning, "dictionary-learning"),
    "sparsify": (sparsify, "eai-sparsify"), "overcomplete": (overcomplete, "overcomplete"),
}


LOOP = "release's loop"
PEERS = ("sae-lens", "dictionary_learning", "sparsify", "overcomplete")
FLOOR = "floor of a sparse step"


def floor_speed(width: int, latents: int, k: int, batch: int) -> float:
    """Rows per second that arithmetic and memory of this machine allow a sparse step, measured now.

    Arithmetic: the dense encoder product and four sparse ones, at the speed of a float32 matrix
    product of these sizes. Memory: the encoder once, and weights and two Adam moments of each
    latent that fires in the batch, read and written, at the speed of a copy. The slower of both.
    """
    rows, weights = np.ones((batch, width), np.float32), np.ones((width, latents), np.float32)
    rows @ weights
    begin = time.perf_counter()
    for _ in range(20):
        rows @ weights
    flops = 20 * 2 * batch * width * latents / (time.perf_counter() - begin)
    source = np.ones(30_000_000, np.float32)
    target = np.empty_like(source)
    np.copyto(target, source)
    begin = time.perf_counter()
    np.copyto(target, source)
    rate = 2 * source.nbytes / (time.perf_counter() - begin)
    arithmetic = (2 * batch * width * latents + 8 * batch * k * width) / flops
    firing = latents * (1 - (1 - k / latents) ** batch)
    memory = 4 * width * (latents + 12 * firing) / rate
    return batch / max(arithmetic, memory)


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
                    train = make(width, latents, k, batch)
                    train(rows[: 2 * batch])
                    ready[name] = train
                except Exception as error:  # a peer may fail in any way: it becomes a row
                    failed[name] = f"not run: {type(error).__name__}: {error}".split("\n")[0][:150]
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

    Errors per epoch come from one whole training of each recipe; seconds are epochs times the
    median seconds of an epoch, timed in turn. The released recipe in sparse steps gives the errors
    of the release's loop too: it is the same recipe from the same kind of start.
    """
    import torch

    torch.set_num_threads(1)
    if data == "demo":
        train, held, test = demo_rows()
    else:
        rows = structured_rows(10_000)
        train, held, test = rows[:8000], rows[8000:9000], rows[9000:]
    width = train.shape[1]
    latents = 2048 if width == 768 else 4 * width
    records = []
    for sparsity in sparsities:
        records += _fvu_cell(train, held, test, latents, sparsity, data, epochs, rounds)
    return records


def _fvu_cell(train_ND, held, test, latents, sparsity, data, epochs, rounds) -> list[dict]:
    from saeutils import sae_metrics

    failed: dict[str, str] = {}
    k = round((1 - sparsity / 100) * latents)
    recipes = {"released": replace(RELEASED, epochs=epochs, pick="validation"),
               "corrected": CORRECTED}
    trained = {name: train_sae(train_ND, held, latents, k, 0, recipe)
               for name, recipe in recipes.items()}
    target = min(row["validation_fvu"] for row in trained["released"][1])
    needed = {name: next((row["epoch"] for row in history if row["validation_fvu"] <= target),
                         float("nan")) for name, (_, history) in trained.items()}
    loop = release_loop(train_ND.shape[1], latents, k, RELEASED.batch)
    sample = train_ND[:1600]
    timed = {"release's loop": lambda: loop(sample)}
    for name in PEERS:  # the released objective at their speed: epochs as the release needs
        make, _ = CONTENDERS[name]
        try:
            train = make(train_ND.shape[1], latents, k, RELEASED.batch)
            train(sample[: 2 * RELEASED.batch])
            timed[name] = lambda train=train: train(sample)
        except Exception as error:  # a peer may fail in any way: it becomes a row
            failed[name] = f"not run: {type(error).__name__}: {error}".split("\n")[0][:150]
    for name, recipe in recipes.items():  # from the difference: an epoch, and what is paid once
        for epochs_timed in (1, 5):
            part = replace(recipe, epochs=epochs_timed, decay=0.0)
            timed[f"ours, {name}", epochs_timed] = lambda r=part: train_sae(
                sample, held[:320], latents, k, 0, r)
    seconds = {name: [] for name in timed}
    for _ in range(rounds):
        for name, work in timed.items():
            begin = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - begin)
    scale = len(train_ND) / len(sample)
    middle = {name: float(np.median(values)) * scale for name, values in seconds.items()}
    costs = {name: (0.0, value) for name, value in middle.items() if isinstance(name, str)}
    for name in (f"ours, {recipe}" for recipe in recipes):
        per_epoch = (middle[name, 5] - middle[name, 1]) / 4
        costs[name] = (max(middle[name, 1] - per_epoch, 0.0), per_epoch)
    records = []
    for name, (once, per_epoch) in costs.items():
        recipe = "corrected" if name.endswith("corrected") else "released"
        sae, history = trained[recipe]
        values = {
            "time to released FVU": (once + per_epoch * needed[recipe], "s"),
            "epochs to released FVU": (needed[recipe], "epochs"),
            "time of an epoch": (per_epoch, "s"), "epochs": (len(history), "epochs"),
            "final FVU, unseen rows": (sae_metrics.fvu(test, sae.forward(test)), ""),
            "dead fraction": (sae_metrics.dead_fraction(sae.encode(train_ND)), ""),
        }
        if name in PEERS:  # what it would end at was not trained out
            values = dict(list(values.items())[:3])
        package = {"release's loop": "torch"}.get(name) or CONTENDERS.get(name, (0, "numba"))[1]
        records += [_record(data, name, package, sparsity, k,
                            RELEASED.batch, metric, value, unit, rounds, "")
                    for metric, (value, unit) in values.items()]
        print(f"{data} {sparsity:g} % {name:18s} " + ", ".join(
            f"{metric} {value:.4g}" for metric, (value, _) in values.items()), flush=True)
    records += [_record(data, name, CONTENDERS[name][1], sparsity, k, RELEASED.batch,
                        "time to released FVU", float("nan"), "s", rounds, note)
                for name, note in failed.items()]
    return records


def _record(data, name, package, sparsity, k, batch, metric, value, unit, rounds, note) -> dict:
    try:
        found = version(package)
    except PackageNotFoundError:
        found = ""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread"
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


def report() -> str:
    """The two tables as prose and Markdown: every number is read from them."""
    import pandas as pd

    def ratio_to(table, contender):
        return table.div(table.loc[contender], axis=1)

    parts = ["# SAE benchmarks\n", "Written by `python benchmarks/bench_sae.py report`; ratios "
             "carry over to other machines, seconds do not.\n"]
    steps = pd.read_csv(HERE / "sae_steps.csv")
    parts.append(f"Machine: {steps['machine'].iloc[0]}, shared with other work; "
                 f"{steps['date'].iloc[0]}; medians of {steps['rounds'].iloc[0]} rounds in turn.\n")
    order = list(dict.fromkeys(steps["contender"]))
    for shape, rows in steps.groupby("data", sort=False):
        speed = rows.pivot(index="contender", columns="sparsity", values="value").loc[order]
        times = ratio_to(speed, "release's loop")
        parts.append(f"## Rows per second, {shape}, batch {rows['batch'].iloc[0]} "
                     "(times the release's loop)\n")
        parts.append(_markdown(speed.round(0), lambda n, c, v, t=times: _cell(v, t.loc[n, c])))
    failed = steps.dropna(subset="note").drop_duplicates(["contender", "note"])
    parts += [f"- {row.contender}: {row.note}" for row in failed.itertuples()]
    path = HERE / "sae_time_to_fvu.csv"
    if path.exists():
        table = pd.read_csv(path)
        for data, rows in table.groupby("data", sort=False):
            parts.append(f"## Time to the released recipe's validation error, {data} rows\n")
            wide = rows.pivot(index=["sparsity", "contender"], columns="metric", values="value")
            parts.append(_markdown(wide[["epochs to released FVU", "time of an epoch",
                                         "time to released FVU", "final FVU, unseen rows",
                                         "dead fraction"]],
                                   lambda n, c, v: "never" if v != v else f"{v:.3g}"))
    return "\n".join(parts) + "\n"


def _cell(value: float, times: float) -> str:
    return "not run" if value != value else f"{value:,.0f} ({times:.1f}x)"


def _markdown(table, show) -> str:
    names = [" / ".join(map(str, name)) if isinstance(name, tuple) else str(name)
             for name in table.index]
    lines = ["| | " + " | ".join(str(column) for column in table.columns) + " |",
             "|---" * (len(table.columns) + 1) + "|"]
    for label, (index, row) in zip(names, table.iterrows(), strict=True):
        lines.append(f"| {label} | " + " | ".join(show(index, c, v) for c, v in row.items()) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("steps", "fvu", "report"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--data", nargs="+", default=["demo", "structured"])
    parser.add_argument("--epochs", type=int, default=100, help="of the released recipe")
    options = parser.parse_args()
    if options.what == "report":
        (HERE / "sae.md").write_text(report(), encoding="utf-8")
    elif options.what == "steps":
        shapes = {"structured": ("768 -> 2048", 768, 2048, 16),
                  "demo": ("192 -> 768", 192, 768, 16)}
        records = bench_steps(options.rounds, options.sparsities,
                              [shapes[name] for name in options.data])
        update(HERE / "sae_steps.csv", records)
    else:
        for name in options.data:
            for sparsity in options.sparsities:
                update(HERE / "sae_time_to_fvu.csv",
                       bench_fvu(options.rounds, [sparsity], name, options.epochs))


if __name__ == "__main__":
    main()
