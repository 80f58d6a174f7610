"""The released probe's training loop, compiled: one epoch of Adam on one linear layer.

A step is two small matrix products and a pass over the weights, so in numpy the calls cost more
than the sums. Codes are mostly zero: products visit only what is not. Shape letters: B clips of a
batch, F columns, C classes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

DENSE = 0.08  # share of numbers that are not zero, from which on whole rows are faster
DECAY, SQUARE_DECAY, EPSILON = 0.9, 0.999, 1e-8  # Adam as torch has it


def compressed(values_NF: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows without their zeros: values, their columns, and where each row begins.

    Examples
    --------
    >>> [part.tolist() for part in compressed(np.array([[0.0, 2.0], [3.0, 0.0]]))]
    [[2.0, 3.0], [1, 0], [0, 1, 2]]
    """
    rows, columns = np.nonzero(values_NF)
    begins = np.zeros(len(values_NF) + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=len(values_NF)), out=begins[1:])
    return values_NF[rows, columns].astype(np.float32), columns.astype(np.int64), begins


@njit(cache=True, error_model="numpy")
def adam_epoch(rows_BF, values, columns, begins, labels, order, batch_size, rate, count,
               weights, first, second):
    """One pass over the clips in place: cross entropy, a mean gradient per batch, a step of Adam.

    Parameters
    ----------
    rows_BF
        The clips as they are, float32 [N, F], C order; no rows: use the next three instead.
    values, columns, begins
        `compressed` rows. The last column is constant 1: the bias is the last row of weights.
    labels, order
        Class numbers, and the clips in the order of this epoch.
    batch_size, rate
        Of the released probe.
    count
        Steps taken before this epoch.
    weights, first, second
        Weights and Adam's two moments, float32 [F, C], changed in place.

    Returns
    -------
    int
        Steps taken so far.
    """
    n_columns, n_classes = weights.shape
    dense = rows_BF.shape[0] > 0
    gradient = np.zeros((n_columns, n_classes), dtype=np.float32)
    batch = np.zeros((batch_size if dense else 0, n_columns), dtype=np.float32)
    delta = np.zeros((batch_size, n_classes), dtype=np.float32)
    for start in range(0, order.size, batch_size):
        size = min(batch_size, order.size - start)
        if dense:
            for b in range(size):
                batch[b] = rows_BF[order[start + b]]
            np.dot(batch[:size], weights, delta[:size])
        else:
            delta[:] = 0
            for b in range(size):
                row = order[start + b]
                for p in range(begins[row], begins[row + 1]):
                    for c in range(n_classes):
                        delta[b, c] += values[p] * weights[columns[p], c]
        for b in range(size):
            _softmax_minus(delta[b], labels[order[start + b]], np.float32(1 / size))
        if dense:
            np.dot(batch[:size].T, delta[:size], gradient)
        else:
            for b in range(size):
                row = order[start + b]
                for p in range(begins[row], begins[row + 1]):
                    for c in range(n_classes):
                        gradient[columns[p], c] += values[p] * delta[b, c]
        count += 1
        _adam_step(weights.reshape(-1), gradient.reshape(-1), first.reshape(-1), second.reshape(-1),
                   rate, count)
    return count


@njit(cache=True, error_model="numpy")
def _softmax_minus(logits, label, share):
    """In place: probabilities minus the true class, times `share`."""
    largest, total = logits[0], np.float32(0)
    for c in range(1, logits.size):
        largest = max(largest, logits[c])
    for c in range(logits.size):
        logits[c] = np.exp(logits[c] - largest)
        total += logits[c]
    for c in range(logits.size):
        logits[c] = (logits[c] / total - np.float32(c == label)) * share


@njit(cache=True, error_model="numpy")
def _adam_step(weights, gradient, first, second, rate, count):
    """Move the weights and set the gradient back to zero."""
    keep, take = np.float32(DECAY), np.float32(1 - DECAY)
    keep_2, take_2 = np.float32(SQUARE_DECAY), np.float32(1 - SQUARE_DECAY)
    small, step = np.float32(EPSILON), np.float32(rate / (1 - DECAY**count))
    root = np.float32(1 / np.sqrt(1 - SQUARE_DECAY**count))
    for i in range(weights.size):
        g = gradient[i]
        gradient[i] = np.float32(0)
        first[i] = keep * first[i] + take * g
        second[i] = keep_2 * second[i] + take_2 * (g * g)
        weights[i] -= step * first[i] / (np.sqrt(second[i]) * root + small)
