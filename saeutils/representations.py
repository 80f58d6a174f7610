"""What stages 04 and 05 compare: raw states, SAE codes, and the codes of untrained twins.

Every SAE is followed by its twin: the dictionary of equal width and k that it was before training,
same seed, same start (A24). Shape letters: N clips, L layers, D width of the states, F latents.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from saeutils.machine import side_by_side
from saeutils.sae import SparseAutoencoder, load_sae, sae_folder
from saeutils.sae_starts import untrained_twin

ID_COLUMNS = ("encoder", "layer", "representation", "variant", "sparsity", "k", "seed", "protocol")
POOLING = {"released": "released", "corrected": "masked"}


@dataclass(frozen=True)
class Representation:
    """One representation of one layer.

    Attributes
    ----------
    encoder, layer, representation, variant, sparsity, k, seed, protocol
        Id columns of every result table. ``sparsity`` is in percent (NaN for raw), ``k`` is 0 for
        raw, and the ``seed`` of raw states is that of their probe's inner folds (else 0).
    dictionary
        None for raw states; a `LinearBasis` for PCA and ICA.
    """

    encoder: str
    layer: int
    representation: str
    variant: str
    sparsity: float
    k: int
    seed: int
    protocol: str
    dictionary: SparseAutoencoder | LinearBasis | None = None

    def encode(self, states_ND: np.ndarray) -> np.ndarray:
        """States as they are, or their codes; float32, shape [N, D] or [N, F]."""
        if self.dictionary is None:
            return np.asarray(states_ND, dtype=np.float32)
        return self.dictionary.encode(states_ND)

    def label(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table with the id columns in front."""
        ids = pd.DataFrame({name: getattr(self, name) for name in ID_COLUMNS}, index=table.index)
        return pd.concat([ids, table], axis=1)


def chosen_layers(wanted, encoder: str, n_layers: int) -> list[int]:
    """Layers of an encoder that get dictionaries: those the profile names, else all of them.

    Parameters
    ----------
    wanted
        ``sae.layers`` of the profile: layers, or "all", by encoder.

    Raises
    ------
    ValueError
        A layer that the encoder does not have.

    Examples
    --------
    >>> chosen_layers({"ast": (6, 12)}, "ast", 13), chosen_layers({}, "demo", 3)
    ([6, 12], [0, 1, 2])
    """
    layers = wanted.get(encoder, "all")
    layers = list(range(n_layers)) if layers == "all" else list(layers)
    unknown = [layer for layer in layers if not 0 <= layer < n_layers]
    if unknown or not layers:
        raise ValueError(f"unknown layer {(unknown or ['(none)'])[0]}: {encoder} has "
                         f"0..{n_layers - 1}; see sae.layers of the profile")
    return layers


def raw_cells(
    encoder: str, layers: Iterable[int], protocol: str, seeds: Iterable[int] = (0,)
) -> list[Representation]:
    """One cell of raw states per layer; several for what draws by seed, as inner folds are."""
    return [Representation(encoder, layer, "raw", "", np.nan, 0, seed, protocol)
            for layer in layers for seed in seeds]


def sae_cells(
    trained: pd.DataFrame,
    folder: Path,
    states_NLD: np.ndarray,
    protocol: str,
) -> list[Representation]:
    """Every SAE that stage 03 trained under a protocol, each followed by its untrained twin.

    Parameters
    ----------
    trained
        Table ``results/sae_training`` of stage 03.
    folder
        The folder ``saes`` of that encoder.
    states_NLD
        States of the clips the SAEs were trained on: they give the twin centre, shape and gain,
        nothing else.
    protocol
        ``released`` or ``corrected``.

    Raises
    ------
    ValueError
        The table holds no SAE of this protocol.
    """
    columns = ["encoder", "layer", "variant", "sparsity", "k", "seed"]
    rows = trained[(trained["protocol"] == protocol) & (trained["representation"] == "sae")]
    rows = rows[columns].drop_duplicates().sort_values(["variant", "layer", "sparsity", "seed"])
    if not len(rows):
        have = ", ".join(sorted(trained["protocol"].unique()))
        raise ValueError(f"no SAE of protocol {protocol!r}: stage 03 trained {have}")
    cells = []
    for row in rows.itertuples(index=False):
        place = sae_folder(protocol, row.layer, row.sparsity, row.seed, row.variant)
        sae = load_sae(folder / place)
        ids = (float(row.sparsity), int(row.k), int(row.seed), protocol)
        cells.append(Representation(row.encoder, row.layer, "sae", row.variant, *ids, sae))
        twin = untrained_twin(sae, states_NLD[:, row.layer])
        cells.append(Representation(row.encoder, row.layer, "random", row.variant, *ids, twin))
    return cells


