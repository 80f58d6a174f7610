"""The dense training step in plain torch: for GPUs, and the reference for the sparse kernel.

Gradients are written out by hand: an SAE is two matrix products, and torch's autograd costs more
than they do at batch 16. One fused Adam call moves all weights. No float64 tensor is ever made: MPS
has none. Sums over many batches are added up in numpy, after the last batch.
"""

from __future__ import annotations

import numpy as np
import torch


class DenseSteps:
    """Weights and optimiser of one SAE under training.

    The twin of `saeutils.sae_sparse.SparseSteps`: same start, same batches, same numbers up to
    rounding. With ``x`` the centred rows of a batch, ``e = x_hat - x`` and ``g = 2 e / (B D)``:

    - decoder: ``codes.T @ g``; codes: ``(g @ W_dec.T)`` where a code is above zero
    - encoder: ``x.T @ d_codes``, its bias the sum over rows
    - auxiliary loss (Gao et al. 2024, arXiv 2406.04093): the same with the `k_dead` largest codes
      of dead latents and ``e_aux = x_aux - (x - x_hat)``, times `aux_weight`; no gradient flows
      into the residual
    - unit norm: the decoder's gradient loses its part along each direction, and the directions
      are rescaled after the step
    """

    def __init__(self, start, k, batch, unit_norm, k_dead=0, aux_weight=0.0, device="cpu"):
        self.k, self.batch, self.unit_norm = k, batch, unit_norm
        self.k_dead, self.aux_weight, self.device = k_dead, aux_weight, device
        arrays = [np.ascontiguousarray(start[name]) for name in ("W_enc_DF", "b_enc_F", "W_dec_FD")]
        self.weights = [torch.tensor(array, device=device) for array in arrays]
        self.centre_D = torch.tensor(start["b_dec_D"], device=device)
        self.adam = torch.optim.Adam(self.weights, lr=1e-3,
                                     fused=torch.device(device).type != "mps")
        self._kept: list[tuple[np.ndarray, torch.Tensor]] = []

    @torch.no_grad()
    def epoch(self, acts_ND, order_N, rate, dead_F, jitter=0.0, plus_N=None, minus_N=None):
        """One pass; returns how often each latent fired and the mean squared error."""
        acts_ND = self._on_device(acts_ND)
        moved_ND = acts_ND[order_N]
        if jitter:
            moved_ND = moved_ND + jitter * (acts_ND[plus_N] - acts_ND[minus_N])
        dead_F = torch.as_tensor(dead_F, device=self.device)
        k_dead = min(self.k_dead, int(dead_F.sum()))
        self.adam.param_groups[0]["lr"] = rate
        fired_F = torch.zeros(len(dead_F), dtype=torch.int64, device=self.device)
        sums = []  # of the batches, left on the device until the end: nothing waits for them
        for rows_BD in moved_ND.split(self.batch):
            codes_BF, error_BD = self._step(rows_BD - self.centre_D, dead_F, k_dead)
            fired_F += (codes_BF > 0).sum(0)
            sums.append((error_BD * error_BD).sum())
        total = torch.stack(sums).cpu().numpy().sum(dtype=np.float64)
        return fired_F.cpu().numpy(), float(total) / moved_ND.numel()

    def _step(self, rows_BD, dead_F, k_dead):
        W_enc_DF, b_enc_F, W_dec_FD = self.weights
        scale = 2 / rows_BD.numel()
        pre_BF = torch.addmm(b_enc_F, rows_BD, W_enc_DF).relu_()
        codes_BF = _top(pre_BF, self.k)
        error_BD = codes_BF @ W_dec_FD - rows_BD
        grad_BD = error_BD * scale
        dec_FD = codes_BF.T @ grad_BD
        codes_grad_BF = (grad_BD @ W_dec_FD.T) * (codes_BF > 0)
        if k_dead:
            wake_BF = _top(torch.where(dead_F, pre_BF, 0.0), k_dead)
            aux_BD = (wake_BF @ W_dec_FD + error_BD) * (scale * self.aux_weight)
            dec_FD += wake_BF.T @ aux_BD
            codes_grad_BF += (aux_BD @ W_dec_FD.T) * (wake_BF > 0)
        if self.unit_norm:
            dec_FD -= (dec_FD * W_dec_FD).sum(1, keepdim=True) * W_dec_FD
        W_enc_DF.grad = rows_BD.T @ codes_grad_BF
        b_enc_F.grad, W_dec_FD.grad = codes_grad_BF.sum(0), dec_FD
        self.adam.step()
        if self.unit_norm:
            W_dec_FD /= W_dec_FD.norm(dim=1, keepdim=True)
        return codes_BF, error_BD

    @torch.no_grad()
    def margins(self, acts_ND):
        """By how much each latent misses being kept on its best row; <= 0 if it is kept, [F]."""
        W_enc_DF, b_enc_F, _ = self.weights
        margins_F = torch.full_like(b_enc_F, torch.inf)
        for rows_BD in self._on_device(acts_ND).split(1024):
            pre_BF = torch.addmm(b_enc_F, rows_BD - self.centre_D, W_enc_DF)
            lowest_B1 = pre_BF.topk(self.k, dim=1).values[:, -1:].relu()
            margins_F = torch.minimum(margins_F, (lowest_B1 - pre_BF).amin(0))
        return margins_F.cpu().numpy()

    @torch.no_grad()
    def lift(self, amounts_F):
        """Add to the encoder's bias."""
        self.weights[1] += torch.as_tensor(amounts_F, dtype=torch.float32, device=self.device)

    @torch.no_grad()
    def errors(self, acts_ND):
        """Squared error of each row, [N]."""
        W_enc_DF, b_enc_F, W_dec_FD = self.weights
        errors = []
        for rows_BD in self._on_device(acts_ND).split(1024):
            rows_BD = rows_BD - self.centre_D
            codes_BF = _top(torch.addmm(b_enc_F, rows_BD, W_enc_DF).relu_(), self.k)
            errors.append((codes_BF @ W_dec_FD - rows_BD).square().sum(1))
        return torch.cat(errors).cpu().numpy().astype(np.float64)

    def snapshot(self):
        """A copy of the weights as `SparseAutoencoder` names them."""
        names = ("W_enc_DF", "b_enc_F", "W_dec_FD")
        copies = {name: tensor.cpu().numpy().copy()
                  for name, tensor in zip(names, self.weights, strict=True)}
        return copies | {"b_dec_D": self.centre_D.cpu().numpy().copy()}

    def _on_device(self, acts_ND: np.ndarray) -> torch.Tensor:
        for array, tensor in self._kept:
            if array is acts_ND:
                return tensor
        tensor = torch.as_tensor(acts_ND, device=self.device)
        self._kept = [*self._kept[-2:], (acts_ND, tensor)]  # training, validation, a part of one
        return tensor


def _top(pre_BF: torch.Tensor, k: int) -> torch.Tensor:
    values, places = pre_BF.topk(k, dim=1, sorted=False)
    return torch.zeros_like(pre_BF).scatter_(1, places, values)
