"""Checksums of a run's own material: what stage 01 depends on beside code and settings.

Cheap on purpose, because every command computes them: no audio is read whole, no time stamp
counts, and a synthetic run asks nothing. Imports neither numpy nor pandas.
"""

from __future__ import annotations

import csv
import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from saeutils.profiles import Data, Extraction, place

VOCALSET_SHA256 = {
    "1.0": "2bf96b80abe57a23323fd8c78be8cb70503e35995e6bae94a6067197c88a61ae",
    "1.2": "",  # published with an md5 alone
}
VOCALSET_MD5 = {
    "1.0": "c44f60d34b8724b9a6f6d15e0a3158a9",
    "1.2": "c5e5efab412637fc94972b93c343a2f0",
}
EDGE = 64 * 1024  # bytes read at either end of an audio file


def material_digests(data: Data) -> dict[str, str]:
    """Name and checksum of everything a user's profile brings into stage 01.

    A file that is missing gets the word ``missing``; the notebook then says so in full.

    Examples
    --------
    >>> material_digests(Data())
    {}
    """
    if data.source == "synthetic":
        return {}
    found: dict[str, str] = {}
    if data.source == "vocalset":
        if not data.vocalset_dir:
            version = data.vocalset_version
            found[f"VocalSet {version}"] = VOCALSET_SHA256[version] or VOCALSET_MD5[version]
        else:
            found["VocalSet, own copy"] = tree_digest(place(data.vocalset_dir))
    for name in ("labels", "attributes"):
        if getattr(data, name):
            path = place(getattr(data, name))
            found[name] = _whole(path) if path.is_file() else "missing"
    if data.source == "folder":
        folder = place(data.audio_dir) if data.audio_dir else Path(".")
        names = listed_paths(place(data.labels)) if data.labels else []
        found["audio"] = _of_parts(edge_digest(folder / name) for name in names)
    return found


def encoder_digests(encoder: str, extraction: Extraction) -> dict[str, str]:
    """What stands for an encoder that does not ship: its files, or its name and revision.

    A repository of the model hub is taken at its word: name a revision (``org/name@revision``) to
    tell its versions apart. Of a folder's files both ends count; stage 02 reads them whole.
    """
    files = "config.json", "preprocessor_config.json", "*.safetensors*", "pytorch_model*"
    if extraction.activations:
        path = place(extraction.activations)
        return {"activations": _whole(path) if path.is_file() else "missing"}
    if encoder in ("demo", "untrained"):
        return {}
    if place(encoder).is_dir():
        found = sorted(path for name in files for path in place(encoder).glob(name))
        return {f"encoder {path.name}": edge_digest(path) for path in found}
    return {"encoder": encoder}


def tree_digest(path: Path) -> str:
    """Checksum of a folder's names and sizes, or of an archive's table of contents.

    System files (names that start with a dot, ``__MACOSX``) and what lies outside ``FULL`` of a
    tree that has one do not count.
    """
    if path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                return _of_parts(f"{i.filename} {i.file_size} {i.CRC}" for i in archive.infolist())
        except zipfile.BadZipFile:
            return f"no archive, {path.stat().st_size} bytes"
    full = next((p for p in path.rglob("FULL") if p.is_dir()), path)
    if not full.is_dir():
        return "missing"
    parts = []
    for folder, folders, names in os.walk(full):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in names:
            if not name.startswith("."):
                where = Path(folder, name)
                parts.append(f"{where.relative_to(full).as_posix()} {where.stat().st_size}")
    return _of_parts(sorted(parts))


def edge_digest(path: Path) -> str:
    """Name, size and checksum of the first and last 64 kB of a file, or ``missing``."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as handle:
            start = zlib.crc32(handle.read(EDGE))
            handle.seek(max(0, size - EDGE))
            return f"{path.name} {size} {zlib.crc32(handle.read(EDGE), start):08x}"
    except OSError:
        return f"{path.name} missing"


def listed_paths(table: Path) -> list[str]:
    """Column ``path`` of a label table, in order; empty when there is none."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as handle:
            return [row["path"] for row in csv.DictReader(handle) if row.get("path")]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _whole(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _of_parts(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
