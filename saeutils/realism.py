"""How real the synthetic singers are: contrasts to straight tone, and how easy techniques are.

Everything is computed on attributes of clips and on published numbers of VocalSet's training
singers (data/reference); see data/README.md for where those come from.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

TARGETS = {  # criterion: lowest and highest value that meets it, %
    "contrast_sign_right": (90.0, 100.0),
    "contrast_within_factor_3": (70.0, 100.0),
    "accuracy_attributes": (65.0, 80.0),
    "accuracy_all_factors": (0.0, 90.0),
    "accuracy_best_single_factor": (0.0, 35.0),
}


def pair_differences(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Each technique clip minus the straight clip of the same singer, vowel and exercise.

    Parameters
    ----------
    table
        One row per clip: clip_id, singer, exercise, technique, vowel and `columns`.
    columns
        Names of the values to subtract.

    Returns
    -------
    DataFrame
        technique, singer, exercise, vowel and the differences; clips without a partner are left
        out.
    """
    place = ["singer", "exercise", "vowel"]
    straight = table[table["technique"] == "straight"].set_index(place)[columns]
    if not straight.index.is_unique:
        raise ValueError("two straight clips of one singer, exercise and vowel: pairs are unclear")
    others = table[table["technique"] != "straight"].set_index([*place, "technique"])[columns]
    partner = straight.reindex(others.index.droplevel("technique"))
    differences = pd.DataFrame(others.to_numpy() - partner.to_numpy(), columns=columns,
                               index=others.index)
    return differences.dropna(how="all").reset_index()


def contrasts(differences: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Quantiles of paired differences: technique, attribute, n_pairs, q10, q25, q50, q75, q90."""
    rows = []
    for technique, part in differences.groupby("technique"):
        quantiles = part[columns].quantile([0.1, 0.25, 0.5, 0.75, 0.9]).T
        quantiles.columns = ["q10", "q25", "q50", "q75", "q90"]
        quantiles.insert(0, "n_pairs", part[columns].notna().sum())
        quantiles.insert(0, "technique", technique)
        rows.append(quantiles.rename_axis("attribute").reset_index())
    return pd.concat(rows, ignore_index=True)


def compare_contrasts(
    synthetic: pd.DataFrame, real: pd.DataFrame, quantiles: pd.DataFrame
) -> pd.DataFrame:
    """Synthetic beside real contrasts, and which of them are large enough to count.

    A contrast counts when the real median difference is at least half the interquartile range
    of the attribute within that technique. Its sign is right when both medians have one sign, its
    size when their ratio lies within 1/3 and 3.

    Parameters
    ----------
    synthetic, real
        As from `contrasts`.
    quantiles
        Quantiles of each attribute within each technique (technique, attribute, q25, q75), real.

    Returns
    -------
    DataFrame
        technique, attribute, n_pairs, real_q25, real_q50, real_q75, synthetic_q25,
        synthetic_q50, synthetic_q75, iqr, real and synthetic (the medians in
        units of iqr), counted, sign_right, within_factor_3.
    """
    both = real.merge(synthetic, on=["technique", "attribute"], suffixes=("_real", "_synthetic"))
    both = both.merge(quantiles[["technique", "attribute", "q25", "q75"]],
                      on=["technique", "attribute"], how="left")
    table = both[["technique", "attribute"]].copy()
    table["n_pairs"] = both["n_pairs_synthetic"]
    for side in ("real", "synthetic"):
        for name in ("q25", "q50", "q75"):
            table[f"{side}_{name}"] = both[f"{name}_{side}"]
    table["iqr"] = both["q75"] - both["q25"]
    spread = table["iqr"].where(table["iqr"] > 0)
    table["real"] = table["real_q50"] / spread
    table["synthetic"] = table["synthetic_q50"] / spread
    table["counted"] = (table["real_q50"].abs() >= 0.5 * table["iqr"]) & (table["iqr"] > 0)
    table["sign_right"] = np.sign(table["real_q50"]) == np.sign(table["synthetic_q50"])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = table["synthetic_q50"] / table["real_q50"]
    table["within_factor_3"] = ratio.between(1 / 3, 3)
    return table


def grouped_accuracy(
    values: pd.DataFrame, labels: pd.Series, groups: pd.Series, *, kind: str = "linear",
    n_folds: int = 5, seed: int = 0,
) -> pd.DataFrame:
    """Predicted technique of each clip by a classifier that has not heard its singer.

    Parameters
    ----------
    values
        One row per clip. NaN becomes the column's median of the training singers.
    labels, groups
        Technique and singer of each clip.
    kind
        ``"linear"``: logistic regression on standardised values; ``"forest"``: 200 random trees;
        ``"tree"``: one tree with leaves of at least ten clips, enough for a single value.
    n_folds
        Folds over singers; fewer when there are fewer singers.
    seed
        Seed of the forest.

    Returns
    -------
    DataFrame
        Columns group, label, predicted, right.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    kinds = {
        "linear": LogisticRegression(C=0.1, max_iter=2000),
        "forest": RandomForestClassifier(200, min_samples_leaf=2, random_state=seed, n_jobs=1),
        "tree": DecisionTreeClassifier(min_samples_leaf=10, random_state=seed),
    }
    if kind not in kinds:
        raise ValueError(f"unknown kind {kind!r}: there are {', '.join(kinds)}")
    model = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), kinds[kind])
    folds = GroupKFold(min(n_folds, groups.nunique()))
    predicted = cross_val_predict(model, values.to_numpy(dtype=float), labels.to_numpy(),
                                  groups=groups.to_numpy(), cv=folds)
    return pd.DataFrame({"group": groups.to_numpy(), "label": labels.to_numpy(),
                         "predicted": predicted, "right": predicted == labels.to_numpy()})


