"""Other ways to be sparse, each in a few lines of torch: BatchTopK, Matryoshka, JumpReLU, L1.

All share the corrected recipe's centre, scale, start and unit-norm decoder, and all are asked for
the same thing, k active latents in a row on average, so that they can be compared at equal L0.
Trained with autograd: no grid of the companion needs their speed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch

from saeutils import sae_metrics
from saeutils.sae import SparseAutoencoder, check_k, check_rows
from saeutils.sae_starts import shaped_start
from saeutils.sae_training import centre_and_scale, check_training_rows

BATCH = 64
BANDWIDTH = 0.2  # of JumpReLU's step, as a share of the threshold


def train_variant(
    train_ND: np.ndarray, validation_ND: np.ndarray, latents: int, k: int, seed: int,
    variant: str, *, epochs: int = 40, batch: int = BATCH, rate: float = 2e-3,
) -> tuple[SparseAutoencoder, list[dict[str, float]]]:
    """Train one SAE of another kind.

    Parameters
    ----------
    k
        Active latents wanted per row, on average over rows.
    variant
        "batchtopk", "matryoshka", "jumprelu" or "l1".

    Returns
    -------
    sae, history
        BatchTopK, Matryoshka and JumpReLU come back as "jumprelu" (a threshold per latent, the
        same whatever rows stand in a batch), L1 as "standard". History as in `train_sae`, with
        `l0`: validation rows choose among the epochs in which at most 1.25 k latents are active,
        or it would be no comparison. If there is none, the last epoch comes back, with a warning.

    Raises
    ------
    ValueError
        Unknown variant, what `train_sae` refuses, or for JumpReLU a k that leaves no room for a
        threshold above zero.
    """
    check_variant(variant)
    check_k(k, latents)
    train_ND = check_training_rows(train_ND, batch)
    validation_ND = check_rows(validation_ND, train_ND.shape[1])
    if not len(validation_ND):
        raise ValueError("no validation rows: at least one is needed to choose the epoch")
    centre_D, scale = centre_and_scale(train_ND, "mean")
    rows_ND, held_ND = (torch.tensor((acts_ND - centre_D) / scale) for acts_ND in
                        (train_ND, validation_ND))
    start = shaped_start(rows_ND.numpy(), latents, k, seed)
    weights = {name: torch.nn.Parameter(torch.tensor(start[name]))
               for name in ("W_enc_DF", "b_enc_F", "W_dec_FD")}
    model = VARIANTS[variant](weights, k)
    model.prepare(rows_ND)
    adam = torch.optim.Adam([*weights.values(), *model.extra], lr=rate)
    order = torch.Generator().manual_seed(seed)
    best, lowest, history = None, np.inf, []
    for epoch in range(epochs):
        adam.param_groups[0]["lr"] = rate * min(1.0, 2 * (epochs - epoch) / epochs)
        total = 0.0
        for places in torch.randperm(len(rows_ND), generator=order).split(batch):
            x_BD = rows_ND[places]
            loss, error = model.loss(x_BD)
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                weights["W_dec_FD"] /= weights["W_dec_FD"].norm(dim=1, keepdim=True)
            total += float(error) * len(x_BD)
        model.after_epoch(rows_ND)
        sae = _as_arrays(model, centre_D, scale, variant, seed, epoch + 1)
        codes_NF = sae.encode(validation_ND)
        rebuilt_ND = sae.decode(codes_NF)
        left = sae_metrics.mse(validation_ND, rebuilt_ND)
        active = float((codes_NF > 0).sum(1).mean())
        better = left < lowest and active <= 1.25 * k
        if better:
            best, lowest = sae, left
        history.append({"epoch": epoch + 1, "train_mse": total / len(rows_ND),
                        "validation_fvu": sae_metrics.fvu(validation_ND, rebuilt_ND),
                        "l0": active, "picked": better})
    if best is None:
        warnings.warn(f"{variant}: no epoch came down to {1.25 * k:g} active latents a row (k = "
                      f"{k}, the last has {active:.1f}); train longer, or compare at its L0",
                      stacklevel=2)
        best, history[-1]["picked"] = sae, True
    return best, history


def check_variant(variant: str, protocol: str = "corrected") -> None:
    """ValueError for a variant that is not among `VARIANTS`, or not of the corrected protocol."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: {', '.join(VARIANTS)} "
                         "(TopK itself is train_sae)")
    if protocol != "corrected":
        raise ValueError(f"{variant} of protocol {protocol!r}: the release knows TopK alone; give "
                         "protocols=['corrected']")


class _Variant:
    """Weights and, where a kind has them, more parameters; what each kind adds is below."""

    architecture = "jumprelu"

    def __init__(self, weights: dict[str, torch.nn.Parameter], k: int) -> None:
        self.weights, self.k, self.extra = weights, k, []
        self.threshold_F = torch.zeros(len(weights["b_enc_F"]))

    def pre(self, x_BD: torch.Tensor) -> torch.Tensor:
        return torch.relu(x_BD @ self.weights["W_enc_DF"] + self.weights["b_enc_F"])

    def error(self, codes_BF: torch.Tensor, x_BD: torch.Tensor, first: int | None = None):
        return (codes_BF[:, :first] @ self.weights["W_dec_FD"][:first] - x_BD).square().mean()

    @torch.no_grad()
    def threshold_for_k(self, rows_ND: torch.Tensor) -> float:
        """The pre-activation above which k latents per row lie, on average over these rows."""
        pre_N = self.pre(rows_ND).flatten()
        return float(pre_N.topk(min(self.k * len(rows_ND) + 1, len(pre_N))).values[-2:].mean())

    def prepare(self, rows_ND: torch.Tensor) -> None:
        """What is fitted before the first step."""

    def after_epoch(self, rows_ND: torch.Tensor) -> None:
        """What is fitted once an epoch."""


