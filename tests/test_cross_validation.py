"""Every singer is a test singer once, and what was planted comes out."""

import numpy as np
import pandas as pd
import pytest

from saeutils import cross_validation as cv
from saeutils.sae_training import CORRECTED

SETTINGS = dict(latents=24, k=6, seeds=[1, 2], penalties=(0.01, 0.1),
                recipe=CORRECTED.__class__(**{**CORRECTED.__dict__, "epochs": 4, "batch": 8}))


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    names = [(f"s{s}", "FM"[s % 2], technique) for s in range(10)
             for technique in ("belt", "straight", "trill") for _ in range(3)]
    clips = pd.DataFrame(names, columns=["singer", "sex", "technique"])
    states = 0.3 * rng.standard_normal((len(clips), 8))
    states[np.arange(len(clips)), pd.factorize(clips["technique"])[0]] += 2.0
    return states.astype(np.float32), clips


@pytest.fixture(scope="module")
def scores(planted):
    return cv.fold_scores(*planted, **SETTINGS)


def test_every_singer_is_scored_once_per_representation_and_seed(scores, planted):
    count = scores.groupby(["representation", "seed"])["singer"].agg(["size", "nunique"])
    assert (count == 10).all().all()
    assert set(count.index.get_level_values(0)) == {"raw", "reconstruction", "sae", "random"}
    assert len(count) == 4 * 2  # the probe of raw states has seeds too: draws of its inner folds


def test_folds_keep_singers_whole(scores):
    assert (scores.groupby("singer")["fold"].nunique() == 1).all()
    assert scores["fold"].nunique() == 5


def test_a_planted_technique_is_read_and_the_claim_counts_all_singers(scores):
    assert scores.loc[scores["representation"] == "raw", "value"].mean() > 0.95
    table = cv.claim_contrasts(scores).set_index("contrast")
    assert (table["n"] == 10).all() and table.loc["retention", "n_seeds"] == 2
    assert np.isnan(table.loc["learned", "kept"])
    assert table["value"].abs().max() < 0.5


def test_workers_change_nothing(scores, planted):
    pd.testing.assert_frame_equal(cv.fold_scores(*planted, **SETTINGS, workers=2), scores)


def test_shuffled_labels_are_read_by_chance(planted):
    states, clips = planted
    rng = np.random.default_rng(1)
    mixed = clips.assign(technique=clips.groupby("singer")["technique"].transform(
        lambda names: rng.permutation(names.to_numpy())))
    table = cv.fold_scores(states, mixed, **(SETTINGS | {"seeds": [1]}))
    assert abs(table.groupby("representation")["value"].mean() - 1 / 3).max() < 0.2


def test_too_few_singers_and_lonely_labels_are_refused(planted):
    states, clips = planted
    few = clips["singer"].isin(["s0", "s1", "s2"]).to_numpy()
    with pytest.raises(ValueError, match="3 singers or groups: fewer than 5"):
        cv.fold_scores(states[few], clips[few], **SETTINGS)
    lonely = clips.assign(technique=clips["technique"].where(clips.index != 0, "yodel"))
    assert cv.possible(lonely) == "'yodel' is sung by one singer only"
    assert cv.possible(clips) == ""
