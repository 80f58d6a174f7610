"""The record button: what it asks for, what it keeps, and what a page without a server offers."""

import struct
import time

import pytest
from test_atlas_browser import BROWSER, Page

from saeutils.recorder import recorder


@pytest.mark.parametrize("file", ["../voice.wav", "my voice.wav", "voice.mp3", ".wav", ""])
def test_a_recording_has_a_plain_name(file):
    with pytest.raises(ValueError, match="plain name"):
        recorder(file, "07_feature_atlas.ipynb")


def test_every_mark_of_the_page_is_filled():
    page = recorder("me.wav", "07_feature_atlas.ipynb", longest_s=7).data
    for part in ('data-file="me.wav"', 'data-notebook="07_feature_atlas.ipynb"',
                 'data-longest="7"'):
        assert page.count(part) == 1
    assert "://" not in page and "FILE" not in page and "LONGEST" not in page


@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
@pytest.mark.parametrize("longest", [30, 1], ids=["stopped by hand", "stopped by itself"])
def test_a_browser_records_a_wav_file_and_offers_it(tmp_path, longest):
    (tmp_path / "page.html").write_text(
        "<h2>page</h2>" + recorder("me.wav", "07.ipynb", longest_s=longest).data, "utf-8")
    page = Page(tmp_path / "profile", "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream")
    try:
        page.open(tmp_path / "page.html")
        page.do("document.querySelector('.voice-recorder button').click()")
        time.sleep(1.5)
        if longest > 2:
            page.do("document.querySelector('.voice-recorder button').click()")
        end = time.monotonic() + 20
        while not page.do("!!document.querySelector('a[download=\"me.wav\"]')"):
            assert time.monotonic() < end, page.do("document.querySelector('output').textContent")
            time.sleep(0.1)
        head = bytes(page.do(
            "fetch(document.querySelector('a[download]').href).then(a => a.arrayBuffer())"
            ".then(b => [b.byteLength, ...new Uint8Array(b)].slice(0, 45))")[1:])
        size = page.do("fetch(document.querySelector('a[download]').href)"
                       ".then(a => a.arrayBuffer()).then(b => b.byteLength)")
        assert head[:4] == b"RIFF" and head[8:16] == b"WAVEfmt " and head[36:40] == b"data"
        channels, rate, _, block, bits = struct.unpack("<HIIHH", head[22:36])
        assert (channels, block, bits) == (1, 2, 16) and rate >= 8000
        assert 0.5 < (size - 44) / 2 / rate < 4
        assert "own_file" in page.do("document.querySelector('output').textContent")
        assert not page.errors
    finally:
        page.close()
