"""One probe of one representation, scored on every split: the work of stage 04, cell by cell.

Splits of the clip table (all by singer): ``dictionary`` (every clip of the training singers: SAEs
are trained on them), ``train`` and ``validation`` (VocalSet's design), ``test`` (the singers held
out in that design), ``unseen`` (test and extra singers: all that no dictionary and no probe has
met) and ``crossed`` (the crossed clips of the test singers: every technique in every
exercise). Shape letters: N clips, F columns, C classes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from saeutils.lasso import standardise
from saeutils.machine import side_by_side
from saeutils.probing import Probe, balanced_accuracy, fit_logistic, released_probe, tuned_probe
from saeutils.scores import COLUMNS, auc, auc_without, jackknife_half, score_rows
from saeutils.statistics import grouped_folds

SCORED = ("validation", "test", "unseen", "crossed")
TIE = 0.01  # of balanced accuracy: layers this close to the best one count as equally good


def split_rows(clips: pd.DataFrame) -> dict[str, np.ndarray]:
    """Row numbers of each split; splits without clips are left out.

    Raises
    ------
    ValueError
        A column is missing, a singer is in two splits, or there is no training or no test clip.

    Examples
    --------
    >>> clips = pd.DataFrame({"set": ["vocalset", "extra"], "split": ["train", "test"],
    ...                       "singer": ["f1", "x1"]})
    >>> {name: rows.tolist() for name, rows in split_rows(clips).items()}
    {'dictionary': [0], 'train': [0], 'unseen': [1]}
    """
    missing = {"set", "split", "singer"} - set(clips)
    if missing:
        raise ValueError(f"the clip table lacks {', '.join(sorted(missing))}")
    # the release's own split shares singers between training and validation (A13); never with test
    homes = (clips["split"] == "test").groupby(clips["singer"]).nunique()
    if (homes > 1).any():
        raise ValueError(f"singer {homes.idxmax()!r} is in more than one split, one of them test")
    shaped, split = ~clips["set"].isin(["extra", "crossed"]), clips["split"]
    masks = {"dictionary": split == "train"}
    masks |= {name: shaped & (split == name) for name in ("train", "validation", "test")}
    masks["unseen"] = (split == "test") & (clips["set"] != "crossed")
    masks["crossed"] = (split == "test") & (clips["set"] == "crossed")
    if not masks["train"].any():
        raise ValueError("no clip of a training singer: check the columns set and split")
    if not masks["unseen"].any():
        raise ValueError("no clip of a test singer: every score needs singers that nothing was "
                         "trained on; give some singers the split 'test'")
    return {name: np.flatnonzero(mask) for name, mask in masks.items() if mask.any()}


def released_cell(
    codes_NF: np.ndarray, cell, clips: pd.DataFrame, seeds: dict[int, int], **settings
) -> pd.DataFrame:
    """The released probe of one cell, scored on every split.

    Parameters
    ----------
    codes_NF
        States or codes of all clips, rows as in ``clips``.
    cell
        A `saeutils.representations.Representation`.
    seeds
        Random seed of the probe by the cell's own seed number.
    settings
        ``epochs``, ``batch_size``, ``learning_rate`` of `saeutils.probing.released_probe`.

    Returns
    -------
    DataFrame
        Columns split, technique, singer, metric, value, ci_low, ci_high, n. Rows with a singer
        hold that singer's own score.
    """
    rows, labels = split_rows(clips), clips["technique"].to_numpy()
    valid = rows.get("validation", rows["train"])
    probe = released_probe(
        codes_NF[rows["train"]], labels[rows["train"]], codes_NF[valid], labels[valid],
        np.unique(labels), seeds[cell.seed], **settings,
    )
    return _score_splits(probe, codes_NF, clips, rows)


def training_folds(
    clips: pd.DataFrame, n_folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inner folds over the training clips: whole singers, sexes balanced.

    Row numbers count within the training clips, in the order of the clip table.
    """
    train = clips.iloc[split_rows(clips)["train"]]
    return grouped_folds(train["singer"].to_numpy(), train["sex"].to_numpy(), n_folds, seed)