class BatchTopK(_Variant):
    """The k*B largest codes of a whole batch: easy rows spend less, hard rows more.

    At inference a batch must not matter: the threshold is the value that keeps k per row on
    average over all training rows. Source: Bussmann et al. 2024, arXiv 2412.06410 (there the mean
    of the batches' smallest kept codes).
    """

    def codes(self, x_BD: torch.Tensor) -> torch.Tensor:
        pre_BF = self.pre(x_BD)
        lowest = pre_BF.flatten().topk(self.k * len(x_BD)).values[-1]
        return pre_BF * (pre_BF >= lowest)

    def loss(self, x_BD: torch.Tensor):
        error = self.error(self.codes(x_BD), x_BD)
        return error, error.detach()

    def after_epoch(self, rows_ND: torch.Tensor) -> None:
        self.threshold_F = torch.full_like(self.threshold_F, self.threshold_for_k(rows_ND))


class Matryoshka(BatchTopK):
    """BatchTopK whose first eighth, quarter and half of the latents must rebuild the row alone.

    General causes are pushed to the front, details to the back, against feature absorption.
    Source: Bussmann et al. 2025, arXiv 2503.17547.
    """

    def loss(self, x_BD: torch.Tensor):
        codes_BF = self.codes(x_BD)
        latents = codes_BF.shape[1]
        errors = [self.error(codes_BF, x_BD, latents // part) for part in (8, 4, 2, 1)]
        return sum(errors), errors[-1].detach()


class JumpReLU(_Variant):
    """A threshold per latent, learned through a smoothed step.

    ``codes = pre * (pre > threshold)``; the loss adds ``0.1 (L0/k - 1)^2``. The step has no
    gradient: a rectangle around the threshold, `BANDWIDTH` times its value wide, stands in for it.
    Source: Rajamanoharan et al. 2024, arXiv 2407.14435.
    """

    def prepare(self, rows_ND: torch.Tensor) -> None:
        threshold = self.threshold_for_k(rows_ND)
        if not threshold > 0:
            raise ValueError(f"k = {self.k} of {len(self.threshold_F)} latents: at the start fewer "
                             "pre-activations than that are above zero, and a threshold must be; "
                             "take a smaller k, or batchtopk")
        start_F = torch.full_like(self.threshold_F, np.log(threshold))
        self.log_threshold_F = torch.nn.Parameter(start_F)
        self.extra = [self.log_threshold_F]

    def loss(self, x_BD: torch.Tensor):
        pre_BF = self.pre(x_BD)
        threshold_F = self.log_threshold_F.exp()
        step_BF = _Step.apply(pre_BF, threshold_F)
        error = self.error(pre_BF * step_BF, x_BD)
        return error + 0.1 * (step_BF.sum(1).mean() / self.k - 1) ** 2, error.detach()

    @torch.no_grad()
    def after_epoch(self, rows_ND: torch.Tensor) -> None:
        self.threshold_F = self.log_threshold_F.exp()


class L1(_Variant):
    """The classic: ReLU and a price on the sum of the codes; the price is what shrinks them.

    The price follows L0: each epoch it is multiplied by (L0/k)^0.1, until k latents are active.
    Source: Bricken et al. 2023, "Towards monosemanticity"; the controller is ours.
    """

    architecture = "standard"
    price = 0.1

    def loss(self, x_BD: torch.Tensor):
        codes_BF = self.pre(x_BD)
        error = self.error(codes_BF, x_BD)
        price = self.price * codes_BF.sum(1).mean() / x_BD.shape[1] ** 0.5
        return error + price, error.detach()

    @torch.no_grad()
    def after_epoch(self, rows_ND: torch.Tensor) -> None:
        active = float((self.pre(rows_ND) > 0).sum(1).float().mean())
        self.price *= float(np.clip((active / self.k) ** 0.1, 0.8, 1.25))


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pre_BF, threshold_F):
        ctx.save_for_backward(pre_BF, threshold_F)
        return (pre_BF > threshold_F).to(pre_BF.dtype)

    @staticmethod
    def backward(ctx, grad_BF):
        pre_BF, threshold_F = ctx.saved_tensors
        width_F = BANDWIDTH * threshold_F
        near_BF = ((pre_BF - threshold_F).abs() < width_F / 2).to(grad_BF.dtype)
        return None, -(near_BF * grad_BF).sum(0) / width_F


VARIANTS: dict[str, Callable[..., _Variant]] = {
    "batchtopk": BatchTopK, "matryoshka": Matryoshka, "jumprelu": JumpReLU, "l1": L1,
}


def _as_arrays(model, centre_D, scale, variant, seed, epochs) -> SparseAutoencoder:
    W_enc_DF, b_enc_F, W_dec_FD = (model.weights[name].detach().numpy().copy()
                                   for name in ("W_enc_DF", "b_enc_F", "W_dec_FD"))
    scale = np.float32(scale)
    threshold_F = model.threshold_F.numpy() * scale if model.architecture == "jumprelu" else None
    info = {"protocol": "corrected", "variant": variant, "seed": int(seed), "epochs": epochs,
            "wanted_l0": int(model.k)}
    return SparseAutoencoder(W_enc_DF, b_enc_F * scale, W_dec_FD, centre_D.astype(np.float32),
                             architecture=model.architecture, threshold_F=threshold_F,
                             centred=True, info=info)
