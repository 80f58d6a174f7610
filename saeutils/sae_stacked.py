"""Many SAEs of one shape trained side by side on a GPU: each step is one batched product.

On a CPU the sparse step of `saeutils.sae_kernels` is faster one by one. On a GPU a step of one
narrow SAE is too small to fill it. Stacked or alone, an SAE sees the same start and batches.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch

from saeutils.sae import SparseAutoencoder
from saeutils.sae_training import CORRECTED, Recipe, finish, prepare, training


class StackedSteps:
    """Weights and one optimiser of S SAEs, [S, ...]; the gradients of `saeutils.sae_torch`.

    Parameters
    ----------
    starts
        S starts of equal shape.
    ks
        Latents kept per row, one number per SAE.
    autocast
        ``torch.bfloat16`` runs the products in it; weights, codes' order and Adam stay float32.
    """

    def __init__(self, starts, ks, batch, unit_norm, device="cpu", autocast=None):
        def stack(name):
            return torch.tensor(np.stack([start[name] for start in starts]), device=device)

        self.ks, self.most = torch.tensor(ks, device=device), max(ks)
        self.batch, self.unit_norm, self.device = batch, unit_norm, device
        self.autocast = autocast
        self.weights = [stack("W_enc_DF"), stack("b_enc_F")[:, None], stack("W_dec_FD")]
        self.centre_S1D = stack("b_dec_D")[:, None]
        self.adam = torch.optim.Adam(self.weights, lr=1e-3,
                                     fused=torch.device(device).type != "mps")
        self.rows_SND = None

    @torch.no_grad()
    def epoch(self, rows, orders, rate, jitter=0.0, plus=None, minus=None):
        """One pass of all; rows and orders hold one array per SAE. Returns counts and errors."""
        if self.rows_SND is None:
            self.rows_SND = torch.as_tensor(np.stack(rows), device=self.device)
        acts_SND = self.rows_SND
        pick = torch.arange(len(orders), device=self.device)[:, None]

        def moved(order):
            return acts_SND[pick, torch.as_tensor(np.stack(order), device=self.device)]

        moved_SND = moved(orders)
        if jitter:
            moved_SND = moved_SND + jitter * (moved(plus) - moved(minus))
        self.adam.param_groups[0]["lr"] = rate
        fired_SF = torch.zeros(self.weights[1].shape[::2], dtype=torch.int64, device=self.device)
        sums = []  # no float64 on the device, and nothing waits for a batch: see sae_torch
        for rows_SBD in moved_SND.split(self.batch, dim=1):
            codes_SBF, error_SBD = self._step(rows_SBD - self.centre_S1D)
            fired_SF += (codes_SBF > 0).sum(1)
            sums.append(error_SBD.square().sum((1, 2)))
        error_S = torch.stack(sums).cpu().numpy().sum(axis=0, dtype=np.float64)
        return fired_SF.cpu().numpy(), error_S / acts_SND[0].numel()

    def _step(self, rows_SBD):
        W_enc_SDF, b_enc_S1F, W_dec_SFD = self.weights
        with self._precision():
            pre_SBF = torch.baddbmm(b_enc_S1F, rows_SBD, W_enc_SDF).float().relu_()
            codes_SBF = top_each(pre_SBF, self.ks, self.most)
            error_SBD = torch.bmm(codes_SBF, W_dec_SFD).float() - rows_SBD
            grad_SBD = error_SBD * (2 / rows_SBD[0].numel())
            dec_SFD = torch.bmm(codes_SBF.mT, grad_SBD).float()
            codes_grad_SBF = torch.bmm(grad_SBD, W_dec_SFD.mT).float() * (codes_SBF > 0)
            enc_SDF = torch.bmm(rows_SBD.mT, codes_grad_SBF).float()
        if self.unit_norm:
            dec_SFD -= (dec_SFD * W_dec_SFD).sum(2, keepdim=True) * W_dec_SFD
        W_enc_SDF.grad, W_dec_SFD.grad = enc_SDF, dec_SFD
        b_enc_S1F.grad = codes_grad_SBF.sum(1, keepdim=True)
        self.adam.step()
        if self.unit_norm:
            W_dec_SFD /= W_dec_SFD.norm(dim=2, keepdim=True)
        return codes_SBF, error_SBD

    def _precision(self):
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=self.autocast)


class _One:
    """One SAE of a stack, as `saeutils.sae_training.training` asks for it between epochs."""

    def __init__(self, stack: StackedSteps, number: int):
        self.stack, self.number = stack, number

    def _parts(self):
        enc_DF, bias_1F, dec_FD = (tensor[self.number] for tensor in self.stack.weights)
        return enc_DF, bias_1F[0], dec_FD, self.stack.centre_S1D[self.number, 0]

    def _pre(self, acts_ND):
        """Centred rows [B, D] and pre-activations [B, F], a thousand rows at once."""
        enc_DF, bias_F, _, centre_D = self._parts()
        for rows_BD in torch.as_tensor(acts_ND, device=self.stack.device).split(1024):
            rows_BD = rows_BD - centre_D
            yield rows_BD, torch.addmm(bias_F, rows_BD, enc_DF)

    @torch.no_grad()
    def margins(self, acts_ND):
        """By how much each latent misses being kept on its best row, [F]."""
        k = int(self.stack.ks[self.number])
        margins_F = torch.full_like(self._parts()[1], torch.inf)
        for _, pre_BF in self._pre(acts_ND):
            lowest_B1 = pre_BF.topk(k, dim=1).values[:, -1:].relu()
            margins_F = torch.minimum(margins_F, (lowest_B1 - pre_BF).amin(0))
        return margins_F.cpu().numpy()

    @torch.no_grad()
    def lift(self, amounts_F):
        """Add to the encoder's bias."""
        self._parts()[1].add_(torch.as_tensor(amounts_F, dtype=torch.float32,
                                              device=self.stack.device))

    @torch.no_grad()
    def errors(self, acts_ND):
        """Squared error of each row, [N]."""
        k = self.stack.ks[self.number : self.number + 1]
        errors = []
        for rows_BD, pre_BF in self._pre(acts_ND):
            codes_BF = top_each(pre_BF.relu()[None], k, int(k))[0]
            errors.append((codes_BF @ self._parts()[2] - rows_BD).square().sum(1))
        return torch.cat(errors).cpu().numpy().astype(np.float64)

    def snapshot(self):
        """A copy of the weights as `SparseAutoencoder` names them."""
        names = ("W_enc_DF", "b_enc_F", "W_dec_FD", "b_dec_D")
        return {name: tensor.cpu().numpy().copy()
                for name, tensor in zip(names, self._parts(), strict=True)}


