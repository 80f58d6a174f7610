import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from saeutils.statistics import (
    average_seeds,
    grouped_folds,
    max_t_band,
    non_inferiority,
    sign_flip_p,
    singer_means,
    t_interval,
)


def test_singer_means_by_hand_with_nan():
    names, means = singer_means(np.array([1.0, np.nan, 4.0, 6.0]), np.array(["b", "b", "a", "a"]))
    assert names.tolist() == ["a", "b"] and means.tolist() == [5.0, 1.0]
    with pytest.raises(ValueError, match="3 values but 2 singers"):
        singer_means(np.zeros(3), np.array(["a", "b"]))


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
@settings(max_examples=50, deadline=None)
def test_t_interval_equals_scipy(values):
    ours = t_interval(np.array(values))
    spread = stats.sem(values)
    if spread > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), spread)
        assert np.allclose([ours.low, ours.high], [low, high], rtol=1e-9, atol=1e-9)
    assert ours.low <= ours.mean <= ours.high


def test_t_interval_of_one_singer_has_no_bounds():
    interval = t_interval(np.array([0.5, np.nan]))
    assert interval.mean == 0.5 and interval.n == 1 and np.isnan(interval.low)
    with pytest.raises(ValueError, match="confidence 95"):
        t_interval(np.ones(3), 95)


def test_t_interval_covers_five_singers():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2000, 5))
    covered = [i.low <= 0 <= i.high for i in map(t_interval, draws)]
    assert 0.93 < np.mean(covered) < 0.97  # binomial SD .005


def test_sign_flip_exact_and_drawn():
    assert sign_flip_p(np.array([1.0, 1.0, 1.0, 1.0, 1.0])) == 2 / 32
    assert sign_flip_p(np.array([1.0, -1.0])) == 1.0
    values = np.random.default_rng(1).normal(0.5, 1, 12)
    exact = sign_flip_p(values)
    reference = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert exact == pytest.approx(reference, abs=1e-12)
    assert np.isnan(sign_flip_p(np.array([1.0])))


def test_sign_flip_drawn_is_repeatable_and_never_zero():
    values = np.full(20, 1.0)
    assert sign_flip_p(values, 500, seed=3) == sign_flip_p(values, 500, seed=3)
    assert sign_flip_p(values, 500) == pytest.approx(1 / 501)


def test_max_t_band_is_wider_than_single_intervals_and_covers():
    rng = np.random.default_rng(0)
    outside = 0
    for _ in range(200):
        table = rng.normal(size=(12, 30))
        mean, low, high = max_t_band(table)
        outside += bool(((low > 0) | (high < 0)).any())
        single = t_interval(table[:, 0])
        assert high[0] - low[0] > single.high - single.low
    assert outside / 200 < 0.10  # nominal .05, SD .015


def test_max_t_band_refuses_nan_and_survives_one_singer():
    with pytest.raises(ValueError, match="finite"):
        max_t_band(np.array([[1.0, np.nan]]))
    assert np.isnan(max_t_band(np.ones((1, 3)))[1]).all()
    mean, low, high = max_t_band(np.zeros((5, 2)))
    assert (low == 0).all() and (high == 0).all()


def test_non_inferiority_by_hand():
    values = np.array([-0.01, 0.0, 0.01, 0.02])
    decision = non_inferiority(values, 0.03)
    bound = stats.t.ppf(0.95, 3)
    expected = values.mean() - bound * values.std(ddof=1) / 2
    assert decision.lower_bound == pytest.approx(expected) and decision.kept
    assert not non_inferiority(values - 0.05, 0.03).kept
    assert not non_inferiority(np.array([0.5]), 0.03).kept  # one singer decides nothing
    with pytest.raises(ValueError, match="positive"):
        non_inferiority(values, 0)


def test_average_seeds_does_not_pool_seeds_as_singers():
    rng = np.random.default_rng(0)
    singer = rng.normal(size=8)
    per_singer, spread = average_seeds(np.stack([singer, singer, singer]))
    assert np.allclose(per_singer, singer) and spread < 1e-12
    assert t_interval(per_singer).n == 8
    with pytest.raises(ValueError, match="seeds, singers"):
        average_seeds(singer)


@given(st.integers(2, 8), st.integers(2, 6), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_folds_keep_singers_whole_and_cover_every_row(n_singers, n_folds, seed):
    rng = np.random.default_rng(seed)
    singers = rng.permutation(np.repeat(np.arange(n_singers), 3))
    sexes = np.where(singers % 2, "F", "M")
    folds = grouped_folds(singers, sexes, n_folds, seed)
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(len(singers)))
    for train, test in folds:
        assert not set(singers[train]) & set(singers[test]) and len(test)


def test_folds_balance_the_sexes():
    singers = np.repeat(np.arange(20), 2)
    sexes = np.where(singers < 10, "F", "M")
    for _, test in grouped_folds(singers, sexes, 5, seed=1):
        assert np.mean(sexes[test] == "F") == 0.5
    with pytest.raises(ValueError, match="two sexes"):
        grouped_folds(np.array([1, 1, 2]), np.array(["F", "M", "F"]))
    with pytest.raises(ValueError, match="at least 2"):
        grouped_folds(np.array([1, 1]), np.array(["F", "F"]))
