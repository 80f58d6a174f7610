import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saeutils.completeness import (
    average_disentanglement,
    completeness,
    disentanglement,
    effective_codes,
    entropy,
    group_counts,
    histogram_entropy,
    top_attributes,
)
from saeutils.disentanglement import (
    GAP,
    attribute_clusters,
    cross_validated_r2,
    held_out_map,
    live_codes,
    r2_interval,
    r2_score,
    r2_within,
    rank_normalise,
    released_map,
    singer_r2,
)
from saeutils.lasso import lasso, standardise
from saeutils.statistics import grouped_folds


def objective(x, y, weights, alpha):
    return ((y - x @ weights.T) ** 2).mean(axis=0) / 2 + alpha * np.abs(weights).sum(axis=1)


def topk_codes(rng, n, width, k):
    codes = np.maximum(rng.normal(size=(n, width)), 0)
    codes[np.argsort(np.argsort(-codes, axis=1), axis=1) >= k] = 0
    return codes


# The Lasso ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "width", "k"), [(60, 20, 20), (60, 150, 30), (60, 150, 3)])
def test_lasso_equals_scikit_learn_in_objective(n, width, k):
    from sklearn.linear_model import Lasso

    rng = np.random.default_rng(width + k)
    codes = topk_codes(rng, n, width, k)
    codes[:, 0] = 0  # a dead code
    codes[:, 2] = codes[:, 1]  # duplicated codes: the minimiser is not unique
    x = standardise(codes)[0]
    y = standardise(codes[:, 1:7] @ rng.normal(size=(6, 5)) + rng.normal(size=(n, 5)))[0]
    fit = lasso(x, y, 0.1, tolerance=1e-10)
    reference = Lasso(alpha=0.1, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(x, y).coef_
    ours, theirs = objective(x, y, fit.weights, 0.1), objective(x, y, reference, 0.1)
    assert np.allclose(ours, theirs, rtol=1e-8, atol=0)
    assert np.allclose(fit.objective, ours, rtol=1e-10)
    assert (fit.gap <= 1e-10 * 1.001).all() and (fit.gap > -1e-12).all()
    assert (fit.weights[:, 0] == 0).all()


def test_lasso_gap_bounds_the_distance_to_the_minimum():
    rng = np.random.default_rng(3)
    x = standardise(rng.normal(size=(40, 80)))[0]
    y = standardise(rng.normal(size=(40, 3)))[0]
    rough, exact = lasso(x, y, 0.05, tolerance=1e-2), lasso(x, y, 0.05, tolerance=1e-12)
    assert (rough.objective - exact.objective <= rough.gap + 1e-12).all()


def test_lasso_large_penalty_and_zero_target_give_zero():
    x = standardise(np.random.default_rng(0).normal(size=(30, 4)))[0]
    assert (lasso(x, x[:, :1], alpha=1.01).weights == 0).all()
    assert (lasso(x, np.zeros((30, 1))).weights == 0).all()


def test_lasso_refuses():
    x = np.ones((4, 2))
    with pytest.raises(ValueError, match="alpha 0"):
        lasso(x, x, alpha=0)
    with pytest.raises(ValueError, match="N > 0"):
        lasso(x, np.ones((3, 2)))
    with pytest.raises(ValueError, match="NaN"):
        lasso(x * np.nan, x)


def test_standardise_keeps_training_scale_and_constant_columns():
    values = np.array([[1.0, 7.0], [3.0, 7.0]])
    _, mean, scale = standardise(values)
    assert scale.tolist() == [1.0, 1.0] and standardise([[5.0, 8.0]], mean, scale)[0].tolist() == [
        [3.0, 1.0]
    ]
    assert (standardise(np.full((5, 1), 0.1) * 3)[0] == 0).all()


# Metric traps ---------------------------------------------------------------------------------


def test_trap_all_zero_a03():
    zero = np.zeros((2, 4))
    assert completeness(zero, released=True).tolist() == [1.0, 1.0]
    assert np.isnan(completeness(zero, released=False)).all()
    assert np.isnan(effective_codes(zero)).all() and np.isnan(average_disentanglement(zero))


def test_trap_identity_a05():
    assert average_disentanglement(np.eye(4), released=True) == pytest.approx(0.25)
    assert average_disentanglement(np.eye(4), released=False) == pytest.approx(1.0)


def test_trap_same_entropy_two_widths_a02():
    """The same weights score .57 over 768 columns and .625 over 2,048 (A02)."""
    count = 768 ** (1 - 0.57)
    whole = int(count)
    weights = np.zeros(768)
    weights[:whole] = 1
    low, high = 0.0, 1.0  # one last partial weight brings the entropy to log(count)
    for _ in range(60):
        weights[whole] = (low + high) / 2
        if entropy(weights[None])[0] < np.log(count):
            low = weights[whole]
        else:
            high = weights[whole]
    wide = np.zeros((1, 2048))
    wide[0, :768] = weights
    assert completeness(weights[None])[0] == pytest.approx(0.57, abs=1e-6)
    assert completeness(wide)[0] == pytest.approx(0.625, abs=1e-3)
    assert effective_codes(wide)[0] == pytest.approx(effective_codes(weights[None])[0])
    assert completeness(wide, n_codes=768)[0] == pytest.approx(0.57, abs=1e-6)


def test_trap_duplicated_codes():
    """Two copies of one code share its weight: the objective does not move, completeness may."""
    rng = np.random.default_rng(0)
    x = standardise(rng.normal(size=(80, 6)))[0]
    y = standardise(x[:, :2] @ np.array([[1.0], [0.5]]) + 0.1 * rng.normal(size=(80, 1)))[0]
    single = lasso(x, y, tolerance=1e-12)
    double = lasso(np.hstack([x, x]), y, tolerance=1e-12)
    assert double.objective == pytest.approx(single.objective, rel=1e-9)
    merged = double.weights[:, :6] + double.weights[:, 6:]
    assert np.allclose(merged, single.weights, atol=1e-5)
    plain, copied = released_map(x, y), released_map(np.hstack([x, x]), y)
    assert copied.r2 == pytest.approx(plain.r2, abs=1e-6)
    one, two = effective_codes(plain.weights), effective_codes(copied.weights)
    assert (one - 1e-3 <= two).all() and (two <= 2 * one + 1e-3).all()
    split = np.hstack([plain.weights, plain.weights]) / 2  # shared evenly: twice the codes
    assert effective_codes(split) == pytest.approx(2 * one)
    kept = np.log(12) * (1 - completeness(split)) - np.log(6) * (1 - completeness(plain.weights))
    assert kept == pytest.approx(np.log(2))  # nats of entropy added


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_trap_permutation(seed):
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(6, 9)) * (rng.random((6, 9)) < 0.5)
    codes, attributes = rng.permutation(9), rng.permutation(6)
    moved = weights[np.ix_(attributes, codes)]
    assert np.allclose(completeness(moved), completeness(weights)[attributes])
    assert np.allclose(disentanglement(moved), disentanglement(weights)[codes], equal_nan=True)
    assert np.allclose(average_disentanglement(moved), average_disentanglement(weights),
                       equal_nan=True)
    assert np.allclose(completeness(-3 * weights), completeness(weights))


