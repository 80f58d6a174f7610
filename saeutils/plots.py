"""One function per figure: takes a tidy table, returns a Figure. Only here are colours known.

Every figure says on its face which singers it shows (``note``), draws its baselines, and marks
published values, measured on other singers and encoders, by hollow markers.
"""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with every common colour vision.
ENCODERS = {
    "demo": ("#0072B2", "o"), "untrained": ("#56B4E9", "s"), "ast": ("#E69F00", "^"),
    "hubert": ("#009E73", "D"), "wavlm": ("#CC79A7", "v"), "mert": ("#D55E00", "P"),
    "wavlm_as_released": ("#CC79A7", "<"),
}
OTHER = ("#6A3D9A", "X")
REPRESENTATIONS = {  # in the order of legends
    "raw": ("#000000", None, (0, (4, 2)), "raw states"),
    "sae": ("#0072B2", "o", "-", "SAE"),
    "sae_released": ("#56B4E9", "v", "-", "SAE, released recipe"),
    "random": ("#D55E00", "s", "--", "untrained dictionary"),
    "noise": ("#8C8C8C", "x", ":", "pure noise codes"),
    "permuted": ("#E69F00", "P", ":", "SAE of permuted states"),
    "pca": ("#009E73", "^", "-.", "PCA"),
    "whitened_pca": ("#009E73", "^", "-.", "whitened PCA"),
    "ica": ("#CC79A7", "v", "-.", "ICA"),
    "published": ("#E69F00", "D", "none", "published (VocalSet, four encoders)"),
}
METRICS = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1",
    "fvu": "fraction of variance unexplained", "mse": "mean squared error", "l0": "active latents",
    "dead_fraction": "share of dead latents", "r2_in_sample": "R² (in sample)",
    "r2_held_out": "R² (unseen singers)", "completeness": "completeness (as published)",
    "effective_codes": "effective number of codes",
}
LEVELS = {"log_mel": "log-mel statistics", "egemaps": "eGeMAPS attributes",
          "duration": "duration alone", "majority": "majority class"}
GREY = "#666666"
DOTS = ((0, (1, 2)), (0, (6, 2, 1, 2)))  # lines to compare with
_HOUSE = {"note": "synthetic singers"}  # what a figure says when its caller says nothing


def use_style() -> None:
    """One look for all figures: sizes that stay legible at half a page's width."""
    mpl.rcParams.update({
        "figure.figsize": (7.2, 4.2), "figure.dpi": 100, "savefig.dpi": 150,
        "figure.constrained_layout.use": True, "font.size": 11, "axes.labelsize": 11,
        "axes.titlesize": 11, "legend.fontsize": 9.5, "xtick.labelsize": 10,
        "ytick.labelsize": 10, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.color": "#E6E6E6", "axes.axisbelow": True,
        "lines.linewidth": 1.8, "lines.markersize": 6, "legend.frameon": False,
        "svg.hashsalt": "saeutils",
    })


def use_note(text: str) -> None:
    """From here on figures without a note of their own say `text`: a run's ``data.face``."""
    _HOUSE["note"] = text


def encoder_look(name: str) -> tuple[str, str]:
    """Colour and marker of an encoder, the same in every figure."""
    return ENCODERS.get(name, OTHER)


def new_figure(rows: int = 1, columns: int = 1, *, width: float = 7.2, height: float = 4.2,
               note: str | None = None, **axes_options) -> tuple[Figure, np.ndarray]:
    """Figure and a 2-D array of axes in the house style, with the note on its face."""
    use_style()
    note = _HOUSE["note"] if note is None else note
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False,
                                **axes_options)
    if note:
        figure.get_layout_engine().set(rect=(0, 0.16 / height, 1, 1 - 0.16 / height))
        figure.text(0.995, 0.008, note, ha="right", va="bottom", color=GREY, fontsize=9.5,
                    style="italic")
    plt.close(figure)  # shown by the notebook's display, once, and not kept open
    return figure, axes


