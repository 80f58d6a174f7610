"""The extraction of one encoder as several jobs: each computes its pieces, stage 02 gathers them.

The store keeps the states of clips in pieces of whole batches, and no piece depends on who computes
it. A job takes every n-th piece and leaves a marker; the notebook of stage 02 then finds all pieces
in the store and only puts them together. Should one be missing, it computes that one itself.
"""

from __future__ import annotations

import re
import time
from typing import Any

from saeutils import files, keys
from saeutils.store import open_stage


def read_part(text: str) -> tuple[int, int]:
    """``2/3`` as numbers: the second of three jobs.

    Raises
    ------
    ValueError
        For anything else, and for a number above its sum.

    Examples
    --------
    >>> read_part("2/3")
    (2, 3)
    """
    found = re.fullmatch(r"([1-9]\d{0,4})/([1-9]\d{0,4})", text)
    if not found or int(found[1]) > int(found[2]):
        raise ValueError(f"part {text[:40]!r}: write I/N with I from 1 to N, such as 2/3")
    return int(found[1]), int(found[2])


def compute_part(step: keys.Step, overrides: dict[str, Any], part: tuple[int, int]) -> int:
    """Compute one job's pieces of stage 02 into the store; returns how many there are.

    Parameters
    ----------
    step
        Stage 02 of an encoder, from `saeutils.keys.find_step`.
    overrides
        Dotted keys of the profile and their values.
    part
        ``(i, n)``: every `n`-th piece from the `i`-th.

    Raises
    ------
    ValueError
        Another stage than 02, stage 01 is missing, or sound that cannot be used.
    """
    if step.number != "02":
        raise ValueError(f"stage {step.label} has no parts: only 02, the extraction, is split")
    stage = open_stage("02", step.profile, encoder=step.source, overrides=overrides, aside=True,
                       run_name="" if step.run == step.profile else step.run)
    settings, start, pieces = stage.profile.extraction, time.monotonic(), []
    if not settings.activations:  # own states need no encoder
        from saeutils import activations, encoders

        def cached(name, *rest):
            pieces.append(name)
            return stage.cached(name, *rest)

        model = encoders.load_encoder(
            step.source, model_dir=settings.model_dir, hub_cache=settings.hub_cache,
            device=settings.device, precision=settings.precision)
        root = stage.path_of("01", "")
        how = dict(batch_size=settings.batch_size, batch_s=settings.batch_seconds,
                   piece_s=settings.piece_seconds, workers=stage.workers, cached=cached, part=part)
        clips = stage.read_table("01", "clips")
        activations.extract(model, [root / name for name in clips.audio], name="clips",
                            window_s=settings.released_window_seconds, **how)
        if stage.has("01", "counterfactuals/sets"):
            sets = stage.read_table("01", "counterfactuals/sets")
            activations.extract(model, [root / name for name in sets.audio], ("masked",),
                                name="counterfactuals", **how)
    if part[1] > 1:
        with files.atomic(step.part_markers(part[1])[part[0] - 1]) as marker:
            marker.write_text(f"{len(pieces)} pieces\n", encoding="utf-8")
    print(f"{step.label}, part {part[0]} of {part[1]}: {len(pieces)} pieces in "
          f"{time.monotonic() - start:.0f} s", flush=True)
    return len(pieces)
