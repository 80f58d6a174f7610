"""The report card: every published value beside ours, and what the published curves claim in shape.

Numbers are compared only where singers and encoder are those of the paper. Elsewhere, as in the
demo, each published value still stands beside the nearest thing we measured, with the verdict "not
comparable" and the reason; shapes (does accuracy fall at 99 %? does completeness rise?) are
compared in every run but a rehearsal, with the untrained dictionary asked the same questions.

Source: data/reference/paper_reported_accuracy.csv (printed) and paper_figures_digitised.csv (read
off the plots, with the reading error of each).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from saeutils.report import cells

QUANTITIES = {
    "probing_accuracy": "accuracy", "reconstruction_mse": "mean squared error",
    "r2_top10_mean": "R² in sample, ten best", "completeness_top10_mean": "completeness, ten best",
}
# Smallest tolerance beside the reading error: four of 400 clips; for errors a share of the value.
FLOORS = {"probing_accuracy": 0.01, "r2_top10_mean": 0.01, "completeness_top10_mean": 0.01}
RELATIVE_FLOOR = 0.10
# The published WavLM is WavLM's weights in another class (A07): compared with the same fault.
AS_RELEASED = {"wavlm": "wavlm_as_released"}
KEYS = ["quantity", "encoder", "layer", "representation", "sparsity"]
COLUMNS = [
    "kind", "name", "quantity", "encoder", "layer", "representation", "sparsity", "published",
    "published_share", "reading_error", "our_encoder", "our_layer", "value", "ci_low", "ci_high",
    "n", "share", "seed_sd", "untrained", "untrained_share", "tolerance", "verdict", "note",
]


@dataclass(frozen=True)
class Shape:
    """One statement about a curve: a difference of two cells, and the side it should lie on.

    ``sign * (above - below) > threshold`` is the claim; errors are compared by log10 of the ratio.
    A cell is (representation, sparsity); ("last", ...) and ("best", ...) are raw layers.
    """

    name: str
    text: str
    quantity: str
    above: tuple[str, float]
    below: tuple[str, float]
    sign: int
    threshold: float = 0.0


RAW = ("raw", np.nan)
SHAPES = (
    Shape("last_below_best", "the last layer reads technique worse than the best one (5 points)",
          "probing_accuracy", ("last", np.nan), ("best", np.nan), -1, 0.05),
    Shape("accuracy_kept_95", "at 95 % accuracy stays within 3 points of raw states",
          "probing_accuracy", ("sae", 95), RAW, 1, -0.03),
    Shape("accuracy_falls_99", "accuracy falls from 95 to 99 %",
          "probing_accuracy", ("sae", 99), ("sae", 95), -1),
    Shape("error_grows", "the error grows from 75 to 99 % (log10 of the ratio)",
          "reconstruction_mse", ("sae", 99), ("sae", 75), 1),
    Shape("r2_above_raw", "at 95 % R² of codes lies above raw states",
          "r2_top10_mean", ("sae", 95), RAW, 1),
    Shape("r2_falls_99", "R² falls from 95 to 99 %",
          "r2_top10_mean", ("sae", 99), ("sae", 95), -1),
    Shape("completeness_above_raw", "at 95 % completeness of codes lies above raw states",
          "completeness_top10_mean", ("sae", 95), RAW, 1),
    Shape("completeness_rises_99", "completeness rises from 95 to 99 %",
          "completeness_top10_mean", ("sae", 99), ("sae", 95), 1),
)


def published_values(reported: pd.DataFrame, digitised: pd.DataFrame) -> pd.DataFrame:
    """Both reference files as one table.

    Returns
    -------
    DataFrame
        Columns of `KEYS`, published, reading_error (in the unit of the value; 0 for printed
        values), note.
    """
    printed = reported.rename(columns={"accuracy": "published"}).assign(
        quantity="probing_accuracy", reading_error=0.0)
    printed["note"] = "printed" + ("; " + reported["note"]).fillna("")
    read = digitised.rename(columns={"value": "published"})
    text = read["reading_error"].astype(str)
    relative = text.str.endswith("%")
    size = text.str.rstrip("%").astype(float)
    read = read.assign(reading_error=np.where(relative, size / 100 * read["published"], size),
                       note="read off the plot")
    both = pd.concat([printed, read], ignore_index=True).rename(
        columns={"sparsity_percent": "sparsity"})
    return both[[*KEYS, "published", "reading_error", "note"]]


def our_values(
    training: pd.DataFrame, layers: pd.DataFrame, codes: pd.DataFrame, maps: pd.DataFrame
) -> pd.DataFrame:
    """The same quantities of this run, as released, seeds averaged.

    Parameters
    ----------
    training, layers, codes, maps
        results/sae_training, probing_layers, probing_sae and disentanglement of all encoders.

    Returns
    -------
    DataFrame
        quantity and the columns of `saeutils.report.cells`; representation raw, sae or random.
    """
    kinds = ["raw", "sae", "random"]
    wanted = {
        "probing_accuracy": (pd.concat([layers, codes]), "accuracy", {"split": "test"}),
        "reconstruction_mse": (training, "mse", {"split": "test"}),
        "r2_top10_mean": (maps, "r2_in_sample_top_mean", {}),
        "completeness_top10_mean": (maps, "completeness_top_mean", {}),
    }
    parts = [cells(table, metric=metric, protocol="released", representation=kinds,
                   **more).assign(quantity=quantity)
             for quantity, (table, metric, more) in wanted.items()]
    return pd.concat(parts, ignore_index=True)


def numbers(
    published: pd.DataFrame, ours: pd.DataFrame, primary: dict[str, int], obstacle: str = ""
) -> pd.DataFrame:
    """Each published value beside ours, with a tolerance and a verdict.

    Parameters
    ----------
    published, ours
        From `published_values` and `our_values`.
    primary
        Primary layer of each encoder of the run, the first one first. An encoder or layer that the
        run does not have is stood in for by the first encoder: its primary layer, or, for
        accuracy of raw states, the layer at the same relative depth.
    obstacle
        Why nothing is comparable ("synthetic singers"); empty when singers and encoders are those
        of the paper.

    Returns
    -------
    DataFrame
        `COLUMNS` of kind "number". ``tolerance`` is the reading error plus two standard deviations
        over seeds (of like cells where there is one seed), with a floor; the interval over
        singers stands beside it and does not widen it: the paper's singers are the same.
        Verdicts: agrees, differs, "not comparable: <why>".
    """
    look = ours.assign(sparsity=ours["sparsity"].fillna(-1)).set_index(
        ["quantity", "encoder", "layer", "representation", "sparsity"])
    usual = ours[ours["representation"] == "sae"].groupby("quantity")["seed_sd"].median()
    first = next(iter(primary))
    depth = int(ours.loc[ours["encoder"] == first, "layer"].max())
    deepest = published.groupby("encoder")["layer"].max()
    rows = []
    for row in published.to_dict("records"):
        sparsity = -1 if pd.isna(row["sparsity"]) else row["sparsity"]
        own = (_same_encoder(row["encoder"], primary), int(row["layer"]))
        there = (row["quantity"], *own, row["representation"], sparsity) in look.index
        if not there:
            by_depth = row["quantity"] == "probing_accuracy" and row["representation"] == "raw"
            layer = round(row["layer"] / deepest[row["encoder"]] * depth) if by_depth \
                else primary[first]
            own = (first, layer)
        key = (row["quantity"], *own, row["representation"], sparsity)
        found = look.loc[key] if key in look.index else None
        value = np.nan if found is None else float(found["value"])
        spread = np.nan if found is None else found["seed_sd"]
        spread = np.nan_to_num(usual.get(row["quantity"], 0.0) if pd.isna(spread) else spread)
        floor = FLOORS.get(row["quantity"], RELATIVE_FLOOR * row["published"])
        tolerance = row["reading_error"] + max(2 * spread, floor)
        why = obstacle or ("" if there else "not measured in this run")
        why = why or ("which cell was printed is unknown" if "unknown" in row["note"] else "")
        close = abs(value - row["published"]) <= tolerance + 1e-12
        record = row | {
            "kind": "number", "name": row["quantity"], "our_encoder": own[0], "our_layer": own[1],
            "value": value, "seed_sd": spread, "tolerance": tolerance,
            "verdict": f"not comparable: {why}" if why else "agrees" if close else "differs"}
        twin = (row["quantity"], *own, "random", sparsity)
        if row["representation"] == "sae" and twin in look.index:
            record["untrained"] = float(look.loc[twin, "value"])
        if found is not None:
            record |= {name: found.get(name) for name in ("ci_low", "ci_high")}
            record["n"] = found.get("n") if row["quantity"] == "probing_accuracy" else np.nan
            inside = record["ci_low"] <= row["published"] <= record["ci_high"]
            if record["verdict"] == "differs" and inside:
                record["note"] += "; inside our interval over singers"
        rows.append(record)
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def shapes(
    published: pd.DataFrame, ours: pd.DataFrame, primary: dict[str, int], obstacle: str = ""
) -> pd.DataFrame:
    """What the curves claim in shape, asked of the paper's values, of ours, and of the null.

    Parameters
    ----------
    published, ours, primary
        As in `numbers`. Asked of the paper's encoders where the run has some, else of the first
        encoder of the run, over all its layers with dictionaries.
    obstacle
        Why nothing may be compared, not even a shape (a rehearsal).

    Returns
    -------
    DataFrame
        `COLUMNS` of kind "shape": mean difference and the share of layers for which the statement
        holds, published, ours (``value``, ``share``, n layers) and for untrained dictionaries.
        Verdicts: agrees or differs (does it hold for most layers?), "undecided" when our mean lies
        within two standard errors over seeds of the border, or "not comparable: <why>".
    """
    known = [_same_encoder(name, primary) for name in published["encoder"].unique()]
    known = [name for name in known if name in primary]
    asked = ours[ours["encoder"].isin(known or [next(iter(primary))])]
    rows = []
    for shape in SHAPES:
        theirs = _differences(published.rename(columns={"published": "value"}), shape)
        own, null = _differences(asked, shape), _differences(asked, shape, "random")
        record = {"kind": "shape", "name": shape.name, "quantity": shape.quantity,
                  "note": shape.text}
        for column, share, found in (("published", "published_share", theirs),
                                     ("value", "share", own),
                                     ("untrained", "untrained_share", null)):
            held = shape.sign * found["value"] > shape.threshold
            record[column] = found["value"].mean() if len(found) else np.nan
            record[share] = held.mean() if len(found) else np.nan
        record["n"] = len(own) or np.nan
        record["our_encoder"] = " ".join(dict.fromkeys(asked["encoder"]))
        error = float(np.sqrt(own["variance"].sum()) / len(own)) if len(own) else np.nan
        record["tolerance"] = 2 * np.nan_to_num(error)
        border = abs(shape.sign * record["value"] - shape.threshold)
        if obstacle or not len(own):
            verdict = f"not comparable: {obstacle or 'not measured in this run'}"
        elif border <= record["tolerance"]:
            verdict = "undecided"
        else:
            same = (record["published_share"] > 0.5) == (record["share"] > 0.5)
            verdict = "agrees" if same else "differs"
        rows.append(record | {"verdict": verdict})
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def _same_encoder(name: str, primary: dict[str, int]) -> str:
    return AS_RELEASED[name] if AS_RELEASED.get(name) in primary else name


def _differences(table: pd.DataFrame, shape: Shape, kind: str = "sae") -> pd.DataFrame:
    """Difference of a shape's two cells by encoder and layer: value, variance over seeds."""
    part = table[table["quantity"] == shape.quantity]
    if shape.above[0] == "last":
        raw = part[part["representation"] == "raw"].groupby(["encoder", "layer"])["value"].mean()
        if kind == "random" or raw.empty:
            return pd.DataFrame(columns=["value", "variance"], dtype=float)
        by = raw.groupby("encoder")
        return pd.DataFrame({"value": by.last() - by.max(), "variance": 0.0})
    sides = []
    for name, sparsity in (shape.above, shape.below):
        name = kind if name == "sae" else name
        at = part["sparsity"].isna() if np.isnan(sparsity) else part["sparsity"] == sparsity
        own = part[at & (part["representation"] == name)]
        known = own.reindex(columns=["seed_sd", "n_seeds"]).astype(float)
        # one seed says nothing of its spread: that of the layers with several stands in
        usual = 0.0 if known["seed_sd"].isna().all() else known["seed_sd"].median()
        sure = known.fillna({"seed_sd": usual, "n_seeds": 1})
        own = own.assign(variance=sure["seed_sd"] ** 2 / sure["n_seeds"])
        sides.append(own.groupby(["encoder", "layer"])[["value", "variance"]].mean())
    above, below = (side.loc[side.index.isin(sides[1 - i].index)] for i, side in enumerate(sides))
    below = below.reindex(above.index)
    if shape.quantity == "reconstruction_mse":
        scale = np.log(10)
        variance = sum(side["variance"] / (scale * side["value"]) ** 2 for side in (above, below))
        return pd.DataFrame({"value": np.log10(above["value"] / below["value"]),
                             "variance": variance})
    return pd.DataFrame({"value": above["value"] - below["value"],
                         "variance": above["variance"] + below["variance"]})


