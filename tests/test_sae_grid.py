"""The grid: resume, order, workers, refusals, the table."""

import json
from dataclasses import replace

import numpy as np
import pytest

from saeutils import representations, sae_grid
from saeutils.sae import load_sae
from saeutils.sae_grid import grid_table, make_cells, train_grid
from saeutils.sae_training import CORRECTED, RELEASED
from saeutils.sae_variants import train_variant

RECIPES = {"released": replace(RELEASED, epochs=2), "corrected": replace(CORRECTED, epochs=2)}
LATENTS = 16


def grid():
    rng = np.random.default_rng(0)
    rows = {(protocol, layer): {name: rng.standard_normal((n, 6)).astype(np.float32)
                                for name, n in (("train", 40), ("validation", 20), ("test", 30))}
            for protocol in RECIPES for layer in (0, 3)}
    cells = make_cells([0, 3], [75, 90], [0, 1], LATENTS, lambda layer, seed: 10 * layer + seed)
    return cells, rows


def train(cells, rows, folder, **options):
    options = {"recipes": RECIPES, "progress": False} | options
    return train_grid(cells, rows, LATENTS, folder, **options)


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def test_cells_by_hand():
    cells, _ = grid()
    assert len(cells) == 16
    assert cells[0].folder == "released/layer_00/sparsity_75/seed_0"
    assert [cell.k for cell in cells[:4]] == [4, 4, 1, 1]  # int(1.6) as released
    assert [cell.k for cell in cells[8:12]] == [4, 4, 2, 2]  # round(1.6)
    shared = {(cell.layer, cell.seed): set() for cell in cells}
    for cell in cells:
        shared[cell.layer, cell.seed].add(cell.random_seed)
    assert all(len(seeds) == 1 for seeds in shared.values())
    between = make_cells([1], [97.5], [0], 768, lambda *_: 0)
    assert between[0].folder == "released/layer_01/sparsity_97.5/seed_0"


def test_a_grid_does_not_depend_on_order_or_company(tmp_path):
    cells, rows = grid()
    assert train(cells, rows, tmp_path / "a") == {"trained": 16, "finished": 0}
    for cell in reversed(cells[3:6]):
        train([cell], rows, tmp_path / "b")
    alone = content(tmp_path / "b")
    together = content(tmp_path / "a")
    assert len(alone) == 6 and all(together[name] == data for name, data in alone.items())


