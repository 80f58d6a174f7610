"""Frames instead of clips: states over time on disk, and dictionaries of frames, pooled by clip.

A clip's mean leaves out all that moves, and a dictionary of means is not what the field calls an
SAE of an encoder. Here states of one layer stay as they are over time, in shards of whole clips;
`saeutils.sae_stream` trains on them, and `pool` brings states or codes back to one row a clip.
Shape letters: N clips, T frames, D width of the states, F latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from saeutils.sae_stream import Shard, open_shards

CLIPS_PER_SHARD = 64


def write_frames(
    encoder, paths: Sequence[Path], layer: int, folder: Path | str, *, piece_s: float = 0.0,
    batch_size: int = 8, progress: bool = False,
) -> list[Shard]:
    """States of one layer, frame by frame, as safetensors shards of `CLIPS_PER_SHARD` whole clips.

    Each shard holds ``frames`` [T, D] (float16: half the disk, a relative error of 5e-4) and
    ``counts`` [N], the frames of each clip, in the order of `paths`. A shard's name carries a key
    of encoder, layer and sound; one that lies there under its key is not made again, others in the
    folder are removed.

    Parameters
    ----------
    encoder
        From `saeutils.encoders.load_encoder`.
    paths
        Sound files; whole clips are taken.
    piece_s
        As in stage 02: longer clips are cut into pieces of so many seconds.

    Raises
    ------
    ValueError
        No path; states beyond the range of float16; and as `saeutils.activations.load_wave` and
        `saeutils.atlas_sound.frame_states`.
    """
    from tqdm.auto import tqdm

    from saeutils import files, keys
    from saeutils.activations import load_wave
    from saeutils.atlas_sound import frame_states

    paths, folder = [Path(path) for path in paths], Path(folder)
    if not paths:
        raise ValueError("no sound files: frames need at least one clip")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = []
    with tqdm(total=len(paths), unit="clip", desc="frames", disable=not progress) as bar:
        for number, first in enumerate(range(0, len(paths), CLIPS_PER_SHARD)):
            part = paths[first : first + CLIPS_PER_SHARD]
            key = keys.digest([encoder.fingerprint, encoder.precision, layer, piece_s,
                               [keys.file_digest(path) for path in part]])[:16]
            wanted.append(folder / f"frames_{number:04d}_{key}.safetensors")
            if not wanted[-1].exists():
                waves = [load_wave(path, encoder.sampling_rate) for path in part]
                of_clip = frame_states(encoder, waves, layer, batch_size, piece_s)
                frames_TD = np.concatenate(of_clip)
                if np.abs(frames_TD).max() > np.finfo(np.float16).max:
                    raise ValueError(f"states of layer {layer} reach {np.abs(frames_TD).max():.3g},"
                                     " beyond float16: choose another layer")
                with files.atomic(wanted[-1]) as place:
                    files.write_arrays({"frames": frames_TD.astype(np.float16), "counts": np.array(
                        [len(frames) for frames in of_clip])}, place)
            bar.update(len(part))
    for path in set(folder.glob("frames_*.safetensors")) - set(wanted):
        path.unlink()
    return open_shards(wanted)


def each_clip(shards: Sequence[Shard]) -> Iterator[np.ndarray]:
    """Frames of one clip after the other, float32 [T, D], in the order they were written."""
    from safetensors import safe_open

    for shard in shards:
        with safe_open(shard.path, framework="numpy") as tensors:
            ends = np.cumsum(tensors.get_tensor("counts"))
        yield from np.split(shard.read(0, shard.rows), ends[:-1])


def pool(
    shards: Sequence[Shard], encode: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over each clip's frames, float32 [N, D] or [N, F] each.

    Parameters
    ----------
    encode
        Applied to the frames first, such as ``sae.encode``; None takes the states.

    Examples
    --------
    >>> mean, sd = pool_one(np.array([[0.0, 1.0], [2.0, 1.0]]))
    >>> mean.tolist(), sd.tolist()
    ([1.0, 1.0], [1.0, 0.0])
    """
    both = [pool_one(frames_TD if encode is None else encode(frames_TD))
            for frames_TD in each_clip(shards)]
    mean_NF, sd_NF = (np.stack(part).astype(np.float32) for part in zip(*both, strict=True))
    return mean_NF, sd_NF


def pool_one(values_TF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the frames of one clip, float64 [F]."""
    values_TF = np.asarray(values_TF, dtype=np.float64)
    return values_TF.mean(axis=0), values_TF.std(axis=0)


def sample(shards: Sequence[Shard], n: int, seed: int) -> np.ndarray:
    """`n` frames drawn without replacement over all shards (all, if there are fewer), [n, D]."""
    total = sum(shard.rows for shard in shards)
    chosen = np.sort(np.random.default_rng(seed).permutation(total)[:n])
    parts, start = [], 0
    for shard in shards:
        inside = chosen[(chosen >= start) & (chosen < start + shard.rows)] - start
        parts.append(shard.read(0, shard.rows)[inside])
        start += shard.rows
    return np.concatenate(parts)
