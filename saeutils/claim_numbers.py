"""The claims in numbers: one row per contrast, with everything that a verdict rests on.

The sentences are made in `saeutils.claim_sentences`; this table is what they are made of. Pure:
tables in, a table out.
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def claim_numbers(
    information: pd.DataFrame, reading: pd.DataFrame, effects: pd.DataFrame, encoder: str,
    sparsity: float,
) -> pd.DataFrame:
    """Estimate, interval, singers, seeds, null and verdict of each contrast of the primary cell.

    Parameters
    ----------
    information, reading, effects
        results/claim_information (or claim_folds), claim_reading and interventions of all
        encoders; effects may be empty.
    encoder, sparsity
        The primary cell.

    Returns
    -------
    DataFrame
        Columns encoder, layer, sparsity, claim, contrast, value, ci_low, ci_high, n, n_of (what n
        counts: singers, of claim 2b base clips), n_seeds, seed_sd (of the contrast), null (the same
        number for the untrained dictionary; NaN where the contrast is the difference to it),
        verdict. Claim 1 in shares of balanced accuracy, claim 2 in R2, claim 2b as a share of
        codes, averaged over causes.
    """
    rows = []
    for claim, table in (("1", information), ("2", reading)):
        own = table[(table["encoder"] == encoder) & table["primary"]].set_index("contrast")
        twin = own[own.index.str.endswith("_untrained")]["value"]
        twin.index = twin.index.str.removesuffix("_untrained")
        if claim == "2":  # the twin's own distance to the linear basis
            twin = pd.Series({"against_linear": own.loc["against_linear", "value"]
                              - own.loc["learned", "value"]})
        for name, row in own[~own.index.str.endswith("_untrained")].iterrows():
            rows.append({"claim": claim, "contrast": name, "null": twin.get(name, np.nan),
                         "n_of": "singers", "verdict": _verdict(row)} | _numbers(row))
    if len(effects):
        part = effects[(effects["encoder"] == encoder) & (effects["metric"] == "confirmed")]
        part = part[part["sparsity"].isna() | (part["sparsity"] == sparsity)]
        share = part.groupby("representation")["value"].mean()
        own = part[part["representation"] == "sae"]
        by_seed = own.groupby("seed")["value"].mean()
        rows.append({"claim": "2b", "contrast": "confirmed", "layer": own["layer"].iloc[0],
                     "sparsity": sparsity, "value": share["sae"], "null": share["random"],
                     "n": part["n"].max(), "n_of": "base clips", "n_seeds": len(by_seed),
                     "seed_sd": by_seed.std(), "verdict": "described"})
    columns = ["layer", "sparsity", "claim", "contrast", "value", "ci_low", "ci_high", "n",
               "n_of", "n_seeds", "seed_sd", "null", "verdict"]
    return pd.DataFrame(rows).reindex(columns=columns).assign(encoder=encoder)[
        ["encoder", *columns]]


def _numbers(row: pd.Series) -> dict:
    names = ("layer", "sparsity", "value", "ci_low", "ci_high", "n", "n_seeds", "seed_sd")
    return {name: row.get(name, np.nan) for name in names}


def _verdict(row: pd.Series) -> str:
    if pd.isna(row["value"]):
        return "undecided: too few clips"
    if pd.isna(row["ci_low"]):
        return "undecided: too few singers"
    if row.get("kept") == row.get("kept"):
        return "kept" if row["kept"] == 1 else "not shown to be kept"
    return "better" if row["ci_low"] > 0 else "worse" if row["ci_high"] < 0 else "undecided"
