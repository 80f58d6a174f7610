"""Figures of sound over time: spectrograms, and what a latent does within a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from saeutils.plots import below_all, new_figure

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
    note
        Whose voices these are.
    """
    rows = -(-len(panels) // columns)
    figure, axes = new_figure(rows, columns, width=3.75 * columns, height=1.75 * rows + 0.9,
                              note="")
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
        over.set_ylabel("latent", fontsize=8.5, color=FLAME)
        if panel.get("frames") is not None:
            frames = np.asarray(panel["frames"], dtype=float)
            scale = over.get_ylim()[1] / max(frames.max(), 1e-9)
            over.plot(time, np.where(frames > 0, 0.95 * scale * frames, np.nan), color=BLUE,
                      linewidth=1.4, label="closest frame-level latent, where it fires (own scale)")
    for axis in axes.flat[len(panels):]:
        axis.set_visible(False)
    below_all(figure, "time (s); mel spectrogram 60 Hz to 7.6 kHz", note)
    kept = {label: handle for axis in figure.axes
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(list(kept.values()), list(kept), loc="outside upper left", ncols=2)
    return figure


def spectrograms(waves: dict[str, np.ndarray], sample_rate: int | dict[str, int], *,
                 top_hz: float = 5000.0, columns: int = 2, note: str | None = None) -> Figure:
    """Level over time and frequency, one panel per clip, each 70 dB down from its loudest point.

    Parameters
    ----------
    waves
        Samples by the name that stands over the panel.
    sample_rate
        In Hz, one for all or one by name.
    top_hz
        Upper end of the frequency axis.
    """
    from scipy.signal import spectrogram

    rows = -(-len(waves) // columns)
    figure, axes = new_figure(rows, columns, width=3.6 * columns, height=2.1 * rows + 0.7,
                              note="", sharey=True)
    for axis, (name, wave) in zip(axes.flat, waves.items(), strict=False):
        rate = sample_rate[name] if isinstance(sample_rate, dict) else sample_rate
        hz, seconds, power = spectrogram(np.asarray(wave, float), rate, nperseg=1024, noverlap=768)
        level = 10 * np.log10(power[hz <= top_hz] + 1e-16)
        axis.pcolormesh(seconds, hz[hz <= top_hz] / 1000, level - level.max(), vmin=-70, vmax=0,
                        cmap="magma", rasterized=True, shading="auto")
        axis.grid(False)
        axis.set_title(name.replace("_", " "), loc="left")
    for axis in axes.flat[len(waves):]:
        axis.set_visible(False)
    below_all(figure, "time (s)", note)
    figure.supylabel("frequency (kHz)", fontsize=11)
    return figure
