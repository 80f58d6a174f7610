"""The sparse training step on a CPU: forward, backward and Adam in one pass over the latents.

At batch 16 a dense step spends its time on zeros: most codes are zero, and most of the weights it
moves belong to latents that none of the 16 rows uses. Here only the encoder's product is dense
(BLAS). The k largest codes of a row are found by bisection on the bits of the floats, decoding and
both gradients visit active pairs (row, latent) only, and Adam follows at once while a latent's
weights are in the cache, so that no gradient matrix exists.

The result is that of the dense step up to rounding, with one shortcut: Adam keeps moving a latent
after its last gradient, by steps that shrink as 0.9^n. After `IDLE_STEPS` they are below the
rounding of a float32 weight, and the latent rests until it fires again.
"""

from __future__ import annotations

import numba
import numpy as np

BETA1, BETA2, EPSILON = np.float32(0.9), np.float32(0.999), np.float32(1e-8)
IDLE_STEPS = 200
# sums may be reordered; a zero divisor needs no check (the check would stop vectorisation)
_OPTIONS = {"cache": True, "error_model": "numpy",
            "fastmath": {"reassoc", "contract", "arcp", "nsz"}}
_ONE, _ZERO, _TWO = np.float32(1), np.float32(0), np.float32(2)


@numba.njit(**_OPTIONS)
def select_largest(values_F, allowed_F, k, kept, at):
    """Write the indices of the k largest positive allowed entries to ``kept[at:]``, ascending.

    Positive floats order as their bits do, so the k-th largest is found by bisection on the bits:
    about 30 counts over the row. Ties at the border are taken from the left.
    """
    bits = values_F.view(np.int32)
    low, high = np.int32(0), np.int32(0x7F800000)  # count(> low) >= k or low == 0
    positive = 0
    for f in range(bits.size):
        positive += (bits[f] > 0) & allowed_F[f]
    if positive > k:
        while high - low > 1:
            middle = low + (high - low) // 2
            count = 0
            for f in range(bits.size):
                count += (bits[f] >= middle) & allowed_F[f]
            if count >= k:
                low = middle
            else:
                high = middle
            if count == k:
                break
        above = 0
        for f in range(bits.size):
            above += (bits[f] > low) & allowed_F[f]
        ties = k - above
        for f in range(bits.size):
            if allowed_F[f]:
                if bits[f] > low:
                    kept[at] = f
                    at += 1
                elif bits[f] == low and ties > 0:
                    kept[at] = f
                    at += 1
                    ties -= 1
        return at
    for f in range(bits.size):
        if bits[f] > 0 and allowed_F[f]:
            kept[at] = f
            at += 1
    return at


