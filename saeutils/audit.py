"""The audit as one table: how far each of the 32 switches moves a number, and what follows.

`audit_row` is the one form of an effect, `from_cells` makes it of what a stage has measured,
`complete_audit` makes sure that all 32 entries are there, and `forest_rows` condenses them to one
line per entry. What the switches compute stands elsewhere: data in `saeutils.audit_data`, encoders
in `saeutils.audit_encoder`, maps in `saeutils.audit_maps`, probes and training in the notebooks of
their stages.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd

from saeutils.protocol import ENTRIES, PRIMARY_SPARSITY, R2_FLOOR, find_entry
from saeutils.statistics import t_interval

SMALLEST, HERE = "smallest case", "synthetic singers"
# From the strongest down.
VERDICTS = ("changes a conclusion", "moves a number", "shown on the smallest case",
            "undecided", "within the margin", "no effect here", "not measured")
BARE = ("exact", "sample")  # judged by the number itself: no interval is made
SAMPLED = {"A11", "A29"}  # counts over clips, where their cells name no singer
DUST = 1e-9  # differences below it, in units of the values, are rounding
COLUMNS = ("entry", "title", "stage", "quantity", "end", "released", "corrected", "difference",
           "ci_low", "ci_high", "n", "over", "case", "verdict", "note")


def audit_row(
    entry: str, quantity: str, end: str, released, corrected, holds=None, *, over: str = "seeds",
    case: str = HERE, note: str = "", margin: float | None = None,
    interval: tuple[float, float, int] | None = None,
) -> dict:
    """One measured effect.

    Parameters
    ----------
    entry
        Id of the audit entry.
    quantity
        What is moved, in words, with its unit.
    end
        ``released`` or ``corrected``: the end from which the switch was turned alone; ``both``
        when other settings cannot matter.
    released, corrected
        Values at both settings: one number, or one per seed, singer or clip, in the same order.
    holds
        Function value -> bool: does the conclusion drawn from this quantity hold? With it the
        verdict can be "changes a conclusion".
    over
        What the interval is over: ``seeds``, ``singers`` or ``clips``. Without one: ``exact`` for
        a number that nothing random enters, ``sample`` for one count or correlation over the clips
        at hand, which other clips would move and for which no interval is made.
    case
        What the run says of its own clips (``synthetic singers``), ``smallest case`` (a small
        example that has the fault) or ``needs VocalSet`` (not measured here).
    note
        What the entry's description leaves out or gets wrong.
    margin
        Largest difference that counts as none, fixed beforehand; None where there is no such.
    interval
        Of one number that is no mean over singers (a count, a width): lower and upper bound of
        its difference by a bootstrap over singers, and how many there are.

    Returns
    -------
    dict
        Keys `COLUMNS`. ``difference`` is corrected minus released with a 95 % t interval. Verdict:
        one of `VERDICTS`. "no effect here" is said only where the switch moves nothing at all, in
        no seed, singer or clip. A difference whose interval holds 0, or that has no interval (a
        single seed), is "undecided": that no effect was seen is not evidence of none. An interval
        that lies within ``margin`` on both sides is: "within the margin". ``exact`` and ``sample``
        have no interval and are judged by the number itself; `interval` gives them one.

    Raises
    ------
    ValueError
        Unknown entry, or numbers of values that do not pair.

    Examples
    --------
    >>> audit_row("A20", "latents at 99 % of 768", "both", 7, 8, over="exact")["verdict"]
    'moves a number'
    """
    found = find_entry(entry)
    one, two = (np.atleast_1d(np.asarray(v, dtype=float)) for v in (released, corrected))
    if len(one) != len(two) and 1 not in (len(one), len(two)):
        raise ValueError(f"{found.id}: {len(one)} values released, {len(two)} corrected: "
                         "they are paired")
    difference = two - one
    spread = t_interval(difference)
    if interval is not None:
        spread = replace(spread, low=interval[0], high=interval[1], n=interval[2])
        over = "singers"
    row = {
        "entry": found.id, "title": found.title, "stage": found.stage, "quantity": quantity,
        "end": end, "released": float(np.mean(one)), "corrected": float(np.mean(two)),
        "difference": spread.mean, "ci_low": spread.low, "ci_high": spread.high,
        "n": spread.n, "over": over, "case": case,
    }
    size = max(1.0, float(np.max(np.abs(np.concatenate([one, two])), initial=0.0)))
    still = bool(np.all(np.abs(difference) <= DUST * size))
    changes = holds is not None and holds(row["released"]) != holds(row["corrected"])
    bare = over in BARE
    known = bare or spread.n >= 2
    sure = bare or spread.low > 0 or spread.high < 0
    row["verdict"] = (
        "not measured" if not np.isfinite(spread.mean)
        else "no effect here" if still
        else "within the margin" if known and not sure and margin is not None
        and max(-spread.low, spread.high) < margin
        else "undecided" if not known or not sure
        else SHOWN if case == SMALLEST
        else VERDICTS[0] if changes else VERDICTS[1]
    )
    return row | {"note": note}


SHOWN = VERDICTS[2]


def from_cells(cells: pd.DataFrame, layer: int | None = None) -> list[dict]:
    """Rows of the audit from the cells of stage 01 or 02.

    Parameters
    ----------
    cells
        Columns entry, end, quantity, released, corrected, case, note; where there are columns
        unit (a singer) and layer, one row per unit and layer.
    layer
        The layer to take.

    Returns
    -------
    list of dict
        One `audit_row` per entry, end and quantity, over singers (the mean of each counts once)
        or, without units, exact (of `SAMPLED` entries: sample, with the interval of their
        columns low, high and singers, where they have one).
    """
    if "layer" in cells and layer is not None:
        cells = cells[cells["layer"] == layer]
    rows = []
    for (entry, end, quantity, case), part in cells.groupby(
            ["entry", "end", "quantity", "case"], sort=False):
        by_unit = "unit" in part
        pairs = part.groupby("unit")[["released", "corrected"]].mean() if by_unit else part
        own = part.iloc[0]
        interval = (own["low"], own["high"], int(own["singers"])) if own.get("singers", 0) > 0 \
            else None
        rows.append(audit_row(entry, quantity, end, pairs["released"], pairs["corrected"],
                              HOLDS.get(quantity), over="singers" if by_unit
                              else "sample" if entry in SAMPLED else "exact", case=case,
                              note=part["note"].fillna("").iloc[0], interval=interval))
    return rows


BEFOREHAND = "Expected beforehand"  # notes that begin so are told to the reader
# What was expected of an entry before it was measured: the quantity, and the words.
EXPECTED = {
    "A13": ("accuracy on clips held out", f"{BEFOREHAND}: a random fifth looks better than whole "
            "singers, whom the probe does not know. Measured: from the first to the second the "
            "accuracy goes from"),
    "A19": ("unexplained variance", f"{BEFOREHAND}: the correction lowers the error. Measured: "
            "turned alone from the released end, the unexplained variance of unseen singers goes "
            "from"),
    "A21": ("pitch attributes", f"{BEFOREHAND}: the correction shrinks the lead of the pitch "
            "group. Measured: four tilt attributes leave its expected share as well, and the "
            "excess goes from"),
    "A25": ("accuracy of raw states", f"{BEFOREHAND}: scaled or whitened columns and a tuned "
            "penalty raise the accuracy of raw states by about seven points, as in a first trial. "
            "Measured: turned alone from the released end it goes from"),
}
# Conclusions drawn from quantities that other stages measure.
HOLDS = {"R² of a clip's length, read off its state": lambda r2: r2 >= R2_FLOOR}


def against_expectation(rows: list[dict]) -> dict[str, str]:
    """What the entries of `EXPECTED` did when turned from the released end, as notes by entry.

    Examples
    --------
    >>> row = audit_row("A21", "pitch attributes", "released", 2, 3, over="exact")
    >>> against_expectation([row])["A21"][-24:]
    'excess goes from 2 to 3.'
    """
    notes = {}
    for entry, (quantity, text) in EXPECTED.items():
        for row in rows:
            if row["entry"] == entry and row["end"] == "released" and quantity in row["quantity"]:
                notes[entry] = f"{text} {row['released']:.3g} to {row['corrected']:.3g}."
    return notes


def expectations(audit: pd.DataFrame) -> str:
    """The notes on what was expected beforehand as a Markdown list; empty where there are none."""
    notes = audit[audit["note"].fillna("").str.startswith(BEFOREHAND)]
    meant = [EXPECTED.get(row.entry, ("",))[0] in row.quantity for row in notes.itertuples()]
    notes = notes[meant].drop_duplicates("entry")  # the row of the quantity that was expected
    return "\n".join(f"- **{row.entry}** ({row.title}). {row.note}" for row in notes.itertuples())


def above_zero(value: float) -> bool:
    """The published reading of a gap: one side is better than what it is compared with."""
    return bool(value > 0)


def peek(scores_LS: np.ndarray, few: int, draws: int = 20_000) -> tuple[float, float]:
    """What choosing the best layer on `few` singers reports (A15), and what it is worth.

    Parameters
    ----------
    scores_LS
        Score of each layer for each singer.
    few
        Singers that choose; all choices of them are taken, or `draws` at random if there are more.

    Returns
    -------
    told, true
        Mean over the choices: score of the chosen layer on the singers that chose it, and on all
        others.

    Raises
    ------
    ValueError
        Nobody chooses, or nobody is left.

    Examples
    --------
    >>> told, true = peek(np.array([[1.0, 0.0], [0.0, 1.0]]), 1)
    >>> told, true
    (1.0, 0.0)
    """
    n = scores_LS.shape[1]
    if not 0 < few < n:
        raise ValueError(f"{few} of {n} singers choose: at least one, and at least one is left")
    if comb(n, few) <= draws:
        chosen = np.array(list(combinations(range(n), few)))
    else:
        rng = np.random.default_rng(0)
        chosen = np.stack([rng.permutation(n)[:few] for _ in range(draws)])
    mask = np.zeros((len(chosen), n))
    np.put_along_axis(mask, chosen, 1.0, axis=1)
    told = mask @ scores_LS.T / few
    fresh = (1 - mask) @ scores_LS.T / (n - few)
    best = told.argmax(axis=1)
    return float(told.max(axis=1).mean()), float(fresh[np.arange(len(best)), best].mean())


def peek_by_singer(scores_LS: np.ndarray, few: int) -> tuple[np.ndarray, np.ndarray]:
    """Both numbers of `peek` as one value per singer, shapes [S]: jackknife pseudo-values.

    Their means are those of `peek`, and a t interval over them speaks of other singers.
    """
    n = scores_LS.shape[1]
    without = np.array([peek(np.delete(scores_LS, i, axis=1), few) for i in range(n)])
    told, true = (np.array(peek(scores_LS, few)) + (n - 1) * (without.mean(axis=0) - without)).T
    return told, true


def complete_audit(rows: list[dict], notes: dict[str, str] | None = None) -> pd.DataFrame:
    """All 32 entries in order; those without a row are marked as left to VocalSet.

    Parameters
    ----------
    rows
        `audit_row`s of any stage, with what else they carry (such as layer and sparsity) kept.
    notes
        Further remarks by entry, put before those of the rows.
    """
    further = list(dict.fromkeys(name for row in rows for name in row if name not in COLUMNS))
    table = pd.DataFrame(rows, columns=[*COLUMNS, *further])
    missing = [
        audit_row(entry.id, entry.sentence, "both", np.nan, np.nan, case="needs VocalSet")
        for entry in ENTRIES if entry.id not in set(table["entry"])
    ]
    whole = pd.concat([table, pd.DataFrame(missing, columns=list(COLUMNS))] if missing and rows
                      else [table if rows else pd.DataFrame(missing)], ignore_index=True)
    whole["note"] = [" ".join(part for part in ((notes or {}).get(entry, ""), note or "") if part)
                     for entry, note in zip(whole["entry"], whole["note"].fillna(""), strict=True)]
    return whole.sort_values("entry", ignore_index=True, kind="stable")


def forest_rows(audit: pd.DataFrame) -> pd.DataFrame:
    """One quantity per entry, with its effect at every end on a common scale.

    Parameters
    ----------
    audit
        Columns of `audit_row`; `primary_rows` are taken. Of several quantities of an entry the
        one with the strongest verdict is taken, then the first.

    Returns
    -------
    DataFrame
        The rows kept, with label, verdict (the entry's strongest), value, ci_low and ci_high:
        the difference over the larger of the two settings' absolute values, so from -2 to 2. Beyond
        -1 or 1 the sign turns. Where one setting is zero, the value is -1 or 1 whatever the size
        of the effect: ``by_construction`` marks these rows. Ordered by verdict, then by size of
        the effect, those by construction last.
    """
    table = primary_rows(audit[audit["verdict"] != "not measured"]).copy()
    table["rank"] = table["verdict"].map({name: i for i, name in enumerate(VERDICTS)})
    keys = table.groupby(["entry", "quantity"], sort=False)["rank"].min().reset_index()
    best = keys.sort_values("rank", kind="stable").drop_duplicates("entry")
    table = table.drop(columns="rank").merge(best, on=["entry", "quantity"])
    scale = table[["released", "corrected"]].abs().max(axis=1).replace(0, np.nan)
    for name, source in (("value", "difference"), ("ci_low", "ci_low"), ("ci_high", "ci_high")):
        table[name] = (table[source] / scale).fillna(0.0 if name == "value" else np.nan)
    table["verdict"] = table["rank"].map(dict(enumerate(VERDICTS)))
    table["label"] = table["entry"] + "  " + table["title"]
    table["size"] = table.groupby("entry")["value"].transform(lambda v: v.abs().max())
    table["by_construction"] = (table["released"] == 0) != (table["corrected"] == 0)
    table["empty"] = table.groupby("entry")["by_construction"].transform("all")
    return table.sort_values(["rank", "empty", "size", "entry", "end"], ignore_index=True,
                             ascending=[True, True, False, True, False], kind="stable")


def audit_sentence(audit: pd.DataFrame) -> str:
    """Which entries have which verdict, in Markdown: strongest of its rows for each entry."""
    rank = {name: i for i, name in enumerate(VERDICTS)}
    audit = primary_rows(audit)
    best = audit.assign(rank=audit["verdict"].map(rank)).groupby("entry")["rank"].min()
    parts = [f"**{name}**: {', '.join(best.index[best == rank[name]])}"
             for name in VERDICTS if (best == rank[name]).any()]
    return "; ".join(parts) + "."


def primary_rows(audit: pd.DataFrame) -> pd.DataFrame:
    """The rows that count: of the primary sparsity, or the only ones of their entry and quantity.

    Rows of a quantity at other sparsities stand beside those of the primary one and have no vote.

    Examples
    --------
    >>> row = {"entry": "A02", "quantity": "gap"}
    >>> table = pd.DataFrame([row | {"sparsity": s} for s in (75, 95)] + [
    ...     {"entry": "A20", "quantity": "codes at 99 %", "sparsity": 99}])
    >>> primary_rows(table)["sparsity"].tolist()
    [95, 99]
    """
    if "sparsity" not in audit:
        return audit
    main = audit["sparsity"] == PRIMARY_SPARSITY
    beside = main.groupby([audit["entry"], audit["quantity"]]).transform("any")
    return audit[main | ~beside]


def seed_values(table: pd.DataFrame, **where: object) -> np.ndarray:
    """Values of one cell in the order of its seeds: pooled rows of a probe or training table.

    Parameters
    ----------
    where
        Column = value; rows of single techniques and singers are left out where those columns
        exist.

    Raises
    ------
    ValueError
        No row, or several rows per seed.
    """
    for column in ("technique", "singer"):
        if column in table and column not in where:
            table = table[table[column].fillna("") == ""]
    for column, value in where.items():
        table = table[table[column] == value]
    if not len(table) or table["seed"].duplicated().any():
        raise ValueError(f"{len(table)} rows with {where}: name one cell, with one row per seed")
    return table.sort_values("seed")["value"].to_numpy(dtype=float)


def singer_values(table: pd.DataFrame, **where: object) -> pd.Series:
    """Score of each singer in one cell, seeds averaged, indexed by singer.

    Raises
    ------
    ValueError
        No row, or several cells.
    """
    table = table[table["singer"].fillna("") != ""]
    for column, value in where.items():
        table = table[table[column] == value]
    if not len(table) or table[["singer", "seed"]].duplicated().any():
        raise ValueError(f"{len(table)} rows with {where}: name one cell, one row per singer "
                         "and seed")
    return table.groupby("singer")["value"].mean()
