"""Figures of the evidence: k-curves, both claims, responses, instrument check, the audit.

Each takes a tidy table and returns a Figure, in the style of `saeutils.plots`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from saeutils.atlas_names import readable
from saeutils.plots import GREY, REPRESENTATIONS, below_all, line, new_figure, over_singers


def k_curves(
    table: pd.DataFrame, *, y: str = "R² (unseen singers)", note: str | None = None
) -> Figure:
    """A score on unseen singers against the number of codes that may be used.

    Parameters
    ----------
    table
        Columns panel, representation, codes, value, and where known ci_low, ci_high. One line per
        representation in each panel; linear bases repeat in every panel.
    """
    names = list(dict.fromkeys(table["panel"]))
    figure, axes = new_figure(1, len(names), width=3.5 * len(names) + 0.6, height=4.0, note=note,
                              sharey=True)
    for axis, name in zip(axes.flat, names, strict=True):
        part = table[table["panel"] == name]
        _curve_lines(axis, part)
        axis.set_title(str(name), loc="left")
    axes[0, 0].set_ylabel(y)
    figure.supxlabel("number of codes used", fontsize=11)
    _legend(figure, axes[0, 0], columns=3)
    return figure


def claim_figure(contrasts: pd.DataFrame, curves: pd.DataFrame, margin: float, *,
                 note: str | None = None) -> Figure:
    """Both claims in one picture: what is kept by sparsity, and R2 by number of codes.

    Parameters
    ----------
    contrasts
        Columns contrast (retention, readability, learned), sparsity, value, ci_low, ci_high.
    curves
        As for `k_curves`, without panel.
    margin
        Non-inferiority margin, drawn as a band below zero.
    """
    figure, axes = new_figure(1, 2, width=8.6, height=4.2, note=over_singers(contrasts, note))
    left, right = axes[0]
    looks = {"retention": ("#0072B2", "o"), "readability": ("#009E73", "^"),
             "learned": ("#D55E00", "s")}
    ticks = sorted(contrasts["sparsity"].unique())
    left.axhspan(-100 * margin, 0, color="#E6E6E6", zorder=0)
    left.axhline(0, color=GREY, linewidth=0.8)
    for offset, (name, (color, marker)) in zip((-0.12, 0, 0.12), looks.items(), strict=True):
        part = contrasts[contrasts["contrast"] == name].sort_values("sparsity")
        part = part.assign(**{c: 100 * part[c] for c in ("value", "ci_low", "ci_high")})
        line(left, [ticks.index(s) for s in part["sparsity"]], part, color=color, marker=marker,
             label=name, offset=offset)
    left.set_xticks(range(len(ticks)), [f"{tick:g}" for tick in ticks])
    left.set(xlabel="sparsity of the codes (%)", ylabel="difference (points of balanced accuracy)")
    left.legend(loc="lower left")
    _curve_lines(right, curves)
    right.set(xlabel="number of codes used", ylabel="R² (unseen singers)")
    right.legend(loc="lower right")
    return figure


def response_matrix(table: pd.DataFrame, *, note: str | None = None) -> Figure:
    """How much of each code's response belongs to each factor, with the placebos beside.

    Parameters
    ----------
    table
        Columns code (label, in the order of rows), factor (in the order of columns), value
        (share or relative power, 0 to 1), confirmed (bool: above the placebo and specific).
    """
    codes, factors = (list(dict.fromkeys(table[name])) for name in ("code", "factor"))
    wide = table.pivot(index="code", columns="factor", values="value").loc[codes, factors]
    marks = table.pivot(index="code", columns="factor", values="confirmed").loc[codes, factors]
    figure, axes = new_figure(width=7.2, height=0.26 * len(codes) + 1.9, note=note)
    axis = axes[0, 0]
    image = axis.imshow(wide, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(marks.fillna(False).to_numpy(dtype=bool)):
        axis.plot(column, row, marker="o", color="#D55E00", markersize=4)
    named = [f"{readable(name)}: {code}" if code else name
             for name, _, code in (label.partition(": ") for label in codes)]
    axis.set_xticks(range(len(factors)), [readable(name) for name in factors], rotation=40,
                    ha="right", fontsize=9)
    axis.set_yticks(range(len(codes)), named, fontsize=8.5)
    axis.grid(False)
    figure.colorbar(image, ax=axis, label="share of the code's response", pad=0.015)
    axis.plot([], [], marker="o", color="#D55E00", markersize=4, linestyle="none",
              label="above the placebo, and half of the response or more")
    _legend(figure, axis, columns=1)
    return figure


def response_curve(table: pd.DataFrame, *, x: str, note: str | None = None) -> Figure:
    """Change of one code as one factor moves, one thin line per base clip, their mean in bold.

    Parameters
    ----------
    table
        Columns base_id, step (population SDs), value (change in SDs of the code).
    x
        Name of the factor.
    """
    figure, axes = new_figure(height=3.6, note=note)
    axis = axes[0, 0]
    for _, part in table.groupby("base_id"):
        part = part.sort_values("step")
        axis.plot(part["step"], part["value"], color="#0072B2", linewidth=0.6, alpha=0.35)
    mean = table.assign(bin=(table["step"] * 2).round() / 2).groupby("bin")["value"].mean()
    axis.plot(mean.index, mean, color="black", marker="o", label="mean over base clips")
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.set(xlabel=f"{readable(x)}, moved by (population SDs)", ylabel="change of the code (SDs)")
    axis.legend(loc="upper left")
    return figure


def instrument_matrix(table: pd.DataFrame, *, note: str | None = None) -> Figure:
    """What attributes answer to: rank correlation of each (row) with each known cause (column).

    Parameters
    ----------
    table
        Index: labels of attributes; columns: causes; values from -1 to 1, written into the cells
        where they are at least .3 in size.
    """
    figure, axes = new_figure(width=8.6, height=0.3 * len(table) + 1.7, note=note)
    axis = axes[0, 0]
    image = axis.imshow(table, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto",
                        interpolation="nearest")
    values = table.to_numpy(dtype=float)
    for row, column in np.argwhere(np.abs(values) >= 0.3):
        axis.text(column, row, f"{values[row, column]:+.1f}".replace("0.", "."), ha="center",
                  va="center", fontsize=8, color="white" if abs(values[row, column]) > 0.6
                  else "black")
    axis.set_xticks(range(table.shape[1]), [readable(name) for name in table.columns], rotation=40,
                    ha="right", fontsize=9)
    axis.set_yticks(range(len(table)), list(table.index), fontsize=9)
    axis.grid(False)
    figure.colorbar(image, ax=axis, label="rank correlation", pad=0.015)
    return figure


VERDICT_COLORS = {"changes a conclusion": "#D55E00", "moves a number": "#0072B2",
                  "shown on the smallest case": "#009E73"}


def audit_forest(table: pd.DataFrame, *, note: str | None = None) -> Figure:
    """The audit at one look: effect of each switch, one line per entry, grouped by verdict.

    Parameters
    ----------
    table
        From `saeutils.audit.forest_rows`: entry, label, end (released, corrected or both: where
        the switch was turned from), verdict, value (change as a share of the larger setting, -2 to
        2), ci_low, ci_high; in the order of lines.
    """
    order = table.drop_duplicates("entry")
    groups = order["verdict"].ne(order["verdict"].shift()).cumsum() - 1
    # a free line above each group carries its name
    place = dict(zip(order["entry"], np.arange(len(order)) + 1.25 * (groups + 1), strict=True))
    depth = max(place.values()) + 1
    figure, axes = new_figure(width=8.0, height=0.205 * depth + 1.4, note="")
    axis = axes[0, 0]
    looks = {"released": ("s", -0.16), "corrected": ("o", 0.16), "both": ("D", 0.0)}
    for row in table.itertuples():
        marker, away = looks[row.end]
        color = VERDICT_COLORS.get(row.verdict, GREY)
        y = place[row.entry] + away
        low, high = (np.clip(v, -2.15, 2.15) for v in (row.ci_low, row.ci_high))
        axis.hlines(y, low, high, color=color, linewidth=1.3, alpha=0.7)
        axis.plot(row.value, y, marker=marker, color=color, markersize=5.5, linestyle="none",
                  markerfacecolor="white" if row.end == "corrected" else color)
    for name, part in order.groupby("verdict", sort=False):
        axis.text(-2.15, place[part["entry"].iloc[0]] - 0.95, name, fontsize=10,
                  fontweight="bold", color=VERDICT_COLORS.get(name, GREY), va="center",
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0})
    axis.axvline(0, color=GREY, linewidth=1)
    axis.axvline(-1, color=GREY, linewidth=1, linestyle=(0, (1, 2)))
    axis.set_yticks([place[name] for name in order["entry"]], order["label"], fontsize=9.5)
    axis.set(xlim=(-2.2, 2.2), ylim=(depth - 0.3, -0.3))
    below_all(figure, "(corrected − released) / the larger of the two; beyond −1 or 1 the sign "
              "turns", note)
    axis.grid(axis="y", visible=False)
    for end, text in (("released", "turned from the released end"),
                      ("corrected", "turned from the corrected end"),
                      ("both", "other switches do not matter")):
        axis.plot([], [], marker=looks[end][0], color="black", linestyle="none",
                  markerfacecolor="white" if end == "corrected" else "black", label=text)
    _legend(figure, axis, columns=3)
    return figure


def _curve_lines(axis, table: pd.DataFrame) -> None:
    order = [kind for kind in REPRESENTATIONS if kind in set(table["representation"])]
    for kind in order:
        color, marker, style, label = REPRESENTATIONS[kind]
        part = table[table["representation"] == kind].sort_values("codes")
        line(axis, np.log(part["codes"]), part, color=color, marker=marker, style=style,
             label=label)
    ticks = sorted(table["codes"].unique())
    axis.set_xticks(np.log(ticks), [str(int(tick)) for tick in ticks])


def _legend(figure: Figure, axis, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)
