"""The figure of the report card: shapes of the published curves, and number against number.

Takes the card's table and returns a Figure, in the style of `saeutils.plots`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from saeutils.plots import GREY, REPRESENTATIONS, encoder_label, encoder_look, new_figure

LABELS = {
    "last_below_best": "accuracy, last layer − best layer",
    "accuracy_kept_95": "accuracy, codes at 95 % − raw",
    "accuracy_falls_99": "accuracy, 99 − 95 %",
    "error_grows": "log₁₀ error, 99 − 75 %",
    "r2_above_raw": "R², codes at 95 % − raw",
    "r2_falls_99": "R², 99 − 95 %",
    "completeness_above_raw": "completeness, codes at 95 % − raw",
    "completeness_rises_99": "completeness, 99 − 95 %",
}


def report_card(card: pd.DataFrame, *, note: str | None = None) -> Figure:
    """Each shape as a row: published hollow, ours, the untrained dictionary; the verdict beside.

    Where numbers are comparable, a second panel sets ours against the published ones.

    Parameters
    ----------
    card
        Rows of `saeutils.report_card.shapes` and `numbers`.
    """
    shapes = card[card["kind"] == "shape"].reset_index(drop=True)
    numbers = card[(card["kind"] == "number") & card["verdict"].isin(["agrees", "differs"])]
    columns = 2 if len(numbers) else 1
    figure, axes = new_figure(1, columns, width=8.4 if columns == 1 else 12.0,
                              height=0.36 * len(shapes) + 1.7, note=note,
                              gridspec_kw={"width_ratios": [1.5, 1][:columns]})
    axis = axes[0, 0]
    y = np.arange(len(shapes))[::-1]
    looks = {"published": ("published", 0.22), "value": ("sae", 0.0),
             "untrained": ("random", -0.22)}
    for column, (kind, shift) in looks.items():
        color, marker, _, label = REPRESENTATIONS[kind]
        label = {"value": "ours: SAE (or raw states)"}.get(column, label)
        axis.scatter(shapes[column], y + shift, s=46, marker=marker, zorder=3, label=label,
                     facecolors="white" if column == "published" else color, edgecolors=color)
    axis.axvline(0, color=GREY, linewidth=0.8)
    for line in y[:-1] - 0.5:
        axis.axhline(line, color="#E6E6E6", linewidth=0.8)
    axis.grid(axis="y", visible=False)
    axis.set_yticks(y, [LABELS.get(name, name) for name in shapes["name"]])
    axis.set_ylim(-0.6, len(shapes) - 0.4)
    axis.set_xlabel("difference, mean over layers (in the unit of the quantity)")
    for row, place in zip(shapes.itertuples(), y, strict=True):
        verdict = row.verdict.split(":")[0]
        color = {"agrees": "#009E73", "differs": "#D55E00"}.get(verdict, GREY)
        axis.text(1.01, place, verdict, transform=axis.get_yaxis_transform(), va="center",
                  fontsize=9.5, color=color)
    if len(numbers):
        _against(axes[0, 1], numbers)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def _against(axis, numbers: pd.DataFrame) -> None:
    part = numbers[numbers["quantity"] != "reconstruction_mse"]
    for name, rows in part.groupby("encoder", sort=False):
        color, marker = encoder_look(name)
        for verdict, face in (("agrees", color), ("differs", "white")):
            own = rows[rows["verdict"] == verdict]
            axis.scatter(own["published"], own["value"], s=24, marker=marker, edgecolors=color,
                         facecolors=face, linewidths=0.8,
                         label=encoder_label(name) if verdict == "agrees" else None)
    ends = [float(part[["published", "value"]].min().min()),
            float(part[["published", "value"]].max().max())]
    axis.plot(ends, ends, color=GREY, linewidth=0.8)
    axis.set(xlabel="published", ylabel="ours (filled: within tolerance)")
    axis.legend(loc="upper left", fontsize=8.5)
