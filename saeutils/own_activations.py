"""States that somebody else extracted: a safetensors file in the place of an encoder.

The file holds ``masked`` (or ``activations``), float [clip, layer, width], and may hold
``released``, the same clips under the paper's pooling. Rows follow the clip table of notebook 01,
or a companion ``NAME.ids.csv`` beside ``NAME.safetensors`` with one column ``clip_id``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from saeutils.files import array_shapes, read_arrays

NAMES = ("masked", "activations", "released")


def read_activations(path: Path, clip_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Own states in the order of the clip table, checked.

    Parameters
    ----------
    path : pathlib.Path
        Ends in ``.safetensors``; a companion ``.ids.csv`` is used if it is there.
    clip_ids : sequence of str
        Column ``clip_id`` of the clip table.

    Returns
    -------
    dict of numpy.ndarray
        ``masked`` and ``released``, float32 [clip, layer, width]. Without arrays of their own for
        the released pooling both are the same.

    Raises
    ------
    ValueError
        If the file is missing or unreadable, holds other names, integers, NaN, infinity, a layer
        that is the same for every clip, another shape than [clip, layer, width], or other rows
        than the clip table.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or not path.is_file():
        raise ValueError(f"extraction.activations = {path.name!r}: there is no such file, or it is "
                         "no .safetensors; give its path")
    names = sorted(array_shapes(path))
    unknown = [name for name in names if name not in NAMES]
    given = [name for name in ("masked", "activations") if name in names]
    if unknown or len(given) != 1:
        raise ValueError(f"{path.name} holds {', '.join(names) or 'nothing'}: name the states "
                         "'masked' (or 'activations'), those under the paper's pooling 'released'")
    arrays = read_arrays(path)
    masked, released = arrays[given[0]], arrays.get("released", arrays[given[0]])
    if masked.shape != released.shape:
        raise ValueError(f"{path.name}: 'released' has shape {released.shape} and 'masked' "
                         f"{masked.shape}: both hold the same clips and layers")
    masked, released = (_checked(path.name, name, values)
                        for name, values in (("masked", masked), ("released", released)))
    order = _order(path, list(map(str, clip_ids)), len(masked))
    return {"masked": masked[order], "released": released[order]}


def _checked(file: str, name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 3 or not all(values.shape):
        raise ValueError(f"{file}: {name!r} has shape {values.shape}; give [clip, layer, width] "
                         "(for one layer [clip, 1, width]), averaged over time")
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"{file}: {name!r} is of type {values.dtype}; give float16, float32 or "
                         "float64")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        clip, layer = np.argwhere(~finite)[0][:2]
        raise ValueError(f"{file}: {name!r} holds NaN or infinity in {(~finite).sum():,} places, "
                         f"first in row {clip}, layer {layer}: leave the clip out or extract again")
    constant = np.flatnonzero(values.std(0).max(1) == 0)
    if len(constant) and len(values) > 1:
        raise ValueError(f"{file}: layer {constant[0]} of {name!r} is the same for every clip: "
                         "leave it out")
    return values


def _order(path: Path, clip_ids: list[str], n_rows: int) -> np.ndarray:
    """Rows of the file in the order of the clip table."""
    companion = path.with_suffix(".ids.csv")
    if not companion.is_file():
        if n_rows != len(clip_ids):
            raise ValueError(f"{path.name} has {n_rows} rows, the clip table {len(clip_ids)}: give "
                             f"the rows in its order, or their clip_id in {companion.name}")
        return np.arange(n_rows)
    from saeutils.labels import read_cells

    table = read_cells(companion, dtype=str, keep_default_na=False)  # "NA" is a name
    if list(table.columns) != ["clip_id"]:
        raise ValueError(f"{companion.name} has the columns {', '.join(table.columns)}: it needs "
                         "one, clip_id")
    ids = table["clip_id"].tolist()
    if len(ids) != n_rows or len(set(ids)) != n_rows:
        raise ValueError(f"{companion.name} names {len(set(ids))} different clips in {len(ids)} "
                         f"lines, {path.name} has {n_rows} rows: one line for each row")
    absent = sorted(set(clip_ids) - set(ids))
    if absent:
        raise ValueError(f"{companion.name} lacks {len(absent)} clips of the clip table, first "
                         f"{absent[0]!r}: add their states, or leave them out of the table")
    place = {name: row for row, name in enumerate(ids)}
    return np.array([place[name] for name in clip_ids])