@numba.njit(**_OPTIONS)
def train_epoch(
    acts_ND, order_N, plus_N, minus_N, jitter, batch, k, rate, step,
    enc_FD, bias_F, dec_FD, centre_D,
    m_enc_FD, v_enc_FD, m_bias_F, v_bias_F, m_dec_FD, v_dec_FD,
    idle_F, fired_F, dead_F, k_dead, aux_weight, unit_norm,
):
    """One pass over the rows in the given order; changes weights and moments in place.

    Row `order_N[n]` is moved by `jitter` times (row ``plus_N[n]`` - row ``minus_N[n]``). `rate` is
    Adam's step size, `step` the number of steps already taken, `dead_F` the latents that
    the auxiliary loss may wake (`k_dead` per row, 0 switches it off). `fired_F` counts how often
    each latent was kept. Returns the steps taken so far and the mean squared error of the pass.
    """
    n_rows, width = acts_ND.shape
    latents = enc_FD.shape[0]
    room = batch * (k + k_dead)
    rows_BD = np.empty((batch, width), np.float32)
    grad_BD = np.zeros((2 * batch, width), np.float32)  # second half: of the auxiliary loss
    pre_BF = np.empty((batch, latents), np.float32)
    kept = np.empty(room, np.int64)
    entry_row = np.empty(room, np.int64)
    entry_next = np.empty(room, np.int64)
    everyone_F = np.ones(latents, np.bool_)
    head_F = np.empty(latents, np.int64)
    gd_D, ge_D = np.empty(width, np.float32), np.empty(width, np.float32)
    total = 0.0
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
        np.dot(rows_BD[:size], enc_FD.T, pre_BF[:size])
        head_F[:] = -1
        entries = 0
        scale = _TWO / np.float32(size * width)
        for b in range(size):
            for f in range(latents):
                pre_BF[b, f] += bias_F[f]
            start = entries
            entries = select_largest(pre_BF[b], everyone_F, k, kept, entries)
            for d in range(width):
                grad_BD[b, d] = -rows_BD[b, d]
            for e in range(start, entries):
                f = kept[e]
                value = pre_BF[b, f]
                fired_F[f] += 1
                entry_row[e] = b
                entry_next[e] = head_F[f]
                head_F[f] = e
                for d in range(width):
                    grad_BD[b, d] += value * dec_FD[f, d]
            error = _ZERO
            for d in range(width):
                error += grad_BD[b, d] * grad_BD[b, d]
            total += error
            if k_dead > 0:
                start = entries
                entries = select_largest(pre_BF[b], dead_F, k_dead, kept, entries)
                for d in range(width):
                    grad_BD[batch + b, d] = grad_BD[b, d]  # minus the residual dead latents rebuild
                for e in range(start, entries):
                    f = kept[e]
                    value = pre_BF[b, f]
                    entry_row[e] = b + batch
                    entry_next[e] = head_F[f]
                    head_F[f] = e
                    for d in range(width):
                        grad_BD[batch + b, d] += value * dec_FD[f, d]
                for d in range(width):
                    grad_BD[batch + b, d] *= scale * aux_weight
            for d in range(width):
                grad_BD[b, d] *= scale
        step += 1
        size_m = np.float32(rate / (1 - 0.9**step))
        root_v = np.float32(1 / np.sqrt(1 - 0.999**step))
        for f in range(latents):
            if head_F[f] < 0:
                idle_F[f] += 1
                if idle_F[f] > IDLE_STEPS:
                    continue
                if idle_F[f] == IDLE_STEPS:
                    for d in range(width):
                        m_enc_FD[f, d] = m_dec_FD[f, d] = _ZERO
                    m_bias_F[f] = _ZERO
                    continue
            elif idle_F[f] >= IDLE_STEPS:
                # the second moment shrank while the latent rested
                rest = np.float32(0.999 ** float(min(idle_F[f] - IDLE_STEPS + 1, 100000)))
                for d in range(width):
                    v_enc_FD[f, d] *= rest
                    v_dec_FD[f, d] *= rest
                v_bias_F[f] *= rest
            if head_F[f] >= 0:
                idle_F[f] = 0
            for d in range(width):
                gd_D[d] = _ZERO
                ge_D[d] = _ZERO
            gb = _ZERO
            e = head_F[f]
            while e >= 0:
                # two entries at a time: the accumulators are read and written half as often
                one, two = e, entry_next[e]
                e = entry_next[two] if two >= 0 else two
                row1, row2 = entry_row[one], entry_row[max(two, 0)]
                value1 = pre_BF[row1 % batch, f]
                value2 = pre_BF[row2 % batch, f] if two >= 0 else _ZERO
                pull1, pull2 = _ZERO, _ZERO
                for d in range(width):
                    pull1 += grad_BD[row1, d] * dec_FD[f, d]
                    pull2 += grad_BD[row2, d] * dec_FD[f, d]
                if two < 0:
                    pull2 = _ZERO
                in1, in2 = row1 % batch, row2 % batch
                for d in range(width):
                    gd_D[d] += value1 * grad_BD[row1, d] + value2 * grad_BD[row2, d]
                    ge_D[d] += pull1 * rows_BD[in1, d] + pull2 * rows_BD[in2, d]
                gb += pull1 + pull2
            if unit_norm:
                along = _ZERO
                for d in range(width):
                    along += gd_D[d] * dec_FD[f, d]
                for d in range(width):
                    gd_D[d] -= along * dec_FD[f, d]
            adam(dec_FD[f], gd_D, m_dec_FD[f], v_dec_FD[f], size_m, root_v)
            adam(enc_FD[f], ge_D, m_enc_FD[f], v_enc_FD[f], size_m, root_v)
            m_bias_F[f] += (_ONE - BETA1) * (gb - m_bias_F[f])
            v_bias_F[f] += (_ONE - BETA2) * (gb * gb - v_bias_F[f])
            bias_F[f] -= size_m * m_bias_F[f] / (np.sqrt(v_bias_F[f]) * root_v + EPSILON)
            if unit_norm:
                norm = _ZERO
                for d in range(width):
                    norm += dec_FD[f, d] * dec_FD[f, d]
                norm = _ONE / np.sqrt(norm)
                for d in range(width):
                    dec_FD[f, d] *= norm
    return step, total / (n_rows * width)


@numba.njit(**_OPTIONS, inline="always")
def adam(weights_D, grad_D, m_D, v_D, size_m, root_v):
    """One Adam update of a vector, in place (Kingma and Ba 2015)."""
    for d in range(weights_D.size):
        g = grad_D[d]
        m = m_D[d] + (_ONE - BETA1) * (g - m_D[d])
        v = v_D[d] + (_ONE - BETA2) * (g * g - v_D[d])
        m_D[d] = m
        v_D[d] = v
        weights_D[d] -= size_m * m / (np.sqrt(v) * root_v + EPSILON)


