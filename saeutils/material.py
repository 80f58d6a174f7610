"""What the material at hand allows: synthetic singers bring everything, other material less.

Notebooks 03 to 06 ask here which sections can run, and say so before anything else. Nothing is
left out in silence: each gap has its line. Pairs made by nature take the place of counterfactual
clips where there are none. Shape letters: N clips, M moved clips.

Source: eGeMAPS groups from `saeutils.attributes`; the pairs are those of VocalSet's design (same
singer, vowel and exercise; one clip straight, one not).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from saeutils.attributes import attribute_group

OTHER_GROUP = "other"
NATURAL_PLACEBO = "placebo_vowel"

# What a section needs, and what is left out without it, by notebook.
GAPS = {
    "03": (("validation", "validation singers",
            "the epoch is chosen on training clips: errors there are optimistic"),),
    "04": (("labels", "labels of two techniques or more", "the whole notebook: all probes"),
           ("groups", "groups (singers) with several clips each", "the whole notebook: all probes"),
           ("validation", "validation singers", "the layer is chosen by folds of training singers"),
           ("attributes", "an attribute table", "the attributes as a reference for the probes"),
           ("durations", "durations", "clip length as a reference for the probes"),
           ("exercises", "two exercises or more", "accuracy within an exercise"),
           ("crossed", "a crossed set", "the crossed column"),
           ("extra", "test-only singers beyond the design",
            "intervals rest on the test singers alone: descriptive")),
    "05": (("attributes", "an attribute table", "the whole notebook: all maps"),
           ("groups", "groups (singers) with several clips each", "the whole notebook: all maps"),
           ("labels", "labels of two techniques or more",
            "the primary layer is the middle one, not one chosen by a probe"),
           ("causes", "recorded causes and a crossed set", "causes instead of attributes"),
           ("counterfactuals", "counterfactual clips",
            "interventions by cause; pairs made by nature take their place where there are any"),
           ("moved", "counterfactual clips or matched pairs", "the whole interventional section"),
           ("extra", "test-only singers beyond the design",
            "intervals rest on the test singers alone: descriptive")),
    "06": (("realism", "a comparison of synthetic with real singers", "figure 0"),
           ("labels", "labels of two techniques or more", "figures 1a, 1b, 10, 11, the claims"),
           ("groups", "groups (singers) with several clips each", "the same, and all maps"),
           ("attributes", "an attribute table", "figures 2 to 8, 11, the claims"),
           ("moved", "counterfactual clips or matched pairs", "figure 12 and claim 2b")),
}


@dataclass(frozen=True)
class Material:
    """What a run's tables hold: see `GAPS` for what each absence costs.

    Attributes
    ----------
    has
        Names of what is there, out of: labels, groups, validation, exercises, durations, extra,
        crossed, attributes, causes, counterfactuals, pairs, moved, realism.
    labels
        Label names among the training clips, sorted.
    n_singers
        Singers (groups) of all clips.
    """

    has: frozenset[str]
    labels: tuple[str, ...]
    n_singers: int

    def __contains__(self, name: str) -> bool:
        return name in self.has

    def gaps(self, number: str) -> pd.DataFrame:
        """What notebook `number` has to do without (columns missing, left_out); may be empty."""
        rows = [(what, cost) for name, what, cost in GAPS[number] if name not in self.has]
        return pd.DataFrame(rows, columns=["missing", "left_out"])

    def statement(self, number: str, face: str) -> str:
        """The same as Markdown, with the run's data named first."""
        found = (f"**Data: {face}.** {self.n_singers} singers or groups, "
                 f"{len(self.labels)} labels")
        lost = self.gaps(number)
        if lost.empty:
            return found + ". Nothing that this notebook can use is missing."
        lines = [f"- no {row.missing}: {row.left_out}" for row in lost.itertuples()]
        return found + ". What is missing here, and what it costs:\n\n" + "\n".join(lines)


