"""Multinomial logistic regression by L-BFGS, compiled: the corrected probe's fit.

A probe fits some fifty of them, small ones, and most of a general minimiser's time would go into
its calls. Memory and line search are the textbook's (Nocedal and Wright 2006, algorithms 7.4 and
3.5 with weak Wolfe conditions by bisection); the problem is convex and smooth, so each accepted
step descends. Shape letters: N clips, R columns (the last one constant 1), C classes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

MEMORY = 10  # steps whose curvature is remembered
ARMIJO, WOLFE = 1e-4, 0.9
TRIES = 40  # of one line search
_OPTIONS = {"cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}


@njit(**_OPTIONS)
def inner(one, two):
    """Inner product of two vectors, as a float64."""
    total = one.dtype.type(0)
    for i in range(one.size):
        total += one[i] * two[i]
    return float(total)


@njit(**_OPTIONS)
def add_scaled(target, factor, other):
    """``target += factor * other``."""
    factor = target.dtype.type(factor)
    for i in range(target.size):
        target[i] += factor * other[i]


@njit(**_OPTIONS)
def logistic_objective(x_NR, y_N, penalty, stretch_R, point, gradient, weights_RC, logits_NC):
    """Mean cross entropy + penalty/2 x squared weights (bias free), and its gradient, in place.

    Weights are ``point * stretch_R``, row by row; point and gradient are flat [R * C].
    `weights_RC` and `logits_NC` are room to work in.
    """
    n_rows, n_classes = logits_NC.shape
    n_columns = stretch_R.size
    for r in range(n_columns):
        for c in range(n_classes):
            weights_RC[r, c] = point[r * n_classes + c] * stretch_R[r]
    np.dot(x_NR, weights_RC, logits_NC)
    loss, share = 0.0, x_NR.dtype.type(1 / n_rows)
    for n in range(n_rows):
        own, largest = logits_NC[n, y_N[n]], logits_NC[n, 0]
        for c in range(1, n_classes):
            largest = max(largest, logits_NC[n, c])
        total = x_NR.dtype.type(0)
        for c in range(n_classes):
            logits_NC[n, c] = np.exp(logits_NC[n, c] - largest)
            total += logits_NC[n, c]
        loss += np.log(total) + largest - own
        for c in range(n_classes):
            logits_NC[n, c] *= share / total
        logits_NC[n, y_N[n]] -= share
    np.dot(x_NR.T, logits_NC, gradient.reshape((n_columns, n_classes)))
    square = 0.0
    for r in range(n_columns):
        pull = penalty if r < n_columns - 1 else x_NR.dtype.type(0)
        for c in range(n_classes):
            weight = weights_RC[r, c]
            square += pull * weight * weight
            i = r * n_classes + c
            gradient[i] = (gradient[i] + pull * weight) * stretch_R[r]
    return loss / n_rows + square / 2


@njit(**_OPTIONS)
def quasi_newton(gradient, moves, turns, inverse, kept, way):
    """Fill `way` with minus the inverse Hessian, as the last steps tell it, times the gradient."""
    share = np.zeros(MEMORY)
    for i in range(way.size):
        way[i] = -gradient[i]
    for age in range(min(kept, MEMORY)):
        i = (kept - 1 - age) % MEMORY
        share[i] = inverse[i] * inner(moves[i], way)
        add_scaled(way, -share[i], turns[i])
    if kept:
        i = (kept - 1) % MEMORY
        add_scaled(way, 1 / (inverse[i] * inner(turns[i], turns[i])) - 1, way)
    for age in range(min(kept, MEMORY) - 1, -1, -1):
        i = (kept - 1 - age) % MEMORY
        add_scaled(way, share[i] - inverse[i] * inner(turns[i], way), moves[i])


@njit(**_OPTIONS)
def minimise_logistic(x_NR, y_N, penalty, stretch_R, point, precision, flat, most):
    """Move `point` to the minimiser; returns the steps taken.

    Parameters
    ----------
    x_NR
        Columns, float32 or float64, C order; everything is computed in this precision.
    y_N
        Class numbers.
    penalty, stretch_R, point
        See `logistic_objective`; of the type of `x_NR`.
    precision, flat
        It stops when a step lowers the objective by no more than `precision` (relative where it
        is above 1), no entry of the gradient exceeds `flat`, or rounding lets no step descend.
    most
        Steps at most.
    """
    size, n_classes = point.size, point.size // stretch_R.size
    logits_NC = np.empty((x_NR.shape[0], n_classes), x_NR.dtype)
    weights_RC = np.empty((stretch_R.size, n_classes), x_NR.dtype)
    gradient, trial = np.empty_like(point), np.empty_like(point)
    ahead, way = np.empty_like(point), np.empty_like(point)
    moves = np.empty((MEMORY, size), x_NR.dtype)
    turns = np.empty((MEMORY, size), x_NR.dtype)
    inverse, kept = np.empty(MEMORY), 0
    value = logistic_objective(x_NR, y_N, penalty, stretch_R, point, gradient, weights_RC,
                               logits_NC)
    for step in range(most):
        steepest = gradient.dtype.type(0)
        for i in range(size):
            steepest = max(steepest, abs(gradient[i]))
        if steepest <= flat:
            return step
        slope = 0.0
        while slope >= 0:
            quasi_newton(gradient, moves, turns, inverse, kept, way)
            slope = inner(way, gradient)
            kept = kept if slope < 0 else 0  # rounding has spoilt the memory
        short, far, length, found = 0.0, np.inf, 1.0, value
        for _ in range(TRIES):
            for i in range(size):
                trial[i] = point[i]
            add_scaled(trial, length, way)
            found = logistic_objective(x_NR, y_N, penalty, stretch_R, trial, ahead, weights_RC,
                                       logits_NC)
            if found > value + ARMIJO * length * slope:
                far = length
            elif inner(ahead, way) < WOLFE * slope:
                short = length
            else:
                break
            length = (short + far) / 2 if far < np.inf else 2 * length
        if not found < value:
            return step
        i = kept % MEMORY
        for j in range(size):
            moves[i, j] = trial[j] - point[j]
            turns[i, j] = ahead[j] - gradient[j]
            point[j], gradient[j] = trial[j], ahead[j]
        curvature = inner(moves[i], turns[i])
        if curvature > 0:
            inverse[i] = 1 / curvature
            kept += 1
        gained, value = value - found, found
        if gained <= precision * max(abs(value), 1.0):
            return step + 1
    return most
