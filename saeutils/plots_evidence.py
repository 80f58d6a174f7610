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
        Columns panel, representation, codes, value, and where known ci_low, ci_high, n (singers).
        One line per representation in each panel; linear bases repeat in every panel.
    """
    names = list(dict.fromkeys(table["panel"]))
    figure, axes = new_figure(1, len(names), width=3.5 * len(names) + 0.6, height=4.2, note="",
                              sharey=True)
    for axis, name in zip(axes.flat, names, strict=True):
        part = table[table["panel"] == name]
        _curve_lines(axis, part)
        axis.set_title(str(name), loc="left")
    axes[0, 0].set_ylabel(y)
    below_all(figure, "number of codes used", over_singers(table, note))
    _legend(figure, axes[0, 0], columns=3)
    return figure


def claim_figure(contrasts: pd.DataFrame, curves: pd.DataFrame, margin: float, *,
                 note: str | None = None) -> Figure:
    """Both claims in one picture: what is kept by sparsity, and R2 by number of codes.

    Parameters
    ----------
    contrasts
        Columns contrast (retention, readability, learned), sparsity, value, ci_low, ci_high. Rows
        retention_untrained and readability_untrained are drawn thin and hollow, without intervals.
    curves
        As for `k_curves`, without panel.
    margin
        Non-inferiority margin, drawn as a band below zero.
    """
    figure, axes = new_figure(1, 2, width=8.6, height=4.2, note=over_singers(contrasts, note))
    left, right = axes[0]
    # what the right panel uses for representations is not used for differences
    looks = {"retention": ("#000000", "D"), "readability": ("#6A3D9A", "v"),
             "learned": ("#A6761D", "P")}
    ticks = sorted(contrasts["sparsity"].unique())
    left.axhspan(-100 * margin, 0, color="#E6E6E6", zorder=0, label="margin")
    left.axhline(0, color=GREY, linewidth=0.8)
    for offset, (name, (color, marker)) in zip((-0.12, 0, 0.12), looks.items(), strict=True):
        part = contrasts[contrasts["contrast"] == name].sort_values("sparsity")
        part = part.assign(**{c: 100 * part[c] for c in ("value", "ci_low", "ci_high")})
        line(left, [ticks.index(s) for s in part["sparsity"]], part, color=color, marker=marker,
             label=name, offset=offset)
        twin = contrasts[contrasts["contrast"] == f"{name}_untrained"].sort_values("sparsity")
        if len(twin):
            left.plot(np.array([ticks.index(s) for s in twin["sparsity"]]) + offset,
                      100 * twin["value"], color=color, marker=marker, markerfacecolor="white",
                      linestyle=(0, (1, 2)), linewidth=1.0, markersize=4.5, alpha=0.8, zorder=2.5,
                      label=f"{name}, untrained dictionary")
    left.set_xticks(range(len(ticks)), [f"{tick:g}" for tick in ticks])
    left.set(xlabel="sparsity of the codes (%)", ylabel="difference (points of balanced accuracy)")
    left.legend(loc="lower left", fontsize=8.5)
    low, high = left.get_ylim()
    left.set_ylim(low - 0.3 * (high - low), high)  # room for the legend
    right.set(xlabel="number of codes used", ylabel="R² (unseen singers)")
    if len(curves):
        _curve_lines(right, curves)
        right.legend(loc="lower right")
    else:
        right.text(0.5, 0.5, "too few training clips\nfor a curve", ha="center", va="center",
                   transform=right.transAxes, color=GREY)
        right.set(xticks=[], yticks=[])
    return figure


VERDICTS = {"better": ("#0072B2", "o"), "undecided": ("#8C8C8C", "."), "worse": ("#D55E00", "s")}
RIVALS = {"raw": "raw states", "whitened_pca": "whitened PCA", "ica": "ICA",
          "random": "the untrained dictionary"}


def attribute_contrasts(table: pd.DataFrame, *, note: str | None = None) -> Figure:
    """Every readable attribute on its own: the SAE minus a rival, sorted, with its band.

    Parameters
    ----------
    table
        Columns attribute, contrast, reference, value, band_low, band_high (simultaneous over the
        attributes of a contrast), n (singers), verdict (better, worse, undecided). One panel per
        contrast; the attributes told apart that lie furthest out carry their names.
    """
    names = list(dict.fromkeys(table["contrast"]))
    banded = table["band_low"].notna().any()
    said = over_singers(table.assign(ci_low=table["band_low"]), note)
    said = said.replace("bars: 95 %", "bars: 95 % for all attributes together,")
    figure, axes = new_figure(1, len(names), width=9.2, height=4.8, note="", sharey=True)
    for axis, name in zip(axes.flat, names, strict=True):
        part = table[table["contrast"] == name].sort_values("value").reset_index(drop=True)
        axis.axhline(0, color=GREY, linewidth=0.8)
        for verdict, (color, marker) in VERDICTS.items():
            own = part[part["verdict"] == verdict]
            axis.vlines(own.index, own["band_low"], own["band_high"], color=color, linewidth=0.9,
                        alpha=0.55)
            axis.plot(own.index, own["value"], color=color, marker=marker, linestyle="none",
                      markersize=5, label=f"{len(own)} {verdict}")
        _name_ends(axis, part)
        rival = RIVALS.get(part["reference"].iloc[0], str(part["reference"].iloc[0]))
        axis.set_title(f"SAE minus {rival}", loc="left")
        axis.set_xticks([])
        axis.grid(axis="x", visible=False)
        axis.legend(loc="upper left", handletextpad=0.3)
    axes[0, 0].set_ylabel("area under R²(k), difference")
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(low - 0.25 * (high - low), high)  # room for names
    below_all(figure, "attributes, sorted by the difference", said if banded else note)
    return figure


def _name_ends(axis, part: pd.DataFrame, n: int = 3) -> None:
    """In the free corner: names of the attributes told apart that lie furthest out, and which."""
    ends = [part[part["verdict"] == "better"].tail(n)[::-1],
            part[part["verdict"] == "worse"].head(n)[::-1]]
    names = [[attribute_in_words(name) for name in end["attribute"]] for end in ends]
    said = [f"{way}: {name}" if i == 0 else name for way, group in
            zip(("best", "worst"), names, strict=True) for i, name in enumerate(group)]
    rows = pd.concat(ends).assign(said=said)[::-1].reset_index(drop=True)
    for number, row in enumerate(rows.itertuples()):
        axis.text(0.99, 0.02 + 0.055 * number, row.said, ha="right",
                  va="bottom", transform=axis.transAxes, fontsize=8.5,
                  color=VERDICTS[row.verdict][0],
                  bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.4})


def attribute_in_words(attribute: str) -> str:
    """What the attribute measures; its plain name in words where that says it.

    Examples
    --------
    >>> attribute_in_words("mfcc2V_sma3nz_amean"), attribute_in_words("HNRdBACF_sma3nz_amean")
    ('MFCC 2, voiced, mean', 'HNR (ceiling set by pitch)')
    >>> attribute_in_words("StddevVoicedSegmentLengthSec")
    'voiced segments, variation of length'
    """
    from saeutils.attributes import attribute_label

    label = attribute_label(attribute)
    bare = label.split(",")[0]  # no words of its own: the name as openSMILE has it
    return readable(attribute) if f"{attribute}_".startswith(f"{bare}_") else label


def response_matrix(table: pd.DataFrame, *, note: str | None = None) -> Figure:
    """How much of each code's response belongs to each factor, with the placebos beside.

    Parameters
    ----------
    table
        Columns code (label, in the order of rows), factor (in the order of columns), value
        (share or relative power, 0 to 1), confirmed (bool: above the placebo and specific), and
        where known stable: codes that other seeds find again are marked by a star.
    """
    codes, factors = (list(dict.fromkeys(table[name])) for name in ("code", "factor"))
    wide = table.pivot(index="code", columns="factor", values="value").loc[codes, factors]
    marks = table.pivot(index="code", columns="factor", values="confirmed").loc[codes, factors]
    figure, axes = new_figure(width=7.2, height=0.26 * len(codes) + 1.9, note=note)
    axis = axes[0, 0]
    image = axis.imshow(wide, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(marks.fillna(False).to_numpy(dtype=bool)):
        axis.plot(column, row, marker="o", color="#D55E00", markersize=4)
    stable = table.drop_duplicates("code").set_index("code").get("stable", pd.Series(dtype=object))
    named = [(f"{readable(name)}: {code}" if code else name)
             + " ★" * (str(stable.get(f"{name}: {code}", "")) in ("True", "1.0"))
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


def confusions(tables: dict[str, pd.DataFrame], *, note: str | None = None) -> Figure:
    """What was sung against what a probe says, one panel per representation.

    Parameters
    ----------
    tables
        By representation, from `saeutils.scores.confusion`: rows sung, columns said, shares of a
        row; shares of at least a tenth are written into the cells, in percent.
    """
    figure, axes = new_figure(1, len(tables), width=3.6 * len(tables) + 0.9, height=4.6, note="",
                              sharey=True)
    for axis, (kind, table) in zip(axes.flat, tables.items(), strict=True):
        image = axis.imshow(table, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        shares = table.to_numpy(dtype=float)
        for row, column in np.argwhere(shares >= 0.1):
            axis.text(column, row, f"{100 * shares[row, column]:.0f}", ha="center", va="center",
                      fontsize=8, color="white" if shares[row, column] > 0.6 else "black")
        named = [readable(name) for name in table.columns]
        axis.set_xticks(range(len(named)), named, rotation=60, ha="right", fontsize=8.5)
        axis.set_yticks(range(len(named)), named, fontsize=9)
        axis.grid(False)
        axis.set_title(REPRESENTATIONS[kind][3] if kind in REPRESENTATIONS else kind, loc="left")
    axes[0, 0].set_ylabel("sung")
    figure.colorbar(image, ax=axes, label="share of the clips of a technique", pad=0.015,
                    shrink=0.8)
    below_all(figure, "what the probe says", note)
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
    for number, (_, part) in enumerate(table.groupby("base_id")):
        part = part.sort_values("step")
        axis.plot(part["step"], part["value"], color="#0072B2", linewidth=0.7, alpha=0.5,
                  label="one base clip" if not number else None)
    mean = table.assign(bin=(table["step"] * 2).round() / 2).groupby("bin")["value"].mean()
    axis.plot(mean.index, mean, color="black", marker="o", label="mean over base clips")
    axis.axhline(0, color=GREY, linewidth=0.8)
    axis.set(xlabel=f"{readable(x)}, moved by (population SDs)", ylabel="change of the code (SDs)")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=2)
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
        2), ci_low, ci_high, and where known by_construction (one setting is zero: a small cross, as
        its place says nothing of size); in the order of lines.
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
        marker = "x" if getattr(row, "by_construction", False) else marker
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
    if "by_construction" in table and table["by_construction"].any():
        axis.plot([], [], marker="x", color="black", linestyle="none",
                  label="one setting is zero: ±1 whatever the size")
    _legend(figure, axis, columns=2)
    return figure


def _curve_lines(axis, table: pd.DataFrame) -> None:
    order = [kind for kind in REPRESENTATIONS if kind in set(table["representation"])]
    for kind in order:
        color, marker, style, label = REPRESENTATIONS[kind]
        part = table[table["representation"] == kind].sort_values("codes")
        line(axis, np.log(part["codes"]), part, color=color, marker=marker, style=style,
             label=label, offset=0.05 * (order.index(kind) - (len(order) - 1) / 2))
    ticks = sorted(table["codes"].unique())
    axis.set_xticks(np.log(ticks), [str(int(tick)) for tick in ticks])


def _legend(figure: Figure, axis, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)
