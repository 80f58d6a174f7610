"""The overview: the whole result on one page, for a README's first screen and for a slide.

From the tables of the single figures to one table (`overview_rows`), and from that table to the
Figure (`overview`), in the style of `saeutils.plots`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from saeutils.plots import GREY, REPRESENTATIONS, new_figure

INK = "#222222"

PANELS = {  # panel: the question above it, what its x axis counts, what its y axis measures
    "kept": ("Claim 1: is the technique kept?", "sparsity of the codes (%)",
             "balanced accuracy (chance {chance:.2f})"),
    "published": ("Claim 2, as published", "sparsity of the codes (%)",
                  "completeness (1 = one latent an attribute)"),
    "fair": ("Claim 2, on unseen singers", "number of codes used",
             "R² of attributes (codes at {sparsity:g} %)"),
}
TERMS = {"Information about technique": "Technique", "retention": "rebuilt states",
         "readability": "codes", "of balanced accuracy": "at {sparsity:g}\u00a0%"}
QUESTION = "Does a sparse code keep what an audio model knows, and say it more plainly?"
PAGE = REPRESENTATIONS | {  # here each name stands alone, far from its panel
    "sae": ("#0072B2", "o", "-", "SAE codes"),
    "sae_rebuilt": ("#56B4E9", "v", "-", "states rebuilt by the SAE"),
    "raw": ("#000000", None, (0, (4, 2)), "raw states, no SAE"),
    "published": ("#B87C00", "D", "-", "published: VocalSet, four encoders (mean, range)"),
}
ORDER = ("raw", "whitened_pca", "sae_rebuilt", "sae", "random", "noise", "published")


def overview_rows(
    claim: pd.DataFrame, accuracy: pd.DataFrame, nulls: pd.DataFrame, curves: pd.DataFrame, *,
    encoder: str, layer: int, margin: float, chance: float,
) -> pd.DataFrame:
    """The rows behind `overview`, from the tables of the single figures.

    Parameters
    ----------
    claim
        results/claim_information: paired differences in balanced accuracy, with intervals.
    accuracy
        From `saeutils.report.cells`: balanced accuracy on unseen singers; its ``raw`` row counts.
    nulls
        From `saeutils.report.null_series`.
    curves
        Columns representation, codes, value, and where known ci_low, ci_high: R2 on unseen singers
        in this cell (ICA is left to the figure of both claims).
    encoder, layer
        The cell that the page tells of.
    margin, chance
        Non-inferiority margin and chance level, as shares.

    Returns
    -------
    DataFrame
        Columns panel, representation, x, value, ci_low, ci_high, n. Intervals of panel ``kept``
        are those of the paired difference to raw states, laid around the accuracy; those of the
        published values are the smallest and largest of their layers (n).
    """
    here = (accuracy["encoder"] == encoder) & (accuracy["layer"] == layer)
    raw = accuracy[here & (accuracy["representation"] == "raw")].iloc[0]
    own = claim[(claim["encoder"] == encoder) & (claim["layer"] == layer)]
    one = {name: part.set_index("sparsity") for name, part in own.groupby("contrast")}
    rows = [pd.DataFrame({"panel": "kept", "representation": ["raw", "margin", "chance"],
                          "value": [raw["value"], raw["value"] - margin, chance],
                          "n": [raw.get("n"), np.nan, np.nan]})]
    for name, contrast in (("sae_rebuilt", "retention"), ("sae", "readability")):
        part = one[contrast]
        moved = raw["value"] + part[["value", "ci_low", "ci_high"]]
        rows.append(moved.assign(panel="kept", representation=name, x=part.index, n=part["n"]))
    level = raw["value"] + one["readability"]["value"] - one["learned"]["value"]
    rows.append(pd.DataFrame({"panel": "kept", "representation": "random", "x": level.index,
                              "value": level.to_numpy()}))
    ours = [f"{kind} {encoder} {place}" for kind in ("raw", "sae", "random", "noise")
            for place in (layer, -1)]
    shown = nulls[(nulls["representation"] == "published") | nulls["series"].isin(ours)]
    spread = shown.groupby(["representation", "sparsity"], dropna=False)["value"].agg(
        value="mean", ci_low="min", ci_high="max", n="size").reset_index()
    spread.loc[spread["n"] < 2, ["ci_low", "ci_high", "n"]] = np.nan
    rows.append(spread.rename(columns={"sparsity": "x"}).assign(panel="published"))
    rows.append(curves[curves["representation"].isin(ORDER)].rename(
        columns={"codes": "x"}).assign(panel="fair"))
    columns = ["panel", "representation", "x", "value", "ci_low", "ci_high", "n"]
    return pd.concat(rows, ignore_index=True).reindex(columns=columns)


def overview(table: pd.DataFrame, sentences: pd.DataFrame, steps: Sequence[str], *,
             note: str | None = None) -> Figure:
    """The whole result on one page: what was done, both claims with their nulls, the answers.

    The one figure with headings in the image: it stands alone on a README and on a slide.

    Parameters
    ----------
    table
        From `overview_rows`. A panel without rows is left out.
    sentences
        Columns name (claim1, claim2, claim2b where causes were moved), sparsity and text, from
        `saeutils.claim_sentences`; drawn without their brackets.
    steps
        Four short texts: the clips, their states, the codes, the untrained dictionary.
    note
        Whose singers these are.

    Raises
    ------
    ValueError
        Not four steps.
    """
    if len(steps) != 4:
        raise ValueError(f"the page has places for 4 steps: got {len(steps)}")
    answers = {"kept": "claim1", "fair": "claim2", "moved": "claim2b"}
    known = dict(zip(sentences["name"], sentences["text"], strict=True))
    answers = {panel: plain(known[name]) for panel, name in answers.items() if name in known}
    sparsity = sentences["sparsity"].iloc[0]
    for term, here in TERMS.items():
        answers["kept"] = answers["kept"].replace(term, here.format(sparsity=sparsity))
    # three lines hold no more
    answers["kept"] = answers["kept"].split("; means over")[0].rstrip(".") + "."
    for verdict, said in (("as by", "no better than"), ("but not shown", "not shown to beat")):
        answers["kept"] = re.sub(
            rf" kept, {verdict}[^:]*: (.*), SAE minus untrained dictionary (\S+) points.*",
            rf" kept: \1; {said} an untrained dictionary (\2 points).", answers["kept"])
    answers["published"] = _as_published(table[table["panel"] == "published"])
    names = [name for name in PANELS if (table["panel"] == name).any()]
    figure, axes = new_figure(note=note, width=12.0, height=7.6)
    figure.set_layout_engine("none")
    figure.text(0.012, 0.984, QUESTION, fontsize=15, fontweight="bold", va="top")
    axes[0, 0].set_position((0.012, 0.73, 0.976, 0.215))
    _steps(axes[0, 0], steps)
    column = 0.988 / len(names)
    for i, name in enumerate(names):
        left = 0.012 + i * column
        axis = figure.add_axes((left + 0.034, 0.27, column - 0.055, 0.275))
        part = table[table["panel"] == name]
        _lines(axis, part)
        question, x, y = PANELS[name]
        level = part[part["x"].isna()].set_index("representation")["value"]
        figure.text(left, 0.70, question, fontsize=13.5, fontweight="bold", va="top")
        figure.text(left, 0.665, textwrap.fill(answers.get(name, ""), round(138 * column)),
                    fontsize=11.5, va="top", linespacing=1.2)
        figure.text(left, 0.559, y.format(
            chance=level.get("chance", np.nan), sparsity=sparsity), fontsize=11, color=GREY)
        axis.set_xlabel(x, fontsize=11)
        axis.tick_params(labelsize=11)
    figure.text(0.012, 0.168, textwrap.fill(answers.get("moved", ""), 150), fontsize=11.2,
                va="center")
    singers = table.loc[table["panel"] == "kept", "n"].max()
    if singers > 1:
        figure.text(0.012, 0.012, f"Bars: 95 % intervals over {singers:.0f} unseen singers (on the "
                    "left of the difference to raw states); grey band: the margin", color=GREY,
                    fontsize=10.5)
    _looks(figure, table)
    return figure


def plain(text: str) -> str:
    """A sentence of the claims without emphasis and brackets, for where there is little room.

    Examples
    --------
    >>> plain("It is **kept**: +1.2 [0.1, 2.3] points (layer 6, 95 %).")
    'It is kept: +1.2 points.'
    """
    shorter = None
    while text != shorter:  # brackets within brackets
        shorter, text = text, re.sub(r"\*|\s*\([^()]*\)|\s*\[[^\[\]]*\]", "", text)
    return re.sub(r"(?<= )-(?=\d)", "−", text)


def _as_published(part: pd.DataFrame) -> str:
    mean = part[part["x"].notna()].groupby("representation")["value"].mean()
    if not {"sae", "random"} <= set(mean.index):
        return ""
    above = mean["sae"] - mean["random"]
    verdict = (f"{above:.2f} above" if above > 0.005 else f"{-above:.2f} below" if above < -0.005
               else "the same as")
    return (f"On average our SAEs lie {verdict} a dictionary that was never trained"
            + (f" ({mean['sae']:.2f}, {mean['random']:.2f}; published {mean['published']:.2f})."
               if "published" in mean else "."))


def _steps(axis, steps: Sequence[str]) -> None:
    """Clip, state, code, and below the code the same without learning; drawn, not measured."""
    axis.set(xlim=(0, 120), ylim=(0, 26))
    axis.axis("off")
    time = np.linspace(0, 1, 400)
    for i in range(1, 6):  # a sung note: harmonics that wave
        wave = 9.5 + 2.2 * i + 0.28 * i * np.sin(2 * np.pi * 5 * time) * np.minimum(1, 3 * time)
        axis.plot(1 + 20 * time, wave, color=INK, linewidth=2.6 - 0.4 * i, alpha=0.8)
    dense = 1.3 * np.sin(12.9898 * np.arange(44) ** 2)
    sparse, other = np.zeros(44), np.zeros(44)
    sparse[[5, 19, 36]] = other[[11, 26, 40]] = 0.9, -0.7, 1.0
    for cells, left, low in ((dense, 37, 13), (sparse, 76, 17.5), (other, 76, 8.5)):
        axis.imshow(cells[None], cmap="RdBu_r", vmin=-1.3, vmax=1.3, aspect="auto",
                    extent=(left, left + 22, low, low + 4.5), interpolation="nearest")
        axis.plot([left, left + 22, left + 22, left, left], [low, low, low + 4.5, low + 4.5, low],
                  color=INK, linewidth=0.8)
    axis.set(xlim=(0, 120), ylim=(0, 26))
    arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.4}
    for start, end, label, place in (
            ((22.5, 15.2), (36, 15.2), "audio encoder", (29.2, 16.6)),
            ((60, 16), (75, 19.8), "SAE, trained", (67, 20.6)),
            ((60, 14.5), (75, 10.7), "not trained", (67, 8.6))):
        axis.annotate("", xy=end, xytext=start, arrowprops=arrow)
        axis.text(*place, label, ha="center", va="bottom", fontsize=10.5, color=INK)
    clip, state, code, null = steps
    axis.text(1, 6.2, clip, fontsize=11, va="top", linespacing=1.25)
    axis.text(37, 11.2, state, fontsize=11, va="top", linespacing=1.25)
    axis.text(100, 19.8, code, fontsize=11, va="center", linespacing=1.25, color="#0072B2")
    axis.text(100, 10.8, null, fontsize=11, va="center", linespacing=1.25, color="#D55E00")


def _lines(axis, part: pd.DataFrame) -> None:
    """One line for each representation over x; rows without x are levels, the margin a band."""
    ticks = sorted(part["x"].dropna().unique())
    kinds = [kind for kind in ORDER if (part["representation"] == kind).any()]
    level = part[part["x"].isna()].set_index("representation")["value"]
    if "margin" in level:
        axis.axhspan(level["margin"], level["raw"], color="#E3E3E3", zorder=0)
    for kind in kinds:
        color, marker, style, _ = PAGE[kind]
        rows = part[(part["representation"] == kind) & part["x"].notna()].sort_values("x")
        if not len(rows):
            axis.axhline(level[kind], color=color, linestyle=style, linewidth=1.6)
            continue
        place = np.array([ticks.index(x) for x in rows["x"]], float)
        band = rows["ci_low"].notna().any()
        if kind == "published":
            axis.fill_between(place, rows["ci_low"], rows["ci_high"], color=color, alpha=0.16,
                              linewidth=0)
        elif band:
            place = place + (0.08 if kind == "sae" else -0.08)
            axis.vlines(place, rows["ci_low"], rows["ci_high"], color=color, linewidth=1.3)
        axis.plot(place, rows["value"], color=color, linestyle=style, marker=marker, zorder=3,
                  markersize=6, markerfacecolor="white" if kind == "published" else color)
    axis.set_xticks(range(len(ticks)), [f"{tick:g}" for tick in ticks])


def _looks(figure: Figure, table: pd.DataFrame) -> None:
    """One legend for all panels, below them."""
    from matplotlib.lines import Line2D

    kinds = [kind for kind in ORDER if (table["representation"] == kind).any()]
    handles = [Line2D([], [], color=PAGE[kind][0], marker=PAGE[kind][1], linestyle=PAGE[kind][2],
                      markerfacecolor="white" if kind == "published" else PAGE[kind][0],
                      markersize=6, label=PAGE[kind][3]) for kind in kinds]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.006, 0.048), ncols=4,
                  fontsize=11, handlelength=2.6, columnspacing=1.6)