def survey(clips: pd.DataFrame, has: Callable[[str], bool]) -> Material:
    """What the clip table and the tables beside it allow.

    Parameters
    ----------
    clips
        The clip table of stage 01. An empty technique means: no label; a singer for every clip
        means: no groups.
    has
        Whether stage 01 wrote a table, by name.

    Raises
    ------
    ValueError
        A column is missing.
    """
    missing = {"technique", "singer", "split", "set", "exercise", "duration_s"} - set(clips)
    if missing:
        raise ValueError(f"the clip table lacks {', '.join(sorted(missing))}")
    train = clips[clips["split"] == "train"]
    labels = tuple(sorted(set(train["technique"]) - {""}))
    crossed = (clips["set"] == "crossed").any()
    pairs, counterfactuals = has("matched_pairs"), has("counterfactuals/sets")
    found = {
        "labels": len(labels) > 1 and (clips["technique"] != "").all(),
        "groups": clips["singer"].nunique() < len(clips),
        "validation": (clips["split"] == "validation").any(),
        "exercises": clips["exercise"].nunique() > 1,
        "durations": clips["duration_s"].notna().all(),
        "extra": (clips["set"] == "extra").any(),
        "crossed": crossed,
        "attributes": has("attributes"),
        "causes": crossed and has("factors"),
        "counterfactuals": counterfactuals,
        "pairs": pairs and not counterfactuals,
        "moved": pairs or counterfactuals,
        "realism": has("realism"),
    }
    names = frozenset(name for name, there in found.items() if there)
    return Material(names, labels, clips["singer"].nunique())


def attribute_groups(names: list[str]) -> dict[str, str]:
    """Group of each attribute; names that eGeMAPS does not have are of the group "other".

    Examples
    --------
    >>> attribute_groups(["loudness_sma3_amean", "my_brightness"])
    {'loudness_sma3_amean': 'loudness', 'my_brightness': 'other'}
    """
    groups = {}
    for name in names:
        try:
            groups[name] = attribute_group(name)
        except ValueError:
            groups[name] = OTHER_GROUP
    return groups


def natural_sets(clips: pd.DataFrame, pairs: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """Matched pairs in the form of counterfactual sets, for `saeutils.interventions.responses`.

    The straight clip is the base, the technique is the factor that moved, by one step. The
    placebo is what changes when the technique does not: another vowel, straight like the base,
    by the same singer in the same exercise.

    Parameters
    ----------
    clips
        The clip table.
    pairs
        Columns clip_id_technique, clip_id_straight, technique.
    rows
        Clips that may be used: those of unseen singers.

    Returns
    -------
    DataFrame
        Columns base_id, clip_id, factor ("base", a technique, or the placebo), step, singer,
        technique, audio, row (number in `clips`). Empty when no pair lies within `rows`, or when no
        straight clip has a sibling of another vowel: without placebo nothing can be judged.
    """
    columns = ["base_id", "clip_id", "factor", "step", "singer", "technique", "audio", "row"]
    table = clips.reset_index(drop=True).reset_index(names="row")
    own = table.iloc[np.sort(rows)].set_index("clip_id", drop=False)
    pairs = pairs[pairs["clip_id_technique"].isin(own.index)
                  & pairs["clip_id_straight"].isin(own.index)]
    straight = own.loc[sorted(set(pairs["clip_id_straight"]))]
    family = straight.groupby(["singer", "exercise"], sort=True)
    follower = {}
    for _, part in family:
        one = part.drop_duplicates("vowel").sort_values("vowel")
        following = np.roll(one["clip_id"].to_numpy(), -1)
        if len(one) > 1:
            follower |= dict(zip(one["clip_id"], following, strict=True))
    if not follower:
        return pd.DataFrame(columns=columns)
    parts = [(name, name, "base", 0.0) for name in straight.index]
    parts += [(row.clip_id_straight, row.clip_id_technique, row.technique, 1.0)
              for row in pairs.itertuples()]
    parts += [(base, other, NATURAL_PLACEBO, 1.0) for base, other in follower.items()]
    found = pd.DataFrame(parts, columns=columns[:4])
    more = own.loc[found["clip_id"], columns[4:]].reset_index(drop=True)
    found = pd.concat([found, more], axis=1)
    return found.sort_values(["base_id", "step", "factor", "clip_id"], ignore_index=True)


def technique_causes(
    clips: pd.DataFrame, pairs: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Technique against straight as a cause with two values, and the clips on which it can act.

    Returns
    -------
    causes, masks
        One column per technique of `pairs`, rows as `clips`: 1 for the technique, 0 else; and
        whether a clip is of that technique or straight, in an exercise in which it is paired.
    """
    by_id = clips.set_index("clip_id")["technique"]
    straight = by_id[pairs["clip_id_straight"].iloc[0]]
    causes, masks = {}, {}
    for name, part in pairs.groupby("technique", sort=True):
        where = clips.loc[clips["clip_id"].isin(part["clip_id_technique"]), "exercise"].unique()
        causes[name] = (clips["technique"] == name).astype(float)
        masks[name] = clips["technique"].isin([name, straight]) & clips["exercise"].isin(where)
    return pd.DataFrame(causes), pd.DataFrame(masks)
