import numpy as np
import pytest

from saeutils import probing
from saeutils.probing import balanced_accuracy, encode_labels, released_probe, tuned_probe
from saeutils.scores import (
    auc,
    auc_without,
    chance_levels,
    confusion,
    jackknife_half,
    macro_f1,
    score_table,
)
from saeutils.statistics import grouped_folds, t_interval


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    values = rng.normal(size=(3, 20))[labels] + rng.normal(size=(120, 20))
    singers = np.arange(120) // 10
    names = np.array(["belt", "straight", "vibrato"])
    return values, names[labels], singers, names


def test_released_probe_takes_torchs_steps(clips):
    """Same start, same batches: Adam on one Linear layer in torch gives the same weights."""
    import torch

    values, labels, _, names = clips
    seed, epochs = 5, 3
    valid = values[:10] * np.nan  # a NaN loss never counts as best: the start is returned
    start = released_probe(values, labels, valid, labels[:10], names, seed, epochs)
    rng = np.random.default_rng(seed)
    bound = 1 / np.sqrt(20)
    table = rng.uniform(-bound, bound, (21, 3)).astype(np.float32)
    assert np.array_equal(start.weights, table[:-1])
    layer = torch.nn.Linear(20, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(table[:-1].T.copy()))
        layer.bias.copy_(torch.from_numpy(table[-1].copy()))
    adam = torch.optim.Adam(layer.parameters(), lr=1e-3)
    x, y = torch.from_numpy(values.astype(np.float32)), encode_labels(labels, names)
    losses, states = [], []
    for _ in range(epochs):
        order = rng.permutation(120)
        for first in range(0, 120, 32):
            rows = order[first : first + 32]
            adam.zero_grad()
            torch.nn.functional.cross_entropy(layer(x[rows]), torch.from_numpy(y[rows])).backward()
            adam.step()
        states.append(layer.weight.detach().numpy().T.copy())
        losses.append(torch.nn.functional.cross_entropy(layer(x), torch.from_numpy(y)).item())
    ours = released_probe(values, labels, values, labels, names, seed, epochs)
    assert ours.details["epoch"] == int(np.argmin(losses)) == epochs - 1
    assert np.allclose(ours.weights, states[-1], atol=1e-5)  # float32 sums in another order


def test_tuned_probe_equals_scikit_learn(clips):
    from sklearn.linear_model import LogisticRegression

    values, labels, singers, names = clips
    folds = grouped_folds(singers, (singers % 2).astype(str), 3)
    probe = tuned_probe(values, labels, folds, names, penalties=(0.01,), scales=("standardised",))
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    theirs = LogisticRegression(C=1 / (0.01 * 120), tol=1e-8, max_iter=5000).fit(scaled, labels)
    # Weights of a softmax are fixed by the penalty: compare them on the scaled columns.
    ours = probe.weights * values.std(axis=0)[:, None]
    assert np.allclose(ours, theirs.coef_.T, atol=2e-4)
    assert (probe.predict(values) == theirs.predict(scaled)).all()


def test_rotation_is_exact_when_columns_outnumber_clips(clips):
    from sklearn.linear_model import LogisticRegression

    _, labels, singers, names = clips
    wide = np.random.default_rng(1).normal(size=(120, 300))
    folds = grouped_folds(singers, (singers % 2).astype(str), 3)
    probe = tuned_probe(wide, labels, folds, names, penalties=(0.1,), scales=("standardised",))
    scaled = (wide - wide.mean(axis=0)) / wide.std(axis=0)
    theirs = LogisticRegression(C=1 / (0.1 * 120), tol=1e-8, max_iter=5000).fit(scaled, labels)
    assert np.allclose(probe.weights * wide.std(axis=0)[:, None], theirs.coef_.T, atol=2e-4)


def test_whitening_wins_where_the_signal_is_in_a_small_direction():
    rng = np.random.default_rng(0)
    names, labels = np.array(["a", "b"]), rng.integers(0, 2, 200)
    values = rng.normal(size=(200, 1)) @ rng.normal(size=(1, 10)) * 30
    values[:, 0] += 0.4 * (labels - 0.5)
    values += 0.05 * rng.normal(size=values.shape)
    singers = np.arange(200) // 20
    folds = grouped_folds(singers, (singers % 2).astype(str), 4)
    both = tuned_probe(values, names[labels], folds, names, whiten=True, penalties=(1.0, 0.1))
    plain = tuned_probe(values, names[labels], folds, names, penalties=(1.0, 0.1))
    assert both.details["basis"] == "whitened"
    assert both.details["inner"] > plain.details["inner"] + 0.05
    assert (both.predict(values) == names[labels]).mean() > 0.9


