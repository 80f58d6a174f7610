"""Where an SAE starts, and the untrained dictionary, which stays there: the null of every number.

Shape letters: N rows, D width of the encoder's states, F latents.
"""

from __future__ import annotations

import numpy as np

from saeutils.sae import SparseAutoencoder, check_k, check_rows, keep_largest


def linear_start(width: int, latents: int, seed: int) -> dict[str, np.ndarray]:
    """Weights as two fresh ``torch.nn.Linear`` layers would have them (released protocol).

    Encoder and its bias are uniform within 1/sqrt(D), the decoder (no bias) within 1/sqrt(F);
    drawn by numpy, so the distribution is torch's and the single numbers are not.
    """
    rng = np.random.default_rng([seed, 0])
    encoder, decoder = 1 / np.sqrt(width), 1 / np.sqrt(latents)
    return {
        "W_enc_DF": rng.uniform(-encoder, encoder, (width, latents)).astype(np.float32),
        "b_enc_F": rng.uniform(-encoder, encoder, latents).astype(np.float32),
        "W_dec_FD": rng.uniform(-decoder, decoder, (latents, width)).astype(np.float32),
        "b_dec_D": np.zeros(width, np.float32),
    }


def principal_axes(rows_ND: np.ndarray, most: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Variances [D], the largest first, and axes [D, D] (columns) of centred rows.

    Of more than `most` rows, so many are drawn. float64 inside; the axes are float32.
    """
    exact_ND = _some(rows_ND, most).astype(np.float64)
    power_D, axes_DD = np.linalg.eigh(exact_ND.T @ exact_ND / len(exact_ND))
    return power_D[::-1], np.ascontiguousarray(axes_DD[:, ::-1], dtype=np.float32)


def _some(rows_ND: np.ndarray, most: int) -> np.ndarray:
    if len(rows_ND) <= most:
        return rows_ND
    return rows_ND[np.sort(np.random.default_rng(0).choice(len(rows_ND), most, replace=False))]


def shaped_start(
    rows_ND: np.ndarray, latents: int, k: int, seed: int, power_D: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Random unit directions for centred rows, the encoder their transpose times one gain.

    Two things make it work (measured in notebook 03):

    - *shape*: directions are drawn with the square root of the rows' covariance, half way between
      all directions alike and the rows' own shape. Alike, most of them point where the data never
      go, and at high sparsity they stay silent; in the rows' own shape they are too similar.
    - *gain*: k directions that overlap add up to several times the row. One least-squares gain
      on the encoder makes the first reconstruction as good as it can be. Without it a tied start
      loses to the released one at low sparsity: it spends its time undoing the overshoot.

    Parameters
    ----------
    rows_ND
        Centred rows (mean zero in every column); the gain is fitted on 1,024 of them.
    power_D
        Variances, if the rows stand in their `principal_axes`; else the axes are found here. The
        directions are the same either way.
    """
    axes_DD = None
    if power_D is None:
        power_D, axes_DD = principal_axes(rows_ND)
    rng = np.random.default_rng([seed, 0])
    fourth_root_D = (np.maximum(power_D, 1e-6 * power_D[0]) ** 0.25).astype(np.float32)
    dict_FD = rng.standard_normal((latents, len(power_D)), dtype=np.float32) * fourth_root_D
    dict_FD = dict_FD if axes_DD is None else dict_FD @ axes_DD.T
    dict_FD /= np.linalg.norm(dict_FD, axis=1, keepdims=True)
    few_ND = np.asarray(_some(rows_ND, 1024), np.float32)
    codes_NF = keep_largest(np.maximum(few_ND @ dict_FD.T, 0), k)
    gain = np.float32(_gain(codes_NF @ dict_FD, few_ND))
    return {"W_enc_DF": np.ascontiguousarray(gain * dict_FD.T),
            "b_enc_F": np.zeros(latents, np.float32), "W_dec_FD": dict_FD,
            "b_dec_D": np.zeros(len(power_D), np.float32)}


def _gain(recon_ND: np.ndarray, rows_ND: np.ndarray) -> float:
    power = float(np.sum(recon_ND * recon_ND, dtype=np.float64))
    return float(np.sum(recon_ND * rows_ND, dtype=np.float64)) / power if power else 1.0


def random_dictionary(
    acts_ND: np.ndarray, latents: int, k: int, seed: int, protocol: str = "corrected"
) -> SparseAutoencoder:
    """The untrained dictionary of equal width and k: the null beside every SAE number (A24).

    Random directions, ReLU, TopK; nothing is learned. "released" is the release's start (no
    centring), "corrected" the corrected one: random directions around the mean of the rows, drawn
    with the square root of their covariance. The decoder is the encoder's transpose times one
    gain, the least-squares gain on the rows: otherwise an arbitrary scale would be judged.

    Parameters
    ----------
    acts_ND
        Training rows: they give centre, shape and gain, nothing else.
    """
    acts_ND = check_rows(acts_ND)
    check_k(k, latents)
    info = {"representation": "random", "protocol": protocol, "seed": int(seed)}
    if protocol == "released":
        start = linear_start(acts_ND.shape[1], latents, seed)
        start["W_dec_FD"] = np.ascontiguousarray(start["W_enc_DF"].T)
        sae = SparseAutoencoder(**start, k=k)
        gain = _gain(sae.encode(acts_ND) @ sae.W_dec_FD, acts_ND)
        start["W_dec_FD"] = (start["W_dec_FD"] * gain).astype(np.float32)
    elif protocol == "corrected":
        centre_D = acts_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
        start = shaped_start(acts_ND - centre_D, latents, k, seed) | {"b_dec_D": centre_D}
    else:
        raise ValueError(f"unknown protocol {protocol!r}: released or corrected")
    return SparseAutoencoder(**start, k=k, centred=protocol == "corrected", info=info)


def untrained_twin(sae: SparseAutoencoder, acts_ND: np.ndarray) -> SparseAutoencoder:
    """The untrained dictionary of a trained SAE: its width, k, protocol and random seed.

    Parameters
    ----------
    acts_ND
        The rows the SAE was trained on; see `random_dictionary`.
    """
    k = sae.k or sae.info.get("wanted_l0")  # of BatchTopK and others: k on average over rows
    if not k:
        raise ValueError(f"an untrained twin needs k: {sae.architecture!r} has none")
    seed, protocol = sae.info["seed"], sae.info["protocol"]
    return random_dictionary(acts_ND, sae.latents, k, seed, protocol)