def test_two_workers_write_the_same_bytes(tmp_path):
    cells, rows = grid()
    cells = cells[:2] + cells[-2:]
    train(cells, rows, tmp_path / "one", workers=1)
    train(cells, rows, tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_stacked_grid_holds_the_same_saes(tmp_path):
    cells, rows = grid()
    train(cells, rows, tmp_path / "alone")
    assert train(cells, rows, tmp_path / "stacked", device="cpu:0") == {"trained": 16,
                                                                        "finished": 0}
    for cell in cells:
        alone, stacked = (load_sae(tmp_path / name / cell.folder) for name in ("alone", "stacked"))
        assert stacked.k == alone.k and stacked.info["backend"] == "stacked"
        assert np.abs(stacked.W_dec_FD - alone.W_dec_FD).max() < 5e-3


def test_the_progress_bar_shows_error_l0_and_dead_fraction(tmp_path, capsys):
    cells, rows = grid()
    train(cells[:1], rows, tmp_path, progress=True)
    info = load_sae(tmp_path / cells[0].folder).info
    held, dead = info["metrics"]["validation"], info["metrics"]["train"]["dead_fraction"]
    shown = capsys.readouterr().err
    assert "SAEs: 100%" in shown and "1/1" in shown
    for said in (f"fvu={held['fvu']:.3f}", f"l0={held['l0']:.0f}", f"dead={dead:.0%}"):
        assert said in shown


def test_a_killed_grid_goes_on_where_it_stopped(tmp_path, monkeypatch):
    cells, rows = grid()
    trained = []
    original = sae_grid.train_sae

    def dies_at_the_fourth(*args, **kwargs):
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(sae_grid, "train_sae", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        train(cells, rows, tmp_path / "a")
    monkeypatch.setattr(sae_grid, "train_sae", original)
    assert train(cells, rows, tmp_path / "a") == {"trained": 13, "finished": 3}
    assert train(cells, rows, tmp_path / "a") == {"trained": 0, "finished": 16}
    train(cells, rows, tmp_path / "whole")
    assert content(tmp_path / "a") == content(tmp_path / "whole")


@pytest.mark.parametrize("file", ["cfg.json", "sae_weights.safetensors"])
@pytest.mark.parametrize("on_other", ["refuse", "replace"])
def test_half_an_sae_is_trained_anew(tmp_path, file, on_other):
    """A kill between the two files of a removal: notebook 03 asked for notebook 03 ever after."""
    cells, rows = grid()
    train(cells[:2], rows, tmp_path)
    whole = content(tmp_path)
    (tmp_path / cells[1].folder / file).unlink()
    outcome = train(cells[:2], rows, tmp_path, on_other=on_other)
    assert outcome == {"trained": 1, "finished": 1} and content(tmp_path) == whole


def test_a_kill_while_an_sae_is_removed_leaves_nothing_that_looks_like_one(tmp_path, monkeypatch):
    cells, rows = grid()
    train(cells[:1], rows, tmp_path)
    place, rmtree = tmp_path / cells[0].folder, sae_grid.shutil.rmtree

    def dies(folder, **how):
        if folder.exists():
            (folder / "sae_weights.safetensors").unlink()
            raise KeyboardInterrupt

    monkeypatch.setattr(sae_grid.shutil, "rmtree", dies)
    with pytest.raises(KeyboardInterrupt):
        sae_grid.remove_sae(place)
    (left,) = place.parent.iterdir()
    assert left.name.startswith(".") and left.name.endswith(".part")  # as a half-written one
    monkeypatch.setattr(sae_grid.shutil, "rmtree", rmtree)
    assert not sae_grid.remove_sae(place) and not list(place.parent.iterdir())


@pytest.mark.parametrize("change", ["data", "shape", "recipe", "code"])
def test_an_sae_of_another_grid_is_refused_or_replaced(tmp_path, change, monkeypatch):
    cells, rows = grid()
    cells = cells[:2]
    train(cells, rows, tmp_path)
    options = {}
    if change == "data":
        rows["released", 0]["train"][0, 0] += 1
    elif change == "shape":  # the same numbers, cut into rows of half the width
        rows["released", 0] = {split: acts_ND.reshape(-1, acts_ND.shape[1] // 2)
                               for split, acts_ND in rows["released", 0].items()}
    elif change == "recipe":
        options["recipes"] = RECIPES | {"released": replace(RELEASED, epochs=3)}
    else:
        options["version"] = "other code"
    before = content(tmp_path)
    with pytest.raises(ValueError, match="seed_0 holds an SAE of another grid"):
        train(cells, rows, tmp_path, **options)
    assert content(tmp_path) == before
    outcome = train(cells, rows, tmp_path, on_other="replace", **options)
    assert outcome == {"trained": 2, "finished": 0}
    assert content(tmp_path) != before


def test_bad_grids_are_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(sae_grid, "train_sae", lambda *_: pytest.fail("training began"))
    cells, rows = grid()
    with pytest.raises(ValueError, match="no rows for protocol 'corrected', layer 3"):
        train(cells, {key: value for key, value in rows.items() if key != ("corrected", 3)},
              tmp_path)
    with pytest.raises(ValueError, match="has no validation rows"):
        train(cells, {key: {"train": value["train"]} for key, value in rows.items()}, tmp_path)
    rows["corrected", 3]["test"][2, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        train(cells, rows, tmp_path)
    with pytest.raises(ValueError, match="on_other = 'ask'"):
        train(cells[:1], rows, tmp_path, on_other="ask")


@pytest.mark.parametrize("k", [0, -1, LATENTS + 1, 2.5, None])
def test_impossible_k_of_a_hand_made_cell_is_refused_before_its_turn(tmp_path, monkeypatch, k):
    """Found late: the cell with too large a k was refused after the others had trained."""
    monkeypatch.setattr(sae_grid, "train_sae", lambda *_: pytest.fail("training began"))
    cells, rows = grid()
    cells[7] = replace(cells[7], k=k)
    with pytest.raises(ValueError, match=rf"seed_1: k = {k}: TopK keeps 1 to 16"):
        train(cells, rows, tmp_path)
    assert not list(tmp_path.iterdir())


def no_rows(splits, split):
    splits[split] = splits[split][:0]


def not_finite(splits, split, value=np.nan):
    splits[split][3, 1] = value


def constant(splits, split):
    splits[split][:, 2] = 7


def few(splits, split):
    splits[split] = splits[split][:15]


@pytest.mark.parametrize(("spoil", "split", "message"), [
    (not_finite, "train", "1 rows hold NaN or infinite.*row 3"),
    (not_finite, "validation", "1 rows hold NaN or infinite.*row 3"),
    (not_finite, "test", "1 rows hold NaN or infinite.*row 3"),
    (lambda *where: not_finite(*where, np.inf), "test", "1 rows hold NaN or infinite"),
    (constant, "train", "1 columns never vary.*2"),
    (few, "train", "15 training rows are fewer than the batch of 16"),
    (no_rows, "validation", r"layer 3 \(corrected\) has no validation rows"),
    (no_rows, "test", r"layer 3 \(corrected\) has no test rows"),
])
@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_spoilt_rows_of_the_last_cells_are_refused_before_the_first_trains(
    tmp_path, monkeypatch, spoil, split, message, device
):
    monkeypatch.setattr(sae_grid, "train_sae", lambda *_: pytest.fail("training began"))
    monkeypatch.setattr("saeutils.sae_stacked.train_stack",
                        lambda *_: pytest.fail("training began"))
    cells, rows = grid()
    spoil(rows["corrected", 3], split)
    with pytest.raises(ValueError, match=message):
        train(cells, rows, tmp_path, device=device)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("change", "message"), [
    ({"start": "zeros"}, "unknown start 'zeros' of the recipe 'corrected': linear, shaped"),
    ({"centre": "median"}, "unknown centre 'median'"),
    ({"pick": "test"}, "unknown pick 'test'"),
])
def test_a_recipe_that_cannot_be_followed_is_refused_before_training(
    tmp_path, monkeypatch, change, message
):
    monkeypatch.setattr(sae_grid, "train_sae", lambda *_: pytest.fail("training began"))
    cells, rows = grid()
    recipes = RECIPES | {"corrected": replace(RECIPES["corrected"], **change)}
    with pytest.raises(ValueError, match=message):
        train(cells, rows, tmp_path, recipes=recipes)
    with pytest.raises(ValueError, match="no recipe for protocol 'corrected'"):
        train(cells, rows, tmp_path, recipes={"released": RELEASED})
    with pytest.raises(ValueError, match="no recipe for protocol 'mine'"):
        train([replace(cells[0], protocol="mine")], rows, tmp_path,
              recipes={"mine": RELEASED})
    with pytest.raises(ValueError, match="stacked training has no auxiliary loss"):
        train(cells, rows, tmp_path, device="mps",
              recipes=RECIPES | {"corrected": replace(CORRECTED, aux_k=4)})


def test_table_is_tidy_and_agrees_with_the_saved_saes(tmp_path):
    cells, rows = grid()
    train(cells, rows, tmp_path)
    table = grid_table(cells, tmp_path, "demo")
    assert list(table) == ["encoder", "layer", "representation", "variant", "sparsity", "k",
                           "seed", "protocol", "split", "metric", "value"]
    keys = [name for name in table if name != "value"]
    assert not table.duplicated(keys).any() and table["value"].notna().all()
    assert set(table["representation"]) == {"sae", "random"}
    cell = cells[5]
    sae = load_sae(tmp_path / cell.folder)
    codes = sae.encode(rows[cell.protocol, cell.layer]["test"])
    row = table.query("layer == @cell.layer and sparsity == @cell.sparsity and "
                      "seed == @cell.seed and protocol == @cell.protocol and split == 'test' and "
                      "representation == 'sae' and metric == 'l0'")
    assert row["value"].item() == np.count_nonzero(codes) / len(codes)
    assert sae.info["seed"] == cell.random_seed and sae.info["seed_number"] == cell.seed
    history = json.loads((tmp_path / cell.folder / "cfg.json").read_text())["metadata"]["history"]
    assert len(history) == 2 and history[0]["epoch"] == 1


def test_batchtopk_stands_in_a_grid_beside_topk(tmp_path):
    """Layers x variants x sparsities x seeds in one call; each variant in a folder of its own."""
    _, rows = grid()
    rng = np.random.default_rng(5)
    rows = {place: splits | {"train": rng.standard_normal((80, 6)).astype(np.float32)}
            for place, splits in rows.items()}
    both = [make_cells([0, 3], [75], [0, 1], LATENTS, lambda layer, seed: 10 * layer + seed,
                       ["corrected"], variant) for variant in ("topk", "batchtopk")]
    cells = sum(both, [])
    assert cells[4].folder == "corrected/batchtopk/layer_00/sparsity_75/seed_0"
    assert train(cells, rows, tmp_path) == {"trained": 8, "finished": 0}
    assert train(cells, rows, tmp_path) == {"trained": 0, "finished": 8}
    table = grid_table(cells, tmp_path, "e")
    assert table.groupby("variant").size().to_dict() == {"batchtopk": len(table) // 2,
                                                         "topk": len(table) // 2}
    alone, _ = train_variant(rows["corrected", 3]["train"], rows["corrected", 3]["validation"],
                             LATENTS, 4, 31, "batchtopk", epochs=RECIPES["corrected"].epochs)
    kept = load_sae(tmp_path / cells[-1].folder)
    assert np.array_equal(kept.W_dec_FD, alone.W_dec_FD)
    assert np.array_equal(kept.threshold_F, alone.threshold_F)
    states = np.stack([rows["corrected", 0]["train"]] * 4, axis=1)
    found = representations.sae_cells(table, tmp_path, states, "corrected")
    assert [cell.variant for cell in found] == ["batchtopk"] * 8 + ["topk"] * 8
    assert {cell.k for cell in found} == {4}
    twins = [cell.dictionary for cell in found if cell.representation == "random"]
    assert np.allclose(twins[0].W_dec_FD, twins[4].W_dec_FD)  # the same start, whatever learned


@pytest.mark.parametrize(("variant", "protocol", "word"), [
    ("batchtop", "corrected", "unknown variant 'batchtop'"),
    ("batchtopk", "released", "the release knows TopK alone")])
def test_a_variant_that_no_grid_can_train_is_refused_first(tmp_path, variant, protocol, word):
    _, rows = grid()
    cells = make_cells([0], [75], [0], LATENTS, lambda *_: 0, [protocol], variant)
    with pytest.raises(ValueError, match=word):
        train(cells, rows, tmp_path)
    with pytest.raises(ValueError, match="fewer than the batch of 64"):
        train(make_cells([0], [75], [0], LATENTS, lambda *_: 0, ["corrected"], "l1"), rows,
              tmp_path)
    assert not any(tmp_path.iterdir())
