"""Linear probes: how well technique is read off states or codes, as released and as corrected.

Released: one linear layer, Adam at 1e-3, 120 epochs of batches of 32, no scaling, the epoch of
lowest validation loss (A25). Corrected: multinomial logistic regression to convergence on
scaled columns; penalty and scale of the columns by inner cross-validation over whole singers. Shape
letters: N clips, F columns (states or codes), C classes, R rank of the training clips.

Source: the paper, section on probing; released settings read in its code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from saeutils.lasso import standardise

CURVATURE = 0.05  # of a softmax at work: p (1 - p), between 0 and 1/4; it only sets the pace
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # times ||W||^2 / 2, loss averaged over clips
SCALES = {  # what a probe may do to its columns first
    "standardised": "each column to SD 1; columns that hardly ever fire are left out",
    "one scale": "all columns divided by one number",
    "whitened": "standardised, then turned to principal components of equal SD",
    "every column standardised": "each column to SD 1, however rarely it fires",
}
FEWEST_CLIPS = 10  # a column that differs from zero on fewer clips is rare; of few clips a tenth


@dataclass(frozen=True)
class Probe:
    """A fitted linear probe: ``logits = x @ weights + bias`` on unscaled columns.

    Attributes
    ----------
    weights, bias
        Shapes [F, C] and [C].
    classes
        Class names in the order of the columns, shape [C].
    details
        What was chosen: ``epoch`` (released); ``penalty``, ``basis``, ``inner`` (corrected).
    """

    weights: np.ndarray
    bias: np.ndarray
    classes: np.ndarray
    details: dict = field(default_factory=dict)

    def logits(self, values_NF: np.ndarray) -> np.ndarray:
        """Unnormalised log probabilities, shape [N, C]."""
        return np.asarray(values_NF, dtype=np.float64) @ self.weights + self.bias

    def predict(self, values_NF: np.ndarray, allowed_NC: np.ndarray | None = None) -> np.ndarray:
        """Most likely class of each row, shape [N], among the allowed ones (bool [N, C])."""
        logits = self.logits(values_NF)
        if allowed_NC is not None:
            logits = np.where(allowed_NC, logits, -np.inf)
        return self.classes[np.argmax(logits, axis=1)]


def released_probe(
    train_NF: np.ndarray,
    train_labels: np.ndarray,
    valid_NF: np.ndarray,
    valid_labels: np.ndarray,
    classes: np.ndarray,
    seed: int,
    epochs: int = 120,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
) -> Probe:
    """The published probe: one linear layer by Adam, best epoch by validation loss.

    Written in float32 and compiled (`saeutils.probe_kernels`): a step is two small matrix products,
    and torch's overhead would be most of the time. Initial values are uniform in ``+-1/sqrt(F)``,
    as torch's Linear draws them.

    Parameters
    ----------
    train_NF, train_labels, valid_NF, valid_labels
        Columns and class names; no scaling is applied.
    classes
        All class names.
    seed
        Draws the start and the order of batches.
    epochs, batch_size, learning_rate
        As in the paper.

    Raises
    ------
    ValueError
        Empty training or validation part, or a label that is not in ``classes``.
    """
    from saeutils.probe_kernels import DENSE, adam_epoch, compressed

    x, v = (np.ascontiguousarray(part, dtype=np.float32) for part in (train_NF, valid_NF))
    y, u = encode_labels(train_labels, classes), encode_labels(valid_labels, classes)
    if not len(x) or not len(v):
        raise ValueError(f"{len(x)} training and {len(v)} validation clips: both need at least 1")
    rng = np.random.default_rng(seed)
    bound = 1 / np.sqrt(x.shape[1])
    # The bias is the last row: its column is constant 1.
    x, v = _with_ones(x), _with_ones(v)
    weights = rng.uniform(-bound, bound, (x.shape[1], len(classes))).astype(np.float32)
    first, second, count = np.zeros_like(weights), np.zeros_like(weights), 0
    parts = compressed(x)
    whole = x if len(parts[0]) > DENSE * x.size else x[:0]
    best, best_loss, best_epoch = weights.copy(), np.inf, 0
    for epoch in range(epochs):
        count = adam_epoch(whole, *parts, y, rng.permutation(len(x)), batch_size, learning_rate,
                           count, weights, first, second)
        loss = _cross_entropy(v @ weights, u)
        if loss < best_loss:
            best, best_loss, best_epoch = weights.copy(), loss, epoch
    return Probe(best[:-1], best[-1], np.asarray(classes), {"epoch": best_epoch})


def tuned_probe(
    train_NF: np.ndarray,
    labels: np.ndarray,
    folds: list[tuple[np.ndarray, np.ndarray]],
    classes: np.ndarray,
    whiten: bool = False,
    penalties: tuple[float, ...] = PENALTIES,
    scales: tuple[str, ...] = (),
) -> Probe:
    """The corrected probe: logistic regression to convergence, penalty and scale tuned.

    Parameters
    ----------
    train_NF, labels
        Columns and class names of the training singers.
    folds
        Inner folds over the rows of ``train_NF``, grouped by singer
        (`saeutils.statistics.grouped_folds`); they choose the penalty and the scale.
    classes
        All class names; a class absent from training is never predicted.
    whiten
        True (raw states): PCA-whitened columns compete as well. A dictionary has changed the
        basis already; raw states get the chance here.
    penalties
        Weights of ``||W||^2 / 2`` beside the mean loss.
    scales
        Which of `SCALES` compete; by default "standardised", "one scale" and, if asked for,
        "whitened".

    Returns
    -------
    Probe
        ``details`` hold ``penalty``, ``basis`` (the scale) and ``inner`` (mean balanced accuracy
        of the inner folds at the chosen setting).

    Raises
    ------
    ValueError
        No penalty, one that is not positive, or a scale that is not in `SCALES`.

    Notes
    -----
    A probe that is to measure information must not be stopped by the scale of its columns, and no
    single scale is fair to both sides. A code that fires on one clip, brought to SD 1, is a spike
    of 20 that any class can lean on; columns of states differ in scale a hundredfold. So both
    sides choose, within the training singers.

    With more columns than clips the solution lies in the span of the clips, so the fit runs in
    rotated coordinates [N, R]: exact for a quadratic penalty, and much smaller.
    """
    if not penalties or min(penalties) <= 0:
        raise ValueError(f"penalties {penalties} must be positive and at least one")
    scales = scales or ("standardised", "one scale", *(("whitened",) if whiten else ()))
    unknown = [name for name in scales if name not in SCALES]
    if unknown:
        raise ValueError(f"unknown scale {unknown[0]!r}: there are {', '.join(SCALES)}")
    y = encode_labels(labels, classes)
    path = sorted(penalties, reverse=True)
    scores = np.zeros((len(scales), len(path)))
    for b, scale in enumerate(scales):
        for fit_rows, held_rows in folds:
            turned = _rotation(train_NF[fit_rows], scale)
            held = turned.rotate(train_NF[held_rows])
            # float32 and four digits are plenty to choose between penalties ten times apart
            solutions = _logistic_path(turned.train_NR.astype(np.float32), y[fit_rows],
                                       len(classes), path, 1e-5)
            for p, weights in enumerate(solutions):
                guess = np.argmax(_with_ones(held) @ weights, axis=1)
                scores[b, p] += balanced_accuracy(y[held_rows], guess) / len(folds)
    b, p = np.unravel_index(np.argmax(scores), scores.shape)
    turned = _rotation(train_NF, scales[b])
    *_, weights = _logistic_path(turned.train_NR, y, len(classes), path[: p + 1], 1e-10)
    back = turned.back(weights[:-1])
    bias = weights[-1] - turned.mean_F @ back
    absent = np.setdiff1d(np.arange(len(classes)), y)
    bias[absent] = -1e9
    details = {"penalty": path[p], "basis": scales[b], "inner": float(scores[b, p])}
    return Probe(back, bias, np.asarray(classes), details)


def fit_logistic(
    values_NF: np.ndarray, labels: np.ndarray, n_classes: int, penalty: float
) -> np.ndarray:
    """Weights [F + 1, C] of a multinomial logistic regression at one penalty, bias last.

    Columns are taken as they are (standardise them first); labels are class numbers.
    """
    *_, weights = _logistic_path(values_NF, labels, n_classes, [penalty], 1e-10)
    return weights


def encode_labels(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Position of each label in ``classes``, int64, shape [N]; an unknown label is refused."""
    index = {name: position for position, name in enumerate(np.asarray(classes).tolist())}
    unknown = sorted(set(np.asarray(labels).tolist()) - set(index))
    if unknown:
        raise ValueError(f"unknown class {unknown[0]!r}: there are {', '.join(map(str, index))}")
    return np.array([index[label] for label in np.asarray(labels).tolist()], dtype=np.int64)