@dataclass(frozen=True)
class LinearBasis:
    """An affine change of basis in the place of a dictionary: ``(states - mean_D) @ turn_DF``."""

    mean_D: np.ndarray
    turn_DF: np.ndarray

    def encode(self, states_ND: np.ndarray) -> np.ndarray:
        """Coordinates [N, F], float32."""
        return ((states_ND - self.mean_D) @ self.turn_DF).astype(np.float32)


def linear_cells(
    encoder: str, layer: int, protocol: str, states_ND: np.ndarray, seed: int,
    n_ica: int = 40, share: float = 0.99,
) -> list[Representation]:
    """Whitened PCA and ICA of one layer, fitted on training clips: what needs no dictionary.

    Parameters
    ----------
    states_ND
        Training clips of the layer.
    seed
        Start of FastICA.
    n_ica, share
        Components of the ICA at most, and variance that the kept principal components hold.
    """
    from sklearn.decomposition import FastICA

    mean = states_ND.mean(axis=0, dtype=np.float64)
    _, spread, axes = np.linalg.svd(states_ND - mean, full_matrices=False)
    held = np.cumsum(spread**2) / np.sum(spread**2)
    keep = min(int(np.searchsorted(held, share)) + 1, len(spread))
    turn = axes[:keep].T / spread[:keep] * np.sqrt(len(states_ND))
    n_ica = min(n_ica, keep)
    ica = FastICA(n_ica, whiten="unit-variance", random_state=seed, max_iter=500, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a rotation that has not settled is still a basis
        ica.fit((states_ND - mean) @ turn[:, :n_ica])
    bases = {"whitened_pca": turn, "ica": turn[:, :n_ica] @ ica.components_.T}
    return [
        Representation(encoder, layer, name, "", np.nan, 0, 0, protocol, LinearBasis(mean, basis))
        for name, basis in bases.items()
    ]


def run_cells(
    work: Callable[..., pd.DataFrame],
    cells: list[Representation],
    states_NLD: np.ndarray,
    workers: int = 1,
    **shared: object,
) -> pd.DataFrame:
    """Apply ``work(codes_NF, cell, **shared)`` to every representation; stack the tables.

    Cells are independent, so the result does not depend on ``workers``. Each worker is a process
    of one thread.

    Raises
    ------
    ValueError
        No cells.
    """
    if not cells:
        raise ValueError("no cells to compute: check the layers and sparsities of the profile")
    blocks = np.array_split(np.arange(len(cells)), min(8 * workers, len(cells)))
    jobs = [[(cells[i], states_NLD[:, cells[i].layer]) for i in block] for block in blocks]
    results = side_by_side(_run_block, [(work, job, shared) for job in jobs], workers)
    return pd.concat([table for block in results for table in block], ignore_index=True)


def _run_block(work, block, shared) -> list[pd.DataFrame]:
    return [
        cell.label(work(cell.encode(states_ND), cell, **shared).reset_index(drop=True))
        for cell, states_ND in block
    ]


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its columns in the order of all result files, own columns last.

    Examples
    --------
    >>> list(tidy(pd.DataFrame(columns=["value", "p", "metric", "layer"])))
    ['layer', 'metric', 'value', 'p']
    """
    order = (*ID_COLUMNS, "split", "attribute", "technique", "factor", "singer", "contrast",
             "metric", "value", "ci_low", "ci_high", "n")
    known = [name for name in order if name in table]
    return table[known + [name for name in table if name not in known]].reset_index(drop=True)
