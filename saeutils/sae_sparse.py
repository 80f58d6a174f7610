"""One SAE under training in sparse steps: its arrays and the calls of the kernels."""

from __future__ import annotations

import numpy as np

from saeutils.sae_kernels import IDLE_STEPS, smallest_margins, squared_errors, train_epoch


class SparseSteps:
    """Weights, moments and counters of one SAE under training, moved by `saeutils.sae_kernels`.

    The twin of `saeutils.sae_torch.DenseSteps`: same start, same batches, same numbers up to
    rounding.
    """

    def __init__(self, start, k, batch, unit_norm, k_dead=0, aux_weight=0.0):
        self.k, self.batch, self.unit_norm = k, batch, unit_norm
        self.k_dead, self.aux_weight = k_dead, np.float32(aux_weight)
        self.weights = [np.ascontiguousarray(start["W_enc_DF"].T), start["b_enc_F"].copy(),
                        start["W_dec_FD"].copy(), start["b_dec_D"].copy()]
        enc_FD, bias_F, dec_FD, _ = self.weights
        # of encoder, bias and decoder each the first moment and the root of the second
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
