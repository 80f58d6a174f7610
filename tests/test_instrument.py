import numpy as np
import pandas as pd
import pytest

from saeutils.attributes import attribute_label, attribute_names
from saeutils.audit_data import resampled
from saeutils.instrument import (
    NAMED_AFTER,
    harmonic_tone,
    instrument_check,
    named_after,
    names_kept,
    perfect_tones,
)


@pytest.fixture
def causes():
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.normal(size=(60, 2)), columns=["tilt_db", "tonic_st"])


def test_instrument_check_equals_scipy_and_a_regression(causes):
    from scipy.stats import linregress, spearmanr

    rng = np.random.default_rng(1)
    attributes = pd.DataFrame({"a": causes["tilt_db"] + rng.normal(size=60)})
    found = instrument_check(attributes, causes, np.zeros(60)).set_index(["metric", "factor"])
    value = found["value"]
    expected = spearmanr(attributes["a"], causes["tilt_db"]).statistic
    assert value["rank_correlation", "tilt_db"] == pytest.approx(expected)
    slope = linregress(causes["tilt_db"], attributes["a"]).slope
    slope *= causes["tilt_db"].std() / attributes["a"].std()
    assert value["slope", "tilt_db"] == pytest.approx(slope)
    assert (found["n"] == 60).all()


def test_a_voice_does_not_pass_for_a_cause(causes):
    singers = np.repeat(np.arange(6), 10)
    found = instrument_check(pd.DataFrame({"a": singers * 1.0}), causes, singers)
    assert np.allclose(found["value"], 0, atol=1e-12)


def test_tables_of_different_length_are_refused(causes):
    with pytest.raises(ValueError, match="one row per clip"):
        instrument_check(causes, causes, np.zeros(59))


def test_named_after_says_who_answers_to_another_cause(causes):
    attributes = pd.DataFrame({"logRelF0-H1-A3_sma3nz_amean": causes["tilt_db"],
                               "F1frequency_sma3nz_amean": causes["tonic_st"],
                               "F0semitoneFrom27.5Hz_sma3nz_amean": -causes["tonic_st"]})
    causes = causes.assign(f1_scale=np.random.default_rng(2).normal(size=60))
    table = named_after(instrument_check(attributes, causes, np.zeros(60))).set_index("attribute")
    assert table["true_to_name"].to_dict() == {
        "F0semitoneFrom27.5Hz_sma3nz_amean": True, "logRelF0-H1-A3_sma3nz_amean": True,
        "F1frequency_sma3nz_amean": False}
    assert table.loc["F1frequency_sma3nz_amean", "strongest"] == "tonic_st"


def test_the_count_of_true_names_is_repeated_in_bootstrap_samples(causes):
    rng, singers = np.random.default_rng(5), np.repeat(["a", "b", "c"], 20)
    names = ["F0semitoneFrom27.5Hz_sma3nz_amean", "logRelF0-H1-A3_sma3nz_amean"]
    noise = pd.DataFrame(rng.standard_normal((60, 2)), columns=names)  # a toss-up, singer by singer
    count, redrawn = names_kept(noise, causes, singers)
    assert len(redrawn) == 200 and len(set(redrawn)) > 1
    for rows, value in list(zip(resampled(singers), redrawn, strict=True))[:5]:
        part = named_after(instrument_check(noise.iloc[rows], causes.iloc[rows], singers[rows]))
        assert value == part["true_to_name"].sum()
    assert count == named_after(instrument_check(noise, causes, singers))["true_to_name"].sum()


def test_names_are_openSMILEs_and_labels_tell_them_apart():
    names = attribute_names()
    assert set(NAMED_AFTER) <= set(names)
    assert len({attribute_label(name) for name in names}) == len(names) == 88
    assert attribute_label("mfcc1_sma3_amean") == "mfcc1"


def test_a_perfect_tone_has_a_ceiling_of_hnr_and_silence_becomes_a_level():
    tone = harmonic_tone(440.0, 44_100)
    assert np.abs(tone).max() == pytest.approx(0.5) and len(tone) == 66_150
    table = perfect_tones((80.0, 880.0)).set_index(["attribute", "f0_hz", "rate_hz", "silent"])
    value = table["value"].sort_index()
    hnr, level = value["HNRdBACF_sma3nz_amean"], value["F1amplitudeLogRelF0_sma3nz_amean"]
    assert hnr[80.0, 44_100, 0.0] == pytest.approx(5, abs=0.5)
    assert hnr[880.0, 44_100, 0.0] > 24 > 20 > hnr[880.0, 16_000, 0.0]
    assert level[80.0, 44_100, 0.25] < level[80.0, 44_100, 0.0] - 30
    shimmer = value["shimmerLocaldB_sma3nz_amean"]
    assert shimmer[880.0, 16_000, 0.0] > 5 * shimmer[880.0, 44_100, 0.0]
