"""Download, resume, checksum, unpacking and validation, against a server on this machine."""

import hashlib
import http.server
import io
import json
import os
import re
import shutil
import stat
import threading
import zipfile

import pytest
from vocalset_tree import build_tree

from saeutils import downloads, inputs, vocalset
from saeutils.profiles import data_folder


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one file; cuts the first answers, knows or ignores ranges, and counts requests."""

    content, cuts, ranges, asked, sends_on = b"", 0, True, [], ""

    def do_GET(self):
        if self.sends_on and self.path != "/there.zip":
            self.send_response(302)
            self.send_header("Location", self.sends_on)
            self.end_headers()
            return
        where = self.headers.get("Range")
        self.asked.append(where)
        start = int(where.removeprefix("bytes=").rstrip("-")) if where and self.ranges else 0
        body = self.content[start:]
        self.send_response(206 if where and self.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if type(self).cuts > 0:
            type(self).cuts -= 1
            body = body[:len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def served(monkeypatch):
    """A server class to set up, and its address."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(downloads, "WAIT_S", 0.0)
    Server.content, Server.cuts, Server.ranges, Server.asked = os.urandom(300_000), 0, True, []
    Server.sends_on = ""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/VocalSet.zip"
        server.shutdown()


def record(content, **changed):
    fields = {"version": "1.0", "url": "", "archive": "VocalSet.zip", "n_bytes": len(content),
              "md5": "", "sha256": hashlib.sha256(content).hexdigest()}
    return vocalset.Release(**fields | changed)


