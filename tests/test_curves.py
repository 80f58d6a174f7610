import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saeutils.claims import (
    best_linear,
    ceiling,
    k_curve_cell,
    readable,
    reading_contrasts,
    summarise_curves,
    weighted_median,
)
from saeutils.curves import area, cluster_weights, k90, k_curve, pursuit, ridge_path
from saeutils.lasso import standardise
from saeutils.representations import Representation, linear_cells
from saeutils.statistics import grouped_folds


def test_pursuit_equals_scikit_learn():
    from sklearn.linear_model import orthogonal_mp

    rng = np.random.default_rng(0)
    x = standardise(rng.normal(size=(60, 90)))[0]
    y = standardise(rng.normal(size=(60, 4)))[0]
    ours = pursuit(x, y, (1, 3, 8))
    for weights, k in zip(ours, (1, 3, 8), strict=True):
        theirs = np.stack([orthogonal_mp(x, y[:, a], n_nonzero_coefs=k) for a in range(4)], axis=1)
        assert np.allclose(weights, theirs, atol=1e-8)


@given(st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_more_codes_never_fit_training_clips_worse(seed):
    rng = np.random.default_rng(seed)
    x = standardise(rng.normal(size=(30, 20)))[0]
    y = rng.normal(size=(30, 2))
    y -= y.mean(axis=0)
    errors = [((y - x @ w) ** 2).sum() for w in pursuit(x, y, (1, 2, 5, 10))]
    assert (np.diff(errors) <= 1e-9).all()
    counts = [(w != 0).sum(axis=0).max() for w in pursuit(x, y, (1, 2, 5, 10))]
    assert counts == [1, 2, 5, 10]


def test_pursuit_with_duplicated_dead_and_exhausted_codes():
    rng = np.random.default_rng(0)
    x = standardise(rng.normal(size=(40, 3)))[0]
    wide = np.hstack([x, x, np.zeros((40, 2))])
    y = x @ np.array([[1.0], [2.0], [0.0]])
    weights = pursuit(wide, y, (1, 2, 50))
    assert np.allclose(wide @ weights[1], y, atol=1e-6)
    assert np.allclose(wide @ weights[2], y, atol=1e-6)  # nothing left to add
    assert (weights[:, 6:] == 0).all()
    assert (pursuit(wide, np.zeros((40, 1)), (1, 5)) == 0).all()


@pytest.mark.parametrize("shape", [(30, 10), (30, 80)])
def test_ridge_equals_scikit_learn(shape):
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=shape), rng.normal(size=(shape[0], 3))
    for weights, penalty in zip(ridge_path(x, y, (0.1, 2.0)), (0.1, 2.0), strict=True):
        theirs = Ridge(alpha=penalty * shape[0], fit_intercept=False).fit(x, y).coef_.T
        assert np.allclose(weights, theirs, atol=1e-8)


def test_area_and_k90_by_hand():
    assert area(np.array([0.2, 0.2, 0.2]), (1, 5, 50)) == pytest.approx(0.2)
    assert area(np.array([[0.3]]), (5,)).tolist() == [0.3]
    curve = np.array([[0.1, 0.5, 0.1], [0.3, 0.6, 0.2]])
    found = k90(curve, np.array([0.3, 0.5, 0.9]), (1, 5))
    assert found.tolist() == [5.0, 1.0, np.inf]
    assert np.isnan(k90(curve, np.array([-0.1, np.nan, 0.0]), (1, 5))).all()


def test_clusters_count_once_whatever_their_size():
    weights = cluster_weights(np.array([4, 4, 4, 9]))
    assert weights.tolist() == pytest.approx([1 / 6] * 3 + [1 / 2])
    part = cluster_weights(np.array([4, 4, 4, 9]), np.array([True, False, False, True]))
    assert part.tolist() == [0.5, 0, 0, 0.5]
    with pytest.raises(ValueError, match="no attribute is left"):
        cluster_weights(np.array([0, 1]), np.array([False, False]))
    assert np.isnan(weighted_median(np.array([np.nan]), np.array([1.0])))


@pytest.fixture(scope="module")
def material():
    """Six causes; "good" codes hold one each, "mixed" codes rotate them, noise codes hold none."""
    rng = np.random.default_rng(0)
    singers = np.repeat(np.arange(12), 25)
    exercises = np.tile(["a", "b", "c", "d", "e"], 60)
    causes = rng.normal(size=(300, 6)) + 0.5 * rng.normal(size=(12, 6))[singers]
    attributes = causes @ np.diag([1, 2, 3, 1, 2, 3]) + 0.3 * rng.normal(size=(300, 6))
    train, test = np.flatnonzero(singers < 8), np.flatnonzero(singers >= 8)
    folds = grouped_folds(singers[train], (singers[train] % 2).astype(str), 3)
    arguments = {"attributes_NA": attributes, "train": train, "test": test, "singers": singers,
                 "exercises": exercises, "folds": folds}
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    return causes, causes @ turn, rng.normal(size=(300, 30)), arguments


