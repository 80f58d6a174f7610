"""Sparse autoencoders as plain arrays: encode, decode, and folders that SAELens can read.

Shape letters: N rows (clips or frames), D width of the encoder's states, F latents. How
weights are found is the business of `saeutils.sae_training`.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saeutils.files import read_arrays, read_json

WEIGHTS_FILE = "sae_weights.safetensors"
CONFIG_FILE = "cfg.json"
ARCHITECTURES = ("topk", "jumprelu", "standard")


@dataclass(frozen=True)
class SparseAutoencoder:
    """A dictionary of F directions and the rule that says which of them a row uses.

    ``pre_NF = (acts_ND - b_dec_D if centred else acts_ND) @ W_enc_DF + b_enc_F``. The codes are
    ``relu(pre)``, of which "topk" keeps the k largest of each row, "jumprelu" those above
    ``threshold_F``, and "standard" all. The reconstruction is ``codes_NF @ W_dec_FD + b_dec_D``.

    Attributes
    ----------
    W_enc_DF, b_enc_F, W_dec_FD, b_dec_D
        float32 weights. The released protocol has no decoder bias: ``b_dec_D`` is zero.
    architecture
        "topk", "jumprelu" or "standard", in SAELens' words.
    k
        Latents that "topk" may keep in a row; None for the others.
    threshold_F
        Thresholds of "jumprelu"; None for the others.
    centred
        Whether ``b_dec_D`` is subtracted from the input.
    info
        Where the weights come from (protocol, layer, sparsity, seed, epochs ...); JSON values.
    """

    W_enc_DF: np.ndarray
    b_enc_F: np.ndarray
    W_dec_FD: np.ndarray
    b_dec_D: np.ndarray
    architecture: str = "topk"
    k: int | None = None
    threshold_F: np.ndarray | None = None
    centred: bool = False
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {self.architecture!r}: it is one of "
                             + ", ".join(ARCHITECTURES))
        if np.ndim(self.W_enc_DF) != 2:
            raise ValueError(f"W_enc has shape {np.shape(self.W_enc_DF)}: a matrix [width, "
                             "latents] is needed")
        width, latents = self.W_enc_DF.shape
        shapes = (self.b_enc_F.shape, self.W_dec_FD.shape, self.b_dec_D.shape)
        if shapes != ((latents,), (latents, width), (width,)):
            raise ValueError(f"shapes do not fit W_enc {self.W_enc_DF.shape}: b_enc, W_dec, b_dec "
                             f"are {shapes}, expected {((latents,), (latents, width), (width,))}")
        if self.architecture == "topk":
            check_k(self.k, latents)
        if self.architecture == "jumprelu" and np.shape(self.threshold_F) != (latents,):
            raise ValueError(f"jumprelu needs one threshold for each of the {latents} latents, "
                             f"got shape {np.shape(self.threshold_F)}")

    @property
    def width(self) -> int:
        """D, the number of dimensions of a row."""
        return self.W_enc_DF.shape[0]

    @property
    def latents(self) -> int:
        """F, the number of latents."""
        return self.W_enc_DF.shape[1]

    def encode(self, acts_ND: np.ndarray) -> np.ndarray:
        """Codes of some rows.

        Parameters
        ----------
        acts_ND
            Activations, cast to float32.

        Returns
        -------
        numpy.ndarray
            Non-negative codes [N, F], float32; a "topk" row has at most k above zero (fewer if
            fewer pre-activations are positive). No rows give an array of shape [0, F].

        Raises
        ------
        ValueError
            Wrong width, or NaN or infinite values.
        """
        acts_ND = check_rows(acts_ND, self.width)
        inputs_ND = acts_ND - self.b_dec_D if self.centred else acts_ND
        codes_NF = np.maximum(inputs_ND @ self.W_enc_DF + self.b_enc_F, 0)
        if self.architecture == "topk":
            return keep_largest(codes_NF, self.k)
        if self.architecture == "jumprelu":
            return np.where(codes_NF > self.threshold_F, codes_NF, np.float32(0))
        return codes_NF

    def decode(self, codes_NF: np.ndarray) -> np.ndarray:
        """Rows [N, D] that the codes stand for, in units of the activations."""
        return codes_NF @ self.W_dec_FD + self.b_dec_D

    def forward(self, acts_ND: np.ndarray) -> np.ndarray:
        """``decode(encode(acts_ND))``."""
        return self.decode(self.encode(acts_ND))


def k_of_sparsity(sparsity: float, latents: int, protocol: str = "corrected") -> int:
    """How many latents TopK may keep at a sparsity given in percent.

    ``(1 - sparsity/100) * latents``, truncated in the release (audit A20), rounded here. The
    release computes it in floating point, so that 90 % of 1000 gives 99: that is kept.

    Raises
    ------
    ValueError
        Sparsity outside 0 to 100, or so high that no latent is left.

    Examples
    --------
    >>> [k_of_sparsity(s, 2048, "released") for s in (75, 80, 85, 90, 95, 99)]
    [512, 409, 307, 204, 102, 20]
    >>> k_of_sparsity(90, 1000, "released"), k_of_sparsity(90, 1000)
    (99, 100)
    """
    if not 0 <= sparsity < 100:
        raise ValueError(f"sparsity {sparsity} %: at least 0 and below 100")
    if protocol not in ("released", "corrected"):
        raise ValueError(f"unknown protocol {protocol!r}: released or corrected")
    share = (1 - sparsity / 100) * latents
    return check_k(int(share) if protocol == "released" else round(share), latents)


def check_k(k: int | None, latents: int) -> int:
    """k itself, or ValueError if TopK cannot keep k of this many latents."""
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or not 1 <= k <= latents:
        raise ValueError(f"k = {k!r}: TopK keeps 1 to {latents}; choose another sparsity or width")
    return int(k)


def check_rows(acts_ND: np.ndarray, width: int | None = None) -> np.ndarray:
    """The rows as a float32 matrix, or ValueError for a wrong shape, NaN or infinity."""
    acts_ND = np.asarray(acts_ND, dtype=np.float32)
    if acts_ND.ndim != 2 or (width is not None and acts_ND.shape[1] != width):
        raise ValueError(f"activations have shape {acts_ND.shape}: expected [rows, {width or 'D'}]")
    bad = np.flatnonzero(~np.isfinite(acts_ND).all(axis=1))
    if bad.size:
        raise ValueError(f"{bad.size} rows hold NaN or infinite values (first: row {bad[0]}); "
                         "find the clip in the table of that order and leave it out")
    return acts_ND


def keep_largest(codes_NF: np.ndarray, k: int) -> np.ndarray:
    """The k largest entries of each row, zero elsewhere.

    Examples
    --------
    >>> keep_largest(np.array([[3., 0., 1., 2.]]), 2)
    array([[3., 0., 0., 2.]])
    """
    if k == codes_NF.shape[1] or not len(codes_NF):
        return codes_NF
    cut_N1 = np.partition(codes_NF, -k, axis=1)[:, -k, None]
    sparse_NF = np.where(codes_NF >= cut_N1, codes_NF, codes_NF.dtype.type(0))
    # equal values at the border: of these rows as many as there is room for
    tied = np.flatnonzero(np.count_nonzero(sparse_NF, axis=1) > k)
    kept = np.argpartition(codes_NF[tied], -k, axis=1)[:, -k:]
    sparse_NF[tied] = 0
    sparse_NF[tied[:, None], kept] = codes_NF[tied[:, None], kept]
    return sparse_NF


# folders ---------------------------------------------------------------------------------------
def sae_folder(
    protocol: str, layer: int, sparsity: float, seed: int, variant: str = "topk"
) -> str:
    """Where an SAE lies below the folder of the SAEs; other variants have folders of their own.

    Examples
    --------
    >>> sae_folder("corrected", 3, 95, 0), sae_folder("corrected", 3, 95, 0, "batchtopk")
    ('corrected/layer_03/sparsity_95/seed_0', 'corrected/batchtopk/layer_03/sparsity_95/seed_0')
    """
    kind = "" if variant == "topk" else f"{variant}/"
    return f"{protocol}/{kind}layer_{layer:02d}/sparsity_{sparsity:g}/seed_{seed}"


def save_sae(sae: SparseAutoencoder, folder: Path | str) -> Path:
    """Write a folder ``cfg.json`` + ``sae_weights.safetensors`` in SAELens' layout, atomically.

    The folder appears in one step, so a half-written one is never read. `info` travels in
    ``cfg.json`` under ``metadata``.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors = {"W_enc": sae.W_enc_DF, "b_enc": sae.b_enc_F, "W_dec": sae.W_dec_FD,
               "b_dec": sae.b_dec_D}
    config: dict[str, Any] = {"architecture": sae.architecture, "d_in": sae.width,
                              "d_sae": sae.latents, "dtype": "float32", "device": "cpu",
                              "apply_b_dec_to_input": sae.centred,
                              "normalize_activations": "none", "reshape_activations": "none",
                              "metadata": dict(sae.info)}
    if sae.architecture == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    if sae.architecture == "jumprelu":
        tensors["threshold"] = sae.threshold_F
    save_file({name: np.ascontiguousarray(values, dtype=np.float32)
               for name, values in tensors.items()}, part / WEIGHTS_FILE)
    (part / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
    return folder


def load_sae(folder: Path | str) -> SparseAutoencoder:
    """Read an SAE folder written by `save_sae` or by SAELens.

    Raises
    ------
    ValueError
        No SAE in the folder, missing or surplus weights, or a setting this class does not
        compute (another architecture, input normalisation, rescaling by the decoder's norm).
    """
    folder = Path(folder)
    config = read_config(folder)
    for key in ("normalize_activations", "reshape_activations"):
        if config.get(key) not in (None, "none"):
            raise ValueError(f"{folder.name}: {key} = {config[key]!r} is not supported; fold it "
                             "into the weights before saving (SAELens: fold_activation_norm...)")
    if config.get("rescale_acts_by_decoder_norm"):
        raise ValueError(f"{folder.name}: rescale_acts_by_decoder_norm is not supported; "
                         "fold the norms first (SAELens: fold_W_dec_norm)")
    tensors = read_arrays(folder / WEIGHTS_FILE)
    names = {"W_enc", "b_enc", "W_dec", "b_dec"}
    names |= {"threshold"} if config["architecture"] == "jumprelu" else set()
    if set(tensors) != names:
        raise ValueError(f"{folder.name}/{WEIGHTS_FILE} holds {sorted(tensors)}, "
                         f"expected {sorted(names)}")
    for name, values in tensors.items():
        if values.dtype.kind != "f" or not np.isfinite(values).all():
            raise ValueError(f"{folder.name}/{WEIGHTS_FILE}: {name} ({values.dtype}) holds NaN, "
                             "infinite or integer values; train or get it again")
    return SparseAutoencoder(
        W_enc_DF=tensors["W_enc"], b_enc_F=tensors["b_enc"], W_dec_FD=tensors["W_dec"],
        b_dec_D=tensors["b_dec"], architecture=config["architecture"], k=config.get("k"),
        threshold_F=tensors.get("threshold"), centred=config["apply_b_dec_to_input"],
        info=dict(config.get("metadata") or {}),
    )


def read_config(folder: Path | str) -> dict[str, Any]:
    """``cfg.json`` of an SAE folder; ValueError when there is no whole SAE or no such settings."""
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise ValueError(f"no SAE in {folder.name!r}: it needs {CONFIG_FILE} and {WEIGHTS_FILE}; "
                         "train it with notebook 03")
    config = read_json(folder / CONFIG_FILE)
    wanted = {"architecture": str, "apply_b_dec_to_input": bool}
    for key, kind in wanted.items():
        if not isinstance(config.get(key), kind):
            raise ValueError(f"{folder.name}/{CONFIG_FILE}: {key} = {config.get(key)!r}, but a "
                             f"{kind.__name__} is needed; save the SAE again")
    if not isinstance(config.get("metadata") or {}, dict):
        raise ValueError(f"{folder.name}/{CONFIG_FILE}: metadata = {config['metadata']!r:.40}, but "
                         "names and values are needed; save the SAE again")
    return config
