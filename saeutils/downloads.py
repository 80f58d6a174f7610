"""Getting VocalSet: download with resume and checksum, safe unpacking, and what is missing.

``python -m saeutils.vocalset fetch`` downloads; ``validate DIR`` compares a folder with the
listing made when it was unpacked, or with the archive.
"""

from __future__ import annotations

import argparse
import csv
import glob
import hashlib
import json
import os
import shutil
import stat
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from saeutils.files import atomic, open_zip, read_json, unpack_member
from saeutils.inputs import tree_digest
from saeutils.profiles import data_folder, place
from saeutils.vocalset import RELEASES, Release, find_full, index_names, missing_places

CHUNK = 1 << 20
ATTEMPTS = 5  # a connection that is cut is taken up again so often
WAIT_S = 2.0


@dataclass(frozen=True)
class Located:
    """A VocalSet on this disk: its folder ``FULL`` and what is known of it."""

    full: Path
    facts: dict[str, str] = field(default_factory=dict)

    def listing(self) -> list[str]:
        """Wavs below ``FULL`` in the order in which this file system lists them (A13)."""
        return [Path(name).as_posix() for name in
                glob.glob("**/*.wav", root_dir=self.full, recursive=True)]


def locate(own: str, version: str) -> Located:
    """The data set from an archive or folder that is there, or downloaded and unpacked once.

    Parameters
    ----------
    own
        ``data.vocalset_dir`` of the profile: an archive, or a folder; empty means download.
    version
        Key of `saeutils.vocalset.RELEASES`, for the download.

    Raises
    ------
    ValueError
        Neither archive nor folder there; no VocalSet in it; a download that failed.
    """
    home = data_folder() / "vocalset"
    if own:
        path = place(own)
        if path.is_dir():
            full = find_full(path)
            whole = {"data_by_singer", "data_by_technique", "data_by_vowel"} & {
                p.name for p in full.parent.iterdir()}
            return Located(full, _facts(RELEASES["1.2" if whole else "1.0"],
                                        "a folder that was there; version by its form, no checksum",
                                        full))
        if not path.is_file():
            raise ValueError(f"data.vocalset_dir = {own!r}: there is neither an archive nor a "
                             f"folder at {path}")
        release = _published(path, home)
        how = "an archive that was there, " + ("checksum right" if release else
                                               "by its checksum none that was published")
        folder = home / (release.version if release else f"own-{tree_digest(path)[:16]}")
        full = unpack(path, folder, release.checksum if release else "")
        return Located(full, _facts(release, how, full))
    release = RELEASES[version]
    folder = home / version
    if _record(folder).get("checksum") != release.checksum:
        unpack(fetch(release, folder), folder, release.checksum)
    return Located(folder / "FULL", _facts(release, "the published archive, checksum right",
                                           folder / "FULL"))


def _published(archive: Path, home: Path) -> Release | None:
    """The release that an archive is: by checksum, or by the members of one that was unpacked."""
    for release in RELEASES.values():
        if release.n_bytes == archive.stat().st_size:
            known = _record(home / release.version)
            if known.get("checksum") == release.checksum and known.get("members") == tree_digest(
                    archive):
                return release
            kind, wanted = release.checksum.split(":")
            with open(archive, "rb") as handle:
                if hashlib.file_digest(handle, kind).hexdigest() == wanted:
                    return release
    return None


def _record(folder: Path) -> dict[str, str | int]:
    """What an unpacked folder came from; empty where unpacking is yet to end, or to begin."""
    try:
        return read_json(folder / "record.json") if (folder / "listing.csv").is_file() else {}
    except ValueError:
        return {}


def _facts(release: Release | None, how: str, full: Path) -> dict[str, str]:
    facts = {"data set": f"VocalSet {release.version if release else '(unknown version)'}",
             "taken from": how, "wavs": f"{sum(1 for _ in full.rglob('*.wav')):,}"}
    known = release or RELEASES["1.0"]
    return facts | {"licence": known.licence, "cite": known.citation}


def fetch(release: Release, folder: Path, *, url: str = "", attempts: int = ATTEMPTS) -> Path:
    """Download an archive, or find it there; goes on where a cut download stopped.

    Parameters
    ----------
    release
        What to fetch; its checksum decides whether the file is the right one.
    folder
        Where it goes; what has arrived so far lies beside it as ``.part``.
    url
        Another address of the same file.
    attempts
        Connections tried before giving up.

    Raises
    ------
    ValueError
        No connection, a download that stays incomplete, too little disk, a wrong checksum, a server
        that sends on to an address without encryption.
    """
    import pooch

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / release.archive
    if not target.is_file():
        room = shutil.disk_usage(folder).free
        if room < 2.2 * release.n_bytes:
            raise ValueError(f"{release.archive} needs {2.2 * release.n_bytes / 1e9:.1f} GB with "
                             f"its unpacked form; {folder} has {room / 1e9:.1f} GB free")
    part = target.with_name(target.name + ".part")

    def download(address: str, output: str, _pooch) -> None:
        _resume(address, part, release.n_bytes, attempts)
        os.replace(part, output)

    try:
        pooch.retrieve(url or release.url, release.checksum, fname=release.archive, path=folder,
                       downloader=download)
    except ValueError as error:
        if "hash of downloaded file" not in str(error):
            _forget_empty(folder)
            raise
        raise ValueError(f"{release.archive} has not the published checksum "
                         f"({release.checksum}): it was thrown away; run the command again, or "
                         "give a copy of your own as data.vocalset_dir") from None
    return target


