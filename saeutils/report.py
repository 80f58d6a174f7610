"""From result tables to the tables behind the figures, and the headline values of a run.

Pure: tables in, tables out. Every mean over seeds is taken first; the spread over seeds stands
beside the interval over singers and is never pooled with it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from saeutils.statistics import t_interval

CELL = ["encoder", "layer", "representation", "sparsity"]
PUBLISHED_NAMES = {
    "accuracy": "probing_accuracy", "mse": "reconstruction_mse",
    "r2_in_sample": "r2_top10_mean", "completeness": "completeness_top10_mean",
}


def cells(table: pd.DataFrame, *, metric: str, **conditions: object) -> pd.DataFrame:
    """One row per encoder, layer, representation and sparsity: the mean over seeds.

    Bounds are means over seeds too, which is wider than the interval of the mean; where there are
    scores by singer, `with_intervals` puts the right ones in their place.

    Parameters
    ----------
    table
        A tidy result table.
    metric
        Value of the column ``metric``.
    conditions
        Column and value, or a list of values, that the rows must have. Where the table has a
        column ``technique`` or ``group``, only rows over all of them count unless it is named.

    Returns
    -------
    DataFrame
        The columns of `CELL`, then value, ci_low, ci_high, n (singers) where known, seed_sd and
        n_seeds.

    Raises
    ------
    ValueError
        No row fulfils the conditions; names them and the metrics there are.
    """
    part = table[table["metric"] == metric]
    for column in ("technique", "group"):
        if column in table and column not in conditions:
            part = part[part[column].isna() | (part[column] == "")]
    for column, wanted in conditions.items():
        values = wanted if isinstance(wanted, (list, tuple, set)) else [wanted]
        part = part[part[column].isin(values)]
    if part.empty:
        raise ValueError(f"no rows with metric {metric!r} and {conditions}: the metrics are "
                         f"{', '.join(sorted(table['metric'].unique()))}")
    means = {name: (name, "mean") for name in ("value", "ci_low", "ci_high", "n") if name in part}
    grouped = part.groupby(CELL, dropna=False, sort=False)
    rows = grouped.agg(**means, seed_sd=("value", "std"), n_seeds=("value", "size")).reset_index()
    raw = rows["representation"] == "raw"
    rows.loc[raw, "sparsity"] = np.nan
    return rows


def seeds_averaged(table: pd.DataFrame, metric: str, split: str) -> pd.DataFrame:
    """A score of every cell: mean over seeds, and the t interval over singers of that mean.

    Seeds are averaged within singer first: a mean of several seeds varies less between singers
    than one seed does, and its interval is not the mean of theirs.

    Parameters
    ----------
    table
        As `saeutils.probe_cells.tuned_cell` writes it: rows with a singer hold that singer's own
        score, rows without one the score of all. Metrics without rows by singer keep the bounds
        they have.

    Returns
    -------
    DataFrame
        encoder, layer, representation, sparsity, value, ci_low, ci_high, n.
    """
    part = table[(table["metric"] == metric) & (table["split"] == split)
                 & (table["technique"] == "")]
    alone = part["singer"] != ""
    rows = part[~alone].groupby(CELL, dropna=False, as_index=False)[
        ["value", "ci_low", "ci_high", "n"]].mean()
    return with_intervals(rows, part[alone])


def with_intervals(rows: pd.DataFrame, singles: pd.DataFrame) -> pd.DataFrame:
    """The rows with the bounds that scores by singer give them (seeds averaged within singer).

    Parameters
    ----------
    rows
        One row per encoder, layer, representation and sparsity.
    singles
        The same cells by singer and seed, one metric, split and protocol: columns of the cell,
        singer, seed, value. Cells that it does not hold keep their bounds.
    """
    if not len(singles):
        return rows
    by_singer = singles.groupby([*CELL, "singer"], dropna=False, as_index=False)["value"].mean()
    bounds = []
    for cell, part in by_singer.groupby(CELL, dropna=False):
        interval = t_interval(part["value"].to_numpy())
        bounds.append(dict(zip(CELL, cell, strict=True))
                      | {"low": interval.low, "high": interval.high})
    rows = rows.merge(pd.DataFrame(bounds), on=CELL, how="left")
    for name, new in (("ci_low", "low"), ("ci_high", "high")):
        rows[name] = rows[new].fillna(rows[name])
    return rows.drop(columns=["low", "high"])


def holdings(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Which cells each result table holds.

    Parameters
    ----------
    tables
        Result tables by name, with the columns encoder and representation, and where they have
        them layer, protocol, sparsity, seed.

    Returns
    -------
    DataFrame
        Columns table, encoder, representation, protocol, layers, sparsities, seeds (as texts such
        as "0-6" or "75, 95"), rows.

    Examples
    --------
    >>> table = pd.DataFrame({"encoder": "demo", "representation": "sae", "layer": [1, 2, 3],
    ...                       "sparsity": [75.0, 95.0, 95.0], "seed": 0, "protocol": "released"})
    >>> holdings({"probing": table})[["layers", "sparsities", "seeds", "rows"]].values.tolist()
    [['1-3', '75, 95', '0', 3]]
    """
    rows = []
    for name, table in tables.items():
        if not {"encoder", "representation"} <= set(table):
            table = table.assign(representation="sae")  # contrasts: SAE against something
        ids = ["encoder", *(["protocol"] if "protocol" in table else []), "representation"]
        for key, part in table.groupby(ids, sort=False):
            known = dict(zip(ids, key, strict=True))
            texts = {plural: _numbers_of(part[column]) if column in part else ""
                     for plural, column in (("layers", "layer"), ("sparsities", "sparsity"),
                                            ("seeds", "seed"))}
            rows.append({"table": name, "encoder": known["encoder"],
                         "representation": known["representation"],
                         "protocol": known.get("protocol", "")} | texts | {"rows": len(part)})
    return pd.DataFrame(rows)


