"""eGeMAPS attributes on known signals, groups and meanings; realism criteria by hand."""

import numpy as np
import pandas as pd
import pytest

from saeutils import attributes, realism

RATE = 44_100
TIME = np.arange(int(1.2 * RATE)) / RATE


def harmonics(hz, gains):
    return 0.2 * sum(g * np.sin(2 * np.pi * hz * (i + 1) * TIME) for i, g in enumerate(gains))


@pytest.fixture(scope="module")
def names():
    return attributes.attribute_names()


def test_pitch_of_a_known_tone(names):
    values = attributes.extract_attributes(harmonics(220, [1, 0.5, 0.3, 0.2]), RATE)
    assert values.shape == (88,) and values.dtype == float
    pitch = values[names.index("F0semitoneFrom27.5Hz_sma3nz_amean")]
    assert pitch == pytest.approx(36, abs=0.2)  # 220 Hz is three octaves above 27.5 Hz


def test_h1_h2_of_opensmile_does_not_see_the_first_harmonic(names):
    """The meaning we print: its H1 is the second harmonic."""
    at = names.index("logRelF0-H1-H2_sma3nz_amean")
    assert "first harmonic does not enter" in attributes.attribute_meaning(names[at]).replace(
        "\n", " ")
    strong = [attributes.extract_attributes(harmonics(220, [g, 0.5, 0.25, 0.2, 0.1]), RATE)[at]
              for g in (0.5, 1.0)]
    second = attributes.extract_attributes(harmonics(220, [0.5, 0.5, 0.5, 0.2, 0.1]), RATE)[at]
    assert abs(strong[1] - strong[0]) < 1.0  # 6 dB more of the first harmonic
    assert strong[0] - second > 4.0  # 6 dB more of the third


def test_level_attribute_follows_gain(names):
    at = names.index("equivalentSoundLevel_dBp")
    tone = harmonics(220, [1, 0.5, 0.3])
    loud, soft = (attributes.extract_attributes(g * tone, RATE)[at] for g in (1.0, 0.5))
    assert loud - soft == pytest.approx(6.02, abs=0.05)


@pytest.mark.parametrize(("samples", "rate", "message"), [
    (TIME, 16_000, "only 44100 Hz"),
    (np.full(RATE, 1.5), RATE, "within -1..1"),
    (np.full(RATE, np.nan), RATE, "finite"),
    (np.zeros(10), RATE, "need 0.1 s"),
])
def test_extract_refuses(samples, rate, message):
    with pytest.raises(ValueError, match=message):
        attributes.extract_attributes(samples, rate)


def test_groups_cover_all_88(names):
    table = attributes.attribute_table(names)
    counts = table["group"].value_counts()
    assert set(counts.index) == set(attributes.GROUPS) and counts.sum() == 88
    assert counts["formants"] == 18 and counts["rhythm"] == 6
    moved = table[table["group"] != table["group_released"]]
    assert moved["attribute"].str.startswith("logRelF0").all() and len(moved) == 4
    with pytest.raises(ValueError, match="belongs to none"):
        attributes.attribute_group("charm_amean")


def clip_table():
    return pd.DataFrame({
        "clip_id": list("abcde"), "singer": ["m1"] * 4 + ["m2"], "exercise": "scales",
        "vowel": ["a", "a", "e", "a", "a"],
        "technique": ["straight", "belt", "belt", "breathy", "belt"],
        "x": [1.0, 4.0, 9.0, 0.5, 7.0],
    })


def test_pairs_by_hand():
    differences = realism.pair_differences(clip_table(), ["x"])
    assert dict(zip(differences["technique"], differences["x"], strict=True)) == {
        "belt": 3.0, "breathy": -0.5}
    twice = pd.concat([clip_table(), clip_table().iloc[:1]])
    with pytest.raises(ValueError, match="two straight clips"):
        realism.pair_differences(twice, ["x"])


def test_comparison_by_hand():
    real = pd.DataFrame({"technique": "belt", "attribute": list("pqrs"), "n_pairs": 9,
                         "q25": 0.0, "q50": [1.0, -1.0, 1.0, 0.1], "q75": 2.0})
    synthetic = real.assign(q50=[2.9, 0.5, 4.0, 5.0])
    quantiles = pd.DataFrame({"technique": "belt", "attribute": list("pqrs"),
                              "q25": 0.0, "q75": 2.0})
    table = realism.compare_contrasts(synthetic, real, quantiles).set_index("attribute")
    assert table["counted"].to_dict() == {"p": True, "q": True, "r": True, "s": False}
    assert table["sign_right"].to_dict() == {"p": True, "q": False, "r": True, "s": True}
    assert table["within_factor_3"].to_dict() == {"p": True, "q": False, "r": False, "s": False}


def test_grouped_accuracy_knows_signal_from_noise():
    rng = np.random.default_rng(0)
    labels = pd.Series(np.tile(list("ab"), 60))
    groups = pd.Series(np.repeat(range(12), 10))
    noise = pd.DataFrame({"x": rng.normal(size=120), "y": rng.normal(size=120)})
    signal = noise.assign(x=noise["x"] + 6 * (labels == "a"))
    for kind in ("linear", "forest", "tree"):
        assert realism.grouped_accuracy(signal, labels, groups, kind=kind)["right"].mean() > 0.95
        assert realism.grouped_accuracy(noise, labels, groups, kind=kind)["right"].mean() < 0.65
    with pytest.raises(ValueError, match="unknown kind 'bush'"):
        realism.grouped_accuracy(noise, labels, groups, kind="bush")


def test_realism_table_says_what_was_met():
    table = realism.realism_table({"all": {"contrast_sign_right": 89.0, "accuracy_attributes": 70.0,
                                           "accuracy_exercise_alone": 25.0}})
    assert table["met"].tolist() == ["no", "yes", ""]


def test_technique_criteria_on_a_factor_that_gives_it_away():
    rng = np.random.default_rng(1)
    clips = pd.DataFrame({"technique": np.tile(list("ab"), 40), "exercise": "scales",
                          "singer": np.repeat(list("wxyz"), 20)})
    factors = pd.DataFrame({"told": (clips["technique"] == "a") * 9.0, "noise": rng.random(80)})
    values = realism.technique_criteria(clips, factors[["noise"]], factors)
    assert values["accuracy_all_factors"] == values["accuracy_best_single_factor"] == 100
    assert values["accuracy_attributes"] < 75 and values["accuracy_majority"] == 50
    assert values["accuracy_exercise_alone"] == 50
