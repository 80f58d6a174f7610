"""How fast the corrected probe's fit is: multinomial logistic regression, against other code.

    python benchmarks/bench_probe.py        -> benchmarks/probe.csv

What a tuned probe does in one inner fold: five penalties from strong to weak, on training clips
of made-up singers in principal axes (300 clips, ten techniques); columns as raw states have them
(192) and as codes have them (one fewer than clips). Contenders are timed in turn in one process
of one thread; medians are written. Ours and scipy's stop at the step that the probe's choice of a
penalty asks for, scikit-learn at its default; `gap` is the objective's largest distance to the
minimum over the five penalties, relative to the minimum.
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

from saeutils.probing import PENALTIES, _logistic_path, logistic_loss  # noqa: E402

CLASSES, CLIPS, ENOUGH = 10, 300, 1e-5
PATH = sorted(PENALTIES, reverse=True)


def material(width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Columns [300, width] along principal axes, of falling size, and class numbers."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, CLIPS)
    centres = rng.standard_normal((CLASSES, 40))
    x = np.concatenate([1.2 * centres[labels], np.zeros((CLIPS, width - 40))], axis=1)
    x = (x + rng.standard_normal(x.shape)) * np.geomspace(3, 0.3, width)
    left, size, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    return left * size, labels


def ours(x, y):
    """`saeutils.probing`, in single precision, as the inner folds have it."""
    return list(_logistic_path(x.astype(np.float32), y, CLASSES, PATH, ENOUGH))


def scipy_lbfgs(x, y):
    """scipy's L-BFGS-B on the same objective in numpy, warm starts too."""
    from scipy.optimize import minimize

    ones = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float32)
    hot = np.eye(CLASSES, dtype=np.float32)[y]
    weights, found = np.zeros((ones.shape[1], CLASSES)), []
    curve = 0.05 * (ones.astype(float) ** 2).mean(axis=0)
    for penalty in PATH:
        stretch = np.append(1 / np.sqrt(curve[:-1] + penalty), 1 / np.sqrt(0.05))[:, None]

        def objective(flat, penalty=penalty, stretch=stretch):
            w = flat.reshape(len(stretch), -1) * stretch
            logits = ones @ w.astype(np.float32)
            logits -= logits.max(axis=1, keepdims=True)
            share = np.exp(logits)
            total = share.sum(axis=1, keepdims=True)
            loss = (np.log(total[:, 0]) - (hot * logits).sum(axis=1)).mean()
            gradient = ones.T @ (share / total - hot) / len(x)
            gradient[:-1] += penalty * w[:-1]
            return float(loss) + penalty / 2 * (w[:-1] ** 2).sum(), (gradient * stretch).ravel()

        end = minimize(objective, (weights / stretch).ravel(), jac=True, method="L-BFGS-B",
                       options={"maxiter": 2000, "ftol": ENOUGH, "gtol": 1e-6})
        weights = end.x.reshape(weights.shape) * stretch
        found.append(weights)
    return found


def scikit_learn(x, y):
    """scikit-learn's LogisticRegression with warm starts, at its default tolerance."""
    from sklearn.linear_model import LogisticRegression

    model, found = LogisticRegression(tol=1e-4, max_iter=2000, warm_start=True), []
    for penalty in PATH:
        model.set_params(C=1 / (penalty * len(x))).fit(x, y)
        found.append(np.concatenate([model.coef_.T, model.intercept_[None]]))
    return found


CONTENDERS = {"ours": (ours, "numba"),
              "scipy's L-BFGS-B, objective in numpy": (scipy_lbfgs, "scipy"),
              "scikit-learn's LogisticRegression": (scikit_learn, "scikit-learn")}


def bench(rounds: int) -> list[dict]:
    """Seconds for the path of penalties and the largest gap of the objective, per contender."""
    records = []
    for name, width in (("raw states", 192), ("codes", CLIPS - 1)):
        x, y = material(width)
        exact = list(_logistic_path(x, y, CLASSES, PATH, 1e-14))
        least = [logistic_loss(w, x, y, p) for w, p in zip(exact, PATH, strict=True)]
        seconds = {contender: [] for contender in CONTENDERS}
        gaps = {contender: max(logistic_loss(w, x, y, p) / best - 1 for w, p, best in
                               zip(fit(x, y), PATH, least, strict=True))
                for contender, (fit, _) in CONTENDERS.items()}
        for _ in range(rounds):
            for contender, (fit, _) in CONTENDERS.items():
                begin = time.perf_counter()
                fit(x, y)
                seconds[contender].append(time.perf_counter() - begin)
        for contender, (_, package) in CONTENDERS.items():
            for metric, value, unit in (("time", float(np.median(seconds[contender])), "s"),
                                        ("gap", gaps[contender], "relative")):
                records.append(_record(name, contender, package, float("nan"), 0, CLIPS, metric,
                                       value, unit, rounds, ""))
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    warnings.simplefilter("ignore")
    records = bench(parser.parse_args().rounds)
    write(HERE / "probe.csv", records)
    for row in records:
        print(row["data"], row["contender"], row["metric"], row["value"])


if __name__ == "__main__":
    main()
