"""The sparse training step on a CPU: forward, backward and Adam in one pass over the latents.

At batch 16 a dense step spends its time on zeros: most codes are zero, and most of the weights it
moves belong to latents that none of the 16 rows uses. Here only the encoder's product is dense
(BLAS). The k largest codes of a row are found by counting how many exceed a cut, decoding and both
gradients visit active pairs (row, latent) only, and Adam follows at once while a latent's weights
are in the cache, so that no gradient matrix exists. A latent that no row of a batch uses coasts:
its weights move on, its moments are only said to have faded and are not written.

The result is that of the dense step up to rounding, with one shortcut: Adam keeps moving a latent
after its last gradient, by steps that shrink as 0.9^n. After `IDLE_STEPS` they are below the
rounding of a float32 weight, and the latent rests until it fires again.

All kernels stand in one file: numba's cache of a kernel does not notice when another file changes.
`saeutils.sae_sparse` keeps the arrays that they move.
"""

from __future__ import annotations

import numba
import numpy as np

BETA1, BETA2, EPSILON = np.float32(0.9), np.float32(0.999), np.float32(1e-8)
IDLE_STEPS = 200
CHUNK = 128  # rows at once where nothing is trained
# sums may be reordered; a zero divisor needs no check (the check would stop vectorisation)
_OPTIONS = {"cache": True, "error_model": "numpy",
            "fastmath": {"reassoc", "contract", "arcp", "nsz"}}
_INSIDE = _OPTIONS | {"inline": "always"}  # a call with many arrays costs as much as a short loop
_ONE, _ZERO, _TWO, _HALF = np.float32(1), np.float32(0), np.float32(2), np.float32(0.5)
_FIFTH_UP = np.float32(1.2)


@numba.njit(**_OPTIONS)
def count_above(values_F, cut):
    """How many values exceed a cut, as float32: such a sum fills the vector units."""
    count = _ZERO
    for f in range(values_F.size):
        count += _ONE if values_F[f] > cut else _ZERO
    return count


@numba.njit(**_OPTIONS)
def select_largest(values_F, k, kept, at, guess):
    """Write the indices of the k largest positive values to ``kept[at:]``, ascending.

    A cut that exactly k values exceed is searched by counting, from `guess` on: upwards in steps
    of a fifth until fewer exceed it, then where a straight line between two counts says, every
    third time in the middle. The cut of a similar row is a good guess; any other one takes longer
    and selects the same. Ties at the border are taken from the left.

    `kept` needs room for one index more. Returns the end of the entries and the cut.
    """
    low, high = _ZERO, np.float32(np.inf)
    above, below = count_above(values_F, low), _ZERO  # values above low and above high
    if above <= k:
        high = _ZERO
    cut, tries = guess if guess > 0 else _ONE, 0
    while low < high:
        if not low < cut < high:
            cut = low + _HALF * (high - low)
            if not low < cut < high:
                break  # no number lies between: ties
        count = count_above(values_F, cut)
        tries += 1
        if count == k:
            low = high = cut
        elif count > k:
            low, above = cut, count
        else:
            high, below = cut, count
        if below == 0 and low > 0:
            cut = _FIFTH_UP * low
        elif tries % 3 == 0:
            cut = low + _HALF * (high - low)
        else:
            cut = low + np.float32((above - k) / (above - below)) * (high - low)
    if low < high:
        ties = k - int(below)
        for f in range(values_F.size):
            if values_F[f] > high or (values_F[f] == high and ties > 0):
                ties -= values_F[f] == high
                kept[at] = f
                at += 1
        return at, high
    for f in range(values_F.size):
        kept[at] = f
        at += values_F[f] > high
    return at, high


@numba.njit(**_OPTIONS)
def pre_activations(rows_BD, enc_FD, bias_F, turned, pre_BF):
    """Fill ``pre_BF = rows_BD @ enc_FD.T + bias_F``; `turned` is scratch for F * B numbers.

    BLAS is up to twice as fast when the few rows are the product's columns.
    """
    size, latents = pre_BF.shape
    turned_FB = turned[: latents * size].reshape((latents, size))
    np.dot(enc_FD, rows_BD.T, turned_FB)
    for f in range(latents):
        for b in range(size):
            pre_BF[b, f] = turned_FB[f, b] + bias_F[f]