def _numbers_of(values: pd.Series) -> str:
    numbers = sorted(set(values.dropna()) - {-1})
    if len(numbers) > 2 and numbers == list(range(int(numbers[0]), int(numbers[-1]) + 1)):
        return f"{numbers[0]:g}-{numbers[-1]:g}"
    return ", ".join(f"{number:g}" for number in numbers)


def published(digitised: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Published values of one metric in the columns of our tables.

    Parameters
    ----------
    digitised
        data/reference/paper_figures_digitised.csv.
    metric
        One of `PUBLISHED_NAMES`.

    Returns
    -------
    DataFrame
        Columns encoder, layer, representation (raw or sae), sparsity, value, reading_error.

    Raises
    ------
    ValueError
        The paper has no such figure.
    """
    if metric not in PUBLISHED_NAMES:
        raise ValueError(f"nothing was published for {metric!r}: there are "
                         f"{', '.join(PUBLISHED_NAMES)}")
    part = digitised[digitised["quantity"] == PUBLISHED_NAMES[metric]]
    part = part.rename(columns={"sparsity_percent": "sparsity"})
    columns = ["encoder", "layer", "representation", "sparsity", "value", "reading_error"]
    return part[columns].reset_index(drop=True)


def published_range(digitised: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean and range over the published encoders and layers, by sparsity.

    Returns
    -------
    DataFrame
        Columns representation ("published"), sparsity, value, ci_low (smallest), ci_high
        (largest), n (layers).
    """
    part = published(digitised, metric)
    part = part[part["representation"] == "sae"]
    rows = part.groupby("sparsity", as_index=False)["value"].agg(
        value="mean", ci_low="min", ci_high="max", n="size")
    rows.insert(0, "representation", "published")
    return rows


def null_series(summary: pd.DataFrame, digitised: pd.DataFrame, layers: dict[str, list[int]]
                ) -> pd.DataFrame:
    """Completeness as published, of SAEs, untrained dictionaries and noise: the null figure's rows.

    Parameters
    ----------
    summary
        results/disentanglement.csv.
    digitised
        data/reference/paper_figures_digitised.csv.
    layers
        Layers of each encoder that are shown.

    Returns
    -------
    DataFrame
        Columns representation, series, sparsity, value; rows without sparsity are raw levels.
    """
    ours = cells(summary, metric="completeness_top_mean", protocol="released",
                 representation=["raw", "sae", "random", "noise"])
    shown = np.array([layer in (*layers.get(encoder, ()), -1)
                      for encoder, layer in zip(ours["encoder"], ours["layer"], strict=True)],
                     dtype=bool)
    ours = ours[shown & ours["encoder"].isin(layers)]
    theirs = published(digitised, "completeness")
    theirs = theirs[theirs["representation"] == "sae"].assign(representation="published")
    rows = pd.concat([theirs, ours], ignore_index=True)
    parts = rows["representation"], rows["encoder"], rows["layer"].astype(str)
    rows["series"] = [" ".join(names) for names in zip(*parts, strict=True)]
    dense_noise = (rows["representation"] == "noise") & rows["sparsity"].isna()
    return rows.loc[~dense_noise, ["representation", "series", "sparsity", "value"]]


def panels(rows: pd.DataFrame, labels: dict[tuple[str, int], str]) -> pd.DataFrame:
    """Keep the encoders and layers named in `labels` and give each its panel's name, in order."""
    parts = [rows[(rows["encoder"] == encoder) & (rows["layer"] == layer)].assign(panel=label)
             for (encoder, layer), label in labels.items()]
    return pd.concat(parts, ignore_index=True)


def headline(entries: list[dict]) -> pd.DataFrame:
    """The table of headline values, checked for names used twice and values that are missing.

    Parameters
    ----------
    entries
        Dicts with name, value, tolerance, and optionally text (how a document shows the value).

    Raises
    ------
    ValueError
        A name occurs twice, or a value or tolerance is not finite.

    Examples
    --------
    >>> headline([{"name": "n_clips", "value": 986, "tolerance": 0, "text": "986"}]).text[0]
    '986'
    """
    table = pd.DataFrame(entries, columns=["name", "value", "tolerance", "text"])
    twice = table.loc[table["name"].duplicated(), "name"]
    if len(twice):
        raise ValueError(f"headline names occur twice: {', '.join(twice)}")
    bad = table[~np.isfinite(table[["value", "tolerance"]].astype(float)).all(axis=1)]
    if len(bad):
        raise ValueError(f"headline values are not finite: {', '.join(bad['name'])}")
    plain = table["value"].map(lambda value: f"{value:.2f}")
    table["text"] = table["text"].fillna(plain)
    return table


def headline_rows(name: str, rows: pd.DataFrame, *, form: str = "{:.2f}",
                  floor: float = 0.005) -> list[dict]:
    """A headline entry per row of `cells`, with the tolerance that seeds give it.

    Results on one machine are equal bit for bit. On another one rounding moves an SAE as another
    seed would, so the tolerance is four standard errors of the difference of two runs of as many
    seeds. An SD from three seeds is itself uncertain: it is pooled over the rows of one
    representation.

    Parameters
    ----------
    name
        Pattern such as ``"sae{sparsity:g}_completeness"``, filled from the row.
    rows
        Rows of `cells`.
    form
        How a document shows the value.
    floor
        Smallest tolerance, for values without several seeds.
    """
    rows = rows.assign(tolerance=rows.groupby("representation")["seed_sd"].transform(
        lambda sd: np.sqrt((sd**2).mean())))
    entries = []
    for row in rows.to_dict("records"):
        tolerance = rerun_tolerance(row["tolerance"], row["n_seeds"], floor)
        entries.append({"name": name.format(**row), "value": row["value"],
                        "tolerance": tolerance, "text": form.format(row["value"])})
    return entries


def rerun_tolerance(seed_sd: float, n_seeds: float, floor: float) -> float:
    """Four standard errors of the difference of two means over seeds, ``floor`` at least.

    Examples
    --------
    >>> rerun_tolerance(0.02, 2, 0.005), rerun_tolerance(float("nan"), 1, 0.005)
    (0.08, 0.005)
    """
    return max(floor, 4 * seed_sd * (2 / n_seeds) ** 0.5) if seed_sd == seed_sd else floor


def claim_panels(contrasts: pd.DataFrame) -> pd.DataFrame:
    """Contrasts of claim 1 as rows of a figure: one panel each, the untrained dictionary in that of
    the SAE (column representation).

    Parameters
    ----------
    contrasts
        results/claim_information; ``retention_untrained`` stands in the panel ``retention``.
    """
    twin = contrasts["contrast"].str.endswith("_untrained")
    return contrasts.assign(panel=contrasts["contrast"].str.removesuffix("_untrained"),
                            representation=np.where(twin, "random", "sae"))
