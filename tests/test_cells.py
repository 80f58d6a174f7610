"""Representations, probe cells, map cells and nulls: the work of stages 04 and 05."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from saeutils import map_cells, nulls, probe_cells
from saeutils.disentanglement import cross_validated_r2
from saeutils.probing import released_probe
from saeutils.representations import Representation, raw_cells, run_cells, sae_cells, tidy
from saeutils.sae import SparseAutoencoder, save_sae
from saeutils.sae_starts import random_dictionary
from saeutils.statistics import grouped_folds

WIDTH, LATENTS = 12, 30


@pytest.fixture(scope="module")
def clips():
    techniques = {"scales": ["belt", "straight"], "long_tones": ["straight", "trill"]}
    rows = []
    for s in range(8):
        home = {0: "test", 1: "test", 2: "validation"}.get(s, "train")
        for exercise, names in techniques.items():
            for name in names * 4:
                rows.append(("vocalset", f"s{s}", "FM"[s % 2], home, exercise, name))
        rows.append(("crossed", f"s{s}", "FM"[s % 2], home, "scales", "trill"))
        rows.append(("crossed", f"s{s}", "FM"[s % 2], home, "excerpts", "belt"))
    rows += [("extra", "x1", "F", "test", "scales", "belt")] * 3
    columns = ["set", "singer", "sex", "split", "exercise", "technique"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def states(clips):
    rng = np.random.default_rng(0)
    label = pd.factorize(clips["technique"])[0]
    base = rng.normal(size=(3, 2, WIDTH))[label] + rng.normal(size=(len(clips), 2, WIDTH))
    return base.astype(np.float32)


@pytest.fixture(scope="module")
def cells(tmp_path_factory, states):
    folder = tmp_path_factory.mktemp("saes")
    rows = []
    for seed in (0, 1):
        sae = random_dictionary(states[:40, 1], LATENTS, 6, 100 + seed, "corrected")
        save_sae(sae, folder / f"corrected/layer_01/sparsity_80/seed_{seed}")
        rows.append(("demo", 1, "sae", "topk", 80.0, 6, seed, "corrected", "fvu", 0.1))
    columns = ["encoder", "layer", "representation", "variant", "sparsity", "k", "seed",
               "protocol", "metric", "value"]
    table = pd.DataFrame(rows, columns=columns)
    return raw_cells("demo", range(2), "corrected") + sae_cells(table, folder, states[:40],
                                                               "corrected"), table, folder


def count_fires(codes, cell):
    return pd.DataFrame({"metric": ["fires"], "value": [float((codes != 0).mean())]})


# Representations ------------------------------------------------------------------------------


def test_every_sae_is_followed_by_its_twin_of_equal_width_k_and_start(cells, states):
    kinds = [cell.representation for cell in cells[0]]
    assert kinds == ["raw", "raw", "sae", "random", "sae", "random"]
    sae, twin = cells[0][2], cells[0][3]
    assert (sae.sparsity, sae.k, sae.seed, sae.layer) == (
        twin.sparsity, twin.k, twin.seed, twin.layer)
    assert twin.dictionary.latents == sae.dictionary.latents == LATENTS
    # here the "trained" SAE is itself untrained, so that its twin is the very same dictionary
    assert np.array_equal(twin.encode(states[:, 1]), sae.encode(states[:, 1]))


def test_raw_cells_hand_the_states_on_and_unknown_protocols_are_refused(cells, states):
    assert np.array_equal(cells[0][0].encode(states[:, 0]), states[:, 0])
    with pytest.raises(ValueError, match="stage 03 trained corrected"):
        sae_cells(cells[1], cells[2], states, "released")


def test_run_cells_does_not_depend_on_workers_and_labels_every_row(cells, states):
    one = run_cells(count_fires, cells[0], states, workers=1)
    two = run_cells(count_fires, cells[0], states, workers=2)
    pd.testing.assert_frame_equal(one, two)
    assert one["representation"].tolist() == [cell.representation for cell in cells[0]]
    assert one.loc[one["representation"] == "raw", "value"].eq(1).all()
    assert (one.loc[one["representation"] == "sae", "value"] <= 6 / LATENTS).all()
    with pytest.raises(ValueError, match="no cells"):
        run_cells(count_fires, [], states)


def test_tidy_puts_result_columns_in_their_order():
    table = tidy(pd.DataFrame({"p": [1], "n": [2], "value": [3], "encoder": ["demo"]}, index=[7]))
    assert list(table) == ["encoder", "value", "n", "p"] and table.index.tolist() == [0]


# Probe cells ----------------------------------------------------------------------------------


def test_splits_share_no_singer_and_extra_singers_are_unseen(clips):
    rows = probe_cells.split_rows(clips)
    assert list(rows) == ["dictionary", "train", "validation", "test", "unseen", "crossed"]
    assert set(rows["train"]) < set(rows["dictionary"])
    singers = {name: set(clips["singer"].iloc[index]) for name, index in rows.items()}
    assert not singers["train"] & (singers["validation"] | singers["unseen"])
    assert singers["unseen"] - singers["test"] == {"x1"}
    assert set(rows["test"]) < set(rows["unseen"])
    assert not set(rows["crossed"]) & set(rows["unseen"])


def test_split_refusals(clips):
    twice = clips.copy()
    twice.loc[0, "split"] = "train"
    with pytest.raises(ValueError, match="'s0' is in more than one split"):
        probe_cells.split_rows(twice)
    with pytest.raises(ValueError, match="no clip of a training singer"):
        probe_cells.split_rows(clips[clips["split"] == "test"])
    with pytest.raises(ValueError, match="lacks split"):
        probe_cells.split_rows(clips.drop(columns="split"))


def test_released_cell_scores_what_the_probe_says(clips, states, cells):
    rows, labels = probe_cells.split_rows(clips), clips["technique"].to_numpy()
    table = probe_cells.released_cell(states[:, 0], cells[0][0], clips, {0: 3}, epochs=30)
    probe = released_probe(states[rows["train"], 0], labels[rows["train"]],
                           states[rows["validation"], 0], labels[rows["validation"]],
                           np.unique(labels), 3, epochs=30)
    hits = probe.predict(states[rows["test"], 0]) == labels[rows["test"]]
    own = table[(table["split"] == "test") & (table["metric"] == "accuracy")
                & (table["singer"] == "")]
    assert own["value"].item() == pytest.approx(hits.mean())
    assert set(table["split"]) == set(probe_cells.SCORED)


def test_tuned_cell_never_looks_at_unseen_labels(clips, states, cells):
    folds = probe_cells.training_folds(clips, 3, 0)
    first = probe_cells.tuned_cell(states[:, 0], cells[0][0], clips, folds, (0.1, 1.0))
    rng = np.random.default_rng(0)
    lied = clips.copy()
    unseen = clips["split"] != "train"
    lied.loc[unseen, "technique"] = rng.permutation(clips.loc[unseen, "technique"])
    second = probe_cells.tuned_cell(states[:, 0], cells[0][0], lied, folds, (0.1, 1.0))
    chosen = [t[t["split"] == "train"].reset_index(drop=True) for t in (first, second)]
    pd.testing.assert_frame_equal(*chosen)
    values = chosen[0].set_index("metric")["value"]
    assert values["penalty"] in (0.1, 1.0) and 0 <= values["inner_balanced_accuracy"] <= 1


def test_given_the_exercise_only_its_techniques_are_guessed(clips):
    classes, train = np.unique(clips["technique"]), probe_cells.split_rows(clips)["train"]
    allowed = probe_cells.exercise_mask(clips, classes, train)
    scales = allowed[(clips["exercise"] == "scales").to_numpy()][0]
    assert dict(zip(classes.tolist(), scales.tolist(), strict=True)) == {
        "belt": True, "straight": True, "trill": False}
    assert allowed[(clips["exercise"] == "excerpts").to_numpy()].all()  # never met in training


def test_exercise_baseline_by_hand(clips):
    table = probe_cells.exercise_baseline(clips)
    own = table[(table["split"] == "test") & (table["metric"] == "accuracy")
                & (table["singer"] == "")]
    assert own["value"].item() == pytest.approx(0.5)  # one of two techniques in each exercise


def test_a_perfect_reconstruction_keeps_everything(clips, states, cells):
    identity = np.eye(WIDTH, dtype=np.float32)
    both = np.concatenate([identity, -identity], axis=1)
    perfect = SparseAutoencoder(both, np.zeros(2 * WIDTH, np.float32), both.T.copy(),
                                np.zeros(WIDTH, np.float32), k=2 * WIDTH)
    cell = Representation("demo", 0, "sae", "topk", 0.0, 24, 0, "corrected", perfect)
    folds = probe_cells.training_folds(clips, 3, 0)
    kept = probe_cells.retention_cell(cells[0][0], [cell], states[:, 0], clips, folds, (0.1,))
    raw = probe_cells.tuned_cell(states[:, 0], cells[0][0], clips, folds, (0.1,))
    raw = raw[raw["split"] != "train"].reset_index(drop=True)
    assert kept["representation"].eq("reconstruction").all()
    twin = replace(cell, representation="random")
    twin = probe_cells.retention_cell(cells[0][0], [twin], states[:, 0], clips, folds, (0.1,))
    assert twin["representation"].eq("random_reconstruction").all()
    pd.testing.assert_frame_equal(kept[list(raw)], raw, check_exact=False, rtol=1e-6)
    with pytest.raises(ValueError, match="layer 0, probe of layer 1"):
        probe_cells.retention_cell(cells[0][1], [cell], states[:, 0], clips, folds, (0.1,))


def test_the_layer_is_the_middle_one_of_equals():
    scores = pd.Series({2: 0.609, 3: 0.618, 4: 0.621, 5: 0.619, 6: 0.580})
    assert probe_cells.choose_layer(scores) == 4
    for layer in (3, 4, 5):  # whichever of the equals is a hair ahead
        assert probe_cells.choose_layer(scores + pd.Series({layer: 0.003}).reindex(
            scores.index, fill_value=0)) == 4
    assert probe_cells.choose_layer(pd.Series({0: 0.3, 1: 0.9, 2: 0.895})) == 2  # of two the upper
    assert probe_cells.choose_layer(pd.Series({0: np.nan, 1: 0.2})) == 1
    with pytest.raises(ValueError, match="no layer has a score"):
        probe_cells.choose_layer(pd.Series({0: np.nan}))


def test_a_seed_brings_its_own_inner_folds(clips, states, cells):
    draws = probe_cells.inner_draws(clips, 3, {0: 5, 1: 6})
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(draws[0], draws[1], strict=True))
    for cell in raw_cells("demo", [0], "corrected", range(2)):
        told = probe_cells.tuned_cell(states[:, 0], cell, clips, draws, (0.1, 1.0))
        alone = probe_cells.tuned_cell(states[:, 0], cell, clips, draws[cell.seed], (0.1, 1.0))
        pd.testing.assert_frame_equal(told, alone)
    late = replace(cells[0][0], seed=7)
    with pytest.raises(ValueError, match="no inner folds for seed 7: drawn for 0, 1"):
        probe_cells.tuned_cell(states[:, 0], late, clips, draws, (0.1,))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_reconstruction_is_read_by_the_raw_probe_of_its_seed(clips, states, cells, workers):
    draws = probe_cells.inner_draws(clips, 3, {0: 5, 1: 6, 2: 7})
    raw = raw_cells("demo", [1], "corrected", range(3))
    table = probe_cells.retention_cells(raw, cells[0][2:], states[:, 1], clips, draws, (0.1, 1.0),
                                        workers)
    assert set(table["seed"]) == {0, 1}  # no dictionary has the third
    for one in raw[:2]:
        own = [cell for cell in cells[0][2:] if cell.seed == one.seed]
        alone = probe_cells.retention_cell(one, own, states[:, 1], clips, draws, (0.1, 1.0))
        part = table[table["seed"] == one.seed].reset_index(drop=True)
        pd.testing.assert_frame_equal(part, alone.reset_index(drop=True))


def test_sparse_probe_finds_the_one_code_that_tells(clips, cells):
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(len(clips), 20))
    codes[:, 7] += 8 * (clips["technique"] == "trill")
    table = probe_cells.sparse_cell(codes, cells[0][0], clips, (1, 5))
    value = table.set_index(["technique", "codes"])["value"]
    assert value["trill", 1] == 1 and value["belt", 1] < 0.8
    assert value["", 1] == pytest.approx(value[["belt", "straight", "trill"]].xs(
        1, level="codes").mean())
    mean = table[table["technique"] == ""]
    unseen = clips["singer"].iloc[probe_cells.split_rows(clips)["unseen"]].nunique()
    assert (mean["n"] == unseen).all() and (mean["ci_low"] <= mean["value"]).all()


def test_silencing_the_telling_code_loses_the_technique_and_spares_the_rest(clips, cells):
    rng = np.random.default_rng(0)
    codes = 0.1 * rng.normal(size=(len(clips), 6))
    for column, name in enumerate(np.unique(clips["technique"])):
        codes[:, column] += 5 * (clips["technique"] == name)
    folds = probe_cells.training_folds(clips, 3, 0)
    table = probe_cells.unlearning_cell(codes, cells[0][2], clips, folds, (0.1,), (1, 2))
    value = table.set_index(["technique", "codes", "metric"])["value"]
    assert value["trill", 0, "recall_target"] == 1 and value["trill", 1, "recall_target"] < 0.7
    assert value["trill", 1, "balanced_others"] == 1 == value["", 0, "balanced_others"]


def test_silenced_logits_equal_a_probe_that_reads_silenced_codes(clips, cells):
    """`unlearning_cell` changes logits in place of codes: the same, done by hand."""
    rng = np.random.default_rng(3)
    codes = rng.normal(size=(len(clips), 9)) + 2 * np.eye(9)[
        np.unique(clips["technique"], return_inverse=True)[1] % 9]
    folds = probe_cells.training_folds(clips, 3, 0)
    table = probe_cells.unlearning_cell(codes, cells[0][2], clips, folds, (0.1,), (3,))
    rows, labels = probe_cells.split_rows(clips), clips["technique"].to_numpy()
    train, test = rows["train"], rows["unseen"]
    probe = probe_cells._fit_tuned(codes, clips, rows, folds, (0.1,), False)
    for name in np.unique(labels[test]):
        elsewhere = codes[train][labels[train] != name].mean(axis=0)
        excess = codes[train][labels[train] == name].mean(axis=0) - elsewhere
        own = probe.weights[:, list(probe.classes).index(name)] - probe.weights.mean(axis=1)
        silent = np.argsort(-excess * own, kind="stable")[:3]
        changed = codes[test].copy()
        changed[:, silent] = elsewhere[silent]
        is_own = labels[test] == name
        lost = (probe.predict(changed)[is_own] == name).mean()
        found = table.query("technique == @name and codes == 3 and metric == 'recall_target'")
        assert found["value"].item() == pytest.approx(lost)


# Map cells ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def attributes(clips, states):
    rng = np.random.default_rng(1)
    values = states[:, 0] @ rng.normal(size=(WIDTH, 5)) + 0.3 * rng.normal(size=(len(clips), 5))
    values[:, 4] = rng.normal(size=len(clips))  # nothing to read
    return values, [f"a{i}" for i in range(5)]


def test_maps_read_what_is_there_and_not_what_is_not(clips, states, cells, attributes):
    rows, (values, names) = probe_cells.split_rows(clips), attributes
    released = map_cells.released_map_cell(states[:, 0], cells[0][0], values, names,
                                           rows["test"], 0.1)
    corrected = map_cells.held_out_map_cell(
        states[:, 0], cells[0][0], values, names, rows["train"], rows["unseen"],
        clips["singer"].to_numpy(), clips["exercise"].to_numpy(), 0.1, LATENTS)
    held = corrected[corrected["metric"] == "r2_held_out"].set_index("attribute")
    assert (held.loc[names[:4], "value"] > 0.4).all() and held.loc["a4", "value"] < 0.1
    assert (held["ci_low"] <= held["value"]).all() and (held["value"] <= held["ci_high"]).all()
    common = {0: names[:4]}
    with_mean = map_cells.held_out_map_cell(
        states[:, 0], cells[0][0], values, names, rows["train"], rows["unseen"],
        clips["singer"].to_numpy(), clips["exercise"].to_numpy(), 0.1, LATENTS, common=common)
    mean = with_mean[with_mean["metric"] == "r2_held_out_common_mean"].iloc[0]
    assert mean["value"] == pytest.approx(held.loc[names[:4], "value"].mean())
    assert mean["ci_low"] < mean["value"] < mean["ci_high"]
    assert mean["n"] == clips["singer"].iloc[rows["unseen"]].nunique()
    groups = dict.fromkeys(names, "all")
    whole = map_cells.summarise(cells[0][0].label(with_mean), groups, 2, common[0])
    own = whole[whole["metric"] == "r2_held_out_common_mean"]
    assert own[["value", "ci_low", "n"]].iloc[0].tolist() == [mean["value"], mean["ci_low"],
                                                             mean["n"]]
    assert set(released["metric"]) >= {"r2_in_sample", "completeness", "effective_codes",
                                       "disentanglement_released", "empty_attributes"}


def test_summary_counts_groups_and_averages_the_common_set(cells, attributes):
    _, names = attributes
    scores = pd.DataFrame({
        "split": "test", "attribute": names * 2,
        "metric": ["r2_in_sample"] * 5 + ["completeness"] * 5,
        "value": [0.9, 0.1, 0.8, 0.2, 0.3, 1.0, 0.5, 0.6, 0.7, 0.8],
    })
    table = cells[0][0].label(scores)
    groups = dict(zip(names, ["pitch", "pitch", "mfcc", "mfcc", "mfcc"], strict=True))
    summary = map_cells.summarise(table, groups, n_top=2, common=["a1", "a3"])
    value = summary.set_index(["group", "metric"])["value"]
    assert value["", "r2_in_sample_top_mean"] == pytest.approx(0.85)
    assert value["", "completeness_top_mean"] == pytest.approx(0.8)
    assert value["", "completeness_top_sd"] == pytest.approx(0.2)
    assert value["", "completeness_common_mean"] == pytest.approx(0.6)
    assert value["pitch", "top_count"] == 1 and value["mfcc", "top_count_expected"] == 1.2


def test_causes_are_read_only_where_they_can_act(clips, states, cells):
    rng = np.random.default_rng(2)
    singers, rows = clips["singer"].to_numpy(), np.arange(len(clips))
    extent = states[:, 0, 0] + 0.1 * rng.normal(size=len(clips))
    rate = np.where(extent > 0, states[:, 0, 1], rng.normal(size=len(clips)) * 50)
    causes = pd.DataFrame({"extent": extent, "rate": rate})
    masks = pd.DataFrame({"extent": True, "rate": extent > 0}, index=causes.index)
    folds = grouped_folds(singers, clips["sex"].to_numpy(), 4)
    arguments = (causes, masks, rows, folds, singers, 0.1)
    table = map_cells.causes_cell(states[:, 0], cells[0][0], *arguments)
    r2 = table[table["metric"] == "r2_held_out"].set_index("factor")
    assert (r2["value"] > 0.5).all()
    assert r2.loc["rate", "n"] == (extent > 0).sum() < r2.loc["extent", "n"] == len(clips)
    whole = cross_validated_r2(states[:, 0], extent[:, None], folds, singers)
    assert r2.loc["extent", "value"] == pytest.approx(whole[0], abs=1e-9)


def test_stability_table_needs_two_seeds(cells, states):
    table = map_cells.stability_cells(cells[0], states, np.arange(50))
    assert set(table["metric"]) == {"decoder_cosine", "code_correlation"}
    assert set(table["representation"]) == {"sae", "random"} and len(table) == 4
    assert len(map_cells.stability_cells(cells[0][:3], states, np.arange(50))) == 0
    pd.testing.assert_frame_equal(
        map_cells.stability_cells(cells[0], states, np.arange(50), workers=2), table)


# Nulls ----------------------------------------------------------------------------------------


def test_noise_codes_fire_unevenly_and_refuse_an_impossible_k():
    codes = nulls.noise_codes(300, 60, 6, seed=1)
    rates = (codes > 0).mean(axis=0)
    assert (codes > 0).sum(axis=1).max() == 6 and rates.max() > 5 * np.median(rates)
    assert (nulls.noise_codes(300, 60, None, 1) < 0).any()
    with pytest.raises(ValueError, match="k = 61"):
        nulls.noise_codes(3, 60, 61, 0)


def test_shuffle_moves_clips_only_within_their_group():
    rows, keys = np.arange(100, 160), np.repeat(np.arange(6), 10)
    moved = nulls.shuffle_within(rows, keys, seed=0)
    assert sorted(moved) == rows.tolist() and (moved != rows).any()
    assert ((moved - 100) // 10 == keys).all()
    with pytest.raises(ValueError, match="one key per row"):
        nulls.shuffle_within(rows, keys[:3], 0)
