"""Training one SAE: gradients, the two backends, the recipe's choices."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saeutils import sae_metrics, sae_training
from saeutils.sae_kernels import select_largest
from saeutils.sae_sparse import SparseSteps
from saeutils.sae_stacked import train_stack
from saeutils.sae_starts import linear_start, random_dictionary, untrained_twin
from saeutils.sae_torch import DenseSteps
from saeutils.sae_training import CORRECTED, RELEASED, Recipe, centre_and_scale, train_sae

WIDTH, LATENTS = 12, 40
AUXILIARY = Recipe("auxiliary", start="shaped", centre="mean", unit_norm=True, dead_after=1,
                   aux_k=8, aux_weight=1 / 32)


def rows(n=96, seed=0, width=WIDTH):
    """Sparse sums of 30 directions, with an offset: what an SAE is made for."""
    rng = np.random.default_rng([seed, n])
    directions = np.random.default_rng(0).standard_normal((30, width))
    amounts = rng.exponential(1, (n, 30)) * (rng.random((n, 30)) < 0.1)
    return (amounts @ directions + 0.05 * rng.standard_normal((n, width)) + 2).astype(np.float32)


@pytest.mark.parametrize("unit_norm", [False, True])
@pytest.mark.parametrize("aux", [0, 6])
def test_handwritten_gradients_are_those_of_autograd(unit_norm, aux):
    start = linear_start(WIDTH, LATENTS, 0)
    start["W_dec_FD"] /= np.linalg.norm(start["W_dec_FD"], axis=1, keepdims=True)
    batch = torch.tensor(rows(16))
    dead = torch.arange(LATENTS) < 15
    steps = DenseSteps(start, 5, 16, unit_norm, aux, 1 / 32)
    weights = [w.clone().requires_grad_() for w in steps.weights]
    steps.adam.step = lambda: None  # look at the gradients of the first step, before it is taken
    steps._step(batch, dead, aux)

    def kept(pre, k):
        value, place = pre.relu().topk(k, dim=1)
        return torch.zeros_like(pre).scatter(1, place, value)

    pre = batch @ weights[0] + weights[1]
    error = kept(pre, 5) @ weights[2] - batch
    loss = error.square().mean()
    if aux:
        woken = kept(torch.where(dead, pre, -1), aux) @ weights[2]
        loss = loss + (woken + error.detach()).square().mean() / 32
    loss.backward()
    for mine, reference in zip(steps.weights, weights, strict=True):
        expected = reference.grad
        if unit_norm and mine is steps.weights[2]:
            along = (expected * reference).sum(1, keepdim=True)
            expected = expected - along * reference
        assert torch.allclose(mine.grad, expected, atol=1e-6)


@pytest.mark.parametrize("recipe", [RELEASED, CORRECTED, AUXILIARY], ids=lambda r: r.name)
@pytest.mark.parametrize("k", [2, 10, LATENTS])
def test_backends_agree_over_fifty_steps(recipe, k):
    """96 rows, 16 a step, 9 epochs: 54 steps. Adam divides by tiny moments, so weights may differ
    where a gradient is nearly zero; what the weights do agrees to 1e-5."""
    recipe = replace(recipe, epochs=9, decay=0, patience=0)
    train, held = rows(96), rows(40, 1)
    (sparse, history), (dense, other) = (
        train_sae(train, held, LATENTS, k, 0, recipe, backend=b) for b in ("sparse", "dense"))
    for mine, reference in zip(history, other, strict=True):
        assert mine["train_mse"] == pytest.approx(reference["train_mse"], rel=1e-5)
        assert mine["dead_fraction"] == reference["dead_fraction"]
    apart = np.linalg.norm(sparse.forward(held) - dense.forward(held))
    assert apart < 1e-5 * np.linalg.norm(dense.forward(held))
    assert sparse.info["best_epoch"] == dense.info["best_epoch"]


def labelled(n, seed):
    """Rows of five classes, each of its own causes; which class a row has, [n]."""
    rng = np.random.default_rng([seed, n])
    directions = np.random.default_rng(0).standard_normal((30, WIDTH))
    class_N = rng.integers(0, 5, n)
    rates_NC = np.where(np.arange(30) % 5 == class_N[:, None], 0.3, 0.05)
    amounts = rng.exponential(1, (n, 30)) * (rng.random((n, 30)) < rates_NC)
    acts = amounts @ directions + 0.05 * rng.standard_normal((n, WIDTH)) + 2
    return acts.astype(np.float32), class_N


@pytest.mark.parametrize("recipe", [RELEASED, CORRECTED], ids=lambda r: r.name)
def test_backends_end_within_the_spread_of_five_seeds(recipe):
    """Rounding parts the backends after some hundred steps; what they end at stays the same."""
    from sklearn.linear_model import LogisticRegression

    (train, own), (held, _), (unseen, theirs) = (labelled(*one) for one in
                                                 ((320, 0), (100, 1), (600, 2)))

    def ends(saes):
        rows_S3 = []
        for sae in saes:
            codes, seen = sae.encode(unseen), sae.encode(train)
            probe = LogisticRegression(max_iter=500).fit(seen, own)
            rows_S3.append((sae_metrics.fvu(unseen, sae.decode(codes)), sae_metrics.l0(codes),
                            probe.score(codes, theirs)))
        return np.array(rows_S3)

    seeds = range(5)
    sparse = ends(train_sae(train, held, LATENTS, 6, seed, recipe)[0] for seed in seeds)
    dense = ends(train_sae(train, held, LATENTS, 6, seed, recipe, "dense")[0] for seed in seeds)
    jobs = [(train, held, 6, seed) for seed in seeds]
    stacked = ends(sae for sae, _ in train_stack(jobs, LATENTS, recipe))
    assert sparse[:, 0].max() < 0.5 and sparse[:, 2].min() > 0.35  # chance is a fifth
    spread_3 = np.ptp(sparse, axis=0)
    for other in (dense, stacked):
        assert (np.abs(other.mean(axis=0) - sparse.mean(axis=0)) <= spread_3 / 2 + 1e-6).all()


@pytest.mark.parametrize("make", [SparseSteps, DenseSteps])
def test_an_epoch_in_two_parts_is_the_whole_epoch(make):
    acts, order = rows(), np.random.default_rng(0).permutation(96)
    plus, minus = order[::-1].copy(), np.roll(order, 7)
    nobody, found = np.zeros(LATENTS, bool), []
    for parts in ((slice(0, 96),), (slice(0, 32), slice(32, 96))):
        steps = make(linear_start(WIDTH, LATENTS, 0), 4, 16, True)
        told = [steps.epoch(acts, order[p], 1e-2, nobody, 0.3, plus[p], minus[p]) for p in parts]
        shares = [len(order[p]) / 96 for p in parts]
        found.append((steps.snapshot(), sum(fired for fired, _ in told),
                      sum(share * error for share, (_, error) in zip(shares, told, strict=True))))
    (whole, fired, error), (split, fired_split, error_split) = found
    assert all(np.array_equal(whole[name], split[name]) for name in whole)
    assert np.array_equal(fired, fired_split) and fired.sum() == 96 * 4
    assert error_split == pytest.approx(error, rel=1e-6)


def test_resting_latents_do_not_change_the_result():
    """Latents without a gradient rest after 200 steps; the dense step moves them for ever."""
    recipe = replace(RELEASED, epochs=120, batch=8)
    train, held = rows(32), rows(40, 1)
    fvus = [sae_metrics.fvu(held, train_sae(train, held, LATENTS, 2, 0, recipe, b)[0].forward(held))
            for b in ("sparse", "dense")]
    assert fvus[0] == pytest.approx(fvus[1], rel=0.03)


@settings(max_examples=80, deadline=None)
@given(k=st.integers(1, 60), seed=st.integers(0, 10_000), ties=st.booleans(),
       scale=st.sampled_from([1e-30, 1e-3, 1, 1e30]), guess=st.sampled_from([0, 1e-9, 0.7, 1e30]))
def test_counting_selects_what_sorting_selects_whatever_the_guess(k, seed, ties, scale, guess):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(50)
    values = np.float32(scale) * (np.round(values * 2) / 2 if ties else values).astype(np.float32)
    kept = np.full(60, -1, np.int32)
    end, cut = select_largest(values, k, kept, 3, np.float32(guess))
    chosen = kept[3:end]
    candidates = np.flatnonzero(values > 0)
    assert set(chosen) <= set(candidates) and len(chosen) == min(k, len(candidates))
    assert np.all(np.diff(chosen) > 0) and (kept[:3] == -1).all()
    # the largest, and of equal ones the first
    order = candidates[np.argsort(-values[candidates], kind="stable")][:k]
    assert np.array_equal(np.sort(order), chosen)
    assert (values[chosen] >= cut).all()


def test_selecting_from_infinite_values_ends():
    values, kept = np.full(9, np.inf, np.float32), np.full(9, -1, np.int32)
    end, _ = select_largest(values, 4, kept, 0, np.float32(0))
    assert kept[:end].tolist() == [0, 1, 2, 3]


def test_four_causes_in_three_dimensions_are_found():
    rng = np.random.default_rng(0)
    causes = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    acts = (np.eye(4)[rng.integers(0, 4, 400)] * rng.uniform(1, 2, (400, 1))) @ causes
    acts = (acts + 0.02 * rng.standard_normal(acts.shape)).astype(np.float32)
    # eight latents for four causes: which four are used depends on the seed, not what they find
    sae, _ = train_sae(acts[:300], acts[300:], 8, 1, 0, replace(CORRECTED, jitter=0.0))
    directions = sae.W_dec_FD / np.linalg.norm(sae.W_dec_FD, axis=1, keepdims=True)
    assert ((directions @ causes.T).max(axis=0) > 0.98).all()
    assert sae_metrics.fvu(acts[300:], sae.forward(acts[300:])) < 0.05


@pytest.mark.parametrize("recipe", [RELEASED, CORRECTED], ids=lambda r: r.name)
def test_training_again_gives_the_same_bits(recipe):
    recipe = replace(recipe, epochs=5)
    (one, history), (two, other) = (train_sae(rows(), rows(40, 1), LATENTS, 4, 3, recipe)
                                    for _ in range(2))
    assert np.array_equal(one.W_enc_DF, two.W_enc_DF) and history == other
    third, _ = train_sae(rows(), rows(40, 1), LATENTS, 4, 4, recipe)
    assert not np.array_equal(one.W_enc_DF, third.W_enc_DF)


def test_scale_and_offset_of_the_rows_are_folded_into_the_weights():
    recipe = replace(CORRECTED, epochs=5, principal_axes=False)  # axes are not exact to the bit
    train, held = rows(), rows(40, 1)
    plain, _ = train_sae(train, held, LATENTS, 4, 0, recipe)
    moved, _ = train_sae(8 * train + 64, 8 * held + 64, LATENTS, 4, 0, recipe)  # exact in float32
    assert np.allclose(np.linalg.norm(moved.W_dec_FD, axis=1), 1, atol=1e-5)
    assert np.allclose(moved.encode(8 * held + 64), 8 * plain.encode(held), atol=0.02)
    assert np.allclose(moved.forward(8 * held + 64), 8 * plain.forward(held) + 64, atol=0.02)


@pytest.mark.parametrize("recipe", [RELEASED, CORRECTED, AUXILIARY], ids=lambda r: r.name)
@pytest.mark.parametrize("k", [2, LATENTS])
def test_the_sae_that_comes_back_is_the_one_that_was_trained(recipe, k):
    """Centre, scale and axes are undone in the weights: its error is the one in the history."""
    train, held = 5 * rows(), 5 * rows(40, 1)
    sae, history = train_sae(train, held, LATENTS, k, 0, replace(recipe, epochs=6))
    kept = history[sae.info["best_epoch"] - 1]
    error = sae_metrics.fvu(held, sae.forward(held))
    assert error == pytest.approx(kept["validation_fvu"], rel=1e-3)


def test_an_untrained_sae_is_its_untrained_twin():
    """No step taken: what is left is the start, which is the null of A24."""
    recipe = replace(CORRECTED, epochs=1, rate=0.0, wake=False, dead_after=0)
    sae, _ = train_sae(rows(), rows(40, 1), LATENTS, 3, 5, recipe)
    twin = untrained_twin(sae, rows())
    codes, others = sae.encode(rows(30, 2)), twin.encode(rows(30, 2))
    assert np.mean((codes > 0) == (others > 0)) > 0.995
    both = (codes > 0) & (others > 0)
    assert np.corrcoef(codes[both], others[both])[0, 1] > 0.999


def test_corrected_recipe_wakes_its_latents_and_the_released_one_does_not():
    train, held = rows(192), rows(60, 1)
    saes = [train_sae(train, held, LATENTS, 2, 0, recipe)[0] for recipe in (RELEASED, CORRECTED)]
    dead = [sae_metrics.dead_fraction(sae.encode(train)) for sae in saes]
    fvus = [sae_metrics.fvu(held, sae.forward(held)) for sae in saes]
    assert dead[0] > 0.2 and dead[1] < 0.05
    assert fvus[1] < fvus[0]


@pytest.mark.parametrize("make", [SparseSteps, DenseSteps])
def test_a_lifted_latent_is_kept_on_the_row_where_it_missed_least(make):
    start = linear_start(WIDTH, LATENTS, 0)
    start["b_enc_F"][:10] -= 50
    acts = rows(40)
    steps = make(start, 3, 16, False)
    margins = steps.margins(acts)
    assert (margins[:10] > 0).all()
    pre = acts @ start["W_enc_DF"] + start["b_enc_F"]
    lowest = np.maximum(np.sort(pre, axis=1)[:, -3], 0)
    assert np.allclose(margins, (lowest[:, None] - pre).min(axis=0), atol=1e-3)
    steps.lift(np.where(np.arange(LATENTS) == 0, 1.01 * margins, 0))
    assert steps.margins(acts)[0] <= 0


@pytest.mark.parametrize("k", [LATENTS // 2, 2])
def test_margins_of_rows_in_chunks_say_who_was_never_kept(k):
    """Rows after the one that keeps the last latent are left out; who is silent stays the same."""
    start = linear_start(WIDTH, LATENTS, 0)
    steps = SparseSteps(start, k, 16, False)
    for acts in (rows(500), rows(500)[:40]):
        pre = acts @ start["W_enc_DF"] + start["b_enc_F"]
        lowest = np.maximum(np.sort(pre, axis=1)[:, -k], 0)
        exact = (lowest[:, None] - pre).min(axis=0)
        margins = steps.margins(acts)
        assert np.array_equal(margins > 1e-4, exact > 1e-4)
        assert np.allclose(margins[exact > 0], exact[exact > 0], atol=1e-3)


class Scripted:
    """Stands in for the steps: the errors of each epoch's validation are given."""

    def __init__(self, errors):
        self.script, self.done = errors, 0

    def snapshot(self):
        return {"epoch": self.done}

    def epoch(self, acts_ND, *rest):
        self.done += 1
        return np.ones(4, int), 0.0

    def errors(self, acts_ND):
        return np.asarray(self.script[self.done - 1], float)