@numba.njit(**_OPTIONS)
def many_pre_activations(rows_BD, enc_FD, bias_F, pre_BF):
    """The same as `pre_activations` for many rows, where BLAS needs nothing turned."""
    np.dot(rows_BD, enc_FD.T, pre_BF)
    for b in range(pre_BF.shape[0]):
        for f in range(bias_F.size):
            pre_BF[b, f] += bias_F[f]


@numba.njit(**_INSIDE)
def add_two(target_D, factor1, one_D, factor2, two_D):
    """``target_D += factor1 * one_D + factor2 * two_D``."""
    for d in range(target_D.size):
        target_D[d] += factor1 * one_D[d] + factor2 * two_D[d]


@numba.njit(**_INSIDE)
def inner(one_D, two_D):
    """Inner product of two vectors."""
    total = _ZERO
    for d in range(one_D.size):
        total += one_D[d] * two_D[d]
    return total


@numba.njit(**_INSIDE)
def inner_two(one_D, two_D, with_D):
    """Inner products of two vectors with a third."""
    total1, total2 = _ZERO, _ZERO
    for d in range(with_D.size):
        total1 += one_D[d] * with_D[d]
        total2 += two_D[d] * with_D[d]
    return total1, total2


@numba.njit(**_INSIDE)
def adam(weights_D, grad_D, along, m_D, root_D, size_m, root_v, keep_m, keep_v):
    """One Adam update of a vector, in place (Kingma and Ba 2015); returns its square norm.

    The gradient is ``grad_D - along * weights_D``, so that `along` can take out the part along the
    vector. `root_D` is the root of the second moment; `keep_m` and `keep_v` are what is left of
    both moments since they were written, powers of BETA1 and BETA2.
    """
    square = _ZERO
    for d in range(weights_D.size):
        g = grad_D[d] - along * weights_D[d]
        m = keep_m * m_D[d] + (_ONE - BETA1) * g
        root = np.sqrt(keep_v * root_D[d] * root_D[d] + (_ONE - BETA2) * g * g)
        m_D[d] = m
        root_D[d] = root
        weight = weights_D[d] - size_m * m / (root * root_v + EPSILON)
        weights_D[d] = weight
        square += weight * weight
    return square


@numba.njit(**_INSIDE)
def coast(weights_D, m_D, root_D, size_m, root_v):
    """Adam's update without a gradient; returns the square norm.

    The moments only fade: `size_m` and `root_v` hold the factors, nothing else is written.
    """
    square = _ZERO
    for d in range(weights_D.size):
        weight = weights_D[d] - size_m * m_D[d] / (root_D[d] * root_v + EPSILON)
        weights_D[d] = weight
        square += weight * weight
    return square


@numba.njit(**_INSIDE)
def normalise(vector_D, square):
    """Scale a vector of this square norm to norm one, in place."""
    factor = _ONE / np.sqrt(square)
    for d in range(vector_D.size):
        vector_D[d] *= factor


@numba.njit(**_OPTIONS)
def add_directions(target_D, values_F, kept, start, end, dec_FD):
    """Add ``value * direction`` of the kept latents to a row; four at a time, it is read less."""
    fours = end - (end - start) % 4
    for e in range(start, fours, 4):
        f0, f1, f2, f3 = kept[e], kept[e + 1], kept[e + 2], kept[e + 3]
        v0, v1, v2, v3 = values_F[f0], values_F[f1], values_F[f2], values_F[f3]
        for d in range(target_D.size):
            target_D[d] += ((v0 * dec_FD[f0, d] + v1 * dec_FD[f1, d])
                            + (v2 * dec_FD[f2, d] + v3 * dec_FD[f3, d]))
    for e in range(fours, end):
        f0 = kept[e]
        for d in range(target_D.size):
            target_D[d] += values_F[f0] * dec_FD[f0, d]


