"""Chain without what only synthetic singers have: what is missing is said, the rest runs."""

import numpy as np
import pandas as pd
import pytest

from saeutils import interventions, material, probe_cells
from saeutils.representations import Representation, chosen_layers, raw_cells, run_cells


def vocalset_shaped(n_singers=6, vowels=("a", "e")):
    """Clips, matched pairs and states of two layers: no factors, no counterfactuals, one set."""
    rows = []
    for s in range(n_singers):
        split = "test" if s < 2 else "train"
        for technique in ("straight", "belt", "breathy"):
            for vowel in vowels:
                name = f"c{s}_{technique}_{vowel}"
                rows.append((name, "x.flac", "vocalset", f"s{s}", "FM"[s % 2],
                             split, "scales", technique, vowel, 2.0, 44100))
    columns = ["clip_id", "audio", "set", "singer", "sex", "split", "exercise", "technique",
               "vowel", "duration_s", "sample_rate"]
    clips = pd.DataFrame(rows, columns=columns)
    keys = ["singer", "vowel", "exercise"]
    straight = clips[clips["technique"] == "straight"]
    pairs = clips[clips["technique"] != "straight"].merge(
        straight, on=keys, suffixes=("_technique", "_straight"))
    pairs = pairs.rename(columns={"technique_technique": "technique"})
    rng = np.random.default_rng(0)
    label = pd.factorize(clips["technique"])[0]
    states = 0.1 * rng.standard_normal((len(clips), 2, 8))
    states[np.arange(len(clips)), :, label] += 1.0
    columns = ["clip_id_technique", "clip_id_straight", "technique", *keys]
    return clips, pairs[columns], states.astype(np.float32)


def test_a_complete_run_misses_nothing():
    clips, _, _ = vocalset_shaped()
    extra = clips[clips["split"] == "test"].assign(set="extra")
    crossed = clips[clips["split"] == "test"].assign(set="crossed", exercise="excerpts")
    valid = clips[clips["singer"] == "s5"].assign(split="validation", singer="s9")
    found = material.survey(pd.concat([clips, extra, crossed, valid]), lambda name: True)
    assert all(found.gaps(number).empty for number in ("03", "04", "05", "06"))
    assert "Nothing" in found.statement("04", "synthetic singers")


def test_vocalset_s_gaps_are_named_with_what_they_cost():
    clips, _, _ = vocalset_shaped()
    have = {"attributes", "matched_pairs"}
    found = material.survey(clips, have.__contains__)
    assert {"labels", "groups", "attributes", "pairs", "moved"} <= found.has
    assert not {"causes", "counterfactuals", "crossed", "extra", "realism"} & found.has
    text = found.statement("05", "VocalSet")
    assert "**Data: VocalSet.**" in text and "pairs made by nature" in text
    assert "descriptive" in text


def test_no_labels_and_no_groups_are_seen():
    clips, _, _ = vocalset_shaped()
    bare = clips.assign(technique="", singer=clips["clip_id"], exercise="", duration_s=np.nan)
    found = material.survey(bare, lambda name: False)
    assert not {"labels", "groups", "exercises", "durations", "attributes"} & found.has
    assert "all probes" in found.statement("04", "own activations")
    with pytest.raises(ValueError, match="lacks technique"):
        material.survey(clips.drop(columns="technique"), lambda name: False)


def test_pairs_take_the_form_of_counterfactual_sets():
    clips, pairs, _ = vocalset_shaped()
    rows = np.flatnonzero(clips["split"] == "test")
    sets = material.natural_sets(clips, pairs, rows)
    assert set(sets["singer"]) == {"s0", "s1"}, "a training singer's pair is used"
    count = sets["factor"].value_counts()
    assert count.to_dict() == {"base": 4, "belt": 4, "breathy": 4, material.NATURAL_PLACEBO: 4}
    assert (clips["clip_id"].iloc[sets["row"]].to_numpy() == sets["clip_id"].to_numpy()).all()
    placebo = sets[sets["factor"] == material.NATURAL_PLACEBO]
    assert (placebo["technique"] == "straight").all()
    assert (placebo["base_id"] != placebo["clip_id"]).all()


def test_without_a_second_vowel_nothing_is_judged():
    clips, pairs, _ = vocalset_shaped(vowels=("a",))
    assert material.natural_sets(clips, pairs, np.arange(len(clips))).empty


def test_the_intervention_runs_on_pairs_and_confirms_a_planted_code():
    clips, pairs, states = vocalset_shaped(12)
    rows = np.flatnonzero(clips["split"] == "test")
    sets = material.natural_sets(clips, pairs, rows)
    causes, masks = material.technique_causes(clips, pairs)
    assert list(causes) == ["belt", "breathy"] and masks["belt"].sum() == 2 * len(clips) / 3
    stacked = np.concatenate([states, states[sets["row"].to_numpy(dtype=int)]])
    cell = Representation("x", 0, "raw", "", np.nan, 0, 0, "corrected")
    table = interventions.interventions_cell(
        stacked[:, 0], cell, sets=sets, causes=causes, masks=masks,
        rows=np.flatnonzero(clips["split"] == "train"), singers=clips["singer"].to_numpy(),
        alpha=0.1)
    best = table[table["metric"] == "best_specificity"].set_index("factor")["value"]
    assert best["belt"] > 0.5 and best["breathy"] > 0.5
    assert "placebo_gain" not in set(table["factor"])


def test_probes_run_on_two_labels_four_groups_and_a_set_of_any_name():
    clips, _, states = vocalset_shaped(4)
    clips = clips.assign(set="own", sex="", exercise="", technique=np.where(
        clips["technique"] == "belt", "loud", "calm"))
    rows = probe_cells.split_rows(clips)
    assert set(rows) == {"dictionary", "train", "test", "unseen"}
    folds = probe_cells.training_folds(clips, 4, 0)
    table = run_cells(probe_cells.tuned_cell, raw_cells("x", [0, 1], "corrected"), states,
                      clips=clips, folds=folds, penalties=(0.01, 0.1))
    score = table[(table["metric"] == "balanced_accuracy") & (table["singer"] == "")]
    assert (score["value"] == 1.0).all() and score["n"].max() == 2
    inner = table[table["metric"] == "inner_balanced_accuracy"]
    assert len(inner) == 2 and inner["value"].notna().all()


def test_groups_without_a_test_singer_are_refused():
    clips, _, _ = vocalset_shaped()
    with pytest.raises(ValueError, match="no clip of a test singer"):
        probe_cells.split_rows(clips.assign(split="train"))


def test_own_attributes_form_a_group_of_their_own():
    assert set(material.attribute_groups(["a", "b"]).values()) == {material.OTHER_GROUP}


def test_an_encoder_s_layers_are_checked():
    assert chosen_layers({"hubert": (3, 12)}, "hubert", 13) == [3, 12]
    with pytest.raises(ValueError, match="unknown layer 13: hubert has 0..12"):
        chosen_layers({"hubert": (13,)}, "hubert", 13)