def test_trap_pure_noise_a01():
    rng = np.random.default_rng(0)
    singers = np.repeat(np.arange(10), 40)
    codes, attributes = rng.normal(size=(400, 2048)), rng.normal(size=(400, 12))
    within_sample = released_map(codes, attributes).r2
    folds = grouped_folds(singers, (singers % 2).astype(str))
    held_out = cross_validated_r2(codes, attributes, folds, singers)
    assert within_sample.min() > 0.1 and np.median(held_out) <= 0
    exercises = np.zeros(400)
    train, test = np.flatnonzero(singers < 6), np.flatnonzero(singers >= 6)
    corrected = held_out_map(codes, attributes, train, test, singers, exercises)
    assert np.median(corrected.r2) <= 0 and np.median(corrected.r2_within) <= 0


def test_trap_one_outlier_clip_a22():
    """A code that fires on one clip explains the attribute whose one clip is an outlier."""
    rng = np.random.default_rng(0)
    singers = np.repeat(np.arange(8), 25)
    codes, attribute = topk_codes(rng, 200, 40, 10), rng.normal(size=(200, 1))
    attribute[17], codes[:, 0] = 500, 0
    codes[17, 0] = 1
    fooled = released_map(codes, attribute)
    assert fooled.r2[0] > 0.9 and completeness(fooled.weights)[0] > 0.9
    rows = np.arange(200)
    assert not live_codes(codes, singers)[0]
    fixed = held_out_map(codes, attribute, rows[singers < 5], rows[singers >= 5], singers,
                         np.zeros(200))
    assert fixed.r2[0] < 0.1 and fixed.weights[0, 0] == 0


def test_trap_constant_offset():
    rng = np.random.default_rng(0)
    codes, attributes = rng.normal(size=(60, 10)), rng.normal(size=(60, 3))
    plain, moved = released_map(codes, attributes), released_map(codes + 50, attributes - 7)
    assert np.allclose(plain.weights, moved.weights, atol=1e-6)
    assert not live_codes(np.full((30, 1), 2.0), np.arange(30))[0]


