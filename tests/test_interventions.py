import numpy as np
import pandas as pd
import pytest

from saeutils.interventions import (
    Responses,
    code_changes,
    code_matrix,
    factor_maps,
    interventions_cell,
    matched_pairs,
    responses,
    split_responses,
    verdicts,
)

STEPS = (-1.0, -0.5, 0.5, 1.0)


@pytest.fixture(scope="module")
def world():
    """Codes 0 and 1 answer to one factor each, 2 to both, 3 to noise alone, 4 never."""
    rng = np.random.default_rng(0)

    def encode(pitch, tilt, noise):
        return np.stack([np.maximum(pitch, 0), tilt, pitch + tilt, noise, 0 * pitch], axis=1)

    singers = np.repeat(np.arange(10), 20)
    pitch, tilt = rng.normal(size=(2, 200))
    clips = encode(pitch, tilt, rng.normal(size=200))
    causes = pd.DataFrame({"pitch": pitch, "tilt": tilt})
    rows, codes = [], []
    for base in range(40):
        start = rng.normal(size=2)
        start[0] = abs(start[0]) + 2  # keeps the first code in its linear part
        hiss = rng.normal()
        for factor, steps in (("base", (0.0,)), ("pitch", STEPS), ("tilt", STEPS),
                              ("placebo_noise", (1, 2)), ("placebo_gain", (1, 2))):
            for step in steps:
                values = start.copy()
                values[0] += step * (factor == "pitch")
                values[1] += step * (factor == "tilt")
                own = rng.normal() if factor == "placebo_noise" else hiss
                rows.append((f"b{base}", factor, step, f"s{base % 8}"))
                codes.append(encode(values[:1], values[1:], np.array([own]))[0])
    sets = pd.DataFrame(rows, columns=["base_id", "factor", "step", "singer"])
    return clips, causes, singers, np.array(codes), sets


def test_responses_by_hand(world):
    clips, _, _, codes, sets = world
    found = responses(codes, sets, np.array([1.0, 1.0, 1.0, 1.0, 0.0]))
    assert found.factors == ["pitch", "tilt", "placebo_noise", "placebo_gain"]
    # a code that moves one for one has power 1 per squared SD, whatever the steps
    assert np.allclose(found.power[:2], [[1, 0, 1, 0, 0], [0, 1, 1, 0, 0]])
    assert np.allclose(found.specificity[:2, :3], [[1, 0, 0.5], [0, 1, 0.5]])
    assert np.isnan(found.specificity[:, 3:]).all()  # noise and dead codes belong to nobody
    assert found.exceeds[:2].tolist() == [[True, False, True, False, False],
                                          [False, True, True, False, False]]
    assert np.allclose(found.trend[:2, :3], [[1, 0, 1], [0, 1, 1]])
    assert np.allclose(found.power[3], 0)  # gain moves nothing here
    assert found.n_bases.tolist() == [40] * 4 and found.n_singers.tolist() == [8] * 4


def test_trend_equals_scipy_on_untied_codes(world):
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    sets = world[4]
    codes = rng.normal(size=(len(sets), 1))
    found = responses(codes, sets, np.ones(1))
    taus = []
    for base in sets["base_id"].unique():
        part = sets[(sets["base_id"] == base) & sets["factor"].isin(["base", "tilt"])]
        taus.append(kendalltau(part["step"], codes[part.index, 0]).statistic)
    assert found.trend[1, 0] == pytest.approx(np.mean(taus))


def test_units_of_the_codes_do_not_matter(world):
    _, _, _, codes, sets = world
    scale = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    plain, scaled = (responses(codes * f, sets, scale * f) for f in (1.0, 7.0))
    assert np.allclose(plain.power, scaled.power)
    assert np.allclose(plain.specificity, scaled.specificity, equal_nan=True)


def test_map_and_intervention_agree_where_they_should(world):
    clips, causes, singers, codes, sets = world
    masks = pd.DataFrame(True, index=causes.index, columns=causes.columns)
    weights = factor_maps(clips, causes, masks, np.arange(200), singers, 0.1)
    assert (weights[:, 3:] == 0).all() and np.abs(weights[1]).argmax() == 1
    found = responses(codes, sets, clips.std(axis=0))
    table = verdicts(weights, found, list(causes), n_top=1).set_index(["factor", "metric"])["value"]
    assert table["tilt", "confirmed"] == 1 and table["tilt", "best_specificity"] == 1
    assert table["tilt", "responding"] == 2 and table["tilt", "agreement"] > 0.5
    wrong = np.zeros_like(weights)
    wrong[:, 3] = 1  # a map that points at the noise code
    table = verdicts(wrong, found, list(causes), n_top=1).set_index(["factor", "metric"])["value"]
    assert table["tilt", "confirmed"] == 0


def _responses(power, live):
    ones = np.ones_like(power)
    return Responses(["tilt"], power, ones, ones > 0, ones, np.array([4]), np.array([2]), live)


