"""SAE trainers to be timed: the release's loop, this package's steps, other people's libraries.

Each entry of `CONTENDERS` makes a `Contender` for a width, a number of latents, k and a batch. All
take Adam's steps at a rate of 1e-3; start and loss are each contender's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from saeutils.sae_sparse import SparseSteps
from saeutils.sae_starts import linear_start
from saeutils.sae_torch import DenseSteps

RATE = 1e-3
LOOP = "release's loop"
PEERS = ("sae-lens", "dictionary_learning", "sparsify", "overcomplete")
FLOOR = "floor of a sparse step"


@dataclass(frozen=True)
class Contender:
    """A trainer under way.

    `train` takes rows [N, D] and steps through them in batches; `rebuild` returns [N, D] and
    `codes` [N, F] of rows as they are coded now (None where no benchmark asks).
    """

    train: Callable[[np.ndarray], None]
    rebuild: Callable[[np.ndarray], np.ndarray] | None = None
    codes: Callable[[np.ndarray], np.ndarray] | None = None


def release_loop(width: int, latents: int, k: int, batch: int) -> Contender:
    """The release's loop as its paper describes it: modules, autograd, Adam as torch has it."""
    import torch

    encoder = torch.nn.Linear(width, latents)
    decoder = torch.nn.Linear(latents, width, bias=False)
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=RATE)

    def encode(x):
        pre = torch.relu(encoder(x))
        values, places = pre.topk(k, dim=1)
        return torch.zeros_like(pre).scatter(1, places, values)

    def train(rows):
        for x in torch.from_numpy(rows).split(batch):
            loss = torch.nn.functional.mse_loss(decoder(encode(x)), x)
            adam.zero_grad()
            loss.backward()
            adam.step()
            loss.item()

    return Contender(train, _untracked(lambda x: decoder(encode(x))), _untracked(encode))


def _untracked(work) -> Callable[[np.ndarray], np.ndarray]:
    """A function of tensors as one of arrays, without gradients."""
    import torch

    def run(rows):
        with torch.no_grad():
            return work(torch.from_numpy(rows)).numpy()

    return run


def _ours(steps_class):
    def make(width, latents, k, batch):
        steps = steps_class(linear_start(width, latents, 0), k, batch, False)
        nobody = np.zeros(latents, bool)
        return Contender(lambda rows: steps.epoch(rows, np.arange(len(rows)), RATE, nobody))

    return make


def sae_lens(width: int, latents: int, k: int, batch: int) -> Contender:
    """TopK of sae-lens, its loss and its start."""
    import torch
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=width, d_sae=latents, k=k))
    adam = torch.optim.Adam(sae.parameters(), lr=RATE)

    def train(rows):
        for x in torch.from_numpy(rows).split(batch):
            out = sae.training_forward_pass(TrainStepInput(x, {}, None, 1, False))
            adam.zero_grad()
            out.loss.backward()
            adam.step()

    return Contender(train, _untracked(sae))


def dictionary_learning(width: int, latents: int, k: int, batch: int) -> Contender:
    """TopKTrainer of dictionary_learning, with its own warming up (1,000 steps)."""
    import torch
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(steps=10**6, activation_dim=width, dict_size=latents, k=k, layer=0,
                          lm_name="none", lr=RATE, device="cpu")
    count = [0]

    def train(rows):
        for x in torch.from_numpy(rows).split(batch):
            trainer.update(count[0], x)
            count[0] += 1

    return Contender(train, _untracked(trainer.ae))


def sparsify(width: int, latents: int, k: int, batch: int) -> Contender:
    """SparseCoder of sparsify on its FVU loss, decoder of unit norm."""
    import torch
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(width, SparseCoderConfig(num_latents=latents, k=k), device="cpu")
    adam = torch.optim.Adam(coder.parameters(), lr=RATE)

    def train(rows):
        for x in torch.from_numpy(rows).split(batch):
            loss = coder(x).fvu
            adam.zero_grad()
            loss.backward()
            coder.remove_gradient_parallel_to_decoder_directions()
            adam.step()
            coder.set_decoder_norm_to_unit_norm()

    return Contender(train, _untracked(lambda x: coder(x).sae_out))


def overcomplete(width: int, latents: int, k: int, batch: int) -> Contender:
    """TopKSAE of overcomplete, with its default encoder."""
    import matplotlib
    import torch

    matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap  # overcomplete 0.3 asks for the old name
    from overcomplete.sae import TopKSAE

    sae = TopKSAE(width, nb_concepts=latents, top_k=k, device="cpu")
    adam = torch.optim.Adam(sae.parameters(), lr=RATE)

    def train(rows):
        sae.train()
        for x in torch.from_numpy(rows).split(batch):
            _, codes = sae.encode(x)
            loss = torch.nn.functional.mse_loss(sae.decode(codes), x)
            adam.zero_grad()
            loss.backward()
            adam.step()

    def rebuild(x):
        sae.eval()  # its encoder has a batch norm
        return sae.decode(sae.encode(x)[1])

    return Contender(train, _untracked(rebuild))


CONTENDERS = {
    LOOP: (release_loop, "torch"), "ours, dense (torch)": (_ours(DenseSteps), "torch"),
    "ours, sparse (numba)": (_ours(SparseSteps), "numba"), "sae-lens": (sae_lens, "sae-lens"),
    "dictionary_learning": (dictionary_learning, "dictionary-learning"),
    "sparsify": (sparsify, "eai-sparsify"), "overcomplete": (overcomplete, "overcomplete"),
}


def why_not(error: Exception) -> str:
    """The note of a contender that cannot run here."""
    return f"not run: {type(error).__name__}: {error}".split("\n")[0][:150]


def floor_speed(width: int, latents: int, k: int, batch: int) -> float:
    """Rows per second that arithmetic and memory of this machine allow a sparse step, measured now.

    Arithmetic: the dense encoder product and four sparse ones, at the speed of a float32 matrix
    product of these sizes, the few rows as its rows or as its columns, whichever is faster.
    Memory: the encoder once, and weights and two Adam moments of each latent that fires in the
    batch, read and written, at the speed of a copy as large as all of these, so that what fits a
    cache is copied there. The slower of both.
    """
    rows, weights = np.ones((batch, width), np.float32), np.ones((width, latents), np.float32)
    turned, columns = np.ascontiguousarray(weights.T), np.ascontiguousarray(rows.T)
    seconds = min(_fastest(lambda: rows @ weights), _fastest(lambda: turned @ columns))
    flops = 2 * batch * width * latents / seconds
    source = np.ones(6 * width * latents // 2, np.float32)  # read and written: all of it
    target = np.empty_like(source)
    rate = 2 * source.nbytes / _fastest(lambda: np.copyto(target, source))
    arithmetic = (2 * batch * width * latents + 8 * batch * k * width) / flops
    firing = latents * (1 - (1 - k / latents) ** batch)
    memory = 4 * width * (latents + 12 * firing) / rate
    return batch / max(arithmetic, memory)


def _fastest(work, times: int = 20) -> float:
    work()
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)
