"""Claim 1 by other seeds: how far its answer hangs on which dictionaries were drawn.

    python -m saeutils.run 03 -p encoder demo -p sae.primary_seeds 30 --run-name thirty
    python -m saeutils.run 04 -p encoder demo -p sae.primary_seeds 30 --run-name thirty
    python benchmarks/claim_seeds.py thirty        -> benchmarks/claim_seeds.csv

(after a run of 01 and 02 under that name). The decision averages ten seeds of the primary cell.
Here it is taken for each further ten of that run, and for all of them.
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

import pandas as pd

from saeutils.claim_sentences import information_verdict
from saeutils.claims import contrast, singer_matrix
from saeutils.files import read_json
from saeutils.protocol import MARGIN

HERE = Path(__file__).resolve().parent
PAIRS = {"retention": ("reconstruction", "raw"), "readability": ("sae", "raw"),
         "learned": ("sae", "random"),
         "retention_untrained": ("random_reconstruction", "raw"),
         "readability_untrained": ("random", "raw")}


def decided(scores: pd.DataFrame) -> pd.DataFrame:
    """Every contrast of claim 1 and its answer, from scores of single singers."""
    rows = []
    for name, (new, old) in PAIRS.items():
        sides = [singer_matrix(scores, representation=kind) for kind in (new, old)]
        rows.append({"contrast": name} | contrast(*sides, None if name == "learned" else MARGIN))
    table = pd.DataFrame(rows)
    return table.assign(verdict=information_verdict(table.set_index("contrast")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--encoder", default="demo")
    options = parser.parse_args()
    own = HERE.parent / "data" / options.run / options.encoder
    scores, cell = pd.read_csv(own / "results" / "probing_singers.csv"), read_json(
        own / "primary_cell.json")
    scores = scores[(scores["layer"] == cell["layer"]) & (scores["protocol"] == "corrected")
                    & (scores["metric"] == "balanced_accuracy") & (scores["split"] == "unseen")
                    & ((scores["sparsity"] == cell["sparsity"])
                       | (scores["representation"] == "raw"))]
    seeds = sorted(scores.loc[scores["representation"] == "sae", "seed"].unique())
    groups = {f"seeds {part[0]} to {part[-1]}": part
              for part in (seeds[i:i + 10] for i in range(0, len(seeds), 10))}
    groups[f"all {len(seeds)}"] = seeds
    tables = [decided(scores[scores["seed"].isin(part)]).assign(
        seeds=name, layer=cell["layer"], date=date.today().isoformat())
        for name, part in groups.items()]
    table = pd.concat(tables)[["seeds", "layer", "contrast", "value", "ci_low", "ci_high",
                               "lower_bound", "kept", "n", "n_seeds", "seed_sd", "verdict", "date"]]
    table.to_csv(HERE / "claim_seeds.csv", index=False, lineterminator="\n", float_format="%.6g")
    print(table.drop(columns=["layer", "n", "date"]).to_string(index=False))


if __name__ == "__main__":
    main()