def balanced_accuracy(labels: np.ndarray, guesses: np.ndarray) -> float:
    """Mean recall over the classes that occur in ``labels``; NaN without clips.

    Examples
    --------
    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
    0.5
    """
    labels, guesses = np.asarray(labels), np.asarray(guesses)
    if not len(labels):
        return float("nan")
    _, index, count = np.unique(labels, return_inverse=True, return_counts=True)
    return float((np.bincount(index, weights=labels == guesses) / count).mean())


def logistic_loss(
    weights: np.ndarray, values_NF: np.ndarray, labels: np.ndarray, penalty: float
) -> float:
    """The objective of the corrected probe: mean cross entropy + penalty/2 x squared weights.

    ``weights`` [F + 1, C] carries the unpenalised bias in its last row.
    """
    loss = _cross_entropy(_with_ones(np.asarray(values_NF, dtype=np.float64)) @ weights, labels)
    return float(loss + penalty / 2 * (weights[:-1] ** 2).sum())


@dataclass(frozen=True)
class _Rotation:
    """Coordinates [N, R] of the training clips, scaled as one of `SCALES` says.

    ``turn_FM @ mix_MR`` stays a product of two: with more columns than clips, M is the number of
    clips, and neither the turn of all columns nor its product with the training clips is needed.
    """

    train_NR: np.ndarray
    mean_F: np.ndarray
    scale_F: np.ndarray
    turn_FM: np.ndarray
    mix_MR: np.ndarray

    def rotate(self, values_NF: np.ndarray) -> np.ndarray:
        scaled = standardise(values_NF, self.mean_F, self.scale_F)[0]
        return scaled @ self.turn_FM @ self.mix_MR

    def back(self, weights_RC: np.ndarray) -> np.ndarray:
        """The same weights for columns as they are, [F, C]."""
        return self.turn_FM @ (self.mix_MR @ weights_RC) / self.scale_F[:, None]