def test_one_scale_equals_scikit_learn_on_columns_as_they_are(clips):
    from sklearn.linear_model import LogisticRegression

    values, labels, singers, names = clips
    values = values * np.linspace(0.2, 3, values.shape[1])
    folds = grouped_folds(singers, (singers % 2).astype(str), 3)
    probe = tuned_probe(values, labels, folds, names, penalties=(0.01,), scales=("one scale",))
    one = np.sqrt(values.var(axis=0).mean())
    theirs = LogisticRegression(C=1 / (0.01 * 120), tol=1e-8, max_iter=5000).fit(values / one,
                                                                                labels)
    assert np.allclose(probe.weights * one, theirs.coef_.T, atol=2e-4)


def test_a_code_that_fires_once_is_no_spike_to_lean_on(clips):
    """Columns on one clip each: brought to SD 1 they are learned by heart."""
    values, labels, singers, names = clips
    rng = np.random.default_rng(3)
    rare = np.zeros((120, 60))
    rare[rng.permutation(120)[:60], np.arange(60)] = rng.uniform(0.5, 1, 60)
    both = np.hstack([values, rare])
    folds = grouped_folds(singers, (singers % 2).astype(str), 3)
    for scale, weight_on_rare in (("every column standardised", True), ("standardised", False)):
        probe = tuned_probe(both, labels, folds, names, penalties=(0.01,), scales=(scale,))
        assert (np.abs(probe.weights[20:]).max() > 0.05) == weight_on_rare
    with_rare, alone = (tuned_probe(x, labels, folds, names, penalties=(0.01,),
                                    scales=("standardised",)) for x in (both, values))
    assert np.allclose(with_rare.weights[:20], alone.weights, atol=1e-4)


def test_the_scale_is_chosen_where_it_matters():
    """Two loud columns tell the classes; 150 quiet ones, noise, drown them once at SD 1."""
    rng = np.random.default_rng(0)
    names, labels = np.array(["a", "b"]), rng.integers(0, 2, 200)
    small = 0.02 * rng.normal(size=(200, 150))  # standardised they drown the signal
    loud = rng.normal(size=(200, 2)) + np.where(labels[:, None] == 1, 1.0, -1.0)
    values, singers = np.hstack([small, loud]), np.arange(200) // 20
    folds = grouped_folds(singers, (singers % 2).astype(str), 5)
    free = tuned_probe(values, names[labels], folds, names)
    fixed = tuned_probe(values, names[labels], folds, names, scales=("standardised",))
    assert free.details["basis"] == "one scale"
    assert free.details["inner"] > fixed.details["inner"]


def test_tuned_probe_ignores_dead_and_constant_columns(clips):
    values, labels, singers, names = clips
    folds = grouped_folds(singers, (singers % 2).astype(str), 3)
    padded = np.hstack([values, np.zeros((120, 5)), np.full((120, 1), 7.0)])
    first = tuned_probe(values, labels, folds, names, penalties=(0.1,))
    second = tuned_probe(padded, labels, folds, names, penalties=(0.1,))
    assert np.allclose(first.weights, second.weights[:20], atol=1e-4)
    assert np.allclose(second.weights[20:], 0, atol=1e-8)


def test_a_class_without_training_clips_is_never_guessed(clips):
    values, labels, singers, names = clips
    folds = grouped_folds(singers, (singers % 2).astype(str), 3)
    probe = tuned_probe(values, labels, folds, np.append(names, "spoken"), penalties=(0.1,))
    assert "spoken" not in probe.predict(values)


def test_probes_refuse(clips):
    values, labels, singers, names = clips
    with pytest.raises(ValueError, match="unknown class 'vibrato'"):
        encode_labels(labels, names[:2])
    with pytest.raises(ValueError, match="0 validation clips"):
        released_probe(values, labels, values[:0], labels[:0], names, 0)
    with pytest.raises(ValueError, match="positive"):
        tuned_probe(values, labels, [], names, penalties=())
    with pytest.raises(ValueError, match="unknown scale 'log': there are standardised, one scale"):
        tuned_probe(values, labels, [], names, scales=("log",))


def test_scores_equal_scikit_learn():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(0, 4, 90), rng.integers(0, 4, 90)
    assert balanced_accuracy(labels, guesses) == pytest.approx(
        metrics.balanced_accuracy_score(labels, guesses)
    )
    assert macro_f1(labels, guesses) == pytest.approx(
        metrics.f1_score(labels, guesses, average="macro")
    )
    ours = confusion(labels, guesses, np.arange(4)).to_numpy()
    assert np.allclose(ours, metrics.confusion_matrix(labels, guesses, normalize="true"))
    scores = rng.integers(0, 6, 90)
    assert auc(scores, labels > 1) == pytest.approx(metrics.roc_auc_score(labels > 1, scores))
    assert np.isnan(auc(scores, labels > 9))
    assert np.isnan(confusion(labels, guesses, np.arange(5)).to_numpy()[4]).all()


def test_an_area_without_each_singer_is_the_area_of_the_others():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    singers, positive = np.repeat(list("abcd"), 12), rng.random(48) < 0.4
    score = np.round(rng.normal(size=48) + positive, 1)  # with ties
    theirs = [roc_auc_score(positive[singers != name], score[singers != name]) for name in "abcd"]
    assert np.allclose(auc_without(score, positive, singers), theirs, atol=1e-12)
    alone = auc_without(score, singers == "a", singers)
    assert np.isnan(alone[0]) and np.isfinite(alone[1:]).all()