def over_singers(table: pd.DataFrame, note: str | None = None) -> str:
    """The note, and behind it over how many singers (column ``n``) the bars are intervals."""
    note = (_HOUSE["note"] if note is None else note) or ""
    ours = table[table["representation"] != "published"] if "representation" in table else table
    n = ours.loc[ours["ci_low"].notna(), "n"].dropna() if {"ci_low", "n"} <= set(ours) else []
    if not len(n):
        return note
    count = f"{n.min():.0f}" if n.min() == n.max() else f"{n.min():.0f} to {n.max():.0f}"
    return f"{note}; bars: 95 % over {count} singers".removeprefix("; ")


def baseline(axis, value: float, label: str, *, side: str = "right") -> None:
    """Thin horizontal line with its name at the edge: chance, majority class, raw."""
    axis.axhline(value, color=GREY, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    x, align = (0.995, "right") if side == "right" else (0.005, "left")
    axis.text(x, value, LEVELS.get(label, label), transform=axis.get_yaxis_transform(), ha=align,
              va="bottom" if value >= 0 else "top", fontsize=8.5, color="#444444", zorder=2.5,
              bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6})


def line(axis, x, table: pd.DataFrame, *, color: str, marker: str | None = "o",
         style="-", label: str = "", hollow: bool = False, offset: float = 0.0):
    """A line of column ``value`` with its interval (``ci_low``, ``ci_high``) where there is one."""
    positions = np.asarray(x, float) + offset
    face = "white" if hollow else color
    axis.plot(positions, table["value"], color=color, marker=marker, linestyle=style,
              markerfacecolor=face, label=label, zorder=3)
    if {"ci_low", "ci_high"} <= set(table) and table["ci_low"].notna().any():
        axis.vlines(positions, table["ci_low"], table["ci_high"], color=color, linewidth=1.2,
                    alpha=0.7, zorder=2)


def over_layers(table: pd.DataFrame, *, metric: str, references: dict[str, float] | None = None,
                published: pd.DataFrame | None = None, note: str | None = None) -> Figure:
    """A metric of raw states by layer, one line per encoder.

    Parameters
    ----------
    table
        Columns encoder, layer, value, ci_low, ci_high, n (n singers).
    references
        Name and value of horizontal lines (chance, majority class).
    published
        Columns encoder, layer, value; hollow, on the axis of relative depth.
    """
    figure, axes = new_figure(1, 1, note=over_singers(table, note))
    axis = axes[0, 0]
    for name, rows in table.groupby("encoder", sort=False):
        rows = rows.sort_values("layer")
        color, marker = encoder_look(name)
        depth = rows["layer"] / rows["layer"].max()
        line(axis, depth, rows, color=color, marker=marker, label=encoder_label(name))
    for name, rows in [] if published is None else published.groupby("encoder", sort=False):
        color, marker = encoder_look(name)
        depth = rows["layer"] / rows["layer"].max()
        axis.plot(depth, rows["value"], color=color, marker=marker, linestyle=":", linewidth=0.9,
                  markerfacecolor="white", markersize=5, alpha=0.85,
                  label=f"{encoder_label(name)}, published")
    named = sorted((references or {}).items(), key=lambda item: item[1])
    for number, (name, value) in enumerate(named):  # neighbours do not print over each other
        baseline(axis, value, name, side=("left", "right")[number % 2])
    axis.set(xlabel="relative depth of the layer (0 = before the first block, 1 = last)",
             ylabel=METRICS.get(metric, metric))
    _legend_above(figure, axis, columns=3)
    return figure


