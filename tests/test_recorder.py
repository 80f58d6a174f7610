"""The record button: what it asks for, what it keeps, and what a page without a server offers."""

import io
import struct
import time

import numpy as np
import pytest
import soundfile
from test_atlas_browser import BROWSER, Page

from saeutils.recorder import own_voice, recorder


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


def tone(seconds, size=0.3):
    return size * np.sin(2 * np.pi * 220 * np.arange(int(seconds * 22050)) / 22050)


def torn():
    """The first thousand samples of a file whose header promises a second."""
    whole = io.BytesIO()
    soundfile.write(whole, tone(1.0), 22050, format="WAV", subtype="PCM_16")
    return whole.getvalue()[: 44 + 2 * 1000]


@pytest.mark.parametrize("name, content, said", [
    ("gone.wav", None, "is no file: give its whole path"),
    ("folder", "folder", "is a folder: name one sound file in it"),
    ("notes.txt", b"la la la", "cannot be read as sound: convert it to WAV"),
    ("phone.m4a", b"\0\0\0\x20ftypM4A " + bytes(200), "cannot be read as sound: convert it"),
    ("cut.wav", b"RIFF", "cannot be read as sound"),
    ("empty.wav", np.zeros(0), "is empty: it has no samples: record it again"),
    ("nan.wav", np.full(9000, np.nan), "holds NaN or infinite samples: record it again"),
    ("torn.wav", torn(), "is cut off: 1000 of 22050 samples: record it again"),
    ("click.wav", tone(0.1), "lasts 0.10 s, and 0.3 s are needed"),
    ("mute.wav", np.zeros(22050), "is silent: its peak is below"),
    ("offset.wav", np.full(22050, 0.2), "holds nothing but silence"),
])
def test_a_wrong_sound_file_is_named_in_one_line_with_the_way_out(tmp_path, name, content, said):
    place = tmp_path / name
    if isinstance(content, bytes):
        place.write_bytes(content)
    elif isinstance(content, np.ndarray):
        soundfile.write(place, content, 22050, subtype="FLOAT")
    elif content == "folder":
        place.mkdir()
    with pytest.raises(ValueError) as told:
        own_voice(str(place))
    message = str(told.value)
    assert told.value._render_traceback_() == [message]  # a notebook shows no more than that
    assert said in message and name in message and "\n" not in message
    assert message.endswith('own_file = "" takes a synthetic voice')


def test_the_home_of_nobody_is_refused_in_one_line():
    with pytest.raises(ValueError) as told:
        own_voice("~nosuchuser/me.wav")
    message = str(told.value)
    assert told.value._render_traceback_() == [message] and "\n" not in message
    assert "'~nosuchuser/me.wav' begins with ~ and names no user of this machine" in message
    assert message.endswith('own_file = "" takes a synthetic voice')


def test_a_right_one_is_resampled_to_one_channel(tmp_path):
    soundfile.write(tmp_path / "me.wav", np.stack([tone(1.0), tone(1.0)], axis=1), 22050)
    wave = own_voice(str(tmp_path / "me.wav"), 16_000)
    assert wave.shape == (16_000,) and wave.dtype == np.float32