def picked(recipe, errors):
    held = np.arange(2.0 * len(errors[0])).reshape(-1, 2)
    recipe = replace(recipe, epochs=len(errors))
    start = {"b_enc_F": np.zeros(4, np.float32)}
    task = sae_training.Task(held, held, start, held[0], 1.0, None, 1, 0, recipe)
    steps = Scripted(errors)
    return sae_training.drive(sae_training.training(steps, task), steps)


def test_release_picks_on_the_last_validation_batch_alone():
    """Audit A12: five validation rows in batches of two, so the last batch is the fifth row."""
    errors = [[9, 9, 9, 9, 1], [1, 1, 1, 1, 2], [5, 5, 5, 5, 5]]
    assert picked(Recipe("r", batch=2, pick="last_batch"), errors)[0] == {"epoch": 1}
    assert picked(Recipe("v", batch=2), errors)[0] == {"epoch": 2}


def test_last_batch_is_whole_when_the_rows_divide():
    errors = [[1, 1, 6, 6], [9, 9, 5, 5]]
    assert picked(Recipe("r", batch=2, pick="last_batch"), errors)[0] == {"epoch": 2}


def test_patience_stops_early_and_keeps_the_best():
    errors = [[3.0, 3], [2, 2], [4, 4], [4, 4], [1, 1]]
    best, history = picked(Recipe("p", batch=1, patience=2), errors)
    assert best == {"epoch": 2} and len(history) == 4
    assert [row["picked"] for row in history] == [True, True, False, False]