def _rotation(train_NF: np.ndarray, basis: str) -> _Rotation:
    scaled, mean, scale = standardise(train_NF)
    if basis == "one scale":
        moves = np.ptp(train_NF, axis=0) > 0
        one = np.sqrt(np.mean(scale[moves] ** 2)) if moves.any() else 1.0
        scaled, scale = scaled * (scale / one), np.full_like(scale, one)
    elif basis != "every column standardised":
        scaled[:, _rare(train_NF)] = 0.0
    small = len(scaled) < scaled.shape[1]
    square, axes = np.linalg.eigh(scaled @ scaled.T if small else scaled.T @ scaled)
    keep = square > max(square[-1] * 1e-10, 1e-12)
    axes, spread = axes[:, keep], np.sqrt(square[keep])
    size = spread / np.sqrt(len(train_NF)) if basis == "whitened" else np.ones_like(spread)
    if small:
        return _Rotation(axes * (spread / size), mean, scale, scaled.T, axes / (spread * size))
    return _Rotation(scaled @ (axes / size), mean, scale, axes, np.diag(1 / size))


def _rare(values_NF: np.ndarray) -> np.ndarray:
    """Columns that differ from zero on fewer clips than `FEWEST_CLIPS`, bool [F]."""
    least = min(FEWEST_CLIPS, max(3, len(values_NF) // 10))
    return np.count_nonzero(values_NF, axis=0) < least


def _logistic_path(
    x_NR: np.ndarray, y: np.ndarray, n_classes: int, penalties: list[float], precision: float
):
    """Yield the minimiser [R + 1, C] for each penalty, from strong to weak, started warm.

    All is computed in the precision of ``x_NR``; `precision` is relative to the objective.
    """
    from saeutils.logistic_kernels import minimise_logistic

    x = np.ascontiguousarray(_with_ones(x_NR))
    power = (x**2).mean(axis=0, dtype=np.float64)
    weights = np.zeros((x.shape[1], n_classes))
    for penalty in penalties:
        # In these coordinates the columns hardly correlate, so the curvature along a weight is
        # about CURVATURE * power + penalty. Divided by its root, all weights curve alike, and the
        # descent takes dozens of steps in the place of hundreds. The minimiser stays what it is.
        curve = CURVATURE * power + penalty
        curve[-1] = CURVATURE
        stretch = (1 / np.sqrt(curve)).astype(x.dtype)
        point = (weights / stretch[:, None]).astype(x.dtype).ravel()
        goal = precision if penalty == penalties[-1] else max(precision, 1e-5)  # warm starts
        minimise_logistic(x, y, x.dtype.type(penalty), stretch, point, goal, 1e-6, 2000)
        weights = point.reshape(weights.shape).astype(np.float64) * stretch[:, None]
        yield weights


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    top = logits.max(axis=1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float((total - logits[np.arange(len(labels)), labels]).mean())


def _with_ones(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.ones((len(values), 1), dtype=values.dtype)], axis=1)
