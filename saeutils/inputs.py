"""Checksums of a run's own material: what stage 01 depends on beside code and settings.

Every command asks for them, so they are remembered: a file is read whole once, and again when its
size, its time stamps or its place on the disk change; else a question costs a look at the file
system. Only contents count, no time stamp does. A synthetic run asks nothing. Imports neither
numpy nor pandas.
"""

from __future__ import annotations

import csv
import hashlib
import os
import stat
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from saeutils.profiles import Data, Extraction, data_folder, place

VOCALSET_SHA256 = {
    "1.0": "2bf96b80abe57a23323fd8c78be8cb70503e35995e6bae94a6067197c88a61ae",
    "1.2": "",  # published with an md5 alone
}
VOCALSET_MD5 = {
    "1.0": "c44f60d34b8724b9a6f6d15e0a3158a9",
    "1.2": "c5e5efab412637fc94972b93c343a2f0",
}
NO_ARCHIVE = (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError)  # of a table of contents
SAVED_S, TOLD_S = 10.0, 5.0  # how often new checksums are saved; a wait that asks for a word
WAIT_S = 30.0  # for another process that saves
SETTLED_S = 3.0  # a file changed this lately may change again under the same time stamp


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
            found[name] = _checksum(place(getattr(data, name)))
    if data.source == "folder":
        folder = place(data.audio_dir) if data.audio_dir else Path(".")
        names = listed_paths(place(data.labels)) if data.labels else []
        found["audio"] = _of_parts(content_digests(folder / name for name in names))
    return found


def encoder_digests(encoder: str, extraction: Extraction) -> dict[str, str]:
    """What stands for an encoder that does not ship: its files, or its name and revision.

    A repository of the model hub is taken at its word: name a revision (``org/name@revision``) to
    tell its versions apart.
    """
    files = "config.json", "preprocessor_config.json", "*.safetensors*", "pytorch_model*"
    if extraction.activations:
        return {"activations": _checksum(place(extraction.activations))}
    if encoder in ("demo", "untrained"):
        return {}
    if place(encoder).is_dir():
        found = sorted(path for name in files for path in place(encoder).glob(name))
        return {f"encoder {path.name}": digest
                for path, digest in zip(found, content_digests(found), strict=True)}
    return {"encoder": encoder}


def tree_digest(path: Path) -> str:
    """Checksum of a folder's names and contents, or of an archive's table of contents.

    System files (names that start with a dot, ``__MACOSX``) and what lies outside ``FULL`` of a
    tree that has one do not count.
    """
    if path.is_file():
        try:
            with zipfile.ZipFile(path) as archive:
                return _of_parts(f"{i.filename} {i.file_size} {i.CRC}" for i in archive.infolist())
        except NO_ARCHIVE:
            return f"no archive, {path.stat().st_size} bytes"
    full = next((p for p in path.rglob("FULL") if p.is_dir()), path)
    if not full.is_dir():
        return "missing"
    found = []
    for folder, folders, names in os.walk(full):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    found.sort(key=lambda file: file.relative_to(full).as_posix())
    places = (file.parent.relative_to(full).as_posix() for file in found)
    return _of_parts(f"{place} {digest}" for place, digest
                     in zip(places, content_digests(found), strict=True))


def content_digests(paths: Iterable[Path]) -> Iterator[str]:
    """Name and sha256 of whole files, in order; ``missing`` for what cannot be read."""
    return (f"{path.name} {checksum}" for path, checksum in checksums(paths))


def checksums(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Each path with the sha256 of its whole file, or ``missing`` for what cannot be read.

    What was read is remembered in ``data/cache/checksums.sqlite`` and read again when the file's
    size, time stamps or inode change. Without that file all is read again.
    """
    memory = _Memory(data_folder() / "cache" / "checksums.sqlite")
    try:
        for path in paths:
            try:
                checksum = memory.checksum(path)
            except (OSError, ValueError):  # ValueError: a zero byte in a path
                checksum = "missing"
            yield path, checksum
    finally:
        memory.close()


class _Memory:
    """Checksums of files as they were last read; whatever befalls it costs time, nothing else."""

    def __init__(self, path: Path) -> None:
        import sqlite3

        self._path, self._damage = path, sqlite3.DatabaseError
        self._errors = OSError, sqlite3.Error
        self._base: sqlite3.Connection | None = None
        self._new: list[tuple[bytes, str, str]] = []
        self._start = self._saved = time.monotonic()
        self._told = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, timeout=WAIT_S)
            self._base.execute("CREATE TABLE IF NOT EXISTS files "
                               "(path BLOB PRIMARY KEY, state TEXT, sha256 TEXT)")
        except self._errors as error:
            self._give_up(error)

    def checksum(self, path: Path) -> str:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return "missing"
        name = os.fsencode(os.path.abspath(path))
        state = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
        if known := self._known(name, state):
            return known
        with open(path, "rb") as handle:
            checksum = hashlib.file_digest(handle, "sha256").hexdigest()
        if time.time() - max(found.st_mtime, found.st_ctime) > SETTLED_S:
            self._new.append((name, state, checksum))
        now = time.monotonic()
        if now - self._saved > SAVED_S:
            self._save()
            self._saved = now
        if not self._told and now - self._start > TOLD_S:
            print("checksums of your own files: each is read whole, once", file=sys.stderr)
            self._told = True
        return checksum

    def close(self) -> None:
        self._save()
        if self._base:
            self._base.close()

    def _known(self, name: bytes, state: str) -> str:
        if self._base:
            try:
                row = self._base.execute("SELECT sha256 FROM files WHERE path = ? AND state = ?",
                                         (name, state)).fetchone()
                return row[0] if row else ""
            except self._errors as error:
                self._give_up(error)
        return ""

    def _save(self) -> None:
        if self._base and self._new:
            try:
                with self._base:
                    self._base.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)",
                                           self._new)
            except self._errors as error:
                self._give_up(error)
        self._new = []

    def _give_up(self, error: Exception) -> None:
        """Go on without; a damaged file goes, and the next command makes a new one."""
        if self._base:
            self._base.close()
            self._base = None
        if type(error) is self._damage:  # its subclasses: locked, read-only, full
            with suppress(OSError):
                self._path.unlink()


def listed_paths(table: Path) -> list[str]:
    """Column ``path`` of a label table, in order; empty when there is none."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as handle:
            return [row["path"] for row in csv.DictReader(handle) if row.get("path")]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _checksum(path: Path) -> str:
    ((_, checksum),) = checksums([path])
    return checksum


def _of_parts(parts: Iterable[str]) -> str:
    total = hashlib.sha256()
    for i, part in enumerate(parts):
        total.update(f"\n{part}".encode() if i else part.encode())
    return total.hexdigest()