@numba.njit(**_OPTIONS)
def train_epoch(
    acts_ND, order_N, plus_N, minus_N, jitter, batch, k, rate, step,
    enc_FD, bias_F, dec_FD, centre_D,
    m_enc_FD, root_enc_FD, m_bias_F, root_bias_F, m_dec_FD, root_dec_FD,
    idle_F, fired_F, dead_F, k_dead, aux_weight, unit_norm,
):
    """One pass over rows in the given order, all of them or a part.

    Weights and moments change in place. Row `order_N[n]` is moved by `jitter` times
    (row ``plus_N[n]`` - row ``minus_N[n]``). `rate` is Adam's step size, `step` the number of steps
    already taken, `dead_F` the latents that the auxiliary loss may wake (`k_dead` per row, 0
    switches it off). `fired_F` counts how often each latent was kept.
    Returns the steps taken so far and the mean squared error.
    """
    n_rows, width = order_N.size, acts_ND.shape[1]
    latents = enc_FD.shape[0]
    room = batch * (k + k_dead) + 1
    rows_BD = np.empty((batch, width), np.float32)
    grad_BD = np.zeros((2 * batch, width), np.float32)  # second half: of the auxiliary loss
    pre_BF = np.empty((batch, latents), np.float32)
    turned = np.empty(batch * latents, np.float32)
    asleep_F = np.empty(latents, np.float32)
    kept = np.empty(room, np.int32)
    entry_row = np.empty(room, np.int64)
    entry_next = np.empty(room, np.int64)
    head_F = np.empty(latents, np.int64)
    gd_D, ge_D = np.empty(width, np.float32), np.empty(width, np.float32)
    # what is left of the moments after so many steps without a gradient
    left_m = BETA1 ** np.arange(IDLE_STEPS + 1).astype(np.float32)
    left_v = BETA2 ** np.arange(IDLE_STEPS + 1).astype(np.float32)
    total, cut, dead_cut = 0.0, _ZERO, _ZERO
    for first in range(0, n_rows, batch):
        size = min(batch, n_rows - first)
        for b in range(size):
            row = order_N[first + b]
            for d in range(width):
                rows_BD[b, d] = acts_ND[row, d] - centre_D[d]
            if jitter > 0:
                plus, minus = plus_N[first + b], minus_N[first + b]
                for d in range(width):
                    rows_BD[b, d] += jitter * (acts_ND[plus, d] - acts_ND[minus, d])
        pre_activations(rows_BD[:size], enc_FD, bias_F, turned, pre_BF[:size])
        head_F[:] = -1
        entries = 0
        scale = _TWO / np.float32(size * width)
        for b in range(size):
            start = entries
            entries, cut = select_largest(pre_BF[b], k, kept, entries, cut)
            for e in range(start, entries):
                f = kept[e]
                fired_F[f] += 1
                entry_row[e] = b
                entry_next[e] = head_F[f]
                head_F[f] = e
            for d in range(width):
                grad_BD[b, d] = -rows_BD[b, d]
            add_directions(grad_BD[b], pre_BF[b], kept, start, entries, dec_FD)
            total += inner(grad_BD[b], grad_BD[b])
            if k_dead > 0:
                for f in range(latents):
                    asleep_F[f] = pre_BF[b, f] if dead_F[f] else _ZERO
                start = entries
                entries, dead_cut = select_largest(asleep_F, k_dead, kept, entries, dead_cut)
                for e in range(start, entries):
                    f = kept[e]
                    entry_row[e] = b + batch
                    entry_next[e] = head_F[f]
                    head_F[f] = e
                for d in range(width):
                    grad_BD[batch + b, d] = grad_BD[b, d]  # minus the residual dead latents rebuild
                add_directions(grad_BD[batch + b], pre_BF[b], kept, start, entries, dec_FD)
                for d in range(width):
                    grad_BD[batch + b, d] *= scale * aux_weight
            for d in range(width):
                grad_BD[b, d] *= scale
        step += 1
        size_m = np.float32(rate / (1 - 0.9**step))
        root_v = np.float32(1 / np.sqrt(1 - 0.999**step))
        for f in range(latents):
            e = head_F[f]
            if e < 0:
                idle_F[f] += 1
                idle = idle_F[f]
                if idle < IDLE_STEPS:
                    ahead, far = size_m * left_m[idle], root_v * np.sqrt(left_v[idle])
                    square = coast(dec_FD[f], m_dec_FD[f], root_dec_FD[f], ahead, far)
                    coast(enc_FD[f], m_enc_FD[f], root_enc_FD[f], ahead, far)
                    bias_F[f] -= ahead * m_bias_F[f] / (root_bias_F[f] * far + EPSILON)
                    if unit_norm:
                        normalise(dec_FD[f], square)
                continue
            gd_D[:] = _ZERO
            ge_D[:] = _ZERO
            gb, along = _ZERO, _ZERO
            while e >= 0:
                # two entries at a time: the sums are read and written half as often
                two = entry_next[e]
                row1, row2 = entry_row[e], entry_row[max(two, 0)]
                in1, in2 = row1 % batch, row2 % batch
                pull1, pull2 = inner_two(grad_BD[row1], grad_BD[row2], dec_FD[f])
                value1, value2 = pre_BF[in1, f], pre_BF[in2, f]
                if two < 0:
                    pull2 = value2 = _ZERO
                add_two(gd_D, value1, grad_BD[row1], value2, grad_BD[row2])
                add_two(ge_D, pull1, rows_BD[in1], pull2, rows_BD[in2])
                gb += pull1 + pull2
                along += value1 * pull1 + value2 * pull2
                e = entry_next[two] if two >= 0 else two
            idle = idle_F[f] + 1
            idle_F[f] = 0
            if idle <= IDLE_STEPS:
                keep_m, keep_v = left_m[idle], left_v[idle]
            else:
                keep_m, keep_v = _ZERO, np.float32(0.999 ** float(min(idle, 100000)))
            along = along if unit_norm else _ZERO
            square = adam(dec_FD[f], gd_D, along, m_dec_FD[f], root_dec_FD[f],
                          size_m, root_v, keep_m, keep_v)
            adam(enc_FD[f], ge_D, _ZERO, m_enc_FD[f], root_enc_FD[f],
                 size_m, root_v, keep_m, keep_v)
            m = keep_m * m_bias_F[f] + (_ONE - BETA1) * gb
            root = np.sqrt(keep_v * root_bias_F[f] ** 2 + (_ONE - BETA2) * gb * gb)
            bias_F[f] -= size_m * m / (root * root_v + EPSILON)
            m_bias_F[f], root_bias_F[f] = m, root
            if unit_norm:
                normalise(dec_FD[f], square)
    return step, total / (n_rows * width)