def over_sparsity(table: pd.DataFrame, *, metric: str, panel: str = "panel", log: bool = False,
                  references: dict[str, float] | None = None, share_y: bool = True,
                  note: str | None = None, columns: int = 3) -> Figure:
    """A metric by sparsity, one panel per value of `panel`, one line per representation.

    Rows of representation ``raw`` become a dashed line, `references` (chance, a margin) dotted
    ones that the legend names: in a panel a name would lie on bars.

    Parameters
    ----------
    table
        Columns `panel`, representation, sparsity (percent), value, ci_low and ci_high if known.
    """
    names = list(dict.fromkeys(table[panel]))
    columns = 2 if len(names) == 4 else min(columns, len(names))
    rows = -(-len(names) // columns)
    figure, axes = new_figure(rows, columns, width=max(2.75 * columns + 0.6, 4.4),
                              height=2.5 * rows + 1.0, note="", sharey=share_y)
    ticks = sorted(table["sparsity"].dropna().unique())
    kinds = list(dict.fromkeys(table.loc[table["sparsity"].notna(), "representation"]))
    for axis, name in zip(axes.flat, names, strict=False):
        part = table[table[panel] == name]
        for kind, values in part.groupby("representation", sort=False):
            color, marker, style, label = REPRESENTATIONS.get(kind, (GREY, "o", "-", kind))
            values = values.sort_values("sparsity")
            if values["sparsity"].isna().all():
                axis.axhline(values["value"].mean(), color=color, linestyle=style, linewidth=1.4,
                             label=label)
            else:
                x = [ticks.index(s) for s in values["sparsity"]]
                line(axis, x, values, color=color, marker=marker, style=style, label=label,
                     hollow=kind == "published",
                     offset=0.09 * (kinds.index(kind) - (len(kinds) - 1) / 2))
        for number, (text, value) in enumerate((references or {}).items()):
            axis.axhline(value, color=GREY, linewidth=1, linestyle=DOTS[number % 2], zorder=1,
                         label=LEVELS.get(text, text))
        axis.set_title(str(name), loc="left")
        axis.set_xticks(range(len(ticks)), [f"{tick:g}" for tick in ticks])
        axis.set_xlim(-0.4, len(ticks) - 0.6)
        if log:
            axis.set_yscale("log")
    for axis in axes.flat[len(names):]:
        axis.set_visible(False)
    below_all(figure, "sparsity of the codes (%)", over_singers(table, note))
    figure.supylabel(METRICS.get(metric, metric), fontsize=11)
    _legend_above(figure, axes, columns=2 if columns < 3 else 4)
    return figure


def null_figure(table: pd.DataFrame, *, note: str | None = None) -> Figure:
    """Published completeness, the demo's SAEs, untrained dictionaries and noise on one axis.

    Parameters
    ----------
    table
        Columns representation (published, sae, random, noise), series (a line), sparsity, value.
    """
    figure, axes = new_figure(width=7.2, height=4.6, note=note)
    axis = axes[0, 0]
    ticks = sorted(table["sparsity"].dropna().unique())
    order = [kind for kind in ("published", "noise", "random", "sae")
             if kind in set(table["representation"])]
    for kind in order:
        color, marker, style, label = REPRESENTATIONS[kind]
        part = table[table["representation"] == kind]
        for series, values in part.groupby("series", sort=False):
            values = values.sort_values("sparsity")
            x = [ticks.index(s) for s in values["sparsity"]]
            first = series == part["series"].iloc[0]
            if kind == "published":
                axis.plot(x, values["value"], color=color, linewidth=0.8, alpha=0.7, marker=marker,
                          markerfacecolor="white", label=label if first else None)
            else:
                line(axis, x, values, color=color, marker=marker, style=style,
                     label=label if first else "")
    for name, value in table[table["sparsity"].isna()].groupby("representation")["value"].mean(
            ).items():
        baseline(axis, value, f"{name} states")
    axis.set_xticks(range(len(ticks)), [f"{tick:g}" for tick in ticks])
    axis.set(xlabel="sparsity of the codes (%)", ylabel=METRICS["completeness"])
    _legend_above(figure, axis, columns=2)
    return figure


def contrasts(table: pd.DataFrame, *, note: str | None = None) -> Figure:
    """Contrast to straight tone, real against synthetic, in real within-technique spreads.

    Parameters
    ----------
    table
        Columns technique, attribute, real, synthetic (both in units of the real
        interquartile range), counted (the contrast is large enough to judge).
    """
    techniques = list(dict.fromkeys(table["technique"]))
    columns = min(4, len(techniques))
    rows = -(-len(techniques) // columns)
    figure, axes = new_figure(rows, columns, width=2.4 * columns, height=2.35 * rows + 0.5,
                              note="", sharex=True, sharey=True)
    reach = np.linspace(-30, 30, 601)
    for axis, name in zip(axes.flat, techniques, strict=False):
        part = table[table["technique"] == name]
        axis.fill_between(reach, reach / 3, reach * 3, color="#0072B2", alpha=0.10, linewidth=0)
        axis.plot(reach, reach, color="#0072B2", linewidth=0.9)
        for flag, color, size in ((False, "#BBBBBB", 8), (True, "#000000", 14)):
            dots = part[part["counted"] == flag]
            axis.scatter(dots["real"], dots["synthetic"], s=size, color=color, linewidths=0)
        axis.axhline(0, color=GREY, linewidth=0.6)
        axis.axvline(0, color=GREY, linewidth=0.6)
        axis.set_xscale("symlog", linthresh=0.5)
        axis.set_yscale("symlog", linthresh=0.5)
        ticks, labels = [-5, -0.5, 0, 0.5, 5], ["-5", "-0.5", "0", "0.5", "5"]
        axis.set(xlim=(-15, 15), ylim=(-15, 15), xticks=ticks, yticks=ticks,
                 xticklabels=labels, yticklabels=labels)
        axis.minorticks_off()
        axis.set_title(str(name).replace("_", " "), loc="left")
    for axis in axes.flat[len(techniques):]:
        axis.set_visible(False)
    below_all(figure, "real singers: difference to straight tone (interquartile ranges)",
              note or f"across: VocalSet; up: {_HOUSE['note']}")
    figure.supylabel("synthetic singers", fontsize=11)
    return figure


def attribute_groups(table: pd.DataFrame, *, note: str | None = None) -> Figure:
    """How many of the ten best-read attributes fall into each group.

    Parameters
    ----------
    table
        Columns group, series (label of a bar colour), value, ci_low, ci_high, expected
        (count by the group's size alone).
    """
    figure, axes = new_figure(note=note)
    axis, groups = axes[0, 0], list(dict.fromkeys(table["group"]))
    palette = {look[3]: look[0] for look in REPRESENTATIONS.values()}
    series = _in_order(dict.fromkeys(table["series"]))
    width = 0.8 / len(series)
    for i, name in enumerate(series):
        part = table[table["series"] == name].set_index("group").reindex(groups)
        x = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
        axis.bar(x, part["value"], width * 0.92, color=palette.get(name, GREY), label=name)
        if "ci_low" in part and part["ci_low"].notna().any():
            axis.vlines(x, part["ci_low"], part["ci_high"], color="black", linewidth=1)
    if "expected" in table:
        expected = table.drop_duplicates("group").set_index("group")["expected"].reindex(groups)
        axis.hlines(expected, np.arange(len(groups)) - 0.45, np.arange(len(groups)) + 0.45,
                    color=GREY, linestyle="--", linewidth=1.3, label="expected from group size")
    axis.set_xticks(range(len(groups)), [str(group).replace("_", " ") for group in groups],
                    fontsize=9.5)
    axis.set(ylabel="attributes among the ten best")
    axis.grid(axis="x", visible=False)
    _legend_above(figure, axis, columns=4)
    return figure


def completeness_entropy(table: pd.DataFrame, *, note: str | None = None) -> Figure:
    """Completeness of each attribute against the entropy of its histogram, by representation.

    Parameters
    ----------
    table
        Columns representation, attribute, entropy (bits), value (completeness).
    """
    kinds = [kind for kind in REPRESENTATIONS if kind in set(table["representation"])]
    columns = 2 if len(kinds) > 3 else max(len(kinds), 1)  # four in a row are too small to read
    figure, axes = new_figure(-(-len(kinds) // columns), columns, width=3.6 * columns, note="",
                              height=2.6 * -(-len(kinds) // columns) + 1, sharey=True, sharex=True)
    for axis, kind in zip(axes.flat, kinds, strict=False):
        color, _, _, label = REPRESENTATIONS[kind]
        part = table[table["representation"] == kind].dropna(subset=["value", "entropy"])
        axis.scatter(part["entropy"], part["value"], s=18, color=color, alpha=0.7, linewidths=0)
        rank = part["entropy"].corr(part["value"], method="spearman")
        axis.set_title(f"{label}\nrank correlation {rank:+.2f}", loc="left", fontsize=10)
    for axis in axes.flat[len(kinds):]:
        axis.set_visible(False)
    below_all(figure, "entropy of the attribute's 10-bin histogram (bits)", note)
    figure.supylabel(METRICS["completeness"], fontsize=11)
    return figure


def representation_label(name: str) -> str:
    """Name of a representation as figures show it."""
    return REPRESENTATIONS.get(name, (GREY, "o", "-", name))[3]


def encoder_label(name: str) -> str:
    """Name of an encoder as figures show it."""
    labels = {"demo": "demo encoder", "untrained": "untrained encoder", "ast": "AST",
              "mert": "MERT", "hubert": "HuBERT", "wavlm": "WavLM",
              "wavlm_as_released": "WavLM as released"}
    return labels.get(name, name)


def below_all(figure: Figure, text: str, note: str | None) -> None:
    """Label below all panels, with the note as a second line: there it can cover nothing."""
    note = _HOUSE["note"] if note is None else note
    figure.supxlabel(f"{text}\n({note})" if note else text, fontsize=11)


def _legend_above(figure: Figure, axes, columns: int) -> None:
    kept = {}
    for axis in np.ravel(axes):
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            kept.setdefault(label, handle)
    names = _in_order(kept)
    if names not in ([], ["SAE"]):  # a lone SAE needs no name
        figure.legend([kept[name] for name in names], names, loc="outside upper left",
                      ncols=columns)


def _in_order(labels) -> list[str]:
    """Representations in the order of `REPRESENTATIONS`, behind other labels."""
    order = [look[3] for look in REPRESENTATIONS.values()]
    return sorted(labels, key=lambda name: order.index(name) if name in order else -1)


def matrix(values, *, rows: str, columns: str, label: str, limit: float = 1.0,
           row_names=None, column_names=None, note: str = "") -> Figure:
    """A matrix of signed values as colours, blue for negative and red for positive."""
    values = np.asarray(values, float)
    height = 0.28 * len(values) + 1.4 if row_names is not None else 3.9
    figure, axes = new_figure(width=7.2, height=height, note=note)
    axis = axes[0, 0]
    image = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto",
                        interpolation="nearest")
    axis.grid(False)
    axis.set(xlabel=columns, ylabel=rows)
    if row_names is not None:
        axis.set_yticks(range(len(values)), list(row_names), fontsize=9)
    if column_names is not None:
        axis.set_xticks(range(values.shape[1]), list(column_names), rotation=40, ha="right",
                        fontsize=9)
    figure.colorbar(image, ax=axis, label=label, pad=0.015)
    return figure


def sorted_curves(series: dict, *, x: str, y: str, note: str = "") -> Figure:
    """Each series sorted from its best value down: how many are good, how bad is the rest."""
    figure, axes = new_figure(height=3.7, note=note)
    axis = axes[0, 0]
    for kind, values in series.items():
        color, marker, style, label = REPRESENTATIONS[kind]
        values = np.sort(np.asarray(values, float))[::-1]
        axis.plot(range(1, len(values) + 1), values, color=color, marker=marker, linestyle=style,
                  markersize=4, label=label)
    axis.set(xlabel=x, ylabel=y, ylim=(0, 1.05))
    _legend_above(figure, axis, columns=3)
    return figure