def summary(card: pd.DataFrame) -> pd.DataFrame:
    """How many numbers of each quantity, and how many shapes, got which verdict."""
    rows = card.assign(verdict=card["verdict"].str.split(":").str[0],
                       what=card["quantity"].map(QUANTITIES).where(card["kind"] == "number",
                                                                    "shapes"))
    return pd.crosstab(rows["what"], rows["verdict"])


def markdown(card: pd.DataFrame, face: str) -> str:
    """The card as a page: what was compared, the shapes, the counts, and every number that differs.

    Parameters
    ----------
    card
        Rows of `shapes` and `numbers`.
    face
        What the run's data are.
    """
    lines = [f"# Report card ({face})", "",
             "Rendered from `report_card.csv`. Published: VocalSet, AST, HuBERT, WavLM and MERT; "
             f"ours: {face}; both as released. A shape is a difference between two points of a "
             "curve, averaged over layers; in brackets, for how many layers the statement holds. "
             "It has no interval over singers: *undecided* means within two standard errors over "
             "seeds of its border.",
             "", "| statement | published | ours | untrained dictionary | verdict |",
             "|---|---|---|---|---|"]
    for row in card[card["kind"] == "shape"].to_dict("records"):
        parts = [_shown(row[a], row[b]) for a, b in (
            ("published", "published_share"), ("value", "share"), ("untrained", "untrained_share"))]
        lines.append(f"| {row['note']} | {' | '.join(parts)} | {row['verdict']} |")
    counts = summary(card[card["kind"] == "number"])
    lines += ["", "| published values | " + " | ".join(counts.columns) + " |",
              "|---|" + "---|" * len(counts.columns)]
    lines += [f"| {name} | " + " | ".join(map(str, row)) + " |"
              for name, row in zip(counts.index, counts.to_numpy().tolist(), strict=True)]
    lines += ["", _intervals(card[card["kind"] == "number"])]
    differs = card[(card["kind"] == "number") & (card["verdict"] == "differs")]
    if len(differs):
        lines += ["", "| differs | encoder | layer | what | sparsity | published | ours | "
                  "tolerance | note |", "|---|---|---|---|---|---|---|---|---|"]
    for row in differs.to_dict("records"):
        sparsity = "" if pd.isna(row["sparsity"]) else f"{row['sparsity']:g} %"
        lines.append(f"| {QUANTITIES[row['quantity']]} | {row['encoder']} | {row['layer']:.0f} | "
                     f"{row['representation']} | {sparsity} | {row['published']:.3g} | "
                     f"{row['value']:.3g} | {row['tolerance']:.2g} | {row['note']} |")
    return "\n".join(lines) + "\n"


def _intervals(numbers: pd.DataFrame) -> str:
    """Which quantities have an interval over singers beside our value, in a sentence."""
    has = numbers["ci_low"].notna().groupby(numbers["quantity"], sort=False).any()
    parts = ["; ".join(QUANTITIES.get(name, name) for name in has.index[has == known])
             for known in (True, False)]
    return (f"Our values with an interval over singers (`report_card.csv`): {parts[0] or 'none'}. "
            f"Without one, with a spread over seeds alone: {parts[1] or 'none'}.")


def _shown(value: float, share: float) -> str:
    return "" if pd.isna(value) else f"{value:+.3f} ({share:.0%})"
