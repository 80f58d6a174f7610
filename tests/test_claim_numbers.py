import numpy as np
import pandas as pd
import pytest

from saeutils import report
from saeutils.claim_numbers import claim_numbers


def tables():
    base = {"encoder": "demo", "layer": 3, "sparsity": 95, "primary": True, "n": 19, "n_seeds": 3,
            "seed_sd": 0.01}
    information = pd.DataFrame([
        base | {"contrast": name, "value": value, "ci_low": value - 0.01, "ci_high": value + 0.01,
                "kept": kept}
        for name, value, kept in (("retention", -0.01, 1.0), ("readability", -0.05, 0.0),
                                  ("learned", 0.02, np.nan), ("retention_untrained", -0.2, 0.0),
                                  ("readability_untrained", -0.07, 0.0))])
    reading = pd.DataFrame([
        base | {"contrast": name, "value": value, "ci_low": value - 0.01, "ci_high": value + 0.01,
                "reference": reference, "kept": np.nan}
        for name, value, reference in (("against_linear", -0.06, "raw"),
                                       ("learned", 0.005, "random"))])
    effects = pd.DataFrame([base | {"metric": "confirmed", "representation": kind, "factor": cause,
                                    "seed": seed, "value": value, "n": n}
                            for kind, value in (("sae", 0.2), ("random", 0.1))
                            for cause, n in (("a", 40), ("b", 31)) for seed in (0, 1)])
    return information, reading, effects


def test_every_number_stands_beside_its_null_and_its_verdict():
    table = claim_numbers(*tables(), "demo", 95).set_index(["claim", "contrast"])
    assert table.loc[("1", "retention"), ["null", "verdict"]].tolist() == [-0.2, "kept"]
    assert table.loc[("1", "readability"), "verdict"] == "not shown to be kept"
    assert table.loc[("1", "learned"), "verdict"] == "better"
    assert table.loc[("2", "against_linear"), "null"] == pytest.approx(-0.065)
    assert table.loc[("2", "against_linear"), "verdict"] == "worse"
    assert table.loc[("2", "learned"), "verdict"] == "undecided"
    assert table.loc[("2b", "confirmed"), ["value", "null", "n"]].tolist() == [0.2, 0.1, 40]
    assert table["n_of"].unique().tolist() == ["singers", "base clips"]
    assert not table.index.get_level_values("contrast").str.endswith("_untrained").any()


def test_the_twin_of_claim_one_stands_in_the_panel_of_the_sae():
    rows = report.claim_panels(tables()[0]).set_index(["panel", "representation"])["value"]
    assert rows["retention", "random"] == -0.2 and rows["retention", "sae"] == -0.01
    assert ("learned", "random") not in rows.index
