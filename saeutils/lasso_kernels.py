"""Compiled steps of `saeutils.lasso`: gap, working sets, coordinate descent, Newton's step.

Shape letters: N clips, F codes, Q targets; ``at`` holds the numbers of the targets meant.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_STILL = 3  # sweeps without a change of sign before a Newton step
_ROOM = 64  # codes that may enter a working set at once, at least
_PASSES = 200  # sweeps before gradient and working set are renewed
_SUMS = {"reassoc", "contract", "arcp", "nsz"}  # sums may be reordered


@njit(cache=True, fastmath=_SUMS)
def judge(y_QN, weights, rest_QN, gradients, at, alpha):
    """Objective and duality gap of the targets `at`."""
    objective, gap = np.empty(at.size), np.empty(at.size)
    n_clips, n_codes = y_QN.shape[1], weights.shape[1]
    for row in range(at.size):
        y, rest, w, gradient = y_QN[at[row]], rest_QN[at[row]], weights[at[row]], gradients[at[row]]
        power = along = size = 0.0
        for n in range(n_clips):
            power += rest[n] * rest[n] / n_clips
            along += rest[n] * y[n] / n_clips
        steepest = alpha
        for j in range(n_codes):
            steepest = max(steepest, abs(gradient[j]))
            size += abs(w[j])
        # the residual, shrunk until no code pulls more than alpha, is a point of the dual
        shrink = alpha / steepest
        objective[row] = 0.5 * power + alpha * size
        gap[row] = objective[row] - shrink * along + 0.5 * shrink**2 * power
    return objective, gap


@njit(cache=True)
def residuals(y_QN, weights, at, x_FN):
    """``y - X w`` of the targets `at`; most weights are zero."""
    rest = y_QN[at]
    for row in range(at.size):
        left = rest[row]
        for j in np.flatnonzero(weights[at[row]]):
            weight, code = weights[at[row], j], x_FN[j]
            for n in range(left.size):
                left[n] -= weight * code[n]
    return rest


@njit(cache=True)
def descend(gram, x_FN, gradients, weights, at, alpha, enough, sweeps, max_sweeps):
    """Solve each of the targets `at` on its working set."""
    for row in range(at.size):
        q = at[row]
        w, gradient = weights[q], gradients[q]
        chosen = _working_set(gradient, w, alpha)
        small = _small_gram(gram, x_FN, chosen)
        part = w[chosen]
        sweeps[q] += _solve_small(small, gradient[chosen], part, alpha, enough[q],
                                  min(_PASSES, max_sweeps - sweeps[q]))
        w[chosen] = part


@njit(cache=True, fastmath=_SUMS)
def _small_gram(gram, x_FN, chosen):
    """``X'X / N`` of the chosen codes; entries that nobody asked for before are computed."""
    small = np.empty((chosen.size, chosen.size), np.float32)
    n_clips = x_FN.shape[1]
    for i in range(chosen.size):
        known, code = gram[chosen[i]], x_FN[chosen[i]]
        for e in range(i + 1):
            value = known[chosen[e]]
            if value == 0:
                other = x_FN[chosen[e]]
                for n in range(n_clips):
                    value += code[n] * other[n]
                value /= np.float32(n_clips)
                known[chosen[e]] = value
            small[i, e] = small[e, i] = value
    return small


@njit(cache=True)
def _working_set(gradient, w, alpha):
    """The codes in use, and of those that want to enter as many, `_ROOM` at least."""
    pull, n, used = np.empty(w.size + 1), 0, 0
    for j in range(w.size):
        pull[n] = abs(gradient[j])  # written over by the next where it does not want to enter
        n += pull[n] > alpha and w[j] == 0.0
        used += w[j] != 0.0
    spare = n - max(_ROOM, used)
    least = np.partition(pull[:n], spare)[spare] if spare > 0 else alpha
    chosen = np.empty(w.size, np.int64)
    n = 0
    for j in range(w.size):
        if w[j] != 0.0 or abs(gradient[j]) > alpha and abs(gradient[j]) >= least:
            chosen[n] = j
            n += 1
    return chosen[:n]


@njit(cache=True, fastmath=_SUMS)
def _solve_small(small, rest, w, alpha, limit, max_passes):
    """Solve for the chosen codes alone, in place; returns the number of sweeps.

    `rest` is their gradient and follows the weights. Every move lowers the objective.
    """
    n, still = w.size, 0
    for count in range(max_passes):
        turned = False
        for i in range(n):
            own = small[i, i]
            if own <= 0.0:
                continue
            pull = rest[i] + own * w[i]
            new = max(abs(pull) - alpha, 0.0) / own
            new = -new if pull < 0 else new
            if new != w[i]:
                turned = turned or new * w[i] <= 0.0
                _move(small, rest, w, i, new)
        steepest, size, gap = alpha, 0.0, 0.0
        for i in range(n):
            steepest = max(steepest, abs(rest[i]))
            size += abs(w[i])
            gap += alpha * abs(w[i]) - rest[i] * w[i]
        if gap + (steepest - alpha) * size <= limit:
            return count + 1
        still = 0 if turned else still + 1
        if still == _STILL:
            _newton(small, rest, w, alpha)
            still = 0
    return max_passes


@njit(cache=True, fastmath=_SUMS)
def _move(small, rest, w, i, new):
    change = new - w[i]
    w[i] = new
    for e in range(w.size):
        rest[e] -= small[i, e] * change


@njit(cache=True, fastmath=_SUMS)
def _newton(small, rest, w, alpha):
    """Solve for the codes in use as if their signs were fixed, up to the first that turns.

    By Cholesky's factors of their Gram matrix. A code that the ones before it make up (a copy, or
    one code more than there are clips) has no pivot and stays where it is.
    """
    room = np.count_nonzero(w)
    used, factor, step = np.empty(room, np.int64), np.empty((room, room)), np.empty(room)
    n = 0
    for i in np.flatnonzero(w):
        left = np.float64(small[i, i])
        for e in range(n):
            value = np.float64(small[i, used[e]])
            for c in range(e):
                value -= factor[n, c] * factor[e, c]
            factor[n, e] = value / factor[e, e]
            left -= factor[n, e] ** 2
        if left > 1e-5 * small[i, i]:
            used[n], factor[n, n] = i, np.sqrt(left)
            n += 1
    for i in range(n):
        step[i] = rest[used[i]] - (alpha if w[used[i]] > 0 else -alpha)
        for c in range(i):
            step[i] -= factor[i, c] * step[c]
        step[i] /= factor[i, i]
    for i in range(n - 1, -1, -1):
        step[i] /= factor[i, i]
        for c in range(i):
            step[c] -= factor[i, c] * step[i]
    share, first = 1.0, -1
    for i in range(n):
        if w[used[i]] * (w[used[i]] + share * step[i]) < 0:
            share, first = -w[used[i]] / step[i], i
    for i in range(n):
        new = 0.0 if i == first else w[used[i]] + share * step[i]
        _move(small, rest, w, used[i], new)