@numba.njit(**_OPTIONS)
def squared_errors(acts_ND, k, enc_FD, bias_F, dec_FD, centre_D):
    """Squared error of each row's reconstruction, [N]."""
    n_rows, width = acts_ND.shape
    latents = enc_FD.shape[0]
    errors_N = np.empty(n_rows, np.float64)
    rows_BD = np.empty((CHUNK, width), np.float32)
    pre_BF = np.empty((CHUNK, latents), np.float32)
    kept = np.empty(k + 1, np.int32)
    cut = _ZERO
    for first in range(0, n_rows, CHUNK):
        size = min(CHUNK, n_rows - first)
        for b in range(size):
            for d in range(width):
                rows_BD[b, d] = acts_ND[first + b, d] - centre_D[d]
        many_pre_activations(rows_BD[:size], enc_FD, bias_F, pre_BF[:size])
        for b in range(size):
            end, cut = select_largest(pre_BF[b], k, kept, 0, cut)
            for d in range(width):
                rows_BD[b, d] = -rows_BD[b, d]
            add_directions(rows_BD[b], pre_BF[b], kept, 0, end, dec_FD)
            errors_N[first + b] = inner(rows_BD[b], rows_BD[b])
    return errors_N


@numba.njit(**_OPTIONS)
def smallest_margins(acts_ND, k, enc_FD, bias_F, centre_D):
    """By how much each latent misses being kept, at best, over all rows; <= 0 if it is kept, [F].

    For each row, the value that the k-th largest code has (0 if fewer are positive) minus the
    pre-activation of the latent; the minimum over rows. Once every latent has been kept, no row
    can wake another, and the rest of the rows is left out.
    """
    n_rows, width = acts_ND.shape
    latents = enc_FD.shape[0]
    margins_F = np.full(latents, np.float32(np.inf))
    rows_BD = np.empty((CHUNK, width), np.float32)
    pre_BF = np.empty((CHUNK, latents), np.float32)
    kept = np.empty(k + 1, np.int32)
    cut = _ZERO
    for first in range(0, n_rows, CHUNK):
        size = min(CHUNK, n_rows - first)
        for b in range(size):
            for d in range(width):
                rows_BD[b, d] = acts_ND[first + b, d] - centre_D[d]
        many_pre_activations(rows_BD[:size], enc_FD, bias_F, pre_BF[:size])
        for b in range(size):
            end, cut = select_largest(pre_BF[b], k, kept, 0, cut)
            lowest = _ZERO
            if end == k:
                lowest = pre_BF[b, kept[0]]
                for e in range(end):
                    lowest = min(lowest, pre_BF[b, kept[e]])
            for f in range(latents):
                margins_F[f] = min(margins_F[f], lowest - pre_BF[b, f])
        if margins_F.max() <= 0:
            break
    return margins_F
