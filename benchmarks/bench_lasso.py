"""How fast attribute maps are: 88 Lasso fits on one set of codes, against other people's code.

    python benchmarks/bench_lasso.py        -> benchmarks/lasso.csv

400 clips, 2,048 codes, 88 attributes with the correlations of attributes (13 effective
dimensions), penalty 0.1: the size of the paper's maps, with all codes alive and with three
quarters of them dead. Contenders are timed in turn in one process of one thread; medians are
written. `gap` is the largest objective, relative to a reference solved to a duality gap of 1e-12.
In the same turns: the choice of the penalty, ten penalties in five folds of 20 made-up singers
with a last fit on all clips, which is to take about as long as one fit target by target.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402

import numpy as np  # noqa: E402
from bench_sae import HERE, _record, write  # noqa: E402

from saeutils.lasso import lasso, standardise  # noqa: E402
from saeutils.penalties import PENALTIES, penalty_path  # noqa: E402
from saeutils.statistics import grouped_folds  # noqa: E402

ALPHA = 0.1


def material(alive: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Standardised codes [400, 2048], sparse and non-negative, and attributes [400, 88]."""
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((400, 40))
    codes = np.maximum(causes @ rng.standard_normal((40, 2048)) / 6
                       + 0.3 * rng.standard_normal((400, 2048)), 0)
    codes[:, rng.permutation(2048)[round(alive * 2048):]] = 0
    attributes = causes[:, :13] @ rng.standard_normal((13, 88))
    attributes += 0.4 * attributes.std() * rng.standard_normal(attributes.shape)
    return standardise(codes)[0], standardise(attributes)[0]


def one_by_one(x, y):
    """The release's way: scikit-learn, one attribute after the other, at its default tolerance."""
    from sklearn.linear_model import Lasso

    x = np.ascontiguousarray(x)
    return np.stack([Lasso(alpha=ALPHA, max_iter=10_000).fit(x, target).coef_ for target in y.T])


def two_dimensional(x, y):
    """scikit-learn with all attributes in one call."""
    from sklearn.linear_model import Lasso

    return Lasso(alpha=ALPHA, max_iter=10_000).fit(np.asfortranarray(x), y).coef_


def celer(x, y):
    """celer, one attribute after the other."""
    from celer import Lasso

    x = np.asfortranarray(x)
    return np.stack([Lasso(alpha=ALPHA, max_iter=100, tol=1e-4).fit(x, t).coef_ for t in y.T])


def ours(x, y):
    """`saeutils.lasso.lasso`, at its default tolerance, a hundred times tighter."""
    return lasso(x, y, ALPHA).weights


SINGERS = np.repeat([f"singer {i:02d}" for i in range(20)], 20)
FOLDS = grouped_folds(SINGERS, np.repeat("F", len(SINGERS)), 5, 0)
PATH = f"ours: {len(PENALTIES)} penalties x {len(FOLDS)} folds of singers"


def path(x, y):
    """The penalty of every attribute chosen by singers left out, and the map at it."""
    return penalty_path(x, y, FOLDS, SINGERS).weights


CONTENDERS = {"one by one (scikit-learn)": (one_by_one, "scikit-learn"),
              "2-D target (scikit-learn)": (two_dimensional, "scikit-learn"),
              "celer": (celer, "celer"), "ours": (ours, "numba"), PATH: (path, "numba")}


def objective(x, y, weights) -> np.ndarray:
    """The Lasso objective of every attribute, [Q]."""
    rest = y - x @ weights.T
    return (rest**2).mean(axis=0) / 2 + ALPHA * np.abs(weights).sum(axis=1)


def bench(rounds: int) -> list[dict]:
    """Seconds for all attributes and the gap of the objective, per contender."""
    records = []
    for name, alive in (("all codes alive", 1.0), ("three quarters dead", 0.25)):
        x, y = material(alive)
        best = objective(x, y, lasso(x, y, ALPHA, tolerance=1e-12).weights)
        ready, failed, gaps = {}, {}, {}
        for contender, (fit, _) in CONTENDERS.items():
            try:
                weights = fit(x, y)
                if contender != PATH:  # other penalties have other objectives
                    gaps[contender] = float((objective(x, y, weights) / best - 1).max())
                ready[contender] = fit
            except Exception as error:  # a peer may fail in any way: it becomes a row
                failed[contender] = f"not run: {type(error).__name__}: {error}"[:150]
        seconds = {contender: [] for contender in ready}
        for _ in range(rounds):
            for contender, fit in ready.items():
                begin = time.perf_counter()
                fit(x, y)
                seconds[contender].append(time.perf_counter() - begin)
        for contender, (_, package) in CONTENDERS.items():
            time_s = float(np.median(seconds[contender])) if contender in ready else float("nan")
            for metric, value, unit in (("time", time_s, "s"),
                                        ("gap", gaps.get(contender, float("nan")), "relative")):
                records.append(_record(name, contender, package, float("nan"), 0, 400, metric,
                                       value, unit, rounds, failed.get(contender, "")))
            gap = gaps.get(contender, float("nan"))
            print(f"{name:20s} {contender:26s} {time_s:8.3f} s, gap {gap:.1e}",
                  failed.get(contender, ""), flush=True)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    warnings.filterwarnings("ignore")
    write(HERE / "lasso.csv", bench(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
