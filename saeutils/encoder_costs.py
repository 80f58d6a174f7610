"""What an extraction costs: passes through the encoder, and what fewer bits do to its states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from saeutils import encoders_inputs
from saeutils.encoders import POOLINGS, Encoder, pooled


def rounding_error(encoder: Encoder, waves: list[np.ndarray], sampling_rate: int) -> float:
    """How far the encoder's precision moves masked states: median over clips and states.

    Relative to the length of the float32 vector; 0 for an encoder in float32.
    """
    if encoder.precision == "float32":
        return 0.0
    exact = replace(encoder, precision="float32")
    gaps = []
    for wave in waves:
        a, b = (pooled(e, [wave], sampling_rate, "masked")[0] for e in (encoder, exact))
        gaps.append(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1))
    return float(np.median(gaps))


def passes(encoder: Encoder, seconds: Sequence[float], poolings: Sequence[str] = POOLINGS,
           piece_s: float = 0.0) -> int:  # fmt: skip
    """Windows that go through the encoder once each, for clips of these lengths."""
    rate = encoder.sampling_rate
    pieces = sum(len(encoders_inputs.cut(encoder, np.ones(round(s * rate), np.int8), piece_s))
                 for s in seconds)  # fmt: skip
    return pieces * ("masked" in poolings) + len(seconds) * ("released" in poolings)


def release_passes(
    n_clips: int, n_states: int, n_chosen: int = 2, n_sparsities: int = 6, sae_epochs: int = 100,
    probe_epochs: int = 120,
) -> int:  # fmt: skip
    """Forward passes of the release's loop over as many training and validation clips.

    It runs the frozen encoder for every batch of every epoch: once for the SAEs of a sparsity, and
    for each probe on a raw state or on the codes of a chosen layer.

    Examples
    --------
    >>> release_passes(1212, 13)
    4508640
    """
    saes = n_sparsities * sae_epochs
    probes = (n_states + n_chosen * n_sparsities) * probe_epochs
    return n_clips * (saes + probes)