def test_agreement_is_a_rank_correlation_over_all_live_codes():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    power, weights = rng.random((1, 12)), rng.normal(size=(1, 12))
    power[0, :3], weights[0, :2] = 0, 0
    live = np.arange(12) != 5
    table = verdicts(weights, _responses(power, live), ["tilt"]).set_index("metric")["value"]
    expected = spearmanr(np.abs(weights[0, live]), power[0, live]).statistic
    assert table["agreement"] == pytest.approx(expected)
    table = verdicts(weights, _responses(power, None), ["tilt"]).set_index("metric")["value"]
    assert table["agreement"] == pytest.approx(spearmanr(np.abs(weights[0]), power[0]).statistic)


def test_codes_with_neither_weight_nor_response_are_agreement():
    """Over codes that have either, two unrelated sparse maps correlate below zero by selection."""
    rng = np.random.default_rng(1)
    weights = np.where(rng.random((1, 2000)) < 0.1, rng.random((1, 2000)), 0)
    power = np.where(rng.random((1, 2000)) < 0.1, rng.random((1, 2000)), 0)
    live = np.ones(2000, dtype=bool)
    either = (weights[0] > 0) | (power[0] > 0)
    biased, fair = (
        verdicts(weights, _responses(power, mask), ["tilt"]).set_index("metric")["value"]
        for mask in (either, live))
    assert biased["agreement"] < -0.5 and abs(fair["agreement"]) < 0.1


def test_interventions_cell_reports_the_known_answer_for_gain(world):
    clips, causes, singers, codes, sets = world
    masks = pd.DataFrame(True, index=causes.index, columns=causes.columns)
    table = interventions_cell(np.vstack([clips, codes]), None, sets, causes, masks,
                               np.arange(200), singers, 0.1)
    value = table.set_index(["factor", "metric"])["value"]
    assert value["placebo_gain", "power_over_noise"] == 0 and value["pitch", "confirmed"] > 0


def test_the_matrix_names_the_most_specific_code_and_the_curve_starts_at_zero(world):
    _, _, _, codes, sets = world
    matrix, best = code_matrix(responses(codes, sets, np.ones(5)))
    assert best == {"pitch": 0, "tilt": 1}
    sure = matrix[matrix["confirmed"]]
    assert sure["code"].tolist() == ["pitch: code 0", "tilt: code 1"]
    assert sure["factor"].tolist() == ["pitch", "tilt"] and np.allclose(sure["value"], 1)
    curve = code_changes(codes, sets, np.full(5, 2.0), "tilt", 1)
    assert len(curve) == 40 * 5 and np.allclose(curve["value"], curve["step"] / 2)
    with pytest.raises(ValueError, match="no clip with 'rate' moved"):
        code_changes(codes, sets, np.ones(5), "rate", 0)


def test_codes_are_chosen_on_one_half_and_shown_on_the_other(world):
    """A code that moves with pitch in the first base clip alone is no code of pitch elsewhere."""
    _, _, _, codes, sets = world
    lucky = np.zeros(len(codes))
    first = sorted(set(sets["base_id"]))[0]
    lucky[((sets["base_id"] == first) & (sets["factor"] == "pitch")).to_numpy()] = 50.0
    with_luck = np.column_stack([codes, lucky])
    scale = np.ones(with_luck.shape[1])
    fooled, best = code_matrix(responses(with_luck, sets, scale))
    assert best["pitch"] == codes.shape[1]
    chosen, shown = split_responses(with_luck, sets, scale)
    matrix, picked = code_matrix(chosen, shown)
    row = matrix[(matrix["code"] == f"pitch: code {picked['pitch']}")].set_index("factor")
    assert picked["pitch"] == codes.shape[1] and not row.loc["pitch", "confirmed"]
    one_sided = sets[(sets["factor"] != "tilt") | (sets["base_id"] == first)]
    both = split_responses(codes[one_sided.index], one_sided, np.ones(codes.shape[1]))
    assert both[0] is both[1]
    with pytest.raises(ValueError, match="the factors must be the same"):
        code_matrix(chosen, both[0].__class__(["pitch"], *list(vars(both[0]).values())[1:]))


def test_responses_refuse(world):
    _, _, _, codes, sets = world
    with pytest.raises(ValueError, match="rows of codes"):
        responses(codes[1:], sets, np.ones(5))
    keep = ~sets["factor"].str.startswith("placebo").to_numpy()
    with pytest.raises(ValueError, match="without placebo"):
        responses(codes[keep], sets[keep], np.ones(5))
    keep = ~((sets["factor"] == "base") & (sets["base_id"] == "b0")).to_numpy()
    with pytest.raises(ValueError, match="'b0' have no base clip"):
        responses(codes[keep], sets[keep], np.ones(5))


def test_matched_pairs_share_singer_vowel_and_exercise():
    clips = pd.DataFrame({
        "singer": ["f1", "f1", "f1", "f2", "f2"], "vowel": ["a", "a", "e", "a", "a"],
        "exercise": ["scales"] * 4 + ["long_tones"],
        "technique": ["straight", "belt", "belt", "straight", "trill"],
    })
    pairs = matched_pairs(clips)
    assert pairs["factor"].tolist() == ["base", "belt"] and pairs["row"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="shares singer, vowel and exercise"):
        matched_pairs(clips.iloc[2:])
