"""File formats of the store: tables, arrays, and writes that happen wholly or not at all."""

from __future__ import annotations

import errno
import json
import lzma
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saeutils.inputs import NO_ARCHIVE
from saeutils.profiles import ROOT

# Of a member: damaged, or packed or locked in a way that is not read here (a password).
BAD_MEMBER = (*NO_ARCHIVE, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
BAD_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)


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


@contextmanager
def one_at_a_time(path: Path, what: str):
    """Hold a file lock while `what` is computed; it dies with its process, however that ends.

    Raises
    ------
    ValueError
        Another process holds it.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{what} is being computed by another process in the same folder; "
                         "wait for it, or use --run-name NAME") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive, to read.

    Raises
    ------
    ValueError
        It is none, is damaged, or needs a newer version than is known here.
    """
    try:
        content = zipfile.ZipFile(path)
    except NO_ARCHIVE as error:
        raise ValueError(f"{path.name} is no whole archive: {error}; get it again") from None
    with content:
        yield content


def unpack_member(content: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Write one member of an archive to `target`, wholly or not at all.

    Raises
    ------
    ValueError
        It is damaged, has a password, or a name that this disk cannot hold; names it.
    OSError
        The disk is full, or may not be written.
    """
    try:
        with atomic(target) as part, content.open(info) as source, open(part, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
    except (*BAD_MEMBER, OSError) as error:
        code = getattr(error, "errno", None)  # none: damage in a member that is packed as bz2
        if code and code not in BAD_NAME:
            raise
        why = os.strerror(code) if code else str(error) or "it ends early"
        raise ValueError(f"{Path(content.filename or '').name} is no whole archive: member "
                         f"{info.filename[:120]!r}: {why}; get it again, or unpack it otherwise "
                         "and name the folder as data.vocalset_dir in the profile") from None


def table_file(name: str) -> str:
    return f"{name}.csv" if name.startswith("results/") else f"{name}.parquet"


def read_table(path: Path):
    """A table from CSV or Parquet.

    Raises
    ------
    ValueError
        The file is missing, cut off or no such table; one line that names it.
    """
    import pandas as pd
    import pyarrow

    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, float_precision="round_trip")
        return pd.read_parquet(path)
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"cannot read table {path.name}: {why}; remove it and run the step that "
                         "writes it again") from None


TIDY = ("encoder", "layer", "representation", "variant", "sparsity", "k", "seed", "protocol",
        "split", "attribute", "metric", "value", "ci_low", "ci_high", "n")


def in_order(table):
    """The table with those of its columns that all result tables share in their common order.

    They change places among themselves; every other column stays where it is.

    Examples
    --------
    >>> import pandas as pd
    >>> list(in_order(pd.DataFrame(columns=["entry", "layer", "note", "encoder"])))
    ['entry', 'encoder', 'note', 'layer']
    """
    shared = iter(sorted((name for name in table if name in TIDY), key=TIDY.index))
    return table[[next(shared) if name in TIDY else name for name in table]]


def write_csv(table, part: Path) -> None:
    table.to_csv(part, index=False, float_format="%.10g", lineterminator="\n")


def write_parquet(table, part: Path) -> None:
    table.to_parquet(part, index=False)


def read_arrays(path: Path) -> dict[str, Any]:
    """Named numpy arrays from a safetensors file.

    Raises
    ------
    ValueError
        The file is missing, cut off, no safetensors, or holds what numpy has no type for.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(_no_safetensors(path, error)) from None


def array_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays in a safetensors file, from its header alone.

    Raises
    ------
    ValueError
        As `read_arrays`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(_no_safetensors(path, error)) from None


def _no_safetensors(path: Path, error: Exception) -> str:
    why = " ".join(str(error).split())[:200]
    return (f"{path.parent.name}/{path.name} is no whole safetensors file ({why}): get it again, "
            "or run the step that writes it")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object, such as a configuration.

    Raises
    ------
    ValueError
        The file is missing, is no JSON, or holds something else.
    """
    name = f"{path.parent.name}/{path.name}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"{name} is no JSON ({why}): get it again, or write it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{name} holds {content!r:.40}: expected names and values in braces")
    return content


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