# Other parts ----------------------------------------------------------------------------------


def test_completeness_equals_scipy_entropy():
    from scipy.stats import entropy as scipy_entropy

    weights = np.abs(np.random.default_rng(0).normal(size=(5, 30)))
    expected = 1 - scipy_entropy(weights, axis=1) / np.log(30)
    assert np.allclose(completeness(weights), expected, atol=1e-12)
    across = 1 - scipy_entropy(weights, axis=0) / np.log(5)
    assert np.allclose(disentanglement(weights), across, atol=1e-12)
    naive = sum(weights[:, j].sum() * across[j] for j in range(30)) / weights.sum()
    assert average_disentanglement(weights) == pytest.approx(naive)
    with pytest.raises(ValueError, match="at least 2"):
        completeness(np.ones((2, 1)))


def test_r2_equals_scikit_learn():
    from sklearn.metrics import r2_score as reference

    rng = np.random.default_rng(0)
    y, guess = rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    assert np.allclose(r2_score(y, guess), reference(y, guess, multioutput="raw_values"))
    assert np.isnan(r2_score(np.ones((3, 1)), np.ones((3, 1)))[0])


def test_rank_normalise_by_scipy_and_on_new_clips():
    from scipy.stats import norm, rankdata

    values = np.random.default_rng(0).gamma(1, size=(40, 2))
    train = np.arange(30)
    scores = rank_normalise(values, train)
    expected = norm.ppf((rankdata(values[train], axis=0) - 0.5) / 30)
    assert np.allclose(scores[train], expected)
    assert np.array_equal(scores, rank_normalise(np.exp(values), train)) is False
    assert np.allclose(scores[train], rank_normalise(np.exp(values), train)[train])
    assert rank_normalise(np.array([[1.0], [2.0], [99.0]]), np.arange(2))[2, 0] == pytest.approx(
        norm.ppf(0.75)
    )
    assert (rank_normalise(np.full((4, 1), 3.0), np.arange(4)) == 0).all()
    with pytest.raises(ValueError, match="NaN"):
        rank_normalise(np.array([[np.nan]]), np.arange(1))


def test_within_singer_r2_gives_no_credit_for_the_singer():
    rng = np.random.default_rng(0)
    singers, exercises = np.repeat(np.arange(10), 20), np.tile([0, 1], 100)
    offset = rng.normal(size=10)[singers][:, None] * 5
    y = offset + rng.normal(size=(200, 1))
    assert r2_score(y, offset)[0] > 0.9 and abs(r2_within(y, offset, singers, exercises)[0]) < 0.05
    assert r2_within(y, y, singers, exercises)[0] == 1
    assert np.isnan(r2_within(offset, offset, singers, exercises)[0])


def test_singer_r2_averages_to_the_pooled_r2_and_the_interval_holds_it():
    rng = np.random.default_rng(0)
    singers = np.repeat(np.arange(6), 15)
    y = rng.normal(size=(90, 3))
    guess = 0.5 * y + 0.3 * rng.normal(size=(90, 3))
    names, scores = singer_r2(y, guess, singers)
    pooled = r2_score(y, guess, reference=0.0)
    assert len(names) == 6 and np.allclose(scores.mean(axis=0), pooled)
    low, high, without = r2_interval(y, guess, singers)
    assert without.shape == (len(np.unique(singers)), y.shape[1])
    assert ((low < pooled) & (pooled < high)).all()
    assert np.isnan(r2_interval(y, guess, np.zeros(90))[0]).all()


def test_normal_scores_may_be_handed_over_and_sums_by_group_are_pandas_sums():
    import pandas as pd

    from saeutils.disentanglement import sum_by

    rng = np.random.default_rng(0)
    singers = np.repeat(np.arange(10), 12)
    codes, values = np.maximum(rng.normal(size=(120, 15)), 0), rng.normal(size=(120, 3)) ** 3
    train, test = np.flatnonzero(singers < 7), np.flatnonzero(singers >= 7)
    rest = (train, test, singers, singers % 2, 0.1)
    plain = held_out_map(codes, values, *rest)
    handed = held_out_map(codes, values, *rest, scores_NA=rank_normalise(values, train))
    assert np.array_equal(plain.weights, handed.weights) and np.array_equal(plain.r2, handed.r2)
    theirs = pd.DataFrame(values).groupby(singers).sum().to_numpy()
    assert np.allclose(sum_by(values, singers, 10), theirs)


