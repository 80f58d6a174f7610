"""Checks for the exercises: they name the likely mistake in words instead of saying "wrong".

Each ``check_E*`` takes the reader's function, calls it on small cases and compares with the
verb of this package that is the answer. Where it differs, the check looks for the mistake that
gives the same numbers and says its name. A check returns a sentence, or raises `NotYet`.

Shape letters: N clips, F and G latents, A attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from saeutils.completeness import completeness, entropy
from saeutils.exercise_judge import NotYet, call, judge
from saeutils.sae import keep_largest
from saeutils.sae_metrics import dead_fraction
from saeutils.stability import match_latents


def check_E1(top_k: Callable) -> str:
    """TopK by hand: ``top_k(pre_NF, k)`` keeps the k largest positive entries of each row.

    Parameters
    ----------
    top_k
        Takes pre-activations [N, F] and k, returns codes [N, F].

    Returns
    -------
    str
        A sentence that the check is passed.

    Raises
    ------
    NotYet
        With the name of the mistake. The answer is `saeutils.sae.keep_largest` after ReLU.

    Examples
    --------
    >>> check_E1(lambda pre, k: keep_largest(np.maximum(pre, 0), k))[:9]
    'E1 passed'
    """
    pre = np.random.default_rng(1).normal(size=(6, 8)).round(3)
    pre[0] = [0.5, -3.0, 2.0, 0.1, -0.2, 1.0, -4.0, 0.3]
    few = pre.copy()
    few[1] = -np.abs(few[1])
    few[1, 3] = 0.7

    def kept(score, pre, k):
        rank = np.argsort(np.argsort(-score, axis=1), axis=1)
        return np.where(rank < k, pre, 0.0)

    mistakes = {
        "you took the k largest by absolute value: ReLU first, then the k largest":
            lambda p, k: kept(np.abs(p), p, k),
        "you took the k largest by absolute value and cut the negative ones away afterwards: "
        "ReLU first, or large negative entries use up places among the k":
            lambda p, k: np.maximum(kept(np.abs(p), p, k), 0),
        "a negative strength is left in the code: ReLU first, so that a row with fewer than k "
        "positive entries has fewer than k active latents":
            lambda p, k: kept(p, p, k),
        "ReLU alone: no entry was dropped, keep only k in each row":
            lambda p, k: np.maximum(p, 0),
        "you kept the k largest of each column: TopK chooses within a row, among the latents of "
        "one clip": lambda p, k: keep_largest(np.maximum(p, 0).T, k).T,
        "you returned the k values alone: a code is as long as the dictionary, with zeros where "
        "a latent is silent": lambda p, k: -np.sort(-np.maximum(p, 0), axis=1)[:, :k],
        "you returned which latents are active: a code holds their strength":
            lambda p, k: (keep_largest(np.maximum(p, 0), k) > 0).astype(float),
        "one latent too many is kept: the k-th largest is the last one in":
            lambda p, k: keep_largest(np.maximum(p, 0), k + 1),
        "one latent too few is kept: the k-th largest is still in":
            lambda p, k: keep_largest(np.maximum(p, 0), k - 1) if k > 1 else 0 * p,
    }
    cases = [("a table of 6 clips and 8 latents, k = 3", (pre, 3)),
             ("a clip with a single positive entry, k = 3", (few, 3)),
             ("the same table, k = 1", (pre, 1))]
    judge(top_k, lambda p, k: keep_largest(np.maximum(p, 0), k), cases, mistakes)
    active = int(np.count_nonzero(call(top_k, (np.array([[1.0, 1.0, 1.0, 0.0]]), 2))))
    if active != 2:
        raise NotYet(f"with three equal entries and k = 2 you keep {active}: comparing with the "
                     "k-th largest value lets ties in; choose k positions instead")
    return "E1 passed: at most k latents a clip, none of them negative."


def check_E2(split: Callable) -> str:
    """A split without leak: ``split(singers, share, seed)`` marks the test clips.

    Parameters
    ----------
    split
        Takes the singer of each clip [N], the share of singers to test on and a seed; returns
        bool [N], True for test clips. No singer may be on both sides.

    Raises
    ------
    NotYet
        With the name of the mistake. The answer is `saeutils.statistics.grouped_folds`.

    Examples
    --------
    >>> check_E2(lambda s, share, seed: np.isin(s, np.random.default_rng(seed).permutation(
    ...     np.unique(s))[:round(share * len(np.unique(s)))]))[:9]
    'E2 passed'
    """
    names = np.array([f"singer{i:02d}" for i in range(12)])
    singers = np.repeat(names, 10)
    test = np.asarray(call(split, (singers, 0.25, 0)))
    if test.shape != singers.shape or test.dtype != bool:
        raise NotYet(f"the split has shape {test.shape} and type {test.dtype}: one True or False "
                     f"for each of the {len(singers)} clips is wanted")
    if test.all() or not test.any():
        raise NotYet(f"the {'training' if test.all() else 'test'} side is empty")
    both = np.intersect1d(singers[test], singers[~test])
    if len(both):
        if len(both) <= 2 and np.abs(np.diff(test.astype(int))).sum() <= 2:
            raise NotYet(f"you cut the list of clips at one place and went through the middle of "
                         f"{', '.join(both)}: cut the list of singers instead")
        raise NotYet(f"clips of one singer are on both sides ({len(both)} singers, for example "
                     f"{both[0]}): draw singers, not clips")
    chosen = len(np.unique(singers[test]))
    if chosen == 9:
        raise NotYet("three quarters of the singers are marked: you marked the training side")
    if chosen != 3:
        raise NotYet(f"{chosen} of 12 singers are tested on: a share of 0.25 is 3")
    again = np.asarray(call(split, (singers, 0.25, 0)))
    if not np.array_equal(test, again):
        raise NotYet("the same seed gave two different splits: start from "
                     "np.random.default_rng(seed) inside the function")
    if all(np.array_equal(test, call(split, (singers, 0.25, seed))) for seed in range(1, 6)):
        raise NotYet("every seed tests on the same singers: the seed is not used, and one lucky "
                     "choice of singers decides your result")
    return "E2 passed: whole singers on each side, drawn by the seed."


def check_E3(score: Callable) -> str:
    """Completeness by hand: ``score(weights_AF)`` is ``1 - H / log F`` for each attribute.

    Raises
    ------
    NotYet
        With the name of the mistake. The answer is
        ``saeutils.completeness.completeness(weights, released=False)``.

    Examples
    --------
    >>> check_E3(lambda w: completeness(w, released=False))[:9]
    'E3 passed'
    """
    def share(w):
        return np.abs(w) / np.abs(w).sum(axis=1, keepdims=True)

    def unscaled(w):
        size = np.abs(w)
        return 1 + (size * np.log(np.where(size > 0, size, 1))).sum(axis=1) / np.log(w.shape[1])

    def signed(w):
        part = w / w.sum(axis=1, keepdims=True)
        return 1 + (part * np.log(part)).sum(axis=1) / np.log(w.shape[1])

    mistakes = {
        "you went down the columns: that asks how many attributes a code serves "
        "(disentanglement); completeness goes along the row of an attribute":
            lambda w: completeness(w.T, released=False),
        "that is the share of the largest possible entropy: completeness is 1 minus it":
            lambda w: 1 - completeness(w, released=False),
        "that is the entropy itself: divide by the logarithm of the number of codes, and take "
        "1 minus it": entropy,
        "the entropy is in bits and the divisor is not: use one logarithm for both":
            lambda w: 1 - entropy(w) / np.log(2) / np.log(w.shape[1]),
        "the weights do not sum to 1: divide each row by its sum before the entropy": unscaled,
        "0 times log 0 became NaN: a code without weight adds nothing to the entropy":
            lambda w: 1 + (share(w) * np.log(share(w))).sum(axis=1) / np.log(w.shape[1]),
        "negative weights were dropped: a code that argues against an attribute counts as much "
        "as one that argues for it; take absolute values":
            lambda w: completeness(np.maximum(w, 0), released=False),
        "the weights kept their signs, so that shares are negative or above 1: take absolute "
        "values first": signed,
        "you divided by the logarithm of the codes in use: the published score divides by that "
        "of all codes":
            lambda w: 1 - entropy(w) / np.log(np.maximum((w != 0).sum(axis=1), 2)),
        "an attribute without any weight scores 1: the emptiest map would win; leave it "
        "undefined (NaN)": completeness,
        "an attribute without any weight scores 0: nothing was measured, so leave it undefined "
        "(NaN)": lambda w: np.nan_to_num(completeness(w, released=False)),
    }
    cases = [
        ("positive weights", (np.array([[4.0, 2.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]),)),
        ("a negative weight", (np.array([[3.0, -2.0, 1.0, 0.5], [1.0, 1.0, -4.0, 0.1]]),)),
        ("weights that are zero", (np.array([[3.0, 0.0, 1.0, 0.0], [0.0, 0.0, 5.0, 0.0]]),)),
        ("an attribute without any weight", (np.array([[0.0, 0.0, 0.0], [2.0, 1.0, 0.0]]),)),
    ]
    judge(score, lambda w: completeness(w, released=False), cases, mistakes)
    return "E3 passed: signs, zeros and the empty attribute are all dealt with."


def check_E4(dead_share: Callable) -> str:
    """Dead latents: ``dead_share(codes_NF)`` is the share of latents silent on all clips.

    Raises
    ------
    NotYet
        With the name of the mistake. The answer is `saeutils.sae_metrics.dead_fraction`.

    Examples
    --------
    >>> check_E4(dead_fraction)[:9]
    'E4 passed'
    """
    codes = np.zeros((40, 13))
    draw = np.random.default_rng(4)
    codes[:, :4] = draw.uniform(0.5, 2, (40, 4)) * (draw.random((40, 4)) < 0.5)
    codes[:, 3:5] = 0.002 * (draw.random((40, 2)) < 0.5)
    codes[37, 5] = 1.0
    codes[3] = 0.0
    first = codes[:, :6].copy()
    first[0, :3] = 1.0
    mistakes = {
        "you counted zeros in the whole table: that is sparsity; a latent is dead when its "
        "whole column is zero": lambda c: (c == 0).mean(),
        "you looked along the rows: that is the share of clips without any active latent; a "
        "latent is a column": lambda c: (c == 0).all(axis=1).mean(),
        "that is how many are dead, not which share: divide by the number of latents":
            lambda c: (c == 0).all(axis=0).sum(),
        "that is the share that is alive": lambda c: (c != 0).any(axis=0).mean(),
        "you called a latent dead as soon as it is silent somewhere: it must be silent "
        "everywhere": lambda c: (c == 0).any(axis=0).mean(),
        "a latent that fires weakly was called dead: only one that never fires is":
            lambda c: (c.mean(axis=0) < 0.01).mean(),
        "a latent that fires on a single clip was called dead: it is rare; no threshold":
            lambda c: ((c != 0).mean(axis=0) < 0.05).mean(),
    }
    cases = [("40 clips and 13 latents", (codes,)), ("latents that all fire", (first,))]
    judge(dead_share, dead_fraction, cases, mistakes)
    return "E4 passed: a latent is dead when its whole column is zero, on these clips."


def check_E5(match: Callable) -> str:
    """Match across seeds: ``match(similarity_FG)`` gives each latent its own partner.

    Raises
    ------
    NotYet
        With the name of the mistake. The answer is `saeutils.stability.match_latents`.

    Examples
    --------
    >>> check_E5(lambda s: match_latents(s)[0])[:9]
    'E5 passed'
    """
    by_hand = np.array([[0.9, 0.8, 0.1], [0.85, 0.1, 0.0], [0.2, 0.3, 0.25]])
    opposite = np.array([[0.2, 0.6, -0.95], [0.5, 0.1, 0.3], [-0.1, 0.4, 0.7]])
    many = np.random.default_rng(5).uniform(-1, 1, (9, 9)).round(3)

    def greedy(similarity):
        left, partner = similarity.astype(float).copy(), np.full(len(similarity), -1)
        for _ in range(len(similarity)):
            row, column = np.unravel_index(np.argmax(left), left.shape)
            partner[row] = column
            left[row], left[:, column] = -np.inf, -np.inf
        return partner

    def in_turn(similarity):
        left, partner = similarity.astype(float).copy(), []
        for row in range(len(left)):
            partner.append(int(np.argmax(left[row])))
            left[:, partner[-1]] = -np.inf
        return np.array(partner)

    mistakes = {
        "two latents claim the same partner: the best of each row is no matching, one to one is "
        "wanted": lambda s: s.argmax(axis=1),
        "the total is as small as it can be: ask linear_sum_assignment for the largest "
        "(maximize=True)": lambda s: match_latents(-s)[0],
        "you took the best pair first, then the best of the rest: that greedy choice can spoil "
        "the pairs after it; make the total largest": greedy,
        "each latent in turn took the best partner left: the order of the latents decides; make "
        "the total largest": in_turn,
        "you matched directions that point opposite ways: latents are never negative, so a "
        "cosine of -0.95 is no likeness; no absolute value": lambda s: match_latents(np.abs(s))[0],
        "that is the partner of each latent of the second SAE: rows are the first":
            lambda s: match_latents(s.T)[0],
        "you returned the similarities of the pairs: the position of the partner is wanted":
            lambda s: match_latents(s)[1],
    }
    cases = [("three latents", (by_hand,)), ("two opposite directions", (opposite,)),
             ("nine latents", (many,))]
    judge(match, lambda s: match_latents(s)[0], cases, mistakes)
    return "E5 passed: one partner each, and the best total."


def check_E6(move: Callable, row: Mapping, spread: Mapping[str, Mapping]) -> str:
    """Design a counterfactual: ``move(row, factor, step, spread)`` moves one cause of a clip.

    Parameters
    ----------
    move
        Takes the row of a clip, the factor, a step in population SDs and the spread of the factor
        (keys ``sd`` and ``log``); returns a new row, or None where the factor cannot act.
    row
        A clip, a row of `saeutils.synthesis.plan_clips`, as a mapping.
    spread
        Spread by factor (`saeutils.synthesis_counterfactuals.population`): ``tilt_db``,
        ``vibrato_extent_st``, ``jitter_percent``, ``vibrato_rate_hz``.

    Raises
    ------
    NotYet
        With the name of the mistake. The answer is `saeutils.synthesis_controls.add_shift`, as
        `saeutils.synthesis_counterfactuals.counterfactual_plan` uses it.
    """
    from saeutils.synthesis_controls import CONTROLS, add_shift

    for factor in ("tilt_db", "vibrato_extent_st", "jitter_percent"):
        base, sd, log = dict(row), float(spread[factor]["sd"]), bool(spread[factor]["log"])
        own = dict(row)
        moved = call(move, (own, factor, 0.5, spread[factor]))
        if own != base:
            raise NotYet("you changed the base clip itself: copy the row first, {**row}")
        if not isinstance(moved, Mapping) or set(moved) != set(base):
            raise NotYet("return a whole row, with the same entries as the base clip")
        others = [name for name in base if name != factor and moved[name] != base[name]]
        if "clip_id" in others:
            controls = [name for name in others if name in CONTROLS]
            raise NotYet(f"you took another clip: besides {factor} it differs in {len(controls)} "
                         f"controls ({', '.join(controls[:3])} ...); change the row instead")
        if "noise_key" in others:
            raise NotYet("the noise was drawn anew (noise_key): then a response may be the noise; "
                         "keep it, and draw anew only for a placebo")
        if others:
            raise NotYet(f"besides {factor} you moved {', '.join(others)}: one cause at a time")
        if moved[factor] == base[factor]:
            raise NotYet(f"nothing moved: {factor} is still {base[factor]:.3g}")
        shift = float(np.exp(0.5 * sd)) if log else 0.5 * sd
        wanted = add_shift(base[factor], shift, 1.0, factor)
        if not np.isclose(moved[factor], wanted):
            unit = CONTROLS[factor].unit
            if np.isclose(moved[factor], base[factor] + 0.5):
                raise NotYet(f"you moved {factor} by half a unit ({unit}): a step is counted in "
                             "population SDs, or effects of two factors cannot be compared")
            if np.isclose(moved[factor], base[factor] + 0.5 * sd):
                raise NotYet(f"{factor} lives on a logarithmic scale (its SD is that of the "
                             "logarithm): multiply by exp(step times SD)")
            raise NotYet(f"{factor} went from {base[factor]:.4g} to {moved[factor]:.4g}: half an "
                         f"SD ({sd:.3g}{' of the logarithm' if log else ''}) leads to "
                         f"{wanted:.4g}")
    still = {**row, "vibrato_extent_st": 0.1}
    rate = (still, "vibrato_rate_hz", 0.5, spread["vibrato_rate_hz"])
    if call(move, rate, may_be_none=True) is not None:
        raise NotYet("you moved the rate of a vibrato that is not there (extent 0.1 semitones): a "
                     "cause that cannot act must not count as one that has no effect; return None")
    return "E6 passed: one cause moved, in comparable steps, where it can act."