def test_the_jackknife_of_a_mean_is_the_t_interval():
    values = np.random.default_rng(0).normal(size=(7, 3))
    without = (values.sum(axis=0) - values) / 6
    for half, column in zip(jackknife_half(without), values.T, strict=True):
        interval = t_interval(column)
        assert half == pytest.approx(interval.high - interval.mean)
    assert np.isnan(jackknife_half(without[:1])).all()


def test_score_table_by_hand():
    labels = np.array(["a", "a", "a", "b", "a", "b"])
    guesses = np.array(["a", "a", "b", "b", "a", "a"])
    singers = np.array([1, 1, 1, 1, 2, 2])
    table = score_table(labels, guesses, singers, np.array(["a", "b", "c"]))
    value = table[table["singer"] == ""].set_index(["metric", "technique"])["value"]
    assert value["accuracy", ""] == pytest.approx(4 / 6)
    assert value["balanced_accuracy", ""] == pytest.approx(((2 / 3 + 1) / 2 + 0.5) / 2)
    assert value["recall", "a"] == 0.75 and value["recall", "b"] == 0.5
    assert ("recall", "c") not in value.index
    each = table[table["singer"] == "1"].set_index("metric")
    assert each.loc["accuracy", "value"] == 0.75 and each.loc["accuracy", "n"] == 4
    assert each.loc["balanced_accuracy", "value"] == pytest.approx((2 / 3 + 1) / 2)
    assert (table["ci_low"].isna() | (table["ci_low"] <= table["ci_high"])).all()
    with pytest.raises(ValueError, match="empty"):
        score_table(labels[:0], guesses[:0], singers[:0], np.array(["a"]))


def test_one_test_singer_gives_no_interval():
    table = score_table(np.array(["a", "b"]), np.array(["a", "a"]), np.array([1, 1]), ["a", "b"])
    assert table["ci_low"].isna().all() and table["value"].notna().all()


def test_chance_levels_by_hand():
    assert chance_levels(["a", "a", "b"], ["a", "b", "b", "c"]) == {"chance": 1 / 3,
                                                                    "majority": 0.25}


def test_logistic_loss_matches_its_parts():
    weights = np.array([[1.0, 0.0], [0.0, 0.0]])
    value = probing.logistic_loss(weights, np.array([[0.0]]), np.array([0]), 2.0)
    assert value == pytest.approx(np.log(2) + 1)


def test_zeros_may_be_skipped_or_not(clips):
    """Both ways through the released probe's kernel: sparse rows, and the same rows as they are."""
    from saeutils.probe_kernels import adam_epoch, compressed

    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 300)) * (rng.random((50, 300)) < 0.05)
    x = np.concatenate([x, np.ones((50, 1))], axis=1).astype(np.float32)
    labels, order = rng.integers(0, 4, 50), rng.permutation(50)
    found = []
    for rows in (x, x[:0]):
        start = rng.bit_generator.state  # the same start twice
        weights = rng.normal(size=(301, 4)).astype(np.float32)
        first, second = np.zeros_like(weights), np.zeros_like(weights)
        rng.bit_generator.state = start
        count = adam_epoch(rows, *compressed(x), labels, order, 16, 1e-2, 0, weights, first, second)
        assert count == 4  # 50 clips in batches of 16: the last one has two
        found.append(weights)
    assert np.allclose(*found, atol=1e-5) and not np.array_equal(found[0], 0 * found[0])


def test_compressed_rows_hold_what_was_there():
    from saeutils.probe_kernels import compressed

    table = np.array([[0, 0, 0], [0, 5, 0], [1, 0, 2]], dtype=np.float32)
    values, columns, begins = compressed(table)
    again = np.zeros_like(table)
    for row in range(3):
        part = slice(begins[row], begins[row + 1])
        again[row, columns[part]] = values[part]
    assert np.array_equal(again, table)


@pytest.mark.parametrize("columns", [20, 300])
@pytest.mark.parametrize("basis", list(probing.SCALES))
def test_a_rotation_and_its_way_back(clips, columns, basis):
    """Logits in the rotated coordinates are those of the columns as they are."""
    rng = np.random.default_rng(columns)
    values = 3 + rng.normal(size=(60, columns)) * rng.uniform(0.1, 9, columns)
    new = 3 + rng.normal(size=(7, columns))
    turned = probing._rotation(values, basis)
    weights = rng.normal(size=(turned.train_NR.shape[1], 3))
    assert np.allclose(turned.rotate(values), turned.train_NR, atol=1e-6)
    back = turned.back(weights)
    assert np.allclose((new - turned.mean_F) @ back, turned.rotate(new) @ weights, atol=1e-6)
    if basis == "whitened":
        power = turned.train_NR.T @ turned.train_NR / 60
        assert np.allclose(power, np.eye(len(power)), atol=1e-6)