def test_held_out_map_refuses_shared_singers():
    x, singers = np.ones((6, 2)), np.array([0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match="singer '1' is in training and in test"):
        held_out_map(x, x, np.arange(3), np.arange(3, 6), singers, singers)


def test_clusters_join_near_copies_only():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(200, 3))
    values = np.hstack([base, -base[:, :1] + 0.1 * rng.normal(size=(200, 1)), np.ones((200, 1))])
    labels = attribute_clusters(values)
    assert labels.tolist() == [0, 1, 2, 0, 3]


def test_clusters_equal_a_naive_average_linkage():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(3)
    values = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 9)) + 0.4 * rng.normal(size=(60, 9))
    distance = 1 - np.abs(spearmanr(values).statistic)
    parts = [[i] for i in range(9)]
    while len(parts) > 1:
        pairs = [(distance[np.ix_(a, b)].mean(), i, j) for i, a in enumerate(parts)
                 for j, b in enumerate(parts) if i < j]
        least, i, j = min(pairs)
        if least > 0.3:
            break
        parts[i] += parts.pop(j)
    labels = attribute_clusters(values, 0.7)
    assert 1 < len(parts) < 9
    assert {frozenset(part) for part in parts} == {
        frozenset(np.flatnonzero(labels == label)) for label in set(labels)}


def test_entropy_of_bins_by_counting():
    values = np.random.default_rng(4).normal(size=(50, 2)) ** 3
    for found, column in zip(histogram_entropy(values), values.T, strict=True):
        width = (column.max() - column.min()) / 10
        bins = np.minimum(((column - column.min()) / width).astype(int), 9)
        shares = [np.mean(bins == b) for b in range(10)]
        assert found == pytest.approx(-sum(p * np.log2(p) for p in shares if p > 0))


def test_held_out_maps_equal_scikit_learn():
    """By another Lasso; normal scores are tested by themselves. Duality gaps allow 1e-3."""
    from sklearn.linear_model import Lasso

    rng = np.random.default_rng(5)
    singers = np.repeat(np.arange(6), 20)
    codes = np.maximum(rng.normal(size=(120, 8)), 0)
    attributes = codes[:, :2] + 0.5 * rng.normal(size=(120, 2))
    folds = grouped_folds(singers, (singers % 2).astype(str), 3)
    error, total = 0.0, 0.0
    for train, test in folds:
        y = rank_normalise(attributes, train)
        y = (y - y[train].mean(axis=0)) / y[train].std(axis=0)
        x = (codes - codes[train].mean(axis=0)) / codes[train].std(axis=0)
        fit = Lasso(0.1, fit_intercept=False, tol=1e-9, max_iter=100_000).fit(x[train], y[train])
        missed = ((y[test] - fit.predict(x[test])) ** 2).sum(axis=0)
        error, total = error + missed, total + (y[test] ** 2).sum(axis=0)
        found = held_out_map(codes, attributes, train, test, singers, np.zeros(120))
        assert found.r2 == pytest.approx(1 - missed / (y[test] ** 2).sum(axis=0), abs=1e-3)
        assert found.weights == pytest.approx(fit.coef_, abs=1e-2)
    assert cross_validated_r2(codes, attributes, folds, singers) == pytest.approx(
        1 - error / total, abs=1e-3)


def test_top_ten_groups_and_entropy_axis():
    assert top_attributes(np.array([0.1, np.nan, 0.5, 0.5]), 3).tolist() == [2, 3, 0]
    groups = {"a": "pitch", "b": "pitch", "c": "mfcc"}
    counts = group_counts(["a", "b", "c"], groups, np.array([2]))
    assert counts == {"pitch": (0, pytest.approx(2 / 3)), "mfcc": (1, pytest.approx(1 / 3))}
    with pytest.raises(ValueError, match="no group"):
        group_counts(["d"], groups, np.array([0]))
    even = np.arange(1000.0)[:, None]
    assert histogram_entropy(even)[0] == pytest.approx(np.log2(10), abs=1e-3)
    even[0] = 1e6
    assert histogram_entropy(even)[0] < 0.02  # one outlier empties the axis (A23)


def test_a_map_carries_the_gap_of_its_fit_and_says_if_it_was_stopped(monkeypatch):
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((60, 20)) @ rng.standard_normal((20, 20))
    attributes = codes[:, :3] + 0.1 * rng.standard_normal((60, 3))
    assert released_map(codes, attributes).gap.max() < GAP
    hurried = functools.partial(lasso, max_sweeps=1)
    monkeypatch.setattr("saeutils.disentanglement.lasso", hurried)
    with pytest.warns(UserWarning, match="of 3 Lasso fits stopped at a duality gap up to"):
        stopped = released_map(codes, attributes)
    assert stopped.gap.max() > GAP
