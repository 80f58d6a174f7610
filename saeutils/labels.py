"""Tables that users bring: labels of clips, attributes, and a split of groups that is fair.

Each refusal is one line that names the table, the line or clip, and the way out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saeutils.datasets import SPLITS

OPTIONAL = ("clip_id", "label", "group", "split", "sex", "exercise", "vowel")


def read_labels(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """A label table as text, with every column of `OPTIONAL`; empty cells stay empty.

    Raises
    ------
    ValueError
        No such file; as `read_cells`; a missing column, no rows; a cell of several lines, or an
        empty one in a column that is needed (names its line).
    """
    if not path.is_file():
        raise ValueError(f"no label table {path}: data.labels names a CSV file with the columns "
                         f"{', '.join(needed)}")
    table = read_cells(path, dtype=str, keep_default_na=False)
    table.columns = [str(name).strip() for name in table.columns]
    if "id" in table and "clip_id" not in table:
        table = table.rename(columns={"id": "clip_id"})
    missing = [name for name in needed if name not in table]
    if missing:
        raise ValueError(f"{path.name} has no column {', '.join(missing)}: it has "
                         f"{', '.join(table.columns)}; separate columns by commas")
    if not len(table):
        raise ValueError(f"{path.name} has no rows: one line a clip is needed")
    table = table.apply(lambda column: column.str.strip())
    for name in (name for name in (*needed, *OPTIONAL) if name in table):
        wide = np.flatnonzero(table[name].str.contains(r"[\r\n]"))
        if len(wide):
            raise ValueError(f"{path.name}, line {wide[0] + 2}: {name} goes on over several lines: "
                             "close its quote")
    for name in needed:
        if (table[name] == "").any():
            line = int(np.flatnonzero(table[name] == "")[0]) + 2
            raise ValueError(f"{path.name}, line {line}: {name} is empty")
    for name in OPTIONAL:
        if name not in table:
            table[name] = ""
        elif name not in needed and (table[name] == "").any() and (table[name] != "").any():
            line = int(np.flatnonzero(table[name] == "")[0]) + 2
            raise ValueError(f"{path.name}, line {line}: {name} is empty; give it for every clip "
                             "or for none")
    return table


def read_cells(path: Path, **how: Any) -> pd.DataFrame:
    """A user's CSV file; commas that end every line add no column.

    Parameters
    ----------
    path, how
        As in `pandas.read_csv`.

    Raises
    ------
    ValueError
        Not a comma-separated table in UTF-8, or lines with more cells than the header has names.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(path, encoding="utf-8-sig", index_col=False, **how)
    except pd.errors.ParserWarning:  # it would cut them off
        raise ValueError(f"{path.name} has lines of more cells than its header has names: put "
                         "quotes around cells that hold commas") from None
    except ValueError as error:
        what = " ".join(str(error).split())
        raise ValueError(f"{path.name} is no comma-separated table in UTF-8: {what}") from None


def split_groups(
    clips: pd.DataFrame, validation_share: float, test_share: float, seed: int
) -> pd.Series:
    """Split of each clip so that no group is in two, and training knows every label it can.

    Of 200 seeded orders of the groups, the first that leaves no label out of training and
    testing, and comes nearest to the shares, is taken. Two groups give no validation.

    Parameters
    ----------
    clips
        Columns singer (the group) and technique (the label).

    Raises
    ------
    ValueError
        Fewer than two groups.

    Examples
    --------
    >>> clips = pd.DataFrame({"singer": list("aabbcc"), "technique": list("xyxyxy")})
    >>> sorted(split_groups(clips, 0.3, 0.3, 0).unique())
    ['test', 'train', 'validation']
    """
    groups = sorted(clips["singer"].unique())
    if len(groups) < 2:
        raise ValueError(f"only the group {groups[0]!r}: training and testing need two or more; "
                         "a group is who or what must not be in both, such as a singer")
    n_test = max(1, round(test_share * len(groups)))
    n_validation = max(1, round(validation_share * len(groups))) if len(groups) > 2 else 0
    while n_test + n_validation >= len(groups):
        n_test, n_validation = max(1, n_test - 1), min(n_validation, 1)
    labels = pd.crosstab(clips["singer"], clips["technique"]).loc[groups].to_numpy()
    rng = np.random.default_rng(seed)
    best: tuple[float, np.ndarray] = (np.inf, np.empty(0))
    for _ in range(200):
        order = rng.permutation(len(groups))
        part = np.zeros(len(groups), dtype=int)  # 0 train, 1 validation, 2 test
        part[order[:n_test]] = 2
        part[order[n_test:n_test + n_validation]] = 1
        unseen = [(labels[part == which].sum(axis=0) == 0).sum() for which in (0, 2, 1)]
        share = labels[part == 2].sum() / labels.sum()
        cost = 100 * unseen[0] + 10 * unseen[1] + unseen[2] + abs(share - test_share)
        if cost < best[0] - 1e-12:
            best = (cost, part)
    names = dict(zip(groups, np.array(SPLITS)[best[1]], strict=True))
    return clips["singer"].map(names)


def check_groups(clips: pd.DataFrame) -> None:
    """Refuse labels that cannot be learned from one group and tested on another.

    Raises
    ------
    ValueError
        A label with one group only, or one label in all.

    Examples
    --------
    >>> check_groups(pd.DataFrame({"technique": list("xyxy"), "singer": list("aabb")}))
    """
    groups = clips.groupby("technique")["singer"].nunique()
    if (groups < 2).any():
        raise ValueError(f"label {groups.idxmin()!r} has one group only: a label needs two or "
                         "more, to be learned from one and tested on another; leave it out of "
                         "the table or add clips")
    if len(groups) < 2:
        raise ValueError(f"only the label {groups.index[0]!r}: two or more are needed")


def read_attributes(path: Path, clips: pd.DataFrame) -> pd.DataFrame:
    """Own attributes in the place of eGeMAPS: clip_id and one numeric column each.

    Returns
    -------
    DataFrame
        Rows in the order of `clips`; rows of other clips are not used.

    Raises
    ------
    ValueError
        No such file; as `read_cells`; no clip_id; a clip without a row or with two; a column that
        is not numeric, has gaps or infinite values, or no column at all.
    """
    if not path.is_file():
        raise ValueError(f"no attribute table {path}: data.attributes names a CSV by clip_id")
    table = read_cells(path, converters={"clip_id": str})  # as it stands: "NA" is a name
    if "clip_id" not in table or table.shape[1] < 2:
        raise ValueError(f"{path.name} needs a column clip_id and one column or more of numbers: "
                         f"it has {', '.join(table.columns)}")
    if not table["clip_id"].is_unique:
        twice = table.loc[table["clip_id"].duplicated(), "clip_id"].iloc[0]
        raise ValueError(f"{path.name}: clip_id {twice!r} stands there twice")
    absent = sorted(set(clips["clip_id"]) - set(table["clip_id"]))
    if absent:
        raise ValueError(f"{path.name} has no row for {len(absent)} clips: {some(absent)}")
    table = table.set_index("clip_id").loc[clips["clip_id"]].reset_index()
    for name in table.columns[1:]:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if not np.isfinite(numbers).all():
            clip = table.loc[~np.isfinite(numbers), "clip_id"].iloc[0]
            raise ValueError(f"{path.name}: {name} of {clip!r} is no finite number")
        table[name] = numbers.astype(float)
    return table


def some(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    names = list(names)
    return "; ".join(names[:3]) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")