def _forget_empty(folder: Path) -> None:
    """Nothing arrived: no empty folders stay behind."""
    for path in (folder, folder.parent):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


class _Encrypted(urllib.request.HTTPRedirectHandler):
    """Follows a server to another address only where that is encrypted, or this machine."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        to = urlsplit(newurl)
        if to.scheme != "https" and to.hostname not in ("127.0.0.1", "localhost"):
            raise ValueError(f"download of {req.full_url} was sent on to {newurl}, which is not "
                             "encrypted: not followed. Get the archive elsewhere and name it as "
                             "data.vocalset_dir in the profile")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _resume(url: str, part: Path, n_bytes: int, attempts: int) -> None:
    """Append to `part` until it holds `n_bytes`; a server that knows no ranges starts anew."""
    from tqdm.auto import tqdm

    why, opener = "", urllib.request.build_opener(_Encrypted)
    with tqdm(total=n_bytes, unit="B", unit_scale=True, desc=part.stem) as bar:
        for attempt in range(attempts):
            here = part.stat().st_size if part.is_file() else 0
            if here == n_bytes:
                return
            if here > n_bytes:
                part.unlink()
                here = 0
            asked = urllib.request.Request(url, headers={"Range": f"bytes={here}-"} if here else {})
            try:
                with opener.open(asked, timeout=60) as answer:
                    here = here if answer.status == 206 else 0
                    bar.n = here
                    bar.refresh()
                    with open(part, "r+b" if here else "wb") as handle:
                        handle.seek(here)
                        while block := answer.read(CHUNK):
                            handle.write(block)
                            bar.update(len(block))
            except (urllib.error.URLError, HTTPException, OSError) as error:
                why = f": {getattr(error, 'reason', '') or error or type(error).__name__}"
                if isinstance(error, urllib.error.HTTPError) and error.code in (403, 404, 410):
                    break
            if attempt + 1 < attempts and (part.stat().st_size if part.is_file() else 0) < n_bytes:
                time.sleep(WAIT_S * attempt)
    here = part.stat().st_size if part.is_file() else 0
    if here != n_bytes:
        raise ValueError(f"download of {url} stopped at {here:,} of {n_bytes:,} bytes{why}. Two "
                         "ways: run the command again with network, it goes on from there; or get "
                         "the archive elsewhere and name it, or the folder it unpacks to, as "
                         "data.vocalset_dir in the profile")


def unpack(archive: Path, folder: Path, checksum: str = "") -> Path:
    """Unpack the part ``FULL`` of an archive into `folder`; returns ``folder/FULL``.

    Nothing is written outside `folder`; links and system files are not written at all, and what an
    earlier archive left there goes. The listing (path, bytes, crc32) and the record are written
    last: with them the folder counts as whole, and a stop in between is taken up again.

    Parameters
    ----------
    archive, folder
        A zip, and where it goes.
    checksum
        The published one that the archive was found to have, for the record.

    Raises
    ------
    ValueError
        No archive, damaged, without ``FULL``, with a member that points outside, is a link, has a
        password or a name that this disk cannot hold, or too little disk.
    """
    from tqdm.auto import tqdm

    record = {"archive": archive.name, "bytes": archive.stat().st_size,
              "members": tree_digest(archive), "checksum": checksum}
    if _record(folder) == record:
        return folder / "FULL"
    with open_zip(archive) as content:
        members = {name: info for info in content.infolist() if (name := _inside(info))}
        if not members:
            raise ValueError(f"{archive.name} holds no folder FULL: is it VocalSet?")
        size = sum(info.file_size for info in members.values())
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < size:
            raise ValueError(f"{archive.name} unpacks to {size / 1e9:.1f} GB: {folder} has "
                             "less free")
        (folder / "record.json").unlink(missing_ok=True)
        for path in (folder / "FULL").rglob("*"):
            if path.is_file() and path.relative_to(folder).as_posix() not in members:
                path.unlink()
        for name, info in tqdm(members.items(), desc="unpacking", unit="file"):
            target = folder / name
            if not (os.path.isfile(target) and _checks(target, info.file_size, info.CRC)):
                unpack_member(content, info, target)
    _write_listing(folder / "listing.csv",
                   {name: (info.file_size, info.CRC) for name, info in members.items()})
    with atomic(folder / "record.json") as part:
        part.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return folder / "FULL"


def _inside(info: zipfile.ZipInfo) -> str:
    """``FULL/...`` of a member, empty for one that is not wanted.

    Raises
    ------
    ValueError
        A path that leaves the folder, or a link.
    """
    name = info.filename.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or ":" in name:
        raise ValueError(f"the archive holds {info.filename!r}, which points outside its folder: "
                         "it is not VocalSet as published; nothing more was unpacked")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise ValueError(f"the archive holds the link {info.filename!r}: it is not VocalSet as "
                         "published; nothing more was unpacked")
    parts = path.parts
    system = any(part.startswith((".", "__MACOSX")) for part in parts)
    if info.is_dir() or system or "FULL" not in parts[:2]:
        return ""
    return PurePosixPath(*parts[parts.index("FULL"):]).as_posix()


def _write_listing(path: Path, members: dict[str, tuple[int, int]]) -> None:
    with atomic(path) as part, open(part, "w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle, lineterminator="\n")
        rows.writerow(["path", "bytes", "crc32"])
        rows.writerows([name, size, f"{crc:08x}"] for name, (size, crc) in sorted(members.items()))


def _checks(path: Path, size: int, crc: int) -> bool:
    if path.stat().st_size != size:
        return False
    value = 0
    with open(path, "rb") as handle:
        while block := handle.read(CHUNK):
            value = zlib.crc32(block, value)
    return value == crc


def validate(folder: Path, archive: Path | None = None) -> tuple[list[tuple[str, str]], str]:
    """What is missing from a folder, or differs, and what it was compared with.

    Parameters
    ----------
    folder
        One that `saeutils.vocalset.find_full` understands.
    archive
        To compare with; without it the listing made at unpacking, or an archive in the folder,
        and without those the design of the set and the headers of its files.

    Returns
    -------
    list of (path, what)
        Empty when all is right.
    str
        What it was compared with.
    """
    full = find_full(folder)
    here = {f"FULL/{p.relative_to(full).as_posix()}": p for p in full.rglob("*") if p.is_file()}
    here = {name: p for name, p in here.items()
            if not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))}
    archives = [archive] if archive else sorted(full.parent.glob("VocalSet*.zip"))
    if archives or (full.parent / "listing.csv").is_file():
        if archives:
            with open_zip(archives[0]) as content:
                wanted = {name: (info.file_size, info.CRC) for info in content.infolist()
                          if (name := _inside(info))}
            against = archives[0].name
        else:
            with open(full.parent / "listing.csv", newline="", encoding="utf-8") as handle:
                wanted = {row["path"]: (int(row["bytes"]), int(row["crc32"], 16))
                          for row in csv.DictReader(handle)}
            against = "the listing made at unpacking"
        found = [(name, "missing") for name in wanted if name not in here]
        found += [(name, "differs") for name, (size, crc) in wanted.items()
                  if name in here and not _checks(here[name], size, crc)]
        found += [(name, "not in the archive") for name in here if name not in wanted]
        return sorted(found), against
    index = index_names(name.removeprefix("FULL/") for name in here)
    gaps = missing_places(index, sorted({s for s in index["singer"] if s}))
    found = [(row.path, "missing by the design of the set") for row in gaps.itertuples()]
    from saeutils.datasets import audio_header

    for name, path in here.items():
        if path.suffix.lower() == ".wav":
            try:
                audio_header(path)
            except ValueError as error:
                found.append((name, str(error)))
    return sorted(found), "the design of the set, and headers: no checksums without the archive"


def command(arguments: Sequence[str] | None = None) -> int:
    """``validate DIR [--archive ZIP]`` and ``fetch [--version V]``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m saeutils.vocalset",
                                     description="VocalSet: fetch it, or check a copy.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    check = verbs.add_parser("validate", help="say which file is missing and which differs")
    check.add_argument("folder", type=Path)
    check.add_argument("--archive", type=Path, default=None, help="compare with this archive")
    get = verbs.add_parser("fetch", help="download and unpack into data/vocalset")
    get.add_argument("--version", choices=sorted(RELEASES), default="1.0")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "fetch":
            found = locate("", options.version)
            print("\n".join(f"{name}: {text}" for name, text in found.facts.items()))
            return 0
        wrong, against = validate(options.folder, options.archive)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: stopped by hand; what has arrived is kept, the same command goes on from "
              "there", file=sys.stderr)
        return 130
    for name, what in wrong:
        print(f"{what}: {name}")
    print(f"{len(wrong)} differences; compared with {against}")
    return 1 if wrong else 0
