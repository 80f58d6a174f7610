"""Each claim's answer in one sentence, from the result tables, whichever way it falls.

Source: the decision rules of `saeutils.protocol`, which were fixed before the first full run. For
a kept claim they know two wordings, by whether SAE and untrained dictionary are told apart. A
third, for an untrained dictionary not shown to keep as much, was added after results were seen.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from saeutils.protocol import K_CENSORED, MARGIN

LINEAR = {"raw": "raw states", "whitened_pca": "whitened principal components",
          "ica": "independent components"}


def claim_sentences(
    information: pd.DataFrame, reading: pd.DataFrame, effects: pd.DataFrame, encoder: str,
    sparsity: float,
) -> pd.DataFrame:
    """Each claim's answer in one sentence, by the rules of `saeutils.protocol`, whichever it is.

    Parameters
    ----------
    information, reading, effects
        results/claim_information, claim_reading and interventions of all encoders; without any
        intervention (an empty table) claim 2b has no row.
    encoder, sparsity
        The primary cell; its layer stands in the tables.

    Returns
    -------
    DataFrame
        Columns name (claim1, claim2, claim2b), layer, sparsity, n (singers; of claim2b base clips),
        verdict, text.
    """
    rows = []
    one = _primary(information, encoder)
    verdict = information_verdict(one)
    text = (f"Information about technique is **{verdict}**: retention {_points(one, 'retention')}, "
            f"readability {_points(one, 'readability')}, SAE minus untrained dictionary "
            f"{_points(one, 'learned')} points of balanced accuracy"
            f"{_seeds(one.loc['readability'])}")
    rows.append(("claim1", one, verdict, text))
    two = _primary(reading, encoder)
    against, own = two.loc["against_linear"], two.loc["learned"]
    if pd.isna(against["value"]):
        verdict = "undecided: too few clips"
        text = ("Whether attributes are read off few codes is **undecided: too few clips to "
                f"decide** ({against['n_train']:.0f} training clips)")
    else:
        rival = LINEAR.get(against["reference"], "raw states")
        verdict = f"{_direction(against)} than from {rival}"
        capped = against.get("k_max", K_CENSORED) < K_CENSORED
        upto = f" up to k = {against['k_max']:.0f}, for few clips" if capped else ""
        text = (f"Attributes are read off few codes **{verdict}** (area under R²(k){upto} "
                f"{_plain(against)}), and {_direction(own)} than from an untrained dictionary "
                f"({_plain(own)})")
    rows.append(("claim2", two, verdict, text))
    if len(effects):
        share = effects[(effects["encoder"] == encoder) & (effects["metric"] == "confirmed")]
        share = share[share["sparsity"].isna() | (share["sparsity"] == sparsity)]
        spread = share[share["representation"] == "sae"].groupby("seed")["value"].mean().std()
        n_bases = int(share["n"].max())
        share = share.groupby("representation")["value"].mean()
        verdict = f"{share['sae']:.0%} against {share['random']:.0%} and {share['raw']:.0%}"
        text = (f"Of the five codes that a map names for a cause, an intervention confirms "
                f"**{share['sae']:.0%}** for the SAE"
                + (f" (seeds differ by {100 * spread:.1f} points, SD)" if spread > 0 else "")
                + f", {share['random']:.0%} for its untrained dictionary and {share['raw']:.0%} "
                "for raw states")
        rows.append(("claim2b", two.assign(n=n_bases), verdict, text))
    units = {"claim2b": "base clips"}
    return pd.DataFrame([
        {"name": name, "layer": int(table["layer"].iloc[0]), "sparsity": sparsity,
         "n": int(table["n"].iloc[0]), "verdict": verdict,
         "text": f"{text} (layer {int(table['layer'].iloc[0])}, {sparsity:g} %, "
                 f"{int(table['n'].iloc[0])} {units.get(name, 'singers')})."}
        for name, table, verdict, text in rows])


def information_verdict(one: pd.DataFrame) -> str:
    """Claim 1 in a few words.

    Parameters
    ----------
    one
        Columns kept, ci_low, n by contrast (index): retention, readability, learned, and for the
        null retention_untrained and readability_untrained.
    """
    kept = one.loc[["retention", "readability"], "kept"]
    learned = one.loc["learned"]
    if kept.isna().any() or learned["n"] < 2:
        return "undecided: too few singers"
    if (kept != 1).any():
        return f"not shown to be kept ({' and '.join(kept.index[kept != 1])})"
    if learned["ci_low"] > 0:
        return "kept"
    null = one["kept"].reindex(["retention_untrained", "readability_untrained"])
    return ("kept, as by an untrained dictionary" if (null == 1).all()
            else "kept, but not shown to be read better than from an untrained dictionary")


def seeds_sentence(table: pd.DataFrame) -> str:
    """Claim 1 by other seeds, in one sentence.

    Parameters
    ----------
    table
        Columns seeds (the last group holds all), contrast, lower_bound, n_seeds, verdict:
        ``benchmarks/claim_seeds.csv``.

    Examples
    --------
    >>> seeds_sentence(pd.DataFrame({
    ...     "seeds": ["seeds 0 to 9", "seeds 10 to 19", "all 20"], "contrast": "readability",
    ...     "lower_bound": [-0.04, -0.02, -0.0304], "n_seeds": [10, 10, 20],
    ...     "verdict": ["not shown", "kept", "not shown"]}))
    'Of 2 times ten seeds, 1 answer "kept"; all 20 together: "not shown" (lower bound of \
readability -3.04 points, margin -3).'
    """
    each = table.drop_duplicates("seeds")
    parts, whole = each.iloc[:-1], each.iloc[-1]
    bound = table[(table["seeds"] == whole["seeds"])
                  & (table["contrast"] == "readability")]["lower_bound"].iloc[0]
    return (f"Of {len(parts)} times ten seeds, {(parts['verdict'] == 'kept').sum()} answer "
            f"\"kept\"; all {whole['n_seeds']} together: \"{whole['verdict']}\" (lower bound of "
            f"readability {100 * bound:+.2f} points, margin {-100 * MARGIN:+.0f}).")


def _primary(table: pd.DataFrame, encoder: str) -> pd.DataFrame:
    part = table[(table["encoder"] == encoder) & table["primary"]]
    if part.empty:
        raise ValueError(f"no primary cell for encoder {encoder!r}: the table has "
                         f"{', '.join(table['encoder'].unique())}")
    return part.set_index("contrast")


def _points(table: pd.DataFrame, name: str) -> str:
    row = table.loc[name]
    return (f"{100 * row['value']:+.1f} [{100 * row['ci_low']:.1f}, "
            f"{100 * row['ci_high']:.1f}]")


def _seeds(row: pd.Series) -> str:
    """How far single seeds of the SAE lie apart in the codes' accuracy; nothing for one seed."""
    sd = row.get("seed_sd", np.nan)
    if not np.isfinite(sd):
        return ""
    return (f"; means over {row['n_seeds']:.0f} seeds, which differ by "
            f"{100 * sd:.1f} (SD)")


def _plain(row: pd.Series) -> str:
    return f"{row['value']:+.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


def _direction(row: pd.Series) -> str:
    if not np.isfinite(row["ci_low"]):
        return "neither better nor worse, for lack of singers,"
    if row["ci_low"] > 0:
        return "better"
    return "worse" if row["ci_high"] < 0 else "neither better nor worse"