def test_step_size_falls_linearly_at_the_end():
    recipe = Recipe("d", epochs=10, rate=1.0, decay=0.5)
    rates = [sae_training.rate_at(epoch, recipe, 192) for epoch in range(10)]
    assert rates == pytest.approx([1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert sae_training.rate_at(9, Recipe("n", epochs=10, rate=0.3), 768) == 0.3


def test_step_size_falls_with_the_root_of_the_width():
    recipe = Recipe("w", rate=3e-3, rate_width=192)
    assert sae_training.rate_at(0, recipe, 192) == pytest.approx(3e-3)
    assert sae_training.rate_at(0, recipe, 768) == pytest.approx(1.5e-3)


def test_centre_by_hand():
    acts = np.array([[0.0, 0], [2, 0], [1, 3], [1, -3]])
    centre, scale = centre_and_scale(acts, "mean")
    assert centre.tolist() == [1, 0] and scale == pytest.approx(np.sqrt(20 / 8))
    centre, scale = centre_and_scale(acts, "none")
    assert centre.tolist() == [0, 0] and scale == 1
    # three equal rows outweigh any fourth one: their point has the least summed distance
    far = np.array([[1.0, 1]] * 3 + [[100.0, 100]])
    assert centre_and_scale(far, "geometric_median")[0] == pytest.approx([1, 1], abs=1e-3)
    with pytest.raises(ValueError, match="unknown centre 'median'"):
        centre_and_scale(acts, "median")


@pytest.mark.parametrize(("change", "message"), [
    (dict(train_ND=np.full((32, WIDTH), np.nan)), "32 rows hold NaN"),
    (dict(train_ND=np.hstack([rows(32)[:, :-1], np.ones((32, 1))])), "1 columns never vary.*11"),
    (dict(train_ND=rows(15)), "15 training rows are fewer than the batch of 16"),
    (dict(k=41), "k = 41: TopK keeps 1 to 40"),
    (dict(k=0), "k = 0"),
    (dict(validation_ND=rows(5)[:, 1:]), r"expected \[rows, 12\]"),
    (dict(validation_ND=rows(5)[:0]), "no validation rows"),
    (dict(backend="cuda"), "unknown backend 'cuda': sparse"),
    (dict(recipe=replace(RELEASED, start="zeros")), "unknown start 'zeros'"),
    (dict(recipe=replace(RELEASED, epochs=0)), "epochs = 0 of the recipe 'released': at least 1"),
])
def test_bad_input_is_refused_before_training(change, message, monkeypatch):
    monkeypatch.setattr(sae_training, "drive", lambda *_: pytest.fail("training began"))
    given = {"train_ND": rows(32), "validation_ND": rows(5, 1), "latents": LATENTS, "k": 4,
             "seed": 0, "recipe": RELEASED}
    with pytest.raises(ValueError, match=message):
        train_sae(**(given | change))


def test_rows_whose_error_overflows_are_said_and_no_sae_comes_back():
    with pytest.raises(ValueError, match="'released': no epoch's validation error is finite"):
        train_sae(1e20 * rows(32), 1e20 * rows(5, 1), LATENTS, 4, 0, replace(RELEASED, epochs=2))


def test_an_sae_starts_from_its_untrained_twin():
    """The start is drawn along the principal axes; turned back it is the twin, as it is scored."""
    train = rows(200)
    task = sae_training.prepare(train, rows(40, 1), LATENTS, 4, 3, CORRECTED)
    twin = random_dictionary(train, LATENTS, 4, 3)
    assert np.allclose(task.start["W_dec_FD"] @ task.axes_DD.T, twin.W_dec_FD, atol=1e-5)
    assert np.allclose((task.start["W_enc_DF"].T @ task.axes_DD.T).T, twin.W_enc_DF, atol=1e-4)
    assert np.allclose(np.cov(task.rows_ND.T, bias=True), np.diag(task.rows_ND.var(axis=0)),
                       atol=1e-4)
    assert (np.diff(task.rows_ND.var(axis=0)) <= 1e-5).all()  # the widest axis first