@numba.njit(**_OPTIONS)
def squared_errors(acts_ND, k, enc_FD, bias_F, dec_FD, centre_D):
    """Squared error of each row's reconstruction, [N]; chunks of 16 rows stay in the cache."""
    n_rows, width = acts_ND.shape
    latents = enc_FD.shape[0]
    errors_N = np.empty(n_rows, np.float64)
    rows_BD = np.empty((16, width), np.float32)
    pre_BF = np.empty((16, latents), np.float32)
    kept = np.empty(k, np.int64)
    everyone_F = np.ones(latents, np.bool_)
    for first in range(0, n_rows, 16):
        size = min(16, n_rows - first)
        for b in range(size):
            for d in range(width):
                rows_BD[b, d] = acts_ND[first + b, d] - centre_D[d]
        np.dot(rows_BD[:size], enc_FD.T, pre_BF[:size])
        for b in range(size):
            for f in range(latents):
                pre_BF[b, f] += bias_F[f]
            for e in range(select_largest(pre_BF[b], everyone_F, k, kept, 0)):
                f = kept[e]
                value = pre_BF[b, f]
                for d in range(width):
                    rows_BD[b, d] -= value * dec_FD[f, d]
            error = _ZERO
            for d in range(width):
                error += rows_BD[b, d] * rows_BD[b, d]
            errors_N[first + b] = error
    return errors_N


@numba.njit(**_OPTIONS)
def smallest_margins(acts_ND, k, enc_FD, bias_F, centre_D):
    """By how much each latent misses being kept, at best, over all rows; <= 0 if it is kept, [F].

    For each row, the value that the k-th largest code has (0 if fewer are positive) minus the
    pre-activation of the latent; the minimum over rows.
    """
    n_rows, width = acts_ND.shape
    latents = enc_FD.shape[0]
    margins_F = np.full(latents, np.float32(np.inf))
    rows_BD = np.empty((16, width), np.float32)
    pre_BF = np.empty((16, latents), np.float32)
    kept = np.empty(k, np.int64)
    everyone_F = np.ones(latents, np.bool_)
    for first in range(0, n_rows, 16):
        size = min(16, n_rows - first)
        for b in range(size):
            for d in range(width):
                rows_BD[b, d] = acts_ND[first + b, d] - centre_D[d]
        np.dot(rows_BD[:size], enc_FD.T, pre_BF[:size])
        for b in range(size):
            for f in range(latents):
                pre_BF[b, f] += bias_F[f]
            n_kept = select_largest(pre_BF[b], everyone_F, k, kept, 0)
            lowest = _ZERO
            if n_kept == k:
                lowest = pre_BF[b, kept[0]]
                for e in range(n_kept):
                    lowest = min(lowest, pre_BF[b, kept[e]])
            for f in range(latents):
                margins_F[f] = min(margins_F[f], lowest - pre_BF[b, f])
    return margins_F


class SparseSteps:
    """Weights, moments and counters of one SAE under training, moved by the kernels above.

    The twin of `saeutils.sae_torch.DenseSteps`: same start, same batches, same numbers up to
    rounding.
    """

    def __init__(self, start, k, batch, unit_norm, k_dead=0, aux_weight=0.0):
        self.k, self.batch, self.unit_norm = k, batch, unit_norm
        self.k_dead, self.aux_weight = k_dead, np.float32(aux_weight)
        self.weights = [np.ascontiguousarray(start["W_enc_DF"].T), start["b_enc_F"].copy(),
                        start["W_dec_FD"].copy(), start["b_dec_D"].copy()]
        enc_FD, bias_F, dec_FD, _ = self.weights
        self.moments = [np.zeros_like(a) for a in (enc_FD, enc_FD, bias_F, bias_F, dec_FD, dec_FD)]
        self.idle_F = np.full(len(bias_F), IDLE_STEPS, np.int64)
        self.steps = 0

    def epoch(self, acts_ND, order_N, rate, dead_F, jitter=0.0, plus_N=None, minus_N=None):
        """One pass; returns how often each latent fired and the mean squared error."""
        fired_F = np.zeros(len(self.idle_F), np.int64)
        k_dead = min(self.k_dead, int(dead_F.sum()))
        pairs = (order_N, order_N) if plus_N is None else (plus_N, minus_N)
        self.steps, error = train_epoch(
            acts_ND, order_N, *pairs, np.float32(jitter), self.batch, self.k, rate, self.steps,
            *self.weights, *self.moments, self.idle_F, fired_F, dead_F, k_dead, self.aux_weight,
            self.unit_norm)
        return fired_F, error

    def margins(self, acts_ND):
        """By how much each latent misses being kept on its best row; <= 0 if it is kept, [F]."""
        enc_FD, bias_F, _, centre_D = self.weights
        return smallest_margins(acts_ND, self.k, enc_FD, bias_F, centre_D)

    def lift(self, amounts_F):
        """Add to the encoder's bias."""
        self.weights[1] += amounts_F.astype(np.float32)

    def errors(self, acts_ND):
        """Squared error of each row, [N]."""
        return squared_errors(acts_ND, self.k, *self.weights)

    def snapshot(self):
        """A copy of the weights as `SparseAutoencoder` names them."""
        enc_FD, bias_F, dec_FD, centre_D = (array.copy() for array in self.weights)
        return {"W_enc_DF": enc_FD.T.copy(), "b_enc_F": bias_F, "W_dec_FD": dec_FD,
                "b_dec_D": centre_D}
