"""The figure of the tour: one state, its code, and what the code writes back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from saeutils.plots import GREY, REPRESENTATIONS, new_figure


def one_clip(state_D: Sequence[float], code_F: Sequence[float], rebuilt_D: Sequence[float], *,
             note: str | None = "toy data") -> Figure:
    """Three panels from left to right: encode, the few latents that fire, decode.

    Parameters
    ----------
    state_D
        The numbers of one clip's state.
    code_F
        How strongly each latent fires, zero where it is silent; latents that fire get their
        number written beside them.
    rebuilt_D
        The sum of the firing entries; the state is drawn around it as an outline.
    note
        What the data are.
    """
    state, code, rebuilt = (np.asarray(part, float) for part in (state_D, code_F, rebuilt_D))
    figure, axes = new_figure(1, 3, width=9.0, height=2.9, note=note,
                              gridspec_kw={"width_ratios": [1, 1.5, 1]})
    left, middle, right = axes[0]
    ink, blue = "#444444", REPRESENTATIONS["sae"][0]
    places = np.arange(len(state))
    left.bar(places, state, color=ink)
    left.set_title(f"its state: {len(state)} numbers", loc="left")
    left.set(xlabel="number of the state", ylabel="value")
    fires = np.flatnonzero(code)
    middle.vlines(fires, 0, code[fires], color=blue, linewidth=3)
    middle.scatter(np.arange(len(code)), np.zeros(len(code)), s=5, color=GREY, zorder=3)
    for latent in fires:  # neighbours lean away from each other
        side = "right" if latent == fires[0] and len(fires) > 1 else "left"
        middle.annotate(f"latent {latent}", (latent, code[latent]), xytext=(0, 3),
                        textcoords="offset points", ha=side, fontsize=9.5, color=blue)
    middle.set_title(f"its code: {len(fires)} of {len(code)} latents fire", loc="left")
    middle.set(xlabel="latent", ylabel="strength", ylim=(0, 1.25 * max(code.max(), 1e-9)),
               xlim=(-3, len(code) + 2))
    right.bar(places, rebuilt, color=blue)
    right.step(np.append(places - 0.5, places[-1] + 0.5), np.append(state, state[-1]),
               where="post", color=ink, linewidth=1.0)
    right.set_title("rebuilt (line: the state)", loc="left")
    right.set(xlabel="number of the state", ylim=left.get_ylim())
    left.set_ylim(right.get_ylim())
    for axis in (left, middle, right):
        axis.grid(axis="x", visible=False)
    return figure