def test_codes_that_are_causes_need_one_code_rotated_ones_need_all(material):
    good, mixed, noise, arguments = material
    pure, turned = (k_curve(x, k_values=(1, 2, 5), **arguments) for x in (good, mixed))
    assert (pure.r2[0] > 0.8).all() and turned.r2[0].mean() < 0.6
    assert np.allclose(pure.ridge, turned.ridge, atol=0.01)  # a rotation holds the same
    assert (pure.inner_area > turned.inner_area).all()
    nothing = k_curve(noise, k_values=(1, 5, 20), **arguments)
    assert np.median(nothing.r2) <= 0 and np.median(nothing.r2_within) <= 0.01
    assert pure.by_singer.shape == (3, 4, 6)


def test_without_the_inner_curve_all_else_is_the_same(material):
    good, _, _, arguments = material
    whole = k_curve(good, k_values=(1, 2), **arguments)
    brief = k_curve(good, k_values=(1, 2), inner_curve=False, **arguments)
    assert np.isnan(brief.inner_area).all() and np.isfinite(whole.inner_area).all()
    for name in ("r2", "r2_within", "by_singer", "ridge", "ridge_inner"):
        assert np.array_equal(getattr(brief, name), getattr(whole, name)), name


def test_constant_offset_and_permutation_do_not_move_the_curve(material):
    good, _, _, arguments = material
    plain = k_curve(good, k_values=(1, 2), **arguments)
    moved = k_curve(good[:, ::-1] * 3 + 100, k_values=(1, 2), **arguments)
    assert np.allclose(plain.r2, moved.r2, atol=1e-9)


@pytest.fixture(scope="module")
def long_table(material):
    good, mixed, noise, arguments = material
    names = [f"a{i}" for i in range(6)]
    cells = [("raw", np.nan, 0, mixed), ("whitened_pca", np.nan, 0, noise),
             ("sae", 95.0, 0, good), ("sae", 95.0, 1, good), ("random", 95.0, 0, noise),
             ("random", 95.0, 1, noise)]
    parts = []
    for kind, sparsity, seed, codes in cells:
        cell = Representation("demo", 0, kind, "", sparsity, 3, seed, "corrected")
        parts.append(cell.label(k_curve_cell(codes, cell, names, **arguments)))
    return pd.concat(parts, ignore_index=True), names


def test_tables_of_claim_two(long_table):
    table, names = long_table
    clusters = np.array([0, 1, 2, 0, 1, 2])
    use = readable(table, names)
    assert use.all() and (ceiling(table, names) > 0.8).all()
    summary = summarise_curves(table, names, clusters, use).set_index(
        ["representation", "seed", "metric", "codes"])["value"]
    assert summary["sae", 0, "k90", 0] == 1 and summary["random", 0, "k90", 0] == np.inf
    assert summary["random", 1, "k90_censored", 0] == pytest.approx(1)
    assert summary["raw", 0, "r2_held_out", 1] < summary["sae", 0, "r2_held_out", 1]
    assert best_linear(table, names, cluster_weights(clusters)) == "raw"
    rows = reading_contrasts(table, names, clusters, use).set_index("contrast")
    assert (rows["ci_low"] > 0).all() and (rows["n"] == 4).all()
    assert rows.loc["against_linear", "reference"] == "raw"
    within = reading_contrasts(table, names, clusters, use, "area_within").set_index("contrast")
    assert not np.allclose(within["value"], rows["value"])


@pytest.mark.parametrize(("areas", "curve_of"), [("area", "r2_held_out"),
                                                 ("area_within", "r2_within_singer")])
def test_singer_areas_average_to_the_curve(long_table, material, areas, curve_of):
    table, names = long_table
    test = material[3]["test"]
    one = table[(table["representation"] == "raw")]
    by_singer = one[one["metric"] == areas].pivot(
        index="singer", columns="attribute", values="value")[names]
    assert len(by_singer) == len(np.unique(material[3]["singers"][test])) == 4
    curve = one[(one["metric"] == curve_of) & (one["singer"] == "")].pivot(
        index="codes", columns="attribute", values="value")[names]
    pooled = area(curve.to_numpy(), curve.index)
    assert np.allclose(by_singer.mean(axis=0), pooled, atol=1e-9)  # equal clips per singer


def test_what_never_varies_within_a_singer_has_no_score_there(material):
    good, mixed, _, arguments = material
    singers = arguments["singers"]
    height = np.unique(singers, return_inverse=True)[1].astype(float)
    fixed = arguments | {"attributes_NA": np.column_stack(
        [arguments["attributes_NA"][:, :2], height])}
    found = k_curve(good, k_values=(1, 2), **fixed)
    assert np.isnan(found.by_singer_within[:, :, 2]).all()
    assert np.isfinite(found.by_singer_within[:, :, :2]).all()


def test_linear_bases_are_white_and_stay_in_the_span():
    rng = np.random.default_rng(0)  # of normal sources no rotation is better, and none is found
    states = rng.laplace(size=(200, 4)) @ rng.normal(size=(4, 9)) + 5
    whitened, ica = linear_cells("demo", 2, "corrected", states, seed=0)
    codes = whitened.encode(states)
    assert codes.shape[1] <= 4
    assert np.allclose(codes.T @ codes / 200, np.eye(codes.shape[1]), atol=1e-3)
    sources = ica.encode(states)
    assert np.allclose(sources.T @ sources / 200, np.eye(sources.shape[1]), atol=1e-3)
    assert (ica.representation, ica.layer) == ("ica", 2)
