"""The reader's own voice: a button that records it in the notebook, and the file read back.

The sound never leaves the machine: the browser hands it to the Jupyter server that shows the
notebook, or, where a page has no such server (the site, nbviewer), offers it for saving.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np

SHORTEST_S = 0.3
PAGE = Path(__file__).parent / "atlas_page" / "recorder.html"


def recorder(file: str, notebook: str, *, longest_s: int = 30):
    """A record button, as an object that a notebook displays.

    Parameters
    ----------
    file
        Name of the WAV file (mono, 16 bits, the browser's sample rate) that is kept beside the
        notebook.
    notebook
        File name of the notebook, by which its folder is found on the server.
    longest_s
        Seconds after which the recording stops by itself.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ValueError
        `file` is not a plain name that ends in ``.wav``.

    Examples
    --------
    >>> "my_voice.wav" in recorder("my_voice.wav", "07_feature_atlas.ipynb").data
    True
    """
    from IPython.display import HTML

    if not re.fullmatch(r"[A-Za-z0-9_-]+\.wav", file):
        raise ValueError(f"recordings are kept under a plain name such as my_voice.wav: {file!r}")
    page = PAGE.read_text(encoding="utf-8")
    for mark, value in {"FILE": file, "NOTEBOOK": notebook, "LONGEST": str(longest_s)}.items():
        page = page.replace(f'"{mark}"', f'"{html.escape(value, quote=True)}"')
    return HTML(page)


class NoVoice(ValueError):
    """A reader's file that cannot be used. Notebooks show the sentence alone, without a traceback.

    Examples
    --------
    >>> NoVoice("own_file 'a.wav' is no file")._render_traceback_()
    ["own_file 'a.wav' is no file"]
    """

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def own_voice(file: str, sampling_rate: int = 16_000) -> np.ndarray:
    """The reader's own sound file as mono float32 at `sampling_rate` Hz.

    Raises
    ------
    NoVoice
        In one line, with the name of the file and the way out: it is missing or a folder, is no
        sound that can be read (phones often record M4A), is cut off or empty, is shorter than
        `SHORTEST_S` or longer than two hours, is silent, or holds NaN.

    Examples
    --------
    >>> own_voice("no_such.wav")
    Traceback (most recent call last):
    saeutils.recorder.NoVoice: own_file 'no_such.wav' is no file: give its whole path, or one \
from the notebook's folder; own_file = "" takes a synthetic voice
    """
    from saeutils.activations import resample
    from saeutils.datasets import read_audio

    def refuse(what: str, way_out: str) -> NoVoice:
        return NoVoice(f"own_file {file!r} {what}: {way_out}; "
                       'own_file = "" takes a synthetic voice')

    try:
        place = Path(file).expanduser()
    except RuntimeError:  # ~nosuchuser
        raise refuse("begins with ~ and names no user of this machine", "give its whole path") \
            from None
    if place.is_dir():
        raise refuse("is a folder", "name one sound file in it")
    if not place.is_file():
        raise refuse("is no file", "give its whole path, or one from the notebook's folder")
    try:
        wave, rate = read_audio(place)
    except ValueError as reason:  # what is wrong; its way out is that of a file of a data set
        what = str(reason).partition(";")[0].removeprefix(f"{place.name} ")
        if what.startswith("cannot read"):
            raise refuse("cannot be read as sound",
                         "convert it to WAV, FLAC, MP3 or OGG (M4A is not read)") from None
        raise refuse(what, "record it again") from None
    seconds = len(wave) / rate
    if seconds < SHORTEST_S:
        raise refuse(f"lasts {seconds:.2f} s, and {SHORTEST_S:g} s are needed",
                     "record a longer note")
    if np.ptp(wave) < 1e-4:
        raise refuse("holds nothing but silence", "check the microphone and record again")
    return resample(wave, rate, sampling_rate)