def inner_draws(
    clips: pd.DataFrame, n_folds: int, seeds: dict[int, int]
) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """Inner folds (`training_folds`) drawn once for each seed number.

    Two penalties or scales are often nearly as good, and then the draw of the folds, or the last
    digit of a state, says which is chosen. A draw per seed keeps the mean from hanging on one.

    Parameters
    ----------
    seeds
        Random seed of the draw by seed number.
    """
    return {number: training_folds(clips, n_folds, seed) for number, seed in seeds.items()}


def choose_layer(scores: pd.Series, tie: float = TIE) -> int:
    """The middle one of the layers whose score is within ``tie`` of the best; of two, the upper.

    The plain maximum hangs on a last digit where neighbouring layers are equally good.

    Parameters
    ----------
    scores
        A score per layer, indexed by layer.

    Raises
    ------
    ValueError
        No layer has a score.

    Examples
    --------
    >>> choose_layer(pd.Series({3: 0.618, 4: 0.621, 5: 0.619, 6: 0.580}))
    4
    >>> choose_layer(pd.Series({1: 0.50, 2: 0.70}))
    2
    """
    known = scores.dropna().sort_index()
    if known.empty:
        raise ValueError("no layer has a score: check the validation split")
    good = known.index[known >= known.max() - tie]
    return int(good[len(good) // 2])


def tuned_cell(
    codes_NF: np.ndarray, cell, clips: pd.DataFrame, folds: list | dict[int, list],
    penalties: tuple[float, ...], whiten: bool | None = None, scales: tuple[str, ...] = (),
) -> pd.DataFrame:
    """The corrected probe of one cell, scored on every split (same columns as `released_cell`).

    Penalty and scale are chosen on ``folds`` (`training_folds`, or those of the cell's seed out
    of `inner_draws`), the scale among ``scales``, by default those of
    `saeutils.probing.tuned_probe`; raw states may also be whitened, unless ``whiten`` says
    otherwise. Rows with metric ``penalty``, ``whitened``, ``one_scale`` and
    ``inner_balanced_accuracy`` say what was chosen.
    """
    rows = split_rows(clips)
    whiten = cell.representation == "raw" if whiten is None else whiten
    probe = _fit_tuned(codes_NF, clips, rows, own_folds(folds, cell), penalties, whiten, scales)
    chosen = [
        ("train", "", "", metric, float(value), np.nan, np.nan, len(rows["train"]))
        for metric, value in (
            ("penalty", probe.details["penalty"]),
            ("whitened", probe.details["basis"] == "whitened"),
            ("one_scale", probe.details["basis"] == "one scale"),
            ("inner_balanced_accuracy", probe.details["inner"]),
        )
    ]
    table = _score_splits(probe, codes_NF, clips, rows)
    return pd.concat([table, pd.DataFrame(chosen, columns=table.columns)], ignore_index=True)


def retention_cell(
    raw, dictionaries: list, states_ND: np.ndarray, clips: pd.DataFrame,
    folds: list | dict[int, list], penalties: tuple[float, ...],
) -> pd.DataFrame:
    """The raw states' own tuned probe, applied unchanged to each SAE's reconstruction.

    Parameters
    ----------
    raw
        The `saeutils.representations.Representation` of the raw states.
    dictionaries
        Representations with a dictionary, of the same layer.
    states_ND
        States of that layer, all clips.
    folds
        As `tuned_cell`.

    Returns
    -------
    DataFrame
        As `tuned_cell`, labelled, with representation ``reconstruction``, and
        ``random_reconstruction`` for untrained dictionaries.

    Raises
    ------
    ValueError
        A dictionary of another layer.
    """
    rows = split_rows(clips)
    probe = _fit_tuned(states_ND, clips, rows, own_folds(folds, raw), penalties, whiten=True)
    tables = []
    for cell in dictionaries:
        if cell.layer != raw.layer:
            raise ValueError(f"dictionary of layer {cell.layer}, probe of layer {raw.layer}")
        table = _score_splits(probe, cell.dictionary.forward(states_ND), clips, rows)
        name = "random_" * (cell.representation == "random") + "reconstruction"
        tables.append(replace(cell, representation=name).label(table))
    return pd.concat(tables, ignore_index=True)


def retention_cells(
    raw: list, dictionaries: list, states_ND: np.ndarray, clips: pd.DataFrame,
    folds: dict[int, list], penalties: tuple[float, ...], workers: int = 1,
) -> pd.DataFrame:
    """`retention_cell` for each seed: its raw probe reads the dictionaries of the same seed.

    Parameters
    ----------
    raw
        Raw states of the layer, one representation per seed.
    workers
        Processes of one thread; the result does not depend on it.
    """
    jobs = []
    for one in raw:
        own = [cell for cell in dictionaries if cell.seed == one.seed]
        if own:
            jobs.append((one, own, states_ND, clips, folds, penalties))
    return pd.concat(side_by_side(retention_cell, jobs, workers), ignore_index=True)


def own_folds(folds: list | dict[int, list], cell) -> list:
    """The inner folds of a representation: those of its seed, where seeds have their own.

    Raises
    ------
    ValueError
        No folds were drawn for its seed.
    """
    if not isinstance(folds, dict):
        return folds
    if cell.seed not in folds:
        raise ValueError(f"no inner folds for seed {cell.seed}: drawn for "
                         f"{', '.join(map(str, folds))}")
    return folds[cell.seed]


def exercise_mask(clips: pd.DataFrame, classes: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Techniques that training clips show in the exercise of each clip, bool [N, C] (A27).

    Clips of an exercise without training clips may be any technique.
    """
    seen = clips.iloc[train].groupby("exercise")["technique"].unique()
    allowed = {
        exercise: np.isin(classes, seen[exercise]) if exercise in seen.index
        else np.ones(len(classes), dtype=bool)
        for exercise in clips["exercise"].unique()
    }
    return np.stack([allowed[exercise] for exercise in clips["exercise"]])


def exercise_baseline(clips: pd.DataFrame) -> pd.DataFrame:
    """Guessing each clip's technique from its exercise alone: the most frequent one in training.

    Returns the columns of `released_cell`. Shows how much of an accuracy needs no sound at all.
    """
    rows = split_rows(clips)
    most = clips.iloc[rows["train"]].groupby("exercise")["technique"].agg(
        lambda names: names.value_counts(sort=True).index[0]
    )
    common = clips.iloc[rows["train"]]["technique"].mode().iloc[0]
    guesses = clips["exercise"].map(most).fillna(common).to_numpy()
    return _score_guesses(guesses, clips, rows)


def _fit_tuned(values_NF, clips, rows, folds, penalties, whiten: bool, scales=()) -> Probe:
    labels, train = clips["technique"].to_numpy(), rows["train"]
    return tuned_probe(values_NF[train], labels[train], folds, np.unique(labels), whiten, penalties,
                       scales)


def _score_splits(probe: Probe, codes_NF, clips, rows) -> pd.DataFrame:
    logits = probe.logits(codes_NF)
    table = _score_guesses(probe.classes[logits.argmax(axis=1)], clips, rows)
    allowed = exercise_mask(clips, probe.classes, rows["train"])
    within = _score_guesses(probe.classes[np.where(allowed, logits, -np.inf).argmax(axis=1)],
                            clips, rows, ("validation", "test", "unseen"), brief=True)
    within = within.assign(metric=within["metric"] + "_given_exercise")
    return pd.concat([table, within], ignore_index=True)


def _score_guesses(guesses: np.ndarray, clips, rows, splits=SCORED, brief: bool = False):
    labels, singers = clips["technique"].to_numpy(), clips["singer"].to_numpy()
    classes = np.unique(labels)
    found = [(split, *row) for split in splits if split in rows for row in score_rows(
        labels[rows[split]], guesses[rows[split]], singers[rows[split]], classes, brief)]
    return pd.DataFrame(found, columns=["split", *COLUMNS])


def sparse_cell(
    codes_NF: np.ndarray, cell, clips: pd.DataFrame, k_values: tuple[int, ...],
    penalty: float = 0.01,
) -> pd.DataFrame:
    """k-sparse probing: is a technique told from the others by k codes, on unseen singers?

    The k codes with the largest standardised difference of means on training singers are fitted
    by logistic regression, one technique against all others.

    Returns
    -------
    DataFrame
        Columns split, technique, codes, metric ("auc": area under the ROC curve), value, ci_low,
        ci_high, n (clips of the technique); technique "" is the mean over techniques, with a
        jackknife interval over singers and n of singers.
    """
    rows, labels = split_rows(clips), clips["technique"].to_numpy()
    train, test = rows["train"], rows["unseen"]
    scaled, mean, scale = standardise(codes_NF[train])
    unseen = standardise(codes_NF[test], mean, scale)[0]
    records, without = [], {k: [] for k in k_values}
    singers = clips["singer"].to_numpy()[test]
    for name in np.unique(labels[test]):
        own = labels[train] == name
        if not own.any() or own.all():
            continue
        gap = np.abs(scaled[own].mean(axis=0) - scaled[~own].mean(axis=0))
        order = np.argsort(-gap, kind="stable")
        for k in k_values:
            columns = order[:k]
            fit = fit_logistic(scaled[:, columns], own.astype(int), 2, penalty)
            score = unseen[:, columns] @ (fit[:-1, 1] - fit[:-1, 0])
            is_own = labels[test] == name
            records.append((str(name), int(k), auc(score, is_own), int(is_own.sum())))
            without[k].append(auc_without(score, is_own, singers))
    table = pd.DataFrame(records, columns=["technique", "codes", "value", "n"])
    mean = table.groupby("codes", as_index=False)["value"].mean()
    half = np.array([jackknife_half(_column_means(without[k])) for k in mean["codes"]], dtype=float)
    mean = mean.assign(technique="", n=len(np.unique(singers)), ci_low=mean["value"] - half,
                       ci_high=mean["value"] + half)
    table = pd.concat([table, mean], ignore_index=True)
    return table.assign(split="unseen", metric="auc")


def _column_means(rows: list[np.ndarray]) -> np.ndarray:
    """Mean over rows of those entries that are known; NaN where none is."""
    values = np.stack(rows)
    known = np.isfinite(values)
    count = known.sum(axis=0)
    return np.where(known, values, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)


def unlearning_cell(
    codes_NF: np.ndarray, cell, clips: pd.DataFrame, folds: list | dict[int, list],
    penalties: tuple[float, ...], counts: tuple[int, ...],
) -> pd.DataFrame:
    """How many codes must be silenced until a technique is lost, and what do the others lose?

    The tuned probe stays as it is. For each technique the codes that argue for it most (weight
    times how much more they fire on it than elsewhere, on training singers) are set to their mean
    over the other techniques, and unseen singers are read again.

    Returns
    -------
    DataFrame
        Columns split, technique, codes (0 = none silenced), metric (recall_target,
        balanced_others), value, n (clips); technique "" is the mean over techniques.
    """
    rows, labels = split_rows(clips), clips["technique"].to_numpy()
    train, test = rows["train"], rows["unseen"]
    probe = _fit_tuned(codes_NF, clips, rows, own_folds(folds, cell), penalties,
                       cell.representation == "raw")
    plain, records = probe.logits(codes_NF[test]), []
    for name in np.unique(labels[test]):
        own, is_own = labels[train] == name, labels[test] == name
        if not own.any() or own.all():
            continue
        elsewhere = codes_NF[train][~own].mean(axis=0)
        excess = codes_NF[train][own].mean(axis=0) - elsewhere
        column = probe.weights[:, probe.classes == name][:, 0]
        argument = excess * (column - probe.weights.mean(axis=1))
        order = np.argsort(-argument, kind="stable")
        for count in (0, *counts):
            chosen = order[:count]  # a linear probe: only what is silenced changes its logits
            logits = plain - (codes_NF[np.ix_(test, chosen)] - elsewhere[chosen]) \
                @ probe.weights[chosen]
            guesses = probe.classes[logits.argmax(axis=1)]
            kept = balanced_accuracy(labels[test][~is_own], guesses[~is_own])
            lost = float((guesses[is_own] == name).mean())
            records.append((str(name), count, "recall_target", lost, int(is_own.sum())))
            records.append((str(name), count, "balanced_others", kept, int((~is_own).sum())))
    table = pd.DataFrame(records, columns=["technique", "codes", "metric", "value", "n"])
    mean = table.groupby(["codes", "metric"], as_index=False).agg(
        value=("value", "mean"), n=("n", "sum"))
    return pd.concat([table, mean.assign(technique="")], ignore_index=True).assign(split="unseen")