def top_each(pre_SBF: torch.Tensor, ks: torch.Tensor, most: int) -> torch.Tensor:
    """Keep the `ks[s]` largest of each row of slice s, the rest becomes zero.

    `most` is the largest of `ks`: to ask the device for it would wait for all it still has to do.

    Examples
    --------
    >>> top_each(torch.tensor([[[3.0, 1, 2]], [[3.0, 1, 2]]]), torch.tensor([1, 2]), 2).tolist()
    [[[3.0, 0.0, 0.0]], [[3.0, 0.0, 2.0]]]
    """
    values, places = pre_SBF.topk(most, dim=-1, sorted=True)
    rank = torch.arange(most, device=pre_SBF.device)
    values = torch.where(rank < ks[:, None, None], values, 0.0)
    return torch.zeros_like(pre_SBF).scatter_(-1, places, values)


def train_stack(
    jobs: list[tuple[np.ndarray, np.ndarray, int, int]],
    latents: int,
    recipe: Recipe = CORRECTED,
    device: str = "cpu",
    autocast: torch.dtype | None = None,
) -> list[tuple[SparseAutoencoder, list[dict[str, float]]]]:
    """Train SAEs of one width, recipe and number of rows side by side.

    Parameters
    ----------
    jobs
        One ``(train_ND, validation_ND, k, seed)`` per SAE.
    autocast
        ``torch.bfloat16`` for the products of a step; its error is the difference to None.

    Returns
    -------
    list
        What `saeutils.sae_training.train_sae` returns, in the order of the jobs.

    Raises
    ------
    ValueError
        As `train_sae`; and for jobs whose training rows differ in shape, or a recipe with the
        auxiliary loss.
    """
    if recipe.aux_k:
        raise ValueError("aux_k: stacked training has no auxiliary loss; train these one by one")
    tasks = [prepare(train, held, latents, k, seed, recipe) for train, held, k, seed in jobs]
    shapes = sorted({task.rows_ND.shape for task in tasks})
    if len(shapes) > 1:
        raise ValueError(f"training rows of {' and '.join(map(str, shapes))} cannot be stacked: "
                         "group them by shape")
    stack = StackedSteps([task.start for task in tasks], [task.k for task in tasks], recipe.batch,
                         recipe.unit_norm, device, autocast)
    runs = [training(_One(stack, number), task) for number, task in enumerate(tasks)]
    wanted = [next(run) for run in runs]
    done: dict[int, tuple] = {}
    while len(done) < len(runs):
        rows, orders, rates, _, jitters, *pairs = zip(*wanted, strict=True)
        fired_SF, errors = stack.epoch(rows, orders, rates[0], jitters[0], *pairs)
        for number in set(range(len(runs))) - set(done):  # one that has stopped keeps its best
            try:
                wanted[number] = runs[number].send((fired_SF[number], float(errors[number])))
            except StopIteration as end:
                done[number] = end.value
        running = next((wanted[n] for n in range(len(runs)) if n not in done), None)
        if running is not None:  # the step size is that of the epoch
            wanted = [w if n not in done else (w[0], w[1], running[2], *w[3:])
                      for n, w in enumerate(wanted)]
    return [finish(task, *done[number], "stacked") for number, task in enumerate(tasks)]