def contrast_criteria(compared: pd.DataFrame) -> dict[str, float]:
    """Per cent of the contrasts that count whose sign, and whose size, is right.

    Examples
    --------
    >>> contrast_criteria(pd.DataFrame({"counted": [True, True, False],
    ...     "sign_right": [True, False, False], "within_factor_3": [True, False, False]}))
    {'contrast_sign_right': 50.0, 'contrast_within_factor_3': 50.0}
    """
    counted = compared[compared["counted"]]
    return {"contrast_sign_right": 100 * float(counted["sign_right"].mean()),
            "contrast_within_factor_3": 100 * float(counted["within_factor_3"].mean())}


def technique_criteria(
    clips: pd.DataFrame, attributes: pd.DataFrame, factors: pd.DataFrame, *, seed: int = 0
) -> dict[str, float]:
    """How well unseen singers' techniques are told from attributes, factors and exercise, in %.

    Parameters
    ----------
    clips
        Clip table with technique, singer, exercise.
    attributes, factors
        Numeric columns only, rows as `clips`.
    seed
        Seed of the forest.

    Returns
    -------
    dict
        Accuracy from all attributes (logistic regression), from all factors (the better of
        logistic regression and forest), from the best single factor (one tree), and, to hold
        them against, from the exercise alone and from always saying the most frequent technique.
    """
    who = (clips["technique"], clips["singer"])

    def accuracy(values, kind):
        predicted = grouped_accuracy(values, *who, kind=kind, seed=seed)
        return 100 * float(predicted["right"].mean())

    singles = [accuracy(factors[[name]], "tree") for name in factors]
    exercise = pd.get_dummies(clips["exercise"]).astype(float)
    return {
        "accuracy_attributes": accuracy(attributes, "linear"),
        "accuracy_all_factors": max(accuracy(factors, kind) for kind in ("linear", "forest")),
        "accuracy_best_single_factor": max(singles),
        "accuracy_exercise_alone": accuracy(exercise, "tree"),
        "accuracy_majority": 100 * float(clips["technique"].value_counts(normalize=True).max()),
    }


def realism_table(measured: dict[str, dict[str, float]]) -> pd.DataFrame:
    """Tidy table of criteria: criterion, singers, value, target_low, target_high, met.

    `measured` holds, for each group of singers, values by criterion. Criteria without a target
    (such as the exercise alone) have NaN targets and an empty `met`.
    """
    rows = []
    for singers, values in measured.items():
        for criterion, value in values.items():
            low, high = TARGETS.get(criterion, (np.nan, np.nan))
            met = "" if np.isnan(low) else ("yes" if low <= value <= high else "no")
            rows.append((criterion, singers, value, low, high, met))
    return pd.DataFrame(rows, columns=["criterion", "singers", "value", "target_low",
                                       "target_high", "met"])