def test_a_cut_download_goes_on_where_it_stopped(served, tmp_path):
    Server.cuts = 2
    path = downloads.fetch(record(Server.content), tmp_path, url=served)
    assert path.read_bytes() == Server.content
    assert Server.asked == [None, "bytes=150000-", "bytes=225000-"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["VocalSet.zip"]


def test_a_killed_download_goes_on_in_the_next_run(served, tmp_path):
    Server.cuts = 1
    with pytest.raises(ValueError, match="150,000 of 300,000 bytes.*goes on from there"):
        downloads.fetch(record(Server.content), tmp_path, url=served, attempts=1)
    assert downloads.fetch(record(Server.content), tmp_path, url=served).read_bytes() == (
        Server.content)
    assert Server.asked == [None, "bytes=150000-"]


def test_a_server_without_ranges_starts_anew(served, tmp_path):
    Server.cuts, Server.ranges = 1, False
    assert downloads.fetch(record(Server.content), tmp_path, url=served).read_bytes() == (
        Server.content)


def test_a_second_run_needs_no_network(served, tmp_path):
    wanted = record(Server.content)
    downloads.fetch(wanted, tmp_path, url=served)
    asked = len(Server.asked)
    assert downloads.fetch(wanted, tmp_path, url="http://127.0.0.1:9/gone").is_file()
    assert len(Server.asked) == asked


def test_a_wrong_checksum_is_refused_and_the_file_thrown_away(served, tmp_path):
    with pytest.raises(ValueError, match="has not the published checksum.*vocalset_dir"):
        downloads.fetch(record(Server.content, sha256="0" * 64), tmp_path, url=served)
    assert not list(tmp_path.iterdir())


def test_md5_serves_where_no_sha256_is_published(served, tmp_path):
    wanted = record(Server.content, sha256="", md5=hashlib.md5(Server.content).hexdigest())
    assert downloads.fetch(wanted, tmp_path, url=served).is_file()


def test_a_server_that_sends_on_without_encryption_is_not_followed(served, tmp_path):
    Server.sends_on = "http://mirror.invalid/hash.zip"
    with pytest.raises(ValueError, match="sent on to http://mirror.invalid.*not encrypted.*vocals"):
        downloads.fetch(record(Server.content), tmp_path, url=served)
    Server.sends_on = served.replace("VocalSet", "there")  # this machine
    assert downloads.fetch(record(Server.content), tmp_path, url=served).is_file()


def test_no_connection_names_the_address_and_both_ways_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    home = tmp_path / "vocalset" / "1.0"
    with pytest.raises(ValueError) as caught:
        downloads.fetch(record(b"hello"), home, url="http://127.0.0.1:9/x", attempts=1)
    assert re.search("download of http://127.0.0.1:9/x stopped at 0 of 5 bytes: .*refused.*Two ways"
                     ": run the command again.*data.vocalset_dir", str(caught.value))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_too_little_disk_is_said_before_the_download(tmp_path):
    with pytest.raises(ValueError, match="VocalSet.zip needs .* GB.*free"):
        downloads.fetch(record(b"", n_bytes=10**17), tmp_path, url="http://127.0.0.1:9/x")


def archive(path, members):
    with zipfile.ZipFile(path, "w") as content:
        for name, body in members.items():
            content.writestr(name, body)
    return path


GOOD = {"FULL/female1/scales/belt/f1_scales_belt_a.wav": b"abc",
        "FULL/female1/.DS_Store": b"x", "__MACOSX/FULL/female1/._a.wav": b"x",
        "data_by_singer/female1/f1_scales_belt_a.wav": b"abc"}


def test_only_full_is_unpacked_and_listed(tmp_path):
    full = downloads.unpack(archive(tmp_path / "v.zip", GOOD), tmp_path / "out")
    files = [p.relative_to(tmp_path / "out").as_posix()
             for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert sorted(files) == ["FULL/female1/scales/belt/f1_scales_belt_a.wav", "listing.csv",
                             "record.json"]
    assert full.is_dir()
    assert (tmp_path / "out" / "listing.csv").read_text() == (
        "path,bytes,crc32\nFULL/female1/scales/belt/f1_scales_belt_a.wav,3,352441c2\n")


def test_unpacking_goes_on_and_mends_what_differs(tmp_path):
    packed = archive(tmp_path / "v.zip", GOOD)
    target = downloads.unpack(packed, tmp_path / "out") / "female1/scales/belt/f1_scales_belt_a.wav"
    target.write_bytes(b"xyz")
    (tmp_path / "out" / "record.json").unlink()
    downloads.unpack(packed, tmp_path / "out")
    assert target.read_bytes() == b"abc"


def test_what_an_earlier_archive_left_goes(tmp_path):
    other = archive(tmp_path / "other.zip", GOOD | {"FULL/female1/other.wav": b"abc"})
    full = downloads.unpack(other, tmp_path / "out")
    assert (full / "female1/other.wav").is_file()
    downloads.unpack(archive(tmp_path / "v.zip", GOOD), tmp_path / "out")
    assert not (full / "female1/other.wav").exists()
    assert (full / "female1/scales/belt/f1_scales_belt_a.wav").is_file()


WAV = "FULL/female1/scales/belt/f1_scales_belt_a.wav"


def spoilt(path, what):
    """An archive with one member that cannot be unpacked."""
    kind = {"lzma": zipfile.ZIP_LZMA, "bz2": zipfile.ZIP_BZIP2}.get(what, zipfile.ZIP_STORED)
    names = {"long": [f"FULL/female1/{'n' * 300}.wav"], "clash": [WAV, f"{WAV}/b.wav"]}
    with zipfile.ZipFile(path, "w", kind) as content:
        for name in names.get(what, [WAV]):
            content.writestr(name, b"sound" * 1000)
    body = bytearray(path.read_bytes())
    entry = body.index(b"PK\x01\x02")  # of the table of contents
    if what == "password":
        body[6] |= 1
        body[entry + 8] |= 1
    elif what == "version":
        body[entry + 6] = 99
    elif what in ("lzma", "bz2"):
        start = 30 + len(WAV) + (12 if what == "lzma" else 2)
        body[start:start + 20] = b"\xff" * 20
    path.write_bytes(body)
    return path


@pytest.mark.parametrize(("what", "words"), [
    ("password", "encrypted"), ("lzma", ""), ("bz2", ""), ("long", "too long"), ("clash", "")])
def test_a_member_that_cannot_be_unpacked_is_named_in_one_line(tmp_path, what, words):
    with pytest.raises(ValueError) as caught:
        downloads.unpack(spoilt(tmp_path / "v.zip", what), tmp_path / "out")
    assert re.search(f"^v.zip is no whole archive: member 'FULL/female1/.*{words}.*get it again.*"
                     "data.vocalset_dir", str(caught.value))
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "record.json").exists()


def test_an_archive_of_a_newer_form_stops_no_key_and_is_told_in_one_line(tmp_path, capsys):
    path = spoilt(tmp_path / "v.zip", "version")
    assert inputs.tree_digest(path).startswith("no archive")
    with pytest.raises(ValueError, match="v.zip is no whole archive: zip file version 9.9; get"):
        downloads.unpack(path, tmp_path / "out")
    full = build_tree(tmp_path / "tree", singers=("female1",), seconds=0.1) / "FULL"
    assert downloads.command(["validate", str(full), "--archive", str(path)]) == 2
    assert capsys.readouterr().err.startswith("error: v.zip is no whole archive")


@pytest.mark.parametrize("name", ["../evil.wav", "/etc/evil.wav", "FULL/../../evil.wav",
                                  "C:/evil.wav", "FULL\\..\\..\\evil.wav"])
def test_a_member_outside_the_folder_is_refused(tmp_path, name):
    packed = archive(tmp_path / "v.zip", GOOD | {name: b"x"})
    with pytest.raises(ValueError, match="points outside its folder"):
        downloads.unpack(packed, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil*")) and not (tmp_path / "deep").exists()


def test_a_link_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as content:
        link = zipfile.ZipInfo("FULL/female1/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        content.writestr(link, "/etc")
    with pytest.raises(ValueError, match="holds the link 'FULL/female1/link'"):
        downloads.unpack(tmp_path / "v.zip", tmp_path / "out")


@pytest.mark.parametrize(("members", "words"), [
    ({"other/a.wav": b"x"}, "holds no folder FULL"), (None, "is no whole archive")])
def test_other_archives_are_refused(tmp_path, members, words):
    path = tmp_path / "v.zip"
    if members is None:
        path.write_bytes(archive(path, GOOD).read_bytes()[:150])
    else:
        archive(path, members)
    with pytest.raises(ValueError, match=words):
        downloads.unpack(path, tmp_path / "out")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A small tree and its archive."""
    tree = build_tree(tmp_path_factory.mktemp("set"), singers=("female1",), seconds=0.1)
    path = tmp_path_factory.mktemp("zip") / "VocalSet.zip"
    with zipfile.ZipFile(path, "w") as content:
        for file in sorted(tree.rglob("*")):
            if file.is_file():
                content.write(file, file.relative_to(tree).as_posix())
    return path


def test_an_archive_that_is_there_is_unpacked_once_into_data(packed):
    found = downloads.locate(str(packed), "1.0")
    assert found.full.is_relative_to(data_folder() / "vocalset")
    assert "unknown version" in found.facts["data set"] and found.facts["wavs"] == "84"
    assert len(found.listing()) == 84 and all(n.endswith(".wav") for n in found.listing())
    before = {p: p.stat().st_mtime_ns for p in found.full.rglob("*.wav")}
    downloads.locate(str(packed), "1.0")
    assert before == {p: p.stat().st_mtime_ns for p in found.full.rglob("*.wav")}


def test_an_archive_of_equal_name_and_size_is_another_archive(tmp_path):
    path, bodies = tmp_path / "mine.zip", []
    for body in (b"abc", b"xyz"):
        full = downloads.locate(str(archive(path, {WAV: body})), "1.0").full
        bodies.append((full / WAV.removeprefix("FULL/")).read_bytes())
    assert bodies == [b"abc", b"xyz"]
    assert len(list((data_folder() / "vocalset").glob("own-*"))) == 2


def test_only_the_published_checksum_makes_an_archive_the_download(packed, tmp_path, monkeypatch):
    good = packed.read_bytes()
    release = record(good, n_bytes=len(good))
    monkeypatch.setattr(downloads, "RELEASES", {"1.0": release})
    monkeypatch.setattr(downloads, "fetch", lambda *_: pytest.fail("fetched"))
    other = bytearray(good)
    other[good.index(b"PK\x01\x02") + 16] ^= 1  # the CRC of a system file, which is not unpacked
    (tmp_path / "other.zip").write_bytes(other)
    found = downloads.locate(str(tmp_path / "other.zip"), "1.0")
    home = data_folder() / "vocalset" / "1.0"
    assert "none that was published" in found.facts["taken from"] and not home.exists()
    found = downloads.locate(str(packed), "1.0")
    assert found.full == home / "FULL" and "checksum right" in found.facts["taken from"]
    assert downloads.locate("", "1.0").full == home / "FULL"
    about = json.loads((home / "record.json").read_text())
    assert about["checksum"] == release.checksum
    (home / "record.json").write_text(json.dumps(about | {"checksum": ""}))
    with pytest.raises(pytest.fail.Exception, match="fetched"):
        downloads.locate("", "1.0")


def test_a_folder_that_is_there_is_used_where_it_lies(packed, tmp_path):
    downloads.unpack(packed, tmp_path / "mine")
    (tmp_path / "mine" / "data_by_singer").mkdir()
    found = downloads.locate(str(tmp_path / "mine"), "1.0")
    assert found.full == tmp_path / "mine" / "FULL" and found.facts["data set"] == "VocalSet 1.2"


def test_neither_archive_nor_folder(tmp_path):
    with pytest.raises(ValueError, match="neither an archive nor a folder"):
        downloads.locate(str(tmp_path / "nothing"), "1.0")


def test_an_unpacked_download_needs_neither_archive_nor_network(packed, monkeypatch):
    release = record(packed.read_bytes(), n_bytes=packed.stat().st_size)
    monkeypatch.setitem(vocalset.RELEASES, "1.0", release)
    home = data_folder() / "vocalset" / "1.0"
    home.mkdir(parents=True)
    shutil.copy(packed, home / "VocalSet.zip")
    assert downloads.locate("", "1.0").full == home / "FULL"
    (home / "VocalSet.zip").unlink()
    monkeypatch.setattr(downloads, "fetch", None)
    assert downloads.locate("", "1.0").full == home / "FULL"


def test_validate_names_what_is_missing_and_what_differs(packed, tmp_path, capsys):
    full = downloads.unpack(packed, tmp_path / "mine")
    assert downloads.command(["validate", str(tmp_path / "mine")]) == 0
    (full / "female1/scales/belt/f1_scales_belt_a.wav").unlink()
    changed = full / "female1/scales/belt/f1_scales_belt_e.wav"
    body = bytearray(changed.read_bytes())
    body[-1] ^= 1
    changed.write_bytes(body)
    for arguments in (["validate", str(tmp_path / "mine")],
                      ["validate", str(full), "--archive", str(packed)]):
        capsys.readouterr()
        assert downloads.command(arguments) == 1
        said = capsys.readouterr().out
        assert "missing: FULL/female1/scales/belt/f1_scales_belt_a.wav" in said
        assert "differs: FULL/female1/scales/belt/f1_scales_belt_e.wav" in said
        assert "2 differences" in said


def test_validate_without_an_archive_goes_by_the_design(packed, tmp_path, capsys):
    full = downloads.unpack(packed, tmp_path / "mine")
    (tmp_path / "mine" / "listing.csv").unlink()
    (full / "female1/long_tones/trill/f1_long_trill_u.wav").unlink()
    (full / "female1/scales/belt/f1_scales_belt_a.wav").write_bytes(b"RIFF")
    assert downloads.command(["validate", str(tmp_path / "mine")]) == 1
    said = capsys.readouterr().out
    assert "female1/long_tones/trill/*_u.wav" in said and "cannot read f1_scales_belt_a" in said
    assert "no checksums without the archive" in said


def test_the_command_says_errors_in_one_line(tmp_path, capsys):
    assert downloads.command(["validate", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: no VocalSet in")


def test_a_stop_by_hand_is_one_line(monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "locate", stopped)
    assert downloads.command(["fetch"]) == 130
    assert re.fullmatch("error: stopped by hand; .* goes on from there\n", capsys.readouterr().err)


def test_progress_goes_to_the_screen_not_into_the_file(served, tmp_path, monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr("sys.stderr", screen)
    path = downloads.fetch(record(Server.content), tmp_path, url=served)
    assert path.stat().st_size == 300_000 and "VocalSet.zip" in screen.getvalue()
