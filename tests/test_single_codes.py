import numpy as np
import pytest

from saeutils.single_codes import sap_scores, stable_latents


def test_sap_equals_regressions_one_by_one():
    from scipy.stats import linregress

    rng = np.random.default_rng(0)
    codes, causes = rng.normal(size=(50, 7)), rng.normal(size=(50, 3))
    causes[:, 0] += 2 * codes[:, 3]
    sap, best = sap_scores(codes, causes)
    for q in range(3):
        each = sorted(linregress(codes[:, f], causes[:, q]).rvalue ** 2 for f in range(7))
        assert best[q] == pytest.approx(each[-1])
        assert sap[q] == pytest.approx(each[-1] - each[-2])
    assert sap[0] > sap[1:].max()


def test_traps_of_sap():
    rng = np.random.default_rng(0)
    cause = rng.normal(size=(60, 1))
    twice = np.hstack([cause, cause, rng.normal(size=(60, 3))])
    sap, best = sap_scores(twice, cause)
    assert sap[0] == pytest.approx(0) and best[0] == pytest.approx(1)  # duplicated codes
    shuffled = twice[:, rng.permutation(5)]
    assert np.allclose(sap_scores(shuffled, cause), sap_scores(twice, cause))
    assert np.allclose(sap_scores(3 * twice + 7, cause), sap_scores(twice, cause))
    assert np.isnan(sap_scores(twice, np.ones((60, 1)))[0]).all()
    assert sap_scores(np.zeros((60, 4)), cause)[0][0] == 0  # nothing fires
    noise = sap_scores(rng.normal(size=(60, 200)), cause)
    assert noise[0][0] < 0.15 < 0.3 > noise[1][0]


def test_sap_refuses():
    with pytest.raises(ValueError, match="5 rows of codes, 4 of causes"):
        sap_scores(np.ones((5, 2)), np.ones((4, 1)))
    with pytest.raises(ValueError, match="1 codes"):
        sap_scores(np.ones((5, 1)), np.ones((5, 1)))


@pytest.fixture
def seeds():
    """Latents 0 to 3 are shared by all seeds, 4 and 5 drawn anew; twins share nothing."""
    rng = np.random.default_rng(0)
    shared_FD, shared_NF = rng.normal(size=(4, 24)), np.maximum(rng.normal(size=(80, 4)), 0)

    def one():
        decoder = np.vstack([shared_FD, rng.normal(size=(2, 24))])
        codes = np.hstack([shared_NF, np.maximum(rng.normal(size=(80, 2)), 0)])
        return decoder, codes

    def twin():
        return rng.normal(size=(6, 24)), np.maximum(rng.normal(size=(80, 6)), 0)

    learned, untrained = [one() for _ in range(3)], [twin() for _ in range(3)]
    return [list(part) for pair in (learned, untrained) for part in zip(*pair, strict=True)]


def test_what_seeds_share_is_stable(seeds):
    table, _ = stable_latents(*seeds[:2], tuple(seeds[2:]))
    assert table["stable"].tolist() == [True] * 4 + [False] * 2
    assert np.allclose(table.loc[:3, "decoder_cosine"], 1)


def test_a_latent_that_never_fires_is_not_stable(seeds):
    seeds[1][0][:, 1] = 0
    table, _ = stable_latents(*seeds[:2], tuple(seeds[2:]))
    assert not table.loc[1, "stable"] and np.isnan(table.loc[1, "decoder_cosine"])


def test_one_seed_has_nothing_to_be_matched_with(seeds):
    with pytest.raises(ValueError, match="2 or more"):
        stable_latents(*(part[:1] for part in seeds[:2]), tuple(seeds[2:]))
    with pytest.raises(ValueError, match="0 nulls"):
        stable_latents(*seeds[:2])


def test_a_latent_must_beat_every_null(seeds):
    """A second null that agrees with itself as well as the SAE does leaves nothing stable."""
    agreeing = tuple(seeds[:2])
    table, lucky = stable_latents(*seeds[:2], tuple(seeds[2:]), agreeing)
    assert lucky == [0, 0]
    assert not table["stable"].any() and table["cosine_by_luck"].iloc[0] == pytest.approx(1)
