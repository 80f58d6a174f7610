"""The figure of the report card, and tables with names in words instead of those of columns.

The figure sets shapes of the published curves and number against number; `in_words` is for tables
that a reader sees, never for those that are written.
"""

from __future__ import annotations

import re
from html import escape
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from saeutils.atlas_names import readable
from saeutils.plots import (
    GREY,
    REPRESENTATIONS,
    encoder_label,
    encoder_look,
    new_figure,
    over_singers,
)

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


def counted(note: str | None, n: int, kind: str = "unseen") -> str:
    """The note, and behind it how many singers a figure without intervals speaks of.

    Examples
    --------
    >>> counted("synthetic singers", 5, "test")
    'synthetic singers; 5 test singers'
    """
    note = over_singers(pd.DataFrame(), note)  # the run's own note where none is given
    heard = " ".join(filter(None, (str(n), kind, "singers" if n != 1 else "singer")))
    return f"{note}; {heard}".removeprefix("; ")


SAID = {"ci_low": "from", "ci_high": "to", "target_low": "wanted from", "target_high": "to",
        "above_mean_sd": "above the mean (SDs)", "demo": "demo encoder",
        "untrained": "untrained encoder", "sae_rebuilt": "states rebuilt by the SAE",
        "decoder_cosine": "cosine of directions", "sd": "SD",
        "code_correlation": "correlation of codes", "cka_first": "CKA with first",
        "cka_last": "CKA with last", "named": "named after", "r_named": "correlation with it",
        "strongest": "follows most", "r_strongest": "correlation with that",
        "null": "untrained dictionary", "seed_sd": "SD over seeds", "n_seeds": "seeds",
        "against_linear": "against the best linear basis", "band_low": "band from",
        "band_high": "band to"}
LONG_TEXT, LEFT = 24, '<{} style="text-align: left">'
UPPER = {"fvu": "FVU", "mse": "MSE", "l0": "L0", "auc": "AUC", "sae": "SAE", "r2": "R²", "R2": "R²"}


class Shown(pd.DataFrame):
    """A table for the eye: a notebook shows its texts whole, and those of a sentence's length from
    the left, where pandas cuts them at 50 and sets them to the right like numbers."""

    @property
    def _constructor(self):
        return Shown

    def _repr_html_(self):
        with pd.option_context("display.max_colwidth", None, "display.max_columns", None):
            page = super()._repr_html_()
        left = [column.map(lambda cell: isinstance(cell, str) and len(cell) > LONG_TEXT).any()
                for _, column in self.items()]
        places = cycle(left)
        page = re.sub("<td>", lambda cell: LEFT.format("td") if next(places) else cell[0], page)
        for label in self.columns[left] if self.columns.nlevels == 1 else ():
            head = f"<th>{escape(str(label))}</th>"
            page = page.replace(head, head.replace("<th>", LEFT.format("th")), 1)
        return page


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """A table as a reader wants it: names in words, no index of NaN, empty cells where nothing is.

    Parameters
    ----------
    table
        Any; labels of rows and columns and text cells such as ``whitened_pca``,
        ``vibrato_extent_st`` or NaN are put into words, True and False become yes and no.
        Numbers are kept, a zero without its minus; a column with gaps shows each with the digits
        of its longest.

    Examples
    --------
    >>> shown = in_words(pd.DataFrame({"random": [0.5], "tonic_st": ["am_depth"]}, index=[np.nan]))
    >>> shown.columns.tolist(), shown.index.tolist(), shown.iat[0, 1]
    (['untrained dictionary', 'tonic (semitones)'], ['–'], 'AM depth')
    """
    shown = Shown(table)
    for place, (_, column) in enumerate(table.items()):
        if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
            shown.isetitem(place, column.map(_cell).astype(object))
        elif column.dtype.kind == "b":
            shown.isetitem(place, column.astype(object).map(_cell))
        elif column.dtype.kind == "f":
            column = column + 0.0  # no minus before a zero
            shown.isetitem(place, _with_gaps(column) if column.isna().any() else column)
    for name in ("index", "columns"):
        axis = getattr(table, name)
        levels = [axis.get_level_values(i) for i in range(axis.nlevels)]
        said = [[word(label) for label in level] for level in levels]
        titles = [title and str(title).replace("_", " ") for title in axis.names]
        setattr(shown, name, pd.MultiIndex.from_arrays(said, names=titles) if axis.nlevels > 1
                else pd.Index(said[0], name=titles[0]))
    return shown


def _with_gaps(column: pd.Series) -> pd.Series:
    """Texts with equal decimals, at most six, and an empty one where a number is missing."""
    known = [value for value in column.dropna() if np.isfinite(value)]
    decimals = max((len(f"{value:.6f}".rstrip("0").partition(".")[2]) for value in known),
                   default=0)
    return column.map(lambda value: "" if np.isnan(value) else f"{value:.{decimals}f}")


def word(label) -> str:
    """The label of a row or column in words: a representation, an attribute, a factor, a metric.

    Examples
    --------
    >>> word("random"), word("jitter_percent"), word("fvu"), word(95.0), word(float("nan"))
    ('untrained dictionary', 'jitter (%)', 'FVU', '95', '–')
    """
    if isinstance(label, float):
        return f"{label:g}" if np.isfinite(label) else "–"
    if not isinstance(label, str):
        return label
    if label in REPRESENTATIONS:
        return REPRESENTATIONS[label][3]
    words = SAID.get(label) or readable(label)
    return re.sub(r"(?<![\w.])(\w+)(?!\w)", lambda word: UPPER.get(word[1], word[1]), words)


def _cell(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    is_name = isinstance(value, str) and (
        re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", value) or value in ("raw", "random", *UPPER))
    missing = value is None or (isinstance(value, float) and np.isnan(value))
    return word(value) if is_name else "" if missing else value
