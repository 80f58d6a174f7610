"""File formats of the store: tables, arrays, and writes that happen wholly or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saeutils.profiles import ROOT


@contextmanager
def atomic(path: Path):
    """Yield a temporary path in the same folder; on success it replaces `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with open(part, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def table_file(name: str) -> str:
    return f"{name}.csv" if name.startswith("results/") else f"{name}.parquet"


def read_table(path: Path):
    import pandas as pd

    if path.suffix == ".csv":
        return pd.read_csv(path, float_precision="round_trip")
    return pd.read_parquet(path)


def write_csv(table, part: Path) -> None:
    table.to_csv(part, index=False, float_format="%.10g", lineterminator="\n")


def write_parquet(table, part: Path) -> None:
    table.to_parquet(part, index=False)


def read_arrays(path: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(path)


def write_arrays(arrays: dict[str, Any], part: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, part)


def reference_table(name: str):
    """A committed table of data/reference, by its name without the ending.

    Raises
    ------
    ValueError
        There is no such table; names those there are.
    """
    folder = ROOT / "data" / "reference"
    path = folder / f"{name}.csv"
    if not path.is_file():
        have = ", ".join(sorted(p.stem for p in folder.glob("*.csv")))
        raise ValueError(f"unknown reference table {name!r}: there are {have}")
    return read_table(path)
