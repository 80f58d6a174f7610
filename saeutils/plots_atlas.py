"""Figures of notebook 07: what a latent does within a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from saeutils.plots import new_figure

INK, FLAME, BLUE = "Greys", "#D55E00", "#0072B2"


def latents_in_time(
    panels: Sequence[dict], *, columns: int = 2, note: str | None = None
) -> Figure:
    """Mel spectrograms with a latent's activation drawn over them, one panel per clip.

    Parameters
    ----------
    panels
        Each with title, levels (mel levels 0 to 1, [bands, frames]), seconds, curve (the latent
        over the frames), and optionally frames (a frame-level latent on the same frames).
    """
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(rows, columns, width=3.75 * columns, height=1.75 * rows + 0.9,
                              note="" if note is None else note)
    for axis, panel in zip(axes.flat, panels, strict=False):
        axis.imshow(panel["levels"], origin="lower", aspect="auto", cmap=INK, alpha=0.75,
                    extent=(0, panel["seconds"], 0, 1), vmin=0, vmax=1.15)
        axis.set(yticks=[], xlim=(0, panel["seconds"]))
        axis.grid(False)
        axis.set_title(panel["title"], loc="left", fontsize=9.5)
        over = axis.twinx()
        curve = np.asarray(panel["curve"], dtype=float)
        time = (np.arange(len(curve)) + 0.5) * panel["seconds"] / len(curve)
        over.fill_between(time, np.maximum(curve, 0), color=FLAME, alpha=0.30, linewidth=0)
        over.plot(time, curve, color=FLAME, linewidth=1.5, label="this latent, before TopK")
        over.axhline(0, color="#444444", linewidth=0.7, linestyle=(0, (1, 2)))
        over.set_ylim(min(float(np.quantile(curve, 0.01)), 0), max(curve.max() * 1.08, 1e-9))
        over.grid(False)
        over.tick_params(labelsize=8)
        if panel.get("frames") is not None:
            frames = np.asarray(panel["frames"], dtype=float)
            scale = over.get_ylim()[1] / max(frames.max(), 1e-9)
            over.plot(time, np.where(frames > 0, 0.95 * scale * frames, np.nan), color=BLUE,
                      linewidth=1.4, label="closest frame-level latent, where it fires (own scale)")
    for axis in axes.flat[len(panels):]:
        axis.set_visible(False)
    figure.supxlabel("time (s); mel spectrogram 60 Hz to 7.6 kHz", fontsize=10)
    kept = {label: handle for axis in figure.axes
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(kept.values()), list(kept), loc="outside upper left", ncols=2)
    return figure
