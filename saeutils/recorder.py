"""A button that records the reader's voice in the notebook, where the browser allows it.

The sound never leaves the machine: the browser hands it to the Jupyter server that shows the
notebook, or, where a page has no such server (the site, nbviewer), offers it for saving.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

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
